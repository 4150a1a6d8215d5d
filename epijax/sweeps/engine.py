"""Cells to answers on whatever devices there are: vmap within a block, shard_map over devices (all device knowledge).

A kernel ends in one 32-bit word a cell wherever its answer fits: several outputs of one fused loop would make XLA
compute everything once for each.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from epijax.phases import NOT_COMPUTED, code_of, phase_index
from epijax.problem import FiniteProblem, Problem
from epijax.solution import Solution
from epijax.solver import solve
from epijax.sweeps.grid import Grid, Tile

Block = dict[str, np.ndarray]  # variable -> values of one tile
_RECHECKED_AT_ONCE = 4096
_BLOCK_CELLS = 1 << 16  # taken at a time by one CPU core, so that they stay in its cache


@dataclass(frozen=True)
class Layout:
    """How the answer of a cell is packed: 3 bits of phase, a bit for each action twice, the count of mixed equilibria.

    Where all that takes at most 8 bits, as it does for two actions, it replaces the lowest bits of the float32 margin,
    which keeps 15 bits of its own; otherwise code and margin are two words.
    """

    num_actions: int
    max_mixed: int

    @property
    def num_bits(self) -> int:
        return 3 + 2 * self.num_actions + self.max_mixed.bit_length()

    @property
    def one_word(self) -> bool:
        return self.num_bits <= 8

    def variables(self) -> dict[str, np.dtype]:
        """The variables of a dataset and their dtypes."""
        return {name: values.dtype for name, values in self.unpack((np.zeros(0, np.uint32),) * 2).items()}

    def pack(self, solution: Solution, unsafe: tuple[bool, ...]) -> tuple[jax.Array, ...]:
        code = phase_index(solution, unsafe)
        code |= solution.rationalizable_bits << 3
        code |= solution.pure_bits << (3 + self.num_actions)
        code |= solution.num_mixed.astype(jnp.uint32) << (3 + 2 * self.num_actions)
        margin = jax.lax.bitcast_convert_type(solution.margin.astype(jnp.float32), jnp.uint32)
        return ((margin & jnp.uint32(0xFFFFFF00)) | code,) if self.one_word else (code, margin)

    def unpack(self, words: tuple[np.ndarray, ...]) -> Block:
        code = words[0].astype(np.uint8 if self.one_word else np.uint32)
        margin = (words[0] & np.uint32(0xFFFFFF00)) if self.one_word else words[1].copy()
        actions = code.dtype.type((1 << self.num_actions) - 1)
        sets, counts = np.min_scalar_type(actions), np.min_scalar_type(self.max_mixed)
        return {
            "phase": code_of((code & 7).astype(np.uint8, copy=False)),
            "rationalizable": ((code >> 3) & actions).astype(sets, copy=False),
            "pure": ((code >> (3 + self.num_actions)) & actions).astype(sets, copy=False),
            "num_mixed": (code >> (3 + 2 * self.num_actions)).astype(counts, copy=False),
            "margin": margin.view(np.float32),
        }


class Engine:
    """Compiles the solver once for a grid of problems and answers tile after tile.

    In float32, cells that come out undecided (a tie within tolerance, say) are solved again in float64 on the host's
    CPU, so that the answers are those of float64 (theory §9).

    **Arguments:** `build`, from the values of a cell to its problem; `fixed`, the other arguments of `build`; `grid`;
    `dtype`, "float32" or "float64"; `devices`, all local ones by default.
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
    ):
        self.grid, self.dtype = grid, dtype
        self.devices = jax.local_devices() if devices is None else devices
        names = list(grid.axes)

        def cell(*values: jax.Array) -> tuple[jax.Array, ...]:
            solution = solve(build(**fixed, **dict(zip(names, values, strict=True))))
            self.layout = Layout(solution.num_actions, solution.mixed.shape[-2])
            return self.layout.pack(solution, unsafe)

        self._cell = cell
        self._recheck = None
        # The longest side of a tile is shared out among devices, and on a CPU taken in blocks that stay in the cache.
        self._split = int(np.argmax(grid.tile))
        others = prod(grid.tile) // grid.tile[self._split]
        share = -(-grid.tile[self._split] // len(self.devices))
        on_cpu = self.devices[0].platform == "cpu"
        self._rows = min(share, max(1, _BLOCK_CELLS // others)) if on_cpu else share
        self._padded = -(-share // self._rows) * self._rows * len(self.devices)

        with jax.enable_x64(dtype == "float64"):
            self.program, self.shapes = self._program(on_cpu)
            start = time.perf_counter()
            self._solve = self.program.lower(*self.shapes).compile()
            self.compile_seconds = time.perf_counter() - start

    def memory(self) -> Any:
        """XLA's account of the kernel's memory, in bytes; `temp_size_in_bytes` among others."""
        return self._solve.memory_analysis()

    def launch(self, tile: Tile) -> tuple[jax.Array, ...]:
        """Starts a tile on the devices and returns at once."""
        with jax.enable_x64(self.dtype == "float64"):
            return self._solve(*self._coordinates(tile))

    def collect(self, tile: Tile, words: tuple[jax.Array, ...]) -> tuple[Block, int]:
        """The answers of a launched tile, and how many of its cells were solved again in float64."""
        region = self.grid.region(tile)
        inside = tuple(slice(0, part.stop - part.start) for part in region)
        host = (np.moveaxis(np.asarray(word), 0, self._split)[inside] for word in words)
        block = self.layout.unpack(tuple(np.ascontiguousarray(word) for word in host))
        if self.dtype == "float64":
            return block, 0
        undecided = block["phase"] > NOT_COMPUTED
        if not undecided.any():
            return block, 0
        where = np.unravel_index(np.flatnonzero(undecided), undecided.shape)
        values = [axis[part][index] for axis, part, index in zip(self.grid.axes.values(), region, where, strict=True)]
        for name, again in self.layout.unpack(self._in_float64(values)).items():
            block[name][where] = again
        return block, len(where[0])

    def _program(self, on_cpu: bool) -> tuple[Any, list[jax.ShapeDtypeStruct]]:
        """The jitted kernel of a tile, and the shapes of its arguments: one vector of values an axis."""
        split, rows = self._split, self._rows
        order = [split, *(i for i in range(len(self.grid.axes)) if i != split)]
        mesh = Mesh(np.array(self.devices), ("cells",))
        shared, whole = PartitionSpec("cells"), PartitionSpec()

        def block(*axes: jax.Array) -> tuple[jax.Array, ...]:
            solve_cells = self._cell
            for i in reversed(order):  # one vmap an axis: what depends on some axes only is computed once for these
                solve_cells = jax.vmap(solve_cells, in_axes=[0 if j == i else None for j in range(len(axes))])
            return solve_cells(*axes)

        def shard(*axes: jax.Array) -> tuple[jax.Array, ...]:
            def part(values):
                return block(*(values if i == split else axis for i, axis in enumerate(axes)))

            words = jax.lax.map(part, axes[split].reshape(-1, rows))
            return tuple(word.reshape(-1, *word.shape[2:]) for word in words)

        specs = tuple(shared if i == split else whole for i in range(len(order)))
        spread = jax.shard_map(shard, mesh=mesh, in_specs=specs, out_specs=shared, check_vma=False)
        options = {"xla_cpu_prefer_vector_width": 512} if on_cpu else None
        shapes = [
            jax.ShapeDtypeStruct(
                (self._padded if i == split else side,), self.dtype, sharding=NamedSharding(mesh, spec)
            )
            for i, (side, spec) in enumerate(zip(self.grid.tile, specs, strict=True))
        ]
        return jax.jit(spread, compiler_options=options), shapes

    def _coordinates(self, tile: Tile) -> list[np.ndarray]:
        """The axis values of a tile; what hangs over the edge repeats the last value."""
        coordinates = []
        for i, (values, part) in enumerate(zip(self.grid.axes.values(), self.grid.region(tile), strict=True)):
            size = self._padded if i == self._split else self.grid.tile[i]
            padded = np.pad(values[part], (0, size - (part.stop - part.start)), mode="edge")
            coordinates.append(padded.astype(self.dtype))
        return coordinates

    def _in_float64(self, values: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        """The packed answers of single cells, in float64 on the CPU."""
        count = len(values[0])
        with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
            if self._recheck is None:
                self._recheck = jax.jit(jax.vmap(self._cell))
            answers = []
            for start in range(0, count, _RECHECKED_AT_ONCE):
                some = [v[start : start + _RECHECKED_AT_ONCE] for v in values]
                padded = [np.pad(v, (0, _RECHECKED_AT_ONCE - len(v)), mode="edge") for v in some]
                answers.append([np.asarray(word)[: len(some[0])] for word in self._recheck(*padded)])
        return tuple(np.concatenate(word) for word in zip(*answers, strict=True))
