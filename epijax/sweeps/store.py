"""Sweeps on disk: one Zarr group, one marker file a finished tile (all disk knowledge).

A tile counts as done when its marker is there, and the marker is written last. Chunks alone prove nothing: a killed
writer leaves some variables of a tile written and others not.
"""

import errno
import hashlib
import json
import os
import shutil
import socket
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
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
Part = tuple[int, int]  # the k-th of n, from 1
FORMAT = 1


class RunError(RuntimeError):
    """What stops a run that was asked for rightly: what is finished is kept, and can be gone on with."""


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
        "unsafe_share": {"long_name": "share of the learners not refuted whose limit is unsafe", "units": "1"},
        "unsafe_low": {"long_name": "lower end of its confidence interval", "units": "1"},
        "unsafe_high": {"long_name": "upper end of its confidence interval", "units": "1"},
        "settled_share": {"long_name": "share of the learners not refuted who settled on an action", "units": "1"},
        "refuted_share": {"long_name": "share of learners to whom no belief was left", "units": "1"},
    }
    return {
        name: (
            NOT_COMPUTED if name == "phase" else np.nan if dtype.kind == "f" else int(np.iinfo(dtype).max),
            about[name],
        )
        for name, dtype in variables.items()
    }


class Store:
    """One run on disk: its grid and arrays, and which of its tiles are done.

    Raises `ValueError` if there is none at `path`.
    """

    def __init__(self, path: Path):
        attributes = _run_attributes(path)
        self.path, self.config = path, attributes["config"]
        self.grid = _grid_of(path, attributes)
        self._marks = path / ".done"
        self._digest = attributes["config_sha256"]
        with zarr.config.set({"array.write_empty_chunks": True}):  # else a chunk of zeros looks as if missing
            self._arrays = {name: zarr.open_array(str(path / name), mode="r+") for name in self.config["variables"]}

    def pending(self, part: Part | None = None) -> list[Tile]:
        """The tiles without a valid marker of this configuration; of the k-th of n parts, every n-th tile from there.

        The parts are cut before what is done is left out, so that they stay the same.
        """
        k, n = part or (1, 1)
        return [tile for tile in islice(self.grid.tiles(), k - 1, None, n) if self.mark(tile) is None]

    def write(self, tile: Tile, block: dict[str, np.ndarray], record: dict[str, Any]) -> dict[str, np.ndarray]:
        """Writes a tile, then its marker with `record`, and gives the block back.

        Raises `RunError` where that cannot be written.
        """
        path = self._path(tile)
        partial = path.with_suffix(f".{os.getpid()}.partial")
        mark = {"config_sha256": self._digest, "host": socket.gethostname(), "finished": time.time(), **record}
        try:
            with ThreadPoolExecutor() as pool:  # compressors let go of the interpreter
                region = self.grid.region(tile)
                list(pool.map(lambda name: self._arrays[name].__setitem__(region, block[name]), block))
            with open(partial, "w") as file:
                json.dump(mark, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            return block
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise _unwritten(self.path, error) from error

    def mark(self, tile: Tile) -> dict[str, Any] | None:
        """The record of a tile that is done."""
        try:
            mark = json.loads(self._path(tile).read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return mark if isinstance(mark, dict) and mark.get("config_sha256") == self._digest else None

    def total(self, name: str) -> int:
        """The sum of a number over the records of all tiles done."""
        return sum(mark[name] for mark in map(self.mark, self.grid.tiles()) if mark is not None)

    def damage(self, tile: Tile) -> str | None:
        """What is wrong with the stored values of a tile, read and compared with their checksums; `None` if nothing."""
        for name, array in self._arrays.items():
            chunk = self.path / name / "c" / "/".join(map(str, tile))
            if not chunk.is_file():
                return f"{chunk} is missing"
            try:
                array[self.grid.region(tile)]
            except (ValueError, RuntimeError, OSError) as error:
                return f"{chunk} cannot be read ({error})"
        return None

    def forget(self, tile: Tile) -> None:
        """Takes the marker of a tile away, so that the tile is computed again."""
        self._path(tile).unlink(missing_ok=True)

    def _path(self, tile: Tile) -> Path:
        return self._marks / (".".join(map(str, tile)) + ".json")


def existing(path: Path, config: Config) -> bool:
    """Whether the run of this configuration stands at `path`.

    Raises `ValueError` if what stands there is no run of epijax, or a run of another configuration: with the
    differences.
    """
    if not path.exists():
        return False
    if "config_sha256" not in _attributes(path):
        raise ValueError(f"{path} exists and is not a sweep of epijax; name another place or move it away")
    attributes = _run_attributes(path)
    if attributes["config_sha256"] != digest(config):
        stored = attributes["config"]
        raise ValueError(f"{path} holds another sweep ({_changes(stored, config)}); name another place or delete it")
    return True


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
    """Makes the run's arrays, empty, in a temporary place and moves them to `path` at once; of several who do the same
    at the same time one wins, and the others leave nothing behind.

    Raises `ValueError` where nothing can be written, `RunError` where there is no space left.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        everything = attributes | {"config": config, "config_sha256": digest(config), "tile": list(grid.tile)}
        group = zarr.create_group(store=str(partial), zarr_format=3, attributes=everything)
        meanings = attributes["meanings"]
        together = " ".join(name for names in grid.together.values() for name in names)
        for name, (dimension, values) in grid.coordinates().items():
            group.create_array(name, data=values, dimension_names=[dimension], attributes={"long_name": meanings[name]})
        for name, (fill, about) in blank(variables, attributes["actions"]).items():
            group.create_array(
                name,
                shape=grid.shape,
                chunks=grid.tile,
                dtype=variables[name],
                fill_value=fill,
                compressors=[ZstdCodec(level=1), Crc32cCodec()],
                dimension_names=list(grid.axes),
                attributes=about | ({"coordinates": together} if together else {}),  # as CF has it
            )
        group.create_group(".done")  # the markers; a group, so that no reader stumbles over it
        with warnings.catch_warnings():  # that Zarr 3 does not specify consolidated metadata; xarray asks for it
            warnings.simplefilter("ignore", ZarrUserWarning)
            zarr.consolidate_metadata(str(partial))
        os.rename(partial, path)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _unwritten(path, error) from error
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST) or not path.exists():
            raise ValueError(f"cannot write to {path.parent} ({error.strerror}); name another place") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_run(path: Path) -> xr.Dataset:
    """The run at `path` as a labelled dataset, read lazily.

    Raises `ValueError` if there is none.
    """
    variables = _run_attributes(path)["config"]["variables"]
    return xr.open_zarr(str(path), chunks=None)[variables]


def _run_attributes(path: Path) -> dict[str, Any]:
    attributes = _attributes(path)
    if "config_sha256" not in attributes:
        raise ValueError(f"{path} is not a sweep of epijax; `epijax sweep` and `epijax phase-diagram` make them")
    if attributes["config"]["format"] > FORMAT:
        raise ValueError(
            f"{path} was made by epijax {attributes['config']['epijax']}, whose stores this older version cannot read; "
            "install that version, as in pip install -U epijax"
        )
    return attributes


def _grid_of(path: Path, attributes: dict[str, Any]) -> Grid:
    together = {key: tuple(names) for key, names in attributes["config"].get("together", {}).items()}
    axes = {}
    for dimension in attributes["config"]["dimensions"]:
        columns = [
            np.asarray(zarr.open_array(str(path / name), mode="r")) for name in together.get(dimension, (dimension,))
        ]
        axes[dimension] = np.stack(columns, axis=1) if dimension in together else columns[0]
    return Grid(axes, tuple(attributes["tile"]), together)


def _unwritten(path: Path, error: OSError) -> RunError:
    remedy = "make room" if error.errno == errno.ENOSPC else "see to it"
    return RunError(f"cannot write to {path} ({error.strerror}); {remedy}, and the same command does the rest")


def _attributes(path: Path) -> dict[str, Any]:
    try:
        return json.loads((path / "zarr.json").read_text())["attributes"]
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError, KeyError):
        return {}
