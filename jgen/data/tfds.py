"""TensorFlow Datasets, read from prepared array_record files: without TensorFlow and without a network.

A source is "tfds:NAME", where NAME is `mnist`, `omniglot:3.0.0`, `glue/cola` and the like. Sets lie in the directory
that the environment variable TFDS_DATA_DIR names, by default ~/tensorflow_datasets; "tfds:NAME?data_dir=DIR" names
another. The newest version there is read. Preparing a set is a step of its own, for it needs TensorFlow and, for most
sets, a network:

    pip install "jgen[prepare]"
    python -c "import tensorflow_datasets as tfds; \\
        tfds.builder('mnist', file_format='array_record').download_and_prepare()"

Files that were downloaded by hand are found through
`download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=DIR))`.
"""

import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jgen.data import text
from jgen.data.arrays import bounded, build, hold_out, wrong
from jgen.data.media import WAV_LENGTH, windows
from jgen.data.pipeline import SPLITS, Dataset

_SPLIT_NAMES = {
    "train": "train",
    "validation": "valid",
    "valid": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
}
_CHUNK = 2_048
_NAME = re.compile(r"(?P<set>\w+(?:/[\w.+-]+)?)(?::(?P<version>\d+\.\d+\.\d+))?(?:\?data_dir=(?P<data_dir>.+))?")


class _Set(NamedTuple):
    """An opened set: its directory, its splits under our names, and the features that count."""

    name: str
    folder: pathlib.Path
    splits: dict[str, Any]
    kind: str
    key: str
    label: str | None
    label_names: tuple[str, ...] | None
    sample_rate: int | None


def load(
    name: str,
    *,
    seed: int = 0,
    holdout: tuple[float, float] | None = None,
    length: int | None = None,
    unit: str = "characters",
) -> Dataset:
    """A prepared set of images (x, label), of sound (x: windows, label) or of text (tokens).

    The first feature of such a type counts. A split that the set does not have is drawn from train: by a permutation
    for images and recordings, the end of it for text. Splits with other names are not read.

    Args:
        name: what follows "tfds:".
        seed: of the permutation.
        holdout: (valid, test) shares for missing splits.
        length: of a window of text or sound.
        unit: of text: "characters" or "bytes".

    Raises:
        ValueError: a malformed name; the set is not prepared, or not as array_record; its examples are neither images
            of one size nor sound nor text.
    """
    if not (match := _NAME.fullmatch(name)):
        expected = "tfds:NAME, tfds:NAME/CONFIG:VERSION or tfds:NAME?data_dir=DIR"
        raise ValueError(f"`source` must be {expected}, got {'tfds:' + name!r}.")
    found = _open(match["set"], prepared(match["set"], match["version"], match["data_dir"]))
    if found.kind == "text":
        return _text(found, unit, holdout).windows(text.LENGTH if length is None else length)
    if found.kind == "audio":
        return _sound(found, seed, holdout, WAV_LENGTH if length is None else length)
    if length is not None:
        raise wrong(found.folder, "text or sound, which `length` is for", "images")
    parts = {split: _images(found, source) for split, source in found.splits.items()}
    return build(found.name, found.folder, parts, seed, holdout, label_names=found.label_names)


def _open(name: str, folder: pathlib.Path) -> _Set:
    import tensorflow_datasets as tfds  # half a second, and for these sources alone

    try:
        builder = tfds.builder_from_directory(folder)
        sources: Any = builder.as_data_source()
    except Exception as error:  # whatever the library meets in broken or foreign files
        raise wrong(folder, f"a set in array_record files ({_how(name)})", f"{error}") from error
    splits = {_SPLIT_NAMES[split]: source for split, source in sources.items() if split in _SPLIT_NAMES}
    if "train" not in splits:
        raise wrong(folder, "a split train", f"{list(sources)}")
    described: Any = builder.info.features
    features = dict(described.items())
    kinds = {tfds.features.Image: "image", tfds.features.Audio: "audio", tfds.features.Text: "text"}
    found = [(kind, key) for known, kind in kinds.items() for key, f in features.items() if type(f) is known]
    if not found:
        raise wrong(folder, "a feature Image, Audio or Text", f"{ {k: type(f).__name__ for k, f in features.items()} }")
    kind, key = found[0]
    labels = [k for k, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    label = "label" if "label" in labels else next(iter(labels), None)
    names = tuple(features[label].names) if label else None
    rate = features[key].sample_rate if kind == "audio" else None
    return _Set(name, folder, {s: splits[s] for s in SPLITS if s in splits}, kind, key, label, names, rate)


def prepared(name: str, version: str | None = None, data_dir: str | None = None) -> pathlib.Path:
    """The directory of a prepared set; ValueError that says how to prepare it when there is none."""
    default = os.environ.get("TFDS_DATA_DIR", os.path.join("~", "tensorflow_datasets"))
    root = pathlib.Path(data_dir or default).expanduser() / name
    found = [path.parent for path in root.glob("*/dataset_info.json")] if root.is_dir() else []
    versions = {tuple(map(int, p.name.split("."))): p for p in found if re.fullmatch(r"\d+\.\d+\.\d+", p.name)}
    if version:
        versions = {number: path for number, path in versions.items() if path.name == version}
    if versions:
        return versions[max(versions)]
    configs = sorted({path.parent.parent.name for path in root.glob("*/*/dataset_info.json")})
    found_instead = f"only configurations {configs}, name one as {name}/{configs[0]}" if configs else "none"
    raise wrong(
        root, f"a prepared set {name}{f' of version {version}' if version else ''} ({_how(name)})", found_instead
    )


def _how(name: str) -> str:
    return (
        "prepare it with: pip install 'jgen[prepare]'; python -c \"import tensorflow_datasets as tfds; "
        f"tfds.builder('{name}', file_format='array_record').download_and_prepare()\"; "
        "or name its place in TFDS_DATA_DIR or as ?data_dir=DIR"
    )


def _examples(found: _Set, source: Any) -> Iterator[dict[str, Any]]:
    for first in range(0, len(source), _CHUNK):
        last = min(first + _CHUNK, len(source))
        try:
            examples = source.__getitems__(list(range(first, last)))
        except Exception as error:
            raise wrong(found.folder, f"readable examples {first} to {last - 1}", f"{error}") from error
        yield from examples


def _images(found: _Set, source: Any) -> dict[str, np.ndarray]:
    """x (n, h, w, c) of one split, filled in chunk by chunk."""
    x: np.ndarray | None = None
    labels = np.zeros(len(source), np.int32)
    for i, example in enumerate(_examples(found, source)):
        image = np.asarray(example[found.key])
        if x is None:
            bounded(found.folder, len(source) * image.nbytes)
            x = np.empty((len(source), *image.shape), image.dtype)
        if image.shape != x.shape[1:]:
            raise wrong(found.folder, f"images of one size, such as {x.shape[1:]}", f"{image.shape}")
        x[i] = image
        labels[i] = example[found.label] if found.label else 0
    if x is None:
        raise wrong(found.folder, "examples", "none")
    return {"x": x, "label": labels} if found.label else {"x": x}


def _sound(found: _Set, seed: int, holdout: tuple[float, float] | None, length: int) -> Dataset:
    """Recordings are split first and cut then."""
    recordings = {
        split: [_recording(found, e) for e in _examples(found, source)] for split, source in found.splits.items()
    }
    numbers = {
        split: {"row": np.arange(len(rows)), "from": np.full(len(rows), split)} for split, rows in recordings.items()
    }
    parts = {}
    for split, arrays in hold_out(found.folder, numbers, seed, holdout).items():
        chosen = [recordings[str(s)][i] for s, i in zip(arrays["from"], arrays["row"], strict=True)]
        cut = [windows(values, length) for values, _ in chosen]
        if not sum(map(len, cut)):
            raise wrong(found.folder, f"a recording of at least {length} values in {split}", "none")
        parts[split] = {"x": np.concatenate(cut)}
        if found.label:
            parts[split]["label"] = np.repeat([n for _, n in chosen], [len(w) for w in cut]).astype(np.int32)
    return Dataset(found.name, parts, label_names=found.label_names, sample_rate=found.sample_rate)


def _recording(found: _Set, example: dict[str, Any]) -> tuple[np.ndarray, int]:
    """(values (n,) float32, the mean of the channels; label). Whole numbers are taken for 16 bits."""
    values = np.asarray(example[found.key])
    scaled = np.asarray(values / 2**15 if values.dtype.kind in "iu" else values, np.float32)
    return scaled.reshape(len(scaled), -1).mean(axis=1), int(example[found.label]) if found.label else 0


def _text(found: _Set, unit: str, holdout: tuple[float, float] | None) -> text.Corpus:
    """The texts of a split are joined by line feeds."""

    def decode(value: str | bytes) -> str:
        return value if isinstance(value, str) else value.decode("utf-8", "replace")

    parts = {s: "\n".join(decode(e[found.key]) for e in _examples(found, source)) for s, source in found.splits.items()}
    return text.from_parts(found.name, parts, unit=unit, holdout=holdout)
