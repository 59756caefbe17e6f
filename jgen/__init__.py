"""jgen: deep generative models as pure JAX functions."""

from jgen import adversarial, autoregressive, classical, diffusion, energy, flows, latent, samplers
from jgen.model import Model
from jgen.sampler import Sampler, run

__all__ = [
    "Model",
    "Sampler",
    "adversarial",
    "autoregressive",
    "classical",
    "diffusion",
    "energy",
    "flows",
    "latent",
    "run",
    "samplers",
]
