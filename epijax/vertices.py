"""Where what fits best changes: the vertices of the lower envelope of K divergences over Δ(A) (theory §2).

Weighted divergences K(σ, ·) are linear in σ, so which parameters fit best cuts the simplex of strategies into convex
pieces. More parameters fit best at a vertex of this subdivision than anywhere around it. Where the vertices are depends
on divergences alone.
"""

from collections.abc import Sequence
from functools import partial, reduce
from itertools import combinations
from math import comb
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt

from epijax.cells import apart, every_one, first_true, least, most, positive

UNROLLED = 16  # parameters looked at in one fused loop
REFUTED = 1e30  # in place of +∞: of what is not played it adds nothing, of what is played more than anything else
_FAR = 1e15  # more than that and it is refuted, whatever it is weighted and added with
_FACES_UNROLLED = 3  # faces searched each in its own code; more share one

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


def count_bases(num_actions: int, num: int) -> int:
    """How many sets of parameters are tried for vertices, each for some actions that are played freely."""
    return sum(comb(num_actions, g) * comb(num, g) * 2 ** (num_actions - g) for g in range(1, num_actions + 1))


def room_for(num_actions: int, num: int) -> int:
    """How many vertices a problem may have; random ones had a third to two thirds of this for four actions and more."""
    return num_actions * num * 2 ** max(0, num_actions - 4) + 2**num_actions


def find_vertices(tolerance: float, divergence: Float[Array, "A K *#cells"]) -> Vertices:
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
    room = room_for(num_actions, num)
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
        values = weighted([s[None] for s in strategy], [d[:, None] for d in divergence])
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
        return [jnp.where(fits, row, REFUTED) for row in rows]

    rows = apart(eligible, rows, distinct)

    def differences(rows: list[Array]) -> tuple[list[Array], list[list[Array]], Array]:
        at = [[row[bases[:, j]] for row in rows] for j in range(size)]  # at[j][i]: action i, parameter j
        total = reduce(jnp.add, [reduce(jnp.add, column) for column in at])
        return at[0], [[a - b for a, b in zip(at[j], at[0], strict=True)] for j in range(1, size)], total

    def compare(rows: list[Array], shares: list[Array], own: Array) -> Array:
        """How much worse what fits best outside the basis is."""

        def nearer(gap: Array, k: int | Array) -> Array:
            others = jnp.asarray(outside)[k].reshape(-1, *(1,) * wanted.ndim)
            here = others + (weighted(shares, [row[k] for row in rows]) - own)
            return jnp.where(here < gap, here, gap)

        def block(i: Array, gap: Array) -> Array:
            return reduce(nearer, [jnp.minimum(i * UNROLLED + k, num - 1) for k in range(UNROLLED)], gap)

        nothing = jnp.full(own.shape, jnp.inf, own.dtype)
        if num <= UNROLLED:
            return reduce(nearer, range(num), nothing)
        return jax.lax.fori_loop(0, -(-num // UNROLLED), block, nothing)

    first, equations, total = apart(differences, rows)
    shares, firm = apart(balance, equations)
    own = apart(weighted, shares, first)
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


def weighted(shares: list, values: list) -> Array:
    return reduce(jnp.add, [share * value for share, value in zip(shares, values, strict=True)])


def balance(equations: list[list[Float[Array, "*M"]]]) -> tuple[list[Float[Array, "*M"]], Float[Array, "*M"]]:
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
