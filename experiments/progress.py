"""What a person sees of a run while it goes: a bar with the loss, steps per second and the time left."""

import json
import pathlib
import time
from typing import Any

import rich.console
import rich.progress

from experiments import workdir
from jgen.train import Observer


class Progress(Observer):
    """Draws the bar, and writes metrics.jsonl (and TensorBoard's files, where asked); a context manager.

    Args:
        directory: the run's; None writes nothing (every process but the first).
        tensorboard: whether to log there too.
    """

    def __init__(self, directory: pathlib.Path | None, *, tensorboard: bool = False) -> None:
        self._directory = directory
        self._console = rich.console.Console(stderr=True, quiet=directory is None)
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.fields[loss]}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[rate]}"),
            rich.progress.TimeRemainingColumn(),
            console=self._console,
            auto_refresh=False,
        )
        self._writer = _tensorboard(directory) if tensorboard and directory else None
        self._task: Any = None
        self._shown = self._begun = time.monotonic()
        self._first = 0

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *unused: Any) -> None:
        self._bar.stop()
        if self._writer is not None:
            self._writer.close()

    def begin(self, step: int, num_steps: int) -> None:
        if self._directory is not None:
            workdir.forget_after(self._directory, step)
        if step:
            self._console.print(f"going on after step {step}")
        self._first, self._begun = step, time.monotonic()
        self._task = self._bar.add_task("", total=num_steps, completed=step, loss="compiling", rate="")
        self._bar.refresh()

    def advance(self, step: int) -> None:
        now = time.monotonic()
        if now - self._shown < 0.1:
            return
        self._shown = now
        rate = (step - self._first) / max(now - self._begun, 1e-9)
        self._bar.update(self._task, completed=step, rate=f"{rate:.1f} steps/s")
        self._bar.refresh()

    def log(self, split: str, step: int, metrics: dict[str, float]) -> None:
        name = "loss" if "loss" in metrics else next(iter(metrics), "")
        if split == "train" and metrics:
            self._bar.update(self._task, completed=step, loss=f"{name} {metrics[name]:.4g}")
        elif metrics:
            shown = "  ".join(f"{key} {value:.4f}" for key, value in metrics.items())
            self._console.print(f"step {step} {split}: {shown}", highlight=False)
        if self._directory is None:
            return
        with (self._directory / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"split": split, "step": step, "metrics": metrics}) + "\n")
        if self._writer is not None:
            for key, value in metrics.items():
                self._writer.add_scalar(f"{split}/{key}", value, step)

    def warn(self, text: str) -> None:
        self._console.print(f"warning: {text}", style="yellow", highlight=False, soft_wrap=True)


def _tensorboard(directory: pathlib.Path) -> Any:
    try:
        import tensorboardX  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError("`--tensorboard` needs the extra: pip install 'jgen[tensorboard]'.") from error
    return tensorboardX.SummaryWriter(str(directory / "tensorboard"))
