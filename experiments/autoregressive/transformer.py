"""A17: Transformer language model over characters, bytes or the tokens of a file, with a cache of keys and values.

    python -m experiments.autoregressive.transformer                                      # Python's documentation
    python -m experiments.autoregressive.transformer tiny_shakespeare --data FILE.txt     # a CPU, under an hour
    python -m experiments.autoregressive.transformer nanogpt --data FILE.txt              # a GPU
    python -m experiments.autoregressive.transformer names --data names.txt               # each line a string, with EOS

Two protocols stand side by side: the mean over windows without overlap, whose first characters see little, as nanoGPT
reports it, and the sliding window with half an overlap. Both count every character of the test text once.

Measured (seed 0, two CPU cores, test data, exact): text 1.260 nats/char by the sliding window, 1.303 by the window
mean, 86 s (recurrent model with a carried state: 1.270; interpolated counts of order 3: 1.440).
tiny_shakespeare, on one shared core: 1.473 and 1.497, 4,191 s (recurrent model: 1.471; counts of order 4: 1.669).
names, each different one once: 1.979 nats/char with the ends counted, 483 s on one core.

Papers: Vaswani et al., "Attention Is All You Need", 2017; Radford et al., GPT-2, 2019; Karpathy, nanoGPT, 2022.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import pictures
from experiments.evaluation import averages
from experiments.runner import main
from experiments.system import System
from jgen._types import Key
from jgen.autoregressive import transformer
from jgen.data import in_memory, streams, text
from jgen.data.pipeline import Data
from jgen.data.tokenization import Tokenizer
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment

SHOWN = 40
"""Tokens of the test text, or lines, that are shown."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "text"
    """"text" (embedded), or a text file."""
    lines: bool = False
    """Each different line is a text of its own, and the splits are drawn at random; else one long text."""
    unit: str = "characters"
    """characters, bytes, or a tokenizer file NAME.json."""
    valid_share: float = 0.05
    test_share: float = 0.1
    """Of a long text contiguous, at its end, the test part last."""
    context: int = 64
    """Tokens that the model reads; of lines, the longest."""
    num_layers: int = 2
    num_heads: int = 4
    width: int = 128
    positions: str = "learned"
    """learned or sinusoidal."""
    dropout_rate: float = 0.0
    learning_rate: float = 3e-3
    """Its highest value: AdamW, warmed up linearly over 100 steps, then a cosine to a tenth."""
    weight_decay: float = 0.1
    """Of matrices."""
    clip_norm: float = 1.0
    batch_size: int = 32
    num_steps: int = 1_200
    eval_every: int = 200
    prompt: str = ""
    """What the drawn texts begin with."""
    temperature: float = 0.8
    """Of the second texts in samples.txt; the first are drawn from the model as it is."""
    top_p: float = 0.95
    """Of the second texts too: nucleus sampling."""
    sample_length: int = 500


PRESETS = {
    "text": Config(prompt="The "),
    "smoke": Config(
        num_steps=2, eval_every=2, num_layers=1, num_heads=2, width=8, batch_size=8, context=32, sample_length=40
    ),
    "tiny_shakespeare": Config(
        data="tinyshakespeare.txt",
        valid_share=0.01,
        context=128,
        num_layers=4,
        num_heads=6,
        width=192,
        dropout_rate=0.1,
        learning_rate=2e-3,
        batch_size=32,
        num_steps=4_000,
        eval_every=500,
    ),
    "nanogpt": Config(
        data="tinyshakespeare.txt",
        valid_share=0.01,
        context=256,
        num_layers=6,
        num_heads=6,
        width=384,
        dropout_rate=0.2,
        learning_rate=1e-3,
        batch_size=64,
        num_steps=5_000,
        eval_every=250,
    ),
    "names": Config(
        data="names.txt",
        lines=True,
        test_share=0.05,
        num_layers=4,
        width=96,
        dropout_rate=0.1,
        weight_decay=0.01,
        batch_size=64,
        num_steps=6_000,
        eval_every=500,
    ),
}


@dataclasses.dataclass(frozen=True)
class Source:
    """What the model learns from.

    Attributes:
        data: batches.
        module: the network.
        tokenizer: from text to tokens and back.
        eos: the token that ends a line; None for one long text.
        protocol: of its test figures.
        stream: the test part of a long text.
    """

    data: Data
    module: transformer.Transformer
    tokenizer: Tokenizer
    eos: int | None
    protocol: str
    stream: np.ndarray


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    source = _lines(config, seed) if config.lines else _text(config, seed)
    model = transformer.model(source.module, _optimizer(config), length=min(config.sample_length, 64), eos=source.eos)
    return Experiment(
        model,
        source.data,
        config.num_steps,
        functools.partial(_measure_lines if config.lines else _measure_text, source),
        functools.partial(_draw, config, source),
        eval_every=config.eval_every,
        select="nats_per_token",
    )


def _module(config: Config, size: int, context: int) -> transformer.Transformer:
    sizes = (config.num_layers, config.num_heads, config.width)
    return transformer.Transformer(size, context, *sizes, config.positions, config.dropout_rate)


def _text(config: Config, seed: int) -> Source:
    corpus = text.corpus(config.data, unit=config.unit, holdout=(config.valid_share, config.test_share))
    size = len(corpus.vocabulary)
    data = streams.windows(corpus.streams, size, config.batch_size, config.context, seed)
    seen = 1 - config.valid_share - config.test_share
    protocol = f"{corpus.name}, last {config.test_share:.0%}, trained on the first {seen:.0%}"
    module = _module(config, size, config.context)
    return Source(data, module, corpus.tokenizer, None, protocol, corpus.stream("test"))


def _lines(config: Config, seed: int) -> Source:
    shares = (config.valid_share, config.test_share)
    dataset = text.lines(config.data, unit=config.unit, seed=seed, holdout=shares)
    vocabulary = dataset.vocabulary or ()
    tokenizer = text.tokenizer(config.unit, "".join(vocabulary))
    protocol = f"{dataset.name}, a random {config.test_share:.0%} (seed {seed}), EOS counted"
    module = _module(config, len(vocabulary), dataset.shape[0])
    data = in_memory(dataset, config.batch_size, seed, eval_batch_size=256)
    return Source(data, module, tokenizer, text.eos(vocabulary), protocol, np.zeros(0, np.int32))


def _optimizer(config: Config) -> optax.GradientTransformation:
    peak, warm_up = config.learning_rate, min(100, config.num_steps // 2)
    rate = optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, config.num_steps, peak / 10)
    matrices = functools.partial(jax.tree.map, lambda leaf: leaf.ndim >= 2)
    adam = optax.adamw(rate, b2=0.99, weight_decay=config.weight_decay, mask=matrices)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adam)


def _measure_text(source: Source, key: Key, state: Any) -> dict[str, Measurement]:
    del key
    context, found = source.module.context, {}
    num = len(source.tokenizer.decode(source.stream))
    for name, overlap, how in (("", context // 2, "sliding window, half overlap"), ("_window_mean", 0, "window mean")):
        log_prob = jax.jit(functools.partial(transformer.stream_log_prob, source.module, overlap=overlap))
        nats = -float(log_prob(state.params, jnp.asarray(source.stream))) / num
        protocol = f"{source.protocol}, context {context}, {how}"
        found[f"nll_per_char{name}"] = Measurement(nats, "nats/char", "exact", "test", protocol)
        found[f"bits_per_char{name}"] = Measurement(nats / float(np.log(2)), "bits/char", "exact", "test", protocol)
    return found


def _measure_lines(source: Source, key: Key, state: Any) -> dict[str, Measurement]:
    def nll(key: Key, batch: Any) -> dict[str, Any]:
        plain = {"train": False, "module": source.module, "eos": source.eos}
        return {"nll": transformer.loss(key, state.params, {}, batch, **plain)[1][1]["nll"]}

    per_line = averages(key, source.data, "test", nll)["nll"]
    batches = source.data.batches("test")
    found = [_said(source, row) for batch, num in batches for row in np.asarray(batch["tokens"])[:num]]
    per_char = per_line * len(found) / sum(len(line) + 1 for line in found)
    return {
        "nll_per_char": Measurement(per_char, "nats/char", "exact", "test", source.protocol),
        "nll": Measurement(per_line, "nats/line", "exact", "test", source.protocol),
    }


def _said(source: Source, row: Any) -> str:
    """The text of a row of tokens, up to its EOS."""
    row = np.asarray(row)
    return source.tokenizer.decode(row if source.eos is None else row[np.cumsum(row == source.eos) == 0])


def _draw(config: Config, source: Source, key: Key, state: Any, directory: pathlib.Path) -> None:
    nucleus = {"temperature": config.temperature, "top_p": config.top_p}
    prompt = jnp.asarray(source.tokenizer.encode(config.prompt))
    length = source.module.context if config.lines else config.sample_length
    sections = []
    for how, num in (({}, 2), (nucleus, 2), ({"temperature": 0.0}, 1)):
        num = num * SHOWN // 2 if config.lines and num > 1 else num
        draw = functools.partial(transformer.sample, source.module, num=num, length=length, eos=source.eos, **how)
        drawn = jax.jit(functools.partial(draw, prompt=prompt))(key, state.params)
        named = ", ".join(f"{name} {value}" for name, value in how.items()) or "as it is"
        separator = "\n" if config.lines else "\n\n--\n\n"
        sections.append(f"---- {named} ----\n{separator.join(config.prompt + _said(source, row) for row in drawn)}\n")
    (directory / "samples.txt").write_text("\n".join(sections), encoding="utf-8")
    _draw_attention(source, state.params, directory)


def _draw_attention(source: Source, params: Any, directory: pathlib.Path) -> None:
    """Where each head looks in the first test text."""
    tokens = jnp.asarray(next(iter(source.data.batches("test")))[0]["tokens"][:1])
    maps = jax.jit(functools.partial(transformer.attention_maps, source.module))(params, tokens)
    length = min(SHOWN, tokens.shape[1])
    read = [source.tokenizer.decode(np.asarray(token)[None]) for token in tokens[0, : length - 1]]
    one = {
        f"layer {i + 1}, head {j + 1}": np.asarray(maps[i, 0, j, :length, :length])
        for i in range(maps.shape[0])
        for j in range(maps.shape[2])
    }
    pictures.matrices(directory / "attention.png", one, columns=maps.shape[2], ticks=["^", *read])


SYSTEM = System(
    id="A17",
    module="autoregressive.transformer",
    title="Transformer language model",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
    references={
        "nanogpt": {
            "nll_per_char_window_mean": {
                "value": 1.4697,
                "source": "nanoGPT's README, the best of its evaluations",
                "protocol": "tinyshakespeare, last 10%, trained on the first 90%, random windows of 256",
            }
        },
        "names": {
            "nll_per_char": {
                "value": 1.92,
                "source": "makemore's README, its Transformer",
                "protocol": "1,000 random lines of names.txt, duplicates kept",
            }
        },
    },
)

if __name__ == "__main__":
    main(SYSTEM)
