"""A design as a folder: numbers as JSON, words as Markdown, pictures for a paper."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from epijax.engineering import COSTS, PRIOR, Designed
from epijax.phases import LEGEND
from epijax.view.plot import INK, STYLE, phase_diagram, save

_UNITS = {"fit": "fit lost, nats", "change": "change of levers, shares of their ranges", "prior": "KL(μ_φ‖μ₀), nats"}
_LINES = (("-", "o", LEGEND[2].colour), ("--", "s", LEGEND[1].colour), (":", "^", LEGEND[3].colour))


def write(
    folder: Path,
    designed: Designed,
    maps: Mapping[str, xr.Dataset],
    box: Mapping[str, tuple[float, float]],
    settings: Mapping[str, Any],
    suffixes: Sequence[str],
    front: xr.Dataset | None = None,
    levers: xr.Dataset | None = None,
) -> list[Path]:
    """Writes report.json, report.md, path.npz and the pictures; tells where they are.

    **Arguments:** `maps`: "before" and "after" -> a sweep of two axes, `box` outlined in it; `settings`: what was
    asked; `front`: of `trade_off`; `levers`: of `compare_levers`.
    """
    figures = {name: _map(dataset, box) for name, dataset in maps.items()} | {"path": _path(designed)}
    if front is not None:
        figures["trade-off"] = trade_off_curve(front)
    if levers is not None:
        figures["levers"] = lever_curves(levers)
    paths = []
    for name, figure in figures.items():
        for suffix in suffixes:
            paths.append(folder / f"{name}.{suffix}")
            save(figure, str(paths[-1]))
    np.savez(folder / "path.npz", allow_pickle=False, **designed.path)
    tables = {name: _columns(data) for name, data in (("trade_off", front), ("levers", levers)) if data is not None}
    told = {
        "headline": designed.headline,
        "certified": designed.certified,
        "asked": dict(settings),
        "design": {key: value for key, value in asdict(designed).items() if key != "path"},
    }
    told |= tables
    numbers = json.dumps(_plain(told), indent=2, ensure_ascii=False, allow_nan=False)
    words = _words(designed, front, levers, settings, [f"{n}.{suffixes[0]}" for n in figures])
    for name, text in (("report.json", numbers + "\n"), ("report.md", words)):
        (folder / name).write_text(text, encoding="utf-8")
    return [*paths, folder / "path.npz", folder / "report.json", folder / "report.md"]


def check_folder(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raises `ValueError` where the folder holds the report of another design, which would be lost."""
    path = folder / "report.json"
    if not path.exists():
        return
    asked = json.loads(path.read_text(encoding="utf-8"))["asked"]
    differs = [key for key in settings if asked.get(key) != _plain(settings[key])]
    if differs:
        raise ValueError(
            f"{folder} holds the report of another design, which differs in {', '.join(differs)}; choose another "
            f"folder, or delete it"
        )


def summary(designed: Designed) -> list[str]:
    """The design in lines: headline, levers, costs, phases."""
    lines = [designed.headline]
    for name, value in designed.after.items():
        if np.ndim(value) == 0:
            lines.append(f"  {name:<16} {designed.before[name]:10.6g} → {value:.6g}")
        else:
            lines.append(f"  {name:<16} {np.size(value)} values, of which the largest is number {np.argmax(value) + 1}")
    for name in COSTS:
        if any(designed.costs[name]):
            lines.append(f"  cost {name:<11} {designed.costs[name][1]:10.6g} ({_UNITS[name]})")
    for phase in dict.fromkeys([*designed.proof_before.shares, *designed.proof_after.shares]):
        before, after = (proof.shares.get(phase, 0.0) for proof in (designed.proof_before, designed.proof_after))
        lines.append(f"  {phase:<16} {before:10.4%} → {after:.4%} of environments held out")
    if PRIOR in designed.after and not designed.certified:
        lines.append(
            "  the prior's weights move how often actions are played; the exact verdict turns on its support alone"
        )
    if designed.proof_after.safe_share > 0:
        lines.append(f"  smallest margin of those that are safe: {designed.proof_after.smallest_margin:.3g}")
    return lines


@rc_context(STYLE)
def trade_off_curve(front: xr.Dataset) -> Figure:
    """Certified safe share over the cost that was weighed; filled marks are efficient, a cross is the present."""
    figure, axes = _share_axes(_UNITS[front.attrs["cost"]])
    order = np.argsort(front["cost"].values, kind="stable")
    cost, share, weight, best = (front[key].values[order] for key in ("cost", "safe_share", "weight", "efficient"))
    colour = LEGEND[2].colour
    axes.plot(cost[best], share[best], linewidth=1, color=colour)
    axes.scatter(cost, share, s=18, facecolors=np.where(best, colour, "white"), edgecolors=colour, zorder=3)
    axes.plot(0, front.attrs["safe_share_before"], "x", color=INK, markersize=6, label="present values")
    axes.legend(fontsize=7, loc="lower right")
    for x, y, label in zip(cost[best], share[best], weight[best], strict=True):
        offset = (5, 5) if y < 0.5 else (5, -9)
        axes.annotate(f"weight {label:g}", (x, y), offset, textcoords="offset points", fontsize=6)
    return figure


@rc_context(STYLE)
def lever_curves(levers: xr.Dataset) -> Figure:
    """Certified safe share over a limit on the cost, a line for each kind of levers."""
    figure, axes = _share_axes(f"limit on the {_UNITS[levers.attrs['cost']]}")
    for name, (line, mark, colour) in zip(levers["lever"].values, _LINES, strict=False):
        share = levers["safe_share"].sel(lever=name)
        axes.plot(levers["limit"], share, line, marker=mark, markersize=3.5, color=colour, linewidth=1, label=str(name))
    axes.legend(fontsize=7, loc="lower right")
    return figure


def _share_axes(label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.2, 3.1), layout="constrained")
    axes = figure.add_subplot()
    axes.set(ylim=(-0.03, 1.03), ylabel="certified safe share", xlabel=label)
    axes.tick_params(width=0.6)
    return figure, axes


@rc_context(STYLE)
def _path(designed: Designed) -> Figure:
    """The loss and each lever that is a number, over the steps of all restarts."""
    scalars = [name for name, value in designed.after.items() if np.ndim(value) == 0]
    panels = ["loss", *scalars]
    figure = Figure(figsize=(2.3 * len(panels), 2.2), layout="constrained")
    for axes, name in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        axes.plot(designed.path[name].T, linewidth=0.7, color=LEGEND[2].colour, alpha=0.7)
        if name in designed.after:
            axes.axhline(designed.after[name], color=INK, linewidth=0.8, linestyle="--")
        axes.set(xlabel="step", ylabel=name)
        axes.tick_params(width=0.6)
    return figure


def _map(dataset: xr.Dataset, box: Mapping[str, tuple[float, float]]) -> Figure:
    figure = phase_diagram(dataset)
    right, up = (str(dimension) for dimension in dataset["phase"].dims)
    (left, end), (bottom, top) = box[right], box[up]
    whole = [(float(dataset[name].min()), float(dataset[name].max())) for name in (right, up)]
    if whole != [(left, end), (bottom, top)]:
        outline = Rectangle((left, bottom), end - left, top - bottom, fill=False, edgecolor=INK, linewidth=1.2, ls="--")
        figure.axes[0].add_patch(outline)
    return figure


def _words(
    designed: Designed,
    front: xr.Dataset | None,
    levers: xr.Dataset | None,
    settings: Mapping[str, Any],
    pictures: Sequence[str],
) -> str:
    headline, *rest = summary(designed)
    lines = [f"# {designed.model}: {headline}", "", "```", *rest, "```", ""]
    lines += ["Asked: " + ", ".join(f"{key} = {value}" for key, value in settings.items()), ""]
    lines += [
        f"The objective takes {designed.claim:.2%} of the environments used for safe. What counts is the exact "
        f"solver's verdict on the {designed.proof_after.environments:,} held out, above: others, and the corners of "
        f"their box where they are drawn from one.",
        "",
    ]
    if designed.proof_after.unsafe:
        lines += ["Environments that are not safe, the first of them:", ""]
        lines += ["- " + ", ".join(f"{k} = {v:.6g}" for k, v in point.items()) for point in designed.proof_after.unsafe]
        lines.append("")
    if front is not None:
        lines += [f"## Safety against {front.attrs['cost']}", "", *_table(_columns(front)), ""]
    if levers is not None:
        shares = {f"safe_share, {name}": levers["safe_share"].sel(lever=name).values for name in levers["lever"].values}
        table = _table({"limit": levers["limit"].values} | shares)
        lines += [f"## Beliefs against rewards, at equal {levers.attrs['cost']}", "", f"{levers.attrs['compared']}. "]
        lines += [f"The cost is {_UNITS[levers.attrs['cost']]}, summed over the levers of a kind.", "", *table, ""]
    lines += [f"[{name}]({name})" if name.endswith(".pdf") else f"![{name}]({name})" for name in pictures]
    return "\n".join([*lines, ""])


def _columns(dataset: xr.Dataset) -> dict[str, list]:
    return dataset.to_dataframe().reset_index().to_dict("list")  # pyright: ignore[reportReturnType]


def _table(columns: Mapping[str, Sequence | np.ndarray]) -> list[str]:
    told = ([str(v) if isinstance(v, bool) else f"{v:.6g}" for v in values] for values in columns.values())
    cells = [list(columns), ["---"] * len(columns), *zip(*told, strict=True)]
    return ["| " + " | ".join(row) + " |" for row in cells]


def _plain(value: Any) -> Any:
    """What JSON can hold: lists of arrays, null for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
