"""What XLA is told in the tests: to compile quickly programs that run once.

Little optimization takes 40 % off the time of a convolutional net, the older way to compile fusions half of that of a
small program.
"""

import importlib.util
import mmap
import pathlib

FLAGS = {
    "xla_backend_optimization_level": "0",
    "xla_llvm_disable_expensive_passes": "true",
    "xla_cpu_use_fusion_emitters": "false",
}


def known() -> str:
    """Those of `FLAGS` that the installed XLA names: it ends the process at one that it does not know."""
    found = importlib.util.find_spec("jaxlib")
    assert found is not None
    assert found.submodule_search_locations is not None
    named: set[str] = set()
    for folder in found.submodule_search_locations:
        for path in [*pathlib.Path(folder).glob("*.so"), *pathlib.Path(folder).glob("*.dylib")]:
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as library:
                named |= {name for name in FLAGS if library.find(name.encode()) >= 0}
    return " ".join(f"--{name}={value}" for name, value in FLAGS.items() if name in named)
