"""The mean field of learning, σ̇ ∈ ΔF(ΔΘ(σ)) − σ: where frequencies flow in the long run ([EPY21], theory §7)."""

from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Int

from epijax.boxes import best_fit, box_of, nearest
from epijax.environment import Numbers, as_float
from epijax.problem import FiniteProblem, Problem
from epijax.response import utilities
from epijax.solution import Status, tolerance_of
from epijax.solver import solve
from epijax.subjective import Finite
from epijax.tables import tabulate

_NEAR = 0.01  # how far from a rest point of three actions and more its surroundings are looked at, at most
_HORIZON = 1.25  # for how long from there, in logarithms of time, at most
_MOST_STEPS = 1 << 19
_RIM = 16  # directions, besides those of the pure strategies


class Rest(IntEnum):
    """What the flow does near a rest point: comes from every side, leaves to every side, some of each, or none of it.

    Undecided: where play tells nothing apart and any belief will do, or where the flow goes neither way in the time
    that it is followed.
    """

    ATTRACTING = 0
    REPELLING = 1
    SADDLE = 2
    UNDECIDED = 3


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
    worth = tables.utility @ jax.nn.softmax(jnp.where(_fits(tables, strategy), log_prior, -jnp.inf))
    return jnp.argmax(worth >= jnp.max(worth) - tolerance_of(strategy.dtype) * jnp.max(jnp.abs(tables.utility)))


def _fits(tables: FiniteProblem, strategy: Array) -> Array:
    """Which parameters fit best, `[K]`."""
    finite = jnp.where(jnp.isfinite(tables.divergence), tables.divergence, 0)
    misfit = strategy @ finite + jnp.where(
        jnp.any(jnp.isinf(tables.divergence) & (strategy[:, None] > 0), axis=0), jnp.inf, 0
    )
    return misfit <= jnp.min(misfit) + tolerance_of(strategy.dtype) * jnp.max(finite)


def rest_points(problem: Problem | FiniteProblem) -> RestPoints:
    """Where frequencies may rest: the Berk–Nash equilibria that `solve` lists, and what the flow does around them.

    For two actions exactly: between rest points the flow has one direction, that of the best response there. For more,
    by following the flow from points on a small circle around each, until all have left to four times the distance or
    come back to a quarter of it, or for 1.25 units of the logarithm of time: it leaves if it ends at twice the distance
    or more, and comes back if at half of it or less. That is as good as the directions tried, each of which has one
    solution. Strict equilibria attract [FLS21]; and a mixture of some actions that is left in all directions tried is a
    saddle: the others die out, along a surface too thin to be tried.

    A pure rest point is repelling if other beliefs would be learned as soon as anything else were played; who never
    does so stays. (Compliance of the deception model out of pessimism is one.)

    Raises `ValueError` where the solver gives no answer: a tie, or all beliefs refuted.
    """
    if isinstance(problem, Problem) and isinstance(problem.model, Finite):
        problem = tabulate(problem)
    solution = solve(problem)
    status = Status(int(solution.status))
    if status != Status.SOLVED:
        raise ValueError(f"there are no rest points to tell of: {status.sentence}")
    pure = np.eye(problem.num_actions)[np.asarray(solution.pure)]
    found = np.concatenate([pure, np.asarray(solution.mixed, float)[: int(solution.num_mixed)]])
    if problem.num_actions == 2:
        kinds = _on_a_line(problem, found)
    else:
        strict = np.pad(np.asarray(solution.strict)[np.asarray(solution.pure)], (0, len(found) - len(pure)))
        kinds = [
            Rest.ATTRACTING if sure else _around(problem, at, found) for at, sure in zip(found, strict, strict=True)
        ]
    return RestPoints(found, np.array(kinds, int))


def _on_a_line(problem: Problem | FiniteProblem, found: npt.NDArray[np.float64]) -> list[Rest]:
    places = np.unique([0.0, 1.0, *found[:, 0]])
    signs = [int(_sign_of_lead(problem, as_float((low + high) / 2))) for low, high in pairwise(places)]
    kinds = []
    for point in found[:, 0]:
        i = int(np.flatnonzero(places == point)[0])
        towards = ([signs[i - 1]] if i > 0 else []) + ([-signs[i]] if i < len(signs) else [])
        kinds.append(_kind(np.array(towards) > 0, np.array(towards) < 0))
    return kinds


@eqx.filter_jit
def _sign_of_lead(problem: Problem | FiniteProblem, share: Array) -> Int[Array, ""]:
    """Whether the first of two actions (1) or the other (−1) is better, given what is learned where the first has this
    share; 0 if that depends on which of the parameters that fit best is believed, or neither is."""
    strategy = jnp.stack([share, 1 - share])
    if isinstance(problem, FiniteProblem):
        worth, fits = problem.utility, _fits(problem, strategy)
    else:
        best = best_fit(problem, strategy).extremes
        fits = ~jnp.isnan(best).any(axis=1)
        worth = jax.vmap(lambda theta: utilities(problem.environment, box_of(problem), theta), out_axes=1)(best)
    lead = worth[0] - worth[1]
    close = tolerance_of(worth.dtype) * jnp.max(jnp.abs(worth), where=fits, initial=0)
    return jnp.all((lead > close) | ~fits).astype(int) - jnp.all((lead < -close) | ~fits).astype(int)


def _kind(back: npt.NDArray[np.bool_], leave: npt.NDArray[np.bool_]) -> Rest:
    if back.all():
        return Rest.ATTRACTING
    if back.any() and leave.any():
        return Rest.SADDLE
    return Rest.REPELLING if leave.all() else Rest.UNDECIDED


def _around(problem: Problem | FiniteProblem, point: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> Rest:
    """By where the flow goes from a small circle around the point, inside the simplex, away from other rest points."""
    gaps = np.linalg.norm(found - point, axis=1)
    radius = min([_NEAR, *(gaps[gaps > 0] / 4)])
    draws = np.random.default_rng(0).dirichlet(np.ones(len(point)), _RIM)
    towards = np.concatenate([np.eye(len(point))[point < 1], draws]) - point
    starts = point + radius * towards / np.linalg.norm(towards, axis=1, keepdims=True)
    step = radius**2 / 40  # where best responses take turns around a point, steps h end some √h away from it
    steps = min(_MOST_STEPS, int(_HORIZON / step))
    away = np.asarray(_ends(problem, jnp.asarray(point), jnp.asarray(starts), *map(jnp.asarray, (radius, step, steps))))
    kind = _kind(away <= radius / 2, away >= 2 * radius)
    return Rest.SADDLE if kind == Rest.REPELLING and 1 < np.count_nonzero(point) < len(point) else kind


@eqx.filter_jit
def _ends(
    problem: Problem | FiniteProblem, point: Array, starts: Array, radius: Array, step: Array, most: Array
) -> Array:
    """How far from the point the flow ends, from each start."""

    def respond(strategy: Array) -> Array:
        if isinstance(problem, FiniteProblem):
            return _response(problem, strategy, jnp.zeros(problem.utility.shape[1]))
        theta, _ = nearest(problem, problem.explored(strategy))
        return jnp.argmax(utilities(problem.environment, box_of(problem), theta))

    def away(strategies: Array) -> Array:
        return jnp.linalg.norm(strategies - point, axis=1)

    def onward(state: tuple[Array, Array]) -> tuple[Array, Array]:
        strategies, taken = state
        responses = jax.nn.one_hot(jax.vmap(respond)(strategies), len(point), dtype=strategies.dtype)
        return (1 - step) * strategies + step * responses, taken + 1

    def open_still(state: tuple[Array, Array]) -> Array:
        distance = away(state[0])
        return jnp.any((distance > radius / 4) & (distance < 4 * radius)) & (state[1] < most)

    ends, _ = jax.lax.while_loop(open_still, onward, (starts, jnp.int32(0)))
    return away(ends)
