"""From logits to the next token: what language models share when they draw a text.

    x = argmax_v (logits_v / temperature + g_v),  g_v ~ Gumbel, among the tokens that top-k and nucleus sampling keep

Noise is an argument, so that samplers that compute the same logits in other ways give the same texts. Temperature 0 is
a branch of its own: the most probable token, no noise. At temperature ∞ all kept tokens are equally probable, exactly.
Holtzman et al.: The Curious Case of Neural Text Degeneration, 2020 (nucleus sampling). None of this enters a
log-probability. Differs from the paper: nothing.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jgen import _checks
from jgen._types import Keys


@dataclasses.dataclass(frozen=True)
class Decoding:
    """How tokens are drawn.

    Attributes:
        temperature: divides the logits; 0 takes the most probable token, infinity draws uniformly.
        top_k: only the k most probable tokens can be drawn; of equally probable ones the first.
        top_p: only the fewest most probable tokens whose probabilities, at this temperature and after `top_k`, add up
            to at least `top_p`.
        eos: a row repeats it once it was drawn.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    eos: int | None = None

    def __post_init__(self) -> None:
        _checks.at_least("temperature", self.temperature, 0.0)
        if self.top_k is not None:
            _checks.at_least("top_k", self.top_k, 1)
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"`top_p` must be in (0, 1], got {self.top_p}.")


def kept(logits: Float[Array, "*batch vocabulary"], how: Decoding) -> Bool[Array, "*batch vocabulary"]:
    """Which tokens top-k and nucleus sampling leave; the most probable one is always among them."""
    order = jnp.argsort(-logits, axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1)
    size = logits.shape[-1] if how.top_k is None else how.top_k
    allowed = rank < size
    if how.top_p is None or how.top_p == 1.0:
        return allowed
    p = jax.nn.softmax(jnp.where(allowed, logits / how.temperature, -jnp.inf), axis=-1)
    ordered = jnp.take_along_axis(p, order, axis=-1)
    before = jnp.take_along_axis(jnp.cumsum(ordered, axis=-1) - ordered, rank, axis=-1)
    return allowed & ((before < how.top_p) | (rank == 0))


def next_token(
    logits: Float[Array, "batch vocabulary"],
    noise: Float[Array, "batch vocabulary"],
    ended: Bool[Array, " batch"],
    how: Decoding,
) -> tuple[Int[Array, " batch"], Bool[Array, " batch"]]:
    """The next token of each row, and whether the row has ended with it.

    Args:
        noise: standard Gumbel, as `token_noise` gives it.
        ended: rows that drew EOS before: they get it again.
    """
    if how.temperature == 0:
        token = jnp.argmax(logits, axis=-1)
    else:
        scores = logits / how.temperature + noise
        if how.top_k is not None or how.top_p is not None:
            scores = jnp.where(kept(logits, how), scores, -jnp.inf)
        token = jnp.argmax(scores, axis=-1)
    token = token.astype(jnp.int32)
    if how.eos is None:
        return token, ended
    token = jnp.where(ended, how.eos, token)
    return token, ended | (token == how.eos)


def token_noise(keys: Keys, t: Any, vocabulary_size: int) -> Float[Array, "batch vocabulary"]:
    """Gumbel noise of the t-th drawn token; row i draws it from (keys[i], t)."""
    return jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, t), (vocabulary_size,)))(keys)
