"""Running moments against NumPy, whole, in parts, and where a naive sum of squares fails."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.math import running


def _values(num: int = 60) -> Any:
    generator = np.random.default_rng(0)
    return {
        "a": generator.normal(5.0, 2.0, (num, 3)).astype(np.float32),
        "b": generator.integers(0, 9, num).astype(np.int32),
    }


def _over(values: Any) -> running.Running:
    first = jax.tree.map(lambda x: jnp.asarray(x[0]), values)

    def add(seen: running.Running, x: Any) -> tuple[running.Running, None]:
        return running.add(seen, x), None

    return jax.jit(lambda v: jax.lax.scan(add, running.empty(first), v)[0])(values)


def test_one_by_one_equals_all_at_once() -> None:
    values = _values()
    seen = _over(values)
    assert int(seen.num) == 60
    for name in values:
        np.testing.assert_allclose(seen.mean[name], values[name].mean(0), rtol=1e-5)
        np.testing.assert_allclose(running.variance(seen)[name], values[name].var(0, ddof=1), rtol=1e-5)
        np.testing.assert_allclose(running.variance(seen, 0)[name], values[name].var(0), rtol=1e-5)


def test_parts_of_any_size_make_the_whole() -> None:
    x = _values()["a"]
    counts, starts = np.array([10, 0, 45, 5]), np.array([0, 10, 10, 55])
    parts = [x[s : s + n] for s, n in zip(starts, counts, strict=True)]
    means = np.stack([p.mean(0) if len(p) else np.full(3, 7.0) for p in parts])
    squares = np.stack([p.var(0) * len(p) if len(p) else np.full(3, np.nan) for p in parts])
    mean, total, num = running.merge(jnp.asarray(means), jnp.asarray(squares), jnp.asarray(counts))
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(total, x.var(0) * 60, rtol=1e-5)
    assert int(num) == 60


def test_chains_pool_as_if_one_after_another() -> None:
    x = _values()["a"]
    seen = _over(x.reshape(20, 3, 3).astype(np.float32))  # 20 values of 3 chains
    whole = running.pooled(seen)
    assert int(whole.num) == 60
    np.testing.assert_allclose(whole.mean, x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(running.variance(whole), x.var(0, ddof=1), rtol=1e-5)


def test_no_cancellation_far_from_zero_and_nan_before_two_values() -> None:
    x = (1e4 + np.random.default_rng(1).normal(size=500)).astype(np.float32)
    naive = np.mean(x * x, dtype=np.float32) - np.mean(x, dtype=np.float32) ** 2
    exact = x.astype(np.float64).var(ddof=1)
    assert abs(naive - exact) > 0.5  # what the formula without centring gives
    np.testing.assert_allclose(running.variance(_over(x)), exact, rtol=1e-3)
    assert np.isnan(running.variance(_over(x[:1])))
