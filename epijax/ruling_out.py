"""What no play of some actions can make the agent do: an outer bound of Γ, by elimination of beliefs (theory §2).

If another belief fits every one of these actions better, no play of them makes this one fit best. The box is cut into
cells; a cell goes when one known belief fits each action better than all of the cell does, or when nothing in it would
justify what is in doubt. Cells are halved until none is left, or there is no more room for them.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from epijax.boxes import box_of, weighted_divergence
from epijax.games import game_value
from epijax.problem import Problem
from epijax.projection import divergences
from epijax.response import utilities
from epijax.subjective import Categorical, Custom

_ROOM = 256  # cells
_HALVINGS = 12  # along each axis
_SMALL = 1 / 16  # share of the box, half a cell, from which on the user's own families are taken to be smooth
_UNKNOWN = 4.0  # a lead larger than any, as a share of the scale


def taught_by_each(problem: Problem, each: Float[Array, "A"]) -> Float[Array, "A"]:
    """K_ε(x, θ): of each action, the divergence of what is learned while it is played, exploration included."""
    weights = jax.vmap(problem.explored)(jnp.eye(problem.num_actions, dtype=each.dtype))
    return jax.vmap(lambda row: weighted_divergence(row, each))(weights)


def not_ruled_out(
    problem: Problem,
    members: Bool[Array, "A"],
    doubtful: Bool[Array, "A"],
    rivals: Float[Array, "N A"],
    pointwise: Bool[Array, ""],
    scale: Float[Array, ""],
    tolerance: float,
) -> Bool[Array, "A"]:
    """Which of the actions in doubt may be justified by some play of the members.

    Over a cell divergences are bounded from below by their tangents, K being convex in θ, and payoffs by their slopes
    and, for `Categorical`, the most that an expectation can bend. Those of a `Custom` family are taken to bend at most
    twice as much as at the centre of the cell, which proves nothing of one that bends more.

    **Arguments:** `members`, the actions played; `doubtful`, those asked about; `rivals`: the divergences of known
    beliefs, with exploration, nats; `pointwise`, whether a belief over all that fits is as good as one θ that does:
    else mixtures of all beliefs that are left count; `scale` of payoffs; `tolerance`, as a share of it, by which an
    action may fall short of the best and still count as justified.

    **Returns:** `[A]`: false for what is proven to be justified by nothing.
    """
    model = box_of(problem)
    dimensions, width = len(model.lower), model.upper - model.lower
    dtype = width.dtype

    def fit_of(place: Float[Array, "D"]) -> Float[Array, "A"]:
        each = divergences(problem.environment, model, model.lower + width * place)
        return taught_by_each(problem, each)

    def worth_of(place: Float[Array, "D"]) -> Float[Array, "A"]:
        return utilities(problem.environment, model, model.lower + width * place) / scale

    def ahead(place: Float[Array, "D"], half: Float[Array, "D"]) -> Float[Array, "A A"]:
        """[x, y]: U(x) − U(y), at most, in a cell."""
        worth, slopes = worth_of(place), jax.jacfwd(worth_of)(place)
        apart = jnp.abs(slopes[:, None] - slopes) @ half
        if isinstance(model, Categorical):  # E[(π − Eπ)(t − Et)(t' − Et')] is at most a quarter of the three ranges
            payoffs = problem.environment.payoffs / scale  # pyright: ignore[reportAttributeAccessIssue]
            bend = jnp.ptp(payoffs, axis=1) * (jnp.ptp(model.logit_slope * width, axis=1) @ half) ** 2 / 8
            apart += bend[:, None] + bend
        if isinstance(model, Custom):
            bend = jnp.einsum("xij,i,j->x", jnp.abs(jax.hessian(worth_of)(place)), half, half)
            apart += bend[:, None] + bend
        return worth[:, None] - worth + apart

    def assess(place: Float[Array, "D"], half: Float[Array, "D"]) -> tuple[Bool[Array, ""], Float[Array, "A A"]]:
        least = fit_of(place) - jnp.abs(jax.jacfwd(fit_of)(place)) @ half
        if isinstance(model, Custom):
            least -= jnp.einsum("xij,i,j->x", jnp.abs(jax.hessian(fit_of)(place)), half, half)
            # over a cell that is large the centre tells nothing
            least = jnp.where(jnp.max(half) <= _SMALL, least, -jnp.inf)
        rounding = 64 * float(jnp.finfo(dtype).eps) * (1 + jnp.abs(least))
        better = jnp.all((rivals + rounding < least) | ~members, axis=1)
        leads = ahead(place, half)
        return ~jnp.any(better), jnp.where(jnp.isfinite(leads), leads, _UNKNOWN)

    def justifies(leads: Float[Array, "A A"]) -> Bool[Array, "A"]:
        return jnp.all(leads >= -tolerance, axis=1) & doubtful

    def halve(state: tuple) -> tuple:
        level, places, alive, _, _ = state
        halves = 0.5 ** (1 + (level + dimensions - 1 - jnp.arange(dimensions)) // dimensions)
        fits, leads = jax.vmap(partial(assess, half=halves.astype(dtype)))(places)
        may = jax.vmap(justifies)(leads)
        alive &= fits & (jnp.any(may, axis=1) | ~pointwise)
        goes_on = (2 * jnp.sum(alive) <= _ROOM) & (level < dimensions * _HALVINGS) & jnp.any(alive)
        kept = jnp.nonzero(alive, size=_ROOM // 2, fill_value=0)[0]
        there = jnp.arange(_ROOM // 2) < jnp.sum(alive)
        step = jnp.where(jnp.arange(dimensions) == level % dimensions, halves / 2, 0).astype(dtype)
        finer = jnp.concatenate([places[kept] - step, places[kept] + step]), jnp.concatenate([there, there])
        places, alive = (jnp.where(goes_on, new, old) for new, old in zip(finer, (places, alive), strict=True))
        return level + 1, places, alive, leads, ~goes_on

    first = jnp.full((_ROOM, dimensions), 0.5, dtype), jnp.arange(_ROOM) == 0
    nothing = jnp.zeros((_ROOM, problem.num_actions, problem.num_actions), dtype)
    ended = ~jnp.any(doubtful)
    _, _, alive, leads, _ = jax.lax.while_loop(lambda state: ~state[-1], halve, (jnp.int32(0), *first, nothing, ended))

    def mixed(x: Array) -> Bool[Array, ""]:
        """Whether some mixture of what is left may justify x."""
        others = jnp.arange(problem.num_actions) != x
        return ~(game_value(jnp.where(alive, -leads[:, x].T, 0), others, alive) > tolerance)

    at_once = jnp.any(jax.vmap(justifies)(leads) & alive[:, None], axis=0)
    together = jax.vmap(mixed)(jnp.arange(problem.num_actions)) & doubtful & jnp.any(alive)
    return jnp.where(pointwise, at_once, together) & ~ended
