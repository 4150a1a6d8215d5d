"""What makes two sweeps the same one, and where a dataset comes from."""

import hashlib
import inspect
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from epijax.models import MODELS
from epijax.problem import FiniteProblem, Problem
from epijax.sweeps import store as on_disk
from epijax.sweeps.grid import Grid

_PRIOR = {
    "prior_a": "prior's weight of high θ",
    "prior_b": "prior's weight of low θ",
    "prior_mean": "mean of the normal prior",
    "prior_std": "standard deviation of the normal prior",
    "prior_slope": "tilt of the prior",
}
Build = Callable[..., Problem | FiniteProblem]


def config_of(
    name: str,
    build: Build,
    fixed: Mapping[str, Any],
    grid: Grid,
    dtype: str,
    actions: Sequence[str],
    unsafe: Sequence[bool],
    variables: Sequence[str],
    refine: int | None,
    learning: Any,
) -> dict[str, Any]:
    """What makes two sweeps the same one."""
    return {
        "format": on_disk.FORMAT,
        "epijax": version("epijax"),
        "model": name,
        "source": None if name in MODELS else source_of(build),
        "fixed": {key: np.asarray(value).tolist() for key, value in sorted(fixed.items())},
        "axes": {
            key: {
                "first": float(values[0]),
                "last": float(values[-1]),
                "points": len(values),
                "sha256": hashlib.sha256(values.tobytes()).hexdigest()[:16],
            }
            for key, (_, values) in grid.coordinates().items()
        },
        "dimensions": list(grid.axes),
        **({"together": {key: list(names) for key, names in grid.together.items()}} if grid.together else {}),
        "dtype": dtype,
        "actions": list(actions),
        "unsafe": list(unsafe),
        "variables": list(variables),
        **({} if refine is None else {"refine": refine}),
        **({} if learning is None else {"learning": asdict(learning)}),
    }


def source_of(build: Build) -> str | None:
    """A hash of the text of a user's function: what is stored of one is not gone on with by another."""
    try:
        return hashlib.sha256(inspect.getsource(inspect.unwrap(build)).encode()).hexdigest()[:16]
    except (OSError, TypeError):  # no source to be had, as for a function typed at a prompt
        return None


def attributes_of(build: Build, config: dict[str, Any], devices: Sequence[Any]) -> dict[str, Any]:
    """Where a dataset comes from, for its attributes."""
    model = MODELS.get(config["model"]) if config["source"] is None else None
    file = None if model else inspect.getsourcefile(inspect.unwrap(build))
    meaning = _PRIOR | (dict(model.meaning) if model else {})
    defaults = {
        key: parameter.default
        for key, parameter in inspect.signature(build).parameters.items()
        if parameter.default is not parameter.empty and key not in config["axes"]
    }
    return {
        "Conventions": "CF-1.11",
        "title": f"{'basins' if 'learning' in config else 'phase diagram'} of {config['model']}",
        "model": f"{Path(file).resolve()}:{config['model']}" if file else config["model"],
        "fixed": defaults | config["fixed"],
        "actions": config["actions"],
        "unsafe": config["unsafe"],
        "dtype": config["dtype"],
        **({"learning": config["learning"]} if "learning" in config else {}),
        "device": f"{len(devices)} x {devices[0].device_kind}",
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in ("epijax", "jax", "jaxlib", "numpy", "xarray", "zarr")},
        },
        "command": " ".join(sys.argv),
        "meanings": {key: meaning.get(key, key) for key in (*config["axes"], *config["fixed"], *defaults)},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
