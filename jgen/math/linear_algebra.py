"""Linear algebra that several families use: ordered eigenvectors with a fixed sign, angles between subspaces."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def principal_axes(
    covariance: Float[Array, "dim dim"],
) -> tuple[Float[Array, "dim dim"], Float[Array, " dim"]]:
    """(U, λ) of a covariance U diag(λ) Uᵀ: axes as columns, the largest variance first, none below 0.

    An axis has the sign that makes its entry of largest size positive, so that equal data give equal axes.
    """
    variances, axes = jnp.linalg.eigh(covariance)
    axes, variances = axes[:, ::-1], jnp.maximum(variances[::-1], 0.0)
    return with_sign(axes), variances


def with_sign(axes: Float[Array, "dim num"]) -> Float[Array, "dim num"]:
    """The columns, each multiplied by ±1 so that its entry of largest size is positive."""
    largest = jnp.take_along_axis(axes, jnp.argmax(jnp.abs(axes), axis=0)[None], axis=0)
    return axes * jnp.where(largest < 0, -1.0, 1.0)


def principal_angles(a: Float[Array, "dim num_a"], b: Float[Array, "dim num_b"]) -> Float[Array, " angles"]:
    """The principal angles between the spans of the columns of `a` and of `b`, in radians, the largest first.

    There are as many as the smaller span has dimensions. Small angles come from sines, large ones from cosines: either
    alone loses half of the digits at its flat end (Björck and Golub, Numerical Methods for Computing Angles Between
    Linear Subspaces, 1973).
    """
    a, b = jnp.linalg.qr(a)[0], jnp.linalg.qr(b)[0]
    if a.shape[1] < b.shape[1]:
        a, b = b, a
    across = a.T @ b
    cosines = jnp.clip(jnp.linalg.svd(across, compute_uv=False)[::-1], 0.0, 1.0)
    sines = jnp.clip(jnp.linalg.svd(b - a @ across, compute_uv=False), 0.0, 1.0)
    return jnp.where(sines**2 < 0.5, jnp.arcsin(sines), jnp.arccos(cosines))
