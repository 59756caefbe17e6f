"""What the experiment with autoencoders looks at: reconstructions, codes beside PCA's, and what sampling gives."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import pictures
from jgen._types import Key
from jgen.classical import pca
from jgen.data.pipeline import Data
from jgen.latent import autoencoder
from jgen.math import moments

NUM_POINTS = 1_000
"""Test examples in the picture of the codes."""

Sampler = Callable[[Key, int], tuple[Any, Any]]
Principal = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def rows(data: Data, split: str) -> np.ndarray:
    """All x of a split."""
    return np.concatenate([np.asarray(batch["x"])[:num] for batch, num in data.batches(split)])


def principal(train: np.ndarray, num: int) -> Principal:
    """(x) -> (coordinates, reconstruction) of the PCA of `train` with `num` components."""
    params = pca.solve(moments.moments(jnp.asarray(train.reshape(len(train), -1))), num)

    def apply(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        coordinates = pca.encode(params, jnp.asarray(x.reshape(len(x), -1)))
        return np.asarray(coordinates), np.asarray(pca.decode(params, coordinates)).reshape(x.shape)

    return apply


def encode(networks: autoencoder.Networks, state: Any, x: np.ndarray) -> np.ndarray:
    """The codes of many examples, a part at a time."""
    apply = jax.jit(functools.partial(autoencoder.encode, networks=networks))
    parts = [x[first : first + 1_000] for first in range(0, len(x), 1_000)]
    return np.concatenate([np.asarray(apply(state.params, state.stats, part)) for part in parts])


def drawn(
    key: Key,
    networks: autoencoder.Networks,
    state: Any,
    train: np.ndarray,
    sample_vae: Sampler,
    num: int,
) -> dict[str, Any]:
    """Images decoded at z ~ N(0, I), at z of the Gaussian fitted to the codes, and a VAE's means and draws."""
    z = jax.random.normal(key, (num, networks.latent_size))
    found = encode(networks, state, train[:10_000]).astype(np.float64)
    # A floor keeps the factor of the covariance real where a code is never used.
    spread = np.cov(found.T).reshape(networks.latent_size, -1) + 1e-9 * np.eye(networks.latent_size)
    fitted = found.mean(0) + np.asarray(z) @ np.linalg.cholesky(spread).T
    decode = functools.partial(autoencoder.decode, state.params, state.stats, networks=networks)
    means, draws = sample_vae(key, num)
    return {
        "autoencoder, z ~ N(0, I)": decode(z),
        "autoencoder, z ~ N(mean, cov) of codes": decode(jnp.asarray(fitted, jnp.float32)),
        "VAE, E[x|z], z ~ N(0, I)": means,
        "VAE, x ~ p(x|z), z ~ N(0, I)": draws,
    }


def draw_samples(directory: pathlib.Path, named: dict[str, Any]) -> None:
    """The failed sampling, beside a VAE's."""
    pictures.panels(directory / "samples.png", {name: pictures.images(_flat(x))[0] for name, x in named.items()})


def draw_reconstructions(
    directory: pathlib.Path, networks: autoencoder.Networks, state: Any, principal: Principal, test: np.ndarray
) -> None:
    """Test examples, their PCA, and what the autoencoder makes of them."""
    x = test[:40]
    again = autoencoder.reconstruct(state.params, state.stats, x, networks=networks)
    named = {"test": x, f"PCA, {principal(x)[0].shape[1]} components": principal(x)[1], "autoencoder": again}
    pictures.panels(
        directory / "reconstructions.png", {name: pictures.images(_flat(x))[0] for name, x in named.items()}
    )


def draw_latents(
    directory: pathlib.Path,
    networks: autoencoder.Networks,
    state: Any,
    principal: Principal,
    test: np.ndarray,
    labels: Any,
) -> None:
    """PCA's coordinates and the codes of test data: in their plane, or by t-SNE where there are more than two."""
    x = test[:NUM_POINTS]
    named = {"PCA": principal(x)[0], "codes": encode(networks, state, x)}
    shown = {title(name, points): in_plane(points) for name, points in named.items()}
    pictures.scatter(directory / "latents.png", shown, None if labels is None else labels[:NUM_POINTS])


def title(name: str, points: np.ndarray) -> str:
    """`name`, and how the points come into the plane."""
    return name if points.shape[1] == 2 else f"{name}, {points.shape[1]} dimensions, t-SNE"


def in_plane(points: np.ndarray) -> np.ndarray:
    """(n, 2) as they are; one column beside itself; more by t-SNE."""
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    if points.shape[1] <= 2:
        return points[:, [0, -1]]
    few = min(30.0, (len(points) - 1) / 3)
    with threadpool_limits(1):  # on busy cores the threads of t-SNE wait for each other: 12 times the CPU time
        return TSNE(random_state=0, perplexity=few).fit_transform(points)


def draw_walks(directory: pathlib.Path, networks: autoencoder.Networks, state: Any, test: np.ndarray) -> None:
    """Straight lines between the codes of test examples; and one code at a time through its quantiles."""
    join = functools.partial(autoencoder.interpolate, state.params, state.stats, networks=networks)
    lines = jnp.concatenate([join(test[i], test[i + 8], 8) for i in range(8)])
    pictures.grid(directory / "interpolations.png", pictures.images(_flat(lines))[0])
    z = encode(networks, state, test)
    walk = functools.partial(autoencoder.traverse, state.params, state.stats, jnp.asarray(z[0]), networks=networks)
    widest = np.argsort(-z.var(0))[:8]
    walks = jnp.concatenate([walk(int(unit), np.quantile(z[:, unit], np.linspace(0.02, 0.98, 8))) for unit in widest])
    heading = "a row per code, from its 2 % to its 98 % quantile"
    pictures.grid(directory / "traversals.png", pictures.images(_flat(walks))[0], title=heading)
    if networks.latent_size == 2:
        sides = [np.quantile(z[:, unit], np.linspace(0.01, 0.99, 16)) for unit in (0, 1)]
        points = np.stack(np.meshgrid(sides[0], sides[1][::-1]), axis=-1).reshape(-1, 2).astype(np.float32)
        plane = autoencoder.decode(state.params, state.stats, jnp.asarray(points), networks=networks)
        pictures.grid(directory / "plane.png", pictures.images(_flat(plane))[0], 16, "the plane of codes, by quantiles")


def draw_atoms(directory: pathlib.Path, networks: autoencoder.Networks, state: Any, test: np.ndarray) -> None:
    """What each of the 64 most used codes adds to an image, about grey."""
    z = encode(networks, state, test)
    most = np.argsort(-np.square(z).mean(0))[:64]
    single = np.eye(networks.latent_size, dtype=np.float32)[most] * np.sqrt(np.square(z).mean(0))[most, None]
    decode = functools.partial(autoencoder.decode, state.params, state.stats, networks=networks)
    added = np.asarray(_flat(decode(jnp.asarray(single)) - decode(jnp.zeros((1, networks.latent_size)))))
    scaled = 0.5 + 0.5 * added / np.maximum(np.abs(added).max(axis=1, keepdims=True), 1e-9)
    pictures.grid(directory / "atoms.png", pictures.images(scaled)[0], title="what a code adds, grey is 0")


def _flat(x: Any) -> Any:
    """Colour images as they are; others as rows."""
    x = np.asarray(x)
    return x if x.ndim == 4 else x.reshape(len(x), -1)
