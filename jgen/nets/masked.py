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
from jaxtyping import Array, Bool, Float, Int, Num

from jgen import _checks
from jgen.math import discrete

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
    seed: int, num_inputs: int, hidden_sizes: Sequence[int], *, num_masks: int = 1, order: str = "random",
    shared: bool = False,
) -> Degrees:  # fmt: skip
    """Draws orders and connectivities; component c is a function of (seed, c) alone.

    A unit's degree is uniform on {lowest degree of the layer before, …, D − 1}, so that no unit is cut off.

    Args:
        seed: of orders and connectivities.
        num_inputs: D.
        hidden_sizes: units per layer.
        num_masks: C, components.
        order: "random" or "natural".
        shared: gives every layer the degrees of the first, as residual layers need.

    Raises:
        ValueError: `num_masks`, `num_inputs` or a hidden size is not positive, `order` is unknown, or the layers are to
            share degrees and differ in size.
    """
    _checks.at_least("num_masks", num_masks, 1)
    _checks.at_least("num_inputs", num_inputs, 1)
    _checks.one_of("order", order, ORDERS)
    if shared and len(set(hidden_sizes)) > 1:
        raise ValueError(f"`hidden_sizes` must be equal where layers share degrees, got {tuple(hidden_sizes)}.")
    rows: list[list[Any]] = []
    for c in range(num_masks):
        rng, lowest = np.random.default_rng((seed, c)), 1
        ranks = rng.permutation(num_inputs) if order == "random" else np.arange(num_inputs)
        row = [ranks + 1]
        for size in hidden_sizes[:1] if shared else hidden_sizes:
            row.append(rng.integers(lowest, max(num_inputs - 1, lowest), size=size, endpoint=True))
            lowest = int(row[-1].min())
        rows.append(row + row[1:] * (len(hidden_sizes) - 1) if shared else row)
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


class MADE(nn.Module):
    """Logits of every conditional, (batch, D, width), from one masked pass.

    Attributes:
        hidden_sizes: units per layer; none gives a fully visible sigmoid belief net.
        levels: values of x; width is 1 for two levels (the logit of x = 1), else `levels`.
        direct: adds masked weights from the inputs straight to the outputs.
        activation: between the layers.
        residual: every hidden layer but the first adds to the one before, h ← activation(h + W h + b), unit by unit
            where degrees allow: everywhere with `degrees(shared=True)`. Nash and Durkan, 2019, call it ResMADE.
    """

    hidden_sizes: Sequence[int] = (500,)
    levels: int = 2
    direct: bool = True
    activation: Any = nn.relu
    residual: bool = False

    @nn.compact
    def __call__(self, x: Num[Array, "batch inputs"], degrees: Degrees) -> Float[Array, "batch inputs width"]:
        """One component's logits."""
        width, small = discrete.width(self.levels), nn.initializers.normal(0.01)
        inputs = discrete.encode(x, self.levels).reshape(x.shape[0], -1)
        ends = jnp.repeat(degrees.inputs, width)
        h, before = inputs, ends
        for i, (size, after) in enumerate(zip(self.hidden_sizes, degrees.hidden, strict=True)):
            adds = self.residual and i > 0
            layer = MaskedDense(size, kernel_init=small if adds else nn.initializers.he_normal(), name=f"hidden_{i}")
            new = layer(h, degree_mask(before, after))
            # A unit adds only what it may see; with shared degrees that is every unit of the layer before.
            h, before = self.activation(jnp.where(before <= after, h, 0.0) + new if adds else new), after
        last = MaskedDense(ends.shape[0], kernel_init=small, name="output")
        logits = last(h, degree_mask(before, ends, strict=True))
        if self.direct and self.hidden_sizes:
            straight = MaskedDense(ends.shape[0], use_bias=False, kernel_init=small, name="direct")
            logits = logits + straight(inputs, degree_mask(ends, ends, strict=True))
        return logits.reshape(*x.shape, width)
