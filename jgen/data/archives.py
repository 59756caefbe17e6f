"""Binary array files: NumPy's .npz and MNIST's idx. Nothing in them is executed; no header is believed unchecked."""

import gzip
import math
import pathlib
import re
import struct
import zipfile
import zlib
from typing import IO, Any

import numpy as np

from jgen.data.arrays import Path, bounded, build, whole_labels, wrong
from jgen.data.pipeline import Dataset

NPZ_NAMES = {
    "train": ("train", "train_x", "train_images", "x_train", "x", "images", "data", "arr_0"),
    "valid": ("valid", "valid_x", "valid_images", "x_valid", "val", "x_val"),
    "test": ("test", "test_x", "test_images", "x_test"),
}
NPZ_LABELS = {
    "train": ("train_label", "train_labels", "train_y", "y_train", "label", "labels", "y", "target"),
    "valid": ("valid_label", "valid_labels", "valid_y", "y_valid", "val_label", "val_labels", "y_val"),
    "test": ("test_label", "test_labels", "test_y", "y_test"),
}
_IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def npz(path: Path, seed: int = 0, holdout: tuple[float, float] | None = None) -> Dataset:
    """An .npz archive: `train`, optionally `valid`, `test`, and `train_label`, `valid_label`, `test_label`.

    Images are (n, h, w) or (n, h, w, c), rows (n, d); `NPZ_NAMES` and `NPZ_LABELS` list the other names that are taken
    for the same, such as Keras' x_train. Object arrays (pickles) are refused.

    Raises:
        ValueError: a broken archive, an array with an unknown name, or what `build` refuses.
    """
    arrays, parts = read_npz(path), {}
    for split, names in NPZ_NAMES.items():
        if found := _one(path, names, arrays):
            parts[split] = {"x": arrays.pop(found)}
            if label := _one(path, NPZ_LABELS[split], arrays):
                parts[split]["label"] = whole_labels(path, label, np.atleast_1d(arrays.pop(label).squeeze()))
    if "train" not in parts or arrays:
        expected = f"an array {NPZ_NAMES['train'][0]!r}, and no others than valid, test and their labels"
        raise wrong(path, expected, f"{sorted([*parts, *arrays]) or 'none'}")
    if len({frozenset(arrays) for arrays in parts.values()}) != 1:
        raise wrong(path, "labels in all splits or in none", f"{ {s: sorted(a) for s, a in parts.items()} }")
    return build(pathlib.Path(path).stem, path, parts, seed, holdout)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, by name; ValueError when it is broken, too large, or holds Python objects."""
    try:
        with zipfile.ZipFile(path) as archive:
            bounded(path, sum(info.file_size for info in archive.infolist()))
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            return {info.filename[:-4]: _read_npy(path, archive, info) for info in members}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise wrong(path, "a NumPy .npz archive", f"a broken one ({error})") from error


def _read_npy(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One member: its header first, so that a false shape allocates nothing."""
    with archive.open(info) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = read(file)
        except ValueError as error:
            raise wrong(path, f"an array in {info.filename}", f"a broken header ({error})") from error
        if dtype.hasobject:
            raise wrong(path, f"numbers in {info.filename}", "Python objects, which are never unpickled")
        data = file.read()
    if len(data) != math.prod(shape) * dtype.itemsize:
        found = f"{len(data):,} bytes where {shape} of {dtype} needs {math.prod(shape) * dtype.itemsize:,}"
        raise wrong(path, f"a whole array in {info.filename}", found)
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")


def _one(path: Path, names: tuple[str, ...], arrays: dict[str, np.ndarray]) -> str | None:
    found = [name for name in names if name in arrays]
    if len(found) > 1:
        raise wrong(path, f"one array of {names}", f"{found}")
    return found[0] if found else None


def idx_files(folder: pathlib.Path) -> dict[tuple[str, str], pathlib.Path]:
    """{(split, "x" or "label"): file} of a folder with MNIST's files; names as published, .gz or not."""
    pattern = re.compile(r"(?:.*[-_])?(train|t10k|test|valid)-(images|labels)[-.]idx\d-ubyte(?:\.gz)?")
    result = {}
    for file in sorted(folder.iterdir()):
        if match := pattern.fullmatch(file.name):
            split, kind = match[1].replace("t10k", "test"), {"images": "x", "labels": "label"}[match[2]]
            if (split, kind) in result and result[split, kind].name.removesuffix(".gz") != file.name.removesuffix(
                ".gz"
            ):
                raise wrong(folder, f"one file of {split} {match[2]}", f"{result[split, kind].name} and {file.name}")
            result.setdefault((split, kind), file)
    return result


def idx(folder: Path, seed: int = 0, holdout: tuple[float, float] | None = None) -> Dataset:
    """A folder of MNIST's idx files: x uint8 (n, 28, 28, 1), label; valid is split off from train.

    Raises:
        ValueError: the training images are missing, or a file is broken, truncated or of the wrong rank.
    """
    files, parts = idx_files(pathlib.Path(folder)), {}
    if ("train", "x") not in files:
        raise wrong(
            folder, "train-images-idx3-ubyte or train-images-idx3-ubyte.gz", f"{[f.name for f in files.values()]}"
        )
    labelled = all((split, "label") in files for split, kind in files if kind == "x")
    for (split, kind), file in files.items():
        array = read_idx(file)
        if kind == "label" and array.ndim != 1:
            raise wrong(file, "labels (n,)", f"{array.shape}")
        if kind == "x" or labelled:
            parts.setdefault(split, {})[kind] = array if kind == "x" else whole_labels(file, "labels", array)
    return build(pathlib.Path(folder).resolve().name, folder, parts, seed, holdout)


def idx_file(path: Path, seed: int = 0, holdout: tuple[float, float] | None = None) -> Dataset:
    """One idx file of images or rows, without labels; valid and test are split off."""
    return build(pathlib.Path(path).name.split(".")[0], path, {"train": {"x": read_idx(path)}}, seed, holdout)


def read_idx(path: Path) -> np.ndarray:
    """The array of an idx file: magic 0, 0, type, rank; big-endian sizes; values. gzip where the name ends in .gz.

    Raises:
        ValueError: another magic, sizes beyond `MAX_BYTES`, or fewer or more bytes than the sizes say.
    """
    opened: IO[bytes] | Any = gzip.open(path) if str(path).endswith(".gz") else open(path, "rb")  # noqa: SIM115
    with opened as file:
        try:
            magic = file.read(4)
            if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in _IDX_TYPES or not 1 <= magic[3] <= 5:
                raise wrong(path, "an idx file (magic 0, 0, type, rank)", f"{magic!r}")
            sizes = file.read(4 * magic[3])
            if len(sizes) < 4 * magic[3]:
                raise wrong(path, f"{magic[3]} sizes in the header", f"the end of the file after {len(sizes)} bytes")
            shape, dtype = struct.unpack(f">{magic[3]}I", sizes), np.dtype(_IDX_TYPES[magic[2]])
            needed = math.prod(shape) * dtype.itemsize
            bounded(path, needed)
            data = file.read(needed + 1)
        except (gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise wrong(path, "a whole gzip file", f"a broken or truncated one ({error})") from error
    if len(data) != needed:
        raise wrong(
            path,
            f"{needed:,} bytes of {shape} after the header",
            f"{min(len(data), needed):,}" if len(data) < needed else "more",
        )
    return np.frombuffer(data, dtype).reshape(shape)
