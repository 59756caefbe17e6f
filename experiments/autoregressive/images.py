"""What the experiments with autoregressive models of images share: knobs, training, exact test results, pictures."""

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
from experiments.autoregressive import fields
from experiments.autoregressive.rows import sweeps
from jgen._types import Key
from jgen.autoregressive import raster
from jgen.data import load, transforms
from jgen.data.pipeline import Data, Dataset, in_memory
from jgen.learners import average
from jgen.math import discrete
from jgen.metrics.measurement import Measurement
from jgen.model import Model
from jgen.train import Experiment

NUM_IMAGES, NUM_COMPLETED, NUM_WATCHED = 64, 8, 4
"""Samples drawn; test images completed, 7 times each; test images in which each input is changed."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs of every network over pixels; a system adds its sizes."""

    data: str = "digits"
    """Any source of images; levels and size come from the data."""
    binarized: bool = False
    """Threshold grey images at half; else their levels are modelled as they are."""
    use_valid: bool = False
    """Train on the validation part too, for all steps: nothing is then selected on it."""
    learning_rate: float = 2e-3
    """Adam's highest rate; it falls along a cosine to a hundredth."""
    weight_decay: float = 1e-4
    """Decoupled, of the kernels."""
    clip_norm: float = 1.0
    average_decay: float = 0.99
    """Of the moving average of the parameters that is evaluated; 0 evaluates the parameters themselves."""
    batch_size: int = 64
    eval_batch_size: int = 300
    num_steps: int = 1_140
    """60 epochs of the digits."""
    eval_every: int = 95
    patience: int = 5
    """Evaluations on validation data without a better likelihood after which training stops."""


def experiment(
    config: Config,
    seed: int,
    network_of: Callable[[tuple[int, ...], int, int | None], raster.Network],
    *,
    conditional: bool = False,
    passes: bool = False,
) -> Experiment:
    """Maximum likelihood of images by the network that `network_of` (shape, levels, num_classes) gives.

    Args:
        config: the knobs.
        seed: of the data.
        network_of: builds the network once the data's shape and levels are known.
        conditional: learn p(x | label); `num_classes` is None otherwise.
        passes: also measure how many fixed-point sweeps a sample of the trained model takes.

    Raises:
        ValueError: the data have no levels, are no images, or have no labels where `conditional`.
    """
    dataset = images(config, seed)
    num_classes = _num_classes(dataset) if conditional else None
    network = network_of(dataset.shape, 2 if config.binarized else levels(dataset), num_classes)
    keep = transforms.only("x", "label") if conditional else transforms.only("x")
    steps = [keep, *([transforms.binarize(levels(dataset))] if config.binarized else [])]
    data = in_memory(
        dataset, config.batch_size, seed, transform=transforms.chain(*steps), eval_batch_size=config.eval_batch_size
    )
    model = raster.model(network, _optimizer(config))
    model = average(model, config.average_decay) if config.average_decay else model
    return Experiment(
        model,
        data,
        config.num_steps,
        functools.partial(_measure, config, network, data, dataset, passes),
        functools.partial(_draw, model, network, data),
        eval_every=config.eval_every,
        select=None if config.use_valid else "nll",
        patience=None if config.use_valid else config.patience,
    )


def images(config: Config, seed: int) -> Dataset:
    """The data set as (height, width, channels) images; rows of numbers become square ones."""
    dataset = load(config.data, seed=seed)
    splits = {split: dict(arrays) for split, arrays in dataset.splits.items()}
    if len(dataset.shape) == 1:
        side = int(np.sqrt(dataset.shape[0]))
        if side * side != dataset.shape[0]:
            raise ValueError(f"`data` must be images, got rows of {dataset.shape[0]} values in {dataset.name!r}.")
        splits = {s: {**a, "x": np.asarray(a["x"]).reshape(-1, side, side, 1)} for s, a in splits.items()}
    if config.use_valid:
        both = (splits["train"], splits["valid"])
        splits["train"] = {name: np.concatenate([part[name] for part in both]) for name in both[0]}
    return dataclasses.replace(dataset, splits=splits)


def levels(dataset: Dataset) -> int:
    """The number of levels; ValueError where the data are real."""
    if dataset.levels is None:
        raise ValueError(f"`data` must have levels, got the real data {dataset.name!r}.")
    return dataset.levels


def _num_classes(dataset: Dataset) -> int:
    if "label" not in dataset.splits["train"]:
        raise ValueError(f"`data` must have labels for a class-conditional model, got {dataset.name!r} without.")
    return int(max(np.max(arrays["label"]) for arrays in dataset.splits.values())) + 1


def _optimizer(config: Config) -> optax.GradientTransformation:
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps, 0.01)
    decay = optax.adamw(schedule, weight_decay=config.weight_decay, mask=kernels)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), decay)


def kernels(params: Any) -> Any:
    """True where weights decay: those named "kernel"; biases carry the pixels' marginals and stay free."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in jax.tree_util.keystr(path[-1:]), params)


def _measure(
    config: Config, network: raster.Network, data: Data, dataset: Dataset, passes: bool, key: Key, state: Any
) -> dict[str, Measurement]:
    log_prob = jax.jit(functools.partial(raster.log_prob, network))
    batches = data.batches("test")
    nll = np.concatenate([-np.asarray(log_prob(state.params, *raster.examples(b, network)))[:n] for b, n in batches])
    protocol = _protocol(config, network, dataset)
    bits = nll.mean() / int(np.prod(network.shape)) / np.log(2)
    found = {
        "nll": Measurement(float(nll.mean()), "nats", "exact", "test", protocol),
        "nll_standard_error": Measurement(float(nll.std() / np.sqrt(len(nll))), "nats", "none", "test", protocol),
        "bits_per_dim": Measurement(float(bits), "bits/dim", "exact", "test", protocol),
        "receptive_field": _field(network, state, *_few(data, network, NUM_WATCHED)),
    }
    return {**found, **_passes(network, key, state)} if passes else found


def _protocol(config: Config, network: raster.Network, dataset: Dataset) -> str:
    protocol = f"{dataset.name}, {network.levels} levels"
    protocol += ", binarized at half" if config.binarized and levels(dataset) > 2 else ""
    protocol += ", label given" if network.num_classes is not None else ""
    return protocol + (", trained on train and validation parts" if config.use_valid else "")


def _few(data: Data, network: raster.Network, num: int) -> tuple[Any, Any]:
    """(x, label) of the first test images."""
    batch = next(iter(data.batches("test")))[0]
    return raster.examples(jax.tree.map(lambda leaf: leaf[:num], batch), network)


def _field(network: raster.Network, state: Any, x: Any, label: Any) -> Measurement:
    """How many inputs the pixel in the middle sees, by changing every one."""
    before = fields.earlier(network)
    seen = int(np.sum((fields.influence(network, state.params, x, label) > 0) & before))
    protocol = f"of the {int(before.sum())} inputs before the centre, those that change its logits in {len(x)} images"
    return Measurement(float(seen), "inputs", "none", "test", protocol)


def _passes(network: raster.Network, key: Key, state: Any) -> dict[str, Measurement]:
    """How many passes over whole images fixed-point sampling takes."""
    draw = functools.partial(raster.fixed_point, network, num=NUM_IMAGES, label=_shown_labels(network))
    taken = np.asarray(jax.jit(draw)(key, state.params)[1])
    return sweeps(taken, f"images of {int(np.prod(network.shape))} positions")


def _shown_labels(network: raster.Network) -> Any:
    """One class per column of the sheet of samples."""
    return None if network.num_classes is None else jnp.arange(NUM_IMAGES) % 8 % network.num_classes


def _draw(
    model: Model[Any], network: raster.Network, data: Data, key: Key, state: Any, directory: pathlib.Path
) -> None:
    draw = functools.partial(raster.sample, network, num=NUM_IMAGES, label=_shown_labels(network))
    samples = jax.jit(draw)(key, state.params)
    pictures.grid(directory / "samples.png", shown(samples, network.levels))
    x, label = _few(data, network, NUM_COMPLETED)
    complete(directory / "completions.png", network, key, state.params, x, label)
    pictures.panels(
        directory / "conditionals.png", {"test images": shown(x, network.levels), **_means(network, state, x, label)}
    )
    watched = _few(data, network, NUM_WATCHED)
    fields.draw(directory / "receptive_field.png", network, state.params, *watched)


def complete(path: pathlib.Path, network: raster.Network, key: Key, params: Any, x: Any, label: Any) -> None:
    """One row for each image of x: the image, and seven draws of its lower half given the upper one."""
    num, times = x.shape[0], 7
    mask = np.zeros(network.shape, bool)
    mask[: network.shape[0] // 2] = True
    known = jnp.repeat(x, times, axis=0)
    many = None if label is None else jnp.repeat(label, times)
    draw = functools.partial(raster.sample, network, num=num * times, known=known, mask=mask, label=many)
    drawn = jax.jit(draw)(key, params).reshape(num, times, *network.shape)
    rows = jnp.concatenate([jnp.asarray(x, drawn.dtype)[:, None], drawn], axis=1)
    title = "a test image, then its lower half drawn given its upper one"
    pictures.grid(path, shown(rows.reshape(-1, *network.shape), network.levels), columns=times + 1, title=title)


def _means(network: raster.Network, state: Any, x: Any, label: Any) -> dict[str, Any]:
    """E[x_d | x_<d] of every pixel, as an image."""
    logits = jax.jit(lambda params: network.logits(params, x, label, None))(state.params)
    if logits.shape[-1] == discrete.width(2):
        return {"p(pixel on | earlier pixels)": jax.nn.sigmoid(logits[..., 0])}
    values = jnp.arange(network.levels) / (network.levels - 1)
    return {"E[pixel | earlier pixels]": jnp.sum(jax.nn.softmax(logits) * values[None, None, None, None], axis=-1)}


def shown(x: Any, levels: int) -> Any:
    """Values 0..levels-1 as grey or colour in [0, 1]."""
    return jnp.asarray(x, jnp.float32) / (levels - 1)
