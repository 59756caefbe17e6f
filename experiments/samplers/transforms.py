"""S1: change of variables: a banana bent out of two normals, inverse CDFs and Box–Muller beside their densities.

    python -m experiments.samplers.transforms

    (z_1, z_2) ~ N(0, I),  x = 2z_1,  y = z_2 + (x² − 4)/2:  E x² = 4, E y = 0, E y² = 9.

Measured with seed 0 on two shared CPU cores, 4 s: E x² 4.006, E y² 9.033, all within 1.2 standard errors; largest
distances between CDFs: of a million draws 0.0007 (exponential), 0.0012 (Cauchy), 0.0007 (normal), of 100,000 0.0027
(beta).

Paper: Box and Muller, "A note on the generation of random normal deviates", 1958.
"""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from experiments import pictures
from experiments.runner import main
from experiments.samplers import chains, planes
from experiments.system import System
from jgen._types import Key
from jgen.math.densities import normal_log_prob
from jgen.metrics.measurement import Measurement
from jgen.samplers import transforms
from jgen.train import Experiment

NUM = 1_000_000
LAWS: dict[str, Any] = {
    "exponential by its inverse CDF": scipy.stats.expon(),
    "Cauchy by its inverse CDF": scipy.stats.cauchy(),
    "normal by Box-Muller": scipy.stats.norm(),
    "Beta(2, 4) by rejection": scipy.stats.beta(2, 4),
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    num_chains: int = 64
    num_steps: int = 200
    """Updates; in each of them every chain takes `steps_per_update` draws."""
    steps_per_update: int = 100


PRESETS = {"banana": Config(), "smoke": Config(num_steps=2, steps_per_update=10, num_chains=8)}


def bend(z: Any) -> Any:
    """x = 2z_1, y = z_2 + (x² − 4)/2."""
    x = 2 * z[0]
    return jnp.stack([x, z[1] + (x**2 - 4) / 2])


def straighten(x: Any) -> Any:
    """Its inverse."""
    return jnp.stack([x[0] / 2, x[1] - (x[0] ** 2 - 4) / 2])


BANANA = transforms.Transport(
    lambda key: jax.random.normal(key, (2,)), lambda z: jnp.sum(normal_log_prob(z)), bend, straighten
)


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    del seed
    experiment = chains.on_plane(
        planes.BANANA,
        transforms.sampler(BANANA),
        config.num_chains,
        config.num_steps,
        config.steps_per_update,
        "banana, independent draws by change of variables",
    )
    return dataclasses.replace(
        experiment,
        measure=functools.partial(_measure, experiment.measure),
        draw=functools.partial(_draw, experiment.draw),
    )


def _draws(key: Key) -> dict[str, np.ndarray]:
    """A million draws of each of `LAWS`; of Beta(2, 4), 100,000."""
    keys = jax.random.split(key, 4)
    normals = jax.jit(transforms.box_muller, static_argnums=1)(keys[2], NUM // 2)
    log_peak = float(LAWS["Beta(2, 4) by rejection"].logpdf(0.25))

    def log_ratio(x: Any) -> Any:
        return jnp.log(20 * x) + 3 * jnp.log1p(-x) - log_peak

    kept = jax.jit(lambda key: transforms.rejection(key, jax.random.uniform, log_ratio, NUM // 10))(keys[3])
    found = [
        transforms.inverse_cdf(keys[0], transforms.exponential, (NUM,)),
        transforms.inverse_cdf(keys[1], transforms.cauchy, (NUM,)),
        jnp.ravel(normals),
        kept.x,
    ]
    return {name: np.asarray(x, np.float64) for name, x in zip(LAWS, found, strict=True)}


def _measure(moments: Any, key: Key, state: Any) -> dict[str, Measurement]:
    """The moments of the banana, and the Kolmogorov–Smirnov distance of each of `LAWS`."""
    found = moments(key, state)
    for name, x in _draws(key).items():
        test: Any = scipy.stats.ks_1samp(x, LAWS[name].cdf, method="asymp")
        protocol = f"{name}, largest distance between CDFs; {np.sqrt(np.log(200) / 2 / len(x)):.5f} at 1 percent"
        short = name.split(" ")[0].split("(")[0].lower()
        found[f"distance_{short}"] = Measurement(
            float(test.statistic), "-", "estimate", "-", f"{protocol}, {len(x)} draws"
        )
    return found


def _draw(plane: Any, key: Key, state: Any, directory: pathlib.Path) -> None:
    plane(key, state, directory)
    panels = {}
    for name, x in _draws(key).items():
        low, high = LAWS[name].ppf([0.02, 0.98])
        edges = np.linspace(low, high, 81)
        middle, counts = 0.5 * (edges[1:] + edges[:-1]), np.histogram(x, edges)[0]
        panels[name] = {
            "draws": (middle, counts / len(x) / (edges[1] - edges[0])),
            "density": (middle, LAWS[name].pdf(middle)),
        }
    pictures.line_panels(directory / "densities.png", panels)


SYSTEM = System(
    id="S1",
    module="samplers.transforms",
    title="Change of variables",
    kind="estimate",
    config=Config,
    presets=PRESETS,
    build=build,
    references={"banana": planes.BANANA.references()},
)

if __name__ == "__main__":
    main(SYSTEM)
