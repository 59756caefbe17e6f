"""Schedules against naive float64 recursions and the numbers that the papers print."""

import numpy as np
import pytest

from jgen.diffusion import schedules

SCHEDULES = {
    "linear": schedules.linear(1000),
    "linear short": schedules.linear(50),
    "linear two": schedules.linear(2),
    "cosine": schedules.cosine(1000),
    "cosine short": schedules.cosine(7),
    "one step": schedules.cosine(1),
    "fewer": schedules.respace(schedules.linear(1000), 10),
}


@pytest.fixture(params=SCHEDULES)
def schedule(request: pytest.FixtureRequest) -> schedules.Schedule:
    return SCHEDULES[request.param]


def test_linear_is_the_paper_at_a_thousand_steps() -> None:
    betas = np.linspace(1e-4, 0.02, 1000)
    alpha_bar = np.cumprod(1.0 - betas)
    schedule = schedules.linear(1000)
    np.testing.assert_allclose(schedule.beta[1:], betas, rtol=1e-10)
    np.testing.assert_allclose(schedule.alpha[1:] ** 2, alpha_bar, rtol=1e-10)
    np.testing.assert_allclose(schedule.sigma[1:] ** 2, 1.0 - alpha_bar, rtol=1e-10)
    assert schedule.alpha[-1] ** 2 == pytest.approx(4.0358e-5, rel=1e-4)


def test_cosine_is_the_paper_before_the_cap() -> None:
    steps = np.arange(1001) / 1000
    f = np.cos((steps + 0.008) / 1.008 * np.pi / 2) ** 2
    schedule = schedules.cosine(1000)
    np.testing.assert_allclose(schedule.alpha[:-1] ** 2, (f / f[0])[:-1], rtol=1e-8)
    assert schedule.beta[-1] == pytest.approx(0.999, rel=1e-9)


def test_linear_ends_alike_for_every_number_of_steps() -> None:
    ends = [schedules.linear(n).log_snr[-1] for n in (100, 1000, 4000)]
    np.testing.assert_allclose(ends, ends[1], atol=0.7)


def test_variances_sum_to_one_and_noise_grows(schedule: schedules.Schedule) -> None:
    np.testing.assert_allclose(schedule.alpha**2 + schedule.sigma**2, 1.0, rtol=1e-14)
    assert np.all(np.diff(schedule.sigma) > 0)
    assert schedule.alpha[0] == 1.0
    assert schedule.sigma[0] == 0.0
    assert schedule.time[0] == 0.0
    assert schedule.time[-1] == 1.0


def test_posterior_is_bayes_rule(schedule: schedules.Schedule) -> None:
    """N(x_s; α_s x_0, σ_s²)·N(x_t; a x_s, b) normalized over x_s, where x_t given x_s has a = α_t/α_s and b = β."""
    check_posterior(schedule, schedule.posterior)


def test_posterior_of_the_wrong_step_is_caught() -> None:
    schedule = SCHEDULES["linear short"]
    wrong = schedule.posterior._replace(start=np.roll(schedule.posterior.start, 1))
    with pytest.raises(AssertionError):
        check_posterior(schedule, wrong)


def check_posterior(schedule: schedules.Schedule, table: schedules.PosteriorTable) -> None:
    for t in range(2, schedule.num_steps + 1, max(1, schedule.num_steps // 20)):
        a, before = schedule.alpha[t] / schedule.alpha[t - 1], schedule.sigma[t - 1] ** 2
        b = schedule.sigma[t] ** 2 - a**2 * before
        precision = 1 / before + a**2 / b
        np.testing.assert_allclose(table.variance[t], 1 / precision, rtol=1e-9)
        np.testing.assert_allclose(table.noisy[t], a / b / precision, rtol=1e-9)
        np.testing.assert_allclose(table.start[t], schedule.alpha[t - 1] / before / precision, rtol=1e-9)
    np.testing.assert_allclose([column[1] for column in table], [1.0, 0.0, 0.0], atol=1e-12)
    assert [column[0] for column in table] == [0.0, 1.0, 0.0]


def test_steps_compose_to_the_jump(schedule: schedules.Schedule) -> None:
    variance = 0.0
    for beta in schedule.beta[1:]:
        variance = (1 - beta) * variance + beta
    assert variance == pytest.approx(schedule.sigma[-1] ** 2, rel=1e-10)


def test_log_variances_replace_the_zero_of_the_first_step() -> None:
    schedule = SCHEDULES["linear"]
    assert schedule.log_posterior_variance[1] == np.log(schedule.posterior.variance[2])
    np.testing.assert_array_equal(schedule.log_beta[1:], np.log(schedule.beta[1:]))
    assert np.all(np.isfinite(SCHEDULES["one step"].log_posterior_variance))


@pytest.mark.parametrize("num_steps", [1, 2, 3, 5, 10, 50, 999, 1000])
def test_a_subsequence_has_its_steps_and_both_ends(num_steps: int) -> None:
    full = SCHEDULES["cosine"]
    fewer = schedules.respace(full, num_steps)
    assert fewer.num_steps == num_steps
    assert fewer.log_snr[-1] == full.log_snr[-1]
    np.testing.assert_allclose(fewer.log_snr, full.log_snr[np.round(fewer.time * 1000).astype(int)])


def test_refuses_what_is_no_schedule() -> None:
    for make in (schedules.linear, schedules.cosine):
        with pytest.raises(ValueError, match="`num_steps`"):
            make(0)
    with pytest.raises(ValueError, match="`num_steps`"):
        schedules.respace(SCHEDULES["linear"], 1001)
    with pytest.raises(ValueError, match="`betas`"):
        schedules.from_betas(np.array([0.1, 1.0]))
    time = np.array([0.0, 0.5, 1.0])
    for log_snr, match in (([np.inf, 1.0], "length"), ([3.0, 2.0, 1.0], "inf"), ([np.inf, 1.0, 1.0], "decreasing")):
        with pytest.raises(ValueError, match=match):
            schedules.Schedule(np.array(log_snr), time)
    with pytest.raises(ValueError, match="`time`"):
        schedules.Schedule(np.array([np.inf, 2.0, 1.0]), np.array([0.0, 0.5, 0.5]))
