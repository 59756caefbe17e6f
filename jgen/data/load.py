"""From a source's name to a data set."""

import os
from collections.abc import Callable

from jgen._checks import at_least
from jgen.data import embedded, files, letters, pairs, sprites, text, tfds, toys
from jgen.data.arrays import check_holdout
from jgen.data.pipeline import Dataset

_SIZED = {"patches": embedded.patches, "photos": embedded.photos, "sprites": sprites.sprites}
SOURCES = (
    "digits",
    "letters",
    *_SIZED,
    *(f"{name}:SIZE" for name in _SIZED),
    *(f"table:{name}" for name in embedded.TABLES),
    "eeg",
    "text",
    *(f"toy:{name}" for name in toys.SETS),
    *(f"pairs:{name}" for name in pairs.SETS),
    "tfds:NAME",
)


def load(
    source: str,
    *,
    seed: int = 0,
    holdout: tuple[float, float] | None = None,
    length: int | None = None,
    unit: str = "characters",
) -> Dataset:
    """The data set that `source` names.

    | source | x (or tokens) | more |
    |---|---|---|
    | "digits" | uint8 (n, 8, 8, 1), 17 levels | `embedded.digits` |
    | "letters" | uint8 (n, 8, 8, 1), 17 levels, synthetic | `letters.letters` |
    | "patches", "patches:16" | uint8 (n, 8, 8, 1), grey | `embedded.patches` |
    | "photos", "photos:16" | uint8 (n, 32, 32, 3) | `embedded.photos` |
    | "sprites", "sprites:32" | uint8 (n, 16, 16, 1), 17 levels, synthetic, with factors | `sprites.sprites` |
    | "table:iris", wine, breast_cancer, diabetes | float32 (n, d) | `embedded.table` |
    | "eeg" | float32 (4, time), series | `embedded.eeg` |
    | "text" | tokens int32 (n, length) | `text`, for streams as well |
    | "toy:two_moons", ... | float32 (n, 2), synthetic | `toys` |
    | "pairs:reverse", "pairs:addition" | source, target int32 (n, length), synthetic | `pairs` |
    | "tfds:mnist", "tfds:NAME?data_dir=DIR" | as the set has it | `tfds`, how to prepare one |
    | a path | as the file has it | `files`, the formats |

    Args:
        source: a name of the table, or the path of a file or folder ("./digits" where a name would be taken for one).
        seed: of the toys' draws, and of the permutation by which splits that a source does not give are drawn.
        holdout: (valid, test) shares for splits that a source does not give; by default 10 % each, for text 5 % each.
        length: of a window of text (100) or of sound (1,024 values); for these alone.
        unit: the tokens of text: "characters", "bytes", or the path of a tokenizer file, NAME.json.

    Raises:
        ValueError: there is no such source, the file is broken, or an argument does not belong to the source.
    """
    at_least("seed", seed, 0)
    if holdout is not None:
        check_holdout(holdout)
    name, _, argument = source.partition(":")
    if source == "text":
        return text.corpus("text", unit=unit, holdout=holdout).windows(text.LENGTH if length is None else length)
    if name == "tfds":
        return tfds.load(argument, seed=seed, holdout=holdout, length=length, unit=unit)
    if (known := _embedded(source, name, argument, seed)) is not None:
        if length is not None:
            raise ValueError(
                f"`length` must be left out unless the source is text or sound, got {length} for {source!r}."
            )
        return known()
    if os.path.exists(os.path.expanduser(source)):
        return files.load_file(source, seed, holdout=holdout, length=length, unit=unit)
    raise ValueError(f"`source` must be one of {', '.join(SOURCES)}, or a path that exists, got {source!r}.")


def _embedded(source: str, name: str, argument: str, seed: int) -> Callable[[], Dataset] | None:
    if source in ("digits", "eeg"):
        return getattr(embedded, source)
    if source == "letters":
        return letters.letters
    if source in _SIZED:
        return _SIZED[source]
    if name in _SIZED and argument.isdecimal():
        return lambda: _SIZED[name](int(argument))
    if name == "table":
        return lambda: embedded.table(argument)
    if name == "pairs":
        return lambda: pairs.dataset(argument, seed)
    return (lambda: toys.dataset(argument, seed)) if name == "toy" else None
