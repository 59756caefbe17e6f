"""A1: Markov chain over characters, interpolated counts: what every network on text has to beat.

    python -m experiments.autoregressive.markov                                   # Python's own documentation
    python -m experiments.autoregressive.markov tiny_shakespeare --data FILE.txt

Tiny Shakespeare, order 4, last 10 %: 1.947 nats/char from counts of the first 85 %, 1.669 from the first 90 %. The 5 %
between them matter that much because the test text goes on with them; any other 5 % left out costs 0.006 at most.
Compare a network with the counts of the same part of the text.

Witten and Bell, "The zero-frequency problem", 1991.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from experiments.runner import main
from experiments.system import System
from jgen._types import Key
from jgen.autoregressive import markov, ngram
from jgen.data import text
from jgen.data.pipeline import Data
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "text"
    """"text" (embedded), or a text file."""
    valid_share: float = 0.05
    test_share: float = 0.1
    """Contiguous, at the end of the text, the test part last."""
    count_valid: bool = False
    """Count the validation part as well. Nothing is selected on it here, but its own figure is then no held-out one."""
    order: int = 3
    """Characters that the next one depends on; vocabulary^(order + 1) must stay below 2^32."""
    interpolated: bool = True
    """Witten-Bell interpolation of all orders; else one dense table with smoothed counts (order 2 at most)."""
    smoothing: float = 0.1
    """Added to every count of the dense table."""
    num_steps: int = 1
    """Each counts an equal part of the training text."""
    capacity: int = 2**19
    """The largest number of different strings of one length that the interpolated tables hold."""
    sample_length: int = 500


PRESETS = {
    "text": Config(),
    "smoke": Config(order=1, num_steps=2, capacity=2**14, sample_length=20),
    "first_order": Config(order=1, interpolated=False),
    "tiny_shakespeare": Config(data="tinyshakespeare.txt", order=4),
    "tiny_shakespeare_90": Config(data="tinyshakespeare.txt", order=4, count_valid=True),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`; counting needs no randomness."""
    del seed
    corpus = text.corpus(config.data, holdout=(config.valid_share, config.test_share))
    size = len(corpus.vocabulary)
    if config.interpolated:
        model = ngram.model(size, order=config.order, capacity=config.capacity, length=config.sample_length)
    else:
        model = markov.model(size, order=config.order, smoothing=config.smoothing, length=config.sample_length)
    return Experiment(
        model,
        _parts(corpus, config),
        config.num_steps,
        functools.partial(_measure, config, corpus, model),
        functools.partial(_draw, corpus, model),
        log_every=1,
        eval_every=config.num_steps,
    )


def _counted(corpus: text.Corpus, config: Config) -> Any:
    splits = ("train", "valid") if config.count_valid else ("train",)
    return np.concatenate([corpus.stream(split) for split in splits])


def _parts(corpus: text.Corpus, config: Config) -> Data:
    """Equal parts of the text, one per step, in its order."""
    tokens = _counted(corpus, config)
    length = len(tokens) // config.num_steps

    def train(step: int) -> dict[str, Any]:
        return {"tokens": tokens[step % config.num_steps * length :][:length][None]}

    return Data(train, lambda split: iter([({"tokens": corpus.stream(split)[None]}, 1)]))


def _measure(config: Config, corpus: text.Corpus, model: Any, key: Key, state: Any) -> dict[str, Measurement]:
    del key
    tokens = corpus.stream("test")[None]
    nats = -float(jax.jit(model.log_prob)(state, {"tokens": tokens})[0]) / tokens.size
    how = "Witten-Bell interpolation" if config.interpolated else f"counts + {config.smoothing}"
    seen = 1 - config.test_share - (0 if config.count_valid else config.valid_share)
    protocol = (
        f"{corpus.name}, last {config.test_share:.0%}, counts of the first {seen:.0%}, order {config.order}, {how}"
    )
    return {
        "nll_per_char": Measurement(nats, "nats/char", "exact", "test", protocol),
        "bits_per_char": Measurement(nats / float(np.log(2)), "bits/char", "exact", "test", protocol),
    }


def _draw(corpus: text.Corpus, model: Any, key: Key, state: Any, directory: pathlib.Path) -> None:
    rows = jax.jit(model.sample, static_argnums=2)(key, state, 3)["tokens"]
    texts = [text.decode(np.asarray(row), corpus.vocabulary) for row in rows]
    (directory / "samples.txt").write_text("\n\n----\n\n".join(texts) + "\n", encoding="utf-8")


SYSTEM = System(
    id="A1",
    module="autoregressive.markov",
    title="Markov chain",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
