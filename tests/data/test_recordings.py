"""Whole recordings: the spoken digits' names and splits, and windows that count each value once behind its past."""

import wave

import numpy as np
import pytest

from jgen.data import media
from jgen.data.pipeline import SPLITS


def write(path, value, num=5):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(np.full(num, value, "<i2").tobytes())


def digits(folder, indices=range(10)):
    for digit in range(3):
        for s, speaker in enumerate(("ann", "bob")):
            for i in indices:
                write(folder / f"{digit}_{speaker}_{i}.wav", 1_000 * digit + 100 * s + i, num=3 + i)


@pytest.mark.parametrize(("label", "names"), [
    ("digit", ("0", "1", "2")), ("speaker", ("ann", "bob")),
    ("both", ("0_ann", "0_bob", "1_ann", "1_bob", "2_ann", "2_bob")),
])  # fmt: skip
def test_spoken_digits_by_their_names(tmp_path, label, names):
    digits(tmp_path)
    found = media.spoken_digits(tmp_path, label)
    assert found.label_names == names
    assert found.sample_rate == 8_000
    assert found.label is not None
    indices = {"train": {8, 9}, "valid": {5, 6, 7}, "test": {0, 1, 2, 3, 4}}
    for split in SPLITS:
        codes = [round(float(values[0]) * 2**15) for values in found.splits[split]]
        assert {code % 100 for code in codes} == indices[split]
        assert [len(values) for values in found.splits[split]] == [3 + code % 100 for code in codes]
        parts = [(str(code // 1_000), ("ann", "bob")[code % 1_000 // 100]) for code in codes]
        expected = {
            "digit": [d for d, _ in parts],
            "speaker": [s for _, s in parts],
            "both": ["_".join(p) for p in parts],
        }
        assert [names[i] for i in found.label[split]] == expected[label]


def test_spoken_digits_that_cannot_be_used(tmp_path):
    with pytest.raises(ValueError, match=r"expected files \.wav, found none"):
        media.spoken_digits(tmp_path)
    digits(tmp_path, range(6))
    with pytest.raises(ValueError, match="found none for train"):
        media.spoken_digits(tmp_path)
    with pytest.raises(ValueError, match="`label` must be one of"):
        media.spoken_digits(tmp_path, "word")
    write(tmp_path / "hello.wav", 0)
    with pytest.raises(ValueError, match=r"expected names such as 7_jackson_32.wav, found hello.wav"):
        media.spoken_digits(tmp_path)


def test_recordings_of_any_length_with_their_classes(tmp_path):
    for i in range(20):
        write(tmp_path / ("b" if i % 2 else "a") / f"{i}.wav", 100 * i, num=1 + i)
    found = media.recordings(tmp_path)
    assert found.label is not None
    assert [len(found.splits[split]) for split in SPLITS] == [16, 2, 2]
    for split in SPLITS:
        for values, label in zip(found.splits[split], found.label[split], strict=True):
            assert len(values) % 2 == 1 - label
            assert round(float(values[0]) * 2**15) == 100 * (len(values) - 1)


@pytest.mark.parametrize("num", [1, 6, 7, 10, 11, 23])
def test_windows_with_past_count_each_value_once_behind_its_past(num):
    values = np.arange(1, num + 1)
    windows, mask = media.windows_with_past(values, length=7, past=3)
    np.testing.assert_array_equal(windows[mask], values)
    for row, counted in zip(windows, mask, strict=True):
        for t in np.flatnonzero(counted):
            before = row[:t] if row[0] == 1 else row[t - 3 : t]
            np.testing.assert_array_equal(before, np.arange(row[t] - len(before), row[t]))
            assert row[0] == 1 or len(before) == 3


@pytest.mark.parametrize(("length", "past", "name"), [(3, 3, "length"), (3, -1, "past")])
def test_windows_that_cannot_be(length, past, name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        media.windows_with_past(np.zeros(5), length, past)
