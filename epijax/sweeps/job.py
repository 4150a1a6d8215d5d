"""Sweeps: a build function and axes in, one labelled dataset out, in memory or on disk."""

import difflib
import inspect
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr

from epijax.models import MODELS
from epijax.phases import PHASES
from epijax.problem import FiniteProblem, Problem
from epijax.subjective import Finite, is_one_parameter
from epijax.sweeps import cluster
from epijax.sweeps import store as on_disk
from epijax.sweeps.basins import BASIN_VARIABLES, Basins, Learning, WithPrior
from epijax.sweeps.engine import Engine
from epijax.sweeps.grid import Axes, Grid, Tile, make_grid
from epijax.sweeps.layout import VARIABLES, Block
from epijax.sweeps.provenance import Build, attributes_of, config_of
from epijax.sweeps.refine import Refiner
from epijax.sweeps.store import Part
from epijax.tables import tabulate
from epijax.vertices import count_bases

TILE_CELLS, TILE_SIDE = 1 << 24, 4096  # large enough that starting a tile costs little, 128 MiB at most

_ITERATED = 1 << 16  # times the work of a closed form, where projections are found by iteration

_FILLED_CELLS, _POINTS = 1 << 22, 1 << 16  # of a tile that is refined, and solved at a time for it
_MOST_CUT = 10
_TILES_A_PROCESS = 4
_WORKERS_OF_A_SCHEDULER = 16  # whose tiles are small enough, though how many there are may change

Progress = Callable[[int, int], None]


def sweep(
    build: Build | str,
    axes: Axes,
    fixed: Mapping[str, Any] | None = None,
    *,
    store: str | Path | None = None,
    dtype: str = "float32",
    variables: Sequence[str] | None = None,
    refine: int | None = None,
    learning: Learning | None = None,
    part: Part | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Solves a problem at every cell of a product grid: the phase diagram as data.

    Cells are solved on all local devices. In float32, cells that a tie within tolerance decides are solved again in
    float64, so `phase`, `rationalizable`, `pure` and `num_mixed` are those of a float64 sweep, only sooner. With
    `store`, finished tiles are kept on disk, and the same call goes on where an interrupted one stopped; several
    processes may do parts of one sweep.

    **Arguments:**

    - `build`: from parameters to a `Problem` with `unsafe` set; or the name of one of `ej.models.MODELS`.
    - `axes`: parameter -> increasing values; the dataset's dimensions, in this order. Or several parameters that vary
      together -> points `[n, parameters]`, as of `ej.scattered`: one dimension, called "point".
    - `fixed`: the other parameters that are not left at their defaults.
    - `store`: a path for the Zarr store, or `None` to keep the dataset in memory.
    - `dtype`: "float32" or "float64".
    - `variables`: those to keep, `phase` among them; all by default. Without `margin` the solver writes a quarter of
      the bytes.
    - `refine`: how often blocks of cells that a boundary may cross are cut in two, starting from blocks of
      2**refine cells a side; the others are filled from their corners, and have no `margin`. The attribute `evaluated`
      is the share of cells that were solved.
    - `learning`: simulate learners in each cell, too, whose prior's parameters are parameters of the sweep. The
      variables are then `phase`; `refuted_share`, of learners to whom no belief was left; and of the others
      `unsafe_share`, whose limit is unsafe (`ej.basin`), with its confidence interval `unsafe_low` to `unsafe_high`,
      and `settled_share`, who settled on an action.
    - `part`: (k, n) for the k-th of n parts alone, k from 1: each is a process, wherever the store can be reached.
    - `workers`: how many processes on this machine share the work, by Dask; or `scheduler`, the address of a Dask
      scheduler whose workers do, as in "tcp://host:8786". Both take `pip install 'epijax[dask]'`.
    - `progress`: called after each tile with the number of cells done and the number of cells in all.

    **Returns:** an `xarray.Dataset`: `phase` (codes named by `ej.PHASES`), `rationalizable` and `pure` (bit i is action
    i), `num_mixed`, `margin`; attributes say how it was made. Cells of other parts are `not_computed` until they are.

    Raises `ValueError` for unknown parameters and variables, axes that are none, corners of the grid at which there is
    no problem, and a store that holds something else; `RunError` where a disk is full, or workers or their scheduler
    are gone: what is finished is kept.
    """
    if dtype not in ("float32", "float64"):
        raise ValueError(f"dtype must be float32 or float64; got {dtype!r}")
    variables = _kept(variables, refine, learning)
    path = None if store is None else Path(store).absolute()
    processes = _processes(path, part, workers, scheduler)
    name, build = named(build)
    if learning is not None:
        build = WithPrior(build, learning)
    fixed = dict(fixed or {})
    grid = make_grid(axes, TILE_CELLS, TILE_SIDE)
    check_parameters(name, build, list(grid.coordinates()), list(fixed))
    problem, unsafe = problem_at_corners(build, fixed, grid)
    least = 64
    if learning is not None:
        assert isinstance(problem, Problem)
        least, at_once = 1, learning.cells_a_tile(problem)
    else:
        at_once = max(least, TILE_CELLS // work_of(problem))
    tile_cells = max(least, min(at_once if refine is None else _FILLED_CELLS, -(-grid.num_cells // processes)))
    side = TILE_SIDE if refine is None else max(1 << refine, int(tile_cells ** (1 / len(grid.axes))))  # no thin strips
    grid = make_grid(axes, tile_cells, side)
    config = config_of(name, build, fixed, grid, dtype, problem.actions, unsafe, variables, refine, learning)
    asked = {"build": build, "fixed": fixed, "dtype": dtype, "unsafe": unsafe, "variables": variables}
    engine_of = partial(Engine, **asked)
    if refine is not None:
        engine_of = partial(Refiner, **asked, levels=refine, at_once=min(at_once, _POINTS))
    if learning is not None:
        engine_of = partial(Basins, **asked, learning=learning)

    if path is None:
        engine = engine_of(grid=grid)
        return _in_memory(engine, attributes_of(build, config, engine.devices), progress)
    stands = on_disk.existing(path, config)
    if not stands or on_disk.Store(path).pending(part):
        with cluster.client(workers, scheduler) if workers or scheduler else nullcontext() as client:
            engine = None if stands else engine_of(grid=grid)
            if engine is not None:  # nothing is written before everything that can be refused has been
                about = attributes_of(build, config, engine.devices)
                on_disk.create(path, grid, config, about, engine.layout.variables())
                on_disk.existing(path, config)  # made now, or by another process that was faster
            run = on_disk.Store(path)
            pending = run.pending(part)
            if client is not None:
                cluster.solve(client, run, engine_of, pending, progress)
            elif pending:
                if engine is None or engine.grid.tile != run.grid.tile:
                    engine = engine_of(grid=run.grid)
                with ThreadPoolExecutor(1) as writer:  # one tile is written while the next is read from the devices
                    written: Future | None = None
                    for tile, block, record in _answers(engine, pending, progress):
                        if written is not None:
                            engine.recycle(written.result())
                        written = writer.submit(run.write, tile, block, record)
                    if written is not None:
                        written.result()
    run, dataset = on_disk.Store(path), on_disk.open_run(path)
    totals: dict[str, float] = {"rechecked": run.total("rechecked")}
    if refine is not None:
        totals["evaluated"] = run.total("evaluated") / run.grid.num_cells
    return dataset.assign_attrs(totals)


def check_parameters(name: str, build: Build, axes: Sequence[str], fixed: Sequence[str]) -> None:
    """Raises `ValueError` unless axes and fixed parameters together are what `build` takes."""
    parameters = inspect.signature(build).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        for unknown in (key for key in (*axes, *fixed) if key not in parameters):
            raise ValueError(f"{name} has no parameter {unknown!r}; {nearest(unknown, parameters)}")
    for both in (key for key in axes if key in fixed):
        raise ValueError(f"{both} is both an axis and fixed; drop one")
    required = [key for key, p in parameters.items() if p.default is p.empty and p.kind is not p.VAR_KEYWORD]
    missing = [key for key in required if key not in axes and key not in fixed]
    if missing:
        raise ValueError(f"{name} needs a value for {', '.join(missing)}; give it a range or fix it")


def nearest(unknown: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, and all of them."""
    names = list(known)
    return f"the nearest is {difflib.get_close_matches(unknown, names, n=1, cutoff=0)[0]!r} of {', '.join(names)}"


def phase_counts(dataset: xr.Dataset) -> dict[int, int]:
    """How many cells have each phase code, read block by block: the chunks of a store, bands of what is in memory."""
    phase = dataset["phase"]
    sides = phase.encoding.get("chunks") or (max(1, (1 << 24) // max(1, phase[0].size)), *phase.shape[1:])
    counts = dict.fromkeys(PHASES, 0)
    for corner in product(*(range(0, n, side) for n, side in zip(phase.shape, sides, strict=True))):
        block = phase[tuple(slice(start, start + side) for start, side in zip(corner, sides, strict=True))].values
        left = block.size
        for code in counts:
            if left:  # most blocks hold few of the phases
                counts[code] += (found := int(np.count_nonzero(block == code)))
                left -= found
    return {code: count for code, count in counts.items() if count}


def _processes(path: Path | None, part: Part | None, workers: int | None, scheduler: str | None) -> int:
    """Into how many pieces the cells are cut at least, so that each process has some tiles."""
    asked = {"part": part, "workers": workers, "scheduler": scheduler}
    told = [name for name, value in asked.items() if value is not None]
    if len(told) > 1:
        raise ValueError(f"{' and '.join(told)} exclude each other; choose one")
    if told and path is None:
        raise ValueError(f"{told[0]} needs a store that all processes can reach; name one")
    if part is not None and not 1 <= part[0] <= part[1]:
        raise ValueError(f"there is no part {part[0]} of {part[1]}; parts go from 1/{part[1]} to {part[1]}/{part[1]}")
    if workers is not None and workers < 1:
        raise ValueError(f"there must be 1 worker at least; got {workers}")
    if not told:
        return 1
    return _TILES_A_PROCESS * (part[1] if part else workers or _WORKERS_OF_A_SCHEDULER)


def _kept(variables: Sequence[str] | None, refine: int | None, learning: Learning | None) -> tuple[str, ...]:
    """The variables asked for, in the order in which there are."""
    if refine is not None and learning is not None:
        raise ValueError(
            "refinement looks for sharp boundaries, and shares of learners have none; drop refine or learning"
        )
    if refine is not None and not 1 <= refine <= _MOST_CUT:
        raise ValueError(f"refine cuts blocks in two 1 to {_MOST_CUT} times; got {refine}")
    if refine is not None and variables is not None and "margin" in variables:
        raise ValueError("cells that refinement fills have no margin; leave margin out of the variables, or refine out")
    there = VARIABLES if learning is None else BASIN_VARIABLES
    if variables is None:
        return tuple(name for name in there if refine is None or name != "margin")
    for unknown in (name for name in variables if name not in there):
        raise ValueError(f"there is no variable {unknown!r}; {nearest(unknown, there)}")
    if "phase" not in variables:
        raise ValueError("phase must be among the variables kept: it says which cells have an answer")
    return tuple(name for name in there if name in variables)


def named(build: Build | str) -> tuple[str, Build]:
    if not isinstance(build, str):
        known = [name for name, model in MODELS.items() if model.build is build]
        return (known[0] if known else getattr(build, "__qualname__", type(build).__name__)), build
    if build not in MODELS:
        raise ValueError(f"there is no model {build!r}; {nearest(build, MODELS)}")
    return build, MODELS[build].build


def problem_at_corners(
    build: Build, fixed: Mapping[str, Any], grid: Grid
) -> tuple[Problem | FiniteProblem, tuple[bool, ...]]:
    """The problem at the last corner, after all corners were built and so checked on the host; and what is unsafe."""
    problem = None
    with jax.enable_x64(True):
        for corner in grid.corners():
            try:
                problem = build(**fixed, **corner)
            except ValueError as error:
                where = ", ".join(f"{key}={value:g}" for key, value in corner.items())
                raise ValueError(f"no problem at {where}: {error}") from error
    if not isinstance(problem, Problem | FiniteProblem):
        raise ValueError(f"build must return a Problem or a FiniteProblem; got {type(problem).__name__}")
    if problem.unsafe is None:
        raise ValueError("a phase needs to know which actions are unsafe; build the problem with unsafe=(…)")
    return problem, problem.unsafe


def work_of(problem: Problem | FiniteProblem) -> int:
    """Roughly how much more a cell takes than one of a closed form, of time and of memory."""
    if isinstance(problem, Problem) and not isinstance(problem.model, Finite):
        return 1 if is_one_parameter(problem.model) else _ITERATED
    tables = tabulate(problem) if isinstance(problem, Problem) else problem
    num_actions, num = tables.utility.shape
    return num if num_actions == 2 else count_bases(num_actions, num)


def _answers(
    engine: Engine | Refiner | Basins, tiles: list, progress: Progress | None
) -> Iterator[tuple[Tile, Block, dict[str, Any]]]:
    """Tile after tile, its record with the seconds that it took."""
    total = engine.grid.num_cells
    done = total - sum(engine.grid.cells_of(tile) for tile in tiles)
    start = time.perf_counter()
    for tile, block, record in engine.answers(tiles):
        yield tile, block, record | {"seconds": round(time.perf_counter() - start, 6)}
        done += block["phase"].size
        if progress is not None:
            progress(done, total)
        start = time.perf_counter()


def _in_memory(engine: Engine | Refiner | Basins, attributes: dict[str, Any], progress: Progress | None) -> xr.Dataset:
    grid = engine.grid
    about = on_disk.blank(engine.layout.variables(), attributes["actions"])
    arrays = {key: np.empty(grid.shape, dtype) for key, dtype in engine.layout.variables().items()}
    totals: Counter[str] = Counter()
    for tile, block, record in _answers(engine, list(grid.tiles()), progress):
        for key, values in block.items():
            arrays[key][grid.region(tile)] = values
        engine.recycle(block)
        totals.update(record)
    return xr.Dataset(
        {key: (tuple(grid.axes), values, about[key][1]) for key, values in arrays.items()},
        coords={
            key: (dimension, values, {"long_name": attributes["meanings"][key]})
            for key, (dimension, values) in grid.coordinates().items()
        },
        attrs=attributes
        | {"rechecked": int(totals["rechecked"])}
        | ({"evaluated": totals["evaluated"] / grid.num_cells} if "evaluated" in totals else {}),
    )
