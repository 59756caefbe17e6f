"""Learning by several players in turn, each with its own loss and optimizer: GANs, wake-sleep."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax

from jgen import random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.learners.gradient import mean_over
from jgen.model import Model


class AlternatingState(NamedTuple):
    """One entry per player in each field.

    Attributes:
        params: {player: what its gradient moves}.
        stats: {player: its other Flax collections}.
        opt_state: {player: the state of its optimizer}.
    """

    params: dict[str, Params]
    stats: dict[str, Params]
    opt_state: dict[str, Any]


@runtime_checkable
class PlayerLoss(Protocol):
    """(key, params, stats, batch, *, train) -> (value, (own stats, metrics)); params and stats are of all players."""

    def __call__(
        self, key: Key, params: dict[str, Params], stats: dict[str, Params], batch: Batch, /, *, train: bool
    ) -> tuple[Scalar, tuple[Params, Metrics]]: ...


class Player(NamedTuple):
    """One player: what it minimizes, how, and how many steps it takes in an update."""

    loss: PlayerLoss
    optimizer: optax.GradientTransformation
    num_steps: int = 1


def alternating(
    init: Callable[[Key, Batch], tuple[dict[str, Params], dict[str, Params]]],
    players: Mapping[str, Player],
    *,
    evaluate: Callable[[Key, AlternatingState, Batch], Metrics] | None = None,
    sample: Callable[[Key, AlternatingState, int], Batch] | None = None,
    axis_name: str | None = None,
) -> Model[AlternatingState]:
    """The model whose `update` lets each player take its steps, in the order of `players`.

    With k the largest `num_steps`, a batch of k·n examples is cut into k parts of n; a player's step i learns from part
    i (counted from the last for players with fewer steps). Steps are unrolled, not scanned: the weight gradient of a
    convolution inside a loop is a hundred times slower on CPU.

    Args:
        init: (key, batch) -> (params, stats), each with one entry per player.
        players: by name, in the order of play; metrics of the last step of each are reported.
        evaluate: held-out metrics; by default those of every player's loss with `train=False`.
        axis_name: as in `gradient`.

    Raises:
        ValueError: no player, a player without steps, or (when traced) a batch that k does not divide.
    """
    num_parts = _num_parts(players)

    def init_state(key: Key, batch: Batch) -> AlternatingState:
        random.batch_size(batch)  # raises where this is no batch
        params, stats = init(key, batch)
        return AlternatingState(params, stats, {name: p.optimizer.init(params[name]) for name, p in players.items()})

    def update(key: Key, state: AlternatingState, batch: Batch) -> tuple[AlternatingState, Metrics]:
        parts = _parts(random.with_index(batch, axis_name), num_parts)
        metrics: Metrics = {}
        for order, (name, player) in enumerate(players.items()):
            player_key = jax.random.fold_in(key, order)
            own: Metrics = {}
            for i, part in enumerate(parts[num_parts - player.num_steps :]):
                state, own = _step(jax.random.fold_in(player_key, i), name, player, state, part, axis_name)
            metrics |= own
        return state, metrics

    def measure(key: Key, state: AlternatingState, batch: Batch) -> Metrics:
        metrics: Metrics = {}
        for order, player in enumerate(players.values()):
            own_key = jax.random.fold_in(key, order)
            metrics |= player.loss(own_key, state.params, state.stats, batch, train=False)[1][1]
        return metrics

    return Model(init_state, update, evaluate or measure, sample)


def _num_parts(players: Mapping[str, Player]) -> int:
    if not players:
        raise ValueError("`players` must name at least one player, got none.")
    for name, player in players.items():
        if player.num_steps < 1:
            raise ValueError(f"`num_steps` of player {name!r} must be at least 1, got {player.num_steps}.")
    return max(player.num_steps for player in players.values())


def _step(
    key: Key, name: str, player: Player, state: AlternatingState, batch: Batch, axis_name: str | None
) -> tuple[AlternatingState, Metrics]:
    """One gradient step of one player, the others held fixed."""

    def objective(own: Params) -> tuple[Scalar, tuple[Params, Metrics]]:
        return player.loss(key, {**state.params, name: own}, state.stats, batch, train=True)

    grads, (stats, metrics) = jax.grad(objective, has_aux=True)(state.params[name])
    grads, stats, metrics = mean_over((grads, stats, metrics), axis_name)
    updates, opt_state = player.optimizer.update(grads, state.opt_state[name], state.params[name])
    own = optax.apply_updates(state.params[name], updates)
    state = AlternatingState(
        {**state.params, name: own}, {**state.stats, name: stats}, {**state.opt_state, name: opt_state}
    )
    return state, metrics


def _parts(batch: Batch, num: int) -> list[Batch]:
    """`num` parts of a batch, interleaved so that each part of a sharded batch is local to its shard."""
    size = random.batch_size(batch)
    if size % num:
        raise ValueError(f"`batch` must be divisible by the {num} steps of its busiest player, got {size} examples.")
    cut = {name: jnp.reshape(x, (size // num, num, *jnp.shape(x)[1:])) for name, x in batch.items()}
    return [{name: x[:, i] for name, x in cut.items()} for i in range(num)]
