"""Autoencoders: the linear one against PCA and Wiener's filter, each penalty against its closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from flax import linen as nn

from jgen.data import embedded, transforms
from jgen.latent import autoencoder, corruptions
from jgen.math.linear_algebra import principal_angles

KEY = jax.random.key(0)
SPECTRUM = np.array([4.0, 2.0, 1.0, 0.5, 0.1])
NOISE = 0.7


def _rows(num=1024):
    """Rows with mean 1 and covariance U diag(SPECTRUM) Uᵀ exactly; and U."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    white = rng.normal(size=(num, 5))
    white -= white.mean(0)
    white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T, bias=True))).T
    return jnp.asarray(1 + white * np.sqrt(SPECTRUM) @ axes.T, jnp.float32), axes


def _learn(model, batch, num_steps):
    state = jax.jit(model.init)(KEY, batch)

    def step(state, t):
        return model.update(jax.random.fold_in(KEY, t), state, batch)

    return jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(num_steps)))(state)[0]


def _linear(latent_size, num_steps=1500, rate=3e-2, num_active=None, **keywords):
    """(networks, state) of a linear autoencoder of `_rows`."""
    networks = autoencoder.dense((5,), latent_size, hidden_sizes=(), num_active=num_active)
    model = autoencoder.model(networks, optax.adam(optax.cosine_decay_schedule(rate, num_steps)), **keywords)
    return networks, _learn(model, {"x": _rows()[0]}, num_steps)


def _matrix(networks, state):
    """The Jacobian of x̂ in x, [output, input]: constant where all layers are linear."""
    rebuild = functools.partial(autoencoder.reconstruct, state.params, state.stats, networks=networks)
    return np.asarray(jax.jacobian(lambda x: rebuild(x[None])[0])(jnp.zeros(5)))


def test_linear_spans_the_subspace_of_pca_and_leaves_what_pca_leaves():
    networks, state = _linear(2)
    x, axes = _rows()
    decoder = state.params["decoder"]["Dense_0"]["kernel"]
    assert float(principal_angles(decoder.T, jnp.asarray(axes[:, :2], jnp.float32))[0]) < 1e-3
    error = autoencoder.anomaly_score(state.params, state.stats, x, networks=networks).mean()
    np.testing.assert_allclose(error, 0.5 * SPECTRUM[2:].sum(), rtol=1e-4)


def test_overcomplete_without_noise_copies():
    networks, state = _linear(8)
    np.testing.assert_allclose(_matrix(networks, state), np.eye(5), atol=5e-3)
    other = jax.random.normal(KEY, (100, 5))
    assert float(autoencoder.anomaly_score(state.params, state.stats, other, networks=networks).mean()) < 1e-3


def _wiener():
    """U diag(λ/(λ + σ²)) Uᵀ."""
    axes = _rows()[1]
    return axes @ np.diag(SPECTRUM / (SPECTRUM + NOISE**2)) @ axes.T


def test_overcomplete_with_noise_is_wieners_filter():
    networks, state = _linear(8, corruption=transforms.gaussian_noise(NOISE))
    np.testing.assert_allclose(_matrix(networks, state), _wiener(), atol=0.05)


def test_noise_in_the_target_too_would_be_seen():
    # The mutant "what is rebuilt is the corrupted input" copies again.
    networks = autoencoder.dense((5,), 8, hidden_sizes=())
    model = autoencoder.model(networks, optax.adam(optax.cosine_decay_schedule(3e-2, 1500)))
    noisy = transforms.gaussian_noise(NOISE)(KEY, {"x": _rows()[0]})
    state = _learn(model, noisy, 1500)
    assert np.abs(_matrix(networks, state) - _wiener()).max() > 0.1


def test_few_active_codes_cannot_copy():
    networks, state = _linear(8, num_active=2)
    x = _rows()[0]
    z = autoencoder.encode(state.params, state.stats, x, networks=networks)
    assert int(jnp.max(jnp.sum(z != 0, axis=1))) == 2
    error = autoencoder.anomaly_score(state.params, state.stats, x, networks=networks).mean()
    assert float(error) > 0.2


def test_the_largest_codes_are_kept():
    z = jnp.array([[3.0, -4.0, 0.5, 1.0], [0.1, 0.2, -0.3, 0.0]])
    kept = autoencoder.keep_largest(z, 2)
    np.testing.assert_array_equal(kept, np.array([[3.0, -4.0, 0.0, 0.0], [0.0, 0.2, -0.3, 0.0]], np.float32))
    np.testing.assert_array_equal(autoencoder.keep_largest(z, None), z)
    np.testing.assert_array_equal(autoencoder.keep_largest(z, 4), z)


def test_reconstruction_is_a_negative_log_likelihood_in_nats():
    rng = np.random.default_rng(0)
    x, raw = rng.normal(size=(3, 2, 4)), rng.normal(size=(3, 2, 4))
    expected = -scipy.stats.norm.logpdf(x, raw).sum((1, 2)) - 4 * np.log(2 * np.pi)
    np.testing.assert_allclose(autoencoder.reconstruction_loss(raw, x, "gaussian"), expected, rtol=1e-5)
    bits = (x > 0).astype(np.float64)
    expected = -scipy.stats.bernoulli.logpmf(bits, scipy.special.expit(raw)).sum((1, 2))
    np.testing.assert_allclose(autoencoder.reconstruction_loss(raw, bits, "bernoulli"), expected, rtol=1e-5)
    grey = rng.random((3, 2, 4))
    entropy = -(scipy.special.xlogy(grey, grey) + scipy.special.xlogy(1 - grey, 1 - grey)).sum((1, 2))
    least = autoencoder.reconstruction_loss(scipy.special.logit(grey), grey, "bernoulli")
    np.testing.assert_allclose(least, entropy, rtol=1e-5)


def test_extreme_logits_are_finite():
    raw, bits = jnp.array([[100.0, -100.0]]), jnp.array([[0.0, 1.0]])
    value, slope = jax.value_and_grad(lambda raw: autoencoder.reconstruction_loss(raw, bits, "bernoulli")[0])(raw)
    np.testing.assert_allclose(value, 200.0)
    np.testing.assert_allclose(slope, [[1.0, -1.0]])


class Tanh(nn.Module):
    """One layer."""

    @nn.compact
    def __call__(self, x, *, train=False):
        return jnp.tanh(nn.Dense(3)(x))


def _tanh():
    """A contractive, sparse autoencoder with the user's own encoder, its state and some data."""
    networks = autoencoder.Networks(Tanh(), autoencoder.dense((5,), 3, hidden_sizes=()).decoder, 3)
    x = _rows(32)[0]
    return networks, autoencoder.model(networks, optax.adam(1e-2)).init(KEY, {"x": x}), x


def _closed_contraction(state, x):
    """Σ_j (1 − z_j²)² |w_j|² of a layer of tanh."""
    kernel, bias = (np.asarray(state.params["encoder"]["Dense_0"][name], np.float64) for name in ("kernel", "bias"))
    z = np.tanh(np.asarray(x) @ kernel + bias)
    return np.sum((1 - z**2) ** 2 * np.sum(kernel**2, axis=0), axis=1)


def test_contraction_is_the_squared_norm_of_the_jacobian():
    networks, state, x = _tanh()
    found = autoencoder.contraction(state.params, state.stats, x, networks=networks)
    np.testing.assert_allclose(found, _closed_contraction(state, x), rtol=1e-4)


def test_the_loss_is_the_sum_of_its_parts():
    networks, state, x = _tanh()
    terms = functools.partial(autoencoder.loss, KEY, state.params, state.stats, {"x": x}, train=True, networks=networks)
    plain, (_, metrics) = terms()
    np.testing.assert_allclose(plain, metrics["reconstruction"], rtol=1e-6)
    z = autoencoder.encode(state.params, state.stats, x, networks=networks)
    sparse, _ = terms(sparsity=0.3)
    np.testing.assert_allclose(sparse - plain, 0.3 * np.abs(z).sum(1).mean(), rtol=1e-4)
    contractive, _ = terms(contractive=0.2)
    np.testing.assert_allclose(contractive - plain, 0.2 * _closed_contraction(state, x).mean(), rtol=1e-4)


def test_a_mean_in_place_of_a_sum_would_be_seen(monkeypatch):
    # The first complaint about autoencoders and VAEs: a mean over dimensions beside a summed penalty.
    networks, state, x = _tanh()
    right = autoencoder.anomaly_score(state.params, state.stats, x, networks=networks)
    wrong = jnp.mean(jnp.square(x - autoencoder.reconstruct(state.params, state.stats, x, networks=networks)), axis=1)
    np.testing.assert_allclose(right, 2.5 * wrong, rtol=1e-5)
    monkeypatch.setattr(autoencoder, "encode", lambda params, stats, x, networks: jnp.zeros((len(x), 3)))
    flat = autoencoder.contraction(state.params, state.stats, x, networks=networks)
    assert np.all(np.abs(flat - _closed_contraction(state, x)) > 1e-3)


def test_nonlinear_beats_pca_on_digits_at_equal_latent_size():
    splits = embedded.digits().splits
    train, test = (np.asarray(splits[part]["x"], np.float32).reshape(-1, 64) / 16 for part in ("train", "test"))
    networks = autoencoder.dense((64,), 2, hidden_sizes=(128, 64), activation=nn.tanh)
    model = autoencoder.model(networks, optax.adamw(optax.cosine_decay_schedule(3e-3, 1200), weight_decay=0.1))
    state = jax.jit(model.init)(KEY, {"x": jnp.asarray(train)})

    def step(state, t):
        rows = jax.random.randint(jax.random.fold_in(KEY, t), (100,), 0, len(train))
        return model.update(jax.random.fold_in(KEY, t), state, {"x": jnp.asarray(train)[rows]})

    state = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(1200))[0])(state)
    error = np.mean(model.evaluate(KEY, state, {"x": test})["squared_error"]) / 64
    axes = np.linalg.svd(train - train.mean(0), full_matrices=False)[2][:2]
    centred = test - train.mean(0)
    assert error < 0.9 * np.mean((centred - centred @ axes.T @ axes) ** 2)


def test_uses_of_a_trained_model():
    networks, state, x = _tanh()
    use = {"networks": networks}
    again = autoencoder.reconstruct(state.params, state.stats, x, **use)
    path = autoencoder.interpolate(state.params, state.stats, x[0], x[1], 5, **use)
    np.testing.assert_allclose(path[jnp.array([0, -1])], again[:2], atol=1e-5)
    z = autoencoder.encode(state.params, state.stats, x[:1], **use)[0]
    walk = autoencoder.traverse(state.params, state.stats, z, 1, [0.0, float(z[1])], **use)
    np.testing.assert_allclose(walk[1], again[0], atol=1e-5)
    np.testing.assert_allclose(
        walk[:1], autoencoder.decode(state.params, state.stats, z.at[1].set(0.0)[None], **use), atol=1e-6
    )


def test_it_is_no_generative_model():
    model = autoencoder.model(_tanh()[0], optax.adam(1e-2))
    assert (model.sample, model.log_prob, model.log_bound) == (None, None, None)


def test_masking_hides_its_share_and_leaves_the_rest():
    x = jnp.full((200, 50), 0.5)
    hidden = corruptions.masking(0.3)(KEY, {"x": x})["x"]
    assert set(np.unique(hidden)) == {np.float32(0.0), np.float32(0.5)}
    assert abs(float(jnp.mean(hidden == 0)) - 0.3) < 0.03
    few = corruptions.masking(0.3)(KEY, {"x": x[:3]})["x"]
    np.testing.assert_array_equal(hidden[:3], few)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: autoencoder.dense((5,), 0), "`latent_size` must be at least 1"),
        (lambda: autoencoder.dense((5,), 2, reconstruction="l1"), "`reconstruction` must be one of"),
        (lambda: autoencoder.dense((5,), 2, num_active=3), r"`num_active` must lie in \[1, 2\]"),
        (lambda: autoencoder.convolutional((5,), 2), r"`shape` must be \(height, width, channels\)"),
        (lambda: autoencoder.model(_tanh()[0], optax.adam(1.0), sparsity=-1.0), "`sparsity` must be at least 0"),
        (lambda: autoencoder.model(_tanh()[0], optax.adam(1.0), contractive=-1.0), "`contractive` must be at least 0"),
        (lambda: corruptions.masking(1.5), r"`rate` must lie in \[0.0, 1.0\]"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_batches_and_modules_are_refused():
    def init(networks, x):
        return autoencoder.model(networks, optax.adam(1e-2)).init(KEY, {"x": x})

    with pytest.raises(ValueError, match=r"`x` must lie in \[0.0, 1.0\]"):
        init(autoencoder.dense((5,), 2, reconstruction="bernoulli"), 2 * np.ones((3, 5)))
    with pytest.raises(ValueError, match="`decoder` must return shape"):
        init(autoencoder.dense((4,), 2), np.ones((3, 5)))
    with pytest.raises(ValueError, match="`encoder` must return shape"):
        init(autoencoder.Networks(Tanh(), autoencoder.dense((5,), 2).decoder, 2), np.ones((3, 5)))
