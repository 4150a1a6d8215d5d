"""Sweeps on disk: one Zarr group, one marker file a finished tile (all disk knowledge).

A tile counts as done when its marker is there, and the marker is written last. Chunks alone prove nothing: a killed
writer leaves some variables of a tile written and others not.
"""

import hashlib
import json
import os
import shutil
import socket
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.errors import ZarrUserWarning

from epijax.phases import NOT_COMPUTED, PHASES
from epijax.sweeps.grid import Grid, Tile

Config = dict[str, Any]
FORMAT = 1


def digest(config: Config) -> str:
    """The SHA-256 of a configuration in canonical JSON."""
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def blank(variables: dict[str, np.dtype], labels: list[str]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """For each variable the value that says "not computed" and its attributes, CF flags among them."""
    phases = {code: name for code, name in PHASES.items() if code != NOT_COMPUTED}
    flags = " ".join(label.replace(" ", "_") for label in labels)
    sets = {"flag_masks": [1 << i for i in range(len(labels))], "flag_meanings": flags}
    about = {
        "phase": {
            "long_name": "phase",
            "flag_values": list(phases),
            "flag_meanings": " ".join(phases.values()),
        },
        "rationalizable": {"long_name": "Berk–Nash rationalizable actions, bit i for action i", **sets},
        "pure": {"long_name": "pure Berk–Nash equilibria, bit i for action i", **sets},
        "num_mixed": {"long_name": "number of Berk–Nash equilibria that are not pure"},
        "margin": {"long_name": "smallest scaled slack of a comparison that could change the answer", "units": "1"},
    }
    return {
        name: (
            NOT_COMPUTED if name == "phase" else np.nan if dtype.kind == "f" else int(np.iinfo(dtype).max),
            about[name],
        )
        for name, dtype in variables.items()
    }


class Store:
    """One run on disk: its arrays, and which of its tiles are done."""

    def __init__(self, path: Path, grid: Grid):
        self.path, self.grid = path, grid
        self._marks = path / ".done"
        attributes = _attributes(path)
        self._digest, names = attributes["config_sha256"], attributes["config"]["variables"]
        with zarr.config.set({"array.write_empty_chunks": True}):  # else a chunk of zeros looks as if missing
            self._arrays = {name: zarr.open_array(str(path / name), mode="r+") for name in names}

    def pending(self) -> list[Tile]:
        """The tiles without a valid marker of this configuration."""
        return [tile for tile in self.grid.tiles() if self._mark(tile) is None]

    def write(self, tile: Tile, block: dict[str, np.ndarray], record: dict[str, Any]) -> None:
        """Writes a tile, then its marker with `record`."""
        for name, values in block.items():
            self._arrays[name][self.grid.region(tile)] = values
        mark = {"config_sha256": self._digest, "host": socket.gethostname(), "finished": time.time(), **record}
        path = self._path(tile)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        with open(partial, "w") as file:
            json.dump(mark, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)

    def total(self, name: str) -> int:
        """The sum of a number over the records of all tiles done."""
        marks = (self._mark(tile) for tile in self.grid.tiles())
        return sum(mark[name] for mark in marks if mark is not None)

    def _path(self, tile: Tile) -> Path:
        return self._marks / (".".join(map(str, tile)) + ".json")

    def _mark(self, tile: Tile) -> dict[str, Any] | None:
        try:
            mark = json.loads(self._path(tile).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return mark if isinstance(mark, dict) and mark.get("config_sha256") == self._digest else None


def existing(path: Path, config: Config) -> tuple[int, ...] | None:
    """The tile of the run that stands at `path`, or `None` if nothing does.

    Raises `ValueError` if what stands there is no run of epijax, or a run of another configuration: with the
    differences.
    """
    if not path.exists():
        return None
    attributes = _attributes(path)
    if "config_sha256" not in attributes:
        raise ValueError(f"{path} exists and is not a sweep of epijax; name another place or move it away")
    if attributes["config_sha256"] != digest(config):
        stored = attributes["config"]
        raise ValueError(f"{path} holds another sweep ({_changes(stored, config)}); name another place or delete it")
    return tuple(attributes["tile"])


def _changes(stored: Config, asked: Config) -> str:
    """What differs between two configurations, as deep as they are alike."""
    told = []
    for key in sorted(stored.keys() | asked.keys()):
        old, new = stored.get(key), asked.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            told += [f"{key} {inner}" for inner in filter(None, [_changes(old, new)])]
        elif old != new and key != "sha256":
            told.append(f"{key}: stored {old}, asked {new}")
        elif old != new:
            told.append("other values")
    return "; ".join(told)


def create(path: Path, grid: Grid, config: Config, attributes: dict[str, Any], variables: dict[str, np.dtype]) -> None:
    """Makes the run's arrays, empty, in a temporary place and moves them to `path` at once.

    Raises `ValueError` where nothing can be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        everything = attributes | {"config": config, "config_sha256": digest(config), "tile": list(grid.tile)}
        group = zarr.create_group(store=str(partial), zarr_format=3, attributes=everything)
        meanings = attributes["meanings"]
        for name, values in grid.axes.items():
            group.create_array(name, data=values, dimension_names=[name], attributes={"long_name": meanings[name]})
        for name, (fill, about) in blank(variables, attributes["actions"]).items():
            group.create_array(
                name,
                shape=grid.shape,
                chunks=grid.tile,
                dtype=variables[name],
                fill_value=fill,
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
                dimension_names=list(grid.axes),
                attributes=about,
            )
        group.create_group(".done")  # the markers; a group, so that no reader stumbles over it
        with warnings.catch_warnings():  # that Zarr 3 does not specify consolidated metadata; xarray asks for it
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(str(partial))
        os.rename(partial, path)
    except OSError as error:
        raise ValueError(f"cannot write to {path.parent} ({error.strerror}); name another place") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_run(path: Path) -> xr.Dataset:
    """The run at `path` as a labelled dataset, read lazily.

    Raises `ValueError` if there is none.
    """
    attributes = _attributes(path)
    if "config_sha256" not in attributes:
        raise ValueError(f"{path} is not a sweep of epijax; `epijax phase-diagram` makes one")
    return xr.open_zarr(str(path), chunks=None)[attributes["config"]["variables"]]


def _attributes(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / "zarr.json").read_text())["attributes"]
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError):
        return {}
