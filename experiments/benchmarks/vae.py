"""VAE: training steps beside PyTorch, eager and compiled; ways to faster convolutions; what K = 5,000 costs.

    python -m experiments.benchmarks.vae [--repeats N] [--only dense convolutional ways bound]

`dense` and `convolutional` need PyTorch (the extra `bench`), and its compiler a C++ compiler. Their ratios are median
times of the other over those of jgen (above 1: jgen is faster). "bare" is the same network, objective and Adam as one
jitted function without the library. `ways` repeats the convolutional step under options of XLA and in other precisions,
each in a process of its own. `bound` evaluates the importance-weighted bound of K draws: the memory that the compiled
program asks for, and images per second. Run it on an idle machine.

Measured twice on two idle CPU cores, 40 repeats, jax 0.10.2, torch 2.13.0: dense 4.1 ms, PyTorch eager 1.98 and 1.94,
compiled 1.97 and 1.93 times that, the bare step 0.95 and 0.96; convolutional 64 ms, PyTorch 0.29 and 0.35, the bare
step 1.00. Where jgen and PyTorch took turns, dense took 7.4 to 8.1 ms, eager 1.07 to 1.32 (four runs) and compiled 1.01
to 1.08 times that (three); with OMP_WAIT_POLICY=PASSIVE, so that PyTorch's threads do not spin, 4.4 ms and eager 2.8
times that. Of the ways none gains more than a tenth (wider vectors 1.10, XNNPACK 1.02). The bound asks for 48.7 MB with
50, 500 and 5,000 draws, at 2,982, 482 and 51 images per second.
"""

import functools
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro

from experiments.benchmarks import timing
from jgen import linen
from jgen.latent import vae
from jgen.math import likelihoods

RATE, BATCH, LATENT = 1e-3, 128, 20
SHAPE, CHANNELS = (28, 28, 1), (32, 64)
WAYS = {
    "as it is": {},
    "two threads off": {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"},
    "no fast math": {"XLA_FLAGS": "--xla_cpu_enable_fast_math=false"},
    "matrix products by XNNPACK": {"XLA_FLAGS": "--xla_cpu_use_xnnpack=true"},
    "wider vectors": {"XLA_FLAGS": "--xla_cpu_prefer_vector_width=512"},
    "bfloat16 products": {"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"},
}


def networks(kind: str) -> vae.Networks:
    """MLP 784-512-512-20 and back, or two 4×4 convolutions of stride 2 with 32 and 64 channels and back."""
    if kind == "dense":
        return vae.dense((784,), likelihoods.Bernoulli(), LATENT, hidden_sizes=(512, 512))
    return vae.convolutional(SHAPE, likelihoods.Bernoulli(), LATENT, channels=CHANNELS)


def bits(kind: str, num: int = BATCH) -> np.ndarray:
    """Bernoulli(0.3) images."""
    shape = (num, 784) if kind == "dense" else (num, *SHAPE)
    return (np.random.default_rng(0).random(shape) < 0.3).astype(np.float32)


def ours(kind: str) -> Callable[[], Any]:
    """A call is one jitted, donated update of the library's model."""
    model, batch = vae.model(networks(kind), optax.adam(RATE)), {"x": jnp.asarray(bits(kind))}
    update = jax.jit(model.update, donate_argnums=1)
    held, key = [jax.jit(model.init)(jax.random.key(0), batch)], jax.random.key(1)

    def step() -> Any:
        held[0], metrics = update(key, held[0], batch)
        return held[0].params, metrics

    return step


def bare(kind: str) -> Callable[[], Any]:
    """The same arithmetic as one jitted function of its own."""
    parts, x, optimizer = networks(kind), jnp.asarray(bits(kind)), optax.adam(RATE)
    key = jax.random.key(0)
    encoder, _ = linen.init(parts.encoder, key, x)
    decoder, _ = linen.init(parts.decoder, key, jnp.zeros((BATCH, LATENT)))

    def loss(params: Any, key: Any) -> Any:
        mean, log_std = jnp.split(linen.apply(parts.encoder, params[0], {}, x), 2, axis=-1)
        z = mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape)
        logits = linen.apply(parts.decoder, params[1], {}, z)[..., 0]
        rate = 0.5 * jnp.sum(mean**2 + jnp.exp(2 * log_std) - 1 - 2 * log_std)
        return (jnp.sum(jax.nn.softplus(logits) - x * logits) + rate) / BATCH

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params: Any, opt_state: Any, key: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, key)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value

    params = (encoder, decoder)
    held = [(params, optimizer.init(params))]

    def step() -> Any:
        *state, value = update(*held[0], key)
        held[0] = tuple(state)
        return value

    return step


def torch_networks(kind: str) -> tuple[Any, Any]:
    """(encoder, decoder) of the same sizes."""
    from experiments.benchmarks.peers import nn

    def layers(*sizes: int) -> Any:
        pairs = itertools.pairwise(sizes)
        return nn.Sequential(*[part for pair in pairs for part in (nn.Linear(*pair), nn.ReLU())][:-1])

    if kind == "dense":
        return layers(784, 512, 512, 2 * LATENT), layers(LATENT, 512, 512, 784)
    low, high = CHANNELS
    down = nn.Conv2d(1, low, 4, 2, 1), nn.ReLU(), nn.Conv2d(low, high, 4, 2, 1), nn.ReLU()
    encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(49 * high, 2 * LATENT))
    up = nn.ConvTranspose2d(high, low, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(low, 1, 4, 2, 1)
    start = nn.Linear(LATENT, 49 * high), nn.ReLU(), nn.Unflatten(1, (high, 7, 7)), nn.Conv2d(high, high, 3, 1, 1)
    return encoder, nn.Sequential(*start, nn.ReLU(), *up)


def torch_step(kind: str, *, compiled: bool) -> Callable[[], Any]:
    """A call is one step of PyTorch's Adam on the same sizes."""
    from experiments.benchmarks.peers import functional, torch

    encoder, decoder = torch_networks(kind)
    x = bits(kind)
    data = torch.tensor(x if kind == "dense" else np.moveaxis(x, -1, 1))

    def loss() -> Any:
        mean, log_std = encoder(data).chunk(2, dim=1)
        logits = decoder(mean + log_std.exp() * torch.randn_like(mean))
        rate = 0.5 * (mean**2 + (2 * log_std).exp() - 1 - 2 * log_std).sum()
        return (functional.binary_cross_entropy_with_logits(logits, data, reduction="sum") + rate) / BATCH

    objective = torch.compile(loss) if compiled else loss
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], RATE)

    def step() -> float:
        optimizer.zero_grad()
        value = objective()
        value.backward()
        optimizer.step()
        return value.item()

    return step


def steps(kind: str, repeats: int) -> None:
    """Prints one row per side; the steps of each library take turns among themselves.

    Not with those of the other: PyTorch's threads go on spinning for a while after its step, which doubles the time of
    whatever comes next.
    """
    groups: list[dict[str, Callable[[], Any]]] = [
        {"jgen": ours(kind), "bare": bare(kind)},
        {"PyTorch eager": torch_step(kind, compiled=False), "PyTorch compiled": torch_step(kind, compiled=True)},
    ]
    found: dict[str, list[float]] = {}
    for sides in groups:
        found |= timing.take_turns({name: timing.clock(step) for name, step in sides.items()}, repeats, warm_up=3)
    medians = {name: statistics.median(own) for name, own in found.items()}
    rows = [
        {"step": f"{kind}, {name}", "ms": 1e3 * median, "ratio": median / medians["jgen"]}
        for name, median in medians.items()
    ]
    timing.report(f"vae {kind}", rows, repeats=repeats, batch=BATCH)


def ways(repeats: int) -> None:
    """Prints the convolutional step under each of `WAYS`; one that this XLA does not know is reported as 0."""
    command = [sys.executable, "-m", "experiments.benchmarks.vae", "--repeats", str(repeats), "--only", "one"]
    rows: list[dict[str, Any]] = []
    for name, own in WAYS.items():
        done = subprocess.run(command, env={**os.environ, **own}, capture_output=True, text=True, check=False)
        last = done.stdout.strip().splitlines()[-1:] if done.returncode == 0 else []
        rows.append({"convolutional step": name, "ms": float(last[0]) if last else 0.0})
    first = rows[0]["ms"]
    timing.report("vae ways", [{**row, "ratio": first / row["ms"] if row["ms"] else 0.0} for row in rows])


def one(repeats: int) -> None:
    """Prints the median milliseconds of the convolutional step, for `ways`."""
    found = timing.take_turns({"jgen": timing.clock(ours("convolutional"))}, repeats, warm_up=3)
    print(1e3 * statistics.median(found["jgen"]))


def bound(num_images: int = 200) -> None:
    """Prints the memory and the speed of L_K for K = 50, 500, 5,000: MLP 784-300-300-40, gated, batches of 100."""
    parts = vae.dense((784,), likelihoods.Bernoulli(), 40, hidden_sizes=(300, 300), gated=True)
    model, x = vae.model(parts, optax.adam(RATE)), jnp.asarray(bits("dense", 100))
    state = jax.jit(model.init)(jax.random.key(0), {"x": x})
    rows = []
    for num in (50, 500, 5_000):
        of = functools.partial(vae.iwae_bound, networks=parts, num_samples=num)
        program: Any = jax.jit(lambda key, state, x, of=of: of(key, state.params, state.stats, {"x": x}))
        program = program.lower(jax.random.key(1), state, x).compile()
        plan = program.memory_analysis()
        jax.block_until_ready(program(jax.random.key(1), state, x))
        since = time.perf_counter()
        for i in range(max(1, num_images // 100)):
            jax.block_until_ready(program(jax.random.key(i), state, x))
        speed = max(100, num_images) / (time.perf_counter() - since)
        rows.append({"K": num, "temporary MB": plan.temp_size_in_bytes / 1e6, "images per second": speed})
    timing.report("vae bound", rows, images=num_images)


def main(repeats: int = 15, only: tuple[str, ...] = ("dense", "convolutional", "ways", "bound")) -> None:
    """Measures and prints.

    Args:
        repeats: turns of each step, after three that are left out.
        only: what to measure.
    """
    parts: dict[str, Callable[[], None]] = {
        "dense": lambda: steps("dense", repeats),
        "convolutional": lambda: steps("convolutional", repeats),
        "ways": lambda: ways(repeats),
        "one": lambda: one(repeats),
        "bound": bound,
    }
    for name in only:
        parts[name]()


if __name__ == "__main__":
    tyro.cli(main)
