"""The exact path for tables with two actions: the lower envelope over σ ∈ [0, 1] (theory §2).

With s the share of action 1, every parameter is a line K(s, θ) = (1−s)K(0, θ) + s·K(1, θ), and what fits best is on the
lower envelope of all. The lead of the parameters that make action 0 a best response over those that do so for action 1,

    f(s) = min_{θ favours 1} K(s, θ) − min_{θ favours 0} K(s, θ)

answers everything: where f ≥ 0 some best-fitting belief justifies action 0, where f ≤ 0 one justifies action 1, and
where f = 0, at a vertex of the envelope, a belief between them makes the agent indifferent.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from epijax.cells import apart, cells_last, every_one, in_pieces, least, most, positive
from epijax.problem import FiniteProblem
from epijax.solution import Solution, bits, conclude, verdict

_NUMBERS_AT_ONCE = 1 << 13  # parameters times cells, so that the tables of these cells stay in the cache


class Tables(NamedTuple):
    """Scaled, the parameters first and the cells last."""

    gain: Float[Array, "K *cells"]  # of action 1 over action 0
    divergence: tuple[Float[Array, "K *cells"], Float[Array, "K *cells"]]
    favours: tuple[Bool[Array, "K *cells"], Bool[Array, "K *cells"]]  # action 1, action 0


class Lines(NamedTuple):
    """K(s, θ) = start + slope·s of the parameters that full-support play does not refute."""

    start: Float[Array, "K *cells"]  # +∞ where refuted
    slope: Float[Array, "K *cells"]  # scaled as they are, between −1 and 1, and more where refuted
    sides: tuple[Float[Array, "K *cells"], Float[Array, "K *cells"]]  # the starts of those that favour action 1, 0


class Walk(NamedTuple):
    """Where a walk along the lower envelope from s = 0 to 1 has come to, and what it has seen on its way."""

    share: Float[Array, "*cells"]
    height: Float[Array, "*cells"]  # of the envelope here
    slope: Float[Array, "*cells"]  # of the envelope from here on
    gap: Float[Array, "*cells"]  # f here
    before: Float[Array, "*cells"]  # f halfway here
    highest: Float[Array, "*cells"]  # of f where it is attained
    lowest: Float[Array, "*cells"]
    slack: Float[Array, "*cells"]
    mixed: Float[Array, "E *cells"]  # shares of action 1 in mixed equilibria
    num_mixed: Int[Array, "*cells"]
    last: Float[Array, "*cells"]  # the last of these shares; listed when the next step begins
    unlisted: Bool[Array, "*cells"]


def solve_two_action(tables: FiniteProblem, tolerance: float, valid: Bool[ArrayLike, ""] = True) -> Solution:
    """Pure, strict and mixed Berk–Nash equilibria and the rationalizable set of two actions and any K parameters.

    f changes sign at vertices of the envelope alone, so its values there and halfway between decide: action 0 is a
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
    once = _as_it_is if differentiable else apart  # a branch would stand in the way of derivatives
    tables, lines = once(partial(_scaled, tolerance), utility, divergence)
    ends = [
        _difference(*(least(jnp.where(side, row, jnp.inf)) for side in tables.favours)) for row in tables.divergence
    ]
    uninformative = [every_one(row == row[0]) for row in tables.divergence]
    outset = once(partial(_outset, tolerance), tables, lines, ends)

    def turn(walk: Walk) -> Walk:
        return _turn(once, tables, lines, walk, tolerance, uninformative[0] & uninformative[1])

    if differentiable:
        walk, _ = jax.lax.scan(lambda walk, _: (turn(walk), None), outset, length=num)
    else:

        def goes_on(state: tuple[Int[Array, ""], Walk]) -> Bool[Array, ""]:
            return (state[0] < num) & jnp.any(state[1].share < 1)

        _, walk = jax.lax.while_loop(goes_on, lambda state: (state[0] + 1, turn(state[1])), (jnp.int32(0), outset))
    # towards the ends, where refuted parameters drop out, f has limits that it does not attain
    limits = outset.gap, walk.gap
    slacks = [_payoff_slack(tables.gain, row, least(row) + tolerance) for row in tables.divergence]
    slacks += [jnp.where(uninformative[x], jnp.inf, _lower(jnp.abs(ends[x]), jnp.abs(limits[x]))) for x in (0, 1)]
    slacks += [jnp.where(walk.share < 1, 0, jnp.inf)]  # not a line is passed twice, unless rounding loses one
    return (
        bits(
            [
                (walk.highest >= -tolerance) | (_higher(*limits) > tolerance),
                (walk.lowest <= tolerance) | (_lower(*limits) < -tolerance),
            ]
        ),
        bits([ends[0] >= -tolerance, ends[1] <= tolerance]),
        bits([ends[0] > tolerance, ends[1] < -tolerance]),
        _listed(walk),
        walk.num_mixed,
        reduce(_lower, slacks, walk.slack),
        every_one(jnp.isinf(lines.start)),
        priced,
    )


def _scaled(
    tolerance: float, utility: Float[Array, "2 K *cells"], divergence: Float[Array, "2 K *cells"]
) -> tuple[Tables, Lines]:
    finite = jnp.isfinite(divergence)
    level = jnp.where(finite, divergence, 0)
    gain = (utility[1] - utility[0]) / positive(most(_higher(*jnp.abs(utility))))
    favours = gain >= -tolerance, gain <= tolerance
    survives = finite[0] & finite[1]
    start, end = level / positive(most(_higher(*level)))
    lines = Lines(
        start=jnp.where(survives, start, jnp.inf),
        slope=jnp.where(survives, end - start, 2),
        sides=(
            jnp.where(survives & favours[0], start, jnp.inf),
            jnp.where(survives & favours[1], start, jnp.inf),
        ),
    )
    rows = jnp.where(finite[0], start, jnp.inf), jnp.where(finite[1], end, jnp.inf)
    return Tables(gain=gain, divergence=rows, favours=favours), lines


def _outset(tolerance: float, tables: Tables, lines: Lines, ends: list[Float[Array, "*cells"]]) -> Walk:
    zero = jnp.zeros_like(ends[0])
    ((gap, height),) = _both_sides(lines, zero)
    return Walk(
        share=zero,
        height=height,
        slope=_flattest(lines, zero, height),
        gap=gap,
        before=gap,
        highest=_higher(*ends),
        lowest=_lower(*ends),
        slack=_payoff_slack(tables.gain, lines.start, height + tolerance),
        mixed=jnp.full(lines.start.shape, jnp.nan, zero.dtype),
        num_mixed=jnp.zeros(zero.shape, jnp.int32),
        last=zero - 1,
        unlisted=jnp.zeros(zero.shape, bool),
    )


def _turn(
    once: Callable, tables: Tables, lines: Lines, walk: Walk, tolerance: float, teaches_nothing: Bool[Array, "*cells"]
) -> Walk:
    """On to the next vertex of the envelope; `once` computes what has several uses."""
    middle, share = once(_next, lines, walk.share, walk.height, walk.slope)
    (along, bottom), (gap, height) = once(_both_sides, lines, middle, share)
    *slacks, slope = once(partial(_what_fits, tolerance), tables.gain, lines, (middle, bottom), (share, height))

    # A zero that f crosses on its way moves with the tables but does not vanish; a peak that just reaches zero does,
    # and where f is zero to within a tie along a stretch, the equilibrium could be anywhere on it.
    before, here, between, there = (_level(g) for g in (walk.before, walk.gap, along, gap))
    moves = share > walk.share
    tie = max(tolerance, 4 * _rounding(gap.dtype))
    inside, midway, further = (moves & (s > tie) & (s < 1 - tie) for s in (walk.share, middle, share))
    steepest = reduce(_higher, [jnp.abs(f) for f in (walk.gap, along, gap)])
    slacks += [
        jnp.where(inside & ((here - before) * (between - here) <= 0), jnp.abs(walk.gap), jnp.inf),
        jnp.where(midway & ~teaches_nothing & ((between - here) * (there - between) <= 0), jnp.abs(along), jnp.inf),
        jnp.where(midway & ~teaches_nothing & (share - walk.share > tie) & (steepest <= tie), steepest, jnp.inf),
    ]
    zeros = [jnp.abs(level) <= tie for level in (before, here, between)]
    new = inside & zeros[1] & ~(zeros[0] & zeros[2]) & (walk.share - walk.last > tie)
    seen = [(midway, along), (further, gap)]
    return Walk(
        share=share,
        height=height,
        slope=jnp.where(moves, slope, walk.slope),
        gap=gap,
        before=jnp.where(moves, along, walk.before),
        highest=reduce(_higher, [jnp.where(is_, f, -jnp.inf) for is_, f in seen], walk.highest),
        lowest=reduce(_lower, [jnp.where(is_, f, jnp.inf) for is_, f in seen], walk.lowest),
        slack=reduce(_lower, [jnp.where(moves, slack, jnp.inf) for slack in slacks], walk.slack),
        mixed=_listed(walk),
        num_mixed=walk.num_mixed + new.astype(jnp.int32),
        last=jnp.where(new, walk.share, walk.last),
        unlisted=new,
    )


def _next(
    lines: Lines, share: Float[Array, "*cells"], height: Float[Array, "*cells"], slope: Float[Array, "*cells"]
) -> tuple[Float[Array, "*cells"], Float[Array, "*cells"]]:
    """Where the first flatter line crosses the one that is lowest from here on, and the middle of the way there."""
    fall = slope - lines.slope
    above = jnp.where(fall > 0, lines.start + share * lines.slope - height, 0)
    step = least(jnp.where(fall > 0, above / jnp.where(fall > 0, fall, 1), jnp.inf))
    to = jnp.clip(share + step, share, 1)
    return (share + to) / 2, to


def _both_sides(
    lines: Lines, *shares: Float[Array, "*cells"]
) -> list[tuple[Float[Array, "*cells"], Float[Array, "*cells"]]]:
    """For each share f where both actions are played, and the height of the envelope."""
    sides = [[least(start + share * lines.slope) for start in lines.sides] for share in shares]
    return [(_difference(*both), _lower(*both)) for both in sides]


def _what_fits(
    tolerance: float, gain: Float[Array, "K *cells"], lines: Lines, *at: tuple[Float[Array, "*cells"], ...]
) -> tuple[Float[Array, "*cells"], ...]:
    """The payoff slack of what fits at each share and height of the envelope, and its slope from the last one on."""
    fits = [(lines.start + share * lines.slope, height) for share, height in at]
    return *(_payoff_slack(gain, values, height + tolerance) for values, height in fits), _flattest(lines, *at[-1])


def _flattest(lines: Lines, share: Float[Array, "*cells"], height: Float[Array, "*cells"]) -> Float[Array, "*cells"]:
    """The slope of the line that is lowest from here on."""
    lowest = lines.start + share * lines.slope <= height + _rounding(height.dtype)
    return least(jnp.where(lowest, lines.slope, jnp.inf))


def _rounding(dtype) -> float:
    """How far the scaled heights of two lines can be apart where they cross, by rounding alone."""
    return 16 * float(jnp.finfo(dtype).eps)


def _payoff_slack(
    gain: Float[Array, "K *cells"], fits: Float[Array, "K *cells"], most_of_fit: Float[Array, "*cells"]
) -> Float[Array, "*cells"]:
    """How clearly some parameter that fits so well justifies action 1, and some action 0, or none does."""
    fitting = fits <= most_of_fit
    leads = most(jnp.where(fitting, gain, -jnp.inf)), least(jnp.where(fitting, gain, jnp.inf))
    return _lower(*map(jnp.abs, leads))


def _listed(walk: Walk) -> Float[Array, "E *cells"]:
    """The shares of mixed equilibria, with the last one where it is not listed yet."""
    rows = jnp.arange(len(walk.mixed)).reshape(-1, *(1,) * walk.share.ndim)
    return jnp.where((rows == walk.num_mixed - 1) & walk.unlisted, walk.last, walk.mixed)


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


def _as_it_is(function: Callable, *arguments: Any) -> Any:
    return function(*arguments)
