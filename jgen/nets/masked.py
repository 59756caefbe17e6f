"""Dense layers whose connections follow from degrees, so that each output depends on earlier inputs only.

An input, unit or output of degree m may depend on inputs of degree ≤ m (hidden units) or < m (outputs). With inputs and
outputs of degrees 1..D that makes output d a function of inputs 1..d−1 alone.
Germain, Gregor, Murray, Larochelle: MADE: Masked Autoencoder for Distribution Estimation, 2015, eqs. 12 and 13.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jgen import _checks

ORDERS = ("random", "natural")


class Degrees(NamedTuple):
    """Who may depend on whom, for C components (a NumPy constant; without the axis C for one component).

    Attributes:
        inputs: (C, D), 1 + the rank of each input in the order: a permutation of 1..D.
        hidden: one (C, units) per layer; a unit of degree m sees the first m inputs of the order.
    """

    inputs: Any
    hidden: tuple[Any, ...]


def degrees(
    seed: int, num_inputs: int, hidden_sizes: Sequence[int], *, num_masks: int = 1, order: str = "random"
) -> Degrees:
    """Draws orders and connectivities; component c is a function of (seed, c) alone.

    A unit's degree is uniform on {lowest degree of the layer before, …, D − 1}, so that no unit is cut off.

    Raises:
        ValueError: `num_masks`, `num_inputs` or a hidden size is not positive, or `order` is unknown.
    """
    _checks.at_least("num_masks", num_masks, 1)
    _checks.at_least("num_inputs", num_inputs, 1)
    _checks.one_of("order", order, ORDERS)
    rows: list[list[Any]] = []
    for c in range(num_masks):
        rng, lowest = np.random.default_rng((seed, c)), 1
        ranks = rng.permutation(num_inputs) if order == "random" else np.arange(num_inputs)
        row = [ranks + 1]
        for size in hidden_sizes:
            row.append(rng.integers(lowest, max(num_inputs - 1, lowest), size=size, endpoint=True))
            lowest = int(row[-1].min())
        rows.append(row)
    columns = [np.stack(column).astype(np.int32) for column in zip(*rows, strict=True)]
    return Degrees(columns[0], tuple(columns[1:]))


def component(degrees: Degrees, index: Any) -> Degrees:
    """The degrees of one component; `index` may be traced."""
    return jax.tree.map(lambda rows: jnp.asarray(rows)[index], degrees)


def degree_mask(
    before: Int[Array, " inputs"], after: Int[Array, " outputs"], *, strict: bool = False
) -> Bool[Array, "inputs outputs"]:
    """Which connections are allowed: before ≤ after, or before < after where `strict` (into the outputs)."""
    before, after = before[:, None], after[None, :]
    return before < after if strict else before <= after


class Tables(NamedTuple):
    """When a sampler computes what, per component.

    Attributes:
        position: (C, D), the input that is drawn in step r.
        units: per layer (C, D, widest), the hidden units of degree r, filled up with an index past the last unit.
    """

    position: Any
    units: tuple[Any, ...]


def tables(degrees: Degrees) -> Tables:
    """Groups the units of `degrees` by degree: unit k is needed first in step m(k), and never changes after it."""

    def group(rows: Any) -> Any:
        num, size = rows.shape
        steps = degrees.inputs.shape[1]
        widest = max(np.bincount(row, minlength=1).max() for row in rows)
        out = np.full((num, steps, widest), size, np.int32)
        for c, row in enumerate(rows):
            for r in range(steps):
                ids = np.flatnonzero(row == r)
                out[c, r, : len(ids)] = ids
        return out

    return Tables(np.argsort(degrees.inputs, axis=1).astype(np.int32), tuple(group(rows) for rows in degrees.hidden))


class MaskedDense(nn.Module):
    """y = x (W ⊙ mask) + b. The mask is an argument: it may change from call to call, and its gradient is masked too.

    Attributes:
        features: the number of outputs.
        use_bias: adds b.
        kernel_init: how W starts.
        bias_init: how b starts.
    """

    features: int
    use_bias: bool = True
    kernel_init: Any = nn.initializers.lecun_normal()
    bias_init: Any = nn.initializers.zeros_init()

    @nn.compact
    def __call__(
        self, x: Float[Array, "*batch inputs"], mask: Bool[Array, "inputs outputs"]
    ) -> Float[Array, "*batch outputs"]:
        """The masked product of `x`."""
        if mask.shape != (x.shape[-1], self.features):
            raise ValueError(f"`mask` must have shape {(x.shape[-1], self.features)}, got {mask.shape}.")
        kernel = self.param("kernel", self.kernel_init, mask.shape)
        out = x @ jnp.where(mask, kernel, 0.0)
        if not self.use_bias:
            return out
        bias = self.param("bias", self.bias_init, (self.features,))
        return out + jnp.broadcast_to(bias, out.shape)
