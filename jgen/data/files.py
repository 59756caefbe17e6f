"""The user's own files: which reader a path gets.

| path | reader | x |
|---|---|---|
| .npz | `archives.npz` | images or rows in named arrays |
| a folder of idx files | `archives.idx` | MNIST's four files, .gz or not |
| one idx file (its name holds "idx") | `archives.idx_file` | images or rows |
| .amat, or a folder of them | `tables.amat` | binary rows |
| .csv | `tables.csv` | rows of numbers |
| .txt | `text.corpus` | tokens |
| a folder of .wav | `media.sound` | windows of sound |
| a folder of .png, .jpg | `media.images` | images |
"""

import pathlib

from jgen._checks import at_least
from jgen.data import archives, media, tables, text
from jgen.data.arrays import Path, check_holdout, wrong
from jgen.data.pipeline import Dataset

FORMATS = (
    ".npz, .csv, .txt or .amat, an idx file (.gz or not), or a folder of idx files, .amat files, pictures (.png, .jpg) "
    "or sound (.wav)"
)


def load_file(
    path: Path,
    seed: int = 0,
    *,
    holdout: tuple[float, float] | None = None,
    length: int | None = None,
    unit: str = "characters",
) -> Dataset:
    """The data set in a file or folder; the table above says which reader takes it.

    Args:
        path: of the file or folder.
        seed: of the permutation by which missing splits are drawn.
        holdout: (valid, test) shares, for what is not given; by default 10 % each, for text 5 % each.
        length: of a window of text or sound; for these alone.
        unit: of text.

    Raises:
        ValueError: an unknown format, or a file that its reader refuses: its name, what was expected, what was found.
    """
    path = pathlib.Path(path).expanduser()
    if holdout is not None:
        check_holdout(holdout)
    if length is not None:
        at_least("length", length, 1)
    if path.is_dir():
        return _load_folder(path, seed, holdout, length)
    suffix = path.suffix.lower()
    if suffix == ".txt":
        return text.corpus(path, unit=unit, holdout=holdout).windows(length or text.LENGTH)
    if length is not None:
        raise wrong(path, "text or sound, which `length` is for", f"a {suffix or 'nameless'} file")
    if suffix in (readers := {".npz": archives.npz, ".csv": tables.csv, ".amat": tables.amat}):
        return readers[suffix](path, seed, holdout)
    if "idx" in path.name:
        return archives.idx_file(path, seed, holdout)
    raise wrong(path, FORMATS, f"a file that ends in {suffix!r}" if suffix else "a file without an ending")


def _load_folder(folder: pathlib.Path, seed: int, holdout: tuple[float, float] | None, length: int | None) -> Dataset:
    suffixes = {file.suffix.lower() for file in folder.rglob("*") if file.is_file()}
    if ".wav" in suffixes:
        return media.sound(folder, seed, holdout, length)
    if length is not None:
        raise wrong(folder, "text or sound, which `length` is for", "a folder without .wav files")
    if archives.idx_files(folder):
        return archives.idx(folder, seed, holdout)
    if tables.amat_files(folder):
        return tables.amat(folder, seed, holdout)
    if suffixes & set(media.IMAGE_SUFFIXES):
        return media.images(folder, seed, holdout)
    raise wrong(folder, FORMATS, f"a folder with files of {sorted(suffixes)}" if suffixes else "an empty folder")
