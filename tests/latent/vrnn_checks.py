"""VRNNs that are linear-Gaussian, whose log-likelihood is known exactly.

first order:  z_t ~ N(a x_{t−1}, q),  x_t ~ N(z_t, r), so that log p(x) is that of an AR(1): the state is x_{t−1}
state space:  z_t ~ N(a z_{t−1}, q),  x_t ~ N(z_t, r), so that log p(x) is the Kalman filter's
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.stats
from flax import linen as nn

from jgen.latent import vrnn
from jgen.math import likelihoods
from jgen.nets.mlp import MLP

A, Q, R = 0.9, 1.0, 1.0
GAIN = Q / (Q + R)
"""Of x_t in the mean of p(z_t | z_{t−1}, x_t)."""
POSTERIOR_STD = np.sqrt(Q * R / (Q + R))
SAME = MLP(())


class Row(nn.Module):
    """(n, inputs) @ weights, given as numbers, beside a constant log standard deviation; nothing is learned."""

    weights: tuple[float, ...]
    std: float

    @nn.compact
    def __call__(self, x: Any) -> Any:
        mean = x @ jnp.asarray(self.weights, jnp.float32)[:, None]
        # from_raw bounds log σ by 6·tanh(·/6), which this undoes.
        return jnp.concatenate([mean, jnp.full_like(mean, 6 * np.arctanh(np.log(self.std) / 6))], axis=-1)


class Pick(nn.Module):
    """One of the inputs as raw parameters (n, 1, 1) of a Gaussian of fixed scale."""

    column: int = 0

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return x[:, self.column : self.column + 1, None]


class Backward(nn.Module):
    """q(z_t | z_{t−1}, x_{t:T}) of the state space from its information (η, Λ), as a difference to the prior's mean."""

    @nn.compact
    def __call__(self, inputs: Any) -> Any:
        information, precision, before = inputs[:, :1], inputs[:, 1:2], inputs[:, 2:3]
        whole = precision + 1 / Q
        mean = (information + A * before / Q) / whole
        return jnp.concatenate([mean - A * before, 6 * jnp.arctanh(-0.5 * jnp.log(whole) / 6)], axis=-1)


def copy(pre: Any, recurrent: Any, state: Any) -> Any:
    """A cell whose state is what it is given."""
    del recurrent, state
    return (pre,)


def inform(pre: Any, recurrent: Any, state: Any) -> Any:
    """A cell whose state is the information of x_{t:T} on z_t; `pre` is (x_t, any)."""
    del recurrent
    information, precision = state[0][:, :1], state[0][:, 1:2]
    whole = 1 + Q * precision
    after = pre[:, :1] / R + A * information / whole, 1 / R + A**2 * precision / whole
    return (jnp.concatenate(after, axis=-1),)


def add_cells(monkeypatch: Any) -> None:
    """The cells of this file among those of the library."""
    monkeypatch.setitem(vrnn.recurrent.CELLS, "copy", (copy, 1, 1))
    monkeypatch.setitem(vrnn.recurrent.CELLS, "inform", (inform, 1, 1))


def first_order() -> tuple[vrnn.Network, Any]:
    """(network, params): h_t = x_t."""
    posterior = Row((GAIN, (1 - GAIN) * A), POSTERIOR_STD)
    return _network(Row((A,), np.sqrt(Q)), posterior, "copy"), _cell([[1.0], [0.0]])


def state_space() -> tuple[vrnn.Network, Any]:
    """(network, params): h_t = z_t, and the posterior p(z_t | z_{t−1}, x_t)."""
    posterior = Row((GAIN, (1 - GAIN) * A), POSTERIOR_STD)
    return _network(Row((A,), np.sqrt(Q)), posterior, "copy"), _cell([[0.0], [1.0]])


def smoothing() -> tuple[vrnn.Network, Any]:
    """(network, params): the same state space, with its exact posterior."""
    network = _network(Row((0.0, 0.0, A), np.sqrt(Q)), Backward(), "inform", num_units=2, smoothing=True)
    layer = {"recurrent": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    params = _cell([[0.0]])
    params["cell"] = {**layer, "input": jnp.zeros((1, 2))}
    params["backward"] = {**layer, "input": jnp.zeros((3, 2)).at[0, 0].set(1.0)}
    return network, params


def styled(length: int) -> tuple[vrnn.Network, Any]:
    """(network, params): x_t ~ N(s, r) for all t of `length`, s ~ N(0, 1), with its exact posterior of s; no z."""
    total = length + R
    style = Row((length / total,), np.sqrt(R / total))
    network = _network(SAME, SAME, "copy", decoder=Pick(1), latent_size=0, style=style, style_size=1)
    params = _cell([[0.0], [0.0]])
    return network, params | {"summary": {**params["cell"], "input": jnp.ones((1, 1))}}


def _network(prior: nn.Module, posterior: nn.Module, cell: str, **sizes: Any) -> vrnn.Network:
    likelihood = likelihoods.Gaussian(float(np.sqrt(R)))
    sizes = {"decoder": Pick(), "latent_size": 1, "num_units": 1, **sizes}
    return vrnn.Network(likelihood, SAME, SAME, prior, posterior, cell=cell, **sizes)


def _cell(weights: list[list[float]]) -> Any:
    own = {"input": jnp.asarray(weights), "recurrent": jnp.zeros((1, 1)), "bias": jnp.zeros(1)}
    empty = {name: {} for name in ("features", "latent_features", "prior", "posterior", "decoder", "style", "summary")}
    return {"offset": jnp.zeros((1, 1)), "cell": own, **empty}


def auto_regressive(x: Any) -> np.ndarray:
    """Exact log p of each row (n, T) where x_t ~ N(a x_{t−1}, q + r)."""
    before = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 0)))[:, :-1]
    return scipy.stats.norm.logpdf(x, A * before, np.sqrt(Q + R)).sum(axis=1)


def kalman(x: Any) -> np.ndarray:
    """Exact log p of each row (n, T) of the state space, from z_0 = 0."""
    x = np.asarray(x, np.float64)
    mean, variance, total = np.zeros(len(x)), 0.0, np.zeros(len(x))
    for t in range(x.shape[1]):
        mean, variance = A * mean, A**2 * variance + Q
        total += scipy.stats.norm.logpdf(x[:, t], mean, np.sqrt(variance + R))
        gain = variance / (variance + R)
        mean, variance = mean + gain * (x[:, t] - mean), (1 - gain) * variance
    return total


def draws(num: int, length: int) -> np.ndarray:
    """(num, length) observations of the state space."""
    generator = np.random.default_rng(0)
    z, x = np.zeros(num), np.zeros((num, length))
    for t in range(length):
        z = A * z + np.sqrt(Q) * generator.normal(size=num)
        x[:, t] = z + np.sqrt(R) * generator.normal(size=num)
    return x


def batch_of(x: Any) -> dict[str, Any]:
    """Rows (n, T) as sequences of frames of one value."""
    return {"x": jnp.asarray(x, jnp.float32)[..., None]}
