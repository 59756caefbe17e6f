"""The statistical checks themselves: they pass what is right, catch what is wrong, and refuse to be too weak."""

from typing import Any

import numpy as np
import pytest
import scipy.stats
import stat_checks as stat

NUM = 20_000


def _draws(seed: int, shape: Any = NUM) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_right_passes(seed: int) -> None:
    x = _draws(seed, (NUM, 3))
    stat.check_mean(x, 0.0, sees=0.1)
    stat.check_cdf(x[:, 0], scipy.stats.norm.cdf, sees=0.05)
    probs = np.array([0.5, 0.3, 0.1, 0.0999, 0.0001])
    stat.check_counts(np.random.default_rng(seed).multinomial(NUM, probs), probs, sees=0.1)


@pytest.mark.parametrize("seed", range(5))
def test_what_a_check_says_it_sees_is_seen(seed: int) -> None:
    x, sees = _draws(seed), 0.08
    stat.check_mean(x, 0.0, sees=sees)
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean(x + sees, 0.0)
    with pytest.raises(AssertionError, match="distance"):
        stat.check_cdf(np.concatenate([x, np.full(NUM // 19, 9.0)]), scipy.stats.norm.cdf, sees=0.05)  # 5 percent off
    probs, sees = np.full(8, 1 / 8), 0.05
    moved = probs + np.where(np.arange(8) < 4, 1, -1) * sees / 4
    stat.check_counts(np.random.default_rng(seed).multinomial(NUM, probs), probs, sees=sees)
    with pytest.raises(AssertionError, match="G ="):
        stat.check_counts(np.random.default_rng(seed).multinomial(NUM, moved), probs)


def test_too_weak_a_check_fails() -> None:
    with pytest.raises(AssertionError, match="no power"):
        stat.check_mean(_draws(0, 100), 0.0, sees=0.1)
    with pytest.raises(AssertionError, match="no power"):
        stat.check_cdf(_draws(0, 100), scipy.stats.norm.cdf, sees=0.1)
    with pytest.raises(AssertionError, match="no power"):
        stat.check_counts([48, 52], [0.5, 0.5], sees=0.1)
    with pytest.raises(AssertionError, match="probability 0"):
        stat.check_counts([50, 49, 1], [0.5, 0.5, 0.0])


def test_limits_come_from_one_budget() -> None:
    assert stat.threshold() == pytest.approx(5.33, abs=0.01)
    tail = 2 * scipy.stats.norm.sf(stat.threshold(7)) * 7
    assert tail == pytest.approx(stat.ALPHA / stat.CHECKS)
