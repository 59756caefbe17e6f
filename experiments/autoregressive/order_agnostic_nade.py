"""A8: order-agnostic (deep) NADE, one net for every order and every conditional p(x_k | any subset).

    python -m experiments.autoregressive.order_agnostic_nade                            # 8×8 digits, binarized at half
    python -m experiments.autoregressive.order_agnostic_nade binarized_mnist --data DIR # the .amat files
    python -m experiments.autoregressive.order_agnostic_nade dna --data dna.npz         # binary tables

Measured (seed 0, two shared CPU cores, test data, exact): digits 16.14 nats (s.e. 0.21) with 16 orders, 16.84 on
average with one, 19 s. one_layer on binarized MNIST 87.87 nats (s.e. 0.22) with 128 orders, 91.89 on average with one,
26 min of training and 12 of evaluation on one shared core; without weight decay it overfits, to 88.03. Binary tables,
one layer, 16 orders, 35 to 70 s each on one core: nltcs 5.993 nats (s.e. 0.053), plants 12.413 (0.129), mushrooms
10.101 (0.016), dna 82.582 (0.335; split 1600 / 400, not the paper's).

Papers: Uria, Murray, Larochelle, "A Deep and Tractable Density Estimator", 2014; with Côté and Gregor, "Neural
Autoregressive Distribution Estimation", 2016.
"""

import dataclasses

from experiments.autoregressive import debd, subsets
from experiments.runner import main
from experiments.system import System
from jgen.autoregressive import order_agnostic_nade
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config(subsets.Config):
    """The knobs worth turning."""

    hidden_size: int = 500
    num_layers: int = 2


_MNIST = Config(
    data="tfds:binarized_mnist",
    num_orders=128,
    valid_draws=4,
    average_decay=0.999,
    eval_batch_size=500,
    num_steps=200_000,
    eval_every=5_000,
    patience=6,
)
_TABLE = Config(
    num_layers=1,
    learning_rate=3e-3,
    weight_decay=0.1,
    eval_batch_size=500,
    num_steps=12_000,
    eval_every=600,
)
PRESETS = {
    "digits": Config(),
    "grey": Config(binarized=False),
    "smoke": Config(num_steps=2, eval_every=2, hidden_size=16, num_orders=2, valid_draws=1, test_draws=1),
    "binarized_mnist": _MNIST,
    "one_layer": dataclasses.replace(_MNIST, num_layers=1, weight_decay=0.02),
    **{name: dataclasses.replace(_TABLE, data=f"{name}.npz") for name in debd.NAMES},
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    sizes = (config.hidden_size,) * config.num_layers

    def network_of(shape, levels):
        return order_agnostic_nade.network(shape, levels, hidden_sizes=sizes)

    return subsets.experiment(config, seed, network_of)


def _mnist(value: float, layers: str) -> dict[str, dict[str, object]]:
    source = f"Uria et al., 2014, {layers}, 128 orders, by the authors' plotting code"
    return {"nll": {"value": value, "source": source, "protocol": "static binarization"}}


SYSTEM = System(
    id="A8",
    module="autoregressive.order_agnostic_nade",
    title="Order-agnostic deep NADE",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "binarized_mnist": _mnist(85.10, "two layers"),
        "one_layer": _mnist(87.71, "one layer"),
        **debd.references("order_agnostic_nade"),
    },
)

if __name__ == "__main__":
    main(SYSTEM)
