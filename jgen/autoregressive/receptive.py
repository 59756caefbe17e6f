"""Receptive fields by construction: what convolutions over images read, as boolean matrices over positions.

[d, j] is True where position d reads position j, positions in raster order, channels last. Layers multiply; paths that
would leave the image end in the padding, as they do in the convolutions.
"""

import numpy as np
from jaxtyping import Bool

Reads = Bool[np.ndarray, "positions positions"]


def masked(shape: tuple[int, int, int], size: tuple[int, int], kind: str) -> Reads:
    """What a `MaskedConv` of `size` and `kind` reads, one group of features per channel."""
    down, right, earlier = _offsets(shape)
    near = (down >= 0) & (down <= size[0] // 2) & (np.abs(right) <= size[1] // 2)
    own = earlier > 0 if kind == "A" else earlier >= 0
    return near & ((down > 0) | (right > 0) | ((right == 0) & own))


def rows(shape: tuple[int, int, int], size: int, *, exclusive: bool = False) -> Reads:
    """What a `RowConv` reads: whole rows of its kernel, of all channels."""
    down, right, _ = _offsets(shape)
    return (down >= exclusive) & (down <= size // 2) & (np.abs(right) <= size // 2)


def after(layer: Reads, before: Reads) -> Reads:
    """What `layer` reads through the features that `before` gives."""
    return layer.astype(np.float32) @ before.astype(np.float32) > 0


def _offsets(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How far j lies above d, to the left of d, and before d in the channels."""
    i, j, c = (axis.ravel() for axis in np.indices(shape))
    return i[:, None] - i[None], j[:, None] - j[None], c[:, None] - c[None]
