"""Normalizing flows."""

from jgen.flows import coupling, real_nvp

__all__ = ["coupling", "real_nvp"]
