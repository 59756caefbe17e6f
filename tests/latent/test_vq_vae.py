"""The VQ-VAE's gradients exactly, and its two-stage bound against the sum over all codes."""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jgen.autoregressive import image_transformer, raster
from jgen.latent import codebook, vq_networks, vq_prior, vq_vae
from jgen.latent.vq_vae import Networks, Quantizer
from jgen.learners import GradientState
from jgen.math import likelihoods

ADAM = optax.adam(1e-2)
BATCH = {"x": np.random.default_rng(0).integers(0, 2, (16, 6)).astype(np.float32)}
AVERAGE, GRADIENT = Quantizer(4, commitment=0.3), Quantizer(4, "gradient", 0.3)


class Free(nn.Module):
    """An encoder whose outputs are its parameters: the gradient of these is that of z."""

    @nn.compact
    def __call__(self, x, *, train=False):
        return self.param("z", nn.initializers.normal(1.0), (len(x), 2, 3))


def networks(num_vectors=2):
    return vq_vae.dense((6,), likelihoods.Bernoulli(), 3, num_vectors=num_vectors, hidden_sizes=(8,))


def free():
    return Networks(Free(), networks().decoder, likelihoods.Bernoulli(), 3)


def trained(quantizer, num_steps=30):
    model = vq_vae.model(networks(), quantizer, ADAM)
    state, update = model.init(jax.random.key(0), BATCH), jax.jit(model.update)
    for step in range(num_steps):
        state, _ = update(jax.random.key(step), state, BATCH)
    return model, state


def gradients(quantizer, seed=0):
    """(params, stats, gradient of the loss, z, e_k, gradient of the mean distortion at the decoder's input)."""
    parts = free()
    state = vq_vae.model(parts, quantizer, ADAM).init(jax.random.key(seed), BATCH)
    params = {**state.params, "encoder": {"z": state.params["encoder"]["z"] + 0.2}}

    def loss(params):
        return vq_vae.loss(
            jax.random.key(1), params, state.stats, BATCH, train=True, networks=parts, quantizer=quantizer
        )[0]

    def distortion(e):
        raw = vq_networks.run_decoder(params, state.stats, e, parts).out
        return jnp.mean(-parts.likelihood.log_prob(raw, jnp.asarray(BATCH["x"])))

    z = params["encoder"]["z"]
    e = vq_vae.table(params, state.stats)[codebook.nearest(z, vq_vae.table(params, state.stats))]
    return params, state.stats, jax.grad(loss)(params), z, e, jax.grad(distortion)(e)


def check_encoder_gradient(quantizer):
    _, _, grads, z, e, at_decoder = gradients(quantizer)
    expected = at_decoder + 2 * quantizer.commitment * (z - e) / len(z)
    np.testing.assert_allclose(grads["encoder"]["z"], expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("quantizer", [AVERAGE, GRADIENT], ids=["average", "gradient"])
def test_the_encoder_gets_the_decoders_gradient_and_the_commitment(quantizer):
    check_encoder_gradient(quantizer)


def check_code_gradient():
    params, _, grads, z, e, _ = gradients(GRADIENT)
    member = jax.nn.one_hot(codebook.nearest(z, params["codes"]), 4)
    expected = jnp.einsum("bik,bid->kd", member, 2 * (e - z)) / len(z)
    np.testing.assert_allclose(grads["codes"], expected, rtol=1e-5, atol=1e-7)


def test_codes_that_learn_by_gradient_are_drawn_to_their_vectors_alone():
    check_code_gradient()


def test_codes_that_learn_by_averages_are_no_parameters():
    assert "codes" not in gradients(AVERAGE)[0]


def test_commitment_without_stopped_gradients_is_caught(monkeypatch):
    monkeypatch.setattr(jax.lax, "stop_gradient", lambda x: x)
    with pytest.raises(AssertionError):
        check_code_gradient()
    with pytest.raises(AssertionError):
        check_encoder_gradient(GRADIENT)


def test_a_quantizer_that_stops_the_gradient_is_caught(monkeypatch):
    monkeypatch.setattr(codebook, "straight_through", lambda z, e: e)
    with pytest.raises(AssertionError):
        check_encoder_gradient(AVERAGE)


def test_a_commitment_summed_over_the_batch_is_caught(monkeypatch):
    right = vq_vae._squared
    monkeypatch.setattr(vq_vae, "_squared", lambda one, other: len(one) * right(one, other))
    with pytest.raises(AssertionError):
        check_encoder_gradient(AVERAGE)


def test_decoder_sees_the_codes_bit_for_bit(monkeypatch):
    seen = []
    right = vq_networks.run_decoder
    monkeypatch.setattr(vq_vae, "run_decoder", lambda p, s, e, n, **k: (seen.append(e), right(p, s, e, n, **k))[1])
    parts = networks()
    state = vq_vae.model(parts, AVERAGE, ADAM).init(jax.random.key(0), BATCH)
    vq_vae.loss(jax.random.key(1), state.params, state.stats, BATCH, train=True, networks=parts, quantizer=AVERAGE)
    k = vq_vae.codes(state.params, state.stats, BATCH["x"], networks=parts)
    np.testing.assert_array_equal(seen[0], state.stats["codebook"].codes[k])


def every_code():
    return jnp.asarray(list(itertools.product(range(4), repeat=2)), jnp.int32)


def log_likelihood(params, stats, x, log_prior):
    """log Σ_k p(k) p(x|e_k) by enumeration of all k."""
    parts, k = networks(), every_code()
    raw = vq_networks.run_decoder(params, stats, vq_vae.table(params, stats)[k], parts).out
    each = jax.vmap(lambda row: parts.likelihood.log_prob(raw, jnp.broadcast_to(row[None], (len(k), 6))))(x)
    return jax.scipy.special.logsumexp(each + log_prior(k)[None], axis=1)


@pytest.mark.parametrize("quantizer", [AVERAGE, GRADIENT], ids=["average", "gradient"])
def test_first_stage_is_below_the_sum_over_all_codes(quantizer):
    model, state = trained(quantizer)
    x = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=6)))
    exact = log_likelihood(state.params, state.stats, x, lambda k: vq_vae.log_frequency_prior(state.stats, k))
    np.testing.assert_allclose(jnp.sum(jnp.exp(exact)), 1.0, rtol=1e-4)
    bound, rate, distortion = vq_vae.terms(state.params, state.stats, {"x": x}, networks=networks())
    assert np.all(np.asarray(bound) <= np.asarray(exact) + 1e-5)
    np.testing.assert_allclose(bound, -(rate + distortion), rtol=1e-6)
    assert model.log_bound is not None
    np.testing.assert_array_equal(model.log_bound(jax.random.key(0), state, {"x": x}), bound)


def prior_model():
    net = image_transformer.network((1, 2, 1), 4, num_layers=1, num_heads=2, width=8)
    return net, raster.model(net, ADAM)


def second_stage(first, num_steps=40):
    net, prior = prior_model()
    model = vq_prior.model(networks(), first, prior)
    state, update = model.init(jax.random.key(0), BATCH), jax.jit(model.update)
    for step in range(num_steps):
        state, metrics = update(jax.random.key(step), state, BATCH)
    return model, state, net, metrics


@pytest.fixture(scope="module", name="both")
def _both():
    """(trained first stage, what `second_stage` gives on it)."""
    first = trained(AVERAGE)[1]
    return first, second_stage(first)


def test_second_stage_is_below_the_sum_over_all_codes_and_above_the_first(both):
    first, (model, state, net, _) = both
    x = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=6)))

    def log_prior(k):
        return raster.log_prob(net, state.params["prior"], vq_prior.code_images(k))

    exact = log_likelihood(state.params["autoencoder"], first.stats, x, log_prior)
    np.testing.assert_allclose(jnp.sum(jnp.exp(exact)), 1.0, rtol=1e-4)
    bound = np.asarray(model.log_bound(jax.random.key(0), state, {"x": x}))
    assert np.all(bound <= np.asarray(exact) + 1e-5)
    trained_on = jnp.asarray(BATCH["x"])
    better = model.log_bound(jax.random.key(0), state, {"x": trained_on})
    alone = vq_vae.terms(first.params, first.stats, {"x": trained_on}, networks=networks()).bound
    assert float(jnp.mean(better)) > float(jnp.mean(alone))


def test_a_prior_that_is_not_normalized_is_caught(both):
    first, (_, state, net, _) = both

    def log_prior(k):
        return 1.0 + raster.log_prob(net, state.params["prior"], vq_prior.code_images(k))

    x = jnp.asarray(list(itertools.product([0.0, 1.0], repeat=6)))
    exact = log_likelihood(state.params["autoencoder"], first.stats, x, log_prior)
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(jnp.sum(jnp.exp(exact)), 1.0, rtol=1e-4)


def test_a_trained_first_stage_stays_as_it_is(both):
    first, (_, state, _, metrics) = both
    jax.tree.map(np.testing.assert_array_equal, state.params["autoencoder"], first.params)
    jax.tree.map(np.testing.assert_array_equal, state.autoencoder.stats, first.stats)
    assert list(metrics) == ["prior_nll"]


def test_both_stages_learn_together():
    autoencoder = vq_vae.model(networks(), AVERAGE, ADAM)
    _, state, _, metrics = second_stage(autoencoder)
    alone = trained(AVERAGE, 0)[1]
    assert {"loss", "perplexity", "prior_nll"} <= set(metrics)
    assert not np.array_equal(state.autoencoder.stats["codebook"].codes, alone.stats["codebook"].codes)


def test_completion_keeps_what_is_known_and_draws_the_rest_from_the_prior(both):
    _, (_, state, net, _) = both
    k = jnp.tile(jnp.array([[2, 0]]), (4_000, 1))
    drawn = vq_prior.complete(jax.random.key(0), state, k, np.array([True, False]), networks=networks(), network=net)
    np.testing.assert_array_equal(drawn[:, 0], 2)
    given = jnp.stack([jnp.full(4, 2), jnp.arange(4)], axis=1)
    log_joint = raster.log_prob(net, state.params["prior"], vq_prior.code_images(given))
    expected = np.asarray(jax.nn.softmax(log_joint))
    found = np.bincount(np.asarray(drawn[:, 1]), minlength=4) / 4_000
    np.testing.assert_allclose(found, expected, atol=0.04)
    with pytest.raises(ValueError, match="`mask` must mark a prefix"):
        vq_prior.complete(jax.random.key(0), state, k, np.array([False, True]), networks=networks(), network=net)


def test_uses_of_a_trained_model():
    _, state = trained(AVERAGE, 150)
    params, stats, parts = state.params, state.stats, networks()
    k = vq_vae.codes(params, stats, BATCH["x"], networks=parts)
    assert k.shape == (16, 2)
    again = vq_vae.reconstruct(params, stats, BATCH["x"], networks=parts)
    np.testing.assert_array_equal(again, vq_vae.from_codes(params, stats, k, networks=parts))
    np.testing.assert_array_equal(again, vq_vae.decode(params, stats, vq_vae.table(params, stats)[k], networks=parts))
    marginal = np.mean((BATCH["x"].mean(0)[None] - BATCH["x"]) ** 2)
    assert np.mean((np.asarray(again) - BATCH["x"]) ** 2) < marginal


def test_revival_moves_codes_that_learn_by_gradient():
    quantizer = Quantizer(4, "gradient", cool_down=0, revive_below=0.5)
    model = vq_vae.model(networks(), quantizer, ADAM)
    state = model.init(jax.random.key(0), BATCH)
    params = {**state.params, "codes": state.params["codes"].at[3].set(80.0)}
    book = state.stats["codebook"]._replace(counts=jnp.array([8.0, 8.0, 8.0, 1e-3]))
    state = GradientState(params, {**state.stats, "codebook": book}, state.opt_state)
    after, metrics = model.update(jax.random.key(1), state, BATCH)
    assert float(metrics["revived"]) == 1.0
    z = np.asarray(vq_vae.encode(state.params, state.stats, BATCH["x"], networks=networks())).reshape(-1, 3)
    assert np.min(np.abs(z - np.asarray(after.params["codes"][3])[None]).max(axis=1)) < 1e-6
    np.testing.assert_array_equal(after.params["codes"], after.stats["codebook"].codes)


@pytest.mark.parametrize("quantizer", [AVERAGE, GRADIENT], ids=["average", "gradient"])
def test_a_step_on_eight_shards_is_a_step_on_the_whole(quantizer):
    whole = vq_vae.model(networks(), quantizer, ADAM)
    shard = vq_vae.model(networks(), quantizer, ADAM, axis_name="shards")
    state = whole.init(jax.random.key(0), BATCH)
    expected, metrics = jax.jit(whole.update)(jax.random.key(1), state, BATCH)
    parts = {"x": jnp.asarray(BATCH["x"]).reshape(8, 2, 6)}
    found, ours = jax.jit(jax.vmap(shard.update, (None, None, 0), axis_name="shards"))(jax.random.key(1), state, parts)
    for i in (0, 7):
        one = jax.tree.map(operator.itemgetter(i), found)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), one, expected)
    np.testing.assert_allclose(ours["perplexity"][0], metrics["perplexity"], rtol=1e-5)
    np.testing.assert_allclose(ours["loss"][0], metrics["loss"], rtol=1e-5)


def test_images_have_a_map_of_codes():
    parts = vq_vae.convolutional((7, 6, 2), likelihoods.DiscretizedLogistic(5), 3, channels=(4, 4), num_blocks=1)
    x = np.random.default_rng(0).integers(0, 5, (4, 7, 6, 2))
    state = vq_vae.model(parts, Quantizer(6), ADAM).init(jax.random.key(0), {"x": x})
    assert vq_vae.codes(state.params, state.stats, x, networks=parts).shape == (4, 2, 2)
    assert vq_vae.map_shape(state.params, state.stats, parts) == (2, 2)
    assert vq_prior.code_shape(state.params, state.stats, parts) == (2, 2, 1)
    assert vq_vae.reconstruct(state.params, state.stats, x, networks=parts).shape == (4, 7, 6, 2)


def test_bad_input_is_refused():
    model = vq_vae.model(networks(), AVERAGE, ADAM)
    with pytest.raises(ValueError, match=r"`x` must lie in \[0, 1\]"):
        model.init(jax.random.key(0), {"x": np.full((3, 6), 2.0)})
    with pytest.raises(ValueError, match="`decoder` must return shape"):
        model.init(jax.random.key(0), {"x": np.zeros((3, 5))})
    with pytest.raises(ValueError, match="`encoder` must return shape"):
        vq_vae.model(Networks(Free(), networks().decoder, likelihoods.Bernoulli(), 2), AVERAGE, ADAM).init(
            jax.random.key(0), BATCH
        )
    with pytest.raises(ValueError, match="`dim` must be at least 1"):
        Networks(Free(), Free(), likelihoods.Bernoulli(), 0)
    with pytest.raises(ValueError, match="`num_vectors` must be at least 1"):
        vq_vae.dense((6,), likelihoods.Bernoulli(), 2, num_vectors=0)
    with pytest.raises(ValueError, match="`shape` must be"):
        vq_vae.convolutional((6,), likelihoods.Bernoulli(), 2)
    with pytest.raises(ValueError, match="`prior` must have `log_prob`"):
        vq_prior.model(networks(), model, model)
