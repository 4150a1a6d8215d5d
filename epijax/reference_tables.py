"""The independent judge for two tables with any number of actions: linear programs, set by set (theory §2, §9).

For a support S, a set of actions all of which are played, the *tie sets* are the sets T of parameters with T = Θ(σ) for
some σ with support S; the strategies of one tie set form its *cell*. Everything is decided for S and T alone:

    Γ(B)          = ⋃ {F(Δ(T)) : T a tie set on some S ⊆ B}
    equilibria    = the cells for which one μ ∈ Δ(T) makes all of S best responses
    extreme ones  = those cells that are a single strategy

NumPy and SciPy alone, readable rather than fast: it visits every subset of the actions. `reference.finite` is the way
in, and scales the tables.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog
from scipy.sparse import block_diag, csr_array

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Indices = tuple[int, ...]  # actions or parameters, in order
Program = tuple[FloatArray, FloatArray]  # rows over (weights, t) that must be >= 0, and rows that must be 0

_ROUNDING = 1e-12  # a difference of at most this is zero but for rounding
_FINEST = 1e-9  # the finest tolerance: what the programs leave undecided is well below
_SOLVABLE = 1e-9  # equations that are missed by less than this have a solution
_ACCURATE = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}  # the finest HiGHS takes


class Tables:
    """Scaled tables `utility` and `nats` `[A, K]`, and on each support the tie sets with the width of their cells.

    The width is the smallest weight, or gap to another parameter, of the strategy where that is largest; inf where
    there is one tie set only. It is 0 where a tie that no structure forces holds the set together: uninformative
    actions (constant rows of `nats`) and parameters with equal columns are structure. A tolerance below 1e-9 is taken
    as that: the programs decide no finer.
    """

    def __init__(self, utility: FloatArray, nats: FloatArray, tolerance: float):
        self.utility, self.nats, self.tolerance = utility, nats, max(tolerance, _FINEST)
        self.actions = range(len(utility))
        marked = np.where(np.isfinite(nats), nats, -1.0)  # inf becomes what no divergence is
        self.informative = np.ptp(marked, axis=1) > _ROUNDING
        self.known: dict[Indices, FloatArray] = {}
        self.slacks: list[float] = []  # of parameters and sets of them that fit best for no strategy
        sizes = range(1, len(utility) + 1)
        supports = [support for size in sizes for support in itertools.combinations(self.actions, size)]
        self.widths = {support: self.tie_sets(support) for support in supports}

    def answer(self) -> tuple[BoolArray, BoolArray, BoolArray, FloatArray, float]:
        """Rationalizable, pure and strict `[A]`, the extreme mixed equilibria `[m, A]` in lexical order, the margin.

        All are empty, and the margin nan, if full support refutes every parameter.
        """
        pure, strict = np.zeros((2, len(self.actions)), dtype=np.bool_)
        mixed: list[list[float]] = []
        if not self.widths[tuple(self.actions)]:
            return pure.copy(), pure, strict, np.zeros((0, len(self.actions))), math.nan
        slacks = [*self.slacks, *self.elimination_slacks()]
        for support, sets in self.widths.items():
            for tied, width in sets.items():
                is_equilibrium, slack = self.balance(support, tied)
                slacks.append(min(slack, width) if is_equilibrium else slack)
                if is_equilibrium and len(support) == 1:
                    least = self.least_advantage(support[0], tied)
                    pure[support[0]], strict[support[0]] = True, least > self.tolerance
                    slacks.append(abs(least))
                elif is_equilibrium and (strategy := self.only_strategy(support, tied)) is not None:
                    mixed.append(strategy)
        listed = np.array(sorted(mixed)).reshape(-1, len(self.actions))
        return self.rationalizable(), pure, strict, listed, min(slacks, default=math.inf)

    def rationalizable(self) -> BoolArray:
        """Γ iterated from the set of all actions to its fixed point."""
        survivors = set(self.actions)
        while True:
            within = [sets for support, sets in self.widths.items() if survivors.issuperset(support)]
            image = {x for sets in within for tied in sets for x in self.justified(tied)}
            if image == survivors:
                return np.array([x in survivors for x in self.actions])
            survivors = image

    def elimination_slacks(self) -> list[float]:
        """How clearly Γ keeps or drops each action that decides the set, dropping the worst one at a time.

        An action is as clearly in Γ(B) as the best of the tie sets on supports in B justifies it, and no more than the
        cell of that set is wide.
        """
        remaining, slacks = set(self.actions), []
        while remaining:
            within = [sets for support, sets in self.widths.items() if remaining.issuperset(support)]
            clarity = [np.minimum(width, self.advantages(tied)) for sets in within for tied, width in sets.items()]
            best = np.max([np.full(len(self.actions), -math.inf), *clarity], axis=0)
            worst = min(remaining, key=lambda x: best[x])
            slacks.append(abs(float(best[worst])))
            if best[worst] >= -self.tolerance:
                break
            remaining.remove(worst)
        return slacks

    # Beliefs over one set of parameters

    def advantages(self, params: Indices) -> FloatArray:
        """max_{μ ∈ Δ(T)} min_{z ≠ x} E_μ[U(x,·) − U(z,·)] for every action x, `[A]`: x ∈ F(Δ(T)) iff it is >= 0."""
        if params not in self.known:
            table = self.utility[:, list(params)]
            leads = [row - np.delete(table, x, axis=0) for x, row in enumerate(table)]
            alone = len(self.actions) == 1
            self.known[params] = np.array([math.inf] if alone else _solve([_belief(lead) for lead in leads]))
        return self.known[params]

    def justified(self, params: Indices) -> Indices:
        """F(Δ(T)): the actions that are a best response to some belief over these parameters."""
        return tuple(np.flatnonzero(self.advantages(params) >= -self.tolerance).tolist())

    def least_advantage(self, action: int, params: Indices) -> float:
        """min_{θ ∈ T} min_{z ≠ x} U(x,θ) − U(z,θ): positive iff x alone is optimal under every belief over T."""
        table = self.utility[:, list(params)]
        return float(np.min(table[action] - np.delete(table, action, axis=0), initial=math.inf))

    def balance(self, support: Indices, tied: Indices) -> tuple[bool, float]:
        """Whether some μ ∈ Δ(T) makes all of S best responses, so that the cell is in equilibrium; and the slack.

        With several actions in S the belief makes them equal. That is robust as far as all weights of μ can be positive
        and the other actions worse, and only if no equality follows from the rest: else the slack is 0.
        """
        advantage = float(self.advantages(tied)[list(support)].min())
        if len(support) == 1 or advantage < -self.tolerance:
            return advantage >= -self.tolerance, abs(advantage)
        inside = self.utility[np.ix_(support, tied)]
        among = np.vstack([np.delete(row - inside, i, axis=0) for i, row in enumerate(inside)])
        above = inside[0] - np.delete(self.utility, support, axis=0)[:, list(tied)]
        [shortfall] = _solve([_belief(np.vstack([among, above]))])
        if shortfall < -self.tolerance:
            return False, -shortfall
        if np.linalg.matrix_rank(inside[1:] - inside[0], tol=self.tolerance) < len(support) - 1:
            return True, 0.0
        [robust] = _solve([_belief(np.vstack([above, np.eye(len(tied))]), among - min(shortfall, 0.0) + _ROUNDING)])
        return True, abs(robust)

    # What fits best on one support

    def tie_sets(self, support: Indices) -> dict[Indices, float]:
        """All T = Θ(σ) of strategies with this support and the width of their cells; none if S refutes all parameters.

        Parameters are added one at a time to the sets found before. If a set fits best together somewhere it is closed
        to the smallest tie set that holds it; if nowhere, no larger set is tried. Equal columns on S go together.
        """
        alive = np.flatnonzero(np.isfinite(self.nats[list(support)]).all(axis=0))
        if not alive.size:
            return {}
        groups, leads = self.contenders(support, alive)
        rows = self.nats[np.ix_(support, [group[0] for group in groups])]
        found: dict[Indices, float] = {}
        nowhere: list[set[int]] = []
        misses: list[float] = []
        waiting = {(i,) for i in range(len(groups))}
        while waiting:
            smallest = {tied for tied in waiting if len(tied) == min(map(len, waiting))}
            waiting -= smallest
            untried = [t for t in sorted(smallest) if t not in found and not any(map(set(t).issuperset, nowhere))]
            for tied, width in zip(untried, _solve([_cell(rows, tied) for tied in untried]), strict=True):
                closed = tied if width > self.tolerance else self.closure(rows, tied, width)
                if closed is None:
                    nowhere.append(set(tied))
                    misses.append(abs(width))
                else:
                    found[closed] = width if closed == tied else _solve([_cell(rows, closed)])[0]
                    waiting |= {tuple(sorted({*closed, i})) for i in range(len(groups))} - {closed}
        if len(self.justified(tuple(alive.tolist()))) > 1:  # else it does not matter what fits best
            self.slacks += [lead for lead in leads if lead > _ROUNDING or self.refutes_in_part(support)]
            tied_at_edge = self.refutes_in_part(support) and self.informative[list(support)].all()
            self.slacks += [miss for miss in misses if miss > _ROUNDING or tied_at_edge]
        sets = {}
        for chosen, width in found.items():
            tied = tuple(sorted(k for i in chosen for k in groups[i]))
            chance = len(self.justified(tied)) > 1 and self.is_chance(support, tied)
            sets[tied] = 0.0 if chance else max(width, 0.0) if len(groups) > 1 else math.inf
        return sets

    def contenders(self, support: Indices, alive: npt.NDArray[np.intp]) -> tuple[list[Indices], list[float]]:
        """The parameters that no other one beats on S, those with equal columns on S in one group.

        One beats another if no action of S fits it worse and some action fits it better. Also returns, for each that is
        beaten, the least lead of the one that beats it most clearly, where the action teaches anything.
        """
        groups: list[Indices] = []
        leads: list[float] = []
        rows, taught = self.nats[list(support)], self.informative[list(support)]
        for k in alive.tolist():
            lead = rows[:, [k]] - rows[:, alive]  # how much better the others fit, [S, K]
            beats = (lead.min(axis=0) >= 0) & (lead.max(axis=0) > self.tolerance)
            apart = [np.abs(rows[:, group[0]] - rows[:, k]).max() for group in groups]
            equal = [i for i, difference in enumerate(apart) if difference <= self.tolerance]
            if beats.any():
                leads.append(float(lead[np.ix_(taught, beats)].min(axis=0).max()))
            elif equal:
                groups[equal[0]] = (*groups[equal[0]], k)
            else:
                groups.append((k,))
        return groups, leads

    def refutes_in_part(self, support: Indices) -> bool:
        """Whether some action of S refutes a parameter that another leaves.

        Then best fits on S do not tend to those on its parts, and a tie at an edge that Δ(S) approaches decides too.
        Else it need not be counted on S: it is one on the part.
        """
        refuted = np.isinf(self.nats[list(support)])
        return bool((refuted.any(axis=0) & ~refuted.all(axis=0)).any())

    def closure(self, rows: FloatArray, tied: Indices, width: float) -> Indices | None:
        """All parameters that fit best wherever these do and S is played; None if these do so nowhere."""
        if width < -self.tolerance:
            return None
        others, units = [k for k in range(rows.shape[1]) if k not in tied], np.eye(rows.shape[1])
        rows = rows.copy()
        rows[:, others] += max(-width, 0.0)  # a tie to within the tolerance holds exactly
        [room] = _solve([_cell(rows, tied, gaps=0 * units[0])])
        if room <= self.tolerance:
            return None
        gaps = _solve([_cell(rows, tied, play=0.0, gaps=units[k]) for k in others])
        return tuple(sorted((*tied, *(k for k, gap in zip(others, gaps, strict=True) if gap <= self.tolerance))))

    def is_chance(self, support: Indices, tied: Indices) -> bool:
        """Whether a small change of the divergences would part this tie set: it solves more equations than it can.

        Equal columns are one parameter here, and uninformative actions, whose rows are constant, cannot part anything.
        """
        rows = self.nats[np.ix_([x for x in support if self.informative[x]], tied)]
        distinct = np.unique(self.nats[:, list(tied)].round(12), axis=1).shape[1]
        rank = np.linalg.matrix_rank(rows - rows[:, :1], tol=self.tolerance) if rows.size else distinct - 1
        return int(rank) < distinct - 1

    def only_strategy(self, support: Indices, tied: Indices) -> list[float] | None:
        """The strategy of a cell that is a single one: Σ_x σ_x = 1 and equal K(σ,θ) on T; None for a larger cell."""
        rows = self.nats[np.ix_(support, tied)]
        equations = np.vstack([np.ones(len(support)), (rows - rows[:, :1]).T[1:]])
        if np.linalg.matrix_rank(equations, tol=self.tolerance) < len(support):
            return None
        strategy = np.zeros(len(self.actions))
        strategy[list(support)] = np.linalg.lstsq(equations, np.eye(len(tied))[0], rcond=None)[0]
        return strategy.tolist()


# The linear programs


def _cell(rows: FloatArray, tied: Indices, *, play: float = 1.0, gaps: FloatArray | None = None) -> Program:
    """max t over Σ_x σ_x = 1: σ_x >= play·t, K(σ,θ) equal for θ in `tied` and larger by gaps_θ·t at each other θ.

    `rows` [S, K] are the divergences on S; `gaps` [K] is 1 by default. Positive iff these parameters, and no others,
    fit some strategy with support S best; weights may be negative, so a negative t tells how far from that they are.
    """
    relative = (rows - rows[:, [tied[0]]]).T  # K(σ,θ) less that of the first of the tied
    others = [k for k in range(rows.shape[1]) if k not in tied]
    gaps = np.ones(rows.shape[1]) if gaps is None else gaps
    above = np.column_stack([relative[others], -gaps[others]])
    played = np.column_stack([np.eye(len(rows)), np.full(len(rows), -play)])
    return np.vstack([above, played]), np.column_stack([relative[list(tied[1:])], np.zeros(len(tied) - 1)])


def _belief(gains: FloatArray, floor: FloatArray | None = None) -> Program:
    """max t over μ ∈ Δ(T): E_μ of every row of `gains` [m, T] is at least t, of every row of `floor` at least 0."""
    rest = np.eye(gains.shape[1]) if floor is None else np.vstack([np.eye(gains.shape[1]), floor])
    with_t = np.column_stack([gains, np.full(len(gains), -1.0)])
    return np.vstack([with_t, np.column_stack([rest, np.zeros(len(rest))])]), np.zeros((0, gains.shape[1] + 1))


def _solve(programs: Sequence[Program]) -> list[float]:
    """The largest t of each program over weights that sum to 1, in one call: they share no variable.

    Where its equations have no solution it is negative, the distance from one.
    """
    values, solvable, equations, levels = [], [], [], []
    for nonnegative, zero in programs:
        rows = np.vstack([np.append(np.ones(nonnegative.shape[1] - 1), 0.0), zero])
        level = np.eye(len(rows))[0]
        reached = rows @ np.linalg.lstsq(rows, level, rcond=None)[0]
        values.append(-float(np.linalg.norm(reached - level)))
        if values[-1] > -_SOLVABLE:
            solvable.append(nonnegative)
            equations.append(rows)
            levels.append(reached)
    if not solvable:
        return values
    last = np.cumsum([rows.shape[1] for rows in solvable]) - 1
    for presolve in (False, True):  # the first is faster, the second sturdier where numbers nearly tie
        solution = linprog(
            -np.isin(np.arange(last[-1] + 1), last).astype(float),
            A_ub=-block_diag([*map(csr_array, solvable)], format="csr"),
            b_ub=np.zeros(sum(map(len, solvable))),
            A_eq=block_diag([*map(csr_array, equations)], format="csr"),
            b_eq=np.concatenate(levels),
            bounds=(None, None),
            method="highs",
            options={**_ACCURATE, "presolve": presolve},
        )
        if solution.status == 0:
            break
    else:
        raise RuntimeError(f"a linear program ended without an answer: {solution.message}")
    found = iter(solution.x[last].tolist())
    return [next(found) if value > -_SOLVABLE else value for value in values]
