"""L9: VRNN, a variational autoencoder for every frame of a sequence, tied by a recurrent state.

    python -m experiments.latent.vrnn                                         # digits, row by row
    python -m experiments.latent.vrnn chorales --data FILE.json               # notes, see `jgen.data.rolls`
    python -m experiments.latent.vrnn strokes --data FILE.npz                 # drawings, see `jgen.data.strokes`
    python -m experiments.latent.vrnn strokes_conditional                     # outlined letters: content and style
    python -m experiments.latent.vrnn speech --data DIR                       # .wav files, such as spoken digits

NAME_rnn is the plain recurrent network of NAME: the same parts without latents, and about as many parameters.
chorales_srnn has the posterior that sees the frames to come.

Measured (seed 0, two CPU cores shared with many other programs, test data, total nats by total frames):

| preset | nats | bound or exact | one-draw ELBO | seconds |
|---|---|---|---|---|
| digits | at most 2.079 a frame | 100 paths | −2.155 | 49 |
| digits_rnn | 2.155 a frame | exact | | 18 |
| chorales | at most 6.605 a frame | 50 paths | −6.798 | 156 |
| chorales_srnn | at most 6.903 a frame | 50 paths | −7.081 | 138 |
| chorales_rnn | 8.464 a frame | exact | | 97 |
| speech, spoken digits | at most 321.27 a frame, 5.794 bits a value | 10 paths | −321.98 | 246 |
| speech_rnn | 327.49 a frame, 5.906 bits a value | exact | | 208 |
| strokes, Omniglot | at most 4.913 a move | 10 paths | −4.946 | 905 |
| strokes_rnn | 4.793 a move | exact density | | 224 |

On strokes the latents do not pay; why has not been examined.
strokes_conditional, 471 s: at most 4.822 nats a move given the letter, 50 draws of the style, 0.141 nats a move of it;
the nearest neighbours of its mean tell 38 % of the typefaces (the most frequent one: 6 %) and 9 % of the letters. Most
letters can be told, serifs and slant go from one letter to the others, but lines miss their ends: there are 704 letters
to learn from. Dropout was chosen by validation ELBO among two. With latents of each frame (`--latent-size 2`) these
take everything and the style nothing: 5.252 nats, in an earlier form of the cell.
chorales_srnn needs the slower warm-up: with that of chorales its latents tell nothing (8.49 nats a frame).
digits: warm-up and dropout were chosen by validation ELBO among three settings.

Paper: Chung et al., "A Recurrent Latent Variable Model for Sequential Data", 2015.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp

from experiments.evaluation import averages
from experiments.latent import sequence_pictures, sequence_styles, sequences
from experiments.latent.sequences import RNN_NADE, Sequences
from experiments.runner import main
from experiments.system import System
from jgen._types import Batch, Key
from jgen.latent import vrnn
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config(sequences.Training):
    """The knobs worth turning."""

    latent_size: int = 16
    """Of z_t; 0 is the plain recurrent network."""
    hidden_size: int = 128
    num_units: int = 128
    cell: str = "lstm"
    smoothing: bool = False
    conditional: bool = False
    """The model is given the sequences' labels."""
    style_size: int = 0
    warm_up_steps: int = 800
    dropout_rate: float = 0.3
    """Of h, where a frame is given it."""
    num_steps: int = 1_500
    patience: int = 10


CHORALES = Config(
    data="jsb-chorales-quarter.json",
    latent_size=32,
    warm_up_steps=200,
    batch_size=16,
    num_steps=1_500,
    eval_every=50,
    patience=8,
    num_importance_samples=50,
)
STROKES = Config(
    data="omniglot_strokes.npz",
    hidden_size=96,
    noise=6.0,
    warm_up_steps=500,
    dropout_rate=0.0,
    weight_decay=1e-3,
    batch_size=100,
    bucket=16,
    num_steps=2_400,
    eval_every=300,
    patience=5,
    num_importance_samples=10,
)
SPEECH = Config(
    data="fsdd",
    latent_size=32,
    num_components=3,
    warm_up_steps=300,
    dropout_rate=0.0,
    weight_decay=1e-3,
    batch_size=32,
    bucket=16,
    num_steps=2_500,
    eval_every=250,
    patience=5,
    num_importance_samples=10,
)
PRESETS = {
    "digits": Config(),
    "digits_rnn": Config(latent_size=0, hidden_size=160, num_units=186),
    "smoke": Config(num_steps=2, eval_every=2, hidden_size=8, num_units=8, batch_size=16, num_importance_samples=2),
    "chorales": CHORALES,
    "chorales_srnn": dataclasses.replace(CHORALES, smoothing=True, warm_up_steps=1_000, patience=25),
    "chorales_rnn": dataclasses.replace(CHORALES, latent_size=0, hidden_size=160, num_units=190),
    "strokes": STROKES,
    "strokes_rnn": dataclasses.replace(STROKES, latent_size=0, num_units=186),
    "strokes_conditional": Config(
        data="outlines",
        conditional=True,
        style_size=8,
        latent_size=0,
        num_units=192,
        dropout_rate=0.5,
        warm_up_steps=1_200,
        weight_decay=1e-3,
        batch_size=64,
        bucket=16,
        num_steps=2_000,
        eval_every=200,
        patience=5,
        num_importance_samples=50,
    ),
    "speech": SPEECH,
    "speech_rnn": dataclasses.replace(SPEECH, latent_size=0, num_units=205),
}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    source = sequences.of_config(config, seed)
    network, model = _model(config, source)
    return Experiment(
        model,
        source.data,
        config.num_steps,
        functools.partial(_measure, config, network, source),
        functools.partial(_draw, network, source),
        log_every=min(50, config.eval_every),
        eval_every=config.eval_every,
        select="nll" if network.exact else "negative_elbo",
        patience=config.patience,
    )


def _model(config: Config, source: Sequences) -> tuple[vrnn.Network, Any]:
    if config.conditional and not source.num_labels():
        raise ValueError(f"`data` must have labels for a conditional model, got {source.dataset.name!r} without.")
    network = vrnn.dense(
        source.likelihood,
        source.frame_shape,
        config.latent_size,
        hidden_size=config.hidden_size,
        num_units=config.num_units,
        cell=config.cell,
        smoothing=config.smoothing,
        num_contents=source.num_labels() if config.conditional else 0,
        style_size=config.style_size,
    )
    how = {"beta": config.beta, "warm_up_steps": config.warm_up_steps, "dropout_rate": config.dropout_rate}
    return network, vrnn.model(
        network, sequences.optimizer(config), length=sequence_pictures.LONGEST[source.kind], **how
    )


def _measure(config: Config, network: vrnn.Network, source: Sequences, key: Key, state: Any) -> dict[str, Measurement]:
    num = config.num_importance_samples

    def per_example(key: Key, batch: Batch) -> dict[str, Any]:
        if network.exact:
            return {"nll": -vrnn.log_prob(state.params, batch, network=network)}
        one, many = jax.random.split(key)
        found = vrnn.terms(one, state.params, batch, network=network)
        nll = -vrnn.iwae_bound(many, state.params, batch, network=network, num_samples=num)
        return {"nll": nll, "negative_elbo": -found.elbo, "rate": found.rate, "distortion": found.distortion} | (
            {"style_rate": found.style_rate} if network.style_size else {}
        )

    means = averages(key, source.data, "test", per_example)
    found = sequences.measurements(source, means, sequences.kinds(source, None if network.exact else f"{num} paths"))
    return found | (sequence_styles.probes(network, source, state) if network.style_size else {})


def _draw(network: vrnn.Network, source: Sequences, key: Key, state: Any, directory: pathlib.Path) -> None:
    rows = sequence_pictures.chosen(source)
    label = jnp.asarray(source.dataset.splits["test"]["label"][rows]) if network.num_contents else None

    def sample(key: Key, num: int, length: int) -> Any:
        return vrnn.sample(key, state.params, num, length, network=network, label=label)

    def go_on(key: Key, prefix: Any, num: int) -> Any:
        return vrnn.continue_from(key, state.params, prefix, num, network=network, label=label)

    sequence_pictures.draw_samples(directory, source, key, sample, go_on)
    if network.style_size and network.num_contents:
        sequence_styles.draw(network, source, key, state, directory)


SYSTEM = System(
    id="L9",
    module="latent.vrnn",
    title="VRNN",
    kind="bound",
    config=Config,
    presets=PRESETS,
    build=build,
    references={name: {"nll_per_frame": RNN_NADE} for name in ("chorales", "chorales_srnn", "chorales_rnn")},
)

if __name__ == "__main__":
    main(SYSTEM)
