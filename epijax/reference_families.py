"""The independent judge for parameters in a box: projections by Newton steps, beliefs by linear programs.

Like `reference`, whose checks and `Answer` it uses, this file has NumPy and SciPy alone and shares no formula with the
fast solvers. It judges the families of theory §6 whose payoffs are affine in θ ∈ [lower, upper] ⊂ R^D:

    affine_bernoulli_box    P(y=1|x) = intercept_x + slope_x·θ, payoff any function of (x, y)
    gaussian_linear         y = design_x·θ + noise of known variance, payoff affine in y
    project                 a numerical KL projection of any divergence, made for θ by one of the `..._divergences`

In both families θ matters through the predictions m_x = a_x + b_x·θ alone: K(x,θ) is strictly convex in m_x, U(x,θ)
affine in it. So Θ(σ) is the part of the box where m_x takes one value m*_x for every x that is seen, a face or a slice
where that leaves directions unidentified, and since E_μ U = U(E_μ θ) a belief over Θ(σ) is as good as a point of it:
whether x is a best response to some belief, or the only one to each, is a linear program over θ.

With two actions let s be the weight on action 1. As s rises K(0,·) rises and K(1,·) falls, and so each
prediction is monotone, on one side of the truth: they trace a quarter turn at most along the edge of a convex polygon.
U(0) − U(1) is affine in them, so along the path it rises and then falls, or the reverse: it has two zeros at most.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, linprog, minimize
from scipy.special import log_softmax, rel_entr, xlogy

from epijax import reference

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Curve = tuple[FloatArray, FloatArray]  # first and second derivative of each K(x,·) in its prediction, both [A]
Point = tuple[float, FloatArray, FloatArray]  # weight s of action 1, the predictions [2] that fit it, their normal [2]
Cell = tuple[float, float, Point, Point]  # less an upper bound, the first s, between these points
Divergences = Callable[[npt.ArrayLike], FloatArray]  # theta [D] -> nats [A]

_POLE = 1e300  # stands for an infinite derivative
_REFUTED = 1e30  # nats: stands for an infinite divergence in a descent
_RIDGE = 1e-10  # relative to the slopes: holds unidentified directions where they are
_CONVERGED = 1e-24  # nats that the last Newton step gains
_CERTIFIED = 1e-10  # the largest duality gap of a projection, relative to its terms
_FINEST_CELL = 1e-13  # intervals of strategies are split no further
_PARALLEL = 1e-12  # normals whose angle is smaller are one and the same
_MOST_STRATEGIES = 200  # in the grid of strategies of more than two actions
_ACCURATE = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}  # the finest HiGHS takes


def affine_bernoulli_box(
    outcome_probs: npt.ArrayLike,
    payoffs: npt.ArrayLike,
    intercept: npt.ArrayLike,
    slope: npt.ArrayLike,
    lower: npt.ArrayLike,
    upper: npt.ArrayLike,
    *,
    exploration: float = 0.0,
    unsafe: npt.ArrayLike | None = None,
    tolerance: float = 1e-9,
) -> reference.Answer:
    """Solve a Bernoulli family P(y=1|x) = intercept_x + slope_x·θ with θ in a box of any dimension (theory §6).

    **Arguments:** `outcome_probs` `[A, 2]` the true law Q(y|x); `payoffs` `[A, 2]` in payoff units; `intercept` `[A]`;
    `slope` `[A, D]`; `lower <= upper` `[D]`; `exploration` in [0, 1], the share of uniform play that the projection
    sees (§4); `unsafe` bool `[A]`; `tolerance` in [0, 1], relative to the largest |payoff|.

    **Returns:** an `Answer`; its phase is its status where `unsafe` is not given. Mixed equilibria that exist only by a
    tie are not listed. With more than two actions no mixed equilibrium is sought, and `rationalizable` is an *inner*
    set: only the strategies of a grid are tried, so further actions may be rationalizable, and the margin does not
    speak of them.

    **Raises:** `ValueError` for wrong shapes, rows that are no probabilities, predictions outside [0, 1], or unordered
    bounds.
    """
    table = reference._probabilities("outcome_probs", outcome_probs, 2)
    reward = reference._finite_array("payoffs", payoffs, 2)
    if table.shape[1] != 2 or reward.shape != table.shape:
        raise ValueError(f"outcome_probs and payoffs must be [A, 2]; got {table.shape} and {reward.shape}")
    start, rates = _unit_box(len(table), intercept, slope, lower, upper)
    lowest, highest = _ranges(start, rates)
    if lowest.min() < -1e-12 or highest.max() > 1 + 1e-12:
        raise ValueError(f"intercept + slope * theta must stay in [0, 1]; it is in [{lowest.min()}, {highest.max()}]")
    prob_zero, prob_one = table.T

    def curve(m: FloatArray) -> Curve:
        m = np.clip(m, 0.0, 1.0)  # the bounds have been checked: this removes rounding only
        first = _ratio(prob_zero, 1 - m) - _ratio(prob_one, m)
        return first, _ratio(prob_zero, (1 - m) ** 2) + _ratio(prob_one, m**2)

    scale = reference._scale(reward)
    base, stake = reward[:, 0] / scale, (reward[:, 1] - reward[:, 0]) / scale
    return _Box(prob_one, start, rates, base, stake, curve, exploration, tolerance).answer(unsafe)


def gaussian_linear(
    mean: npt.ArrayLike,
    noise_std: float,
    payoff_intercept: npt.ArrayLike,
    payoff_slope: npt.ArrayLike,
    design: npt.ArrayLike,
    model_std: float,
    lower: npt.ArrayLike,
    upper: npt.ArrayLike,
    *,
    exploration: float = 0.0,
    unsafe: npt.ArrayLike | None = None,
    tolerance: float = 1e-9,
) -> reference.Answer:
    """Solve a Gaussian linear family y = design_x·θ + noise with θ in a box of any dimension (theory §6).

    **Arguments:** `mean` `[A]` and `noise_std` > 0 of the true outcome; the payoff is `payoff_intercept_x` +
    `payoff_slope_x`·y, both `[A]`, in payoff units; `design` `[A, D]`; `model_std` > 0 the standard deviation that is
    believed; `tolerance` in [0, 1], relative to the largest |U(x,θ)| on the box; the rest as in `affine_bernoulli_box`.

    **Returns:** as there. Neither standard deviation changes a projection, so neither matters to the answer.

    **Raises:** `ValueError` for wrong shapes, unordered bounds, or standard deviations that are not positive.
    """
    truth = reference._finite_array("mean", mean, 1)
    base = reference._finite_array("payoff_intercept", payoff_intercept, 1)
    stake = reference._finite_array("payoff_slope", payoff_slope, 1)
    if not truth.shape == base.shape == stake.shape:
        raise ValueError(f"mean and payoffs must be [A]; got {truth.shape}, {base.shape} and {stake.shape}")
    _positive(noise_std, model_std)
    start, rates = _unit_box(truth.size, np.zeros(truth.size), design, lower, upper)
    scale = reference._scale(base + stake * np.array(_ranges(start, rates)))
    unit = reference._scale(rates)  # of the predictions, so that steps and gaps are of order one
    truth, start, rates, stake = truth / unit, start / unit, rates / unit, stake * unit

    def curve(m: FloatArray) -> Curve:
        return m - truth, np.ones(m.size)

    return _Box(truth, start, rates, base / scale, stake / scale, curve, exploration, tolerance).answer(unsafe)


# Divergences and their numerical minimum


def affine_bernoulli_divergences(
    outcome_probs: npt.ArrayLike, intercept: npt.ArrayLike, slope: npt.ArrayLike
) -> Divergences:
    """K(x,θ) in nats `[A]` of θ `[D]`: true law `[A, 2]`, believed P(y=1|x) `intercept` [A] + `slope` [A, D]·θ."""
    table, start, rates = np.asarray(outcome_probs, float), np.asarray(intercept, float), np.asarray(slope, float)

    def divergences(theta: npt.ArrayLike) -> FloatArray:
        predicted = np.clip(start + rates @ np.asarray(theta, float), 0.0, 1.0)
        return rel_entr(table, np.stack([1 - predicted, predicted], axis=1)).sum(axis=1)

    return divergences


def categorical_divergences(
    outcome_probs: npt.ArrayLike, logit_intercept: npt.ArrayLike, logit_slope: npt.ArrayLike
) -> Divergences:
    """K(x,θ) in nats `[A]` of θ `[D]`: true law `[A, Y]`, believed law softmax of logits `[A, Y]` + `[A, Y, D]`·θ."""
    table, start, rates = (np.asarray(v, float) for v in (outcome_probs, logit_intercept, logit_slope))

    def divergences(theta: npt.ArrayLike) -> FloatArray:
        believed = log_softmax(start + rates @ np.asarray(theta, float), axis=1)
        return (xlogy(table, table) - table * believed).sum(axis=1)

    return divergences


def gaussian_divergences(mean: npt.ArrayLike, noise_std: float, design: npt.ArrayLike, model_std: float) -> Divergences:
    """K(x,θ) in nats `[A]` of θ `[D]`: true mean `[A]`, believed mean `design` [A, D]·θ, and a deviation each."""
    truth, rows = np.asarray(mean, float), np.asarray(design, float)
    _positive(noise_std, model_std)

    def divergences(theta: npt.ArrayLike) -> FloatArray:
        square = noise_std**2 + (truth - rows @ np.asarray(theta, float)) ** 2
        return math.log(model_std / noise_std) + square / (2 * model_std**2) - 0.5

    return divergences


def project(
    divergences: Divergences,
    sigma: npt.ArrayLike,
    lower: npt.ArrayLike,
    upper: npt.ArrayLike,
    starts: int = 8,
    seed: int = 0,
) -> tuple[FloatArray, float]:
    """A minimiser over the box of K(σ,θ) = Σ_x σ_x K(x,θ), with 0·∞ = 0, by general-purpose descent.

    **Arguments:** `divergences` θ `[D]` -> nats `[A]`, `inf` allowed; `sigma` `[A]`; `lower <= upper` `[D]`. The
    descent is from the centre, the corners (32 at most) and `starts` random points; what is best is polished.

    **Returns:** θ `[D]` and its K(σ,θ) in nats, to about 1e-10 where that is smooth and convex.

    **Raises:** `ValueError` for unordered bounds, and if no start has a finite value: then σ refutes every parameter.
    """
    low, high, weights = np.asarray(lower, float), np.asarray(upper, float), np.asarray(sigma, float)
    if low.ndim != 1 or low.shape != high.shape or not (low <= high).all():
        raise ValueError("lower and upper must be [D], with lower <= upper")

    def value(theta: FloatArray) -> float:
        return float(weights[weights > 0] @ divergences(theta)[weights > 0])

    def descend(theta: FloatArray, method: str, **options: float) -> FloatArray:
        jac, bounds = None if method == "Nelder-Mead" else "3-point", list(zip(low, high, strict=True))
        found = minimize(finite_value, theta, method=method, jac=jac, bounds=bounds, options=options)
        return np.clip(found.x, low, high)

    def finite_value(theta: FloatArray) -> float:
        return min(value(np.clip(theta, low, high)), _REFUTED)

    corners = itertools.islice(itertools.product((0.0, 1.0), repeat=low.size), 32)
    shares = [np.full(low.size, 0.5), *np.random.default_rng(seed).random((starts, low.size)), *map(np.array, corners)]
    points = [low + share * (high - low) for share in shares]
    points = [theta for theta in points if math.isfinite(value(theta))]
    if not points:
        raise ValueError("sigma refutes every parameter: the divergence is infinite on the whole box")
    best = min(points + [descend(theta, "L-BFGS-B", ftol=1e-12) for theta in points], key=value)
    polish = {"L-BFGS-B": {"ftol": 0.0, "gtol": 1e-12}, "SLSQP": {"ftol": 1e-16}, "Nelder-Mead": {"fatol": 1e-15}}
    for method, options in polish.items():
        best = min(best, descend(best, method, **options), key=value)
    return best, value(best)


# Equilibria and rationalizability


@dataclass(frozen=True)
class _Box:
    """A problem over the unit cube: predictions m = intercept + slope·u [A], payoffs U = base + stake·m of order one.

    `truth` [A] is the prediction at which each divergence is least, `curve` m -> (K', K'') its derivatives.
    """

    truth: FloatArray
    intercept: FloatArray
    slope: FloatArray
    base: FloatArray
    stake: FloatArray
    curve: Callable[[FloatArray], Curve]
    exploration: float
    tolerance: float

    def answer(self, unsafe: npt.ArrayLike | None) -> reference.Answer:
        num = self.truth.size
        reference._between("exploration", self.exploration, 1.0)
        reference._between("tolerance", self.tolerance, 1.0)
        danger = reference._unsafe(np.zeros(num) if unsafe is None else unsafe, num)
        ends = [self.advantages(sigma) for sigma in np.eye(num)]
        best, worst = np.diag(ends), np.array([self.least_advantage(x) for x in range(num)])
        seen = [({x}, end) for x, end in enumerate(ends)]  # the advantages [A] at strategies of each support
        mixed, slacks = [], [*best, *worst]
        refuting = bool(np.isinf(self.curve(self.predict(np.full(self.slope.shape[1], 0.5)))[0]).any())
        if num == 2 and not refuting:
            mixed, reached = self.mixed()
            seen.append(({0, 1}, np.array([max(reached), -min(reached)])))
            slacks += reached
        elif num > 2:
            grid = [sigma for sigma in _simplex_grid(num) if sigma.max() < 1]
            seen += [(set(np.flatnonzero(sigma).tolist()), self.advantages(sigma)) for sigma in grid]
        rationalizable, decisive = _eliminate(seen, num, self.tolerance)
        margin = math.nan if refuting else float(np.abs([*slacks, *decisive]).min())
        answer = reference._answer(
            rationalizable,
            best >= -self.tolerance,
            worst > self.tolerance,
            np.array(mixed, dtype=np.float64).reshape(-1, num),
            margin,
            danger,
            self.tolerance,
        )
        return answer if unsafe is not None else dataclasses.replace(answer, phase=answer.status)

    def predict(self, u: FloatArray) -> FloatArray:
        return self.intercept + self.slope @ u

    def weights(self, sigma: FloatArray) -> FloatArray:
        """What the projection sees: (1−ε)σ + ε/A."""
        return (1 - self.exploration) * sigma + self.exploration / sigma.size

    def project(self, sigma: FloatArray) -> FloatArray | None:
        """A point of Θ(σ), by Newton steps from the centre of the cube; None if σ refutes every parameter.

        Each step minimises the quadratic model over the cube, and goes on until the true derivative turns. In the end
        the duality gap max_v ∇·(u − v) over the cube, no less than what is left to gain, certifies the point.
        """
        played = self.weights(sigma) > 0
        weights, slope = self.weights(sigma)[played], self.slope[played]
        u = np.full(self.slope.shape[1], 0.5)
        if not np.isfinite(self.curve(self.predict(u))[0][played]).all():
            return None  # a prediction of 0 or 1 at the centre is one on the whole cube
        for _ in range(200):
            first, second = (weights * derivative[played] for derivative in self.curve(self.predict(u)))
            rows = np.sqrt(second)[:, None] * slope
            ridge = _RIDGE * (np.abs(rows).max() or 1.0) * np.eye(u.size)
            target = np.concatenate([rows @ u - first / np.sqrt(second), ridge @ u])
            step = _bounded_least_squares(np.vstack([rows, ridge]), target, u) - u
            gain = -float(first @ (slope @ step))
            if gain > 0:
                u = np.clip(u + self.stride(u, step, weights, played) * step, 0.0, 1.0)
            if gain <= _CONVERGED:
                break
        first, second = (weights * derivative[played] for derivative in self.curve(self.predict(u)))
        gradient, terms = first @ slope, (np.abs(first) + second) @ np.abs(slope)
        gap = np.maximum(gradient * u, gradient * (u - 1)).sum()
        if gap > _CERTIFIED * terms.sum():
            raise RuntimeError(f"no projection found for the strategy {sigma}: the duality gap is {gap}")
        return u

    def stride(self, u: FloatArray, step: FloatArray, weights: FloatArray, played: BoolArray) -> float:
        """How far along the step, at most 1, the weighted divergence falls."""
        change = (self.slope @ step)[played]

        def derivative(share: float) -> float:
            first = self.curve(self.predict(u + share * step))[0][played]
            return float((weights * np.clip(first, -_POLE, _POLE)) @ change)

        return 1.0 if derivative(1.0) <= 0 else _root(derivative, 0.0, 1.0)

    def most(self, start: FloatArray, rates: FloatArray, sigma: FloatArray, point: FloatArray) -> float:
        """The maximum over Θ(σ), which holds `point`, of the least of start_i + rates_i·u, `[n]` and `[n, D]`."""
        seen = self.slope[self.weights(sigma) > 0]
        if np.linalg.matrix_rank(seen) == np.linalg.matrix_rank(self.slope):  # what is seen tells every prediction
            return float((start + rates @ point).min())
        program = linprog(
            -np.eye(point.size + 1)[-1],
            A_ub=np.column_stack([-rates, np.ones(len(rates))]),
            b_ub=start,
            A_eq=np.pad(seen, ((0, 0), (0, 1))),
            b_eq=seen @ point,
            bounds=[(0, 1)] * point.size + [(None, None)],
            method="highs",
            options=_ACCURATE,
        )
        if program.status != 0:
            raise RuntimeError(f"a linear program ended without an answer: {program.message}")
        return -float(program.fun)

    def advantages(self, sigma: FloatArray) -> FloatArray:
        """The largest value on Θ(σ) of min_{z ≠ x} U(x) − U(z) for each x, [A]; -inf if σ refutes every parameter."""
        point = self.project(sigma)
        if point is None:
            return np.full(sigma.size, -math.inf)
        return np.array([self.most(*self.leads(x), sigma, point) for x in range(sigma.size)])

    def least_advantage(self, action: int) -> float:
        """Its smallest value for this action on its own Θ(δ_x); -inf if it refutes every parameter."""
        sigma = np.eye(self.truth.size)[action]
        point = self.project(sigma)
        start, rates = self.leads(action)
        pairs = zip(-start[:, None], -rates[:, None], strict=True)
        return -math.inf if point is None else min(-self.most(*pair, sigma, point) for pair in pairs)

    def leads(self, action: int) -> tuple[FloatArray, FloatArray]:
        """U(x) − U(z) for each other action z, as affine functions of u: intercepts [A-1] and slopes [A-1, D]."""
        base, rates = self.base + self.stake * self.intercept, self.stake[:, None] * self.slope
        return base[action] - np.delete(base, action), rates[action] - np.delete(rates, action, axis=0)

    # Two actions, along the weight s of action 1

    def path(self, s: float) -> FloatArray:
        """The predictions [2] that fit (1−s, s); without exploration, at s = 0 and 1 their limit from inside."""
        sigma = np.array([1 - s, s])
        point = self.project(sigma)
        assert point is not None, "a mixture of actions that refute nothing refutes nothing"
        predicted = self.predict(point)
        for x in np.flatnonzero(self.weights(sigma) == 0):  # the best it can do on Θ(σ)
            start, rates = self.intercept[[x]], self.slope[[x]]
            low, high = -self.most(-start, -rates, sigma, point), self.most(start, rates, sigma, point)
            predicted[x] = np.clip(self.truth[x], low, high)
        return predicted

    def lead(self, predicted: FloatArray) -> float:
        """U(0) − U(1) at given predictions [2]."""
        payoff = self.base + self.stake * predicted
        return float(payoff[0] - payoff[1])

    def normal(self, s: float, predicted: FloatArray) -> FloatArray:
        """The gradient [2] of the weighted divergence, normal to the polygon of predictions at those that fit s."""
        if s in (0.0, 1.0) and self.exploration == 0:
            return np.array([1 - s, s])  # its direction in the limit, or else where the path begins
        return self.weights(np.array([1 - s, s])) * self.curve(predicted)[0]

    def extreme(self, sign: float) -> tuple[float, float]:
        """The extreme value of U(0) − U(1) on the path, largest for sign 1, least for -1, and an s that attains it.

        By branch and bound. The path runs along the edge of a convex polygon and is monotone in both predictions, so
        between two strategies it stays in the triangle of theirs and of where the tangents meet.
        """

        def at(s: float) -> Point:
            predicted = self.path(s)
            return s, predicted, self.normal(s, predicted)

        def cell(start: Point, stop: Point) -> Cell:
            corners, normals = np.array([start[1], stop[1]]), np.array([start[2], stop[2]])
            bound = max(sign * self.lead(corner) for corner in corners)
            if abs(np.linalg.det(normals)) > _PARALLEL * np.prod(np.linalg.norm(normals, axis=1)):
                tip = corners[0] + np.linalg.solve(normals, [0.0, normals[1] @ (corners[1] - corners[0])])
                bound = max(bound, sign * self.lead(np.clip(tip, corners.min(axis=0), corners.max(axis=0))))
            return -bound, start[0], start, stop

        ends = at(0.0), at(1.0)
        best, where = max((sign * self.lead(end[1]), end[0]) for end in ends)
        waiting = [cell(*ends)]
        while waiting:
            bound, _, start, stop = heapq.heappop(waiting)
            if -bound <= best + max(0.01 * self.tolerance, 1e-12) or stop[0] - start[0] < _FINEST_CELL:
                break
            middle = at(0.5 * (start[0] + stop[0]))
            best, where = max((best, where), (sign * self.lead(middle[1]), middle[0]))
            heapq.heappush(waiting, cell(start, middle))
            heapq.heappush(waiting, cell(middle, stop))
        return sign * best, where

    def mixed(self) -> tuple[list[list[float]], list[float]]:
        """The strategies strictly inside at which U(0) = U(1), and the values of U(0) − U(1) between which they lie.

        It is monotone between its extremes and the limits at both ends.
        """

        def lead(s: float) -> float:
            return self.lead(self.path(s))

        extremes = dict((s, value) for value, s in (self.extreme(1.0), self.extreme(-1.0)))
        turns = sorted({0.0: lead(0.0), 1.0: lead(1.0), **extremes}.items())
        found = []
        for (start, first), (stop, last) in itertools.pairwise(turns):
            if min(abs(first), abs(last)) > self.tolerance and (first > 0) != (last > 0):
                s = _root(lead, start, stop)
                found.append([1 - s, s])
        return found, [value for _, value in turns]


def _eliminate(seen: list[tuple[set[int], FloatArray]], num: int, tolerance: float) -> tuple[BoolArray, list[float]]:
    """Γ iterated to its fixed point, from the best advantages [A] at strategies of each support; and decisive slacks.

    The slacks are those of the worst action when one is dropped at a time, as in `reference`.
    """
    remaining, slacks = set(range(num)), []
    while remaining:
        best = np.max([np.full(num, -math.inf), *(found for support, found in seen if support <= remaining)], axis=0)
        worst = min(remaining, key=lambda x: best[x])
        slacks.append(float(best[worst]))
        if best[worst] >= -tolerance:
            break
        remaining.remove(worst)
    return np.array([x in remaining for x in range(num)]), slacks


def _simplex_grid(num: int) -> list[FloatArray]:
    """The strategies [A] whose weights are multiples of 1/n, n as large as keeps them few, and 2 at least."""
    n = max((n for n in range(2, 65) if math.comb(n + num - 1, num - 1) <= _MOST_STRATEGIES), default=2)
    bars = itertools.combinations(range(n + num - 1), num - 1)
    return [(np.diff([-1, *cut, n + num - 1]) - 1) / n for cut in bars]


# Numerical steps and checks


def _bounded_least_squares(rows: FloatArray, target: FloatArray, start: FloatArray) -> FloatArray:
    """The minimiser of |rows·u − target| over the unit cube, by active sets; `rows` have full column rank."""
    u, held = start.copy(), np.zeros(start.size, dtype=np.bool_)
    for _ in range(50 * u.size):
        goal = u.copy()
        goal[~held] = np.linalg.lstsq(rows[:, ~held], target - rows[:, held] @ u[held], rcond=None)[0]
        outside = (goal < 0) | (goal > 1)
        if outside.any():  # as far as the first bound, and hold it
            bound = (goal > 1).astype(np.float64)
            shares = np.divide(bound - u, goal - u, out=np.full(u.size, math.inf), where=outside)
            first = int(shares.argmin())
            u = np.clip(u + shares[first] * (goal - u), 0.0, 1.0)
            u[first], held[first] = bound[first], True
            continue
        u = goal
        terms = rows * (rows @ u - target)[:, None]
        inward = np.where(u > 0.5, 1.0, -1.0) * terms.sum(axis=0) - 1e-14 * np.abs(terms).sum(axis=0)
        inward[~held] = -math.inf
        if inward.max() <= 0:
            break
        held[inward.argmax()] = False
    return u


def _root(function: Callable[[float], float], start: float, stop: float) -> float:
    """A zero of a continuous function that has opposite signs at the two ends."""
    return float(np.asarray(brentq(function, start, stop, xtol=1e-16, rtol=4 * np.finfo(np.float64).eps, maxiter=1000)))


def _ratio(prob: FloatArray, predicted: FloatArray) -> FloatArray:
    """prob / predicted, `inf` at a prediction of 0, but 0 where prob is 0."""
    with np.errstate(divide="ignore"):
        return np.divide(prob, predicted, out=np.zeros(prob.size), where=prob > 0)


def _ranges(intercept: FloatArray, slope: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The lowest and highest predictions [A] on the unit cube."""
    return intercept + np.minimum(slope, 0).sum(axis=1), intercept + np.maximum(slope, 0).sum(axis=1)


def _unit_box(
    num: int, intercept: npt.ArrayLike, slope: npt.ArrayLike, lower: npt.ArrayLike, upper: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Intercepts [A] and slopes [A, D] in coordinates that run from 0 to 1: a fixed parameter gets slope 0."""
    start, rates = reference._finite_array("intercept", intercept, 1), reference._finite_array("slope", slope, 2)
    low, high = reference._finite_array("lower", lower, 1), reference._finite_array("upper", upper, 1)
    if num < 2 or start.size != num or rates.shape != (num, low.size) or low.size == 0 or low.shape != high.shape:
        shapes = f"{start.shape}, {rates.shape}, {low.shape} and {high.shape}"
        raise ValueError(f"intercept, slope, lower and upper must be [A], [A, D], [D], [D] with A >= 2; got {shapes}")
    if not (low <= high).all():
        raise ValueError(f"bounds must be ordered, lower <= upper; got {low} and {high}")
    return start + rates @ low, rates * (high - low)


def _positive(*deviations: float) -> None:
    if not all(0 < deviation < math.inf for deviation in deviations):
        raise ValueError(f"standard deviations must be positive and finite; got {deviations}")
