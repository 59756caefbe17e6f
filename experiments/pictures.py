"""Pictures of runs: image grids, scatter plots, densities, learning curves."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def tile(images: Any, columns: int = 8, pad: int = 1) -> np.ndarray:
    """(n, h, w, c) images in [0, 1] as one image (rows·(h+pad), columns·(w+pad), c), row by row, on white."""
    images = np.clip(np.asarray(images, np.float32), 0.0, 1.0)
    num, height, width, channels = images.shape
    rows = -(-num // columns)
    sheet = np.ones((rows * (height + pad) + pad, columns * (width + pad) + pad, channels), np.float32)
    for i, image in enumerate(images):
        top, left = (i // columns) * (height + pad) + pad, (i % columns) * (width + pad) + pad
        sheet[top : top + height, left : left + width] = image
    return sheet


def images(x: Any) -> tuple[np.ndarray, int]:
    """((n, h, w, c), columns of a sheet) of images or rows (n, d): square rows as squares, others as lines."""
    x = np.asarray(x)
    if x.ndim == 4:
        return x, 8
    side = math.isqrt(x.shape[1])
    return (x.reshape(-1, side, side, 1), 8) if side * side == x.shape[1] else (x[:, None, :, None], 1)


def grid(path: pathlib.Path, images: Any, columns: int = 8, title: str = "") -> None:
    """Writes (n, h, w, c) images in [0, 1], c = 1 or 3, as one sheet."""
    sheet = tile(images, columns)
    scale = max(1, round(480 / sheet.shape[1]))
    height = sheet.shape[0] * scale / 100 + 0.3 * bool(title)
    figure, axes = _figure(1, 1, sheet.shape[1] * scale / 100, height)
    _show(axes[0, 0], sheet)
    if title:
        axes[0, 0].set_title(title, fontsize=9)
    _save(figure, path)


def panels(path: pathlib.Path, named: Mapping[str, Any], columns: int = 8) -> None:
    """Writes several sheets of images side by side, each under its name."""
    sheets = {name: tile(images, columns) for name, images in named.items()}
    tallest = max(sheet.shape[0] / sheet.shape[1] for sheet in sheets.values())
    figure, axes = _figure(1, len(named), 4.2 * len(named), 4.2 * tallest + 0.4)
    for axis, (name, sheet) in zip(axes[0], sheets.items(), strict=True):
        _show(axis, sheet)
        axis.set_title(name, fontsize=10)
    _save(figure, path)


def rows(path: pathlib.Path, named: Mapping[str, Any], title: str = "") -> None:
    """Writes one row of images (n, h, w, c) per name, which stands to its left; all rows have the same n."""
    sheets = {name: tile(images, columns=len(images)) for name, images in named.items()}
    height, width, _ = next(iter(sheets.values())).shape
    scale = 5.5 / width
    beside = 0.1 + 0.08 * max(map(len, sheets))
    figure, axes = _figure(len(sheets), 1, 5.5 + beside, len(sheets) * (height * scale + 0.06) + 0.3 * bool(title))
    for axis, (name, sheet) in zip(axes[:, 0], sheets.items(), strict=True):
        _show(axis, sheet)
        axis.set_anchor("W")  # tight_layout made room for the name left of axes that were not yet of the sheet's shape
        axis.text(-0.01, 0.5, name, transform=axis.transAxes, ha="right", va="center", fontsize=9)
    if title:
        axes[0, 0].set_title(title, fontsize=10)
    _save(figure, path)


def scatter(path: pathlib.Path, named: Mapping[str, Any], labels: Any = None, limit: float | None = None) -> None:
    """Writes one panel of (n, 2) points per name, coloured by `labels` (one array for all) where they are given."""
    figure, axes = _figure(1, len(named), 4.2 * len(named), 4.2)
    for axis, (name, points) in zip(axes[0], named.items(), strict=True):
        points = np.asarray(points)
        coloured = axis.scatter(points[:, 0], points[:, 1], s=4, c=labels, cmap="tab10" if labels is not None else None)
        if labels is not None and axis is axes[0][-1]:
            figure.colorbar(coloured, ax=axis)
        axis.set_title(name, fontsize=10)
        axis.set_aspect("equal")
        if limit is not None:
            axis.set(xlim=(-limit, limit), ylim=(-limit, limit))
    _save(figure, path)


def heatmap(path: pathlib.Path, named: Mapping[str, Any], extent: tuple[float, float, float, float]) -> None:
    """Writes one panel per name of values on a grid, [row = second coordinate, column = first], over `extent`."""
    figure, axes = _figure(1, len(named), 4.2 * len(named), 4.2)
    for axis, (name, values) in zip(axes[0], named.items(), strict=True):
        axis.imshow(np.asarray(values), origin="lower", extent=extent, cmap="viridis", aspect="equal")
        axis.set_title(name, fontsize=10)
    _save(figure, path)


def paths(path: pathlib.Path, named: Mapping[str, Any], values: Any, extent: tuple[float, float, float, float]) -> None:
    """Writes one panel per name of (n, 2) points joined in their order, over `values` on a grid as in `heatmap`."""
    figure, axes = _figure(1, len(named), 4.2 * len(named), 4.2)
    for axis, (name, points) in zip(axes[0], named.items(), strict=True):
        axis.imshow(np.asarray(values), origin="lower", extent=extent, cmap="Blues", aspect="auto")
        points = np.asarray(points)
        axis.plot(points[:, 0], points[:, 1], color="tab:red", linewidth=0.6, marker=".", markersize=3)
        axis.set(xlim=extent[:2], ylim=extent[2:])
        axis.set_title(name, fontsize=10)
    _save(figure, path)


def matrices(path: pathlib.Path, named: Mapping[str, Any], columns: int, ticks: Sequence[str] = ()) -> None:
    """Writes one panel per name of a matrix of non-negative values; `ticks` name its rows and columns."""
    rows = -(-len(named) // columns)
    side = max(2.0, 0.08 * len(ticks))
    figure, axes = _figure(rows, columns, side * columns, (side + 0.3) * rows)
    for axis in axes.ravel()[len(named) :]:
        axis.axis("off")
    for axis, (name, values) in zip(axes.ravel(), named.items(), strict=False):
        axis.imshow(np.asarray(values), cmap="viridis", vmin=0.0)
        axis.set_title(name, fontsize=8)
        for which in (axis.xaxis, axis.yaxis):
            which.set_ticks(range(len(ticks)), [repr(tick)[1:-1] for tick in ticks], fontsize=5, family="monospace")
            which.set_tick_params(length=0, pad=1)
    _save(figure, path)


def alignments(path: pathlib.Path, named: Mapping[str, tuple[Any, Sequence[str], Sequence[str]]]) -> None:
    """Writes one panel per name of (weights in [0, 1], names of the rows, names of the columns)."""
    figure, axes = _figure(1, len(named), 3.6 * len(named), 3.6)
    for axis, (name, (values, rows, columns)) in zip(axes[0], named.items(), strict=True):
        # Square cells would hide the names from tight_layout, which looks at the axes before they are made square.
        axis.imshow(np.asarray(values), cmap="gray_r", vmin=0.0, vmax=1.0, aspect="auto")
        axis.set_title(name, fontsize=9)
        for which, ticks in ((axis.yaxis, rows), (axis.xaxis, columns)):
            which.set_ticks(range(len(ticks)), ticks, fontsize=8, family="monospace")
    _save(figure, path)


def curves(path: pathlib.Path, named: Mapping[str, tuple[Sequence[int], Sequence[float]]]) -> None:
    """Writes learning curves, {"split/metric": (steps, values)}: one panel per metric, one line per split."""
    metrics = sorted({name.split("/")[-1] for name in named})
    if not metrics:
        return
    columns = min(3, len(metrics))
    rows = -(-len(metrics) // columns)
    figure, axes = _figure(rows, columns, 4.2 * columns, 3.0 * rows)
    for axis in axes.ravel()[len(metrics) :]:
        axis.axis("off")
    for axis, metric in zip(axes.ravel(), metrics, strict=False):
        for name, (steps, values) in named.items():
            if name.split("/")[-1] == metric:
                axis.plot(steps, values, label=name.split("/")[0], linewidth=1, marker="." if len(steps) < 8 else None)
        axis.set_title(metric, fontsize=10)
        axis.set_xlabel("step", fontsize=8)
        axis.legend(fontsize=8)
    _save(figure, path)


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """(figure, (rows, columns) axes) of a size in inches."""
    # Imported here and without pyplot: a run is sooner at its first step, and the user's backend stays as it is.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    return figure, figure.subplots(rows, columns, squeeze=False)


def lines(path: pathlib.Path, named: Mapping[str, tuple[Any, Any]], label: str = "") -> None:
    """Writes one panel with a line per name, {name: (x, y)}; `label` stands below the x axis."""
    figure, axes = _figure(1, 1, 4.8, 3.6)
    axis = axes[0][0]
    for name, (x, y) in named.items():
        axis.plot(np.asarray(x), np.asarray(y), label=name, linewidth=1, marker=".")
    axis.set_xlabel(label, fontsize=8)
    axis.legend(fontsize=8)
    _save(figure, path)


def line_panels(
    path: pathlib.Path,
    panels: Mapping[str, Mapping[str, tuple[Any, Any]]],
    label: str = "",
    *,
    log_x: bool = False,
    legend: bool = True,
) -> None:
    """Writes panels side by side, {title: {name: (x, y)}}, a line per name; `label` stands below the x axes."""
    figure, axes = _figure(1, len(panels), 4.2 * len(panels), 3.4)
    for axis, (title, named) in zip(axes[0], panels.items(), strict=True):
        for name, (x, y) in named.items():
            axis.plot(np.asarray(x), np.asarray(y), label=name, linewidth=1, marker="." if len(x) < 20 else None)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(label, fontsize=8)
        if log_x:
            axis.set_xscale("log")
        if legend:
            axis.legend(fontsize=8)
    _save(figure, path)


def histograms(path: pathlib.Path, named: Mapping[str, Any], label: str = "", bins: int = 40) -> None:
    """Writes one panel with the outline of a histogram per name, each of area 1, over bins that all of them share."""
    named = {name: np.ravel(np.asarray(values)) for name, values in named.items()}
    edges = np.histogram_bin_edges(np.concatenate(list(named.values())), bins)
    figure, axes = _figure(1, 1, 4.8, 3.6)
    axis = axes[0][0]
    for name, values in named.items():
        axis.hist(values, edges, density=True, histtype="step", label=name, linewidth=1.2)
    axis.set_xlabel(label, fontsize=8)
    axis.legend(fontsize=8)
    _save(figure, path)


def balls(path: pathlib.Path, panels: Mapping[str, tuple[Any, Any, float, Any, Any]], side: Any) -> None:
    """One panel per name: a loss's contours over `side` × `side`, and the set where another is at most a size.

    A panel is (loss, other, size, dot, cross), [row = second coordinate, column = first]; the last two are marked.
    """
    figure, axes = _figure(1, len(panels), 4.2 * len(panels), 4.2)
    for axis, (name, (loss, other, size, dot, cross)) in zip(axes[0], panels.items(), strict=True):
        axis.contour(side, side, np.asarray(loss), levels=20, cmap="viridis", linewidths=0.8)
        axis.contourf(side, side, np.asarray(other), levels=[0.0, max(size, 1e-6)], colors=["tab:orange"], alpha=0.4)
        axis.plot(*np.asarray(dot), "o", color="black", markersize=4)
        axis.plot(*np.asarray(cross), "x", color="tab:red", markersize=8)
        axis.set_title(name, fontsize=10)
        axis.set_aspect("equal")
    _save(figure, path)


def _show(axis: Any, sheet: np.ndarray) -> None:
    axis.imshow(sheet[..., 0] if sheet.shape[-1] == 1 else sheet, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axis.axis("off")


def _save(figure: Any, path: pathlib.Path) -> None:
    figure.tight_layout(pad=0.3)
    # Without the Software entry two runs of one seed write the same bytes.
    figure.savefig(path, dpi=100, metadata={"Software": None})
