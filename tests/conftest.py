"""Strict JAX for every test: no silent rank promotion, eight virtual devices, a persistent compilation cache."""

import os
import pathlib
import tempfile

import jax

CACHE = pathlib.Path(os.environ.get("JGEN_TEST_CACHE", pathlib.Path(tempfile.gettempdir()) / "jgen-test-cache"))

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
