"""Whether a kernel keeps its target and cannot tell past from future: the checks behind the samplers' contract.

Chains start from exact draws, so nothing here depends on mixing.
"""

import collections
from typing import Any

import jax
import numpy as np
import pytest
import stat_checks as stat
from cases import SamplerCase

from jgen import Sampler, run

NUM = 50_000
STEPS = 10


def walk(case: SamplerCase, kernel: Sampler[Any], num: int = NUM) -> tuple[Any, Any]:
    """Exact draws, and where chains from them stand after each of the steps: (num, ...) and (num, STEPS, ...)."""

    def chain(key: Any, position: Any) -> Any:
        init_key, run_key = jax.random.split(key)
        state = kernel.init(init_key, position)
        return run(run_key, kernel, state, STEPS, keep=lambda state, info: state.position)[1]

    starts = case.draw(jax.random.key(11), num)
    return starts, jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(12), num), starts)


def after(kept: Any, step: int) -> Any:
    """The positions after `step` steps."""
    return jax.tree.map(lambda x: x[:, step - 1], kept)


def cells(case: SamplerCase, positions: Any) -> np.ndarray:
    """How many chains stand at each state of the support."""
    support = np.asarray(case.support())  # pyright: ignore[reportOptionalCall]
    number = {row.tobytes(): i for i, row in enumerate(support)}
    counts = collections.Counter(number[row.tobytes()] for row in np.asarray(positions, support.dtype))
    return np.array([counts[i] for i in range(len(support))])


def check_stationary(case: SamplerCase, starts: Any, ends: Any) -> None:
    """Means are kept; a drift of a tenth of a standard deviation would be seen. Discrete laws are kept cell by cell."""
    before, now = (np.asarray(case.statistics(x), np.float64) for x in (starts, ends))
    stat.check_mean(now - before, 0.0, sees=0.1 * before.std(axis=0, ddof=1))
    if case.support is not None:
        log_p = np.asarray(jax.vmap(case.log_density)(case.support()), np.float64)
        stat.check_counts(cells(case, ends), np.exp(log_p - log_p.max()), sees=0.1)


def check_exchange(case: SamplerCase, starts: Any, ends: Any) -> None:
    """E[a(x) b(y)] = E[a(y) b(x)] for every pair of statistics, as detailed balance demands.

    A difference of a tenth of a standard deviation of a(x) b(y) would be seen.
    """
    x, y = (np.asarray(case.statistics(z), np.float64) for z in (starts, ends))
    rows, columns = np.triu_indices(x.shape[1], 1)
    forward, backward = x[:, rows] * y[:, columns], y[:, rows] * x[:, columns]
    stat.check_mean(forward - backward, 0.0, sees=0.1 * np.maximum(forward.std(axis=0), backward.std(axis=0)))


def check_all(case: SamplerCase, starts: Any, kept: Any) -> None:
    """Both, after the first step and after the last."""
    for step in (1, STEPS):
        check_stationary(case, starts, after(kept, step))
        check_exchange(case, starts, after(kept, step))


def check_caught(case: SamplerCase, kernel: Sampler[Any]) -> None:
    """Fails unless `kernel`, a mutant, is refused as a sampler of the case's target."""
    starts, kept = walk(case, kernel)
    with pytest.raises(AssertionError, match="z ="):
        check_all(case, starts, kept)
