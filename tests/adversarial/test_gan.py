"""The GAN's value function, its optimum and its players (tests T1-T2 of the adversarial notes)."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jaxtyping import Array
from scipy import optimize

from jgen.adversarial import gan
from jgen.nets.mlp import MLP

P = np.array([0.30, 0.25, 0.20, 0.15, 0.07, 0.03])
Q = np.array([0.05, 0.10, 0.15, 0.20, 0.10, 0.40])


def jsd(p, q):
    """½ KL(p‖m) + ½ KL(q‖m), m = (p + q)/2, in nats; 0 log 0 = 0."""
    m = (p + q) / 2

    def kl(a):
        return np.sum(np.where(a > 0, a * np.log(np.where(a > 0, a / m, 1.0)), 0.0))

    return 0.5 * kl(p) + 0.5 * kl(q)


def repeated(weights, num=100):
    """Rows whose frequencies are exactly `weights`: expectations under a table become means over rows."""
    return np.repeat(np.arange(len(weights)), np.round(np.asarray(weights) * num).astype(int))


def train_critic(p, q, label_smoothing=0.0):
    """The logits per point that minimize the critic's loss, by L-BFGS in float64."""
    real, fake = repeated(p), repeated(q)

    def loss(logits):
        return gan.critic_loss(logits[real], logits[fake], label_smoothing)

    with jax.enable_x64(True):
        how = jax.jit(jax.value_and_grad(loss))
        found = optimize.minimize(
            lambda a: [np.asarray(v, np.float64) for v in how(jnp.asarray(a))],
            np.zeros(len(p)), jac=True, method="L-BFGS-B", options={"gtol": 1e-12, "ftol": 1e-15, "maxiter": 2000},
        )  # fmt: skip
    return found.x, -float(found.fun)


def test_trained_critic_is_the_optimal_one():
    logits, value = train_critic(P, Q)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), P / (P + Q), atol=1e-6)
    np.testing.assert_allclose(logits, gan.optimal_critic(jnp.log(P), jnp.log(Q)), atol=1e-4)
    assert abs(value - (-np.log(4) + 2 * jsd(P, Q))) < 1e-6


def test_value_at_the_optimum_is_the_jensen_shannon_divergence():
    with jax.enable_x64(True):
        logits = gan.optimal_critic(jnp.log(jnp.asarray(P)), jnp.log(jnp.asarray(Q)))
        value = gan.value(logits[repeated(P)], logits[repeated(Q)])
        np.testing.assert_allclose(value, -np.log(4) + 2 * jsd(P, Q), atol=1e-12)
        blind = gan.optimal_critic(jnp.log(jnp.asarray(P)), jnp.log(jnp.asarray(P)))
        np.testing.assert_allclose(gan.value(blind[repeated(P)], blind[repeated(P)]), -np.log(4), atol=1e-12)


def test_value_of_separated_supports_is_zero():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.0, 0.0, 1.0])
    assert jsd(p, q) == pytest.approx(np.log(2))
    logits = jnp.array([100.0, 100.0, -100.0])
    assert float(gan.value(logits[repeated(p)], logits[repeated(q)])) == pytest.approx(0.0, abs=1e-6)


def test_one_sided_smoothing_scales_the_optimum():
    logits, _ = train_critic(P, Q, label_smoothing=0.1)
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), 0.9 * P / (P + Q), atol=1e-6)


@pytest.mark.parametrize("loss", gan.LOSSES)
def test_generator_gradients_far_on_either_side(loss):
    losing, winning = (float(jax.grad(lambda a: gan.generator_loss(a, loss))(jnp.asarray(a))) for a in (-100.0, 100.0))
    expected = {"minimax": (0.0, -1.0), "non_saturating": (-1.0, 0.0)}[loss]
    np.testing.assert_allclose((losing, winning), expected, atol=1e-12)
    for logits in (jnp.array([-1e4, -100.0, 0.0, 100.0, 1e4]),):
        assert np.isfinite(gan.generator_loss(logits, loss))
        assert np.isfinite(gan.critic_loss(logits, logits))


def test_non_saturating_gradient_at_the_optimal_critic_is_that_of_kl_minus_two_jsd():
    with jax.enable_x64(True):
        p, raw = jnp.asarray(P), jnp.asarray([0.3, -0.2, 0.5, 0.1, -0.4, 0.0])

        def divergence(raw):
            q = jax.nn.softmax(raw)
            m = (p + q) / 2
            js = 0.5 * jnp.sum(p * jnp.log(p / m)) + 0.5 * jnp.sum(q * jnp.log(q / m))
            return jnp.sum(q * jnp.log(q / p)) - 2 * js

        def expected_loss(raw, logits):
            return jnp.sum(jax.nn.softmax(raw) * jax.vmap(gan.generator_loss)(logits))

        logits = gan.optimal_critic(jnp.log(p), jax.nn.log_softmax(raw))
        np.testing.assert_allclose(jax.grad(expected_loss)(raw, logits), jax.grad(divergence)(raw), atol=1e-8)


def test_a_wrong_sign_of_the_fake_term_is_caught(monkeypatch):
    softplus = jax.nn.softplus
    monkeypatch.setattr(
        gan, "value", lambda real, fake: -jnp.mean(softplus(-real)) - jnp.mean(softplus(-fake))
    )  # fmt: skip
    with pytest.raises(AssertionError):
        test_trained_critic_is_the_optimal_one()


def test_minimax_under_the_name_of_non_saturating_is_caught(monkeypatch):
    monkeypatch.setattr(gan, "generator_loss", lambda logits, loss: -jnp.mean(jax.nn.softplus(logits)))
    with pytest.raises(AssertionError):
        test_generator_gradients_far_on_either_side("non_saturating")


def tiny(**keywords):
    """A GAN on the line."""
    return gan.model(
        MLP((8, 1)), MLP((8, 1)), latent_size=2,
        generator_optimizer=optax.adam(1e-2), critic_optimizer=optax.adam(1e-2), **keywords,
    )  # fmt: skip


def test_each_critic_step_learns_from_its_own_part_of_the_batch():
    model = tiny(num_critic_steps=3, instance_noise=optax.linear_schedule(0.5, 0.0, 10))
    batch = {"x": jax.random.normal(jax.random.key(0), (12, 1))}
    state, update = jax.jit(model.init)(jax.random.key(1), batch), jax.jit(model.update)
    after, _ = update(jax.random.key(2), state, batch)
    assert float(after.stats["critic"].num_steps) == 3.0
    for i in range(12):
        moved = {"x": batch["x"].at[i].add(1.0)}
        other, _ = update(jax.random.key(2), state, moved)
        leaves = zip(jax.tree.leaves(after.params["critic"]), jax.tree.leaves(other.params["critic"]), strict=True)
        assert any(not np.array_equal(a, b) for a, b in leaves)


def test_noise_follows_its_schedule():
    networks = gan.Networks(MLP((4, 1)), MLP((4, 1)), 2)
    batch = {"x": jnp.zeros((64, 1))}
    params, stats = gan.init(jax.random.key(0), batch, networks=networks)

    def loss(num_steps):
        now = {**stats, "critic": stats["critic"]._replace(num_steps=jnp.asarray(num_steps))}
        noise = optax.linear_schedule(0.5, 0.0, 10)
        return gan.play_critic(jax.random.key(1), params, now, batch, networks=networks, instance_noise=noise)[0]

    without = gan.play_critic(jax.random.key(1), params, stats, batch, networks=networks)[0]
    assert float(loss(10.0)) == float(without)
    assert float(loss(0.0)) != float(without)


def test_interpolation_starts_ends_and_keeps_its_length():
    ends = jax.random.normal(jax.random.key(0), (2, 50))
    ends = ends / jnp.linalg.norm(ends, axis=1, keepdims=True) * 7
    path = gan.interpolate(ends[0], ends[1], 9)
    np.testing.assert_allclose(path[jnp.array([0, 8])], ends, atol=1e-5)
    np.testing.assert_allclose(jnp.linalg.norm(path, axis=1), 7.0, rtol=1e-5)
    assert np.all(np.isfinite(gan.interpolate(ends[0], ends[0], 3)))


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="`loss` must be one of 'non_saturating', 'minimax', got 'hinge'"):
        tiny(loss="hinge")
    with pytest.raises(ValueError, match="`label_smoothing` must be in"):
        tiny(label_smoothing=1.0)
    with pytest.raises(ValueError, match="`num_critic_steps` must be at least 1"):
        tiny(num_critic_steps=0)
    with pytest.raises(ValueError, match=r"`generator` must make examples of shape \(3,\), got \(1,\)"):
        tiny().init(jax.random.key(0), {"x": jnp.zeros((4, 3))})
    model = tiny(num_critic_steps=3)
    state = model.init(jax.random.key(0), {"x": jnp.zeros((6, 1))})
    with pytest.raises(ValueError, match="`batch` must be divisible by the 3 steps"):
        model.update(jax.random.key(0), state, {"x": jnp.zeros((4, 1))})


@pytest.mark.slow
def test_covers_all_modes_of_the_ring():
    def ring(key, num) -> Array:
        which, noise = jax.random.split(key)
        angle = jax.random.randint(which, (num,), 0, 8) * (jnp.pi / 4)
        means = jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1) * jnp.sqrt(2.0)
        return means + 0.02 / jnp.sqrt(2.0) * jax.random.normal(noise, (num, 2))

    num_steps = 5_000
    adam = optax.adam(optax.cosine_decay_schedule(1e-3, num_steps), b1=0.5, b2=0.9)
    model = gan.model(
        MLP((128, 128, 128, 2)), MLP((128, 128, 128, 1)), latent_size=2, generator_optimizer=adam,
        critic_optimizer=adam, instance_noise=optax.linear_schedule(0.5, 0.0, int(0.7 * num_steps)),
    )  # fmt: skip
    state = jax.jit(model.init)(jax.random.key(0), {"x": ring(jax.random.key(0), 256)})
    update = jax.jit(lambda key, state: model.update(key, state, {"x": ring(jax.random.fold_in(key, 1), 256)}))
    for step in range(num_steps):
        state, _ = update(jax.random.key(step), state)
    assert model.sample is not None
    x = np.asarray(model.sample(jax.random.key(7), state, 2_500)["x"])
    angle = np.arange(8) * np.pi / 4
    distance = np.linalg.norm(x[:, None] - np.sqrt(2) * np.stack([np.cos(angle), np.sin(angle)], axis=1)[None], axis=-1)
    near = np.bincount(distance.argmin(axis=1)[distance.min(axis=1) < 3 * 0.02 / np.sqrt(2)], minlength=8)
    assert np.all(near >= 0.2 * 2_500 / 8)
