"""Linear autoregression: least squares, the AR(2) triangle, one normalized density, forecasts, stationary laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from stat_checks import check_mean

from jgen.autoregressive import linear

ORDER = 3
PARAMS = linear.Params(
    jnp.array(0.5),
    jnp.array([0.6, -0.3, 0.2]),
    jnp.array(0.25),
    jnp.array([1.0, 0.9, 1.1]),
    jnp.array([[0.5, 0.2, 0.1], [0.2, 0.5, 0.2], [0.1, 0.2, 0.5]]),
)


def rows(num=6, time=40, seed=0):
    rng = np.random.default_rng(seed)
    return 3.0 + np.cumsum(rng.standard_normal((num, time)), axis=1) * 0.3 + rng.standard_normal((num, time))


def least_squares(x, order):
    """NumPy, float64: (b_0, b_1, …, b_p), the mean square of the residuals."""
    past = [np.r_[1.0, row[t - order : t][::-1]] for row in x for t in range(order, x.shape[1])]
    values = np.concatenate([row[order:] for row in x])
    solution = np.linalg.lstsq(np.array(past), values, rcond=None)[0]
    return solution, np.mean((values - np.array(past) @ solution) ** 2)


def learned(x, order, batches=3):
    model = linear.model(order)
    update = jax.jit(model.update)
    state = model.init(jax.random.key(0), {"x": x})
    for part in np.split(x, batches):
        state, _ = update(jax.random.key(0), state, {"x": part})
    return state.params


@pytest.mark.parametrize("order", [1, 2, 5])
def test_counting_is_least_squares(order):
    x = rows()
    solution, variance = least_squares(x, order)
    params = learned(x.astype(np.float32), order)
    np.testing.assert_allclose(np.r_[params.bias, params.coefficients], solution, atol=2e-4)
    np.testing.assert_allclose(params.variance, variance, rtol=1e-4)


def test_in_64_bits_it_is_least_squares_to_ten_digits():
    x = rows()
    solution, variance = least_squares(x, 5)
    with jax.enable_x64(True):
        params = learned(x, 5)
        np.testing.assert_allclose(np.r_[params.bias, params.coefficients], solution, atol=1e-10)
        np.testing.assert_allclose(params.variance, variance, rtol=1e-10)


@pytest.mark.parametrize("mutant", ["reversed", "no constant", "one late"])
def test_wrong_products_are_caught(mutant, monkeypatch):
    x, real = rows(), linear.products

    def wrong(x, order):
        if mutant == "one late":
            return real(jnp.delete(x, -1 - order, axis=1), order)
        moments = real(x[:, ::-1] if mutant == "reversed" else x, order)
        return moments.at[0, 1:].set(0).at[1:, 0].set(0) if mutant == "no constant" else moments

    monkeypatch.setattr(linear, "products", wrong)
    params = learned(x.astype(np.float32), 3)
    assert np.abs(np.r_[params.bias, params.coefficients] - least_squares(x, 3)[0]).max() > 2e-4


def test_the_first_values_have_the_mean_and_covariance_of_neighbours():
    x = rows()
    params = learned(x.astype(np.float32), ORDER)
    windows = np.concatenate([np.lib.stride_tricks.sliding_window_view(row[:-1], ORDER) for row in x])
    np.testing.assert_allclose(params.mean, windows.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(params.covariance, np.cov(windows.T, bias=True), rtol=1e-3)


@pytest.mark.parametrize("time", [1, 2, 3, 4, 7])
def test_the_density_is_one_normal_of_the_whole_row(time):
    """Against SciPy's multivariate normal, its moments by running the recursion over means and unit noises."""
    means, effects = (
        np.asarray(PARAMS.mean, float),
        scipy.linalg.cholesky(np.asarray(PARAMS.covariance, float), lower=True),
    )
    mean, effect = list(means), [np.r_[row, np.zeros(10)] for row in effects]
    for t in range(ORDER, max(time, ORDER)):
        mean.append(0.5 + sum(b * mean[t - 1 - i] for i, b in enumerate((0.6, -0.3, 0.2))))
        effect.append(sum(b * effect[t - 1 - i] for i, b in enumerate((0.6, -0.3, 0.2))) + 0.5 * np.eye(13)[t])
    covariance = np.array(effect[:time]) @ np.array(effect[:time]).T
    x = np.random.default_rng(0).standard_normal((5, time))
    expected = scipy.stats.multivariate_normal.logpdf(x, mean[:time], covariance)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(linear.log_prob(PARAMS, jnp.asarray(x, jnp.float32)), np.atleast_1d(expected), rtol=2e-5)


def test_the_conditional_density_leaves_the_first_values_out():
    x = jnp.asarray(rows(2, 9), jnp.float32)
    each = linear.conditional_log_prob(PARAMS, x)
    assert each.shape == (2, 9 - ORDER)
    expected = scipy.stats.norm.logpdf(x[:, 3], 0.5 + 0.6 * x[:, 2] - 0.3 * x[:, 1] + 0.2 * x[:, 0], 0.5)
    np.testing.assert_allclose(each[:, 0], expected, rtol=1e-5)
    whole = linear.log_prob(PARAMS, x) - linear.log_prob(PARAMS, x[:, :ORDER])
    np.testing.assert_allclose(jnp.sum(each, axis=1), whole, rtol=1e-5)
    np.testing.assert_allclose(each[:, 1:], linear.conditional_log_prob(PARAMS, x[:, 1:]), rtol=1e-5)


def test_dependence_is_exactly_on_the_last_p_values():
    jacobian = jax.jacrev(lambda x: linear.conditional_log_prob(PARAMS, x[None])[0])(jnp.arange(9.0))
    places, columns = np.indices((6, 9))
    np.testing.assert_array_equal(jacobian != 0, (columns >= places) & (columns <= places + ORDER))


def test_the_triangle_of_ar_2():
    side = np.linspace(-2.4, 2.4, 24)
    grid = np.stack(np.meshgrid(side, side / 2), axis=-1).reshape(-1, 2)
    expected = (np.abs(grid[:, 1]) < 1) & (grid[:, 1] < 1 - np.abs(grid[:, 0]))
    found = jax.vmap(lambda b: linear.is_stationary(PARAMS._replace(coefficients=b)))(jnp.asarray(grid, jnp.float32))
    np.testing.assert_array_equal(found, expected)
    assert 0.2 < expected.mean() < 0.8
    transposed = jax.vmap(lambda b: linear.is_stationary(PARAMS._replace(coefficients=b)))(
        jnp.asarray(grid[:, ::-1], jnp.float32)
    )
    assert not np.array_equal(transposed, expected), "the order of the coefficients matters"


def test_unit_roots_and_explosive_series_are_not_stationary():
    assert not linear.is_stationary(PARAMS._replace(coefficients=jnp.array([1.0])))
    assert not linear.is_stationary(PARAMS._replace(coefficients=jnp.array([1.2, -0.1])))


def test_the_stationary_law_reproduces_itself_and_the_spectrum():
    """Γ is a Toeplitz matrix, a fixed point, and ∫ spectrum; for AR(1) it is σ²/(1 − b²)."""
    gamma = np.asarray(linear.stationary_covariance(PARAMS))
    np.testing.assert_allclose(gamma, scipy.linalg.toeplitz(gamma[0]), atol=1e-5)
    a = np.asarray(linear.companion(PARAMS.coefficients))
    noise = np.diag([0.25, 0, 0])
    np.testing.assert_allclose(a @ gamma @ a.T + noise, gamma, atol=1e-5)
    frequencies = (np.arange(512) - 256) / 512
    power = np.asarray(linear.spectrum(PARAMS, jnp.asarray(frequencies, jnp.float32)))
    for lag in range(ORDER):
        np.testing.assert_allclose(np.mean(power * np.cos(2 * np.pi * frequencies * lag)), gamma[0, lag], atol=1e-5)
    one = PARAMS._replace(coefficients=jnp.array([0.8]))
    np.testing.assert_allclose(linear.stationary_covariance(one), [[0.25 / (1 - 0.64)]], rtol=1e-5)
    np.testing.assert_allclose(linear.stationary_mean(PARAMS), 0.5 / (1 - 0.5), rtol=1e-5)


def test_samples_have_the_moments_of_the_density():
    drawn = np.asarray(jax.jit(lambda key: linear.sample(key, PARAMS, 20_000, 6))(jax.random.key(0)), np.float64)
    check_mean(drawn[:, :ORDER] - np.asarray(PARAMS.mean), sees=0.06)
    noise = np.stack([drawn[:, t] - (0.5 + drawn[:, t - 3 : t] @ [0.2, -0.3, 0.6]) for t in range(3, 6)], axis=1)
    centred = drawn[:, :ORDER] - np.asarray(PARAMS.mean)
    products = np.concatenate([centred, noise], axis=1)
    expected = scipy.linalg.block_diag(np.asarray(PARAMS.covariance), 0.25 * np.eye(3))
    check_mean(products[:, :, None] * products[:, None], expected, sees=0.06)
    check_mean(noise, sees=0.05)


def test_cached_samples_are_those_of_full_passes():
    """From the same key: one prediction from all values so far, again and again."""
    key, past = jax.random.key(4), jnp.asarray(rows(3, 8), jnp.float32)
    drawn = jax.jit(lambda key: linear.sample(key, PARAMS, 3, 5, past=past))(key)
    noise = jax.vmap(lambda key: jax.random.normal(key, (5,)))(
        jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(3))
    )
    x = past
    for t in range(5):
        mean = 0.5 + 0.6 * x[:, -1] - 0.3 * x[:, -2] + 0.2 * x[:, -3]
        x = jnp.concatenate([x, (mean + 0.5 * noise[:, t])[:, None]], axis=1)
    np.testing.assert_allclose(drawn, x[:, 8:], rtol=1e-5, atol=1e-5)


def test_forecasts_are_the_mean_and_variance_of_what_comes():
    past = jnp.asarray(rows(1, 10), jnp.float32)
    found = linear.forecast(PARAMS, past, 5)
    drawn = jax.jit(lambda key: linear.sample(key, PARAMS, 20_000, 5, past=past[0]))(jax.random.key(1))
    deviation = np.asarray(drawn - found.mean, np.float64)
    check_mean(deviation, sees=0.05)
    check_mean(deviation**2, np.asarray(found.variance), sees=0.05)
    np.testing.assert_allclose(found.variance[:2], [0.25, 0.25 * (1 + 0.36)], rtol=1e-5)
    far = linear.forecast(PARAMS, past, 60)
    np.testing.assert_allclose(far.mean[0, -1], linear.stationary_mean(PARAMS), rtol=1e-4)
    np.testing.assert_allclose(far.variance[-1], linear.stationary_covariance(PARAMS)[0, 0], rtol=1e-4)


def test_a_long_stationary_series_is_found_again():
    gamma = linear.stationary_covariance(PARAMS)[::-1, ::-1]
    start = PARAMS._replace(mean=jnp.full(3, linear.stationary_mean(PARAMS)), covariance=gamma)
    x = jax.jit(lambda key: linear.sample(key, start, 40, 1_000))(jax.random.key(2))
    params = learned(np.asarray(x), ORDER, batches=4)
    np.testing.assert_allclose(params.coefficients, PARAMS.coefficients, atol=0.03)
    np.testing.assert_allclose(params.covariance, gamma, atol=0.03)
    assert linear.is_stationary(params)


@pytest.mark.parametrize("x", [np.full((4, 9), 2.5), np.full((4, 9), 1e6), np.arange(36.0).reshape(4, 9)])
def test_series_without_noise_stay_finite(x):
    params = learned(x.astype(np.float32), 2, batches=2)
    assert all(np.all(np.isfinite(leaf)) for leaf in params)
    assert params.variance >= 1e-6
    prediction = linear.predict(params, jnp.asarray(x[:, :2], jnp.float32))
    np.testing.assert_allclose(prediction, x[:, 2], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(4), "`x` must have 2 axes"),
        (np.array([[0.0, np.nan, 1.0]]), "`x` must lie in"),
        (np.array([[0.0, np.inf, 1.0]]), "`x` must lie in"),
        (np.zeros((3, 2)), "`x` must have more than the 2 values"),
    ],
)
def test_bad_data_is_refused(x, message):
    with pytest.raises(ValueError, match=message):
        linear.model(2).init(jax.random.key(0), {"x": x})


@pytest.mark.parametrize("arguments", [{"order": 0}, {"order": 1, "length": 0}, {"order": 1, "floor": 0.0}])
def test_bad_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match=f"`{list(arguments)[-1]}`"):
        linear.model(**arguments)


def test_bad_pasts_are_refused():
    with pytest.raises(ValueError, match="`past` must be rows of at least the 3 values"):
        linear.forecast(PARAMS, jnp.zeros((1, 2)), 1)
    with pytest.raises(ValueError, match="`num_steps`"):
        linear.forecast(PARAMS, jnp.zeros((1, 3)), 0)
    with pytest.raises(ValueError, match="`length`"):
        linear.sample(jax.random.key(0), PARAMS, 1, 0)
