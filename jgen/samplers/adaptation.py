"""Warm-up of a kernel: its step size by dual averaging, its diagonal mass by the variances of the chains.

With α_t the mean acceptance probability of step t, δ its target, H̄ the weighted mean of δ − α:
    H̄ ← (1 − 1/(t + t₀))·H̄ + (δ − α_t)/(t + t₀),   log ε_{t+1} = μ − (√t/γ)·H̄,
    log ε̄ ← t^{−κ} log ε_{t+1} + (1 − t^{−κ}) log ε̄,
μ = log 10ε at the start. Stan's windows: the step size alone at first and at last; between them windows of doubling
length, at the end of each M⁻¹ becomes the variances seen in it, n/(n + 5)·S² + 10⁻³·5/(n + 5), and ε starts anew.

Papers: Hoffman and Gelman, "The No-U-Turn sampler", 2014, section 3.2; the windows: Stan reference manual.
Differs from the papers: all chains share ε and M and learn them together; a step size that did not come to its target
is flagged.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from jgen._checks import at_least, positive
from jgen._types import Key, Scalar
from jgen.math import running
from jgen.sampler import Sampler, parallel

GAMMA, T0, KAPPA = 0.05, 10.0, 0.75
FIRST, LAST, SLOW = 75, 50, 25
"""Stan's windows: steps of the first and of the last, and of the shortest between them."""
LIMIT = 25.0
"""|log ε| is kept below: where every step is accepted, or none, dual averaging would leave what float32 can hold."""
TOLERANCE = 0.25
"""How far from its target the acceptance may be at the end."""


class Parameters(NamedTuple):
    """What a warm-up tunes.

    Attributes:
        step_size: ε.
        inverse_mass: M⁻¹, built like the position of one chain.
    """

    step_size: Scalar
    inverse_mass: Any


class Status(NamedTuple):
    """Whether the parameters can be used.

    Attributes:
        degenerate: they cannot: the step size ran away, or acceptance is far from its target, or a variance is not
            finite. The log-density is flat, not finite, or broken where the chains stand, or they need a longer
            warm-up.
        accept_prob: mean acceptance probability in the second half of the last window, when the step size has settled.
        divergences: there, over all chains.
    """

    degenerate: Bool[Array, ""]
    accept_prob: Scalar
    divergences: Int[Array, ""]


class Tuned(NamedTuple):
    """What a warm-up ends with.

    Attributes:
        parameters: for the kernel of the run that follows.
        state: of the `parallel` kernel, where the chains stand.
        status: whether to use them.
    """

    parameters: Parameters
    state: Any
    status: Status


class DualAveraging(NamedTuple):
    """The step size as it is learned.

    Attributes:
        num: t, steps seen.
        log_step: log ε, of the next step.
        log_average: log ε̄, the result.
        error: H̄.
        center: μ.
    """

    num: Scalar
    log_step: Scalar
    log_average: Scalar
    error: Scalar
    center: Scalar


class _Carry(NamedTuple):
    state: Any
    dual: DualAveraging
    inverse_mass: Any
    seen: running.Running
    accept_prob: Scalar
    divergences: Int[Array, ""]


def begin(step_size: Any) -> DualAveraging:
    """Dual averaging that starts from `step_size`."""
    log_step = jnp.log(jnp.asarray(step_size, jnp.float32))
    zero = jnp.zeros(())
    return DualAveraging(zero, log_step, log_step, zero, jnp.log(10.0) + log_step)


def average(dual: DualAveraging, error: Scalar) -> DualAveraging:
    """After a step that missed its target by `error`, δ − α."""
    num = dual.num + 1
    weight = 1 / (num + T0)
    mean = (1 - weight) * dual.error + weight * error
    log_step = jnp.clip(dual.center - jnp.sqrt(num) / GAMMA * mean, -LIMIT, LIMIT)
    share = num**-KAPPA
    return DualAveraging(num, log_step, share * log_step + (1 - share) * dual.log_average, mean, dual.center)


def windows(num_steps: int) -> list[tuple[int, int]]:
    """Stan's windows as (first, last) steps; with fewer than 20 steps there is one, which learns the step size.

    Raises:
        ValueError: `num_steps` is less than 1.
    """
    at_least("num_steps", num_steps, 1)
    if num_steps < 20:
        return [(0, num_steps - 1)]
    first, last, size = FIRST, LAST, SLOW
    if first + last + size > num_steps:
        first, last = int(0.15 * num_steps), int(0.1 * num_steps)
        size = num_steps - first - last
    found, start, end = [(0, first - 1)], first, num_steps - last
    while start < end:
        # A window after which no other of twice its length fits takes all that is left.
        size = size if 3 * size <= end - start else end - start
        found.append((start, start + size - 1))
        start, size = start + size, 2 * size
    return [*found, (end, num_steps - 1)]


def reasonable_step_size(accept_prob: Callable[[Scalar], Scalar], step_size: Any, target: float) -> Scalar:
    """The first of ε·2^k, in the direction that helps, at which `accept_prob` crosses `target` (their algorithm 4)."""
    begun = jnp.asarray(step_size, jnp.float32)
    up = accept_prob(begun) > target
    factor = jnp.where(up, 2.0, 0.5)

    def goes_on(size: Scalar) -> Bool[Array, ""]:
        return ((accept_prob(size) > target) == up) & (jnp.abs(jnp.log(size)) < LIMIT - 1)

    return jax.lax.while_loop(goes_on, lambda size: size * factor, begun)


def warm_up(
    key: Key,
    build: Callable[[Parameters], Sampler[Any]],
    position: Any,
    num_steps: int,
    *,
    target: float = 0.8,
    step_size: float = 1.0,
    adapt_mass: bool = True,
) -> Tuned:
    """Runs `num_steps` steps of all chains and tunes the kernel as they go.

    Args:
        key: of the whole warm-up.
        build: (Parameters) -> a kernel of one chain whose Info has `accept_prob` and `diverging`, such as
            `lambda p: hmc.sampler(log_density, p.step_size, 10, inverse_mass=p.inverse_mass)`. Its state must not
            depend on the parameters.
        position: where the chains start, leading axis `chains`; one chain has length 1.
        num_steps: at least 1; the mass needs some hundreds.
        target: δ: 0.574 is best for MALA in many dimensions, 0.651 for HMC, 0.8 is safer for both and for NUTS.
        step_size: where the search begins.
        adapt_mass: whether M is learned; else it stays 1.

    Raises:
        ValueError: `num_steps` is less than 1, `step_size` is not positive, or `target` is not in (0, 1).
    """
    positive("step_size", step_size)
    if not 0 < target < 1:
        raise ValueError(f"`target` must be in (0, 1), got {target}.")
    search_key, init_key, run_key = jax.random.split(key, 3)
    mass = jax.tree.map(lambda x: jnp.ones_like(x[0]), position)
    kernel = parallel(build(Parameters(jnp.asarray(step_size), mass)))
    start = kernel.init(init_key, position)

    def tried(size: Scalar) -> Scalar:
        return jnp.mean(parallel(build(Parameters(size, mass))).step(search_key, start)[1].accept_prob)

    dual = begin(reasonable_step_size(tried, step_size, target))
    carry = _Carry(start, dual, mass, running.empty(position), jnp.zeros(()), jnp.zeros((), jnp.int32))
    collects, closes, lasts = _plan(num_steps, adapt_mass)

    def body(carry: _Carry, plan: Any) -> tuple[_Carry, None]:
        t, collect, close, last = plan
        carry = _move(jax.random.fold_in(run_key, t), build, carry, target, last)
        carry = carry._replace(
            seen=jax.lax.cond(collect, running.add, lambda s, x: s, carry.seen, carry.state.position)
        )
        return jax.lax.cond(close, _close, lambda c: c, carry), None

    carry, _ = jax.lax.scan(body, carry, (jnp.arange(num_steps), collects, closes, lasts))
    return _finish(carry, target, int(lasts.sum()))


def _plan(num_steps: int, adapt_mass: bool) -> tuple[Any, Any, Any]:
    """Of each step: whether it feeds the variances, ends their window, counts for the status."""
    found, steps = windows(num_steps), np.arange(num_steps)
    slow = found[1:-1] if adapt_mass else []
    collects = np.isin(steps, [t for first, last in slow for t in range(first, last + 1)])
    return collects, np.isin(steps, [last for _, last in slow]), steps >= sum(found[-1]) / 2


def _move(key: Key, build: Any, carry: _Carry, target: float, last: Any) -> _Carry:
    parameters = Parameters(jnp.exp(carry.dual.log_step), carry.inverse_mass)
    state, info = parallel(build(parameters)).step(key, carry.state)
    prob = jnp.mean(info.accept_prob)
    return carry._replace(
        state=state,
        dual=average(carry.dual, target - prob),
        accept_prob=carry.accept_prob + jnp.where(last, prob, 0.0),
        divergences=carry.divergences + jnp.where(last, jnp.sum(info.diverging), 0).astype(jnp.int32),
    )


def _close(carry: _Carry) -> _Carry:
    """M⁻¹ from the window's variances, over its steps and all chains; both averages start anew."""
    seen = running.pooled(carry.seen)
    num = seen.num.astype(jnp.float32)
    variances = running.variance(seen)
    mass = jax.tree.map(lambda v, m: ((num * v + 5e-3) / (num + 5)).astype(m.dtype), variances, carry.inverse_mass)
    return carry._replace(
        inverse_mass=mass, seen=running.empty(carry.seen.mean), dual=begin(jnp.exp(carry.dual.log_average))
    )


def _finish(carry: _Carry, target: float, num_last: int) -> Tuned:
    step_size, prob = jnp.exp(carry.dual.log_average), carry.accept_prob / num_last
    finite = jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(carry.inverse_mass)])
    away = jnp.abs(carry.dual.log_average) > LIMIT / 2
    missed = ~(jnp.abs(prob - target) <= TOLERANCE)
    status = Status(away | missed | ~jnp.all(finite), prob, carry.divergences)
    return Tuned(Parameters(step_size, carry.inverse_mass), carry.state, status)
