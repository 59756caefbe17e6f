"""A16: WaveNet, one value after another through dilated causal convolutions.

    python -m experiments.autoregressive.wavenet                          # 8×8 digits as sequences of 64 values
    python -m experiments.autoregressive.wavenet fsdd --data DIR          # spoken digits at 8 kHz, µ-law 256

No sound comes with the installed packages, so the default learns real images, each as the sequence of its pixels. For
sound, DIR holds .wav files: those of the Free Spoken Digit Dataset (DIGIT_SPEAKER_INDEX.wav, index 0-4 is the test
part), or any others, in subfolders by class where there are classes.

Measured (seed 0, two CPU cores, test data, exact): digits given their labels 80.00 nats, 1.803 bits/dim, 13 s.
fsdd (3 epochs, 10 min on one core): 3.081 nats/value, where counts of the training values give 4.981 and counts given
the value before 3.779. Its draws have the words' bursts and silences, and their voices only where a recording has
begun and for some hundredths of a second: that takes more epochs. The preset fsdd_long has not been run.

Paper: van den Oord et al., "WaveNet: A Generative Model for Raw Audio", 2016.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import pictures, sound
from experiments.evaluation import averages
from experiments.runner import main
from experiments.system import System
from jgen._types import Key
from jgen.autoregressive import wavenet
from jgen.data import load, media
from jgen.data.pipeline import SPLITS, Data, Dataset, in_memory
from jgen.learners import average
from jgen.math import companding
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment

NUM_RECORDINGS = 5
"""Test recordings shown, each beside a draw of its class, and beside one that goes on from its beginning."""

COUNTS = {
    "value": 3.779,
    "source": "counts of the training values given the value before",
    "protocol": "spoken digits, index 0-4, µ-law 256",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Images with levels, or a folder of .wav files."""
    label: str = "digit"
    """What samples are given: "none", or the images' or subfolders' classes; of spoken digits "digit", "speaker" or
    "both"."""
    levels: int = 256
    """Of µ-law, for sound."""
    channels: int = 32
    skip_channels: int = 64
    num_layers: int = 6
    """The receptive field is 2^num_layers values."""
    num_stacks: int = 1
    window: int = 4_096
    """Values of sound in a window, its past included."""
    learning_rate: float = 4e-3
    """Adam's highest rate; it falls along a cosine to a hundredth."""
    weight_decay: float = 1e-3
    """Decoupled, of the kernels."""
    clip_norm: float = 1.0
    average_decay: float = 0.99
    """Of the moving average of the parameters that is evaluated; 0 evaluates the parameters themselves."""
    batch_size: int = 64
    eval_batch_size: int = 100
    num_steps: int = 475
    eval_every: int = 95
    patience: int = 5
    """Evaluations on validation data without a better likelihood after which training stops."""


PRESETS = {
    "digits": Config(),
    "smoke": Config(num_steps=2, eval_every=2, channels=4, skip_channels=4, num_layers=2, batch_size=16),
    "fsdd": Config(
        data="fsdd",
        label="both",
        num_layers=10,
        weight_decay=1e-4,
        batch_size=8,
        eval_batch_size=8,
        num_steps=1_185,
        eval_every=395,
        patience=10,
    ),
    "fsdd_long": Config(
        data="fsdd",
        label="both",
        channels=64,
        skip_channels=128,
        num_layers=10,
        num_stacks=2,
        window=8_192,
        learning_rate=2e-3,
        weight_decay=1e-4,
        average_decay=0.999,
        batch_size=16,
        eval_batch_size=16,
        num_steps=40_000,
        eval_every=1_000,
    ),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    if pathlib.Path(config.data).expanduser().is_dir():
        dataset = _windows(config, seed)
        draw = functools.partial(_draw_sound, config, dataset)
    else:
        dataset, shape = _sequences(config, seed)
        draw = functools.partial(_draw_images, config, dataset, shape)
    data = in_memory(dataset, config.batch_size, seed, eval_batch_size=config.eval_batch_size)
    length = dataset.shape[0]
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps, 0.01)
    decayed = optax.adamw(schedule, weight_decay=config.weight_decay, mask=_kernels)
    optimizer = optax.chain(optax.clip_by_global_norm(config.clip_norm), decayed)
    model = wavenet.model(_module(config, dataset), optimizer, length=length)
    model = average(model, config.average_decay) if config.average_decay else model
    return Experiment(
        model,
        data,
        config.num_steps,
        functools.partial(_measure, config, data, dataset),
        draw,
        log_every=min(100, config.eval_every),
        eval_every=config.eval_every,
        select="nll",
        patience=config.patience,
    )


def _kernels(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in jax.tree_util.keystr(path[-1:]), params)


def _module(config: Config, dataset: Dataset) -> wavenet.WaveNet:
    num_classes = len(dataset.label_names) if dataset.label_names else None
    sizes = (config.channels, config.skip_channels, config.num_layers, config.num_stacks)
    return wavenet.WaveNet(dataset.levels or config.levels, *sizes, num_classes)


def _sequences(config: Config, seed: int) -> tuple[Dataset, tuple[int, ...]]:
    """(images as sequences of their values, one image's shape)."""
    images = load(config.data, seed=seed)
    if images.levels is None or len(images.shape) != 3:
        raise ValueError(f"`data` must be images with levels or a folder of .wav files, got {images.name!r}.")
    names = None if config.label == "none" else images.label_names
    keep = {"tokens": "x"} | ({"label": "label"} if names else {})
    parts = {s: {new: np.asarray(a[old]) for new, old in keep.items()} for s, a in images.splits.items()}
    parts = {s: {**a, "tokens": a["tokens"].reshape(len(a["tokens"]), -1)} for s, a in parts.items()}
    return Dataset(images.name, parts, levels=images.levels, label_names=names), images.shape


def _windows(config: Config, seed: int) -> Dataset:
    """Windows of µ-law tokens that count each value once, behind as many others as the net sees."""
    folder, field = pathlib.Path(config.data).expanduser(), 1 + config.num_stacks * (2**config.num_layers - 1)
    if all(media.SPOKEN_DIGIT.fullmatch(file.name) for file in folder.glob("*")):
        recordings = media.spoken_digits(folder, "digit" if config.label == "none" else config.label)
    else:
        recordings = media.recordings(folder, seed)
    labels = None if config.label == "none" else recordings.label
    parts = {}
    for split in SPLITS:
        whole = recordings.splits[split]
        ends = np.cumsum([len(values) for values in whole])[:-1]
        tokens = np.split(np.asarray(companding.encode(np.concatenate(whole), config.levels)), ends)
        cut = [media.windows_with_past(values, config.window, field) for values in tokens]
        windows, masks = zip(*cut, strict=True)
        dtype = np.uint8 if config.levels <= 256 else np.int32
        parts[split] = {"tokens": np.concatenate(windows).astype(dtype), "mask": np.concatenate(masks)}
        if labels is not None:
            parts[split]["label"] = np.repeat(labels[split], [len(each) for each in windows])
    names = None if labels is None else recordings.label_names
    return Dataset(recordings.name, parts, config.levels, label_names=names, sample_rate=recordings.sample_rate)


def counts(dataset: Dataset, order: int, smoothing: float = 0.1) -> np.ndarray:
    """log p(x_t | `order` values before it), 0 or 1, from the training part; the last row is START."""
    size = dataset.levels or 0
    table = np.full((size + 1 if order else 1, size), smoothing)
    before, after = _pairs(dataset, "train", order)
    np.add.at(table, (before, after), 1.0)
    return np.log(table / table.sum(axis=1, keepdims=True))


def _pairs(dataset: Dataset, split: str, order: int) -> tuple[np.ndarray, np.ndarray]:
    """(the value before, the value) of every counted value; rows of zeros where `order` is 0."""
    arrays = dataset.splits[split]
    tokens = np.asarray(arrays["tokens"]).astype(int)
    mask = np.asarray(arrays.get("mask", np.ones(tokens.shape, bool)))
    before = np.concatenate([np.full_like(tokens[:, :1], dataset.levels), tokens[:, :-1]], axis=1) * order
    return before[mask], tokens[mask]


def _measure(config: Config, data: Data, dataset: Dataset, key: Key, state: Any) -> dict[str, Measurement]:
    module, splits = _module(config, dataset), dataset.splits["test"]

    def each(_: Key, batch: Any) -> dict[str, Any]:
        tokens, label, mask = wavenet.examples(batch, module)
        return {"nll": -jnp.sum(wavenet.token_log_prob(module, state.params, tokens, label) * mask, axis=1)}

    total = averages(key, data, "test", each)["nll"] * dataset.size("test")
    num = float(np.sum(splits["mask"])) if "mask" in splits else splits["tokens"].size
    what = f"{dataset.name}, {dataset.levels} levels" + (", µ-law" if dataset.sample_rate else "")
    given = f"{what}, {config.label} given" if dataset.label_names else what
    found = {"nll_per_value": Measurement(total / num, "nats/value", "exact", "test", given)}
    if not dataset.sample_rate:
        found["nll"] = Measurement(total / dataset.size("test"), "nats", "exact", "test", given)
        found["bits_per_dim"] = Measurement(total / num / float(np.log(2)), "bits/dim", "exact", "test", given)
    for order in (0, 1):
        nats = -float(np.mean(counts(dataset, order)[_pairs(dataset, "test", order)]))
        protocol = f"{what}, counts of order {order}"
        found[f"counts_{order}_per_value"] = Measurement(nats, "nats/value", "exact", "test", protocol)
    return found


def _draw_images(
    config: Config, dataset: Dataset, shape: tuple[int, ...], key: Key, state: Any, directory: pathlib.Path
) -> None:
    module, num, length = _module(config, dataset), 64, dataset.shape[0]
    label = jnp.arange(num) % 8 % module.num_classes if module.num_classes else None
    draw = jax.jit(functools.partial(wavenet.sample, module, num=num, length=length, label=label))

    def show(x: Any) -> Any:
        return np.asarray(x, np.float32).reshape(-1, *shape) / (module.levels - 1)

    pictures.grid(directory / "samples.png", show(draw(key, state.params)))
    test = {name: np.asarray(values[:8]) for name, values in dataset.splits["test"].items()}
    label = jnp.repeat(test["label"], 7) if module.num_classes else None
    known = np.repeat(test["tokens"][:, : length // 2], 7, axis=0)
    draw = jax.jit(functools.partial(wavenet.sample, module, num=56, length=length, label=label, known=known))
    drawn = np.asarray(draw(key, state.params)).reshape(8, 7, length)
    rows = np.concatenate([test["tokens"][:, None], drawn], axis=1)
    title = "a test image, then its lower half drawn given its upper one"
    pictures.grid(directory / "completions.png", show(rows), title=title)


def _draw_sound(config: Config, dataset: Dataset, key: Key, state: Any, directory: pathlib.Path) -> None:
    module, rate, test = _module(config, dataset), dataset.sample_rate or 1, dataset.splits["test"]
    begins = np.flatnonzero(test["mask"][:, 0])
    rows = begins[np.linspace(0, len(begins) - 1, NUM_RECORDINGS).astype(int)]
    label = jnp.asarray(test["label"][rows]) if module.num_classes else None
    length, begun = min(config.window, rate // 2), rate // 10
    sample = functools.partial(wavenet.sample, module, num=NUM_RECORDINGS, length=length, label=label)
    drawn = jax.jit(sample)(key, state.params)
    known = np.asarray(test["tokens"][rows, :begun], np.int32)
    ended = jax.jit(functools.partial(sample, known=known))(key, state.params)
    names = dataset.label_names or ("",)
    named: dict[str, Any] = {}
    for i, row in enumerate(rows):
        name = f"{names[test['label'][row]] if label is not None else ''} ({i})"
        real = test["tokens"][row][test["mask"][row]][:length]
        for title, tokens in ((f"test {name}", real), (f"drawn {name}", drawn[i]), (f"begun {name}", ended[i])):
            named[title] = np.asarray(companding.decode(np.asarray(tokens, np.int32), config.levels))
    ordered = {title: named[title] for kind in ("test", "drawn", "begun") for title in named if title.startswith(kind)}
    sound.spectrograms(directory / "spectrograms.png", ordered, rate, columns=NUM_RECORDINGS)
    for kind, file in (("drawn", "samples.wav"), ("begun", "completions.wav"), ("test", "test.wav")):
        parts = [np.pad(x, (0, rate // 5)) for title, x in ordered.items() if title.startswith(kind)]
        sound.write(directory / file, np.concatenate(parts), rate)


SYSTEM = System(
    id="A16",
    module="autoregressive.wavenet",
    title="WaveNet",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={name: {"nll_per_value": COUNTS} for name in ("fsdd", "fsdd_long")},
)

if __name__ == "__main__":
    main(SYSTEM)
