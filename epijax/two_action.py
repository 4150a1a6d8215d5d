"""The exact path for tables with two actions: two lower envelopes over σ ∈ [0, 1] (theory §2).

With s the share of action 1, every parameter is a line K(s, θ) = (1−s)K(0, θ) + s·K(1, θ). Parameters that make action
1 a best response form one lower envelope, those that make action 0 one form another, and their difference

    f(s) = min_{θ favours 1} K(s, θ) − min_{θ favours 0} K(s, θ)

answers everything: where f ≥ 0 some best-fitting belief justifies action 0, where f ≤ 0 one justifies action 1, and
where f = 0 a belief between them makes the agent indifferent.
"""

from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from epijax.cells import cells_last, every_one, fold, in_pieces, least, most, positive, some
from epijax.problem import FiniteProblem
from epijax.solution import Solution, bits, conclude, verdict

_NUMBERS_AT_ONCE = 1 << 14  # parameters times cells, so that the tables of these cells stay in the cache


class Tables(NamedTuple):
    """Scaled, the parameters first and the cells last."""

    gain: Float[Array, "K *cells"]  # of action 1 over action 0
    divergence: Float[Array, "2 K *cells"]
    survives: Bool[Array, "K *cells"]  # whether full-support play does not refute it
    favours: tuple[Bool[Array, "K *cells"], Bool[Array, "K *cells"]]  # action 1, action 0


class Line(NamedTuple):
    """The line of a parameter, K(s, θ) = start + slope·s."""

    start: Float[Array, "*cells"]
    slope: Float[Array, "*cells"]


class Walk(NamedTuple):
    """Where a walk along both envelopes from s = 0 to 1 has come to, and what it has seen on its way."""

    share: Float[Array, "*cells"]
    lines: tuple[Line, ...]  # the lowest of those that favour action 1, and of those that favour action 0
    gap: Float[Array, "*cells"]  # f here
    before: Float[Array, "*cells"]  # f at the vertex before
    highest: Float[Array, "*cells"]  # of f where it is attained
    lowest: Float[Array, "*cells"]
    slack: Float[Array, "*cells"]
    mixed: Float[Array, "E *cells"]  # shares of action 1 in mixed equilibria
    num_mixed: Int[Array, "*cells"]


def solve_two_action(tables: FiniteProblem, tolerance: float, valid: Bool[ArrayLike, ""] = True) -> Solution:
    """Pure, strict and mixed Berk–Nash equilibria and the rationalizable set of two actions and any K parameters.

    f is piecewise linear with its kinks at the vertices of the two envelopes, so its values there decide: action 0 is a
    pure equilibrium iff f(0) ≥ 0 and action 1 iff f(1) ≤ 0; 0 (1) is rationalizable iff f ≥ 0 (≤ 0) somewhere; the
    mixed equilibria are f's zeros inside (0, 1), of a stretch of zeros its two ends. Γ needs one round: what survives
    it teaches nothing that was not taught before. Parameters of infinite divergence fit at the ends of [0, 1] only.

    A row of divergences that is constant is uninformative by construction: the tie at its end is no accident, and does
    not count against the margin. Every other tie does.

    **Arguments:** `tables`, with two actions; `tolerance`, as a share of max|U| and of the largest finite K;
    `valid`, whether the problem that the tables come from is one.

    **Returns:** the `Solution`, with K rows of `mixed`.

    Source: theory §2–§3; [EP16], [EP25].
    """
    forms = [partial(_solve, tolerance, differentiable) for differentiable in (False, True)]
    kept, pure, strict, mixed, num_mixed, margin, refuted, priced = cells_last(*forms)(
        tables.utility, tables.divergence
    )
    return conclude(
        rationalizable=kept,
        pure=pure,
        strict=strict,
        mixed=jnp.stack([1 - mixed, mixed], axis=-1),
        num_mixed=num_mixed,
        margin=margin,
        status=verdict(margin, tolerance, refuted, priced & valid),
    )


def _solve(
    tolerance: float,
    differentiable: bool,
    utility: Float[Array, "2 K *#cells"],
    divergence: Float[Array, "2 K *#cells"],
) -> tuple:
    num, *cells = jnp.broadcast_shapes(utility.shape, divergence.shape)[1:]
    tables = (jnp.broadcast_to(t, (2, num, *cells)) for t in (utility, divergence))
    some_cells = partial(_solve_cells, tolerance, differentiable)
    return in_pieces(some_cells, tuple(tables), tuple(cells), max(16, _NUMBERS_AT_ONCE // num))


def _solve_cells(tolerance: float, differentiable: bool, given: tuple[Array, Array]) -> tuple:
    """The sets as bits, the shares of action 1 in mixed equilibria, their number, the margin, whether full support
    refutes all parameters, and whether the tables make a problem."""
    utility, divergence = given
    num = utility.shape[1]
    priced = every_one(jnp.isfinite(utility).reshape(2 * num, *utility.shape[2:]))
    priced &= every_one((divergence >= 0).reshape(2 * num, *utility.shape[2:]))
    tables = _scaled(utility, divergence, tolerance)
    gain, divergence, survives, favours = tables
    ends = [_difference(*(least(jnp.where(side, divergence[x], jnp.inf)) for side in favours)) for x in (0, 1)]
    uninformative = [every_one(row == row[0]) for row in divergence]
    start = jnp.where(survives, divergence[0], 0)
    slope = jnp.where(survives, divergence[1], 0) - start

    def turn(walk: Walk) -> Walk:
        return _turn(tables, Line(start, slope), walk, tolerance, uninformative[0] & uninformative[1])

    zero = jnp.zeros_like(gain[0])
    outset = _gap(tables, zero)
    first = tuple(_lowest(jnp.where(survives & side, start, jnp.inf), start, slope)[1] for side in favours)
    walk = Walk(
        share=zero,
        lines=first,
        gap=outset,
        before=outset,
        highest=_higher(*ends),
        lowest=_lower(*ends),
        slack=_payoff_slack(tables, zero, tolerance),
        mixed=jnp.full((num, *zero.shape), jnp.nan, zero.dtype),
        num_mixed=jnp.zeros(zero.shape, jnp.int32),
    )
    if differentiable:
        walk, _ = jax.lax.scan(lambda walk, _: (turn(walk), None), walk, length=2 * num - 1)
    else:
        walk = jax.lax.while_loop(lambda walk: jnp.any(walk.share < 1), turn, walk)
    # towards the ends, where refuted parameters drop out, f has limits that it does not attain
    limits = outset, walk.gap
    at_ends = [_payoff_slack_of(gain, row, tolerance) for row in divergence]
    at_ends += [jnp.where(uninformative[x], jnp.inf, _lower(jnp.abs(ends[x]), jnp.abs(limits[x]))) for x in (0, 1)]
    return (
        bits(
            [
                (walk.highest >= -tolerance) | (_higher(*limits) > tolerance),
                (walk.lowest <= tolerance) | (_lower(*limits) < -tolerance),
            ]
        ),
        bits([ends[0] >= -tolerance, ends[1] <= tolerance]),
        bits([ends[0] > tolerance, ends[1] < -tolerance]),
        walk.mixed,
        walk.num_mixed,
        reduce(_lower, at_ends, walk.slack),
        ~some(survives),
        priced,
    )


def _scaled(utility: Float[Array, "2 K *#cells"], divergence: Float[Array, "2 K *#cells"], tolerance: float) -> Tables:
    finite = jnp.isfinite(divergence)
    level = jnp.where(finite, divergence, 0)
    largest = most(_higher(level[0], level[1]))
    gain = (utility[1] - utility[0]) / positive(most(_higher(*jnp.abs(utility))))
    return Tables(
        gain=gain,
        divergence=jnp.where(finite, level / positive(largest), jnp.inf),
        survives=finite[0] & finite[1],
        favours=(gain >= -tolerance, gain <= tolerance),
    )


def _turn(
    tables: Tables, all_lines: Line, walk: Walk, tolerance: float, teaches_nothing: Bool[Array, "*cells"]
) -> Walk:
    """On to the next vertex of either envelope: where a flatter line crosses the lowest one."""
    crossings = [
        _next(all_lines, line, tables.survives & side) for line, side in zip(walk.lines, tables.favours, strict=True)
    ]
    share = jnp.clip(_lower(crossings[0][0], crossings[1][0]), walk.share, 1)
    lines = tuple(
        Line(*(jnp.where((at <= share) & (share < 1), new, old) for new, old in zip(to, line, strict=True)))
        for (at, to), line in zip(crossings, walk.lines, strict=True)
    )
    moves = share > walk.share
    width = share - walk.share
    gap = _gap(tables, share)
    middle = (walk.gap + gap) / 2
    inside = (walk.share > 0) & (walk.share < 1)

    levels = [_level(g) for g in (walk.before, walk.gap, gap)]
    signs = [jnp.where(jnp.abs(g) <= tolerance, 0, jnp.sign(g)) for g in levels]
    # A zero that f crosses on its way moves with the tables but does not vanish; a peak that just reaches zero does,
    # and where f is zero to within a tie along a stretch, the equilibrium could be anywhere on it.
    turns = (levels[1] - levels[0]) * (levels[2] - levels[1]) <= 0
    steepest = _higher(jnp.abs(walk.gap), jnp.abs(gap))
    along = (width > tolerance) & (steepest <= tolerance) & ~teaches_nothing
    slacks = [
        jnp.where(turns & inside, jnp.abs(walk.gap), jnp.inf),
        jnp.where(along, steepest, jnp.inf),
        _payoff_slack(tables, share, tolerance),
        _payoff_slack(tables, walk.share + width / 2, tolerance),
    ]
    clear = (walk.share > tolerance) & (walk.share < 1 - tolerance)
    touches = (signs[1] == 0) & clear & ((signs[0] != 0) | (signs[2] != 0))
    crosses = signs[1] * signs[2] < 0
    fall = jnp.where(crosses, levels[1] - levels[2], 1)
    mixed, num_mixed = walk.mixed, walk.num_mixed
    for exists, at in ((touches, walk.share), (crosses, walk.share + width * levels[1] / fall)):
        mixed, num_mixed = _listed(mixed, num_mixed, moves & exists, at, tolerance)
    attained = moves & (share < 1)
    return Walk(
        share=share,
        lines=lines,
        gap=gap,
        before=jnp.where(moves, walk.gap, walk.before),
        highest=reduce(_higher, [jnp.where(attained, gap, -jnp.inf), jnp.where(moves, middle, -jnp.inf)], walk.highest),
        lowest=reduce(_lower, [jnp.where(attained, gap, jnp.inf), jnp.where(moves, middle, jnp.inf)], walk.lowest),
        slack=reduce(_lower, [jnp.where(moves, slack, jnp.inf) for slack in slacks], walk.slack),
        mixed=mixed,
        num_mixed=num_mixed,
    )


def _next(lines: Line, current: Line, among: Bool[Array, "K *cells"]) -> tuple[Float[Array, "*cells"], Line]:
    """Where the first of some flatter lines crosses the current one, and that line."""
    fall = current.slope - lines.slope
    flatter = among & (fall > 0)
    crossing = jnp.where(flatter, (lines.start - current.start) / jnp.where(flatter, fall, 1), jnp.inf)
    return _lowest(crossing, lines.start, lines.slope)


def _lowest(
    height: Float[Array, "K *cells"], start: Float[Array, "K *cells"], slope: Float[Array, "K *cells"]
) -> tuple[Float[Array, "*cells"], Line]:
    """The least height, and of the lines that have it the one that falls fastest."""

    def better(one: tuple, other: tuple) -> Bool[Array, "..."]:
        return (one[0] < other[0]) | ((one[0] == other[0]) & (one[2] < other[2]))

    height, start, slope = fold(better, (height, start, slope))
    return height, Line(start, slope)


def _fits(tables: Tables, share: Float[Array, "*cells"]) -> Float[Array, "K *cells"]:
    """K(s, ·) of the parameters that survive."""
    start, end = (jnp.where(tables.survives, row, 0) for row in tables.divergence)
    return jnp.where(tables.survives, start + share * (end - start), jnp.inf)


def _gap(tables: Tables, share: Float[Array, "*cells"]) -> Float[Array, "*cells"]:
    """f where both actions are played."""
    fits = _fits(tables, share)
    return _difference(*(least(jnp.where(side, fits, jnp.inf)) for side in tables.favours))


def _payoff_slack(tables: Tables, share: Float[Array, "*cells"], tolerance: float) -> Float[Array, "*cells"]:
    return _payoff_slack_of(tables.gain, _fits(tables, share), tolerance)


def _payoff_slack_of(
    gain: Float[Array, "K *cells"], fits: Float[Array, "K *cells"], tolerance: float
) -> Float[Array, "*cells"]:
    """How clearly some best fit justifies action 1, and some action 0, or none does."""
    fitting = fits <= least(fits) + tolerance
    leads = most(jnp.where(fitting, gain, -jnp.inf)), least(jnp.where(fitting, gain, jnp.inf))
    return _lower(*map(jnp.abs, leads))


def _listed(
    mixed: Float[Array, "E *cells"],
    count: Int[Array, "*cells"],
    exists: Bool[Array, "*cells"],
    share: Float[Array, "*cells"],
    tolerance: float,
) -> tuple[Float[Array, "E *cells"], Int[Array, "*cells"]]:
    """The list with one more share, unless it lies within `tolerance` of the last."""
    rows = jnp.arange(len(mixed)).reshape(-1, *(1,) * share.ndim)
    again = some((rows == count - 1) & (share - mixed <= tolerance))
    new = exists & ~again
    return jnp.where((rows == count) & new, share, mixed), count + new.astype(jnp.int32)


def _level(gap: Float[Array, "*cells"]) -> Float[Array, "*cells"]:
    """f, or 0 throughout where one side has no parameter that fits at all: it is infinite there and never turns."""
    return jnp.where(jnp.isfinite(gap), gap, 0)


def _difference(a: Float[Array, "*cells"], b: Float[Array, "*cells"]) -> Float[Array, "*cells"]:
    """a − b, with ∞ − ∞ = 0 for the σ that refute every parameter."""
    return jnp.where(jnp.isinf(a) & jnp.isinf(b), 0, a - jnp.where(jnp.isinf(a), 0, b))


def _lower(a: Float[Array, "*any"], b: Float[Array, "*any"]) -> Float[Array, "*any"]:
    """The lesser, whose derivative is that of one of the two."""
    return jnp.where(a < b, a, b)


def _higher(a: Float[Array, "*any"], b: Float[Array, "*any"]) -> Float[Array, "*any"]:
    return jnp.where(a > b, a, b)
