"""Semi-supervised VAE in two layers, "M1+M2": M2 on the codes of another VAE, which needs no labels.

    p(x, y, z₁, z₂) = p(y) p(z₂) p(z₁|y, z₂) p(x|z₁)
    log p(x) ≥ E_{q(z₁|x)} [log p(x|z₁) − log q(z₁|x) + U(z₁)],    U of `semi_supervised` with z₁ in the place of x

M1 is a plain VAE with p(z₁) = N(0, I); M2 learns from fresh draws z₁ ~ q(z₁|x).

Paper: Kingma, Rezende, Mohamed and Welling, "Semi-Supervised Learning with Deep Generative Models", 2014, section 2.3.
Differs from the paper: both learn at the same time, M2 from codes that it does not move, instead of one after the
other; M2's law of z₁ then takes the place of N(0, I) in the bound and in samples. No dimension of z₁ is left out.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jgen import random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.latent import networks as parts
from jgen.latent import representation, semi_supervised, vae, warm_up
from jgen.latent.networks import Networks
from jgen.latent.semi_supervised import Bounds
from jgen.learners import GradientState, gradient
from jgen.model import Model

FIRST, SECOND = "first", "second"  # the entries of `params` and `stats` that belong to M1 and to M2


class Stack(NamedTuple):
    """The parts of both layers.

    Attributes:
        first: M1's, without classes.
        second: M2's, for x of shape (first.latent_size,), with classes and the likelihood p(z₁|y, z₂).
        classifier: q(y|z₁), z₁ -> logits.
    """

    first: Networks
    second: Networks
    classifier: nn.Module


class Layers(NamedTuple):
    """Of each example, nats.

    Attributes:
        data: log p(x|z₁) − log q(z₁|x) at one draw.
        codes: M2's bounds on log p(z₁, y), and log q(y|z₁), at the same draw.
    """

    data: Float[Array, " batch"]
    codes: Bounds


def features(key: Key, params: Params, stats: Params, x: Any, *, stack: Stack) -> Float[Array, "batch latent"]:
    """z₁ ~ q(z₁|x), what M2 learns from; example i draws from fold_in(key, i)."""
    own = params[FIRST]
    q = vae.encode(own, stats[FIRST], x, networks=stack.first)
    return stack.first.posterior.draw(random.example_keys(key, len(x)), own["posterior"], q).z


def code(params: Params, stats: Params, x: Any, *, stack: Stack) -> Float[Array, "batch latent"]:
    """The z₁ that stands for x."""
    return representation.code(params[FIRST], stats[FIRST], x, networks=stack.first)


def class_log_prob(params: Params, stats: Params, x: Any, *, stack: Stack) -> Float[Array, "batch classes"]:
    """log q(y|z₁) at the code of x, nats."""
    z = code(params, stats, x, stack=stack)
    return semi_supervised.class_log_prob(params[SECOND], stats[SECOND], z, **_second(stack))


def classify(params: Params, stats: Params, x: Any, *, stack: Stack) -> Int[Array, " batch"]:
    """argmax_y q(y|z₁) at the code of x."""
    return jnp.argmax(class_log_prob(params, stats, x, stack=stack), axis=1)


def style(params: Params, stats: Params, x: Any, label: Any, *, stack: Stack) -> Float[Array, "batch latent"]:
    """The z₂ that stands for x, read under its y."""
    z = code(params, stats, x, stack=stack)
    return representation.code(params[SECOND], stats[SECOND], z, networks=stack.second, label=jnp.asarray(label))


def decode(params: Params, stats: Params, z: Float[Array, "batch latent"], label: Any, *, stack: Stack) -> Array:
    """E[x|z₁] at z₁ = E[z₁|z₂, y]."""
    label = jnp.asarray(label)
    codes = vae.decode(params[SECOND], stats[SECOND], z, networks=stack.second, label=label)
    return vae.decode(params[FIRST], stats[FIRST], codes, networks=stack.first)


def layers(key: Key, params: Params, stats: Params, batch: Batch, *, stack: Stack) -> Layers:
    """What both layers give of each example, at one draw of z₁."""
    first_key, second_key = jax.random.split(key)
    keys = random.batch_keys(first_key, batch)
    x, _ = parts.examples(batch, stack.first)
    q = vae.encode(params[FIRST], stats[FIRST], x, networks=stack.first)
    z, log_q = stack.first.posterior.draw(keys, params[FIRST]["posterior"], q)
    raw = parts.run_decoder(params[FIRST], stats[FIRST], z, stack.first)[0]
    data = stack.first.likelihood.log_prob(raw, x) - jnp.sum(log_q, axis=-1)
    codes = semi_supervised.bounds(second_key, params[SECOND], stats[SECOND], {**batch, "x": z}, **_second(stack))
    return Layers(data, codes)


def log_bound(found: Layers) -> Float[Array, " batch"]:
    """log p(x|z₁) − log q(z₁|x) + U(z₁), nats; its mean is a lower bound on log p(x)."""
    return found.data + semi_supervised.evidence_bound(found.codes)


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    train: bool,
    stack: Stack,
    alpha: float = 0.1,
    labelled_share: float | None = None,
    axis_name: str | None = None,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """M1's negative ELBO, and M2's loss on draws of z₁ that pass no gradient on; both by `row_weights`, nats."""
    first_key, second_key, draw_key = jax.random.split(key, 3)
    label = semi_supervised.labels(batch, stack.second)
    shares = {"labelled_share": labelled_share, "axis_name": axis_name}
    terms, first = vae.terms_and_stats(first_key, params[FIRST], stats[FIRST], batch, networks=stack.first, train=train)
    own = -jnp.mean(semi_supervised.row_weights(label, **shares)[0] * terms.elbo)
    q = vae.encode(params[FIRST], stats[FIRST], batch["x"], networks=stack.first)
    z = stack.first.posterior.draw(random.batch_keys(draw_key, batch), params[FIRST]["posterior"], q).z
    codes = {**batch, "x": jax.lax.stop_gradient(z), "label": label}
    other, (second, more) = semi_supervised.loss(
        second_key, params[SECOND], stats[SECOND], codes, train=train, alpha=alpha, **_second(stack), **shares
    )
    metrics = {
        "loss": own + other,
        "negative_elbo": -jnp.mean(terms.elbo),
        **{f"codes_{name}": more[name] for name in ("negative_bound", "cross_entropy", "accuracy")},
    }
    return own + other, ({FIRST: first, SECOND: second}, metrics)


def initialize(key: Key, batch: Batch, *, stack: Stack) -> tuple[Params, Params]:
    """(params, stats) with the entries "first" and "second"; M2's start from codes of the batch."""
    random.batch_size(batch)
    first_key, second_key, draw_key = jax.random.split(key, 3)
    x, _ = parts.examples(batch, stack.first)
    first, first_stats = parts.initialize(stack.first, first_key, x)
    first_stats = {**first_stats, **warm_up.start()}
    z = features(draw_key, {FIRST: first}, {FIRST: first_stats}, x, stack=stack)
    second, second_stats = semi_supervised.initialize(second_key, {"x": z}, **_second(stack))
    return {FIRST: first, SECOND: second}, {FIRST: first_stats, SECOND: second_stats}


def sample(key: Key, params: Params, stats: Params, label: Int[Array, " num"], *, stack: Stack) -> Array:
    """x ~ p(x|z₁), z₁ ~ p(z₁|y, z₂), z₂ ~ N(0, I) for given y; draw i depends on (key, i) and its y alone."""
    codes_key, data_key = jax.random.split(key)
    num = len(label)
    z = vae.sample(codes_key, params[SECOND], stats[SECOND], num, networks=stack.second, label=label)
    raw = parts.run_decoder(params[FIRST], stats[FIRST], z, stack.first)[0]
    return stack.first.likelihood.sample(random.example_keys(data_key, num), raw)


def model(
    stack: Stack,
    optimizer: optax.GradientTransformation,
    *,
    alpha: float = 0.1,
    labelled_share: float | None = None,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """M1+M2 over {"x", "label"}, labels −1 where unknown; `log_bound` is of log p(x), and samples have labels.

    Args:
        stack: the parts of both layers.
        optimizer: any optax optimizer.
        alpha: as in `semi_supervised.model`.
        labelled_share: as in `semi_supervised.model`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: the first layer has classes, the second fewer than two, or an argument is out of its range.
    """
    if stack.first.num_classes is not None:
        raise ValueError(f"`stack.first` must have no classes, got {stack.first.num_classes}.")
    semi_supervised.check(stack.second, alpha, labelled_share)

    def evaluate(key: Key, state: GradientState, batch: Batch) -> Metrics:
        label = semi_supervised.labels(batch, stack.second) if "label" in batch else None
        found = layers(key, state.params, state.stats, batch, stack=stack)
        return {**semi_supervised.report(found.codes, label), "negative_bound": -log_bound(found)}

    def bound(key: Key, state: GradientState, batch: Batch) -> Float[Array, " batch"]:
        return log_bound(layers(key, state.params, state.stats, batch, stack=stack))

    def draw(key: Key, state: GradientState, num: int) -> Batch:
        label = semi_supervised.draw_labels(key, num, stack.second.num_classes or 0)
        return {"x": sample(key, state.params, state.stats, label, stack=stack), "label": label}

    init = functools.partial(initialize, stack=stack)
    weights = {"alpha": alpha, "labelled_share": labelled_share, "axis_name": axis_name}
    taught = functools.partial(loss, stack=stack, **weights)
    return gradient(init, taught, optimizer, evaluate=evaluate, sample=draw, log_bound=bound, axis_name=axis_name)


def _second(stack: Stack) -> dict[str, Any]:
    return {"networks": stack.second, "classifier": stack.classifier}
