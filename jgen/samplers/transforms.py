"""Draws by transformation: change of variables, inverse CDF, Box–Muller; and by rejection.

    x = T(z), z ~ q:     log p(x) = log q(T⁻¹(x)) − log |det J_T(T⁻¹(x))|
    inverse CDF:         x = F⁻¹(u), u uniform on (0, 1)
    Box–Muller:          (x, y) = √(−2 log u₁)·(cos 2πu₂, sin 2πu₂), independent standard normals
    rejection:           x ~ q until v ≤ p(x)/(M·q(x)), v uniform; one in M of the draws is kept

Papers: Box and Muller, "A note on the generation of random normal deviates", 1958; von Neumann, "Various techniques
used in connection with random digits", 1951.
Differs from the papers: uniform numbers are kept away from 0, which float32 draws once in 2²³ numbers. With 23 bits
Box–Muller stays below √(46 log 2) = 5.65 in size.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from jgen import random
from jgen._checks import at_least
from jgen._types import Key, Scalar
from jgen.sampler import Sampler


class State(NamedTuple):
    """The last draw."""

    position: Any


class Info(NamedTuple):
    """log p of the draw, nats."""

    log_density: Scalar


class Transport(NamedTuple):
    """x = T(z) of a base variable z, for one point.

    Attributes:
        draw: (key) -> z, from q.
        log_base: (z) -> log q(z), nats.
        forward: T, (z) -> x: differentiable, one to one; vectors to vectors of one length, or numbers to numbers.
        inverse: T⁻¹, (x) -> z.
    """

    draw: Callable[[Key], Any]
    log_base: Callable[[Any], Any]
    forward: Callable[[Any], Any]
    inverse: Callable[[Any], Any]


class Kept(NamedTuple):
    """What rejection kept.

    Attributes:
        x: leading axis `num`.
        tries: proposals that each took; their mean estimates M.
    """

    x: Any
    tries: Int[Array, " num"]


def log_abs_det(function: Callable[[Any], Any], z: Float[Array, "*event"]) -> Scalar:
    """log |det J| of `function` at one point z, by autodiff: n forward passes and an LU factorization, O(n³)."""
    size = z.size
    jacobian = jnp.reshape(jax.jacfwd(function)(z), (size, size))
    return jnp.linalg.slogdet(jacobian)[1]


def log_prob(transport: Transport, x: Float[Array, "*event"]) -> Scalar:
    """log p(x) = log q(z) − log |det J_T(z)| at z = T⁻¹(x), nats, of one point."""
    z = transport.inverse(x)
    return transport.log_base(z) - log_abs_det(transport.forward, z)


def uniform(key: Key, shape: Sequence[int] = ()) -> Float[Array, "*shape"]:
    """1 − u for u uniform on [0, 1): in (0, 1], so that its logarithm is finite."""
    return 1 - jax.random.uniform(key, shape)


def inverse_cdf(key: Key, quantile: Callable[[Any], Any], shape: Sequence[int] = ()) -> Num[Array, "*shape"]:
    """x = F⁻¹(u), elementwise.

    Args:
        key: of all the draws.
        quantile: F⁻¹, (u in (0, 1)) -> x; such as `exponential`, `cauchy`, or `invert` of a CDF.
    """
    # The middle of each of 2²³ cells: never 0 and never 1.
    middle = jnp.asarray(2.0**-24)
    return quantile(jnp.minimum(jax.random.uniform(key, shape) + middle, 1 - middle))


def exponential(u: Float[Array, "*shape"], rate: Any = 1.0) -> Float[Array, "*shape"]:
    """−log(1 − u)/rate: p(x) = rate·exp(−rate·x)."""
    return -jnp.log1p(-u) / rate


def cauchy(u: Float[Array, "*shape"], location: Any = 0.0, scale: Any = 1.0) -> Float[Array, "*shape"]:
    """location + scale·tan(π(u − ½)), as −cot πu where that is more exact: p(x) = 1/(π·scale·(1 + x²/scale²))."""
    tail = jnp.minimum(u, 1 - u)
    size = jnp.cos(jnp.pi * tail) / jnp.sin(jnp.pi * tail)
    return location + scale * jnp.where(u < 0.5, -size, size)


def logistic(u: Float[Array, "*shape"], location: Any = 0.0, scale: Any = 1.0) -> Float[Array, "*shape"]:
    """location + scale·log(u/(1 − u))."""
    return location + scale * jax.scipy.special.logit(u)


def categorical(u: Float[Array, "*shape"], probs: Float[Array, " states"]) -> Int[Array, "*shape"]:
    """The first k with u < p_0 + … + p_k: F⁻¹ of a law on finitely many states."""
    cdf = jnp.cumsum(probs)
    return jnp.minimum(jnp.searchsorted(cdf, u * cdf[-1], side="right"), len(probs) - 1)


def invert(cdf: Callable[[Any], Any], low: float, high: float, *, num_halvings: int = 48) -> Callable[[Any], Any]:
    """F⁻¹ of a CDF that has no formula, by bisection on [low, high]: (high − low)/2^num_halvings exact at best.

    Args:
        cdf: F, rising, elementwise.
        low: where F is about 0.
        high: where F is about 1.
        num_halvings: steps.

    Raises:
        ValueError: `high` is not above `low`, or `num_halvings` is less than 1.
    """
    if not high > low:
        raise ValueError(f"`high` must be above `low` = {low}, got {high}.")
    at_least("num_halvings", num_halvings, 1)

    def quantile(u: Any) -> Any:
        def halve(_: Any, edges: tuple[Any, Any]) -> tuple[Any, Any]:
            left, right = edges
            middle = 0.5 * (left + right)
            below = cdf(middle) < u
            return jnp.where(below, middle, left), jnp.where(below, right, middle)

        left, right = jax.lax.fori_loop(0, num_halvings, halve, (jnp.full_like(u, low), jnp.full_like(u, high)))
        return 0.5 * (left + right)

    return quantile


def box_muller(key: Key, num: int) -> Float[Array, "num 2"]:
    """`num` pairs of independent standard normals, each from two uniform numbers; pair i depends on (key, i) alone."""

    def pair(key: Key) -> Float[Array, "2"]:
        radius_key, angle_key = jax.random.split(key)
        radius = jnp.sqrt(-2 * jnp.log(uniform(radius_key)))
        angle = 2 * jnp.pi * uniform(angle_key)
        return radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)])

    return jax.vmap(pair)(random.example_keys(key, num))


def rejection(
    key: Key, draw: Callable[[Key], Any], log_ratio: Callable[[Any], Any], num: int, *, max_tries: int = 10_000
) -> Kept:
    """Exact draws of p from draws of q that are kept with probability p/(M q); draw i depends on (key, i) alone.

    Args:
        key: of all the draws.
        draw: (key) -> x, from q.
        log_ratio: (x) -> log p(x) − log q(x) − log M, at most 0 everywhere; p up to a constant.
        num: how many draws.
        max_tries: proposals per draw; one that is kept by none of them is the last proposal.

    Raises:
        ValueError: `max_tries` is less than 1.
    """
    at_least("max_tries", max_tries, 1)

    def attempt(key: Key, tries: Any) -> tuple[Any, Any]:
        draw_key, test_key = jax.random.split(jax.random.fold_in(key, tries))
        x = draw(draw_key)
        return x, jnp.log(uniform(test_key)) <= log_ratio(x)

    def one(key: Key) -> tuple[Any, Any]:
        def searching(carry: Any) -> Any:
            tries, _, kept = carry
            return ~kept & (tries < max_tries)

        def step(carry: Any) -> Any:
            return carry[0] + 1, *attempt(key, carry[0])

        tries, x, _ = jax.lax.while_loop(searching, step, (jnp.asarray(1), *attempt(key, 0)))
        return x, tries

    return Kept(*jax.vmap(one)(random.example_keys(key, num)))


def sampler(transport: Transport) -> Sampler[State]:
    """Independent draws of T(z) as a chain that forgets at once; many by `jax.vmap`."""

    def init(key: Key, position: Any) -> State:
        del key
        return State(position)

    def step(key: Key, state: State) -> tuple[State, Info]:
        del state
        z = transport.draw(key)
        density = transport.log_base(z) - log_abs_det(transport.forward, z)
        return State(transport.forward(z)), Info(density)

    return Sampler(init, step)
