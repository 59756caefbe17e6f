"""What the experiments with binary units share: rows, splits, and log Z asked for once."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.energy import machines
from jgen.data import load
from jgen.samplers import annealed_importance


def test_rows_are_on_from_the_threshold() -> None:
    rows = machines.load_rows(machines.Config(threshold=8), 0)
    x = np.asarray(load("digits").splits["test"]["x"]).reshape(300, 64)
    np.testing.assert_array_equal(rows.all("test"), x >= 8)
    assert (rows.size, rows.shape, rows.columns) == (64, (8, 8, 1), 8)
    assert "static binarization at level 8" in rows.protocol
    np.testing.assert_array_equal(rows.images(rows.all("test"))[3, :, :, 0], (x >= 8)[3].reshape(8, 8))


def test_splits_may_be_cut_anew() -> None:
    rows = machines.load_rows(machines.Config(num_train=1_500), 0)
    whole = machines.load_rows(machines.Config(), 0)
    assert len(rows.all("train")) == 1_500
    np.testing.assert_array_equal(rows.all("test"), whole.all("test")[3:])  # 1,200 + 297 + 3 come before them
    np.testing.assert_array_equal(rows.all("valid"), rows.all("train")[-297:])
    assert "1500 rows to train and 297 to test" in rows.protocol


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"threshold": 17}, r"`threshold` must be a level in 1..levels-1 of whole-number data, got 17"),
        ({"threshold": 0}, r"`threshold` must be a level in 1..levels-1"),
        ({"data": "table:iris"}, r"got 8 for 'table:iris' with levels=None"),
        ({"num_train": 1_797}, r"`num_train` must lie in 1..1796, got 1797"),
    ],
)
def test_knobs_that_are_refused(knobs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        machines.load_rows(machines.Config(**knobs), 0)


def test_log_z_is_annealed_once_for_a_state_and_again_for_another() -> None:
    asked = []

    def particles(key: Any, state: Any) -> Any:
        asked.append(state)
        return jnp.zeros(3)

    def walk(key: Any, state: Any, drawn: Any, betas: Any) -> Any:
        gap = 8.0 / (len(betas) - 1)
        side = jnp.asarray(state["log_z"])
        return annealed_importance.Sandwich(side - gap, side, jnp.asarray(gap), jnp.zeros(2), jnp.full(2, 3.0))

    config = machines.AnnealedConfig(num_temperatures=29, tolerance=0.1)
    found = machines.annealed(config, 0, particles, walk)
    one, other = {"log_z": 2.0}, {"log_z": 3.0}
    assert found(one) is found(one)
    assert found(one).counts == (29, 58, 116)
    assert float(found(other).sandwich.reverse) == 3.0
    assert [state["log_z"] for state in asked] == [2.0, 3.0]
    table = machines.sandwiched("nll", 10.0, found(other), config, "digits")
    np.testing.assert_allclose(table["nll_forward"].value, 13.0 - 8.0 / 116, rtol=1e-6)
    assert table["nll_reverse"].value == 13.0
    assert "AIS with 116 temperatures and 100 chains" in table["nll_forward"].protocol
