"""Early stopping with patience, and then learning anew from all data for as long: what the runner does in turn."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import options, runner
from experiments.system import System
from jgen.classical import classifier
from jgen.data import in_memory, load
from jgen.data.pipeline import with_validation
from jgen.metrics.measurement import Measurement
from jgen.nets.activations import Trunk
from jgen.train import Experiment, Outcome

pytestmark = pytest.mark.usefixtures("jax_as_it_is")
SIZES = []


@dataclasses.dataclass(frozen=True)
class Config:
    """The least that a system has."""

    data: str = "table:iris"
    num_steps: int = 200


def experiment(dataset, seed, num_steps, **stopping):
    """A network that soon fits the training rows too well."""
    SIZES.append(dataset.size("train"))
    model = classifier.network_model(Trunk((32,)), (classifier.Classes("label", 3),), optax.adam(0.1))

    def measure(key, state):
        test = {name: jnp.asarray(x) for name, x in dataset.splits["test"].items()}
        nll = float(np.mean(model.evaluate(key, state, test)["nll"]))
        return {"nll": Measurement(nll, "nats", "exact", "test", "iris")}

    return Experiment(model, in_memory(dataset, 24, seed), num_steps, measure, eval_every=5, **stopping)


def build(config, seed):
    return experiment(load(config.data), seed, config.num_steps, select="nll", patience=3)


def retrain(config, seed, outcome: Outcome):
    return experiment(with_validation(load(config.data)), seed, outcome.selected_step)


SYSTEM = System("Z1", "tests.retraining", "A network", "exact", Config, {"iris": Config()}, build, retrain)


def run(directory, system=SYSTEM):
    config = Config()
    description = {"system": system.module, "preset": "iris", "seed": 0, "config": dataclasses.asdict(config)}
    summary = runner.start(system, description, config, options.Run(device_count=1), directory)
    assert summary is not None
    return summary


def steps(path):
    return [row["step"] for row in map(json.loads, path.read_text().splitlines()) if row["split"] == "valid"]


def test_validation_rows_join_the_training_rows():
    iris = load("table:iris")
    both = with_validation(iris)
    assert {split: both.size(split) for split in both.splits} == {"train": 135, "valid": 15, "test": 15}
    np.testing.assert_array_equal(both.splits["train"]["x"][120:], iris.splits["valid"]["x"])
    np.testing.assert_array_equal(both.splits["train"]["label"][120:], iris.splits["valid"]["label"])


@pytest.fixture(scope="module", name="finished")
def _finished(tmp_path_factory, jax_as_it_is):
    """(summary, directory) of a finished run."""
    directory = tmp_path_factory.mktemp("runs") / "retrained"
    return run(directory), directory


def test_patience_ends_the_first_and_its_best_step_is_the_length_of_the_second(finished):
    summary, directory = finished
    first = steps(directory / "metrics.jsonl")
    assert first[-1] < 200, "patience ended it"
    second = steps(directory / "retrained" / "metrics.jsonl")
    assert second[-1] == first[-1] - 15 == summary["steps"]
    assert SIZES[:2] == [120, 135]


def test_the_result_is_that_of_all_data(finished, tmp_path):
    summary, _ = finished
    alone = dataclasses.replace(SYSTEM, retrain=None)
    other = run(tmp_path / "alone", alone)
    assert other["params_sha256"] != summary["params_sha256"]
    direct = dataclasses.replace(
        SYSTEM,
        retrain=None,
        build=lambda config, seed: experiment(with_validation(load(config.data)), seed, summary["steps"]),
    )
    assert run(tmp_path / "direct", direct)["params_sha256"] == summary["params_sha256"]


def test_a_finished_first_part_is_not_learned_again(finished, tmp_path):
    summary, _ = finished

    def fail(*unused):
        raise ValueError("stopped in between")

    with pytest.raises(ValueError, match="stopped in between"):
        run(tmp_path, dataclasses.replace(SYSTEM, retrain=fail))
    before = (tmp_path / "metrics.jsonl").read_text()
    assert run(tmp_path)["params_sha256"] == summary["params_sha256"]
    assert (tmp_path / "metrics.jsonl").read_text() == before
