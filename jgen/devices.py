"""How batches and states lie on the devices: batches are split, states copied or split."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jgen import random


def placement(
    devices: Sequence[Any], *, shard_state: bool
) -> tuple[Callable[[Any], Any], Callable[[Any], Any], jax.sharding.Sharding]:
    """(place, sharding_of, copy) over a mesh with the one axis "data".

    Args:
        devices: the mesh; of all processes, where there are several.
        shard_state: split the leaves of a state along their first axis where it divides, instead of copying them.

    Returns:
        place: (batch) -> the batch, split over devices; each process feeds its own rows. Raises ValueError where the
            batch size is not a multiple of the number of devices.
        sharding_of: (pytree of shapes) -> the sharding of each leaf of a state.
        copy: the sharding that copies to every device.
    """
    num = len(devices)
    mesh = jax.sharding.Mesh(np.asarray(devices), ("data",))
    spec = jax.sharding.PartitionSpec
    split, copy = jax.sharding.NamedSharding(mesh, spec("data")), jax.sharding.NamedSharding(mesh, spec())

    def place(batch: Any) -> Any:
        size = random.batch_size(batch)
        if size % num:
            raise ValueError(f"`batch_size` must be a multiple of the {num} devices, got {size}.")
        if jax.process_count() == 1:
            return batch if num == 1 else jax.device_put(batch, split)
        part = size // jax.process_count()
        rows = slice(jax.process_index() * part, (jax.process_index() + 1) * part)
        return {k: jax.make_array_from_process_local_data(split, np.asarray(v)[rows]) for k, v in batch.items()}

    def sharding_of(shape: Any) -> Any:
        def choose(leaf: Any) -> Any:
            return split if shard_state and leaf.ndim and leaf.shape[0] and leaf.shape[0] % num == 0 else copy

        return jax.tree.map(choose, shape)

    return place, sharding_of, copy
