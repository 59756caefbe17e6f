"""The replay buffer: which chains move, how many start anew, and what is put back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stat_checks as stat

from jgen import Sampler
from jgen.learners import replay


class Counter(NamedTuple):
    """A chain that counts its steps."""

    position: Any


COUNT = Sampler(lambda key, position: Counter(position), lambda key, state: (Counter(state.position + 1), None))
SIZE, NUM, STEPS, FRESH = 10, 4, 3, 100.0


def many(rate: float, num: int = 4_000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(buffers, moved, restarted) after one step from zeros, by key."""
    kernel = replay.replayed(COUNT, NUM, lambda key, num: jnp.full((num, 2), FRESH), restart_rate=rate, num_steps=STEPS)

    def one(key: Any) -> Any:
        state = kernel.init(key, replay.begin(jnp.zeros((SIZE, 2)), NUM))
        state, info = kernel.step(key, state)
        return state.position.buffer, state.position.moved, info.restarted

    return jax.device_get(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), num)))


def test_chosen_chains_move_and_are_put_back_and_the_rest_stays():
    buffers, moved, restarted = many(0.0)
    assert np.all(restarted == 0)
    assert np.all(moved == STEPS)
    np.testing.assert_array_equal(np.sum(buffers[..., 0] == STEPS, axis=1), NUM)
    np.testing.assert_array_equal(np.sum(buffers == 0, axis=1), SIZE - NUM)
    stat.check_counts(np.sum(buffers[..., 0] > 0, axis=0), np.ones(SIZE))


def test_chains_start_anew_at_the_stated_rate():
    buffers, moved, restarted = many(0.3)
    anew = moved[..., 0] == FRESH + STEPS
    np.testing.assert_array_equal(anew.sum(axis=1), restarted)
    np.testing.assert_array_equal(np.sum(buffers[..., 0] == FRESH + STEPS, axis=1), restarted)
    binomial = [0.7**4, 4 * 0.3 * 0.7**3, 6 * 0.3**2 * 0.7**2, 4 * 0.3**3 * 0.7, 0.3**4]
    stat.check_counts(np.bincount(restarted, minlength=5), binomial)
    with pytest.raises(AssertionError, match="G = "):
        stat.check_counts(np.bincount(many(0.35)[2], minlength=5), binomial)
    assert np.all(many(1.0, 10)[1] == FRESH + STEPS)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num": 0}, "`num` must be at least 1, got 0"),
        ({"num_steps": 0}, "`num_steps` must be at least 1, got 0"),
        ({"restart_rate": 1.5}, r"`restart_rate` must lie in \[0.0, 1.0\], got values in \[1.5, 1.5\]"),
    ],
)
def test_bad_arguments(kwargs, message):
    settings = {"num": 1, "restart": jax.random.normal, "restart_rate": 0.1, "num_steps": 1, **kwargs}
    with pytest.raises(ValueError, match=message):
        replay.replayed(COUNT, **settings)


@pytest.mark.parametrize("num", [0, 11])
def test_more_chains_than_the_buffer_has(num):
    with pytest.raises(ValueError, match=rf"`num` must be in 1..10, the chains of the buffer, got {num}"):
        replay.begin(jnp.zeros((SIZE, 2)), num)
