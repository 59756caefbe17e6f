"""Pytrees as vectors: the few operations that samplers need of positions of any structure."""

from typing import Any

import jax
import jax.numpy as jnp

from jgen._types import Scalar


def like(value: Any, tree: Any) -> Any:
    """`value` if it is built like `tree`, else a tree that has it at every leaf."""
    structure = jax.tree.structure(tree)
    if jax.tree.structure(value) == structure:
        return value
    return jax.tree.unflatten(structure, [value] * structure.num_leaves)


def inner(a: Any, b: Any) -> Scalar:
    """Σ a·b over all elements of all leaves."""
    terms = [jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    return jnp.asarray(sum(terms[1:], start=terms[0]))


def select(chosen: Any, new: Any, old: Any) -> Any:
    """`new` where the scalar `chosen` is true, else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(chosen, a, b), new, old)
