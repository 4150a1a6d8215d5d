"""More than two actions and beliefs in a box: equilibria by roots over faces of Δ(A), rationalizability bracketed.

What is justified is searched for over strategies, and every action found comes with the strategy that justifies it; the
others have to be ruled out by elimination of beliefs (`ruling_out`). Where neither succeeds the answer says so.
"""

from functools import partial
from itertools import combinations, pairwise, permutations, product

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from epijax.boxes import MOST_FACED, Fit, box_of, fit, nearest
from epijax.continuous import doubted_range, edge_roots, expected_scale
from epijax.games import game_value
from epijax.problem import Problem
from epijax.projection import divergences
from epijax.response import utilities
from epijax.ruling_out import not_ruled_out, taught_by_each
from epijax.solution import NUMERICAL, Solution, bits, conclude, tolerance_of, verdict
from epijax.subjective import AffineBernoulli, Custom, Finite, GaussianLinear
from epijax.vertices import balance

MOST_ACTIONS = 6
MOST_MIXED = 16
_ORDER = {2: 16, 3: 16, 4: 8, 5: 6, 6: 4}  # strategies are looked at in steps of one over this
_INSIDE = 1e-6  # how far inside a face what is on its border is looked at
_ROOTS = 4  # kept of each face
_SEARCHES, _NEWTON = 14, 12


class Bracket(eqx.Module):
    """What is known of the rationalizable set.

    - `inner`: `[A]`, actions that justify each other; `strategy[x]`, `[A, A]`, a strategy of theirs under which x is a
      best response to some belief that fits it best, NaN for other actions.
    - `outer`: `[A]`, all that elimination leaves; the rationalizable set lies between the two.
    """

    inner: Bool[Array, "A"]
    outer: Bool[Array, "A"]
    strategy: Float[Array, "A A"]


def solve_many_continuous(problem: Problem, tolerance: float) -> Solution:
    """Pure, strict and mixed Berk–Nash equilibria and the rationalizable set of three to six actions.

    Pure and strict equilibria follow from all that fits the action best. Mixed ones of two actions are roots along an
    edge of Δ(A), others are roots over a face, from where interpolation on a grid of strategies has one, by Newton
    steps; each is an equilibrium iff one belief on what fits it best makes all that it plays best responses. A root
    that the grid misses may stay unknown: the number of equilibria, which is odd where every strategy has one best
    fit and never zero, tells of one and not of two.

    **Arguments:** `problem`; `tolerance`, as a share of the largest payoff that can be expected.

    **Returns:** the `Solution`, with `MOST_MIXED` rows of `mixed`; `rationalizable` is the outer set of `bracket`.
    Status `BOUNDARY` and margin NaN where that is not the inner one too, where a projection or a root did not converge,
    or where the number of equilibria shows that one is missing.

    Raises `ValueError` for more than `MOST_ACTIONS` actions.

    Source: theory §2, §6; [EP16], [EP25].
    """
    _check_actions(problem)
    scale = expected_scale(problem)
    grid = _Grid(problem.num_actions)
    seen = _look(problem, scale, jnp.asarray(grid.strategies, scale.dtype))
    found, phases = _bracket(problem, scale, tolerance, grid, seen)
    pure = jnp.diagonal(seen.leads[: problem.num_actions])
    strict = _strictly(problem, scale, jax.tree.map(lambda leaf: leaf[: problem.num_actions], seen.fits))
    mixed, num_mixed, slacks, complete = _mixed(problem, scale, tolerance, grid, seen, found.outer)

    number = num_mixed + jnp.sum(pure >= -tolerance)
    sure = jnp.all(seen.fits.converged) & complete & jnp.all(found.inner == found.outer)
    sure &= (number > 0) & ~(jnp.all(seen.fits.single) & (number % 2 == 0))
    known = seen.fits.single[: problem.num_actions] | _all_by_extremes(problem)
    sure &= jnp.all(known | (pure >= -tolerance))
    slacks = jnp.concatenate([jnp.abs(pure), strict[1], phases, slacks])
    margin = jnp.where(sure, jnp.maximum(jnp.min(slacks), 0), jnp.nan)
    members = range(problem.num_actions)
    return conclude(
        rationalizable=bits([found.outer[x] for x in members]),
        pure=bits([pure[x] >= -tolerance for x in members]),
        strict=bits([strict[0][x] > tolerance for x in members]),
        mixed=mixed,
        num_mixed=num_mixed,
        margin=margin,
        status=verdict(margin, tolerance, jnp.any(jnp.isinf(seen.fits.value)), problem.is_valid()),
    )


@eqx.filter_jit
def bracket(problem: Problem, tolerance: float | None = None) -> Bracket:
    """What can be shown of the rationalizable set with beliefs in a box: what is in it, and what is not out of it.

    For the inner set strategies are searched on a grid over Δ(A) and, for each action, closer and closer to the one
    that suits it best. The outer set is what elimination of beliefs leaves (`ruling_out`).

    **Arguments:** `problem`, of two to six actions; `tolerance`, as in `solve`.

    **Returns:** the `Bracket`. Of a `Custom` family that need not be convex the outer set is as good as its search.

    Raises `ValueError` for a model that is a list of parameters, whose set `solve` decides, and for more actions.

    Source: theory §2; [EP25].
    """
    if isinstance(problem.model, Finite):
        raise ValueError("bracket takes a model with a box; of a list of parameters, solve decides the set")
    _check_actions(problem)
    scale, grid = expected_scale(problem), _Grid(problem.num_actions)
    seen = _look(problem, scale, jnp.asarray(grid.strategies, scale.dtype))
    share = NUMERICAL * tolerance_of(scale.dtype) if tolerance is None else tolerance
    return _bracket(problem, scale, share, grid, seen)[0]


def _check_actions(problem: Problem) -> None:
    if problem.num_actions not in _ORDER:
        raise ValueError(
            f"beliefs in a box of several parameters are solved for two to {MOST_ACTIONS} actions, these are "
            f"{problem.num_actions}; solve tabulate(problem, num) instead, with exact=True where it is too large"
        )


class _Grid:
    """Strategies that are looked at, each in the face it is looked at from: single actions first.

    `strategies` and `support` `[G, A]`; `simplices`, for each face of three actions and more, which strategies are the
    corners of a cut of this face into small simplices, `[T, k]`.
    """

    def __init__(self, num_actions: int):
        order = _ORDER[num_actions]
        rows, supports = [], []
        self.simplices: dict[tuple[int, ...], np.ndarray] = {}
        for size in range(1, num_actions + 1):
            for face in combinations(range(num_actions), size):
                steps = 0 if size == 1 else order
                index = {}
                for sums in product(range(steps + 1), repeat=size - 1):
                    if all(a >= b for a, b in pairwise(sums)):
                        index[sums] = len(rows)
                        shares = -np.diff([max(steps, 1), *sums, 0]) / max(steps, 1)
                        row = np.zeros(num_actions)
                        row[list(face)] = (1 - size * _INSIDE) * shares + _INSIDE if size > 1 else 1.0
                        rows.append(row)
                        supports.append([x in face for x in range(num_actions)])
                if size >= 3:
                    corners = [[index.get(corner) for corner in simplex] for simplex in _simplices(size - 1, order)]
                    self.simplices[face] = np.array([simplex for simplex in corners if None not in simplex], int)
        self.strategies, self.support = np.array(rows), np.array(supports)


def _simplices(dimensions: int, order: int) -> list[list[tuple[int, ...]]]:
    """Cubes of whole numbers, each cut along its diagonal: the corners of every piece."""
    pieces = []
    for base in product(range(order), repeat=dimensions):
        if any(a + 1 < b for a, b in pairwise(base)):
            continue
        for way in permutations(range(dimensions)):
            corner = list(base)
            piece = [tuple(corner)]
            for axis in way:
                corner[axis] += 1
                piece.append(tuple(corner))
            pieces.append(piece)
    return pieces


class _Seen(eqx.Module):
    """What strategies teach: `fits`, of each; `worth` `[N, V, A]` of actions under each θ that fits, as a share of the
    scale, NaN for none; `leads` `[N, A]`, of each action at least over every other under the belief that suits it."""

    fits: Fit
    worth: Float[Array, "N V A"]
    leads: Float[Array, "N A"]


def _look(problem: Problem, scale: Float[Array, ""], strategies: Float[Array, "N A"]) -> _Seen:
    fits = jax.vmap(lambda sigma: fit(problem, problem.explored(sigma)))(strategies)
    worth = jax.vmap(jax.vmap(partial(utilities, problem.environment, box_of(problem))))(fits.extremes) / scale
    worth = jnp.where(jnp.isnan(fits.extremes[:, :, :1]), jnp.nan, worth)
    leads = jnp.where(fits.converged[:, None], jax.vmap(_leads)(worth), -jnp.inf)
    return _Seen(fits, worth, leads)


def _leads(worth: Float[Array, "V A"]) -> Float[Array, "A"]:
    """max_μ min_y μ·(U(x, ·) − U(y, ·)) of each x, over beliefs on what fits."""
    others = ~jnp.eye(worth.shape[1], dtype=bool)
    return jax.vmap(lambda x, rows: -_value(worth, worth - worth[:, x, None], rows))(jnp.arange(len(others)), others)


def _value(worth: Float[Array, "V A"], losses: Float[Array, "V R"], rows: Bool[Array, "R"]) -> Float[Array, ""]:
    """min_μ max_r μ·losses over beliefs on what fits, whose rows are numbers."""
    fits = ~jnp.isnan(worth[:, 0])
    return game_value(jnp.where(fits[:, None], losses, 0).T, rows, fits)


def _bracket(
    problem: Problem, scale: Float[Array, ""], tolerance: float, grid: _Grid, seen: _Seen
) -> tuple[Bracket, Float[Array, "N"]]:
    """Inner and outer set, and the leads that decided about the inner one."""
    num_actions = problem.num_actions
    pairs = jnp.array([(i, k) for i in range(num_actions) for k in range(num_actions) if i != k])
    support, strategies = jnp.asarray(grid.support), jnp.asarray(grid.strategies, scale.dtype)

    def closer(j: Array, state: tuple) -> tuple:
        """Each action's best strategy so far, with some share moved from one action to another."""
        members, best, leads = state
        give, take = pairs[:, 0], pairs[:, 1]
        step = 0.6**j / _ORDER[num_actions]
        amount = jnp.minimum(step, best[:, give]) * members[take]
        unit = jnp.eye(num_actions, dtype=best.dtype)
        tried = best[:, None] + amount[:, :, None] * (unit[take] - unit[give])
        own = _look(problem, scale, tried.reshape(-1, num_actions)).leads.reshape(*tried.shape[:2], num_actions)
        own = jnp.diagonal(own, axis1=0, axis2=2).T
        which = jnp.argmax(own, axis=1)
        new = jnp.take_along_axis(own, which[:, None], axis=1)[:, 0]
        moved = jnp.take_along_axis(tried, which[:, None, None], axis=1)[:, 0]
        better = new > leads
        return members, jnp.where(better[:, None], moved, best), jnp.where(better, new, leads)

    def phase(i: Array, state: tuple) -> tuple:
        """One round of elimination."""
        members, _, _, slacks = state
        inside = jnp.all(members | ~support, axis=1)
        leads = jnp.where(inside[:, None], seen.leads, -jnp.inf)
        start = members, strategies[jnp.argmax(leads, axis=0)], jnp.max(leads, axis=0)
        _, best, leads = jax.lax.fori_loop(0, _SEARCHES, closer, start)
        slacks = slacks.at[i].set(jnp.where(members, jnp.abs(leads), jnp.inf))
        return members & (leads >= -tolerance), best, leads, slacks

    everything = jnp.ones(num_actions, bool)
    start = everything, jnp.zeros((num_actions, num_actions), scale.dtype), jnp.zeros(num_actions, scale.dtype)
    inner, best, _, slacks = jax.lax.fori_loop(
        0, num_actions, phase, (*start, jnp.full((num_actions, num_actions), jnp.inf, scale.dtype))
    )
    each = jax.vmap(partial(divergences, problem.environment, box_of(problem)))(seen.fits.theta)
    rivals = jax.vmap(partial(taught_by_each, problem))(each)
    faces, pointwise = _faces(problem, grid, seen)

    def eliminate(_: Array, outer: Bool[Array, "A"]) -> Bool[Array, "A"]:
        def over(given: tuple) -> Bool[Array, "A"]:
            face, alike = given
            members = outer & face
            doubtful = outer & ~inner & (jnp.all(members == face) | jnp.all(face))
            return not_ruled_out(problem, members, doubtful, rivals, alike, scale, tolerance)

        return inner | jnp.any(jax.lax.map(over, (faces, pointwise)), axis=0)

    outer = jax.lax.fori_loop(0, num_actions - 1, eliminate, everything)
    return Bracket(inner, outer, jnp.where(inner[:, None], best, jnp.nan)), slacks.reshape(-1)


def _faces(problem: Problem, grid: _Grid, seen: _Seen) -> tuple[Bool[Array, "N A"], Bool[Array, "N"]]:
    """Faces of Δ(A) that hold all strategies, and whether mixtures of what fits them are as good as one θ of it.

    Payoffs affine in θ make them so. Of logits that holds where play identifies every parameter, which depends on what
    is played alone; a family of the user's own may have several best fits anywhere.
    """
    if isinstance(problem.model, AffineBernoulli | GaussianLinear):
        return jnp.ones((1, problem.num_actions), bool), jnp.array([True])
    supports, first = np.unique(grid.support, axis=0, return_index=True)
    return jnp.asarray(supports), seen.fits.single[first] & (not isinstance(problem.model, Custom))


def _all_by_extremes(problem: Problem) -> bool:
    """Whether beliefs on the extreme points found do all that beliefs on what fits can: payoffs are affine in θ, and
    all extreme points are looked at."""
    model = box_of(problem)
    return isinstance(model, AffineBernoulli | GaussianLinear) and len(model.lower) <= MOST_FACED


def _strictly(problem: Problem, scale: Float[Array, ""], fits: Fit) -> tuple[Float[Array, "A"], Float[Array, "A"]]:
    """How far each action leads every other at least, whatever fits it, and how clearly."""
    pairs = jnp.array([(x, y) for x in range(problem.num_actions) for y in range(problem.num_actions) if x != y])

    def least(pair: Int[Array, "2"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        def lead(theta: Float[Array, "D"]) -> Float[Array, ""]:
            worth = utilities(problem.environment, box_of(problem), theta)
            return (worth[pair[0]] - worth[pair[1]]) / scale

        low, _, doubt = doubted_range(problem, lead, jax.tree.map(lambda leaf: leaf[pair[0]], fits))
        return low, doubt

    low, doubt = (each.reshape(problem.num_actions, -1) for each in jax.vmap(least)(pairs))
    return jnp.min(low, axis=1), jnp.min(jnp.abs(low) - doubt, axis=1)


# Mixed equilibria


def _mixed(
    problem: Problem, scale: Float[Array, ""], tolerance: float, grid: _Grid, seen: _Seen, outer: Bool[Array, "A"]
) -> tuple[Float[Array, "E A"], Int[Array, ""], Float[Array, "N"], Bool[Array, ""]]:
    """The mixed equilibria, their number, the slacks of what decided, and whether all that was found was settled.

    What they play is rationalizable, so that faces with other actions do not matter.
    """
    num_actions = problem.num_actions
    pairs = jnp.array(list(combinations(range(num_actions), 2)))
    unit = jnp.eye(num_actions, dtype=scale.dtype)
    frozen = jax.lax.stop_gradient(problem)

    def along(pair: Int[Array, "2"], shares: Float[Array, "N"]) -> Float[Array, "N A"]:
        return shares[:, None] * unit[pair[0]] + (1 - shares[:, None]) * unit[pair[1]]

    def edge(pair: Int[Array, "2"]) -> tuple:
        def look(shares: Float[Array, "N"]) -> tuple[Float[Array, "N"], Bool[Array, ""]]:
            thetas, converged = jax.vmap(lambda sigma: nearest(frozen, frozen.explored(sigma)))(along(pair, shares))
            worth = jax.vmap(partial(utilities, frozen.environment, box_of(frozen)))(thetas) / scale
            return worth[:, pair[0]] - worth[:, pair[1]], jnp.all(converged)

        turns, roots, count, sure = edge_roots(look, scale.dtype)
        there = jnp.arange(len(roots)) < count
        return along(pair, turns), along(pair, roots), there, sure & (count <= len(roots))

    turns, roots, there, sure = jax.vmap(edge)(pairs)
    candidates, exists = [roots.reshape(-1, num_actions)], [there.reshape(-1)]
    supports = [jnp.repeat(unit[pairs].sum(axis=1) > 0, roots.shape[1], axis=0)]
    complete = jnp.all(sure | ~jnp.all(outer[pairs], axis=1))
    for face, corners in grid.simplices.items():
        found, there, settled = _over_face(problem, scale, tolerance, face, corners, grid, seen)
        candidates.append(found)
        exists.append(there)
        supports.append(jnp.broadcast_to(unit[jnp.array(face)].sum(axis=0) > 0, found.shape))
        complete &= settled | ~jnp.all(outer[jnp.array(face)])

    turned = turns.reshape(-1, num_actions)
    every = jnp.concatenate([*candidates, turned])
    plays = jnp.concatenate([*supports, jnp.repeat(unit[pairs].sum(axis=1) > 0, 2, axis=0)])
    taught = _look(problem, scale, every)
    shortfall, ahead, apart = jax.vmap(_supported)(taught.worth, plays)
    count = len(every) - len(turned)
    matters = jnp.all(outer | ~plays, axis=1)
    exists = jnp.concatenate(exists) & matters[:count]
    close = max(1e-6, 4 * float(jnp.finfo(scale.dtype).eps) ** 0.5)
    near = jnp.max(jnp.abs(every[:count, None] - every[None, :count]), axis=-1) < close
    again = jnp.any(near & exists & (jnp.arange(count)[:, None] > jnp.arange(count)), axis=1)
    holds = exists & ~again & (shortfall[:count] <= tolerance)
    (index,) = jnp.nonzero(holds, size=MOST_MIXED, fill_value=count)
    rows = jnp.where((index < count)[:, None], every[jnp.minimum(index, count - 1)], jnp.nan)
    number = jnp.sum(holds)
    slacks = jnp.concatenate(
        [
            jnp.where(exists & ~again, jnp.where(holds, jnp.abs(ahead[:count]), shortfall[:count]), jnp.inf),
            # where two actions nearly tie and no third pays more
            jnp.where(matters[count:], jnp.maximum(apart[count:], ahead[count:]), jnp.inf),
        ]
    )
    clear = taught.fits.single[:count] | _all_by_extremes(problem) | holds
    clear &= (apart[:count] <= tolerance) | isinstance(problem.model, Custom)  # which may jump from one fit to another
    complete &= (number <= MOST_MIXED) & jnp.all(clear | ~exists | again)
    complete &= jnp.all(taught.fits.converged | ~jnp.concatenate([exists, matters[count:]]))
    return rows, number.astype(jnp.int32), slacks, complete


def _supported(
    worth: Float[Array, "V A"], plays: Bool[Array, "A"]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """By how much the best belief on what fits falls short of making all that is played a best response; how far ahead
    of it what is not played is, at least; and how far apart what is played is at the first θ that fits."""
    num_actions = len(plays)
    losses = (worth[:, None] - worth[:, :, None]).reshape(len(worth), -1)  # of x against y
    rows = plays[:, None] & ~jnp.eye(num_actions, dtype=bool)
    own = jnp.max(jnp.where(plays, worth[0], -jnp.inf)), jnp.min(jnp.where(plays, worth[0], jnp.inf))
    shortfall = _value(worth, losses, rows.reshape(-1))
    ahead = _value(worth, worth - worth[:, jnp.argmax(plays), None], ~plays)
    return shortfall, ahead, own[0] - own[1]


def _over_face(
    problem: Problem,
    scale: Float[Array, ""],
    tolerance: float,
    face: tuple[int, ...],
    corners: np.ndarray,
    grid: _Grid,
    seen: _Seen,
) -> tuple[Float[Array, "R A"], Bool[Array, "R"], Bool[Array, ""]]:
    """Strategies inside a face where all its actions pay the same, which rows hold one, and whether all is known."""
    members = jnp.array(face)
    strategies, pieces = jnp.asarray(grid.strategies, scale.dtype), jnp.asarray(corners)
    gaps = seen.worth[:, 0, members[1:]] - seen.worth[:, 0, members[:1]]
    weights, firm = balance([[gaps[pieces[:, i], row] for i in range(len(face))] for row in range(len(face) - 1)])
    weights = jnp.stack(weights)
    close = max(1e-6, 4 * float(jnp.finfo(scale.dtype).eps) ** 0.5)
    inside = jnp.all(weights >= -close, axis=0) & (firm > 0)
    (index,) = jnp.nonzero(inside, size=_ROOTS, fill_value=0)
    there = jnp.arange(_ROOTS) < jnp.sum(inside)
    start = jnp.einsum("ir,ria->ra", weights[:, index], strategies[pieces[index]])[:, members]

    def uneven(shares: Float[Array, "k"]) -> Float[Array, "k-1"]:
        sigma = jnp.zeros(problem.num_actions, scale.dtype).at[members].set(shares)
        theta = fit(problem, problem.explored(sigma)).theta
        worth = utilities(problem.environment, box_of(problem), theta) / scale
        return worth[members[1:]] - worth[members[0]]

    def newton(_: Array, state: tuple) -> tuple:
        shares, _ = state
        slopes, missed = jax.jacfwd(lambda shares: (uneven(shares),) * 2, has_aux=True)(shares)
        # the last share goes with the others, so that their sum stays
        lines = [[*(slopes[r, :-1] - slopes[r, -1]), missed[r]] for r in range(len(missed))]
        solved = jnp.stack(balance(lines)[0])
        way = solved[:-1] / jnp.where(solved[-1] == 0, 1, solved[-1])
        way = jnp.append(way, -jnp.sum(way))
        room = jnp.min(jnp.where(way < 0, -shares / jnp.where(way < 0, way, -1), jnp.inf))
        return shares + jnp.minimum(1, 0.9 * room) * way, jnp.maximum(jnp.max(jnp.abs(way)), jnp.max(jnp.abs(missed)))

    def solved(start: Float[Array, "k"]) -> tuple[Float[Array, "k"], Float[Array, ""]]:
        return jax.lax.fori_loop(0, _NEWTON, newton, (start, jnp.asarray(jnp.inf, scale.dtype)))

    ends, missed = jax.vmap(solved)(start)
    settled = jnp.all((missed <= tolerance) | ~there) & (jnp.sum(inside) <= _ROOTS)
    found = jnp.zeros((_ROOTS, problem.num_actions), scale.dtype).at[:, members].set(ends)
    return found, there & (missed <= tolerance), settled
