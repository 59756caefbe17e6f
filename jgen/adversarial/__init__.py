"""Generative adversarial networks."""

from jgen.adversarial import dcgan, gan

__all__ = ["dcgan", "gan"]
