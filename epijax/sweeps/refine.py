"""Sweeps that look only where a boundary may run: coarse blocks first, finer ones where a block is not uniform."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from itertools import product
from typing import Any

import numpy as np

from epijax.problem import FiniteProblem, Problem
from epijax.sweeps.engine import Engine, Record
from epijax.sweeps.grid import Grid, Tile
from epijax.sweeps.layout import VARIABLES, Block

_CAUTION = 2.0  # a margin must exceed so many times the change that its neighbours show over a block

_Words = tuple[np.ndarray, ...]


class Points:
    """An engine of single points, of the parameters `names`; other arguments as of an `Engine` and a `Refiner`."""

    def __init__(
        self,
        build: Callable[..., Problem | FiniteProblem],
        fixed: Mapping[str, Any],
        names: tuple[str, ...],
        dtype: str,
        unsafe: tuple[bool, ...],
        variables: tuple[str, ...],
        at_once: int,
    ):
        self._names, self._at_once = names, at_once
        self.engine = Engine(build, fixed, self._line(np.zeros((2, len(names)))), dtype, unsafe, variables=variables)

    def __call__(self, points: np.ndarray) -> tuple[Block, Record]:
        """The answers at points `[n, parameters]`."""
        engine, pieces, rechecked = self.engine.of(self._line(points)), [], 0
        for _, block, record in engine.answers(engine.grid.tiles()):
            pieces.append(block)
            rechecked += record["rechecked"]
        whole = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
        return whole, {"rechecked": rechecked}

    def _line(self, points: np.ndarray) -> Grid:
        return Grid({"point": points}, (self._at_once,), {"point": self._names})


class Refiner:
    """What an `Engine` is to each cell of a grid, answered from some of the cells.

    A block of cells is uniform if its corners have the same answer and its margin, at every corner, is larger than what
    margins nearby change over the block: the margin is zero where an answer changes, so that a boundary inside shows in
    it before it shows at a corner, an island that no corner hits among them, unless all payoffs that decide it vanish
    together, for margins are shares of the largest. Uniform blocks are filled; others are cut in two along each axis,
    `levels` times, down to single cells. What has no margin (ties, refuted beliefs) is looked at cell by cell.

    **Arguments:** those of an `Engine`, `margin` not among the variables, for filled cells have none; `levels`;
    `at_once`, how many cells are solved at a time.
    """

    def __init__(
        self,
        build: Callable[..., Problem | FiniteProblem],
        fixed: Mapping[str, Any],
        grid: Grid,
        dtype: str,
        unsafe: tuple[bool, ...],
        variables: tuple[str, ...],
        levels: int,
        at_once: int,
    ):
        self._columns = {
            name: (list(grid.axes).index(dimension), values) for name, (dimension, values) in grid.coordinates().items()
        }
        self._levels, self._names = levels, variables
        self._points = Points(build, fixed, tuple(self._columns), dtype, unsafe, VARIABLES, at_once)
        engine = self._points.engine
        self.grid, self.devices, self.layout = grid, engine.devices, engine.layout.keeping(variables)

    def answers(self, tiles: Iterable[Tile]) -> Iterator[tuple[Tile, Block, Record]]:
        """Tile after tile, each with how many cells were looked at (`evaluated`), and solved again in float64."""
        for tile in tiles:
            yield tile, *self._answer(tile)

    def recycle(self, block: Block) -> None:
        """Takes nothing back: blocks are made anew."""

    def _answer(self, tile: Tile) -> tuple[Block, Record]:
        region = self.grid.region(tile)
        start = np.array([part.start for part in region])
        sides = np.array([part.stop - part.start for part in region])
        looked = {"evaluated": 0, "rechecked": 0}

        def answers(cells: np.ndarray) -> Block:
            """Of cells `[n, dims]` of the tile, each looked at once; what hangs over the edge is its last cell."""
            inside = np.minimum(cells, sides - 1)
            alone, back = np.unique(np.ravel_multi_index(tuple(inside.T), tuple(sides)), return_inverse=True)
            block = self._look(np.stack(np.unravel_index(alone, tuple(sides)), axis=1) + start, looked)
            looked["evaluated"] += len(alone)
            return {name: values[back] for name, values in block.items()}

        dims, step = len(sides), 1 << self._levels
        counts = -(-sides // step)
        lattice = np.stack(np.meshgrid(*[np.arange(n + 1) for n in counts], indexing="ij"), axis=-1)
        shape = lattice.shape[:-1]
        block = {name: v.reshape(shape) for name, v in answers(lattice.reshape(-1, dims) * step).items()}
        filled = {name: np.empty(counts * step, kind) for name, kind in self.layout.variables().items()}

        corners = np.array([*product((0, 1), repeat=dims)])
        at = np.stack(np.meshgrid(*[np.arange(n) for n in counts], indexing="ij"), axis=-1).reshape(-1, dims)
        values = {name: _at(v, at[:, None] + corners) for name, v in block.items()}  # [blocks, corners]
        steep = reduce(np.add, [_around(np.abs(np.diff(block["margin"], axis=k)), k, shape) for k in range(dims)])
        change = steep[tuple(at.T)]
        while True:
            uniform = _uniform(values, change)
            if step == 1:
                uniform = np.ones(len(at), bool)
            self._fill(filled, at[uniform], step, {name: v[uniform, 0] for name, v in values.items()})
            at, values = at[~uniform], {name: v[~uniform] for name, v in values.items()}
            if not len(at):
                break
            at, values, change = self._cut(at, values, step, answers)
            step //= 2
        inside = tuple(slice(0, n) for n in sides)
        return {name: filled[name][inside] for name in self._names}, looked

    def _cut(self, at: np.ndarray, values: Block, step: int, answers) -> tuple[np.ndarray, Block, np.ndarray]:
        """The blocks cut in two along each axis: where they are, their corners, and what margins change nearby."""
        dims, count = at.shape[1], len(at)
        inner = np.array([*product((0, 1, 2), repeat=dims)])
        new = (inner == 1).any(axis=1)
        places = (at[:, None] * 2 + inner[new]) * (step // 2)
        found = answers(places.reshape(-1, dims))
        whole = {}
        for name, known in values.items():
            each = np.empty((count, len(inner)), known.dtype)
            each[:, ~new], each[:, new] = known, found[name].reshape(count, -1)
            whole[name] = each.reshape(count, *(3,) * dims)
        margin = whole["margin"]
        change = reduce(np.add, [_most(np.abs(np.diff(margin, axis=k)).reshape(count, -1)) for k in range(1, dims + 1)])
        halves = np.array([*product((0, 1), repeat=dims)])
        corners = halves[:, None] + halves  # [halves, corners, dims]
        index = np.ravel_multi_index(tuple(np.moveaxis(corners, -1, 0)), (3,) * dims)
        cut = {name: each.reshape(count, -1)[:, index].reshape(-1, len(halves)) for name, each in whole.items()}
        return (at[:, None] * 2 + halves).reshape(-1, dims), cut, np.repeat(change, len(halves))

    def _fill(self, filled: Block, at: np.ndarray, step: int, values: Block) -> None:
        for name, whole in filled.items():
            sides = [size for n in whole.shape for size in (n // step, step)]
            blocks = whole.reshape(sides).transpose(*range(0, len(sides), 2), *range(1, len(sides), 2))
            blocks[tuple(at.T)] = values[name].reshape(-1, *(1,) * whole.ndim)

    def _look(self, cells: np.ndarray, looked: Record) -> Block:
        """The answers of cells `[n, dims]` of the grid."""
        block, record = self._points(np.stack([values[cells[:, k]] for k, values in self._columns.values()], axis=1))
        looked["rechecked"] += record["rechecked"]
        return block


def _uniform(values: Block, change: np.ndarray) -> np.ndarray:
    """Which blocks `[n, corners]` have one answer, and no boundary that their margins tell of."""
    alike = [(each == each[:, :1]).all(axis=1) for name, each in values.items() if name != "margin"]
    with np.errstate(invalid="ignore"):
        clear = values["margin"].min(axis=1) > _CAUTION * change  # never where there is none
    return reduce(np.logical_and, [*alike, clear])


def _at(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    return values[tuple(np.moveaxis(index, -1, 0))]


def _most(changes: np.ndarray) -> np.ndarray:
    """The largest change in each row; ∞ if one is unknown."""
    return np.where(np.isnan(changes).any(axis=1), np.inf, changes.max(axis=1, initial=0))


def _around(changes: np.ndarray, axis: int, shape: tuple[int, ...]) -> np.ndarray:
    """The largest of the changes along an axis on the edges of each block of a lattice and of its neighbours."""
    known = np.where(np.isnan(changes), np.inf, changes)
    for k in range(changes.ndim):
        size = shape[k] - 1  # blocks
        reach = (-1, 0, 1) if k == axis else (-1, 0, 1, 2)
        along = [known.take(np.clip(np.arange(size) + r, 0, known.shape[k] - 1), axis=k) for r in reach]
        known = reduce(np.maximum, along)
    return known
