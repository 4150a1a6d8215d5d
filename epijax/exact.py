"""Finite problems in rational arithmetic: no rounding, no tolerance, any number of actions (theory §2).

On the simplex of strategies that refute no more than some set L of parameters leaves alive, weighted divergences
K(σ, ·) are linear in σ, and which of L fits best cuts it into convex pieces. A *cell* is what has one support S and one
set T of parameters that tie for the best fit. Its faces play fewer actions and tie more parameters, so

    Γ(B)               needs the cells on S ⊆ B that have no face attained by play: the vertices, as long as nothing is
                       refuted
    extreme equilibria are the vertices for which one μ ∈ Δ(T) makes all of S best responses

A face is not attained where fewer actions leave more parameters alive and one of those fits better.

The standard library alone. Sets of actions and of parameters are bits of integers; tables are scaled to whole numbers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

Number = int | float | Fraction


@dataclass(frozen=True)
class ExactAnswer:
    """The solution of one finite problem.

    - `rationalizable`, `pure`, `strict`: one for each action.
    - `mixed`: the extreme equilibria that are not pure, each once, in lexical order.
    - `component`: for each row of `mixed`, which set of equilibria linked to each other it belongs to; two are linked
      where one belief supports all strategies between them. While divergences are finite, these sets are the connected
      components of the set of all equilibria. Numbered in order, pure equilibria first.
    - `pure_component`: the same for each action, −1 where it is no pure equilibrium.
    - `rounds`: X, Γ(X), Γ²(X), …; the last is the rationalizable set.
    - `refuted`: whether play of all actions refutes every parameter; then all sets are empty.
    """

    rationalizable: tuple[bool, ...]
    pure: tuple[bool, ...]
    strict: tuple[bool, ...]
    mixed: tuple[tuple[Fraction, ...], ...]
    component: tuple[int, ...]
    pure_component: tuple[int, ...]
    rounds: tuple[tuple[bool, ...], ...]
    refuted: bool


class Vertex(NamedTuple):
    """A cell that is a single strategy: its weights in proportion, the actions it plays, what fits it best."""

    weights: tuple[int, ...]
    support: int
    ties: int


def solve_exactly(utility: Sequence[Sequence[Number]], divergence: Sequence[Sequence[Number]]) -> ExactAnswer:
    """Berk–Nash equilibria and the rationalizable set of two tables, exactly.

    The work grows with the number of vertices and, divergences being infinite, of sets of parameters left alive.

    **Arguments:** `utility`, `divergence`: `[A][K]`, U(x, θ) and K(x, θ); a float is the dyadic rational that it is,
    and `math.inf` in `divergence` says that x refutes θ.

    **Returns:** an `ExactAnswer`.

    Raises `ValueError` for tables of unequal or no size, utilities that are not finite, and divergences that are
    negative or NaN.

    Source: theory §2; [EP16], [EP25].
    """
    tables = Tables(utility, divergence)
    actions = range(tables.num_actions)
    if not tables.alive(tables.everything):
        nobody = (False,) * len(actions)
        return ExactAnswer(nobody, nobody, nobody, (), (), (-1,) * len(actions), (), True)
    vertices, cells = tables.attained()
    rounds = tables.rounds(cells)
    equilibria = [v for v in vertices if tables.balances(v.support, v.ties)]
    pure = {v.support.bit_length() - 1: v for v in equilibria if v.support.bit_count() == 1}
    mixed = sorted((_shares(v.weights), v) for v in equilibria if v.support.bit_count() > 1)
    component = tables.components([pure[x] for x in sorted(pure)] + [v for _, v in mixed])
    of_pure = dict(zip(sorted(pure), component, strict=False))
    masks = tuple(tuple(bool(kept >> x & 1) for x in actions) for kept in rounds)
    return ExactAnswer(
        rationalizable=masks[-1],
        pure=tuple(x in pure for x in actions),
        strict=tuple(x in pure and tables.leads(x, pure[x].ties) for x in actions),
        mixed=tuple(strategy for strategy, _ in mixed),
        component=tuple(component[len(pure) :]),
        pure_component=tuple(of_pure.get(x, -1) for x in actions),
        rounds=masks,
        refuted=False,
    )


class Tables:
    """Two tables of whole numbers; `finite[x]` are the parameters that x leaves alive."""

    def __init__(self, utility: Sequence[Sequence[Number]], divergence: Sequence[Sequence[Number]]):
        _check(utility, divergence)
        self.num_actions = len(utility)
        self.everything = (1 << self.num_actions) - 1
        self.finite = [_bits([k for k, entry in enumerate(row) if entry != math.inf]) for row in divergence]
        self.utility = _whole(utility)
        # what stands for an infinite divergence is only ever multiplied by a weight of zero
        self.divergence = _whole([[0 if entry == math.inf else entry for entry in row] for row in divergence])
        self.known: dict[tuple[int, int], dict[int, Fraction] | None] = {}

    # Fits

    def alive(self, support: int) -> int:
        """The parameters that no action of a non-empty support refutes."""
        left = -1
        for x in members(support):
            left &= self.finite[x]
        return left

    def best_fits(self, vertex: Vertex) -> int:
        """Θ(σ) of its strategy, of all parameters that its own support leaves alive."""
        played = [(vertex.weights[x], self.divergence[x]) for x in members(vertex.support)]
        values = {k: sum(weight * row[k] for weight, row in played) for k in members(self.alive(vertex.support))}
        least = min(values.values())
        return _bits([k for k, value in values.items() if value == least])

    def subdivision(self, alive: int) -> list[Vertex]:
        """The vertices of the pieces into which the best fits among `alive` cut the simplex of the actions that leave
        them alive.

        They are the extreme rays of the cone of the (σ, t) with σ ≥ 0 and t ≤ K(σ, θ), but for the one downwards. One
        parameter after the other cuts off a part of the cone, and each edge that it cuts leaves a new ray (the double
        description method of Motzkin et al.). Each ray comes with the constraints that bind on it, as bits: σ_x ≥ 0,
        then those of the parameters. Two span an edge iff what binds on both binds on no third.
        """
        num = self.num_actions
        first, *rest = members(alive)
        rays = {(*(0,) * num, -1): self.everything}
        for x in range(num):
            if not alive & ~self.finite[x]:
                unit = tuple(int(x == y) for y in range(num))
                rays[(*unit, self.divergence[x][first])] = self.everything ^ 1 << x | 1 << num + first
        for k in rest:
            normal = [*(row[k] for row in self.divergence), -1]
            slack = {ray: sum(a * b for a, b in zip(normal, ray, strict=True)) for ray in rays}
            above = [ray for ray in rays if slack[ray] < 0]
            cut = {}
            for up in above:
                for down in (ray for ray in rays if slack[ray] > 0):
                    both = rays[up] & rays[down]
                    if both.bit_count() >= num - 1 and sum(binds & both == both for binds in rays.values()) == 2:
                        new = [slack[down] * a - slack[up] * b for a, b in zip(up, down, strict=True)]
                        common = math.gcd(*new)
                        cut[tuple(entry // common for entry in new)] = both | 1 << num + k
            rays = {ray: binds | (slack[ray] == 0) << num + k for ray, binds in rays.items() if slack[ray] >= 0} | cut
        supports = {ray: self.everything & ~binds for ray, binds in rays.items()}
        return [Vertex(ray[:-1], supports[ray], binds >> num) for ray, binds in rays.items() if supports[ray]]

    def attained(self) -> tuple[list[Vertex], set[tuple[int, int]]]:
        """All vertices, and cells (S, T) that justify all that is justified on their supports."""
        lives: set[int] = set()
        for finite in self.finite:
            lives |= {finite} | {finite & alive for alive in lives}
        vertices, cells = [], set()
        for alive in lives:
            found = self.subdivision(alive)
            vertices += [v for v in found if self.alive(v.support) == alive]
            cells |= self.open_cells(alive, found)
        return vertices, cells | {(v.support, v.ties) for v in vertices}

    def open_cells(self, alive: int, found: list[Vertex]) -> set[tuple[int, int]]:
        """Cells none of whose vertices is attained: on its own support each is fitted better by what `alive` misses.

        The least cell that has two others as faces plays what either plays and ties what both tie. The smallest cells
        that leave no more than `alive` are enough.
        """
        missed = [v for v in found if self.alive(v.support) != alive and not self.best_fits(v) & alive]
        corners = {(v.support, v.ties) for v in missed}
        cells, waiting = set(), corners
        while waiting:
            joins = {(s | r, t & u) for s, t in waiting for r, u in corners if t & u and r & ~s}
            complete = {join for join in joins if self.alive(join[0]) == alive}
            cells, waiting = cells | complete, joins - complete
        return cells

    def strategy(self, support: int, ties: int) -> tuple[Fraction, ...]:
        """A strategy inside a cell: the mean of its corners."""
        corners = [
            _shares(v.weights)
            for v in self.subdivision(self.alive(support))
            if not v.support & ~support and v.ties & ties == ties
        ]
        return tuple(sum(shares, Fraction(0)) / len(corners) for shares in zip(*corners, strict=True))

    # Beliefs

    def balances(self, support: int, params: int) -> bool:
        """Whether one belief over these parameters makes every action of the support a best response."""
        return self.belief(support, params) is not None

    def belief(self, support: int, params: int) -> dict[int, Fraction] | None:
        """One such belief, as the weights of parameters; `None` if there is none.

        With x one of them, E_μ[U(x) − U(y)] is zero for y in the support, and a slack s_y ≥ 0 for the others.
        """
        if (support, params) not in self.known:
            x, others = next(members(support)), list(members(self.everything & ~support))
            # parameters that pay the same are one
            leads = {tuple(self.utility[x][k] - row[k] for row in self.utility): k for k in members(params)}
            columns = [[*lead, 1] for lead in sorted(leads)]
            columns += [[-int(y == z) for z in range(self.num_actions)] + [0] for y in others]
            found = _solution(columns, [0] * self.num_actions + [1])
            names = [leads[lead] for lead in sorted(leads)]
            weights = None if found is None else {names[j]: w for j, w in found.items() if j < len(names) and w}
            self.known[support, params] = weights
        return self.known[support, params]

    def leads(self, action: int, params: int) -> bool:
        """Whether the action alone is optimal at each of these parameters."""
        others = [row for y, row in enumerate(self.utility) if y != action]
        return all(self.utility[action][k] > row[k] for row in others for k in members(params))

    def rounds(self, cells: set[tuple[int, int]]) -> list[int]:
        """X, Γ(X), Γ²(X), … until nothing is dropped any more."""
        kept = [self.everything]
        while True:
            within = {ties for support, ties in cells if not support & ~kept[-1]}
            image = [x for x in members(kept[-1]) if any(self.balances(1 << x, ties) for ties in within)]
            if _bits(image) == kept[-1]:
                return kept
            kept.append(_bits(image))

    def components(self, equilibria: list[Vertex]) -> list[int]:
        """For each equilibrium the number of its component, in order of appearance."""
        label = list(range(len(equilibria)))
        for i, v in enumerate(equilibria):
            for j, w in enumerate(equilibria[:i]):
                if label[i] != label[j] and self.linked(v, w):
                    old, new = max(label[i], label[j]), min(label[i], label[j])
                    label = [new if number == old else number for number in label]
        order = list(dict.fromkeys(label))
        return [order.index(number) for number in label]

    def linked(self, v: Vertex, w: Vertex) -> bool:
        """Whether one belief supports all strategies between two: where anything fits both best, that alone does."""
        return self.balances(v.support | w.support, v.ties & w.ties)


def _solution(columns: list[list[int]], level: list[int]) -> dict[int, Fraction] | None:
    """The p_j of one p ≥ 0 with Σ_j p_j columns_j = level ≥ 0: the first phase of the simplex method in whole numbers.

    The last row is the sum of those whose equation is not met yet. All entries are over one denominator, the last
    pivot, so each division is exact; Bland's rule keeps it from going in circles.
    """
    rows = [list(row) for row in zip(*columns, level, strict=True)]
    rows.append([sum(row) for row in zip(*rows, strict=True)])
    basis = [len(columns)] * len(level)
    scale = 1
    while rows[-1][-1]:
        enters = next((j for j, gain in enumerate(rows[-1][:-1]) if gain > 0), None)
        if enters is None:
            return None
        ratios = [(Fraction(row[-1], row[enters]), basis[i], i) for i, row in enumerate(rows[:-1]) if row[enters] > 0]
        leaves = min(ratios)[-1]
        basis[leaves], chosen = enters, rows[leaves]
        pivot = chosen[enters]
        rows = [
            row if row is chosen else [(pivot * a - row[enters] * b) // scale for a, b in zip(row, chosen, strict=True)]
            for row in rows
        ]
        scale = pivot
    return {j: Fraction(row[-1], scale) for j, row in zip(basis, rows, strict=False) if j < len(columns)}


def _check(utility: Sequence[Sequence[Number]], divergence: Sequence[Sequence[Number]]) -> None:
    sizes = {len(row) for table in (utility, divergence) for row in table}
    if len(utility) != len(divergence) or len(sizes) != 1 or sizes == {0}:
        raise ValueError("utility and divergence must both be [actions][parameters], at least one of each")
    if not all(math.isfinite(entry) for row in utility for entry in row):
        raise ValueError("utility must be finite; a parameter that cannot be priced has no best response")
    if not all(entry >= 0 for row in divergence for entry in row):
        raise ValueError("divergence must be non-negative, in nats, and not NaN; math.inf says that x refutes θ")


def _whole(table: Sequence[Sequence[Number]]) -> list[list[int]]:
    """The table in units of one over its common denominator."""
    exact = [[Fraction(entry) for entry in row] for row in table]
    unit = math.lcm(*(entry.denominator for row in exact for entry in row))
    return [[int(entry * unit) for entry in row] for row in exact]


def _shares(weights: tuple[int, ...]) -> tuple[Fraction, ...]:
    return tuple(Fraction(weight, sum(weights)) for weight in weights)


def members(bits: int) -> Iterator[int]:
    """The numbers of the bits that are set."""
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest


def _bits(members: Sequence[int]) -> int:
    return sum(1 << i for i in members)
