"""From a source's name to a data set."""

from typing import Any

from jgen.data import embedded
from jgen.data.pipeline import Dataset

SOURCES = ("digits",)


def load(source: str, *, seed: int = 0, **options: Any) -> Dataset:
    """The data set that `source` names.

    Args:
        source: "digits", ...
        seed: of the splits that a source does not give itself.

    Raises:
        ValueError: there is no such source.
    """
    if source == "digits":
        return embedded.digits()
    raise ValueError(f"`source` must be one of {', '.join(SOURCES)}, got {source!r}.")
