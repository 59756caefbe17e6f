"""RBM 784×500, float32: block Gibbs for 100 chains, and an epoch of PCD-1 beside scikit-learn's BernoulliRBM.

    python -m experiments.benchmarks.rbm [--repeats N] [--num-examples N]

Both learn from the same random bits with batches of 100, one persistent chain per example of a batch, plain gradient
steps; the work of an update is the same. scikit-learn runs with all BLAS threads and with one, since on a busy machine
threads that wait for one another cost it a factor of ten; the ratios are to the faster of the two.

Measured (two idle CPU cores, JAX 0.10.2, 7 turns): an epoch of 5,000 examples takes scikit-learn 183 ms, jgen 104 ms
update by update (ratio 1.74) and 89 ms as one program (2.05); in a second run 1.97 and 2.10. Gibbs sweeps: 1.51.
"""

import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sklearn.neural_network
import sklearn.utils
import threadpoolctl
import tyro

from experiments.benchmarks import timing
from jgen import run
from jgen.energy import rbm


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes and repeats."""

    repeats: int = 3
    num_visible: int = 784
    num_hidden: int = 500
    batch_size: int = 100
    num_examples: int = 5_000
    """Of an epoch; BernoulliRBM is given the same."""
    num_sweeps: int = 100


def main(options: Options) -> None:
    """Prints both tables."""
    shape = (options.num_examples, options.num_visible)
    x = np.random.default_rng(0).binomial(1, 0.15, shape).astype(np.float32)
    _gibbs(options, x)
    _epoch(options, x)


def _gibbs(options: Options, x: np.ndarray) -> None:
    params = rbm.init_params(jax.random.key(0), jnp.asarray(x[:1000]), options.num_hidden)
    start = jnp.asarray(x[: options.batch_size])
    sweep = jax.jit(lambda key, v: run(key, rbm.gibbs(params), rbm.GibbsState(v), options.num_sweeps)[0].position)
    peer = _peer(options)
    weights, hidden_bias = np.asarray(params.weights), np.asarray(params.hidden_bias)
    peer.components_, peer.intercept_hidden_ = np.ascontiguousarray(weights.T), hidden_bias
    peer.intercept_visible_ = np.asarray(params.visible_bias)
    peer.random_state_ = sklearn.utils.check_random_state(0)

    def walk() -> Any:
        v = x[: options.batch_size]
        for _ in range(options.num_sweeps):
            v = peer.gibbs(v).astype(np.float32)
        return v

    cases = {"jgen": timing.clock(lambda: sweep(jax.random.key(1), start)), **_peers(walk)}
    _table(f"Gibbs sweeps of {options.batch_size} chains", "sweeps/s", options.num_sweeps, cases, options)


def _epoch(options: Options, x: np.ndarray) -> None:
    model = rbm.model(
        options.num_visible, options.num_hidden, optax.sgd(0.01), num_chains=options.batch_size, num_steps=1
    )
    batches = jnp.reshape(jnp.asarray(x), (-1, options.batch_size, options.num_visible))
    begin = jax.jit(lambda key: model.init(key, {"x": batches[0]}))

    def update(step: Any, state: Any) -> Any:
        return model.update(jax.random.fold_in(jax.random.key(0), step), state, {"x": batches[step]})[0]

    epoch = jax.jit(lambda state: jax.lax.fori_loop(0, len(batches), update, state))
    state = begin(jax.random.key(0))
    one = jax.jit(lambda step, state: update(step, state), donate_argnums=1)  # as `jgen.train` does

    def step_by_step() -> Any:
        now = jax.tree.map(jnp.copy, state)
        for step in range(len(batches)):
            now = one(np.int32(step), now)
        return now

    cases = {
        "jgen": timing.clock(step_by_step),
        "jgen, one program": timing.clock(lambda: epoch(state)),
        **_peers(lambda: _peer(options).fit(x).components_),
    }
    _table(f"an epoch of PCD-1, {options.num_examples} examples", "examples/s", options.num_examples, cases, options)


def _peers(work: Callable[[], Any]) -> dict[str, Callable[[], float]]:
    def with_one_thread() -> Any:
        with threadpoolctl.threadpool_limits(1):
            return work()

    return {"scikit-learn": timing.clock(work), "scikit-learn, 1 thread": timing.clock(with_one_thread)}


def _peer(options: Options) -> sklearn.neural_network.BernoulliRBM:
    return sklearn.neural_network.BernoulliRBM(
        options.num_hidden, learning_rate=0.01, batch_size=options.batch_size, n_iter=1, random_state=0
    )


def _table(title: str, unit: str, amount: int, cases: Any, options: Options) -> None:
    seconds = timing.take_turns(cases, options.repeats)
    best = min(
        (name for name in seconds if name.startswith("scikit-learn")), key=lambda n: statistics.median(seconds[n])
    )
    rows = [
        {
            "": name,
            "seconds": statistics.median(values),
            unit: amount / statistics.median(values),
            "scikit-learn / this": timing.ratio(seconds[best], values),
        }
        for name, values in seconds.items()
    ]
    print(title)
    timing.report("rbm", rows, title=title, **dataclasses.asdict(options))


if __name__ == "__main__":
    main(tyro.cli(Options))
