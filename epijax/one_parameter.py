"""The exact path for one-parameter families with affine payoffs: closed forms, no grid (theory §3).

Every Θ(σ) is an interval, so beliefs matter only through the intervals that actions teach, and payoffs are lines in θ.
"""

from functools import reduce
from itertools import combinations
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, UInt

from epijax.environment import Environment
from epijax.problem import Problem
from epijax.projection import divergence_slope, fit_interval, refutes
from epijax.rationalizable import eliminate
from epijax.response import PayoffLines
from epijax.solution import Solution, Status, bits, conclude, verdict
from epijax.subjective import AffineBernoulli


def solve_one_parameter(problem: Problem, tolerance: float) -> Solution:
    """Pure, strict and mixed Berk–Nash equilibria and the rationalizable set of a one-parameter problem.

    With Θ(δ_x) the interval that x teaches and I(A) the hull of these over A: x is a pure equilibrium iff it is on the
    upper envelope of payoffs somewhere on Θ(δ_x), strict iff it alone is everywhere on it, and Γ(A) is what is on the
    envelope somewhere on I(A). A mixed equilibrium of x and x′ sits at their crossing θ̂ if that lies between what the
    two teach, with σ_x K′(x, θ̂) + σ_x′ K′(x′, θ̂) = 0.

    **Arguments:** `problem`, its model an `AffineBernoulli`; `tolerance`, as a share of the payoff scale max|π|.

    **Returns:** the `Solution`, with one row of `mixed` for each pair of actions.

    Source: theory §3; [EP16], [EP25].
    """
    if problem.num_actions > 2:
        return _solve_many(problem, tolerance)
    model = problem.model
    assert isinstance(model, AffineBernoulli)
    crossing = jnp.clip(PayoffLines(*_parts(problem)).crossing(0, 1), model.lower[0], model.upper[0])
    return learned(lessons(problem, tolerance), _mixture(problem, 0, 1, crossing))


class Lessons(NamedTuple):
    """What the two actions of a problem teach: all that sets, phase and margin follow from.

    - `only[x][y]`: whether y alone is a best response, and that to all of Θ(δ_x). Where neither is, both are to some.
    - `margin`, and whether it is `clear` of a tie.
    - `refusal`: the status where there is no answer, else 0.
    """

    only: tuple[tuple[Bool[Array, ""], Bool[Array, ""]], tuple[Bool[Array, ""], Bool[Array, ""]]]
    margin: Float[Array, ""]
    clear: Bool[Array, ""]
    refusal: UInt[Array, ""]


def lessons(problem: Problem, tolerance: float) -> Lessons:
    """What the actions teach, of two; the arguments are those of `solve_one_parameter`."""
    environment, model = _parts(problem)
    lines = PayoffLines(environment, model)
    *valid, rest_valid = problem.valid_parts()
    only, slacks, refusals = [], [], [verdict(valid=rest_valid)]
    for x, (lower, upper, information) in enumerate(_intervals(problem)):
        ends = [lines.advantage(0, 1, end) for end in (lower, upper)]
        least, most = _lesser(*ends), _greater(*ends)  # by how much action 0 leads on Θ(δ_x)
        only.append((least > tolerance, most < -tolerance))
        slacks.append(_firmness(model, lines, information) * _lesser(jnp.abs(least), jnp.abs(most)))
        refusals.append(verdict(refuted=refutes(environment, model, x), valid=valid[x]))
    margin = _lesser(*slacks)
    return Lessons((only[0], only[1]), margin, margin > tolerance, reduce(jnp.maximum, refusals))


def sets_taught(first: Any, second: Any) -> tuple[Any, Any, Any]:
    """The rationalizable set, the pure equilibria, and whether there is a mixed one, from the actions that are a best
    response somewhere on Θ(δ_0) and on Θ(δ_1): sets as bits, of plain numbers as of arrays."""
    return first | second, (first & 1) | (second & 2), first & second == 0  # one round of elimination is enough


def learned(told: Lessons, mixture: Float[Array, "A"]) -> Solution:
    """The solution that follows from what two actions teach, and from their one mixture that may be an equilibrium."""
    rationalizable, pure, exists = sets_taught(*(bits([~other, ~one]) for one, other in told.only))
    return conclude(
        rationalizable=rationalizable,
        pure=pure,
        strict=bits([told.only[x][x] for x in (0, 1)]),
        mixed=jnp.where(exists, mixture, jnp.nan)[None],
        num_mixed=jnp.where(exists, 1, 0),
        margin=told.margin,
        status=jnp.maximum(told.refusal, jnp.where(told.clear, jnp.uint32(Status.SOLVED), jnp.uint32(Status.BOUNDARY))),
    )


def _solve_many(problem: Problem, tolerance: float) -> Solution:
    """Of any number of actions, round by round of elimination."""
    actions = range(problem.num_actions)
    environment, model = _parts(problem)
    lines = PayoffLines(environment, model)
    teaches = _intervals(problem)

    # lead[x][y]: how far x leads at best on Θ(δ_y)
    lead = [[lines.best_lead(x, *teaches[y][:2]) for y in actions] for x in actions]
    alone = [lines.worst_lead(x, *teaches[x][:2]) for x in actions]
    firmness = [_firmness(model, lines, teaches[x][2]) for x in actions]
    loosest = reduce(jnp.minimum, [jnp.asarray(f) for f in firmness])
    slacks = [firmness[x] * jnp.minimum(jnp.abs(lead[x][x]), jnp.abs(alone[x])) for x in actions]

    def justified(members: list) -> list[Bool[Array, ""]]:
        reach = [reduce(jnp.maximum, _leads(lines, lead[x], teaches, members, x)) for x in actions]
        slacks.extend(jnp.where(members[x], loosest * jnp.abs(reach[x]), jnp.inf) for x in actions)
        return [ahead >= -tolerance for ahead in reach]

    kept = eliminate(justified, problem.num_actions)[-1]
    rows, exists = [], []
    for x, y in combinations(actions, 2):
        crossing = jnp.clip(lines.crossing(x, y), model.lower[0], model.upper[0])
        on_top = lines.lead(x, crossing, [z for z in actions if z not in (x, y)])
        held = jnp.minimum(_apart(lines, teaches, x, y), on_top)
        slacks.append(loosest * jnp.abs(held))
        exists.append(held > tolerance)
        rows.append(jnp.where(exists[-1], _mixture(problem, x, y, crossing), jnp.nan))

    mixed = jnp.stack(rows)[jnp.argsort(~jnp.stack(exists))]  # those that exist come first
    *valid, rest_valid = problem.valid_parts()
    verdicts = [verdict(slacks[x], tolerance, refutes(environment, model, x), valid[x]) for x in actions]
    verdicts += [verdict(slack, tolerance) for slack in slacks[problem.num_actions :]]
    verdicts += [verdict(valid=rest_valid)]
    return conclude(
        rationalizable=bits(kept),
        pure=bits([lead[x][x] >= -tolerance for x in actions]),
        strict=bits([alone[x] > tolerance for x in actions]),
        mixed=mixed,
        num_mixed=sum((jnp.where(e, 1, 0) for e in exists), start=jnp.int32(0)),
        margin=reduce(_lesser, slacks),
        status=reduce(jnp.maximum, verdicts),
    )


def _lesser(one: Float[Array, ""], other: Float[Array, ""]) -> Float[Array, ""]:
    """The lesser of two numbers; statuses have seen whether one is NaN."""
    return jnp.where(one < other, one, other)


def _greater(one: Float[Array, ""], other: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.where(one > other, one, other)


@eqx.filter_jit
def elimination_rounds(problem: Problem, tolerance: float) -> Bool[Array, "A A"]:
    """The rounds of elimination, `[A, A]`: row k holds Γᵏ(X), the last row the rationalizable set."""
    actions = range(problem.num_actions)
    lines, teaches = PayoffLines(*_parts(problem)), _intervals(problem)
    lead = [[lines.best_lead(x, *teaches[y][:2]) for y in actions] for x in actions]

    def justified(members: list) -> list[Bool[Array, ""]]:
        return [reduce(jnp.maximum, _leads(lines, lead[x], teaches, members, x)) >= -tolerance for x in actions]

    rounds = eliminate(justified, problem.num_actions)
    return jnp.stack([jnp.stack([jnp.asarray(member) for member in members]) for members in rounds])


def _parts(problem: Problem) -> tuple[Environment, AffineBernoulli]:
    environment, model = problem.environment, problem.model
    assert isinstance(environment, Environment) and isinstance(model, AffineBernoulli)
    return environment, model


def _intervals(problem: Problem) -> list[tuple]:
    """For each action x: the ends of Θ(δ_x) under the problem's exploration, and how firmly the data hold it."""
    n = problem.num_actions
    weights = [[1.0 if x == y else 0.0 for y in range(n)] for x in range(n)]
    if problem.explores():
        eps = jnp.asarray(problem.exploration)
        weights = [[(1 - eps) * w + eps / n for w in row] for row in weights]
    return [fit_interval(*_parts(problem), row) for row in weights]


def _firmness(model: AffineBernoulli, lines: PayoffLines, information: Float[Array, ""]) -> Float[Array, ""] | float:
    """The share by which a payoff slack shrinks when it is measured in data: where a small change of outcomes moves the
    fit so far that payoffs change more than fourfold. Actions that report one event never do that."""
    if model.one_event:
        return 1.0
    steepest = reduce(jnp.maximum, [jnp.abs(a - b) for a, b in combinations(lines.rise, 2)])
    ratio = 4 * information / jnp.where(steepest > 0, steepest, 1)
    return jnp.where(steepest > 0, jnp.minimum(ratio, 1), 1)


def _leads(lines: PayoffLines, lead: list, teaches: list, members: list, x: int) -> list[Float[Array, ""]]:
    """The leads of x where they can be largest over I(A), A the members; −∞ for what others teach."""
    leads = [jnp.where(member, lead[y], -jnp.inf) for y, member in enumerate(members)]
    others = [y for y in range(lines.num_actions) if y != x]
    if len(others) < 2:
        return leads
    # where two of the other actions cross between what different members teach
    lower = reduce(jnp.minimum, [jnp.where(m, low, jnp.inf) for m, (low, _, _) in zip(members, teaches, strict=True)])
    upper = reduce(
        jnp.maximum, [jnp.where(m, high, -jnp.inf) for m, (_, high, _) in zip(members, teaches, strict=True)]
    )
    return leads + [lines.lead(x, jnp.clip(lines.crossing(y, z), lower, upper)) for y, z in combinations(others, 2)]


def _apart(lines: PayoffLines, teaches: list, x: int, y: int) -> Float[Array, ""]:
    """How far, at least, what x and y teach lies on different sides of their crossing, as a share of max|π|."""
    ahead_x, ahead_y = ([lines.advantage(x, y, end) for end in teaches[z][:2]] for z in (x, y))
    ways = [[*ahead_x, *(-a for a in ahead_y)], [*(-a for a in ahead_x), *ahead_y]]
    return reduce(jnp.maximum, [reduce(jnp.minimum, way) for way in ways])


def _mixture(problem: Problem, x: int, y: int, crossing: Float[Array, ""]) -> Float[Array, "A"]:
    """The strategy on {x, y} whose KL projection is their crossing."""
    slopes = jnp.stack([divergence_slope(*_parts(problem), z, crossing) for z in range(problem.num_actions)])
    if problem.explores():
        slopes = (1 - problem.exploration) * slopes + problem.exploration * jnp.mean(slopes)
    fall = slopes[y] - slopes[x]
    share = slopes[y] / jnp.where(fall == 0, 1, fall)
    return jnp.zeros(problem.num_actions, share.dtype).at[x].set(share).at[y].set(1 - share)
