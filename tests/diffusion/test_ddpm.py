"""The bound, the loss and the parameterizations of DDPM against closed forms on Gaussian data."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jgen import linen, random
from jgen.diffusion import ddpm, process, schedules
from jgen.diffusion.denoiser import Denoiser, denoise, interpolate_log_variance, respace
from jgen.diffusion.schedules import Schedule
from jgen.learners import average
from jgen.nets.time_mlp import TimeMLP

VARIANCE = 0.25


class Optimal(nn.Module):
    """What an optimal network of `kind` puts out for x_0 ~ N(0, VARIANCE); `schedule` is that it learned with."""

    alpha: tuple[float, ...]
    sigma: tuple[float, ...]
    kind: str = "noise"
    learned: bool = False
    fraction: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array, *, train: bool = False) -> jax.Array:
        t = jnp.round(time * (len(self.alpha) - 1)).astype(int)
        alpha, sigma = (process.at(np.array(table), t, x.ndim) for table in (self.alpha, self.sigma))
        start = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * x
        out = process.prediction_target(self.kind, start, process.noise_of(start, x, alpha, sigma), alpha, sigma)
        return jnp.concatenate([out, jnp.full_like(out, 2 * self.fraction - 1)], -1) if self.learned else out


def optimal(schedule: Schedule, kind: str = "noise", fraction: float | None = None, **kwargs: object) -> Denoiser:
    learned = {} if fraction is None else {"learned": True, "fraction": fraction}
    module = Optimal(tuple(schedule.alpha), tuple(schedule.sigma), kind, **learned)
    variance = "posterior" if fraction is None else "learned"
    return Denoiser(module, schedule, **{"prediction": kind, "variance": variance, **kwargs})


def expected_terms(schedule: Schedule, log_variance: np.ndarray) -> np.ndarray:
    """E L_{t−1} per dimension for t = 1..T and the optimal denoiser, in float64; then E L_T."""
    alpha_bar, noise = schedule.alpha[1:] ** 2, schedule.sigma[1:] ** 2
    spread = 1 / (1 / VARIANCE + alpha_bar / noise)  # Var[x_0 | x_t]
    ours, theirs = log_variance[1:], schedule.log_posterior_variance[1:]
    gap = schedule.posterior.start[1:] ** 2 * spread * np.exp(-ours)
    divergence = 0.5 * (np.expm1(theirs - ours) - (theirs - ours) + gap)
    divergence[0] = 0.5 * (gap[0] + ours[0] + np.log(2 * np.pi))
    prior = 0.5 * (alpha_bar[-1] * VARIANCE - alpha_bar[-1] - np.log(noise[-1]))
    return np.append(divergence, prior)


def uniform_log_snr(num_steps: int) -> Schedule:
    return Schedule(np.append(np.inf, np.linspace(13.3, -5.0, num_steps)), np.linspace(0, 1, num_steps + 1))


@pytest.mark.parametrize("num_steps", [1000, 10_000])
def test_the_cost_of_discrete_time_is_the_known_one(num_steps: int) -> None:
    """(NLL − ELBO)·T tends to 50.2 nats for log-SNR from 13.3 to −5 and variance 0.25, with a perfect decoder."""
    schedule = uniform_log_snr(num_steps)
    terms = expected_terms(schedule, schedule.log_posterior_variance)
    spread = 1 / (1 / VARIANCE + np.exp(13.3))
    perfect = 0.5 * np.log(2 * np.pi * np.e * spread)
    gap = terms[1:].sum() + perfect - 0.5 * np.log(2 * np.pi * np.e * VARIANCE)
    assert gap * num_steps == pytest.approx(50.2, rel=0.01)


@pytest.mark.parametrize("variance", ["posterior", "forward", "learned"])
def test_elbo_equals_its_closed_form_on_gaussian_data(variance: str) -> None:
    schedule = schedules.linear(60)
    if variance == "learned":
        denoiser, low = optimal(schedule, fraction=0.3), schedule.log_posterior_variance
        log_variance = low + 0.3 * (schedule.log_beta - low)
    else:
        denoiser = optimal(schedule, variance=variance)
        log_variance = schedule.log_beta if variance == "forward" else schedule.log_posterior_variance
    x = jax.random.normal(jax.random.key(0), (4000, 2)) * VARIANCE**0.5
    found = np.asarray(jax.jit(lambda x: ddpm.elbo(jax.random.key(1), {}, {}, x, denoiser=denoiser))(x))
    exact = -2 * expected_terms(schedule, log_variance).sum()
    assert abs(found.mean() - exact) < 4 * found.std() / 4000**0.5
    entropy = np.log(2 * np.pi * np.e * VARIANCE)
    assert found.mean() < -entropy + 4 * found.std() / 4000**0.5


def test_elbo_with_alpha_of_the_wrong_step_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = process.at

    def late(table: np.ndarray, t: jax.Array, ndim: int) -> jax.Array:
        return right(table, t - 1 if table is denoiser.schedule.posterior.start else t, ndim)

    schedule = schedules.linear(60)
    denoiser = optimal(schedule)
    monkeypatch.setattr(process, "at", late)
    x = jax.random.normal(jax.random.key(0), (4000, 2)) * VARIANCE**0.5
    found = np.asarray(jax.jit(lambda x: ddpm.elbo(jax.random.key(1), {}, {}, x, denoiser=denoiser))(x))
    exact = -2 * expected_terms(schedule, schedule.log_posterior_variance).sum()
    assert abs(found.mean() - exact) > 4 * found.std() / 4000**0.5


@pytest.mark.parametrize("kind", process.PREDICTIONS)
def test_every_parameterization_gives_the_same_estimate(kind: str) -> None:
    schedule = schedules.linear(20)
    x, t = jax.random.normal(jax.random.key(0), (20, 3)), jnp.arange(1, 21)
    want, _ = denoise({}, {}, x, t, denoiser=optimal(schedule))
    found, _ = denoise({}, {}, x, t, denoiser=optimal(schedule, kind))
    np.testing.assert_allclose(found.start, want.start, atol=2e-4)
    np.testing.assert_allclose(found.noise, want.noise, atol=2e-4)


def test_the_estimator_of_drawn_steps_has_the_sum_as_its_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """With each of the 8 steps in turn they average to the full sum: a step has one noise only."""
    schedule = schedules.cosine(8)
    denoiser = Denoiser(TimeMLP(8, 1), schedule, levels=17)
    x = jax.random.randint(jax.random.key(0), (5, 4), 0, 17)
    params, stats = linen.init(denoiser.module, jax.random.key(1), process.scale(x, 17), jnp.zeros(5))
    params = jax.tree.map(lambda p: p + 0.1, params)
    full = ddpm.elbo(jax.random.key(2), params, stats, x, denoiser=denoiser)
    each = []
    for t in range(8):
        monkeypatch.setattr(process, "uniforms", lambda key, batch, num, t=t: jnp.full((5, num), (t + 0.5) / 8))
        each.append(ddpm.elbo(jax.random.key(2), params, stats, x, denoiser=denoiser, num_terms=1))
    np.testing.assert_allclose(np.mean(each, axis=0), full, rtol=1e-5)


def test_whole_numbers_have_a_mass_below_one_and_the_bound_is_below_it() -> None:
    """p(x) ≥ exp(elbo); over every point of a 2-dimensional space of 5 levels the bounds sum to at most one."""
    schedule = schedules.linear(50)
    denoiser = optimal(schedule, levels=5)
    points = jnp.stack(jnp.meshgrid(jnp.arange(5), jnp.arange(5)), -1).reshape(-1, 2)
    bound = jax.vmap(lambda k: ddpm.elbo(k, {}, {}, points, denoiser=denoiser))(
        random.example_keys(jax.random.key(3), 64)
    )
    assert float(jnp.exp(bound.mean(axis=0)).sum()) < 1.0
    assert float(bound.mean(axis=0).max()) < 0.0


def test_learned_variance_ends_and_gradient() -> None:
    schedule, t = schedules.linear(30), jnp.arange(1, 31)
    ends = [interpolate_log_variance(jnp.full((30, 1), v), t, schedule)[:, 0] for v in (0.0, 1.0)]
    np.testing.assert_allclose(ends[0], schedule.log_posterior_variance[1:], rtol=1e-6)
    np.testing.assert_allclose(ends[1], schedule.log_beta[1:], rtol=1e-6)


def test_the_bound_of_the_hybrid_moves_the_variance_only() -> None:
    denoiser = Denoiser(TimeMLP(8, 1, outputs_per_input=2), schedules.linear(30), variance="learned")
    batch = {"x": jax.random.normal(jax.random.key(0), (16, 3))}
    params, stats = linen.init(denoiser.module, jax.random.key(1), batch["x"], jnp.zeros(16))
    params = jax.tree.map(lambda p: p + 0.05, params)

    def bound(params: object, weight: float) -> jax.Array:
        args = (jax.random.key(2), params, stats, batch)
        hybrid = ddpm.loss(*args, denoiser=denoiser, objective="hybrid", hybrid_weight=weight, train=True)[0]
        return hybrid - ddpm.loss(*args, denoiser=denoiser, train=True)[0]

    kernels = [p for p in jax.tree.leaves(jax.grad(bound)(params, 1.0)) if p.shape == (8, 6)]
    (last,) = kernels
    np.testing.assert_allclose(last[:, :3], 0.0, atol=1e-6)
    assert float(jnp.abs(last[:, 3:]).min()) > 0
    assert float(bound(params, 0.0)) == 0.0


@pytest.mark.parametrize("objective", ["simple", "bound", "hybrid"])
def test_loss_is_the_closed_form_of_its_objective(objective: str) -> None:
    schedule = schedules.linear(40)
    denoiser = optimal(schedule, fraction=0.0) if objective == "hybrid" else optimal(schedule)
    batch = {"x": jax.random.normal(jax.random.key(0), (40_000, 1)) * VARIANCE**0.5}
    value, (_, metrics) = ddpm.loss(
        jax.random.key(1), {}, {}, batch, denoiser=denoiser, objective=objective, train=True
    )
    alpha_bar, noise = schedule.alpha[1:] ** 2, schedule.sigma[1:] ** 2
    simple = (alpha_bar / noise / (1 / VARIANCE + alpha_bar / noise)).mean()  # Var[ε | x_t]
    bound = expected_terms(schedule, schedule.log_posterior_variance)[:-1].sum()
    # The terms are multiples of χ²₁, with 1,000 draws for each step.
    gap = schedule.posterior.start**2 * np.exp(-schedule.log_posterior_variance)
    error = np.sqrt((gap[1:] ** 2 / (1 / VARIANCE + alpha_bar / noise) ** 2 / 2).sum() / 1000)
    want = {"simple": simple, "bound": bound, "hybrid": simple + 0.001 * bound}[objective]
    assert float(value) == pytest.approx(want, abs=4 * error if objective == "bound" else 0.055 * want)
    assert float(metrics["loss"]) == float(value)


@pytest.fixture(scope="module")
def trained() -> tuple:
    denoiser = Denoiser(TimeMLP(8, 1), schedules.linear(12), levels=17)
    model = average(ddpm.model(denoiser, (4,), optax.adam(1e-2), eval_terms=2), 0.9)
    batch = {"x": jax.random.randint(jax.random.key(0), (8, 4), 0, 17).astype(jnp.uint8)}
    state = jax.jit(model.init)(jax.random.key(1), batch)
    update = jax.jit(model.update)
    for i in range(3):
        state, _ = update(jax.random.key(i), state, batch)
    return model, denoiser, state, batch


def test_every_parameter_learns_and_the_average_follows(trained: tuple) -> None:
    model, _, state, batch = trained
    first = model.init(jax.random.key(1), batch)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), first.params, state.params)
    assert all(jax.tree.leaves(moved))
    metrics = model.evaluate(jax.random.key(2), state, batch)
    assert metrics["elbo"].shape == (8,)
    assert np.isfinite(metrics["loss"])


def test_samples_are_whole_numbers_and_do_not_depend_on_the_batch(trained: tuple) -> None:
    model, denoiser, state, _ = trained
    many, few = (model.sample(jax.random.key(3), state, n)["x"] for n in (8, 3))
    assert (many.dtype, many.shape) == (jnp.uint8, (8, 4))
    np.testing.assert_array_equal(many[:3], few)
    for eta in (0.0, 1.0):
        args = (jax.random.key(4), state.params, state.inner.stats, 4)
        x = ddpm.sample(*args, denoiser=denoiser, shape=(4,), eta=eta, num_steps=5)
        assert int(x.max()) < 17


def test_an_example_draws_its_own_noise_in_a_shard(trained: tuple) -> None:
    """The loss of a batch is the mean over its halves, each told which examples it holds."""
    _, denoiser, state, batch = trained
    args = (jax.random.key(5), state.params, state.inner.stats)
    whole = ddpm.loss(*args, batch, denoiser=denoiser, train=False)[0]
    halves = [{"x": batch["x"][i : i + 4], random.INDEX: jnp.arange(i, i + 4)} for i in (0, 4)]
    parts = [ddpm.loss(*args, half, denoiser=denoiser, train=False)[0] for half in halves]
    np.testing.assert_allclose(np.mean(parts), whole, rtol=1e-5)


def test_a_respaced_denoiser_keeps_the_times_of_the_network() -> None:
    full = optimal(schedules.linear(50))
    assert respace(full, None) is full
    fewer = respace(full, 5)
    x = jnp.ones((5, 2))
    found, _ = denoise({}, {}, x, jnp.arange(1, 6), denoiser=fewer)
    want, _ = denoise({}, {}, x, jnp.arange(10, 51, 10), denoiser=full)
    np.testing.assert_allclose(found.start, want.start, rtol=1e-6)


def test_clipping_keeps_estimates_in_range_and_noise_in_agreement() -> None:
    denoiser = dataclasses.replace(optimal(schedules.linear(50)), clip=True)
    x, t = jnp.full((3, 2), 5.0), jnp.array([1, 5, 10])
    found, _ = denoise({}, {}, x, t, denoiser=denoiser)
    assert float(jnp.abs(found.start).max()) <= 1.0
    np.testing.assert_allclose(process.diffuse(found.start, found.noise, t, denoiser.schedule), x, rtol=1e-5)


def test_refuses_bad_settings() -> None:
    schedule = schedules.linear(30)
    module = TimeMLP(8, 1)
    with pytest.raises(ValueError, match="`prediction`"):
        Denoiser(module, schedule, prediction="epsilon")
    with pytest.raises(ValueError, match="`variance`"):
        Denoiser(module, schedule, variance="large")
    with pytest.raises(ValueError, match="`levels`"):
        Denoiser(module, schedule, levels=1)
    denoiser = Denoiser(module, schedule, levels=17)
    for objective in ("l2", "hybrid"):
        with pytest.raises(ValueError, match="`objective`"):
            ddpm.model(denoiser, (2,), optax.sgd(1.0), objective=objective)
    x = jnp.zeros((2, 2), jnp.uint8)
    with pytest.raises(ValueError, match="`num_terms`"):
        ddpm.elbo(jax.random.key(0), {}, {}, x, denoiser=denoiser, num_terms=0)
    with pytest.raises(ValueError, match="`x`"):
        ddpm.elbo(jax.random.key(0), {}, {}, x + 17, denoiser=denoiser)
