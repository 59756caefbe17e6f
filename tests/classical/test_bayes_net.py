"""Bayes nets: the burglary's textbook answers, exact and sampled inference beside enumeration, learning, refusals."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from stat_checks import check_counts, check_mean

from jgen.classical import bayes_inference, bayes_net, tabular
from jgen.math import discrete
from jgen.sampler import run
from jgen.samplers import gibbs

# Russell and Norvig, "Artificial Intelligence", figure 14.2; columns in an order that is not the graph's.
ALARM = {"john": ("alarm",), "mary": ("alarm",), "alarm": ("burglary", "earthquake"), "burglary": (), "earthquake": ()}
BURGLARY = bayes_net.graph(ALARM)
CALLS = {"john": 1, "mary": 1}


def table(*ones):
    return jnp.array([[1 - p, p] for p in ones])


TABLES = (table(0.05, 0.9), table(0.01, 0.7), table(0.001, 0.29, 0.94, 0.95), table(0.001), table(0.002))
MIXED = bayes_net.graph(
    {"a": (), "b": ("a",), "c": ("a", "b"), "d": ("b",), "e": ("c", "d")}, {"a": 3, "b": 2, "c": 4, "d": 3, "e": 2}
)


@functools.cache
def net(kind):
    """(conditionals, params) of a net with tables or networks of random parameters."""
    if kind == "burglary":
        return bayes_net.tables(BURGLARY), TABLES
    if kind == "tables":
        keys = [jax.random.fold_in(jax.random.key(0), i) for i in range(5)]
        sizes = [(MIXED.rows(i), size) for i, size in enumerate(MIXED.levels)]
        return bayes_net.tables(MIXED), tuple(
            jax.random.dirichlet(key, jnp.ones(size), (rows,)) for key, (rows, size) in zip(keys, sizes, strict=True)
        )
    model = bayes_net.neural_model(MIXED, optax.adam(1e-2), hidden_sizes=(4,))
    params = jax.jit(model.init)(jax.random.key(1), {"x": jnp.zeros((1, 5))}).params
    noise = [jax.tree.map(lambda w: w + jax.random.normal(jax.random.key(2), w.shape), p) for p in params]
    return bayes_net.neural(MIXED, (4,)), tuple(noise)


@functools.cache
def chances(kind):
    """p of every point by hand: a product of conditionals looked up one by one, in NumPy."""
    conditionals, params = net(kind)
    graph = conditionals.graph
    points = discrete.points(graph.levels)
    nums = range(len(graph.names))
    rows = jax.jit(lambda x: [jnp.exp(conditionals.log_probs(params, i, x)) for i in nums])(jnp.asarray(points))
    p = np.ones(len(points))
    for i, row in enumerate(np.asarray(row, np.float64) for row in rows):
        np.testing.assert_allclose(row.sum(axis=1), 1.0, rtol=1e-5)
        p *= row[np.arange(len(points)), points[:, i]]
    return points, p


def answers(kind, *questions):
    """[(by enumeration, by elimination) of each (query, evidence)], compiled together."""
    conditionals, params = net(kind)
    methods = (bayes_inference.by_enumeration, bayes_inference.by_elimination)
    return jax.jit(lambda params: [[m(conditionals, params, *question) for m in methods] for question in questions])(
        params
    )


def test_burglary_given_both_calls_is_the_textbooks():
    for probs, log_evidence, _ in answers("burglary", (("burglary",), CALLS))[0]:
        assert probs[1] == pytest.approx(0.284172, abs=1e-6)
        assert math.exp(log_evidence) == pytest.approx(0.00208410, abs=1e-8)


@pytest.mark.parametrize("kind", ["burglary", "tables", "neural"])
def test_masses_sum_to_one_and_are_the_product_of_conditionals(kind):
    points, p = chances(kind)
    assert p.sum() == pytest.approx(1.0, abs=1e-5)
    conditionals, params = net(kind)
    found = jax.jit(lambda params, x: jnp.exp(bayes_net.log_prob(conditionals, params, x)))(params, jnp.asarray(points))
    np.testing.assert_allclose(found, p, rtol=1e-4, atol=1e-7)


QUESTIONS = (
    (("a",), {}),
    (("c", "a"), {"e": 1}),
    (("d",), {"a": 2, "e": 0}),
    (("e",), {"a": 0, "b": 1, "c": 3, "d": 2}),
)


@pytest.mark.parametrize("kind", ["tables", "neural"])
def test_elimination_and_enumeration_are_conditional_frequencies(kind):
    points, p = chances(kind)
    for (query, evidence), found in zip(QUESTIONS, answers(kind, *QUESTIONS), strict=True):
        own = {MIXED.names.index(name): value for name, value in evidence.items()}
        has = np.all([np.ones(len(p), bool), *(points[:, i] == value for i, value in own.items())], axis=0)
        columns = [MIXED.names.index(name) for name in query]
        exact = np.zeros([MIXED.levels[i] for i in columns])
        np.add.at(exact, tuple(points[has][:, columns].T), p[has])
        for answer in found:
            np.testing.assert_allclose(answer.probs, exact / exact.sum(), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(answer.log_evidence, np.log(p[has].sum()), atol=1e-4)


def test_elimination_reaches_where_enumeration_cannot():
    chain = bayes_net.graph({f"x{i}": (f"x{i - 1}",) if i else () for i in range(60)})
    params = (table(0.5), *(table(0.1, 0.9) for _ in range(59)))
    ask = functools.partial(bayes_inference.by_elimination, bayes_net.tables(chain), query=("x59",), evidence={"x0": 1})
    probs, log_evidence, _ = jax.jit(ask)(params)
    assert probs[1] == pytest.approx(0.5 + 0.5 * 0.8**59, abs=1e-6)
    assert log_evidence == pytest.approx(math.log(0.5), abs=1e-4)
    with pytest.raises(ValueError, match=r"`net` must have at most 2\^22 points beside the evidence"):
        bayes_inference.by_enumeration(bayes_net.tables(chain), params, ("x59",))


def test_sixty_rare_findings_do_not_underflow():
    star = bayes_net.graph({"cause": (), **{f"x{i}": ("cause",) for i in range(60)}})
    params = (table(0.5), *(table(1e-3, 2e-3) for _ in range(60)))
    seen = {f"x{i}": 1 for i in range(60)}
    ask = functools.partial(bayes_inference.by_elimination, bayes_net.tables(star), query=("cause",), evidence=seen)
    found = jax.jit(ask)(params)
    assert jnp.all(jnp.isfinite(found.probs))
    expected = np.logaddexp(60 * np.log(1e-3), 60 * np.log(2e-3)) + np.log(0.5)
    np.testing.assert_allclose(found.log_evidence, expected, rtol=1e-5)


@pytest.fixture(scope="module", name="posterior")
def _posterior():
    """p(a, c | e = 1) of the mixed net by enumeration."""
    return np.asarray(answers("tables", (("a", "c"), {"e": 1}))[0][0].probs, np.float64)


def sampled(method, num):
    conditionals, params = net("tables")
    answer = functools.partial(method, conditionals, params=params, query=("a", "c"), evidence={"e": 1}, num=num)
    return jax.jit(jax.vmap(lambda key: answer(key=key)))(jax.random.split(jax.random.key(3), 64))


@pytest.mark.parametrize("method", [bayes_inference.rejection, bayes_inference.likelihood_weighting])
def test_sampled_inference_agrees_with_enumeration(method, posterior):
    found = sampled(method, 400)
    # Ratios of means: their bias is of order 1/n, and is below a tenth of a standard error here.
    check_mean(np.asarray(found.probs).reshape(64, -1), posterior.ravel(), sees=0.08)
    points, p = chances("tables")
    check_mean(np.exp(found.log_evidence), p[points[:, 4] == 1].sum(), sees=0.1)
    assert np.all((found.support > 1) & (found.support <= 400))


def test_weighting_uses_more_of_its_draws_than_rejection_keeps():
    kept, effective = (
        sampled(m, 400).support.mean() for m in (bayes_inference.rejection, bayes_inference.likelihood_weighting)
    )
    assert effective > kept


def test_gibbs_keeps_the_posterior(posterior):
    conditionals, params = net("tables")
    kernel = gibbs.sampler(bayes_inference.gibbs_blocks(conditionals, params, {"e": 1}))
    points, p = chances("tables")
    has = points[:, 4] == 1
    starts = jnp.asarray(points[has])[jax.random.categorical(jax.random.key(4), jnp.log(p[has]), shape=(20_000,))]

    def chain(key, start):
        state, _ = run(key, kernel, kernel.init(key, start), 3)
        return state.position

    ends = np.asarray(jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(5), 20_000), starts))
    assert np.mean(ends != np.asarray(starts)) > 0.1
    np.testing.assert_array_equal(ends[:, 4], 1)
    check_counts(np.bincount(ends[:, 0] * 4 + ends[:, 2], minlength=12), posterior.ravel())
    code = np.asarray(discrete.row(jnp.asarray(ends), MIXED.levels))
    check_counts(np.bincount(code, minlength=len(p)), np.where(has, p, 0.0))


def test_blanket_is_the_conditional_of_the_joint():
    points, p = chances("tables")
    for i, x in itertools.product(range(5), (points[10], points[77])):
        same = np.all(np.delete(points, i, 1) == np.delete(x, i), axis=1)
        own = jax.jit(functools.partial(bayes_inference.blanket, net("tables")[0], i=i))
        found = jax.nn.softmax(own(net("tables")[1], position=jnp.asarray(x)))
        np.testing.assert_allclose(found, p[same] / p[same].sum(), rtol=1e-4)


@pytest.mark.parametrize("kind", ["tables", "neural"])
def test_ancestral_draws_follow_the_mass(kind):
    conditionals, params = net(kind)
    x, log_weight = jax.jit(lambda key: bayes_net.sample(conditionals, key, params, 20_000))(jax.random.key(6))
    _, p = chances(kind)
    check_counts(np.bincount(np.asarray(discrete.row(x, MIXED.levels)), minlength=len(p)), p)
    np.testing.assert_array_equal(log_weight, 0.0)


def drawn(conditionals, params, num):
    return jax.jit(lambda key: bayes_net.sample(conditionals, key, params, num)[0])(jax.random.key(7))


def test_counting_gives_the_frequencies_and_a_full_graph_is_the_full_table():
    x = drawn(*net("tables"), 500)
    model = bayes_net.model(MIXED, smoothing=0.5)
    state, _ = jax.jit(model.update)(jax.random.key(0), model.init(jax.random.key(0), {"x": x}), {"x": x})
    seen = np.asarray(x)[(x[:, 0] == 2) & (x[:, 1] == 1)]
    expected = (np.bincount(seen[:, 2], minlength=4) + 0.5) / (len(seen) + 2.0)
    np.testing.assert_allclose(state.params[2][2 * 2 + 1], expected, rtol=1e-5)
    full = bayes_net.graph(
        {name: MIXED.names[:i] for i, name in enumerate(MIXED.names)}, dict(zip(MIXED.names, MIXED.levels, strict=True))
    )
    both = jax.jit(lambda x: (bayes_net.count(full, x), tabular.count(x, MIXED.levels)))(x)
    jax.tree.map(np.testing.assert_array_equal, *both)


def test_networks_learn_what_counting_learns():
    likelier = (table(0.2, 0.9), table(0.3, 0.7), table(0.1, 0.5, 0.6, 0.9), table(0.4), table(0.3))
    x = drawn(bayes_net.tables(BURGLARY), likelier, 2_000)
    counted = bayes_net.model(BURGLARY, smoothing=0.0)
    tables, _ = jax.jit(counted.update)(jax.random.key(0), counted.init(jax.random.key(0), {"x": x}), {"x": x})
    model = bayes_net.neural_model(BURGLARY, optax.adam(0.02), hidden_sizes=(4,))
    state = jax.jit(model.init)(jax.random.key(9), {"x": x})

    def learn(state):
        return jax.lax.fori_loop(0, 600, lambda _, s: model.update(jax.random.key(0), s, {"x": x})[0], state)

    points = {"x": jnp.asarray(discrete.points((2,) * 5))}
    found = jax.jit(lambda state: model.log_prob(learn(state), points))(state)
    np.testing.assert_allclose(np.exp(found), np.exp(counted.log_prob(tables, points)), atol=2e-3)


def test_impossible_evidence_is_not_hidden():
    graph = bayes_net.graph({"a": (), "b": ("a",)})
    conditionals, params = bayes_net.tables(graph), (table(0.5), table(0.0, 0.0))
    question = (("a",), {"b": 1})

    @jax.jit
    def ask(key, params):
        exact = (bayes_inference.by_enumeration, bayes_inference.by_elimination)
        sampled = bayes_inference.rejection(conditionals, key, params, *question, num=50)
        return [method(conditionals, params, *question) for method in exact], sampled

    exact, sampled = ask(jax.random.key(0), params)
    for found in (*exact, sampled):
        assert found.log_evidence == -np.inf
        assert np.all(np.isnan(found.probs))
    assert sampled.support == 0


def test_a_graph_with_a_cycle_is_refused():
    with pytest.raises(ValueError, match=r"`parents` must have no cycle, got .*a.* -> .*b"):
        bayes_net.graph({"a": ("c",), "b": ("a",), "c": ("b",)})
    with pytest.raises(ValueError, match="`parents` must have no cycle, got a -> a"):
        bayes_net.graph({"a": ("a",)})


@pytest.mark.parametrize(
    ("parents", "levels", "message"),
    [
        ({}, 2, "`parents` must be at least 1"),
        ({"a": ("b",)}, 2, "`parents` of 'a' must be among"),
        ({"a": (), "b": ("a", "a")}, 2, "`parents` of 'b' must differ"),
        ({"a": ()}, 1, "`levels` must be at least 2"),
    ],
)
def test_other_graphs_that_are_none_are_refused(parents, levels, message):
    with pytest.raises(ValueError, match=message):
        bayes_net.graph(parents, levels)


def test_bad_questions_and_data_are_refused():
    with pytest.raises(ValueError, match="`name` must be one of 'john', 'mary'"):
        bayes_inference.by_elimination(*net("burglary"), ("butler",), CALLS)
    with pytest.raises(ValueError, match="`query` must be different variables without evidence"):
        bayes_inference.by_elimination(*net("burglary"), ("john",), CALLS)
    with pytest.raises(ValueError, match=r"`john` must lie in \[0, 1\]"):
        bayes_inference.by_enumeration(*net("burglary"), ("burglary",), {"john": 2})
    with pytest.raises(ValueError, match="`num` must be at least 1"):
        bayes_inference.rejection(net("burglary")[0], jax.random.key(0), TABLES, ("burglary",), CALLS, num=0)
    with pytest.raises(ValueError, match="`x` must have 5 columns"):
        bayes_net.model(BURGLARY).init(jax.random.key(0), {"x": jnp.zeros((3, 4))})
    with pytest.raises(ValueError, match="`smoothing` must be at least 0"):
        bayes_net.model(BURGLARY, smoothing=-1.0)
    big = bayes_net.graph({"y": tuple(f"x{i}" for i in range(26)), **{f"x{i}": () for i in range(26)}})
    with pytest.raises(ValueError, match=r"`graph` must have tables of at most 2\^26 entries"):
        bayes_net.model(big)


def test_weights_that_forget_the_evidence_are_caught(monkeypatch, posterior):
    draw = bayes_net.sample

    def forgetful(*arguments, **keywords):
        x, log_weight = draw(*arguments, **keywords)
        return x, 0.0 * log_weight

    monkeypatch.setattr(bayes_net, "sample", forgetful)
    with pytest.raises(AssertionError):
        check_mean(
            np.asarray(sampled(bayes_inference.likelihood_weighting, 400).probs).reshape(64, -1), posterior.ravel()
        )


def test_a_blanket_without_children_is_caught(monkeypatch, posterior):
    monkeypatch.setattr(bayes_net.Graph, "children", lambda graph, i: ())
    with pytest.raises(AssertionError):
        test_gibbs_keeps_the_posterior(posterior)
