"""The mean field of learning, σ̇ ∈ ΔF(ΔΘ(σ)) − σ: where frequencies flow in the long run ([EPY21], theory §7)."""

from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float

from epijax.boxes import best_fit
from epijax.environment import Numbers, as_float
from epijax.problem import FiniteProblem, Problem
from epijax.response import utilities
from epijax.solution import Status, tolerance_of
from epijax.solver import solve
from epijax.subjective import Finite
from epijax.tables import tabulate

_NEAR = 1e-3  # how far from a rest point of three actions and more its surroundings are looked at
_STEPS, _STEP = 4000, 2e-3  # steps from there, in parts of that
_RIM = 24  # directions, besides those of the pure strategies


class Rest(IntEnum):
    """What the flow does near a rest point: comes from every side, leaves to every side, or some of each."""

    ATTRACTING = 0
    REPELLING = 1
    SADDLE = 2


class RestPoints(NamedTuple):
    """- `strategy`: `[R, A]`, Berk–Nash equilibria, those that are pure first.
    - `kind`: `[R]`, a `Rest` each.
    """

    strategy: npt.NDArray[np.float64]
    kind: npt.NDArray[np.int64]


def flow(
    tables: FiniteProblem, start: Numbers, step: float = 1e-3, steps: int = 10_000, log_prior: Numbers | None = None
) -> Float[Array, "N A"]:
    """A solution of the differential inclusion from one strategy on, in equal steps of the logarithm of time.

    Each step goes towards a best response to the belief that learning from these frequencies leads to: the prior on
    what fits best. Where several solutions leave a point this is one of them; ties go to the first action. Near a mixed
    rest point that attracts it chatters within the length of a step.

    **Arguments:** `tables`, as of `ej.tabulate`; `start`: `[A]`; `step`, `steps`; `log_prior`: `[K]`, else uniform.

    **Returns:** `[steps + 1, A]`, frequencies of play.

    Raises `ValueError` for a start that is no strategy, and a prior that does not fit.
    """
    start = as_float(start)
    num_actions, num = tables.utility.shape
    if start.shape != (num_actions,) or (np.asarray(start) < 0).any() or abs(float(start.sum()) - 1) > 1e-6:
        raise ValueError(f"start must be a strategy of {num_actions} actions; got {np.asarray(start)}")
    weights = jnp.zeros(num) if log_prior is None else as_float(log_prior)
    if weights.shape != (num,):
        raise ValueError(f"log_prior must be [{num}]; got {weights.shape}")
    return _flow(tables, start, jnp.asarray(step), steps, weights)


@jax.jit(static_argnames="steps")
def _flow(tables: FiniteProblem, start: Array, step: Array, steps: int, log_prior: Array) -> Array:
    def onward(strategy: Array, _: None) -> tuple[Array, Array]:
        response = jax.nn.one_hot(_response(tables, strategy, log_prior), len(strategy), dtype=strategy.dtype)
        strategy = (1 - step) * strategy + step * response
        return strategy, strategy

    _, path = jax.lax.scan(onward, start, length=steps)
    return jnp.concatenate([start[None], path])


def _response(tables: FiniteProblem, strategy: Array, log_prior: Array) -> Array:
    """The first best response to the prior on what fits best."""
    tolerance = tolerance_of(strategy.dtype)
    finite = jnp.where(jnp.isfinite(tables.divergence), tables.divergence, 0)
    misfit = strategy @ finite + jnp.where(
        jnp.any(jnp.isinf(tables.divergence) & (strategy[:, None] > 0), axis=0), jnp.inf, 0
    )
    fits = misfit <= jnp.min(misfit) + tolerance * jnp.max(finite)
    worth = tables.utility @ jax.nn.softmax(jnp.where(fits, log_prior, -jnp.inf))
    return jnp.argmax(worth >= jnp.max(worth) - tolerance * jnp.max(jnp.abs(tables.utility)))


def rest_points(problem: Problem | FiniteProblem, num: int = 257) -> RestPoints:
    """Where frequencies may rest: the Berk–Nash equilibria that `solve` lists, and what the flow does around them.

    For two actions exactly: between rest points the flow has one direction, that of the best response there. For more,
    by integrating the flow from a small circle around each, on tables with `num` points a dimension.

    A pure rest point is repelling if other beliefs would be learned as soon as anything else were played; who never
    does so stays. (Compliance of the deception model out of pessimism is one.)

    Raises `ValueError` where the solver gives no answer: a tie, or all beliefs refuted.
    """
    solution = solve(problem)
    status = Status(int(solution.status))
    if status != Status.SOLVED:
        raise ValueError(f"there are no rest points to tell of: {status.sentence}")
    pure = np.eye(problem.num_actions)[np.asarray(solution.pure)]
    found = np.concatenate([pure, np.asarray(solution.mixed, float)[: int(solution.num_mixed)]])
    if problem.num_actions == 2:
        return _on_a_line(problem, found)
    tables = problem if isinstance(problem, FiniteProblem) else tabulate(problem, num)
    return RestPoints(found, np.array([_around(tables, point) for point in found], int))


def _on_a_line(problem: Problem | FiniteProblem, found: npt.NDArray[np.float64]) -> RestPoints:
    share = found[:, 0]
    places = np.unique([0.0, 1.0, *share])
    upward = [_goes_to_first(problem, (low + high) / 2) for low, high in pairwise(places)]
    kinds = []
    for point in share:
        i = int(np.flatnonzero(places == point)[0])
        towards = ([upward[i - 1]] if i > 0 else []) + ([not upward[i]] if i < len(upward) else [])
        kinds.append(Rest.ATTRACTING if all(towards) else Rest.SADDLE if any(towards) else Rest.REPELLING)
    return RestPoints(found, np.array(kinds, int))


def _goes_to_first(problem: Problem | FiniteProblem, share: float) -> bool:
    """Whether the first of two actions is the better one, given what is learned where it has this share."""
    strategy = jnp.array([share, 1 - share])
    if isinstance(problem, Problem) and not isinstance(problem.model, Finite):
        first, second = utilities(problem.environment, problem.model, best_fit(problem, strategy).theta)
        return bool(first > second)
    tables = problem if isinstance(problem, FiniteProblem) else tabulate(problem)
    return bool(_response(tables, strategy, jnp.zeros(tables.utility.shape[1])) == 0)


def _around(tables: FiniteProblem, point: npt.NDArray[np.float64]) -> Rest:
    """By where the flow goes from a small circle around the point, inside the simplex."""
    draws = np.random.default_rng(0).dirichlet(np.ones(len(point)), _RIM)
    corners = np.eye(len(point))[point < 1]
    towards = np.concatenate([corners, draws]) - point
    starts = point + _NEAR * towards / np.linalg.norm(towards, axis=1, keepdims=True).clip(_NEAR)
    weights = jnp.zeros(tables.utility.shape[1])
    paths = jax.vmap(lambda start: _flow(tables, start, jnp.asarray(_STEP * _NEAR), _STEPS, weights))(
        jnp.asarray(starts)
    )
    away = np.linalg.norm(np.asarray(paths) - point, axis=2)
    back = away[:, -1] <= away[:, 0]
    return Rest.ATTRACTING if back.all() else Rest.SADDLE if back.any() else Rest.REPELLING
