"""Every model passes the same tests: what `jgen.Model` promises, and more where its fields say more."""

import dataclasses
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import BATCH, MODELS, ModelCase, real
from stat_checks import check_counts, check_mean

from jgen import Model, random
from jgen.checkpoints import Checkpoints
from jgen.learners import counting

NUM_DEVICES = 8


class Subject:
    """One model with what is compiled once for all of its tests."""

    def __init__(self, case: ModelCase) -> None:
        self.case, self.model = case, case.build()
        # Committed to a device, as what a checkpoint gives back: one program serves both.
        self.batch = {name: jax.device_put(value, jax.devices()[0]) for name, value in case.batch().items()}
        self.size = len(next(iter(self.batch.values())))
        self.init, self.update = jax.jit(self.model.init), jax.jit(self.model.update)
        self.evaluate = jax.jit(self.model.evaluate)
        self.start = self.init(jax.random.key(0), self.batch)
        self.state, self.metrics = self.steps(self.start, self.batch, 1, 3)

    def steps(self, state: Any, batch: Any, first: int, last: int) -> tuple[Any, Any]:
        metrics = {}
        for step in range(first, last):
            state, metrics = self.update(jax.random.key(step), state, batch)
        return state, metrics

    def draw(self, num: int) -> Any:
        assert self.model.sample is not None
        return jax.jit(self.model.sample, static_argnums=2)(jax.random.key(5), self.state, num)


@pytest.fixture(scope="module", params=MODELS, ids=lambda case: case.name)
def subject(request: pytest.FixtureRequest) -> Subject:
    """Parametrized at module scope, so that a model's tests run together and it compiles once."""
    return Subject(request.param)


def spec(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), tree)


def assert_equal(one: Any, other: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_names_are_unique():
    assert len({case.name for case in MODELS}) == len(MODELS)


def test_state_is_a_named_tuple_with_params_and_depends_on_the_key_only(subject):
    assert "params" in subject.start._fields
    assert_equal(subject.start, subject.init(jax.random.key(0), subject.batch))


def test_update_is_pure_and_repeats_itself(subject):
    before = jax.tree.map(np.array, subject.start)
    assert_equal(subject.steps(subject.start, subject.batch, 1, 3), (subject.state, subject.metrics))
    assert_equal(subject.start, before)


def test_update_keeps_structure_shapes_and_dtypes(subject):
    after, metrics = jax.eval_shape(subject.model.update, jax.random.key(1), subject.start, subject.batch)
    assert spec(after) == spec(subject.start)
    assert {name: value.shape for name, value in metrics.items()} == dict.fromkeys(metrics, ())
    assert metrics


def test_learning_changes_params_and_metrics_are_finite(subject):
    pairs = zip(jax.tree.leaves(subject.start.params), jax.tree.leaves(subject.state.params), strict=True)
    assert any(not np.array_equal(one, other) for one, other in pairs)
    assert all(np.isfinite(value) for value in subject.metrics.values())


def test_evaluation_gives_finite_scalars_or_one_value_per_example_and_changes_nothing(subject):
    before = jax.tree.map(np.array, subject.state)
    metrics = subject.evaluate(jax.random.key(2), subject.state, subject.batch)
    for name, value in metrics.items():
        assert value.shape in ((), (subject.size,)), name
        assert np.all(np.isfinite(value)), name
    assert_equal(subject.state, before)


def test_seeds_vmap(subject):
    def learn(key):
        state = subject.model.init(key, subject.batch)
        return subject.model.update(key, state, subject.batch)[0]

    states = jax.eval_shape(jax.vmap(learn), jax.random.split(jax.random.key(0), 3))
    assert jax.tree.map(lambda leaf: leaf.shape, states) == jax.tree.map(lambda leaf: (3, *leaf.shape), subject.start)


def test_a_batch_over_eight_devices_gives_what_one_device_gives(subject):
    mesh = jax.make_mesh((NUM_DEVICES,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    copy = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    batch, start = jax.device_put(subject.batch, split), jax.device_put(subject.start, copy)
    state, metrics = subject.steps(start, batch, 1, 3)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, subject.metrics[name], rtol=1e-5, atol=1e-5, err_msg=name)
    # Adam turns the sign of a gradient that is zero but for rounding into a whole step: hence not 1e-5 here.
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=5e-3), state, subject.state)


def test_saved_restored_and_continued_equals_never_stopped(subject, tmp_path):
    half, _ = subject.steps(subject.start, subject.batch, 1, 2)
    with Checkpoints(tmp_path / "checkpoints", pytest.fail) as checkpoints:
        checkpoints.save(1, half, {})
        checkpoints.wait()
        found = checkpoints.restore(half)
    assert found is not None
    assert_equal(subject.steps(found[1], subject.batch, 2, 3), (subject.state, subject.metrics))


def test_what_is_no_batch_is_refused(subject):
    name, value = next(iter(subject.batch.items()))
    wrong = {
        "must be a dict of arrays": types.MappingProxyType(subject.batch),
        "must hold at least one array": {},
        "must hold arrays that share their leading axis": {**subject.batch, "odd": value[:-1]},
    }
    for message, batch in wrong.items():
        with pytest.raises(ValueError, match=f"`batch` {message}"):
            subject.model.init(jax.random.key(0), batch)
        with pytest.raises(ValueError, match=f"`batch` {message}"):
            subject.model.update(jax.random.key(0), subject.start, batch)
    assert name


def test_samples_look_like_data(subject):
    if subject.model.sample is None:
        pytest.skip("this model has no `sample`")
    samples = jax.eval_shape(lambda key, state: subject.model.sample(key, state, 4), jax.random.key(0), subject.state)
    # A batch may hold what samples need not: what came before, which a carried sequence starts from.
    assert next(iter(subject.batch)) in samples
    for name, value in samples.items():
        assert value.shape == (4, *jnp.shape(subject.batch[name])[1:])
        kind = jnp.issubdtype(jnp.result_type(subject.batch[name]), jnp.integer)
        assert jnp.issubdtype(value.dtype, jnp.integer) == kind, name


def test_samples_do_not_depend_on_their_batch(subject):
    if subject.model.sample is None:
        pytest.skip("this model has no `sample`")
    three = subject.draw(3)
    for name, value in subject.draw(8).items():
        assert np.all(np.isfinite(value)), name
        if jnp.issubdtype(value.dtype, jnp.floating):
            np.testing.assert_allclose(value[:3], three[name], rtol=1e-5, atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(value[:3], three[name], err_msg=name)


def test_log_prob_and_log_bound_are_finite_nats_per_example(subject):
    model: Model[Any] = subject.model
    found = []
    if model.log_prob is not None:
        found.append(jax.jit(model.log_prob)(subject.state, subject.batch))
    if model.log_bound is not None:
        found.append(jax.jit(model.log_bound)(jax.random.key(0), subject.state, subject.batch))
    for value in found:
        assert value.shape == (subject.size,)
        assert value.dtype == jnp.float32
        assert np.all(np.isfinite(value))


def test_masses_sum_to_one_and_samples_follow_them(subject):
    if subject.case.space is None:
        pytest.skip("no small discrete space is given")
    space = subject.case.space()
    mass = np.exp(np.asarray(jax.jit(subject.model.log_prob)(subject.state, space), np.float64))
    assert abs(mass.sum() - 1) < 1e-4
    if subject.model.sample is not None:  # a model of targets given sources has none
        check_counts(counts(space, subject.draw(4_000)), mass)


def counts(space: dict[str, Any], samples: dict[str, Any]) -> np.ndarray:
    """How many samples are each point of `space`; a sample that is none of them is a KeyError."""
    size = len(next(iter(space.values())))
    index = {_code(space, i): i for i in range(size)}
    found = np.zeros(size)
    for i in range(len(next(iter(samples.values())))):
        found[index[_code(samples, i)]] += 1
    return found


def _code(batch: dict[str, Any], i: int) -> tuple[int, ...]:
    return tuple(int(v) for name in sorted(batch) for v in np.ravel(batch[name][i]))


def test_density_integrates_to_one(subject):
    if subject.case.bounds is None:
        pytest.skip("no bounds are given")
    low, high = subject.case.bounds
    dims = subject.batch["x"].shape[1]
    side = np.linspace(low, high, {1: 4_001, 2: 401}[dims], dtype=np.float32)
    points = np.stack(np.meshgrid(*[side] * dims, indexing="ij"), axis=-1).reshape(-1, dims)
    density = np.exp(np.asarray(jax.jit(subject.model.log_prob)(subject.state, {"x": jnp.asarray(points)}), np.float64))
    density = density.reshape([len(side)] * dims)
    for _ in range(dims):
        density = np.trapezoid(density, side, axis=0)
    assert abs(float(density) - 1) < 1e-3


def test_bound_is_below_the_exact_log_likelihood(subject):
    if subject.case.exact is None:
        pytest.skip("no exact log-likelihood is given")
    keys = jax.random.split(jax.random.key(3), 256)
    draws = jax.jit(jax.vmap(subject.model.log_bound, (0, None, None)))(keys, subject.state, subject.batch)
    exact = np.asarray(jax.jit(subject.case.exact)(subject.state, subject.batch), np.float64)
    excess = (np.asarray(draws, np.float64) - exact[None]).mean(axis=1)
    check_mean(excess, min(excess.mean(), 1e-5))


def test_batches_are_large_enough_to_be_split():
    assert BATCH % NUM_DEVICES == 0


def line() -> Model[Any]:
    """x ~ N(mean, 1) on the line, the mean by counting: what the mutants below are made from."""

    def log_prob(state, batch):
        return jax.scipy.stats.norm.logpdf(batch["x"][:, 0], state.params["mean"])

    def sample(key, state, num):
        noise = jax.vmap(lambda own: jax.random.normal(own, (1,)))(random.example_keys(key, num))
        return {"x": state.params["mean"] + noise}

    return counting(
        lambda batch: {"sum": jnp.zeros(()), "num": jnp.ones(())},
        lambda batch: {"sum": jnp.sum(batch["x"]), "num": jnp.asarray(1.0 * len(batch["x"]))},
        lambda moments: {"mean": moments["sum"] / moments["num"]},
        evaluate=lambda key, state, batch: {"nll": -log_prob(state, batch)},
        sample=sample,
        log_prob=log_prob,
    )


def mutant(**fields: Any) -> Subject:
    broken = {name: how(getattr(line(), name)) for name, how in fields.items()}

    def build():
        return dataclasses.replace(line(), **broken)

    return Subject(ModelCase("mutant", build, real(1), bounds=(-10.0, 10.0)))


MUTANTS = {
    "sample depends on its batch": (
        test_samples_do_not_depend_on_their_batch,
        {"sample": lambda f: lambda key, state, num: f(jax.random.fold_in(key, num), state, num)},
    ),
    "sample has another key": (
        test_samples_look_like_data,
        {"sample": lambda f: lambda key, state, num: {"y": f(key, state, num)["x"]}},
    ),
    "density without its constant": (
        test_density_integrates_to_one,
        {"log_prob": lambda f: lambda state, batch: f(state, batch) + 0.9},
    ),
    "log-probability of the whole batch": (
        test_log_prob_and_log_bound_are_finite_nats_per_example,
        {"log_prob": lambda f: lambda state, batch: jnp.sum(f(state, batch))},
    ),
    "update changes a dtype": (
        test_update_keeps_structure_shapes_and_dtypes,
        {
            "update": lambda f: (
                lambda key, state, batch: jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), f(key, state, batch))
            )
        },
    ),
    "update learns nothing": (
        test_learning_changes_params_and_metrics_are_finite,
        {"update": lambda f: lambda key, state, batch: (state, f(key, state, batch)[1])},
    ),
    "evaluation is not finite": (
        test_evaluation_gives_finite_scalars_or_one_value_per_example_and_changes_nothing,
        {"evaluate": lambda f: lambda key, state, batch: {"nll": f(key, state, batch)["nll"] / 0.0}},
    ),
    "no check of the batch": (
        test_what_is_no_batch_is_refused,
        {"init": lambda f: lambda key, batch: f(key, {"x": jnp.zeros((BATCH, 1))})},
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name):
    test, fields = MUTANTS[name]
    test(mutant())
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test(mutant(**fields))
