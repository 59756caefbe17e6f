"""The importance-weighted bound: it rises to log p, and of its gradients dreg agrees with plain where stl does not."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from linear_gaussian import exact, moved

from jgen.latent import iwae, score_function, vae, weights

ADAM = optax.adam(1e-2)


@functools.cache
def _gradients(estimator, num_samples, repeats=4000):
    """(repeats, 10) gradients with respect to the encoder, at a posterior that is off; float32."""
    networks, params, stats, x, _ = exact()
    params, batch = moved(params), {"x": x[:1]}

    def one(key):
        def value(encoder):
            own = {**params, "encoder": encoder}
            return iwae.loss(
                key, own, stats, batch, train=False, networks=networks, num_samples=num_samples, estimator=estimator
            )[0]

        found = jax.grad(value)(params["encoder"])["Dense_0"]["bias"]
        return found

    return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), repeats)))


def _agree(one, other):
    """Whether two samples of gradients have one mean, within 4 standard errors."""
    error = np.sqrt(one.var(0) / len(one) + other.var(0) / len(other))
    return np.abs(one.mean(0) - other.mean(0)) / error


def test_the_doubly_reparameterized_gradient_has_the_mean_of_the_plain_one():
    assert np.all(_agree(_gradients("plain", 16), _gradients("dreg", 16)) < 4)


def test_sticking_the_landing_is_biased_with_several_draws():
    assert np.max(_agree(_gradients("plain", 16), _gradients("stl", 16))) > 8


def test_with_one_draw_all_three_agree():
    assert np.all(_agree(_gradients("plain", 1), _gradients("stl", 1)) < 4)
    np.testing.assert_allclose(_gradients("stl", 1), _gradients("dreg", 1), atol=1e-5)


def test_dreg_is_less_noisy_than_plain():
    signal = {name: _gradients(name, 16).mean(0) / _gradients(name, 16).std(0) for name in ("plain", "dreg")}
    assert abs(signal["dreg"][0]) > 3 * abs(signal["plain"][0])


def test_shares_not_squared_would_be_seen(monkeypatch):
    # The mutant w̃ in place of w̃² is "stl".
    monkeypatch.setattr(weights, "_scale_cotangent", lambda x, scale: x)
    networks, params, stats, x, _ = exact()
    params, batch = moved(params), {"x": x[:1]}

    def one(key):
        def value(shift):
            bias = params["encoder"]["Dense_0"]["bias"] + shift
            own = {**params, "encoder": {"Dense_0": {**params["encoder"]["Dense_0"], "bias": bias}}}
            settings = {"networks": networks, "num_samples": 16, "estimator": "dreg"}
            return iwae.loss(key, own, stats, batch, train=False, **settings)[0]

        return jax.grad(value)(jnp.zeros(4))

    found = np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 4000)))
    assert np.max(_agree(_gradients("plain", 16), found)) > 8


@pytest.mark.parametrize("estimator", ["stl", "dreg"])
def test_path_gradients_vanish_at_the_exact_posterior(estimator):
    networks, params, stats, x, _ = exact()

    def value(params):
        settings = {"networks": networks, "num_samples": 4, "estimator": estimator}
        return iwae.loss(jax.random.key(0), params, stats, {"x": x[:5]}, train=False, **settings)[0]

    found = jax.grad(lambda encoder: value({**params, "encoder": encoder}))(params["encoder"])
    assert max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(found)) < 1e-4


def test_the_loss_is_the_bound_itself():
    # A surrogate Σ w̃ log w has the same gradient and a value that is too good.
    networks, params, stats, x, log_p = exact()
    values = [
        float(
            iwae.loss(
                jax.random.key(3), moved(params), stats, {"x": np.repeat(x, 20, 0)}, train=False, networks=networks,
                num_samples=16, estimator=estimator,
            )[0]
        )
        for estimator in weights.ESTIMATORS
    ]  # fmt: skip
    assert max(values) - min(values) < 1e-3
    assert values[0] > -log_p.mean()


def test_training_on_the_bound_learns_the_density():
    networks, _, _, x, log_p = exact()
    model = iwae.model(networks, optax.adam(optax.cosine_decay_schedule(5e-2, 1500)), num_samples=8)
    state = model.init(jax.random.key(0), {"x": x})

    def step(state, t):
        return model.update(jax.random.fold_in(jax.random.key(2), t), state, {"x": jnp.asarray(x)})

    state, metrics = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(1500)))(state)
    assert float(metrics["negative_bound"][-100:].mean()) <= float(metrics["negative_elbo"][-100:].mean()) + 1e-3
    bound = vae.iwae_bound(
        jax.random.key(1), state.params, state.stats, {"x": x}, networks=networks, num_samples=200
    ).mean()
    assert float(bound) > log_p.mean() - 0.01  # the fit to these rows may beat the law that made them


def test_the_first_updates_are_those_of_fewer_draws():
    networks, _, _, x, _ = exact()
    batch, keys = {"x": jnp.asarray(x)}, jax.random.split(jax.random.key(4), 4)

    def update_of(**settings):
        return jax.jit(iwae.model(networks, ADAM, **settings).update)

    mixed, few = update_of(num_samples=16, first_num_samples=2, first_steps=3), update_of(num_samples=2)
    state = other = iwae.model(networks, ADAM).init(jax.random.key(0), batch)
    for key in keys[:3]:
        state, other = mixed(key, state, batch)[0], few(key, other, batch)[0]
    chex.assert_trees_all_close(state, other, rtol=1e-5, atol=1e-7)
    last = mixed(keys[3], state, batch)[0]
    chex.assert_trees_all_close(last, update_of(num_samples=16)(keys[3], state, batch)[0], rtol=1e-5, atol=1e-7)
    with pytest.raises(AssertionError):  # two draws would have led elsewhere
        chex.assert_trees_all_close(last, few(keys[3], state, batch)[0], rtol=1e-5, atol=1e-7)


def test_score_function_has_the_mean_of_the_reparameterized_gradient():
    networks, params, stats, x, _ = exact()
    params, batch = moved(params), {"x": x[:1]}

    def gradients(loss, repeats, **settings):
        def one(key):
            def value(shift):
                bias = params["encoder"]["Dense_0"]["bias"] + shift
                own = {**params, "encoder": {"Dense_0": {**params["encoder"]["Dense_0"], "bias": bias}}}
                return loss(key, own, stats, batch, train=False, networks=networks, **settings)[0]

            return jax.grad(value)(jnp.zeros(4))

        return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(5), repeats)))

    path = gradients(vae.loss, 4000)
    alone = gradients(score_function.loss, 40_000, num_samples=1)
    helped = gradients(score_function.loss, 20_000, num_samples=4)
    assert np.all(_agree(path, alone) < 4)
    assert np.all(_agree(path, helped) < 4)
    assert np.all(path.var(0) < 4 * helped.var(0))  # for as many draws
    assert np.all(8 * helped.var(0) < alone.var(0))  # the baseline gives more than four draws would


@pytest.mark.parametrize(
    ("build", "keywords", "message"),
    [
        (iwae.model, {"num_samples": 0}, "`num_samples` must be at least 1"),
        (iwae.model, {"first_num_samples": 0}, "`first_num_samples` must be at least 1"),
        (iwae.model, {"first_steps": -1}, "`first_steps` must be at least 0"),
        (iwae.model, {"estimator": "path"}, "`estimator` must be one of"),
        (iwae.model, {"beta": -1.0}, "`beta` must be at least 0"),
        (iwae.model, {"num_bound_samples": 0}, "`num_bound_samples` must be at least 1"),
        (score_function.model, {"num_samples": 0}, "`num_samples` must be at least 1"),
        (score_function.model, {"warm_up_steps": -1}, "`warm_up_steps` must be at least 0"),
    ],
)
def test_bad_arguments_are_refused(build, keywords, message):
    with pytest.raises(ValueError, match=message):
        build(exact().networks, ADAM, **keywords)
