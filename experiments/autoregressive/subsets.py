"""What the experiments with order-agnostic models share: knobs, training, exact and estimated results, pictures."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import pictures
from experiments.autoregressive.images import kernels, levels, shown
from jgen._types import Key
from jgen.autoregressive import any_order
from jgen.autoregressive.any_order import Network
from jgen.data import load, transforms
from jgen.data.pipeline import Data, Dataset, in_memory
from jgen.learners import average
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment

NUM_SAMPLES, NUM_SHOWN, NUM_DRAWS = 64, 8, 6
"""Samples drawn; test examples completed, and how many times each."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs of every network that takes any subset as given; a system adds its sizes."""

    data: str = "digits"
    """Any source with levels."""
    binarized: bool = True
    """Threshold grey images at half; else their levels are modelled as they are."""
    num_orders: int = 16
    """Orders in the ensemble whose exact likelihood is reported, and which samples follow."""
    exact: bool = True
    """Report the exact likelihood, which costs a pass (or a part of one) per variable, order and example."""
    valid_draws: int = 16
    """Subsets per validation example in the one-pass estimate that selects the state."""
    test_draws: int = 16
    """Subsets per test example in the one-pass estimate that is reported."""
    learning_rate: float = 1e-3
    """Adam's highest rate; it falls along a cosine to a hundredth."""
    weight_decay: float = 0.0
    """Decoupled, of the kernels."""
    clip_norm: float = 10.0
    average_decay: float = 0.99
    """Of the moving average of the parameters that is evaluated; 0 evaluates the parameters themselves."""
    batch_size: int = 100
    eval_batch_size: int = 300
    num_steps: int = 4_000
    eval_every: int = 400
    patience: int = 4
    """Evaluations on validation data without a better likelihood after which training stops."""


def experiment(config: Config, seed: int, network_of: Callable[[tuple[int, ...], int], Network]) -> Experiment:
    """Order-agnostic learning of the network that `network_of` (shape, levels) gives.

    Raises:
        ValueError: the data have no levels.
    """
    dataset = load(config.data, seed=seed)
    binarize = config.binarized and levels(dataset) > 2
    network = network_of(dataset.shape, 2 if binarize else levels(dataset))
    steps = [transforms.only("x"), *([transforms.binarize(levels(dataset))] if binarize else [])]
    data = in_memory(
        dataset, config.batch_size, seed, transform=transforms.chain(*steps), eval_batch_size=config.eval_batch_size
    )
    model = any_order.model(
        network, _optimizer(config), num_orders=config.num_orders, order_seed=seed, num_draws=config.valid_draws
    )
    model = average(model, config.average_decay) if config.average_decay else model
    ensemble = any_order.orders(seed, network.size, config.num_orders)
    return Experiment(
        model,
        data,
        config.num_steps,
        functools.partial(_measure, config, network, ensemble, data, dataset),
        functools.partial(_draw, config, network, ensemble, data),
        eval_every=config.eval_every,
        select="order_nll",
        patience=config.patience,
    )


def _optimizer(config: Config) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps, 0.01)
    decay = optax.adamw(schedule, weight_decay=config.weight_decay, mask=kernels)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), decay)


def _measure(
    config: Config, network: Network, ensemble: Any, data: Data, dataset: Dataset, key: Key, state: Any
) -> dict[str, Measurement]:
    binary = "binarized at half" if network.levels != levels(dataset) else "as given"
    name = f"{dataset.name}, {binary if network.levels == 2 else f'{network.levels} levels'}"
    estimate = _estimates(config, network, data, key, state)
    protocol = f"{name}, mean over all orders by {config.test_draws} random subsets per example"
    found = _rows("order_nll", estimate, "estimate", protocol)
    if not config.exact:
        return found
    each = _exact(network, ensemble, data, state)
    one = Measurement(float(-each.mean()), "nats", "exact", "test", f"{name}, mean of {config.num_orders} orders")
    nll = np.log(len(each)) - np.logaddexp.reduce(each, axis=0)
    protocol = f"{name}, mixture of {config.num_orders} orders"
    bits = Measurement(float(nll.mean() / network.size / np.log(2)), "bits/dim", "exact", "test", protocol)
    return {**_rows("nll", nll, "exact", protocol), "bits_per_dim": bits, "nll_one_order": one, **found}


def _rows(name: str, each: Any, kind: str, protocol: str) -> dict[str, Measurement]:
    error = Measurement(float(each.std() / np.sqrt(len(each))), "nats", "none", "test", protocol)
    return {name: Measurement(float(each.mean()), "nats", kind, "test", protocol), f"{name}_standard_error": error}


def _exact(network: Network, ensemble: Any, data: Data, state: Any) -> np.ndarray:
    """log p_o(x) of all test examples, (orders, examples), in float64."""
    log_prob = jax.jit(lambda params, x: any_order.order_log_prob(network, params, ensemble, x))
    parts = [np.asarray(log_prob(state.params, batch["x"]))[:, :num] for batch, num in data.batches("test")]
    return np.concatenate(parts, axis=1).astype(np.float64)


def _estimates(config: Config, network: Network, data: Data, key: Key, state: Any) -> np.ndarray:
    """The one-pass estimate of E_o[−log p_o(x)] of all test examples."""
    estimate = functools.partial(any_order.loss, train=False, network=network, num_draws=config.test_draws)
    compiled = jax.jit(lambda key, params, batch: estimate(key, params, {}, batch)[1][1]["order_nll"])
    batches = enumerate(data.batches("test"))
    parts = [np.asarray(compiled(jax.random.fold_in(key, i), state.params, b))[:num] for i, (b, num) in batches]
    return np.concatenate(parts).astype(np.float64)


def _draw(
    config: Config, network: Network, ensemble: Any, data: Data, key: Key, state: Any, directory: pathlib.Path
) -> None:
    draw = functools.partial(any_order.sample, network, num=NUM_SAMPLES, orders=ensemble)
    samples, columns = pictures.images(shown(jax.jit(draw)(key, state.params), network.levels))
    x = next(iter(data.batches("test")))[0]["x"]
    tests = pictures.images(shown(x[:NUM_SAMPLES], network.levels))[0]
    pictures.panels(directory / "samples.png", {"samples": samples, "test examples": tests}, columns=columns)
    masks = {"a random half": _half(network), "all but a band": _band(network)}
    inpainted, expected = {}, {}
    for i, (name, mask) in enumerate(masks.items()):
        known = jnp.broadcast_to(mask[:NUM_SHOWN], (NUM_SHOWN, *network.shape))
        own = jax.random.fold_in(key, 1 + i)
        inpainted[f"{name} known: test, known, {NUM_DRAWS} draws"] = inpaint(
            network, own, state.params, x[:NUM_SHOWN], known
        )
        expected[f"{name} known: test, known, E[. | known]"] = expectations(network, state.params, x[:NUM_SHOWN], known)
    pictures.panels(directory / "inpainting.png", inpainted, columns=columns and min(columns, 2 + NUM_DRAWS))
    pictures.panels(directory / "conditionals.png", expected, columns=min(columns, 3))
    if config.exact and config.num_orders > 1:
        pictures.lines(directory / "orders.png", {"nll": _by_orders(network, ensemble, x, state)}, "orders, 1st batch")


def inpaint(network: Network, key: Key, params: Any, x: Any, mask: Any) -> Any:
    """Per example: itself, its known part (the rest grey), and draws of the rest in random orders."""
    known, mask_of_each = jnp.repeat(x, NUM_DRAWS, axis=0), jnp.repeat(mask, NUM_DRAWS, axis=0)
    draw = functools.partial(any_order.sample, network, num=len(known), known=known, mask=mask_of_each)
    drawn = jax.jit(draw)(key, params)
    drawn = shown(drawn, network.levels).reshape(len(x), NUM_DRAWS, *network.shape)
    rows = jnp.concatenate([_known(network, x, mask), drawn], axis=1)
    return pictures.images(rows.reshape(-1, *network.shape))[0]


def expectations(network: Network, params: Any, x: Any, mask: Any) -> Any:
    """Per example: itself, its known part (the rest grey), and E[x_k | known] of every k by one pass."""
    p = jax.jit(functools.partial(any_order.conditionals, network))(params, x, mask)
    mean = p @ (jnp.arange(network.levels) / (network.levels - 1))
    rows = jnp.concatenate([_known(network, x, mask), mean[:, None]], axis=1)
    return pictures.images(rows.reshape(-1, *network.shape))[0]


def _known(network: Network, x: Any, mask: Any) -> Any:
    values = shown(x, network.levels)
    return jnp.stack([values, jnp.where(mask, values, 0.5)], axis=1)


def _half(network: Network) -> Any:
    """A random half of the variables, another for each example."""
    return jax.random.bernoulli(jax.random.key(0), 0.5, (NUM_SHOWN, *network.shape))


def _band(network: Network) -> Any:
    """All but the middle third of the rows of an image, or of the variables of a row."""
    height = network.shape[0]
    outside = (jnp.arange(height) < height // 3) | (jnp.arange(height) >= height - height // 3)
    known = outside.reshape(1, -1, *[1] * (len(network.shape) - 1))
    return jnp.broadcast_to(known, (NUM_SHOWN, *network.shape))


def _by_orders(network: Network, ensemble: Any, x: Any, state: Any) -> tuple[Any, Any]:
    """(number of orders, mean −log p(x) of the ensemble of the first so many)."""
    log_prob = jax.jit(lambda params: any_order.order_log_prob(network, params, ensemble, x))
    each = np.logaddexp.accumulate(np.asarray(log_prob(state.params), np.float64), axis=0)
    num = np.arange(1, len(each) + 1)
    return num, (np.log(num)[:, None] - each).mean(axis=1)
