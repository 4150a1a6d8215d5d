"""Cells to answers on whatever devices there are: vmap within a block, shard_map over devices (all device knowledge).

A kernel ends in one word a cell wherever its answer fits: several outputs of one fused loop would make XLA
compute everything once for each.
"""

import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from epijax.cells import wide_vectors
from epijax.one_parameter import Lessons, learned
from epijax.phases import NO_PHASE, NOT_COMPUTED, code_of, phase_index
from epijax.problem import FiniteProblem, Problem
from epijax.solution import Solution, Status
from epijax.solver import lessons_of, solve
from epijax.sweeps.entrywise import entrywise
from epijax.sweeps.grid import Grid, Tile

Block = dict[str, np.ndarray]  # variable -> values of one tile
Record = dict[str, int]  # what there is to say of how a tile was answered
VARIABLES = ("phase", "rationalizable", "pure", "num_mixed", "margin")
_RECHECKED_AT_ONCE = 4096
_BLOCK_CELLS = 1 << 16  # taken at a time by one CPU core, so that they stay in its cache
_ROWS_A_DEVICE = 64
_UNPACKED_CELLS = 1 << 18


@dataclass(frozen=True)
class Layout:
    """How the answer of a cell is packed: 3 bits of phase, a bit for each action twice, the count of mixed equilibria.

    Where all that takes at most 8 bits, as it does for two actions, it replaces the lowest bits of the float32 margin,
    which keeps 15 bits of its own; otherwise code and margin are two words. Without the margin the code is alone, in as
    few bytes as it needs.
    """

    num_actions: int
    max_mixed: int
    names: tuple[str, ...]  # of the variables kept

    @property
    def num_bits(self) -> int:
        return 3 + 2 * self.num_actions + self.max_mixed.bit_length()

    @property
    def code_dtype(self) -> np.dtype:
        return np.min_scalar_type((1 << self.num_bits) - 1)

    @property
    def margin_kept(self) -> bool:
        return "margin" in self.names

    @property
    def one_word(self) -> bool:
        return self.margin_kept and self.num_bits <= 8

    def keeping(self, names: tuple[str, ...]) -> "Layout":
        """The same answer, with these variables kept."""
        return replace(self, names=names)

    def variables(self) -> dict[str, np.dtype]:
        """The variables of a dataset and their dtypes."""
        sets, counts = np.min_scalar_type((1 << self.num_actions) - 1), np.min_scalar_type(self.max_mixed)
        kinds = (np.dtype(np.uint8), sets, sets, counts, np.dtype(np.float32))
        return {name: kind for name, kind in zip(VARIABLES, kinds, strict=True) if name in self.names}

    def pack(self, solution: Solution, unsafe: tuple[bool, ...]) -> tuple[jax.Array, ...]:
        """The words of a solution."""
        return self._words(self.code(solution, unsafe), solution.margin)

    def code(self, solution: Solution, unsafe: tuple[bool, ...]) -> jax.Array:
        """All variables of a solution but its margin."""
        code = phase_index(solution, unsafe)
        code |= solution.rationalizable_bits << 3
        code |= solution.pure_bits << (3 + self.num_actions)
        return code | solution.num_mixed.astype(jnp.uint32) << (3 + 2 * self.num_actions)

    def look_up(self, told: Lessons, unsafe: tuple[bool, ...]) -> tuple[jax.Array, ...]:
        """The words of the solution that follows from what two actions teach: there are but nine, all coded beforehand.

        A third of the arithmetic of a map, since what is looked up for one axis alone is looked up once for it.
        """

        def among(only: tuple, codes: list) -> jax.Array:
            return jnp.where(only[0], codes[0], jnp.where(only[1], codes[1], codes[2]))

        first, second = told.only
        code = among(first, [among(second, [jnp.uint32(code) for code in row]) for row in _two_action_codes(unsafe)])
        code = jnp.where(told.clear, code, (code & ~jnp.uint32(7)) | (4 + Status.BOUNDARY))
        answered = told.refusal == 0
        code = jnp.where(answered, code, 4 + told.refusal)
        return self._words(code, jnp.where(answered, told.margin, jnp.nan))

    def _words(self, code: jax.Array, margin: jax.Array) -> tuple[jax.Array, ...]:
        if not self.margin_kept:
            return (code.astype(self.code_dtype),)
        margin = jax.lax.bitcast_convert_type(margin.astype(jnp.float32), jnp.uint32)
        return ((margin & jnp.uint32(0xFFFFFF00)) | code,) if self.one_word else (code, margin)

    def unpack(self, words: tuple[np.ndarray, ...], block: Block | None = None) -> Block:
        """The variables in such words, written into `block` where one is given."""
        block = block or {name: np.empty(words[0].shape, kind) for name, kind in self.variables().items()}
        code, n = words[0].astype(self.code_dtype, copy=False), self.num_actions
        first = {"phase": 0, "rationalizable": 3, "pure": 3 + n, "num_mixed": 3 + 2 * n}
        width = {"phase": 3, "rationalizable": n, "pure": n, "num_mixed": self.max_mixed.bit_length()}
        for name in (name for name in self.names if name != "margin"):
            shifted = code >> first[name] if first[name] else code
            np.bitwise_and(shifted, self.code_dtype.type((1 << width[name]) - 1), out=block[name], casting="unsafe")
        none = _where(block["phase"] >= NO_PHASE)
        block["phase"][none] = code_of(block["phase"][none])
        if self.margin_kept:
            kept = np.uint32(0xFFFFFF00 if self.one_word else 0xFFFFFFFF)
            np.bitwise_and(words[-1], kept, out=block["margin"].view(np.uint32))
        return block


@lru_cache
def _two_action_codes(unsafe: tuple[bool, ...]) -> list[list[int]]:
    """The code of each solution that two actions can teach: `Lessons.only` of either is its first, its second or
    neither."""
    outcomes = np.array([[True, False], [False, True], [False, False]])

    def code(first: jax.Array, second: jax.Array) -> jax.Array:
        told = Lessons(((first[0], first[1]), (second[0], second[1])), jnp.ones(()), jnp.array(True), jnp.uint32(0))
        return Layout(2, 1, VARIABLES).code(learned(told, jnp.ones(2)), unsafe)

    with jax.ensure_compile_time_eval():
        return np.asarray(jax.jit(jax.vmap(jax.vmap(code, (None, 0)), (0, None)))(outcomes, outcomes)).tolist()


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
        self._rows = min(share, max(1, _BLOCK_CELLS // others)) if on_cpu else share
        self._padded = -(-share // self._rows) * self._rows * len(self.devices)
        self._placed: dict[tuple[int, int], jax.Array] = {}
        self._blocks: list[Block] = []
        self._spare: list[tuple[jax.Array, ...]] = []  # words that were read: the kernel writes the next ones over them

        with jax.enable_x64(dtype == "float64"):
            self.program, self.shapes = self._program()

    @cached_property
    def _solve(self) -> Any:
        with jax.enable_x64(self.dtype == "float64"):
            return self._compiled(self.program, *self.shapes)

    @cached_property
    def _recheck(self) -> Any:
        points = [(self._rechecked_at_once, *values.shape[1:]) for values in self.grid.axes.values()]
        return self._compiled(jax.jit(jax.vmap(self._cell)), *(jax.ShapeDtypeStruct(p, "float64") for p in points))

    def _compiled(self, program: Any, *shapes: jax.ShapeDtypeStruct) -> Any:
        start = time.perf_counter()
        compiled = program.lower(*shapes).compile()
        self.compile_seconds += time.perf_counter() - start
        return compiled

    def of(self, grid: Grid) -> "Engine":
        """The same program for other values, of as many dimensions in tiles of the same size."""
        engine = copy(self)
        engine.grid, engine._placed = grid, {}
        return engine

    def memory(self) -> Any:
        """XLA's account of the kernel's memory, in bytes; `temp_size_in_bytes` among others."""
        return self._solve.memory_analysis()

    def launch(self, tile: Tile) -> tuple[jax.Array, ...]:
        """Starts a tile on the devices and returns at once."""
        with jax.enable_x64(self.dtype == "float64"):
            words = self._spare.pop() if self._spare else self._blank()
            return self._solve(*words, *(self._values(axis, index) for axis, index in enumerate(tile)))

    def reuse(self, words: tuple[jax.Array, ...]) -> None:
        """Gives back the words of a launched tile that nobody needs any more."""
        self._spare.append(words)

    def recycle(self, block: Block) -> None:
        """Gives back a block that nobody needs any more: memory that is there is quicker to fill than new one."""
        self._blocks.append({name: values.base for name, values in block.items() if values.base is not None})

    def collect(self, tile: Tile, words: tuple[jax.Array, ...]) -> tuple[Block, Record]:
        """The answers of a launched tile, and how many of its cells were solved again in float64 (`rechecked`)."""
        region = self.grid.region(tile)
        block, where = self._read(words, [part.stop - part.start for part in region])
        self.reuse(words)
        if self.dtype == "float64" or not where[0].size:
            return block, {"rechecked": 0}
        values = [axis[part][index] for axis, part, index in zip(self.grid.axes.values(), region, where, strict=True)]
        for name, again in self.layout.unpack(self._in_float64(values)).items():
            block[name][where] = again
        return block, {"rechecked": len(where[0])}

    def _program(self) -> tuple[Any, list[jax.ShapeDtypeStruct]]:
        """The jitted kernel of a tile, and the shapes of its arguments: one vector of values an axis."""
        split, rows = self._split, self._rows
        order = [split, *(i for i in range(len(self.grid.axes)) if i != split)]
        mesh = Mesh(np.array(self.devices), ("cells",))
        shared, whole = PartitionSpec("cells"), PartitionSpec()

        points = [values.shape[1:] for values in self.grid.axes.values()]
        traced = jax.make_jaxpr(self._cell)(*(jax.ShapeDtypeStruct(point, self.dtype) for point in points))
        kinds: Any = traced.out_avals

        def block(*axes: jax.Array) -> list[jax.Array]:
            solve_cells = entrywise(traced)
            for i in reversed(order):  # one vmap an axis: what depends on some axes only is computed once for these
                solve_cells = jax.vmap(solve_cells, in_axes=[0 if j == i else None for j in range(len(axes))])
            return solve_cells(*axes)

        def shard(*arguments: jax.Array) -> tuple[jax.Array, ...]:
            words, axes = arguments[: len(kinds)], arguments[len(kinds) :]

            def solve_rows(i: jax.Array, words: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
                some = jax.lax.dynamic_slice_in_dim(axes[split], i * rows, rows)
                answers = block(*(some if j == split else axis for j, axis in enumerate(axes)))
                return tuple(
                    jax.lax.dynamic_update_slice_in_dim(word, answer, i * rows, 0)
                    for word, answer in zip(words, answers, strict=True)
                )

            return jax.lax.fori_loop(0, len(axes[split]) // rows, solve_rows, words)

        sides = [self._padded if i == split else side for i, side in enumerate(self.grid.tile)]
        specs = tuple(shared if i == split else whole for i in range(len(order)))
        mapped = jax.shard_map(
            shard, mesh=mesh, in_specs=(shared,) * len(kinds) + specs, out_specs=shared, check_vma=False
        )
        shapes = [
            jax.ShapeDtypeStruct([sides[i] for i in order], kind.dtype, sharding=NamedSharding(mesh, shared))
            for kind in kinds
        ]
        shapes += [
            jax.ShapeDtypeStruct((side, *point), self.dtype, sharding=NamedSharding(mesh, spec))
            for side, point, spec in zip(sides, points, specs, strict=True)
        ]
        options = wide_vectors(self.devices[0])
        return jax.jit(mapped, donate_argnums=range(len(kinds)), compiler_options=options), shapes

    def _read(self, words: tuple[jax.Array, ...], shape: list[int]) -> tuple[Block, tuple[np.ndarray, ...]]:
        """The variables of the cells inside the grid, and the indices of the undecided ones, `[n]` a dimension.

        Unpacked in pieces that stay in a core's cache; by one thread, since several would wait for the interpreter.
        """
        whole = self._blocks.pop() if self._blocks else {}
        whole = whole or {name: np.empty(self.grid.tile, dtype) for name, dtype in self.layout.variables().items()}
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
                found = _where(self.layout.unpack(some, there)["phase"] > NOT_COMPUTED)
                undecided.append((found[0] + first + start, *found[1:]))
        front_first = [np.concatenate(indices) for indices in zip(*undecided, strict=True)]
        front_first.insert(self._split, front_first.pop(0))
        return block, tuple(front_first)

    def _blank(self) -> list[jax.Array]:
        return [jnp.zeros(s.shape, s.dtype, device=s.sharding) for s in self.shapes[: -len(self.grid.axes)]]

    def _values(self, axis: int, index: int) -> jax.Array:
        """The values of an axis in its index-th tile, placed once; what hangs over the edge repeats the last value."""
        if (axis, index) not in self._placed:
            values, side = list(self.grid.axes.values())[axis], self.grid.tile[axis]
            some = values[index * side : (index + 1) * side]
            shape = self.shapes[axis - len(self.grid.axes)]
            padded = _repeated(some, shape.shape[0]).astype(self.dtype)
            self._placed[axis, index] = jax.device_put(padded, shape.sharding)
        return self._placed[axis, index]

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
        return tuple(np.concatenate(word) for word in zip(*answers, strict=True))


def _repeated(values: np.ndarray, count: int) -> np.ndarray:
    """So many rows, the last one repeated."""
    return np.pad(values, [(0, count - len(values))] + [(0, 0)] * (values.ndim - 1), mode="edge")


def _where(holds: np.ndarray) -> tuple[np.ndarray, ...]:
    """The indices at which it holds; found in one row, which is much the quickest where they are few."""
    return np.unravel_index(np.flatnonzero(holds), holds.shape)
