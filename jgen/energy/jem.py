"""Joint energy model: the logits f of one classifier are also an energy of its inputs.

    p(x, y) = exp(f_y(x))/Z,    p(y|x) = softmax(f(x))_y,    p(x) = exp(−E(x))/Z,  E(x) = −log Σ_y exp f_y(x)
    log p(x, y) = log p(y|x) + log p(x):  cross-entropy, and the contrast of data with chains, as in `ebm`

Paper: Grathwohl et al., "Your classifier is secretly an energy based model and you should treat it like one", 2020.
Differs from the paper: the temperature of the chains is explicit and 1 by default (theirs is 5·10⁻⁵), and the weight of
log p(x) beside log p(y|x) is an argument.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jgen import _checks, linen, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.energy import ebm
from jgen.learners.contrastive import ContrastiveState, contrastive
from jgen.learners.replay import Replay
from jgen.math import quadrature
from jgen.model import Model

Data: TypeAlias = Float[Array, "batch *shape"]
Values: TypeAlias = Float[Array, " batch"]
Labels: TypeAlias = Int[Array, " batch"]


def logits(params: Params, x: Data, *, module: nn.Module) -> Float[Array, "batch classes"]:
    """f(x): log p(x, y) + log Z for every y, nats."""
    return linen.apply(module, params, {}, x)


def energy(params: Params, x: Data, *, module: nn.Module) -> Values:
    """E(x) = −log Σ_y exp f_y(x), so that −E(x) = log p(x) + log Z, nats."""
    return -jax.nn.logsumexp(logits(params, x, module=module), axis=1)


def class_log_prob(params: Params, x: Data, label: Labels, *, module: nn.Module) -> Values:
    """log p(y|x), nats: the classifier."""
    return jnp.take_along_axis(jax.nn.log_softmax(logits(params, x, module=module)), label[:, None], axis=1)[:, 0]


def log_partition(params: Params, nodes: quadrature.Nodes, *, module: nn.Module) -> Scalar:
    """log Z = log ∫ Σ_y exp f_y(x) dx, or its sum over the points of a discrete space, nats."""
    return quadrature.log_integral(lambda x: -energy(params, x, module=module), nodes)


def log_joint(params: Params, x: Data, label: Labels, nodes: quadrature.Nodes, *, module: nn.Module) -> Values:
    """log p(x, y) = f_y(x) − log Z, nats, exact as far as `nodes` are."""
    chosen = jnp.take_along_axis(logits(params, x, module=module), label[:, None], axis=1)[:, 0]
    return chosen - log_partition(params, nodes, module=module)


def classification(module: nn.Module, energy_weight: float) -> Callable[..., tuple[Any, Metrics]]:
    """What the objective adds to the gap of energies: the mean cross-entropy, and λ times squared energies."""

    def extra(params: Params, batch: Batch, data: Any, model: Any) -> tuple[Any, Metrics]:
        found = -jnp.mean(class_log_prob(params, batch["x"], batch["label"], module=module))
        held, _ = ebm.squared_energies(energy_weight)(params, batch, data, model)
        return found + held, {"cross_entropy": found}

    return extra


def sample(
    key: Key, params: Params, starts: Data, num: int, *, module: nn.Module, chains: ebm.Chains
) -> tuple[Float[Array, "num *shape"], Int[Array, " num"]]:
    """`num` ends of chains x, each with a draw of p(y|x)."""
    chain_key, label_key = jax.random.split(key)
    x = ebm.sample(chain_key, chains, functools.partial(energy, params, module=module), starts, num)
    keys = random.example_keys(label_key, num)
    return x, jax.vmap(jax.random.categorical)(keys, logits(params, x, module=module)).astype(jnp.int32)


def model(
    module: nn.Module,
    shape: tuple[int, ...],
    optimizer: optax.GradientTransformation,
    *,
    chains: ebm.Chains,
    energy_weight: float = 0.0,
    nodes: quadrature.Nodes | None = None,
    axis_name: str | None = None,
) -> Model[ContrastiveState]:
    """A joint energy of x and label; `log_prob` is log p(x, y), there and exact where `nodes` cover the space of x.

    Args:
        module: x -> one logit per class, (batch, classes).
        shape: of one example.
        optimizer: any optax optimizer.
        chains: what the negative phase draws with; p(x) and p(y|x) are one model at temperature 1.
        energy_weight: λ of the squared energies, as in `ebm`.
        nodes: of the quadrature, or the points of a small discrete space.
        axis_name: as in `contrastive`.

    Raises:
        ValueError: `energy_weight` is negative.
    """
    _checks.at_least("energy_weight", energy_weight, 0.0)
    of = functools.partial(energy, module=module)
    exact = None if nodes is None else functools.partial(_log_prob, module, nodes)

    def draw(key: Key, state: ContrastiveState, num: int) -> Batch:
        x, label = sample(key, state.params, state.chains.buffer, num, module=module, chains=chains)
        return {"x": x, "label": label}

    return contrastive(
        functools.partial(_init, module, shape, chains),
        of,
        lambda params: ebm.replay(chains, shape, functools.partial(of, params)),
        optimizer,
        negatives=lambda position: position.moved,
        extra=classification(module, energy_weight),
        evaluate=functools.partial(_evaluate, module, exact),
        sample=draw,
        log_prob=exact,
        axis_name=axis_name,
    )


def _init(
    module: nn.Module, shape: tuple[int, ...], chains: ebm.Chains, key: Key, batch: Batch
) -> tuple[Params, Replay]:
    if "label" not in batch:
        raise ValueError(f"`batch` must hold `x` and `label`, got {sorted(batch)}.")
    params, position = ebm.start(module, shape, chains, key, batch)
    num_classes = jax.eval_shape(functools.partial(logits, module=module), params, batch["x"]).shape[1]
    _checks.integers("label", batch["label"], num_classes)
    return params, position


def _log_prob(module: nn.Module, nodes: quadrature.Nodes, state: ContrastiveState, batch: Batch) -> Values:
    return log_joint(state.params, batch["x"], batch["label"], nodes, module=module)


def _evaluate(
    module: nn.Module, exact: Callable[..., Values] | None, key: Key, state: ContrastiveState, batch: Batch
) -> Metrics:
    del key
    found = logits(state.params, batch["x"], module=module)
    known, drawn = (energy(state.params, x, module=module) for x in (batch["x"], state.chains.buffer))
    metrics = {
        "energy_gap": known - jnp.mean(drawn),
        "cross_entropy": -class_log_prob(state.params, batch["x"], batch["label"], module=module),
        "error": (jnp.argmax(found, axis=1) != batch["label"]).astype(jnp.float32),
    }
    return metrics if exact is None else {**metrics, "nll": -exact(state, batch)}
