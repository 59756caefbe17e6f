"""Training steps (forward, backward, Adam) of four models beside PyTorch eager, the same sizes in one process.

    python -m experiments.benchmarks.training_steps [--repeats N] [--only vae made real_nvp lstm]

Needs PyTorch (the extra `bench`). Prints the median milliseconds of a step and the median of the ratios jgen / PyTorch
within each turn (below 1: jgen is faster), as a table and as JSON. Run it on an idle machine: where other processes
hold the cores, PyTorch's OpenMP threads wait for each other and its steps were seen to take up to fifty times longer,
so the ratio says nothing.
"""

import itertools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.benchmarks import timing
from experiments.benchmarks.peers import functional, nn, torch
from jgen.autoregressive import made, rnn
from jgen.flows import real_nvp
from jgen.latent import vae
from jgen.math import likelihoods
from jgen.model import Model

RATE = 1e-3
Steps = tuple[Callable[[], Any], Callable[[], Any]]  # one training step of jgen, and one of PyTorch


def jax_step(model: Model[Any], batch: dict[str, Any]) -> Callable[[], Any]:
    """A call is one jitted, donated update of the model."""
    batch = {name: jnp.asarray(x) for name, x in batch.items()}
    update = jax.jit(model.update, donate_argnums=1)
    held, key = [jax.jit(model.init)(jax.random.key(0), batch)], jax.random.key(1)

    def step() -> Any:
        held[0], metrics = update(key, held[0], batch)
        return held[0].params, metrics

    return step


def torch_step(parameters: Any, loss: Callable[[], Any]) -> Callable[[], Any]:
    """A call is one step of Adam on `loss`."""
    optimizer = torch.optim.Adam(list(parameters), RATE)

    def step() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
        return value.item()

    return step


def binary(batch_size: int, dim: int) -> np.ndarray:
    """Bernoulli(0.3) rows."""
    return (np.random.default_rng(0).random((batch_size, dim)) < 0.3).astype(np.float32)


def step_of_made() -> Steps:
    """MADE 784-500-784, batch 128, one mask, no direct connections."""
    x, wiring = binary(128, 784), made.degrees(0, 784, (500,))
    ours = jax_step(made.model(optax.adam(RATE), hidden_sizes=(500,), direct=False), {"x": x})
    inputs, hidden = torch.tensor(wiring.inputs[0]), torch.tensor(wiring.hidden[0][0])
    masks = (hidden[:, None] >= inputs[None]).float(), (inputs[:, None] > hidden[None]).float()
    layers, data = nn.ModuleList([nn.Linear(784, 500), nn.Linear(500, 784)]), torch.tensor(x)

    def loss() -> Any:
        h = data
        for i, (layer, mask) in enumerate(zip(layers, masks, strict=True)):
            h = functional.linear(h if i == 0 else h.relu(), layer.weight * mask, layer.bias)  # pyright: ignore[reportCallIssue, reportOperatorIssue, reportArgumentType]
        return functional.binary_cross_entropy_with_logits(h, data, reduction="sum") / 128

    return ours, torch_step(layers.parameters(), loss)


def step_of_lstm() -> Steps:
    """LSTM 2×256 over 65 characters, embedding 64, T = 100, batch 64, carried state."""
    tokens = np.random.default_rng(0).integers(0, 65, (64, 101)).astype(np.int32)
    model = rnn.model(optax.adam(RATE), 65, num_units=256, num_layers=2, carried=True)
    ours = jax_step(model, {"tokens": tokens[:, 1:], "previous": tokens[:, 0]})
    embedding, lstm, head = nn.Embedding(66, 64), nn.LSTM(64, 256, 2, batch_first=True), nn.Linear(256, 65)
    data = torch.tensor(tokens, dtype=torch.long)
    held = [(torch.zeros(2, 64, 256), torch.zeros(2, 64, 256))]

    def loss() -> Any:
        h, (last, cell) = lstm(embedding(data[:, :-1]), held[0])
        held[0] = (last.detach(), cell.detach())
        return functional.cross_entropy(head(h).reshape(-1, 65), data[:, 1:].reshape(-1))

    return ours, torch_step(nn.ModuleList([embedding, lstm, head]).parameters(), loss)


def step_of_vae() -> Steps:
    """VAE 784-512-512-20 and back, Bernoulli, ReLU, batch 128."""
    x = binary(128, 784)
    networks = vae.dense((784,), likelihoods.Bernoulli(), 20, hidden_sizes=(512, 512))
    ours = jax_step(vae.model(networks, optax.adam(RATE)), {"x": x})
    encoder, decoder = dense(784, 512, 512, 40), dense(20, 512, 512, 784)
    data = torch.tensor(x)

    def loss() -> Any:
        mean, log_std = encoder(data).chunk(2, dim=1)
        logits = decoder(mean + log_std.exp() * torch.randn_like(mean))
        rate = 0.5 * (mean**2 + (2 * log_std).exp() - 1 - 2 * log_std).sum()
        return (functional.binary_cross_entropy_with_logits(logits, data, reduction="sum") + rate) / 128

    return ours, torch_step([*encoder.parameters(), *decoder.parameters()], loss)


def step_of_real_nvp() -> Steps:
    """RealNVP, D = 64, eight couplings of MLP 128×2, batch 256, real data."""
    x = np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32)
    flow = real_nvp.table_flow(64, num_layers=8, hidden_sizes=(128, 128))
    ours = jax_step(real_nvp.model(flow, optimizer=optax.adam(RATE)), {"x": x})
    nets, data = nn.ModuleList([dense(64, 128, 128, 128) for _ in range(8)]), torch.tensor(x)
    first = (torch.arange(64) < 32).float()

    def loss() -> Any:
        z, log_det = data, torch.zeros(256)
        for i, net in enumerate(nets):
            kept = first if i % 2 == 0 else 1 - first
            log_scale, shift = net(z * kept).chunk(2, dim=1)
            log_scale = log_scale.tanh() * (1 - kept)
            z, log_det = z * log_scale.exp() + shift * (1 - kept), log_det + log_scale.sum(dim=1)
        return (0.5 * z**2).sum(dim=1).mean() - log_det.mean()

    return ours, torch_step(nets.parameters(), loss)


def dense(*sizes: int) -> Any:
    """Linear layers with ReLU between them."""
    layers = [part for inputs, outputs in itertools.pairwise(sizes) for part in (nn.Linear(inputs, outputs), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


WORKLOADS: dict[str, Callable[[], Steps]] = {
    "vae": step_of_vae,
    "made": step_of_made,
    "real_nvp": step_of_real_nvp,
    "lstm": step_of_lstm,
}


def main(repeats: int = 15, only: tuple[str, ...] = tuple(WORKLOADS)) -> None:
    """Measures and prints.

    Args:
        repeats: turns of each workload, after three that are left out.
        only: the workloads to measure.
    """
    rows = []
    for name in only:
        build = WORKLOADS[name]
        ours, theirs = build()
        found = timing.take_turns({"jgen": timing.clock(ours), "torch": timing.clock(theirs)}, repeats, warm_up=3)
        median = {side: 1e3 * statistics.median(values) for side, values in found.items()}
        ratio = timing.ratio(found["jgen"], found["torch"])
        title = (build.__doc__ or name).strip().rstrip(".")
        rows.append({"step": title, "jgen ms": median["jgen"], "PyTorch ms": median["torch"], "ratio": ratio})
    timing.report("training_steps", rows, torch=torch.__version__, repeats=repeats)


if __name__ == "__main__":
    tyro.cli(main)
