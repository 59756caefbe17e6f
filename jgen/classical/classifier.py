"""Classifiers, generative and discriminative.

    generative       p(x, y) = p(y) p(x|y),   p(y|x) = p(y) p(x|y) / Σ_c p(c) p(x|c),   anomaly score −log p(x)
    discriminative   p(y|x) = softmax(f(x))_y,  and nothing about x

Class-conditional laws p(x|y), all by counting in one pass: Gaussians with diagonal ("naive"), one shared ("linear",
Fisher's discriminant) or own covariances ("quadratic"); independent categories ("categorical", of two levels a
Bernoulli naive Bayes) with log (n_ydk + α)/(n_yd + α·levels). With Gaussians it is a Gaussian mixture whose
components are seen. The network has heads: classes that may be unknown for some examples (label −1), and values such as
x itself. One head is plain classification, several are multi-task learning, and a reconstruction beside few labels is
semi-supervised (Caruana: Multitask Learning, 1997; Rasmus et al.: Semi-Supervised Learning with Ladder Networks, 2015).

Ng and Jordan: On Discriminative vs. Generative Classifiers, 2001. Differs from the paper: covariances are divided by n
and have a floor on the diagonal; no ladder.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jgen import _checks, linen, random
from jgen._types import Batch, Key, Metrics, Params
from jgen.classical import mixture
from jgen.learners import CountingState, GradientState, counting, gradient
from jgen.math import moments as row_moments
from jgen.math.moments import Moments
from jgen.model import Model

KINDS = ("naive", "linear", "quadratic", "categorical")


class Tables(NamedTuple):
    """Attributes: `log_prior` (classes,), log p(y); `log_probs` (classes, dim, levels), log p(x_d = k|y)."""

    log_prior: Any
    log_probs: Any


@dataclasses.dataclass(frozen=True)
class Classes:
    """A head that predicts whole numbers 0..size-1; −1 says that an example's is unknown.

    Attributes:
        entry: of the batch, such as "label".
        size: how many classes.
        weight: of its cross-entropy in the loss.
    """

    entry: str
    size: int
    weight: float = 1.0

    def loss(self, raw: Float[Array, "batch size"], truth: Int[Array, " batch"]) -> Float[Array, " batch"]:
        """−log softmax(raw)[truth], nats; 0 where the truth is unknown."""
        each = _own(jax.nn.log_softmax(raw), jnp.maximum(truth, 0))
        return jnp.where(truth >= 0, -each, 0.0)


@dataclasses.dataclass(frozen=True)
class Values:
    """A head that predicts real values, such as x itself.

    Attributes:
        entry: of the batch, (batch, ...).
        size: how many values an example has.
        weight: of its squared error in the loss.
    """

    entry: str
    size: int
    weight: float = 1.0

    def loss(self, raw: Float[Array, "batch size"], truth: Float[Array, "batch ..."]) -> Float[Array, " batch"]:
        """The mean squared error of each example."""
        return jnp.mean((raw - jnp.reshape(truth, raw.shape)) ** 2, axis=1)


class Heads(nn.Module):
    """{entry: affine map of the trunk's output} for every task.

    Attributes:
        trunk: (batch, ...) -> (batch, features), called with the keyword `train`.
        tasks: the heads.
    """

    trunk: nn.Module
    tasks: tuple[Classes | Values, ...]

    @nn.compact
    def __call__(self, x: Any, *, train: bool = False) -> dict[str, Any]:
        """(batch, ...) -> {entry: (batch, size)}."""
        features = self.trunk(x, train=train)
        return {task.entry: nn.Dense(task.size, name=f"head_{task.entry}")(features) for task in self.tasks}


def fit_gaussians(moments: Moments, *, shared: bool = False, floor: float = 1e-6) -> mixture.Mixture:
    """The most likely class-conditional Gaussians, as the mixture with a component per class.

    Args:
        moments: of each class, with full scatter or its diagonal.
        shared: one covariance for all classes, that within them.
        floor: added to every variance.
    """
    covariances = row_moments.covariance(moments)
    if shared:
        whole = jnp.sum(moments.scatter, axis=0) / jnp.maximum(jnp.sum(moments.num), 1.0)
        covariances = jnp.broadcast_to(whole[None], covariances.shape)
    dim = moments.mean.shape[1]
    diagonal = covariances.ndim == 2
    covariances = covariances + floor * (jnp.ones((1, dim)) if diagonal else jnp.eye(dim)[None])
    return mixture.Mixture(_log_shares(moments.num), moments.mean, covariances)


def count_levels(
    x: Int[Array, "batch dim"], label: Int[Array, " batch"], num_classes: int, levels: int
) -> Float[Array, "classes dim levels"]:
    """n_ydk: how many examples of class y have level k in column d."""
    columns = jnp.arange(x.shape[1])[None]
    return jnp.zeros((num_classes, x.shape[1], levels)).at[label[:, None], columns, x].add(1.0)


def fit_tables(counts: Float[Array, "classes dim levels"], *, smoothing: float = 1.0) -> Tables:
    """Class shares, and levels' smoothed shares (n_ydk + α)/(n_yd + α·levels), α = `smoothing` > 0."""
    smooth = counts + smoothing
    log_probs = jnp.log(smooth) - jnp.log(jnp.sum(smooth, axis=2, keepdims=True))
    return Tables(_log_shares(jnp.sum(counts[:, 0], axis=1)), log_probs)


def _log_shares(num: Any) -> Any:
    """log n_y/n; equal shares before any example, and next to nothing for a class without one."""
    share = jnp.where(jnp.sum(num) > 0, num / jnp.maximum(jnp.sum(num), 1.0), 1 / num.shape[0])
    return jnp.log(jnp.maximum(share, jnp.finfo(num.dtype).tiny))


def joint_log_prob(params: mixture.Mixture | Tables, x: Any) -> Float[Array, "batch classes"]:
    """log p(x, y) for every y, nats."""
    if isinstance(params, mixture.Mixture):
        return mixture.joint_log_prob(params, x)
    each = params.log_probs[:, jnp.arange(x.shape[1])[None], x]
    return params.log_prior[None] + jnp.sum(each, axis=2).T


def log_evidence(params: mixture.Mixture | Tables, x: Any) -> Float[Array, " batch"]:
    """log p(x) = log Σ_y p(x, y), nats; −log p(x) is the anomaly score."""
    return jax.nn.logsumexp(joint_log_prob(params, x), axis=1)


def class_log_prob(params: mixture.Mixture | Tables, x: Any) -> Float[Array, "batch classes"]:
    """log p(y|x), nats."""
    return jax.nn.log_softmax(joint_log_prob(params, x), axis=1)


def sample(key: Key, params: mixture.Mixture | Tables, num: int) -> tuple[Any, Int[Array, " num"]]:
    """(x, label) by y ~ p(y), x ~ p(x|y); example i draws from (key, i)."""
    if isinstance(params, mixture.Mixture):
        return mixture.sample(key, params, num)

    def one(key: Key) -> tuple[Any, Any]:
        which, what = jax.random.split(key)
        y = jax.random.categorical(which, params.log_prior)
        return jax.random.categorical(what, params.log_probs[y]), y

    return jax.vmap(one)(random.example_keys(key, num))


def network_model(
    trunk: nn.Module,
    tasks: tuple[Classes | Values, ...],
    optimizer: optax.GradientTransformation,
    *,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The discriminative classifier over {"x": (batch, ...), "label": (batch,)} and what else `tasks` name.

    `log_prob` and "nll" are of the first task alone, which is p(label|x); unknown labels count as 0.

    Args:
        trunk: (batch, ...) -> (batch, features), called with the keyword `train`.
        tasks: the heads; the first predicts classes.
        optimizer: of the weighted sum of their losses.
        axis_name: the mapped axis over which gradients are averaged.

    Raises:
        ValueError: the first of `tasks` is missing or does not predict classes.
    """
    if not tasks or not isinstance(tasks[0], Classes):
        raise ValueError(f"`tasks` must begin with Classes, got {tasks}.")
    network, main = Heads(trunk, tasks), tasks[0]

    def init(key: Key, batch: Batch) -> tuple[Params, Params]:
        random.batch_size(batch)
        return linen.init(network, key, batch["x"])

    def loss(key: Key, params: Params, stats: Params, batch: Batch, *, train: bool) -> Any:
        run = linen.apply_and_update if train else _apply
        raw, stats = run(network, params, stats, batch["x"], key=key, train=train)
        each = {task.entry: task.loss(raw[task.entry], batch[task.entry]) for task in tasks}
        total = sum(task.weight * jnp.mean(each[task.entry]) for task in tasks)
        found = {"nll": each[main.entry], "accuracy": (jnp.argmax(raw[main.entry], axis=1) == batch[main.entry]) * 1.0}
        found |= {f"{name}_loss": value for name, value in each.items() if name != main.entry}
        return total, (stats, {n: jnp.mean(v) for n, v in found.items()} if train else found)

    def log_prob(state: GradientState, batch: Batch) -> Any:
        raw = linen.apply(network, state.params, state.stats, batch["x"])
        return -main.loss(raw[main.entry], batch[main.entry])

    return gradient(init, loss, optimizer, log_prob=log_prob, axis_name=axis_name)


def _apply(network: nn.Module, params: Params, stats: Params, x: Any, *, key: Key, train: bool) -> tuple[Any, Params]:
    return linen.apply(network, params, stats, x, key=key, train=train), stats


def model(
    num_classes: int,
    kind: str,
    *,
    levels: int = 2,
    smoothing: float = 1.0,
    floor: float = 1e-6,
    axis_name: str | None = None,
) -> Model[CountingState]:
    """The generative classifier over {"x": (batch, dim), "label": (batch,)}; `log_prob` is log p(x, y).

    Args:
        num_classes: labels are 0..num_classes-1.
        kind: "naive", "linear" or "quadratic" for real x, "categorical" for whole numbers.
        levels: of categorical x, 0..levels-1.
        smoothing: α of categorical x.
        floor: added to the variances of real x.
        axis_name: the mapped axis over which counts are put together.

    Raises:
        ValueError: an argument is out of its range, labels are, or categorical x are.
    """
    _checks.at_least("num_classes", num_classes, 2)
    _checks.one_of("kind", kind, KINDS)
    _checks.at_least("levels", levels, 2)
    _checks.positive("smoothing", smoothing)
    _checks.positive("floor", floor)
    discrete = kind == "categorical"
    rows = functools.partial(_rows, num_classes, levels if discrete else None)

    def collect(batch: Batch) -> Any:
        x, label = rows(batch)
        if discrete:
            return count_levels(x, label, num_classes, levels)
        return row_moments.class_moments(x, label, num_classes, diagonal=kind == "naive")

    def solve(moments: Any) -> Any:
        if discrete:
            return fit_tables(moments, smoothing=smoothing)
        return fit_gaussians(moments, shared=kind == "linear", floor=floor)

    return counting(
        lambda batch: jax.tree.map(jnp.zeros_like, collect(batch)),
        collect,
        solve,
        evaluate=lambda key, state, batch: _evaluate(state.params, *rows(batch)),
        sample=lambda key, state, num: dict(zip(("x", "label"), sample(key, state.params, num), strict=True)),
        log_prob=lambda state, batch: _own(joint_log_prob(state.params, rows(batch)[0]), rows(batch)[1]),
        merge=None if discrete else row_moments.merge,
        axis_name=axis_name,
    )


def _rows(num_classes: int, levels: int | None, batch: Batch) -> tuple[Any, Any]:
    """(x, label), checked; x are whole numbers where `levels` are given."""
    random.batch_size(batch)
    _checks.rank("x", batch["x"], 2, "(batch, dim)")
    _checks.integers("label", batch["label"], num_classes)
    if levels is not None:
        _checks.integers("x", batch["x"], levels)
    return jnp.asarray(batch["x"], jnp.float32 if levels is None else jnp.int32), jnp.asarray(batch["label"], jnp.int32)


def _own(each: Any, label: Any) -> Any:
    """The entry of each row that its label names."""
    return jnp.take_along_axis(each, label[:, None], axis=1)[:, 0]


def _evaluate(params: mixture.Mixture | Tables, x: Any, label: Any) -> Metrics:
    joint = joint_log_prob(params, x)
    own = _own(joint, label)
    evidence = jax.nn.logsumexp(joint, axis=1)
    right = (jnp.argmax(joint, axis=1) == label) * 1.0
    return {"nll": evidence - own, "accuracy": right, "anomaly": -evidence}
