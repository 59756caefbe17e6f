"""What an experiment module declares, so that one command line, catalogue and report serve all of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jgen.train import Experiment, Outcome


@dataclasses.dataclass(frozen=True)
class System:
    """One runnable system.

    Attributes:
        id: its row in the catalogue, such as "L3".
        module: "family.system", the module's name below `experiments`.
        title: one line.
        kind: the kind of its main number: "exact", "bound", "estimate" or "none".
        config: a flat frozen dataclass; its fields are the flags. It has `data` (a source) and, where something is
            trained, `num_steps`.
        presets: {name: config}; the first is the default, and "smoke" (a few steps) is among them.
        build: (config, seed) -> Experiment.
        retrain: (config, seed, outcome of `build`'s experiment) -> an experiment that starts anew and gives the result,
            such as one on all data for as many updates as early stopping chose; None keeps the outcome.
        references: {preset: {metric: {"value", "source", "protocol"}}}, what the papers reached.
    """

    id: str
    module: str
    title: str
    kind: str
    config: type[Any]
    presets: Mapping[str, Any]
    build: Callable[[Any, int], Experiment]
    retrain: Callable[[Any, int, Outcome], Experiment] | None = None
    references: Mapping[str, Mapping[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
