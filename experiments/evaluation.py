"""Averages over a split, of whatever an experiment measures per example."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jgen._types import Batch, Key
from jgen.data.pipeline import Data


def averages(key: Key, data: Data, split: str, function: Callable[[Key, Batch], dict[str, Any]]) -> dict[str, float]:
    """Means over a split of `function`: (key, batch) -> {name: (batch,)}; compiled once, every example counted once."""
    compiled, sums, total = jax.jit(function), {}, 0
    for i, (batch, num) in enumerate(data.batches(split)):
        for name, values in jax.device_get(compiled(jax.random.fold_in(key, i), batch)).items():
            sums[name] = sums.get(name, 0.0) + float(values[:num].sum(dtype=np.float64))
        total += num
    return {name: value / total for name, value in sums.items()}
