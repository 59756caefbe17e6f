"""What the experiments with autoregressive models of binary rows share: knobs, data, optimizers, exact test results.

Rows are flattened images, grey ones binarized at half, or binary tables.
"""

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
from jgen._checks import one_of
from jgen._types import Key
from jgen.autoregressive import fixed_order
from jgen.data import load, transforms
from jgen.data.pipeline import Data, Dataset, in_memory
from jgen.learners import average
from jgen.metrics.measurement import Measurement
from jgen.model import Model
from jgen.train import Experiment

OPTIMIZERS = ("adam", "sgd", "adagrad", "lbfgs")
NUM_ROWS, NUM_COMPLETED, NUM_SEEN = 64, 8, 16
"""Samples drawn; test images completed, 6 times each; images shown with their conditionals."""

Draw = Callable[[Model[Any], Data, Dataset, Key, Any, pathlib.Path], None]


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs of every model of binary rows; a system adds its own."""

    data: str = "digits"
    """Any source of images or of binary rows; grey values are binarized at half."""
    optimizer: str = "adam"
    """adam, or sgd with momentum 0.9 (the rate of both falls along a cosine), adagrad, or lbfgs (full batches; it finds
    its own rate)."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.0
    """Decoupled, of the kernels, with adam and sgd."""
    average_decay: float = 0.99
    """Of the moving average of the parameters that is evaluated; 0 evaluates the parameters themselves."""
    batch_size: int = 100
    eval_batch_size: int = 500
    num_steps: int = 3_000
    eval_every: int = 250
    patience: int = 6
    """Evaluations on validation data without a better likelihood after which training stops."""


def experiment(
    config: Config,
    seed: int,
    model_of: Callable[[int, optax.GradientTransformation], Model[Any]],
    *,
    protocol: str,
    draw: Draw | None = None,
) -> Experiment:
    """Maximum likelihood of binary rows.

    Args:
        config: the knobs.
        seed: of the data.
        model_of: (number of variables, optimizer) -> the model of vectors {"x": (batch, D)}.
        protocol: what the reported numbers are besides the data, such as the number of orders.
        draw: (model, data, dataset, key, state, directory) -> None; by default 64 samples.

    Raises:
        ValueError: the data have no levels, or `optimizer` is unknown.
    """
    dataset = load(config.data, seed=seed)
    if dataset.levels is None:
        raise ValueError(f"`data` must have levels, got the real data {dataset.name!r}.")
    transform = transforms.chain(transforms.only("x"), transforms.binarize(dataset.levels), transforms.flatten)
    data = in_memory(dataset, config.batch_size, seed, transform=transform, eval_batch_size=config.eval_batch_size)
    model = model_of(int(np.prod(dataset.shape)), optimizer(config))
    model = average(model, config.average_decay) if config.average_decay else model
    return Experiment(
        model,
        data,
        config.num_steps,
        functools.partial(_measure, model, data, dataset, protocol),
        functools.partial(draw or samples, model, data, dataset),
        eval_every=config.eval_every,
        select="nll",
        patience=config.patience,
    )


def fixed(config: Config, seed: int, network_of: Callable[[int], fixed_order.Network]) -> Experiment:
    """The experiment with the network in a fixed order that `network_of` (number of variables) gives."""
    found: list[fixed_order.Network] = []

    def model_of(num_dims: int, optimizer: optax.GradientTransformation) -> Model[Any]:
        found.append(network_of(num_dims))
        return fixed_order.model(found[0], optimizer)

    def draw(model: Any, data: Data, dataset: Dataset, key: Key, state: Any, directory: pathlib.Path) -> None:
        samples(model, data, dataset, key, state, directory)
        if len(_image_shape(dataset.shape)) == 3:
            _conditionals(found[0], data, dataset, key, state, directory)

    return experiment(config, seed, model_of, protocol="one order", draw=draw)


def optimizer(config: Config) -> optax.GradientTransformation:
    """The optimizer that `config` names; ValueError where there is none of that name."""
    one_of("optimizer", config.optimizer, OPTIMIZERS)
    if config.optimizer == "lbfgs":
        return optax.lbfgs()
    if config.optimizer == "adagrad":
        return optax.adagrad(config.learning_rate, initial_accumulator_value=0.0, eps=1e-6)
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps, 0.01)
    if config.optimizer == "sgd":
        shrink = optax.add_decayed_weights(config.weight_decay, kernels) if config.weight_decay else optax.identity()
        return optax.chain(optax.trace(0.9), shrink, optax.scale_by_learning_rate(schedule))
    return optax.adamw(schedule, weight_decay=config.weight_decay, mask=kernels)


def kernels(params: Any) -> Any:
    """True where weights decay: biases carry the variables' marginals and stay free, and so do scales."""

    def is_kernel(path: Any, leaf: Any) -> bool:
        del leaf
        name = jax.tree_util.keystr(path[-1:])
        return "bias" not in name and "scale" not in name

    return jax.tree_util.tree_map_with_path(is_kernel, params)


def _measure(
    model: Model[Any], data: Data, dataset: Dataset, protocol: str, key: Key, state: Any
) -> dict[str, Measurement]:
    del key
    log_prob = jax.jit(model.log_prob)  # pyright: ignore[reportArgumentType]
    nll = -np.concatenate([np.asarray(log_prob(state, batch))[:num] for batch, num in data.batches("test")])
    binary = "as given" if dataset.levels == 2 else "binarized at half"
    protocol = f"{dataset.name}, {binary}, {protocol}"
    bits = nll.mean() / int(np.prod(dataset.shape)) / np.log(2)
    return {
        "nll": Measurement(float(nll.mean()), "nats", "exact", "test", protocol),
        "nll_standard_error": Measurement(float(nll.std() / np.sqrt(len(nll))), "nats", "none", "test", protocol),
        "bits_per_dim": Measurement(float(bits), "bits/dim", "exact", "test", protocol),
    }


def sweeps(taken: Any, what: str) -> dict[str, Measurement]:
    """How many passes over whole examples fixed-point sampling took: one count per drawn example, of `what`."""
    protocol = f"fixed-point sampling of {len(taken)} {what}"
    return {
        "sweeps_mean": Measurement(float(np.mean(taken)), "sweeps", "none", "-", protocol),
        "sweeps_max": Measurement(float(np.max(taken)), "sweeps", "none", "-", protocol),
    }


def samples(model: Any, data: Data, dataset: Dataset, key: Key, state: Any, directory: pathlib.Path) -> None:
    """Writes 64 samples as images; those of a table as the rows of one image."""
    del data
    drawn = jax.jit(model.sample, static_argnums=2)(key, state, NUM_ROWS)["x"]
    shape = _image_shape(dataset.shape)
    images = jnp.reshape(drawn, (NUM_ROWS, *shape) if len(shape) == 3 else (1, NUM_ROWS, -1, 1))
    pictures.grid(directory / "samples.png", images, columns=8 if len(shape) == 3 else 1)


def _conditionals(
    network: fixed_order.Network, data: Data, dataset: Dataset, key: Key, state: Any, directory: pathlib.Path
) -> None:
    """Test images completed from the first half of the order, and p(x_d = 1 | x_<d) of every pixel, as in the paper."""
    shape, order = _image_shape(dataset.shape), np.array(network.order)
    shown = next(iter(data.batches("test")))[0]["x"][:NUM_SEEN]
    x = shown[:NUM_COMPLETED]
    mask = np.isin(np.arange(len(order)), order[: len(order) // 2])
    times = 6
    known = jnp.repeat(x, times, axis=0)
    draw = functools.partial(fixed_order.sample, network, num=len(known), known=known, mask=mask)
    drawn = jax.jit(draw)(key, state.params).reshape(len(x), times, -1)
    seen = jnp.where(jnp.asarray(mask)[None], x, 0.5)
    sheet = jnp.concatenate([x[:, None], seen[:, None], drawn], axis=1).reshape(-1, *shape)
    title = "a test image, the half of it that is known, six draws of the rest"
    pictures.grid(directory / "completions.png", sheet, columns=times + 2, title=title)
    sampled = jax.jit(lambda key, params: fixed_order.sample(network, key, params, len(shown)))(key, state.params)
    logits = jax.jit(functools.partial(fixed_order.outputs, network))
    named = {}
    for name, images in (("test images", shown), ("samples", sampled)):
        named[name] = images.reshape(-1, *shape)
        means = jax.nn.sigmoid(logits(state.params, images)[..., 0])
        named[f"{name}: p(pixel on | earlier)"] = means.reshape(-1, *shape)
    pictures.panels(directory / "conditionals.png", named, columns=4)


def _image_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(h, w, c) of an image, flattened square ones too; another row keeps its shape."""
    side = round(float(np.sqrt(np.prod(shape))))
    return (side, side, 1) if len(shape) == 1 and side * side == shape[0] else shape
