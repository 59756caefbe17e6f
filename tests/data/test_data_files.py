"""The user's own files: what is read from whole ones, and what broken ones are answered with."""

import gzip
import struct
import wave
import zipfile
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jgen.data import arrays, load, media
from jgen.data.pipeline import SPLITS

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 5, 7)).astype(np.uint8)
COLOUR = RNG.integers(0, 256, (40, 5, 7, 3)).astype(np.uint8)


def _savez(path, arrays: dict[str, Any]):
    np.savez(path, **arrays)


def _sizes(data):
    return [data.size(split) for split in SPLITS]


def _refused(path, match, **options):
    """The source is refused with its name and `match`."""
    with pytest.raises(ValueError, match=match) as caught:
        load(str(path), **options)
    assert path.name in str(caught.value)


# --- splits -----------------------------------------------------------------------------------------------------------


def test_missing_splits_are_a_partition_that_the_seed_fixes(tmp_path):
    np.savez(tmp_path / "a.npz", train=np.arange(100, dtype=np.float32)[:, None], train_label=np.arange(100))
    data, same, other = (load(str(tmp_path / "a.npz"), seed=seed) for seed in (0, 0, 1))
    assert _sizes(data) == [80, 10, 10]
    assert _is_partition(data, 100)
    for split in SPLITS:
        np.testing.assert_array_equal(data.splits[split]["x"][:, 0], data.splits[split]["label"])
        np.testing.assert_array_equal(data.splits[split]["x"], same.splits[split]["x"])
        assert not np.array_equal(data.splits[split]["x"], other.splits[split]["x"])
    assert _sizes(load(str(tmp_path / "a.npz"), holdout=(0.2, 0.3))) == [50, 20, 30]


def _is_partition(data, num):
    return sorted(np.concatenate([data.splits[split]["label"] for split in SPLITS])) == list(range(num))


def test_a_split_that_leaks_is_caught(tmp_path, monkeypatch):
    class Leaking:
        def permutation(self, num):
            return np.arange(num) // 2

    np.savez(tmp_path / "a.npz", train=np.zeros((100, 1)), train_label=np.arange(100))
    monkeypatch.setattr(np.random, "default_rng", lambda seed: Leaking())
    assert not _is_partition(load(str(tmp_path / "a.npz")), 100)


def test_given_splits_are_kept(tmp_path):
    np.savez(tmp_path / "a.npz", train=GREY[:20], valid=GREY[20:35], test=GREY[35:])
    data = load(str(tmp_path / "a.npz"), seed=5)
    for split, rows in zip(SPLITS, (GREY[:20], GREY[20:35], GREY[35:]), strict=True):
        np.testing.assert_array_equal(data.splits[split]["x"][..., 0], rows)
    np.savez(tmp_path / "b.npz", train=GREY[:20], test=GREY[35:])
    assert _sizes(load(str(tmp_path / "b.npz"))) == [18, 2, 5]


# --- levels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "levels", "dtype"), [
    (GREY, 256, np.uint8), (GREY % 2, 2, np.uint8), (GREY > 99, 2, np.uint8),
    ((GREY % 5).astype(np.int64), 5, np.uint8),
    (GREY.astype(np.int32) * 9, 9 * 255 + 1, np.int32), (GREY.astype(np.int16) - 9, None, np.float32),
    (GREY.astype(np.int64) * 999, None, np.float32), (GREY / 255, None, np.float32),
    (np.float16(GREY), None, np.float32),
])  # fmt: skip
def test_levels_come_from_the_data(tmp_path, x, levels, dtype):
    x[0] = x.max()
    np.savez_compressed(tmp_path / "a.npz", train=x)
    data = load(str(tmp_path / "a.npz"))
    assert (data.levels, data.splits["test"]["x"].dtype, data.shape) == (levels, dtype, (5, 7, 1))


# --- .npz -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("x", "shape"), [(GREY, (5, 7, 1)), (COLOUR, (5, 7, 3)), (GREY.reshape(40, -1), (35,))])
def test_npz_shapes_and_labels(tmp_path, x, shape):
    np.savez(tmp_path / "mine.npz", train=x, train_label=np.arange(40)[:, None], test=x, test_label=np.arange(40) * 0.5)
    data = load(str(tmp_path / "mine.npz"))
    assert (data.name, data.shape, data.splits["train"]["label"].dtype) == ("mine", shape, np.int32)
    assert data.splits["test"]["label"].dtype == np.float32


def test_npz_other_names_and_orders(tmp_path):
    label = np.arange(40).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x_train=np.asfortranarray(COLOUR), y_train=label, x_test=COLOUR, y_test=label)
    data = load(str(tmp_path / "a.npz"))
    np.testing.assert_array_equal(data.splits["train"]["x"], COLOUR[data.splits["train"]["label"]])
    np.savez(tmp_path / "b.npz", GREY)
    assert load(str(tmp_path / "b.npz")).shape == (5, 7, 1)


def test_npz_that_cannot_be_used(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    for content, match in (
        ({"tset": GREY}, r"expected an array 'train', .*found \['tset'\]"),
        ({"train": GREY, "tset": GREY}, r"found \['train', 'tset'\]"),
        ({"train": GREY, "x": GREY}, r"expected one array of .*found \['train', 'x'\]"),
        ({}, "expected an array 'train', .*found none"),
        ({"train": GREY[:, 0, 0]}, r"expected rows .*found train \(40,\)"),
        ({"train": GREY[:0]}, r"expected rows .*found train \(0, 5, 7\)"),
        ({"train": np.float32(3)}, r"expected rows .*found train \(\)"),
        ({"train": GREY[:2]}, "expected more than 2 examples, to split off valid and test, found 2"),
        ({"train": GREY, "test": GREY[:, :4]}, r"one shape in all splits, found .*\(4, 7, 1\)"),
        ({"train": GREY, "train_label": np.arange(39)}, "one length in train, found .*'label': 39"),
        ({"train": GREY, "train_label": np.arange(40), "test": GREY}, "labels in all splits or in none"),
        ({"train": GREY, "train_label": np.array(["a"] * 40)}, "finite numbers in train_label, found type <U1"),
        ({"train": GREY, "train_label": np.full(40, np.nan)}, "finite numbers in train_label, found others"),
        ({"train": np.where(GREY[3, 0, 0] == GREY, np.nan, 1.0)}, "expected finite numbers .*examples of train"),
        ({"train": np.full((9, 2), 1e39)}, "expected finite numbers .*found 9 examples of train with others, first 0"),
        ({"train": np.full((9, 2), 1j)}, "expected bool, whole or floating numbers, found train of type complex128"),
    ):
        _savez(path, content)
        _refused(path, match)
    np.savez(path, train=np.array([{"a": 1}] * 9), allow_pickle=True)
    _refused(path, "Python objects, which are never unpickled")
    np.savez(path, train=GREY)
    monkeypatch.setattr(arrays, "MAX_BYTES", 1_000)
    _refused(path, "expected at most 1,000 bytes of data, found 1,5")


def test_broken_npz(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, train=GREY)
    whole = path.read_bytes()
    for broken in (b"", b"no archive", whole[: len(whole) // 2], whole[:100] + bytes(60) + whole[160:]):
        path.write_bytes(broken)
        _refused(path, r"expected a NumPy .npz archive, found a broken one|expected an array in train.npy")
    for member, match in (
        (b"no array", "expected an array in train.npy, found a broken header"),
        (_npy((10**12, 7)), r"expected a whole array in train.npy, found 5 bytes where \(1000000000000, 7\)"),
        (_npy((4, 1)), r"found 5 bytes where \(4, 1\) of uint8 needs 4"),
        (_npy((6, 1)), r"found 5 bytes where \(6, 1\) of uint8 needs 6"),
    ):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("train.npy", member)
        _refused(path, match)


def _npy(shape):
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"12345"


# --- idx --------------------------------------------------------------------------------------------------------------


def _idx(array, code=0x08):
    shape = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, code, array.ndim]) + shape + array.astype(array.dtype.newbyteorder(">")).tobytes()


def _mnist(folder, suffix=""):
    folder.mkdir()
    write = (lambda data: gzip.compress(data)) if suffix else (lambda data: data)
    for name, x in {
        "train-images-idx3-ubyte": GREY[:30], "train-labels-idx1-ubyte": np.arange(30, dtype=np.uint8),
        "t10k-images-idx3-ubyte": GREY[30:], "t10k-labels-idx1-ubyte": np.arange(30, 40, dtype=np.uint8),
    }.items():  # fmt: skip
        (folder / (name + suffix)).write_bytes(write(_idx(x)))
    return folder


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder(tmp_path, suffix):
    data = load(str(_mnist(tmp_path / "mnist", suffix)))
    assert (data.name, data.levels, data.shape, _sizes(data)) == ("mnist", 256, (5, 7, 1), [27, 3, 10])
    for split in SPLITS:
        np.testing.assert_array_equal(data.splits[split]["x"][..., 0], GREY[data.splits[split]["label"]])


def test_idx_without_labels_and_of_other_types(tmp_path):
    folder = _mnist(tmp_path / "mnist")
    (folder / "t10k-labels-idx1-ubyte").unlink()
    assert set(load(str(folder)).splits["train"]) == {"x"}
    path = tmp_path / "mine-idx3-float"
    path.write_bytes(_idx(GREY.astype(np.float32) / 9, 0x0D))
    data = load(str(path))
    assert data.levels is None
    assert {x.tobytes() for s in SPLITS for x in data.splits[s]["x"]} == {
        x.tobytes() for x in GREY.astype(np.float32) / 9
    }


def test_broken_idx(tmp_path, monkeypatch):
    folder = _mnist(tmp_path / "mnist", ".gz")
    path = folder / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for broken, match in (
        (whole[: len(whole) // 2], "expected a whole gzip file, found a broken or truncated one"),
        (whole[:30] + b"\xff\xff\xff" + whole[33:], "gzip file"),
        (b"not gzip", "expected a whole gzip file"),
        (gzip.compress(b""), "expected an idx file"),
        (gzip.compress(b"\x00\x00\x07\x03aaaa"), r"expected an idx file \(magic 0, 0, type, rank\), found b'\\x00"),
        (gzip.compress(_idx(GREY)[:9]), "expected 3 sizes in the header, found the end of the file after 5 bytes"),
        (gzip.compress(_idx(GREY)[:-1]), r"expected 1,400 bytes of \(40, 5, 7\) after the header, found 1,399"),
        (gzip.compress(_idx(GREY) + b"a"), "expected 1,400 bytes .*found more"),
        (gzip.compress(_idx(GREY[:0])), "expected rows"),
        (gzip.compress(_idx(GREY[:29])), "one length in train"),
    ):
        path.write_bytes(broken)
        _refused(folder, match)
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 2**20, 7)))
    _refused(folder, "expected at most .*bytes of data")
    path.write_bytes(whole)
    monkeypatch.setattr(arrays, "MAX_BYTES", 1_000)
    _refused(folder, "expected at most 1,000 bytes of data, found 1,050")


def test_idx_folders_that_lack_or_double_files(tmp_path):
    folder = _mnist(tmp_path / "mnist")
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"the plain file beside it is read")
    assert load(str(folder)).size("test") == 10
    (folder / "other-train-images-idx3-ubyte").write_bytes(_idx(GREY))
    _refused(folder, "expected one file of train images")
    for name in ("other-train-images-idx3-ubyte", "train-images-idx3-ubyte", "train-images-idx3-ubyte.gz"):
        (folder / name).unlink()
    _refused(folder, "expected train-images-idx3-ubyte or .*found .*'t10k-images-idx3-ubyte'")
    (folder / "train-images-idx3-ubyte").write_bytes(_idx(GREY[:30]))
    (folder / "train-labels-idx1-ubyte").write_bytes(_idx(GREY))
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte: expected labels \(n,\), found \(40, 5, 7\)"):
        load(str(folder))


# --- .amat ------------------------------------------------------------------------------------------------------------


def _amat(x, end="\n"):
    return end.join(" ".join(map(str, row)) for row in x) + end


@pytest.mark.parametrize("end", ["\n", " \n", "\r\n"])
@pytest.mark.parametrize(("dim", "shape"), [(9, (3, 3, 1)), (10, (10,))])
def test_amat_folder(tmp_path, end, dim, shape):
    x = RNG.integers(0, 2, (30, dim))
    for split, rows in zip(SPLITS, (x[:20], x[20:25], x[25:]), strict=True):
        (tmp_path / f"bits_{split}.amat").write_bytes(_amat(rows, end).encode())
    data = load(str(tmp_path))
    assert (data.name, data.levels, data.shape, _sizes(data)) == ("bits", 2, shape, [20, 5, 5])
    np.testing.assert_array_equal(np.concatenate([data.splits[s]["x"] for s in SPLITS]).reshape(30, -1), x)
    assert data.splits["train"]["x"].dtype == np.uint8


def test_amat_file_without_a_last_line_feed_and_of_zeros(tmp_path):
    path = tmp_path / "one.amat"
    path.write_text(_amat(RNG.integers(0, 2, (30, 5)))[:-1])
    assert _sizes(load(str(path))) == [24, 3, 3]
    path.write_text(_amat(np.zeros((30, 5), int)))
    assert load(str(path)).levels == 2


def test_broken_amat(tmp_path):
    path = tmp_path / "bits.amat"
    for content, match in (
        ("", "expected data, found an empty file"),
        ("\n \n", "expected lines of 0 and 1, found no digit"),
        ("0 1\n1 2\n", "expected 0 and 1 alone, found '2' in line 2"),
        ("0 1\n10 1\n", "expected 0 and 1 alone, found '10' in line 2"),
        ("0 1\n0,1\n", "expected 0 and 1 alone, found '0,1' in line 2"),
        ("0 1\n1 1\n1\n", "expected 2 numbers a line, found 1 in line 3"),
        ("0 1\n1 1 1\n", "expected 2 numbers a line, found 3 in line 2"),
        ("0 \x01\n0 1\n", "expected 0 and 1 alone"),
        ("0 1\n1 0\n", "expected more than 2 examples"),
    ):
        path.write_text(content)
        _refused(path, match)
    path.rename(tmp_path / "bits_test.amat")
    _refused(tmp_path, r"expected a file \*_train.amat, found \['bits_test.amat'\]")
    for name in ("a_train.amat", "b_train.amat"):
        (tmp_path / name).write_text("0 1\n1 0\n")
    _refused(tmp_path, "expected one file of train, found a_train.amat and b_train.amat")


# --- .csv -------------------------------------------------------------------------------------------------------------

ROWS = [(i, i / 4 - 1, 1e-3 * i) for i in range(20)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("header", [None, ("a b", '"c"', "d")])
def test_csv(tmp_path, delimiter, header):
    path = tmp_path / "table.csv"
    path.write_text(
        "\ufeff" + "\n".join(delimiter.join(map(str, row)) for row in ([header] if header else []) + ROWS) + "\n\n"
    )
    data = load(str(path))
    assert (data.name, data.levels, data.shape, _sizes(data)) == ("table", None, (3,), [16, 2, 2])
    x = np.concatenate([data.splits[split]["x"] for split in SPLITS])
    np.testing.assert_allclose(x[np.argsort(x[:, 0])], ROWS, rtol=1e-6)


def test_csv_labels_and_binary_tables(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("a,Species,b\n" + "".join(f"{i},{'cat' if i % 2 else 'ant'},1\n" for i in range(20)))
    data = load(str(path))
    assert data.shape == (2,)
    assert data.label_names == ("ant", "cat")
    np.testing.assert_array_equal(data.splits["train"]["label"], data.splits["train"]["x"][:, 0] % 2)
    path.write_text("label,a\n" + "".join(f"{i},{i % 2}\n" for i in range(20)))
    data = load(str(path))
    assert data.levels == 2
    np.testing.assert_array_equal(data.splits["train"]["x"][:, 0], data.splits["train"]["label"] % 2)


def test_broken_csv(tmp_path):
    path = tmp_path / "table.csv"
    for content, match in (
        (b"", "expected data, found an empty file"),
        (b"\n\n", "expected rows of numbers, found no row"),
        (b"a,b\n", "expected rows of numbers, found no row"),
        (b"a,b\n1,2\n3\n", "expected 2 columns, found 1 in line 3"),
        (b"1,2\n\n3,x\n", "expected finite numbers, found 'x' in line 3, column 2"),
        (b"1,2\n3,\n", "expected finite numbers, found '' in line 2, column 2"),
        (b"1,2\n3,nan\n", "expected finite numbers, found 'nan' in line 2, column 2"),
        (b"a;b\n1,5;2\n", "expected finite numbers, found '1,5' in line 2, column 1"),
        (b"1,1e39\n" * 9, "expected finite numbers"),
        (b"\xff\xfe1", "expected UTF-8 text, found byte 0xff at 0"),
        (b"label\n1\n", "expected columns of numbers beside the label, found none"),
        (b"label,class,a\n1,2,3\n", r"expected one column of .*found \['label', 'class'\]"),
        (b"1\n2\n", "expected more than 2 examples"),
        (b'1,"2\n' + b"3" * 200_000 + b"\n", "expected comma-separated values"),
    ):
        path.write_bytes(content)
        _refused(path, match)


# --- folders of pictures ----------------------------------------------------------------------------------------------


def _save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def test_pictures_in_one_folder(tmp_path):
    for i, pixels in enumerate(GREY[:20]):
        _save(tmp_path / "faces" / f"{i:02}.png", pixels)
    (tmp_path / "faces" / "README.md").write_text("is not read")
    data = load(str(tmp_path / "faces"))
    assert (data.name, data.levels, data.shape, _sizes(data)) == ("faces", 256, (5, 7, 1), [16, 2, 2])
    assert {x.tobytes() for split in SPLITS for x in data.splits[split]["x"]} == {x.tobytes() for x in GREY[:20]}
    assert set(data.splits["train"]) == {"x"}


def test_pictures_with_classes_splits_and_colours(tmp_path):
    for i in range(20):
        split = "train" if i < 12 else "val" if i < 16 else "test"
        _save(tmp_path / split / ("cat" if i % 2 else "ant") / f"{i}.PNG", COLOUR[i])
    data = load(str(tmp_path))
    assert (data.shape, data.label_names, _sizes(data)) == ((5, 7, 3), ("ant", "cat"), [12, 4, 4])
    number = {x.tobytes(): i for i, x in enumerate(COLOUR)}
    for x, label in zip(data.splits["valid"]["x"], data.splits["valid"]["label"], strict=True):
        assert 12 <= number[x.tobytes()] < 16
        assert number[x.tobytes()] % 2 == label


def test_pictures_of_several_kinds_become_colour(tmp_path):
    grey = Image.fromarray(GREY[0])
    grey.save(tmp_path / "0.png")
    grey.save(tmp_path / "1.jpg", quality=95)
    Image.fromarray(COLOUR[0]).convert("P").save(tmp_path / "2.png")
    Image.fromarray(np.concatenate([COLOUR[1], GREY[0][..., None]], axis=-1)).save(tmp_path / "3.png")
    for i in range(4, 9):
        grey.convert("1").save(tmp_path / f"{i}.png")
    data = load(str(tmp_path))
    assert data.shape == (5, 7, 3)
    assert COLOUR[1].tobytes() in {x.tobytes() for split in SPLITS for x in data.splits[split]["x"]}


def test_pictures_that_cannot_be_used(tmp_path, monkeypatch):
    for i, pixels in enumerate(GREY[:10]):
        _save(tmp_path / f"{i}.png", pixels)
    path, whole = tmp_path / "5.png", (tmp_path / "5.png").read_bytes()

    def refused(match):
        with pytest.raises(ValueError, match=rf"5.png: {match}"):
            load(str(tmp_path))

    for broken in (b"", b"no picture", whole[:20], b"GIF89a" + whole):
        path.write_bytes(broken)
        refused("expected a PNG or JPEG picture, found what cannot be read as one")
    _save(path, RNG.integers(0, 256, (500, 5)).astype(np.uint8).T.copy())
    refused(r"expected \(7, 5\) pixels as in 0.png, found \(500, 5\)")
    _save(path, GREY[0].astype(np.uint16) * 99)
    refused("expected 8 bits a channel, found mode I;16")
    path.write_bytes(whole[:-30])
    refused("expected a whole picture, found a broken or truncated one")
    path.write_bytes(whole)
    with monkeypatch.context() as patch:
        patch.setattr(media, "MAX_PIXELS", 34)
        with pytest.raises(ValueError, match=r"0.png: expected at most 34 pixels, found 7 x 5"):
            load(str(tmp_path))
        patch.setattr(media, "MAX_PIXELS", 35)
        patch.setattr(arrays, "MAX_BYTES", 1_000)
        _refused(tmp_path, "expected at most 1,000 bytes of data, found 1,050")
    _save(tmp_path / "cat" / "11.png", GREY[0])
    _refused(tmp_path, "expected files in subfolders .*found both")


def test_a_picture_bomb_is_refused_by_its_header(tmp_path):
    for i in range(3):
        _save(tmp_path / f"{i}.png", np.zeros((1, 1), np.uint8))
    file = tmp_path / "0.png"
    data = bytearray(file.read_bytes())
    data[16:24] = struct.pack(">2I", 10_000, 10_000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    file.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"0.png: expected at most 67,108,864 pixels, found 10000 x 10000"):
        load(str(tmp_path))
    data[16:24] = struct.pack(">2I", 2**30, 2**30)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    file.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"0.png: expected"):
        load(str(tmp_path))


# --- folders of sound -------------------------------------------------------------------------------------------------


def _wav(path, values, rate=8_000, width=2, channels=1):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(values)


def test_sound_is_split_by_recording(tmp_path):
    for i in range(20):
        _wav(tmp_path / ("b" if i % 2 else "a") / f"{i}.wav", np.full(35, i * 100, "<i2").tobytes())
    data = load(str(tmp_path), length=10)
    assert (data.shape, data.sample_rate, data.label_names, _sizes(data)) == ((10,), 8_000, ("a", "b"), [48, 6, 6])
    seen = [{round(float(v) * 2**15) // 100 for v in np.unique(data.splits[split]["x"])} for split in SPLITS]
    assert set.union(*seen) == set(range(20))
    assert sum(map(len, seen)) == 20
    number = np.round(data.splits["train"]["x"][:, 0] * 2**15).astype(int) // 100
    np.testing.assert_array_equal(data.splits["train"]["label"], number % 2)


@pytest.mark.parametrize(("width", "raw", "low", "high"), [
    (1, bytes([0, 255]), -1, 127 / 128),
    (2, struct.pack("<2h", -(2**15), 2**15 - 1), -1, 1 - 2**-15),
    (3, b"\x00\x00\x80\xff\xff\x7f", -1, 1 - 2**-23),
    (4, struct.pack("<2i", -(2**31), 2**31 - 1), -1, 1.0),
])  # fmt: skip
def test_sound_of_every_width(tmp_path, width, raw, low, high):
    _wav(tmp_path / "a.wav", raw, width=width)
    values, _ = media.read_wav(tmp_path / "a.wav")
    np.testing.assert_allclose(values, [low, high], rtol=1e-7)
    _wav(tmp_path / "a.wav", raw, width=width, channels=2)
    np.testing.assert_allclose(media.read_wav(tmp_path / "a.wav")[0], [(low + high) / 2], atol=1e-7)


def test_sound_that_cannot_be_used(tmp_path):
    for i in range(10):
        _wav(tmp_path / f"{i}.wav", np.zeros(35, "<i2").tobytes())
    _refused(tmp_path, "expected a recording of at least 1024 values in")
    _refused(tmp_path, "expected a recording of at least 36 values in", length=36)
    path, whole = tmp_path / "5.wav", (tmp_path / "5.wav").read_bytes()
    for broken, match in (
        (b"", "expected a PCM .wav file"), (b"RIFFnothing", "expected a PCM .wav file"),
        (whole[:-10], "expected 70 bytes of sound, found 60"), (whole[:30], "expected a PCM .wav file"),
        (whole[:20] + b"\x03" + whole[21:], "expected a PCM .wav file, found .*unknown format"),
        (whole[:40] + bytes(4), "expected 2 bytes of sound, found 0"),
    ):  # fmt: skip
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=rf"5.wav: {match}"):
            load(str(tmp_path), length=10)
    _wav(path, np.zeros(35, "<i2").tobytes(), rate=16_000)
    _refused(tmp_path, r"expected recordings of one sample rate, found \[8000, 16000\]", length=10)


# --- what is none of these --------------------------------------------------------------------------------------------


def test_unknown_formats(tmp_path):
    (tmp_path / "empty").mkdir()
    _refused(tmp_path / "empty", "expected .npz, .csv, .txt .*found an empty folder")
    for name, match in (("a.mat", "found a file that ends in '.mat'"), ("a", "found a file without an ending")):
        (tmp_path / "others").mkdir(exist_ok=True)
        (tmp_path / "others" / name).write_text("1")
        _refused(tmp_path / "others" / name, match)
    _refused(tmp_path / "others", r"found a folder with files of \['', '.mat'\]")
    _refused(tmp_path / "others", "expected text or sound, which `length` is for", length=3)
    np.savez(tmp_path / "a.npz", train=GREY)
    _refused(tmp_path / "a.npz", "expected text or sound, which `length` is for", length=3)


def test_a_path_that_is_a_known_name_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    assert load("digits").levels == 17
    _refused(tmp_path / "digits", "found an empty folder")
