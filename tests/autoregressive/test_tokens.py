"""Which tokens count, and what a network reads to predict them."""

import jax.numpy as jnp
import numpy as np
import pytest

from jgen.autoregressive.tokens import counted, shifted, tokens_of


def test_counted_tokens():
    tokens = jnp.array([[2, 2, 2], [0, 2, 1], [0, 1, 0]])
    np.testing.assert_array_equal(counted(tokens, 2), [[1, 0, 0], [1, 1, 0], [1, 1, 1]])
    np.testing.assert_array_equal(counted(tokens, None), np.ones((3, 3)))


def test_the_network_reads_the_token_before_each():
    tokens = jnp.array([[0, 1, 2], [2, 2, 0]], jnp.int32)
    np.testing.assert_array_equal(shifted(tokens, None, 3), [[3, 0, 1], [3, 2, 2]])
    np.testing.assert_array_equal(shifted(tokens, jnp.array([1, 3]), 3), [[1, 0, 1], [3, 2, 2]])
    assert shifted(tokens[:, :1], None, 3).shape == (2, 1)


@pytest.mark.parametrize("tokens", [jnp.full((1, 2), 3), jnp.full((1, 2), -1), jnp.zeros(2, jnp.int32)])
def test_tokens_outside_the_vocabulary_are_refused(tokens):
    with pytest.raises(ValueError, match="`tokens`"):
        tokens_of({"tokens": tokens}, 3)
