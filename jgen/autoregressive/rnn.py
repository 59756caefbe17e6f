"""Recurrent language models: the past enters through a state of fixed size, whatever its length.

    log p(x) = Σ_t log p(x_t | x_<t),   p(· | x_<t) = softmax(V h_t + b),   h_t = cell(embedding of x_{t−1}, h_{t−1})

x_0 is a START symbol. Strings may end with an EOS token: what follows it is padding and counts nothing.
Windows of one long text are learned with the state carried from window to window, its gradient cut (truncated
back-propagation through time).
Graves: Generating Sequences With Recurrent Neural Networks, 2013. Karpathy: char-rnn, 2015.

Differs from char-rnn: dropout masks are drawn once per example and window and shared over time (Gal and Ghahramani,
2016); recurrent weights start orthogonal and output biases at the log-frequencies of the tokens.
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
from jgen.autoregressive.decoding import Decoding, next_token, token_noise
from jgen.autoregressive.tokens import counted, shifted, tokens_of
from jgen.learners import GradientState, gradient
from jgen.math import discrete
from jgen.model import Model
from jgen.nets import recurrent

Carry = tuple[recurrent.State, ...]


class RNN(nn.Module):
    """Logits of the next token, (batch, time, vocabulary), and the state after the last.

    Attributes:
        vocabulary_size: V; input token V is START.
        cell: "vanilla", "gru" or "lstm".
        num_units: the size of each layer's state.
        num_layers: recurrent layers, one above the other.
        embedding_size: the size of a token's vector.
    """

    vocabulary_size: int
    cell: str = "lstm"
    num_units: int = 128
    num_layers: int = 1
    embedding_size: int = 64

    @nn.compact
    def __call__(
        self, inputs: Int[Array, "batch time"], carry: Carry, masks: Any = None
    ) -> tuple[Float[Array, "batch time vocabulary"], Carry]:
        """`masks` multiplies the output of each layer, one (batch, num_units) array per layer; None for no dropout."""
        start = nn.initializers.normal(1.0)
        x = nn.Embed(self.vocabulary_size + 1, self.embedding_size, embedding_init=start, name="embedding")(inputs.T)
        after = []
        for i, state in enumerate(carry):
            x, state = recurrent.Recurrent(self.cell, self.num_units, name=f"layer_{i}")(x, state)
            x = x if masks is None else x * masks[i][None]
            after.append(state)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (self.num_units, self.vocabulary_size))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.vocabulary_size,))
        return jnp.swapaxes(x @ kernel + bias[None, None], 0, 1), tuple(after)


def zero_carry(module: RNN, batch_size: int) -> Carry:
    """The state in which a text begins."""
    return tuple(recurrent.zero_state(module.cell, batch_size, module.num_units) for _ in range(module.num_layers))


def token_log_prob(
    module: RNN,
    params: Params,
    tokens: Int[Array, "batch time"],
    *,
    previous: Int[Array, " batch"] | None = None,
    carry: Carry | None = None,
    masks: Any = None,
) -> tuple[Float[Array, "batch time"], Carry]:
    """log p(x_t | x_<t) of each token in nats, and the state after the last.

    Args:
        previous: the token before the first; START where it is absent or equals the vocabulary's size.
        carry: the state before the first; zeros by default.
    """
    num = tokens.shape[0]
    inputs = shifted(tokens, previous, module.vocabulary_size)
    carry = zero_carry(module, num) if carry is None else carry
    logits, last = linen.apply(module, params, {}, inputs, carry, masks)
    return discrete.categorical_log_prob(logits, tokens), last


def stream_log_prob(
    module: RNN, params: Params, tokens: Int[Array, " length"], *, window: int = 512
) -> Float[Array, ""]:
    """log p of one long text in nats, its state carried from the first token to the last.

    Raises:
        ValueError: `tokens` is empty, or `window` is less than 1.
    """
    _checks.at_least("window", window, 1)
    _checks.at_least("len(tokens)", tokens.shape[0], 1)
    window = min(window, tokens.shape[0])
    num = tokens.shape[0] // window
    first = jnp.full((1,), module.vocabulary_size, tokens.dtype)

    def step(before: Any, tokens: Any) -> Any:
        previous, carry = before
        each, carry = token_log_prob(module, params, tokens[None], previous=previous, carry=carry)
        return (tokens[-1:], carry), jnp.sum(each)

    whole = tokens[: num * window].reshape(num, window)
    last, sums = jax.lax.scan(step, (first, zero_carry(module, 1)), whole)
    rest = tokens[num * window :]
    return jnp.sum(sums) + (step(last, rest)[1] if rest.shape[0] else 0.0)


def sample(
    module: RNN,
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
) -> Int[Array, "num length"]:
    """Draws token after token, the state being the cache. Example i draws from (key, i).

    Args:
        temperature, top_k, top_p, eos: of `Decoding`.
        prompt: tokens every text starts with; they are not returned.

    Raises:
        ValueError: `length`, or how to draw, is out of its range.
    """
    how = Decoding(temperature, top_k, top_p, eos)
    _checks.at_least("length", length, 1)
    first, carry = jnp.full((num,), module.vocabulary_size, jnp.int32), zero_carry(module, num)
    if prompt is not None and prompt.shape[0]:
        said = jnp.concatenate(
            [first[:, None], jnp.broadcast_to(prompt[None, :-1], (num, prompt.shape[0] - 1))], axis=1
        )
        carry = linen.apply(module, params, {}, said, carry)[1]
        first = jnp.full((num,), prompt[-1])
    keys = random.example_keys(key, num)

    def step(before: Any, t: Any) -> Any:
        token, carry, ended = before
        logits, carry = linen.apply(module, params, {}, token[:, None], carry)
        noise = token_noise(keys, t, module.vocabulary_size)
        token, ended = next_token(logits[:, 0], noise, ended, how)
        return (token, carry, ended), token

    tokens = jax.lax.scan(step, (first, carry, jnp.zeros((num,), bool)), jnp.arange(length))[1]
    return tokens.T


def loss(
    key: Key,
    params: Params,
    stats: Params,
    batch: Batch,
    /,
    *,
    train: bool,
    module: RNN,
    dropout_rate: float = 0.0,
    eos: int | None = None,
) -> tuple[Scalar, tuple[Params, Metrics]]:
    """Mean −log p(x_t | x_<t) in nats over the batch's counted tokens; training goes on from `stats["carry"]`."""
    tokens = tokens_of(batch, module.vocabulary_size)
    keys = random.batch_keys(key, batch)
    masks = recurrent.dropout_masks(keys, module.num_layers, module.num_units, dropout_rate) if train else None
    carry = _before(stats, batch, module.vocabulary_size) if train else None
    each, carry = token_log_prob(module, params, tokens, previous=batch.get("previous"), carry=carry, masks=masks)
    weight = counted(tokens, eos)
    nll, num = -jnp.sum(each * weight, axis=1), jnp.sum(weight, axis=1)
    value = jnp.sum(nll) / jnp.sum(num)
    if not train:
        return value, (stats, {"nll": nll, "nats_per_token": nll / num})
    return value, (_after(stats, carry, batch), {"nats_per_token": value})


def model(
    optimizer: optax.GradientTransformation,
    vocabulary_size: int,
    *,
    cell: str = "lstm",
    num_units: int = 128,
    num_layers: int = 1,
    embedding_size: int = 64,
    dropout_rate: float = 0.0,
    length: int = 100,
    eos: int | None = None,
    carried: bool = False,
    temperature: float = 1.0,
    axis_name: str | None = None,
) -> Model[GradientState]:
    """A recurrent language model over batches {"tokens": (batch, time)}, trained by maximum likelihood.

    With `carried`, row i of a batch goes on where row i of the batch before it ended: the batch has "previous",
    (batch,), the token before each row, or `vocabulary_size` (START) where a stream begins and the state is zero. The
    states live in `stats["carry"]`.

    Args:
        optimizer: any optax optimizer.
        vocabulary_size: V; tokens are 0..V-1.
        dropout_rate: of each layer's outputs.
        length: how many tokens `sample` draws.
        eos: the token that ends a string, if any does.
        carried: batches are consecutive windows of streams.
        temperature: of `sample`; the log-probabilities never have it.
        axis_name: the mapped axis over which gradients and metrics are averaged.

    Raises:
        ValueError: `cell` is unknown, or a size, `dropout_rate`, `eos` or `temperature` is out of its range.
    """
    _checks.one_of("cell", cell, tuple(recurrent.CELLS))
    for name, value in (("vocabulary_size", vocabulary_size), ("num_units", num_units), ("num_layers", num_layers)):
        _checks.at_least(name, value, 1)
    if not 0.0 <= dropout_rate < 1.0:
        raise ValueError(f"`dropout_rate` must be in [0, 1), got {dropout_rate}.")
    if eos is not None:
        _checks.integers("eos", eos, vocabulary_size)
    _checks.at_least("length", length, 1)
    _checks.at_least("temperature", temperature, 0.0)
    module = RNN(vocabulary_size, cell, num_units, num_layers, embedding_size)

    def draw(key: Key, state: GradientState, num: int) -> Batch:
        return {"tokens": sample(module, key, state.params, num, length, temperature=temperature, eos=eos)}

    def mass(state: GradientState, batch: Batch) -> Float[Array, " batch"]:
        tokens = tokens_of(batch, vocabulary_size)
        each, _ = token_log_prob(module, state.params, tokens, previous=batch.get("previous"))
        return jnp.sum(each * counted(tokens, eos), axis=1)

    return gradient(
        functools.partial(_init, module, carried),
        functools.partial(loss, module=module, dropout_rate=dropout_rate, eos=eos),
        optimizer,
        sample=draw,
        log_prob=mass,
        axis_name=axis_name,
    )


def _init(module: RNN, carried: bool, key: Key, batch: Batch) -> tuple[Params, Params]:
    tokens = tokens_of(batch, module.vocabulary_size)
    carry = zero_carry(module, tokens.shape[0])
    params, _ = linen.init(module, key, tokens, carry)
    counts = jnp.bincount(tokens.reshape(-1), length=module.vocabulary_size)
    bias = jnp.log(counts + 0.5) - jnp.log(tokens.size + 0.5 * module.vocabulary_size)
    return {**params, "bias": bias}, {"carry": carry} if carried else {}


def _before(stats: Params, batch: Batch, start: int) -> Carry | None:
    """The carried state of this batch's (or shard's) rows, zero where a stream begins; None where none is carried."""
    if "carry" not in stats:
        return None
    fresh = (batch["previous"] == start)[:, None]
    rows = batch.get(random.INDEX)
    return jax.tree.map(lambda s: jnp.where(fresh, 0.0, s if rows is None else s[rows]), stats["carry"])


def _after(stats: Params, carry: Carry, batch: Batch) -> Params:
    """The stats of the next update. A shard writes its rows times the number of shards: the learner takes the mean."""
    if "carry" not in stats:
        return stats
    rows = batch.get(random.INDEX)

    def whole(new: Any, old: Any) -> Any:
        new = jax.lax.stop_gradient(new)
        return new if rows is None else jnp.zeros_like(old).at[rows].set(new * (old.shape[0] / new.shape[0]))

    return {"carry": jax.tree.map(whole, carry, stats["carry"])}
