"""MADE: one feed-forward net whose masked weights make every output a conditional of an autoregressive factorization.

    log p_c(x) = Σ_d log p(x_d | x_j with rank_c(j) < rank_c(d)),      log p(x) = log (1/C) Σ_c p_c(x)

Component c has its own order of the inputs *and* its own connectivity; all C share the weights, and training visits one
at random in each step. Each component is normalized exactly, hence so is their mixture.
Germain, Gregor, Murray, Larochelle: MADE: Masked Autoencoder for Distribution Estimation, 2015.

Differs from the paper: output biases start at the data's log-odds; the components are drawn at random by the update's
key instead of in a cycle; levels above 2 enter one-hot and leave as a softmax; the natural order and residual layers
(Nash and Durkan, "Autoregressive energy machines", 2019) are available.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Num

from jgen import _checks, linen, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.autoregressive.completion import prefix
from jgen.autoregressive.fixed_order import METHODS, Levels
from jgen.autoregressive.fixed_point import jacobi
from jgen.learners import GradientState, gradient
from jgen.math import discrete
from jgen.model import Model
from jgen.nets.masked import MADE, ORDERS, Degrees, Tables, component, degrees, tables


def component_log_prob(
    module: MADE, params: Params, degrees: Degrees, x: Num[Array, "batch inputs"]
) -> Float[Array, "masks batch inputs"]:
    """log p_c(x_d | earlier x) of every component, in nats; one component at a time, so memory does not grow with C."""

    def one(degrees: Degrees) -> Float[Array, "batch inputs"]:
        return discrete.log_prob(linen.apply(module, params, {}, x, degrees), x)

    return jax.lax.map(one, jax.tree.map(jnp.asarray, degrees))


def log_prob(module: MADE, params: Params, degrees: Degrees, x: Num[Array, "batch inputs"]) -> Float[Array, " batch"]:
    """log p(x) = log-mean-exp over the components, exact, in nats."""
    each = jnp.sum(component_log_prob(module, params, degrees, x), axis=-1)
    return jax.nn.logsumexp(each, axis=0) - jnp.log(each.shape[0])


def sample(
    module: MADE,
    key: Key,
    params: Params,
    degrees: Degrees,
    num: int,
    *,
    known: Num[Array, "num inputs"] | None = None,
    mask: Any = None,
    method: str = "cached",
) -> Num[Array, "num inputs"]:
    """Exact draws; all methods give the same vectors from the same key, up to rounding of the logits.

    Example i draws its component and one noise per input from (key, i).

    Args:
        known: completes these rows instead of drawing whole ones: a draw from p(missing | known).
        mask: (D,) concrete booleans, True where an input is known; needed with `known`.
        method: "cached" costs one forward pass in all: in step r only the units of degree r are computed, then one
            output. Masks are not applied: what a unit must not see is still zero when it is computed. "naive" does a
            full pass of every component per input, "fixed_point" as many as it takes until nothing changes.

    Raises:
        ValueError: `method` is unknown, or a known input comes after a missing one in the order of some component.
    """
    _checks.one_of("method", method, METHODS)
    if method == "fixed_point":
        return fixed_point(module, key, params, degrees, num, known=known, mask=mask)[0]
    start = _start(module, key, params, degrees, num, known, mask)
    return _cached(module, params, start) if method == "cached" else _naive(module, params, degrees, start)


def fixed_point(
    module: MADE, key: Key, params: Params, degrees: Degrees, num: int, *, known: Any = None, mask: Any = None
) -> tuple[Num[Array, "num inputs"], Int[Array, " num"]]:
    """The draws of `sample` by Jacobi sweeps over whole vectors, and the sweeps that each vector took."""
    start = _start(module, key, params, degrees, num, known, mask)
    return jacobi(functools.partial(_sweep, module, params, degrees, start), start.values)


class _Start(NamedTuple):
    """What the samplers share: when a unit is computed, and per example its component, noise and known values."""

    table: Tables
    component: Any
    noise: Any
    values: Any
    given: Any


def _start(module: MADE, key: Key, params: Params, degrees: Degrees, num: int, known: Any, mask: Any) -> _Start:
    table, (num_masks, num_inputs) = tables(degrees), degrees.inputs.shape
    values, given = prefix(known, mask, num, (num_inputs,), order=table.position)
    weights = jnp.zeros((num_masks, num))
    if given.any() and num_masks > 1:
        weights = jnp.sum(component_log_prob(module, params, degrees, values), axis=-1, where=given[None, None])

    def one(key: Key, weights: Any) -> tuple[Any, Any]:
        component_key, noise_key = jax.random.split(key)
        return jax.random.categorical(component_key, weights), discrete.noise(noise_key, (num_inputs,), module.levels)

    component, noise = jax.vmap(one, in_axes=(0, 1))(random.example_keys(key, num), weights)
    return _Start(table, component, noise, values.astype(Levels(module.levels).dtype), jnp.asarray(given))


def _sweep(module: MADE, params: Params, degrees: Degrees, start: _Start, x: Any) -> Any:
    """All inputs drawn anew given the earlier ones of `x`, each example's from its own component, one after another."""

    def visit(drawn: Any, now: Any) -> tuple[Any, None]:
        c, one = now
        new = discrete.draw(linen.apply(module, params, {}, x, one), start.noise).astype(x.dtype)
        return jnp.where((start.component == c)[:, None], new, drawn), None

    components = jax.tree.map(jnp.asarray, degrees)
    drawn = jax.lax.scan(visit, x, (jnp.arange(degrees.inputs.shape[0]), components))[0]
    return jnp.where(start.given[None], start.values, drawn)


def _naive(module: MADE, params: Params, degrees: Degrees, start: _Start) -> Any:
    """One full pass per input: the definition that the others are tested and timed against."""
    ranks = jnp.asarray(degrees.inputs)[start.component] - 1

    def body(r: Any, x: Any) -> Any:
        return jnp.where(ranks == r, _sweep(module, params, degrees, start, x), x)

    first = jnp.where(start.given[None], start.values, jnp.zeros_like(start.values))
    return jax.lax.fori_loop(0, ranks.shape[1], body, first)


def _cached(module: MADE, params: Params, start: _Start) -> Any:
    """Each unit once; examples of one and the same component share what they gather."""

    def one(c: Any, noise: Any, known: Any) -> Any:
        steps = jax.tree.map(lambda rows: jnp.asarray(rows)[c], start.table)
        return _draw(module, noise, params, steps, start.given, known)

    if start.table.position.shape[0] == 1:
        return jax.vmap(functools.partial(one, 0))(start.noise, start.values)
    return jax.vmap(one)(start.component, start.noise, start.values)


def _draw(module: MADE, noise: Any, params: Params, steps: Tables, given: Any, known: Any) -> Num[Array, " inputs"]:
    """One example from one component, one input per step."""
    width, num_inputs = discrete.width(module.levels), given.shape[0]
    layers = [params[f"hidden_{i}"] for i in range(len(steps.units))]
    output, bias = params["output"]["kernel"].T, params["output"]["bias"]
    direct = params["direct"]["kernel"].T if "direct" in params else None

    def body(r: Any, carry: Any) -> Any:
        x, inputs, hidden = carry
        h, new = inputs, []
        for i, (layer, units, old) in enumerate(zip(layers, steps.units, hidden, strict=True)):
            value = layer["kernel"].T.at[units[r]].get(mode="clip") @ h + layer["bias"][units[r]]
            value = module.activation(value + h[units[r]] if module.residual and i > 0 else value)
            h = old.at[units[r]].set(value, mode="drop")
            new.append(h)
        d = steps.position[r]
        ends = d * width + jnp.arange(width)
        logits = output[ends] @ h + bias[ends] + (0.0 if direct is None else direct[ends] @ inputs)
        value = jnp.where(given[d], known[d], discrete.draw(logits, noise[d]).astype(known.dtype))
        inputs = inputs.at[ends].set(discrete.encode(value, module.levels))
        return x.at[d].set(value), inputs, new

    hidden = [jnp.zeros(layer["bias"].shape) for layer in layers]
    start = (jnp.zeros(num_inputs, known.dtype), jnp.zeros(num_inputs * width), hidden)
    return jax.lax.fori_loop(0, num_inputs, body, start)[0]


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    /,
    *,
    train: bool,
    module: MADE,
    wiring: Callable[[int], Degrees],
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean −log p(x) in nats: of one component, which `key` chooses, in training; of the mixture otherwise.

    Args:
        wiring: (number of inputs) -> degrees.
    """
    x = _examples(batch, module.levels)
    components = wiring(x.shape[1])
    if not train:
        nll = -log_prob(module, params, components, x)
        return jnp.mean(nll), (stats, {"nll": nll})
    chosen = component(components, jax.random.randint(key, (), 0, components.inputs.shape[0]))
    logits = linen.apply(module, params, stats, x, chosen)
    value = -jnp.mean(jnp.sum(discrete.log_prob(logits, x), axis=-1))
    return value, (stats, {"nll": value})


def model(
    optimizer: optax.GradientTransformation,
    *,
    hidden_sizes: Sequence[int] = (500,),
    levels: int = 2,
    num_masks: int = 1,
    order: str = "random",
    direct: bool = True,
    residual: bool = False,
    mask_seed: int = 0,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """MADE over batches {"x": (batch, D)} of whole numbers in 0..levels-1, trained by maximum likelihood.

    Args:
        optimizer: any optax optimizer.
        hidden_sizes: units per hidden layer.
        levels: the number of values of x.
        num_masks: C, components (order and connectivity) in the mixture.
        order: "random" draws each component's order, "natural" takes the inputs as they come.
        direct: masked weights from the inputs straight to the outputs.
        residual: hidden layers after the first, all of one size, add to the one before.
        mask_seed: the seed of orders and connectivities.
        axis_name: the mapped axis over which gradients and metrics are averaged.

    Raises:
        ValueError: `levels` is below 2, `num_masks` below 1, `order` is unknown, or residual layers differ in size.
    """
    _checks.at_least("levels", levels, 2)
    _checks.at_least("num_masks", num_masks, 1)
    _checks.one_of("order", order, ORDERS)
    sizes = tuple(hidden_sizes)
    module = MADE(sizes, levels, direct, residual=residual)
    wiring = functools.partial(
        degrees, mask_seed, hidden_sizes=sizes, num_masks=num_masks, order=order, shared=residual
    )

    def draw(key: Key, state: GradientState, num: int) -> Batch:
        num_inputs = state.params["output"]["bias"].shape[0] // discrete.width(levels)
        return {"x": sample(module, key, state.params, wiring(num_inputs), num)}

    def mass(state: GradientState, batch: Batch) -> Float[Array, " batch"]:
        x = _examples(batch, levels)
        return log_prob(module, state.params, wiring(x.shape[1]), x)

    return gradient(
        functools.partial(_init, module, wiring),
        functools.partial(loss, module=module, wiring=wiring),
        optimizer,
        sample=draw,
        log_prob=mass,
        axis_name=axis_name,
    )


def _init(module: MADE, wiring: Callable[[int], Degrees], key: Key, batch: Batch) -> tuple[Params, Params]:
    x = _examples(batch, module.levels)
    params, stats = linen.init(module, key, x, component(wiring(x.shape[1]), 0))
    return {**params, "output": {**params["output"], "bias": discrete.log_odds(x, module.levels).reshape(-1)}}, stats


def _examples(batch: Batch, levels: int) -> Any:
    random.batch_size(batch)
    _checks.rank("x", batch["x"], 2, "(batch, inputs)")
    _checks.integers("x", batch["x"], levels)
    return jnp.asarray(batch["x"])
