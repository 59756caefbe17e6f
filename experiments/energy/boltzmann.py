"""E1: Boltzmann machine on any graph.

    python -m experiments.energy.boltzmann                  # 64 pixels, 12 hidden units joined to each other as well
    python -m experiments.energy.boltzmann restricted       # no edges among the hidden units: an RBM by exact gradient
    python -m experiments.energy.boltzmann chains           # the default's graph, learned by Gibbs chains
    python -m experiments.energy.boltzmann visible          # every unit joined to every other; no exact likelihood

The pixels are not joined to each other in the first three, so that log Z and log p(v) list the hidden units' states.

Measured with seed 0 on two shared CPU cores, test data, exact unless said otherwise:
    digits        18.68 nats                                                        24 s
    chains        19.17 nats                                                        41 s
    restricted    18.82 nats, an RBM by its exact gradient (`energy.rbm digits_exact`)    20 s
    visible       pair moments of 500 samples 0.020 off the test data's (root mean square), 8 s

Paper: Ackley, Hinton and Sejnowski, "A learning algorithm for Boltzmann machines", 1985.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import evaluation, pictures
from experiments.energy import machines
from experiments.runner import main
from experiments.system import System
from jgen._checks import one_of
from jgen._types import Key
from jgen.energy import boltzmann, graphs
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment

EDGES = ("hidden", "restricted", "complete")


@dataclasses.dataclass(frozen=True)
class Config(machines.Config):
    """The knobs worth turning."""

    hidden_size: int = 12
    edges: str = "hidden"
    """Beside those between visible and hidden units: among the "hidden" ones, none ("restricted"), all ("complete")."""
    exact: bool = True
    """Descend the likelihood itself, or contrast held with free-running Gibbs chains."""
    num_chains: int = 100
    cd_steps: int = 5
    """Sweeps of the free chains per update."""
    num_held_steps: int = 5
    """Sweeps of the hidden units per update, the pixels held."""
    learning_rate: float = 0.1
    """Falls linearly to 0."""
    momentum: float = 0.5
    num_sample_steps: int = 1_000


_BENCHMARK = Config(edges="restricted", num_train=1_500, num_steps=4_500, eval_every=1_500)

PRESETS = {
    "digits": Config(),
    "smoke": Config(num_steps=2, eval_every=2, hidden_size=4, num_chains=8, num_sample_steps=5),
    "restricted": _BENCHMARK,
    "chains": Config(exact=False, learning_rate=0.05),
    "visible": Config(edges="complete", hidden_size=0, exact=False, learning_rate=0.02, num_sample_steps=300),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    rows = machines.load_rows(config, seed)
    graph = graph_of(config, rows.size)
    model = boltzmann.model(
        graph,
        machines.falling_sgd(config.learning_rate, config.momentum, config.num_steps),
        exact=config.exact,
        num_chains=config.num_chains,
        num_steps=config.cd_steps,
        num_held_steps=config.num_held_steps,
        num_sample_steps=config.num_sample_steps,
    )
    return Experiment(
        model,
        rows.data,
        config.num_steps,
        functools.partial(_measure, config, rows, graph, model),
        functools.partial(_draw, rows, graph, model),
        eval_every=config.eval_every,
        select="nll" if model.log_prob and config.num_train is None else None,
    )


def graph_of(config: Config, num_visible: int) -> graphs.Graph:
    """The graph that `config.edges` names."""
    one_of("edges", config.edges, EDGES)
    num_units = num_visible + config.hidden_size
    joined = 1 - np.eye(num_units)
    if config.edges != "complete":
        joined[:num_visible, :num_visible] = 0
    if config.edges == "restricted":
        joined[num_visible:, num_visible:] = 0
    return graphs.graph(joined, num_visible)


def _measure(
    config: Config, rows: machines.Rows, graph: graphs.Graph, model: Any, key: Key, state: Any
) -> dict[str, Measurement]:
    how = "exact gradient" if config.exact else f"{config.cd_steps} sweeps of persistent chains per update"
    edges = {"hidden": "joined to each other", "restricted": "not joined", "complete": "all units joined"}[config.edges]
    protocol = f"{rows.protocol}, {config.hidden_size} hidden units, {edges}, {how}"
    size = Measurement(float(len(graph.edges)), "edges", "none", "-", protocol)
    if model.log_prob is None:
        return {"num_edges": size, **_first_moments(rows, model, protocol, key, state)}
    nll = evaluation.averages(key, rows.data, "test", lambda _, batch: {"nll": -model.log_prob(state, batch)})["nll"]
    log_z = float(jax.jit(lambda params: boltzmann.log_partition(params, graph))(state.params))
    exact = Measurement(nll, "nats", "exact", "test", f"{protocol}, log Z by enumeration")
    return {"nll": exact, "log_z": Measurement(log_z, "nats", "exact", "-", protocol), "num_edges": size}


def _first_moments(rows: machines.Rows, model: Any, protocol: str, key: Key, state: Any) -> dict[str, Measurement]:
    """How far the samples' correlations are from the test data's: what a machine without hidden units is to match."""
    drawn = np.asarray(jax.jit(model.sample, static_argnums=2)(key, state, 500)["x"])
    test = rows.all("test")
    error = np.sqrt(np.mean((drawn.T @ drawn / len(drawn) - test.T @ test / len(test)) ** 2))
    return {
        "moment_error": Measurement(float(error), "-", "estimate", "test", f"{protocol}, root mean square, 500 samples")
    }


def _draw(rows: machines.Rows, graph: graphs.Graph, model: Any, key: Key, state: Any, directory: pathlib.Path) -> None:
    samples = jax.jit(model.sample, static_argnums=2)(key, state, 500)["x"]
    pictures.grid(directory / "samples.png", 1 - rows.images(samples[: machines.SHOWN]), rows.columns)
    matrix = np.asarray(boltzmann.couplings(state.params, graph))
    visible = graph.num_visible
    if visible < graph.num_units:
        machines.draw_filters(directory / "filters.png", rows, matrix[:visible, visible:])
    lateral = matrix[visible:, visible:] if visible < graph.num_units else matrix
    named = {f"couplings, from {lateral.min():.1f} to {lateral.max():.1f}": lateral}
    pictures.heatmap(directory / "couplings.png", named, (0, len(lateral), 0, len(lateral)))
    if len(graphs.split(graph, np.arange(visible, graph.num_units))[1]) <= boltzmann.CHEAP_ENUMERATED:
        free = jax.jit(lambda v: boltzmann.free_energy(state.params, graph, v))
        energies = {"training": rows.all("train")[:500], "test": rows.all("test")[:500], "samples": samples}
        pictures.histograms(
            directory / "energies.png",
            {name: free(jnp.asarray(v)) for name, v in energies.items()},
            "free energy, nats",
        )


SYSTEM = System(
    id="E1",
    module="energy.boltzmann",
    title="Boltzmann machine on any graph",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "restricted": {
            "nll": {
                "value": 19.25,
                "source": "exact maximum likelihood, a NumPy program, 3 seeds, ± 0.06",
                "protocol": "the same split and hidden units; its momentum and weight decay are not known",
            }
        },
    },
)

if __name__ == "__main__":
    main(SYSTEM)
