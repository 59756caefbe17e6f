"""Images in experiments with latent variables: which likelihood, in which units, and how they are drawn."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.data import transforms
from jgen.data.pipeline import Data, Dataset, Transform
from jgen.math import likelihoods

LIKELIHOODS = ("categorical", "discretized_logistic", "bernoulli", "dynamic_bernoulli", "gaussian")


def likelihood(name: str, dataset: Dataset, *names: str) -> tuple[likelihoods.Likelihood, Transform, int]:
    """(p(x|raw), what brings a batch into its units, its levels); entries `names` are kept beside x.

    Args:
        name: "bernoulli" binarizes grey levels at half, "dynamic_bernoulli" draws the bits anew whenever it is asked.
        dataset: where the levels come from.
        names: of further entries, such as "label".

    Raises:
        ValueError: there is no such likelihood, or it does not fit the data.
    """
    only = transforms.only("x", *names)
    if name == "gaussian":
        unit = transforms.scale(dataset.levels, 0.0, 1.0) if dataset.levels else only
        return likelihoods.Gaussian(), transforms.chain(only, unit), 2
    if name not in LIKELIHOODS:
        raise ValueError(f"`likelihood` must be one of {', '.join(LIKELIHOODS)}, got {name!r}.")
    if dataset.levels is None:
        raise ValueError(f"`likelihood` must be gaussian for real data such as {dataset.name!r}, got {name!r}.")
    if name in ("bernoulli", "dynamic_bernoulli"):
        bits = transforms.binarize if name == "bernoulli" else transforms.dynamic_binarize
        return likelihoods.Bernoulli(), transforms.chain(only, bits(dataset.levels)), 2
    kinds = {"categorical": likelihoods.Categorical, "discretized_logistic": likelihoods.DiscretizedLogistic}
    return kinds[name](dataset.levels), only, dataset.levels


def spread(data: Data, split: str, num: int) -> tuple[np.ndarray, np.ndarray]:
    """(which, x): up to `num` examples at equal distances in a split; files often follow the order of classes."""
    whole = [np.asarray(batch["x"])[:count] for batch, count in data.batches(split)]
    x = np.concatenate(whole)
    which = np.unique(np.linspace(0, len(x) - 1, num).astype(int))
    return which, x[which]


def images(x: Any) -> Any:
    """(n, h, w, c) from (n, h, w, c), or from rows whose length is a square."""
    if jnp.ndim(x) == 4:
        return x
    side = int(np.sqrt(x.shape[-1]))
    return jnp.reshape(x, (len(x), side, -1, 1))
