"""Sound of runs: .wav files, and pictures of spectra over time."""

import pathlib
import wave
from collections.abc import Mapping
from typing import Any

import numpy as np


def write(path: pathlib.Path, values: Any, rate: int) -> None:
    """Writes values in [-1, 1] as one channel of 16 bits."""
    whole = np.round(np.clip(np.asarray(values, np.float64), -1.0, 1.0) * (2**15 - 1)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(whole.tobytes())


def spectrogram(values: Any, window: int = 256, hop: int = 64) -> np.ndarray:
    """Decibels below the loudest, [frequency, time], of a short-time Fourier transform with Hann windows."""
    values = np.asarray(values, np.float64)
    padded = np.pad(values, (0, max(0, window - len(values))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)).T ** 2
    return 10 * np.log10(np.maximum(power, 1e-8 * power.max() + 1e-30) / (power.max() + 1e-30))


def spectrograms(path: pathlib.Path, named: Mapping[str, Any], rate: int, columns: int = 5) -> None:
    """One panel per name: the wave above its spectrogram, 60 dB deep, frequencies up to half of `rate` in kHz."""
    from matplotlib.figure import Figure  # as in `pictures`: imported when the first picture is drawn

    rows = -(-len(named) // columns)
    figure = Figure(figsize=(2.6 * columns, 2.4 * rows))
    grid = figure.subplots(2 * rows, columns, squeeze=False, height_ratios=[1, 2] * rows)
    for axis in grid.ravel():
        axis.axis("off")
    for i, (name, values) in enumerate(named.items()):
        above, below = grid[2 * (i // columns) :, i % columns][:2]
        seconds = len(values) / rate
        above.plot(np.arange(len(values)) / rate, np.asarray(values), linewidth=0.4)
        above.set(xlim=(0, seconds), ylim=(-1, 1))
        above.set_title(name, fontsize=9)
        extent = (0, seconds, 0, rate / 2_000)
        below.axis("on")
        below.imshow(spectrogram(values), origin="lower", aspect="auto", extent=extent, vmin=-60, vmax=0, cmap="magma")
        below.tick_params(labelsize=6)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=100, metadata={"Software": None})
