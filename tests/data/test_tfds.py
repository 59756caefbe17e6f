"""Prepared TFDS sets, written here by hand in TFDS' own layout: no TensorFlow, no network."""

import io
import json
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto import tf_example_pb2

from jgen.data import arrays, load, text, tfds

IMAGE = {
    "image": {"dtype": "uint8", "shape": {"dimensions": ["4", "6", "1"]}},
    "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
}
LABEL = {
    "classLabel": {"numClasses": "3"},
    "pythonClassName": "tensorflow_datasets.core.features.class_label_feature.ClassLabel",
}
TEXT = {"text": {}, "pythonClassName": "tensorflow_datasets.core.features.text_feature.Text"}
TENSOR = {
    "tensor": {"shape": {"dimensions": ["2"]}, "dtype": "float32", "encoding": "none"},
    "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
}
PIXELS = np.random.default_rng(0).integers(0, 256, (50, 4, 6, 1)).astype(np.uint8)


def _png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(file, "PNG")
    return file.getvalue()


def _image(i, pixels=None):
    return {"image": _png(PIXELS[i] if pixels is None else pixels), "label": i % 3}


def _prepare(folder, features, splits, file_format="array_record"):
    """What `download_and_prepare` leaves behind, for `splits` of {feature: bytes or int}."""
    folder.mkdir(parents=True)
    name, described = folder.parent.name, []
    for split, examples in splits.items():
        writer = ArrayRecordWriter(str(folder / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1")
        for example in examples:
            proto = tf_example_pb2.Example()  # pyright: ignore[reportAttributeAccessIssue]
            for key, value in example.items():
                feature = proto.features.feature[key]
                if isinstance(value, bytes):
                    feature.bytes_list.value.append(value)
                else:
                    feature.int64_list.value.append(value)
            writer.write(proto.SerializeToString())
        writer.close()
        described.append({
            "name": split, "numBytes": "1", "shardLengths": [str(len(examples))],
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        })  # fmt: skip
    info = {"name": name, "version": folder.name, "fileFormat": file_format, "splits": described}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    python = "tensorflow_datasets.core.features.features_dict.FeaturesDict"
    (folder / "features.json").write_text(
        json.dumps({"featuresDict": {"features": features}, "pythonClassName": python})
    )


def test_images_with_labels_and_a_validation_split_by_permutation(tmp_path, monkeypatch):
    features = {"image": IMAGE, "label": LABEL}
    splits = {"train": [_image(i) for i in range(40)], "test": [_image(i) for i in range(40, 50)]}
    _prepare(tmp_path / "tiny" / "1.0.0", features, splits)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    data = load("tfds:tiny", seed=3)
    assert (data.name, data.levels, data.shape, data.label_names) == ("tiny", 256, (4, 6, 1), ("0", "1", "2"))
    assert [data.size(split) for split in ("train", "valid", "test")] == [36, 4, 10]
    np.testing.assert_array_equal(data.splits["test"]["x"], PIXELS[40:])
    np.testing.assert_array_equal(data.splits["test"]["label"], np.arange(40, 50) % 3)
    both = np.concatenate([data.splits["train"]["x"], data.splits["valid"]["x"]]).reshape(40, -1)
    assert {row.tobytes() for row in both} == {row.tobytes() for row in PIXELS[:40]}
    assert "tensorflow" not in sys.modules


def test_the_newest_version_the_option_data_dir_and_binary_images(tmp_path):
    bits = [{"image": _png(pixels % 2)} for pixels in PIXELS]
    splits = {"train": bits[:30], "validation": bits[30:40], "test": bits[40:]}
    _prepare(tmp_path / "bits" / "1.9.0", {"image": IMAGE}, {"train": bits[:20]})
    _prepare(tmp_path / "bits" / "1.10.0", {"image": IMAGE}, splits)
    data = load(f"tfds:bits?data_dir={tmp_path}")
    assert (data.levels, [data.size(split) for split in ("train", "valid", "test")]) == (2, [30, 10, 10])
    old = load(f"tfds:bits:1.9.0?data_dir={tmp_path}", holdout=(0.25, 0.25))
    assert [old.size(split) for split in ("train", "valid", "test")] == [10, 5, 5]


def test_text_becomes_characters(tmp_path):
    lines = {"train": [{"text": b"abc abc abc abc abc"}, {"text": "dé".encode()}], "test": [{"text": b"cab"}]}
    _prepare(tmp_path / "lines" / "1.0.0", {"text": TEXT}, lines)
    data = load(f"tfds:lines?data_dir={tmp_path}", length=2, holdout=(0.2, 0.2))
    assert data.vocabulary is not None
    assert data.vocabulary == tuple("\n abcdé")
    assert text.decode(data.splits["test"]["tokens"], data.vocabulary) == "ca"
    assert data.splits["train"]["tokens"].shape == (9, 2)


def test_sound_is_split_first_and_cut_then(tmp_path):
    rows = [{"audio": np.full(25, 2**14 + i), "label": i % 2} for i in range(20)]

    class Source(list):
        def __getitems__(self, indices):
            return [self[i] for i in indices]

    found = tfds._Set("beeps", tmp_path, {"train": Source(rows)}, "audio", "audio", "label", ("a", "b"), 8_000)
    data = tfds._sound(found, 0, None, 10)
    assert (data.shape, data.sample_rate, data.size("train"), data.size("test")) == ((10,), 8_000, 32, 4)
    number = np.round(data.splits["train"]["x"][:, 0] * 2**15 - 2**14).astype(int)
    np.testing.assert_array_equal(data.splits["train"]["label"], number % 2)
    values = [set(np.unique(data.splits[split]["x"])) for split in ("train", "valid", "test")]
    assert not values[0] & values[1]
    assert not values[0] & values[2]
    assert not values[1] & values[2]
    with pytest.raises(ValueError, match="at least 26 values"):
        tfds._sound(found, 0, None, 26)


def test_what_is_not_prepared_is_told_how(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"mnist: expected a prepared set mnist .*jgen\[prepare\].*download_and_prepare"
    ):
        load("tfds:mnist")
    _prepare(tmp_path / "glue" / "cola" / "1.0.0", {"text": TEXT}, {"train": [{"text": b"a"}]})
    with pytest.raises(ValueError, match=r"only configurations \['cola'\], name one as glue/cola"):
        load("tfds:glue")
    with pytest.raises(ValueError, match=r"of version 2.0.0 .*found none"):
        load("tfds:glue/cola:2.0.0")


@pytest.mark.parametrize("name", ["", "../mnist", "mnist:x", "mnist?data_dir="])
def test_malformed_names(name):
    with pytest.raises(ValueError, match="`source` must be tfds:NAME"):
        load(f"tfds:{name}")


def test_what_cannot_be_used(tmp_path, monkeypatch):
    where = f"?data_dir={tmp_path}"
    other = PIXELS[0, :, :5]
    _prepare(tmp_path / "sizes" / "1.0.0", {"image": IMAGE}, {"train": [_image(0), _image(1, other)]})
    with pytest.raises(ValueError, match=r"sizes.1.0.0: expected (images of one size|readable examples).*\(4, 5, 1\)"):
        load("tfds:sizes" + where)
    _prepare(tmp_path / "records" / "1.0.0", {"image": IMAGE}, {"train": [_image(0)]}, file_format="tfrecord")
    with pytest.raises(ValueError, match=r"records.*expected a set in array_record files"):
        load("tfds:records" + where)
    _prepare(tmp_path / "tested" / "1.0.0", {"image": IMAGE}, {"test": [_image(0)]})
    with pytest.raises(ValueError, match=r"expected a split train, found \['test'\]"):
        load("tfds:tested" + where)
    _prepare(tmp_path / "rows" / "1.0.0", {"vector": TENSOR}, {"train": [{"vector": b"12345678"}]})
    with pytest.raises(ValueError, match=r"feature Image, Audio or Text, found .*Tensor"):
        load("tfds:rows" + where)
    _prepare(tmp_path / "good" / "1.0.0", {"image": IMAGE}, {"train": [_image(i) for i in range(9)]})
    with pytest.raises(ValueError, match="`length` is for"):
        load("tfds:good" + where, length=3)
    file = next((tmp_path / "good" / "1.0.0").glob("*array_record*"))
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"good.1.0.0: expected"):
        load("tfds:good" + where)
    file.write_bytes(whole)
    monkeypatch.setattr(arrays, "MAX_BYTES", 100)
    with pytest.raises(ValueError, match="at most 100 bytes"):
        load("tfds:good" + where)
