"""Sequence to sequence: a decoder that writes the target looks at all encoded positions of the source (attention).

    log p(y | x) = Σ_t log p(y_t | y_<t, x),      h_t = cell(embedding of y_{t−1}, h_{t−1})
    a_t = softmax over s of h_t · k_s / √d,       p(y_t | y_<t, x) = softmax(W tanh(W_c [h_t; Σ_s a_ts v_s]) + b)

The source is text, read in both directions by recurrent layers (v_s are their outputs), or an image, whose positions
come from a convolution. Token 0, EOS, ends a text; what stands after it is padding: it is never read and counts
nothing. h_0 comes from the whole source. The recurrence does not see the attention, so that training is one recurrent
scan and one product over all target positions; in sampling the decoder's state is the cache.
Sutskever et al., 2014; Bahdanau et al., 2015; Luong et al., Effective approaches to attention, 2015; captions: Xu et
al., Show, attend and tell, 2015.

Differs from Luong et al.: no input feeding, a bidirectional encoder, scores divided by √d. p(x) is not modelled, so the
model has no `sample`: draw with `sample`, `greedy` or `decode` for given sources.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Num

from jgen import _checks, linen, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.autoregressive import beam
from jgen.autoregressive.decoding import Decoding, next_token, token_noise
from jgen.autoregressive.tokens import counted
from jgen.learners import GradientState, gradient
from jgen.model import Model
from jgen.nets import recurrent
from jgen.nets.memory import Decoder, ImageEncoder, Memory, TextEncoder

EOS = 0
"""The token that ends a source and a target."""


@dataclasses.dataclass(frozen=True)
class Network:
    """An encoder of texts or images, and the decoder that looks at what it gives; `text` and `image` build them."""

    encoder: TextEncoder | ImageEncoder
    decoder: Decoder


def encode(network: Network, params: Params, source: Num[Array, "batch ..."]) -> Memory:
    """The source as the decoder sees it; computed once, whatever is then written."""
    return linen.apply(network.encoder, params["encoder"], {}, *_read(network, source))


def teach(
    network: Network, params: Params, source: Num[Array, "batch ..."], target: Int[Array, "batch time"]
) -> tuple[Float[Array, "batch time vocabulary"], Float[Array, "batch time positions"]]:
    """log p(· | y_<t, x) at every position of the target, and the attention from there, in one pass."""
    memory = encode(network, params, source)
    start = jnp.full_like(target[:, :1], network.decoder.vocabulary_size)
    inputs = jnp.concatenate([start, target[:, :-1]], axis=1)[:, None]
    logits, _, weights = linen.apply(network.decoder, params["decoder"], {}, inputs, memory.state, memory)
    return jax.nn.log_softmax(logits[:, 0]), weights[:, 0]


def log_prob(
    network: Network, params: Params, source: Num[Array, "batch ..."], target: Int[Array, "batch time"]
) -> Float[Array, " batch"]:
    """log p(y | x) in nats; of a prefix, where a row of `target` has no EOS."""
    each = _picked(teach(network, params, source, target)[0], target)
    return jnp.sum(each * counted(target, EOS), axis=1)


def stepper(network: Network, params: Params, memory: Memory) -> beam.Step:
    """(tokens (batch, lanes), state) -> (log p of the next token, state): what sampling and searching go by."""

    def step(tokens: Any, state: Any) -> Any:
        logits, state, _ = linen.apply(network.decoder, params["decoder"], {}, tokens[..., None], state, memory)
        return jax.nn.log_softmax(logits[:, :, 0]), state

    return step


def sample(
    network: Network,
    key: Key,
    params: Params,
    source: Num[Array, "batch ..."],
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Int[Array, "batch length"]:
    """One draw of p(y | x) per source, at most `length` tokens, EOS after its end. Example i draws from (key, i).

    Args:
        temperature, top_k, top_p: of `Decoding`.

    Raises:
        ValueError: `length`, or how to draw, is out of its range.
    """
    how = Decoding(temperature, top_k, top_p, EOS)
    _checks.at_least("length", length, 1)
    memory = encode(network, params, source)
    step, keys = stepper(network, params, memory), random.example_keys(key, source.shape[0])

    def advance(before: Any, t: Any) -> Any:
        token, ended, state = before
        log_probs, state = step(token[:, None], state)
        noise = token_noise(keys, t, network.decoder.vocabulary_size)
        token, ended = next_token(log_probs[:, 0], noise, ended, how)
        return (token, ended, state), token

    start = (_first(network, source), jnp.zeros(source.shape[:1], bool), memory.state)
    return jax.lax.scan(advance, start, jnp.arange(length))[1].T


def greedy(network: Network, params: Params, source: Num[Array, "batch ..."], length: int) -> beam.Outputs:
    """The most probable token each time; width 1."""
    memory = encode(network, params, source)
    return beam.greedy(stepper(network, params, memory), memory.state, _first(network, source), length, eos=EOS)


def decode(
    network: Network,
    params: Params,
    source: Num[Array, "batch ..."],
    length: int,
    *,
    width: int = 4,
    alpha: float = 0.0,
) -> beam.Outputs:
    """The better of the best output of a beam and the greedy one; width 1. `beam.search` has all that a beam finds."""
    memory = encode(network, params, source)
    step, first = stepper(network, params, memory), _first(network, source)
    return beam.decode(step, memory.state, first, length, width=width, eos=EOS, alpha=alpha)


def loss(
    key: Key, params: Params, stats: Params, batch: Batch, /, *, train: bool, network: Network
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean −log p(y_t | y_<t, x) in nats over the batch's tokens, EOS included.

    `exact_match` is the share of targets that `greedy` writes: those whose every token is the most probable one.
    """
    del key
    source, target = pairs(batch, network)
    log_probs, _ = teach(network, params, source, target)
    weight = counted(target, EOS)
    nll, num = -jnp.sum(_picked(log_probs, target) * weight, axis=1), jnp.sum(weight, axis=1)
    right = jnp.all((jnp.argmax(log_probs, axis=-1) == target) | (weight == 0), axis=1).astype(jnp.float32)
    value = jnp.sum(nll) / jnp.sum(num)
    if train:
        return value, (stats, {"nats_per_token": value, "exact_match": jnp.mean(right)})
    return value, (stats, {"nll": nll, "nats_per_token": nll / num, "exact_match": right})


def pairs(batch: Batch, network: Network) -> tuple[Num[Array, "batch ..."], Int[Array, "batch time"]]:
    """(source, target) of a batch, checked.

    Raises:
        ValueError: `batch` is none, or lacks one of them; another rank, or values out of the range of the network.
    """
    random.batch_size(batch)
    for name in ("source", "target"):
        if name not in batch:
            raise ValueError(f"`batch` must hold 'source' and 'target', got {sorted(batch)}.")
    encoder, source, target = network.encoder, batch["source"], batch["target"]
    if isinstance(encoder, TextEncoder):
        _checks.rank("source", source, 2, "(batch, time)")
        _checks.integers("source", source, encoder.vocabulary_size)
    else:
        _checks.rank("source", source, 4, "(batch, height, width, channels)")
        _checks.integers("source", source, encoder.levels)
    _checks.rank("target", target, 2, "(batch, time)")
    _checks.integers("target", target, network.decoder.vocabulary_size)
    return jnp.asarray(source), jnp.asarray(target).astype(jnp.int32)


def _read(network: Network, source: Any) -> tuple[Any, ...]:
    """What the encoder takes."""
    return (source, counted(source, EOS) > 0) if isinstance(network.encoder, TextEncoder) else (source,)


def _first(network: Network, source: Any) -> Int[Array, " batch"]:
    return jnp.full(source.shape[:1], network.decoder.vocabulary_size, jnp.int32)


def _picked(log_probs: Any, target: Any) -> Float[Array, "batch time"]:
    return jnp.take_along_axis(log_probs, target[..., None], axis=-1)[..., 0]


def text(
    source_size: int, target_size: int, *, cell: str = "gru", num_units: int = 128, embedding_size: int = 32
) -> Network:
    """From texts of `source_size` tokens to texts of `target_size` tokens, EOS included in both.

    Raises:
        ValueError: `cell` is unknown, or a size is less than 1.
    """
    _check(cell, source_size=source_size, target_size=target_size, num_units=num_units, embedding_size=embedding_size)
    encoder = TextEncoder(source_size, cell, num_units, embedding_size)
    return Network(encoder, Decoder(target_size, cell, num_units, embedding_size))


def image(
    levels: int,
    target_size: int,
    *,
    cell: str = "gru",
    num_units: int = 128,
    embedding_size: int = 32,
    features: int = 32,
) -> Network:
    """From images of any size, whole numbers in 0..levels-1, to texts of `target_size` tokens, EOS included.

    Raises:
        ValueError: `cell` is unknown, `levels` less than 2, or a size less than 1.
    """
    _checks.at_least("levels", levels, 2)
    _check(cell, target_size=target_size, num_units=num_units, embedding_size=embedding_size, features=features)
    encoder = ImageEncoder(levels, cell, num_units, features)
    return Network(encoder, Decoder(target_size, cell, num_units, embedding_size))


def _check(cell: str, **sizes: int) -> None:
    _checks.one_of("cell", cell, tuple(recurrent.CELLS))
    for name, size in sizes.items():
        _checks.at_least(name, size, 1)


def model(
    network: Network, optimizer: optax.GradientTransformation, *, axis_name: str | None = None
) -> Model[GradientState]:
    """Maximum likelihood over batches {"source": (batch, ...), "target": (batch, time)}; log_prob is log p(y | x).

    Args:
        network: of `text` or `image`.
        optimizer: any optax optimizer.
        axis_name: the mapped axis over which gradients and metrics are averaged.
    """

    def init(key: Key, batch: Batch) -> tuple[Params, Params]:
        source, target = pairs(batch, network)
        keys = jax.random.split(key)
        encoder, _ = linen.init(network.encoder, keys[0], *_read(network, source))
        memory = encode(network, {"encoder": encoder}, source)
        decoder, _ = linen.init(network.decoder, keys[1], target[:, None], memory.state, memory)
        size, weight = network.decoder.vocabulary_size, counted(target, EOS)
        counts = jnp.zeros(size).at[target].add(weight) + 0.5
        logits = {**decoder["logits"], "bias": jnp.log(counts) - jnp.log(jnp.sum(counts))}
        return {"encoder": encoder, "decoder": {**decoder, "logits": logits}}, {}

    return gradient(
        init,
        functools.partial(loss, network=network),
        optimizer,
        log_prob=lambda state, batch: log_prob(network, state.params, *pairs(batch, network)),
        axis_name=axis_name,
    )
