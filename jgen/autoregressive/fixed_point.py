"""Fixed-point (Jacobi) sampling: every position at once, again and again, from the same noise.

    x⁰ = 0,        x^{n+1} = f(x^n),        f_d(x) = draw(logits_d(x_{<d}), g_d)

Position d is right after d sweeps at the latest, by induction over the order; so the fixed point is unique, is the
sample that drawing one position after another gives from the same noise g, and is there after at most D sweeps. A sweep
costs a whole pass: it pays where passes run in parallel and small sequential kernels do not.
Song, Meng, Liao, Ermon: Accelerating Feedforward Computation via Parallel Nonlinear Equation Solving, 2021.
Differs from the paper: nothing.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, Num


def jacobi(
    sweep: Callable[[Num[Array, "num *shape"]], Num[Array, "num *shape"]], start: Num[Array, "num *shape"]
) -> tuple[Num[Array, "num *shape"], Int[Array, " num"]]:
    """The fixed point of `sweep` from `start`, and how many sweeps each example needed to reach it.

    Args:
        sweep: x -> all positions drawn anew given the earlier ones of x, from noise that does not change.
        start: any values of the right shape and dtype.

    Returns:
        (x, sweeps): the last sweep, which only confirms that nothing changes any more, is not counted.
    """

    def changes(carry: Any) -> Any:
        _, done, n, _ = carry
        return ~done & (n <= start[0].size)

    def body(carry: Any) -> Any:
        x, _, n, sweeps = carry
        new = sweep(x)
        moved = jnp.any((new != x).reshape(x.shape[0], -1), axis=1)
        return new, ~jnp.any(moved), n + 1, jnp.where(moved, n + 1, sweeps)

    first = (start, jnp.array(False), jnp.array(0), jnp.zeros(start.shape[0], jnp.int32))
    x, _, _, sweeps = jax.lax.while_loop(changes, body, first)
    return x, sweeps
