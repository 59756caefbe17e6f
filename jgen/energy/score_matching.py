"""Score matching: learning ∇ log p(x) without a normalizer, as a free network or as minus the gradient of an energy.

    exact       J = E[tr ∇s(x) + ½‖s(x)‖²]                                     = ½E‖s − ∇ log p‖² + constant
    sliced      J = E[vᵀ∇s(x)v + ½(vᵀs(x))²],  reduced: ½‖s(x)‖² for the square;  E vvᵀ = I
    denoising   J = E ½‖σ s(x + σn, σ) + n‖²,  n ~ N(0, I), σ at random       = ½E σ²‖s − ∇ log p_σ‖² + constant

All have the same minimum: s = ∇ log p of the data; denoising, of the data blurred by N(0, σ²I). The model writes

    s(x, σ) = g(u, t)/σ,  u = x/√(1 + σ²),     g the network, or −∇_u of a scalar one: E(x, σ) = √(1 + σ²)/σ · net(u, t)

with t in [0, 1] the place of log σ among the levels; without noise u = x and s = g(x, 0).

Papers: Hyvärinen, "Estimation of non-normalized statistical models by score matching", 2005; Vincent, "A connection
between score matching and denoising autoencoders", 2011; Song et al., "Sliced score matching", 2019; Song and Ermon,
"Generative modeling by estimating gradients of the data distribution", 2019.
Differs from the papers: inputs are divided by √(1 + σ²), walkers start at N(0, (1 + σ_1²)I), and a last step takes off
the noise that is left, as in Song and Ermon, 2020.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from jgen import linen, random
from jgen._checks import at_least, one_of, positive
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.learners.gradient import GradientState, gradient
from jgen.model import Model
from jgen.sampler import run
from jgen.samplers import annealed_langevin

Data: TypeAlias = Float[Array, "batch *shape"]
Values: TypeAlias = Float[Array, " batch"]
OBJECTIVES = ("denoising", "exact", "sliced", "sliced_reduced")


def exact(score: Callable[[Data], Data], x: Data) -> Values:
    """tr ∇s(x) + ½‖s(x)‖² of each example (Hyvärinen, 2005, eq. 4); the trace costs one pass per dimension.

    Args:
        score: (x) -> s(x), each example by itself.
        x: data.
    """
    basis = jnp.eye(int(np.prod(x.shape[1:])), dtype=x.dtype).reshape(-1, *x.shape[1:])

    def diagonal(direction: Any) -> Values:
        along = jnp.broadcast_to(direction[None], x.shape)
        return _dot(jax.jvp(score, (x,), (along,))[1], along)

    return jnp.sum(jax.vmap(diagonal)(basis), axis=0) + 0.5 * _dot(score(x), score(x))


def sliced(
    score: Callable[[Data], Data], x: Data, directions: Float[Array, "slices batch *shape"], *, reduced: bool = True
) -> Values:
    """Means over directions v of vᵀ∇s(x)v + ½‖s(x)‖² (reduced: less variance), or of vᵀ∇s(x)v + ½(vᵀs(x))².

    Song et al., 2019, eqs. 7 and 8. Its mean over v is `exact` where E vvᵀ = I.

    Args:
        score: (x) -> s(x), each example by itself.
        x: data.
        directions: v, such as standard normal or random signs.
        reduced: whether the second term is averaged over v in closed form.
    """

    def along(direction: Data) -> Values:
        value, change = jax.jvp(score, (x,), (direction,))
        square = _dot(value, value) if reduced else jnp.square(_dot(direction, value))
        return _dot(change, direction) + 0.5 * square

    return jnp.mean(jax.vmap(along)(directions), axis=0)


def denoising(score: Callable[[Data, Values], Data], x: Data, noise: Data, std: Values) -> Values:
    """½‖σ s(x + σn, σ) + n‖² of each example: the weight λ(σ) = σ² of Song and Ermon, 2019, eq. 5.

    Args:
        score: (x, σ (batch,)) -> s(x, σ).
        x: clean data.
        noise: n, standard normal.
        std: σ of each example.
    """
    wide = _wide(std, x.ndim)
    error = wide * score(x + wide * noise, std) + noise
    return 0.5 * _dot(error, error)


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network and how it is read; fixed before learning.

    Attributes:
        module: (u, t (batch,)) -> g, of the shape of u; or one number per example, (batch,) or (batch, 1).
        levels: σ_1 > … > σ_L > 0, as `annealed_langevin.noise_levels` gives them; () is data without noise.
        is_energy: the module gives a scalar, of which g is minus the gradient.

    Raises:
        ValueError: the levels do not fall or are not positive.
    """

    module: nn.Module
    levels: tuple[float, ...] = ()
    is_energy: bool = False

    def __post_init__(self) -> None:
        levels = np.asarray(self.levels, np.float64)
        if not (np.all(levels > 0) and np.all(np.diff(levels) < 0)):
            raise ValueError(f"`levels` must be positive and fall, got {self.levels}.")


def energy(params: Params, x: Data, std: Values, *, network: Network) -> Values:
    """E(x, σ) = √(1 + σ²)/σ · net(x/√(1 + σ²), t), nats, so that p_σ ∝ exp(−E); without noise E = net(x, 0).

    Args:
        std: σ of each example, one of the levels; 0 for data without noise.
    """
    inner = jnp.sqrt(1.0 + jnp.square(std))
    scalar = _scalar(params, x / _wide(inner, x.ndim), _time(std, network.levels), network)
    return scalar * inner / jnp.where(std > 0, std, 1.0)


def score(params: Params, x: Data, std: Values, *, network: Network) -> Data:
    """s(x, σ) = g(u, t)/σ, of the shape of x; −∇_x E where the network is an energy."""
    if network.is_energy:
        return -jax.grad(lambda x: jnp.sum(energy(params, x, std, network=network)))(x)
    inner = _wide(jnp.sqrt(1.0 + jnp.square(std)), x.ndim)
    g = linen.apply(network.module, params, {}, x / inner, _time(std, network.levels))
    return g / _wide(jnp.where(std > 0, std, 1.0), x.ndim)


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    network: Network,
    objective: str,
    num_slices: int = 1,
    train: bool = True,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """The mean of the objective over the batch, summed over dimensions; directions are random signs."""
    del train
    x = _real(batch)
    level_key, noise_key = jax.random.split(key)
    noise_keys = random.batch_keys(noise_key, batch)
    if objective == "denoising":
        noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))(noise_keys)
        std = _levels(level_key, batch, network.levels)
        values = denoising(functools.partial(score, params, network=network), x, noise, std)
    else:
        at = functools.partial(score, params, std=jnp.zeros(len(x), x.dtype), network=network)
        if objective == "exact":
            values = exact(at, x)
        else:
            draw = functools.partial(jax.random.rademacher, shape=(num_slices, *x.shape[1:]), dtype=x.dtype)
            directions = jax.vmap(draw, out_axes=1)(noise_keys)
            values = sliced(at, x, directions, reduced=objective == "sliced_reduced")
    value = jnp.mean(values)
    return value, (stats, {"loss": value})


def sample(
    key: Key,
    params: Params,
    num: int,
    *,
    network: Network,
    shape: tuple[int, ...],
    step_size: float,
    steps_per_level: int,
) -> Float[Array, "num *shape"]:
    """Ends of `num` annealed Langevin walks from N(0, (1 + σ_1²)I), the last level's noise taken off.

    Without levels the walk is plain Langevin dynamics of `steps_per_level` steps from N(0, I).

    Args:
        step_size: ε at the last level, as in `annealed_langevin`.
        steps_per_level: at each level.
    """
    levels = network.levels or (1.0,)
    noisy = jnp.asarray(bool(network.levels), jnp.float32)

    def at(x: Any, sigma: Any) -> Any:
        return score(params, x[None], (sigma * noisy)[None], network=network)[0]

    kernel = annealed_langevin.sampler(at, levels, step_size, steps_per_level=steps_per_level)

    def one(key: Key) -> Any:
        start_key, walk_key = jax.random.split(key)
        start = jax.random.normal(start_key, shape) * jnp.sqrt(1.0 + noisy * levels[0] ** 2)
        walker, _ = run(walk_key, kernel, kernel.init(walk_key, start), len(levels) * steps_per_level)
        return walker.position

    ends = jax.vmap(one)(random.example_keys(key, num))
    if not network.levels:
        return ends
    last = jnp.full(num, levels[-1])
    return ends + levels[-1] ** 2 * score(params, ends, last, network=network)


def model(
    network: Network,
    shape: tuple[int, ...],
    optimizer: optax.GradientTransformation,
    *,
    objective: str = "denoising",
    num_slices: int = 1,
    step_size: float = 1e-3,
    steps_per_level: int = 100,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """A score or an energy of real data, best of a standard deviation of about 1; samples by Langevin dynamics.

    Args:
        network: the network, its levels, and what it gives.
        shape: of one example.
        optimizer: any optax optimizer.
        objective: "denoising" where there are levels, else "exact", "sliced" or "sliced_reduced".
        num_slices: directions per example of the sliced objectives.
        step_size: as in `sample`; it must stay below about σ_L².
        steps_per_level: as in `sample`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: `objective` is unknown or does not suit the levels, a count is less than 1, or `step_size` is not
            positive.
    """
    one_of("objective", objective, OBJECTIVES)
    if (objective == "denoising") != bool(network.levels):
        wanted = 'others than "denoising" without noise levels' if not network.levels else '"denoising" with them'
        raise ValueError(f"`objective` must be {wanted}, got {objective!r}.")
    at_least("num_slices", num_slices, 1)
    at_least("steps_per_level", steps_per_level, 1)
    positive("step_size", step_size)
    walk = functools.partial(sample, network=network, shape=shape, step_size=step_size, steps_per_level=steps_per_level)
    return gradient(
        functools.partial(_init, network, shape),
        functools.partial(loss, network=network, objective=objective, num_slices=num_slices),
        optimizer,
        sample=lambda key, state, num: {"x": walk(key, state.params, num)},
        axis_name=axis_name,
    )


def _init(network: Network, shape: tuple[int, ...], key: Key, batch: Batch) -> tuple[Params, Params]:
    x = _real(batch)
    if x.shape[1:] != shape:
        raise ValueError(f"`x` must have examples of shape {shape}, got {x.shape[1:]}.")
    return linen.init(network.module, key, x, jnp.zeros(len(x)))


def _real(batch: Batch) -> Data:
    if not jnp.issubdtype(batch["x"].dtype, jnp.floating):
        raise ValueError(f"`x` must be real numbers, which have a density, got {batch['x'].dtype}.")
    return batch["x"]


def _scalar(params: Params, u: Data, time: Values, network: Network) -> Values:
    return linen.apply(network.module, params, {}, u, time).reshape(u.shape[0])


def _time(std: Values, levels: tuple[float, ...]) -> Values:
    """The place of log σ between the narrowest level (0) and the widest (1)."""
    if len(levels) < 2:
        return jnp.zeros_like(std)
    widest, narrowest = np.log(levels[0]), np.log(levels[-1])
    return (jnp.log(std) - narrowest) / (widest - narrowest)


def _levels(key: Key, batch: Batch, levels: tuple[float, ...]) -> Values:
    index = jax.vmap(lambda key: jax.random.randint(key, (), 0, len(levels)))(random.batch_keys(key, batch))
    return jnp.asarray(levels, jnp.float32)[index]


def _dot(a: Data, b: Data) -> Values:
    return jnp.sum(a * b, axis=tuple(range(1, a.ndim)))


def _wide(values: Values, ndim: int) -> Array:
    """(batch,) as (batch, 1, ..., 1)."""
    return values.reshape(values.shape + (1,) * (ndim - 1))
