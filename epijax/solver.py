"""One verb: `solve` sends a problem to the path that is exact for it."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from epijax.continuous import solve_continuous
from epijax.environment import is_concrete
from epijax.exact import Number, solve_exactly
from epijax.many_actions import solve_many_actions
from epijax.many_continuous import solve_many_continuous
from epijax.one_parameter import Lessons, lessons, solve_one_parameter
from epijax.problem import FiniteProblem, Problem
from epijax.solution import NUMERICAL, Solution, Status, bits, conclude, tolerance_of
from epijax.subjective import Finite, is_one_parameter
from epijax.tables import tabulate
from epijax.two_action import solve_two_action


def solve(problem: Problem | FiniteProblem, tolerance: float | None = None, *, exact: bool = False) -> Solution:
    """All Berk–Nash equilibria and the rationalizable set of one problem, exactly.

    A Bernoulli model of one parameter goes the closed way of theory §3; other boxes of beliefs, for two actions, along
    σ ∈ [0, 1] with projections found by iteration, for more by roots over the faces of Δ(A) and a rationalizable set
    that is found from inside and from outside (`bracket`); tables, and models that are finite, go along the lower
    envelopes of their divergences: two actions by a walk over σ ∈ [0, 1], others by the vertices over Δ(A). Compiled
    once for each kind of problem; works under `jit`, `vmap` and, away from ties, `grad`.

    **Arguments:** `problem`; `tolerance`, the share of the scale within which two payoffs or two divergences tie; by
    default 1e-9 in float64 and 1e-5 in float32, a hundred times that where projections are found by iteration; `exact`,
    to decide a `FiniteProblem` in rational arithmetic on the host: its floats are taken for the numbers that they are,
    a tie is a tie, and no answer is `BOUNDARY`. The margin stays that of the ordinary solver, NaN where the tables are
    too large for it.

    **Returns:** the `Solution`, its `status` telling how far to trust it.

    Raises `ValueError` for more than six actions with beliefs in a box of several parameters; for tables of other than
    two actions that are too large to solve without `exact`, and with it for anything but tables known on the host;
    `TypeError` for anything that is no problem.
    """
    if not isinstance(problem, Problem | FiniteProblem):
        raise TypeError(f"solve takes a Problem or a FiniteProblem; got {type(problem).__name__}")
    return decide_exactly(problem, tolerance=tolerance) if exact else _solve(problem, tolerance)


@eqx.filter_jit
def _solve(problem: Problem | FiniteProblem, tolerance: float | None) -> Solution:
    if isinstance(problem, Problem) and not isinstance(problem.model, Finite):
        if is_one_parameter(problem.model):
            return solve_one_parameter(problem, _tolerance(tolerance, problem.model.lower))
        boxed = solve_continuous if problem.num_actions == 2 else solve_many_continuous
        return boxed(problem, _tolerance(tolerance, problem.model.lower, NUMERICAL))
    tables = tabulate(problem) if isinstance(problem, Problem) else problem
    valid = problem.is_valid()
    path = solve_two_action if tables.num_actions == 2 else solve_many_actions
    return path(tables, _tolerance(tolerance, tables.utility), valid)


@eqx.filter_jit
def lessons_of(problem: Problem | FiniteProblem) -> Lessons | None:
    """What decides the sets and the phase of a problem with a closed form for two actions; `None` of all others."""
    if not isinstance(problem, Problem) or isinstance(problem.model, Finite) or problem.num_actions != 2:
        return None
    return lessons(problem, tolerance_of(problem.model.lower.dtype)) if is_one_parameter(problem.model) else None


def _rational(problem: Problem | FiniteProblem) -> FiniteProblem:
    """The problem, if its tables are known numbers that can be taken for rational ones."""
    if isinstance(problem, Problem):
        finite = isinstance(problem.model, Finite)
        reason = "a Problem's divergences are logarithms, not rational" if finite else "a box of beliefs is no table"
        tabulated = "the rounded tables" if finite else "a grid over the box"
        raise ValueError(
            f"exact=True takes a FiniteProblem: {reason}. Leave exact out, or pass tabulate(problem) to have "
            f"{tabulated} decided exactly"
        )
    if not is_concrete(problem.utility, problem.divergence):
        raise ValueError(
            "exact=True works on the host and cannot be traced: call solve outside jit, vmap and grad, one problem at "
            "a time, or leave exact out"
        )
    return problem


def decide_exactly(
    problem: Problem | FiniteProblem,
    numbers: tuple[Sequence[Sequence[Number]], Sequence[Sequence[Number]]] | None = None,
    tolerance: float | None = None,
) -> Solution:
    """`solve(problem, exact=True)`; with `numbers`, of these tables as fractions, which the problem's floats stand for.

    Raises `ValueError` as `solve` does.
    """
    tables = _rational(problem)
    try:
        with jax.ensure_compile_time_eval():  # the tables are known, though a trace may be going on around
            measured = _solve(tables, tolerance)
    except ValueError:  # too large for the ordinary solver
        measured = None
    if measured is not None and int(measured.status) == Status.INVALID:
        return measured
    given = numbers or (np.asarray(tables.utility).tolist(), np.asarray(tables.divergence).tolist())
    answer = solve_exactly(*given)
    dtype = tables.utility.dtype
    rows = max(len(answer.mixed), 1 if measured is None else measured.mixed.shape[0])
    mixed = np.full((rows, tables.num_actions), np.nan, dtype)
    mixed[: len(answer.mixed)] = np.array(answer.mixed, float).reshape(-1, tables.num_actions)
    return conclude(
        rationalizable=bits(list(answer.rationalizable)),
        pure=bits(list(answer.pure)),
        strict=bits(list(answer.strict)),
        mixed=jnp.asarray(mixed),
        num_mixed=jnp.int32(len(answer.mixed)),
        margin=jnp.asarray(np.nan, dtype) if measured is None else measured.margin,
        status=jnp.uint32(Status.REFUTED if answer.refuted else Status.SOLVED),
    )


def _tolerance(tolerance: float | None, values: Float[Array, "..."], times: float = 1.0) -> float:
    return times * tolerance_of(values.dtype) if tolerance is None else tolerance
