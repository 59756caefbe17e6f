"""The second stage of a VQ-VAE: a prior over its codes, any model of images with an exact likelihood.

    log p(x) ≥ log p(k(x)) + log p(x|e_{k(x)}),    x ~ p(x|e_k), k ~ p(k)

The prior sees the map of codes as an image of one channel whose levels are the K codes; no gradient passes through
their indices. The first stage is a trained state, which stays as it is (the paper's two stages), or a model, which goes
on learning beside the prior, on the same batches: the bound holds after every update.

Paper: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", 2017, section 3.3.
Differs from the paper: nothing; learning both stages at once is an addition.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Num

from jgen._types import Batch, Key, Metrics, Params
from jgen.autoregressive import raster
from jgen.latent import vq_vae
from jgen.latent.vq_networks import Networks
from jgen.latent.vq_vae import Terms
from jgen.learners import GradientState
from jgen.model import Model


class PriorState(NamedTuple):
    """Both stages.

    Attributes:
        params: {"autoencoder", "prior"}.
        autoencoder: the first stage's state without its parameters.
        prior: the second stage's state without its parameters.
    """

    params: dict[str, Params]
    autoencoder: Any
    prior: Any


def code_shape(params: Params, stats: Params, networks: Networks) -> tuple[int, int, int]:
    """(height, width, 1) of the image that the prior sees: the map itself, or one row where it is no plane."""
    shape = vq_vae.map_shape(params, stats, networks)
    return (*shape, 1) if len(shape) == 2 else (1, math.prod(shape), 1)


def code_images(k: Int[Array, "batch *map"]) -> Int[Array, "batch h w 1"]:
    """Maps of codes as the prior sees them."""
    return k[..., None] if k.ndim == 3 else k.reshape(len(k), 1, -1, 1)


def terms(state: PriorState, batch: Batch, *, networks: Networks, prior: Model[Any]) -> Terms:
    """The two-stage bound, the codes' cost under the prior and the distortion of each example, nats.

    Raises:
        ValueError: x lies outside the likelihood's support.
    """
    first, second = _stages(state)

    def log_prior(k: Any) -> Any:
        return _log_prob(prior, second, k)

    return vq_vae.two_stage_bound(first.params, first.stats, batch, log_prior, networks=networks)


def sample_codes(
    key: Key, state: PriorState, num: int, *, networks: Networks, prior: Model[Any]
) -> Int[Array, "num *map"]:
    """`num` maps of codes k ~ p(k)."""
    first, second = _stages(state)
    if prior.sample is None:
        raise ValueError("`prior` must have `sample`, got a model without.")
    return _as_map(prior.sample(key, second, num)["x"], first, networks)


def complete(
    key: Key,
    state: PriorState,
    k: Int[Array, "batch *map"],
    mask: Bool[np.ndarray, "*map"],
    *,
    networks: Networks,
    network: raster.Network,
) -> Int[Array, "batch *map"]:
    """In-painting in the latent space: k where `mask`, the other codes drawn from p(missing | known).

    What is known is codes. Those at the border of the mask have seen pixels beyond it, as far as the encoder looks.

    Args:
        mask: concrete booleans, True where a code is known; a prefix of the raster order.
        network: of the prior, whose parameters the state holds.

    Raises:
        ValueError: a known code comes after a missing one.
    """
    first, second = _stages(state)
    known = code_images(k)
    given = np.reshape(np.asarray(mask, bool), known.shape[1:])
    drawn = raster.sample(network, key, second.params, len(k), known=known, mask=given)
    return _as_map(drawn, first, networks)


def model(
    networks: Networks, autoencoder: Model[GradientState] | GradientState, prior: Model[Any]
) -> Model[PriorState]:
    """The whole VQ-VAE: `log_bound` is the two-stage bound, `sample` draws codes and then x.

    Args:
        networks: those of the first stage.
        autoencoder: the first stage: its trained state, which stays as it is, or its model, which learns too.
        prior: a model of {"x": (batch, h, w, 1)} with K levels, `log_prob` and `sample`; `code_shape` gives h and w.

    Raises:
        ValueError: `prior` has no exact likelihood.
    """
    if prior.log_prob is None:
        raise ValueError("`prior` must have `log_prob`, for any other number under it is no bound, got none.")

    def init(key: Key, batch: Batch) -> PriorState:
        first_key, second_key = jax.random.split(key)
        first = _begin(autoencoder, first_key, batch)
        return _state(first, _begin(prior, second_key, _codes(first, batch, networks)))

    def update(key: Key, state: PriorState, batch: Batch) -> tuple[PriorState, Metrics]:
        first_key, second_key = jax.random.split(key)
        first, second = _stages(state)
        metrics: Metrics = {}
        if isinstance(autoencoder, Model):
            first, metrics = autoencoder.update(first_key, first, batch)
        second, found = prior.update(second_key, second, _codes(first, batch, networks))
        return _state(first, second), {**metrics, **{f"prior_{name}": value for name, value in found.items()}}

    def evaluate(key: Key, state: PriorState, batch: Batch) -> Metrics:
        bound, rate, distortion = terms(state, batch, networks=networks, prior=prior)
        return {"negative_bound": -bound, "rate": rate, "distortion": distortion}

    def draw(key: Key, state: PriorState, num: int) -> Batch:
        code_key, data_key = jax.random.split(key)
        first, k = _stages(state)[0], sample_codes(code_key, state, num, networks=networks, prior=prior)
        return {"x": vq_vae.sample_given_codes(data_key, first.params, first.stats, k, networks=networks)}

    def log_bound(key: Key, state: PriorState, batch: Batch) -> Any:
        return terms(state, batch, networks=networks, prior=prior).bound

    return Model(init, update, evaluate, draw if prior.sample else None, None, log_bound)


def _state(first: GradientState, second: Any) -> PriorState:
    params = {"autoencoder": first.params, "prior": second.params}
    return PriorState(params, first._replace(params=None), second._replace(params=None))


def _stages(state: PriorState) -> tuple[GradientState, Any]:
    first = state.autoencoder._replace(params=state.params["autoencoder"])
    return first, state.prior._replace(params=state.params["prior"])


def _begin(model: Model[Any] | GradientState, key: Key, batch: Batch) -> Any:
    """The first state of a model; of a trained state a copy, since the trainer donates, without its optimizer's."""
    if isinstance(model, Model):
        return model.init(key, batch)
    return GradientState(jax.tree.map(jnp.copy, model.params), jax.tree.map(jnp.copy, model.stats), ())


def _codes(first: GradientState, batch: Batch, networks: Networks) -> Batch:
    x = vq_vae.examples(batch, networks)
    return {"x": code_images(vq_vae.codes(first.params, first.stats, x, networks=networks))}


def _log_prob(prior: Model[Any], second: Any, k: Any) -> Any:
    assert prior.log_prob is not None
    return prior.log_prob(second, {"x": code_images(k)})


def _as_map(x: Num[Array, "num h w 1"], first: GradientState, networks: Networks) -> Int[Array, "num *map"]:
    shape = vq_vae.map_shape(first.params, first.stats, networks)
    return x.astype(jnp.int32).reshape(len(x), *shape)
