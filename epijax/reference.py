"""The independent judge: Berk–Nash equilibria and rationalizability, computed the slow and literal way.

Everything follows the definitions (theory §2–5, §9) with NumPy and SciPy alone. This file and `reference_tables` import
neither JAX nor any other sibling and share no formula with the fast solvers, so that an error must be made twice to go
unnoticed: projections are numerical minimisers, mixed equilibria numerical roots, Γ is iterated on sets of actions,
two-action tables are enumerated by brute force, and larger ones taken apart by linear programs.

    affine_bernoulli             one-parameter families P(y=1|x) = intercept_x + slope_x·θ, any number of actions (§3)
    finite                       two tables (U, K) over finitely many parameters, any number of actions (§2)
    finite_model                 the same, from the outcome probabilities of each parameter
    divergence, project, phase   the steps on their own

Payoffs are compared relative to the largest one in absolute value, divergences relative to the largest finite one. A
difference of at most `tolerance` is a tie, and in a tie the weak inequalities of theory §2 hold: the action is a best
response, the parameter fits best.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from epijax import reference_tables

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Interval = tuple[float, float]

_FINEST = np.float64(4 * np.finfo(np.float64).eps)  # the finest relative tolerance brentq takes
_POLE = 1e300  # stands for an infinite derivative at an end of the parameter interval
_ROUNDING = 1e-13  # scaled divergences this close are equal but for rounding
_SAME_STRATEGY = 1e-9  # strategies this close are one and the same


@dataclass(frozen=True)
class Answer:
    """The solution of one problem, for comparison with the fast solvers.

    - `rationalizable`: bool `[A]`, the largest set of actions B with B ⊆ Γ(B).
    - `pure`: bool `[A]`, pure Berk–Nash equilibria; `strict`: bool `[A]`, those uniquely optimal at every best fit.
    - `mixed`: float `[m, A]`, the extreme equilibria that are not pure, no repeats.
    - `margin`: smallest scaled slack of a comparison that could change the above; 0 at a tie, nan if refuted.
    - `status`: `"solved"`, `"boundary"` (margin <= tolerance) or `"refuted"` (full support refutes every parameter).
    - `phase`: the phase of theory §5 if solved, else the status.
    """

    rationalizable: np.ndarray
    pure: np.ndarray
    strict: np.ndarray
    mixed: np.ndarray
    margin: float
    status: str
    phase: str


def affine_bernoulli(
    outcome_probs: npt.ArrayLike,
    payoffs: npt.ArrayLike,
    intercept: npt.ArrayLike,
    slope: npt.ArrayLike,
    lower: float,
    upper: float,
    *,
    exploration: float = 0.0,
    unsafe: npt.ArrayLike,
    tolerance: float = 1e-9,
) -> Answer:
    """Solve a one-parameter Bernoulli family P(y=1|x) = intercept_x + slope_x·θ, θ ∈ [lower, upper] (theory §3).

    **Arguments:** `outcome_probs` `[A, 2]` the true law Q(y|x); `payoffs` `[A, 2]` in payoff units; `intercept`,
    `slope` `[A]`; `lower <= upper`; `exploration` in [0, 1], the share of uniform play that the projection sees (§4);
    `unsafe` bool `[A]`; `tolerance` in [0, 1], relative to the largest |payoff|.

    **Returns:** an `Answer`. An action of slope 0 teaches nothing and leaves the whole interval: that is no tie. Mixed
    equilibria that exist only by a tie (equal payoffs everywhere, or at a projection) are not listed.

    **Raises:** `ValueError` for wrong shapes, rows that are no probabilities, predictions outside [0, 1], or unordered
    bounds.
    """
    table, reward = _probabilities("outcome_probs", outcome_probs, 2), _finite_array("payoffs", payoffs, 2)
    if reward.shape != table.shape:
        raise ValueError(f"payoffs must have the shape of outcome_probs, {table.shape}; got {reward.shape}")
    family = _family(table, intercept, slope, lower, upper, exploration)
    danger, share, scale = _unsafe(unsafe, len(table)), _between("tolerance", tolerance, 1.0), _scale(reward)
    return _OneParameter(family, reward.tolist(), share * scale).answer(danger, scale, share)


def finite(
    utility: npt.ArrayLike, divergence: npt.ArrayLike, *, unsafe: npt.ArrayLike, tolerance: float = 1e-9
) -> Answer:
    """Solve a problem given as two tables over finitely many parameters, by brute force (theory §2).

    With two actions a strategy is a number s ∈ [0, 1], the weight on action 1, and weighted divergences are lines in s.
    Which of them is lowest changes only where two cross, so the ends, the crossings and a point between neighbours are
    all there is. With one action or more than two, `reference_tables` visits every set of actions.

    **Arguments:** `utility` `[A, K]` in payoff units; `divergence` `[A, K]` in nats, >= 0, `inf` allowed; `unsafe` bool
    `[A]`; `tolerance` in [0, 1], relative to the largest |utility| and the largest finite divergence.

    **Returns:** an `Answer`. Its margin weighs payoff differences at parameters that fit best for some σ, and the
    divergence gaps between parameters that favour different actions. A constant row of `divergence` is an uninformative
    action: that is no tie.

    **Raises:** `ValueError` for wrong shapes, negative or undefined entries.
    """
    payoff, nats = _finite_array("utility", utility, 2), np.asarray(divergence, dtype=np.float64)
    if nats.shape != payoff.shape or payoff.size == 0:
        raise ValueError(f"utility and divergence must be two [A, K] tables; got {payoff.shape} and {nats.shape}")
    if not (nats >= 0).all():
        raise ValueError("divergence must be >= 0 everywhere (inf is allowed, nan is not)")
    danger, share = _unsafe(unsafe, len(payoff)), _between("tolerance", tolerance, 1.0)
    if len(payoff) == 2:
        return _TwoActionTables(payoff, nats, share).answer(danger)
    scaled = payoff / _scale(payoff), nats / _scale(nats[np.isfinite(nats)])
    return _answer(*reference_tables.Tables(*scaled, share).answer(), danger, share)


def finite_model(
    outcome_probs: npt.ArrayLike,
    payoffs: npt.ArrayLike,
    subjective_probs: npt.ArrayLike,
    *,
    exploration: float = 0.0,
    unsafe: npt.ArrayLike,
    tolerance: float = 1e-9,
) -> Answer:
    """Solve a problem given the outcome probabilities under each parameter: build (U, K), then `finite`.

    **Arguments:** `outcome_probs` and `payoffs` `[A, Y]`; `subjective_probs` `[K, A, Y]`; `exploration` ε in [0, 1]
    makes K(x,·) into (1−ε) K(x,·) + ε mean_x' K(x',·) (theory §4); `unsafe` and `tolerance` as in `finite`.

    **Raises:** `ValueError` as `finite`, and for rows that are no probabilities.
    """
    table, reward = _probabilities("outcome_probs", outcome_probs, 2), _finite_array("payoffs", payoffs, 2)
    subjective = _probabilities("subjective_probs", subjective_probs, 3)
    epsilon = _between("exploration", exploration, 1.0)
    if reward.shape != table.shape or subjective.shape[1:] != table.shape:
        shapes = f"{table.shape}, {reward.shape} and {subjective.shape}"
        raise ValueError(f"outcome_probs and payoffs must be [A, Y], subjective_probs [K, A, Y]; got {shapes}")
    utility = (subjective * reward).sum(axis=2).T
    nats = np.array([divergence(table, believed) for believed in subjective]).T
    if epsilon > 0:  # the mean is infinite as soon as one action refutes the parameter
        nats = (1 - epsilon) * np.where(np.isfinite(nats), nats, 0.0) + epsilon * nats.mean(axis=0)
    return finite(utility, nats, unsafe=unsafe, tolerance=tolerance)


def divergence(outcome_probs: npt.ArrayLike, subjective_probs: npt.ArrayLike) -> FloatArray:
    """KL divergence K(x) = Σ_y Q(y|x) ln Q(y|x)/Q_θ(y|x) for every action.

    **Arguments:** the true and the believed law, both `[A, Y]`.

    **Returns:** nats `[A]`; Q = 0 contributes 0, and Q > 0 = Q_θ makes it `inf` (theory §9).

    **Raises:** `ValueError` for unequal shapes or rows that are no probabilities.
    """
    truth = _probabilities("outcome_probs", outcome_probs, 2)
    believed = _probabilities("subjective_probs", subjective_probs, 2)
    if truth.shape != believed.shape:
        raise ValueError(f"the two tables must have equal shapes; got {truth.shape} and {believed.shape}")
    nats = np.zeros(truth.shape)
    nats[(truth > 0) & (believed == 0)] = np.inf
    both = (truth > 0) & (believed > 0)
    nats[both] = truth[both] * np.log(truth[both] / believed[both])
    return np.maximum(nats.sum(axis=1), 0.0)  # Gibbs' inequality; rounding may leave -1e-17


def project(
    outcome_probs: npt.ArrayLike,
    intercept: npt.ArrayLike,
    slope: npt.ArrayLike,
    lower: float,
    upper: float,
    sigma: npt.ArrayLike,
    *,
    exploration: float = 0.0,
) -> tuple[float, float]:
    """The KL projection Θ(σ) of an affine Bernoulli family: the ends of the interval of its minimisers (theory §3).

    **Arguments:** as in `affine_bernoulli`; `sigma` `[A]` a strategy.

    **Raises:** `ValueError` as there, and when σ refutes every parameter: then nothing fits best.
    """
    family = _family(_probabilities("outcome_probs", outcome_probs, 2), intercept, slope, lower, upper, exploration)
    strategy = _probabilities("sigma", sigma, 1)
    if strategy.size != len(family.truth):
        raise ValueError(f"sigma must have one entry per action, {len(family.truth)}; got {strategy.size}")
    interval = family.project(strategy.tolist())
    if interval is None:
        raise ValueError("sigma refutes every parameter: the divergence is infinite on all of [lower, upper]")
    return interval


def phase(rationalizable: npt.ArrayLike, pure: npt.ArrayLike, unsafe: npt.ArrayLike) -> str:
    """The phase of theory §5, first match wins, from three bool `[A]` masks; `ValueError` for unequal shapes."""
    survivors, equilibria = np.asarray(rationalizable, dtype=np.bool_), np.asarray(pure, dtype=np.bool_)
    danger = _unsafe(unsafe, survivors.size)
    if equilibria.shape != danger.shape:
        raise ValueError(f"masks must have equal shapes; got {survivors.shape} and {equilibria.shape}")
    if not (survivors & danger).any():
        return "safe"
    if not (survivors & ~danger).any():
        return "locked_in"
    if (equilibria & danger).any() and (equilibria & ~danger).any():
        return "multistable"
    return "indeterminate" if equilibria.any() else "oscillatory"


# One-parameter families (theory §3)


@dataclass(frozen=True)
class _Family:
    """What is true, rows (Q(0|x), Q(1|x)), and what can be believed, as plain floats."""

    truth: list[list[float]]
    intercept: list[float]
    slope: list[float]
    lower: float
    upper: float
    exploration: float

    def prediction(self, action: int, theta: float) -> float:
        """P(y=1|x) under θ; the bounds have been checked, so clipping removes rounding only."""
        return min(max(self.intercept[action] + self.slope[action] * theta, 0.0), 1.0)

    @cached_property
    def refuting(self) -> list[bool]:
        """Which actions have K(x,·) = inf on the whole interval, and so refute every parameter when played.

        A prediction of 0 or 1 occurs at an end of the interval, or throughout, so ends and middle tell; inside, a
        mixture of actions that do not refute has a finite divergence.
        """
        thetas = (self.lower, 0.5 * (self.lower + self.upper), self.upper)
        ruled_out = [{0.0: prob_one, 1.0: prob_zero} for prob_zero, prob_one in self.truth]  # by such a prediction
        return [all(prob.get(self.prediction(x, t), 0.0) > 0.0 for t in thetas) for x, prob in enumerate(ruled_out)]

    def project(self, sigma: Sequence[float]) -> Interval | None:
        """Θ(σ): a point if σ, with exploration, plays an informative action, else all of it; None if refuted."""
        uniform = self.exploration / len(sigma)
        weights = [(1.0 - self.exploration) * share + uniform for share in sigma]
        if any(weight > 0.0 and refuting for weight, refuting in zip(weights, self.refuting, strict=True)):
            return None
        terms = [(weight * rate, x) for x, (weight, rate) in enumerate(zip(weights, self.slope, strict=True))]
        terms = [(scale, x) for scale, x in terms if scale != 0.0]
        if not terms or self.lower == self.upper:
            return self.lower, self.upper
        point = self._stationary_point(terms)
        return point, point

    def _stationary_point(self, terms: Sequence[tuple[float, int]]) -> float:
        """Where the derivative of the strictly convex Σ_x w_x K(x,θ) changes sign, or the end it points to.

        `terms` are (w_x·slope_x, x). The derivative is infinite at an end only, and then it points inwards.
        """
        rows = [(scale, action, *self.truth[action]) for scale, action in terms]

        def derivative(theta: float) -> float:
            total = 0.0
            for scale, action, prob_zero, prob_one in rows:
                predicted = self.prediction(action, theta)
                if prob_one > 0.0:
                    total -= scale * prob_one / predicted if predicted > 0.0 else math.copysign(_POLE, scale)
                if prob_zero > 0.0:
                    total += scale * prob_zero / (1.0 - predicted) if predicted < 1.0 else math.copysign(_POLE, scale)
            return total

        if derivative(self.lower) >= 0.0:
            return self.lower
        if derivative(self.upper) <= 0.0:
            return self.upper
        return _root(derivative, self.lower, self.upper)


class _OneParameter:
    """A one-parameter problem: payoffs are affine in θ, projections are intervals; `tie` is in payoff units."""

    def __init__(self, family: _Family, payoffs: list[list[float]], tie: float):
        self.family, self.payoffs, self.tie = family, payoffs, tie
        self.actions = range(len(payoffs))
        self.projections = [family.project([float(x == played) for x in self.actions]) for played in self.actions]
        found = (self.crossing(x, z, family.lower, family.upper) for x, z in itertools.combinations(self.actions, 2))
        self.crossings = [theta for theta in found if theta is not None]

    def answer(self, unsafe: BoolArray, scale: float, tolerance: float) -> Answer:
        best = [-math.inf if reach is None else self.slack(x, reach) for x, reach in enumerate(self.projections)]
        worst = [-math.inf if reach is None else self.least_slack(x, reach) for x, reach in enumerate(self.projections)]
        mixed, margin = [], math.nan
        if not any(self.family.refuting):
            mixed, slacks = self.mixed()
            margin = min(abs(slack) for slack in [*best, *worst, *slacks, *self.elimination_slacks()]) / scale
        return _answer(
            self.rationalizable(),
            np.array(best) >= -self.tie,
            np.array(worst) > self.tie,
            np.array(mixed, dtype=np.float64).reshape(-1, len(self.actions)),
            margin,
            unsafe,
            tolerance,
        )

    def utility(self, action: int, theta: float) -> float:
        predicted, (reward_zero, reward_one) = self.family.prediction(action, theta), self.payoffs[action]
        return (1.0 - predicted) * reward_zero + predicted * reward_one

    def advantage(self, action: int, theta: float) -> float:
        """U(x,θ) less the best of the others: negative where x is no best response."""
        return self.utility(action, theta) - max(self.utility(z, theta) for z in self.actions if z != action)

    def slack(self, action: int, reach: Interval) -> float:
        """Largest advantage on the interval: x is on the upper envelope somewhere there iff this is >= 0.

        The advantage is concave and piecewise affine, and its kinks lie where two other actions cross.
        """
        inside = [theta for theta in self.crossings if reach[0] < theta < reach[1]]
        return max(self.advantage(action, theta) for theta in (*reach, *inside))

    def least_slack(self, action: int, reach: Interval) -> float:
        """Smallest advantage on the interval; it is concave, so at an end."""
        return min(self.advantage(action, theta) for theta in reach)

    def crossing(self, x: int, z: int, start: float, stop: float) -> float | None:
        """Where the payoff lines of x and z cross between two parameters at which they differ by more than a tie."""

        def gap(theta: float) -> float:
            return self.utility(x, theta) - self.utility(z, theta)

        first, last = gap(start), gap(stop)
        if min(abs(first), abs(last)) <= self.tie or (first > 0.0) == (last > 0.0):
            return None
        return _root(gap, start, stop)

    def reach(self, played: Sequence[int]) -> Interval | None:
        """I(A) = ⋃ Θ(σ) over σ ∈ Δ(A): the hull of the projections of its actions; None if each is refuted."""
        ends = [interval for interval in (self.projections[x] for x in played) if interval is not None]
        return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None

    def rationalizable(self) -> BoolArray:
        """Γ iterated from the set of all actions to its fixed point; Γ(A) is the upper envelope over I(A)."""
        survivors = list(self.actions)
        while True:
            reach = self.reach(survivors)
            image = [] if reach is None else [x for x in self.actions if self.slack(x, reach) >= -self.tie]
            if image == survivors:
                return np.array([x in survivors for x in self.actions])
            survivors = image

    def elimination_slacks(self) -> list[float]:
        """The slacks that decide the rationalizable set, found by dropping the worst action one at a time.

        The set stays the same if every comparison is off by less than the smallest of them; a close comparison on the
        way that a later round overrules is not among them.
        """
        remaining, slacks = list(self.actions), []
        while (reach := self.reach(remaining)) is not None:
            slack, worst = min((self.slack(x, reach), x) for x in remaining)
            slacks.append(slack)
            if slack >= -self.tie:
                break
            remaining.remove(worst)
        return slacks

    def mixed(self) -> tuple[list[list[float]], list[float]]:
        """The two-action mixed equilibria, and how far each candidate pair is above (below) the other actions.

        The pair must tie at some θ̂ on the upper envelope and the mixture must project to θ̂. The projection moves from
        Θ(δ_x) to Θ(δ_z) as weight moves to z, so the pair is ranked one way at the one and the other way at the other.
        """
        equilibria, slacks = [], []
        for x, z in itertools.combinations(self.actions, 2):
            ends = (self.projections[x], self.projections[z])
            points = [end[0] for end in ends if end is not None and end[0] == end[1]]
            theta = self.crossing(x, z, *points) if len(points) == 2 else None
            if theta is None:
                continue
            rivals = [self.utility(other, theta) for other in self.actions if other not in (x, z)]
            above = self.utility(x, theta) - max(rivals, default=-math.inf)
            slacks.append(above)
            if above >= -self.tie:
                equilibria.append(self.mixture(x, z, theta))
        return equilibria, slacks

    def mixture(self, x: int, z: int, theta: float) -> list[float]:
        """The mixture of x and z that projects to θ, which lies strictly between their own projections."""

        def strategy(weight: float) -> list[float]:
            return [1.0 - weight if action == x else weight if action == z else 0.0 for action in self.actions]

        def miss(weight: float) -> float:
            interval = self.family.project(strategy(weight))
            assert interval is not None, "a mixture of actions that refute nothing refutes nothing"
            return interval[0] - theta

        return strategy(_root(miss, 0.0, 1.0))


def _root(function: Callable[[float], float], start: float, stop: float) -> float:
    """A zero, to machine precision, of a continuous function that has opposite signs at the two ends."""
    return cast(float, brentq(function, start, stop, xtol=1e-17 * abs(stop - start), rtol=_FINEST, maxiter=1000))


# Two-action tables (theory §2)


class _TwoActionTables:
    """Scaled tables along s, the weight on action 1: `points` [S] from 0 to 1, weighted divergences `values` [S, K].

    `gap` [K] is U(1,θ) − U(0,θ); `inside` [K] marks what full support does not refute.
    """

    def __init__(self, utility: FloatArray, nats: FloatArray, tolerance: float):
        self.tolerance = tolerance
        self.gap = (utility[1] - utility[0]) / _scale(utility)
        self.nats = nats / _scale(nats[np.isfinite(nats)])
        self.inside = np.isfinite(self.nats).all(axis=0)
        ends = np.concatenate([[0.0], self.crossings(), [1.0]])
        self.points = np.unique(np.concatenate([ends, 0.5 * (ends[1:] + ends[:-1])]))
        between = self.points[1:-1, None]
        self.values = np.vstack([self.nats[0], (1 - between) * self.nats[0] + between * self.nats[1], self.nats[1]])

    def answer(self, unsafe: BoolArray) -> Answer:
        lowest = self.values.min(axis=1, keepdims=True)
        fits = np.isfinite(self.values) & (self.values <= lowest + self.tolerance)  # Θ(σ), empty where all are refuted
        most, least = np.where(fits, self.gap, -np.inf).max(axis=1), np.where(fits, self.gap, np.inf).min(axis=1)
        responses = np.stack([least <= self.tolerance, most >= -self.tolerance], axis=1)  # F(Δ(Θ(σ))), [S, 2]
        pure = np.array([responses[0, 0], responses[-1, 1]])
        strict = np.array([most[0] < -self.tolerance, least[-1] > self.tolerance]) & pure
        mixed, margin = np.zeros((0, 2)), math.nan
        if self.inside.any():
            mixed = self.mixed()
            margin = self.margin(float(min(np.abs(most).min(), np.abs(least).min())))
        return _answer(_largest_fixed_point(responses), pure, strict, mixed, margin, unsafe, self.tolerance)

    def crossings(self) -> FloatArray:
        """The s strictly between 0 and 1, in order, at which two lines (1−s) K(0,θ) + s K(1,θ) cross."""
        lines = self.nats[:, self.inside]
        first, second = np.triu_indices(lines.shape[1], k=1)
        at_zero, at_one = lines[:, first] - lines[:, second]
        opposite = np.sign(at_zero) * np.sign(at_one) < 0
        found = at_zero[opposite] / (at_zero[opposite] - at_one[opposite])
        return np.unique(found[(found > 0.0) & (found < 1.0)])

    def margin(self, payoff_slack: float) -> float:
        """The smallest tolerance at which the answer would rest on a tie, given the payoff slack at best fits.

        Parameters whose payoffs differ by less than the tolerance side with both actions, so each level of payoff
        difference has its own divergence slack, and the larger of the two has to be overcome.
        """
        margin = payoff_slack
        for level in (0.0, *np.sort(np.abs(self.gap)).tolist()):
            if level >= margin:
                break
            margin = min(margin, max(level, self.divergence_slack(max(level, self.tolerance))))
        return margin

    def contest(self, values: FloatArray, level: float) -> FloatArray:
        """Lowest of `values` [..., K] among parameters that favour action 1 less the lowest of those that favour 0.

        Where it is positive only action 0 is a best response, where negative only action 1, where zero both are; inf
        where one side is empty. Parameters indifferent to within `level` are on both sides.
        """
        one = np.where(self.gap >= -level, values, np.inf).min(axis=-1)
        zero = np.where(self.gap <= level, values, np.inf).min(axis=-1)
        contested = np.isfinite(one) & np.isfinite(zero)
        return np.where(contested, one, np.inf) - np.where(contested, zero, 0.0)

    def inner_contest(self, level: float) -> FloatArray:
        """The contest at `points` [S] among parameters that full support does not refute: at the ends, its limit."""
        return self.contest(np.where(self.inside, self.values, np.inf), level)

    def divergence_slack(self, level: float) -> float:
        """How far the contest is from having other zeros (mixed equilibria) or signs (pure, rationalizable actions).

        Its size at both ends, wherever it turns, and on each straight piece between two bends, of which the larger end
        must be overcome to tilt it the other way. An uninformative action makes it zero at its end: that is no slack.
        """
        first, *bends, last = _bends(self.points.tolist(), self.inner_contest(level).tolist())
        around = zip([first, *bends], bends, [*bends[1:], last], strict=False)
        slacks = [abs(bend) for before, bend, after in around if (bend - before) * (after - bend) < 0.0]
        slacks += [max(abs(left), abs(right)) for left, right in itertools.pairwise(bends)]
        for row, limit in zip(self.nats, (first, last), strict=True):
            if not np.isfinite(row).all() or row.min() < row.max():
                slacks += [abs(limit), abs(float(self.contest(row, level)))]
        return min(slacks, default=math.inf)

    def mixed(self) -> FloatArray:
        """The strategies [m, 2] at the zeros of the contest strictly inside; of a continuum, the kinks in it."""
        size, last, found = np.abs(self.inner_contest(self.tolerance)), len(self.points) - 1, [0.0, 1.0]
        for tied, group in itertools.groupby(range(last + 1), key=lambda i: bool(size[i] <= self.tolerance)):
            run = list(group)
            zeros = [i for i in run if 0 < i < last and size[i] <= _ROUNDING and self.is_kink(i)]
            if tied and not zeros and run[0] > 0 and run[-1] < last:
                zeros = [min(run, key=lambda i: size[i])]  # zero to within the tolerance only
            for weight in self.points[zeros].tolist():
                if min(abs(weight - other) for other in found) > _SAME_STRATEGY:
                    found.append(weight)
        return np.array([(1.0 - weight, weight) for weight in found[2:]]).reshape(-1, 2)

    def is_kink(self, index: int) -> bool:
        """Whether parameters with different lines fit best together at this point, up to rounding."""
        lowest = self.values[index] <= self.values[index].min() + _ROUNDING
        return bool(np.ptp(self.nats[1, lowest] - self.nats[0, lowest]) > _ROUNDING)


def _largest_fixed_point(responses: BoolArray) -> BoolArray:
    """Γ iterated from {0, 1}; `responses` [S, 2] are the best responses from s = 0 to 1, of which δ_x sees one end."""
    survivors = np.array([True, True])
    while True:
        seen = responses if survivors.all() else responses[[0, -1]][survivors]
        image = np.asarray(seen.any(axis=0))
        if (image == survivors).all():
            return survivors
        survivors = image


def _bends(points: Sequence[float], values: Sequence[float]) -> list[float]:
    """The first value of a piecewise affine function, its values where it bends by more than rounding, and the last."""
    kept, bends = 0, [values[0]]
    for i in range(1, len(points) - 1):
        share = (points[i] - points[kept]) / (points[i + 1] - points[kept])
        straight = values[kept] + share * (values[i + 1] - values[kept])
        if abs(values[i] - straight) > _ROUNDING:
            bends.append(values[i])
            kept = i
    return [*bends, values[-1]]


# Checks and assembly


def _answer(
    rationalizable: BoolArray,
    pure: BoolArray,
    strict: BoolArray,
    mixed: FloatArray,
    margin: float,
    unsafe: BoolArray,
    tolerance: float,
) -> Answer:
    status = "refuted" if math.isnan(margin) else "boundary" if margin <= tolerance else "solved"
    label = phase(rationalizable, pure, unsafe) if status == "solved" else status
    return Answer(rationalizable, pure, strict, mixed, margin, status, label)


def _family(
    table: FloatArray, intercept: npt.ArrayLike, slope: npt.ArrayLike, lower: float, upper: float, exploration: float
) -> _Family:
    """A checked `_Family`: two outcomes, two actions or more, finite ordered bounds, predictions inside [0, 1]."""
    if table.shape[0] < 2 or table.shape[1] != 2:
        raise ValueError(f"outcome_probs must be [A, 2] with A >= 2; got {table.shape}")
    start, rate = _finite_array("intercept", intercept, 1), _finite_array("slope", slope, 1)
    if not start.size == rate.size == len(table):
        raise ValueError(f"intercept and slope must be [{len(table)}]; got {start.shape} and {rate.shape}")
    low, high = float(lower), float(upper)
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"bounds must be finite with lower <= upper; got [{low}, {high}]")
    for theta in (low, high):
        predictions = start + rate * theta
        if predictions.min() < -1e-12 or predictions.max() > 1 + 1e-12:
            raise ValueError(f"intercept + slope * theta must stay in [0, 1]; at theta = {theta} it is {predictions}")
    return _Family(table.tolist(), start.tolist(), rate.tolist(), low, high, _between("exploration", exploration, 1.0))


def _finite_array(name: str, value: npt.ArrayLike, ndim: int) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != ndim or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite, with {ndim} dimension(s); got shape {array.shape}")
    return array


def _probabilities(name: str, value: npt.ArrayLike, ndim: int) -> FloatArray:
    array = _finite_array(name, value, ndim)
    if array.size == 0 or array.min() < 0 or np.abs(array.sum(axis=-1) - 1).max() > 1e-9:
        raise ValueError(f"{name} must hold probabilities: entries >= 0 that sum to 1 over the last axis")
    return array


def _between(name: str, value: float, most: float) -> float:
    if not 0.0 <= value <= most:
        raise ValueError(f"{name} must be in [0, {most}]; got {value}")
    return float(value)


def _unsafe(value: npt.ArrayLike, num_actions: int) -> BoolArray:
    mask = np.asarray(value, dtype=np.bool_)
    if mask.shape != (num_actions,):
        raise ValueError(f"unsafe must hold one entry per action, shape ({num_actions},); got {mask.shape}")
    return mask


def _scale(values: FloatArray) -> float:
    """The largest absolute value, or 1 where there is none above 0."""
    return float(np.abs(values).max(initial=0.0)) or 1.0
