"""Trains one case of cases.py in a process that may kill itself: `kill_target.py CASE WORKDIR [never|N|write]`.

With N it kills itself with SIGKILL at update N of this life; with "write", while a checkpoint is being written. It
prints the digest of the final parameters.
"""

import os
import pathlib
import signal
import sys
import threading
import time

import conftest  # noqa: F401  (the same JAX settings)
import jax
from cases import MODELS

from jgen.checkpoints import digest
from jgen.data import Data
from jgen.train import Experiment, Observer, train

NUM_STEPS, EVERY = 40, 5


def experiment(name: str) -> Experiment:
    """The named case, learning from a different permutation of its one batch in each step."""
    case = next(case for case in MODELS if case.name == name)
    batch = case.batch()

    def shuffled(step: int) -> dict:
        order = jax.random.permutation(jax.random.key(step), len(next(iter(batch.values()))))
        return {key: value[order] for key, value in batch.items()}

    data = Data(shuffled, lambda split: iter([(batch, len(next(iter(batch.values()))))]))
    return Experiment(case.build(), data, NUM_STEPS, log_every=EVERY, eval_every=EVERY)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killer(Observer):
    """Kills the process at the `when`-th update of its life."""

    def __init__(self, when: int) -> None:
        self._left = when

    def advance(self, step: int) -> None:
        """Counts down."""
        self._left -= 1
        if self._left == 0:
            _die()


def _die_in_write(directory: pathlib.Path) -> None:
    while True:
        if any("tmp" in path.name for path in directory.glob("*/*")):
            _die()
        time.sleep(0.0005)


def main() -> None:
    name, directory, when = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3]
    if when == "write":
        threading.Thread(target=_die_in_write, args=(directory,), daemon=True).start()
    observer = Killer(int(when)) if when.isdigit() else None
    outcome = train(experiment(name), seed=0, workdir=directory, observer=observer, devices=jax.devices()[:1])
    print(digest(outcome.state.params))


if __name__ == "__main__":
    main()
