"""Pictures of a VQ-VAE with a prior: samples, reconstructions, maps of codes, and in-painting among the codes."""

import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures, workdir
from experiments.latent import pixels
from jgen._types import Key
from jgen.autoregressive import raster
from jgen.data.pipeline import Data
from jgen.latent import vq_prior, vq_vae
from jgen.learners import GradientState
from jgen.model import Model

NUM_SAMPLES, NUM_SHOWN, NUM_COMPLETED, NUM_TIMES = 64, 32, 8, 6
"""Samples drawn; test images shown; those completed, and how often each."""


@dataclasses.dataclass(frozen=True)
class Drawing:
    """What the pictures are drawn from.

    Attributes:
        networks: the autoencoder's.
        network: the prior's.
        model: both stages.
        prior: the second stage.
        data: the batches.
        levels: of x.
    """

    networks: vq_vae.Networks
    network: raster.Network
    model: Model[Any]
    prior: Model[Any]
    data: Data
    levels: int

    def write(self, key: Key, state: vq_prior.PriorState, directory: pathlib.Path) -> None:
        """All pictures."""
        first = GradientState(state.params["autoencoder"], state.autoencoder.stats, ())
        x = jnp.asarray(pixels.spread(self.data, "test", NUM_SHOWN)[1])
        encode = jax.jit(functools.partial(vq_vae.codes, networks=self.networks))
        show = jax.jit(functools.partial(vq_vae.from_codes, networks=self.networks))
        k = encode(first.params, first.stats, x)
        decoded = functools.partial(show, first.params, first.stats)
        self._samples(key, state, first, decoded, directory / "samples.png")
        again = {"test": self._unit(x), "again, from its codes": self._unit(decoded(k))}
        pictures.panels(directory / "reconstructions.png", again)
        if k.ndim == 3:
            self._maps(x, k, first, directory / "codes.png")
        few = slice(None, None, max(1, len(x) // NUM_COMPLETED))
        self._completions(jax.random.fold_in(key, 1), state, x[few], k[few], decoded, directory)
        pictures.curves(directory / "curves_of_prior.png", workdir.history(directory / "retrained"))

    def _samples(self, key: Key, state: Any, first: GradientState, decoded: Any, path: pathlib.Path) -> None:
        """Codes from the prior, and codes drawn one by one, which know nothing of each other."""
        draw = functools.partial(vq_prior.sample_codes, networks=self.networks, prior=self.prior)
        k = jax.jit(draw, static_argnums=2)(key, state, NUM_SAMPLES)
        assert self.model.sample is not None
        x = jax.jit(self.model.sample, static_argnums=2)(key, state, NUM_SAMPLES)["x"]
        alone = functools.partial(vq_vae.sample, networks=self.networks)
        apart = jax.jit(alone, static_argnums=3)(key, first.params, first.stats, NUM_SAMPLES)
        named = {
            "codes from the prior, E[x|codes]": decoded(k),
            "codes from the prior, draws": x,
            "codes one by one, draws": apart,
        }
        pictures.panels(path, {name: self._unit(value) for name, value in named.items()})

    def _maps(self, x: Any, k: Any, first: GradientState, path: pathlib.Path) -> None:
        """Each code in a colour of its own: its place along three principal axes of the codebook."""
        table = np.asarray(vq_vae.table(first.params, first.stats))
        axes = np.linalg.svd(table - table.mean(axis=0), full_matrices=False)[0][:, :3]
        ranks = axes.argsort(axis=0).argsort(axis=0) / max(1, len(table) - 1)
        colours = np.pad(ranks, ((0, 0), (0, 3 - ranks.shape[1])), constant_values=0.5)
        scale = [-(-x.shape[i] // k.shape[i]) for i in (1, 2)]
        maps = np.kron(colours[np.asarray(k)], np.ones((1, *scale, 1)))[:, : x.shape[1], : x.shape[2]]
        pictures.panels(path, {"test": self._unit(x), "its codes": maps})

    def _completions(self, key: Key, state: Any, x: Any, k: Any, decoded: Any, directory: pathlib.Path) -> None:
        """One row for each image: itself, its codes decoded, and draws of the lower half of its codes."""
        mask = np.zeros(k.shape[1:], bool)
        mask[: k.shape[1] // 2] = True
        many = jnp.repeat(k, NUM_TIMES, axis=0)
        complete = functools.partial(vq_prior.complete, mask=mask, networks=self.networks, network=self.network)
        drawn = decoded(jax.jit(lambda key, state: complete(key, state, many))(key, state))
        columns = [
            jnp.asarray(x, drawn.dtype)[:, None],
            decoded(k)[:, None],
            drawn.reshape(len(x), NUM_TIMES, *x.shape[1:]),
        ]
        rows = jnp.concatenate(columns, axis=1).reshape(-1, *x.shape[1:])
        title = "test, from its codes, and with the later half of these redrawn"
        pictures.grid(directory / "completions.png", self._unit(rows), columns=2 + NUM_TIMES, title=title)

    def _unit(self, x: Any) -> Any:
        return jnp.asarray(x, jnp.float32) / (self.levels - 1)
