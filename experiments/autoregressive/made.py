"""A10: MADE, exact likelihoods from one masked pass, a mixture over orders and connectivities.

    python -m experiments.autoregressive.made                            # 8×8 digits, binarized at half
    python -m experiments.autoregressive.made binarized_mnist --data DIR # the .amat files, or tfds:binarized_mnist
    python -m experiments.autoregressive.made two_layers --data DIR      # the same data, two residual layers
    python -m experiments.autoregressive.made dna --data dna.npz         # binary tables: train, valid, test

Measured (seed 0, two shared CPU cores, test data, exact): digits 16.82 nats (s.e. 0.21), 16 s. Binarized MNIST as
a mixture of 32 orders, from four nets that each have weights and 8 masks of their own (glibc told to keep memory,
experiments.benchmarks.allocator): one layer of 3,000 units, binarized_mnist, 88.21 nats (s.e. 0.22), 687 s, 21 million
weights in all; two residual layers of 2,000, two_layers, 86.82 nats (s.e. 0.22), 2,480 s, 31 million. The paper's 88.04
and 86.64 are of one net (13 and 77 million). One net alone overfits, and nets that share nothing err differently: one
layer of 8,000 units gave 88.25 with 8 masks (88,000 updates of 20), two layers 88.16 with 16 (120,000 of 50).
Four nets also need MALLOC_ARENA_MAX=1 for glibc to keep it all: 51 to 55 ms an update of two_layers, 75 to 79 without.
Binary tables, 16 orders, 12 to 21 s each: nltcs 5.991 (s.e. 0.053), plants 12.477 (0.129), mushrooms 9.988 (0.017),
dna 82.341 (0.303; split 1600 / 400, not the paper's). Fixed-point sampling takes 4.6 sweeps on average, 8 at most, of
digits (64 are the bound), 7.7 and 11 of dna (180), 10.0 and 16 of one layer's net of binarized MNIST (784).

Paper: Germain, Gregor, Murray, Larochelle, "MADE: Masked Autoencoder for Distribution Estimation", 2015.
"""

import dataclasses
import functools
from typing import Any

import jax
import optax

from experiments.autoregressive import debd, rows
from experiments.runner import main
from experiments.system import System
from jgen._types import Key
from jgen.autoregressive import made
from jgen.learners import ensemble
from jgen.metrics.measurement import Measurement
from jgen.model import Model
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config(rows.Config):
    """The knobs worth turning."""

    hidden_size: int = 500
    num_layers: int = 1
    num_masks: int = 8
    """Components (order and connectivity) of one net's mixture; 1 is a single autoregressive net."""
    num_nets: int = 1
    """Nets with weights of their own, each with its own components; the mixture is over the components of all."""
    order: str = "random"
    direct: bool = True
    residual: bool = False
    """Hidden layers after the first add to the one before."""


PRESETS = {
    "digits": Config(),
    "smoke": Config(num_steps=2, eval_every=2, hidden_size=32, num_masks=2),
    "binarized_mnist": Config(
        data="tfds:binarized_mnist",
        hidden_size=3000,
        num_nets=4,
        optimizer="sgd",
        learning_rate=0.03,
        weight_decay=5e-4,
        average_decay=0.999,
        batch_size=50,
        num_steps=18_000,
        eval_every=6_000,
    ),
    "two_layers": Config(
        data="tfds:binarized_mnist",
        hidden_size=2000,
        num_layers=2,
        residual=True,
        num_nets=4,
        optimizer="sgd",
        learning_rate=0.02,
        weight_decay=1e-3,
        average_decay=0.999,
        batch_size=50,
        num_steps=45_000,
        eval_every=15_000,
    ),
    "paper": Config(
        data="tfds:binarized_mnist",
        hidden_size=8000,
        num_layers=2,
        num_masks=32,
        optimizer="adagrad",
        learning_rate=1e-2,
        average_decay=0.0,
        num_steps=150_000,
        eval_every=1_500,
        patience=10,
    ),
    **{name: Config(data=f"{name}.npz", num_masks=16, num_steps=8_000, eval_every=500) for name in debd.NAMES},
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""

    def model_of(num_dims: int, optimizer: optax.GradientTransformation) -> Model[Any]:
        del num_dims
        return (
            ensemble([net(optimizer, i) for i in range(config.num_nets)]) if config.num_nets > 1 else net(optimizer, 0)
        )

    def net(optimizer: optax.GradientTransformation, index: int) -> Model[Any]:
        return made.model(
            optimizer,
            hidden_sizes=(config.hidden_size,) * config.num_layers,
            num_masks=config.num_masks,
            order=config.order,
            direct=config.direct,
            residual=config.residual,
            mask_seed=seed + index,
        )

    protocol = f"mixture of {config.num_nets * config.num_masks} orders"
    experiment = rows.experiment(config, seed, model_of, protocol=protocol)
    return dataclasses.replace(experiment, measure=functools.partial(_measure, config, seed, experiment.measure))


def _measure(config: Config, seed: int, likelihoods: Any, key: Key, state: Any) -> dict[str, Measurement]:
    """What every model of rows reports, and the passes that fixed-point sampling takes (of the first net)."""
    sizes = (config.hidden_size,) * config.num_layers
    first = state.params[0] if config.num_nets > 1 else state.params
    num_inputs = first["output"]["bias"].shape[0]
    masks = {"num_masks": config.num_masks, "order": config.order, "shared": config.residual}
    wiring = made.degrees(seed, num_inputs, sizes, **masks)
    module = made.MADE(sizes, direct=config.direct, residual=config.residual)
    draw = jax.jit(lambda params: made.fixed_point(module, key, params, wiring, rows.NUM_ROWS)[1])
    return {**likelihoods(key, state), **rows.sweeps(draw(first), f"rows of {num_inputs} values")}


_PAPER, _STATIC = "MADE, 2015", "static binarization"
SYSTEM = System(
    id="A10",
    module="autoregressive.made",
    title="MADE: masked autoencoder",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "binarized_mnist": {"nll": {"value": 88.04, "source": f"{_PAPER}, one layer, 32 masks", "protocol": _STATIC}},
        **{
            name: {"nll": {"value": 86.64, "source": f"{_PAPER}, two layers, 32 masks", "protocol": _STATIC}}
            for name in ("two_layers", "paper")
        },
        **debd.references("made"),
    },
)

if __name__ == "__main__":
    main(SYSTEM)
