"""Folders of pictures (PNG, JPEG) and of sound (.wav)."""

import concurrent.futures
import pathlib
import re
import warnings
import wave
from typing import NamedTuple

import numpy as np
from PIL import Image

from jgen._checks import at_least, one_of
from jgen.data.arrays import Path, bounded, build, classes, hold_out, wrong
from jgen.data.pipeline import Dataset

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")
MAX_PIXELS = 2**26
"""The most pixels of one picture; a small file cannot unpack to more."""
WAV_LENGTH = 1_024
"""Values in a window of sound, where none is asked for."""
SPOKEN_DIGIT = re.compile(r"\d_[^_]+_\d+\.wav")
"""Names of the files of the Free Spoken Digit Dataset."""
_SPLIT_FOLDERS = {"train": "train", "valid": "valid", "val": "valid", "validation": "valid", "test": "test"}


def images(folder: Path, seed: int = 0, holdout: tuple[float, float] | None = None) -> Dataset:
    """A folder of PNG or JPEG pictures of one size: x uint8 (n, h, w, 1), or (n, h, w, 3) where one has colours.

    Subfolders are classes; subfolders train, valid (or val) and test are splits, and may hold classes. Transparency is
    dropped. What is not given is split off.

    Raises:
        ValueError: no picture, a broken one, one of more than `MAX_PIXELS` or 16 bits, or two sizes.
    """
    root = pathlib.Path(folder)
    labelled, splits = _tree(root, IMAGE_SUFFIXES)
    files = [file for split in splits.values() for file, _ in split]
    sizes = {file: _size(file) for file in files}
    for file in files:
        if sizes[file] != sizes[files[0]]:
            raise wrong(file, f"{sizes[files[0]]} pixels as in {files[0].name}", f"{sizes[file]}")
    bounded(folder, 3 * len(files) * sizes[files[0]][0] * sizes[files[0]][1])
    with concurrent.futures.ThreadPoolExecutor() as pool:
        read = dict(zip(files, pool.map(_pixels, files), strict=True))
    if any(x.ndim == 3 for x in read.values()):
        read = {file: x if x.ndim == 3 else np.repeat(x[..., None], 3, axis=-1) for file, x in read.items()}
    parts = {split: {"x": np.stack([read[file] for file, _ in rows])} for split, rows in splits.items()}
    names = _add_labels(parts, splits) if labelled else None
    parts = {s: {**a, "x": a["x"] if a["x"].ndim == 4 else a["x"][..., None]} for s, a in parts.items()}
    return build(root.resolve().name, folder, parts, seed, holdout, levels=256, label_names=names)


def _tree(root: pathlib.Path, suffixes: tuple[str, ...]) -> tuple[bool, dict[str, list[tuple[pathlib.Path, str]]]]:
    """(are there classes, {split: [(file, class)]}), in the order of names."""
    folders = {path.name.lower(): path for path in sorted(root.iterdir()) if path.is_dir()}
    roots = {_SPLIT_FOLDERS[name]: path for name, path in folders.items() if name in _SPLIT_FOLDERS}
    splits = {}
    for split, top in (roots if "train" in roots else {"train": root}).items():
        files = [f for f in sorted(top.rglob("*")) if f.suffix.lower() in suffixes and f.is_file()]
        if not files:
            raise wrong(top, f"files {', '.join(suffixes)}", "none")
        splits[split] = [(f, "" if f.parent == top else f.relative_to(top).parts[0]) for f in files]
    found = {label for rows in splits.values() for _, label in rows}
    if "" in found and len(found) > 1:
        raise wrong(
            root, "files in subfolders (classes) or beside each other", f"both, such as in {sorted(found)[1]!r}"
        )
    return "" not in found, splits


def _add_labels(
    parts: dict[str, dict[str, np.ndarray]], splits: dict[str, list[tuple[pathlib.Path, str]]]
) -> tuple[str, ...]:
    """Adds `label` to each split; returns the classes' names, which all splits share."""
    label, names = classes([name for rows in splits.values() for _, name in rows])
    first = 0
    for split, rows in splits.items():
        parts[split]["label"] = label[first : first + len(rows)]
        first += len(rows)
    return names


def _open(path: pathlib.Path) -> Image.Image:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # _size has a lower bound of its own
        return Image.open(path, formats=("PNG", "JPEG"))


def _size(path: pathlib.Path) -> tuple[int, int]:
    """(width, height), from the header alone."""
    try:
        with _open(path) as image:
            if image.size[0] * image.size[1] > MAX_PIXELS:
                raise wrong(path, f"at most {MAX_PIXELS:,} pixels", f"{image.size[0]} x {image.size[1]}")
            if image.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"):
                raise wrong(path, "8 bits a channel", f"mode {image.mode}")
            return image.size
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise wrong(path, "a PNG or JPEG picture", f"what cannot be read as one ({error})") from error


def _pixels(path: pathlib.Path) -> np.ndarray:
    """(h, w) where the picture is grey, else (h, w, 3)."""
    try:
        with _open(path) as image:
            return np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise wrong(path, "a whole picture", f"a broken or truncated one ({error})") from error


class Recordings(NamedTuple):
    """Whole recordings of any length.

    Attributes:
        name: how protocols call them.
        splits: {split: [values float32 (n,) in [-1, 1)]}.
        label: {split: int32 (recordings,)}; None where there are no classes.
        label_names: of the classes.
        sample_rate: values per second.
    """

    name: str
    splits: dict[str, list[np.ndarray]]
    label: dict[str, np.ndarray] | None
    label_names: tuple[str, ...] | None
    sample_rate: int


def recordings(folder: Path, seed: int = 0, holdout: tuple[float, float] | None = None) -> Recordings:
    """A folder of .wav files of one sample rate, whole. Channels are averaged. Subfolders are classes.

    Raises:
        ValueError: no recording, a broken or truncated one, or two sample rates.
    """
    root = pathlib.Path(folder)
    labelled, splits = _tree(root, (".wav",))
    files = [file for rows in splits.values() for file, _ in rows]
    read, rate = _read(folder, files)
    order = {file: i for i, file in enumerate(files)}
    numbers = {split: {"file": np.array([order[file] for file, _ in rows])} for split, rows in splits.items()}
    label, names = classes([name for rows in splits.values() for _, name in rows])
    parts = {split: rows["file"] for split, rows in hold_out(folder, numbers, seed, holdout).items()}
    values = {split: [read[i] for i in rows] for split, rows in parts.items()}
    labels = {split: label[rows] for split, rows in parts.items()} if labelled else None
    return Recordings(root.resolve().name, values, labels, names if labelled else None, rate)


def spoken_digits(folder: Path, label: str = "digit") -> Recordings:
    """The Free Spoken Digit Dataset: files DIGIT_SPEAKER_INDEX.wav; index 0-4 is its test part, 5-7 validates here.

    Origin: Jackson et al., 3,000 recordings of 6 speakers at 8 kHz, CC BY-SA 4.0.

    Args:
        folder: with the files.
        label: "digit", "speaker", or "both" (their pairs).

    Raises:
        ValueError: another label, a name of another form, a part without a recording, or a broken one.
    """
    one_of("label", label, ("digit", "speaker", "both"))
    root = pathlib.Path(folder)
    files = sorted(root.glob("*.wav"))
    if bad := [file.name for file in files if not SPOKEN_DIGIT.fullmatch(file.name)]:
        raise wrong(folder, "names such as 7_jackson_32.wav", bad[0])
    found = [file.stem.split("_") for file in files]
    index = np.array([int(number) for _, _, number in found])
    name = {"digit": "{0}", "speaker": "{1}", "both": "{0}_{1}"}[label]
    labels, names = classes([name.format(*parts) for parts in found])
    read, rate = _read(folder, files)
    where = {"train": index >= 8, "valid": (index >= 5) & (index < 8), "test": index < 5}
    rows = {split: np.flatnonzero(chosen) for split, chosen in where.items()}
    if empty := [split for split in rows if not rows[split].size]:
        raise wrong(folder, "recordings of index 0-4 (test), 5-7 (valid) and above (train)", f"none for {empty[0]}")
    values = {split: [read[i] for i in chosen] for split, chosen in rows.items()}
    return Recordings("spoken_digits", values, {s: labels[chosen] for s, chosen in rows.items()}, names, rate)


def _read(folder: Path, files: list[pathlib.Path]) -> tuple[list[np.ndarray], int]:
    """(the values of each file, their common sample rate)."""
    if not files:
        raise wrong(folder, "files .wav", "none")
    bounded(folder, 4 * sum(file.stat().st_size for file in files))
    read = [read_wav(file) for file in files]
    rates = {rate for _, rate in read}
    if len(rates) != 1:
        raise wrong(folder, "recordings of one sample rate", f"{sorted(rates)}")
    return [values for values, _ in read], rates.pop()


def sound(
    folder: Path, seed: int = 0, holdout: tuple[float, float] | None = None, length: int | None = None
) -> Dataset:
    """A folder of .wav files of one sample rate: x float32 (n, length) in [-1, 1), windows of `length` values.

    Recordings are split first and cut then, so that no recording is in two splits. Windows do not overlap; what is left
    of a recording after its last whole window is dropped. Channels are averaged. Subfolders are classes.

    Raises:
        ValueError: no recording, a broken or truncated one, two sample rates, or a split without a whole window.
    """
    whole, length = recordings(folder, seed, holdout), length or WAV_LENGTH
    parts = {}
    for split, values in whole.splits.items():
        cut = [windows(each, length) for each in values]
        if not sum(map(len, cut)):
            raise wrong(folder, f"a recording of at least {length} values in {split}", "none")
        parts[split] = {"x": np.concatenate(cut)}
        if whole.label is not None:
            parts[split]["label"] = np.repeat(whole.label[split], [len(windows) for windows in cut])
    return Dataset(whole.name, parts, label_names=whole.label_names, sample_rate=whole.sample_rate)


def windows_with_past(values: np.ndarray, length: int, past: int) -> tuple[np.ndarray, np.ndarray]:
    """(windows (num, length), mask): each value counts once, behind `past` others where there are so many before it.

    The first window counts from its beginning, the others after their first `past` values; zeros, uncounted, fill up
    the last. So a model that sees `past` values gives the whole its exact likelihood, window by window.

    Raises:
        ValueError: `past` is negative, or `length` does not exceed it.
    """
    at_least("past", past, 0)
    at_least("length", length, past + 1)
    num = 1 + max(0, -(-(len(values) - length) // (length - past)))
    index = (np.arange(num) * (length - past))[:, None] + np.arange(length)
    mask = (index < len(values)) & ((np.arange(length) >= past) | (np.arange(num)[:, None] == 0))
    return np.where(index < len(values), values[np.minimum(index, len(values) - 1)], 0), mask


def windows(values: np.ndarray, length: int) -> np.ndarray:
    """(n // length, length): windows without overlap; the rest is dropped."""
    num = len(values) // length
    return values[: num * length].reshape(num, length)


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """(values (n,) float32 in [-1, 1), the mean of the channels; samples per second). PCM of 8, 16, 24 or 32 bits."""
    try:
        with wave.open(str(path), "rb") as file:
            num, channels, width, rate = (
                file.getnframes(),
                file.getnchannels(),
                file.getsampwidth(),
                file.getframerate(),
            )
            data = file.readframes(num)
    except (wave.Error, EOFError) as error:
        raise wrong(path, "a PCM .wav file", f"what cannot be read as one ({error or 'it ends too soon'})") from error
    if not num or len(data) != num * channels * width:
        raise wrong(path, f"{max(num, 1) * channels * width:,} bytes of sound", f"{len(data):,}")
    if width == 1:  # the only unsigned one
        values = np.frombuffer(data, np.uint8).astype(np.float32) / 128 - 1
    else:
        padded = np.zeros((num * channels, 4), np.uint8)
        padded[:, 4 - width :] = np.frombuffer(data, np.uint8).reshape(-1, width)
        values = padded.view("<i4")[:, 0].astype(np.float64) / 2**31
    return values.reshape(num, channels).mean(axis=1).astype(np.float32), rate
