"""BlackJAX both ways: its NUTS as a sampler, any kernel of it in `run`, any kernel of ours in its loop."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stat_checks as stat
from cases import SAMPLERS
from sampler_checks import NUM, after, check_exchange, check_stationary, walk

from jgen.sampler import parallel, run
from jgen.samplers import adaptation, hmc, interchange, metropolis, nuts

blackjax: Any = pytest.importorskip("blackjax")
CASE = next(case for case in SAMPLERS if case.name == "mala")


def _correlated(z: Any) -> Any:
    x, y = z["x"], z["y"]
    return -0.5 * (x**2 - 1.6 * x * y / 3 + y**2 / 9) / (1 - 0.64)


@pytest.fixture(scope="module")
def tuned() -> Any:
    def build(parameters: Any) -> Any:
        return nuts.sampler(_correlated, parameters.step_size, inverse_mass=parameters.inverse_mass)

    starts = {"x": jnp.zeros(64), "y": jnp.zeros(64)}
    found = jax.jit(lambda key: adaptation.warm_up(key, build, starts, 200))(jax.random.key(0))
    return found, parallel(build(found.parameters))


def test_nuts_tuned_by_our_warm_up_has_the_right_moments(tuned: Any) -> None:
    found, kernel = tuned
    assert not bool(found.status.degenerate)
    walk = jax.jit(lambda key: run(key, kernel, found.state, 100, keep=lambda s, i: (s.position, i))[1])
    draws, info = walk(jax.random.key(1))
    x, y = (np.asarray(draws[name]).T for name in "xy")
    stat.check_mean(np.stack([x, y / 3, x**2, y**2 / 9, x * y / 3], 1).mean(2), [0, 0, 1, 1, 0.8], sees=0.5)
    assert not bool(jnp.any(info.diverging))
    assert 0.65 < float(info.accept_prob.mean()) < 0.95
    assert bool(jnp.all((info.num_leapfrog >= 2 ** (info.depth - 1)) & (info.num_leapfrog < 2**info.depth)))
    np.testing.assert_allclose(found.parameters.inverse_mass["y"], 9.0, rtol=0.3)


def test_masses_are_those_of_blackjax() -> None:
    """Our kernel is its own: the same key, the same step."""
    mass = {"x": 0.5, "y": 4.0}
    ours = nuts.sampler(_correlated, 0.3, inverse_mass=mass)
    theirs = blackjax.nuts(_correlated, 0.3, jnp.asarray([0.5, 4.0]))
    position = {"x": jnp.asarray(0.3), "y": jnp.asarray(-1.0)}
    state, info = ours.step(jax.random.key(4), ours.init(jax.random.key(0), position))
    expected, more = theirs.step(jax.random.key(4), theirs.init(position))
    jax.tree.map(np.testing.assert_array_equal, tuple(state), tuple(expected))
    assert int(info.num_leapfrog) == int(more.num_integration_steps)


def test_a_kernel_of_blackjax_runs_as_a_sampler() -> None:
    kernel = interchange.from_blackjax(blackjax.barker(CASE.log_density, 1.0))
    starts, kept = walk(CASE, kernel)
    for step in (1, 10):
        check_exchange(CASE, starts, after(kept, step))
    check_stationary(CASE, starts, after(kept, 10))


@pytest.mark.parametrize("name", ["metropolis", "hmc"])
def test_a_sampler_runs_in_the_loop_of_blackjax(name: str) -> None:
    log_density = CASE.log_density
    kernel = {
        "metropolis": metropolis.sampler(log_density, metropolis.random_walk(1.5)),
        "hmc": hmc.sampler(log_density, 0.7, 3),
    }[name]
    algorithm = interchange.to_blackjax(kernel)

    def chain(key: Any, position: Any) -> Any:
        loop = blackjax.util.run_inference_algorithm
        _, kept = loop(key, algorithm, 10, initial_position=position, transform=lambda state, info: state.position)
        return kept

    starts = CASE.draw(jax.random.key(11), NUM)
    kept = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(12), NUM), starts)
    check_stationary(CASE, starts, after(kept, 10))
    check_exchange(CASE, starts, after(kept, 10))


def test_what_is_no_algorithm() -> None:
    with pytest.raises(ValueError, match="`kernel` must have functions `init` and `step`, got int"):
        interchange.from_blackjax(3)
    with pytest.raises(ValueError, match="`rng_key` must be a key, got None"):
        interchange.to_blackjax(hmc.sampler(CASE.log_density, 0.7, 3)).init(jnp.zeros(()))
    with pytest.raises(ValueError, match="`max_depth` must be at least 1, got 0"):
        nuts.sampler(CASE.log_density, 0.5, max_depth=0)
    with pytest.raises(ValueError, match="`step_size` must be positive"):
        nuts.sampler(CASE.log_density, -1.0)


def test_without_blackjax_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"BlackJAX is not installed; `pip install jgen\[nuts\]` installs it"):
        nuts.sampler(CASE.log_density, 0.5)
