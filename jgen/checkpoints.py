"""Checkpoints of a run: written by Orbax, asynchronously and atomically, and verified when they are read."""

import contextlib
import errno
import hashlib
import pathlib
import shutil
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def digest(tree: Any) -> str:
    """SHA-256 of the bytes, shapes, dtypes and paths of the leaves of `tree`, in hexadecimal."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        local = leaf.addressable_data(0) if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable else leaf
        array = np.asarray(local)
        total.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


class Checkpoints:
    """The newest few checkpoints under one directory; a context manager."""

    def __init__(self, directory: pathlib.Path, warn: Callable[[str], None], *, keep: int = 2) -> None:
        self._directory, self._warn = directory.absolute(), warn
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(self._directory, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        try:
            with _full_disk_is_an_os_error():
                self._manager.close()
        except Exception:
            if kind is None:
                raise

    def save(self, step: int, state: Any, notes: dict[str, Any]) -> None:
        """Starts writing `state`, a pytree, and `notes`, which JSON can hold, as checkpoint `step`.

        Raises:
            OSError: the disk is full (ENOSPC), perhaps found while the checkpoint before this one was written.
        """
        if step in self._manager.all_steps():
            return
        notes = {**notes, "sha256": digest(state)}
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), notes=ocp.args.JsonSave(notes))
        with _full_disk_is_an_os_error():
            self._manager.save(step, args=args)

    def wait(self) -> None:
        """Returns when what was saved is on disk; raises what the writing raised."""
        with _full_disk_is_an_os_error():
            self._manager.wait_until_finished()

    def latest(self) -> int | None:
        """The step of the newest checkpoint."""
        return self._manager.latest_step()

    def restore(self, like: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """(step, state, notes) of the newest checkpoint that is whole; None where there is none.

        A checkpoint that cannot be read, or whose bytes are not those that were saved, is named in a warning and
        removed, and the one before it is tried.

        Args:
            like: a state of the same structure, shapes, dtypes and shardings.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target), notes=ocp.args.JsonRestore())
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                found: Any = self._manager.restore(step, args=args)
                if found.notes["sha256"] != digest(found.state):
                    raise ValueError("its bytes differ from those that were saved")
            except Exception as error:
                self._warn(f"Checkpoint {self._directory / str(step)} is damaged and is skipped: {_first_line(error)}")
                shutil.rmtree(self._directory / str(step), ignore_errors=True)
                self._manager.reload()
            else:
                return step, found.state, found.notes
        return None


@contextlib.contextmanager
def _full_disk_is_an_os_error() -> Iterator[None]:
    """Orbax reports a full disk as a ValueError with TensorStore's text."""
    try:
        yield
    except ValueError as error:
        if "No space left" not in str(error) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OSError(errno.ENOSPC, "No space left on device") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
