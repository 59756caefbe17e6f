"""The libraries that benchmarks compare with, which only the extra `bench` installs."""

import importlib
from typing import Any

torch: Any = importlib.import_module("torch")
nn: Any = torch.nn
functional: Any = torch.nn.functional
