"""Two actions and beliefs in a box of any dimension: equilibria and rationalizable set along σ ∈ [0, 1] (theory §2).

Between the ends both actions are played and what they predict is pinned down, so that the lead of one action over the
other is one number f(σ), continuous where the projection is; at the ends the action not played may be unidentified.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

from epijax.boxes import MOST_FACED, Fit, box_of, fit, nearest
from epijax.cells import positive
from epijax.environment import GaussianEnvironment
from epijax.problem import Problem
from epijax.response import utilities
from epijax.solution import Solution, bits, conclude, verdict
from epijax.subjective import Categorical, Custom

MOST_MIXED = 4
_NEAR_END = (1e-6, 1e-4, 1e-2)  # where limits at the ends show
_ROW = 16  # σ looked at in a round for the peak of f and as many for its trough, then in all for its roots
_NARROWINGS, _ROOT_ROUNDS = 6, 8


def solve_continuous(problem: Problem, tolerance: float) -> Solution:
    """Pure, strict and mixed Berk–Nash equilibria and the rationalizable set of two actions and a box of beliefs.

    With f(σ) the lead of action 0 under what fits σ best: an action is justified iff it leads somewhere on [0, 1], the
    ends with all that fits there; a mixed equilibrium is a root of f, or a jump across 0, where beliefs on both sides
    fit equally well and a mixture of them makes the agent indifferent. Payoffs affine in θ, as in `AffineBernoulli` and
    `GaussianLinear`, have f with a single peak or trough, since the path of predictions runs along the border of a
    convex set; it is looked for by narrowing down, and so are the largest and the smallest f of other families.

    **Arguments:** `problem`, of two actions; `tolerance`, as a share of the largest payoff that can be expected.

    **Returns:** the `Solution`, with `MOST_MIXED` rows of `mixed`; status `BOUNDARY` and margin NaN where a projection
    did not converge, or several answers of a family that is not convex cannot be told apart.

    Source: theory §2, §6; [EP16], [EP25].
    """
    scale = expected_scale(problem)

    def lead(theta: Float[Array, "D"]) -> Float[Array, ""]:
        worth = utilities(problem.environment, box_of(problem), theta)
        return (worth[0] - worth[1]) / scale

    def look(shares: Float[Array, "N"]) -> tuple[Float[Array, "N"], Bool[Array, ""]]:
        sigmas = jnp.stack([shares, 1 - shares], axis=1)
        thetas, converged = jax.vmap(lambda sigma: nearest(known, problem.explored(sigma)))(sigmas)
        return jax.vmap(lead)(thetas), jnp.all(converged)

    known = jax.lax.stop_gradient(problem)
    turns, roots, num_mixed, sure = edge_roots(look, scale.dtype)
    sigmas = jnp.array([[1, 0], [0, 1], [0.5, 0.5]], scale.dtype)
    sigmas = jnp.concatenate([sigmas, jnp.stack([turns, 1 - turns], axis=1)])
    fits = jax.vmap(lambda sigma: fit(problem, problem.explored(sigma)))(sigmas)
    taught = [doubted_range(problem, lead, jax.tree.map(lambda leaf, x=x: leaf[x], fits)) for x in (0, 1)]
    peaks = jax.vmap(lead)(fits.theta[3:])
    most = jnp.stack([peaks[0], *(high for _, high, _ in taught)])
    least = jnp.stack([peaks[1], *(low for low, _, _ in taught)])
    exists = jnp.arange(MOST_MIXED) < num_mixed
    mixed = jnp.where(exists[:, None], jnp.stack([roots, 1 - roots], axis=1), jnp.nan)

    (low_0, high_0, doubt_0), (low_1, high_1, doubt_1) = taught
    slacks = jnp.concatenate(
        [
            jnp.abs(jnp.stack([low_0, high_0])) - doubt_0,
            jnp.abs(jnp.stack([low_1, high_1])) - doubt_1,
            jnp.abs(peaks),
        ]
    )
    sure &= jnp.all(fits.converged) & (num_mixed <= MOST_MIXED)
    sure &= (num_mixed > 0) | (high_0 >= -tolerance) | (low_1 <= tolerance)  # an equilibrium exists
    margin = jnp.where(sure, jnp.maximum(jnp.min(slacks), 0), jnp.nan)
    return conclude(
        rationalizable=bits([jnp.max(most) >= -tolerance, jnp.min(least) <= tolerance]),
        pure=bits([high_0 >= -tolerance, low_1 <= tolerance]),
        strict=bits([low_0 > tolerance, high_1 < -tolerance]),
        mixed=mixed,
        num_mixed=jnp.sum(exists).astype(jnp.int32),
        margin=margin,
        status=verdict(margin, tolerance, jnp.isinf(fits.value[2]), problem.is_valid()),
    )


def edge_roots(
    look: Callable, dtype: Any
) -> tuple[Float[Array, "2"], Float[Array, "E"], Int[Array, ""], Bool[Array, ""]]:
    """Where f is largest and smallest between the ends, its roots and their number, and whether all was found.

    One loop, so that a projection is compiled once. It looks at a grid; then closer around the peak and the trough;
    then closer around each change of sign among all that.
    """
    near = jnp.array(_NEAR_END, dtype)
    inside = jnp.linspace(0, 1, _ROW - 2 * len(near) + 2, dtype=dtype)[1:-1]
    grid = jnp.sort(jnp.concatenate([near, inside, 1 - near]))
    signs = jnp.array([1, -1], dtype)
    even = jnp.linspace(0, 1, _ROW, dtype=dtype)
    cuts = jnp.linspace(0, 1, 2 * _ROW // MOST_MIXED + 1, dtype=dtype)[1:-1]

    def crossing(state: dict) -> Float[Array, "E"]:
        """Where the chords of f over the brackets are zero, as a share of each."""
        fall = state["f_left"] - state["f_right"]
        return jnp.clip(state["f_left"] / jnp.where(fall == 0, 1, fall), 0, 1)

    def around_roots(state: dict) -> Float[Array, "E N"]:
        shares = jnp.concatenate([jnp.broadcast_to(cuts, (MOST_MIXED, len(cuts))), crossing(state)[:, None]], axis=1)
        return _between(state["left"], state["right"], jnp.sort(shares, axis=1))

    def turned(state: dict, shares: Float[Array, "2 N"], leads: Float[Array, "2 N"], first: Bool[Array, ""]) -> dict:
        """Closer around the peak and the trough; and the brackets of all changes of sign seen so far."""
        best = jnp.argmax(signs[:, None] * leads, axis=1)
        place, value = _picked(shares, best), _picked(leads, best)
        better = first | (signs * value > signs * state["peak"])
        turn, peak = jnp.where(better, place, state["turn"]), jnp.where(better, value, state["peak"])
        on_grid = jnp.where(first, leads[0], state["on_grid"])
        path, along = jnp.concatenate([grid, turn]), jnp.concatenate([on_grid, peak])
        order = jnp.argsort(path)
        path, along = path[order], along[order]
        changes = (along[:-1] > 0) != (along[1:] > 0)
        (index,) = jnp.nonzero(changes, size=MOST_MIXED, fill_value=0)
        return state | {
            "low": _picked(shares, jnp.maximum(best - 1, 0)),
            "high": _picked(shares, jnp.minimum(best + 1, _ROW - 1)),
            "turn": turn,
            "peak": peak,
            "on_grid": on_grid,
            "count": jnp.sum(changes).astype(jnp.int32),
            "left": path[index],
            "right": path[index + 1],
            "f_left": along[index],
            "f_right": along[index + 1],
        }

    def rooted(state: dict, shares: Float[Array, "E N"], leads: Float[Array, "E N"]) -> dict:
        """The first change of sign in each bracket becomes the bracket."""
        path = jnp.concatenate([state["left"][:, None], shares, state["right"][:, None]], axis=1)
        along = jnp.concatenate([state["f_left"][:, None], leads, state["f_right"][:, None]], axis=1)
        at = jnp.argmax((along[:, :-1] > 0) != (along[:, 1:] > 0), axis=1)
        return state | {
            "left": _picked(path, at),
            "right": _picked(path, at + 1),
            "f_left": _picked(along, at),
            "f_right": _picked(along, at + 1),
        }

    def one_round(i: Array, state: dict) -> dict:
        closer = jnp.where(i == 0, grid, _between(state["low"], state["high"], even))
        turning = i <= _NARROWINGS
        shares = jnp.where(turning, closer.reshape(-1), around_roots(state).reshape(-1))
        leads, converged = look(shares)
        turns = turned(state, closer, leads.reshape(2, _ROW), i == 0)
        roots = rooted(state, shares.reshape(MOST_MIXED, -1), leads.reshape(MOST_MIXED, -1))
        state = jax.tree.map(lambda a, b: jnp.where(turning, a, b), turns, roots)
        return state | {"sure": state["sure"] & converged}

    two, four = jnp.full(2, 0.5, dtype), jnp.full(MOST_MIXED, 0.5, dtype)
    state = {name: four for name in ("left", "right", "f_left", "f_right")}
    state |= {name: two for name in ("low", "high", "turn", "peak")}
    state |= {"on_grid": jnp.zeros_like(grid), "count": jnp.int32(0), "sure": jnp.asarray(True)}
    state = jax.lax.fori_loop(0, 1 + _NARROWINGS + _ROOT_ROUNDS, one_round, state)
    roots = _between(state["left"], state["right"], crossing(state)[:, None])[:, 0]
    return state["turn"], roots, state["count"], state["sure"]


def _between(low: Float[Array, "N"], high: Float[Array, "N"], shares: Float[Array, "..."]) -> Float[Array, "N M"]:
    return low[:, None] * (1 - shares) + high[:, None] * shares


def _picked(rows: Shaped[Array, "N M"], index: Int[Array, "N"]) -> Shaped[Array, "N"]:
    return jnp.take_along_axis(rows, index[:, None], axis=1)[:, 0]


def expected_scale(problem: Problem) -> Float[Array, ""]:
    """The largest payoff that can be expected, in size: by the payoffs, or, affine in θ, anywhere in the box."""
    environment, model = problem.environment, box_of(problem)
    if isinstance(environment, GaussianEnvironment):
        worth = partial(utilities, environment, model)
        middle, half = (model.lower + model.upper) / 2, (model.upper - model.lower) / 2
        return positive(jnp.max(jnp.abs(worth(middle)) + jnp.abs(jax.jacfwd(worth)(middle)) @ half))
    return positive(jnp.max(jnp.abs(environment.payoffs)))


def doubted_range(
    problem: Problem, lead: Callable, found: Fit
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """The least and the greatest lead over all that fits, and by how much they may be wrong.

    Payoffs affine in θ are so at extreme points. Of logits they are looked at on the way from each extreme point to
    each other one, and may be wrong by what twice as many looks change; of a family of the user's own they may be wrong
    by the largest step from one θ found to the next, unless these reach from end to end of the box.
    """
    leads = jnp.where(jnp.isnan(found.extremes[:, 0]), jnp.nan, jax.vmap(lead)(found.extremes))
    low, high = jnp.nanmin(leads), jnp.nanmax(leads)
    model = problem.model
    if isinstance(model, Custom):  # several θ that fit, found by sampling, may stop short of the ends of what fits
        places = (found.extremes - model.lower) / jnp.where(model.upper > model.lower, model.upper - model.lower, 1)
        least, most = jnp.nanmin(places, axis=0), jnp.nanmax(places, axis=0)
        short = jnp.any((most - least > 1e-3) & ((least > 0) | (most < 1)))
        return low, high, jnp.where(short, jnp.nanmax(jnp.diff(jnp.sort(leads))), 0)
    if not isinstance(model, Categorical):
        return low, high, jnp.zeros_like(low)
    if len(model.lower) > MOST_FACED:  # not all extreme points are known
        return low, high, jnp.where(found.single, 0, jnp.inf)

    def between(count: int) -> tuple[Float[Array, ""], Float[Array, ""]]:
        share = jnp.linspace(0, 1, count, dtype=leads.dtype)[:, None, None, None]
        ways = (1 - share) * found.extremes[:, None] + share * found.extremes
        looked = jax.vmap(lead)(ways.reshape(-1, ways.shape[-1]))
        return jnp.nanmin(looked), jnp.nanmax(looked)

    (rough_low, rough_high), (low, high) = between(9), between(17)
    return low, high, jnp.maximum(jnp.abs(low - rough_low), jnp.abs(high - rough_high))
