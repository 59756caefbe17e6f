"""The VRNN's bounds against the exact likelihoods of linear-Gaussian models, with broken variants that they catch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import vrnn_checks as checks
from stat_checks import check_mean

from jgen.latent import gaussian, vrnn, vrnn_network, vrnn_path
from jgen.math import framewise


@pytest.fixture(autouse=True)
def _cells(monkeypatch):
    checks.add_cells(monkeypatch)


def weight(network, params, x, *, mask=None, key=0, num_samples=1):
    """log w of each row (n, T) at one path: log p(x) where the posterior is exact."""
    batch = checks.batch_of(x) | ({} if mask is None else {"mask": mask})
    bound = jax.jit(lambda k: vrnn.iwae_bound(k, params, batch, network=network, num_samples=num_samples))
    return np.asarray(bound(jax.random.key(key)), np.float64)


@pytest.mark.parametrize("num_samples", [1, 3])
def test_every_path_weighs_the_likelihood_of_a_first_order_model(num_samples):
    network, params = checks.first_order()
    x = checks.draws(20, 7)
    found = weight(network, params, x, num_samples=num_samples)
    np.testing.assert_allclose(found, checks.auto_regressive(x), atol=2e-4)


def test_smoothing_is_the_kalman_filter():
    network, params = checks.smoothing()
    x = checks.draws(20, 6)
    np.testing.assert_allclose(weight(network, params, x), checks.kalman(x), atol=2e-4)


def test_mean_elbo_at_the_exact_posterior_is_the_likelihood():
    for (network, params), exact in (
        (checks.smoothing(), checks.kalman),
        (checks.first_order(), checks.auto_regressive),
    ):
        x = checks.draws(4, 5)
        many = checks.batch_of(np.repeat(x, 2_000, axis=0))
        found = jax.jit(lambda b, p=params, n=network: vrnn.elbo(jax.random.key(1), p, b, network=n))(many)
        check_mean(np.asarray(found).reshape(4, -1).T, exact(x), sees=0.5)


@pytest.fixture(scope="module", name="filtered")
def _filtered():
    """(per-step exact log p, per-step ELBO) of long sequences under the posterior that filters."""
    with pytest.MonkeyPatch.context() as patch:
        checks.add_cells(patch)
        network, params = checks.state_space()
        x = checks.draws(500, 100)
        elbo = vrnn.elbo(jax.random.key(0), params, checks.batch_of(x), network=network)
    return checks.kalman(x) / 100, np.asarray(elbo, np.float64) / 100


def test_filtering_stays_below_the_kalman_filter(filtered):
    exact, elbo = filtered
    # From the stationary state on: −1.867 a step, and −2.013 for q = p(z_t | z_{t−1}, x_t).
    check_mean(exact, -1.867, sees=0.08)
    check_mean(exact - elbo, 0.146, sees=0.07)
    assert elbo.mean() < exact.mean() - 0.1


def test_bound_rises_with_the_number_of_paths():
    network, params = checks.state_space()
    x = checks.draws(300, 6)
    exact = checks.kalman(x)
    gaps = [(exact - weight(network, params, x, num_samples=num)).mean() for num in (1, 8, 200)]
    assert gaps[0] > gaps[1] + 0.1
    assert gaps[1] > gaps[2]
    assert -0.01 < gaps[2] < 0.05


def test_bound_does_not_depend_on_the_chunks():
    network, params = checks.state_space()
    batch = checks.batch_of(checks.draws(5, 6))
    values = [
        vrnn.iwae_bound(jax.random.key(0), params, batch, network=network, num_samples=6, chunk_size=size)
        for size in (1, 4, 6)
    ]
    np.testing.assert_allclose(values[0], values[1], atol=1e-4)
    np.testing.assert_allclose(values[0], values[2], atol=1e-4)


def padded(x, length, more):
    filled = np.concatenate([x, np.full((len(x), more), 7.0)], axis=1)
    return filled, (np.arange(filled.shape[1])[None] < np.asarray(length)[:, None]).astype(np.uint8)


LENGTHS = [2, 6, 6, 4]


def terms_of_padded(network, params, more):
    x, mask = padded(checks.draws(4, 6), LENGTHS, more)
    batch = checks.batch_of(x) | {"mask": mask}
    return jax.jit(lambda key: vrnn.terms(key, params, batch, network=network))(jax.random.key(3))


@pytest.mark.parametrize("kind", ["first_order", "state_space", "smoothing"])
def test_padding_changes_nothing(kind):
    network, params = getattr(checks, kind)()
    tight, loose = (terms_of_padded(network, params, more) for more in (0, 3))
    for one, other in zip(tight, loose, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


@pytest.mark.parametrize("kind", ["first_order", "smoothing"])
def test_padded_sequences_have_the_likelihood_of_their_frames(kind):
    network, params = getattr(checks, kind)()
    exact = checks.auto_regressive if kind == "first_order" else checks.kalman
    x, mask = padded(checks.draws(4, 6), LENGTHS, 3)
    expected = [exact(row[None, :length])[0] for row, length in zip(x, LENGTHS, strict=True)]
    np.testing.assert_allclose(weight(network, params, x, mask=mask), expected, atol=2e-4)


# Broken variants


def test_rate_without_its_mask_would_be_seen(monkeypatch):
    total, calls = framewise.total, []

    def rate_unmasked(each, mask):
        calls.append(each)  # the second one of `terms` is the rate's
        return total(each, jnp.ones_like(mask) if len(calls) == 2 else mask)

    network, params = checks.first_order()
    right = terms_of_padded(network, params, 3).rate
    monkeypatch.setattr(framewise, "total", rate_unmasked)
    assert np.abs(np.asarray(terms_of_padded(network, params, 3).rate - right)).max() > 1


def test_posterior_that_sees_the_frame_before_would_be_seen(monkeypatch):
    network, params = checks.first_order()
    x = checks.draws(20, 7)
    right = vrnn_network.posterior
    monkeypatch.setattr(vrnn_network, "posterior", lambda n, p, e, h, g, c, prior: right(n, p, h, h, g, c, prior))
    assert np.mean(checks.auto_regressive(x) - weight(network, params, x)) > 1.0


def test_flipped_sign_of_the_rate_would_be_seen(monkeypatch):
    network, params = checks.state_space()
    x = checks.draws(200, 6)
    right = gaussian.kl
    monkeypatch.setattr(gaussian, "kl", lambda q, p: -right(q, p))
    elbo = vrnn.elbo(jax.random.key(1), params, checks.batch_of(x), network=network)
    assert float(jnp.mean(elbo)) > checks.kalman(x).mean() + 0.5


def test_smoothing_that_starts_in_the_padding_would_be_seen(monkeypatch):
    network, params = checks.smoothing()
    x, mask = padded(checks.draws(4, 6), LENGTHS, 3)
    expected = [checks.kalman(row[None, :length])[0] for row, length in zip(x, LENGTHS, strict=True)]
    monkeypatch.setattr(vrnn_path, "reverse", lambda x, mask: x[:, ::-1])
    assert np.abs(weight(network, params, x, mask=mask) - expected).max() > 0.5


def test_one_key_for_all_paths_would_be_seen(monkeypatch):
    network, params = checks.state_space()
    x = checks.draws(200, 6)
    right = weight(network, params, x, num_samples=8) - weight(network, params, x)
    monkeypatch.setattr(jax.random, "fold_in", lambda key, data: key)
    wrong = weight(network, params, x, num_samples=8) - weight(network, params, x)
    assert right.mean() > 0.1
    np.testing.assert_allclose(wrong, 0.0, atol=1e-4)
