"""What an experiment module declares, so that one command line, catalogue and report serve all of them."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jgen.train import Experiment


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
        references: {preset: {metric: {"value", "source", "protocol"}}}, what the papers reached.
    """

    id: str
    module: str
    title: str
    kind: str
    config: type[Any]
    presets: Mapping[str, Any]
    build: Callable[[Any, int], Experiment]
    references: Mapping[str, Mapping[str, Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
