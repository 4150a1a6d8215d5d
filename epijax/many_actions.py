"""The exact path for tables with any number of actions: what payoffs make of the vertices over Δ(A) (theory §2).

What the vertices of the lower envelope of divergences justify is all that is ever justified, and the extreme
equilibrium strategies are among them. They depend on divergences alone and are found once for all payoffs.
"""

from functools import partial, reduce
from itertools import combinations

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, UInt

from epijax.cells import apart, cells_last, every_one, first_true, in_pieces, least, most, positive, some, where_needed
from epijax.games import game_value
from epijax.problem import FiniteProblem
from epijax.solution import Solution, bits, conclude, verdict
from epijax.vertices import REFUTED, UNROLLED, Vertices, balance, count_bases, find_vertices, room_for, weighted

MOST_ACTIONS = 6  # beyond, compiling takes many minutes
MOST_BASES = 1 << 23  # sets of parameters that are tried in one problem
_SMALL = 4  # actions, up to which games are solved by trying everything; others go to the simplex method
_NUMBERS_AT_ONCE = 1 << 18  # candidates times cells: arrays of a megabyte or two, worth starting a kernel for


def solve_many_actions(tables: FiniteProblem, tolerance: float, valid: Bool[ArrayLike, ""] = True) -> Solution:
    """Pure, strict and mixed Berk–Nash equilibria and the rationalizable set of any number of actions.

    Each set of as many parameters as actions is tried for a vertex. With T what fits best at the vertex σ, x is
    justified there iff min_μ max_y μ·(U(y,·) − U(x,·)) ≤ 0 over beliefs μ on T, the value of a small matrix game, and σ
    is an equilibrium iff one μ on T justifies all that σ plays. Γ(B) is what is justified at vertices whose support
    lies in B.

    Where an action refutes parameters, others fit best as soon as it is played at all: strategies that play it a little
    are taken apart from those that do not, and where something changes within that little the status is `BOUNDARY`.

    Parameters with equal columns of divergences, actions with equal payoffs, and a constant row of divergences are ties
    by construction and do not count against the margin. Every other tie does.

    **Arguments:** `tables`; `tolerance`, as a share of max|U| and of the largest finite K; `valid`, whether the problem
    that the tables come from is one.

    **Returns:** the `Solution`; the rows of `mixed` are the extreme equilibria that are not pure, each once.

    Raises `ValueError` where there are more actions than `MOST_ACTIONS`, or more sets of parameters to try than fit in
    memory, `MOST_BASES`.

    Source: theory §2; [EP16], [EP25].
    """
    count = count_bases(*tables.utility.shape)
    if tables.num_actions > MOST_ACTIONS or count > MOST_BASES:
        raise ValueError(
            f"{tables.num_actions} actions and {tables.utility.shape[1]} parameters make {count:,} sets of parameters "
            f"to try, more than the {MOST_BASES:,} of {MOST_ACTIONS} actions that can be; solve with exact=True, which "
            f"takes any number, or take fewer parameters, e.g. a smaller num in tabulate"
        )
    form = partial(_solve, tolerance)
    kept, pure, strict, mixed, num_mixed, margin, refuted, priced = cells_last(form, form)(
        tables.utility, tables.divergence
    )
    return conclude(
        rationalizable=kept,
        pure=pure,
        strict=strict,
        mixed=mixed,
        num_mixed=num_mixed,
        margin=margin,
        status=verdict(margin, tolerance, refuted, priced & valid),
    )


def _solve(tolerance: float, utility: Float[Array, "A K *#cells"], divergence: Float[Array, "A K *#cells"]) -> tuple:
    num_actions, num = utility.shape[:2]
    rank = divergence.ndim - 2
    finite = jnp.isfinite(divergence)
    level = jnp.where(finite, divergence, 0)
    scaled = (
        utility / positive(most(_flat(jnp.abs(utility), rank))),
        jnp.where(finite, level / positive(most(_flat(level, rank))), REFUTED),
    )

    def with_vertices(tables: tuple[Array, Array]) -> tuple:
        utility, divergence = tables
        own = divergence.shape[2:]
        vertices = in_pieces(partial(find_vertices, tolerance), divergence, own, few)
        cells = jnp.broadcast_shapes(utility.shape[2:], own)

        def judge(given: tuple[Array, Array, Vertices]) -> tuple:
            return _judge(*given, tolerance)

        return in_pieces(judge, (utility, divergence, vertices), cells, at_once)

    room = room_for(num_actions, num)
    at_once = max(1, 2 * _NUMBERS_AT_ONCE // (room * max(num_actions**2, num // 4)))
    few = max(1, _NUMBERS_AT_ONCE // max(count_bases(num_actions, num), room * num))
    answers = in_pieces(with_vertices, scaled, divergence.shape[2:], max(few, at_once))
    priced = every_one(_flat(jnp.isfinite(utility), rank)) & every_one(_flat(divergence >= 0, rank))
    cells = jnp.broadcast_shapes(utility.shape[2:], divergence.shape[2:])
    refuted, priced = (jnp.broadcast_to(one, cells) for one in (~some(every_one(finite)), priced))
    return *answers, refuted, priced


# Where what fits best changes: of divergences alone


def _judge(
    utility: Float[Array, "A K *#cells"], divergence: Float[Array, "A K *#cells"], vertices: Vertices, tolerance: float
) -> tuple:
    """The sets as bits, the mixed equilibria and their number, and the margin."""
    num_actions = len(utility)
    paid = apart(_at_bases, utility, vertices)
    gap = _gaps(utility, paid, vertices, tolerance)  # how far x is from being a best response there; negative: it is
    slacks = [vertices.slack]

    def reach(members: UInt[Array, "*#cells"], x: int) -> Float[Array, "*#cells"]:
        inside = vertices.exists & (vertices.support & ~members == 0)
        return most(jnp.where(inside, -gap[x], -jnp.inf))

    kept = jnp.full(gap.shape[2:], (1 << num_actions) - 1, jnp.uint32)
    for _ in range(max(1, num_actions - 1)):
        held = [kept >> x & 1 == 1 for x in range(num_actions)]
        leads = [jnp.where(held[x], reach(kept, x), -jnp.inf) for x in range(num_actions)]
        slacks += [jnp.where(held[x], jnp.abs(leads[x]), jnp.inf) for x in range(num_actions)]
        kept = bits([lead >= -tolerance for lead in leads])

    alone = [reach(jnp.full_like(kept, 1 << x), x) for x in range(num_actions)]
    slacks += [jnp.abs(lead) for lead in alone]
    strict = [_strictly(utility, divergence, x, tolerance) for x in range(num_actions)]
    mixed, num_mixed, mixed_slack = _mixed(utility, paid, vertices, gap, tolerance)
    margin = reduce(jnp.minimum, [*slacks, *(jnp.abs(lead) for lead in strict), mixed_slack])
    return (
        kept,
        bits([lead >= -tolerance for lead in alone]),
        bits([lead > tolerance for lead in strict]),
        mixed,
        num_mixed,
        jnp.where(vertices.crowded, 0, margin),
    )


def _at_bases(utility: Float[Array, "A K *#cells"], vertices: Vertices) -> Float[Array, "A A V *#cells"]:
    """paid[x, j]: what x pays under the j-th parameter of the vertex's basis."""
    num = utility.shape[1]
    if num > UNROLLED:
        index = vertices.basis[None] + jnp.zeros(utility.shape[2:], jnp.int32)
        return jnp.take_along_axis(utility[:, :, None], index, axis=1, mode="promise_in_bounds")
    paid = jnp.zeros((), utility.dtype)
    for k in range(num):
        paid = jnp.where(vertices.basis == k, utility[:, k][:, None, None], paid)
    return paid


def _gaps(
    utility: Float[Array, "A K *#cells"], paid: Float[Array, "A A V *#cells"], vertices: Vertices, tolerance: float
) -> Float[Array, "A V *#cells"]:
    """For each vertex and action min_μ max_y μ·(U(y,·) − U(x,·)) over beliefs μ on what fits best there, and actions y
    that pay otherwise than x; −∞ if there are none.

    Where no more parameters tie than the basis has, by trying all α that can be best for max_α min_θ; else, which is
    for actions that are uninformative or tables with ties, by the simplex method.
    """
    num_actions = len(utility)
    apart_from = [
        [most(jnp.abs(utility[y] - utility[x])) > tolerance for y in range(num_actions)] for x in range(num_actions)
    ]
    others = [[y for y in range(num_actions) if y != x] for x in range(num_actions)]
    more = vertices.exists & (jnp.sum(vertices.ties, axis=0) > vertices.size)
    if num_actions == 1:
        gap = jnp.full_like(paid[0], -jnp.inf)
    elif num_actions <= _SMALL:
        gap = jnp.stack(
            [
                apart(_small_game, [paid[y] - paid[x] for y in others[x]], [apart_from[x][y] for y in others[x]])
                for x in range(num_actions)
            ]
        )
    else:
        gap, more = jnp.zeros_like(paid[0]), vertices.exists

    def by_simplex(given: tuple[Array, Array, Array]) -> Array:
        utility, rows, ties = given
        ahead = utility[None] - utility[:, None]
        return _over_cells(game_value, (ahead, rows, ties), 1, over=((0, 0, None), (None, None, 1)))

    corners = min(num_actions, len(vertices.exists))  # single actions come first
    table = jnp.stack([jnp.stack(row) for row in apart_from])
    parts = []
    for rows in (slice(corners), slice(corners, None)):
        if len(vertices.exists[rows]):
            needed = some(jnp.broadcast_to(more, gap.shape[1:])[rows])
            given = utility, table, vertices.ties[:, rows]
            parts.append(where_needed(by_simplex, needed, given, gap[:, rows]))
    return jnp.concatenate(parts, axis=1)


def _over_cells(function, arguments: tuple, rank: int, over: tuple) -> Array:
    """`function` at every cell, and over further axes of its arguments, in the order of the answer."""
    for axes in reversed(over):
        function = jax.vmap(function, in_axes=axes)
    for _ in range(rank):
        function = jax.vmap(function, in_axes=-1, out_axes=-1)
    return function(*arguments)


def _small_game(losses: list[Float[Array, "C *V"]], rows: list[Bool[Array, "*#cells"]]) -> Float[Array, "*V"]:
    """max_α min_c Σ_r α(r) losses[r][c] over some rows: at an α that makes as many columns tie as it has rows."""
    best = jnp.full_like(losses[0][0], -jnp.inf)
    columns = range(len(losses[0]))
    for size in range(1, len(losses) + 1):
        for chosen in combinations(range(len(losses)), size):
            there = reduce(jnp.logical_and, [rows[r] for r in chosen])
            for basis in combinations(columns, size):
                at = [[losses[r][c] for r in chosen] for c in basis]
                if size == 1:
                    alpha, feasible = [jnp.ones_like(best)], there
                    if basis != (0,):
                        continue  # one row alone, and no column chosen: once
                else:
                    alpha, firm = balance([[a - b for a, b in zip(row, at[0], strict=True)] for row in at[1:]])
                    feasible = reduce(jnp.logical_and, [a >= 0 for a in alpha], (firm > 0) & there)
                worst = reduce(jnp.minimum, [weighted(alpha, [losses[r][c] for r in chosen]) for c in columns])
                best = jnp.maximum(best, jnp.where(feasible, worst, -jnp.inf))
    return best


def _strictly(
    utility: Float[Array, "A K *#cells"], divergence: Float[Array, "A K *#cells"], x: int, tolerance: float
) -> Float[Array, "*#cells"]:
    """How far x leads every other action at least, whatever of Θ(δ_x) the agent believes."""
    best = divergence[x] <= least(divergence[x]) + tolerance
    leads = [utility[x] - utility[y] for y in range(len(utility)) if y != x]
    nothing = jnp.full(utility.shape[2:], jnp.inf, utility.dtype)
    return reduce(jnp.minimum, [least(jnp.where(best, lead, jnp.inf)) for lead in leads], nothing)


def _mixed(
    utility: Float[Array, "A K *#cells"],
    paid: Float[Array, "A A V *#cells"],
    vertices: Vertices,
    gap: Float[Array, "A V *#cells"],
    tolerance: float,
) -> tuple[Float[Array, "E A *#cells"], Int[Array, "*#cells"], Float[Array, "*#cells"]]:
    """The equilibria among the vertices that play several actions, each once, their number, and the least slack.

    Where as many parameters tie as actions are played, one belief makes these indifferent, and it has to be a belief.
    Where more tie, any of their beliefs will do: that of a basis if one does clearly, else whether a game says so.
    """
    num_actions, cells = len(utility), gap.shape[2:]
    if num_actions == 1:
        nothing = jnp.full(cells, jnp.inf, gap.dtype)
        return jnp.full((1, 1, *cells), jnp.nan, gap.dtype), jnp.zeros(cells, jnp.int32), nothing
    several = vertices.exists & (jax.lax.population_count(vertices.support) > 1)
    own = apart(_belief_slack, paid, vertices)
    known = ~jnp.isnan(own)
    exact = known & (jnp.sum(vertices.ties, axis=0) == vertices.size)
    plays = _on(vertices.support, num_actions)
    worst = most(jnp.where(plays, gap, -jnp.inf))  # one that no belief justifies rules the strategy out
    doubtful = several & ~exact & ~(worst > tolerance)

    shared = several & (jnp.sum(vertices.ties, axis=0) > vertices.size)
    generic = exact & (own >= -tolerance), jnp.where(exact, jnp.abs(own), worst), jnp.ones(own.shape, bool)
    given = utility, vertices.ties, vertices.support, vertices.exists, own, exact, worst
    holds, slack, first = where_needed(partial(_by_games, tolerance), some(shared | doubtful), given, generic)
    slack = jnp.where(~vertices.attained & holds, 0, slack)
    new = several & vertices.attained & holds & first
    index = apart(partial(first_true, room=len(new)), new)
    there = index < len(new)
    index = jnp.where(there, index, 0)

    def listed(strategy: Array, index: Array, there: Array) -> Array:
        every = jnp.broadcast_to(strategy, (num_actions, *new.shape))
        return jnp.where(
            there, jnp.take_along_axis(every, index[None], axis=1, mode="promise_in_bounds"), jnp.nan
        ).swapaxes(0, 1)

    return (
        apart(listed, vertices.strategy, index, there),
        jnp.sum(new, axis=0).astype(jnp.int32),
        least(jnp.where(several & first, slack, jnp.inf)),
    )


def _by_games(tolerance: float, given: tuple) -> tuple[Array, Array, Array]:
    """Of each vertex, whether one belief justifies all that it plays, how clearly, and whether none before it is it."""
    utility, ties, support, exists, own, exact, worst = given
    num_actions = len(utility)
    known = ~jnp.isnan(own)
    same = exists & exists[:, None] & (support[:, None] == support)
    same &= every_one(ties[:, :, None] == ties[:, None])
    best = jnp.max(jnp.where(same & known, own, -jnp.inf), axis=1)  # of all bases of one vertex
    number = jnp.arange(len(exists))
    first = ~jnp.any(same & (number[:, None] > number)[:, :, None], axis=1)
    pairs = [(x, y) for x in range(num_actions) for y in range(num_actions) if x != y]
    ahead = jnp.stack([utility[y] - utility[x] for x, y in pairs])
    differ = most(jnp.abs(jnp.moveaxis(ahead, 1, 0))) > tolerance  # others are indifferent by construction
    plays = _on(support, num_actions)
    rows = jnp.stack([plays[x] for x, _ in pairs]) & differ[:, None]
    value = _over_cells(game_value, (ahead, rows, ties), 1, over=((None, 1, 1),))
    value = jnp.where(worst > tolerance, worst, value)
    slack = jnp.where(exact, jnp.abs(own), jnp.where(best > tolerance, best, jnp.abs(value)))
    holds = jnp.where(exact, own >= -tolerance, (best > tolerance) | (value <= tolerance))
    return holds, jnp.where(jnp.isnan(slack), 0, slack), first  # NaN: a game without an end


def _belief_slack(paid: Float[Array, "A A V *#cells"], vertices: Vertices) -> Float[Array, "V *#cells"]:
    """Least weight, or lead over other actions, of the belief that makes those played indifferent; NaN for none."""
    num_actions = len(paid)
    plays = _on(vertices.support, num_actions)
    before = [jax.lax.population_count(vertices.support & jnp.uint32((1 << x) - 1)) for x in range(num_actions)]
    nothing = jnp.zeros_like(paid[0, 0])
    slack = jnp.full_like(nothing, jnp.nan)
    for size in range(2, min(num_actions, len(vertices.ties)) + 1):
        mine = [
            [
                reduce(
                    lambda got, x: jnp.where(plays[x] & (before[x] == i), paid[x, j], got), range(num_actions), nothing
                )
                for j in range(size)
            ]
            for i in range(size)
        ]
        belief, firm = balance([[a - b for a, b in zip(row, mine[0], strict=True)] for row in mine[1:]])
        value = weighted(belief, mine[0])
        least_of = reduce(jnp.minimum, belief)
        for y in range(num_actions):
            ahead = value - weighted(belief, [paid[y, j] for j in range(size)])
            least_of = jnp.minimum(least_of, jnp.where(plays[y], jnp.inf, ahead))
        slack = jnp.where((vertices.size == size) & vertices.attained & (firm > 0), least_of, slack)
    return slack


def _on(support: UInt[Array, "V *#cells"], num_actions: int) -> Bool[Array, "A V *#cells"]:
    return jnp.stack([support >> x & 1 == 1 for x in range(num_actions)])


def _flat(table: Array, rank: int) -> Array:
    """The first two axes as one."""
    return table.reshape(-1, *table.shape[table.ndim - rank :])
