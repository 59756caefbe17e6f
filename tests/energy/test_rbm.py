"""The RBM against enumeration of every state, autodiff of the likelihood, and its own transition matrix."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import stat_checks as stat

from jgen.energy import rbm
from jgen.sampler import run
from jgen.samplers import annealed_importance as ais


def _states(num: int) -> Any:
    return jnp.asarray(list(itertools.product([0.0, 1.0], repeat=num)))


def _params(visible: int, hidden: int, scale: float = 1.0, seed: int = 0) -> rbm.RBM:
    keys = jax.random.split(jax.random.key(seed), 3)
    shapes = ((visible, hidden), (visible,), (hidden,))
    return rbm.RBM(*(scale * jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)))


def _joint(params: rbm.RBM) -> Any:
    """E(v, h) of every pair, (2^V, 2^H), written out with einsum."""
    v, h = _states(params.weights.shape[0]), _states(params.weights.shape[1])
    linear = (v @ params.visible_bias)[:, None] + (h @ params.hidden_bias)[None]
    return -linear - jnp.einsum("ai,ij,bj->ab", v, params.weights, h)


def _cell(v: Any) -> np.ndarray:
    v = np.asarray(v).astype(int)
    return v @ 2 ** np.arange(v.shape[1] - 1, -1, -1)


@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_free_energy_and_partition_by_enumeration(beta: float) -> None:
    params = _params(4, 3)
    joint = -beta * _joint(params)
    v = _states(4)
    np.testing.assert_allclose(
        rbm.free_energy(params, v, beta=beta), -jax.nn.logsumexp(joint, axis=1), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(rbm.log_partition(params, beta=beta), jax.nn.logsumexp(joint), rtol=1e-6)
    np.testing.assert_allclose(jnp.sum(jnp.exp(rbm.log_prob(params, v, beta=beta))), 1.0, rtol=1e-5)
    pairs = rbm.energy(params, jnp.repeat(v, 8, axis=0), jnp.tile(_states(3), (16, 1)))
    np.testing.assert_allclose(pairs, -joint.ravel() / beta, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_conditionals_by_enumeration(beta: float) -> None:
    params = _params(4, 3)
    p = jnp.exp(-beta * _joint(params))
    of_h = (p / p.sum(1, keepdims=True)) @ _states(3)
    of_v = (p / p.sum(0, keepdims=True)).T @ _states(4)
    np.testing.assert_allclose(jax.nn.sigmoid(rbm.hidden_logits(params, _states(4), beta=beta)), of_h, rtol=1e-4)
    np.testing.assert_allclose(jax.nn.sigmoid(rbm.visible_logits(params, _states(3), beta=beta)), of_v, rtol=1e-4)
    again = rbm.reconstruct(params, _states(4), beta=beta)
    np.testing.assert_allclose(again, jax.nn.sigmoid(rbm.visible_logits(params, of_h, beta=beta)), rtol=1e-4)


def test_partition_is_the_same_from_either_side_and_in_blocks() -> None:
    params = _params(15, 3, 0.3)  # 15 > 12: the larger layer is visited in blocks when it is asked for
    other = rbm.RBM(params.weights.T, params.hidden_bias, params.visible_bias)
    np.testing.assert_allclose(rbm.log_partition(params), rbm.log_partition(other), rtol=1e-6)
    wide = _params(14, 14, 0.3)
    direct = jax.nn.logsumexp(-rbm.free_energy(wide, _states(14)))
    np.testing.assert_allclose(rbm.log_partition(wide), direct, rtol=1e-6)


def test_extreme_logits_stay_finite() -> None:
    params = rbm.RBM(jnp.full((4, 3), 100.0), jnp.full(4, -100.0), jnp.full(3, 100.0))
    value, grads = jax.value_and_grad(lambda p: jnp.sum(rbm.log_prob(p, _states(4))))(params)
    assert np.isfinite(float(value))
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(grads))
    start = rbm.init_params(jax.random.key(0), jnp.concatenate([jnp.zeros((5, 2)), jnp.ones((5, 2))], 1), 3)
    np.testing.assert_allclose(jax.nn.sigmoid(start.visible_bias), [0.02, 0.02, 0.98, 0.98], rtol=1e-5)


def _transition(params: rbm.RBM) -> np.ndarray:
    """P(v'|v) = Σ_h p(v'|h) p(h|v), from the library's own conditionals."""
    v, h = _states(params.weights.shape[0]), _states(params.weights.shape[1])

    def mass(logits: Any, units: Any) -> Any:
        p = jax.nn.sigmoid(logits)[:, None]
        return jnp.prod(jnp.where(units[None] > 0, p, 1 - p), axis=-1)

    return np.asarray(mass(rbm.hidden_logits(params, v), h) @ mass(rbm.visible_logits(params, h), v))


def test_sweep_satisfies_detailed_balance() -> None:
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), _params(4, 3))
        matrix = _transition(params)
        p = np.asarray(jax.nn.softmax(-rbm.free_energy(params, _states(4).astype(jnp.float64))))
    flow = p[:, None] * matrix
    np.testing.assert_allclose(flow, flow.T, atol=1e-12)
    np.testing.assert_allclose(p @ matrix, p, atol=1e-12)


def test_sweeps_draw_from_their_transition_matrix() -> None:
    params = _params(4, 3)
    starts = jnp.tile(jnp.asarray([1.0, 0.0, 1.0, 1.0])[None], (50_000, 1))
    kernel = rbm.gibbs(params)
    end, hidden = jax.jit(lambda key: run(key, kernel, rbm.GibbsState(starts), 2, keep=lambda s, i: i.hidden))(
        jax.random.key(0)
    )
    matrix = _transition(params)
    row = (matrix @ matrix)[int(_cell(starts[:1])[0])]
    stat.check_counts(np.bincount(_cell(end.position), minlength=16), row)
    stat.check_mean(hidden[0], np.asarray(jax.nn.sigmoid(rbm.hidden_logits(params, starts[:1]))[0]), sees=0.05)


def test_pseudo_likelihood_is_unbiased() -> None:
    params, num = _params(4, 3), 20_000
    v = jnp.tile(jnp.asarray([1.0, 0.0, 0.0, 1.0])[None], (num, 1))
    flipped = jnp.abs(v[:1] - jnp.eye(4))
    log_p, log_flip = rbm.log_prob(params, v[:1]), rbm.log_prob(params, flipped)
    exact = float(jnp.sum(log_p - jnp.logaddexp(log_p, log_flip)))
    found = jax.jit(rbm.pseudo_log_likelihood)(jax.random.split(jax.random.key(0), num), params, v)
    stat.check_mean(found, exact, sees=0.5)


X = jnp.asarray(np.random.default_rng(0).integers(0, 2, (8, 4)), jnp.float32)


def _direction(k: int, persistent: bool, chains: int = 8, optimizer: Any = None, **kwargs: Any) -> Any:
    """The mean update of `num` independent learners from the same parameters: −gradient, by key."""
    model = rbm.model(
        4, 3, optimizer or optax.sgd(1.0), num_steps=k, persistent=persistent, num_chains=chains, **kwargs
    )
    state = model.init(jax.random.key(0), {"x": X})._replace(params=_params(4, 3))
    return model, state


def _likelihood_gradient(params: rbm.RBM) -> rbm.RBM:
    return jax.grad(lambda p: jnp.mean(rbm.log_prob(p, X)))(params)


def _moves(model: Any, state: Any, num: int = 4_000) -> np.ndarray:
    def move(key: Any) -> Any:
        new = model.update(key, state, {"x": X})[0].params
        return jnp.concatenate([jnp.ravel(a - b) for a, b in zip(new, state.params, strict=True)])

    return np.asarray(jax.jit(jax.vmap(move))(jax.random.split(jax.random.key(5), num)))


def _flat(params: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in params])


@pytest.mark.parametrize("k", [1, 3])
def test_expected_cd_k_update_by_enumeration(k: int) -> None:
    """E[update] = mean ∇(−F)(data) − Σ_v (p_data Pᵏ)(v) ∇(−F)(v)."""
    model, state = _direction(k, False)
    data = np.bincount(_cell(X), minlength=16) / len(X)
    law = jnp.asarray(data @ np.linalg.matrix_power(_transition(state.params), k), jnp.float32)

    def objective(params: rbm.RBM) -> Any:
        return -jnp.mean(rbm.free_energy(params, X)) + jnp.sum(law * rbm.free_energy(params, _states(4)))

    stat.check_mean(_moves(model, state), _flat(jax.grad(objective)(state.params)), sees=0.1)


def test_many_sweeps_give_the_likelihood_gradient_and_one_does_not() -> None:
    model, state = _direction(60, False)
    exact = _flat(_likelihood_gradient(state.params))
    stat.check_mean(_moves(model, state), exact, sees=0.1)
    model, state = _direction(1, False)
    with pytest.raises(AssertionError, match="z ="):
        stat.check_mean(_moves(model, state), exact)


def test_persistent_chains_go_on_and_stay_on_the_model() -> None:
    """With a learning rate of 0 exact draws stay exact draws; the update leaves the batch out of the chains."""
    params, num = _params(4, 3), 20_000
    model, state = _direction(1, True, num, optax.sgd(0.0))
    p = jax.nn.softmax(-rbm.free_energy(params, _states(4)))
    draws = jax.random.categorical(jax.random.key(0), jnp.log(p), shape=(num,))
    state = state._replace(chains=_states(4)[draws])
    update, metrics = jax.jit(model.update), {}
    for step in range(5):
        state, metrics = update(jax.random.key(step), state, {"x": X})
    stat.check_counts(np.bincount(_cell(state.chains), minlength=16), np.asarray(p))
    assert float(jnp.mean(jnp.any(state.chains != _states(4)[draws], axis=1))) > 0.5
    other, _ = update(jax.random.key(4), state, {"x": 1 - X})
    same, _ = update(jax.random.key(4), state, {"x": X})
    np.testing.assert_array_equal(other.chains, same.chains)
    np.testing.assert_allclose(metrics["energy_gap"], metrics["energy_data"] - metrics["energy_model"], rtol=1e-5)


def test_weight_decay_pulls_the_weights_alone() -> None:
    model, state = _direction(1, True)
    heavy, _ = _direction(1, True, weight_decay=0.1)
    plain, decayed = (m.update(jax.random.key(0), state, {"x": X})[0].params for m in (model, heavy))
    np.testing.assert_allclose(plain.weights - decayed.weights, 0.1 * state.params.weights, atol=1e-6)
    np.testing.assert_array_equal(plain.visible_bias, decayed.visible_bias)


@pytest.mark.parametrize("persistent", [True, False])
def test_learning_raises_the_exact_likelihood(persistent: bool) -> None:
    x = jnp.tile(jnp.asarray([[1.0, 1, 0, 0], [0, 0, 1, 1]]), (16, 1))
    model = rbm.model(4, 3, optax.sgd(0.2), num_steps=3, persistent=persistent, num_chains=64)
    state = jax.jit(model.init)(jax.random.key(0), {"x": x})
    update = jax.jit(model.update)
    before = float(jnp.mean(model.log_prob(state, {"x": x})))  # pyright: ignore[reportOptionalCall]
    for step in range(400):
        state, _ = update(jax.random.key(step), state, {"x": x})
    metrics = model.evaluate(jax.random.key(0), state, {"x": x})
    assert before < -2.5
    assert float(jnp.mean(metrics["nll"])) < 1.5  # two equal patterns: log 2 = 0.69 at best
    assert float(jnp.mean(metrics["reconstruction_error"])) < 0.2


BETAS = (1.0, 0.6, 0.2)


def test_tempered_chains_keep_the_joint_law_of_their_replicas(monkeypatch: pytest.MonkeyPatch) -> None:
    """512 states of three replicas from exact draws; a free energy with a wrong β in the swaps does not."""
    params, v = _params(3, 2, 2.0), _states(3)
    laws = [jax.nn.softmax(-rbm.free_energy(params, v, beta=beta)) for beta in BETAS]
    keys = jax.random.split(jax.random.key(0), 3)
    starts = jnp.stack([v[jax.random.choice(k, 8, (30_000,), p=p)] for k, p in zip(keys, laws, strict=True)])
    joint = np.einsum("a,b,c->abc", *[np.asarray(p, np.float64) for p in laws]).ravel()

    def check() -> None:
        kernel = rbm.tempered(params, BETAS)
        drive = jax.jit(
            lambda keys: run(keys[0], kernel, kernel.init(keys[1], starts), 3, keep=lambda s, i: i.swaps.accepted)
        )
        end, swapped = drive(jax.random.split(jax.random.key(1)))
        stat.check_counts(np.bincount(_cell(jnp.concatenate(list(end.position), axis=1)), minlength=512), joint)
        assert float(jnp.mean(swapped)) > 0.1

    check()
    right = rbm.free_energy
    monkeypatch.setattr(rbm, "free_energy", lambda params, v, *, beta: 0.3 * right(params, v, beta=beta))
    with pytest.raises(AssertionError, match="G ="):
        check()


def test_first_replicas_stand_for_the_model() -> None:
    params, num = _params(4, 3), 20_000
    model = rbm.model(4, 3, optax.sgd(0.0), num_chains=num, temperatures=BETAS)
    state = jax.jit(model.init)(jax.random.key(0), {"x": X})._replace(params=params)
    assert state.chains.shape == (3, num, 4)
    laws = [-rbm.free_energy(params, _states(4), beta=beta) for beta in BETAS]
    draws = [jax.random.categorical(jax.random.key(i), law, shape=(num,)) for i, law in enumerate(laws)]
    state = state._replace(chains=_states(4)[jnp.stack(draws)])
    update, metrics = jax.jit(model.update), {}
    for step in range(3):
        state, metrics = update(jax.random.key(step), state, {"x": X})
    stat.check_counts(np.bincount(_cell(state.chains[0]), minlength=16), np.asarray(jax.nn.softmax(laws[0])))
    np.testing.assert_allclose(metrics["energy_model"], jnp.mean(rbm.free_energy(params, state.chains[0])), rtol=1e-4)


def test_replicas_cross_between_modes_where_a_single_chain_stays() -> None:
    """Two modes, all on and all off; from the one, a chain reaches the other with replicas only."""
    params = rbm.RBM(jnp.full((6, 6), 3.0), jnp.full(6, -9.0), jnp.full(6, -9.0))
    starts, betas = jnp.ones((12, 400, 6)), np.linspace(1.0, 0.05, 12).tolist()
    alone = jax.jit(lambda key: run(key, rbm.gibbs(params), rbm.GibbsState(starts[0]), 300)[0].position)(
        jax.random.key(0)
    )
    assert float(jnp.mean(alone)) > 0.99
    many = rbm.tempered(params, betas)
    ends = jax.jit(lambda key: run(key, many, many.init(key, starts), 300)[0].position[0])(jax.random.key(0))
    p = jax.nn.softmax(-rbm.free_energy(params, _states(6)))
    stat.check_mean(np.sum(ends, axis=1) > 3, float(p @ (jnp.sum(_states(6), axis=1) > 3)), sees=0.3)


@pytest.mark.slow
def test_cd_1_ends_below_its_best_where_the_exact_gradient_only_rises() -> None:
    """Bars and stripes on 4×4 (Fischer and Igel, 2010): CD-1 follows no function, and leaves what it had reached."""
    bits = _states(4)
    x = jnp.concatenate([jnp.repeat(bits, 4, axis=1), jnp.tile(bits, (1, 4))])
    model = rbm.model(16, 16, optax.sgd(0.1), persistent=False)
    state = jax.jit(model.init)(jax.random.key(0), {"x": x})
    log_prob = jax.jit(lambda params: jnp.mean(rbm.log_prob(params, x)))

    @jax.jit
    def learn(key: Any, state: Any) -> Any:
        return jax.lax.fori_loop(
            0, 1_000, lambda t, state: model.update(jax.random.fold_in(key, t), state, {"x": x})[0], state
        )

    found = []
    for part in range(50):
        state = learn(jax.random.key(part), state)
        found.append(float(log_prob(state.params)))
    assert max(found) > -5.5
    assert found[-1] < max(found) - 0.5
    params, climb = rbm.init_params(jax.random.key(0), x, 16), [-np.inf]
    step = jax.jit(jax.value_and_grad(lambda params: jnp.mean(rbm.log_prob(params, x))))
    for _ in range(200):
        value, grads = step(params)
        params, climb = jax.tree.map(lambda a, b: a + 0.1 * b, params, grads), [*climb, float(value)]
    assert np.all(np.diff(climb) > -1e-5)


@pytest.mark.parametrize("num_steps", [3, 5, 20])
def test_annealed_weights_are_unbiased(num_steps: int) -> None:
    params = _params(5, 4)
    base = jnp.linspace(-1.0, 1.0, 5)
    betas = ais.temperatures([num_steps], [0, 1])
    start = (jax.random.uniform(jax.random.key(0), (100_000, 5)) < jax.nn.sigmoid(base)[None]).astype(jnp.float32)
    walk = jax.jit(lambda key: ais.anneal(key, rbm.annealing_path(params, base), start, betas))
    log_z = float(jnp.sum(jax.nn.softplus(base)) + 4 * jnp.log(2.0))
    weights = np.exp(np.asarray(walk(jax.random.key(1)).log_weights, np.float64) + log_z)
    exact = float(jnp.exp(rbm.log_partition(params)))
    stat.check_mean(weights, exact, sees=0.25 * exact)


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_log_partition_of_ten_by_eight_within_a_twentieth_of_a_nat(beta: float) -> None:
    params = _params(10, 8, 0.7)
    exact = float(rbm.log_partition(params, beta=beta))
    p = -rbm.free_energy(params, _states(10), beta=beta)
    particles = _states(10)[jax.random.categorical(jax.random.key(0), p, shape=(100,))]
    base = jnp.zeros(10)
    betas = ais.temperatures([1000], [0, 1])
    both = jax.jit(lambda key: rbm.annealed_log_partition(key, params, base, particles, betas, beta=beta))
    found = both(jax.random.key(1))
    assert abs(float(found.forward) - exact) < 0.05
    assert abs(float(found.reverse) - exact) < 0.05
    assert abs(float(found.gap)) < 0.1


def test_bounds_of_single_chains_lie_on_their_sides() -> None:
    """With three temperatures and one chain E[forward] < log Z < E[reverse], and the gap shows how far they are."""
    params = _params(5, 4)
    exact = float(rbm.log_partition(params))
    p = -rbm.free_energy(params, _states(5))

    def one(key: Any) -> Any:
        draw_key, key = jax.random.split(key)
        particles = _states(5)[jax.random.categorical(draw_key, p)][None]
        return rbm.annealed_log_partition(key, params, jnp.zeros(5), particles, ais.temperatures([3], [0, 1]))

    found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(2), 20_000))
    error = np.std(np.asarray(found.gap)) / np.sqrt(20_000)
    assert float(jnp.mean(found.forward)) < exact - 5 * error
    assert float(jnp.mean(found.reverse)) > exact + 5 * error


def test_base_rates() -> None:
    rates = jax.nn.sigmoid(rbm.base_bias(X))
    np.testing.assert_allclose(rates, (X.sum(0) + 1) / (len(X) + 2), rtol=1e-5)
    with pytest.raises(ValueError, match="`x` must lie in"):
        rbm.base_bias(X + 1)


def test_samples_follow_the_model_whatever_the_batch() -> None:
    params = _params(4, 3)
    draw = jax.jit(functools.partial(rbm.sample, num=20_000, num_steps=40))
    samples = draw(jax.random.key(0), params, X)
    stat.check_counts(np.bincount(_cell(samples), minlength=16), np.asarray(jnp.exp(rbm.log_prob(params, _states(4)))))
    few = jax.jit(functools.partial(rbm.sample, num=3, num_steps=40))(jax.random.key(0), params, X)
    np.testing.assert_array_equal(few, samples[:3])


def test_log_prob_is_offered_only_where_it_is_cheap() -> None:
    assert rbm.model(784, 500, optax.sgd(0.1)).log_prob is None
    assert rbm.model(784, 16, optax.sgd(0.1)).log_prob is not None
    assert rbm.model(16, 500, optax.sgd(0.1)).log_prob is not None
    with pytest.raises(ValueError, match="must have a layer of at most 25 units to enumerate, got 26"):
        rbm.log_partition(_params(26, 30))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"hidden_size": 0}, "`hidden_size` must be at least 1, got 0"),
        ({"visible_size": 0}, "`visible_size` must be at least 1, got 0"),
        ({"num_chains": 0}, "`num_chains` must be at least 1"),
        ({"num_steps": 0}, "`num_steps` must be at least 1"),
        ({"num_sample_steps": 0}, "`num_sample_steps` must be at least 1"),
        ({"beta": 0.0}, "`beta` must be positive, got 0.0"),
        ({"weight_decay": -1.0}, "`weight_decay` must be at least 0.0"),
        ({"temperatures": (0.9, 0.5)}, "`temperatures` must start at 1 and be of persistent chains, got"),
        ({"temperatures": BETAS, "persistent": False}, "`temperatures` must start at 1 and be of persistent chains"),
    ],
)
def test_bad_arguments(kwargs: dict[str, Any], message: str) -> None:
    sizes = {"visible_size": 4, "hidden_size": 3, **kwargs}
    with pytest.raises(ValueError, match=message):
        rbm.model(optimizer=optax.sgd(0.1), **sizes)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X * 0.5, "`x` must be whole numbers in 0..1"),
        (X + 1, r"`x` must lie in \[0, 1\]"),
        (X[:, :3], r"`x` must have 4 columns, got shape \(8, 3\)"),
        (X[..., None], r"`x` must have 2 axes \(batch, visible\)"),
    ],
)
def test_bad_data(x: Any, message: str) -> None:
    model = rbm.model(4, 3, optax.sgd(0.1))
    with pytest.raises(ValueError, match=message):
        model.init(jax.random.key(0), {"x": x})
