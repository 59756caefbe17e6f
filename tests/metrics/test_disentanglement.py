"""The mutual information gap where it is 1 and where it is 0, and the parts of a rate by quadrature."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from jgen.metrics import disentanglement

GRID = np.array(list(itertools.product(range(-2, 3), repeat=2)))


def _posteriors(turn=0.0, std=0.05):
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    mean = jnp.asarray(GRID @ matrix.T, jnp.float32)
    return mean, jnp.full_like(mean, np.log(std))


def _gap(mean, log_std, factors=GRID):
    factors = jnp.asarray(factors)
    information = disentanglement.mutual_information(jax.random.key(0), mean, log_std, factors, num_draws=400)
    return disentanglement.mutual_information_gap(information, disentanglement.entropy(factors))


def test_gap_is_one_where_each_dimension_is_a_factor():
    np.testing.assert_allclose(_gap(*_posteriors()), [1.0, 1.0], atol=0.01)


def test_gap_is_zero_where_dimensions_share_the_factors():
    np.testing.assert_allclose(_gap(*_posteriors(np.pi / 4)), [0.0, 0.0], atol=0.01)


def test_information_is_that_of_quadrature():
    mean, log_std = _posteriors(0.4, std=0.8)
    found = disentanglement.mutual_information(jax.random.key(1), mean, log_std, jnp.asarray(GRID), num_draws=2_000)
    z = np.linspace(-8, 8, 4_001)
    for k, j in itertools.product(range(2), range(2)):
        given = [
            scipy.stats.norm.pdf(z[:, None], np.asarray(mean)[GRID[:, k] == v, j], 0.8).mean(1) for v in set(GRID[:, k])
        ]
        marginal = np.mean(given, axis=0)
        expected = np.mean([np.trapezoid(scipy.special.rel_entr(p, marginal), z) for p in given])
        np.testing.assert_allclose(found[k, j], expected, atol=0.02)


def test_entropy_is_of_the_frequencies():
    factors = jnp.array([[0, 5], [0, 5], [1, 5], [2, 7]])
    expected = [1.5 * np.log(2), np.log(4) - 0.75 * np.log(3)]
    np.testing.assert_allclose(disentanglement.entropy(factors), expected, rtol=1e-6)


def _rate(mean, log_std):
    variance = np.exp(2 * np.asarray(log_std))
    return 0.5 * np.mean(np.sum(np.asarray(mean) ** 2 + variance - np.log(variance) - 1, axis=1))


def test_parts_of_the_rate_sum_to_it_and_are_those_of_quadrature():
    generator = np.random.default_rng(0)
    mean = jnp.asarray(generator.normal(size=(6, 1)) + 0.3 * generator.normal(size=(6, 2)), jnp.float32)
    log_std = jnp.asarray(generator.uniform(-1, 0, (6, 2)), jnp.float32)
    parts = disentanglement.rate_parts(jax.random.key(0), mean, log_std, num_draws=20_000)
    np.testing.assert_allclose(sum(parts), _rate(mean, log_std), atol=0.02)
    side = np.linspace(-7, 7, 801)
    each = [
        np.stack([scipy.stats.norm.pdf(side, m, np.exp(s)) for m, s in zip(row, scale, strict=True)])
        for row, scale in zip(np.asarray(mean), np.asarray(log_std), strict=True)
    ]
    joint = np.mean([np.outer(one[0], one[1]) for one in each], axis=0)
    first, second = np.mean(each, axis=0)

    def integral(values):
        return np.trapezoid(np.trapezoid(values, side, axis=1), side)

    information = np.mean([integral(scipy.special.rel_entr(np.outer(*one), joint)) for one in each])
    total = integral(scipy.special.rel_entr(joint, np.outer(first, second)))
    normal = scipy.stats.norm.pdf(side)
    wise = sum(np.trapezoid(scipy.special.rel_entr(q, normal), side) for q in (first, second))
    np.testing.assert_allclose(parts, (information, total, wise), atol=0.02)


def test_independent_dimensions_have_no_total_correlation():
    straight = disentanglement.rate_parts(jax.random.key(0), *_posteriors(), num_draws=400)
    turned = disentanglement.rate_parts(jax.random.key(0), *_posteriors(np.pi / 4), num_draws=400)
    np.testing.assert_allclose(straight.mutual_information, np.log(25), atol=1e-3)
    assert abs(straight.total_correlation) < 0.01
    assert turned.total_correlation > 0.3


def _enumerated(estimator, num=5, size=3, z=0):
    """The mean over all batches with example z of exp of the estimate, and q(z) itself."""
    density = np.random.default_rng(1).exponential(size=num)
    found = []
    for others in itertools.combinations([n for n in range(num) if n != z], size - 1):
        rows = np.array([z, *others])
        log_q = jnp.log(jnp.asarray(np.tile(density[rows], (size, 1))))
        # Row 0 alone stands for z: its own example is on the diagonal there.
        found.append(float(jnp.exp(disentanglement.minibatch_log_prob(log_q, num, estimator=estimator)[0])))
    return np.mean(found), density.mean()


def test_stratified_weights_are_unbiased_over_all_batches():
    with jax.enable_x64(True):
        found, exact = _enumerated("stratified")
    np.testing.assert_allclose(found, exact, rtol=1e-10)


def test_weighted_estimate_is_below():
    with jax.enable_x64(True):
        found, exact = _enumerated("weighted")
    assert found < 0.7 * exact


def test_own_example_off_the_diagonal_would_be_seen():
    # The released code of the paper fills the first two columns instead of the diagonal.
    with jax.enable_x64(True):
        right = disentanglement.minibatch_log_prob(jnp.log(jnp.array([[9.0, 1.0, 1.0]] * 3)), 5)
        shifted = disentanglement.minibatch_log_prob(jnp.log(jnp.array([[1.0, 9.0, 1.0]] * 3)), 5)
    assert abs(float(right[0] - shifted[0])) > 0.1


def test_latents_of_several_dimensions_are_weighed_alike():
    log_q = jax.random.normal(jax.random.key(0), (4, 4, 3))
    whole = disentanglement.minibatch_log_prob(log_q, 10)
    parts = [disentanglement.minibatch_log_prob(log_q[..., j], 10) for j in range(3)]
    np.testing.assert_allclose(whole, jnp.stack(parts, axis=-1), rtol=1e-6)


def test_posteriors_that_are_all_the_same_know_nothing():
    same = jnp.zeros((25, 2)), jnp.zeros((25, 2))
    found = disentanglement.mutual_information(jax.random.key(0), *same, jnp.asarray(GRID))
    np.testing.assert_allclose(found, 0.0, atol=1e-5)


def test_bad_arguments_are_refused():
    mean, log_std = _posteriors()
    with pytest.raises(ValueError, match="`num_draws` must be at least 1"):
        disentanglement.rate_parts(jax.random.key(0), mean, log_std, num_draws=0)
    with pytest.raises(ValueError, match=r"`information.shape\[1\]` must be at least 2"):
        disentanglement.mutual_information_gap(jnp.ones((2, 1)), jnp.ones(2))
    with pytest.raises(ValueError, match="`entropies` must be positive"):
        disentanglement.mutual_information_gap(jnp.ones((2, 2)), jnp.zeros(2))
    with pytest.raises(ValueError, match="`estimator` must be one of 'stratified', 'weighted'"):
        disentanglement.minibatch_log_prob(jnp.zeros((3, 3)), 5, estimator="none")
    with pytest.raises(ValueError, match="`num_examples` must be at least 3"):
        disentanglement.minibatch_log_prob(jnp.zeros((3, 3)), 2)
