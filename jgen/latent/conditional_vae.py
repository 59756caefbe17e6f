"""Conditional VAE: everything given y, so that z is left with what y does not say.

    log p(x|y) ≥ E_{q(z|x,y)} log p(x|y, z) − KL(q(z|x, y) ‖ p(z)),    p(z) does not depend on y

With a uniform p(y) it is a model of pairs, p(x, y, z) = p(y) p(z) p(x|y, z): classes are read off by Bayes' rule, and
content is exchanged by decoding the z of one example with the y of another.

Papers: Kingma, Rezende, Mohamed and Welling, "Semi-Supervised Learning with Deep Generative Models", 2014, eq. 6;
Sohn, Lee and Yan, "Learning Structured Output Representation using Deep Conditional Generative Models", 2015.
Differs from the papers: p(y) is uniform and known; the prior of z does not see y (as in the first).
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from jgen import _checks, random
from jgen._types import Batch, Key, Params
from jgen.latent import representation, vae
from jgen.latent.networks import Networks
from jgen.learners import GradientState
from jgen.model import Model


def every_class(batch: Batch, num_classes: int) -> Batch:
    """{"x", "label", "index"}: each example once with every label, (batch·classes,), its labels next to each other.

    An example with a label draws its noise from its own key, which is that of (example, label), whatever the batch is.
    """
    size = random.batch_size(batch)
    index = jnp.asarray(batch.get(random.INDEX, jnp.arange(size)))
    label = jnp.tile(jnp.arange(num_classes), size)
    own = jnp.repeat(index, num_classes) * num_classes + label
    return {"x": jnp.repeat(jnp.asarray(batch["x"]), num_classes, axis=0), "label": label, random.INDEX: own}


def class_log_bounds(
    key: Key, params: Params, stats: Params, batch: Batch, *, networks: Networks, num_samples: int = 1
) -> Float[Array, "batch classes"]:
    """L_K(x, y) ≤ log p(x, y) of every y, nats: the importance-weighted bound on log p(x|y), and log p(y).

    Raises:
        ValueError: `networks` has no classes, or `num_samples` is below 1.
    """
    num = _num_classes(networks)
    rows = every_class(batch, num)
    bounds = vae.iwae_bound(key, params, stats, rows, networks=networks, num_samples=num_samples)
    return jnp.reshape(bounds, (-1, num)) - np.log(num)


def log_evidence(log_joint: Float[Array, "batch classes"]) -> Float[Array, " batch"]:
    """log Σ_y p(x, y), nats; a lower bound on log p(x) where the terms are bounds as of `class_log_bounds`."""
    return jax.nn.logsumexp(log_joint, axis=1)


def classify(log_joint: Float[Array, "batch classes"]) -> Int[Array, " batch"]:
    """argmax_y p(y|x) by Bayes' rule, with bounds in the place of log p(x, y)."""
    return jnp.argmax(log_joint, axis=1)


def transfer(params: Params, stats: Params, x: Any, label: Any, new_label: Any, *, networks: Networks) -> Array:
    """E[x'|z, y'] with the z of x, read under its own y, and another y': x's style with other content.

    Args:
        params: the model's.
        stats: the model's.
        x: (batch, *shape).
        label: (batch,), what x is.
        new_label: (batch,), what it is to become.
        networks: with classes.
    """
    z = representation.code(params, stats, x, networks=networks, label=jnp.asarray(label))
    return vae.decode(params, stats, z, networks=networks, label=jnp.asarray(new_label))


def style_content(
    params: Params, stats: Params, z: Float[Array, "styles latent"], *, networks: Networks
) -> Float[Array, "classes styles ..."]:
    """E[x|z, y] of every y with every z: rows share y, columns share z."""
    num, styles = _num_classes(networks), len(z)
    label = jnp.repeat(jnp.arange(num), styles)
    means = vae.decode(params, stats, jnp.tile(z, (num, 1)), networks=networks, label=label)
    return jnp.reshape(means, (num, styles, *means.shape[1:]))


def model(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    *,
    beta: float = 1.0,
    warm_up_steps: int = 0,
    num_bound_samples: int = 1,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """The conditional VAE over {"x", "label"}; `log_bound` is of log p(x, y), and samples have uniform labels.

    Args:
        networks: with `num_classes`.
        optimizer: any optax optimizer.
        beta: the weight of the rate in the objective.
        warm_up_steps: the weight rises linearly from 0 to β over these updates.
        num_bound_samples: K of `log_bound`.
        axis_name: as in `learners.gradient`.

    Raises:
        ValueError: `networks` has no classes, or an argument is out of its range.
    """
    _num_classes(networks)
    settings = {"beta": beta, "warm_up_steps": warm_up_steps, "num_bound_samples": num_bound_samples}
    return vae.model(networks, optimizer, **settings, axis_name=axis_name)


def _num_classes(networks: Networks) -> int:
    if networks.num_classes is None:
        raise ValueError("`networks` must have `num_classes`, got None.")
    _checks.at_least("num_classes", networks.num_classes, 2)
    return networks.num_classes
