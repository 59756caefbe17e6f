"""Order-agnostic (deep) NADE: one net, every conditional p(x_k | any subset), every order of the variables.

    h¹ = φ(b¹ + Σ_{j∈m} W_j[x_j] + V_j),      h^{l+1} = φ(b^{l+1} + W^{l+1} h^l),      logits_k = c_k + U_k · h^L

m is what is known, and enters beside x ⊙ m with weights V of its own. Along an order, the first layer's pre-activation
grows by one term per variable: it is the cache; the later layers are computed anew for each variable. Likelihood,
ensembles over orders, in-painting of any subset and the model are `any_order`'s.
Uria, Murray, Larochelle: A Deep and Tractable Density Estimator, 2014; with Côté and Gregor: Neural Autoregressive
Distribution Estimation, 2016.

Differs from the papers: no layer-wise pre-training; output biases start at the data's log-odds, hidden weights at He's
scale; probabilities are not squeezed into [5e-5, 1 − 5e-5]; levels above 2 enter one-hot and leave as a softmax.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Num

from jgen import _checks, linen
from jgen._types import Key, Params
from jgen.autoregressive import any_order
from jgen.math import discrete

BLOCK = 28


class OrderAgnosticNADE(nn.Module):
    """Logits of every variable given the known ones, (batch, D, width).

    Attributes:
        hidden_sizes: units per layer.
        levels: values of x; width is 1 for two levels (the logit of x = 1), else `levels`.
        activation: φ, after each hidden layer.
    """

    hidden_sizes: Sequence[int] = (500, 500)
    levels: int = 2
    activation: Any = nn.relu

    @nn.compact
    def __call__(
        self, x: Num[Array, "batch dims"], mask: Bool[Array, "batch dims"]
    ) -> Float[Array, "batch dims width"]:
        """One pass; x counts only where `mask` is True."""
        h = inputs(x, mask, self.levels).reshape(x.shape[0], -1)
        for i, size in enumerate(self.hidden_sizes):
            h = self.activation(nn.Dense(size, kernel_init=nn.initializers.he_normal(), name=f"hidden_{i}")(h))
        width = discrete.width(self.levels)
        last = nn.Dense(x.shape[1] * width, kernel_init=nn.initializers.normal(0.01), name="output")
        return last(h).reshape(*x.shape, width)


def inputs(x: Num[Array, "*shape"], mask: Bool[Array, "*shape"], levels: int) -> Float[Array, "*shape channels"]:
    """(x ⊙ m, m) of each variable: zeros where it is missing."""
    known = mask[..., None].astype(jnp.float32)
    return jnp.concatenate([jnp.where(mask[..., None], discrete.encode(x, levels), 0.0), known], axis=-1)


def network(
    shape: tuple[int, ...], levels: int = 2, *, hidden_sizes: Sequence[int] = (500, 500), activation: Any = nn.relu
) -> any_order.Network:
    """The network for `any_order.model`.

    Args:
        shape: of one example, in any number of axes.
        levels: x are whole numbers in 0..levels-1.
        hidden_sizes: units per layer, one layer at least.
        activation: after each hidden layer.

    Raises:
        ValueError: `levels` is below 2, there is no hidden layer, or a size is below 1.
    """
    _checks.at_least("levels", levels, 2)
    if not hidden_sizes or min(hidden_sizes) < 1:
        raise ValueError(f"`hidden_sizes` must be one or more sizes of at least 1, got {tuple(hidden_sizes)}.")
    module = OrderAgnosticNADE(tuple(hidden_sizes), levels, activation)

    def init(key: Key, x: Any) -> Params:
        rows = x.reshape(x.shape[0], -1)
        params, _ = linen.init(module, key, rows, jnp.zeros(rows.shape, bool))
        return {**params, "output": {**params["output"], "bias": discrete.log_odds(rows, levels).ravel()}}

    def logits(params: Params, x: Any, mask: Any) -> Any:
        rows = linen.apply(module, params, {}, x.reshape(x.shape[0], -1), mask.reshape(x.shape[0], -1))
        return rows.reshape(*x.shape, -1)

    def start(params: Params, x: Any, mask: Any) -> Any:
        first = params["hidden_0"]
        return inputs(x, mask, levels).ravel() @ first["kernel"] + first["bias"]

    def push(params: Params, cache: Any, d: Any, value: Any) -> Any:
        units = params["hidden_0"]["kernel"].reshape(-1, discrete.width(levels) + 1, cache.shape[0])[d]
        return cache + inputs(value, jnp.array(True), levels) @ units

    def at(params: Params, cache: Any, d: Any) -> Any:
        return _conditional(module, params, cache, d)

    return any_order.Network(tuple(shape), levels, init, logits, start, push, at, BLOCK)


def _conditional(module: OrderAgnosticNADE, params: Params, cache: Any, d: Any) -> Any:
    """The logits of x_d alone from the first layer's pre-activation: one column of the output layer."""
    h, width = module.activation(cache), discrete.width(module.levels)
    for i in range(1, len(module.hidden_sizes)):
        layer = params[f"hidden_{i}"]
        h = module.activation(h @ layer["kernel"] + layer["bias"])
    columns = jax.lax.dynamic_slice_in_dim(params["output"]["kernel"], d * width, width, axis=1)
    return h @ columns + jax.lax.dynamic_slice_in_dim(params["output"]["bias"], d * width, width)
