"""Where the sequence models L9 and L10 take their sequences from, and how their numbers are to be read.

| source | frames | likelihood of a frame |
|---|---|---|
| FILE.json | chords of notes, `jgen.data.rolls` | Bernoulli |
| "outlines" | pen moves around printed letters, `jgen.data.strokes` | mixture of Gaussians and a pen state |
| FILE.npz | pen moves of stroke-3 files | the same |
| a folder of .wav files | µ-law values | mixture of discretized logistics |
| images with levels, such as "digits" | rows of pixels, binarized at half | Bernoulli |
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping

import jax
import numpy as np
import optax

from jgen.data import load, media, rolls, speech, strokes
from jgen.data.pipeline import Data, Dataset
from jgen.math import likelihoods
from jgen.math.likelihoods import Likelihood
from jgen.math.logistic_mixture import LogisticMixture
from jgen.math.strokes import StrokeMixture
from jgen.metrics.measurement import Measurement

LEVELS = 256
RNN_NADE = {
    "value": 5.56,
    "source": "RNN-NADE, Boulanger-Lewandowski et al. 2012, quoted from memory",
    "protocol": "JSB chorales, test log-likelihood",
}
"""What runs on chorales are put beside."""


@dataclasses.dataclass(frozen=True)
class Training:
    """The knobs that these experiments share."""

    data: str = "digits"
    """Images, FILE.json, FILE.npz, "outlines", or a folder of .wav files: see the table above."""
    frame_size: int = 80
    """Values of sound in a frame."""
    num_components: int = 20
    """Of the mixtures for pen moves and sound."""
    noise: float = 1.0
    """The width of the uniform noise on pen moves, in units of the file."""
    beta: float = 1.0
    warm_up_steps: int = 200
    """Updates over which the weight of the rate rises from 0."""
    learning_rate: float = 2e-3
    """Adam's highest rate, after a short warm-up; it falls along a cosine to a hundredth."""
    weight_decay: float = 1e-2
    """Decoupled, of matrices."""
    clip_norm: float = 1.0
    batch_size: int = 60
    bucket: int = 64
    """Batches are padded to a multiple of so many frames."""
    num_steps: int = 1_200
    eval_every: int = 100
    patience: int = 5
    """Evaluations on validation data without a better bound after which training stops."""
    num_importance_samples: int = 100
    """K of the reported importance-weighted bound: paths, or draws in each frame."""


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Sequences with what a model of them needs, and what its numbers mean.

    Attributes:
        kind: "frames", "strokes" or "speech".
        dataset: {"x", "mask"}, and "label" and "style" where they are known.
        data: batches of about one length.
        likelihood: of one frame.
        protocol: of every number.
        added: nats a frame that turn −log of the model's density into that of the source's own values.
        scale: units of the source in 1.0 of x, for strokes.
    """

    kind: str
    dataset: Dataset
    data: Data
    likelihood: Likelihood
    protocol: str
    added: float = 0.0
    scale: float = 1.0

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """Of one frame."""
        return self.dataset.shape[1:]

    @property
    def unit(self) -> str:
        """What one frame is called."""
        return "move" if self.kind == "strokes" else "frame"

    def num_frames(self, split: str) -> int:
        """How many frames of a split count."""
        return int(np.sum(self.dataset.splits[split]["mask"], dtype=np.int64))

    def num_labels(self) -> int:
        """How many classes "label" has; 0 where there is none."""
        splits = self.dataset.splits.values()
        return 1 + max(int(np.max(s["label"])) for s in splits) if "label" in self.dataset.splits["train"] else 0


def sequences(
    source: str,
    batch_size: int,
    seed: int,
    *,
    frame_size: int = 80,
    num_components: int = 20,
    noise: float = 1.0,
    step: int = 64,
) -> Sequences:
    """The sequences that `source` names, see the table above.

    Args:
        source: a name or a path.
        batch_size: sequences in a batch.
        seed: of the order, and of splits that the source does not give.
        frame_size: values of sound in a frame.
        num_components: of the mixtures, for pen moves and for sound.
        noise: the width of the uniform noise on pen moves, in units of a file; letters have their own.
        step: batches are padded to a multiple of so many frames.

    Raises:
        ValueError: there is no such source, or it is broken.
    """
    path = pathlib.Path(source).expanduser()
    batches = functools.partial(rolls.bucketed, batch_size=batch_size, seed=seed, step=step)
    if source == "outlines":
        return _strokes(strokes.outlines(), num_components, batches)
    if path.suffix == ".npz" and path.is_file():
        return _strokes(strokes.stroke_3(path, seed, noise=noise), num_components, batches)
    if path.is_dir() and any(path.rglob("*.wav")):
        return _speech(path, seed, frame_size, num_components, batches)
    chords = path.suffix == ".json" and path.is_file()
    dataset = rolls.piano_rolls(path) if chords else rolls.scanned(load(source, seed=seed))
    protocol = f"{dataset.name}, lengths given"
    return Sequences("frames", dataset, batches(dataset), likelihoods.Bernoulli(), protocol)


def of_config(config: Training, seed: int) -> Sequences:
    """`sequences` with the settings that the experiments name alike."""
    named = {name: getattr(config, name) for name in ("frame_size", "num_components", "noise")}
    return sequences(config.data, config.batch_size, seed, step=config.bucket, **named)


def optimizer(config: Training, *, decay: float = 0.0) -> optax.GradientTransformation:
    """AdamW on clipped gradients; only matrices decay.

    Args:
        config: of the training.
        decay: what the rate is multiplied by every 1,000 steps; 0 warms it up and lets it fall along a cosine instead.
    """
    peak, warm_up = config.learning_rate, min(50, config.num_steps // 2)
    cosine = optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, config.num_steps, peak / 100)
    rate = optax.exponential_decay(peak, 1_000, decay) if decay else cosine
    matrices = functools.partial(jax.tree.map, lambda leaf: leaf.ndim > 1)
    adamw = optax.adamw(rate, weight_decay=config.weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)


Batches = Callable[[Dataset], Data]


def _strokes(found: strokes.Strokes, num_components: int, batches: Batches) -> Sequences:
    dataset, likelihood = found.dataset, StrokeMixture(num_components, pen_states=3)
    cells = f"offsets as cells of {found.noise:g}" if found.noise else "density of offsets in units of the source"
    protocol = f"{dataset.name}, {cells}, σ at least {likelihood.floor * found.scale:.2g}, end counted"
    added = 2 * math.log(found.scale / (found.noise or 1.0))
    return Sequences("strokes", dataset, batches(dataset), likelihood, protocol, added, found.scale)


def _speech(folder: pathlib.Path, seed: int, frame_size: int, num_components: int, batches: Batches) -> Sequences:
    digits = all(media.SPOKEN_DIGIT.fullmatch(file.name) for file in folder.glob("*"))
    recordings = media.spoken_digits(folder) if digits else media.recordings(folder, seed)
    dataset = speech.framed(recordings, frame_size, LEVELS)
    protocol = f"{dataset.name}, µ-law {LEVELS}, frames of {frame_size}, lengths given"
    return Sequences("speech", dataset, batches(dataset), LogisticMixture(LEVELS, num_components), protocol)


def kinds(source: Sequences, draws: str | None) -> dict[str, tuple[str, str]]:
    """{name: (kind, how it was found)} of the log-probabilities, for `measurements`.

    Args:
        source: where the sequences came from.
        draws: what the importance-weighted bound was found with; None where there are no latents.
    """
    if draws is None:
        # The density of noisy moves is exact, and bounds the mass of the cells that they are reported as.
        return {"nll": ("bound" if source.kind == "strokes" else "exact", "no latents")}
    return {"nll": ("bound", draws), "negative_elbo": ("bound", "one draw")}


def measurements(
    source: Sequences, means: Mapping[str, float], kinds: Mapping[str, tuple[str, str]]
) -> dict[str, Measurement]:
    """Means of nats per test sequence as nats per frame (total nats by total frames), and as bits per value of sound.

    Args:
        source: where the sequences came from.
        means: {name: mean over the test sequences of minus a log-probability, or of a part of one, in nats}.
        kinds: {name: (kind, how it was found)} of log-probabilities; the others are of kind "none".
    """
    found, unit = {}, f"nats/{source.unit}"
    for name, mean in means.items():
        kind, how = kinds.get(name, ("none", "a part of the bound"))
        each = mean * source.dataset.size("test") / source.num_frames("test")
        # The distortion is all of it that has the data's units; a rate has none.
        each += source.added if name in kinds or name == "distortion" else 0.0
        protocol = f"{source.protocol}, {how}"
        found[f"{name}_per_{source.unit}"] = Measurement(each, unit, kind, "test", protocol)
        if source.kind == "speech" and name in kinds:
            bits = each / math.log(2) / source.frame_shape[0]
            found[f"{name}_bits_per_sample"] = Measurement(bits, "bits/sample", kind, "test", protocol)
    return found
