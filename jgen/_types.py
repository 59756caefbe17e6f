"""The handful of types in which every jgen signature is written."""

from typing import Any, TypeAlias

import jaxtyping
from jaxtyping import Array, Float, PyTree

Key: TypeAlias = jaxtyping.Key[Array, ""]  # one typed key, jax.random.key
Keys: TypeAlias = jaxtyping.Key[Array, "..."]  # an array of them, such as one per example
Scalar: TypeAlias = Float[Array, ""]
Params: TypeAlias = PyTree[Any]  # a pytree of arrays
Batch: TypeAlias = Any  # a dict of arrays that share their leading axis; `random.batch_size` refuses others
Metrics: TypeAlias = dict[str, Any]  # scalars, or one value per example
