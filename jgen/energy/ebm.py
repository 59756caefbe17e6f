"""Deep energy-based model, learned by contrasting data with Langevin chains from a replay buffer.

    p(x) = exp(−E(x)/T)/Z,    −T ∇ E_data log p = E_data ∇E − E_p ∇E
    x ← x − α ∇E(x) + √(2αT) ξ,  ξ ~ N(0, I):   noise of standard deviation s stands for the temperature T = s²/2α

Each update takes chains out of the buffer, starts each anew with a small probability, moves them, puts them back, and
descends  mean E(data) − mean E(chains) + λ(mean E(data)² + mean E(chains)²).

Papers: Du and Mordatch, "Implicit generation and modeling with energy-based models", 2019; Nijkamp et al., "On the
anatomy of MCMC-based maximum likelihood learning of energy-based models", 2020 (what temperature and length do).
Differs from the papers: the temperature is explicit and 1 by default, where theirs is about 10⁻⁷ and the chains find
modes rather than sample; positions are floats that are neither rounded nor clipped, and any kernel may move them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from jgen import linen
from jgen._checks import at_least, positive, within
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.learners.contrastive import ContrastiveState, contrastive, fantasies
from jgen.learners.replay import Replay, begin, replayed
from jgen.math import quadrature
from jgen.model import Model
from jgen.sampler import Sampler, parallel
from jgen.samplers import langevin

Data: TypeAlias = Float[Array, "batch *shape"]
Values: TypeAlias = Float[Array, " batch"]
Kernel: TypeAlias = Callable[[Callable[[Any], Any]], Sampler[Any]]
"""(log_density) -> a Sampler of one chain, such as `langevin.sampler` or `mala.sampler` with their step size."""
Restart: TypeAlias = Callable[[Key, tuple[int, ...]], Array]
"""(key, shape) -> fresh positions, such as `jax.random.normal`."""


@dataclasses.dataclass(frozen=True)
class Chains:
    """How the negative phase draws.

    Attributes:
        kernel: moves one chain; `langevin_kernel(step_size, temperature)`, or any sampler of a log-density.
        temperature: T; the kernel is given the log-density −E/T.
        num: chains that each update moves.
        buffer_size: chains in the buffer.
        restart: where chains start.
        restart_rate: the probability with which a chosen chain starts anew.
        num_steps: steps of each moved chain per update.
        num_sample_steps: steps from the buffer to a sample.

    Raises:
        ValueError: a count is less than 1, there are more chains to move than the buffer has, `temperature` is not
            positive, or `restart_rate` is not in [0, 1].
    """

    kernel: Kernel
    temperature: float = 1.0
    num: int = 128
    buffer_size: int = 8_192
    restart: Restart = jax.random.normal
    restart_rate: float = 0.05
    num_steps: int = 20
    num_sample_steps: int = 500

    def __post_init__(self) -> None:
        for name in ("num", "num_steps", "num_sample_steps"):
            at_least(name, getattr(self, name), 1)
        at_least("buffer_size", self.buffer_size, self.num)
        positive("temperature", self.temperature)
        within("restart_rate", self.restart_rate, 0.0, 1.0)


def energy(params: Params, x: Data, *, module: nn.Module) -> Values:
    """E(x), one number per example."""
    return linen.apply(module, params, {}, x).reshape(x.shape[0])


def log_density(params: Params, x: Data, *, module: nn.Module, temperature: float = 1.0) -> Values:
    """−E(x)/T = log p(x) + log Z, nats."""
    return -energy(params, x, module=module) / temperature


def log_partition(params: Params, nodes: quadrature.Nodes, *, module: nn.Module, temperature: float = 1.0) -> Scalar:
    """log Z = log ∫ exp(−E/T), or its log-sum over the points of a discrete space, nats."""
    return quadrature.log_integral(
        functools.partial(log_density, params, module=module, temperature=temperature), nodes
    )


def langevin_kernel(step_size: float, temperature: float = 1.0) -> Kernel:
    """x ← x − α ∇E + √(2αT) ξ, which keeps about exp(−E/T), for a density −E/T.

    Args:
        step_size: α, of the energy's gradient.
        temperature: T.
    """
    return functools.partial(langevin.sampler, step_size=step_size * temperature)


def temperature_of(step_size: float, noise_std: float) -> float:
    """T = s²/2α: at which temperature x ← x − α ∇E + s ξ walks."""
    return noise_std**2 / (2 * step_size)


def batched(log_density: Callable[[Data], Values], kernel: Kernel) -> Sampler[Any]:
    """`kernel` for many chains at once, each with a key of its own.

    Args:
        log_density: (positions (chains, *shape)) -> (chains,).
        kernel: of one chain.
    """
    return parallel(kernel(lambda x: log_density(x[None])[0]))


def squared_energies(weight: float) -> Callable[..., tuple[Any, Metrics]]:
    """λ(mean E(data)² + mean E(chains)²): holds the level of the energies, which the gap leaves free."""

    def extra(params: Params, batch: Batch, data: Any, model: Any) -> tuple[Any, Metrics]:
        del params, batch
        return weight * (jnp.mean(jnp.square(data)) + jnp.mean(jnp.square(model))), {}

    return extra


def replay(chains: Chains, shape: tuple[int, ...], energy: Callable[[Data], Values]) -> Sampler[Any]:
    """The kernel of the negative phase over a whole buffer, as `learners.replay` has it."""

    def restart(key: Key, num: int) -> Array:
        return chains.restart(key, (num, *shape))

    one = batched(lambda x: -energy(x) / chains.temperature, chains.kernel)
    return replayed(one, chains.num, restart, restart_rate=chains.restart_rate, num_steps=chains.num_steps)


def sample(
    key: Key, chains: Chains, energy: Callable[[Data], Values], starts: Data, num: int
) -> Float[Array, "num *shape"]:
    """`num` chains, each from a random one of `starts`, after `chains.num_sample_steps` steps."""
    kernel = batched(lambda x: -energy(x) / chains.temperature, chains.kernel)
    return fantasies(key, kernel, starts, num, chains.num_sample_steps)


def start(module: nn.Module, shape: tuple[int, ...], chains: Chains, key: Key, batch: Batch) -> tuple[Params, Replay]:
    """First parameters, and a buffer of chains that have not moved yet.

    Raises:
        ValueError: the examples of `batch` do not have `shape`.
    """
    if batch["x"].shape[1:] != shape:
        raise ValueError(f"`x` must have examples of shape {shape}, got {batch['x'].shape[1:]}.")
    net_key, chain_key = jax.random.split(key)
    params, _ = linen.init(module, net_key, batch["x"])
    return params, begin(chains.restart(chain_key, (chains.buffer_size, *shape)), chains.num)


def model(
    module: nn.Module,
    shape: tuple[int, ...],
    optimizer: optax.GradientTransformation,
    *,
    chains: Chains,
    energy_weight: float = 0.0,
    nodes: quadrature.Nodes | None = None,
    axis_name: str | None = None,
) -> Model[ContrastiveState]:
    """A deep energy; `log_prob` is there, and exact, where `nodes` cover the space.

    Args:
        module: x -> one number per example, (batch,) or (batch, 1).
        shape: of one example.
        optimizer: any optax optimizer.
        chains: what the negative phase draws with.
        energy_weight: λ.
        nodes: of the quadrature, or the points of a small discrete space.
        axis_name: as in `contrastive`.

    Raises:
        ValueError: `energy_weight` is negative.
    """
    at_least("energy_weight", energy_weight, 0.0)
    of = functools.partial(energy, module=module)
    exact = None
    if nodes is not None:
        exact = functools.partial(_log_prob, module, chains.temperature, nodes)

    def draw(key: Key, state: ContrastiveState, num: int) -> Batch:
        return {"x": sample(key, chains, functools.partial(of, state.params), state.chains.buffer, num)}

    return contrastive(
        functools.partial(start, module, shape, chains),
        of,
        lambda params: replay(chains, shape, functools.partial(of, params)),
        optimizer,
        negatives=lambda position: position.moved,
        extra=squared_energies(energy_weight),
        evaluate=functools.partial(_evaluate, of, exact),
        sample=draw,
        log_prob=exact,
        axis_name=axis_name,
    )


def _log_prob(
    module: nn.Module, temperature: float, nodes: quadrature.Nodes, state: ContrastiveState, batch: Batch
) -> Values:
    settings = {"module": module, "temperature": temperature}
    log_z = log_partition(state.params, nodes, **settings)
    return log_density(state.params, batch["x"], **settings) - log_z


def _evaluate(
    energy: Callable[..., Values],
    exact: Callable[[ContrastiveState, Batch], Values] | None,
    key: Key,
    state: ContrastiveState,
    batch: Batch,
) -> Metrics:
    del key
    known, drawn = energy(state.params, batch["x"]), jnp.mean(energy(state.params, state.chains.buffer))
    metrics = {"energy_gap": known - drawn, "energy_data": known, "energy_model": drawn}
    return metrics if exact is None else {**metrics, "nll": -exact(state, batch)}
