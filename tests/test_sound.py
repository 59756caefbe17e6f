"""Sound of runs: files that read back, spectra where the tone is, and WaveNet on a folder of recordings."""

import json

import numpy as np
import pytest

from experiments import catalogue, runner, sound
from jgen.data import media

RATE = 2_000
pytestmark = pytest.mark.usefixtures("jax_as_it_is")


def tone(frequency: float, num: int = 900) -> np.ndarray:
    """A synthetic recording: one sine."""
    return 0.5 * np.sin(2 * np.pi * frequency * np.arange(num) / RATE)


def test_what_is_written_reads_back(tmp_path):
    sound.write(tmp_path / "a.wav", np.append(tone(100), [2.0, -2.0]), RATE)
    values, rate = media.read_wav(tmp_path / "a.wav")
    assert rate == RATE
    np.testing.assert_allclose(values, np.append(tone(100), [1.0, -1.0]), atol=1e-4)


@pytest.mark.parametrize("frequency", [125, 250, 750])
def test_the_spectrogram_peaks_at_the_tone(frequency):
    power = sound.spectrogram(tone(frequency))
    assert power.shape[0] == 129
    assert power.max() == 0
    np.testing.assert_array_equal(power.argmax(axis=0), frequency * 256 // RATE)
    assert np.all(np.isfinite(sound.spectrogram(np.zeros(10))))


@pytest.mark.parametrize("named", [True, False])
def test_wavenet_on_recordings(tmp_path, named):
    """Spoken digits by their names, or a folder per class; every value of the test part is measured once."""
    folder = tmp_path / "recordings"
    for i in range(10):
        for j, speaker in enumerate(("ann", "bob")):
            path = folder / f"{j}_{speaker}_{i}.wav" if named else folder / speaker / f"{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            sound.write(path, tone(100 * (1 + j), 300 + 10 * i), RATE)
    sizes = ["--window", "200", "--batch-size", "2", "--eval-batch-size", "4"]
    label = ["--label", "both" if named else "class"]
    workdir = tmp_path / "run"
    arguments = ["smoke", "--data", str(folder), "--workdir", str(workdir), "--device-count", "1", *sizes, *label]
    runner.main(catalogue.load("autoregressive.wavenet"), arguments)
    metrics = json.loads((workdir / "summary.json").read_text())["metrics"]
    assert set(metrics) == {"nll_per_value", "counts_0_per_value", "counts_1_per_value"}
    assert all(np.isfinite(row["value"]) for row in metrics.values())
    assert metrics["counts_1_per_value"]["value"] < metrics["counts_0_per_value"]["value"]
    for name in ("samples.wav", "completions.wav", "test.wav"):
        assert media.read_wav(workdir / name)[1] == RATE
    assert (workdir / "spectrograms.png").stat().st_size
