"""`run`: one scan, keys by step number, nothing kept unless asked for."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import Sampler, run


class _State(NamedTuple):
    position: Any


def _kernel() -> Sampler[_State]:
    return Sampler(lambda key, x: _State(x), lambda key, s: (_State(s.position + jax.random.normal(key)), {"key": key}))


def test_step_t_draws_from_fold_in_of_t() -> None:
    kernel, key = _kernel(), jax.random.key(7)
    start = kernel.init(key, jnp.zeros(()))
    end, kept = run(key, kernel, start, 5, keep=lambda state, info: (state.position, info["key"]))
    noise = [float(jax.random.normal(jax.random.fold_in(key, t))) for t in range(5)]
    np.testing.assert_allclose(kept[0], np.cumsum(noise), rtol=1e-5)
    np.testing.assert_allclose(end.position, np.sum(noise), rtol=1e-5)
    assert bool(jnp.all(kept[1] == jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(5))))


@pytest.mark.parametrize("cut", [0, 1, 4, 7])
def test_a_chain_may_be_cut_anywhere(cut: int) -> None:
    kernel, key, keep = _kernel(), jax.random.key(1), lambda state, info: state.position
    start = kernel.init(key, jnp.zeros(3))
    end, kept = run(key, kernel, start, 7, keep=keep)
    middle, first = run(key, kernel, start, cut, keep=keep)
    last, second = run(key, kernel, middle, 7 - cut, keep=keep, first_step=cut)
    np.testing.assert_array_equal(end.position, last.position)
    np.testing.assert_array_equal(kept, jnp.concatenate([first, second]))


def test_nothing_is_kept_by_default_and_no_step_changes_nothing() -> None:
    kernel, key = _kernel(), jax.random.key(0)
    start = kernel.init(key, jnp.ones(2))
    end, kept = run(key, kernel, start, 0)
    np.testing.assert_array_equal(end.position, start.position)
    assert kept is None
    assert run(key, kernel, start, 3)[1] is None


def test_negative_number_of_steps() -> None:
    kernel = _kernel()
    with pytest.raises(ValueError, match="`num_steps` must be at least 0, got -1"):
        run(jax.random.key(0), kernel, kernel.init(jax.random.key(0), jnp.zeros(())), -1)
