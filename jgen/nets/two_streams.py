"""The network of PixelCNN++: two streams of gated residual blocks over several resolutions, joined by short-cuts.

The vertical stream knows the rows above (kernels 2×3, over this row and the one before it of features that exclude
their row), the horizontal one all earlier pixels (kernels 2×2, to the left and above). A block of the horizontal stream
reads the vertical one's beside its own input. On the way down each resolution has half the rows and columns, pixel
(I, J) of it standing for (2I, 2J); on the way up it serves (2I..2I+1, 2J..2J+1), all of which come no earlier.

What a layer does is said here once; how it is carried out, over an image, a row or at a pixel, is in `Ways`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jgen.nets.weight_norm import NormConv, Padding

KERNELS: dict[str, tuple[tuple[int, int], Padding]] = {
    "v_stem": ((2, 3), ((2, -1), (1, 1))),
    "h_stem_above": ((1, 3), ((1, -1), (1, 1))),
    "h_stem_left": ((2, 1), ((1, 0), (1, -1))),
    "v": ((2, 3), ((1, 0), (1, 1))),
    "h": ((2, 2), ((1, 0), (1, 0))),
    "v_up": ((2, 3), ((1, 1), (1, 2))),
    "h_up": ((2, 2), ((1, 1), (1, 1))),
    "1x1": ((1, 1), ((0, 0), (0, 0))),
}
"""(rows, columns) and padding of all kernels: no output sees its own pixel in a stem, or a later one elsewhere."""


class Ways(NamedTuple):
    """How layers are carried out.

    Attributes:
        convolve: (name, x) -> the layer's output.
        read: (resolution, features of the vertical stream) -> those that belong to where the horizontal one stands.
        lower: (stream, resolution, h, body) -> (h from below, what `body` gave beside it), where `body` takes h at half
            the resolution.
    """

    convolve: Callable[[str, Any], Any]
    read: Callable[[int, Any], Any]
    lower: Callable[[str, int, Any, Callable[[Any], Any]], tuple[Any, Any]]


class Features(NamedTuple):
    """What the blocks of one resolution gave, and those below it: the links from one stream to the other."""

    down: list[Any]
    below: Any
    up: list[Any]


def concat_elu(x: Float[Array, "*batch features"]) -> Float[Array, "*batch twice"]:
    """elu(x) beside elu(−x)."""
    return jax.nn.elu(jnp.concatenate([x, -x], axis=-1))


class TwoStreams(nn.Module):
    """Features of every pixel from what comes before it.

    Attributes:
        features: of both streams.
        num_blocks: on the way down, at each resolution; one more on the way up but at the lowest.
        num_resolutions: each has half the rows and columns of the one before it.
        num_outputs: channels of the result.
        dropout_rate: inside the blocks, when a key is given.
    """

    features: int
    num_blocks: int
    num_resolutions: int
    num_outputs: int
    dropout_rate: float = 0.0

    def block(self, ways: Ways, name: str, h: Any, beside: list[Any]) -> Any:
        """h + a·σ(b), with a and b from h and what stands beside it."""
        inner = ways.convolve(f"{name}_in", concat_elu(h))
        if beside:
            inner = inner + ways.convolve(f"{name}_beside", concat_elu(jnp.concatenate(beside, axis=-1)))
        a, b = jnp.split(ways.convolve(f"{name}_out", concat_elu(inner)), 2, axis=-1)
        return h + a * jax.nn.sigmoid(b)

    def stream(self, ways: Ways, name: str, h: Any, links: Features | None, r: int = 0) -> tuple[Any, Features]:
        """A stream from resolution `r` down and up again; `links` are the vertical one's features."""
        skips, down, up, below = [h], [], [], None
        for n in range(self.num_blocks):
            beside = [] if links is None else [ways.read(r, links.down[n])]
            h = self.block(ways, f"{name}_{r}_down_{n}", h, beside)
            skips.append(h)
            down.append(h)
        if r + 1 < self.num_resolutions:
            lower = None if links is None else links.below
            h, below = ways.lower(name, r, h, lambda h: self.stream(ways, name, h, lower, r + 1))
        else:
            skips.pop()
        for n, skip in enumerate(reversed(skips)):
            beside = [skip] if links is None else [ways.read(r, links.up[n]), skip]
            h = self.block(ways, f"{name}_{r}_up_{n}", h, beside)
            up.append(h)
        return h, Features(down, below, up)

    def kernel(self, name: str) -> dict[str, Any]:
        """The arguments of the convolution called `name`."""
        stream, part = name[0], name.rsplit("_", 1)[-1]
        if name in ("v_stem", "h_stem_above", "h_stem_left"):
            kind = name
        elif part in ("beside", "outputs"):
            kind = "1x1"
        else:
            kind = f"{stream}_up" if part == "raise" else stream
        size, padding = KERNELS[kind]
        found: dict[str, Any] = {"features": self.features, "size": size, "padding": padding}
        if part == "outputs":
            return {**found, "features": self.num_outputs}
        if part == "out":
            return {**found, "features": 2 * self.features, "first_scale": 0.1}
        return {**found, "stride": 2 if part == "halve" else 1, "upsampling": 2 if part == "raise" else 1}

    @nn.compact
    def __call__(self, x: Float[Array, "batch h w channels"]) -> Float[Array, "batch h w outputs"]:
        """The whole image at once."""

        def convolve(name: str, x: Any) -> Any:
            if name.endswith("_out"):
                x = nn.Dropout(self.dropout_rate, deterministic=not self.has_rng("dropout"))(x)
            return NormConv(**self.kernel(name), name=name)(x)

        def lower(stream: str, r: int, h: Any, body: Any) -> tuple[Any, Any]:
            below, features = body(convolve(f"{stream}_{r}_halve", h))
            return convolve(f"{stream}_{r}_raise", below)[:, : h.shape[1], : h.shape[2]], features

        ways = Ways(convolve, lambda r, features: features, lower)
        _, links = self.stream(ways, "v", convolve("v_stem", x), None)
        start = convolve("h_stem_above", x) + convolve("h_stem_left", x)
        return convolve("h_outputs", jax.nn.elu(self.stream(ways, "h", start, links)[0]))
