"""Vector quantization: the nearest of K codes, and how the codes learn.

    k = argmin_c ‖z − e_c‖²,    z_q = e_k in value, ∂z_q/∂z = I in gradient (straight through)
    N_c ← γN_c + (1−γ)n_c,   m_c ← γm_c + (1−γ)Σ_{k=c} z,   e_c = m_c / N_c     (moving average)

n_c counts the vectors of a batch that code c is nearest to. N starts at 1 and m at the codes, so a code that nothing
uses stays where it is; N smoothed by ε, (N_c + ε)/(ΣN + Kε)·ΣN, enters the quotient and is never stored. A code is dead
once N_c falls below a share of the mean: it then moves to an encoder output of the batch.

Paper: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation Learning", 2017, equations 1 to 3 and
appendix A.1.
Differs from the paper: codes start at encoder outputs of the first batch, not at random; dead codes are revived.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Num

from jgen import _checks
from jgen._types import Key, Scalar
from jgen.math import discrete

LEARNING = ("average", "gradient")
EPSILON = 1e-5
"""Of the smoothed counts."""


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """How many codes there are, and how they learn.

    Attributes:
        num_codes: K.
        learning: "average", or "gradient" of ‖sg z − e_k‖² summed over an example.
        commitment: β, the weight of ‖z − sg e_k‖² summed over an example.
        decay: γ of the moving averages; with "gradient" they only tell which codes are dead.
        revive_below: a code is dead below this share of the mean count; 0 revives none.
        cool_down: updates after its start or revival for which a code is left alone.
    """

    num_codes: int
    learning: str = "average"
    commitment: float = 0.25
    decay: float = 0.99
    revive_below: float = 0.01
    cool_down: int = 100

    def __post_init__(self) -> None:
        _checks.at_least("num_codes", self.num_codes, 2)
        _checks.one_of("learning", self.learning, LEARNING)
        _checks.at_least("commitment", self.commitment, 0)
        _checks.at_least("cool_down", self.cool_down, 0)
        for name in ("decay", "revive_below"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"`{name}` must be in [0, 1), got {getattr(self, name)}.")


class Codebook(NamedTuple):
    """The codes, and who used them lately.

    Attributes:
        codes: e.
        counts: N, vectors per batch.
        sums: m.
        ages: updates since each code started or was revived.
    """

    codes: Float[Array, "codes dim"]
    counts: Float[Array, " codes"]
    sums: Float[Array, "codes dim"]
    ages: Int[Array, " codes"]


def start(codes: Float[Array, "codes dim"]) -> Codebook:
    """N = 1 and m = e: the codes keep their places until they are used."""
    num = codes.shape[0]
    return Codebook(codes, jnp.ones(num), codes, jnp.zeros(num, jnp.int32))


def from_data(key: Key, z: Float[Array, "*batch dim"], num_codes: int) -> Float[Array, "codes dim"]:
    """Codes at `num_codes` of the vectors, all of them different ones where there are as many."""
    rows = z.reshape(-1, z.shape[-1])
    order = jax.random.permutation(key, rows.shape[0])
    return rows[order[jnp.arange(num_codes) % rows.shape[0]]]


def nearest(z: Float[Array, "*batch dim"], codes: Float[Array, "codes dim"]) -> Int[Array, "*batch"]:
    """k = argmin_c ‖z − e_c‖², the first of equals.

    Distances are taken from the codes' mean and multiplied at the highest precision: in the ‖e‖² − 2z·e of codes far
    from zero, rounding would decide.
    """
    center = jnp.mean(codes, axis=0)[None]
    rows, codes = z.reshape(-1, z.shape[-1]) - center, codes - center
    products = jnp.matmul(rows, codes.T, precision="highest")
    scores = jnp.sum(jnp.square(codes), axis=-1)[None] - 2 * products
    return jnp.argmin(scores, axis=-1).astype(jnp.int32).reshape(z.shape[:-1])


@jax.custom_jvp
def straight_through(z: Float[Array, "*batch dim"], e: Float[Array, "*batch dim"]) -> Float[Array, "*batch dim"]:
    """e, bit for bit, with the gradient of z: z + sg(e − z) would round."""
    del z
    return e


@straight_through.defjvp
def _straight_through(primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return primals[1], tangents[0]


def usage(k: Int[Array, "*batch"], num_codes: int) -> Float[Array, " codes"]:
    """n, how often each code occurs."""
    return jnp.zeros(num_codes).at[k.reshape(-1)].add(1.0)


def perplexity(counts: Num[Array, " codes"]) -> Scalar:
    """exp H of the codes' frequencies: K where all are used alike, 1 where one is alone.

    Counts of one batch bound it by the batch's size: sum over as many vectors as there are.
    """
    p = counts / jnp.sum(counts)
    return jnp.exp(jnp.sum(jax.scipy.special.entr(p)))


def share_used(counts: Num[Array, " codes"]) -> Scalar:
    """The share of codes that occur at all."""
    return jnp.mean((counts > 0).astype(jnp.float32))


def log_frequencies(counts: Float[Array, " codes"]) -> Float[Array, " codes"]:
    """log p(c), nats, by the moving counts; a code that is never used counts as one in a hundred batches."""
    return jnp.log(discrete.frequencies(counts, 0.01))


def moving_average(
    book: Codebook, counts: Float[Array, " codes"], sums: Float[Array, "codes dim"], decay: float
) -> Codebook:
    """One step of N, m and e towards a batch's counts n and sums Σz; codes that it does not use keep their place."""
    new_counts = decay * book.counts + (1 - decay) * counts
    new_sums = decay * book.sums + (1 - decay) * sums
    total = jnp.sum(new_counts)
    smoothed = (new_counts + EPSILON) / (total + len(counts) * EPSILON) * total
    codes = jnp.where(counts[:, None] > 0, new_sums / smoothed[:, None], book.codes)
    return book._replace(codes=codes, counts=new_counts, sums=new_sums)


def revive(
    key: Key, book: Codebook, z: Float[Array, "vectors dim"], quantizer: Quantizer, axis_name: str | None = None
) -> tuple[Codebook, Scalar]:
    """Moves each dead code to a random vector of the whole batch, N = 1, m = e; also how many were dead.

    Code c draws from the c-th of K equal parts of the batch, so that no two codes move to one place. Every shard draws
    the same places, and the shard that holds a vector sends it to the others.
    """
    num_codes = len(book.counts)
    dead = (book.counts < quantizer.revive_below * jnp.mean(book.counts)) & (book.ages >= quantizer.cool_down)
    num_shards = 1 if axis_name is None else jax.lax.axis_size(axis_name)
    places = (jnp.arange(num_codes) + jax.random.uniform(key, (num_codes,))) * (len(z) * num_shards / num_codes)
    rows = _rows(z, jnp.minimum(places.astype(jnp.int32), len(z) * num_shards - 1), axis_name)
    book = Codebook(
        jnp.where(dead[:, None], rows, book.codes),
        jnp.where(dead, 1.0, book.counts),
        jnp.where(dead[:, None], rows, book.sums),
        jnp.where(dead, 0, book.ages + 1),
    )
    return book, jnp.sum(dead.astype(jnp.float32))


def _rows(z: Any, places: Any, axis_name: str | None) -> Any:
    """Rows of the whole batch, of which `z` is the shard's part."""
    if axis_name is None:
        return z[places]
    local = places - jax.lax.axis_index(axis_name) * len(z)
    mine = (local >= 0) & (local < len(z))
    return jax.lax.psum(jnp.where(mine[:, None], z[jnp.clip(local, 0, len(z) - 1)], 0.0), axis_name)


def advance(
    key: Key,
    book: Codebook,
    z: Float[Array, "*batch dim"],
    k: Int[Array, "*batch"],
    quantizer: Quantizer,
    axis_name: str | None = None,
) -> tuple[Codebook, dict[str, Scalar]]:
    """What an update does to the codebook: counts, moving averages, revivals; and `perplexity` and `revived`.

    With `axis_name`, counts and sums are those of the whole batch, and equal on all shards. With learning by gradient
    the codes move by revival alone; the age of those that did is 0.
    """
    rows = jax.lax.stop_gradient(z.reshape(-1, z.shape[-1]))
    book = jax.lax.stop_gradient(book)
    counts = usage(k, len(book.counts))
    # A product of matrices, not a scattered sum: that adds in an order of its own each time on a GPU.
    member = jax.nn.one_hot(k.reshape(-1), len(book.counts))
    sums = jnp.matmul(member.T, rows, precision="highest")
    if axis_name is not None:
        counts, sums = jax.lax.psum((counts, sums), axis_name)
    moved = moving_average(book, counts, sums, quantizer.decay)
    if quantizer.learning == "gradient":
        moved = moved._replace(codes=book.codes)
    book, revived = revive(key, moved, rows, quantizer, axis_name)
    return book, {"perplexity": perplexity(counts), "revived": revived}
