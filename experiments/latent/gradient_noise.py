"""How noisy the gradients of one and the same ELBO are: through the draw, by the score function, with a baseline."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures
from jgen._types import Key
from jgen.latent import score_function, vae
from jgen.latent.networks import Networks

NUM_DRAWS = 256
ESTIMATORS = {
    "reparameterized": (vae.loss, {}),
    "score function": (score_function.loss, {"num_samples": 1}),
    "score function, 4 draws, baseline": (score_function.loss, {"num_samples": 4}),
}


def variances(key: Key, networks: Networks, state: Any, x: Any) -> dict[str, np.ndarray]:
    """The variance over draws of the gradient with respect to each encoder parameter, for one batch `x`."""
    found = {}
    for name, (loss, settings) in ESTIMATORS.items():
        value = functools.partial(loss, train=False, networks=networks, **settings)

        def gradient(key: Key, value: Any = value) -> Any:
            def of_encoder(encoder: Any) -> Any:
                return value(key, {**state.params, "encoder": encoder}, state.stats, {"x": x})[0]

            leaves = jax.tree.leaves(jax.grad(of_encoder)(state.params["encoder"]))
            return jnp.concatenate([leaf.ravel() for leaf in leaves])

        def moments(carry: Any, key: Key, gradient: Any = gradient) -> Any:
            own = gradient(key)
            return (carry[0] + own / NUM_DRAWS, carry[1] + own**2 / NUM_DRAWS), None

        size = sum(leaf.size for leaf in jax.tree.leaves(state.params["encoder"]))
        empty = jnp.zeros(size), jnp.zeros(size)
        keys = jax.random.split(key, NUM_DRAWS)
        mean, square = jax.jit(lambda keys, moments=moments, empty=empty: jax.lax.scan(moments, empty, keys))(keys)[0]
        found[name] = np.asarray(jnp.maximum(square - mean**2, 0.0))
    return found


def ratio(found: dict[str, np.ndarray]) -> float:
    """The summed variance of the last estimator over that of the first."""
    first, *_, last = found.values()
    return float(last.sum() / first.sum())


def draw(path: pathlib.Path, found: dict[str, np.ndarray]) -> None:
    """Histograms of log₁₀ of the variances, with the ratio of their sums in the names."""
    least = found["reparameterized"].sum()
    named = {f"{name}: {values.sum() / least:.3g} ×": np.log10(values[values > 0]) for name, values in found.items()}
    pictures.histograms(path, named, "log₁₀ variance of an encoder parameter's gradient")
