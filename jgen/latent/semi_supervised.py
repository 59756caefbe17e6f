"""Semi-supervised VAE, "M2": a conditional VAE whose label is a latent variable where it is not known.

    log p(x, y) ≥ 𝓛(x, y) = E_{q(z|x,y)} log p(x|y, z) + log p(y) − KL(q(z|x, y) ‖ p(z))
    log p(x)    ≥ U(x)    = Σ_y q(y|x) 𝓛(x, y) + H(q(y|x))
    maximize      Σ_labelled 𝓛(x, y) + Σ_unlabelled U(x) + α·(N/N_labelled) Σ_labelled log q(y|x)

U is summed over classes, not sampled; it equals log p(x) where both posteriors are exact. Of the three terms only the
last teaches q(y|x) from labels: the first has no q(y|x) in it.

Paper: Kingma, Rezende, Mohamed and Welling, "Semi-Supervised Learning with Deep Generative Models", 2014, eqs. 6 to 9.
Differs from the paper: no prior on the weights; p(y) is uniform. Its stack on the codes of another VAE, "M1+M2", is
`semi_supervised_stack`.

Batches are {"x", "label"} with the label −1 where it is not known.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jgen import _checks, linen, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.latent import conditional_vae, vae, warm_up
from jgen.latent import networks as parts
from jgen.latent.networks import Networks
from jgen.learners import GradientState, gradient
from jgen.model import Model
from jgen.nets.encoders import Encoder

CLASSIFIER = "classifier"  # the entry of `params` and `stats` that belongs to q(y|x)


class Bounds(NamedTuple):
    """Of every example and class, nats.

    Attributes:
        log_joint: 𝓛(x, y) ≤ log p(x, y), from one draw of z.
        log_class: log q(y|x).
    """

    log_joint: Float[Array, "batch classes"]
    log_class: Float[Array, "batch classes"]


def dense(num_classes: int, **kwargs: Any) -> nn.Module:
    """A dense classifier, features -> logits; keywords as in `nets.encoders.Encoder`."""
    return Encoder(num_classes, **kwargs)


def class_log_prob(
    params: Params, stats: Params, x: Any, *, networks: Networks, classifier: nn.Module
) -> Float[Array, "batch classes"]:
    """log q(y|x), nats."""
    return _class_log_prob(params, stats, x, networks, classifier, None)[0]


def classify(params: Params, stats: Params, x: Any, *, networks: Networks, classifier: nn.Module) -> Int[Array, " n"]:
    """argmax_y q(y|x)."""
    return jnp.argmax(class_log_prob(params, stats, x, networks=networks, classifier=classifier), axis=1)


def bounds(
    key: Key, params: Params, stats: Params, batch: Batch, *, networks: Networks, classifier: nn.Module
) -> Bounds:
    """𝓛(x, y) and log q(y|x) of every example with every class; labels are not looked at."""
    return bounds_and_stats(key, params, stats, batch, networks=networks, classifier=classifier, train=False)[0]


def bounds_and_stats(
    key: Key, params: Params, stats: Params, batch: Batch, *, networks: Networks, classifier: nn.Module, train: bool
) -> tuple[Bounds, Params]:
    """`bounds`, and `stats` after the pass; in training dropout draws, and statistics are of the batch."""
    num = networks.num_classes or 0
    vae_key, class_key = jax.random.split(key)
    rows = conditional_vae.every_class(batch, num)
    values, after = vae.terms_and_stats(vae_key, params, stats, rows, networks=networks, train=train)
    log_joint = jnp.reshape(values.elbo, (-1, num)) - np.log(num)
    log_class, own = _class_log_prob(params, stats, batch["x"], networks, classifier, class_key if train else None)
    return Bounds(log_joint, log_class), {**after, CLASSIFIER: own}


def evidence_bound(found: Bounds) -> Float[Array, " batch"]:
    """U(x) = Σ_y q(y|x)·(𝓛(x, y) − log q(y|x)), nats: at most log Σ_y exp 𝓛(x, y), and that at its own softmax."""
    return jnp.sum(jnp.exp(found.log_class) * (found.log_joint - found.log_class), axis=1)


def row_weights(
    label: Int[Array, " batch"], *, labelled_share: float | None = None, axis_name: str | None = None
) -> tuple[Float[Array, " batch"], Scalar]:
    """(w, f): the weights with which means over a batch become means over the data, and the batch's share of labels.

    Of the data the share s is labelled: w is s/f where the label is known, and (1 − s)/(1 − f) where it is −1.

    Args:
        label: −1 where it is unknown.
        labelled_share: s; None takes the batch's own, f, so that all weights are 1.
        axis_name: the mapped axis over which f is counted.
    """
    known = (label >= 0).astype(jnp.float32)
    share = jnp.mean(known)
    share = share if axis_name is None else jax.lax.pmean(share, axis_name)
    if labelled_share is None:
        return jnp.ones_like(known), share
    labelled, unlabelled = jnp.maximum(share, 1e-6), jnp.maximum(1 - share, 1e-6)
    return known * labelled_share / labelled + (1 - known) * (1 - labelled_share) / unlabelled, share


def objective(
    found: Bounds,
    label: Int[Array, " batch"],
    *,
    alpha: float,
    labelled_share: float | None = None,
    axis_name: str | None = None,
) -> Float[Array, " batch"]:
    """What is maximized, in nats per example of the data; the mean over the batch is an unbiased estimate of it.

    w·𝓛(x, y) + (α/f)·log q(y|x) where the label is known, w·U(x) where it is not, with the weights w and the share f of
    `row_weights`: a batch may hold more labels than the data do, and in the classifier's term a labelled example weighs
    α·N/N_labelled as in the paper's eq. 9.
    """
    weight, share = row_weights(label, labelled_share=labelled_share, axis_name=axis_name)
    own = jnp.maximum(label, 0)[:, None]
    log_joint, log_class = (jnp.take_along_axis(each, own, axis=1)[:, 0] for each in found)
    taught = weight * log_joint + alpha / jnp.maximum(share, 1e-6) * log_class
    return jnp.where(label >= 0, taught, weight * evidence_bound(found))


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    train: bool,
    networks: Networks,
    classifier: nn.Module,
    alpha: float = 0.1,
    labelled_share: float | None = None,
    axis_name: str | None = None,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """−mean `objective`, nats; the metrics are means of `report`, those of the classifier over labelled rows alone."""
    label = labels(batch, networks)
    found, after = bounds_and_stats(key, params, stats, batch, networks=networks, classifier=classifier, train=train)
    value = -jnp.mean(objective(found, label, alpha=alpha, labelled_share=labelled_share, axis_name=axis_name))
    each, known = report(found, label), jnp.maximum(jnp.mean(label >= 0), 1 / len(label))
    metrics = {"loss": value, "negative_bound": jnp.mean(each["negative_bound"])}
    return value, (after, {**metrics, **{n: jnp.mean(each[n]) / known for n in ("cross_entropy", "accuracy")}})


def report(found: Bounds, label: Int[Array, " batch"] | None) -> Metrics:
    """Per example: −U(x), and where there are labels −log q(y|x) and whether it is right, both 0 for unknown ones."""
    metrics = {"negative_bound": -evidence_bound(found)}
    if label is None:
        return metrics
    log_class = jnp.take_along_axis(found.log_class, jnp.maximum(label, 0)[:, None], axis=1)[:, 0]
    right = jnp.argmax(found.log_class, axis=1) == label
    return {**metrics, "cross_entropy": jnp.where(label >= 0, -log_class, 0.0), "accuracy": right * 1.0}


def labels(batch: Batch, networks: Networks) -> Int[Array, " batch"]:
    """The labels of a batch, −1 where they are unknown; all are where the batch has none.

    Raises:
        ValueError: a label is neither −1 nor a class.
    """
    label = batch.get("label")
    if label is None:
        return jnp.full(random.batch_size(batch), -1)
    _checks.within("label", label, -1, (networks.num_classes or 0) - 1)
    return jnp.asarray(label, jnp.int32)


def initialize(key: Key, batch: Batch, *, networks: Networks, classifier: nn.Module) -> tuple[Params, Params]:
    """(params, stats), those of the conditional VAE with the entry "classifier".

    Raises:
        ValueError: the classifier's output has another shape than (batch, classes).
    """
    networks.likelihood.check(batch["x"])
    vae_key, class_key = jax.random.split(key)
    params, stats = parts.initialize(networks, vae_key, jnp.asarray(batch["x"]))
    features = networks.likelihood.features(jnp.asarray(batch["x"]))
    own, own_stats = linen.init(classifier, class_key, features, train=False)
    params, stats = {**params, CLASSIFIER: own}, {**stats, CLASSIFIER: own_stats, **warm_up.start()}
    class_log_prob(params, stats, batch["x"], networks=networks, classifier=classifier)
    return params, stats


def check(networks: Networks, alpha: float, labelled_share: float | None) -> None:
    """Raises ValueError where there are fewer than two classes, or a weight is out of its range."""
    if networks.num_classes is None:
        raise ValueError("`networks` must have `num_classes`, got None.")
    _checks.at_least("num_classes", networks.num_classes, 2)
    _checks.at_least("alpha", alpha, 0)
    if labelled_share is not None:
        _checks.within("labelled_share", labelled_share, 0.0, 1.0)


def draw_labels(key: Key, num: int, num_classes: int) -> Int[Array, " num"]:
    """Uniform classes; draw i depends on (key, i) alone."""
    one = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 1), (), 0, num_classes))
    return one(random.example_keys(key, num))


def model(
    networks: Networks,
    classifier: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    alpha: float = 0.1,
    labelled_share: float | None = None,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """M2 over {"x", "label"}, labels −1 where unknown; `log_bound` is U(x), of log p(x), and samples have labels.

    Args:
        networks: of the conditional VAE, with `num_classes`.
        classifier: q(y|x), a Flax module: features (batch, *shape) -> logits (batch, classes).
        optimizer: any optax optimizer.
        alpha: α; a labelled example weighs α·N/N_labelled in the classifier's term.
        labelled_share: N_labelled/N of the data, where batches hold another share.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: there are fewer than two classes, or an argument is out of its range.
    """
    settings = {"networks": networks, "classifier": classifier}
    check(networks, alpha, labelled_share)
    weights = {"alpha": alpha, "labelled_share": labelled_share, "axis_name": axis_name}

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        label = labels(batch, networks) if "label" in batch else None
        return report(bounds(key, state.params, state.stats, batch, **settings), label)

    def log_bound(key: Key, state: GradientState, batch: Batch) -> Float[Array, " batch"]:
        return evidence_bound(bounds(key, state.params, state.stats, batch, **settings))

    def draw(key: Key, state: GradientState, num: int) -> Batch:
        label = draw_labels(key, num, networks.num_classes or 0)
        return {"x": vae.sample(key, state.params, state.stats, num, networks=networks, label=label), "label": label}

    init = functools.partial(initialize, **settings)
    taught = functools.partial(loss, **settings, **weights)
    return gradient(init, taught, optimizer, evaluate=evaluate, sample=draw, log_bound=log_bound, axis_name=axis_name)


def _class_log_prob(
    params: Params, stats: Params, x: Any, networks: Networks, classifier: nn.Module, key: Key | None
) -> tuple[Any, Params]:
    features = networks.likelihood.features(jnp.asarray(x))
    logits, own = linen.run(classifier, params[CLASSIFIER], stats[CLASSIFIER], features, key=key)
    expected = (len(features), networks.num_classes)
    if logits.shape != expected:
        raise ValueError(f"`classifier` must return shape {expected}, got {logits.shape}.")
    return jax.nn.log_softmax(logits.astype(jnp.float32)), own
