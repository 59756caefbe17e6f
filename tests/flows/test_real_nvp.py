"""RealNVP: what makes it a density (tests F1-F7, F11, F20 of the flow notes)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats

from jgen.flows import coupling, real_nvp
from jgen.math.bijectors import checkerboard
from jgen.nets.resnet import ResNet

BOARD = checkerboard(4, 4)[..., None]
HALF = np.broadcast_to(np.arange(4) < 2, (2, 2, 4))
FLOWS = {
    "table": real_nvp.table_flow(5, num_layers=3, hidden_sizes=(8,)),
    "pair": real_nvp.table_flow(2, num_layers=3, hidden_sizes=(8,)),
    "image": coupling.Flow(
        (4, 4, 1),
        (
            coupling.Coupling(BOARD, ResNet(3, 1, 2, patches=True), 2.0),
            coupling.Squeeze(),
            coupling.Coupling(~HALF, ResNet(3, 1, 8), 2.0),
            coupling.Split(),
            coupling.Coupling(np.broadcast_to(checkerboard(2, 2)[..., None], (2, 2, 2)), ResNet(3, 0, 4), 2.0),
        ),
    ),
}


def mask_of(layer):
    assert isinstance(layer, coupling.Coupling)
    return layer.mask


def shaken(flow, dtype=jnp.float64, scale=0.5):
    """Random parameters that are nowhere zero, as the zero start hides every error; and random points."""
    key = jax.random.key(1)
    leaves, tree = jax.tree.flatten(jax.eval_shape(lambda k: real_nvp.init(k, flow), key))
    keys = jax.random.split(key, len(leaves) + 1)
    leaves = [jax.random.normal(k, leaf.shape, dtype) * scale for k, leaf in zip(keys[1:], leaves, strict=True)]
    return jax.tree.unflatten(tree, leaves), jax.random.normal(keys[0], (20, *flow.shape), dtype)


def assert_log_dets(flow, params, x):
    """Both log-determinants equal those of the Jacobians, and both round trips return."""

    def flat_forward(v):
        return real_nvp.forward(flow, params, v.reshape(1, *flow.shape))[0][0]

    def flat_inverse(v):
        return real_nvp.inverse(flow, params, v[None])[0].ravel()

    @jax.jit
    def check(x):
        z, log_det = real_nvp.forward(flow, params, x)
        back, inverse_log_det = real_nvp.inverse(flow, params, z)
        jacobians = jax.vmap(jax.jacfwd(flat_forward))(x.reshape(len(x), -1)), jax.vmap(jax.jacfwd(flat_inverse))(z)
        return log_det, inverse_log_det, back, real_nvp.forward(flow, params, back)[0] - z, jacobians

    log_det, inverse_log_det, back, difference, (jacobian, inverse_jacobian) = check(x)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(jacobian)[1], atol=1e-9)
    np.testing.assert_allclose(inverse_log_det, np.linalg.slogdet(inverse_jacobian)[1], atol=1e-9)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=1e-9)
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(difference, 0, atol=1e-9)


@pytest.mark.parametrize("name", FLOWS)
def test_log_dets_are_the_jacobians_and_round_trips_return(name):
    flow = FLOWS[name]
    with jax.enable_x64(True):
        params, x = shaken(flow)
        assert_log_dets(flow, params, x)


@pytest.mark.parametrize(
    "mutant",
    [
        lambda mask, s: -jnp.sum(jnp.where(jnp.asarray(mask)[None], 0, s), axis=1),
        lambda mask, s: jnp.sum(jnp.where(jnp.asarray(mask)[None], s, 0), axis=1),
        lambda mask, s: jnp.sum(s, axis=1),
    ],
    ids=["flipped sign", "the other half", "both halves"],
)
def test_a_wrong_log_det_is_caught(monkeypatch, mutant):
    monkeypatch.setattr(coupling, "_log_det", mutant)
    with jax.enable_x64(True), pytest.raises(AssertionError):
        assert_log_dets(FLOWS["pair"], *shaken(FLOWS["pair"]))


def test_a_net_that_sees_the_moved_half_is_caught(monkeypatch):
    honest = coupling.scale_and_shift

    def leak(layer, params, x):
        return honest(layer._replace(mask=np.ones_like(layer.mask)), params, x)

    monkeypatch.setattr(coupling, "scale_and_shift", leak)
    with jax.enable_x64(True), pytest.raises(AssertionError):
        assert_log_dets(FLOWS["pair"], *shaken(FLOWS["pair"]))


def test_round_trip_in_float32():
    flow = real_nvp.table_flow(4, num_layers=32, hidden_sizes=(16,))
    params, x = shaken(flow, jnp.float32, 0.2)
    back = jax.jit(lambda v: real_nvp.inverse(flow, params, real_nvp.forward(flow, params, v)[0])[0])(x)
    np.testing.assert_allclose(back, x, atol=1e-3)


@pytest.mark.parametrize("name", ["table", "image"])
def test_log_prob_of_samples_equals_that_of_their_latents(name):
    flow = FLOWS[name]
    with jax.enable_x64(True):
        params, _ = shaken(flow)

        @jax.jit
        def both(key):
            x = real_nvp.sample(key, flow, params, 6)
            z, _ = real_nvp.forward(flow, params, x)
            return z, real_nvp.inverse(flow, params, z)[1], real_nvp.log_prob(flow, params, x)

        z, log_det, log_prob = both(jax.random.key(3))
        expected = stats.norm.logpdf(z).sum(axis=1) - log_det
        np.testing.assert_allclose(log_prob, expected, atol=1e-8)


def test_density_integrates_to_one():
    flow = FLOWS["pair"]
    params, _ = shaken(flow, jnp.float32)
    grid = np.linspace(-30, 30, 601, dtype=np.float32)
    points = jnp.asarray(np.stack(np.meshgrid(grid, grid, indexing="ij"), axis=-1).reshape(-1, 2))
    density = np.exp(jax.jit(lambda x: real_nvp.log_prob(flow, params, x))(points)).reshape(601, 601)
    assert abs(np.trapezoid(np.trapezoid(density, grid), grid) - 1) < 1e-3


@pytest.mark.parametrize("name", ["table", "image"])
def test_coupling_leaves_the_kept_half_as_it_is(name):
    flow = FLOWS[name]
    params, x = shaken(flow, jnp.float32)
    layer = flow.layers[0]
    assert isinstance(layer, coupling.Coupling)
    net = jax.jit(lambda v: coupling.scale_and_shift(layer, params[0], v))
    y, _ = coupling.couple(x, layer.mask, *net(x))
    back, _ = coupling.uncouple(y, layer.mask, *net(y))
    np.testing.assert_array_equal(np.asarray(y)[:, layer.mask], np.asarray(x)[:, layer.mask])
    np.testing.assert_array_equal(np.asarray(back)[:, layer.mask], np.asarray(x)[:, layer.mask])
    assert np.all(np.asarray(y)[:, ~layer.mask] != np.asarray(x)[:, ~layer.mask])


@pytest.mark.parametrize("name", FLOWS)
def test_flow_starts_as_the_identity(name):
    flow = FLOWS[name]
    params = jax.jit(lambda key: real_nvp.init(key, flow))(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (3, *flow.shape))
    z, log_det = jax.jit(lambda v: real_nvp.forward(flow, params, v))(x)
    np.testing.assert_array_equal(np.sort(z, axis=1), np.sort(x.reshape(3, -1), axis=1))
    np.testing.assert_array_equal(log_det, np.zeros(3))


def test_multi_scale_equals_its_parts_one_after_the_other():
    """The split lets a part go; without splits, the rest of the flow acting on the first half is the same map."""
    flow = FLOWS["image"]
    params, x = shaken(flow, jnp.float32)
    at = next(i for i, layer in enumerate(flow.layers) if isinstance(layer, coupling.Split))
    top = coupling.Flow(flow.shape, flow.layers[:at])
    rest = coupling.Flow((2, 2, 2), flow.layers[at + 1 :])

    @jax.jit
    def both(x):
        h, first = real_nvp.forward(top, params[:at], x)
        h = h.reshape(-1, 2, 2, 4)
        kept, second = real_nvp.forward(rest, params[at + 1 :], h[..., :2])
        parts = jnp.concatenate([h[..., 2:].reshape(-1, 8), kept], axis=1), first + second
        return parts, real_nvp.forward(flow, params, x)

    (expected, expected_log_det), (z, log_det) = both(x)
    np.testing.assert_allclose(z, expected, atol=1e-5)
    np.testing.assert_allclose(log_det, expected_log_det, atol=1e-5)


def test_image_flow_has_the_papers_layers():
    flow = real_nvp.image_flow((28, 28, 1), num_levels=3, channels=4, num_blocks=1)
    names = "".join(type(layer).__name__[1] for layer in flow.layers)  # o: coupling, q: squeeze, p: split
    assert names == "oooqooop" * 2 + "oooo"
    assert mask_of(flow.layers[-1]).shape == (7, 7, 4)
    for one, other in zip(flow.layers[:2], flow.layers[1:3], strict=True):
        np.testing.assert_array_equal(mask_of(one), ~mask_of(other))


def test_extreme_values_stay_finite():
    flow = FLOWS["table"]
    params, _ = shaken(flow, jnp.float32)
    params = jax.tree.map(lambda leaf: 100 * leaf, params)
    x = jnp.array([[1e3] * 5, [-1e3] * 5, [0.0] * 5])
    value, grads = jax.jit(jax.value_and_grad(lambda p: jnp.sum(real_nvp.log_prob(flow, p, x))))(params)
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(grads))


def test_bound_of_whole_numbers_holds_every_constant():
    """The identity flow on one pixel: log ∫ N(logit(x)) |dlogit/dx| over a level, by quadrature."""
    flow, margin, levels = real_nvp.Flow((1, 1, 1), ()), 0.05, 4
    low = margin + (1 - 2 * margin) * np.arange(levels + 1) / levels
    exact = np.log(np.diff(stats.norm.cdf(np.log(low) - np.log1p(-low))))
    batch = {"x": jnp.arange(levels, dtype=jnp.uint8).reshape(levels, 1, 1, 1)}
    how = jax.jit(lambda k: real_nvp.log_bound(k, flow, (), batch, levels=levels, num_samples=2000))
    np.testing.assert_allclose(how(jax.random.key(1)), exact, atol=0.03)


def test_samples_of_a_whole_number_model_are_whole_numbers():
    flow = FLOWS["image"]
    model = real_nvp.model(flow, optimizer=optax.sgd(0.1), levels=5)
    state = jax.jit(model.init)(jax.random.key(0), {"x": jnp.zeros((2, 4, 4, 1), jnp.uint8)})
    assert model.sample is not None
    x = jax.jit(model.sample, static_argnums=2)(jax.random.key(1), state, 4)["x"]
    assert x.dtype == jnp.uint8
    assert x.shape == (4, 4, 4, 1)
    assert int(x.max()) <= 4
    assert model.log_prob is None
    assert model.log_bound is not None


@pytest.mark.slow
def test_learns_a_gaussian():
    rng: Any = np.random.default_rng(0)
    mean: Any = np.array([1.0, -2.0])
    covariance: Any = np.array([[1.0, 0.8], [0.8, 2.0]])
    law: Any = stats.multivariate_normal(mean, covariance)

    def draw(num):
        return rng.multivariate_normal(mean, covariance, num).astype(np.float32)

    flow = real_nvp.table_flow(2, num_layers=4, hidden_sizes=(32,))
    model = real_nvp.model(flow, optimizer=optax.adam(optax.cosine_decay_schedule(5e-3, 1_000)))
    state, update = jax.jit(model.init)(jax.random.key(0), {"x": draw(10)}), jax.jit(model.update)
    for step in range(1_000):
        state, _ = update(jax.random.key(step), state, {"x": draw(500)})
    assert model.log_prob is not None
    test = draw(50_000)
    gap = law.logpdf(test) - model.log_prob(state, {"x": jnp.asarray(test)})
    assert -0.005 < float(np.mean(gap)) < 0.02


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`num_columns` must be at least 2, got 1"):
        real_nvp.table_flow(1)
    with pytest.raises(ValueError, match="`num_levels` must be at most 3"):
        real_nvp.image_flow((28, 28, 1), num_levels=4)
    with pytest.raises(ValueError, match="`levels` must be at least 2"):
        real_nvp.model(FLOWS["image"], optimizer=optax.sgd(0.1), levels=1)
    model = real_nvp.model(FLOWS["table"], optimizer=optax.sgd(0.1))
    state = model.init(jax.random.key(0), {"x": jnp.zeros((2, 5))})
    with pytest.raises(ValueError, match=r"`x` must have examples of shape \(5,\), got \(4,\)"):
        model.update(jax.random.key(0), state, {"x": jnp.zeros((2, 4))})
