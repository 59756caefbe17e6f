"""L10: STCN, a temporal convolution network with a hierarchy of latent variables in each frame.

    python -m experiments.latent.stcn                                         # digits, row by row
    python -m experiments.latent.stcn chorales --data FILE.json               # notes, see `jgen.data.rolls`
    python -m experiments.latent.stcn strokes --data FILE.npz                 # drawings, see `jgen.data.strokes`
    python -m experiments.latent.stcn speech --data DIR                       # .wav files, such as spoken digits

NAME_tcn is the same convolution network without latents, and with about as many parameters: its decoder reads the
states themselves. NAME_paper has the paper's sizes, for a GPU; chorales_large is for one, too.

Measured (seed 0, two CPU cores shared with several other programs, test data): digits at most 2.138 nats/frame with 100
draws in each frame, ELBO −2.171, 58 s; digits_tcn 2.177, exact, 50 s: latents tie the pixels of a row together, which
the same network without them cannot. chorales at most 6.843 nats/frame with 100 draws, ELBO −7.080, the state after
1,000 of 2,000 steps, 692 s; its rate of 1.51 nats/frame is z^1's but for 0.01. There the weight of the rate had to rise
slowly: over 200 steps (stopped after 450), with a dropout of 0.4 and a weight decay of 0.03 (after 1,300) or where the
decoder sees the past (`--skip`, after 600) the latents told nothing, 8.5 to 8.7 nats/frame on validation data.
speech at most 316.14 nats/frame, 5.701 bits a value, with 20 draws in each frame, ELBO −320.03, 317 s on one core;
speech_tcn 330.01, 5.951 bits a value, exact, 204 s. strokes (Omniglot) at most 4.821 nats a move with 20 draws in each
frame, ELBO −4.848, 439 s on one core; 0.26 of its rate of 0.28 nats a move are z^2's; strokes_tcn 4.764, exact, 295 s:
there the latents do not pay. chorales_tcn 8.515 nats/frame, exact, 287 s on one core: notes that sound together are
what the latents tie. The presets for a GPU have not been run: no figure of theirs is claimed.

Paper: Aksan and Hilliges, "STCN: Stochastic Temporal Convolutional Networks", 2019.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from experiments.evaluation import averages
from experiments.latent import sequence_pictures, sequences
from experiments.latent.sequences import RNN_NADE, Sequences
from experiments.runner import main
from experiments.system import System
from jgen._types import Batch, Key
from jgen.autoregressive import tcn
from jgen.latent import stcn
from jgen.math import framewise
from jgen.metrics.measurement import Measurement
from jgen.nets.temporal import TemporalConv
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config(sequences.Training):
    """The knobs worth turning."""

    latent_sizes: tuple[int, ...] = (16, 8, 4)
    """Of z^1, z^2, …, one for each block; none is the plain convolution network."""
    num_blocks: int = 3
    num_layers: int = 2
    """Of a block, with dilations 1, 2, 4, …"""
    channels: int = 64
    hidden_size: int = 64
    """Of the networks that give priors and posteriors."""
    decoder_size: int = 128
    decoder_layers: int = 2
    dense: bool = True
    """The decoder sees all layers of latents, not the first alone."""
    skip: bool = False
    """The decoder sees the states of the frames before, too."""
    dropout_rate: float = 0.1
    """Of the convolutions' channels and of all hidden units."""
    decay: float = 0.0
    """Where it is not 0, the rate is multiplied by it every 1,000 steps instead."""


CHORALES = Config(
    data="jsb-chorales-quarter.json",
    latent_sizes=(32, 16, 8, 4, 2),
    num_blocks=5,
    num_layers=5,
    dropout_rate=0.3,
    warm_up_steps=1_000,
    batch_size=16,
    num_steps=2_000,
    eval_every=100,
    patience=40,
)
STROKES = Config(
    data="omniglot_strokes.npz",
    latent_sizes=(32, 16, 8, 4, 2),
    num_blocks=5,
    num_layers=3,
    noise=6.0,
    warm_up_steps=500,
    dropout_rate=0.0,
    weight_decay=1e-3,
    batch_size=60,
    bucket=16,
    num_steps=2_400,
    eval_every=300,
    num_importance_samples=20,
)
SPEECH = Config(
    data="fsdd",
    latent_sizes=(32, 16, 8, 4),
    num_blocks=4,
    num_layers=4,
    decoder_size=256,
    num_components=3,
    warm_up_steps=300,
    weight_decay=1e-3,
    batch_size=32,
    bucket=16,
    num_steps=1_500,
    eval_every=150,
    num_importance_samples=20,
)
PAPER = {"channels": 256, "hidden_size": 256, "decoder_size": 256, "decoder_layers": 5, "dropout_rate": 0.0}
PRESETS = {
    "digits": Config(),
    "digits_tcn": Config(latent_sizes=(), decoder_size=160),
    "smoke": Config(
        num_steps=2, eval_every=2, channels=8, hidden_size=8, decoder_size=8, batch_size=16, num_importance_samples=2
    ),
    "chorales": CHORALES,
    "chorales_tcn": dataclasses.replace(CHORALES, latent_sizes=(), decoder_size=160),
    "chorales_large": dataclasses.replace(CHORALES, channels=256, hidden_size=256, decoder_size=512),
    "strokes": STROKES,
    "strokes_tcn": dataclasses.replace(STROKES, latent_sizes=(), decoder_size=160),
    "strokes_paper": dataclasses.replace(
        STROKES,
        **PAPER,
        num_layers=6,
        learning_rate=5e-4,
        decay=0.92,
        weight_decay=0.0,
        batch_size=20,
        num_steps=50_000,
    ),
    "speech": SPEECH,
    "speech_tcn": dataclasses.replace(SPEECH, latent_sizes=(), decoder_size=256),
    "speech_paper": dataclasses.replace(
        SPEECH,
        **PAPER,
        latent_sizes=(256, 128, 64, 32, 16),
        num_blocks=5,
        num_layers=5,
        frame_size=200,
        num_components=20,
        warm_up_steps=10_000,
        learning_rate=1e-3,
        decay=0.98,
        weight_decay=0.0,
        batch_size=20,
        num_steps=50_000,
        eval_every=1_000,
    ),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    source = sequences.of_config(config, seed)
    network, length = _network(config, source), sequence_pictures.LONGEST[source.kind]
    rule = sequences.optimizer(config, decay=config.decay)
    if isinstance(network, tcn.Network):
        model: Any = tcn.model(network, rule, length=length)
    else:
        how = {"beta": config.beta, "warm_up_steps": config.warm_up_steps}
        model = stcn.model(network, rule, length=length, **how)
    return Experiment(
        model,
        source.data,
        config.num_steps,
        functools.partial(_measure, config, network, source),
        functools.partial(_draw, network, source),
        log_every=min(50, config.eval_every),
        eval_every=config.eval_every,
        select="negative_elbo" if config.latent_sizes else "nll",
        patience=config.patience,
    )


def _network(config: Config, source: Sequences) -> tcn.Network | stcn.Network:
    convolutions = TemporalConv(config.channels, config.num_layers, config.num_blocks, config.dropout_rate)
    decoder_sizes = (config.decoder_size,) * config.decoder_layers
    if not config.latent_sizes:
        return tcn.Network(source.likelihood, convolutions, decoder_sizes, config.dropout_rate)
    return stcn.Network(
        source.likelihood,
        convolutions,
        config.latent_sizes,
        (config.hidden_size,),
        decoder_sizes,
        dense=config.dense,
        skip=config.skip,
        dropout_rate=config.dropout_rate,
    )


def _measure(config: Config, network: Any, source: Sequences, key: Key, state: Any) -> dict[str, Measurement]:
    num, exact = config.num_importance_samples, isinstance(network, tcn.Network)

    def per_example(key: Key, batch: Batch) -> dict[str, Any]:
        if exact:
            return {"nll": -tcn.log_prob(network, state.params, *framewise.examples(batch, network.likelihood))}
        one, many = jax.random.split(key)
        found = stcn.terms(one, state.params, batch, network=network)
        nll = -stcn.iwae_bound(many, state.params, batch, network=network, num_samples=num, chunk_size=10)
        layers = {f"rate_{i + 1}": found.rate_per_layer[:, i] for i in range(len(network.latent_sizes))}
        return {"nll": nll, "negative_elbo": -found.elbo, "rate": found.rate, "distortion": found.distortion, **layers}

    means = averages(key, source.data, "test", per_example)
    return sequences.measurements(
        source, means, sequences.kinds(source, None if exact else f"{num} draws in each frame")
    )


def _draw(network: Any, source: Sequences, key: Key, state: Any, directory: pathlib.Path) -> None:
    def sample(key: Key, num: int, length: int) -> Any:
        if isinstance(network, tcn.Network):
            return tcn.sample(network, key, state.params, num, length)
        return stcn.sample(key, state.params, num, length, network=network)

    def go_on(key: Key, prefix: Any, num: int) -> Any:
        if isinstance(network, tcn.Network):
            return tcn.sample(network, key, state.params, len(prefix), num, prefix=prefix)
        return stcn.continue_from(key, state.params, prefix, num, network=network)

    sequence_pictures.draw_samples(directory, source, key, sample, go_on)
    if isinstance(network, stcn.Network) and source.kind != "strokes":
        _draw_reconstructions(network, source, state, directory)


def _draw_reconstructions(network: stcn.Network, source: Sequences, state: Any, directory: pathlib.Path) -> None:
    """Test data beside E[x_t | z_t] at the posterior's means."""
    rows = sequence_pictures.chosen(source)
    arrays = source.dataset.splits["test"]
    batch = {name: jnp.asarray(arrays[name][rows]) for name in ("x", "mask")}
    again = jax.jit(functools.partial(stcn.reconstruct, network=network))(state.params, batch)
    data = sequence_pictures.shown(source, "test", rows)
    named = {"test data": data, "again": sequence_pictures.cut(again, [len(x) for x in data])}
    sequence_pictures.draw(directory, "reconstructions", source, named)


SYSTEM = System(
    id="L10",
    module="latent.stcn",
    title="STCN",
    kind="bound",
    config=Config,
    presets=PRESETS,
    build=build,
    references={name: {"nll_per_frame": RNN_NADE} for name in ("chorales", "chorales_tcn", "chorales_large")},
)

if __name__ == "__main__":
    main(SYSTEM)
