"""Hierarchies against log p of a two-layer linear model, whose exact posterior both inferences can have."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from flax import linen as nn

from jgen.latent import gaussian, hierarchical, priors
from jgen.latent.hierarchy import Hierarchy
from jgen.math import likelihoods

ADAM = optax.adam(1e-2)
A, S, SIGMA = 0.8, 0.6, 0.5  # z_2 ~ N(0, 1), z_1 ~ N(A z_2, S²), x ~ N(z_1, SIGMA²)


class Affine(nn.Module):
    """kernel and bias of one dense layer."""

    size: int
    tail: tuple[int, ...] = ()

    @nn.compact
    def __call__(self, x, *, train=False):
        return jnp.reshape(nn.Dense(self.size)(x), (len(x), *(self.tail or (self.size,))))


def _dense(rows, bias):
    log_std = 6 * np.arctanh(np.asarray(bias) / 6)
    bias = [log_std[i] if i % 2 else bias[i] for i in range(len(bias))] if len(bias) > 1 else bias
    return {"Dense_0": {"kernel": jnp.asarray(rows, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}}


def _linear(inference):
    """(hierarchy, params, stats, x, log p): 1-D layers, with the exact posterior."""
    hierarchy = Hierarchy(
        (Affine(2), Affine(2)), (Affine(2),), Affine(1, (1, 1)), likelihoods.Gaussian(SIGMA), (1, 1), inference
    )
    total = A**2 + S**2
    if inference == "ladder":
        # x tells of z_1 with noise SIGMA, and of z_2 alone with variance S² + SIGMA².
        # The second module reads the outputs of the first, (x, log SIGMA).
        spread = S**2 + SIGMA**2
        gain = A / (A**2 + spread)
        ups = (
            _dense([[1.0, 0.0]], [0.0, np.log(SIGMA)]),
            _dense([[gain, 0.0], [0.0, 0.0]], [0.0, 0.5 * np.log(spread / (A**2 + spread))]),
        )
    else:
        gain = total / (total + SIGMA**2)
        first = _dense([[gain, 0.0]], [0.0, 0.5 * np.log(total * SIGMA**2 / (total + SIGMA**2))])
        ups = first, _dense([[A / total, 0.0]], [0.0, 0.5 * np.log(S**2 / total)])
    network = {
        "encoders_0": ups[0],
        "encoders_1": ups[1],
        "downs_0": _dense([[A, 0.0]], [0.0, np.log(S)]),
        "decoder": _dense([[1.0]], [0.0]),
    }
    x = np.random.default_rng(0).normal(0, np.sqrt(total + SIGMA**2), (100, 1)).astype(np.float32)
    log_p = scipy.stats.norm(0, np.sqrt(total + SIGMA**2)).logpdf(x[:, 0])
    params = {"network": network, "offset": jnp.zeros((1, 1)), "prior": {}}
    return hierarchy, params, {"network": {}, "step": jnp.zeros((), jnp.int32)}, x, log_p


@pytest.fixture(params=["bottom_up", "ladder"])
def linear(request):
    return _linear(request.param)


def _bound(of, num, key=0, x=None):
    hierarchy, params, stats, rows, _ = of
    batch = {"x": rows if x is None else x}
    return hierarchical.iwae_bound(jax.random.key(key), params, stats, batch, hierarchy=hierarchy, num_samples=num)


def test_every_weight_is_the_likelihood_at_the_exact_posterior(linear):
    for num in (1, 6):
        np.testing.assert_allclose(_bound(linear, num), linear[4], atol=1e-4)


def test_the_elbo_is_the_likelihood_there(linear):
    hierarchy, params, stats, x, log_p = linear
    values = hierarchical.terms(jax.random.key(0), params, stats, {"x": np.repeat(x, 200, 0)}, hierarchy=hierarchy)
    difference = np.asarray(values.elbo) - np.repeat(log_p, 200)
    assert abs(difference.mean()) < 4 * difference.std() / np.sqrt(len(difference)) + 1e-4
    np.testing.assert_allclose(values.rate, values.rate_per_layer.sum(1), rtol=1e-5)


def _off(of):
    """The same with a posterior that is off."""
    hierarchy, params, *rest = of
    layer = params["network"]["encoders_0"]["Dense_0"]
    layer = {"Dense_0": {**layer, "bias": layer["bias"] + jnp.array([0.6, 0.5])}}
    return hierarchy, {**params, "network": {**params["network"], "encoders_0": layer}}, *rest


def test_another_posterior_is_below_and_more_draws_come_nearer(linear):
    many = np.repeat(linear[3], 40, 0)
    means = [float(_bound(_off(linear), num, x=many).mean()) for num in (1, 8, 256)]
    assert means[0] < means[1] - 0.02
    assert means[1] < means[2]
    assert abs(means[2] - np.mean(linear[4])) < 0.02


MEANS, STDS = np.array([-1.2, 0.3, 1.5]), np.array([0.3, 0.8, 0.5])


def _with_prior(kind):
    """(the ladder with another p(z_2), log p of its x): z_2's law is a mixture, so x's is one too."""
    hierarchy, params, stats, x, _ = _linear("ladder")
    if kind == "mixture":
        weight = np.array([0.5, 0.2, 0.3])
        arrays = MEANS[:, None], np.log(STDS)[:, None], np.log(weight)
        own = priors.Components(*(jnp.asarray(each, jnp.float32) for each in arrays))
        prior, mean, std = priors.Mixture(3), MEANS, STDS
    else:
        inputs = np.array([-3.0, 0.4, 2.0])
        spread, weight = S**2 + SIGMA**2, np.full(3, 1 / 3)
        own, prior = jnp.asarray(inputs, jnp.float32)[:, None], priors.Vamp(3)
        mean, std = A / (A**2 + spread) * inputs, np.full(3, np.sqrt(spread / (A**2 + spread)))
    law = scipy.stats.norm(A * mean[None], np.sqrt(A**2 * std**2 + S**2 + SIGMA**2)[None])
    log_p = np.log(np.sum(weight * law.pdf(x), axis=1))
    return dataclasses.replace(hierarchy, prior=prior), {**params, "prior": own}, stats, x, log_p


@pytest.mark.parametrize("kind", ["mixture", "vamp"])
def test_other_priors_of_the_top_layer_give_the_likelihood_of_their_mixture(kind):
    of = _with_prior(kind)
    many = np.repeat(of[3], 40, 0)
    means = [float(_bound(of, num, x=many).mean()) for num in (1, 512)]
    assert means[0] < np.mean(of[4]) - 0.01
    assert abs(means[1] - np.mean(of[4])) < 0.01
    values = hierarchical.terms(jax.random.key(0), of[1], of[2], {"x": many}, hierarchy=of[0])
    np.testing.assert_allclose(np.mean(values.elbo), means[0], atol=0.03)


def test_a_mixture_of_the_top_layer_is_what_is_drawn():
    hierarchy, params, stats, *_ = _with_prior("mixture")
    x = np.asarray(hierarchical.sample(jax.random.key(3), params, stats, 20_000, hierarchy=hierarchy))[:, 0]
    law = scipy.stats.norm(A * MEANS, np.sqrt(A**2 * STDS**2 + S**2 + SIGMA**2))
    assert scipy.stats.kstest(x, lambda at: law.cdf(at[..., None]) @ np.array([0.5, 0.2, 0.3])).pvalue > 1e-4


def test_variances_in_place_of_precisions_would_be_seen(monkeypatch):
    def wrong(one, other):
        # σ weighs where σ² should: the law in the released STCN code.
        share = jnp.exp(-one.log_std - jnp.logaddexp(-one.log_std, -other.log_std))
        log_std = -jnp.logaddexp(-2 * one.log_std, -2 * other.log_std)
        return gaussian.Gaussian(share * one.mean + (1 - share) * other.mean, log_std)

    of = _linear("ladder")
    monkeypatch.setattr(gaussian, "product", wrong)
    assert np.max(np.abs(np.asarray(_bound(of, 1)) - of[4])) > 0.1


def test_a_fresh_draw_for_the_prior_would_be_seen(monkeypatch):
    of = _linear("bottom_up")
    right = gaussian.log_prob

    def shifted(z, law):
        # log p(z_1|z_2') at another z_2': its mean no longer moves with the z_2 that was drawn.
        return right(z, gaussian.Gaussian(jnp.roll(law.mean, 1, axis=0), law.log_std))

    monkeypatch.setattr(gaussian, "log_prob", shifted)
    assert np.max(np.abs(np.asarray(_bound(of, 1)) - of[4])) > 0.1


@pytest.mark.parametrize("inference", ["bottom_up", "ladder"])
def test_gradients_of_several_draws_agree_in_the_mean(inference):
    hierarchy, params, stats, x, _ = _off(_linear(inference))

    def gradients(estimator):
        def one(key):
            def value(shift):
                layer = params["network"]["encoders_0"]["Dense_0"]
                layer = {"Dense_0": {**layer, "bias": layer["bias"] + shift}}
                own = {**params, "network": {**params["network"], "encoders_0": layer}}
                settings = {"hierarchy": hierarchy, "num_samples": 8, "estimator": estimator}
                return hierarchical.loss(key, own, stats, {"x": x[:1]}, train=False, **settings)[0]

            return jax.grad(value)(jnp.zeros(2))

        return np.asarray(jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 6000)))

    plain, dreg, stl = (gradients(name) for name in ("plain", "dreg", "stl"))
    error = np.sqrt(plain.var(0) / len(plain) + dreg.var(0) / len(dreg))
    assert np.all(np.abs(plain.mean(0) - dreg.mean(0)) < 4 * error)
    assert np.any(np.abs(plain.mean(0) - stl.mean(0)) > 6 * error)
    assert np.all(dreg.var(0) < plain.var(0))


def test_batch_statistics_run_in_training():
    class Normalized(nn.Module):
        @nn.compact
        def __call__(self, x, *, train=False):
            return nn.Dense(2)(nn.BatchNorm(use_running_average=not train)(x))

    parts = (Normalized(), Affine(2)), (Affine(2),), Affine(3, (3, 1))
    hierarchy = Hierarchy(*parts, likelihoods.Gaussian(SIGMA), (1, 1), "bottom_up")
    model = hierarchical.model(hierarchy, ADAM)
    x = np.random.default_rng(0).normal(3.0, 1.0, (64, 3)).astype(np.float32)
    state, _ = model.update(jax.random.key(1), model.init(jax.random.key(0), {"x": x}), {"x": x})
    mean = state.stats["network"]["batch_stats"]["encoders_0"]["BatchNorm_0"]["mean"]
    np.testing.assert_allclose(mean, 0.01 * x.mean(0), rtol=1e-4)


def test_reconstructions_have_the_shape_of_the_data(linear):
    hierarchy, params, stats, x, _ = linear
    again = hierarchical.reconstruct(jax.random.key(0), params, stats, x, hierarchy=hierarchy)
    assert again.shape == x.shape
    assert float(jnp.mean((again - x) ** 2)) < 2 * SIGMA**2


def test_bad_arguments_are_refused():
    hierarchy = _linear("ladder")[0]
    with pytest.raises(ValueError, match="`inference` must be one of"):
        Hierarchy(hierarchy.encoders, hierarchy.downs, hierarchy.decoder, hierarchy.likelihood, (1, 1), "up")
    with pytest.raises(ValueError, match="`prior` must not be Vamp where `inference` is not ladder"):
        dataclasses.replace(hierarchy, inference="bottom_up", prior=priors.Vamp(3))
    with pytest.raises(ValueError, match="must be as many"):
        Hierarchy(hierarchy.encoders, (), hierarchy.decoder, hierarchy.likelihood, (1, 1))
    with pytest.raises(ValueError, match="`hidden_sizes` must have 2 entries"):
        hierarchical.dense((4,), likelihoods.Bernoulli(), (2, 1), ((8,),))
    with pytest.raises(ValueError, match="`num_samples` must be at least 1"):
        hierarchical.model(hierarchy, ADAM, num_samples=0)
