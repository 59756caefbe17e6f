"""Where sequence models' experiments take their sequences from, how their numbers are read, and their pictures."""

import json
import math
import wave

import numpy as np
import pytest

from experiments.latent import sequence_pictures
from experiments.latent.sequences import measurements, sequences
from jgen.data.pipeline import SPLITS


def chords(path):
    pieces = [[[60, 64], [62]], [[60]]]
    path.write_text(json.dumps(dict.fromkeys(SPLITS, pieces)))
    return path


def moves(path):
    points, length = np.array([[0, 0, 0], [30, 40, 1], [0, 0, 0], [-50, 0, 0], [10, -10, 1]]), np.array([2, 3])
    np.savez(path, **{f"{s}_{n}": v for s in SPLITS for n, v in (("points", points), ("length", length))})
    return path


def voices(folder):
    folder.mkdir()
    for i in (0, 5, 8):
        for digit in range(2):
            with wave.open(str(folder / f"{digit}_ann_{i}.wav"), "wb") as file:
                file.setparams((1, 2, 8_000, 0, "NONE", ""))
                file.writeframes((8_000 * np.sin(np.arange(1_000 + 100 * digit) / 9)).astype("<i2").tobytes())
    return folder


@pytest.fixture(name="source", params=["digits", "chords", "outlines", "moves", "voices"])
def _source(request, tmp_path):
    makers = {"chords": chords, "moves": lambda path: moves(path.with_suffix(".npz")), "voices": voices}
    name = {"chords": "pieces.json"}.get(request.param, "source")
    found = makers[request.param](tmp_path / name) if request.param in makers else request.param
    return sequences(str(found), 2, 0, frame_size=40, num_components=2, noise=4.0)


def test_every_source_fits_its_likelihood_and_can_be_drawn(source, tmp_path):
    batch = source.data.train(0)
    source.likelihood.check(np.asarray(batch["x"]).reshape(-1, *source.frame_shape))
    assert source.num_frames("test") == np.sum(source.dataset.splits["test"]["mask"], dtype=int)
    rows = np.arange(2)
    data = sequence_pictures.shown(source, "test", rows)
    assert [len(x) for x in data] == list(np.asarray(source.dataset.splits["test"]["mask"])[:2].sum(axis=1, dtype=int))
    sequence_pictures.draw(tmp_path, "samples", source, {"data": data, "again": data})
    written = {path.name for path in tmp_path.iterdir() if path.name.startswith("samples")}
    sounds = {"samples_data.wav", "samples_again.wav"} if source.kind == "speech" else set()
    assert written == {"samples.png"} | sounds
    labels = {"outlines": 52, "spoken_digits": 2}.get(source.dataset.name, 0)
    assert source.num_labels() == labels


def test_numbers_are_totals_by_totals_in_the_units_of_the_source(source):
    kinds = {"nll": ("bound", "one draw")}
    found = measurements(source, {"nll": 12.0, "rate": 2.0, "distortion": 10.0}, kinds)
    per_frame = source.dataset.size("test") / source.num_frames("test")
    added = {"source": 2 * math.log(source.scale / 4), "outlines": 2 * math.log(source.scale)}
    added = added.get(source.dataset.name, 0.0) if source.kind == "strokes" else 0.0
    nll = found[f"nll_per_{source.unit}"]
    assert nll.value == pytest.approx(12 * per_frame + added)
    assert (nll.kind, nll.unit) == ("bound", f"nats/{source.unit}")
    parts = [found[f"{name}_per_{source.unit}"].value for name in ("rate", "distortion")]
    assert sum(parts) == pytest.approx(nll.value)
    assert ("nll_bits_per_sample" in found) == (source.kind == "speech")
    if source.kind == "speech":
        assert found["nll_bits_per_sample"].value == pytest.approx(nll.value / math.log(2) / 40)


def test_a_pen_that_ends_ends_its_drawing():
    moves = np.array([[0, 0, 0], [3, 0, 1], [1, 1, 0], [0, 2, 2], [9, 9, 0]], float)
    lines = sequence_pictures._lines(moves)
    assert [len(line) for line in lines] == [2, 2]
    assert max(np.ptp(np.concatenate(lines), axis=0)) == pytest.approx(0.85)


def test_unknown_sources_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`source` must be one of"):
        sequences("no_such_source", 2, 0)
    with pytest.raises(ValueError, match="`images` must be grey"):
        sequences("photos", 2, 0)
    (tmp_path / "broken.npz").write_text("no archive")
    with pytest.raises(ValueError, match=r"NumPy \.npz archive"):
        sequences(str(tmp_path / "broken.npz"), 2, 0)
