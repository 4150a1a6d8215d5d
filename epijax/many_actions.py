"""The exact path for tables with any number of actions: vertices of the lower envelope over Δ(A) (theory §2).

Weighted divergences K(σ, ·) are linear in σ, so which parameters fit best cuts the simplex of strategies into convex
pieces. More parameters fit best at a vertex of this subdivision than anywhere around it: what its vertices justify is
all that is ever justified, and the extreme equilibrium strategies are among them.
"""

from functools import partial, reduce
from itertools import combinations
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, UInt

from epijax.games import game_value
from epijax.problem import FiniteProblem
from epijax.solution import Solution, bits, conclude, verdict

MOST_WORK = 1 << 24  # sets of parameters that are tried in one problem, times the parameters each is compared with


class Vertices(NamedTuple):
    """Candidates for vertices, V of them: each where as many parameters tie as actions are played."""

    strategy: Float[Array, "V A"]
    support: UInt[Array, "V"]  # the actions that are played, as bits
    attained: Bool[Array, "V"]  # whether the strategy is this very vertex, and not only near a face it stands for
    ties: Bool[Array, "V K"]  # the parameters that fit best
    exists: Bool[Array, "V"]
    slack: Float[Array, "V"]  # how clearly it exists or does not: of divergences, scaled, and of shares
    support_slack: Float[Array, "V"]  # least weight or lead of the belief that makes its actions indifferent


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

    Raises `ValueError` where there are more sets of parameters to try than fit in memory (`MOST_WORK`).

    Source: theory §2; [EP16], [EP25].
    """
    num_actions = tables.num_actions
    utility = tables.utility / _positive(jnp.max(jnp.abs(tables.utility)))
    finite = jnp.isfinite(tables.divergence)
    level = jnp.where(finite, tables.divergence, 0)
    divergence = level / _positive(jnp.max(level))
    found = _vertices(utility, divergence, finite, tolerance)
    some, crowded = _compact(found, num_actions)

    gap = _gaps(utility, some, tolerance)  # [V, A]: how far x is from being a best response there; negative: it is one
    several = jax.lax.population_count(some.support) > 1
    crowded |= jnp.any(some.exists & several & (jnp.sum(some.ties, axis=1) > num_actions + 2))
    slacks = [jnp.min(found.slack)]

    def reach(members: UInt[Array, ""], x: int) -> Float[Array, ""]:
        inside = some.exists & (some.support & ~members == 0)
        return jnp.max(jnp.where(inside, -gap[:, x], -jnp.inf))

    kept = jnp.uint32((1 << num_actions) - 1)
    for _ in range(max(1, num_actions - 1)):
        leads = [jnp.where(kept >> x & 1 == 1, reach(kept, x), -jnp.inf) for x in range(num_actions)]
        slacks += [jnp.where(kept >> x & 1 == 1, jnp.abs(leads[x]), jnp.inf) for x in range(num_actions)]
        kept = bits([lead >= -tolerance for lead in leads])

    alone = [reach(jnp.uint32(1 << x), x) for x in range(num_actions)]
    slacks += [jnp.abs(lead) for lead in alone]
    strict = [_strictly(utility, divergence, finite, x, tolerance) for x in range(num_actions)]
    mixed, num_mixed, mixed_slack = _mixed(utility, some, gap, tolerance)
    margin = reduce(jnp.minimum, [*slacks, *(jnp.abs(lead) for lead in strict), mixed_slack])
    margin = jnp.where(crowded, 0, margin)
    refuted = ~jnp.any(jnp.all(finite, axis=0))
    return conclude(
        rationalizable=kept,
        pure=bits([lead >= -tolerance for lead in alone]),
        strict=bits([lead > tolerance for lead in strict]),
        mixed=mixed,
        num_mixed=num_mixed,
        margin=margin,
        status=verdict(margin, tolerance, refuted, tables.is_valid() & valid),
    )


def count_bases(num_actions: int, num: int) -> int:
    """How many sets of parameters are tried for vertices, each for some actions that are played freely."""
    return sum(comb(num_actions, g) * comb(num, g) * 2 ** (num_actions - g) for g in range(1, num_actions + 1))


def _vertices(
    utility: Float[Array, "A K"],
    divergence: Float[Array, "A K"],
    finite: Bool[Array, "A K"],
    tolerance: float,
) -> Vertices:
    """All candidates: for each set of actions played freely, with each set of others played a little (see above)."""
    num_actions, num = utility.shape
    count = count_bases(num_actions, num)
    if count * num > MOST_WORK:
        raise ValueError(
            f"{num_actions} actions and {num} parameters make {count:,} sets of parameters to try, more than the "
            f"{MOST_WORK // num:,} that can be; take fewer parameters, e.g. a smaller num in tabulate"
        )
    same = jnp.all((jnp.abs(divergence[:, :, None] - divergence[:, None, :]) <= tolerance), axis=0)
    same &= jnp.all(finite[:, :, None] == finite[:, None, :], axis=0)
    parts = []
    for size in range(1, min(num_actions, num) + 1):
        for few in range(num_actions - size + 1):
            faces = [
                (played, little)
                for played in combinations(range(num_actions), size)
                for little in combinations([x for x in range(num_actions) if x not in played], few)
            ]
            on_face = partial(_on_face, utility, divergence, finite, same, tolerance)
            found = jax.vmap(on_face)(
                *(jnp.array(side, jnp.int32).reshape(len(faces), -1) for side in zip(*faces, strict=True))
            )
            parts.append(jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), found))
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)


def _on_face(
    utility: Float[Array, "A K"],
    divergence: Float[Array, "A K"],
    finite: Bool[Array, "A K"],
    same: Bool[Array, "K K"],
    tolerance: float,
    played: Int[Array, "G"],
    little: Int[Array, "L"],
) -> Vertices:
    """The candidates that play some actions freely, some, that refute parameters, a little, and no others."""
    num_actions, num = utility.shape
    size, few = len(played), len(little)
    sliver = 1e-4 if utility.dtype == jnp.float64 else 1e-2
    rest = 1 - sliver * few
    is_free = jnp.any(jnp.arange(num_actions)[:, None] == played, axis=1)
    is_little = jnp.any(jnp.arange(num_actions)[:, None] == little, axis=1)
    allowed = jnp.all(finite | ~(is_free | is_little)[:, None], axis=0)
    wanted = jnp.all(~is_little | ~jnp.all(finite, axis=1))
    # K(σ, θ) = Σ σ_x rows[x, θ] over the actions played freely
    rows = divergence[played] + sliver * jnp.sum(jnp.where(is_little[:, None], divergence, 0), axis=0) / rest
    if size == 1:
        bases = jnp.argmin(jnp.where(allowed, rows[0], jnp.inf))[None, None]  # one candidate, and what it rests on
        shares, solvable = [jnp.ones(1, utility.dtype)], jnp.array([True])
        belief, known = [jnp.ones(1, utility.dtype)], jnp.array([True])
    else:
        bases = np.array(list(combinations(range(num), size)), dtype=np.int32).reshape(-1, size)
        at = [[rows[i][bases[:, j]] for i in range(size)] for j in range(size)]  # at[j][i]: action i, parameter j
        shares, solvable = _balance([[a - b for a, b in zip(at[j], at[0], strict=True)] for j in range(1, size)])
        paid = [[utility[played[i]][bases[:, j]] for j in range(size)] for i in range(size)]
        belief, known = _balance([[a - b for a, b in zip(paid[i], paid[0], strict=True)] for i in range(1, size)])
    values = jnp.where(
        allowed, reduce(jnp.add, [s[:, None] * row for s, row in zip(shares, rows, strict=True)]), jnp.inf
    )
    gaps = jnp.where(allowed, values - jnp.take_along_axis(values, bases[:, :1], axis=1), jnp.inf)
    by_construction = jnp.any(same[bases], axis=1)  # [M, K], the basis itself included
    if size == 1 and not few:
        by_construction |= jnp.all(allowed & (jnp.abs(gaps) <= tolerance), axis=1, keepdims=True)
    least = jnp.min(jnp.where(by_construction, jnp.inf, gaps), axis=1)
    inside = reduce(jnp.minimum, shares) if size > 1 else jnp.full(1, jnp.inf, utility.dtype)
    # an uninformative action leaves no vertex inside: the shares of the others are zero by construction
    flat = jnp.any(jnp.all(jnp.abs(rows - rows[:, :1]) <= tolerance, axis=1)) & (size > 1) & (not few)
    based = jnp.all(allowed[bases], axis=1) & solvable & wanted & ~flat
    exists = based & (inside > tolerance) & (jnp.min(gaps, axis=1) >= -tolerance)
    slack = jnp.where(based, jnp.abs(jnp.minimum(inside, least)), jnp.inf)
    if few:  # nothing may change between here and the face itself
        at_face = divergence[played[0]] - divergence[played[0]][bases[0, 0]]
        hidden = jnp.min(jnp.where(allowed, at_face, jnp.inf)) < -tolerance if size == 1 else least < 2 * sliver * few
        slack = jnp.where(exists & hidden, 0, slack)

    strategy = jnp.zeros((len(bases), num_actions), utility.dtype) + jnp.where(is_little, sliver, 0)
    strategy = strategy.at[:, played].set(jnp.stack(shares, axis=-1) * rest)
    expected = [sum(m * row[bases[:, j]] for j, m in enumerate(belief)) for row in utility]
    mine = reduce(jnp.add, [m * utility[played[0]][bases[:, j]] for j, m in enumerate(belief)])
    ahead = [jnp.where(is_free[y], jnp.inf, mine - expected[y]) for y in range(num_actions)]
    support = jnp.sum(
        jnp.where(is_free | is_little, 1 << jnp.arange(num_actions, dtype=jnp.uint32), 0), dtype=jnp.uint32
    )
    return Vertices(
        strategy=strategy,
        support=jnp.broadcast_to(support, len(bases)),
        attained=jnp.full(len(bases), not few),
        ties=allowed & (gaps <= tolerance),
        exists=exists,
        slack=slack,
        support_slack=jnp.where(known & (not few), reduce(jnp.minimum, [*ahead, *belief]), jnp.nan),
    )


def _balance(equations: list[list[Float[Array, "*M"]]]) -> tuple[list[Float[Array, "*M"]], Bool[Array, "*M"]]:
    """The weights that sum to one and solve n−1 homogeneous equations, by cofactors; and whether one set alone does."""
    n = len(equations) + 1
    sizes = [reduce(jnp.maximum, [jnp.abs(entry) for entry in row]) for row in equations]
    equations = [[entry / _positive(size) for entry in row] for row, size in zip(equations, sizes, strict=True)]
    minors: dict[tuple[int, ...], Array | float] = {(): 1.0}
    for k, row in enumerate(equations):
        minors = {
            columns: reduce(
                jnp.add,
                [
                    (-1) ** (k + j) * row[column] * minors[(*columns[:j], *columns[j + 1 :])]
                    for j, column in enumerate(columns)
                ],
            )
            for columns in combinations(range(n), k + 1)
        }
    cofactors = [(-1) ** x * minors[tuple(y for y in range(n) if y != x)] for x in range(n)]
    total, largest = reduce(jnp.add, cofactors), reduce(jnp.maximum, [jnp.abs(jnp.asarray(c)) for c in cofactors])
    rounding = 64 * float(jnp.finfo(largest.dtype).eps)
    solvable = (largest > rounding) & (jnp.abs(total) > rounding * largest)
    return [c / jnp.where(solvable, total, 1) for c in cofactors], solvable


def _compact(found: Vertices, num_actions: int) -> tuple[Vertices, Bool[Array, ""]]:
    """The vertices that exist, in as many rows as there may be; and whether there were more."""
    num = found.ties.shape[1]
    # random tables had a third to two thirds of this for four actions and more
    room = min(len(found.exists), num_actions * num * 2 ** max(0, num_actions - 4) + 2**num_actions)
    (index,) = jnp.nonzero(found.exists, size=room, fill_value=len(found.exists))
    some = jax.tree.map(lambda leaf: leaf.at[index].get(mode="fill", fill_value=0), found)
    return some, jnp.sum(found.exists) > room


def _gaps(utility: Float[Array, "A K"], some: Vertices, tolerance: float) -> Float[Array, "V A"]:
    """For each vertex and action min_μ max_y μ·(U(y,·) − U(x,·)) over beliefs μ on what fits best there, and actions y
    that pay otherwise than x; −∞ if there are none.

    Where no more than A + 2 parameters tie, by trying all α that can be best for max_α min_θ; else, which is for the
    vertices that play one action only, an uninformative one for instance, by the simplex method.
    """
    num_actions, num = utility.shape
    few = min(num, num_actions + 2)
    order = jnp.argsort(~some.ties, axis=1)[:, :few]  # [V, few]: the parameters that fit best, then others
    there = jnp.take_along_axis(some.ties, order, axis=1)
    gaps = []
    for x in range(num_actions):
        ahead = utility - utility[x]
        rows = jnp.max(jnp.abs(ahead), axis=1) > tolerance
        others = [y for y in range(num_actions) if y != x]
        if not others:
            return jnp.full((len(some.exists), 1), -jnp.inf, utility.dtype)
        losses = jnp.stack([ahead[y][order] for y in others])  # [A-1, V, few]
        small = _small_game(losses, rows[jnp.array(others)], there)
        gaps.append(small)
    gap = jnp.stack(gaps, axis=-1)
    alone = jax.lax.population_count(some.support) == 1
    (index,) = jnp.nonzero(alone, size=num_actions, fill_value=len(alone))
    ties = some.ties.at[index].get(mode="fill", fill_value=False)
    ahead = utility[None] - utility[:, None]
    rows = jnp.max(jnp.abs(ahead), axis=2) > tolerance
    large = jax.vmap(lambda t: jax.vmap(lambda a, r: game_value(a, r, t))(ahead, rows))(ties)
    gap = gap.at[index].set(large, mode="drop")
    return gap


def _small_game(
    losses: Float[Array, "R V C"], rows: Bool[Array, "R"], columns: Bool[Array, "V C"]
) -> Float[Array, "V"]:
    """max_α min_c Σ_r α(r) losses[r, c] over some rows and columns: at an α that makes as many columns as rows tie."""
    num_rows, _, num_columns = losses.shape
    best = jnp.full(losses.shape[1], -jnp.inf, losses.dtype)
    for size in range(1, min(num_rows, num_columns) + 1):
        bases = np.array(list(combinations(range(num_columns), size)), dtype=np.int32).reshape(-1, size)
        for chosen in combinations(range(num_rows), size):
            at = [[losses[r][:, bases[:, j]] for r in chosen] for j in range(size)]  # [V, M]
            if size == 1:
                alpha, solvable = [jnp.ones((losses.shape[1], 1), losses.dtype)], jnp.array(True)
            else:
                alpha, solvable = _balance([[a - b for a, b in zip(at[j], at[0], strict=True)] for j in range(1, size)])
            feasible = reduce(jnp.logical_and, [a >= 0 for a in alpha], solvable)
            feasible &= reduce(jnp.logical_and, [rows[r] for r in chosen])
            worst = jnp.full(alpha[0].shape, jnp.inf, losses.dtype)
            for c in range(num_columns):
                here = reduce(jnp.add, [a * losses[r][:, c, None] for a, r in zip(alpha, chosen, strict=True)])
                worst = jnp.minimum(worst, jnp.where(columns[:, c, None], here, jnp.inf))
            best = jnp.maximum(best, jnp.max(jnp.where(feasible, worst, -jnp.inf), axis=1))
    return best


def _strictly(
    utility: Float[Array, "A K"], divergence: Float[Array, "A K"], finite: Bool[Array, "A K"], x: int, tolerance: float
) -> Float[Array, ""]:
    """How far x leads every other action at least, whatever of Θ(δ_x) the agent believes."""
    fits = jnp.where(finite[x], divergence[x], jnp.inf)
    best = fits <= jnp.min(fits) + tolerance
    others = jnp.array([y for y in range(len(utility)) if y != x], int)
    leads = utility[x] - utility[others]
    return jnp.min(jnp.where(best & jnp.isfinite(fits), leads, jnp.inf), initial=jnp.inf)


def _mixed(
    utility: Float[Array, "A K"], some: Vertices, gap: Float[Array, "V A"], tolerance: float
) -> tuple[Float[Array, "E A"], Int[Array, ""], Float[Array, ""]]:
    """The equilibria among the vertices that play several actions, each once, their number, and the least slack.

    Where as many parameters tie as actions are played, one belief makes these indifferent, and it has to be a belief.
    Where more tie, any of their beliefs will do: that of a basis if one does clearly, else whether a game says so.
    """
    num_actions = utility.shape[0]
    if num_actions == 1:
        return jnp.full((1, 1), jnp.nan, utility.dtype), jnp.int32(0), jnp.array(jnp.inf, utility.dtype)
    played = jax.lax.population_count(some.support).astype(int)
    several = some.exists & (played > 1)
    known = ~jnp.isnan(some.support_slack)
    exact = known & (jnp.sum(some.ties, axis=1) == played)
    same = (some.support[:, None] == some.support) & jnp.all(some.ties[:, None] == some.ties, axis=2)
    same &= some.exists & some.exists[:, None]
    best = jnp.max(jnp.where(same & known, some.support_slack, -jnp.inf), axis=1)  # of all bases of one vertex
    first = ~jnp.any(jnp.tril(same, -1), axis=1)

    pairs = [(x, y) for x in range(num_actions) for y in range(num_actions) if x != y]
    ahead = jnp.stack([utility[y] - utility[x] for x, y in pairs])
    differ = jnp.max(jnp.abs(ahead), axis=1) > tolerance  # others are indifferent by construction
    plays = some.support[:, None] >> jnp.arange(num_actions, dtype=jnp.uint32) & 1 == 1
    worst = jnp.max(jnp.where(plays, gap, -jnp.inf), axis=1)  # one that no belief justifies rules the strategy out
    doubtful = several & first & ~exact & ~(best > tolerance) & ~(worst > tolerance)
    room = min(len(doubtful), 4 * num_actions)
    (index,) = jnp.nonzero(doubtful, size=room, fill_value=len(doubtful))
    support = some.support.at[index].get(mode="fill", fill_value=0)
    rows = jnp.stack([support >> x & 1 == 1 for x, _ in pairs], axis=-1) & differ  # x is played
    games = jax.vmap(lambda r, ties: game_value(ahead, r, ties))
    value = games(rows, some.ties.at[index].get(mode="fill", fill_value=False))
    value = jnp.where(worst > tolerance, worst, jnp.nan).at[index].set(value, mode="drop")

    slack = jnp.where(exact, jnp.abs(some.support_slack), jnp.where(best > tolerance, best, jnp.abs(value)))
    slack = jnp.where(jnp.isnan(slack), 0, slack)  # more doubtful ones than room, or a game without an end
    holds = jnp.where(exact, some.support_slack >= -tolerance, (best > tolerance) | (value <= tolerance))
    slack = jnp.where(~some.attained & holds, 0, slack)
    new = several & some.attained & holds & first
    order = jnp.argsort(~new)
    mixed = jnp.where(new[order][:, None], some.strategy[order], jnp.nan)
    return mixed, jnp.sum(new).astype(jnp.int32), jnp.min(jnp.where(several & first, slack, jnp.inf))


def _positive(scale: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.where(scale > 0, scale, 1)
