"""Strict JAX for every test: no silent rank promotion, eight virtual devices, a persistent compilation cache.

Most of the suite's time is compilation of programs that run once, so XLA optimizes little here (`xla_flags`); with
XLA_FLAGS="" in the environment it optimizes as it does for users.
"""

import gc
import os
import pathlib
import tempfile
from typing import Any

import xla_flags

if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = xla_flags.known()

import jax
import pytest
from xdist.scheduler import LoadScopeScheduling

CACHE = pathlib.Path(os.environ.get("JGEN_TEST_CACHE", pathlib.Path(tempfile.gettempdir()) / "jgen-test-cache"))

gc.set_threshold(50_000)  # tracing makes objects by the million: looking for garbage among them took 6 % of the time
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


class Together(LoadScopeScheduling):
    """Tests of one module share a worker, in the contract suites those of one case: what they share is built once.

    Not `--dist loadgroup`: it appends groups to the ids of tests, which pytest has not let it do since version 9.
    """

    def _split_scope(self, nodeid: str) -> str:
        module, _, test = nodeid.partition("::")
        return f"{module}[{test.partition('[')[2].split('-')[-1]}" if module.endswith("_contract.py") else module


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """What `-n` distributes by."""
    return Together(config, log)


@pytest.fixture(scope="module", autouse=True)
def no_programs_of_other_modules():
    """Forgets compiled programs after each module: those of the whole suite fill many GB of memory."""
    yield
    jax.clear_caches()


@pytest.fixture(scope="module")
def jax_as_it_is():
    """For modules that call the experiments' command line: it keeps to the suite's devices and compilation cache."""
    jax.devices()  # the eight devices exist before a run asks for one
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(CACHE))
        yield
    jax.config.update(name, before)
