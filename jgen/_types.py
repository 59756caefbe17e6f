"""The handful of types in which every jgen signature is written."""

from collections.abc import Mapping
from typing import Any, TypeAlias

from jaxtyping import Array, Float, PRNGKeyArray, PyTree

Key: TypeAlias = PRNGKeyArray
Scalar: TypeAlias = Float[Array, ""]
Params: TypeAlias = PyTree[Any]  # a pytree of arrays
Batch: TypeAlias = Mapping[str, Any]  # arrays that share their leading axis
Metrics: TypeAlias = dict[str, Any]  # scalars, or one value per example
