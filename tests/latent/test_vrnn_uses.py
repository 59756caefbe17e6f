"""What a VRNN is used for: frame by frame, drawing, going on, style and content; and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
import vrnn_checks as checks
from stat_checks import check_mean

from jgen.latent import vrnn, vrnn_network, vrnn_path
from jgen.math import framewise, likelihoods
from jgen.nets.mlp import MLP

ADAM = optax.adam(1e-2)
BITS = likelihoods.Bernoulli()


@pytest.fixture(autouse=True)
def _cells(monkeypatch):
    checks.add_cells(monkeypatch)


def tiny(latent_size=2, **sizes):
    return vrnn.dense(BITS, (3,), latent_size, **{"hidden_size": 4, "num_units": 5, "cell": "gru", **sizes})


def bits(num=4, length=6, **more):
    x = jax.random.bernoulli(jax.random.key(0), 0.4, (num, length, 3)).astype(jnp.float32)
    return {"x": x, **more}


def trained(network, batch):
    """Some parameters that are not the first."""
    params = jax.jit(vrnn.model(network, ADAM).init)(jax.random.key(1), batch).params
    return jax.tree.map(lambda leaf: leaf + 0.3 * jax.random.normal(jax.random.key(2), leaf.shape), params)


@pytest.mark.parametrize("latent_size", [0, 2])
@pytest.mark.parametrize("num_contents", [0, 3])
def test_frame_by_frame_is_the_whole(latent_size, num_contents):
    network = tiny(latent_size, num_contents=num_contents)
    batch = bits(label=jnp.array([0, 1, 2, 1]))
    params = trained(network, batch)
    whole = vrnn.terms(jax.random.key(4), params, batch, network=network)
    pairs = jax.vmap(jax.random.split)(vrnn.random.batch_keys(jax.random.key(4), batch))
    memory, sums = vrnn.start(params, 4, network=network), [0.0] * 4
    condition = vrnn_network.condition(network, batch)
    read = jax.jit(lambda k, m, x: vrnn.step(k, params, m, x, network=network, condition=condition))
    for t in range(6):
        memory, found = read(framewise.keys_at(pairs[:, 1], t), memory, batch["x"][:, t])
        sums = [a + b for a, b in zip(sums, found, strict=True)]
    for one, other in zip(whole, sums, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_without_latents_the_likelihood_is_exact_and_needs_no_key():
    network, batch = tiny(0), bits()
    params = trained(network, batch)
    model = vrnn.model(network, ADAM)
    assert model.log_bound is None
    exact = vrnn.log_prob(params, batch, network=network)
    np.testing.assert_allclose(vrnn.elbo(jax.random.key(7), params, batch, network=network), exact, atol=1e-5)
    with pytest.raises(ValueError, match="must have no latents"):
        vrnn.log_prob(params, batch, network=tiny())


@pytest.mark.parametrize("length", [1, 5])
def test_every_draw_of_the_style_weighs_the_likelihood(length):
    network, params = checks.styled(length)
    x = checks.draws(10, length)
    covariance = np.ones((length, length)) + checks.R * np.eye(length)
    exact = scipy.stats.multivariate_normal(np.zeros(length), covariance).logpdf(x)
    batch = checks.batch_of(x)
    found = vrnn.iwae_bound(jax.random.key(0), params, batch, network=network, num_samples=1)
    np.testing.assert_allclose(found, exact, atol=1e-4)
    many = checks.batch_of(np.repeat(x[:2], 2_000, axis=0))
    elbo = np.asarray(vrnn.elbo(jax.random.key(1), params, many, network=network))
    check_mean(elbo.reshape(2, -1).T, exact[:2], sees=0.3)


def test_style_does_not_see_the_padding_and_speaks_for_another_label():
    network = tiny(2, num_contents=3, style_size=2)
    label, mask = jnp.array([0, 1, 2, 1]), (np.arange(6)[None] < np.array([[2], [6], [4], [1]])).astype(np.uint8)
    batch = bits(label=label, mask=mask)
    params = trained(network, batch)
    other = {**batch, "x": jnp.where(mask[..., None] > 0, batch["x"], 1 - batch["x"])}
    found = [vrnn.style(params, b, network=network).mean for b in (batch, other)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    draw = [
        vrnn.sample(jax.random.key(0), params, 4, 6, network=network, label=said, style=style)
        for said, style in ((label, found[0]), (label[::-1], found[0]), (label, -found[0]))
    ]
    assert draw[0].shape == (4, 6, 3)
    assert np.any(draw[0] != draw[1])
    assert np.any(draw[0] != draw[2])


@pytest.mark.parametrize("smoothing", [False, True])
def test_the_state_remembers_what_was_to_be_said(smoothing):
    network = tiny(2, num_contents=3, style_size=2, smoothing=smoothing)
    batch = bits(label=jnp.array([0, 1, 2, 1]))
    params = trained(network, batch)

    def state(condition):
        noise = jnp.zeros((*batch["x"].shape[:2], network.latent_size))
        path = vrnn_path.follow(network, params, noise, batch["x"], jnp.ones(noise.shape[:2]), condition)
        return path.last.state[0].sum()

    seen = jax.grad(state)(vrnn_network.condition(network, batch, jnp.ones((4, 2))))
    assert np.all(seen != 0)


@pytest.mark.parametrize("kind", ["first_order", "state_space", "smoothing"])
def test_samples_have_the_covariance_of_their_model(kind):
    network, params = getattr(checks, kind)()
    x = jax.jit(lambda key: vrnn.sample(key, params, 6_000, 3, network=network))(jax.random.key(0))[..., 0]
    first, second = np.asarray(x, np.float64).T[:2]
    # Where x is its own state, the noise r is carried on too.
    carried = checks.Q + (checks.R if kind == "first_order" else 0.0)
    check_mean(first**2, checks.Q + checks.R, sees=0.6)
    check_mean(first * second, checks.A * carried, sees=0.6)
    check_mean(second**2, checks.A**2 * carried + checks.Q + checks.R, sees=0.9)


def test_draws_go_on_from_the_exact_posterior_of_a_prefix():
    network, params = checks.smoothing()
    prefix = np.repeat(checks.draws(1, 4), 8_000, axis=0)
    x = checks.batch_of(prefix)["x"]
    go_on = jax.jit(lambda key: vrnn.continue_from(key, params, x, 2, network=network))
    found = np.asarray(go_on(jax.random.key(0)), np.float64)[..., 0]
    ahead = np.linspace(-15, 15, 3_001)
    rows = np.column_stack([np.repeat(prefix[:1], len(ahead), axis=0), ahead])
    density = np.exp(checks.kalman(rows) - checks.kalman(prefix[:1]))
    mean = np.trapezoid(density * ahead, ahead)
    check_mean(found[:, 0], mean, sees=0.25)
    check_mean(found[:, 1], checks.A * mean, sees=0.3)
    check_mean((found[:, 0] - mean) ** 2, np.trapezoid(density * (ahead - mean) ** 2, ahead), sees=0.6)


def test_longer_draws_begin_like_shorter_ones():
    network, batch = tiny(), bits()
    params = trained(network, batch)
    short, long = (vrnn.sample(jax.random.key(0), params, 4, length, network=network) for length in (3, 6))
    np.testing.assert_array_equal(short, long[:, :3])


@pytest.mark.parametrize("smoothing", [False, True])
def test_reconstructions_are_means_of_frames(smoothing):
    network = tiny(smoothing=smoothing, style_size=1, num_contents=3)
    batch = bits(label=jnp.zeros(4, jnp.int32))
    found = vrnn.reconstruct(trained(network, batch), batch, network=network)
    assert found.shape == batch["x"].shape
    assert np.all((np.asarray(found) > 0) & (np.asarray(found) < 1))


def test_recurrent_dropout_is_in_training_alone():
    network, batch = tiny(0), bits()
    model = vrnn.model(network, ADAM, dropout_rate=0.9)
    state, update = jax.jit(model.init)(jax.random.key(0), batch), jax.jit(model.update)
    nll = [model.evaluate(jax.random.key(i), state, batch)["nll"] for i in range(2)]
    np.testing.assert_array_equal(nll[0], nll[1])
    losses = [update(jax.random.key(i), state, batch)[1]["loss"] for i in range(2)]
    assert losses[0] != losses[1]


def test_warm_up_changes_the_objective_and_not_the_report():
    network, batch = tiny(style_size=1), bits()
    warm, plain = (vrnn.model(network, ADAM, warm_up_steps=steps) for steps in (10, 0))
    state = jax.jit(warm.init)(jax.random.key(0), batch)
    _, metrics = jax.jit(warm.update)(jax.random.key(1), state, batch)
    np.testing.assert_allclose(metrics["loss"], metrics["distortion"], rtol=1e-6)
    reports = [jax.jit(m.evaluate)(jax.random.key(2), state, batch) for m in (warm, plain)]
    np.testing.assert_array_equal(reports[0]["negative_elbo"], reports[1]["negative_elbo"])
    whole = reports[0]["rate"] + reports[0]["style_rate"] + reports[0]["distortion"]
    np.testing.assert_allclose(whole, reports[0]["negative_elbo"], rtol=1e-5)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"beta": -1.0}, "`beta` must be at least 0"),
        ({"warm_up_steps": -1}, "`warm_up_steps` must be at least 0"),
        ({"length": 0}, "`length` must be at least 1"),
        ({"num_bound_samples": 0}, "`num_bound_samples` must be at least 1"),
        ({"dropout_rate": 1.0}, r"`dropout_rate` must be in \[0, 1\)"),
    ],
)
def test_bad_arguments_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        vrnn.model(tiny(), ADAM, **keywords)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"cell": "rnn"}, "`cell` must be one of"),
        ({"latent_size": -1}, "`latent_size` must be at least 0"),
        ({"latent_size": 0, "smoothing": True}, "`smoothing` must be False without latents"),
        ({"style_size": -1}, "`style_size` must be at least 0"),
    ],
)
def test_bad_networks_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        tiny(**keywords)


def test_modules_of_another_shape_are_refused():
    network, parts = tiny(), ("features", "latent_features", "prior", "posterior", "decoder")
    for name in ("prior", "decoder"):
        modules = [MLP((3,)) if part == name else getattr(network, part) for part in parts]
        wrong = vrnn.Network(BITS, *modules, latent_size=2, num_units=5)
        with pytest.raises(ValueError, match="must return"):
            vrnn.elbo(jax.random.key(0), trained(wrong, bits()), bits(), network=wrong)
    with pytest.raises(ValueError, match="`style` must be given"):
        vrnn.Network(BITS, MLP(()), MLP(()), MLP(()), MLP(()), MLP(()), style_size=1)


def test_bad_batches_are_refused():
    network = tiny(num_contents=3)
    model = vrnn.model(network, ADAM)
    with pytest.raises(ValueError, match="`label` must be given"):
        model.init(jax.random.key(0), bits())
    with pytest.raises(ValueError, match=r"`label` must lie in \[0, 2\]"):
        model.init(jax.random.key(0), bits(label=np.array([0, 1, 2, 3])))
    with pytest.raises(ValueError, match="`mask` must be ones, then zeros"):
        model.init(jax.random.key(0), bits(label=np.zeros(4, int), mask=np.eye(4, 6)))
    with pytest.raises(ValueError, match="`x` must be whole numbers"):
        model.init(jax.random.key(0), {"x": np.full((2, 3, 3), 0.5), "label": np.zeros(2, int)})
    params = trained(network, bits(label=np.zeros(4, int)))
    with pytest.raises(ValueError, match="`style_size` must be at least 1"):
        vrnn.style(params, bits(label=np.zeros(4, int)), network=network)
    memory = vrnn.start(params, 4, network=network)
    keys = vrnn.random.example_keys(jax.random.key(0), 4)
    with pytest.raises(ValueError, match="`network` must filter"):
        vrnn.step(keys, params, memory, bits()["x"][:, 0], network=tiny(smoothing=True))
