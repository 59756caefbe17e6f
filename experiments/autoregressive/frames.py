"""A20: recurrent networks over binary frames, with independent bits or a NADE in each frame (RNN-NADE).

    python -m experiments.autoregressive.frames                               # digits row by row, NADE head
    python -m experiments.autoregressive.frames digits_independent            # the same, independent pixels in a row
    python -m experiments.autoregressive.frames jsb --data FILE.json          # chorales, independent notes
    python -m experiments.autoregressive.frames jsb_nade --data FILE.json     # chorales, the notes of a beat by a NADE

FILE.json holds pieces as lists of MIDI notes (`jgen.data.rolls`), in quarter notes for the references' protocol.

Measured (seed 0, two CPU cores shared with several other programs, test data, exact): digits 2.132 nats/frame (17.06
per image), 23 s; digits_independent 2.212 (17.70), 17 s; independent pixels 3.204. jsb_nade 5.872 nats/frame, stopped
early after 800 steps in 361 s, the state after 550 kept; jsb 8.591, 74 s; bits that are independent of each other and
of time 11.060. The paper's RNN-NADE, by Hessian-free optimization, is at 5.56: 0.31 nats are missing.

Papers: Boulanger-Lewandowski et al., "Modeling temporal dependencies in high-dimensional sequences", 2012.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import pictures
from experiments.runner import main
from experiments.system import System
from jgen._types import Key
from jgen.autoregressive import frames
from jgen.data import Data, Dataset, load, rolls
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment

NUM_SAMPLES, PROMPT, LONGEST = 8, 16, 64
"""Sequences drawn, the frames that a continuation is given, and the frames shown."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Grey images, read row by row, or a .json file of pieces."""
    head: str = "nade"
    """nade or independent: the law of a frame."""
    cell: str = "lstm"
    """vanilla, gru or lstm."""
    num_units: int = 128
    hidden_size: int = 64
    """Of the NADE."""
    dropout_rate: float = 0.2
    """Of what a frame is given of the recurrent state."""
    learning_rate: float = 3e-3
    """Its highest value: Adam, warmed up linearly over 50 steps, then a cosine to a hundredth."""
    weight_decay: float = 1e-3
    """Decoupled, of everything but biases."""
    clip_norm: float = 1.0
    batch_size: int = 60
    num_steps: int = 800
    eval_every: int = 50
    patience: int = 6
    """Evaluations on validation data without a better likelihood after which training stops."""


CHORALES = Config(
    data="jsb-chorales-quarter.json",
    num_units=200,
    hidden_size=150,
    dropout_rate=0.4,
    weight_decay=1e-2,
    batch_size=16,
    num_steps=1_000,
    eval_every=50,
    patience=5,
)
PRESETS = {
    "digits": Config(),
    "digits_independent": Config(head="independent"),
    "jsb": dataclasses.replace(CHORALES, head="independent"),
    "jsb_nade": CHORALES,
    "smoke": Config(num_steps=2, eval_every=2, num_units=8, hidden_size=4, batch_size=16),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    source = config.data
    dataset = rolls.piano_rolls(source) if _is_file(source) else rolls.scanned(load(source, seed=seed))
    network = frames.Network(dataset.shape[1], config.head, config.cell, config.num_units, config.hidden_size)
    data = rolls.bucketed(dataset, config.batch_size, seed)
    length = min(LONGEST, dataset.shape[0])
    return Experiment(
        frames.model(network, _optimizer(config), length=length, dropout_rate=config.dropout_rate),
        data,
        config.num_steps,
        functools.partial(_measure, network, data, dataset),
        functools.partial(_draw, network, dataset, length),
        log_every=min(50, config.eval_every),
        eval_every=config.eval_every,
        select="nll",
        patience=config.patience,
    )


def _is_file(source: str) -> bool:
    return source.endswith(".json") and pathlib.Path(source).is_file()


def _optimizer(config: Config) -> optax.GradientTransformation:
    peak, warm_up = config.learning_rate, min(50, config.num_steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, config.num_steps, peak / 100)
    matrices = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    decay = optax.adamw(rate, weight_decay=config.weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), decay)


def _measure(network: frames.Network, data: Data, dataset: Dataset, key: Key, state: Any) -> dict[str, Measurement]:
    del key
    log_prob = jax.jit(functools.partial(frames.log_prob, network))
    nll, num_frames = 0.0, int(np.sum(dataset.splits["test"]["mask"], dtype=np.int64))
    for batch, num in data.batches("test"):
        values = log_prob(state.params, *frames.examples(batch, network))
        nll -= float(np.asarray(values)[:num].sum(dtype=np.float64))
    protocol = f"{dataset.name}, lengths given, every frame counted"
    alone = _independent(dataset)
    return {
        "nats_per_frame": Measurement(nll / num_frames, "nats/frame", "exact", "test", protocol),
        "nll": Measurement(nll / dataset.size("test"), "nats", "exact", "test", f"{protocol}, per sequence"),
        "independent_nats_per_frame": Measurement(
            alone, "nats/frame", "exact", "test", f"{protocol}, frequencies of the training bits"
        ),
    }


def _independent(dataset: Dataset) -> float:
    """Nats per test frame of bits that are independent of each other and of time."""
    train, test = (
        np.asarray(dataset.splits[split]["x"])[np.asarray(dataset.splits[split]["mask"]) > 0]
        for split in ("train", "test")
    )
    p = (train.sum(axis=0, dtype=np.float64) + 0.5) / (len(train) + 1)
    return float(-(test * np.log(p) + (1 - test) * np.log1p(-p)).sum(axis=1).mean())


def _draw(
    network: frames.Network, dataset: Dataset, length: int, key: Key, state: Any, directory: pathlib.Path
) -> None:
    data = np.asarray(dataset.splits["test"]["x"])[:NUM_SAMPLES, :length]
    draw = functools.partial(frames.sample, network, num=len(data))
    samples = jax.jit(functools.partial(draw, length=length))(key, state.params)
    given = min(PROMPT, length // 2)
    rest = jax.jit(functools.partial(draw, length=length - given))(
        key, state.params, prompt=jnp.asarray(data[:, :given], jnp.float32)
    )
    continued = np.concatenate([data[:, :given], np.asarray(rest)], axis=1)
    named = {"test data": data, "samples": samples, f"continued after {given} frames": continued}
    pictures.panels(directory / "samples.png", {name: _sheet(x, dataset) for name, x in named.items()}, columns=2)


def _sheet(x: Any, dataset: Dataset) -> np.ndarray:
    """Frames as rows of an image, or, for notes, as columns with the low notes below, without the keys none plays."""
    x = 1.0 * np.asarray(x)[..., None]
    if dataset.shape[1] != rolls.NUM_KEYS:
        return x
    played = np.flatnonzero(np.asarray(dataset.splits["train"]["x"]).any(axis=(0, 1)))
    return x[:, :, played.min() : played.max() + 1].swapaxes(1, 2)[:, ::-1]


def _references(value: float, model: str) -> dict[str, Any]:
    source = f"{model}, Boulanger-Lewandowski et al. 2012, quoted from memory"
    return {"nats_per_frame": {"value": value, "source": source, "protocol": "JSB chorales, test log-likelihood"}}


SYSTEM = System(
    id="A20",
    module="autoregressive.frames",
    title="Recurrent network over frames, RNN-NADE",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={"jsb": _references(8.71, "RNN"), "jsb_nade": _references(5.56, "RNN-NADE")},
)

if __name__ == "__main__":
    main(SYSTEM)
