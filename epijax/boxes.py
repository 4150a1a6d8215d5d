"""Projections on boxes of any dimension: what fits best, and all that fits as well (theory §1, §6).

In coordinates in which the box is the unit cube. Families convex in θ have a solver of their own, `convex`; the user's
own are searched from many starts.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from epijax.cells import positive
from epijax.convex import nearest_convex
from epijax.environment import Environment, Numbers, as_float
from epijax.problem import Problem
from epijax.projection import divergences
from epijax.subjective import AffineBernoulli, BoxModel, Categorical, Custom, Finite, GaussianLinear

MOST_FACED = 6  # parameters of which all 3**D faces of the box are looked at
_STEPS = 100
_TRIED = 0.25 ** np.arange(4)  # shares of a step
_FLAT = 1e-13  # of the largest curvature: what is flatter is not identified
_CONVERGED = {"float32": 1e-4, "float64": 1e-10}
_GRID = (65, 17, 9, 7, 5, 5)  # places an axis where the user's own families are looked at, by the number of parameters
_SCATTERED = 1 << 14  # places of more parameters
_STARTS = 8  # of these, where a search begins


class Fit(eqx.Module):
    """The KL projection for one strategy.

    - `theta`: `[D]`, a θ that fits best; differentiable in environment, bounds and strategy away from kinks.
    - `value`: its weighted divergence, nats; +∞ where every θ is refuted.
    - `residual`: how far θ is from the optimality conditions on the box: the step that a gradient scaled by the largest
      curvature would still take, as a share of the box.
    - `converged`: whether the residual is within 1e-10 (1e-4 in float32).
    - `extremes`: `[V, D]`, `theta`, and the extreme points of the set of all θ that fit as well, NaN in unused rows; of
      more than `MOST_FACED` parameters those that are extreme in what is predicted of one action or another.
    - `single`: whether `theta` alone fits best: what is played identifies every parameter, or, for families of the
      user's own, the search has found no other; of more than `MOST_FACED` parameters, whether all that fits predicts
      the same.
    - `agreement`: the share of starts that ended at this value; 1 for families that are convex in θ, where one start
      proves it. The user's own start from the lowest places on a grid: what they find at different θ is among the
      extremes, and so are the ends of coordinates that do not matter.
    """

    theta: Float[Array, "D"]
    value: Float[Array, ""]
    residual: Float[Array, ""]
    converged: Bool[Array, ""]
    extremes: Float[Array, "V D"]
    single: Bool[Array, ""]
    agreement: Float[Array, ""]


@eqx.filter_jit
def best_fit(problem: Problem, sigma: Numbers) -> Fit:
    """Θ(σ) = argmin_θ K(σ, θ) over the box, for any family with one (theory §1).

    **Arguments:** `problem`; `sigma`: `[A]`, frequencies of play, before exploration.

    **Returns:** the `Fit`.

    Raises `ValueError` for a sigma of another length, and for a model that is a list of parameters (read the least of
    `tabulate`'s divergences).
    """
    sigma = as_float(sigma)
    if isinstance(problem.model, Finite):
        raise ValueError("best_fit takes a model with a box; of a list of parameters, read tabulate's divergences")
    if sigma.shape != (problem.num_actions,):
        raise ValueError(f"sigma must be [{problem.num_actions}], one frequency an action; got {sigma.shape}")
    return fit(problem, problem.explored(sigma))


def fit(problem: Problem, weights: Float[Array, "A"]) -> Fit:
    """The projection for the given weights on actions, exploration included."""
    model = box_of(problem)
    found, residual, curvature, ends, values = _search(problem, weights)
    value = jnp.min(values)
    level = value + jnp.sqrt(jnp.finfo(weights.dtype).eps) * jnp.maximum(1, jnp.abs(value))
    dynamic, static = eqx.partition((problem, weights), eqx.is_inexact_array)
    place = _differentiable(partial(_weighted, static, dynamic), found, curvature)
    width = model.upper - model.lower
    theta = model.lower + width * place
    looked = jnp.asarray(True)
    if isinstance(model, Custom):
        sides = _sides(found)  # a coordinate that does not matter fits as well at its ends
        others = jnp.concatenate([ends, sides])
        fits = jnp.concatenate([values, jax.vmap(partial(_weighted, static, dynamic))(sides)])
        distinct = (fits <= level) & jnp.any(jnp.abs(others - found) > 1e-3, axis=1)
        spread = jnp.where(distinct[:, None], others, jnp.nan)
        single = ~jnp.any(distinct)
    elif len(found) <= MOST_FACED:
        spread = _extremes(_identified(model, weights) * width, found)
        single = ~jnp.isnan(spread[-1, 0])  # no coordinate at an end: all of them follow from what is identified
    else:
        predicted = _identified(model, jnp.ones_like(weights)) * width
        spread, looked = _furthest(_identified(model, weights) * width, predicted, found)
        single = jnp.max(jnp.abs(_scaled(predicted) @ (spread - found).T)) <= _close(found)
    return Fit(
        theta=theta,
        value=weighted_divergence(weights, divergences(problem.environment, model, theta)),
        residual=residual,
        converged=(residual <= _CONVERGED[weights.dtype.name]) & jnp.isfinite(value) & looked,
        extremes=jnp.concatenate([theta[None], model.lower + width * spread]),
        single=single,
        agreement=jnp.sum(values <= level) / jnp.maximum(1, jnp.sum(values < jnp.inf)),
    )


def nearest(problem: Problem, weights: Float[Array, "A"]) -> tuple[Float[Array, "D"], Bool[Array, ""]]:
    """A θ that fits best, without derivatives, and whether it was found: the quick part of `fit`."""
    model = box_of(problem)
    place, residual, _, _, values = _search(problem, weights)
    converged = (residual <= _CONVERGED[weights.dtype.name]) & jnp.isfinite(jnp.min(values))
    return model.lower + (model.upper - model.lower) * place, converged


def moving(problem: Problem, weights: Float[Array, "A"], theta: Float[Array, "D"]) -> Float[Array, "D"]:
    """An extreme point of all that fits best, as found, with its derivative: what is at a bound goes with that bound,
    and the rest fits best given it."""
    model = box_of(problem)
    width = model.upper - model.lower
    place = jax.lax.stop_gradient((theta - model.lower) / jnp.where(width > 0, width, 1))
    rounding = 64 * jnp.finfo(place.dtype).eps
    place = jnp.where(place < rounding, 0, jnp.where((place > 1 - rounding) | (width == 0), 1, place))
    dynamic, static = eqx.partition((problem, weights), eqx.is_inexact_array)
    objective = partial(_weighted, static, dynamic)
    curvature = jax.lax.stop_gradient(jax.hessian(objective)(place))
    return model.lower + width * _differentiable(objective, place, curvature)


def box_of(problem: Problem) -> BoxModel:
    """The problem's model, known to have a box."""
    assert not isinstance(problem.model, Finite)
    return problem.model


def _search(problem: Problem, weights: Float[Array, "A"]) -> tuple[Array, Array, Array, Array, Array]:
    """Where in the unit cube weights fit best `[D]`, the residual, the curvature `[D, D]`; where each start ended
    `[N, D]`, and the value there `[N]`. Without derivatives."""
    dynamic, static = jax.lax.stop_gradient(eqx.partition((problem, weights), eqx.is_inexact_array))
    objective = partial(_weighted, static, dynamic)
    known = eqx.combine(dynamic, static)
    if not isinstance(problem.model, Custom):
        place, residual, curvature = nearest_convex(*known)
        return place, residual, curvature, place[None], objective(place)[None]
    starts, distinct = _starts(*known)
    ends, values, residuals, curvatures = jax.vmap(partial(_minimise, objective))(starts)
    values = jnp.where(distinct, values, jnp.inf)
    best = jnp.argmin(values)
    return ends[best], residuals[best], curvatures[best], ends, values


def _weighted(static: Any, dynamic: Any, place: Float[Array, "D"]) -> Float[Array, ""]:
    """Σ w(x) K(x, θ) with 0·∞ = 0, θ given by its place in the unit cube."""
    problem, weights = eqx.combine(dynamic, static)
    return weighted_divergence(weights, _at(problem, place))


def _at(problem: Problem, place: Float[Array, "D"]) -> Float[Array, "A"]:
    """The divergences; of a family of the user's own without the care for small ones that a search does not need."""
    model = box_of(problem)
    theta = model.lower + (model.upper - model.lower) * place
    if not isinstance(model, Custom):
        return divergences(problem.environment, model, theta)
    assert isinstance(problem.environment, Environment)
    truth, believed = problem.environment.outcome_probs, model.log_probs(theta)
    happens = truth > 0
    apart = jnp.where(happens, jnp.log(jnp.where(happens, truth, 1)) - jnp.where(happens, believed, 0), 0)
    return jnp.sum(truth * apart, axis=-1)


def weighted_divergence(weights: Float[Array, "A"], each: Float[Array, "A"]) -> Float[Array, ""]:
    """Σ w(x) K(x, θ) with 0·∞ = 0."""
    played = weights > 0
    return jnp.sum(jnp.where(played, weights, 0) * jnp.where(played, each, 0))


def _starts(problem: Problem, weights: Float[Array, "A"]) -> tuple[Float[Array, "N D"], Bool[Array, "N"]]:
    """The lowest of the places on a grid below which none of their neighbours is, and which rows hold one; of many
    parameters the lowest of scattered places."""
    model = box_of(problem)
    dimensions = len(model.lower)
    if dimensions > len(_GRID):
        from scipy.stats import qmc  # half a second, for these alone

        scattered = jnp.asarray(qmc.Sobol(dimensions, scramble=False).random(_SCATTERED), weights.dtype)
        fits = jax.lax.map(lambda place: weighted_divergence(weights, _at(problem, place)), scattered, batch_size=256)
        height, index = jax.lax.top_k(-jnp.where(jnp.isfinite(fits), fits, jnp.inf), _STARTS)
        return scattered[index], height > -jnp.inf
    axis = (np.arange(_GRID[dimensions - 1]) + 0.5) / _GRID[dimensions - 1]
    places = jnp.asarray(np.stack(np.meshgrid(*[axis] * dimensions, indexing="ij"), axis=-1), weights.dtype)
    flat = places.reshape(-1, dimensions)
    values = jax.vmap(lambda place: weighted_divergence(weights, _at(problem, place)))(flat).reshape(places.shape[:-1])
    lowest = jnp.isfinite(values)
    for d in range(dimensions):
        around = jnp.pad(values, [(1, 1) if i == d else (0, 0) for i in range(dimensions)], constant_values=jnp.inf)
        size = values.shape[d]
        lowest &= values <= jnp.minimum(
            jax.lax.slice_in_dim(around, 0, size, axis=d), jax.lax.slice_in_dim(around, 2, size + 2, axis=d)
        )
    height, index = jax.lax.top_k(-jnp.where(lowest, values, jnp.inf).reshape(-1), min(_STARTS, values.size))
    return flat[index], height > -jnp.inf


def _sides(place: Float[Array, "D"]) -> Float[Array, "N D"]:
    """The place with each coordinate kept, put at 0 or put at 1, in every combination; of many, one at a time."""
    if len(place) > MOST_FACED:
        own = jnp.eye(len(place), dtype=bool)
        return jnp.concatenate([jnp.where(own, end, place) for end in (0, 1)])
    ways = _faces(len(place), place.dtype)
    return jnp.where(jnp.isnan(ways), place, ways)


def _minimise(objective: Callable, start: Float[Array, "D"]) -> tuple[Array, Array, Array, Array]:
    """The least of `objective` on the unit cube near `start` `[D]`, its value, the residual and the curvature `[D, D]`.

    Each step looks at shares of a Newton step among the coordinates that are free, bent along the sides of the cube
    and cut off at the first of them, and of a gradient step, and takes the lowest; where values are too close to tell,
    a full Newton step that lessens the residual.
    """
    parts = jnp.asarray(_TRIED, start.dtype)[:, None]
    rounding = 8 * jnp.finfo(start.dtype).eps

    def measure(place: Float[Array, "D"]) -> tuple:
        slope, curvature = jax.grad(objective)(place), jax.hessian(objective)(place)
        # where a divergence is infinite next door, what cannot be told is no reason to move
        slope, curvature = (jnp.where(jnp.isfinite(each), each, 0) for each in (slope, curvature))
        steepest = jnp.max(jnp.abs(jnp.diagonal(curvature)))
        scaled = slope / jnp.where(steepest > 0, steepest, 1)
        return slope, curvature, steepest, jnp.max(jnp.abs(place - jnp.clip(place - scaled, 0, 1)))

    def better(state: tuple) -> tuple:
        step, place, value, (slope, curvature, steepest, residual), _ = state
        free = ~(((place <= 0) & (slope > 0)) | ((place >= 1) & (slope < 0)))
        newton = -_solve_positive(curvature, slope, free)[0]
        down = -slope / jnp.where(steepest > 0, steepest, 1)
        room = jnp.where(newton > 0, 1 - place, place) / jnp.where(newton == 0, 1, jnp.abs(newton))
        cut = jnp.minimum(1, jnp.min(jnp.where((newton == 0) | (room == 0), 1, room)))
        tried = place + jnp.concatenate([parts * newton, parts * cut * newton, parts[::2] * down])
        tried = jnp.where(tried < rounding, 0, jnp.where(tried > 1 - rounding, 1, tried))
        values = jax.vmap(objective)(tried)
        values = jnp.where(jnp.isnan(values), jnp.inf, values)
        lowest = jnp.argmin(values)
        lower = values[lowest] < value - rounding * jnp.abs(value)
        chosen = jnp.where(lower, lowest, 0)
        measured = measure(tried[chosen])
        level = values[0] <= value + rounding * jnp.maximum(jnp.abs(value), 1)
        moved = lower | (level & (measured[-1] < 0.5 * residual))
        kept = (place, value, (slope, curvature, steepest, residual))
        new = (tried[chosen], values[chosen], measured)
        place, value, measured = jax.tree.map(lambda a, b: jnp.where(moved, a, b), new, kept)
        return step + 1, place, value, measured, ~moved

    def unfinished(state: tuple) -> Bool[Array, ""]:
        step, _, _, measured, stuck = state
        return (step < _STEPS) & (measured[-1] > 0) & ~stuck

    # nothing measured yet: the first step goes nowhere, finds that better than nothing, and measures there
    unknown = jnp.zeros_like(start), jnp.zeros((start.size, start.size), start.dtype), jnp.zeros((), start.dtype)
    first = (jnp.int32(0), start, objective(start), (*unknown, jnp.asarray(jnp.inf, start.dtype)), jnp.asarray(False))
    _, place, value, (_, curvature, _, residual), _ = jax.lax.while_loop(unfinished, better, first)
    return place, value, residual, curvature


def _differentiable(objective: Callable, place: Float[Array, "D"], curvature: Float[Array, "D D"]) -> Float[Array, "D"]:
    """The minimiser with its derivative, by the implicit function theorem: a Newton step that moves nothing."""
    slope = jax.grad(objective)(place)
    settled = jax.lax.stop_gradient(slope)
    free = (place > 0) & (place < 1) & jnp.isfinite(settled)
    step, _ = _solve_positive(curvature, jnp.where(free, slope - settled, 0), free)
    return place - step


def _solve_positive(
    matrix: Float[Array, "D D"], vector: Float[Array, "D"], free: Bool[Array, "D"], flat: float = _FLAT
) -> tuple[Float[Array, "D"], Bool[Array, "D"]]:
    """matrix⁻¹ vector among the free coordinates, 0 in the others, and which coordinates were solved for.

    By elimination, the steepest coordinate left first; those left with less than `flat` of the steepest one's curvature
    stay where they are.
    """
    size = len(vector)
    body = jnp.where(free[:, None] & free, matrix, 0)
    right = jnp.where(free, vector, 0)
    least = flat * jnp.max(jnp.abs(jnp.diagonal(body)))
    left, solved = free, jnp.zeros(size, bool)
    for _ in range(size):
        steepness = jnp.where(left, jnp.diagonal(body), -jnp.inf)
        chosen = jnp.arange(size) == jnp.argmax(steepness)
        pivot = jnp.max(steepness)
        fine = (pivot > least) & (pivot > 0)
        row, value = (jnp.sum(jnp.where(chosen, one.T, 0), axis=-1) for one in (body, right))
        row, value = row / jnp.where(fine, pivot, 1), value / jnp.where(fine, pivot, 1)
        column = jnp.where(chosen, 0, jnp.sum(jnp.where(chosen, body, 0), axis=1))
        body = jnp.where(fine, jnp.where(chosen[:, None], row, body - column[:, None] * row), body)
        right = jnp.where(fine, jnp.where(chosen, value, right - column * value), right)
        solved |= chosen & fine
        left &= ~chosen
    return jnp.where(solved, right, 0), solved


# All that fits as well: beliefs that predict the same for what is played


def _identified(model: BoxModel, weights: Float[Array, "A"]) -> Float[Array, "R D"]:
    """Rows whose products with θ are what play of positive weight identifies; zeros for what is not played."""
    played = jnp.where(weights > 0, 1.0, 0.0).astype(weights.dtype)
    if isinstance(model, AffineBernoulli):
        return played[:, None] * model.slope
    if isinstance(model, GaussianLinear):
        return played[:, None] * model.design
    assert isinstance(model, Categorical)
    possible = jnp.isfinite(model.logit_intercept)
    first = jnp.argmax(possible, axis=1)
    base = jnp.take_along_axis(model.logit_slope, first[:, None, None], axis=1)
    rows = jnp.where(possible[:, :, None], model.logit_slope - base, 0)
    return (played[:, None, None] * rows).reshape(-1, rows.shape[-1])


def _extremes(rows: Float[Array, "R D"], place: Float[Array, "D"]) -> Float[Array, "V D"]:
    """The extreme points of {u in the unit cube: rows·u = rows·place}, `[3**D, D]`, NaN where a face has none.

    At an extreme point the columns of the coordinates inside (0, 1) are independent, so that these follow from the
    others: every way to put each coordinate at 0, at 1 or inside is tried.
    """
    rows, close = _scaled(rows), _close(place)
    gram, target = rows.T @ rows, rows @ place

    def on_face(kinds: Float[Array, "D"]) -> Float[Array, "D"]:
        inside = jnp.isnan(kinds)
        given = jnp.where(inside, 0, kinds)
        solved, apart = _solve_positive(gram, rows.T @ (target - rows @ given), inside, 1e-3 * close)
        point = jnp.where(inside, solved, given)
        missed = jnp.max(jnp.abs(rows @ point - target))
        fine = jnp.all(apart == inside) & (missed <= close) & jnp.all((point >= -close) & (point <= 1 + close))
        return jnp.where(fine, jnp.clip(point, 0, 1), jnp.nan)

    return jax.vmap(on_face)(_faces(len(place), place.dtype))


def _furthest(
    rows: Float[Array, "R D"], ways: Float[Array, "S D"], place: Float[Array, "D"]
) -> tuple[Float[Array, "2*S D"], Bool[Array, ""]]:
    """The points of {u in the unit cube: rows·u = rows·place} furthest along each of these ways and against it, and
    whether all were found: linear programs.

    From `place` each goes as steeply as `rows` allow until a coordinate is at its end and stays there; where nothing is
    left to gain, one that would rather be inside is let go. The multipliers show when there is none.
    """
    rows, ways, close = _scaled(rows), _scaled(ways), _close(place)
    dimensions = len(place)

    def go(way: Float[Array, "D"]) -> tuple[Float[Array, "D"], Bool[Array, ""]]:
        def better(state: tuple) -> tuple:
            turn, point, held, _ = state
            free = jnp.where(held, 0, rows)
            multipliers, _ = _solve_positive(free @ free.T, free @ way, jnp.ones(len(rows), bool), 1e-3 * close)
            gain = way - multipliers @ rows
            gain = jnp.where(jnp.abs(gain) > close, gain, 0)
            along = jnp.where(held, 0, gain)
            moves = jnp.any(along != 0)
            room = jnp.where(along > 0, 1 - point, point) / jnp.where(along == 0, 1, jnp.abs(along))
            stop = jnp.argmin(jnp.where(along == 0, jnp.inf, room))
            inward = held & (jnp.where(point < 0.5, gain, -gain) > 0)
            go_on = jnp.arange(dimensions) == jnp.where(moves, stop, jnp.argmax(inward))
            end = jnp.where(along > 0, 1.0, 0.0).astype(point.dtype)
            point = jnp.where(moves & go_on, end, jnp.clip(point + room[stop] * along, 0, 1))
            return turn + 1, point, jnp.where(moves, held | go_on, held & ~go_on), moves | jnp.any(inward)

        def unfinished(state: tuple) -> Bool[Array, ""]:
            return state[-1] & (state[0] < _STEPS + 10 * dimensions)

        start = jnp.int32(0), place, (place <= 0) | (place >= 1), jnp.asarray(True)
        _, point, _, goes_on = jax.lax.while_loop(unfinished, better, start)
        return point, ~goes_on & (jnp.max(jnp.abs(rows @ (point - place))) <= close)

    points, ended = jax.vmap(go)(jnp.concatenate([ways, -ways]))
    return points, jnp.all(ended)


def _scaled(rows: Float[Array, "R D"]) -> Float[Array, "R D"]:
    return rows / positive(jnp.max(jnp.abs(rows)))


def _close(place: Float[Array, "D"]) -> float:
    return float(jnp.finfo(place.dtype).eps) ** 0.5


def _faces(dimensions: int, dtype: Any) -> Float[Array, "V D"]:
    """Every way to put each coordinate at 0, at 1 or inside (NaN)."""
    return jnp.asarray(list(product((0.0, 1.0, np.nan), repeat=dimensions)), dtype)
