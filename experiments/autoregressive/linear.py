"""A2: linear autoregression of a time series, counted.

    python -m experiments.autoregressive.linear                          # four channels of an EEG
    python -m experiments.autoregressive.linear --order 20

Measured (seed 0, test part, exact): eeg, order 8: 0.890 nats per standardized value given the first 8 of each row
(N(0, 1) for each value: 1.697), one-step error 0.538 deviations (the last value as prediction: 0.629), 3 s. The fit is
stationary (spectral radius 0.82), and its spectrum goes through the periodogram. Two bursts in the test part cost most:
no linear model with Gaussian noise expects them.

Yule, "On a Method of Investigating Periodicities in Disturbed Series", 1927.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.runner import main
from experiments.system import System
from jgen._types import Key
from jgen.autoregressive import linear
from jgen.data import load, transforms
from jgen.data.pipeline import Dataset, in_memory
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "eeg"
    """Rows of real values, each a series; "eeg" is embedded."""
    order: int = 8
    """p, the values that the next one depends on."""
    num_steps: int = 1
    """Each counts a batch."""
    batch_size: int = 4
    horizon: int = 40
    """Steps of the forecasts in the picture."""
    sample_length: int = 160


PRESETS = {"eeg": Config(), "smoke": Config(order=2, num_steps=2, horizon=5, sample_length=20)}


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`; the series are standardized by one mean and one deviation, those of training."""
    dataset = load(config.data, seed=seed)
    if len(dataset.shape) != 1 or dataset.levels is not None:
        raise ValueError(f"`data` must be rows of real values, got {dataset.name!r}.")
    whole = np.asarray(dataset.splits["train"]["x"], np.float64)
    scale = transforms.standardize(np.float32(whole.mean()), np.float32(max(whole.std(), 1e-12)))
    data = in_memory(dataset, config.batch_size, seed, transform=transforms.chain(transforms.only("x"), scale))
    model = linear.model(config.order, length=config.sample_length)
    rows = {s: np.asarray((a["x"] - whole.mean()) / max(whole.std(), 1e-12)) for s, a in dataset.splits.items()}
    return Experiment(
        model,
        data,
        config.num_steps,
        functools.partial(_measure, config, dataset, rows),
        functools.partial(_draw, config, rows),
        log_every=1,
        eval_every=config.num_steps,
    )


def _measure(
    config: Config, dataset: Dataset, rows: dict[str, np.ndarray], key: Key, state: Any
) -> dict[str, Measurement]:
    del key
    params, test = state.params, jnp.asarray(rows["test"], jnp.float32)
    each = np.asarray(jax.jit(linear.conditional_log_prob)(params, test))
    error = np.sqrt(np.mean((test[:, config.order :] - _predictions(params, test)) ** 2))
    past = np.concatenate([np.lib.stride_tricks.sliding_window_view(r, config.order)[:-1] for r in rows["train"]])
    values = np.concatenate([row[config.order :] for row in rows["train"]])
    exact = np.linalg.lstsq(np.column_stack([np.ones(len(past)), past[:, ::-1]]), values, rcond=None)[0]
    off = np.max(np.abs(np.r_[params.bias, params.coefficients] - exact))
    radius = np.max(np.abs(np.linalg.eigvals(np.asarray(linear.companion(params.coefficients)))))
    what = f"{dataset.name}, standardized by training values, order {config.order}"
    given = f"{what}, given the first {config.order} values of each row"
    alone = -np.mean(-0.5 * (test[:, config.order :] ** 2 + np.log(2 * np.pi)))
    last = np.sqrt(np.mean((test[:, config.order :] - test[:, config.order - 1 : -1]) ** 2))
    return {
        "nll_per_value": Measurement(float(-each.mean()), "nats/value", "exact", "test", given),
        "root_mean_square_error": Measurement(float(error), "deviations", "exact", "test", f"{given}, one step ahead"),
        "independent_normal": Measurement(
            float(alone), "nats/value", "exact", "test", f"{what}, N(0, 1) of each value"
        ),
        "last_value_error": Measurement(
            float(last), "deviations", "exact", "test", f"{what}, predicting the last value"
        ),
        "spectral_radius": Measurement(float(radius), "1", "exact", "train", f"{what}, stationary below 1"),
        "distance_to_least_squares": Measurement(
            float(off), "1", "exact", "train", f"{what}, largest difference of a coefficient from float64 least squares"
        ),
    }


def _predictions(params: linear.Params, x: Any) -> Any:
    order = params.coefficients.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(x), order, axis=1)[:, :-1]
    return np.asarray(linear.predict(params, jnp.asarray(windows)))


def _draw(config: Config, rows: dict[str, np.ndarray], key: Key, state: Any, directory: pathlib.Path) -> None:
    from matplotlib.figure import Figure  # imported when the first picture is drawn

    params, test = state.params, jnp.asarray(rows["test"][0], jnp.float32)
    figure = Figure(figsize=(10, 7.5))
    above, samples, spectra = figure.subplots(3, 1)
    origins = np.linspace(config.order, max(len(test) - config.horizon, config.order), 4).astype(int)
    above.plot(test, color="black", linewidth=1, label="test, row 0")
    for i, origin in enumerate(origins):
        found = linear.forecast(params, test[None, :origin], config.horizon)
        steps, mean = np.arange(origin, origin + config.horizon), np.asarray(found.mean[0])
        deviation = np.sqrt(np.asarray(found.variance))
        above.plot(steps, mean, color="C0", linewidth=1, label="forecast" if not i else None)
        band = {"color": "C0", "alpha": 0.2, "label": "90 % of what is expected" if not i else None}
        above.fill_between(steps, mean - 1.645 * deviation, mean + 1.645 * deviation, **band)
    drawn = np.asarray(jax.jit(functools.partial(linear.sample, num=3, length=config.sample_length))(key, params))
    for i, row in enumerate(drawn):
        samples.plot(row - 6 * i, linewidth=1, label=f"draw {i}")
    for i, row in enumerate(rows["test"][:3]):
        samples.plot(
            row[: config.sample_length] - 6 * (i + 3), linewidth=1, color="black", label="test" if not i else None
        )
    _spectra(spectra, params, rows["train"])
    for axis, title in ((above, "forecasts"), (samples, "draws and test rows"), (spectra, "power by frequency")):
        axis.set_title(title, fontsize=9)
        axis.legend(fontsize=7, loc="upper right")
    figure.tight_layout(pad=0.5)
    figure.savefig(directory / "samples.png", dpi=100, metadata={"Software": None})


def _spectra(axis: Any, params: linear.Params, rows: np.ndarray) -> None:
    frequencies = np.fft.rfftfreq(rows.shape[1])[1:]
    power = np.mean(np.abs(np.fft.rfft(rows, axis=1)[:, 1:]) ** 2, axis=0) / rows.shape[1]
    fit = np.asarray(linear.spectrum(params, jnp.asarray(frequencies, jnp.float32)))
    axis.semilogy(frequencies, power, color="black", linewidth=0.6, label="training rows, mean periodogram")
    axis.semilogy(frequencies, fit, color="C0", label="fit")
    axis.set_xlabel("cycles per value", fontsize=8)


SYSTEM = System(
    id="A2",
    module="autoregressive.linear",
    title="Linear autoregression",
    kind="exact",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
