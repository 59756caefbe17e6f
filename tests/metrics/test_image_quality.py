"""PSNR and SSIM against direct NumPy and SciPy: a convolution with the whole two-dimensional window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.metrics import image_quality


def _images(size, num=3, channels=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.random((num, size, size + 3, channels))
    return x, np.clip(x + 0.2 * rng.normal(size=x.shape), 0, 1)


def _window(kind):
    if kind == "uniform":
        return np.full((7, 7), 1 / 49)
    rows, columns = np.mgrid[-5:6, -5:6]
    weights = np.exp(-(rows**2 + columns**2) / (2 * 1.5**2))
    return weights / weights.sum()


def direct(x, y, kind, data_range=1.0):
    """SSIM of Wang et al., 2004, by centred moments of every window."""
    window, values = _window(kind), []
    half = len(window) // 2
    for image, other in zip(x, y, strict=True):
        for c in range(image.shape[-1]):
            a, b = image[..., c], other[..., c]
            total, num = 0.0, 0
            for i in range(half, a.shape[0] - half):
                for j in range(half, a.shape[1] - half):
                    here = np.s_[i - half : i + half + 1, j - half : j + half + 1]
                    mean_a, mean_b = np.sum(window * a[here]), np.sum(window * b[here])
                    var_a = np.sum(window * (a[here] - mean_a) ** 2)
                    var_b = np.sum(window * (b[here] - mean_b) ** 2)
                    cov = np.sum(window * (a[here] - mean_a) * (b[here] - mean_b))
                    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
                    total += (
                        (2 * mean_a * mean_b + c1)
                        * (2 * cov + c2)
                        / (mean_a**2 + mean_b**2 + c1)
                        / (var_a + var_b + c2)
                    )
                    num += 1
            values.append(total / num)
    return np.reshape(values, (len(x), -1)).mean(axis=1)


@pytest.mark.parametrize(("kind", "size"), [("gaussian", 14), ("uniform", 8)])
def test_ssim_is_the_mean_over_windows(kind, size):
    x, y = _images(size)
    with jax.enable_x64(True):
        found = image_quality.ssim(jnp.asarray(x), jnp.asarray(y), window=kind)
    np.testing.assert_allclose(found, direct(x, y, kind), atol=1e-9)
    single = image_quality.ssim(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32), window=kind)
    np.testing.assert_allclose(single, direct(x, y, kind), atol=2e-6)


def test_range_scales_both():
    x, y = _images(12)
    wide = image_quality.ssim(jnp.asarray(255 * x), jnp.asarray(255 * y), data_range=255.0)
    np.testing.assert_allclose(wide, image_quality.ssim(jnp.asarray(x), jnp.asarray(y)), atol=1e-5)
    wide = image_quality.psnr(jnp.asarray(255 * x), jnp.asarray(255 * y), data_range=255.0)
    np.testing.assert_allclose(wide, image_quality.psnr(jnp.asarray(x), jnp.asarray(y)), rtol=1e-5)


def test_psnr_is_its_definition_and_an_error_of_a_tenth_has_twenty_decibels():
    x, y = _images(5)
    expected = [10 * np.log10(1 / np.mean((a - b) ** 2)) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(image_quality.psnr(jnp.asarray(x), jnp.asarray(y)), expected, rtol=1e-5)
    np.testing.assert_allclose(image_quality.psnr(jnp.asarray(x), jnp.asarray(x + 0.1)), 20.0, atol=1e-3)


def test_psnr_of_some_pixels_is_that_of_their_cut():
    x, y = (jnp.asarray(part, jnp.float32) for part in _images(6))
    where = jnp.zeros((3, 6, 9, 1)).at[:, 2:4, 3:7].set(1.0)
    cut = image_quality.psnr(x[:, 2:4, 3:7], y[:, 2:4, 3:7])
    np.testing.assert_allclose(image_quality.psnr(x, y, where=where), cut, rtol=1e-5)


def test_equal_and_flat_images_are_finite():
    x = jnp.full((2, 12, 12, 1), 0.9999)
    assert np.all(np.isinf(image_quality.psnr(x, x)))
    np.testing.assert_allclose(image_quality.ssim(x, x), 1.0, atol=1e-6)
    np.testing.assert_allclose(image_quality.ssim(x, 0 * x), 1e-4 / (0.9999**2 + 1e-4), atol=1e-6)
    grads = jax.grad(lambda y: image_quality.ssim(x, y).sum())(x)
    assert np.all(np.isfinite(grads))


def test_a_sample_covariance_or_another_window_would_be_seen(monkeypatch):
    x, y = _images(14)
    right = direct(x, y, "gaussian")
    sharper = image_quality._weights("gaussian") ** 2
    monkeypatch.setattr(image_quality, "_weights", lambda kind: sharper / sharper.sum())
    assert np.all(np.abs(image_quality.ssim(jnp.asarray(x), jnp.asarray(y)) - right) > 1e-3)


def test_windows_fit_their_images():
    assert image_quality.window_for((28, 28, 1)) == "gaussian"
    assert image_quality.window_for((8, 8, 1)) == "uniform"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: image_quality.ssim(x, x), "`x` must have at least 11 pixels a side"),
        (lambda x: image_quality.ssim(x, x, window="box"), "`window` must be one of 'gaussian', 'uniform'"),
        (lambda x: image_quality.ssim(x, x[:, :, 1:], window="uniform"), "`x` and `y` must have the same shape"),
        (lambda x: image_quality.psnr(x, x, data_range=0.0), "`data_range` must be positive"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.ones((1, 8, 8, 1)))
