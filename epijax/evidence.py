"""Evidence that can be checked without a solver: what justifies an action, what supports an equilibrium (theory §2)."""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
import numpy.typing as npt
from scipy.optimize import linprog

from epijax.environment import Numbers, is_concrete
from epijax.exact import Tables, members
from epijax.problem import FiniteProblem, Problem
from epijax.solution import Solution, tolerance_of
from epijax.subjective import Finite
from epijax.tables import tabulate

FloatArray = npt.NDArray[np.float64]
_MOST_BASES = 1_000_000  # sets of parameters that are tried for the extreme beliefs


@dataclass(frozen=True)
class Witness:
    """Why an action is rationalizable, or why it is not.

    - `action`, `rationalizable`.
    - `strategy` `[A]`, `belief` `[K]`: for one that is, play of rationalizable actions alone, and a belief on what fits
      this play best, under which the action is a best response; else `None`.
    - `round`, `gap`: for one that is not, the round of elimination that drops it, 1 being the first, and by how much at
      least another action is expected to pay more, whatever the agent comes to believe from play of the actions left
      before this round, in payoff units; else `None`.
    """

    action: int
    rationalizable: bool
    strategy: FloatArray | None = None
    belief: FloatArray | None = None
    round: int | None = None
    gap: float | None = None


@dataclass(frozen=True)
class Components:
    """Which connected set each equilibrium belongs to, numbered from 0, pure ones first; −1 where there is none.

    `pure` `[A]`: of each action; `mixed` `[E]`: of each row of `Solution.mixed`. A number that stands once is that of
    an isolated equilibrium.
    """

    pure: npt.NDArray[np.intp]
    mixed: npt.NDArray[np.intp]


def witness(problem: Problem | FiniteProblem, action: int) -> Witness:
    """Evidence that an action is rationalizable, or that it is not, decided in rational arithmetic.

    **Arguments:** `problem`: two tables, or a problem whose model is finite, known on the host; `action`: its number.

    **Returns:** the `Witness`; `verify(problem, strategy, belief, action)` checks it.

    Raises `ValueError` for another problem, for an action that there is not, and where play of all actions refutes
    every parameter.

    Source: theory §2; [EP25].
    """
    tables = _tables(problem)
    if not 0 <= action < tables.num_actions:
        raise ValueError(f"action must be one of 0 to {tables.num_actions - 1}; got {action}")
    utility = np.asarray(tables.utility, float)
    exact = Tables(utility.tolist(), np.asarray(tables.divergence, float).tolist())
    if not exact.alive(exact.everything):
        raise ValueError("play of all actions refutes every parameter: nothing fits, and no action has a witness")
    _, cells = exact.attained()
    rounds = exact.rounds(cells)
    for number, (before, after) in enumerate(zip(rounds, [*rounds[1:], rounds[-1]], strict=True), start=1):
        within = sorted(cell for cell in cells if not cell[0] & ~before)
        if not after >> action & 1:
            gap = min(_shortfall(utility, action, list(members(ties))) for _, ties in within)
            return Witness(action, False, round=number, gap=gap)
    support, ties = next(cell for cell in within if exact.balances(1 << action, cell[1]))
    found = exact.belief(1 << action, ties) or {}
    belief = np.zeros(utility.shape[1])
    for k, weight in found.items():
        belief[k] = float(weight)
    return Witness(action, True, np.array(exact.strategy(support, ties), float), belief)


def verify(problem: Problem | FiniteProblem, strategy: Numbers, belief: Numbers, action: int | None = None) -> bool:
    """Whether a belief μ on what fits a strategy σ best makes every action of σ a best response, or makes `action` one.

    Everything from the definitions (theory §2), apart from every solver: σ and μ are distributions, μ > 0 only where
    K(σ, ·) is least, and Σ μ U(x, ·) is largest for each x that is played, or for `action`. Two divergences, or two
    payoffs, are the same within the tolerance of the solver: 1e-9 of the largest in float64, 1e-5 in float32.

    Raises `ValueError` for shapes that do not fit, and for a problem that is neither two tables nor a finite model.
    """
    tables = _tables(problem)
    sigma, mu = np.asarray(strategy, float), np.asarray(belief, float)
    utility, divergence = np.asarray(tables.utility, float), np.asarray(tables.divergence, float)
    if (*sigma.shape, *mu.shape) != utility.shape:
        raise ValueError(f"strategy and belief must be [{utility.shape[0]}] and [{utility.shape[1]}]")
    tolerance = _tolerance(tables)
    if not all((p >= -tolerance).all() and abs(p.sum() - 1) <= tolerance for p in (sigma, mu)):
        return False
    played, believed = sigma > tolerance, mu > tolerance
    misfit = sigma[played] @ divergence[played]
    expected = utility @ mu
    close = tolerance * np.max(divergence, where=np.isfinite(divergence), initial=0)
    fits = np.isfinite(misfit) & (misfit <= misfit.min() + close)
    best = expected >= expected.max() - tolerance * np.abs(utility).max()
    return bool(fits[believed].all() and (best[action] if action is not None else best[played].all()))


def beliefs(problem: Problem | FiniteProblem, strategy: Numbers) -> FloatArray:
    """The extreme beliefs that make a strategy an equilibrium, `[M, K]`: those that do are their mixtures.

    **Arguments:** `problem`, as for `witness`; `strategy`: `[A]`.

    **Returns:** one row a belief on Θ(σ) under which all that σ plays are best responses; no rows if σ is no Berk–Nash
    equilibrium.

    Raises `ValueError` for a strategy that is none, and where so many parameters fit that their sets cannot be tried.
    """
    tables = _tables(problem)
    utility, fits, played = _at(tables, strategy)
    params, x = np.flatnonzero(fits), int(np.flatnonzero(played)[0])
    num_actions = len(utility)
    scaled = utility / (np.abs(utility).max() or 1.0)
    slack = -np.eye(num_actions)[:, ~played]  # E_μ[U(x) − U(y)] = s_y ≥ 0 for what is not played, 0 for what is
    columns = np.hstack([scaled[x, params] - scaled[:, params], slack])
    columns = np.vstack([np.delete(columns, x, axis=0), [[1.0] * len(params) + [0.0] * slack.shape[1]]])
    total = columns.shape[1]
    if sum(comb(total, size) for size in range(1, num_actions + 1)) > _MOST_BASES:
        raise ValueError(f"{len(params)} parameters fit this strategy equally: too many for a list of extreme beliefs")
    level, tolerance = np.eye(num_actions)[-1], _tolerance(tables)
    found: list[FloatArray] = []
    for size in range(1, num_actions + 1):  # at a corner as many weights are positive as its equations determine
        for chosen in combinations(range(total), size):
            basis = columns[:, chosen]
            weights, _, rank, _ = np.linalg.lstsq(basis, level, rcond=tolerance)
            if rank == size and weights.min() > tolerance and np.abs(basis @ weights - level).max() <= tolerance:
                spread = np.zeros(total)
                spread[list(chosen)] = weights
                found.append(np.zeros(utility.shape[1]))
                found[-1][params] = spread[: len(params)]
    return np.array(found).reshape(-1, utility.shape[1])


def components(problem: Problem | FiniteProblem, solution: Solution) -> Components:
    """The connected sets of equilibria that the listed ones are the extreme points of.

    Two equilibria are linked where one belief on what fits both best supports all strategies between them, so that
    every such strategy is an equilibrium; a component is what links hold together. While divergences are finite these
    are the connected components of the set of all equilibria.

    **Arguments:** `problem`, as for `witness`; `solution`, of it.

    **Returns:** the `Components`.
    """
    tables = _tables(problem)
    pure = np.flatnonzero(np.asarray(solution.pure))
    count = int(solution.num_mixed)
    listed = [*np.eye(tables.num_actions)[pure], *np.asarray(solution.mixed, float)[:count]]
    at = [_at(tables, strategy) for strategy in listed]
    label = list(range(len(listed)))
    for i, j in combinations(range(len(listed)), 2):
        fits, played = at[i][1] & at[j][1], at[i][2] | at[j][2]
        if label[i] != label[j] and fits.any() and _balanced(tables, fits, played):
            old, new = max(label[i], label[j]), min(label[i], label[j])
            label = [new if number == old else number for number in label]
    order = list(dict.fromkeys(label))
    numbers = np.array([order.index(number) for number in label], np.intp)
    of_pure = np.full(tables.num_actions, -1, np.intp)
    of_mixed = np.full(solution.mixed.shape[0], -1, np.intp)
    of_pure[pure], of_mixed[:count] = numbers[: len(pure)], numbers[len(pure) :]
    return Components(of_pure, of_mixed)


def _tables(problem: Problem | FiniteProblem) -> FiniteProblem:
    if isinstance(problem, Problem):
        if not isinstance(problem.model, Finite):
            raise ValueError("evidence is of finitely many parameters; pass tabulate(problem), a grid over the beliefs")
        problem = tabulate(problem)
    if not is_concrete(problem.utility, problem.divergence):
        raise ValueError("evidence is given on the host, of known tables; call this outside jit, vmap and grad")
    return problem


def _tolerance(tables: FiniteProblem) -> float:
    return tolerance_of(tables.utility.dtype)


def _at(tables: FiniteProblem, strategy: Numbers) -> tuple[FloatArray, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """The utilities, what fits the strategy best, and what it plays."""
    sigma, tolerance = np.asarray(strategy, float), _tolerance(tables)
    utility, divergence = np.asarray(tables.utility, float), np.asarray(tables.divergence, float)
    if sigma.shape != utility.shape[:1] or not (sigma >= -tolerance).all() or abs(sigma.sum() - 1) > 1e-6:
        raise ValueError(f"strategy must be [{len(utility)}], shares that sum to one; got {sigma.tolist()}")
    played = sigma > tolerance
    misfit = sigma[played] @ divergence[played]
    close = tolerance * np.max(divergence, where=np.isfinite(divergence), initial=0)
    return utility, np.isfinite(misfit) & (misfit <= misfit.min() + close), played


def _balanced(tables: FiniteProblem, fits: npt.NDArray[np.bool_], played: npt.NDArray[np.bool_]) -> bool:
    """Whether one belief on these parameters makes all these actions best responses."""
    utility = np.asarray(tables.utility, float)
    losses = (utility[None] - utility[played][:, None])[:, :, fits].reshape(-1, int(fits.sum()))
    return _value(losses) <= 10 * _tolerance(tables) * float(np.abs(utility).max() or 1.0)


def _shortfall(utility: FloatArray, action: int, params: list[int]) -> float:
    """min_μ max_y E_μ[U(y, ·) − U(x, ·)] over beliefs on these parameters."""
    return _value((utility - utility[action])[:, params])


def _value(losses: FloatArray) -> float:
    """min_μ max_r Σ_k losses[r, k] μ(k), by a linear program."""
    scale = float(np.abs(losses).max()) or 1.0
    rows, columns = losses.shape
    found = linprog(
        [*np.zeros(columns), 1.0],
        A_ub=np.column_stack([losses / scale, -np.ones(rows)]),
        b_ub=np.zeros(rows),
        A_eq=[[*np.ones(columns), 0.0]],
        b_eq=[1.0],
        bounds=[(0, None)] * columns + [(None, None)],
        method="highs",
    )
    if not found.success:
        raise RuntimeError(f"a linear program ended without an answer: {found.message}")
    return float(found.fun * scale)
