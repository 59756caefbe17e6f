"""A6: NADE, one hidden layer in a fixed but arbitrary order.

    python -m experiments.autoregressive.nade                            # 8×8 digits, binarized at half
    python -m experiments.autoregressive.nade binarized_mnist --data DIR # the .amat files, or tfds:binarized_mnist
    python -m experiments.autoregressive.nade dna --data dna.npz         # binary tables: train, valid, test
    python -m experiments.autoregressive.nade lbfgs                      # second order, beside `full_batch` (Adam)

Measured (seed 0, two shared CPU cores, test data, exact): digits 17.05 nats (s.e. 0.24), 57 s. binarized_mnist 88.21
nats (s.e. 0.23; the state of update 30,000 was best on validation data), 18 min on one shared core. There steps of
momentum on 20 images beat Adam on 100, which fits sooner and generalizes worse (with 500 sigmoid units 90.4 nats on
validation data against 90.9 at the same training NLL of 86.4), and 1,000 rectified units beat 500 sigmoid ones (89.1).
On full batches, 300 updates of 50 hidden units: L-BFGS 29 s, Adam 15 s; training NLL over the last 100 updates 12.94
and 16.36. L-BFGS fits sooner and overfits sooner: with the state that did best on validation data, test NLL is 17.90
(lbfgs, of update 110) and 17.58 (full_batch, update 300). Binary tables, 25 to 140 s each on one core: nltcs 6.010 nats
(s.e. 0.054), plants 12.315 (0.135), mushrooms 9.640 (0.019), dna 83.185 (0.288; split 1600 / 400, not the paper's).

Papers: Larochelle and Murray, "The Neural Autoregressive Distribution Estimator", 2011; Uria, Côté, Gregor, Murray,
Larochelle, "Neural Autoregressive Distribution Estimation", 2016.
"""

import dataclasses

from experiments.autoregressive import debd, rows
from experiments.runner import main
from experiments.system import System
from jgen.autoregressive import nade
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config(rows.Config):
    """The knobs worth turning."""

    hidden_size: int = 500
    activation: str = "sigmoid"
    """sigmoid, relu or tanh."""
    order: int | None = 0
    """The seed of the order of the variables; None takes them as they come."""


_FULL_BATCH = Config(
    hidden_size=50, batch_size=1_200, average_decay=0.0, num_steps=300, eval_every=10, patience=30, learning_rate=1e-2
)

PRESETS = {
    "digits": Config(weight_decay=0.02),
    "smoke": Config(num_steps=2, eval_every=2, hidden_size=16, batch_size=16),
    "lbfgs": dataclasses.replace(_FULL_BATCH, optimizer="lbfgs"),
    "full_batch": _FULL_BATCH,
    "binarized_mnist": Config(
        data="tfds:binarized_mnist",
        hidden_size=1_000,
        activation="relu",
        optimizer="sgd",
        average_decay=0.999,
        batch_size=20,
        num_steps=50_000,
        eval_every=5_000,
        patience=4,
    ),
    **{name: Config(data=f"{name}.npz", num_steps=8_000, eval_every=500) for name in debd.NAMES},
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    sizes = {"hidden_size": config.hidden_size, "activation": config.activation, "order": config.order}
    return rows.fixed(config, seed, lambda num_dims: nade.network(num_dims, **sizes))


SYSTEM = System(
    id="A6",
    module="autoregressive.nade",
    title="NADE: neural autoregressive distribution estimator",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "binarized_mnist": {
            "nll": {"value": 88.33, "source": "Uria et al., 2016", "protocol": "static binarization, one order"}
        },
        **debd.references("nade"),
    },
)

if __name__ == "__main__":
    main(SYSTEM)
