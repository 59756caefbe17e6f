"""Batches are pure functions of (seed, step)."""

import dataclasses

import jax
import numpy as np
import pytest

from jgen import random
from jgen.data import pipeline


def _dataset(num=10, **splits):
    def arrays(n, first):
        return {"x": np.arange(first, first + n, dtype=np.float32)[:, None], "label": np.arange(n)}

    return pipeline.Dataset(
        "numbers", {"train": arrays(num, 0), "valid": arrays(7, 100), "test": arrays(4, 200)} | splits
    )


def _noise(key, batch):
    return {**batch, "noise": jax.vmap(jax.random.uniform)(random.batch_keys(key, batch))}


def test_train_is_a_function_of_the_step_alone():
    first, second = (pipeline.in_memory(_dataset(), 3, 0, transform=_noise) for _ in range(2))
    forwards = [first.train(step) for step in range(8)]
    backwards = [second.train(step) for step in reversed(range(8))][::-1]
    jax.tree.map(np.testing.assert_array_equal, forwards, backwards)


def test_each_epoch_is_another_permutation_without_the_incomplete_batch():
    data = pipeline.in_memory(_dataset(), 3, 0)
    epochs = [np.concatenate([data.train(3 * e + i)["x"][:, 0] for i in range(3)]) for e in range(4)]
    for epoch in epochs:
        assert len(set(epoch)) == 9
        assert set(epoch) <= set(range(10))
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert {x for epoch in epochs for x in epoch} == set(range(10))


def test_arrays_stay_together_and_seeds_differ():
    batch, other = (pipeline.in_memory(_dataset(), 10, seed).train(0) for seed in (0, 1))
    np.testing.assert_array_equal(batch["x"][:, 0], batch["label"])
    assert not np.array_equal(batch["x"], other["x"])


def test_a_transform_draws_anew_in_each_step_and_per_example():
    data = pipeline.in_memory(_dataset(), 5, 0, transform=_noise)
    noise = np.stack([data.train(step)["noise"] for step in range(6)])
    assert len(np.unique(noise)) == noise.size


def test_batches_are_in_order_and_the_last_is_filled_up_by_its_own():
    data = pipeline.in_memory(_dataset(), 3, 0)
    batches = list(data.batches("valid"))
    assert [num for _, num in batches] == [3, 3, 1]
    np.testing.assert_array_equal(
        np.stack([b["x"][:, 0] for b, _ in batches]), [[100, 101, 102], [103, 104, 105], [106] * 3]
    )
    whole, num = next(iter(data.batches("test")))
    assert num == 3
    assert whole["x"].shape == (3, 1)
    wide = list(pipeline.in_memory(_dataset(), 3, 0, eval_batch_size=8).batches("valid"))
    assert len(wide) == 1
    assert wide[0][1] == 7
    assert wide[0][0]["x"].shape == (8, 1)


def test_the_noise_of_batches_depends_on_split_and_number_alone():
    data = pipeline.in_memory(_dataset(), 3, 0, transform=_noise)

    def draw(split):
        return np.stack([batch["noise"] for batch, _ in data.batches(split)])

    first = draw("valid")
    data.train(5)
    np.testing.assert_array_equal(draw("valid"), first)
    assert not np.isin(draw("test"), first).any()
    assert not np.isin(data.train(0)["noise"], first).any()


def test_an_evaluation_transform_of_its_own():
    data = pipeline.in_memory(_dataset(), 3, 0, transform=_noise, eval_transform=lambda key, batch: {"x": -batch["x"]})
    assert "noise" in data.train(0)
    assert float(next(data.batches("test"))[0]["x"][0, 0]) == -200.0


def test_data_goes_to_the_device_once():
    class Counted(dict):
        reads = 0

        def __getitem__(self, split):
            Counted.reads += 1
            return super().__getitem__(split)

    dataset = _dataset()
    data = pipeline.in_memory(dataclasses.replace(dataset, splits=Counted(dataset.splits)), 3, 0)
    assert isinstance(data.train(0)["x"], jax.Array)
    before = Counted.reads
    for step in range(10):
        data.train(step)
    assert Counted.reads == before


@pytest.mark.parametrize(("sizes", "match"), [
    ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
    ({"batch_size": 11}, "`batch_size` must be at most the 10 training examples, got 11"),
    ({"batch_size": 2, "eval_batch_size": 0}, "`eval_batch_size` must be at least 1, got 0"),
])  # fmt: skip
def test_batch_sizes(sizes, match):
    with pytest.raises(ValueError, match=match):
        pipeline.in_memory(_dataset(), seed=0, **sizes)


def test_empty_or_ragged_data_sets():
    with pytest.raises(ValueError, match="empty in its valid split"):
        _dataset(valid={"x": np.zeros((0, 1))})
    with pytest.raises(ValueError, match="empty in its test split"):
        _dataset(test={})
    with pytest.raises(ValueError, match="must share their length in train"):
        _dataset(train={"x": np.zeros((3, 1)), "label": np.zeros(2)})
    with pytest.raises(ValueError, match="must hold"):
        pipeline.Dataset("half", {"train": {"x": np.zeros((3, 1))}})


def test_shape_and_size():
    assert _dataset().shape == (1,)
    assert _dataset().size("valid") == 7
    rows = {"tokens": np.zeros((2, 5), np.int32)}
    assert pipeline.Dataset("words", dict.fromkeys(pipeline.SPLITS, rows)).shape == (5,)
