"""One verb: `solve` sends a problem to the path that is exact for it."""

import equinox as eqx

from epijax.one_parameter import solve_one_parameter
from epijax.problem import FiniteProblem, Problem
from epijax.solution import Solution, tolerance_of
from epijax.subjective import Finite
from epijax.tables import tabulate
from epijax.two_action import solve_two_action


@eqx.filter_jit
def solve(problem: Problem | FiniteProblem, tolerance: float | None = None) -> Solution:
    """All Berk–Nash equilibria and the rationalizable set of one problem, exactly.

    A one-parameter model goes the closed way of theory §3; tables, and models that are finite, go along the lower
    envelopes of their divergences. Compiled once for each kind of problem; works under `jit`, `vmap` and, away from
    ties, `grad`.

    **Arguments:** `problem`; `tolerance`, the share of the scale within which two payoffs or two divergences tie; by
    default 1e-9 in float64 and 1e-5 in float32.

    **Returns:** the `Solution`, its `status` telling how far to trust it.

    Raises `ValueError` for tables with more than two actions, which cannot be solved yet, and `TypeError` for anything
    that is no problem.
    """
    if isinstance(problem, Problem) and not isinstance(problem.model, Finite):
        return solve_one_parameter(problem, _tolerance(tolerance, problem.environment.payoffs))
    if isinstance(problem, Problem):
        _two_actions_only(problem.num_actions)
        tables = tabulate(problem)
        return solve_two_action(tables, _tolerance(tolerance, tables.utility), problem.is_valid())
    if isinstance(problem, FiniteProblem):
        _two_actions_only(problem.num_actions)
        return solve_two_action(problem, _tolerance(tolerance, problem.utility))
    raise TypeError(f"solve takes a Problem or a FiniteProblem; got {type(problem).__name__}")


def _two_actions_only(num_actions: int) -> None:
    if num_actions != 2:
        raise ValueError(
            f"tables can be solved for 2 actions so far; got {num_actions}. "
            "A one-parameter model (AffineBernoulli) can have any number."
        )


def _tolerance(tolerance: float | None, values) -> float:
    return tolerance_of(values.dtype) if tolerance is None else tolerance
