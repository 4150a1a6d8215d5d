"""Cells to answers on whatever devices there are: vmap within a block, shard_map over devices (all device knowledge).

A kernel ends in one word a cell wherever its answer fits: several outputs of one fused loop would make XLA compute
everything once for each. It starts from what each axis decides by itself, computed once for its values.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from functools import cached_property
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from epijax.cells import wide_vectors
from epijax.problem import FiniteProblem, Problem
from epijax.solver import lessons_of, solve
from epijax.sweeps.grid import Grid, Tile
from epijax.sweeps.layout import VARIABLES, Block, Layout
from epijax.sweeps.separation import entrywise, separated

Record = dict[str, int]  # what there is to say of how a tile was answered
_RECHECKED_AT_ONCE = 4096
_BLOCK_CELLS = 1 << 16  # taken at a time by one CPU core, so that they stay in its cache
_ROWS_A_DEVICE = 64
_UNPACKED_CELLS = 1 << 18


class Engine:
    """Compiles the solver once for a grid of problems, when it is first needed, and answers tile after tile.

    In float32, cells that come out undecided (a tie within tolerance, say) are solved again in float64 on the host's
    CPU, so that the answers are those of float64 (theory §9).

    **Arguments:** `build`, from the values of a cell to its problem; `fixed`, the other arguments of `build`; `grid`;
    `dtype`, "float32" or "float64"; `devices`, all local ones by default; `variables`, those of `VARIABLES` that are
    kept, `phase` among them.
    """

    layout: Layout  # known once the kernel has been traced

    def __init__(
        self,
        build: Callable[..., Problem | FiniteProblem],
        fixed: Mapping[str, Any],
        grid: Grid,
        dtype: str,
        unsafe: tuple[bool, ...],
        devices: list | None = None,
        variables: tuple[str, ...] = VARIABLES,
    ):
        self.grid, self.dtype = grid, dtype
        self.devices = jax.local_devices() if devices is None else devices

        def cell(*points: jax.Array) -> tuple[jax.Array, ...]:
            values = {}
            for dimension, point in zip(grid.axes, points, strict=True):
                names = grid.together.get(dimension)
                values |= {dimension: point} if names is None else dict(zip(names, point, strict=True))
            problem = build(**fixed, **values)
            told = lessons_of(problem)
            if told is not None:
                self.layout = Layout(2, 1, variables)
                return self.layout.look_up(told, unsafe)
            solution = solve(problem)
            self.layout = Layout(solution.num_actions, solution.mixed.shape[-2], variables)
            return self.layout.pack(solution, unsafe)

        self._cell = cell
        self.compile_seconds = 0.0
        self._rechecked_at_once = min(_RECHECKED_AT_ONCE, prod(grid.tile))  # tiles are small where a cell is much work
        # A side of the tile is shared out among devices, and on a CPU taken in blocks that stay in the cache: the first
        # that is long enough, since what comes before it has to be transposed, or else the longest.
        long_enough = (i for i, side in enumerate(grid.tile) if side >= _ROWS_A_DEVICE * len(self.devices))
        self._split = next(long_enough, int(np.argmax(grid.tile)))
        others = prod(grid.tile) // grid.tile[self._split]
        share = -(-grid.tile[self._split] // len(self.devices))
        on_cpu = self.devices[0].platform == "cpu"
        self._rows = min(share, max(1, _BLOCK_CELLS // others)) if on_cpu else share  # of a block
        self._share = -(-share // self._rows) * self._rows  # of a device, whole blocks
        self._decided: dict[tuple[int, int], list[jax.Array]] = {}
        self._blocks: list[Block] = []
        self._spare: list[list[jax.Array]] = []  # words that were read: the kernel writes the next ones over them

        with jax.enable_x64(dtype == "float64"):
            self._trace()

    def answers(self, tiles: Iterable[Tile]) -> Iterator[tuple[Tile, Block, Record]]:
        """Tile after tile, each with how many of its cells were solved again in float64 (`rechecked`).

        The devices solve a tile while the one before is read, and while the caller does something with it.
        """
        flying: tuple[Tile, list[jax.Array]] | None = None
        for tile in tiles:
            landed, flying = flying, (tile, self.launch(tile))
            if landed is not None:
                yield landed[0], *self._collect(*landed)
        if flying is not None:
            yield flying[0], *self._collect(*flying)

    def recycle(self, block: Block) -> None:
        """Gives back a block that nobody needs any more: memory that is there is quicker to fill than new one."""
        self._blocks.append({name: values.base for name, values in block.items() if values.base is not None})

    def of(self, grid: Grid) -> "Engine":
        """The same programs for other values, of as many dimensions in tiles of the same size."""
        _ = self._solve, self._decide  # compiled once for all
        engine = copy(self)
        engine.grid, engine._decided = grid, {}
        return engine

    def launch(self, tile: Tile) -> list[jax.Array]:
        """Starts a tile on the devices and returns at once."""
        with jax.enable_x64(self.dtype == "float64"):
            words = self._spare.pop() if self._spare else self._blank_words()
            return self._solve(words, [self._decided_in(axis, index) for axis, index in enumerate(tile)])

    def reuse(self, words: list[jax.Array]) -> None:
        """Gives back the words of a launched tile that nobody needs any more."""
        self._spare.append(words)

    def memory(self) -> Any:
        """XLA's account of the kernel's memory, in bytes; `temp_size_in_bytes` among others."""
        return self._solve.memory_analysis()

    def _trace(self) -> None:
        """Makes the jitted programs: of each axis, from its values to what they decide by themselves; and the kernel of
        a tile, from words to write over and all that to words."""
        split, rows, num_axes = self._split, self._rows, len(self.grid.axes)
        order = [split, *(i for i in range(num_axes) if i != split)]
        sides = [self._share * len(self.devices) if i == split else side for i, side in enumerate(self.grid.tile)]
        mesh = Mesh(np.array(self.devices), ("cells",))
        specs = [PartitionSpec("cells") if i == split else PartitionSpec() for i in range(num_axes)]

        points = [jax.ShapeDtypeStruct(values.shape[1:], self.dtype) for values in self.grid.axes.values()]
        traced = jax.make_jaxpr(self._cell)(*points)
        alone, joined = separated(traced)
        self._axes, decided = [], []
        for i, (side, point) in enumerate(zip(sides, points, strict=True)):
            sharding = NamedSharding(mesh, specs[i])
            values = jax.ShapeDtypeStruct((side, *point.shape), self.dtype, sharding=sharding)
            self._axes.append((jax.jit(jax.vmap(alone[i]), out_shardings=sharding), values))
            found = jax.eval_shape(*self._axes[i])
            decided.append([jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=sharding) for each in found])

        def block(*lists: list[jax.Array]) -> list[jax.Array]:
            solve_cells = joined
            for i in reversed(order):  # one vmap an axis: what depends on some axes only is computed once for these
                solve_cells = jax.vmap(solve_cells, in_axes=[0 if j == i else None for j in range(num_axes)])
            return solve_cells(*lists)

        def shard(words: list[jax.Array], decided: list[list[jax.Array]]) -> list[jax.Array]:
            def solve_rows(i: jax.Array, words: list[jax.Array]) -> list[jax.Array]:
                some = [jax.lax.dynamic_slice_in_dim(each, i * rows, rows) for each in decided[split]]
                answers = block(*(some if j == split else each for j, each in enumerate(decided)))
                return [
                    jax.lax.dynamic_update_slice_in_dim(word, answer, i * rows, 0)
                    for word, answer in zip(words, answers, strict=True)
                ]

            return jax.lax.fori_loop(0, self._share // rows, solve_rows, words)

        shared = PartitionSpec("cells")
        mapped = jax.shard_map(shard, mesh=mesh, in_specs=(shared, specs), out_specs=shared, check_vma=False)
        self.program = jax.jit(mapped, donate_argnums=0, compiler_options=wide_vectors(self.devices[0]))
        kinds: Any = traced.out_avals
        shape, sharding = [sides[i] for i in order], NamedSharding(mesh, shared)
        self.shapes = [jax.ShapeDtypeStruct(shape, kind.dtype, sharding=sharding) for kind in kinds], decided

    @cached_property
    def _solve(self) -> Any:
        with jax.enable_x64(self.dtype == "float64"):
            return self._compiled(self.program, *self.shapes)

    @cached_property
    def _decide(self) -> list[Any]:
        with jax.enable_x64(self.dtype == "float64"):
            return [self._compiled(program, values) for program, values in self._axes]

    @cached_property
    def _recheck(self) -> Any:
        shapes = [values.shape[1:] for values in self.grid.axes.values()]
        cell = entrywise(jax.make_jaxpr(self._cell)(*(jax.ShapeDtypeStruct(shape, "float64") for shape in shapes)))
        cells = [jax.ShapeDtypeStruct((self._rechecked_at_once, *shape), "float64") for shape in shapes]
        return self._compiled(jax.jit(jax.vmap(cell)), *cells)

    def _compiled(self, program: Any, *shapes: Any) -> Any:
        start = time.perf_counter()
        compiled = program.lower(*shapes).compile()
        self.compile_seconds += time.perf_counter() - start
        return compiled

    def _decided_in(self, axis: int, index: int) -> list[jax.Array]:
        """What the values of an axis decide in its index-th tile, computed once; the last one fills what hangs over."""
        if (axis, index) not in self._decided:
            shape, side = self._axes[axis][1], self.grid.tile[axis]
            values = list(self.grid.axes.values())[axis][index * side : (index + 1) * side]
            padded = _repeated(values, shape.shape[0]).astype(self.dtype)
            self._decided[axis, index] = self._decide[axis](jax.device_put(padded, shape.sharding))
        return self._decided[axis, index]

    def _blank_words(self) -> list[jax.Array]:
        return [jnp.zeros(s.shape, s.dtype, device=s.sharding) for s in self.shapes[0]]

    def _collect(self, tile: Tile, words: list[jax.Array]) -> tuple[Block, Record]:
        """The answers of a launched tile; those that float32 left undecided are solved again in float64."""
        region = self.grid.region(tile)
        block, index = self._read(words, [part.stop - part.start for part in region])
        self.reuse(words)
        if self.dtype == "float64" or not index[0].size:
            return block, {"rechecked": 0}
        values = [axis[part][i] for axis, part, i in zip(self.grid.axes.values(), region, index, strict=True)]
        again = self.layout.blank(index[0].shape)
        self.layout.unpack(self._in_float64(values), again)
        for name, values in again.items():
            block[name][index] = values
        return block, {"rechecked": len(index[0])}

    def _read(self, words: list[jax.Array], shape: list[int]) -> tuple[Block, tuple[np.ndarray, ...]]:
        """The variables of the cells inside the grid, and the indices of the undecided ones, `[n]` a dimension.

        Unpacked in pieces that stay in a core's cache; by one thread, since several would wait for the interpreter.
        """
        whole = self._blocks.pop() if self._blocks else self.layout.blank(self.grid.tile)
        block = {name: values[tuple(slice(0, n) for n in shape)] for name, values in whole.items()}
        front = {name: np.moveaxis(values, self._split, 0) for name, values in block.items()}  # as the words are
        sides = front["phase"].shape
        step = max(1, _UNPACKED_CELLS // prod(sides[1:]))
        inside = tuple(slice(0, n) for n in sides[1:])
        undecided = []
        for shards in zip(*(word.addressable_shards for word in words), strict=True):
            first, host = shards[0].index[0].start or 0, [np.asarray(shard.data) for shard in shards]
            last = min(len(host[0]), sides[0] - first)
            for start in range(0, last, step):
                stop = min(start + step, last)
                some = tuple(word[start:stop, *inside] for word in host)
                there = {name: values[first + start : first + stop] for name, values in front.items()}
                found = self.layout.unpack(some, there)
                undecided.append((found[0] + first + start, *found[1:]))
        index = list(_joined(undecided))
        index.insert(self._split, index.pop(0))
        return block, tuple(index)

    def _in_float64(self, values: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        """The packed answers of single cells, in float64 on the CPU."""
        count = len(values[0])
        at_once = self._rechecked_at_once
        with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
            answers = []
            for start in range(0, count, at_once):
                some = [v[start : start + at_once] for v in values]
                padded = [_repeated(v, at_once) for v in some]
                answers.append([np.asarray(word)[: len(some[0])] for word in self._recheck(*padded)])
        return _joined(answers)


def _repeated(values: np.ndarray, count: int) -> np.ndarray:
    """So many rows, the last one repeated."""
    return np.pad(values, [(0, count - len(values))] + [(0, 0)] * (values.ndim - 1), mode="edge")


def _joined(parts: Iterable[Iterable[np.ndarray]]) -> tuple[np.ndarray, ...]:
    """Lists of arrays, end to end."""
    return tuple(np.concatenate(each) for each in zip(*parts, strict=True))
