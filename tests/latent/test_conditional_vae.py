"""A linear-Gaussian conditional VAE, whose posterior, class probabilities and transfers are known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats

from jgen.latent import conditional_vae, representation, vae, warm_up
from jgen.math import likelihoods
from jgen.metrics import probes

SIGMA, WEIGHT = 0.5, np.array([0.9, 0.4])
MEANS = np.array([[0.0, 0.0], [1.5, -1.0], [-2.0, 1.0]])
NETWORKS = vae.dense((2,), likelihoods.Gaussian(SIGMA), 1, num_classes=3, hidden_sizes=())
COVARIANCE = np.outer(WEIGHT, WEIGHT) + SIGMA**2 * np.eye(2)


def _exact():
    """(params, stats) of x = w z + m_y + σε with its exact posterior."""
    precision = 1 + WEIGHT @ WEIGHT / SIGMA**2
    gain = WEIGHT / SIGMA**2 / precision
    columns = np.stack([np.concatenate([gain, -MEANS @ gain]), np.zeros(5)], axis=1)
    bias = np.array([0.0, 6 * np.arctanh(-0.5 * np.log(precision) / 6)])
    decoder = np.concatenate([WEIGHT[None], MEANS])
    params = {
        "encoder": {"Dense_0": {"kernel": jnp.asarray(columns, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}},
        "decoder": {"Dense_0": {"kernel": jnp.asarray(decoder, jnp.float32), "bias": jnp.zeros(2)}},
        "offset": jnp.zeros((2, 1)),
        "prior": {},
        "posterior": {},
    }
    return params, {"encoder": {}, "decoder": {}, **warm_up.start()}


def _data(num=200, seed=0):
    generator = np.random.default_rng(seed)
    label = generator.integers(3, size=num)
    x = MEANS[label] + generator.multivariate_normal(np.zeros(2), COVARIANCE, num)
    return {"x": jnp.asarray(x, jnp.float32), "label": jnp.asarray(label, jnp.int32)}


def _log_joint(x):
    each = [scipy.stats.multivariate_normal(mean, COVARIANCE).logpdf(np.asarray(x)) for mean in MEANS]
    return np.stack(each, axis=1) - np.log(3)


def test_bounds_of_every_class_are_exact_at_the_exact_posterior():
    params, stats = _exact()
    found = conditional_vae.class_log_bounds(jax.random.key(0), params, stats, _data(), networks=NETWORKS)
    exact = _log_joint(_data()["x"])
    np.testing.assert_allclose(found, exact, atol=1e-4)
    np.testing.assert_allclose(conditional_vae.log_evidence(found), scipy.special.logsumexp(exact, axis=1), atol=1e-4)
    np.testing.assert_array_equal(conditional_vae.classify(found), exact.argmax(axis=1))


def test_bounds_of_a_wrong_posterior_are_below():
    params, stats = _exact()
    dense = params["encoder"]["Dense_0"]
    wrong = {**params, "encoder": {"Dense_0": {**dense, "bias": dense["bias"] + jnp.array([0.5, 0.3])}}}
    found = conditional_vae.class_log_bounds(jax.random.key(0), wrong, stats, _data(2_000), networks=NETWORKS)
    gap = np.asarray(found) - _log_joint(_data(2_000)["x"])
    assert np.all(gap.mean(axis=0) < -0.05)
    many = conditional_vae.class_log_bounds(
        jax.random.key(0), wrong, stats, _data(200), networks=NETWORKS, num_samples=200
    )
    np.testing.assert_allclose(np.mean(many - _log_joint(_data()["x"])), 0.0, atol=0.02)


def test_an_example_draws_the_same_whatever_its_batch():
    params, stats = _exact()
    params["encoder"]["Dense_0"]["bias"] += 0.3
    few = {name: value[:3] for name, value in _data().items()}
    one = conditional_vae.class_log_bounds(jax.random.key(0), params, stats, few, networks=NETWORKS)
    all_of = conditional_vae.class_log_bounds(jax.random.key(0), params, stats, _data(), networks=NETWORKS)
    np.testing.assert_allclose(one, all_of[:3], atol=1e-5)


def test_transfer_keeps_the_style_and_changes_the_content():
    params, stats = _exact()
    batch, gain = _data(), WEIGHT / (WEIGHT @ WEIGHT + SIGMA**2)
    x, label = np.asarray(batch["x"]), np.asarray(batch["label"])
    other = (label + 1) % 3
    found = conditional_vae.transfer(params, stats, x, label, other, networks=NETWORKS)
    style = (x - MEANS[label]) @ gain
    np.testing.assert_allclose(found, style[:, None] * WEIGHT + MEANS[other], atol=1e-4)


def test_rows_of_the_grid_share_the_class_and_columns_the_style():
    params, stats = _exact()
    z = jnp.array([[-1.0], [0.0], [2.0], [0.5]])
    grid = conditional_vae.style_content(params, stats, z, networks=NETWORKS)
    expected = np.asarray(z)[None] * WEIGHT + MEANS[:, None]
    np.testing.assert_allclose(grid, expected, atol=1e-5)


def _probed(params, stats, hidden_sizes):
    sets = [_data(3_000, seed) for seed in (1, 2)]
    codes = [np.asarray(representation.code(params, stats, d["x"], networks=NETWORKS, label=d["label"])) for d in sets]
    (z, label), (test_z, test_label) = ((c, np.asarray(d["label"])) for c, d in zip(codes, sets, strict=True))
    found = probes.probe_accuracy(z, label, test_z, test_label, hidden_sizes=hidden_sizes)
    return found - probes.chance(label, test_label)


@pytest.mark.parametrize("hidden_sizes", [(), (16,)])
def test_no_probe_reads_the_class_from_the_style(hidden_sizes):
    params, stats = _exact()
    assert abs(_probed(params, stats, hidden_sizes)) < 0.04
    # The mutant: a posterior that is not given y keeps it in z.
    dense = params["encoder"]["Dense_0"]
    blind = {**dense, "kernel": dense["kernel"].at[2:].set(0.0)}
    assert _probed({**params, "encoder": {"Dense_0": blind}}, stats, hidden_sizes) > 0.2


def test_learning_reaches_the_exact_conditional_likelihood():
    batch = _data(500)
    model = conditional_vae.model(NETWORKS, optax.adam(optax.cosine_decay_schedule(3e-2, 2_000)))

    def step(state, t):
        return model.update(jax.random.fold_in(jax.random.key(2), t), state, batch)

    state, _ = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(2_000)))(model.init(jax.random.key(0), batch))
    bound = conditional_vae.class_log_bounds(
        jax.random.key(1), state.params, state.stats, batch, networks=NETWORKS, num_samples=50
    )
    own = np.take_along_axis(np.asarray(bound), np.asarray(batch["label"])[:, None], axis=1).mean()
    exact = np.take_along_axis(_log_joint(batch["x"]), np.asarray(batch["label"])[:, None], axis=1).mean()
    assert exact - 0.01 < own < exact + 0.03


def test_bad_arguments_are_refused():
    plain = vae.dense((2,), likelihoods.Gaussian(SIGMA), 1, hidden_sizes=())
    with pytest.raises(ValueError, match="`networks` must have `num_classes`, got None"):
        conditional_vae.model(plain, optax.sgd(0.1))
    single = vae.dense((2,), likelihoods.Gaussian(SIGMA), 1, num_classes=1, hidden_sizes=())
    with pytest.raises(ValueError, match="`num_classes` must be at least 2"):
        conditional_vae.model(single, optax.sgd(0.1))
    model = conditional_vae.model(NETWORKS, optax.sgd(0.1))
    with pytest.raises(ValueError, match="`batch` must hold `label`"):
        model.init(jax.random.key(0), {"x": jnp.zeros((4, 2))})
    with pytest.raises(ValueError, match=r"`label` must lie in \[0, 2\]"):
        model.init(jax.random.key(0), {"x": jnp.zeros((4, 2)), "label": jnp.full(4, 3)})
