"""µ-law: the bins, the round trip, the formula of G.711 against its inverse."""

import numpy as np
import pytest

from jgen.math import companding


@pytest.mark.parametrize("levels", [2, 5, 256, 1_000])
def test_round_trips_stay_within_half_a_bin(levels):
    tokens = np.arange(levels)
    values = companding.decode(tokens, levels)
    np.testing.assert_array_equal(companding.encode(values, levels), tokens)
    assert np.all(np.diff(values) > 0)
    x = np.concatenate([np.linspace(-1, 1, 4_001), np.geomspace(1e-6, 1, 100)]).astype(np.float32)
    back = companding.decode(companding.encode(x, levels), levels)
    error = np.abs(companding.compress(x, levels) - companding.compress(back, levels))
    assert error.max() <= (1 + 1e-4) / levels
    assert error.max() > 0.5 / levels


def test_it_is_the_formula():
    x = np.array([-1.0, -0.1, 0.0, 1e-3, 0.5, 1.0])
    expected = np.sign(x) * np.log(1 + 255 * np.abs(x)) / np.log(256)
    np.testing.assert_allclose(companding.compress(x.astype(np.float32)), expected, atol=1e-6)
    np.testing.assert_array_equal(companding.encode(x), np.minimum((expected + 1) * 128, 255).astype(int))


def test_rounding_to_the_bins_edges_is_caught():
    """Decoding at a bin's lower edge is up to a whole bin off."""
    x = np.linspace(-1, 1, 1_001).astype(np.float32)
    edges = np.asarray(companding.encode(x)) / 128 - 1
    assert np.abs(companding.compress(x) - edges).max() > 1.5 / 256


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (companding.encode, (np.array([1.5]),), "`x` must lie in"),
        (companding.encode, (np.array([0.5]), 1), "`levels`"),
        (companding.decode, (np.array([256]),), "`tokens`"),
    ],
)
def test_bad_input_is_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)
