"""Sweeps written down: a TOML file to the arguments of `sweep`."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from epijax.sweeps.grid import scattered
from epijax.sweeps.job import nearest

_KEYS = ("model", "output", "dtype", "keep", "refine", "fixed", "axes", "together", "random")
_RANDOM = ("kind", "num", "seed", "spans")


def read_job(path: Path) -> dict[str, Any]:
    """The sweep that a file describes.

    A file has a `model`, a built-in one or path/to/file.py:build; and may have `output`, a path for the store; `dtype`;
    `keep`, a list of variables; `refine`, a number; and the tables `fixed`, parameter = value; `axes`, parameter =
    "start:stop:num" or a list; `[[together]]`, parameters that vary together, each a list as long as the others'; and
    `random`, a design of `kind` "sobol" or "latin_hypercube", with `num`, `seed` and `spans`, parameter = [lower,
    upper]. Paths in it are seen from the file's folder.

    **Returns:** those of model, output, dtype, keep, refine, fixed and axes that it gives; axes as `sweep` takes them.

    Raises `ValueError` for a file that is none, unknown keys and values that make no axis: each says where.
    """
    try:
        job = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"cannot read {path} ({error.strerror})") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML file: {error}") from error
    _known(path, job, _KEYS)
    if not isinstance(job.get("model"), str):
        raise ValueError(f'{path} must name a model, as in model = "sycophancy"')
    for key, kind in (("fixed", dict), ("axes", dict), ("random", dict), ("together", list), ("keep", list)):
        if not isinstance(job.get(key, kind()), kind):
            raise ValueError(f"{path}: {key} must be a {'table' if kind is dict else 'list'}")
    axes: dict[str | tuple[str, ...], np.ndarray] = {
        name: _axis(path, name, given) for name, given in job.pop("axes", {}).items()
    }
    for table in job.pop("together", []):
        columns = [_axis(path, name, given) for name, given in table.items()]
        if len({len(column) for column in columns}) != 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in zip(table, columns, strict=True))
            raise ValueError(f"{path}: parameters that vary together have as many values each; got {lengths}")
        axes[tuple(table)] = np.stack(columns, axis=1)
    if "random" in job:
        design = job.pop("random")
        _known(path, design, _RANDOM)
        if "num" not in design or not isinstance(design.get("spans"), dict):
            raise ValueError(f"{path}: random needs num, and spans of parameters, as in spans = {{ upper = [0, 1] }}")
        axes |= scattered(design.pop("spans"), design.pop("num"), **design)
    for key in ("model", "output"):
        if key in job and (key == "output" or ".py:" in job[key]):
            job[key] = str(path.parent / job[key])
    return job | {"axes": axes}


def span(name: str, text: str, size: int | None = None) -> np.ndarray:
    """The values of start:stop:num, or of start:stop in `size` points.

    Raises `ValueError` for text that says nothing of the kind.
    """
    parts = text.split(":")
    if len(parts) != 3 and (size is None or len(parts) != 2):
        also = "" if size is None else " or NAME=START:STOP"
        raise ValueError(f"axis {name} is given as NAME=START:STOP:NUM{also}; got {text!r}")
    low, high, count = (_number(name, part) for part in (*parts, *([] if len(parts) == 3 else [str(size)])))
    if not low < high:
        raise ValueError(f"axis {name} must start below its end; got {text}")
    if count != int(count) or count < 2:
        raise ValueError(f"axis {name} needs at least 2 points, a whole number; got {parts[-1]}")
    return np.linspace(low, high, int(count))


def _number(name: str, text: str) -> float:
    """The number that the text of a parameter's value is."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number; got {text!r}") from None


def _axis(path: Path, name: str, given: Any) -> np.ndarray:
    if isinstance(given, str):
        return span(name, given)
    try:
        return np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(f'{path}: axis {name} must be "start:stop:num" or a list of numbers; got {given!r}') from None


def _known(path: Path, table: Mapping[str, Any], keys: Iterable[str]) -> None:
    for unknown in table.keys() - keys:
        raise ValueError(f"{path} has a key {unknown!r} that says nothing; {nearest(unknown, keys)}")
