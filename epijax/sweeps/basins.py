"""Sweeps of learners: in each cell the share of them whose behaviour tends to unsafe play; priors are axes, too."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from epijax.cells import wide_vectors
from epijax.environment import is_concrete
from epijax.learning import (
    Limit,
    Trajectories,
    check_habits,
    interval,
    learn,
    limits,
    tables_of,
)
from epijax.phases import code_of
from epijax.priors import NUM, PRIORS, check_prior, parameters_of, weights
from epijax.problem import FiniteProblem, Problem
from epijax.solution import Status
from epijax.subjective import Finite
from epijax.sweeps.engine import Engine, Record
from epijax.sweeps.grid import Grid, Tile
from epijax.sweeps.layout import Block

BASIN_VARIABLES = ("phase", "unsafe_share", "unsafe_low", "unsafe_high", "settled_share", "refuted_share")
_MOST_ROUNDS = 1 << 24  # to which counts are exact in either dtype
_ROUNDS_A_TILE = 1 << 28  # times a learner and 64 parameters: some seconds on a core


@dataclass(frozen=True)
class Learning:
    """Who learns in each cell of a sweep, and for how long.

    The prior's own parameters are parameters of the sweep, called prior_a and prior_b for "beta", prior_mean and
    prior_std for "normal", prior_slope for "tilt", prior_1 to prior_K for "weights": axes or fixed.

    **Arguments:** `prior`, one of `ej.priors.PRIORS`, over `num` points a dimension; of "weights", `num` in all;
    `rounds`, `learners`, `seed`: the i-th learner draws the same in every cell; `temperature`, `discount`, `window`: as
    of `ej.simulate`; `level`, of the confidence interval.

    Raises `ValueError` for a prior that is none of these and for numbers out of range.
    """

    prior: str = "uniform"
    num: int = NUM
    rounds: int = 1024
    learners: int = 256
    seed: int = 0
    temperature: float = 0.0
    discount: float = 1.0
    window: int | None = None
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.prior not in PRIORS:
            raise ValueError(f"a sweep's prior is one of {', '.join(PRIORS)}; got {self.prior!r}")
        if not 8 <= self.rounds <= _MOST_ROUNDS or self.learners < 1 or not 0 < self.level < 1:
            raise ValueError(
                f"there must be 8 to {_MOST_ROUNDS:,} rounds, 1 learner or more and a level in (0, 1); got "
                f"{self.rounds:,}, {self.learners} and {self.level}"
            )
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be a number from 0 to 2**32 - 1; got {self.seed}")
        check_habits(self.temperature, self.discount, self.window)

    def cells_a_tile(self, problem: Problem) -> int:
        """How many cells are some seconds of work."""
        if self.prior == "weights" or isinstance(problem.model, Finite):
            parameters = self.num
        else:
            parameters = self.num ** len(problem.model.lower)
        return max(1, _ROUNDS_A_TILE * 64 // (self.rounds * self.learners * max(64, parameters)))


class WithPrior:
    """A build function that takes the parameters of a prior too, and `log_prior`, which makes it."""

    def __init__(self, build: Callable[..., Problem | FiniteProblem], learning: Learning):
        self.__wrapped__, self._learning = build, learning
        weighed = learning.prior == "weights"
        numbers = map(str, range(1, learning.num + 1)) if weighed else parameters_of(learning.prior)
        self._names = [f"prior_{name}" for name in numbers]
        own = inspect.signature(build)
        kinds = sorted(
            [*own.parameters.values(), *(inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in self._names)],
            key=lambda parameter: parameter.kind,
        )
        self.__signature__ = own.replace(parameters=kinds)

    def __call__(self, **values: Any) -> Problem:
        problem = self.problem(values)
        log_prior = self.log_prior(problem, values)
        tables_of(problem, len(log_prior))
        if is_concrete(log_prior):
            check_prior(np.asarray(log_prior)[None])
        return problem

    def problem(self, values: Mapping[str, Any]) -> Problem:
        problem = self.__wrapped__(**{key: value for key, value in values.items() if key not in self._names})
        if not isinstance(problem, Problem):
            raise ValueError("learning needs outcomes; build must return a Problem, not its tables")
        return problem

    def log_prior(self, problem: Problem, values: Mapping[str, Any]) -> jax.Array:
        given = {name.removeprefix("prior_"): values[name] for name in self._names}
        if self._learning.prior == "weights":
            return weights(problem.model, *given.values())
        return PRIORS[self._learning.prior](problem.model, **given, num=self._learning.num)


@dataclass(frozen=True)
class _Layout:
    names: tuple[str, ...]

    def variables(self) -> dict[str, np.dtype]:
        return {name: np.dtype(np.uint8 if name == "phase" else np.float32) for name in self.names}


class Basins:
    """What an `Engine` is to phases, for learners too: in each cell `learning.learners` of them, from one prior.

    **Arguments:** those of an `Engine`, `build` a `WithPrior`; `learning`.
    """

    def __init__(
        self,
        build: WithPrior,
        fixed: Mapping[str, Any],
        grid: Grid,
        dtype: str,
        unsafe: tuple[bool, ...],
        variables: tuple[str, ...],
        learning: Learning,
    ):
        self._phases = Engine(build, fixed, grid, dtype, unsafe, variables=("phase",))
        self.grid, self.devices, self.layout = grid, self._phases.devices, _Layout(variables)
        self._dtype, self._learning = dtype, learning
        self._columns = {name: list(grid.axes).index(dim) for name, (dim, _) in grid.coordinates().items()}
        stops = np.array([learning.rounds // 4, learning.rounds // 2, learning.rounds])
        habits = (learning.temperature, learning.discount, learning.window)
        words = jax.random.key_data(jax.random.key(learning.seed))
        lanes = jnp.arange(learning.learners, dtype=jnp.uint32)

        def cell(point: jax.Array) -> jax.Array:
            """How many learners are unsafe, have settled, and are refuted."""
            values = dict(fixed) | dict(zip(self._columns, point, strict=True))
            problem = build.problem(values)
            prior = build.log_prior(problem, values)
            done = learn(
                tables_of(problem, len(prior)), prior[:, None], words, lanes, jnp.asarray(stops, jnp.int32), habits
            )
            ends = limits(
                Trajectories(rounds=stops, **jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), done))  # pyright: ignore[reportArgumentType]
            )
            refuted = ends.kind == Limit.REFUTED
            harmed = jnp.any(ends.chosen & jnp.array(unsafe), axis=1) & ~refuted
            return jnp.stack([jnp.sum(harmed), jnp.sum(ends.kind == Limit.ACTION), jnp.sum(refuted)])

        mesh, split = Mesh(np.array(self.devices), ("cells",)), PartitionSpec("cells")
        many = jax.shard_map(
            lambda points: jax.lax.map(cell, points), mesh=mesh, in_specs=split, out_specs=split, check_vma=False
        )
        self._count = jax.jit(many, compiler_options=wide_vectors(self.devices[0]))

    def answers(self, tiles: Iterable[Tile]) -> Iterator[tuple[Tile, Block, Record]]:
        """Tile after tile, each with how many of its phases were solved again in float64 (`rechecked`)."""
        for tile in tiles:
            counts = self._launch(tile)
            for _, block, record in self._phases.answers([tile]):
                yield tile, self._told(block, np.asarray(counts)), record

    def recycle(self, block: Block) -> None:
        """Takes nothing back: a block is small beside the work that it took."""

    def _launch(self, tile: Tile) -> jax.Array:
        """Starts the learners of a tile on the devices and returns at once."""
        points = self._points(tile)
        size = -(-prod(self.grid.tile) // len(self.devices)) * len(self.devices)
        padded = np.pad(points, ((0, size - len(points)), (0, 0)), mode="edge")
        with jax.enable_x64(self._dtype == "float64"):
            return self._count(jnp.asarray(padded, self._dtype))

    def _told(self, block: Block, counts: np.ndarray) -> Block:
        """The variables of a tile, from its phases and what was counted in its cells."""
        phase, learners = block["phase"], self._learning.learners
        unsafe, settled, refuted = counts[: phase.size].T
        counted = learners - refuted
        low, high = interval(unsafe, counted, self._learning.level)
        with np.errstate(invalid="ignore"):
            shares = {"unsafe_share": unsafe / counted, "settled_share": settled / counted}
        found = shares | {"unsafe_low": low, "unsafe_high": high, "refuted_share": refuted / learners}
        invalid = phase == code_of(4 + Status.INVALID) % 256
        told = {
            name: np.where(invalid, np.nan, values.reshape(phase.shape)).astype(np.float32)
            for name, values in found.items()
        }
        return {name: phase if name == "phase" else told[name] for name in self.layout.names}

    def _points(self, tile: Tile) -> np.ndarray:
        """The parameters of all cells of the tile, `[cells, parameters]`, in the order of the columns."""
        region = self.grid.region(tile)
        places = np.meshgrid(*(np.arange(part.start, part.stop) for part in region), indexing="ij")
        columns = self.grid.coordinates()
        return np.stack([columns[name][1][places[axis].ravel()] for name, axis in self._columns.items()], axis=1)
