"""Sequences of frames, {"x": (n, T, *shape), "mask": (n, T)}, under a likelihood of one frame.

    log p(x | raw) = Σ_t mask_t log p(x_t | raw_t),      mask: ones on the frames that count, then zeros on the padding

A likelihood (`jgen.math.likelihoods`) takes the frames of all sequences as one batch. Values are in nats.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Num

from jgen import _checks, random
from jgen._types import Batch, Keys
from jgen.math.likelihoods import Likelihood


def examples(batch: Batch, likelihood: Likelihood) -> tuple[Num[Array, "batch time ..."], Float[Array, "batch time"]]:
    """(x, mask) of a batch, checked; a batch without a mask counts every frame.

    Raises:
        ValueError: `batch` is none, x has no time, or values outside the likelihood's support, or the mask another
            shape, no one at its begin, or ones after a zero.
    """
    random.batch_size(batch)
    x = batch["x"]
    if np.ndim(x) < 3 or not np.shape(x)[1]:
        raise ValueError(f"`x` must have shape (batch, time, ...), time at least 1, got {np.shape(x)}.")
    likelihood.check(x)
    mask = batch.get("mask", jnp.ones(np.shape(x)[:2]))
    if np.shape(mask) != np.shape(x)[:2]:
        raise ValueError(f"`mask` must have shape {np.shape(x)[:2]}, got {np.shape(mask)}.")
    _checks.integers("mask", mask, 2)
    if not isinstance(mask, Tracer):
        ones = np.asarray(mask)
        if not (np.all(ones[:, 0] == 1) and np.all(ones[:, 1:] <= ones[:, :-1])):
            raise ValueError("`mask` must be ones, then zeros, in each row, got another.")
    return jnp.asarray(x), jnp.asarray(mask, jnp.float32)


def features(likelihood: Likelihood, x: Num[Array, "batch time ..."]) -> Float[Array, "batch time inputs"]:
    """What a network over time reads: the features of each frame in a row."""
    found = likelihood.features(x)
    return found.reshape(*found.shape[:2], -1)


def offset(
    likelihood: Likelihood, x: Num[Array, "batch time ..."], mask: Float[Array, "batch time"]
) -> Float[Array, "..."]:
    """`likelihood.offset` of the frames that count; a padded frame is taken for one that its sequence begins with."""
    length = jnp.sum(mask, axis=1).astype(jnp.int32)
    index = jnp.arange(x.shape[1])[None] % length[:, None]
    frames = jnp.take_along_axis(x, index.reshape(*index.shape, *[1] * (x.ndim - 2)), axis=1)
    return likelihood.offset(frames.reshape(-1, *x.shape[2:]))


def log_prob(
    likelihood: Likelihood, raw: Float[Array, "batch time ..."], x: Num[Array, "batch time ..."]
) -> Float[Array, "batch time"]:
    """log p(x_t | raw_t) of every frame."""
    return likelihood.log_prob(_flat(raw), _flat(x)).reshape(x.shape[:2])


def mean(likelihood: Likelihood, raw: Float[Array, "batch time ..."]) -> Float[Array, "batch time ..."]:
    """E[x_t | raw_t] of every frame."""
    found = likelihood.mean(_flat(raw))
    return found.reshape(*raw.shape[:2], *found.shape[1:])


def total(each: Float[Array, "batch time ..."], mask: Float[Array, "batch time"]) -> Float[Array, "batch ..."]:
    """Σ_t over the frames that count; 0 · NaN of padding is not let through."""
    counts = mask.reshape(*mask.shape, *[1] * (each.ndim - 2)) > 0
    return jnp.sum(jnp.where(counts, each, 0.0), axis=1)


def keys_at(keys: Keys, t: Any) -> Keys:
    """The keys of frame t, (batch,), or of frames t (time,), (batch, time), from one key per example."""
    at = jax.vmap(jax.random.fold_in, (0, None))
    return at(keys, t) if jnp.ndim(t) == 0 else jax.vmap(at, (None, 0), 1)(keys, t)


def _flat(x: Any) -> Any:
    return x.reshape(-1, *x.shape[2:])
