"""The exact path for tables with two actions: two lower envelopes over σ ∈ [0, 1] (theory §2).

With s the share of action 1, every parameter is a line K(s, θ) = (1−s)K(0, θ) + s·K(1, θ). Parameters that make action
1 a best response form one lower envelope, those that make action 0 one form another, and their difference

    f(s) = min_{θ favours 1} K(s, θ) − min_{θ favours 0} K(s, θ)

answers everything: where f ≥ 0 some best-fitting belief justifies action 0, where f ≤ 0 one justifies action 1, and
where f = 0 a belief between them makes the agent indifferent.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from epijax.problem import FiniteProblem
from epijax.solution import Solution, bits, conclude, verdict


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
    finite = jnp.isfinite(tables.divergence)
    level = jnp.where(finite, tables.divergence, 0)
    divergence = jnp.where(finite, level / _positive(-_least(-level.ravel())), jnp.inf)
    gain = (tables.utility[1] - tables.utility[0]) / _positive(-_least(-jnp.abs(tables.utility).ravel()))
    favours = gain >= -tolerance, gain <= tolerance  # action 1, action 0

    survives = finite[0] & finite[1]  # the parameters that full-support play does not refute
    start = jnp.where(survives, divergence[0], 0)
    end = jnp.where(survives, divergence[1], 0)
    walks = [_vertices(start, end, survives & side) for side in favours]
    share = jnp.sort(jnp.concatenate(walks))
    fits = jnp.where(survives, (1 - share[:, None]) * start + share[:, None] * end, jnp.inf)
    best = [_least(jnp.where(side, fits, jnp.inf)) for side in favours]
    gap = _difference(best[0], best[1])
    ends = [_difference(*(_least(jnp.where(side, divergence[x], jnp.inf)) for side in favours)) for x in (0, 1)]
    limits = gap[0], gap[-1]  # towards the ends, where refuted parameters drop out: themselves not attained
    width = share[1:] - share[:-1]
    middles = jnp.where(width > 0, (gap[1:] + gap[:-1]) / 2, jnp.nan)
    attained = jnp.concatenate([jnp.stack(ends), jnp.where((share > 0) & (share < 1), gap, jnp.nan), middles])
    mixed, num_mixed = _indifferent(share, gap, tolerance, tables.utility.shape[1])
    uninformative = [jnp.all(row == row[0]) for row in divergence]
    margin = jnp.minimum(
        _fit_slack(share, gap, ends, uninformative, tolerance), _payoff_slack(gain, divergence, fits, tolerance)
    )
    return conclude(
        rationalizable=bits(
            [
                jnp.any(attained >= -tolerance) | (jnp.maximum(*limits) > tolerance),
                jnp.any(attained <= tolerance) | (jnp.minimum(*limits) < -tolerance),
            ]
        ),
        pure=bits([ends[0] >= -tolerance, ends[1] <= tolerance]),
        strict=bits([ends[0] > tolerance, ends[1] < -tolerance]),
        mixed=mixed,
        num_mixed=num_mixed,
        margin=margin,
        status=verdict(margin, tolerance, ~jnp.any(survives), tables.is_valid() & valid),
    )


def _vertices(start: Float[Array, "K"], end: Float[Array, "K"], lines: Bool[Array, "K"]) -> Float[Array, "K+1"]:
    """The shares s at which the lower envelope of some lines turns, 0 and 1 among them; padded with 1.

    Walks from s = 0 along the lowest line to the first crossing with a flatter one, then along that one.
    """
    slope = end - start

    def lowest(height, among):
        """Of the lines among these that are lowest, the one that falls fastest."""
        low = among & (height == jnp.min(jnp.where(among, height, jnp.inf)))
        return jnp.argmin(jnp.where(low, slope, jnp.inf))

    def turn(state, _):
        share, current = state
        fall = slope[current] - slope
        flatter = lines & (fall > 0)
        crossing = jnp.where(flatter, (start - start[current]) / jnp.where(flatter, fall, 1), jnp.inf)
        nearest = jnp.clip(_least(crossing), share, 1)
        current = jnp.where(nearest < 1, lowest(crossing, flatter), current)
        return (nearest, current), nearest

    first = lowest(start, lines)
    zero = jnp.zeros((), start.dtype)
    _, turns = jax.lax.scan(turn, (zero, first), length=start.shape[0] - 1)
    return jnp.concatenate([zero[None], turns, jnp.ones(1, start.dtype)])


def _indifferent(
    share: Float[Array, "V"], gap: Float[Array, "V"], tolerance: float, rows: int
) -> tuple[Float[Array, "E 2"], Int[Array, ""]]:
    """The zeros of f inside (0, 1), and the ends of its stretches of zeros, as strategies; and how many there are.

    Shares within `tolerance` of one another are one.
    """
    gap = _level(gap)
    sign = jnp.where(jnp.abs(gap) <= tolerance, 0, jnp.sign(gap))
    width = share[1:] - share[:-1]
    crosses = (sign[1:] * sign[:-1] < 0) & (width > 0)
    rise = jnp.where(crosses, gap[1:] - gap[:-1], 1)
    zeros = jnp.where(crosses, share[:-1] - width * gap[:-1] / rise, jnp.inf)
    inside = (share > tolerance) & (share < 1 - tolerance)
    before, after = jnp.roll(sign, 1), jnp.roll(sign, -1)
    touches = jnp.where((sign == 0) & inside & ((before != 0) | (after != 0)), share, jnp.inf)
    found = jnp.sort(jnp.concatenate([zeros, touches]))
    new = jnp.isfinite(found) & (jnp.diff(found, prepend=-1.0) > tolerance)
    found = jnp.sort(jnp.where(new, found, jnp.inf))[:rows]
    found = jnp.where(jnp.isfinite(found), found, jnp.nan)
    return jnp.stack([1 - found, found], axis=-1), jnp.sum(new).astype(jnp.int32)


def _fit_slack(
    share: Float[Array, "V"],
    gap: Float[Array, "V"],
    ends: list,
    uninformative: list,
    tolerance: float,
) -> Float[Array, ""]:
    """The least |f| at an end, at a peak or trough of f, or along a stretch that ties.

    A zero that f crosses on its way moves with the tables but does not vanish; a peak that just reaches zero does, and
    where f is zero to within a tie along a stretch, the equilibrium could be anywhere on it.
    """
    slack = jnp.array(jnp.inf, gap.dtype)
    for x, edge in ((0, 0), (1, -1)):
        at_end = jnp.minimum(jnp.abs(ends[x]), jnp.abs(gap[edge]))
        slack = jnp.minimum(slack, jnp.where(uninformative[x], jnp.inf, at_end))
    level = _level(gap)
    turns = (level[1:-1] - level[:-2]) * (level[2:] - level[1:-1]) <= 0
    inside = (share[1:-1] > 0) & (share[1:-1] < 1)
    slack = jnp.minimum(slack, _least(jnp.where(turns & inside, jnp.abs(gap[1:-1]), jnp.inf)))
    highest = jnp.maximum(jnp.abs(gap[1:]), jnp.abs(gap[:-1]))
    ties_along = (share[1:] - share[:-1] > tolerance) & (highest <= tolerance) & ~(uninformative[0] & uninformative[1])
    return jnp.minimum(slack, _least(jnp.where(ties_along, highest, jnp.inf)))


def _payoff_slack(
    gain: Float[Array, "K"], divergence: Float[Array, "2 K"], fits: Float[Array, "V K"], tolerance: float
) -> Float[Array, ""]:
    """The least, over σ, of how clearly some best fit justifies action 1, and some action 0, or none does.

    What fits best changes at the vertices; between them it is fewer parameters, which can be less clear.
    """
    everywhere = jnp.concatenate([divergence, fits, (fits[1:] + fits[:-1]) / 2])
    fitting = everywhere <= jnp.min(everywhere, axis=1, keepdims=True) + tolerance
    leads = [-_least(jnp.where(fitting, -gain, jnp.inf)), _least(jnp.where(fitting, gain, jnp.inf))]
    return _least(jnp.minimum(*map(jnp.abs, leads)))


def _level(gap: Float[Array, "V"]) -> Float[Array, "V"]:
    """f, or 0 throughout where one side has no parameter that fits at all: it is infinite there and never turns."""
    return jnp.where(jnp.isfinite(gap), gap, 0)


def _difference(a: Float[Array, "..."], b: Float[Array, "..."]) -> Float[Array, "..."]:
    """a − b, with ∞ − ∞ = 0 for the σ that refute every parameter."""
    return jnp.where(jnp.isinf(a) & jnp.isinf(b), 0, a - jnp.where(jnp.isinf(a), 0, b))


def _least(values: Float[Array, "... N"]) -> Float[Array, "..."]:
    """The minimum over the last axis, whose derivative is that of the entry it is.

    That of `jnp.min` asks which entries equal it, and a compiler that rounds the two differently finds none.
    """
    return jnp.take_along_axis(values, jnp.argmin(values, axis=-1, keepdims=True), axis=-1)[..., 0]


def _positive(scale: Float[Array, ""]) -> Float[Array, ""]:
    return jnp.where(scale > 0, scale, 1)
