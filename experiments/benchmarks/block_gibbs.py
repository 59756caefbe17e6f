"""Block Gibbs sampling of a dense RBM beside THRML, in one run.

    pip install thrml; python -m experiments.benchmarks.block_gibbs [--repeats N]

The same model, in spins ±1 for THRML, with the same chains; a sweep draws all hidden and all visible units. Both are
one jitted scan over sweeps that keeps the last state; the means of both are compared, so that they sample one law.

Measured on two CPU cores shared with other work (JAX 0.10.2, THRML 0.1.4): 2,077 sweeps/s beside 153, a ratio of 13.6;
the units' mean is 0.504 and 0.508. THRML gathers the neighbours of any graph; a dense layer is one matrix product.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks import timing
from jgen import run
from jgen.energy import rbm


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes and repeats."""

    num_visible: int = 256
    num_hidden: int = 128
    num_chains: int = 100
    num_sweeps: int = 100
    repeats: int = 7


def machine(options: Options) -> rbm.RBM:
    """Random couplings."""
    weights, visible, hidden = jax.random.split(jax.random.key(0), 3)
    return rbm.RBM(
        0.1 * jax.random.normal(weights, (options.num_visible, options.num_hidden)),
        0.5 * jax.random.normal(visible, (options.num_visible,)),
        0.5 * jax.random.normal(hidden, (options.num_hidden,)),
    )


def ours(params: rbm.RBM, options: Options) -> Callable[[Any], Any]:
    """(key) -> the chains' visible units after the sweeps."""
    kernel = rbm.gibbs(params)
    start = jnp.zeros((options.num_chains, options.num_visible))
    return jax.jit(lambda key: run(key, kernel, kernel.init(key, start), options.num_sweeps)[0].position)


def theirs(params: rbm.RBM, options: Options) -> Callable[[Any], Any]:
    """The same by THRML: with v = (s + 1)/2, a coupling w becomes w/4 and adds w/4 to both biases."""
    thrml, models = importlib.import_module("thrml"), importlib.import_module("thrml.models")
    visible = [thrml.SpinNode() for _ in range(options.num_visible)]
    hidden = [thrml.SpinNode() for _ in range(options.num_hidden)]
    quarter = params.weights / 4
    biases = [params.visible_bias / 2 + quarter.sum(1), params.hidden_bias / 2 + quarter.sum(0)]
    edges = [(v, h) for v in visible for h in hidden]
    model = models.IsingEBM(visible + hidden, edges, jnp.concatenate(biases), quarter.ravel(), jnp.ones(()))
    blocks = [thrml.Block(hidden), thrml.Block(visible)]
    program = models.IsingSamplingProgram(model, blocks, clamped_blocks=[])
    schedule = thrml.SamplingSchedule(options.num_sweeps, 1, 1)

    def chain(key: Any) -> Any:
        start = [jnp.zeros(options.num_hidden, bool), jnp.zeros(options.num_visible, bool)]
        return thrml.sample_states(key, program, schedule, start, [], [blocks[1]])[0][-1]

    return jax.jit(lambda key: jax.vmap(chain)(jax.random.split(key, options.num_chains)))


def main(options: Options) -> None:
    """Prints the table."""
    params, key = machine(options), jax.random.key(1)
    calls = {"jgen": ours(params, options), "thrml": theirs(params, options)}
    means = [np.asarray(call(key), np.float64).mean() for call in calls.values()]
    seconds = timing.take_turns(
        {name: timing.clock(lambda call=call: call(key)) for name, call in calls.items()}, options.repeats
    )
    rows = [
        {
            "": name,
            "sweeps/s": options.num_sweeps / float(np.median(values)),
            "thrml / this": timing.ratio(seconds["thrml"], values),
            "mean unit": float(mean),
        }
        for (name, values), mean in zip(seconds.items(), means, strict=True)
    ]
    timing.report("block_gibbs", rows, **dataclasses.asdict(options))


if __name__ == "__main__":
    main(tyro.cli(Options))
