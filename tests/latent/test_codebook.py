"""The quantizer: nearest codes, the straight-through rule, moving averages against k-means, revival, shards."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans

from jgen.latent import codebook
from jgen.latent.codebook import Quantizer

RNG = np.random.default_rng(0)


def vectors(*shape, scale=1.0, shift=0.0):
    return jnp.asarray(RNG.normal(shift, scale, shape), jnp.float32)


def blobs(num=60):
    """Four clusters in the plane, and the indices of one point of each."""
    centers = np.array([[4.0, 4.0], [-4.0, 4.0], [4.0, -4.0], [-4.0, -4.0]])
    points = centers[np.arange(4 * num) % 4] + RNG.normal(0, 0.5, (4 * num, 2))
    return jnp.asarray(points, jnp.float32)


def brute(z, codes):
    distances = np.sum((np.asarray(z, np.float64)[:, None] - np.asarray(codes, np.float64)[None]) ** 2, axis=-1)
    return distances.argmin(axis=1)


def test_nearest_is_that_of_brute_force_however_far_from_zero():
    for shift, scale in ((0.0, 1.0), (20.0, 1.0), (1000.0, 0.1)):
        codes, z = vectors(32, 8, shift=shift, scale=scale), vectors(500, 8, shift=shift, scale=scale)
        agree = np.mean(np.asarray(codebook.nearest(z, codes)) == brute(z, codes))
        assert agree > 0.999, shift
        plain = np.asarray(jnp.argmin(jnp.sum(codes**2, axis=-1)[None] - 2 * z @ codes.T, axis=-1))
        assert (np.mean(plain == brute(z, codes)) < 0.9) == (shift == 1000.0), "the check sees what is not centred"


def test_nearest_keeps_the_map_and_takes_the_first_of_equals():
    codes = vectors(5, 3)
    k = jnp.array([[[0, 1], [2, 3]], [[4, 0], [1, 2]]])
    np.testing.assert_array_equal(codebook.nearest(codes[k], codes), k)
    np.testing.assert_array_equal(codebook.nearest(codes[k], jnp.concatenate([codes, codes])), k)


def test_straight_through_is_the_code_in_value_and_the_vector_in_gradient():
    z, e, weight = vectors(400, 16), vectors(400, 16), vectors(400, 16)
    value, grads = jax.value_and_grad(lambda z, e: jnp.sum(weight * codebook.straight_through(z, e)), (0, 1))(z, e)
    np.testing.assert_array_equal(codebook.straight_through(z, e), e)
    np.testing.assert_array_equal(grads[0], weight)
    np.testing.assert_array_equal(grads[1], 0.0)
    np.testing.assert_allclose(value, jnp.sum(weight * e), rtol=1e-6)
    rounded = z + jax.lax.stop_gradient(e - z)
    assert not np.array_equal(rounded, e), "the usual form rounds, which is why it is not used"


def advance(book, z, quantizer, key=0, axis_name=None):
    k = codebook.nearest(z, book.codes)
    return codebook.advance(jax.random.key(key), book, z, k, quantizer, axis_name)


def test_moving_averages_on_fixed_data_reach_the_centroids_of_k_means():
    points = blobs()
    first = points[:4] + 0.3
    quantizer = Quantizer(4, decay=0.9, revive_below=0.0)
    step = jax.jit(lambda book: advance(book, points, quantizer)[0])
    book = codebook.start(first)
    for _ in range(250):
        book = step(book)
    expected = KMeans(4, init=np.asarray(first), n_init=1, tol=0.0).fit(np.asarray(points)).cluster_centers_
    np.testing.assert_allclose(book.codes, expected, atol=1e-5)
    np.testing.assert_allclose(book.counts, 60.0, rtol=1e-5)


def test_first_step_is_the_average_with_the_code_itself_counted_once():
    # Counts from 0 would give the batch's mean at once, and with sums at the codes something far outside.
    z = vectors(6, 2, scale=0.1)
    book, _ = advance(codebook.start(jnp.array([[0.5, 0.5], [9.0, 9.0]])), z, Quantizer(2, decay=0.9))
    expected = (0.9 * np.array([0.5, 0.5]) + 0.1 * np.asarray(z).sum(0)) / (0.9 + 0.1 * 6)
    np.testing.assert_allclose(book.codes[0], expected, rtol=1e-4)


def far(num_steps, **keywords):
    """A codebook whose last code is far from all points, after steps on them."""
    points = blobs()
    quantizer = Quantizer(5, **{"decay": 0.5, "revive_below": 0.0, **keywords})
    start = codebook.start(jnp.concatenate([points[:4], jnp.full((1, 2), 900.0)]))
    step, book, revived = jax.jit(lambda book, key: advance(book, points, quantizer, key)), start, []
    for i in range(num_steps):
        book, metrics = step(book, i)
        revived.append(float(metrics["revived"]))
    return points, book, revived


def test_an_unused_code_stays_put_for_ever():
    _, book, revived = far(400)
    np.testing.assert_array_equal(book.codes[4], 900.0)
    assert np.all(np.isfinite(book.codes))
    assert sum(revived) == 0.0


def test_counts_from_zero_are_caught(monkeypatch):
    right = codebook.start
    monkeypatch.setattr(codebook, "start", lambda codes: right(codes)._replace(counts=jnp.zeros(len(codes))))
    with pytest.raises(AssertionError):
        test_first_step_is_the_average_with_the_code_itself_counted_once()


def test_a_dead_code_moves_to_a_vector_of_the_batch_after_its_cool_down():
    points, book, revived = far(9, revive_below=0.05, cool_down=8)
    assert revived == [0.0] * 8 + [1.0]
    assert np.any(np.all(np.asarray(points) == np.asarray(book.codes[4]), axis=1))
    assert float(book.counts[4]) == 1.0
    np.testing.assert_array_equal(book.sums[4], book.codes[4])
    np.testing.assert_array_equal(book.ages, [9, 9, 9, 9, 0])


def test_a_revived_code_is_left_alone_until_it_cooled_down():
    # Its count of 1 is below the threshold at once, where codes are used often.
    book = codebook.start(vectors(3, 2))._replace(counts=jnp.array([60.0, 60.0, 1.0]))
    for age, expected in ((0, 0.0), (5, 0.0), (6, 1.0)):
        old = book._replace(ages=jnp.full(3, age))
        _, revived = codebook.revive(jax.random.key(0), old, vectors(9, 2), Quantizer(3, revive_below=0.1, cool_down=6))
        assert float(revived) == expected


def test_codes_that_are_revived_together_move_to_different_vectors():
    z = vectors(64, 3)
    book = codebook.start(jnp.full((16, 3), 50.0) + jnp.arange(16.0)[:, None])._replace(ages=jnp.full(16, 5))
    book, revived = codebook.revive(
        jax.random.key(0),
        book._replace(counts=jnp.zeros(16).at[0].set(1.0)),
        z,
        Quantizer(16, cool_down=5, revive_below=0.1),
    )
    assert float(revived) == 15.0
    assert len(np.unique(np.asarray(book.codes), axis=0)) == 16


def test_codes_start_at_different_vectors_of_the_data():
    z = vectors(4, 5, 3)
    rows = {tuple(row) for row in np.asarray(z).reshape(-1, 3)}
    codes = np.asarray(codebook.from_data(jax.random.key(0), z, 20))
    assert {tuple(row) for row in codes} == rows
    assert codebook.from_data(jax.random.key(0), z, 50).shape == (50, 3)


def shards(own_keys=False):
    """(the whole batch's codebook and metrics, those of 8 shards) after a step with a revival."""
    z, quantizer = vectors(64, 4), Quantizer(12, revive_below=0.5, cool_down=0)
    book = codebook.start(jnp.concatenate([z[:8], jnp.full((4, 4), 90.0)]))._replace(ages=jnp.full(12, 9))
    book = book._replace(counts=jnp.ones(12).at[8:].set(1e-3))
    whole = advance(book, z, quantizer)

    def one(part, i):
        return advance(book, part, quantizer, i if own_keys else 0, "shards")

    parts = jax.vmap(one, axis_name="shards")(z.reshape(8, 8, 4), jnp.arange(8))
    return whole, parts


def check_shards(whole, parts):
    for expected, found in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        for i in range(8):
            np.testing.assert_allclose(found[i], expected, rtol=1e-5, atol=1e-5)


def test_eight_shards_do_what_one_does():
    whole, parts = shards()
    assert float(whole[1]["revived"]) >= 4.0
    check_shards(whole, parts)


def test_a_revival_key_for_each_shard_is_caught():
    with pytest.raises(AssertionError):
        check_shards(*shards(own_keys=True))


def test_means_in_place_of_sums_over_shards_are_caught(monkeypatch):
    right = jax.lax.psum
    monkeypatch.setattr(
        jax.lax, "psum", lambda x, axis: jax.lax.pmean(x, axis) if isinstance(x, tuple) else right(x, axis)
    )
    with pytest.raises(AssertionError):
        check_shards(*shards())


def test_perplexity_and_share_of_codes():
    np.testing.assert_allclose(codebook.perplexity(jnp.full(7, 3.0)), 7.0, rtol=1e-6)
    np.testing.assert_allclose(codebook.perplexity(jnp.array([0.0, 5.0, 0.0])), 1.0, rtol=1e-6)
    counts = np.array([1.0, 2.0, 5.0, 0.0])
    p = counts[:3] / 8
    np.testing.assert_allclose(codebook.perplexity(jnp.asarray(counts)), np.exp(-np.sum(p * np.log(p))), rtol=1e-6)
    assert float(codebook.share_used(jnp.asarray(counts))) == 0.75
    np.testing.assert_array_equal(codebook.usage(jnp.array([[0, 2], [2, 2]]), 4), [1, 0, 3, 0])
    np.testing.assert_allclose(jnp.sum(jnp.exp(codebook.log_frequencies(jnp.asarray(counts)))), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_codes": 1}, "`num_codes` must be at least 2"),
        ({"learning": "ema"}, "`learning` must be one of 'average', 'gradient'"),
        ({"commitment": -1.0}, "`commitment` must be at least 0"),
        ({"decay": 1.0}, r"`decay` must be in \[0, 1\)"),
        ({"revive_below": -0.1}, r"`revive_below` must be in \[0, 1\)"),
        ({"cool_down": -1}, "`cool_down` must be at least 0"),
    ],
)
def test_bad_settings_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        Quantizer(**{"num_codes": 4, **keywords})
