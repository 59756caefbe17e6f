"""EM of a Gaussian mixture, PCA and ICA beside scikit-learn, float32, on the same 10,000 × 64 rows.

    python -m experiments.benchmarks.classical [--repeats N] [--num-examples N]

Both sides start where the other starts and make the same number of rounds: of EM with full covariances, and of FastICA
or of relative Newton steps. scikit-learn runs with all BLAS threads and with one, since on a busy machine threads that
wait for one another cost it a factor; the ratios are to the faster of the two. For ICA the Amari distance that was
reached stands beside the time: a round of Newton's is not a round of FastICA.

Measured on two quiet cores, the time of scikit-learn's faster way over jgen's: EM 1.38 (3.4 of its default with all
threads; both end at a mean log p of −211.17), PCA 1.3, ICA 1.01 (3.3 of its default; Amari distances of 0.0084 for jgen
and 0.0094).
"""

import dataclasses
import statistics
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import sklearn.decomposition
import sklearn.exceptions
import sklearn.mixture
import threadpoolctl
import tyro

from experiments.benchmarks import timing
from jgen.classical import ica, mixture, pca
from jgen.math import moments


@dataclasses.dataclass(frozen=True)
class Options:
    """Sizes and repeats."""

    repeats: int = 5
    num_examples: int = 10_000
    dim: int = 64
    num_components: int = 10
    """Of the mixture."""
    num_rounds: int = 10
    """Of EM, and twice as many of ICA."""


def main(options: Options) -> None:
    """Prints the three tables."""
    warnings.simplefilter("ignore", sklearn.exceptions.ConvergenceWarning)
    rng = np.random.default_rng(0)
    sources = rng.laplace(size=(options.num_examples, options.dim))
    mixing = rng.standard_normal((options.dim, options.dim))
    x = (sources @ mixing.T).astype(np.float32)
    _mixture(options, x)
    _pca(options, x)
    _ica(options, x, mixing)


def _mixture(options: Options, x: np.ndarray) -> None:
    on_device = jnp.asarray(x)
    begin = jax.jit(lambda key, x: mixture.start(key, x, options.num_components))(jax.random.key(0), on_device)
    precisions = np.linalg.inv(np.asarray(begin.covariances, np.float64)).astype(np.float32)

    def rounds(params: Any, x: Any) -> Any:
        def one(_: Any, params: Any) -> Any:
            return mixture.maximize(params, mixture.expect(params, x))

        return jnp.mean(mixture.log_prob(jax.lax.fori_loop(0, options.num_rounds, one, params), x))

    ours = jax.jit(rounds)

    def theirs() -> Any:
        peer: Any = sklearn.mixture.GaussianMixture(
            options.num_components,
            tol=0.0,
            max_iter=options.num_rounds,
            weights_init=np.exp(np.asarray(begin.log_weights)),
            means_init=np.asarray(begin.means),
            precisions_init=precisions,
        )
        return peer.fit(x).score(x)

    cases = {"jgen": lambda: ours(begin, on_device), **_peers(theirs)}
    fits = {name: float(case()) for name, case in cases.items()}
    title = f"EM, {options.num_components} full covariances, {options.num_rounds} rounds"
    _table(title, cases, options, fits, "mean log p")


def _pca(options: Options, x: np.ndarray) -> None:
    solve = jax.jit(lambda x: pca.solve(moments.moments(x), 16))
    on_device = jnp.asarray(x)

    def theirs() -> Any:
        peer: Any = sklearn.decomposition.PCA(16, svd_solver="covariance_eigh")
        return peer.fit(x).components_.T

    cases = {"jgen": lambda: solve(on_device).axes, **_peers(theirs)}
    axes = {name: np.asarray(case(), np.float64) for name, case in cases.items()}
    worst = {n: float(np.max(np.abs(np.abs(a.T @ axes["jgen"]) - np.eye(16)))) for n, a in axes.items()}
    _table("PCA, 16 components by the covariance", cases, options, worst)


def _ica(options: Options, x: np.ndarray, mixing: np.ndarray) -> None:
    model, num = ica.model(optax.sgd(1.0), newton=True), 2 * options.num_rounds
    batch = {"x": jnp.asarray(x)}

    def learn(batch: Any) -> Any:
        state = model.init(jax.random.key(0), batch)
        return jax.lax.fori_loop(0, num, lambda _, s: model.update(jax.random.key(0), s, batch)[0], state).params.matrix

    ours = jax.jit(learn)

    def theirs() -> Any:
        settings: Any = {"whiten": "unit-variance", "whiten_solver": "eigh", "tol": 0.0, "random_state": 0}
        return sklearn.decomposition.FastICA(options.dim, max_iter=num, **settings).fit(x).components_

    cases = {"jgen": lambda: ours(batch), **_peers(theirs)}
    a = jnp.asarray(mixing, jnp.float32)
    reached = {n: float(ica.amari_distance(jnp.asarray(case(), jnp.float32), a)) for n, case in cases.items()}
    _table(f"ICA, {options.dim} sources, {num} rounds", cases, options, reached, "Amari distance")


def _peers(work: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    def with_one_thread() -> Any:
        with threadpoolctl.threadpool_limits(1):
            return work()

    return {"scikit-learn": work, "scikit-learn, 1 thread": with_one_thread}


def _table(
    title: str,
    cases: Mapping[str, Callable[[], Any]],
    options: Options,
    numbers: Mapping[str, float],
    column: str = "largest difference",
) -> None:
    seconds = timing.take_turns({name: timing.clock(case) for name, case in cases.items()}, options.repeats)
    peers = [name for name in seconds if name.startswith("scikit-learn")]
    best = min(peers, key=lambda name: statistics.median(seconds[name]))
    rows = [
        {
            "": name,
            "seconds": statistics.median(values),
            column: f"{numbers[name]:.6g}",
            "scikit-learn / this": timing.ratio(seconds[best], values),
        }
        for name, values in seconds.items()
    ]
    print(title)
    timing.report("classical", rows, title=title, **dataclasses.asdict(options))


if __name__ == "__main__":
    main(tyro.cli(Options))
