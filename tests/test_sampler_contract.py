"""What every sampler must do, over `cases.SAMPLERS`: keep its target, move, be a function of its key, trace once.

Chains start from exact draws, so nothing here depends on mixing: after 1 and after 10 steps every statistic must have
kept its mean (in pairs, which is far sharper than in groups), and a reversible kernel must not know past from future.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stat_checks as stat
import targets
from cases import SAMPLERS, SamplerCase
from sampler_checks import NUM, STEPS, after, cells, check_all, check_caught, check_exchange, check_stationary, walk

from jgen import Sampler, run
from jgen.energy import rbm
from jgen.math import trees
from jgen.samplers import metropolis

by_name = pytest.mark.parametrize("case", SAMPLERS, ids=lambda case: case.name)


@functools.cache
def _paths(name: str) -> tuple[Any, Any]:
    case = next(case for case in SAMPLERS if case.name == name)
    return walk(case, case.build(case.log_density))


@by_name
def test_draws_are_exact_where_the_law_can_be_listed(case: SamplerCase) -> None:
    starts, _ = _paths(case.name)
    if case.support is None:
        assert case.statistics(starts).shape[0] == NUM
        return
    log_p = np.asarray(jax.vmap(case.log_density)(case.support()), np.float64)
    stat.check_counts(cells(case, starts), np.exp(log_p - log_p.max()))


@by_name
@pytest.mark.parametrize("step", [1, STEPS])
def test_stays_on_its_target(case: SamplerCase, step: int) -> None:
    starts, kept = _paths(case.name)
    check_stationary(case, starts, after(kept, step))


@by_name
def test_reversible_kernels_cannot_tell_past_from_future(case: SamplerCase) -> None:
    if case.reversible:
        starts, kept = _paths(case.name)
        check_exchange(case, starts, after(kept, 1))
        check_exchange(case, starts, after(kept, STEPS))


@by_name
def test_moves(case: SamplerCase) -> None:
    starts, kept = _paths(case.name)
    moved = np.zeros(NUM, bool)
    for old, new in zip(jax.tree.leaves(starts), jax.tree.leaves(after(kept, STEPS)), strict=True):
        moved |= np.any(np.reshape(np.asarray(old) != np.asarray(new), (NUM, -1)), axis=1)
    assert moved.mean() > 0.5


def _start(case: SamplerCase, kernel: Sampler[Any]) -> Any:
    position = jax.tree.map(lambda x: x[0], case.draw(jax.random.key(1), 1))
    return kernel.init(jax.random.key(2), position)


def _same(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=True) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


@by_name
def test_one_run_equals_two_halves_and_repeats(case: SamplerCase) -> None:
    kernel = case.build(case.log_density)
    start, keep = _start(case, kernel), lambda state, info: state.position
    drive = jax.jit(lambda key, state, first: run(key, kernel, state, 5, keep=keep, first_step=first))
    whole = jax.jit(lambda key: run(key, kernel, start, 10, keep=keep))(jax.random.key(3))
    middle, first = drive(jax.random.key(3), start, 0)
    end, second = drive(jax.random.key(3), middle, 5)
    assert _same(whole[0], end)
    assert _same(whole[1], jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, second))
    assert _same(drive(jax.random.key(3), start, 0), (middle, first))
    assert not _same(drive(jax.random.key(4), start, 0)[1], first)


@by_name
def test_state_keeps_its_form(case: SamplerCase) -> None:
    kernel = case.build(case.log_density)
    state = _start(case, kernel)
    after, _ = jax.eval_shape(kernel.step, jax.random.key(0), state)
    before = jax.eval_shape(lambda x: x, state)
    assert jax.tree.structure(before) == jax.tree.structure(after)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(before)] == [(x.shape, x.dtype) for x in jax.tree.leaves(after)]
    assert "position" in state._fields


@by_name
def test_density_is_traced_by_the_first_call_alone(case: SamplerCase) -> None:
    calls = []

    def counted(position: Any) -> Any:
        calls.append(1)
        return case.log_density(position)

    kernel = case.build(counted)
    start = _start(case, kernel)
    drive = jax.jit(lambda key, state: run(key, kernel, state, 3)[0])
    end = drive(jax.random.key(0), start)
    traced = len(calls)
    drive(jax.random.key(1), end)
    assert len(calls) == traced
    assert traced <= 8  # a constant, not one for each step or leapfrog step


@by_name
def test_no_key_is_used_twice(case: SamplerCase) -> None:
    with jax.debug_key_reuse(True):
        kernel = case.build(case.log_density)
        state = _start(case, kernel)
        jax.jit(lambda key: run(key, kernel, state, 2)[0])(jax.random.key(5))


def _mutants(log_density: Any) -> dict[str, Sampler[Any]]:
    """Broken kernels for the law of log Exp(1)."""
    right = metropolis.sampler(log_density, metropolis.random_walk(1.0))
    drift = metropolis.random_walk(1.0)

    def drifting(key: Any, x: Any) -> Any:
        proposed, ratio = drift(key, x)
        return proposed + 0.3, ratio

    def skewed(key: Any, x: Any) -> Any:
        return x + (0.3 + jnp.abs(x)) * jax.random.normal(key), 0.0

    def multiplying(key: Any, x: Any) -> Any:
        return x * jnp.exp(jax.random.normal(key)), 0.0

    def always(key: Any, state: Any) -> Any:
        position, _ = drift(key, state.position)
        return metropolis.State(position, log_density(position)), metropolis.Info(jnp.asarray(True), jnp.ones(()))

    def stale(key: Any, state: Any) -> Any:
        new, info = right.step(key, state)
        return new._replace(log_density=state.log_density), info

    def one_key(key: Any, state: Any) -> Any:
        proposed = state.position + jax.random.normal(key)
        accepted, prob = metropolis.accept(key, log_density(proposed) - state.log_density)
        new = metropolis.State(proposed, log_density(proposed))
        return trees.select(accepted, new, state), metropolis.Info(accepted, prob)

    return {
        "drift without its ratio": metropolis.sampler(log_density, drifting),
        "product without its Jacobian": metropolis.sampler(log_density, multiplying),
        "scale that depends on x": metropolis.sampler(log_density, skewed),
        "accepts always": Sampler(right.init, always),
        "stale log-density": Sampler(right.init, stale),
        "one key for noise and test": Sampler(right.init, one_key),
    }


LOG_EXP = next((case for case in SAMPLERS if case.name == "metropolis_random_walk"), None)


@pytest.mark.parametrize("name", list(_mutants(lambda x: x)))
def test_broken_kernels_are_caught(name: str) -> None:
    assert LOG_EXP is not None
    case = dataclasses.replace(LOG_EXP, build=lambda log_density: _mutants(log_density)[name])
    starts, kept = walk(case, case.build(case.log_density))
    with pytest.raises(AssertionError, match="z ="):
        check_all(case, starts, kept)


def test_langevin_with_half_the_noise_is_caught() -> None:
    """√ε in place of √(2ε), against the law that the unadjusted walk itself keeps."""
    case = next(case for case in SAMPLERS if case.name == "langevin")
    right = case.build(case.log_density)

    def step(key: Any, state: Any) -> Any:
        noise = jnp.sqrt(0.8) * jax.random.normal(key, jnp.shape(state.position))
        return right.init(key, state.position + 0.8 * state.gradient + noise), None

    check_caught(case, Sampler(right.init, step))


def test_key_checker_catches_what_no_law_shows() -> None:
    """Both layers of a machine drawn with one key: the visible units keep their law closely enough to pass for it."""

    def draw(key: Any, logits: Any) -> Any:
        return (jax.random.uniform(key, logits.shape) < jax.nn.sigmoid(logits)).astype(jnp.float32)

    def sweep(key: Any, v: Any) -> Any:
        return draw(key, rbm.visible_logits(targets.MACHINE, draw(key, rbm.hidden_logits(targets.MACHINE, v))))

    with jax.debug_key_reuse(True), pytest.raises(Exception, match="consumed"):
        jax.jit(sweep)(jax.random.key(0), jnp.zeros((1, 5)))


def test_key_checker_catches_a_reused_key() -> None:
    def twice(key: Any) -> Any:
        return jax.random.normal(key) + jax.random.uniform(key)

    with jax.debug_key_reuse(True), pytest.raises(Exception, match="consumed"):
        jax.jit(twice)(jax.random.key(0))
