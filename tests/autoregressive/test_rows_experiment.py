"""The optimizers of the experiments on rows, and MADE's ensembles."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.autoregressive import made as made_experiment
from experiments.autoregressive import rows
from jgen.autoregressive import made

PARAMS = {"kernel": jnp.array([[2.0, -4.0]]), "bias": jnp.array([3.0])}
GRADS = {"kernel": jnp.array([[0.5, 1.0]]), "bias": jnp.array([-1.0])}


@pytest.mark.parametrize("weight_decay", [0.0, 0.25])
def test_sgd_shrinks_kernels_beside_its_momentum(weight_decay):
    """v ← 0.9 v + g and w ← w − η(v + λw), where w is a kernel; two steps by hand, η along its cosine."""
    config = rows.Config(optimizer="sgd", learning_rate=0.1, weight_decay=weight_decay, num_steps=10)
    optimizer = rows.optimizer(config)
    state, params = optimizer.init(PARAMS), PARAMS
    for _ in range(2):
        updates, state = optimizer.update(GRADS, state, params)
        params = optax.apply_updates(params, updates)
    expected = {name: np.asarray(value) for name, value in PARAMS.items()}
    for step, velocity in enumerate((1.0, 1.9)):
        rate = 0.1 * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * step / 10)))
        for name, decay in (("kernel", weight_decay), ("bias", 0.0)):
            expected[name] = expected[name] - rate * (velocity * np.asarray(GRADS[name]) + decay * expected[name])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), params, expected)


def test_nets_of_an_ensemble_have_weights_and_orders_of_their_own():
    config = made_experiment.Config(hidden_size=8, num_masks=2, num_nets=2)
    experiment = made_experiment.build(config, 5)
    x = experiment.data.train(0)
    state = experiment.model.init(jax.random.key(0), x)
    module = made.MADE((8,))
    each = [
        made.log_prob(module, params, made.degrees(5 + i, 64, (8,), num_masks=2), x["x"])
        for i, params in enumerate(state.params)
    ]
    assert not np.allclose(*each)
    log_prob: Any = experiment.model.log_prob
    np.testing.assert_allclose(log_prob(state, x), np.logaddexp(*each) - np.log(2), rtol=1e-5)
