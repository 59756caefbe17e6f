"""Flax Linen as pure functions: the only file that calls `Module.init` or `Module.apply`.

A module's variables are two pytrees: `params`, what a gradient moves, and `stats`, every other collection (batch
statistics, spectral-norm vectors). Modules take their inputs by position and the keyword `train` if they need it.
"""

from typing import Any

from flax import linen as nn

from jgen._types import Key, Params


def init(module: nn.Module, key: Key, *args: Any, **kwargs: Any) -> tuple[Params, Params]:
    """(params, stats) of `module` for inputs shaped like `args`."""
    stats = dict(module.init(key, *args, **kwargs))
    params = stats.pop("params", {})
    return params, stats


def apply(module: nn.Module, params: Params, stats: Params, *args: Any, key: Key | None = None, **kwargs: Any) -> Any:
    """The output of `module`; its `stats` are read and left alone.

    Args:
        key: where dropout and other noise inside the module come from; a module without noise needs none.
    """
    return module.apply({"params": params, **stats}, *args, rngs=_rngs(key), **kwargs)


def apply_and_update(
    module: nn.Module, params: Params, stats: Params, *args: Any, key: Key | None = None, **kwargs: Any
) -> tuple[Any, Params]:
    """The output of `module`, and its `stats` after the pass (the same pytree structure)."""
    out: Any = module.apply(
        {"params": params, **stats}, *args, rngs=_rngs(key), mutable=list(stats) if stats else False, **kwargs
    )
    return (out[0], dict(out[1])) if stats else (out, stats)


def run(module: nn.Module, params: Params, stats: Params, *args: Any, key: Key | None = None) -> tuple[Any, Params]:
    """The output of `module` and its `stats` after the pass: in training where `key` is given, else as they were."""
    if key is None:
        return apply(module, params, stats, *args, train=False), stats
    return apply_and_update(module, params, stats, *args, key=key, train=True)


def _rngs(key: Key | None) -> dict[str, Key] | None:
    return None if key is None else {"dropout": key}
