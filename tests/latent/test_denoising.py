"""Restoration against closed forms: the linear denoiser's error, Tweedie's formula, exact trivial restorations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from flax import linen as nn

from jgen.data import embedded
from jgen.latent import corruptions, denoising
from jgen.metrics import image_quality
from jgen.nets.mlp import MLP

KEY = jax.random.key(0)
SPECTRUM = np.array([4.0, 1.0, 0.3, 0.05])
STD = 0.7


class Zero(nn.Module):
    """Nothing is added to the trivial restoration; `scale` times as many pixels of `outputs` channels."""

    outputs: int = 1
    scale: int = 1

    @nn.compact
    def __call__(self, y, *, train=False):
        height, width = y.shape[1] * self.scale, y.shape[2] * self.scale
        return self.param("zero", nn.initializers.zeros, ()) + jnp.zeros((len(y), height, width, self.outputs))


def _learn(model, batch_of, num_steps):
    """The state after `num_steps` scanned updates on `batch_of(key)`."""
    state = jax.jit(model.init)(KEY, batch_of(KEY))

    def step(state, t):
        key = jax.random.fold_in(KEY, t)
        return model.update(key, state, batch_of(jax.random.fold_in(key, 1)))

    return jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(num_steps))[0])(state)


def _linear_error(corruption):
    """E‖x − x̂‖², in closed form, of a linear denoiser of N(0, Λ) learned with `corruption`; the noise has std STD."""
    width = jnp.asarray(np.sqrt(SPECTRUM), jnp.float32)
    model = denoising.model(Linear(), corruption, optax.adam(optax.cosine_decay_schedule(3e-2, 1000)))
    state = _learn(model, lambda key: {"x": width[None] * jax.random.normal(key, (512, 4))}, 1000)
    whole = np.eye(4) + np.asarray(state.params["Dense_0"]["kernel"]).T
    left = (np.eye(4) - whole) * np.sqrt(SPECTRUM)
    return np.sum(left**2) + STD**2 * np.sum(whole**2)


class Linear(nn.Module):
    """A linear map of four numbers."""

    @nn.compact
    def __call__(self, y, *, train=False):
        return nn.Dense(4, use_bias=False)(y)


BEST = float(np.sum(SPECTRUM * STD**2 / (SPECTRUM + STD**2)))
"""Σ λσ²/(λ + σ²)."""


def test_the_linear_denoiser_reaches_wieners_error():
    np.testing.assert_allclose(_linear_error(corruptions.gaussian(STD)), BEST, rtol=0.01)


def test_a_variance_in_place_of_a_deviation_would_be_seen():
    assert _linear_error(corruptions.gaussian(STD**2)) > 1.02 * BEST


MEANS, WIDTH, SIGMA = np.array([-1.0, 1.0]), 0.2, 0.5


def _posterior_mean(y):
    """E[x|y] and ∇ log p_σ(y) of ½N(−1, .2²) + ½N(1, .2²) seen with noise of std .5."""
    total = WIDTH**2 + SIGMA**2
    log_parts = scipy.stats.norm.logpdf(y[:, None], MEANS[None], np.sqrt(total))
    weights = np.exp(log_parts - np.logaddexp.reduce(log_parts, axis=1, keepdims=True))
    means = (WIDTH**2 * y[:, None] + SIGMA**2 * MEANS[None]) / total
    return np.sum(weights * means, axis=1), np.sum(weights * (MEANS[None] - y[:, None]) / total, axis=1)


def test_the_best_denoiser_is_the_posterior_mean_and_its_residual_the_score():
    def draw(key):
        side, noise = jax.random.split(key)
        sign = jnp.where(jax.random.bernoulli(side, 0.5, (512, 1)), 1.0, -1.0)
        return {"x": sign + WIDTH * jax.random.normal(noise, (512, 1))}

    network, corruption = MLP((32, 32, 1), jnp.tanh), corruptions.gaussian(SIGMA)
    model = denoising.model(network, corruption, optax.adam(optax.cosine_decay_schedule(1e-2, 1500)))
    state = _learn(model, draw, 1500)
    y = np.linspace(-2, 2, 41)
    noisy = jnp.asarray(y[:, None], jnp.float32)
    seen = corruptions.Observation(noisy)
    restored = denoising.restore(state.params, state.stats, seen, network=network, corruption=corruption)
    mean, exact = _posterior_mean(y)
    np.testing.assert_allclose(mean, y + SIGMA**2 * exact, atol=1e-12)
    np.testing.assert_allclose(restored[:, 0], mean, atol=0.06)
    found = denoising.score(restored, noisy, SIGMA)[:, 0]
    np.testing.assert_allclose(found, exact, atol=0.06 / SIGMA**2)
    assert np.abs(-found - exact).max() > 1  # the mutant with its sign turned


def _photos(num=4):
    return jnp.asarray(embedded.photos(16).splits["test"]["x"][:num], jnp.float32) / 255


CASES = {
    "gaussian": corruptions.gaussian(0.2),
    "salt_and_pepper": corruptions.salt_and_pepper(0.3),
    "masked": corruptions.masked(0.3),
    "hidden_rectangle": corruptions.hidden_rectangle(5, 6),
    "box": corruptions.fewer_pixels(2),
    "bicubic": corruptions.fewer_pixels(4, kind="bicubic"),
    "grey": corruptions.grey(),
}


@pytest.mark.parametrize("name", CASES)
def test_without_a_residual_the_restoration_is_the_trivial_one_exactly(name):
    corruption, x = CASES[name], _photos()
    seen = corruption.observe(KEY, {"x": x})
    network = denoising.Restorer(3, corruption.scale, 4, 0)
    state = denoising.model(network, corruption, optax.adam(1e-2)).init(KEY, {"x": x})
    restored = denoising.restore(state.params, state.stats, seen, network=network, corruption=corruption)
    assert restored.shape == x.shape
    # Grey is moved to its own luma, which rounds.
    np.testing.assert_allclose(restored, corruption.trivial(seen), atol=1e-6 if name == "grey" else 0)


@pytest.mark.parametrize("name", ["hidden_rectangle", "box"])
def test_a_relative_restoration_follows_shift_and_scale(name):
    corruption, x = CASES[name], 0.4 * _photos()

    def restored(x, relative):
        network = denoising.Restorer(3, corruption.scale, 4, 1, relative=relative)
        params, stats = denoising.model(network, corruption, optax.adam(1e-2)).init(KEY, {"x": x})[:2]
        params = jax.tree.map(lambda leaf: leaf + 0.1, params)
        seen = corruption.observe(KEY, {"x": x})
        return denoising.restore(params, stats, seen, network=network, corruption=corruption)

    np.testing.assert_allclose(restored(2 * x + 0.1, True), 2 * restored(x, True) + 0.1, atol=1e-3)
    assert np.abs(restored(2 * x + 0.1, False) - 2 * restored(x, False) - 0.1).max() > 0.01


def _contrast(image, mask):
    """The root mean square of the differences between neighbouring seen pixels, one by one."""
    squares = []
    for down, right in ((1, 0), (0, 1)):
        for i in range(len(image) - down):
            for j in range(len(image[0]) - right):
                if mask[i, j] and mask[i + down, j + right]:
                    squares.append(np.mean((image[i, j] - image[i + down, j + right]) ** 2))
    return np.sqrt(np.mean(squares))


def test_contrast_is_that_of_neighbours_that_are_seen():
    seen = CASES["hidden_rectangle"].observe(KEY, {"x": _photos()})
    features, found = denoising.standardized(CASES["hidden_rectangle"].features(seen), 3)
    image, mask = np.asarray(seen.image), np.asarray(seen.mask)[..., 0]
    expected = [_contrast(*pair) for pair in zip(image, mask, strict=True)]
    np.testing.assert_allclose(found[:, 0, 0, 0], expected, rtol=5e-3)
    np.testing.assert_allclose(jnp.mean(features[..., :3], axis=(1, 2)), 0.0, atol=2e-3)
    np.testing.assert_array_equal(features[..., 3], mask)


def test_balanced_errors_are_in_units_of_contrast():
    x = _photos()
    corruption, network = CASES["box"], Zero(3, 2)
    params, stats = _init(corruption)[:2]
    value, _ = denoising.loss(
        KEY, params, stats, {"x": x}, train=True, network=network, corruption=corruption, balanced=True
    )
    seen = corruption.observe(KEY, {"x": x})
    contrast = np.array([_contrast(image, np.ones((8, 8))) for image in np.asarray(seen.image)])
    errors = np.sum((x - corruption.trivial(seen)) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(value, np.mean(0.5 * errors / (contrast**2 + 1 / 255**2)), rtol=0.02)


def test_a_learned_restoration_beats_the_trivial_one_on_held_out_digits():
    splits = embedded.digits().splits
    train, test = (jnp.asarray(splits[part]["x"], jnp.float32) / 16 for part in ("train", "test"))
    corruption, network = corruptions.gaussian(0.25), denoising.Restorer(1, channels=16, num_blocks=1)
    model = denoising.model(network, corruption, optax.adam(3e-3))
    state, update = jax.jit(model.init)(KEY, {"x": train[:64]}), jax.jit(model.update)
    # Not scanned: on CPU the gradient of a convolution's weights is many times slower in a loop.
    for t in range(120):
        first = 64 * t % 1152
        state, _ = update(jax.random.fold_in(KEY, t), state, {"x": train[first : first + 64]})
    seen = corruption.observe(jax.random.key(1), {"x": test})
    restored = denoising.restore(state.params, state.stats, seen, network=network, corruption=corruption)
    gain = image_quality.psnr(restored, test) - image_quality.psnr(corruption.trivial(seen), test)
    assert float(gain.mean()) > 2.0
    found = model.evaluate(jax.random.key(1), state, {"x": test})
    assert float(found["squared_error"].mean()) < 0.7 * float(found["trivial_squared_error"].mean())


def test_it_is_no_generative_model():
    model = denoising.model(Zero(), CASES["gaussian"], optax.adam(1e-2))
    assert (model.sample, model.log_prob, model.log_bound) == (None, None, None)


def _init(corruption, network=None, x=None):
    x = _photos() if x is None else x
    return denoising.model(network or Zero(3, corruption.scale), corruption, optax.adam(1e-2)).init(KEY, {"x": x})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: corruptions.gaussian(-1.0), "`std` must be at least 0"),
        (lambda: corruptions.salt_and_pepper(2.0), r"`rate` must lie in \[0.0, 1.0\]"),
        (lambda: corruptions.hidden_rectangle(0, 3), "`height` must be at least 1"),
        (lambda: corruptions.fewer_pixels(3), "`scale` must be a power of two"),
        (lambda: corruptions.fewer_pixels(2, kind="cubic"), "`kind` must be one of 'box', 'bicubic'"),
        (lambda: _init(corruptions.hidden_rectangle(16, 16)), "`height` and `width` must leave some pixels"),
        (lambda: _init(corruptions.fewer_pixels(8), x=jnp.ones((2, 12, 12, 3))), "`x` must have sides that 8 divides"),
        (lambda: _init(corruptions.grey(), x=jnp.ones((2, 8, 8, 1))), "`x` must have three channels"),
        (lambda: _init(corruptions.grey(), x=2 * jnp.ones((2, 8, 8, 3))), r"`x` must lie in \[0.0, 1.0\]"),
        (lambda: _init(corruptions.salt_and_pepper(0.1), x=jnp.ones((2, 8))), "`x` must have 4 axes"),
        (lambda: _init(corruptions.gaussian(0.1), Zero(2)), "`network` must return shape"),
        (lambda: denoising.score(jnp.ones(1), jnp.ones(1), 0.0), "`std` must be positive"),
    ],
)
def test_bad_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
