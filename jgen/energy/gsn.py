"""Generative stochastic network: a Markov chain, learned by denoising, whose stationary law is the model.

    x̃_t ~ C(x̃|x_t),   h_{t+1} = f(x̃_t, h_t, noise),   x_{t+1} ~ P(x|h_{t+1})
    loss = −(1/K) Σ_{t=1}^K log P(x_0|h_t),   x_0 an example:   walkback, K steps away and always back to x_0

Why the law is the data's, where h_{t+1} depends on x̃_t alone and P is rich enough: with T the chain's transition, the
best P is the posterior of x_0 under the corruption Ĉ = (1/K) Σ_t T^{t−1}C, so that Ĉ followed by P, which is
(1/K) Σ_t T^t, keeps p(data); and its stationary law is that of T.

Papers: Bengio et al., "Generalized denoising auto-encoders as generative models", 2013 (walkback); "Deep generative
stochastic networks trainable by backprop", 2014; Bengio, Yao and Cho, "Bounding the test log-likelihood of generative
models", 2013 (CSL).
Differs from the papers: losses are means over the K steps; any number of levels.
"""

import dataclasses
import functools
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num

from jgen import linen, random
from jgen._checks import at_least, integers, rank, within
from jgen._types import Batch, Key, Keys, Params
from jgen.learners.gradient import GradientState, gradient
from jgen.math import discrete
from jgen.model import Model
from jgen.nets.tied import TiedLayers
from jgen.sampler import Sampler, run

Rows: TypeAlias = Num[Array, "batch dims"]
Values: TypeAlias = Float[Array, " batch"]


class Noise(NamedTuple):
    """All that is random in one step of a batch of chains, so that the step is a function.

    Attributes:
        uniform: a dimension is corrupted where this is below the rate,
        fresh: and this, uniform over the levels, then stands there.
        hidden: standard normal, for the network.
        visible: what `discrete.draw` takes.
    """

    uniform: Float[Array, "batch dims"]
    fresh: Num[Array, "batch dims"]
    hidden: Float[Array, "batch hidden_noise"]
    visible: Float[Array, "batch dims width"]


class State(NamedTuple):
    """Where the chains stand: visible and hidden values."""

    position: Rows
    hidden: Float[Array, "batch hidden"]


class Info(NamedTuple):
    """The logits of P(x|h) from which the step drew its position."""

    logits: Float[Array, "batch dims width"]


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A network and the chain it makes; fixed before learning.

    Attributes:
        module: the layers; with one of them, x is all of the chain's state.
        num_dims: columns of x.
        levels: x are whole numbers 0..levels-1.
        corruption: the probability with which C replaces a dimension by a uniform level (salt and pepper).

    Raises:
        ValueError: `num_dims` is less than 1, `levels` less than 2, or `corruption` is not in [0, 1].
    """

    module: TiedLayers
    num_dims: int
    levels: int = 2
    corruption: float = 0.3

    def __post_init__(self) -> None:
        at_least("num_dims", self.num_dims, 1)
        at_least("levels", self.levels, 2)
        within("corruption", self.corruption, 0.0, 1.0)

    @property
    def hidden_size(self) -> int:
        """Hidden values of all layers together."""
        return sum(self.module.sizes)


def noises(keys: Keys, network: Network) -> Noise:
    """The noise of one step, example i's from its own key."""

    def one(key: Key) -> Noise:
        which, fresh, hidden, visible = jax.random.split(key, 4)
        dims, levels = network.num_dims, network.levels
        values = jax.random.randint(fresh, (dims,), 0, levels)
        return Noise(
            jax.random.uniform(which, (dims,)),
            values.astype(jnp.float32) if levels == 2 else values,
            jax.random.normal(hidden, (2 * network.hidden_size,)),
            discrete.noise(visible, (dims,), levels),
        )

    return jax.vmap(one)(keys)


def reconstruct(
    params: Params, x: Rows, hidden: Float[Array, "batch hidden"], noise: Noise, *, network: Network
) -> tuple[Float[Array, "batch dims width"], Float[Array, "batch hidden"]]:
    """(logits of P(x|h), h): corrupts x and runs the network."""
    corrupted = jnp.where(noise.uniform < network.corruption, noise.fresh, x)
    return _logits(params, corrupted, hidden, noise.hidden, network)


def walkback(keys: Keys, params: Params, x: Rows, num_steps: int, *, network: Network) -> Values:
    """(1/K) Σ_t −log P(x|h_t) along a chain of K = `num_steps` that starts at x, nats; with one key per example.

    One step is the loss of a denoising autoencoder.
    """
    state, total = State(x, jnp.zeros((len(x), network.hidden_size))), jnp.zeros(len(x))
    for t in range(num_steps):
        noise = noises(jax.vmap(jax.random.fold_in, (0, None))(keys, t), network)
        logits, hidden = reconstruct(params, *state, noise, network=network)
        total = total - jnp.sum(discrete.log_prob(logits, x), axis=1)
        state = State(discrete.draw(logits, noise.visible).astype(x.dtype), hidden)
    return total / num_steps


def chain(params: Params, *, network: Network) -> Sampler[State]:
    """The kernel over a batch of chains, whose stationary law is the model; hidden values start at 0."""

    def step(key: Key, state: State) -> tuple[State, Info]:
        noise = noises(random.example_keys(key, len(state.position)), network)
        logits, hidden = reconstruct(params, *state, noise, network=network)
        return State(discrete.draw(logits, noise.visible).astype(state.position.dtype), hidden), Info(logits)

    return Sampler(lambda key, x: State(x, jnp.zeros((len(x), network.hidden_size))), step)


def corruption_matrix(points: Num[Array, "points dims"], *, network: Network) -> Float[Array, "points points"]:
    """C(x̃|x) = Π_d (1 − r)·1[x̃_d = x_d] + r/levels, for all pairs of `points`: row x, column x̃."""
    same, rate = points[:, None] == points[None], network.corruption
    return jnp.prod((1 - rate) * same + rate / network.levels, axis=-1)


def transition_matrix(
    params: Params, points: Num[Array, "points dims"], *, network: Network
) -> Float[Array, "points points"]:
    """P(x'|x) = Σ_x̃ C(x̃|x) P(x'|x̃), for `points` that are the whole space: row x, column x'.

    Raises:
        ValueError: the network has more than one layer, whose values carry what x does not say.
    """
    if len(network.module.sizes) > 1:
        raise ValueError(f"`network` must have one layer, so that x is all of the state, got {network.module.sizes}.")
    blank = jnp.zeros((len(points), network.hidden_size))
    logits, _ = _logits(params, points, blank, jnp.concatenate([blank, blank], axis=1), network)
    return corruption_matrix(points, network=network) @ jnp.exp(_pairs(logits, points))


def conservative_log_likelihood(
    key: Key, params: Params, x: Rows, starts: Num[Array, "chains dims"], *, network: Network, num_samples: int,
    burn_in: int,
) -> Values:  # fmt: skip
    """CSL: log (1/S) Σ_s P(x|h_s) over S states of chains; in mean a lower bound of log p(x) (Bengio et al., 2013).

    It grows with S, and presumes that the chains are in equilibrium after `burn_in` steps.

    Args:
        starts: where the chains begin, one each.
        num_samples: S, a multiple of the number of chains.
        burn_in: steps before the first state that counts.

    Raises:
        ValueError: `num_samples` is not a positive multiple of the number of chains.
    """
    _check_samples("num_samples", num_samples, len(starts))
    kernel = chain(params, network=network)
    state, _ = run(key, kernel, kernel.init(key, starts), burn_in)

    def add(carry: Any, t: Any) -> tuple[Any, None]:
        state, total = carry
        state, info = kernel.step(jax.random.fold_in(key, t), state)
        return (state, jnp.logaddexp(total, jax.nn.logsumexp(_pairs(info.logits, x), axis=0))), None

    times = burn_in + jnp.arange(num_samples // len(starts))
    (_, total), _ = jax.lax.scan(add, (state, jnp.full(len(x), -jnp.inf)), times)
    return total - jnp.log(jnp.asarray(num_samples, jnp.float32))


def sample(key: Key, params: Params, num: int, *, network: Network, num_steps: int) -> Num[Array, "num dims"]:
    """`num` chains after `num_steps` steps from uniform noise; row i depends on (key, i) alone."""
    kernel = chain(params, network=network)

    def one(key: Key) -> Any:
        start_key, walk_key = jax.random.split(key)
        start = kernel.init(walk_key, uniform(start_key, 1, network))
        return run(walk_key, kernel, start, num_steps)[0].position[0]

    return jax.vmap(one)(random.example_keys(key, num))


def uniform(key: Key, num: int, network: Network) -> Rows:
    """`num` rows of uniform levels."""
    x = jax.random.randint(key, (num, network.num_dims), 0, network.levels)
    return x.astype(jnp.float32) if network.levels == 2 else x


def model(
    network: Network,
    optimizer: optax.GradientTransformation,
    *,
    num_walkback: int = 4,
    num_sample_steps: int = 200,
    num_bound_samples: int = 1_000,
    num_bound_chains: int = 100,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """A chain over rows of whole numbers, learned by walkback; `log_bound` is CSL.

    Args:
        network: the network, the levels and the corruption.
        optimizer: any optax optimizer.
        num_walkback: K.
        num_sample_steps: steps from uniform noise to a sample, and before CSL counts.
        num_bound_samples: S of CSL.
        num_bound_chains: chains that share them.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: a count is less than 1, or `num_bound_samples` is no multiple of `num_bound_chains`.
    """
    at_least("num_walkback", num_walkback, 1)
    at_least("num_sample_steps", num_sample_steps, 1)
    at_least("num_bound_chains", num_bound_chains, 1)
    _check_samples("num_bound_samples", num_bound_samples, num_bound_chains)

    def loss(key: Key, params: Params, stats: Params, batch: Batch, *, train: bool) -> Any:
        del train
        x, keys = _rows(network, batch), random.batch_keys(key, batch)
        value = jnp.mean(walkback(keys, params, x, num_walkback, network=network))
        return value, (stats, {"loss": value})

    def bound(key: Key, state: GradientState, batch: Batch) -> Values:
        start_key, key = jax.random.split(key)
        starts, x = uniform(start_key, num_bound_chains, network), _rows(network, batch)
        settings = {"network": network, "num_samples": num_bound_samples, "burn_in": num_sample_steps}
        return conservative_log_likelihood(key, state.params, x, starts, **settings)

    def draw(key: Key, state: GradientState, num: int) -> Batch:
        return {"x": sample(key, state.params, num, network=network, num_steps=num_sample_steps)}

    first = functools.partial(_init, network)
    return gradient(first, loss, optimizer, sample=draw, log_bound=bound, axis_name=axis_name)


def _check_samples(name: str, num: int, num_chains: int) -> None:
    if num < 1 or num % num_chains:
        raise ValueError(f"`{name}` must be a multiple of the {num_chains} chains, got {num}.")


def _init(network: Network, key: Key, batch: Batch) -> tuple[Params, Params]:
    x = _rows(network, batch)
    hidden = jnp.zeros((len(x), network.hidden_size))
    params, stats = linen.init(network.module, key, _inputs(x, network), hidden, jnp.concatenate([hidden] * 2, axis=1))
    return {**params, "bias_0": discrete.log_odds(x, network.levels).reshape(-1)}, stats


def _rows(network: Network, batch: Batch) -> Rows:
    x = batch["x"]
    rank("x", x, 2, "(batch, dims)")
    integers("x", x, network.levels)
    if x.shape[1] != network.num_dims:
        raise ValueError(f"`x` must have {network.num_dims} columns, got shape {x.shape}.")
    return x.astype(jnp.float32) if network.levels == 2 else x.astype(jnp.int32)


def _pairs(logits: Float[Array, "states dims width"], x: Rows) -> Float[Array, "states batch"]:
    """log P(x|h) of every state and every row."""

    def one(row: Any) -> Float[Array, " states"]:
        return jnp.sum(discrete.log_prob(logits, jnp.broadcast_to(row[None], logits.shape[:-1])), axis=1)

    return jax.vmap(one, out_axes=1)(x)


def _logits(params: Params, x: Rows, hidden: Any, noise: Any, network: Network) -> tuple[Any, Any]:
    logits, hidden = linen.apply(network.module, params, {}, _inputs(x, network), hidden, noise)
    return logits.reshape(*x.shape, -1), hidden


def _inputs(x: Rows, network: Network) -> Float[Array, "batch inputs"]:
    return discrete.encode(x, network.levels).reshape(len(x), -1)
