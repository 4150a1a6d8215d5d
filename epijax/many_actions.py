"""The exact path for tables with any number of actions: vertices of the lower envelope over Δ(A) (theory §2).

Weighted divergences K(σ, ·) are linear in σ, so which parameters fit best cuts the simplex of strategies into convex
pieces. More parameters fit best at a vertex of this subdivision than anywhere around it: what its vertices justify is
all that is ever justified, and the extreme equilibrium strategies are among them. Where the vertices are depends on
divergences alone; they are found once for all payoffs.
"""

from collections.abc import Sequence
from functools import partial, reduce
from itertools import combinations
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, UInt

from epijax.cells import apart, cells_last, every_one, first_true, in_pieces, least, most, positive, some, where_needed
from epijax.games import game_value
from epijax.problem import FiniteProblem
from epijax.solution import Solution, bits, conclude, verdict

MOST_ACTIONS = 6  # beyond, compiling takes many minutes
MOST_BASES = 1 << 23  # sets of parameters that are tried in one problem
_UNROLLED = 16  # parameters compared in one fused loop
_FACES_UNROLLED = 3  # faces searched each in its own code; more share one
_SMALL = 4  # actions, up to which games are solved by trying everything; others go to the simplex method
_REFUTED = 1e30  # in place of +∞: of what is not played it adds nothing, of what is played more than anything else
_FAR = 1e15  # more than that and it is refuted, whatever it is weighted and added with
_NUMBERS_AT_ONCE = 1 << 18  # candidates times cells: arrays of a megabyte or two, worth starting a kernel for

Indices = Sequence[int | Int[Array, ""]]  # of actions, known beforehand or when the loop comes to them


class Faces(NamedTuple):
    """Faces of Δ(A) on which F strategies play G actions freely, and others, that refute parameters, a little."""

    num_actions: int
    played: tuple[tuple[int, ...], ...]
    little: tuple[tuple[int, ...], ...]

    @property
    def size(self) -> int:
        return len(self.played[0])

    def support(self) -> np.ndarray:
        both = zip(self.played, self.little, strict=True)
        return np.array([sum(1 << x for x in (*played, *little)) for played, little in both], np.uint32)


class Candidates(NamedTuple):
    """Candidates for vertices, N of them: each where as many parameters tie as actions are played freely."""

    strategy: Float[Array, "A N *#cells"]
    exists: Bool[Array, "N *#cells"]
    single: Int[Array, "F *#cells"]  # the parameter that fits best, of candidates that play one action freely
    slack: Float[Array, "*#cells"]  # how clearly they exist or do not: of divergences, scaled, and of shares


class Vertices(NamedTuple):
    """The candidates that exist, V rows of which the first are in use."""

    strategy: Float[Array, "A V *#cells"]
    support: UInt[Array, "V *#cells"]  # the actions that are played, as bits
    attained: Bool[Array, "V *#cells"]  # whether the strategy is this vertex, and not only near a face it stands for
    basis: Int[Array, "A V *#cells"]  # the parameters it was found by; the first again where they are fewer
    size: Int[Array, "V *#cells"]  # how many of these there are
    ties: Bool[Array, "K V *#cells"]  # the parameters that fit best
    exists: Bool[Array, "V *#cells"]
    slack: Float[Array, "*#cells"]
    crowded: Bool[Array, "*#cells"]  # whether there are more than V


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


def count_bases(num_actions: int, num: int) -> int:
    """How many sets of parameters are tried for vertices, each for some actions that are played freely."""
    return sum(comb(num_actions, g) * comb(num, g) * 2 ** (num_actions - g) for g in range(1, num_actions + 1))


def _room(num_actions: int, num: int) -> int:
    """How many vertices a problem may have; random ones had a third to two thirds of this for four actions and more."""
    return num_actions * num * 2 ** max(0, num_actions - 4) + 2**num_actions


def _solve(tolerance: float, utility: Float[Array, "A K *#cells"], divergence: Float[Array, "A K *#cells"]) -> tuple:
    num_actions, num = utility.shape[:2]
    rank = divergence.ndim - 2
    finite = jnp.isfinite(divergence)
    level = jnp.where(finite, divergence, 0)
    scaled = (
        utility / positive(most(_flat(jnp.abs(utility), rank))),
        jnp.where(finite, level / positive(most(_flat(level, rank))), _REFUTED),
    )

    def with_vertices(tables: tuple[Array, Array]) -> tuple:
        utility, divergence = tables
        own = divergence.shape[2:]
        vertices = in_pieces(partial(_vertices, tolerance), divergence, own, few)
        cells = jnp.broadcast_shapes(utility.shape[2:], own)

        def judge(given: tuple[Array, Array, Vertices]) -> tuple:
            return _judge(*given, tolerance)

        return in_pieces(judge, (utility, divergence, vertices), cells, at_once)

    at_once = max(1, 2 * _NUMBERS_AT_ONCE // (_room(num_actions, num) * num_actions**2))
    few = max(1, _NUMBERS_AT_ONCE // count_bases(num_actions, num))
    answers = in_pieces(with_vertices, scaled, divergence.shape[2:], max(few, at_once))
    priced = every_one(_flat(jnp.isfinite(utility), rank)) & every_one(_flat(divergence >= 0, rank))
    cells = jnp.broadcast_shapes(utility.shape[2:], divergence.shape[2:])
    refuted, priced = (jnp.broadcast_to(one, cells) for one in (~some(every_one(finite)), priced))
    return *answers, refuted, priced


# Where what fits best changes: of divergences alone


def _vertices(tolerance: float, divergence: Float[Array, "A K *#cells"]) -> Vertices:
    """Of all faces those without a little of anything matter always, the others where something is refuted."""
    num_actions, num = divergence.shape[:2]
    cells = divergence.shape[2:]
    plain, refuting = _groups(num_actions, num)
    distinct = apart(partial(_distinct, tolerance), divergence)

    def search(groups: list[Faces]) -> list[Candidates]:
        return [apart(partial(_on_faces, tolerance, group), divergence, distinct) for group in groups]

    def nothing(group: Faces) -> Candidates:
        count = len(group.played) * len(_bases(group.size, num))
        return Candidates(
            strategy=jnp.zeros((num_actions, count, *cells), divergence.dtype),
            exists=jnp.zeros((count, *cells), bool),
            single=jnp.zeros((count if group.size == 1 else 0, *cells), jnp.int32),
            slack=jnp.full(cells, jnp.inf, divergence.dtype),
        )

    parts = search(plain)
    if refuting:
        parts += jax.lax.cond(
            jnp.all(divergence < _FAR), lambda: [nothing(g) for g in refuting], lambda: search(refuting)
        )
    return _compacted(divergence, tolerance, [*plain, *refuting], parts)


def _groups(num_actions: int, num: int) -> tuple[list[Faces], list[Faces]]:
    """The faces that play nothing a little, and those that do, each by how many actions are played freely."""
    groups: tuple[list[Faces], list[Faces]] = [], []
    for size in range(1, min(num_actions, num) + 1):
        for few in range(num_actions - size + 1):
            faces = [
                (played, little)
                for played in combinations(range(num_actions), size)
                for little in combinations([x for x in range(num_actions) if x not in played], few)
            ]
            groups[few > 0].append(Faces(num_actions, *zip(*faces, strict=True)))
    return groups


def _bases(size: int, num: int) -> np.ndarray:
    """The sets of `size` parameters, `[M, size]`; one that is not known beforehand if the size is 1."""
    if size == 1:
        return np.zeros((1, 1), np.int32)
    return np.array(list(combinations(range(num), size)), np.int32).reshape(-1, size)


def _compacted(
    divergence: Float[Array, "A K *#cells"], tolerance: float, groups: list[Faces], parts: list[Candidates]
) -> Vertices:
    """The candidates on these faces that exist, in as many rows as there may be."""
    num_actions, num = divergence.shape[:2]
    room = _room(num_actions, num)
    exists = jnp.concatenate([part.exists for part in parts])
    index = apart(partial(first_true, room=room), exists)
    there = index < len(exists)
    index = jnp.where(there, index, 0)

    def described(index: Array, single: Array) -> tuple:
        size, support, attained, basis = _described(groups, num, index)
        # where one action is played freely, the parameter is known only now
        own = jnp.take_along_axis(single, jnp.where(size == 1, basis[0], 0), axis=0, mode="promise_in_bounds")
        return size, support, attained, jnp.stack([jnp.where(size == 1, own, b) for b in basis])

    def looked_up(index: Array, parts: list[Candidates]) -> list[Array]:
        rows = (jnp.concatenate([part.strategy[x] for part in parts]) for x in range(num_actions))
        return [jnp.take_along_axis(row, index, axis=0, mode="promise_in_bounds") for row in rows]

    def fitting(strategy: list[Array], divergence: Array) -> Array:
        values = _weighted([s[None] for s in strategy], [d[:, None] for d in divergence])
        return values <= least(values) + tolerance

    size, support, attained, basis = apart(described, index, jnp.concatenate([part.single for part in parts]))
    strategy = apart(looked_up, index, parts)
    return Vertices(
        strategy=jnp.stack(strategy),
        support=support,
        attained=attained,
        basis=basis,
        size=size,
        ties=apart(fitting, strategy, divergence),
        exists=there,
        slack=reduce(jnp.minimum, [part.slack for part in parts]),
        crowded=jnp.sum(exists, axis=0) > room,
    )


def _described(
    groups: list[Faces], num: int, index: Int[Array, "V *#cells"]
) -> tuple[Int[Array, "V *#cells"], UInt[Array, "V *#cells"], Bool[Array, "V *#cells"], list[Int[Array, "V *#cells"]]]:
    """Of the candidates of these numbers: how many parameters they rest on, their support, whether they are attained,
    and the parameters, in place of which those that play one action freely have the number of their face.

    Looked up in few words, as a look-up costs more than taking a word to pieces.
    """
    tables, corners = [], 0
    for group in groups:
        bases = _bases(group.size, num)
        bases = np.concatenate([bases, np.repeat(bases[:, :1], group.num_actions - group.size, axis=1)], axis=1)
        bases = np.tile(bases, (len(group.played), 1))
        if group.size == 1:
            bases += corners + np.arange(len(bases))[:, None]
            corners += len(bases)
        kind = group.support() << 6 | group.size << 1 | (not group.little[0])
        tables.append(np.column_stack([np.repeat(kind, len(bases) // len(group.played)), bases]))
    kinds, *params = np.concatenate(tables).astype(np.uint32).T
    params += [np.zeros_like(kinds)] * (len(params) % 2)
    words = [low | high << 16 for low, high in zip(params[::2], params[1::2], strict=True)]
    kind, *words = (jnp.take(jnp.asarray(word), index) for word in (kinds, *words))
    basis = [part.astype(jnp.int32) for word in words for part in (word & 0xFFFF, word >> 16)]
    return (kind >> 1 & 31).astype(jnp.int32), kind >> 6, kind & 1 == 1, basis[: groups[0].num_actions]


def _distinct(tolerance: float, divergence: Float[Array, "A K *#cells"]) -> Bool[Array, "K *#cells"]:
    """Whether no parameter before this one has the same column: those that have tie by construction."""
    num, rank = divergence.shape[1], divergence.ndim - 2
    furthest = most(jnp.abs(divergence[:, :, None] - divergence[:, None]))
    before = jnp.arange(num)[:, None] < jnp.arange(num)
    return least(jnp.where(before.reshape(num, num, *(1,) * rank), furthest, jnp.inf)) > tolerance


def _on_faces(
    tolerance: float, faces: Faces, divergence: Float[Array, "A K *#cells"], distinct: Bool[Array, "K *#cells"]
) -> Candidates:
    """The candidates on these faces, one face after the other."""
    form = _on_corner if faces.size == 1 else _on_face
    on_face = partial(form, divergence, distinct, tolerance)
    if len(faces.played) <= _FACES_UNROLLED:
        parts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(on_face, faces.played, faces.little))
    else:
        found = [jnp.array(side, jnp.int32).reshape(len(side), -1) for side in (faces.played, faces.little)]
        parts = jax.lax.map(lambda face: on_face(*map(list, face)), tuple(found))
    return _joined(parts)


def _joined(parts: Candidates) -> Candidates:
    """Candidates that were found apart, `[parts, ...]`, in one row."""
    strategy = jnp.moveaxis(parts.strategy, 0, 1)
    return Candidates(
        strategy=strategy.reshape(len(strategy), -1, *strategy.shape[3:]),
        exists=parts.exists.reshape(-1, *parts.exists.shape[2:]),
        single=parts.single.reshape(-1, *parts.single.shape[2:]),
        slack=least(parts.slack),
    )


def _sliver(dtype) -> float:
    """How much a little is."""
    return 1e-4 if dtype == jnp.float64 else 1e-2


def _face(
    divergence: Float[Array, "A K *#cells"], played: Indices, little: Indices
) -> tuple[list[Array], Bool[Array, "*#cells"]]:
    """K(σ, ·) = Σ σ_x rows[x] over the actions played freely, and whether each played a little refutes something."""
    few, sliver = len(little), _sliver(divergence.dtype)
    rows = [divergence[x] for x in played]
    if not few:
        return rows, jnp.ones(divergence.shape[2:], bool)
    more = sliver * reduce(jnp.add, [divergence[x] for x in little]) / (1 - sliver * few)
    return [row + more for row in rows], reduce(jnp.logical_and, [most(divergence[x]) > _FAR for x in little])


def _spread(
    shares: list[Float[Array, "M *#cells"]], played: Indices, little: Indices, num_actions: int
) -> Float[Array, "A M *#cells"]:
    sliver = _sliver(shares[0].dtype)
    rest = 1 - sliver * len(little)
    nothing = jnp.zeros_like(shares[0])
    return jnp.stack(
        [
            sum(
                (jnp.where(played[i] == x, share * rest, 0) for i, share in enumerate(shares)),
                start=sum((jnp.where(y == x, sliver, 0) for y in little), start=nothing),
            )
            for x in range(num_actions)
        ]
    )


def _on_corner(
    divergence: Float[Array, "A K *#cells"],
    distinct: Bool[Array, "K *#cells"],
    tolerance: float,
    played: Indices,
    little: Indices,
) -> Candidates:
    """The one candidate that plays one action freely: what it rests on fits it best."""
    num_actions, num = divergence.shape[:2]
    few = len(little)
    (row,), wanted = _face(divergence, played, little)
    basis = jnp.argmin(jnp.where(distinct, row, jnp.inf), axis=0).astype(jnp.int32)
    lowest = least(row)
    gaps = row - lowest
    itself = jnp.arange(num).reshape(-1, *(1,) * basis.ndim) == basis
    nearest = least(jnp.where(itself | ~distinct, jnp.inf, gaps))
    exists = (lowest < _FAR) & wanted
    if few:  # nothing may change between here and the face itself
        own = divergence[played[0]]
        at_basis = jnp.take_along_axis(own, basis[None], axis=0, mode="promise_in_bounds")[0]
        hidden = least(jnp.where(row < _FAR, own - at_basis, jnp.inf)) < -tolerance
    else:
        nearest = jnp.where(most(gaps) <= tolerance, jnp.inf, nearest)  # uninformative
        hidden = jnp.zeros_like(exists)
    slack = jnp.where(exists, jnp.where(hidden, 0, jnp.abs(nearest)), jnp.inf)
    return Candidates(
        strategy=_spread([jnp.ones_like(slack)[None]], played, little, num_actions),
        exists=exists[None],
        single=basis[None],
        slack=slack,
    )


def _on_face(
    divergence: Float[Array, "A K *#cells"],
    distinct: Bool[Array, "K *#cells"],
    tolerance: float,
    played: Indices,
    little: Indices,
) -> Candidates:
    """The candidates that play several actions freely, some a little, and no others."""
    num_actions, num = divergence.shape[:2]
    size, few = len(played), len(little)
    bases = _bases(size, num)
    outside = np.where((bases[:, :, None] == np.arange(num)).any(axis=1), np.inf, 0).astype(divergence.dtype).T
    rows, wanted = _face(divergence, played, little)
    if not few:  # an uninformative action leaves no vertex inside: the shares of the others are zero by construction
        wanted &= ~reduce(jnp.logical_or, [every_one(jnp.abs(row - row[:1]) <= tolerance) for row in rows])

    def eligible(rows: list[Array], distinct: Array) -> list[Array]:
        """What one action refutes fits nothing on this face, not even where that action is not played."""
        fits = distinct & (reduce(jnp.add, rows) < _FAR)
        return [jnp.where(fits, row, _REFUTED) for row in rows]

    rows = apart(eligible, rows, distinct)

    def differences(rows: list[Array]) -> tuple[list[Array], list[list[Array]], Array]:
        at = [[row[bases[:, j]] for row in rows] for j in range(size)]  # at[j][i]: action i, parameter j
        total = reduce(jnp.add, [reduce(jnp.add, column) for column in at])
        return at[0], [[a - b for a, b in zip(at[j], at[0], strict=True)] for j in range(1, size)], total

    def compare(rows: list[Array], shares: list[Array], own: Array) -> Array:
        """How much worse what fits best outside the basis is."""

        def nearer(gap: Array, k: int | Array) -> Array:
            others = jnp.asarray(outside)[k].reshape(-1, *(1,) * wanted.ndim)
            here = others + (_weighted(shares, [row[k] for row in rows]) - own)
            return jnp.where(here < gap, here, gap)

        def block(i: Array, gap: Array) -> Array:
            return reduce(nearer, [jnp.minimum(i * _UNROLLED + k, num - 1) for k in range(_UNROLLED)], gap)

        nothing = jnp.full(own.shape, jnp.inf, own.dtype)
        if num <= _UNROLLED:
            return reduce(nearer, range(num), nothing)
        return jax.lax.fori_loop(0, -(-num // _UNROLLED), block, nothing)

    first, equations, total = apart(differences, rows)
    shares, firm = apart(_balance, equations)
    own = apart(_weighted, shares, first)
    nearest = apart(compare, rows, shares, own)
    inside = reduce(jnp.minimum, shares)
    based = (firm > 0) & wanted & (total < _FAR)
    exists = based & (inside > tolerance) & (nearest >= -tolerance)
    slack = jnp.where(based, jnp.abs(jnp.minimum(inside, nearest)), jnp.inf)
    loose = firm < float(jnp.finfo(own.dtype).eps) / tolerance  # its shares are out by more than the tolerance
    slack = jnp.where(exists & loose, 0, slack)
    if few:  # nothing may change between here and the face itself
        slack = jnp.where(exists & (nearest < 2 * _sliver(own.dtype) * few), 0, slack)
    return Candidates(
        strategy=_spread(shares, played, little, num_actions),
        exists=exists,
        single=jnp.zeros((0, *wanted.shape), jnp.int32),
        slack=least(slack),
    )


def _higher(a: Array, b: Array) -> Array:
    return jnp.where(a > b, a, b)


def _weighted(shares: list, values: list) -> Array:
    return reduce(jnp.add, [share * value for share, value in zip(shares, values, strict=True)])


def _balance(equations: list[list[Float[Array, "*M"]]]) -> tuple[list[Float[Array, "*M"]], Float[Array, "*M"]]:
    """The weights that sum to one and solve n−1 homogeneous equations, by cofactors; and how firmly they do.

    That is zero where not one set of weights alone does; weights are out by some units of rounding over it.
    """
    n = len(equations) + 1

    def scaled(equations: list[list[Array]]) -> list[list[Array]]:
        scales = [1 / positive(reduce(_higher, [jnp.abs(entry) for entry in row])) for row in equations]
        return [[entry * scale for entry in row] for row, scale in zip(equations, scales, strict=True)]

    def cofactors(equations: list[list[Array]]) -> list[Array]:
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
        return [(-1) ** x * jnp.asarray(minors[tuple(y for y in range(n) if y != x)]) for x in range(n)]

    def weights(cofactors: list[Array]) -> tuple[list[Array], Array]:
        total, largest = reduce(jnp.add, cofactors), reduce(_higher, [jnp.abs(c) for c in cofactors])
        rounding = 64 * float(jnp.finfo(largest.dtype).eps)
        solvable = (largest > rounding) & (jnp.abs(total) > rounding * largest)
        share = 1 / jnp.where(solvable, total, 1)
        return [c * share for c in cofactors], jnp.where(solvable, jnp.abs(total), 0)

    return weights(apart(cofactors, apart(scaled, equations)))


# What the payoffs make of the vertices


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
    if num > _UNROLLED:
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
                    alpha, firm = _balance([[a - b for a, b in zip(row, at[0], strict=True)] for row in at[1:]])
                    feasible = reduce(jnp.logical_and, [a >= 0 for a in alpha], (firm > 0) & there)
                worst = reduce(jnp.minimum, [_weighted(alpha, [losses[r][c] for r in chosen]) for c in columns])
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
        belief, firm = _balance([[a - b for a, b in zip(row, mine[0], strict=True)] for row in mine[1:]])
        value = _weighted(belief, mine[0])
        least_of = reduce(jnp.minimum, belief)
        for y in range(num_actions):
            ahead = value - _weighted(belief, [paid[y, j] for j in range(size)])
            least_of = jnp.minimum(least_of, jnp.where(plays[y], jnp.inf, ahead))
        slack = jnp.where((vertices.size == size) & vertices.attained & (firm > 0), least_of, slack)
    return slack


def _on(support: UInt[Array, "V *#cells"], num_actions: int) -> Bool[Array, "A V *#cells"]:
    return jnp.stack([support >> x & 1 == 1 for x in range(num_actions)])


def _flat(table: Array, rank: int) -> Array:
    """The first two axes as one."""
    return table.reshape(-1, *table.shape[table.ndim - rank :])
