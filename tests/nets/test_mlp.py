"""The MLP against the same arithmetic in NumPy."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from jgen import linen
from jgen.nets.mlp import MLP


def test_is_affine_maps_with_an_activation_between() -> None:
    x = jax.random.normal(jax.random.key(0), (5, 3))
    module = MLP((4, 2), activation=nn.tanh)
    params, stats = linen.init(module, jax.random.key(1), x)
    first, last = params["Dense_0"], params["Dense_1"]
    expected = np.tanh(x @ first["kernel"] + first["bias"][None]) @ last["kernel"] + last["bias"][None]
    np.testing.assert_allclose(linen.apply(module, params, stats, x), expected, rtol=1e-5, atol=1e-6)
    assert stats == {}


def test_zero_last_starts_at_zero() -> None:
    x = jax.random.normal(jax.random.key(0), (5, 3))
    module = MLP((4, 2), zero_last=True)
    assert not np.any(linen.apply(module, *linen.init(module, jax.random.key(1), x), x))


def test_dropout_acts_in_training_only() -> None:
    x = jax.random.normal(jax.random.key(0), (5, 3))
    module = MLP((64, 2), dropout_rate=0.5)
    params, stats = linen.init(module, jax.random.key(1), x)
    still = linen.apply(module, params, stats, x)
    moved = linen.apply(module, params, stats, x, key=jax.random.key(2), train=True)
    assert not np.allclose(still, moved)


def test_refuses_an_empty_layer() -> None:
    with pytest.raises(ValueError, match="`sizes`"):
        MLP((4, 0))
