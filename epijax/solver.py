"""One verb: `solve` sends a problem to the path that is exact for it."""

import equinox as eqx
from jaxtyping import Array, Float

from epijax.many_actions import solve_many_actions
from epijax.one_parameter import solve_one_parameter
from epijax.problem import FiniteProblem, Problem
from epijax.solution import Solution, tolerance_of
from epijax.subjective import Finite
from epijax.tables import tabulate
from epijax.two_action import solve_two_action


def solve(problem: Problem | FiniteProblem, tolerance: float | None = None) -> Solution:
    """All Berk–Nash equilibria and the rationalizable set of one problem, exactly.

    A one-parameter model goes the closed way of theory §3; tables, and models that are finite, go along the lower
    envelopes of their divergences: two actions by a walk over σ ∈ [0, 1], others by the vertices over Δ(A). Compiled
    once for each kind of problem; works under `jit`, `vmap` and, away from ties, `grad`.

    **Arguments:** `problem`; `tolerance`, the share of the scale within which two payoffs or two divergences tie; by
    default 1e-9 in float64 and 1e-5 in float32.

    **Returns:** the `Solution`, its `status` telling how far to trust it.

    Raises `ValueError` for tables of other than two actions that are too large to solve, and `TypeError` for anything
    that is no problem.
    """
    if not isinstance(problem, Problem | FiniteProblem):
        raise TypeError(f"solve takes a Problem or a FiniteProblem; got {type(problem).__name__}")
    return _solve(problem, tolerance)


@eqx.filter_jit
def _solve(problem: Problem | FiniteProblem, tolerance: float | None) -> Solution:
    if isinstance(problem, Problem) and not isinstance(problem.model, Finite):
        return solve_one_parameter(problem, _tolerance(tolerance, problem.environment.payoffs))
    tables = tabulate(problem) if isinstance(problem, Problem) else problem
    valid = problem.is_valid()
    path = solve_two_action if tables.num_actions == 2 else solve_many_actions
    return path(tables, _tolerance(tolerance, tables.utility), valid)


def _tolerance(tolerance: float | None, values: Float[Array, "..."]) -> float:
    return tolerance_of(values.dtype) if tolerance is None else tolerance
