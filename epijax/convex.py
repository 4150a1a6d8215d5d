"""KL projections of families convex in θ: Newton steps, each to the least of its model on the box (theory §6).

Of few parameters all faces of the box are tried; of more, an active-set method finds the face.

Beliefs depend on predictors z = start + rates·u alone, u the place of θ in the box, from 0 to 1 along each axis. Arrays
are `[..., *cells]` (`cells`): each operation is that of many projections.
"""

from collections.abc import Callable
from functools import partial, reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from epijax.cells import apart, cells_last, fold, in_pieces, positive
from epijax.environment import Environment, GaussianEnvironment
from epijax.problem import Problem
from epijax.subjective import AffineBernoulli, Categorical, GaussianLinear

_STEPS = 60
_SHORTER = 4  # times that a step that goes too far is cut
_FEW = 2  # parameters of which all 3**D faces are tried
_NUMBERS_AT_ONCE = 1 << 15

Convex = AffineBernoulli | Categorical | GaussianLinear
Predictors = Float[Array, "A R *cells"]  # of each action one, or one an outcome
Place = Float[Array, "D *cells"]


def nearest_convex(
    problem: Problem, weights: Float[Array, "A"]
) -> tuple[Float[Array, "D"], Float[Array, ""], Float[Array, "D D"]]:
    """Where in the box the given weights on actions fit best, without derivatives.

    **Returns:** the place, each coordinate from 0 to 1; the residual, the step as a share of the box that a gradient
    scaled by the largest curvature would still take; and the curvature there, in nats. What play does not identify
    stays near the middle, and so does all where every θ is refuted.
    """
    model, environment = problem.model, problem.environment
    assert isinstance(model, Convex)
    width = model.upper - model.lower
    if isinstance(model, Categorical):
        assert isinstance(environment, Environment)
        start, rates = model.logit_intercept + model.logit_slope @ model.lower, model.logit_slope * width
        truth = environment.outcome_probs
    elif isinstance(model, AffineBernoulli):
        assert isinstance(environment, Environment)
        start, rates = model.predict(model.lower)[:, None], (model.slope * width)[:, None]
        truth = environment.outcome_probs[:, 1:]
    else:
        assert isinstance(environment, GaussianEnvironment)
        start, rates = model.predict(model.lower)[:, None], (model.design * width)[:, None]
        start, rates, truth = (each / model.noise_std for each in (start, rates, environment.mean[:, None]))
    search = partial(_search, type(model))
    return cells_last(search, search)(weights, truth, start, rates)


def _search(
    family: type[Convex],
    weights: Float[Array, "A *#cells"],
    truth: Float[Array, "A R *#cells"],
    start: Float[Array, "A R *#cells"],
    rates: Float[Array, "A R D *#cells"],
) -> tuple[Float[Array, "D *cells"], Float[Array, "*cells"], Float[Array, "D D *cells"]]:
    dimensions = rates.shape[2]
    numbers = dimensions * (rates.shape[0] * rates.shape[1] + 3 ** min(dimensions, _FEW))
    at_once = max(1, _NUMBERS_AT_ONCE // numbers)
    given = weights, truth, start, rates
    cells = jnp.broadcast_shapes(*(array.shape[lead:] for array, lead in zip(given, (1, 2, 2, 3), strict=True)))
    return in_pieces(partial(_newton, family), given, cells, at_once)


def _newton(family: type[Convex], given: tuple[Array, Array, Array, Array]) -> tuple[Array, Array, Array]:
    weights, truth, start, rates = given
    num_actions, num_rows, dimensions = rates.shape[:3]
    cells = jnp.broadcast_shapes(*(array.shape[lead:] for array, lead in zip(given, (1, 2, 2, 3), strict=True)))
    played, weights = weights[:, None] > 0, weights[:, None]
    eps = float(jnp.finfo(weights.dtype).eps)

    def along(way: Place) -> Predictors:
        return reduce(jnp.add, [rates[:, :, d] * way[d] for d in range(dimensions)])

    def total(terms: Float[Array, "A R *rest"]) -> Float[Array, "*rest"]:
        return reduce(jnp.add, [terms[x, r] for x in range(num_actions) for r in range(num_rows)])

    def measure(place: Place) -> tuple[Place, Float[Array, "D D *cells"], Float[Array, "*cells"]]:
        """Slope and curvature of the weighted divergence, and the residual."""
        first, second, centre = _derivatives(family, start + along(place), truth)
        first, second = (jnp.where(played, weights * each, 0) for each in (first, second))
        spread = rates - (jnp.sum(centre[:, :, None] * rates, axis=1, keepdims=True) if family is Categorical else 0)
        slope = total(first[:, :, None] * rates)
        curvature = total(second[:, :, None, None] * spread[:, :, :, None] * spread[:, :, None])
        # where a divergence is infinite next door, what cannot be told is no reason to move
        slope, curvature = (jnp.where(jnp.isfinite(each), each, 0) for each in (slope, curvature))
        missed = jnp.abs(place - jnp.clip(place - slope / positive(_steepest(curvature)), 0, 1))
        return slope, curvature, reduce(jnp.maximum, [missed[d] for d in range(dimensions)])

    def better(state: tuple) -> tuple:
        step, place, _ = state
        slope, curvature, residual = apart(measure, place)
        if dimensions <= _FEW:
            way = apart(_lowest, *apart(_faces, slope, curvature, place))
        else:
            way = apart(_by_active_set, slope, curvature, place)
        way = jnp.where(residual > 8 * eps, way, 0)
        predictors, change = apart(lambda place, way: (start + along(place), along(way)), place, way)

        def rise(share: Float[Array, "*cells"]) -> Float[Array, "*cells"]:
            first, _, _ = _derivatives(family, predictors + share * change, truth)
            return total(jnp.where(played, weights * first * change, 0))

        share = _how_far(rise, reduce(jnp.add, [slope[d] * way[d] for d in range(dimensions)]))
        moved = place + share * way
        moved = jnp.where(moved > 1 - 2 * eps, 1, jnp.maximum(moved, 0))
        return step + 1, moved, jnp.max(jnp.abs(moved - place)) > eps**0.6  # the next step is its square

    def unfinished(state: tuple) -> Array:
        return (state[0] < _STEPS) & state[2]

    middle = jnp.full((dimensions, *cells), 0.5, weights.dtype)
    _, place, _ = jax.lax.while_loop(unfinished, better, (jnp.int32(0), middle, jnp.asarray(True)))
    _, curvature, residual = measure(place)
    return place, residual, curvature


def _steepest(curvature: Float[Array, "D D *cells"]) -> Float[Array, "*cells"]:
    return reduce(jnp.maximum, [curvature[d, d] for d in range(len(curvature))])


def _derivatives(
    family: type[Convex], predictors: Predictors, truth: Float[Array, "A R *#cells"]
) -> tuple[Predictors, Predictors, Predictors]:
    """First derivatives of each K(x, ·) in its predictors, second ones, and what is believed.

    The curvature of logits is that of Σ p(y)(z(y) − Σ p·z)², p what is believed; of others one second derivative each.
    """
    if family is GaussianLinear:
        return predictors - truth, jnp.ones_like(predictors), predictors
    if family is Categorical:
        believed = jax.nn.softmax(predictors, axis=1)
        return believed - truth, believed, believed
    believed = jnp.clip(predictors, 0, 1)
    no, yes = _ratio(1 - truth, 1 - believed), _ratio(truth, believed)
    return no - yes, _ratio(no, 1 - believed) + _ratio(yes, believed), believed


def _ratio(p: Float[Array, "..."], q: Float[Array, "..."]) -> Float[Array, "..."]:
    """p/q with 0/0 = 0."""
    return jnp.where(p > 0, p / q, 0)


def _how_far(rise: Callable, start: Float[Array, "*cells"]) -> Float[Array, "*cells"]:
    """A share of a step, at most 1, where the divergence rises half as steeply at most as it falls at the start."""

    def shorter(_: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        share, there = state
        too_far = there > -0.5 * start
        chord = jnp.clip(start / jnp.where(too_far, start - there, -1), 0.5, 1)
        share = jnp.where(too_far, share * chord, share)
        return share, rise(share)

    whole = jnp.ones_like(start)
    return jax.lax.fori_loop(0, _SHORTER, shorter, (whole, rise(whole)))[0]


def _faces(
    slope: Place, curvature: Float[Array, "D D *cells"], place: Place
) -> tuple[Float[Array, "F *cells"], list[Float[Array, "F *cells"]]]:
    """The step d with the least slope·d + ½ d·curvature·d on each face of the unit cube, and this value; ∞ if outside.

    Coordinates are taken one after the other, from the last: solved for, unless the curvature is too flat for that, put
    at 0, and put at 1, on an axis of its own each.
    """
    dimensions, cells = slope.shape[0], slope.shape[1:]
    eps = float(jnp.finfo(slope.dtype).eps)
    noise = 64 * eps * _steepest(curvature)
    value, left = jnp.zeros((), slope.dtype), list(slope)
    held = [list(row) for row in curvature]
    levels = []
    for j in reversed(range(dimensions)):
        kind = jnp.arange(3).reshape(3, *(1,) * (j + len(cells)))
        inside, end = kind == 0, jnp.where(kind == 1, 0, 1) - place[j]
        own, pivot, across = left[j], held[j][j], held[j][:j]
        firm = pivot > 4 * noise
        inverse = jnp.where(firm, 1 / jnp.where(firm, pivot, 1), 0)
        at_end = own * end + 0.5 * pivot * end * end + noise  # of what is as good, the inside
        value = value + jnp.where(inside, -0.5 * own * own * inverse, at_end)
        first, second = jnp.where(inside, -own * inverse, end), jnp.where(inside, inverse, 0)
        left = [left[i] + across[i] * first for i in range(j)]
        held = [[held[i][k] - across[i] * across[k] * second for k in range(j)] for i in range(j)]
        levels.append((inside, end, own, across, inverse))
    steps: list[Array] = []
    for inside, end, own, across, inverse in reversed(levels):
        pull = reduce(jnp.add, [a * step for a, step in zip(across, steps, strict=True)], own)
        steps.append(jnp.where(inside, -pull * inverse, end))
    within = [(step >= -place[j] - 16 * eps) & (step <= 1 - place[j] + 16 * eps) for j, step in enumerate(steps)]
    value = jnp.where(reduce(jnp.logical_and, within), value, jnp.inf)
    every = (3,) * dimensions + cells
    value, *steps = (jnp.broadcast_to(each, every).reshape(3**dimensions, *cells) for each in (value, *steps))
    return value, steps


def _lowest(values: Float[Array, "F *cells"], steps: list[Float[Array, "F *cells"]]) -> Place:
    """The step of least value, the first of equals."""
    _, *best = fold(lambda one, other: one[0] <= other[0], (values, *steps))
    return jnp.stack(best)


def _by_active_set(slope: Place, curvature: Float[Array, "D D *cells"], place: Place) -> Place:
    """A step d in the unit cube that minimises slope·d + ½ d·curvature·d, by a primal active-set method.

    Each turn goes towards the least value with some coordinates held at their ends: up to the first of the others that
    meets its end, which is held from then on, or, there, lets go of the held one that would gain most inside. No turn
    goes uphill, so that a step cut short by the number of turns is still a step down. What the curvature does not tell
    stays where it is.
    """
    dimensions = len(slope)
    eps = float(jnp.finfo(slope.dtype).eps)
    noise = 64 * eps * _steepest(curvature)
    low, high = -place, 1 - place
    order = jnp.arange(dimensions).reshape(-1, *(1,) * (slope.ndim - 1))

    def ahead(step: Place) -> Place:
        return slope + reduce(jnp.add, [curvature[:, j] * step[j] for j in range(dimensions)])

    def way(free: Bool[Array, "D *cells"], step: Place) -> Place:
        """To the least value as these coordinates move alone."""
        left = jnp.where(free, -ahead(step), 0)
        rows = jnp.where(free[:, None] & free, curvature, 0)
        pivots = []
        for k in range(dimensions):
            firm = rows[k, k] > 4 * noise
            pivots.append(jnp.where(firm, rows[k, k], jnp.inf))
            share = (rows[:, k] / pivots[k]).at[k].set(0)
            left = left - share * left[k]
            rows = rows - share[:, None] * rows[k]
        return left / jnp.stack(pivots)

    def turn(state: tuple) -> tuple:
        number, step, held, _ = state
        towards = way(~held, step)
        room = jnp.where(towards < 0, low - step, high - step) / jnp.where(towards == 0, 1, towards)
        room = jnp.where(towards == 0, jnp.inf, jnp.maximum(room, 0))
        meets = (jnp.min(room, axis=0) < 1) & (order == jnp.argmin(room, axis=0))
        step = jnp.clip(step + jnp.minimum(1, jnp.min(room, axis=0)) * towards, low, high)
        step = jnp.where(meets, jnp.where(towards < 0, low, high), step)
        down = ahead(step)
        gain = jnp.where(held, jnp.where(step <= low, -down, down), 0)
        most = jnp.max(gain, axis=0)
        stopped = jnp.any(meets, axis=0)
        let_go = ~stopped & (most > noise) & (order == jnp.argmax(gain, axis=0))
        return number + 1, step, (held | meets) & ~let_go, jnp.any(stopped | (most > noise))

    def unfinished(state: tuple) -> Bool[Array, ""]:
        return (state[0] < _STEPS + 4 * dimensions) & state[-1]

    held = ((low >= 0) & (slope > 0)) | ((high <= 0) & (slope < 0))
    start = jnp.int32(0), jnp.zeros_like(place), held, jnp.asarray(True)
    return jax.lax.while_loop(unfinished, turn, start)[1]
