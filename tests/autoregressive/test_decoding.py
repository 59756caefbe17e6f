"""Drawing tokens: temperature and its two ends, top-k, nucleus, EOS, and which tokens count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from stat_checks import check_counts

from jgen.autoregressive import decoding
from jgen.autoregressive.decoding import Decoding

LOGITS = jnp.log(jnp.array([0.1, 0.4, 0.2, 0.3]))
NUM = 20_000


def draw(how, logits=LOGITS, num=NUM):
    """`num` first tokens of rows with the same logits."""
    keys = jax.random.split(jax.random.key(0), num)
    noise = decoding.token_noise(keys, 0, logits.shape[-1])
    rows = jnp.broadcast_to(logits[None], noise.shape)
    return np.asarray(decoding.next_token(rows, noise, jnp.zeros(num, bool), how)[0])


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        (Decoding(), [0.1, 0.4, 0.2, 0.3]),
        (Decoding(0.5), [0.01, 0.16, 0.04, 0.09]),
        (Decoding(top_k=2), [0, 0.4, 0, 0.3]),
        (Decoding(top_p=0.6), [0, 0.4, 0, 0.3]),
        (Decoding(top_p=0.75), [0, 0.4, 0.2, 0.3]),
        (Decoding(0.5, top_p=0.75), [0, 0.16, 0, 0.09]),
        (Decoding(top_k=3, top_p=0.7), [0, 0.4, 0, 0.3]),
        (Decoding(np.inf), [1, 1, 1, 1]),
        (Decoding(np.inf, top_k=3), [0, 1, 1, 1]),
    ],
)
def test_draws_follow_the_tempered_and_restricted_law(how, expected):
    expected = np.array(expected, float)
    counts = np.bincount(draw(how), minlength=4)
    assert np.all((counts > 0) == (expected > 0))
    check_counts(counts[expected > 0], expected[expected > 0] / expected.sum())


def test_both_ends_of_the_temperature():
    assert np.all(draw(Decoding(0.0)) == 1)
    np.testing.assert_array_equal(draw(Decoding(1e-30)), draw(Decoding(0.0)))
    keys = jax.random.split(jax.random.key(0), NUM)
    noise = decoding.token_noise(keys, 0, 4)
    np.testing.assert_array_equal(draw(Decoding(np.inf), 100 * LOGITS), jnp.argmax(noise, axis=-1))


@pytest.mark.parametrize("how", [Decoding(top_k=1), Decoding(top_p=1e-6), Decoding(np.inf, top_k=1)])
def test_the_most_probable_token_is_always_kept(how):
    assert np.all(draw(how) == 1)
    assert np.all(draw(how, jnp.zeros(3)) == 0)


@pytest.mark.parametrize("how", [Decoding(top_k=4), Decoding(top_k=9), Decoding(top_p=1.0)])
def test_nothing_is_dropped_where_everything_is_allowed(how):
    np.testing.assert_array_equal(draw(how), draw(Decoding()))


@pytest.mark.parametrize("how", [Decoding(), Decoding(top_k=2), Decoding(top_p=0.5), Decoding(0.0)])
def test_extreme_logits_stay_in_range(how):
    for logits in (jnp.array([100.0, -100.0, 100.0]), jnp.array([-1e30, 1e30, 0.0])):
        drawn = draw(how, logits, 100)
        assert set(drawn) <= {int(i) for i in np.flatnonzero(logits == logits.max())}


def test_eos_is_repeated_and_ends_its_row_alone():
    noise = jnp.zeros((3, 4))
    logits = jnp.stack([LOGITS, LOGITS[::-1], LOGITS])
    token, ended = decoding.next_token(logits, noise, jnp.array([False, False, True]), Decoding(eos=2))
    np.testing.assert_array_equal(token, [1, 2, 2])
    np.testing.assert_array_equal(ended, [False, True, True])


def test_noise_belongs_to_the_key_and_the_token():
    keys = jax.random.split(jax.random.key(0), 5)
    few = decoding.token_noise(keys[:2], 3, 4)
    np.testing.assert_array_equal(few, decoding.token_noise(keys, 3, 4)[:2])
    assert not np.any(few == decoding.token_noise(keys[:2], 4, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "`temperature`"),
        ({"temperature": np.nan}, "`temperature`"),
        ({"top_k": 0}, "`top_k`"),
        ({"top_p": 0.0}, "`top_p`"),
        ({"top_p": 1.1}, "`top_p`"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**arguments)
