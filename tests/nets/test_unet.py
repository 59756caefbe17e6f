"""The U-Net, the MLP with time, and the embeddings they share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import linen
from jgen.nets.embeddings import sinusoidal
from jgen.nets.time_mlp import TimeMLP
from jgen.nets.unet import UNet


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (28, 28), (1, 3)])
def test_unet_keeps_any_size(size: tuple[int, int]) -> None:
    x = jnp.ones((2, *size, 3))
    module = UNet((8, 8, 16), attention_levels=(2,), outputs_per_input=2)
    out, _ = jax.eval_shape(module.init_with_output, jax.random.key(0), x, jnp.zeros(2))
    assert out.shape == (2, *size, 6)


@pytest.fixture(scope="module")
def unet() -> tuple:
    module = UNet((8, 12), num_blocks=1, attention_levels=(1,), num_heads=2, dropout_rate=0.5)
    x = jax.random.normal(jax.random.key(0), (3, 7, 6, 2))
    time, condition = jnp.array([0.1, 0.5, 1.0]), jnp.ones((3, 4))
    params, stats = jax.jit(lambda key: linen.init(module, key, x, time, condition))(jax.random.key(1))
    apply = jax.jit(
        lambda params, *args, **kwargs: linen.apply(module, params, stats, *args, **kwargs), static_argnames="train"
    )
    return module, params, apply, (x, time, condition)


def test_unet_starts_at_zero(unet: tuple) -> None:
    _, params, apply, inputs = unet
    assert not np.any(apply(params, *inputs))


def test_unet_sees_each_input_and_no_other_example(unet: tuple) -> None:
    _, params, apply, (x, time, condition) = unet
    params = jax.tree.map(lambda p: p + 0.05, params)
    out = apply(params, x, time, condition)
    for changed in (
        (x.at[0].add(1.0), time, condition),
        (x, time.at[0].set(0.7), condition),
        (x, time, condition.at[0].set(9.0)),
    ):
        other = apply(params, *changed)
        assert float(jnp.abs(other[0] - out[0]).max()) > 1e-3
        np.testing.assert_allclose(other[1:], out[1:], atol=1e-5)


def test_every_parameter_of_the_unet_has_a_gradient(unet: tuple) -> None:
    module, params, _, inputs = unet
    params = jax.tree.map(lambda p: p + 0.05 * jax.random.normal(jax.random.key(p.size), p.shape), params)
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(linen.apply(module, p, {}, *inputs) ** 3)))(params)
    dead = [jax.tree_util.keystr(path) for path, g in jax.tree_util.tree_leaves_with_path(gradient) if not np.any(g)]
    assert dead == []


def test_dropout_of_the_unet_acts_in_training_only(unet: tuple) -> None:
    _, params, apply, inputs = unet
    params = jax.tree.map(lambda p: p + 0.05, params)
    moved = apply(params, *inputs, key=jax.random.key(2), train=True)
    assert not np.allclose(moved, apply(params, *inputs), atol=1e-3)


def test_refuses_impossible_unets() -> None:
    with pytest.raises(ValueError, match="`channels`"):
        UNet(())
    with pytest.raises(ValueError, match="`attention_levels`"):
        UNet((8, 8), attention_levels=(2,))
    with pytest.raises(ValueError, match="`num_heads`"):
        jax.eval_shape(UNet((8,), num_heads=3).init, jax.random.key(0), jnp.ones((1, 4, 4, 1)), jnp.zeros(1))


def test_time_mlp_keeps_shapes_and_starts_at_zero() -> None:
    x, time = jax.random.normal(jax.random.key(0), (3, 4, 2)), jnp.array([0.0, 0.5, 1.0])
    module = TimeMLP(16, 2, outputs_per_input=2)
    params, stats = linen.init(module, jax.random.key(1), x, time, jnp.ones((3, 5)))
    out = linen.apply(module, params, stats, x, time, jnp.ones((3, 5)))
    assert out.shape == (3, 4, 4)
    assert not np.any(out)
    params = jax.tree.map(lambda p: p + 0.05, params)
    first, later = (linen.apply(module, params, stats, x, t, jnp.ones((3, 5))) for t in (time, time[::-1]))
    assert not np.allclose(first[0], later[0])
    np.testing.assert_allclose(first[1], later[1], rtol=1e-5)


def test_sinusoids_are_those_of_the_paper() -> None:
    position = jnp.array([0.0, 3.0, 999.0])
    angle = np.asarray(position)[:, None] * 10_000.0 ** -(np.arange(4) / 3)[None]
    want = np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    np.testing.assert_allclose(sinusoidal(position, 8), want, atol=2e-4)
    with pytest.raises(ValueError, match="`size`"):
        sinusoidal(position, 7)
