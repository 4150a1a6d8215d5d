"""Phase diagrams as vector pictures, from a labelled dataset."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import xarray as xr
from contourpy import FillType, contour_generator
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from epijax.phases import LEGEND
from epijax.sweeps import Boundary, phase_counts

MOST_CELLS = 2048  # drawn along an axis; finer maps are thinned, keeping the rarest phase of each block
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.linewidth": 0.6,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,  # text stays text in a paper
}
INK = "#1a1a1a"


@rc_context(STYLE)
def phase_diagram(dataset: xr.Dataset, boundaries: Sequence[Boundary] = ()) -> Figure:
    """The phases of a two-axis sweep as filled regions with vector boundaries, sharp at any size.

    Boundaries run where the margin, interpolated between the cells that differ, is zero, or halfway if it was not kept.
    The legend gives the share of cells of each phase; below it stand the parameters held fixed.

    **Arguments:** `dataset`, with two dimensions, the first drawn to the right, the second up; `boundaries`, those of
    the same rectangle by `ej.boundaries`, drawn in place of the outlines of cells.

    **Returns:** a `Figure`; `savefig` writes PNG, SVG or PDF.

    Raises `ValueError` if the dataset does not have two dimensions.
    """
    phase = dataset["phase"]
    if phase.ndim != 2:
        raise ValueError(
            f"a picture needs 2 axes, the sweep has {phase.ndim} ({', '.join(map(str, phase.dims))}); "
            "select values of the others, as in dataset.isel(upper=0)"
        )
    for dimension in (dimension for dimension in phase.dims if dimension not in dataset.coords):
        raise ValueError(f"{dimension} holds parameters that vary together, in no order that could be drawn")
    counts = phase_counts(dataset)
    right, up = (str(dimension) for dimension in phase.dims)
    codes, margins, across, along = _thinned(dataset, counts)

    figure = Figure(figsize=(6.0, 3.9), layout="constrained")
    axes = figure.add_subplot()
    _fill(axes, across, along, codes.T, margins.T, counts, edge=0.0 if boundaries else 0.6)
    for boundary in boundaries:
        axes.plot(*boundary.points.T, color=INK, linewidth=0.6, solid_joinstyle="round")
    axes.set(xlim=(across[0], across[-1]), ylim=(along[0], along[-1]), xlabel=_label(dataset, right))
    axes.set(ylabel=_label(dataset, up), title=_title(str(dataset.attrs.get("model", ""))))
    axes.set_box_aspect(1)
    axes.tick_params(width=0.6)
    total = sum(counts.values())
    handles = [
        Patch(
            facecolor=LEGEND[code].colour,
            edgecolor=INK,
            linewidth=0.6,
            hatch=2 * LEGEND[code].hatch,
            label=f"{LEGEND[code].name.replace('_', ' ')}  {_percent(counts[code], total)}",
        )
        for code in sorted(counts)
    ]
    legend = axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.03, 1.0), frameon=False, borderaxespad=0, title="phase"
    )
    legend.set_alignment("left")
    fixed = dataset.attrs.get("fixed", {})
    if fixed:
        text = "held fixed\n" + "\n".join(f"{key} = {_number(value)}" for key, value in fixed.items())
        axes.text(1.05, 0.0, text, transform=axes.transAxes, fontsize=7, va="bottom", linespacing=1.35, color=INK)
    return figure


@rc_context(STYLE)
def basin_map(dataset: xr.Dataset) -> Figure:
    """The share of learners whose limit is unsafe over two axes, from a sweep with `learning`.

    The line is where half of them are; between the dotted ones the confidence interval holds a half.

    Raises `ValueError` for a dataset without these shares, or with other than two dimensions.
    """
    if "unsafe_share" not in dataset:
        raise ValueError("the sweep has no learners; make it with learning=ej.Learning(…), or phase-diagram --by basin")
    share = dataset["unsafe_share"]
    if share.ndim != 2 or any(dimension not in dataset.coords for dimension in share.dims):
        raise ValueError(
            f"a picture needs 2 axes of one parameter each; the sweep has {', '.join(map(str, share.dims))}"
        )
    right, up = (str(dimension) for dimension in share.dims)
    x, y = dataset[right].values, dataset[up].values
    figure = Figure(figsize=(5.4, 3.9), layout="constrained")
    axes = figure.add_subplot()
    mesh = axes.pcolormesh(x, y, share.values.T, cmap="cividis_r", vmin=0, vmax=1, shading="nearest", rasterized=True)
    for name, style in (("unsafe_share", "-"), ("unsafe_low", ":"), ("unsafe_high", ":")):
        values = dataset[name].values.T if name in dataset else np.zeros(0)
        if values.size and np.nanmin(values) < 0.5 < np.nanmax(values):
            axes.contour(x, y, values, levels=[0.5], colors=INK, linewidths=0.8, linestyles=style)
    axes.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]), xlabel=_label(dataset, right), ylabel=_label(dataset, up))
    axes.set(title=_title(str(dataset.attrs.get("model", ""))))
    axes.set_box_aspect(1)
    axes.tick_params(width=0.6)
    bar = figure.colorbar(mesh, ax=axes, shrink=0.72, label="share of learners whose limit is unsafe")
    bar.outline.set_linewidth(0.6)  # pyright: ignore[reportCallIssue]
    learning = dataset.attrs["learning"]
    told = {key: value for key, value in dataset.attrs.get("fixed", {}).items() if value is not None}
    told |= {key: learning[key] for key in ("prior", "rounds", "learners", "seed")}
    usual = {"temperature": 0, "discount": 1, "window": None}
    told |= {key: learning[key] for key, value in usual.items() if learning[key] != value}
    text = "held fixed\n" + "\n".join(f"{key} = {_number(value)}" for key, value in told.items())
    bar.ax.text(5.5, 0.5, text, transform=bar.ax.transAxes, fontsize=7, va="center", linespacing=1.35, color=INK)
    return figure


def save(figure: Figure, path: str, dpi: int = 300) -> None:
    """Writes the figure; the suffix of `path` says which format."""
    with rc_context(STYLE):
        figure.savefig(path, dpi=dpi, bbox_inches="tight", pad_inches=0.04)


def _thinned(dataset: xr.Dataset, counts: Mapping[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Phases, margins and the two coordinates, with at most `MOST_CELLS` cells an axis.

    A block of cells becomes one cell of the phase that is rarest in the whole map, so that thin phases stay visible;
    first and last coordinates stay.
    """
    phase = dataset["phase"]
    steps = [-(-n // MOST_CELLS) for n in phase.shape]
    coordinates = [np.asarray(phase[dimension].values, float) for dimension in phase.dims]
    if steps == [1, 1] and "margin" in dataset:
        return phase.values, dataset["margin"].values, coordinates[0], coordinates[1]
    by_rank = np.array(sorted(counts, key=lambda code: -counts[code]), np.uint8)
    rank = np.zeros(256, np.uint8)
    rank[by_rank] = np.arange(len(by_rank))
    band = steps[0] * -(-1024 // steps[0])  # whole blocks, about as many rows as a stored chunk has
    thinned = []
    for start in range(0, phase.shape[0], band):
        ranks = rank[phase[start : start + band].values]
        ranks = np.maximum.reduceat(ranks, np.arange(0, ranks.shape[0], steps[0]), axis=0)
        thinned.append(np.maximum.reduceat(ranks, np.arange(0, ranks.shape[1], steps[1]), axis=1))
    codes = by_rank[np.concatenate(thinned)]
    thin = [np.linspace(0, len(c) - 1, -(-len(c) // step)) for c, step in zip(coordinates, steps, strict=True)]
    across, along = (np.interp(t, np.arange(len(c)), c) for t, c in zip(thin, coordinates, strict=True))
    return codes, np.ones(codes.shape, np.float32), across, along  # equal margins: boundaries halfway


def _fill(
    axes: Axes,
    x: np.ndarray,
    y: np.ndarray,
    codes: np.ndarray,
    margins: np.ndarray,
    counts: Mapping[int, int],
    edge: float,
) -> None:
    """The commonest phase as the ground, every other one as polygons with an edge on top of it."""
    ground, *others = sorted(counts, key=lambda code: -counts[code])
    axes.set_facecolor(LEGEND[ground].colour)
    axes.patch.set_hatch(LEGEND[ground].hatch)
    distance = np.maximum(np.nan_to_num(margins), 1e-6)  # to the nearest boundary, in units that do not matter
    grain = [(values[-1] - values[0]) / len(values) / 1000 for values in (x, y)]
    for code in others:
        inside = codes == code
        # what is no phase, a line of ties say, covers its cells; a phase ends where its margin does
        field = np.where(inside, 1, -1) if code not in range(5) else np.where(inside, distance, -distance)
        outlines = contour_generator(x, y, field, fill_type=FillType.OuterOffset)
        polygons, offsets = cast("tuple[list[np.ndarray], list[np.ndarray]]", outlines.filled(0.0, 1e9))
        paths = [
            _closed(np.round(ring / grain) * grain)
            for polygon, starts in zip(polygons, offsets, strict=True)
            for ring in np.split(polygon, starts[1:-1])
        ]
        if paths:
            entry = LEGEND[code]
            axes.add_patch(
                PathPatch(
                    Path.make_compound_path(*paths),
                    facecolor=entry.colour,
                    edgecolor=INK,
                    hatch=entry.hatch,
                    linewidth=edge,
                    joinstyle="round",
                )
            )


def _title(model: str) -> str:
    path, _, function = model.rpartition(":")
    return (path.split("/")[-1].removesuffix(".py") if function == "build" else function).replace("_", " ").capitalize()


def _closed(ring: np.ndarray) -> Path:
    """A closed path without the points that lie straight between their neighbours."""
    points = ring[:-1]  # the last one repeats the first
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    turn = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
    size = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    points = points[np.abs(turn) > 1e-9 * size]
    return Path(np.vstack([points, points[:1]]), closed=True)


def _label(dataset: xr.Dataset, dimension: str) -> str:
    meaning = dataset[dimension].attrs.get("long_name", dimension)
    return dimension if meaning == dimension else f"{meaning}, {dimension}"


def _percent(count: int, total: int) -> str:
    share = 100 * count / total
    return f"{share:.1f} %" if share >= 0.05 or count == 0 else "< 0.1 %"


def _number(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value)
