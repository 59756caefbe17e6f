"""µ-law companding: sound as few levels, fine near zero and coarse far from it (ITU-T G.711; µ = levels − 1).

y = sign(x) ln(1 + µ|x|) / ln(1 + µ),    x in [−1, 1],      levels are equal bins of y
"""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from jgen import _checks


def compress(x: ArrayLike, levels: int = 256) -> Float[Array, "*shape"]:
    """y in [−1, 1]."""
    x = jnp.asarray(x, jnp.float32)
    return jnp.sign(x) * jnp.log1p((levels - 1) * jnp.abs(x)) / np.log(levels)


def encode(x: ArrayLike, levels: int = 256) -> Int[Array, "*shape"]:
    """The bin of y of values in [−1, 1], 0..levels−1.

    Raises:
        ValueError: `levels` is below 2, or x is out of [−1, 1].
    """
    _checks.at_least("levels", levels, 2)
    _checks.within("x", x, -1.0, 1.0)
    return jnp.clip(jnp.floor((compress(x, levels) + 1) * (levels / 2)), 0, levels - 1).astype(jnp.int32)


def decode(tokens: ArrayLike, levels: int = 256) -> Float[Array, "*shape"]:
    """The values x at the centres of the bins: at most half a bin of y away from what was encoded.

    Raises:
        ValueError: `levels` is below 2, or a token is none of 0..levels−1.
    """
    _checks.at_least("levels", levels, 2)
    _checks.integers("tokens", tokens, levels)
    y = (jnp.asarray(tokens, jnp.float32) + 0.5) * (2 / levels) - 1
    return jnp.sign(y) * jnp.expm1(jnp.abs(y) * np.log(levels)) / (levels - 1)
