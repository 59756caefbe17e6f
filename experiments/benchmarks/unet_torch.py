"""A DDPM training step of a U-Net 32-64-128 on 32×32×3, batch 16, beside PyTorch eager: the same network twice.

    python -m experiments.benchmarks.unet_torch

Needs PyTorch (the extra `bench`). Both steps draw t and noise, compute L_simple and its gradient, and take one Adam
step. Prints the median time of a step in milliseconds and the ratio, as a table and as JSON.
"""

import math
import statistics
from collections.abc import Callable
from typing import Any

import jax
import optax

from experiments.benchmarks import timing
from experiments.benchmarks.peers import functional, nn, torch
from jgen.diffusion import ddpm, schedules
from jgen.diffusion.denoiser import Denoiser
from jgen.nets.unet import UNet

CHANNELS, SIZE, BATCH, WARM_UP, REPEATS, DIFFUSION_STEPS = (32, 64, 128), 32, 16, 3, 15, 1_000


def group_norm(size: int) -> Any:
    """As `jgen.nets.unet.norm`."""
    return nn.GroupNorm(max(1, math.gcd(32, size // 4)), size, eps=1e-6)


class Residual(nn.Module):
    """As `jgen.nets.unet.ResidualBlock`."""

    def __init__(self, inputs: int, size: int, told: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([group_norm(inputs), group_norm(size)])
        self.convs = nn.ModuleList([nn.Conv2d(inputs, size, 3, padding=1), nn.Conv2d(size, size, 3, padding=1)])
        self.told = nn.Linear(told, size)
        self.skip = nn.Identity() if inputs == size else nn.Conv2d(inputs, size, 1)

    def forward(self, x: Any, told: Any) -> Any:
        """x + what the block adds."""
        h = self.convs[0](functional.silu(self.norms[0](x))) + self.told(told)[:, :, None, None]
        return self.skip(x) + self.convs[1](functional.silu(self.norms[1](h)))


class Attention(nn.Module):
    """As `jgen.nets.unet.ImageAttention`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm, self.maps = group_norm(size), nn.ModuleList([nn.Linear(size, size) for _ in range(4)])

    def forward(self, x: Any) -> Any:
        """x + attention."""
        h = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = (layer(h)[:, None] for layer in list(self.maps)[:3])
        h = self.maps[3](functional.scaled_dot_product_attention(query, key, value)[:, 0])
        return x + h.transpose(1, 2).reshape(x.shape)


class TorchUNet(nn.Module):
    """As `jgen.nets.unet.UNet` with one block per level and attention in the middle."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        first, last, told = channels[0], channels[-1], 4 * channels[0]
        self.embed = nn.Sequential(nn.Linear(32, told), nn.SiLU(), nn.Linear(told, told))
        self.enter = nn.Conv2d(3, first, 3, padding=1)
        sizes, inputs = [first], first
        self.down, self.halve = nn.ModuleList(), nn.ModuleList()
        for level, size in enumerate(channels):
            self.down.append(Residual(inputs, size, told))
            sizes.append(inputs := size)
            if level < len(channels) - 1:
                self.halve.append(nn.Conv2d(size, size, 3, stride=2, padding=1))
                sizes.append(size)
        self.middle = nn.ModuleList([Residual(last, last, told), Attention(last), Residual(last, last, told)])
        self.up, self.widen = nn.ModuleList(), nn.ModuleList()
        for level, size in reversed(list(enumerate(channels))):
            for _ in range(2):
                self.up.append(Residual(inputs + sizes.pop(), size, told))
                inputs = size
            if level > 0:
                self.widen.append(nn.Conv2d(size, size, 3, padding=1))
        self.leave = nn.Sequential(group_norm(first), nn.SiLU(), nn.Conv2d(first, 3, 3, padding=1))

    def forward(self, x: Any, t: Any) -> Any:
        """The predicted noise."""
        angles = t[:, None] * 10_000.0 ** (-torch.arange(16) / 15)
        told = functional.silu(self.embed(torch.cat([angles.sin(), angles.cos()], dim=1)))
        h = self.enter(x)
        skips = [h]
        for level, block in enumerate(self.down):
            h = block(h, told)
            skips.append(h)
            if level < len(self.halve):
                h = self.halve[level](h)
                skips.append(h)
        h = self.middle[2](self.middle[1](self.middle[0](h, told)), told)
        for i, block in enumerate(self.up):
            h = block(torch.cat([h, skips.pop()], dim=1), told)
            if i % 2 and i // 2 < len(self.widen):
                h = self.widen[i // 2](functional.interpolate(h, scale_factor=2.0))
        return self.leave(h)


def jax_step() -> tuple[Callable[[], Any], int]:
    """(one training step, the number of parameters)."""
    model = ddpm.model(Denoiser(UNet(CHANNELS), schedules.linear(DIFFUSION_STEPS)), (SIZE, SIZE, 3), optax.adam(1e-4))
    batch = {"x": jax.random.normal(jax.random.key(0), (BATCH, SIZE, SIZE, 3))}
    state = jax.jit(model.init)(jax.random.key(1), batch)
    update, count = jax.jit(model.update, donate_argnums=1), 0

    def step() -> Any:
        nonlocal state, count
        state, metrics = update(jax.random.fold_in(jax.random.key(2), count), state, batch)
        count += 1
        return float(metrics["loss"])

    return step, sum(p.size for p in jax.tree.leaves(state.params))


def torch_step() -> tuple[Callable[[], Any], int]:
    """(one training step, the number of parameters)."""
    torch.manual_seed(0)
    network = TorchUNet(CHANNELS)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    schedule = schedules.linear(DIFFUSION_STEPS)
    alpha, sigma = (torch.tensor(table, dtype=torch.float32) for table in (schedule.alpha, schedule.sigma))
    x = torch.randn(BATCH, 3, SIZE, SIZE)

    def step() -> Any:
        t, noise = torch.randint(1, DIFFUSION_STEPS + 1, (BATCH,)), torch.randn_like(x)
        noisy = alpha[t][:, None, None, None] * x + sigma[t][:, None, None, None] * noise
        loss = functional.mse_loss(network(noisy, t.float()), noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step, sum(p.numel() for p in network.parameters())


def main() -> None:
    """Prints the table and the JSON line."""
    steps = {"jgen": jax_step(), "PyTorch eager": torch_step()}
    times = timing.take_turns({name: timing.clock(step) for name, (step, _) in steps.items()}, REPEATS, warm_up=WARM_UP)
    rows = [
        {
            "case": name,
            "ms a step": 1e3 * statistics.median(values),
            "ratio to PyTorch": timing.ratio(values, times["PyTorch eager"]),
            "parameters": steps[name][1],
        }
        for name, values in times.items()
    ]
    timing.report("unet_torch", rows, repeats=REPEATS)


if __name__ == "__main__":
    main()
