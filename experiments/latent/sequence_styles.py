"""Style and content of conditional sequence models: the style of one sequence on the content of another."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.latent import sequence_pictures
from experiments.latent.sequences import Sequences
from jgen._types import Key
from jgen.latent import vrnn
from jgen.metrics.measurement import Measurement

NUM_STYLES, NUM_CONTENTS = 6, 9
NEIGHBOURS = 5


def means(network: vrnn.Network, source: Sequences, state: Any, split: str) -> np.ndarray:
    """E[s | x] of the sequences of a split, (n, style_size), in the order of `Data.batches`, which `order` gives."""
    encode = jax.jit(lambda params, batch: vrnn.style(params, batch, network=network).mean)
    return np.concatenate([np.asarray(encode(state.params, b))[:n] for b, n in source.data.batches(split)])


def classes(source: Sequences, split: str, name: str) -> np.ndarray:
    """The classes of the sequences of a split, in the same order."""
    return np.concatenate([np.asarray(batch[name])[:n] for batch, n in source.data.batches(split)])


def probes(network: vrnn.Network, source: Sequences, state: Any) -> dict[str, Measurement]:
    """How often the nearest styles of training sequences tell whose a test sequence is, and what it says.

    A style that knows its content would overrule the content that it is given.
    """
    from sklearn.neighbors import KNeighborsClassifier

    train, test = (means(network, source, state, split) for split in ("train", "test"))
    found = {}
    for name in ("style", "label"):
        if name not in source.dataset.splits["train"]:
            continue
        known, asked = (classes(source, split, name) for split in ("train", "test"))
        guess = KNeighborsClassifier(NEIGHBOURS).fit(train, known).predict(test)
        chance = np.bincount(known).max() / len(known)
        protocol = f"{source.dataset.name}, {NEIGHBOURS} nearest styles; the most frequent class: {chance:.1%}"
        found[f"{name}_told_by_style"] = Measurement(float(np.mean(guess == asked)), "share", "none", "test", protocol)
    return found


def draw(network: vrnn.Network, source: Sequences, key: Key, state: Any, directory: pathlib.Path) -> None:
    """Writes style_content.png: a row per style of a test sequence (the first column), a column per content."""
    test = source.dataset.splits["test"]
    owner = np.asarray(test.get("style", np.arange(len(test["x"]))))
    rows = np.unique(owner, return_index=True)[1]
    rows = rows[np.linspace(0, len(rows) - 1, min(NUM_STYLES, len(rows))).astype(int)]
    contents = np.linspace(0, source.num_labels() - 1, min(NUM_CONTENTS, source.num_labels())).astype(int)
    batch = {name: jnp.asarray(np.asarray(test[name])[rows]) for name in ("x", "mask", "label")}
    style = vrnn.style(state.params, batch, network=network).mean
    num, longest = len(rows) * len(contents), source.dataset.shape[0]
    many = {"label": jnp.tile(contents, len(rows)), "style": jnp.repeat(style, len(contents), axis=0)}
    drawn = vrnn.sample(key, state.params, num, longest, network=network, **many)
    of, sheet, real = sequence_pictures.shown(source, "test", rows), [], []
    for i, row in enumerate(rows):
        sheet += [of[i], *np.asarray(drawn[i * len(contents) : (i + 1) * len(contents)])]
        real += [of[i], *(_real(source, int(owner[row]), int(content)) for content in contents)]
    named = {"whose style (first column), then drawn": sheet}
    if "style" in test:
        named["the same from the data"] = real
    sequence_pictures.draw(directory, "style_content", source, named, columns=1 + len(contents))


def _real(source: Sequences, style: int, content: int) -> np.ndarray:
    """A sequence of the data of this style and content; one without a line where there is none."""
    for split, arrays in source.dataset.splits.items():
        found = np.flatnonzero((np.asarray(arrays["style"]) == style) & (np.asarray(arrays["label"]) == content))
        if len(found):
            return sequence_pictures.shown(source, split, found[:1])[0]
    return np.zeros((1, *source.frame_shape))
