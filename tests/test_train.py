"""The trainer: resuming is bit-exact, devices do not matter, NaN stops, damaged checkpoints are passed over."""

import gc
import pathlib
import signal
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from kill_target import experiment as case_experiment

from jgen.checkpoints import Checkpoints, digest
from jgen.data import Dataset, in_memory
from jgen.latent import vae
from jgen.learners import gradient
from jgen.math import likelihoods
from jgen.train import Experiment, Observer, train

HERE = pathlib.Path(__file__).parent
ONE = jax.devices()[:1]


class Record(Observer):
    """Keeps what it hears."""

    def __init__(self, stop_at=None):
        self.lines, self.warnings, self.begun, self._stop_at = [], [], [], stop_at

    def begin(self, step, num_steps):
        self.begun.append(step)

    def advance(self, step):
        if step == self._stop_at:
            signal.raise_signal(signal.SIGTERM)

    def log(self, split, step, metrics):
        self.lines.append((split, step, metrics))

    def warn(self, text):
        self.warnings.append(text)


def _data(batch_size=32, seed=0):
    rows = np.random.default_rng(0).integers(0, 2, (100, 6)).astype(np.float32)
    splits = {"train": {"x": rows}, "valid": {"x": rows[:40]}, "test": {"x": rows[:20]}}
    return in_memory(Dataset("coins", splits, levels=2), batch_size, seed)


def _experiment(num_steps=12, **keywords):
    networks = vae.dense((6,), likelihoods.Bernoulli(), 2, hidden_sizes=(16,))
    model = vae.model(networks, optax.adam(1e-2))
    keywords = {"log_every": 2, "eval_every": 4, **keywords}
    return Experiment(model, _data(keywords.pop("batch_size", 32)), num_steps, **keywords)


def _equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_same_seed_same_bits():
    one, two = (train(_experiment(), seed=3, devices=ONE) for _ in range(2))
    assert digest(one.state.params) == digest(two.state.params)
    other = train(_experiment(), seed=4, devices=ONE)
    assert digest(one.state.params) != digest(other.state.params)


@pytest.mark.parametrize("stop_at", [3, 4, 6, 9])
def test_stopped_and_resumed_is_never_stopped(tmp_path, stop_at):
    whole = train(_experiment(), seed=0, devices=ONE)
    stopped = train(_experiment(), seed=0, workdir=tmp_path, observer=Record(stop_at), devices=ONE)
    assert not stopped.finished
    assert stopped.step == stop_at
    record = Record()
    resumed = train(_experiment(), seed=0, workdir=tmp_path, observer=record, devices=ONE)
    assert resumed.finished
    assert record.begun == [stop_at]
    _equal(whole.state, resumed.state)


def test_selection_survives_a_restart(tmp_path):
    options = {"select": "negative_elbo", "eval_every": 2}
    whole = train(_experiment(**options), seed=0, devices=ONE)
    train(_experiment(**options), seed=0, workdir=tmp_path, observer=Record(stop_at=9), devices=ONE)
    resumed = train(_experiment(**options), seed=0, workdir=tmp_path, devices=ONE)
    assert whole.selected_step == resumed.selected_step
    _equal(whole.state, resumed.state)


def _constant_metric_experiment(values, **keywords):
    """A model whose validation metric follows `values`, one per evaluation."""

    def loss(key, params, stats, batch, *, train):
        return jnp.sum(params**2), (stats, {"loss": jnp.sum(params**2)})

    def evaluate(key, state, batch):
        return {"score": jnp.asarray(values)[state.opt_state[0].count - 1]}

    model = gradient(lambda key, batch: (jnp.ones(3), {}), loss, optax.adam(1e-2), evaluate=evaluate)
    return Experiment(model, _data(), len(values), log_every=1, eval_every=1, select="score", **keywords)


def test_best_state_is_kept_and_patience_ends_the_run(tmp_path):
    values = [5.0, 4.0, 3.0, 3.5, 3.4, 3.3, 1.0, 0.0]
    outcome = train(_constant_metric_experiment(values, patience=3), seed=0, workdir=tmp_path, devices=ONE)
    assert (outcome.step, outcome.selected_step, outcome.finished) == (6, 3, True)
    assert int(outcome.state.opt_state[0].count) == 3
    again = train(_constant_metric_experiment(values, patience=3), seed=0, workdir=tmp_path, devices=ONE)
    assert (again.step, again.selected_step) == (6, 3)
    patient = train(_constant_metric_experiment(values), seed=0, devices=ONE)
    assert patient.selected_step == 8


def test_unknown_metric_to_select_is_refused():
    with pytest.raises(ValueError, match="`select` must be one of the metrics"):
        train(_experiment(select="accuracy"), seed=0, devices=ONE)


@pytest.mark.parametrize("num", [2, 8])
@pytest.mark.parametrize("shard_state", [False, True])
def test_devices_do_not_matter(num, shard_state):
    alone, together = Record(), Record()
    one = train(_experiment(), seed=0, observer=alone, devices=ONE)
    experiment = _experiment(shard_state=shard_state)
    many = train(experiment, seed=0, observer=together, devices=jax.devices()[:num])
    for (_, _, a), (_, _, b) in zip(alone.lines, together.lines, strict=True):
        np.testing.assert_allclose([*a.values()], [*b.values()], atol=1e-5, rtol=1e-5)
    sample = jax.jit(experiment.model.sample, static_argnums=2)
    drawn = [np.asarray(sample(jax.random.key(1), state.state, 16)["x"]) for state in (one, many)]
    np.testing.assert_array_equal(*drawn)
    if shard_state:
        kernel = many.state.params["encoder"]["Dense_1" if num == 8 else "Dense_0"]["kernel"]
        assert not kernel.is_fully_replicated


def test_batch_must_divide_over_devices():
    with pytest.raises(ValueError, match="`batch_size` must be a multiple of the 8 devices, got 30"):
        train(_experiment(batch_size=30), seed=0, devices=jax.devices()[:8])


def test_pmap_with_an_axis_name_is_jit_on_the_whole_batch():
    networks = vae.dense((6,), likelihoods.Bernoulli(), 2, hidden_sizes=(16,))
    whole, shard = (vae.model(networks, optax.sgd(1e-1), axis_name=name) for name in (None, "shards"))
    batch = {"x": np.random.default_rng(0).integers(0, 2, (32, 6)).astype(np.float32)}
    state = whole.init(jax.random.key(0), batch)
    expected, metrics = jax.jit(whole.update)(jax.random.key(1), state, batch)
    parts = {"x": batch["x"].reshape(8, 4, 6)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        update = jax.pmap(shard.update, axis_name="shards", in_axes=(None, None, 0))
        found, ours = update(jax.random.key(1), state, parts)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[0], atol=1e-6), expected.params, found.params)
    np.testing.assert_allclose(metrics["loss"], ours["loss"][0], rtol=1e-5)


def test_first_value_that_is_not_finite_stops_the_run(tmp_path):
    def loss(key, params, stats, batch, *, train):
        value = jnp.sum(params)
        return value, (stats, {"loss": value, "other": jnp.where(params[0] < -0.065, jnp.nan, 0.0)})

    model = gradient(lambda key, batch: (jnp.zeros(2), {}), loss, optax.sgd(1e-2))
    experiment = Experiment(model, _data(), 20, log_every=10, eval_every=5)
    with pytest.raises(FloatingPointError, match="train metric `other` is not finite at step 8"):
        train(experiment, seed=0, workdir=tmp_path, devices=ONE)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["5"]


# Orbax leaves failed reads to the garbage collector, which complains of them whenever it comes by.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", ["truncate", "corrupt", "remove"])
def test_damaged_checkpoint_is_named_and_passed_over(tmp_path, damage):
    whole = train(_experiment(), seed=0, devices=ONE)
    train(_experiment(), seed=0, workdir=tmp_path, observer=Record(stop_at=9), devices=ONE)
    newest = tmp_path / "checkpoints" / "9"
    for path in [p for p in newest.rglob("*") if p.is_file() and p.parent.name == "d"]:
        content = path.read_bytes()
        if damage == "truncate":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "corrupt":
            path.write_bytes(content[:8] + bytes(byte ^ 255 for byte in content[8:]))
        else:
            path.unlink()
    record = Record()
    resumed = train(_experiment(), seed=0, workdir=tmp_path, observer=record, devices=ONE)
    gc.collect()
    assert any(str(newest) in text for text in record.warnings)
    assert record.begun == [8]
    _equal(whole.state, resumed.state)


def test_bytes_that_changed_are_noticed(tmp_path, monkeypatch):
    state = {"w": jnp.arange(5.0)}
    heard = []
    with Checkpoints(tmp_path, heard.append) as checkpoints:
        monkeypatch.setattr("jgen.checkpoints.digest", lambda tree: "something else")
        checkpoints.save(1, state, {})
        checkpoints.wait()
        monkeypatch.undo()
        assert checkpoints.restore(state) is None
    assert "its bytes differ" in heard[0]


def test_full_disk_is_raised_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    import errno

    def full(self, step, state, notes, real=Checkpoints.save):
        if step >= 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, step, state, notes)

    monkeypatch.setattr(Checkpoints, "save", full)
    with pytest.raises(OSError, match="No space left"):
        train(_experiment(), seed=0, workdir=tmp_path, devices=ONE)
    monkeypatch.undo()
    record = Record()
    resumed = train(_experiment(), seed=0, workdir=tmp_path, observer=record, devices=ONE)
    assert record.begun == [4]
    _equal(resumed.state, train(_experiment(), seed=0, devices=ONE).state)


@pytest.mark.parametrize("name", ["num_steps", "log_every", "eval_every"])
def test_steps_must_be_positive(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        _experiment(**{name: 0})


def test_metrics_of_update_must_be_scalars():
    def loss(key, params, stats, batch, *, train):
        return jnp.sum(params), (stats, {"loss": params})

    model = gradient(lambda key, batch: (jnp.zeros(2), {}), loss, optax.sgd(1e-2))
    with pytest.raises(ValueError, match="must be scalars, got `loss` of shape"):
        train(Experiment(model, _data(), 2), seed=0, devices=ONE)


def test_evaluation_counts_every_example_once():
    def loss(key, params, stats, batch, *, train):
        return jnp.sum(params), (stats, {"loss": jnp.sum(params)})

    def evaluate(key, state, batch):
        return {"mean": jnp.mean(batch["x"], axis=-1)}

    model = gradient(lambda key, batch: (jnp.zeros(2), {}), loss, optax.sgd(1e-2), evaluate=evaluate)
    record, data = Record(), _data(batch_size=32)
    train(Experiment(model, data, 1, eval_every=1), seed=0, observer=record, devices=ONE)
    rows = np.concatenate([np.asarray(batch["x"])[:num] for batch, num in data.batches("valid")])
    assert len(rows) == 40
    np.testing.assert_allclose(record.lines[-1][2]["mean"], rows.mean(), rtol=1e-6)


@pytest.mark.parametrize("devices", [1, 2])
def test_update_is_compiled_once(caplog, devices):
    def loss(key, params, stats, batch, *, train):
        value = jnp.sum(params**2)
        return value, (stats, {"loss": value})

    # Full of a Python number is weakly typed, and no longer after the optimizer's first step.
    model = gradient(lambda key, batch: (jnp.full(2, 0.5), {}), loss, optax.sgd(1e-2))
    with jax.log_compiles():
        train(Experiment(model, _data(), 6, log_every=2, eval_every=3), seed=0, devices=jax.devices()[:devices])
    compiled = [line for line in caplog.messages if line.startswith("Finished XLA compilation of jit(_update)")]
    assert len(compiled) == 1, compiled


KILLED = ["vae", "gan", "rbm", "ddpm_averaged"]


def _life(name, directory, when):
    command = [sys.executable, str(HERE / "kill_target.py"), name, str(directory), str(when)]
    return subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=False)


@pytest.mark.parametrize("name", KILLED)
def test_killed_at_random_and_resumed_is_never_stopped(tmp_path, name):
    expected = digest(train(case_experiment(name), seed=0, devices=ONE).state.params)
    moment = int(np.random.default_rng().integers(6, 30))
    lives = [_life(name, tmp_path, moment), _life(name, tmp_path, "write"), _life(name, tmp_path, "never")]
    assert [life.returncode for life in lives] == [-signal.SIGKILL, -signal.SIGKILL, 0], lives[-1].stderr[-2000:]
    assert lives[-1].stdout.split()[-1] == expected, f"killed at update {moment}"


def _losses(text):
    return np.array([line.split()[1] for line in text.splitlines() if line.startswith("loss ")], float)


def test_two_processes_agree_with_one(tmp_path):
    program = HERE / "two_processes.py"
    alone = subprocess.run([sys.executable, str(program), "1"], capture_output=True, text=True, check=True, cwd=HERE)
    started = [
        subprocess.Popen(
            [sys.executable, str(program), "2", str(rank), str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=HERE
        )
        for rank in range(2)
    ]
    losses = [_losses(process.communicate(timeout=240)[0]) for process in started]
    assert [process.returncode for process in started] == [0, 0]
    expected = _losses(alone.stdout)
    assert len(expected) > 3
    for found in losses:
        np.testing.assert_allclose(found, expected, rtol=1e-5)
