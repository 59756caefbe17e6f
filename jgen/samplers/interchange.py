"""Kernels of BlackJAX as samplers, and samplers as kernels of BlackJAX; the extra `nuts` installs it.

    run(key, from_blackjax(blackjax.barker(log_density, 0.5)), state, 1_000)
    blackjax.util.run_inference_algorithm(key, to_blackjax(sampler), 1_000, initial_position=x)

Both libraries have the same two functions, `init` and `step`; only the arguments of `init` stand in another order.
Reference: Cabezas et al., "BlackJAX: composable Bayesian inference in JAX", 2024.
"""

import importlib
from typing import Any

from jgen._types import Key
from jgen.sampler import Sampler


def library() -> Any:
    """The module `blackjax`.

    Raises:
        ImportError: it is not installed.
    """
    try:
        return importlib.import_module("blackjax")
    except ImportError as error:
        raise ImportError("BlackJAX is not installed; `pip install jgen[nuts]` installs it.") from error


def from_blackjax(kernel: Any) -> Sampler[Any]:
    """A BlackJAX SamplingAlgorithm as a Sampler; its states and infos stay what they are.

    Raises:
        ValueError: `kernel` has no `init` and `step`.
    """
    if not (callable(getattr(kernel, "init", None)) and callable(getattr(kernel, "step", None))):
        raise ValueError(f"`kernel` must have functions `init` and `step`, got {type(kernel).__name__}.")

    def init(key: Key, position: Any) -> Any:
        state = kernel.init(position, key)
        if not hasattr(state, "position"):
            raise ValueError(f"`kernel` must have states with a `position`, got {type(state).__name__}.")
        return state

    return Sampler(init, kernel.step)


def to_blackjax(sampler: Sampler[Any]) -> Any:
    """A Sampler as a BlackJAX SamplingAlgorithm, for its loops and adapters.

    Raises:
        ImportError: BlackJAX is not installed.
    """

    def init(position: Any, rng_key: Key | None = None) -> Any:
        if rng_key is None:
            raise ValueError("`rng_key` must be a key, got None.")
        return sampler.init(rng_key, position)

    return library().SamplingAlgorithm(init, sampler.step)
