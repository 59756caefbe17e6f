"""Transformer language models: every token attends to all tokens before it, within a context of fixed length.

    log p(x) = Σ_t log p(x_t | x_<t),    p(· | x_<t) = softmax(E h_t + b),    h = Stack(E x_{t−1} + position_t)

x_0 is a START symbol; the table E of token vectors serves at both ends. Strings may end with an EOS token: what follows
it is padding and counts nothing. A text longer than the context is read, and drawn, through windows that overlap.
Vaswani et al.: Attention Is All You Need, 2017. Radford et al.: GPT-2, 2019. Karpathy: nanoGPT, 2022.

Differs from nanoGPT: no dropout of attention weights; an output bias, which starts at the log-frequencies of the
tokens; a START symbol.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jgen import _checks, linen, random
from jgen._types import Batch, Key, Metrics, Params, Scalar
from jgen.autoregressive import sliding_window
from jgen.autoregressive.decoding import Decoding, next_token, token_noise
from jgen.autoregressive.tokens import counted, shifted, tokens_of
from jgen.learners import GradientState, gradient
from jgen.math import discrete
from jgen.model import Model
from jgen.nets import attention

METHODS = ("cached", "naive")


class Transformer(nn.Module):
    """Logits of the next token, (batch, time, vocabulary), and the cache after the last.

    Attributes:
        vocabulary_size: V; input token V is START.
        context: T, the largest number of inputs.
        num_layers: blocks of attention and MLP.
        num_heads: of the attention.
        width: of the vectors between the layers.
        positions: "learned" or "sinusoidal".
        dropout_rate: of the embedded inputs and of what each branch adds.
    """

    vocabulary_size: int
    context: int
    num_layers: int = 4
    num_heads: int = 4
    width: int = 64
    positions: str = "learned"
    dropout_rate: float = 0.0

    @nn.compact
    def __call__(
        self, inputs: Int[Array, "batch time"], cache: attention.Cache | None = None, start: Any = 0
    ) -> tuple[Float[Array, "batch time vocabulary"], attention.Cache]:
        """Without `cache` the inputs are a sequence from its begin, else those of the positions from `start` on."""
        if inputs.shape[1] > self.context:
            raise ValueError(f"`tokens` must have at most {self.context} columns, the context, got {inputs.shape[1]}.")
        table = self.param("embedding", nn.initializers.normal(attention.SCALE), (self.vocabulary_size + 1, self.width))
        place = attention.Positions(self.positions, self.context, self.width, name="positions")
        x = table[inputs] + place(start + jnp.arange(inputs.shape[1]))[None]
        h, cache = attention.Stack(self.num_layers, self.num_heads, self.dropout_rate, name="stack")(x, cache, start)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.vocabulary_size,))
        return h @ table[:-1].T + bias[None, None], cache


def token_log_prob(
    module: Transformer,
    params: Params,
    tokens: Int[Array, "batch time"],
    *,
    previous: Int[Array, " batch"] | None = None,
    keys: Any = None,
) -> Float[Array, "batch time"]:
    """log p(x_t | x_<t) of each token in nats.

    Args:
        previous: the token before the first; START where it is absent or equals the vocabulary's size.
        keys: one per row, of its dropout; None switches dropout off.
    """
    inputs = shifted(tokens, previous, module.vocabulary_size)
    if keys is None:
        logits = linen.apply(module, params, {}, inputs)[0]
    else:
        apply = jax.vmap(lambda row, key: linen.apply(module, params, {}, row[None], key=key)[0][0])
        logits = apply(inputs, keys)
    return discrete.categorical_log_prob(logits, tokens)


def stream_log_prob(
    module: Transformer, params: Params, tokens: Int[Array, " length"], *, overlap: int = 0, batch_size: int = 16
) -> Float[Array, ""]:
    """log p of one long text in nats, through windows of the context's length; every token counts once.

    Args:
        overlap: tokens of a window that were counted in the one before it. 0 is the mean over windows, whose tokens see
            1 … T tokens before them; T // 2 is the sliding window, where they see more than T // 2, and the law that
            `sample` draws from.
        batch_size: windows in one pass.

    Raises:
        ValueError: `tokens` is empty, or `overlap` is not in 0..T-1.
    """
    return sliding_window.log_prob(
        lambda tokens, previous: token_log_prob(module, params, tokens, previous=previous),
        tokens,
        context=module.context,
        start=module.vocabulary_size,
        overlap=overlap,
        batch_size=batch_size,
    )


def attention_maps(
    module: Transformer, params: Params, tokens: Int[Array, "batch time"]
) -> Float[Array, "layers batch heads queries keys"]:
    """The attention weights of each layer and head; query t predicts x_t, key 0 is START, key t is x_{t−1}."""
    inputs = shifted(tokens, None, module.vocabulary_size)
    _, kept = linen.apply_and_update(module, params, {"intermediates": {}}, inputs)
    return attention.maps(kept["intermediates"]["stack"])


def sample(
    module: Transformer,
    key: Key,
    params: Params,
    num: int,
    length: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    eos: int | None = None,
    prompt: Int[Array, " prompt"] | None = None,
    method: str = "cached",
) -> Int[Array, "num length"]:
    """Draws token after token. Example i draws from (key, i).

    Args:
        length: tokens to draw; beyond the context, they see what the windows of `stream_log_prob` that overlap by half
            show them.
        temperature, top_k, top_p, eos: of `Decoding`.
        prompt: tokens every text starts with, read in one pass; they are not returned.
        method: "cached" computes one position per token, "naive" a whole window.

    Raises:
        ValueError: `length`, `method`, or how to draw, is out of its range.
    """
    how = Decoding(temperature, top_k, top_p, eos)
    _checks.at_least("length", length, 1)
    _checks.one_of("method", method, METHODS)
    keys = random.example_keys(key, num)

    def draw(logits: Any, ended: Any, t: Any) -> Any:
        return next_token(logits, token_noise(keys, t, module.vocabulary_size), ended, how)

    said = jnp.full((1,), module.vocabulary_size, jnp.int32)
    said = said if prompt is None else jnp.concatenate([said, prompt.astype(jnp.int32)])
    window = functools.partial({"cached": _cached, "naive": _naive}[method], module, params, draw)
    return sliding_window.sample(window, said, num, length, context=module.context, overlap=module.context // 2)


def _cached(module: Transformer, params: Params, draw: Any, given: Any, ended: Any, t: Any, num_new: int) -> Any:
    """`num_new` tokens after `given`: what is given in one pass, then one position per token."""
    num_given = given.shape[1]
    logits, cache = linen.apply(module, params, {}, given)
    token, ended = draw(logits[:, -1], ended, t)
    if num_new == 1:
        return token[:, None], ended

    def step(cache: Any, carry: Any, position: Any, t: Any) -> Any:
        token, ended = carry
        logits, cache = linen.apply(module, params, {}, token[:, None], cache, position)
        carry = draw(logits[:, 0], ended, t)
        return cache, carry, carry[0]

    (_, ended), rest = attention.scan(step, cache, (token, ended), t + jnp.arange(1, num_new), num_given)
    return jnp.concatenate([token[:, None], rest.T], axis=1), ended


def _naive(module: Transformer, params: Params, draw: Any, given: Any, ended: Any, t: Any, num_new: int) -> Any:
    """The same by one pass over the whole window per token: the definition that the cache is tested against."""
    num_given = given.shape[1]
    inputs = jnp.pad(given, ((0, 0), (0, num_new)))

    def step(i: Any, carry: Any) -> Any:
        inputs, ended = carry
        logits = linen.apply(module, params, {}, inputs[:, :-1])[0]
        token, ended = draw(logits[:, num_given - 1 + i], ended, t + i)
        return inputs.at[:, num_given + i].set(token), ended

    inputs, ended = jax.lax.fori_loop(0, num_new, step, (inputs, ended))
    return inputs[:, num_given:], ended


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    /,
    *,
    train: bool,
    module: Transformer,
    eos: int | None = None,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean −log p(x_t | x_<t) in nats over the batch's counted tokens."""
    tokens = tokens_of(batch, module.vocabulary_size)
    keys = random.batch_keys(key, batch) if train and module.dropout_rate else None
    each = token_log_prob(module, params, tokens, previous=batch.get("previous"), keys=keys)
    weight = counted(tokens, eos)
    nll, num = -jnp.sum(each * weight, axis=1), jnp.sum(weight, axis=1)
    value = jnp.sum(nll) / jnp.sum(num)
    return value, (stats, {"nats_per_token": value} if train else {"nll": nll, "nats_per_token": nll / num})


def model(
    module: Transformer,
    optimizer: optax.GradientTransformation,
    *,
    length: int | None = None,
    eos: int | None = None,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """A Transformer over batches {"tokens": (batch, time)}, time ≤ context, trained by maximum likelihood.

    A batch may hold "previous", (batch,), the token before each row, or `vocabulary_size` (START); without it all rows
    begin a text.

    Args:
        module: the network.
        optimizer: any optax optimizer.
        length: how many tokens `sample` draws; the context by default.
        eos: the token that ends a string, if any does.
        axis_name: the mapped axis over which gradients and metrics are averaged.

    Raises:
        ValueError: a size of `module`, `eos` or `length` is out of its range.
    """
    for name in ("vocabulary_size", "context"):
        _checks.at_least(name, getattr(module, name), 1)
    attention.check_sizes(module.width, module.num_heads, module.num_layers, module.positions, module.dropout_rate)
    if eos is not None:
        _checks.integers("eos", eos, module.vocabulary_size)
    length = module.context if length is None else length
    _checks.at_least("length", length, 1)

    def draw(key: Key, state: GradientState, num: int) -> Batch:
        return {"tokens": sample(module, key, state.params, num, length, eos=eos)}

    def mass(state: GradientState, batch: Batch) -> Float[Array, " batch"]:
        tokens = tokens_of(batch, module.vocabulary_size)
        each = token_log_prob(module, state.params, tokens, previous=batch.get("previous"))
        return jnp.sum(each * counted(tokens, eos), axis=1)

    objective = functools.partial(loss, module=module, eos=eos)
    return gradient(
        functools.partial(_init, module, eos), objective, optimizer, sample=draw, log_prob=mass, axis_name=axis_name
    )


def _init(module: Transformer, eos: int | None, key: Key, batch: Batch) -> tuple[Params, Params]:
    tokens = tokens_of(batch, module.vocabulary_size)
    params, _ = linen.init(module, key, tokens[:1])
    weight = counted(tokens, eos).reshape(-1)
    counts = jnp.bincount(tokens.reshape(-1), weights=weight, length=module.vocabulary_size)
    bias = jnp.log(counts + 0.5) - jnp.log(jnp.sum(weight) + 0.5 * module.vocabulary_size)
    return {**params, "bias": bias}, {}
