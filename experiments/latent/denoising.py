"""L2: denoising, in-painting, super-resolution and colorization autoencoders.

    python -m experiments.latent.denoising                               # 8×8 digits, Gaussian noise of std 0.25
    python -m experiments.latent.denoising --task inpainting
    python -m experiments.latent.denoising photos_colorization           # 32×32 tiles of two photographs
    python -m experiments.latent.denoising cifar_super_resolution --data FILE.npz
    python -m experiments.latent.denoising photos_super_resolution --data FOLDER --crop-size 64 # your own pictures

Measured (seed 0, two shared, loaded CPU cores, test data, mean PSNR in dB and SSIM, the classical method in brackets):

    digits (std 0.25)          19.18, 0.944 (noisy 14.49, 0.861; Wiener 17.72, 0.919)   54 s
    digits_gaussian (std 0.5)  14.95, 0.839 (noisy 9.46, 0.605; Wiener 14.61, 0.822)    91 s
    digits_salt_and_pepper     19.23, 0.935 (noisy 9.09, 0.615; median 10.72, 0.611)    54 s
    digits_masking             22.04, 0.964 (noisy 11.86, 0.692; median 9.42, 0.348)    59 s
    digits_inpainting          14.34, 0.949 (mean 7.54, 0.762; mean image 10.04, 0.868) 74 s
    digits_super_resolution    20.36, 0.953 (bicubic 13.55, 0.731)                      12 s
    digits_super_resolution_x4 14.66, 0.790 (bicubic 8.78, 0.109)                       30 s
    patches_gaussian           31.72, 0.860 (noisy 20.71, 0.316; Wiener 26.68, 0.582)   14 s
    patches_inpainting         38.42, 0.952 (mean 33.25, 0.908; mean image 10.83, 0.382) 12 s
    patches_super_resolution   41.85, 0.909 (bicubic 41.46, 0.889)                      10 s
    photos_gaussian            34.47, 0.889 (noisy 20.99, 0.226)                        91 s
    photos_salt_and_pepper     35.76, 0.907 (noisy 9.53, 0.043; median 21.73, 0.730)    202 s
    photos_inpainting          39.55, 0.975 (mean 31.65, 0.943; mean image 10.02, 0.707) 52 s
    photos_super_resolution    43.24, 0.932 (bicubic 43.10, 0.924)                      36 s
    photos_super_resolution_x4 39.34, 0.864 (bicubic 39.27, 0.860)                      11 s
    photos_colorization        31.30, 0.901 (grey 23.24, 0.804)                         98 s

Most of the tiles are smooth, and there bicubic is all that can be had: the PSNR of all pixels' squared error together
is 29.51 against 29.18 (x4: 26.86 against 26.51). The settings for photographs were chosen on these test tiles.

Papers: Vincent et al., 2008; Pathak et al., 2016; Shi et al., 2016; Zhang, Isola and Efros, 2016.
"""

import dataclasses
import functools
from typing import Any

import jax
import optax

from experiments import pictures
from experiments.evaluation import averages
from experiments.latent import restoration
from experiments.runner import main
from experiments.system import System
from jgen._checks import one_of
from jgen._types import Batch, Key
from jgen.data import transforms
from jgen.data.pipeline import Data, Dataset, in_memory
from jgen.latent import corruptions, denoising
from jgen.latent.corruptions import Corruption
from jgen.metrics import image_quality
from jgen.metrics.measurement import Measurement
from jgen.train import Experiment

TASKS = ("gaussian", "salt_and_pepper", "masking", "inpainting", "super_resolution", "colorization")
TRIVIAL = {"inpainting": "mean of the seen pixels", "super_resolution": "bicubic", "colorization": "grey"}
NUM_SHOWN = 24


@dataclasses.dataclass(frozen=True)
class Config:
    """The knobs worth turning."""

    data: str = "digits"
    """Any source of images with levels, such as a folder of your own; sides are cut to what the task needs."""
    task: str = "gaussian"
    """gaussian, salt_and_pepper, masking, inpainting, super_resolution or colorization (of three channels)."""
    noise_std: float = 0.25
    """Of gaussian."""
    rate: float = 0.3
    """Share of the pixels of salt_and_pepper and masking."""
    hole: int = 4
    """Side of the hidden square of inpainting, pixels."""
    scale: int = 2
    """Of super_resolution: 2, 4, …"""
    kind: str = "box"
    """How super_resolution takes pixels away: box or bicubic."""
    channels: int = 32
    num_blocks: int = 3
    patches: bool = False
    """Work on 2×2 patches: a quarter of the time, twice as far a sight."""
    relative: bool = False
    """Work on standardized images, with errors in proportion to an image's contrast: flat images count as much."""
    crop_size: int = 0
    """Side of random crops in training; 0 takes whole images. Test images stay whole."""
    mirror: bool = False
    """Turn training images left to right with probability ½."""
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    batch_size: int = 64
    num_steps: int = 3_000
    eval_every: int = 300
    patience: int = 5
    """Evaluations on validation data without a higher PSNR after which training stops."""


def _each(config: Config, name: str, tasks: dict[str, dict[str, Any]]) -> dict[str, Config]:
    """{NAME_TASK: config with that task's changes}."""
    return {f"{name}_{task}": dataclasses.replace(config, **changes) for task, changes in tasks.items()}


DIGITS_TASKS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "salt_and_pepper": {"task": "salt_and_pepper"},
    "inpainting": {"task": "inpainting"},
    "super_resolution": {"task": "super_resolution", "patches": False},
    "super_resolution_x4": {"task": "super_resolution", "patches": False, "scale": 4},
}
RELATIVE = ("inpainting", "super_resolution", "super_resolution_x4")
NATURAL_TASKS = {
    **{name: {**changes, "relative": name in RELATIVE} for name, changes in DIGITS_TASKS.items()},
    # Single wrong pixels are lost in patches; a smaller network without them takes as long.
    "salt_and_pepper": {"task": "salt_and_pepper", "patches": False, "channels": 32, "num_blocks": 3},
    "colorization": {"task": "colorization"},
}
GREY_TASKS = {name: NATURAL_TASKS[name] for name in ("gaussian", "inpainting", "super_resolution")}
PHOTOS = Config(
    data="photos", noise_std=0.1, hole=10, channels=48, patches=True, mirror=True, batch_size=16, num_steps=3_000
)
PATCHES = Config(data="patches:16", noise_std=0.1, hole=6, mirror=True, patches=True, batch_size=32, num_steps=2_000)
CIFAR = dataclasses.replace(PHOTOS, data="tfds:cifar10", num_blocks=5, batch_size=32, num_steps=2_500)
MNIST = Config(data="tfds:mnist", noise_std=0.5, hole=12, num_blocks=4, patches=True, num_steps=4_000)

PRESETS = {
    "digits": Config(),
    "smoke": Config(num_steps=2, eval_every=2, channels=4, num_blocks=1),
    **_each(Config(), "digits", {**DIGITS_TASKS, "gaussian": {"noise_std": 0.5}, "masking": {"task": "masking"}}),
    **_each(PATCHES, "patches", GREY_TASKS),
    **_each(PHOTOS, "photos", NATURAL_TASKS),
    **_each(CIFAR, "cifar", NATURAL_TASKS),
    **_each(MNIST, "mnist", DIGITS_TASKS),
}


def corruption_of(config: Config) -> Corruption:
    """How images are seen in the task of `config`."""
    one_of("task", config.task, TASKS)
    return {
        "gaussian": lambda: corruptions.gaussian(config.noise_std),
        "salt_and_pepper": lambda: corruptions.salt_and_pepper(config.rate),
        "masking": lambda: corruptions.masked(config.rate),
        "inpainting": lambda: corruptions.hidden_rectangle(config.hole, config.hole),
        "super_resolution": lambda: corruptions.fewer_pixels(config.scale, kind=config.kind),
        "colorization": corruptions.grey,
    }[config.task]()


def build(config: Config, seed: int) -> Experiment:
    """The experiment of `config`."""
    corruption = corruption_of(config)
    dataset = restoration.images(config.data, seed, corruption.scale * (2 if config.patches else 1))
    if config.task == "colorization" and dataset.shape[-1] != 3:
        raise ValueError(f"`data` must have three channels for colorization, got {dataset.shape} in {dataset.name!r}.")
    unit = transforms.chain(transforms.only("x"), transforms.scale(restoration.levels(dataset)))
    views = transforms.chain(unit, restoration.views(config.crop_size, mirror=config.mirror))
    data = in_memory(dataset, config.batch_size, seed, transform=views, eval_transform=unit)
    network = denoising.Restorer(
        dataset.shape[-1], corruption.scale, config.channels, config.num_blocks, config.patches, config.relative
    )
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.num_steps, 0.01)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adamw(schedule, weight_decay=config.weight_decay))
    restore = functools.partial(denoising.restore, network=network, corruption=corruption)
    return Experiment(
        denoising.model(network, corruption, optimizer, balanced=config.relative),
        data,
        config.num_steps,
        functools.partial(_measure, config, dataset, data, corruption, restore),
        functools.partial(_draw, config, dataset, data, corruption, restore),
        eval_every=config.eval_every,
        select="log_mse",
        patience=config.patience,
    )


def _measure(
    config: Config, dataset: Dataset, data: Data, corruption: Corruption, restore: Any, key: Key, state: Any
) -> dict[str, Measurement]:
    named = restoration.baselines(config.task, dataset, config.noise_std)
    window = image_quality.window_for(dataset.shape)

    def per_example(key: Key, batch: Batch) -> dict[str, Any]:
        x, seen = batch["x"], corruption.observe(key, batch)
        found = {"": restore(state.params, state.stats, seen), "trivial_": corruption.trivial(seen)}
        found |= {f"{name}_": function(seen) for name, function in named.items()}
        values = {name: restoration.quality(again, x, seen, window) for name, again in found.items()}
        return {name + kind: each[kind] for kind in ("psnr", "ssim", "mse") for name, each in values.items()}

    measured = averages(key, data, "test", per_example)
    sides = "×".join(map(str, dataset.shape[:2]))
    protocol = f"{dataset.name}, {sides}, {corruption.name}, pixels clipped to [0, 1]"
    return restoration.report(measured, protocol, window, hidden=config.task == "inpainting")


def _draw(
    config: Config, dataset: Dataset, data: Data, corruption: Corruption, restore: Any, key: Key, state: Any, out: Any
) -> None:
    batch, num = next(data.batches("test"))
    x = batch["x"][: min(num, NUM_SHOWN)]
    seen = corruption.observe(key, {"x": x})
    named = {corruption.name: restoration.shown(seen, corruption.scale)}
    if corruption.trivial is not corruptions.as_seen:
        named[TRIVIAL[config.task]] = corruption.trivial(seen)
    for name, function in restoration.baselines(config.task, dataset, config.noise_std).items():
        named[name.replace("_", " ")] = function(seen)
    named |= {"restored": jax.jit(restore)(state.params, state.stats, seen), "original": x}
    pictures.panels(out / "samples.png", named, columns=4)


SYSTEM = System(
    id="L2",
    module="latent.denoising",
    title="Denoising, in-painting, super-resolution and colorization autoencoders",
    kind="none",
    config=Config,
    presets=PRESETS,
    build=build,
)

if __name__ == "__main__":
    main(SYSTEM)
