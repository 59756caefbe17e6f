"""Data sets as pure functions of (seed, step)."""

from jgen.data.load import load
from jgen.data.pipeline import Data, Dataset, in_memory

__all__ = ["Data", "Dataset", "in_memory", "load"]
