"""The residual convolutional network: sizes, its zero start, its patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import linen
from jgen.math.bijectors import squeeze, unsqueeze
from jgen.nets.resnet import ResNet


def run(net, x):
    params, _ = jax.jit(lambda key: linen.init(net, key, x))(jax.random.key(0))
    return params, jax.jit(lambda params: linen.apply(net, params, {}, x))(params)


@pytest.mark.parametrize("patches", [False, True])
def test_starts_at_zero_and_keeps_the_size(patches):
    _, out = run(ResNet(3, 1, 5, patches=patches), jnp.ones((2, 4, 6, 2)))
    np.testing.assert_array_equal(out, jnp.zeros((2, 4, 6, 5)))


def test_patches_are_the_same_network_on_squeezed_pixels():
    x = jax.random.normal(jax.random.key(1), (2, 4, 6, 2))
    params, out = run(ResNet(3, 1, 5, patches=True, zero_last=False), x)
    inner = linen.apply(ResNet(3, 1, 20, zero_last=False), params, {}, squeeze(x))
    np.testing.assert_allclose(out, unsqueeze(inner), atol=1e-6)


def test_odd_images_have_no_patches():
    with pytest.raises(ValueError, match="even height and width"):
        run(ResNet(3, 1, 5, patches=True), jnp.ones((2, 5, 6, 2)))
