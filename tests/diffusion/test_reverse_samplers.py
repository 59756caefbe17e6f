"""Reverse diffusion on Gaussian data, where the optimal denoiser and every law are known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.diffusion import process, samplers, schedules
from jgen.diffusion.samplers import Estimate
from jgen.diffusion.schedules import Schedule
from jgen.sampler import run

MEAN, VARIANCE = 0.3, 0.25


def optimal(schedule: Schedule, calls: list[int] | None = None) -> samplers.Denoise:
    """E[x_0 | x_t] where x_0 ~ N(MEAN, VARIANCE)."""

    def denoise(x: jax.Array, t: jax.Array) -> Estimate:
        if calls is not None:
            calls.append(1)
        alpha, sigma = process.at(schedule.alpha, t, x.ndim), process.at(schedule.sigma, t, x.ndim)
        gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
        start = MEAN + gain * (x - alpha * MEAN)
        log_variance = process.at(schedule.log_posterior_variance, t, x.ndim)
        return Estimate(start, process.noise_of(start, x, alpha, sigma), log_variance)

    return denoise


def test_ancestral_ends_in_the_data() -> None:
    schedule = schedules.linear(1000)
    sampler = samplers.ancestral(optimal(schedule), schedule)
    x, _ = samplers.sample(jax.random.key(0), sampler, 20_000, shape=(2,), num_steps=1000)
    assert abs(float(x.var()) / VARIANCE - 1) < 0.03
    assert abs(float(x.mean()) - MEAN) < 4 * (VARIANCE / 40_000) ** 0.5


def test_a_step_is_the_posterior_at_the_estimate() -> None:
    schedule = schedules.cosine(20)
    denoise, x = optimal(schedule), jax.random.normal(jax.random.key(1), (50_000, 1)) * 0.0 + 0.8
    for t in (20, 7, 2):
        law = process.posterior(denoise(x[:1], jnp.array([t])).start, x[:1], jnp.array([t]), schedule)
        for sampler in (samplers.ancestral(denoise, schedule), samplers.ddim(denoise, schedule, eta=1.0)):
            state = sampler.init(jax.random.key(0), x)._replace(step=jnp.asarray(t, jnp.int32))
            moved = sampler.step(jax.random.key(t), state)[0].position
            std = float(jnp.exp(0.5 * law.log_variance[0, 0]))
            assert abs(float(moved.mean() - law.mean[0, 0])) < 4 * std / 50_000**0.5
            assert float(moved.std()) == pytest.approx(std, rel=0.02)


def test_ddim_with_all_its_noise_is_ancestral() -> None:
    schedule = schedules.linear(30)
    denoise, key = optimal(schedule), jax.random.key(2)
    ancestral = samplers.ancestral(denoise, schedule)
    ddim = samplers.ddim(denoise, schedule, eta=1.0)
    ends = [samplers.sample(key, sampler, 8, shape=(3,), num_steps=30)[0] for sampler in (ancestral, ddim)]
    np.testing.assert_allclose(ends[0], ends[1], atol=2e-5)


def test_ddim_is_euler_in_the_noise_to_signal_ratio() -> None:
    """x/α follows dx̄ = ε̂ d(σ/α) (Song, Meng and Ermon, eq. 13)."""
    schedule = schedules.linear(10)
    denoise, x = optimal(schedule), jax.random.normal(jax.random.key(3), (4, 2))
    sampler = samplers.ddim(denoise, schedule)
    state, _ = sampler.step(jax.random.key(0), sampler.init(jax.random.key(0), x))
    ratio = schedule.sigma / schedule.alpha
    noise = denoise(x, jnp.full(4, 10)).noise
    expected = schedule.alpha[9] * (x / schedule.alpha[10] + (ratio[9] - ratio[10]) * noise)
    np.testing.assert_allclose(state.position, expected, rtol=1e-4, atol=1e-5)


def test_ddim_converges_with_order_one_to_the_exact_flow() -> None:
    """The probability-flow map of Gaussian data from λ_T down to clean data is affine."""
    with jax.enable_x64(True):
        errors = []
        for num in (64, 128, 256):
            log_snr = np.linspace(-8.0, 8.0, num)[::-1]
            schedule = Schedule(np.concatenate([[np.inf], log_snr]), np.linspace(0, 1, num + 1))
            x = jnp.linspace(-2.0, 2.0, 9)[:, None]
            sampler = samplers.ddim(optimal(schedule), schedule)
            end, _ = run(jax.random.key(0), sampler, sampler.init(jax.random.key(0), x), num - 1)
            std = [np.sqrt(schedule.alpha[t] ** 2 * VARIANCE + schedule.sigma[t] ** 2) for t in (1, -1)]
            exact = schedule.alpha[1] * MEAN + std[0] / std[1] * (x - schedule.alpha[-1] * MEAN)
            errors.append(float(jnp.abs(end.position - exact).max()))
    slopes = np.log2(np.array(errors[:-1]) / errors[1:])
    assert np.all((slopes > 0.95) & (slopes < 1.05))


@pytest.mark.parametrize("num_steps", [1, 2, 3, 10])
def test_fewer_steps_end_finite_at_clean_data_and_stay(num_steps: int) -> None:
    schedule = schedules.respace(schedules.cosine(100), num_steps)
    for make in (samplers.ancestral, samplers.ddim):
        calls: list[int] = []
        sampler = make(optimal(schedule, calls), schedule)
        state = sampler.init(jax.random.key(0), jnp.ones((2, 1)))
        state, kept = run(
            jax.random.key(1), sampler, state, num_steps, keep=lambda state, info: (state.step, info.start)
        )
        assert np.all(np.isfinite(state.position))
        np.testing.assert_array_equal(kept[0], np.arange(num_steps)[::-1])
        np.testing.assert_allclose(state.position, kept[1][-1], rtol=1e-5)  # the last step returns its estimate
        again, _ = sampler.step(jax.random.key(2), state)
        np.testing.assert_array_equal(again.position, state.position)
        assert int(again.step) == 0


def test_the_whole_chain_is_traced_once_for_all_keys() -> None:
    schedule, calls = schedules.linear(50), []
    sampler = samplers.ddim(optimal(schedule, calls), schedule, eta=0.5)
    draw = jax.jit(lambda key: samplers.sample(key, sampler, 4, shape=(2,), num_steps=50)[0])
    first, second = draw(jax.random.key(0)), draw(jax.random.key(1))
    assert len(calls) == 1
    assert not np.allclose(first, second)


def test_an_example_is_the_same_in_every_batch() -> None:
    schedule = schedules.linear(20)
    sampler = samplers.ancestral(optimal(schedule), schedule)
    few, many = (samplers.sample(jax.random.key(0), sampler, n, shape=(2,), num_steps=20)[0] for n in (3, 8))
    np.testing.assert_allclose(few, many[:3], atol=1e-6)


def test_a_chain_may_be_cut_anywhere() -> None:
    schedule = schedules.linear(20)
    sampler = samplers.ancestral(optimal(schedule), schedule)
    start, key = sampler.init(jax.random.key(0), jnp.ones((3, 2))), jax.random.key(1)
    whole, _ = run(key, sampler, start, 20)
    half, _ = run(key, sampler, start, 7)
    rest, _ = run(key, sampler, half, 13, first_step=7)
    np.testing.assert_array_equal(whole.position, rest.position)


def test_refuses_a_share_of_noise_above_one() -> None:
    schedule = schedules.linear(20)
    with pytest.raises(ValueError, match="`eta`"):
        samplers.ddim(optimal(schedule), schedule, eta=1.5)
