"""K-fold cross-validation of a density as one run: K copies of a model learn side by side, each on its own rows.

The rows are permuted once and cut into K blocks, the last of which takes what is left over. Fold k tests on block k,
validates on block k + 1, and fits on the K − 2 others; rows are standardized by everything that fold k does not test
on. Each copy keeps the parameters that did best on its own validation rows: no fold's choice sees its own test rows.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen import random
from jgen._checks import at_least
from jgen._types import Batch, Key, Metrics
from jgen.data.pipeline import Data
from jgen.model import Model


@dataclasses.dataclass(frozen=True)
class Fold:
    """The standardized rows of one fold, float32.

    Attributes:
        train: rows to fit.
        valid: rows that choose when to stop.
        test: rows that are measured once.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def folds(x: np.ndarray, num_folds: int, seed: int) -> list[Fold]:
    """The folds of rows (n, D), permuted by `seed`.

    Raises:
        ValueError: fewer than three folds, or fewer rows than folds.
    """
    at_least("num_folds", num_folds, 3)
    if len(x) < num_folds:
        raise ValueError(f"`num_folds` must be at most the {len(x)} rows, got {num_folds}.")
    order, size = np.random.default_rng(seed).permutation(len(x)), len(x) // num_folds
    blocks = [order[k * size : (k + 1) * size if k + 1 < num_folds else len(x)] for k in range(num_folds)]
    return [_fold(np.asarray(x, np.float64), blocks, k) for k in range(num_folds)]


def _fold(x: np.ndarray, blocks: list[np.ndarray], k: int) -> Fold:
    v = (k + 1) % len(blocks)
    known = x[np.concatenate([block for i, block in enumerate(blocks) if i != k])]
    mean, std = known.mean(axis=0), known.std(axis=0)
    train = np.concatenate([block for i, block in enumerate(blocks) if i not in (k, v)])
    parts = (
        ((x[rows] - mean) / np.where(std > 0, std, 1.0)).astype(np.float32) for rows in (train, blocks[v], blocks[k])
    )
    return Fold(*parts)


def gaussian_log_likelihood(fold: Fold) -> np.ndarray:
    """log p of each test row under the Gaussian that fits the training and validation rows best: the baseline."""
    known = np.concatenate([fold.train, fold.valid]).astype(np.float64)
    centred = fold.test.astype(np.float64) - known.mean(axis=0)
    covariance = np.cov(known, rowvar=False, bias=True).reshape(known.shape[1], -1)
    distance = np.einsum("nd,nd->n", centred, np.linalg.solve(covariance, centred.T).T)
    return -0.5 * (distance + np.linalg.slogdet(2 * np.pi * covariance)[1])


def batches(parts: list[Fold], batch_size: int, seed: int) -> Data:
    """Training batches {"x": (batch, K, D)}, column k from fold k; every fold has its own permutation in each epoch.

    The trainer's validation curve is over the validation rows that all folds have.
    """
    sizes = [len(part.train) for part in parts]
    steps_per_epoch = min(sizes) // batch_size
    if steps_per_epoch < 1:
        raise ValueError(f"`batch_size` must be at most the {min(sizes)} training rows of a fold, got {batch_size}.")
    padded = np.stack([np.resize(part.train, (max(sizes), part.train.shape[1])) for part in parts])
    num_valid = min(len(part.valid) for part in parts)
    valid = {"x": jnp.asarray(np.stack([part.valid[:num_valid] for part in parts], axis=1))}
    gather = jax.jit(lambda x, rows: {"x": jax.vmap(lambda x, rows: x[rows], out_axes=1)(x, rows)})
    on_device = functools.cache(lambda: jnp.asarray(padded))

    @functools.lru_cache(maxsize=2)
    def permutations(epoch: int) -> Any:
        rng = np.random.default_rng((seed, epoch))
        return np.stack([rng.permutation(size)[: steps_per_epoch * batch_size] for size in sizes])

    def train(step: int) -> Batch:
        epoch, i = divmod(step, steps_per_epoch)
        return gather(on_device(), permutations(epoch)[:, i * batch_size : (i + 1) * batch_size])

    def held_out(split: str) -> Iterator[tuple[Batch, int]]:
        if split != "valid":
            raise ValueError(f"`split` must be 'valid', for the folds' test rows differ in number; got {split!r}.")
        yield valid, num_valid

    return Data(train, held_out)


class FoldsState(NamedTuple):
    """K models side by side; every leaf but the count has a leading axis K.

    Attributes:
        params: those that did best on each fold's validation rows so far.
        inner: the states under way.
        best: the lowest mean −log p of each fold's validation rows.
        step: updates made.
    """

    params: Any
    inner: Any
    best: Any
    step: Any


def cross_validated(model: Model[Any], parts: list[Fold], every: int) -> Model[FoldsState]:
    """K copies of `model`, over batches {"x": (batch, K, D)}, each of which keeps what did best on its validation rows.

    `evaluate` and the field `params` are those of the best parameters so far.

    Args:
        model: with `log_prob` over {"x": (batch, D)}.
        parts: the folds.
        every: updates between two looks at the validation rows.

    Raises:
        ValueError: `model` has no `log_prob`, or `every` is below 1.
    """
    at_least("every", every, 1)
    if (log_prob := model.log_prob) is None:
        raise ValueError("`model` must have a `log_prob`, got one without.")
    choose = functools.partial(_keep_best, log_prob, parts)

    def init(key: Key, batch: Batch) -> FoldsState:
        random.batch_size(batch)
        inner = jax.vmap(model.init, (0, 1))(random.example_keys(key, len(parts)), batch)
        params = jax.tree.map(jnp.copy, inner.params)
        return FoldsState(params, inner, jnp.full(len(parts), jnp.inf), jnp.zeros((), jnp.int32))

    def update(key: Key, state: FoldsState, batch: Batch) -> tuple[FoldsState, Metrics]:
        random.batch_size(batch)
        keys = random.example_keys(key, len(parts))
        inner, metrics = jax.vmap(model.update, (0, 0, 1))(keys, state.inner, batch)
        state = state._replace(inner=inner, step=state.step + 1)
        state = jax.lax.cond(state.step % every == 0, choose, lambda state: state, state)
        return state, {name: jnp.mean(value) for name, value in metrics.items()}

    def evaluate(key: Key, state: FoldsState, batch: Batch) -> Metrics:
        del key
        seen = state.inner._replace(params=state.params)
        each = jax.vmap(lambda inner, batch: log_prob(inner, batch), (0, 1))(seen, batch)
        return {"nll": -jnp.mean(each, axis=0)}

    return Model(init, update, evaluate)


def _keep_best(log_prob: Callable[[Any, Batch], Any], parts: list[Fold], state: FoldsState) -> FoldsState:
    """`state` with the parameters of those folds whose validation likelihood is the best so far."""
    size, width = max(len(part.valid) for part in parts), parts[0].valid.shape[1]
    rows = np.stack([np.resize(part.valid, (size, width)) for part in parts])
    counted = np.stack([np.arange(size) < len(part.valid) for part in parts])
    each = jax.vmap(lambda inner, x: log_prob(inner, {"x": x}))(state.inner, jnp.asarray(rows))
    nll = -jnp.mean(each, axis=1, where=jnp.asarray(counted))
    better = nll < state.best

    def keep(new: Any, old: Any) -> Any:
        return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    params = jax.tree.map(keep, state.inner.params, state.params)
    return state._replace(params=params, best=jnp.where(better, nll, state.best))


def fold_state(state: FoldsState, k: int) -> Any:
    """The state of fold k's model with the parameters that did best."""
    return jax.tree.map(lambda leaf: leaf[k], state.inner._replace(params=state.params))
