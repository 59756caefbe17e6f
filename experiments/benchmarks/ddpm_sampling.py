"""DDPM sampling as one compiled program beside a Python loop over one compiled step.

    python -m experiments.benchmarks.ddpm_sampling

Both draw the same samples; the table has the median time of a whole draw in milliseconds, and the JSON line repeats it.
"""

import functools
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from experiments.benchmarks import timing
from jgen import linen, random
from jgen.diffusion import ddpm, process, samplers, schedules
from jgen.diffusion.denoiser import Denoiser
from jgen.nets.time_mlp import TimeMLP
from jgen.nets.unet import UNet

REPEATS = 7
CASES: dict[str, tuple[nn.Module, tuple[int, ...], int, int]] = {
    "MLP 64x2 on 2 dimensions, 16 samples, 1000 steps": (TimeMLP(64, 2), (2,), 16, 1000),
    "MLP 256x3 on 64 dimensions, 64 samples, 1000 steps": (TimeMLP(256, 3), (8, 8, 1), 64, 1000),
    "U-Net 16-32 on 8x8x1, 1 sample, 200 steps": (UNet((16, 32)), (8, 8, 1), 1, 200),
    "U-Net 16-32 on 8x8x1, 64 samples, 200 steps": (UNet((16, 32)), (8, 8, 1), 64, 200),
}


def draws(module: nn.Module, shape: tuple[int, ...], num: int, num_steps: int) -> dict[str, Callable[[Any], Any]]:
    """{name: (key) -> samples}, the same ones from each."""
    denoiser = Denoiser(module, schedules.linear(num_steps))
    params, stats = jax.jit(lambda key: linen.init(module, key, jnp.zeros((1, *shape)), jnp.zeros(1)))(
        jax.random.key(0)
    )
    kernel = ddpm.sampler(params, stats, denoiser=denoiser)
    begin = jax.jit(lambda key: kernel.init(key, process.normals(random.example_keys(key, num), shape)))
    step = jax.jit(lambda key, t, state: kernel.step(jax.random.fold_in(key, t), state)[0])

    def loop(key: Any) -> Any:
        start_key, run_key = jax.random.split(key)
        state = begin(start_key)
        for t in range(num_steps):
            state = step(run_key, np.int32(t), state)
        return state.position

    whole = jax.jit(lambda key: samplers.sample(key, kernel, num, shape=shape, num_steps=num_steps)[0])
    return {"one program": whole, "python loop": loop}


def main() -> None:
    """Prints the table and the JSON line."""
    rows = []
    for name, case in CASES.items():
        how = draws(*case)
        np.testing.assert_allclose(*(draw(jax.random.key(1)) for draw in how.values()), rtol=1e-3, atol=1e-3)
        cases = {n: timing.clock(functools.partial(draw, jax.random.key(0))) for n, draw in how.items()}
        times = timing.take_turns(cases, REPEATS)
        medians = {f"{n}, ms": 1e3 * statistics.median(values) for n, values in times.items()}
        rows.append({"case": name, **medians, "ratio": timing.ratio(times["python loop"], times["one program"])})
    timing.report("ddpm_sampling", rows, repeats=REPEATS)


if __name__ == "__main__":
    main()
