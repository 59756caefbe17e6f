"""The convolutional pair: sizes, statistics that belong to their player, samples that do not depend on their batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen import linen
from jgen.adversarial import dcgan, gan

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def trained():
    """A tiny pair after one update, its state before, and its batch."""
    model = dcgan.model(
        SHAPE, latent_size=3, channels=4, generator_optimizer=optax.adam(1e-2), critic_optimizer=optax.adam(1e-2)
    )
    batch = {"x": jax.random.uniform(jax.random.key(0), (8, *SHAPE), minval=-1.0)}
    state = jax.jit(model.init)(jax.random.key(1), batch)
    return model, state, jax.jit(model.update)(jax.random.key(2), state, batch)[0], batch


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (5, 7, 1), (4, 4, 2)])
def test_sizes_come_from_the_data(shape):
    pair = dcgan.networks(shape, 3, channels=4)
    (params, stats), critic = jax.eval_shape(
        lambda key: (
            linen.init(pair.generator, key, jnp.zeros((2, 3)), train=False),
            linen.init(pair.critic, key, jnp.zeros((2, *shape)), train=False),
        ),
        jax.random.key(0),
    )
    out = jax.eval_shape(lambda p, s: linen.apply(pair.generator, p, s, jnp.zeros((2, 3)), train=False), params, stats)
    assert out.shape == (2, *shape)
    logits = jax.eval_shape(lambda p, s: linen.apply(pair.critic, p, s, jnp.zeros((2, *shape)), train=False), *critic)
    assert logits.shape == (2, 1)


def test_number_of_scales():
    assert [dcgan.num_scales(n, n) for n in (4, 5, 8, 28, 32, 64)] == [0, 0, 1, 2, 3, 4]


def test_every_layer_before_a_normalization_has_no_bias(trained):
    params = trained[1].params["generator"]
    biased = {name for name, own in params.items() if "bias" in own and "BatchNorm" not in name}
    assert biased == {"Conv_0"}  # the image's own layer


def test_the_generators_statistics_move_in_its_own_step_only(trained):
    _, state, after, batch = trained
    networks = dcgan.networks(SHAPE, 3, channels=4)
    _, (critic_stats, _) = jax.jit(
        lambda p, s: gan.play_critic(jax.random.key(0), p, s, batch, networks=networks)
    )(state.params, state.stats)  # fmt: skip
    assert isinstance(critic_stats, gan.CriticStats)
    assert jax.tree.structure(critic_stats) == jax.tree.structure(state.stats["critic"])
    before, now = (s.stats["generator"]["batch_stats"]["BatchNorm_0"]["mean"] for s in (state, after))
    np.testing.assert_array_equal(before, jnp.zeros_like(before))
    assert np.any(np.asarray(now) != 0)
    # One step of momentum 0.9 from zero, from the generator's own latents: |mean| is a tenth of a batch's.
    z = gan.latents(jax.vmap(jax.random.fold_in, (None, 0))(_latent_key(), jnp.arange(8)), 3)
    kernel = state.params["generator"]["Dense_0"]["kernel"]
    h = (z @ kernel).reshape(-1, now.shape[0])
    np.testing.assert_allclose(now, 0.1 * h.mean(axis=0), atol=1e-6)


def _latent_key():
    """The key that the generator's first step in update(key(2)) gives to its latents."""
    player = jax.random.fold_in(jax.random.key(2), 1)
    return jax.random.split(jax.random.fold_in(player, 0))[0]


def test_samples_do_not_depend_on_their_batch_and_lie_in_range(trained):
    model, _, state, _ = trained
    # A lambda, so that the mutant below is traced anew.
    eight, three = jax.jit(lambda key: [model.sample(key, state, num)["x"] for num in (8, 3)])(jax.random.key(3))
    np.testing.assert_allclose(eight[:3], three, atol=1e-6)
    assert np.all(np.abs(eight) <= 1)


def test_sampling_with_batch_statistics_is_caught(trained, monkeypatch):
    def wrong(networks, params, stats, z):
        return linen.apply_and_update(networks.generator, params["generator"], stats["generator"], z, train=True)[0]

    monkeypatch.setattr(gan, "generate", wrong)
    with pytest.raises(AssertionError):
        test_samples_do_not_depend_on_their_batch_and_lie_in_range(trained)


def test_arithmetic_is_that_of_means_at_the_length_of_a_latent():
    plus, minus, base = jax.random.normal(jax.random.key(0), (3, 3, 10))
    total = plus.mean(axis=0) - minus.mean(axis=0) + base.mean(axis=0)
    z = dcgan.arithmetic(plus, minus, base)
    np.testing.assert_allclose(jnp.linalg.norm(z), np.sqrt(10), rtol=1e-5)
    np.testing.assert_allclose(z / jnp.linalg.norm(z), total / jnp.linalg.norm(total), atol=1e-6)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"`shape` must be \(height, width, channels\), got \(64,\)"):
        dcgan.networks((64,), 3)
    with pytest.raises(ValueError, match="`channels` must be at least 1"):
        dcgan.networks(SHAPE, 3, channels=0)
