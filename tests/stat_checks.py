"""Statistical checks with one budget: all of them together fail a correct suite once in 1/ALPHA runs.

Each says what it could have seen (its power), so that a check too weak to fail is itself a failure.
"""

from typing import Any

import numpy as np
import scipy.optimize
import scipy.stats

ALPHA = 1e-4
CHECKS = 1_000  # how many numbers the suite tests; a check of k numbers divides its part among them


def threshold(num: int = 1) -> float:
    """The |z| that a standard normal exceeds with probability ALPHA/CHECKS in one of `num` numbers."""
    return float(scipy.stats.norm.isf(ALPHA / CHECKS / num / 2))


def z_scores(values: Any, expected: Any = 0.0) -> np.ndarray:
    """(mean − expected)/(sd/√n) of independent rows, (n, ...); 0 where both are exact."""
    values = np.asarray(values, np.float64)
    difference, spread = values.mean(axis=0) - expected, values.std(axis=0, ddof=1) / np.sqrt(len(values))
    return np.where(difference == 0, 0.0, difference / np.maximum(spread, 1e-300))


def check_mean(values: Any, expected: Any = 0.0, *, sees: Any = None) -> None:
    """The mean of independent rows is `expected`; a deviation of `sees` would be noticed (almost) surely."""
    values = np.asarray(values, np.float64)
    z = z_scores(values, expected)
    limit = threshold(max(z.size, 1))
    assert np.all(np.abs(z) < limit), f"z = {z}, limit {limit:.2f}"
    if sees is not None:
        detectable = 2 * limit * values.std(axis=0, ddof=1) / np.sqrt(len(values))
        assert np.all(detectable <= sees), f"no power: sees {detectable}, asked for {sees}"


def check_cdf(values: Any, cdf: Any, *, sees: float) -> None:
    """Independent draws follow `cdf` (Dvoretzky–Kiefer–Wolfowitz–Massart); a distance of `sees` would be noticed."""
    values = np.sort(np.asarray(values, np.float64))
    num = len(values)
    limit = np.sqrt(np.log(2 * CHECKS / ALPHA) / (2 * num))
    assert 2 * limit <= sees, f"no power: sees {2 * limit}, asked for {sees}"
    at = cdf(values)
    distance = max(np.max(np.arange(1, num + 1) / num - at), np.max(at - np.arange(num) / num))
    assert distance < limit, f"distance {distance}, limit {limit}"


def check_counts(counts: Any, probs: Any, *, sees: float | None = None) -> None:
    """Counts of independent draws follow `probs`: the G-test, rare cells pooled until 5 are expected.

    A law at total variation `sees` or more (between the pooled cells) would be noticed (almost) surely.
    """
    counts, probs = np.asarray(counts, np.float64), np.asarray(probs, np.float64)
    assert not counts[probs == 0].any(), f"draws of what has probability 0: {counts[probs == 0]}"
    expected = counts.sum() * probs / probs.sum()
    order = np.argsort(expected)
    group = np.minimum(np.cumsum(expected[order]) // 5, np.argmax(expected[order] >= 5) + 1e9)
    merged = np.where(expected[order] >= 5, 1e12 + np.arange(len(order)), group)
    _, index = np.unique(merged, return_inverse=True)
    observed, wanted = np.bincount(index, counts[order]), np.bincount(index, expected[order])
    keep = wanted >= 1
    observed, wanted = np.append(observed[keep], observed[~keep].sum()), np.append(wanted[keep], wanted[~keep].sum())
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    assert len(wanted) > 1, "no power: one cell"
    g = 2 * np.sum(np.where(observed > 0, observed * np.log(np.maximum(observed, 1e-300) / wanted), 0.0))
    limit = scipy.stats.chi2.isf(ALPHA / CHECKS, len(wanted) - 1)
    assert g < limit, f"G = {g}, limit {limit}"
    if sees is not None:
        detectable = _detectable(limit, len(wanted) - 1, counts.sum())
        assert detectable <= sees, f"no power: sees {detectable}, asked for {sees}"


def _detectable(limit: Any, freedom: int, num: float) -> float:
    """The total variation at which G exceeds `limit` almost surely: its noncentrality is at least 4·num·TV²."""
    high = 10 * limit
    miss: Any = scipy.optimize.brentq(lambda x: scipy.stats.ncx2.cdf(limit, freedom, x) - ALPHA / CHECKS, 0, high)
    return float(np.sqrt(miss / (4 * num)))
