"""Drawing samples with a cache, beside one full pass per position, in jgen and in PyTorch eager; the same sizes.

    python -m experiments.benchmarks.autoregressive_sampling [--repeats N] [--only nade made gated_pixel_cnn ...]

Needs PyTorch (the extra `bench`). 64 samples of 28×28 binary pixels from NADE-500, MADE-500 and PixelCNNs; 1,024 values
from a 10-layer dilated WaveNet; 64 texts of 256 tokens from a 4-layer Transformer. "cached" is a whole call of jgen's
sampler, measured. What takes one pass per position is computed from a measured pass, times the number of positions:
"naive" is jgen's pass (of the full length: shapes are static), "torch" PyTorch's eager one, for sequences over the
prefix alone, at the mean of its lengths. NADE's naive form recomputes the hidden layer from all earlier pixels.
Measured (two CPU cores, quiet, 2 turns), naive / cached and torch / cached: NADE 31 and 20, PixelCNN 573
and 454, gated PixelCNN 553 and 599, WaveNet 188 and 175, Transformer 96 and 21; MADE later, by itself, 3 turns, 124 and
82. PyTorch's threads, which still wait while jgen's pass is timed, slow that more than the draw: without PyTorch in the
process MADE's naive / cached is 38 and 42 (two runs; 8.1 ms cached). That is of one order, whose examples gather the
same weights; of several, each gathers its own.
Prints seconds, and the medians of naive / cached and torch / cached within each turn, as a table and as JSON.
"""

import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks import timing
from experiments.benchmarks.peers import functional, nn, torch
from jgen import linen
from jgen.autoregressive import fixed_order, gated_pixel_cnn, made, nade, pixel_cnn, raster, transformer, wavenet

NUM, SHAPE, PIXELS = 64, (28, 28, 1), 784
HIDDEN, CHANNELS, LAYERS = 500, 64, 7
TIME, TOKENS, VOCABULARY, WIDTH, HEADS = 1_024, 256, 65, 128, 4


class Case(NamedTuple):
    """One model, drawn in three ways.

    Attributes:
        passes: positions, and so passes of the naive samplers.
        cached: draws all samples.
        naive: one pass of jgen.
        torch: one pass of PyTorch, or one for each of several lengths whose mean is the naive sampler's.
    """

    passes: int
    cached: Callable[[], Any]
    naive: Callable[[], Any]
    torch: tuple[Callable[[], Any], ...]


def case_of_nade() -> Case:
    """NADE, 500 units."""
    network = nade.network(PIXELS, hidden_size=HIDDEN)
    x = jnp.zeros((NUM, PIXELS))
    params = network.init(jax.random.key(0), x)

    def recompute(params: nade.Weights, x: Any) -> Any:
        hidden = jax.nn.sigmoid(params.hidden_bias[None] + x @ params.encoder.reshape(PIXELS, HIDDEN))
        return hidden @ params.decoder[-1, 0]

    draw = jax.jit(lambda key: fixed_order.sample(network, key, params, NUM))
    encoder, decoder, values = torch.randn(PIXELS, HIDDEN), torch.randn(HIDDEN), torch.zeros(NUM, PIXELS)

    def one(d: int) -> Callable[[], Any]:
        return lambda: torch.sigmoid(values[:, :d] @ encoder[:d]) @ decoder

    once = jax.jit(recompute)
    return Case(PIXELS, lambda: draw(jax.random.key(1)), lambda: once(params, x), _lengths(one, PIXELS))


def case_of_made() -> Case:
    """MADE, 500 units, one mask, no direct connections."""
    module, wiring = made.MADE((HIDDEN,), direct=False), made.degrees(0, PIXELS, (HIDDEN,))
    x, one = jnp.zeros((NUM, PIXELS)), made.component(wiring, 0)
    params, _ = linen.init(module, jax.random.key(0), x, one)
    draw = jax.jit(lambda key: made.sample(module, key, params, wiring, NUM))
    once = jax.jit(lambda x: linen.apply(module, params, {}, x, one))
    first, second, values = torch.randn(PIXELS, HIDDEN), torch.randn(HIDDEN, PIXELS), torch.zeros(NUM, PIXELS)
    masks = torch.ones(PIXELS, HIDDEN), torch.ones(HIDDEN, PIXELS)
    step = _eager(lambda: (values @ (first * masks[0])).relu() @ (second * masks[1]))
    return Case(PIXELS, lambda: draw(jax.random.key(1)), lambda: once(x), (step,))


def case_of_pixel_cnn() -> Case:
    """PixelCNN, 64 channels, seven layers."""
    network = pixel_cnn.network(SHAPE, 2, features=CHANNELS, num_blocks=LAYERS - 1)
    layers = [nn.Conv2d(1, CHANNELS, 7, padding=3)]
    layers += [nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1) for _ in range(LAYERS - 1)] + [nn.Conv2d(CHANNELS, 1, 1)]
    net, values = nn.Sequential(*layers), torch.zeros(NUM, 1, 28, 28)
    return _image_case(network, _eager(lambda: net(values)))


def case_of_gated_pixel_cnn() -> Case:
    """Gated PixelCNN, 64 channels, seven layers."""
    network = gated_pixel_cnn.network(SHAPE, 2, features=CHANNELS, num_layers=LAYERS)
    return _image_case(network, _eager(_torch_gated()))


def case_of_wavenet() -> Case:
    """WaveNet, dilations 1 to 512, 32 channels, 256 levels, one example."""
    module = wavenet.WaveNet(256, channels=32, num_layers=10)
    x = jnp.zeros((1, TIME), jnp.int32)
    params, _ = linen.init(module, jax.random.key(0), x, None)
    draw = jax.jit(lambda key: wavenet.sample(module, key, params, 1, TIME))
    once = jax.jit(lambda x: linen.apply(module, params, {}, x, None)[0])
    gates = nn.ModuleList([nn.Conv1d(32, 64, 2, dilation=2**i, padding=2**i) for i in range(10)])
    dense = nn.ModuleList([nn.Conv1d(32, 32, 1) for _ in range(10)])
    head = nn.Sequential(nn.Conv1d(320, 64, 1), nn.ReLU(), nn.Conv1d(64, 64, 1), nn.ReLU(), nn.Conv1d(64, 256, 1))

    def forward(length: int) -> Callable[[], Any]:
        def run() -> Any:
            h, kept = torch.zeros(1, 32, length), []
            for gate, residual in zip(gates, dense, strict=True):
                a, b = gate(h)[..., :length].chunk(2, 1)
                kept.append(a.tanh() * b.sigmoid())
                h = h + residual(kept[-1])
            return head(torch.cat(kept, 1).relu())[..., -1]

        return run

    return Case(TIME, lambda: draw(jax.random.key(1)), lambda: once(x), _lengths(forward, TIME))


def case_of_transformer() -> Case:
    """A Transformer of 4 layers, 4 heads, width 128, over 65 tokens."""
    module = transformer.Transformer(VOCABULARY, TOKENS, num_layers=4, num_heads=HEADS, width=WIDTH)
    tokens = jnp.zeros((NUM, TOKENS), jnp.int32)
    params, _ = linen.init(module, jax.random.key(0), tokens)
    draw = jax.jit(lambda key: transformer.sample(module, key, params, NUM, TOKENS))
    once = jax.jit(lambda x: linen.apply(module, params, {}, x)[0])
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True)
    net, last = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False).train(), nn.Linear(WIDTH, VOCABULARY)

    def forward(length: int) -> Callable[[], Any]:
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return lambda: last(net(torch.zeros(NUM, length, WIDTH), mask=mask, is_causal=True)[:, -1])

    return Case(TOKENS, lambda: draw(jax.random.key(1)), lambda: once(tokens), _lengths(forward, TOKENS))


def _image_case(network: raster.Network, torch_pass: Callable[[], Any]) -> Case:
    x = jnp.zeros((NUM, *SHAPE))
    params = jax.jit(network.init)(jax.random.key(0), x, None)
    draw = jax.jit(lambda key: raster.sample(network, key, params, NUM))
    once = jax.jit(lambda x: network.logits(params, x, None, None))
    return Case(PIXELS, lambda: draw(jax.random.key(1)), lambda: once(x), (torch_pass,))


def _torch_gated() -> Callable[[], Any]:
    """One pass of a gated PixelCNN: a vertical and a horizontal stack, joined in every layer."""
    c, values = CHANNELS, torch.zeros(NUM, 1, 28, 28)
    vertical = nn.ModuleList(
        [nn.Conv2d(1 if i == 0 else c, 2 * c, (4, 7) if i == 0 else (2, 3)) for i in range(LAYERS)]
    )
    horizontal = nn.ModuleList(
        [nn.Conv2d(1 if i == 0 else c, 2 * c, (1, 3) if i == 0 else (1, 2)) for i in range(LAYERS)]
    )
    link = nn.ModuleList([nn.Conv2d(2 * c, 2 * c, 1) for _ in range(LAYERS)])
    out, last = nn.ModuleList([nn.Conv2d(c, c, 1) for _ in range(LAYERS)]), nn.Conv2d(c, 1, 1)

    def gate(x: Any) -> Any:
        a, b = x.chunk(2, 1)
        return a.tanh() * b.sigmoid()

    def run() -> Any:
        v, h = values, values
        for i in range(LAYERS):
            wide = 3 if i == 0 else 1
            above = vertical[i](functional.pad(v, (wide, wide, 4 if i == 0 else 1, 0)))[:, :, :28]  # pyright: ignore[reportCallIssue]
            left = horizontal[i](functional.pad(h, (3 if i == 0 else 1, 0, 0, 0)))[..., :28]  # pyright: ignore[reportCallIssue]
            new = out[i](gate(left + link[i](above)))
            v, h = gate(above), new if i == 0 else h + new
        return last(h.relu())

    return run


def _eager(run: Callable[[], Any]) -> Callable[[], Any]:
    def without_gradients() -> float:
        with torch.no_grad():
            run()
        return 0.0

    return without_gradients


def _lengths(run_of: Callable[[int], Callable[[], Any]], positions: int) -> tuple[Callable[[], Any], ...]:
    """Passes over prefixes whose mean length is that of all prefixes."""
    return tuple(_eager(run_of(positions * part // 8)) for part in (1, 3, 5, 7))


CASES = {
    "nade": case_of_nade,
    "made": case_of_made,
    "pixel_cnn": case_of_pixel_cnn,
    "gated_pixel_cnn": case_of_gated_pixel_cnn,
    "wavenet": case_of_wavenet,
    "transformer": case_of_transformer,
}


def seconds(case: Case) -> dict[str, Callable[[], float]]:
    """{way: a function that returns the seconds of all samples}."""
    torch_passes = [timing.clock(run) for run in case.torch]
    naive = timing.clock(case.naive)
    return {
        "cached": timing.clock(case.cached),
        "naive": lambda: case.passes * naive(),
        "torch": lambda: case.passes * statistics.mean(run() for run in torch_passes),
    }


def main(repeats: int = 3, only: tuple[str, ...] = tuple(CASES)) -> None:
    """Prints the seconds of each way, and the ratios.

    Args:
        repeats: turns that count; one before them compiles.
        only: which models.
    """
    rows = []
    for name in only:
        values = timing.take_turns(seconds(CASES[name]()), repeats)
        rows.append(
            {"model": name}
            | {f"{way} s": float(np.median(taken)) for way, taken in values.items()}
            | {f"{way} / cached": timing.ratio(values[way], values["cached"]) for way in ("naive", "torch")}
        )
        print(rows[-1], flush=True)
    timing.report("autoregressive_sampling", rows, num=NUM, repeats=repeats)


if __name__ == "__main__":
    tyro.cli(main)
