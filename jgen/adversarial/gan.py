"""Generative adversarial networks: a generator and a critic in turn.

    V(D, G) = E_{x~p} log D(x) + E_{z~N(0,I)} log(1 - D(G(z))), D = sigmoid(a), the critic's logit a
    max_D V at a* = log p - log q, where V = -log 4 + 2 JSD(p, q)

Goodfellow et al.: Generative adversarial nets (2014). Differs from the paper: losses go through softplus on logits;
Gaussian latents; optional instance noise on both of the critic's inputs (Sønderby et al. 2017), drawn to nothing during
training, without which small generators collapse onto a few modes.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float

from jgen import linen, random
from jgen._checks import at_least, one_of
from jgen._types import Batch, Key, Keys, Metrics, Params, Scalar
from jgen.learners import AlternatingState, Player, alternating
from jgen.model import Model

LOSSES = ("non_saturating", "minimax")


class CriticStats(NamedTuple):
    """What the critic keeps beside its parameters.

    Attributes:
        collections: its Flax collections.
        num_steps: updates it has made, which the schedule of the instance noise reads (a float, as stats are averaged
            over devices).
    """

    collections: Params
    num_steps: Scalar


class Networks(NamedTuple):
    """Attributes: `generator`, (z, *, train) -> x; `critic`, (x, *, train) -> logits (batch, 1); `latent_size` of z."""

    generator: nn.Module
    critic: nn.Module
    latent_size: int


def value(real_logits: Float[Array, "..."], fake_logits: Float[Array, "..."]) -> Scalar:
    """V(D, G) = E log D(x) + E log(1 - D(G(z))) in nats, between -∞ and 0; -log 4 for a critic that cannot tell."""
    return -jnp.mean(jax.nn.softplus(-real_logits)) - jnp.mean(jax.nn.softplus(fake_logits))


def optimal_critic(log_data: Float[Array, "..."], log_model: Float[Array, "..."]) -> Float[Array, "..."]:
    """a* = log p - log q, so that D* = p/(p + q) (proposition 1)."""
    return log_data - log_model


def critic_loss(
    real_logits: Float[Array, "..."], fake_logits: Float[Array, "..."], label_smoothing: float = 0.0
) -> Scalar:
    """-V with the real side's target at 1 - label_smoothing: then D* = (1 - label_smoothing)·p/(p + q).

    Only the real side is smoothed: a smoothed fake side would reward regions where there is no data.
    """
    smooth = label_smoothing * jnp.mean(real_logits)  # (1-s)·softplus(-a) + s·softplus(a) = softplus(-a) + s·a
    return -value(real_logits, fake_logits) + smooth


def generator_loss(fake_logits: Float[Array, "..."], loss: str = "non_saturating") -> Scalar:
    """What the generator minimizes: "minimax" E log(1 - D), "non_saturating" -E log D.

    Raises:
        ValueError: there is no such loss.
    """
    one_of("loss", loss, LOSSES)
    if loss == "minimax":
        return -jnp.mean(jax.nn.softplus(fake_logits))
    return jnp.mean(jax.nn.softplus(-fake_logits))


def latents(keys: Keys, latent_size: int) -> Float[Array, "batch latent"]:
    """z ~ N(0, I), one per key."""
    return jax.vmap(lambda key: jax.random.normal(key, (latent_size,)))(keys)


def generate(networks: Networks, params: Params, stats: Params, z: Float[Array, "batch latent"]) -> Array:
    """G(z) with the statistics of training (running averages), so that an image does not depend on its batch."""
    return linen.apply(networks.generator, params["generator"], stats["generator"], z, train=False)


def interpolate(start: Float[Array, " latent"], end: Float[Array, " latent"], num: int) -> Float[Array, "num latent"]:
    """`num` latents from `start` to `end` on the great circle, along which lengths stay those of Gaussian latents."""
    cosine = jnp.vdot(start, end) / (jnp.linalg.norm(start) * jnp.linalg.norm(end))
    angle = jnp.arccos(jnp.clip(cosine, -1 + 1e-6, 1 - 1e-6))
    share = jnp.linspace(0.0, 1.0, num)[:, None]
    return (jnp.sin((1 - share) * angle) * start[None] + jnp.sin(share * angle) * end[None]) / jnp.sin(angle)


def _blur(keys: Keys, x: Array, std: Any) -> Array:
    return x + std * jax.vmap(lambda key, like: jax.random.normal(key, like.shape))(keys, x)


def _noise_std(noise: optax.Schedule | None, stats: Params) -> Any:
    return None if noise is None else noise(stats["critic"].num_steps)


def play_critic(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    networks: Networks,
    label_smoothing: float = 0.0,
    instance_noise: optax.Schedule | None = None,
    train: bool = True,
) -> tuple[Scalar, tuple[CriticStats, Metrics]]:
    """The critic's `alternating` loss. Real and fake examples pass in batches of their own."""
    latent_key, real_key, fake_key = jax.random.split(key, 3)
    z = latents(random.batch_keys(latent_key, batch), networks.latent_size)
    fake = _generate(networks, params, stats, z, train)[0]
    real, own = batch["x"], stats["critic"]
    if (std := _noise_std(instance_noise, stats)) is not None:
        real = _blur(random.batch_keys(real_key, batch), real, std)
        fake = _blur(random.batch_keys(fake_key, batch), fake, std)
    judge = functools.partial(linen.apply_and_update, networks.critic, params["critic"])
    real_logits, collections = judge(own.collections, real, train=train)
    fake_logits, collections = judge(collections, fake, train=train)
    loss = critic_loss(real_logits, fake_logits, label_smoothing)
    hits = 0.5 * (jnp.mean(real_logits > 0) + jnp.mean(fake_logits < 0))
    metrics = {"critic_loss": loss, "value": value(real_logits, fake_logits), "critic_accuracy": hits}
    return loss, (CriticStats(collections, own.num_steps + 1), metrics)


def play_generator(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    *,
    networks: Networks,
    loss: str = "non_saturating",
    instance_noise: optax.Schedule | None = None,
    train: bool = True,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """The generator's `alternating` loss; of the batch only its size matters."""
    latent_key, noise_key = jax.random.split(key)
    z = latents(random.batch_keys(latent_key, batch), networks.latent_size)
    fake, collections = _generate(networks, params, stats, z, train)
    if (std := _noise_std(instance_noise, stats)) is not None:
        fake = _blur(random.batch_keys(noise_key, batch), fake, std)
    critic = stats["critic"].collections
    logits = linen.apply_and_update(networks.critic, params["critic"], critic, fake, train=train)[0]
    value = generator_loss(logits, loss)
    return value, (collections, {"generator_loss": value})


def _generate(networks: Networks, params: Params, stats: Params, z: Array, train: bool) -> tuple[Array, Params]:
    return linen.apply_and_update(networks.generator, params["generator"], stats["generator"], z, train=train)


def init(key: Key, batch: Batch, *, networks: Networks) -> tuple[dict[str, Params], dict[str, Params]]:
    """(params, stats) of both players.

    Raises:
        ValueError: the generator's examples have not the shape of the batch's x.
    """
    generator_key, critic_key = jax.random.split(key)
    z = jnp.zeros((2, networks.latent_size))
    params, stats = linen.init(networks.generator, generator_key, z, train=False)
    x = linen.apply(networks.generator, params, stats, z, train=False)
    if x.shape[1:] != jnp.shape(batch["x"])[1:]:
        raise ValueError(f"`generator` must make examples of shape {jnp.shape(batch['x'])[1:]}, got {x.shape[1:]}.")
    critic_params, critic_stats = linen.init(networks.critic, critic_key, x, train=False)
    own = {"generator": stats, "critic": CriticStats(critic_stats, jnp.zeros(()))}
    return {"generator": params, "critic": critic_params}, own


def model(
    generator: nn.Module,
    critic: nn.Module,
    *,
    latent_size: int,
    generator_optimizer: optax.GradientTransformation,
    critic_optimizer: optax.GradientTransformation,
    num_critic_steps: int = 1,
    loss: str = "non_saturating",
    label_smoothing: float = 0.0,
    instance_noise: optax.Schedule | None = None,
    axis_name: str | None = None,
) -> Model[AlternatingState]:
    """A GAN (algorithm 1): `num_critic_steps` of the critic, each on its own part of the batch, then the generator's.

    Args:
        generator: (z, *, train) -> x, examples as in the data.
        critic: (x, *, train) -> logits, (batch, 1).
        latent_size: of z.
        num_critic_steps: k; it must divide the batch.
        loss: the generator's, one of `LOSSES`.
        label_smoothing: in [0, 1), of the real side.
        instance_noise: standard deviation of the noise on the critic's inputs by the number of critic steps, such as
            `optax.linear_schedule(0.5, 0.0, 5_000)`; None for no noise.
        axis_name: the mapped axis, as in `learners.alternating`.

    Raises:
        ValueError: an argument is out of its range, or (in `init`) the generator's shape is not the data's.
    """
    at_least("latent_size", latent_size, 1)
    at_least("num_critic_steps", num_critic_steps, 1)
    one_of("loss", loss, LOSSES)
    if not 0.0 <= label_smoothing < 1.0:
        raise ValueError(f"`label_smoothing` must be in [0, 1), got {label_smoothing}.")
    networks = Networks(generator, critic, latent_size)
    shared = {"networks": networks, "instance_noise": instance_noise}
    judge = functools.partial(play_critic, label_smoothing=label_smoothing, **shared)
    forge = functools.partial(play_generator, loss=loss, **shared)

    def sample(key: Key, state: AlternatingState, num: int) -> Batch:
        z = latents(random.example_keys(key, num), latent_size)
        return {"x": generate(networks, state.params, state.stats, z)}

    players = {
        "critic": Player(judge, critic_optimizer, num_critic_steps),
        "generator": Player(forge, generator_optimizer),
    }
    return alternating(functools.partial(init, networks=networks), players, sample=sample, axis_name=axis_name)
