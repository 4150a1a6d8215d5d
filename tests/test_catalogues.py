"""Games of others, read as problems: against exact enumeration, by definition, and between two bounds (theory §2)."""

from fractions import Fraction
from functools import cache
from typing import NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from test_golden import agrees, repeated
from test_many_actions import draw

import epijax as ej
from epijax.exact import solve_exactly

gambit = pytest.importorskip("pygambit")

# Games with as many actions are given one shape, for each would be compiled for itself: the most parameters of any.
WIDTH = {2: 8, 3: 16, 4: 8}
LARGE = 6  # actions, which take a minute to compile: decided in rational arithmetic
CLOSE = 1e-8  # linear programs are solved to about 1e-9


class Game(NamedTuple):
    """Payoffs of who acts and of who believes, `[A, K]`, as fractions."""

    own: np.ndarray
    other: np.ndarray

    @property
    def divergence(self) -> np.ndarray:
        return self.other.max(axis=1, keepdims=True) - self.other


def game(own, other) -> Game:
    return Game(*(np.vectorize(Fraction, otypes=[object])(np.array(table, object)) for table in (own, other)))


@cache
def catalogue() -> dict[str, Game]:
    """The games of two players that come with Gambit."""
    names = gambit.catalog.games(n_players=2)["Game"]
    return {name: Game(*gambit.catalog.load(name).to_arrays()) for name in names}


# In the tests of QuantEcon's support and vertex enumeration and of Lemke–Howson
QUANTECON = {
    "von Stengel 2007": ([[3, 3], [2, 5], [0, 6]], [[3, 2], [2, 6], [3, 1]]),
    "a segment of equilibria": ([[1, -1], [-1, 1], [0, 0]], [[1, 0], [0, 0], [0, 0]]),
    "von Stengel 2007, degenerate": ([[3, 3], [2, 5], [0, 6]], [[3, 3], [2, 6], [3, 1]]),
    "von Stengel 2007, reordered": ([[0, 6], [2, 5], [3, 3]], [[3, 1], [2, 6], [3, 3]]),
    "a cycle of pivots": ([[0, 0, 0], [0, 1, 1], [1, 1, 0]], [[1, 0, 1], [1, 1, 0], [0, 0, 2]]),
    "a cycle of pivots, permuted": ([[0, 0, 0], [1, 0, 1], [0, 1, 1]], [[0, 0, 2], [1, 1, 0], [1, 0, 1]]),
}


@cache
def generated() -> dict[str, Game]:
    """Games of QuantEcon's generators, to thousandths: ties stay ties, and fractions small."""
    games = pytest.importorskip("quantecon").game_theory.game_generators
    drawn = {"sgc 1": games.sgc_game(1)}
    for seed in range(3):
        drawn |= {
            f"blotto 2 2, {seed}": games.blotto_game(2, 2, 0.5, random_state=seed),
            f"blotto 2 3, {seed}": games.blotto_game(2, 3, -0.5, random_state=seed),
            f"blotto 3 1, {seed}": games.blotto_game(3, 1, 0.5, random_state=seed),
            f"ranking 3, {seed}": games.ranking_game(3, random_state=seed),
            f"ranking 4, {seed}": games.ranking_game(4, random_state=seed),
            f"tournament 3 2, {seed}": games.tournament_game(3, 2, random_state=seed),
            f"tournament 4 2, {seed}": games.tournament_game(4, 2, random_state=seed),
            f"unit vector 3, {seed}": games.unit_vector_game(3, random_state=seed),
            f"unit vector 4, {seed}": games.unit_vector_game(4, avoid_pure_nash=True, random_state=seed),
        }
    tables = {name: (g.players[0].payoff_array, g.players[1].payoff_array.T) for name, g in drawn.items()}
    return {
        name: Game(*(np.vectorize(lambda p: Fraction(round(1000 * p), 1000), otypes=[object])(t) for t in pair))
        for name, pair in tables.items()
    }


def extreme_strategies(game: Game) -> np.ndarray:
    """What the first player plays in the extreme equilibria, each once, in lexical order."""
    strategic = gambit.StrategicGame.from_arrays(*game)
    player = next(iter(strategic.players))
    profiles = gambit.nash.enummixed_solve(strategic, rational=True).equilibria
    return np.array(sorted({tuple(float(weight) for _, weight in profile[player]) for profile in profiles}))


def answer(utility: np.ndarray, divergence: np.ndarray, *, exact: bool = False) -> tuple[ej.Solution, np.ndarray]:
    """The solution, and all its equilibria in lexical order."""
    solution = ej.solve(ej.FiniteProblem(utility, divergence), exact=exact)
    mixed = np.asarray(solution.mixed)[: int(solution.num_mixed)]
    return solution, np.array(sorted([*np.eye(len(utility))[solution.pure].tolist(), *mixed.round(13).tolist()]))


def padded(table: np.ndarray, width: int, value: float) -> np.ndarray:
    return np.pad(table, ((0, 0), (0, max(0, width - table.shape[1]))), constant_values=value)


# By definition


def least_gain(utility: np.ndarray, played: np.ndarray, believed: np.ndarray) -> float:
    """min over beliefs μ on the parameters `believed` of what leaving the `played` actions can gain."""
    rows = (utility[None] - utility[played][:, None]).reshape(-1, utility.shape[1])[:, believed]
    found = linprog(
        [*np.zeros(rows.shape[1]), 1],
        A_ub=np.column_stack([rows, -np.ones(len(rows))]),
        b_ub=np.zeros(len(rows)),
        A_eq=[[*np.ones(rows.shape[1]), 0]],
        b_eq=[1],
        bounds=[(0, None)] * rows.shape[1] + [(None, None)],
    )
    assert found.success, found.message
    return found.fun


def is_equilibrium(utility: np.ndarray, divergence: np.ndarray, sigma: np.ndarray) -> bool:
    expected = sigma @ divergence
    fitting = np.flatnonzero(expected <= expected.min() + CLOSE * divergence.max())
    return least_gain(utility, np.flatnonzero(sigma), fitting) <= CLOSE * np.abs(utility).max()


def survivors(utility: np.ndarray, divergence: np.ndarray) -> np.ndarray:
    """The actions that iterated elimination leaves: of actions never best replies to beliefs on the parameters that are
    left, and of parameters that fit no strategy best."""
    tables = utility / max(1e-300, np.abs(utility).max()), -divergence.T / max(1e-300, divergence.max())
    left = [np.arange(size) for size in utility.shape]
    while True:
        kept = [
            np.array([x for x in left[i] if least_gain(tables[i][left[i]], left[i] == x, left[1 - i]) <= CLOSE])
            for i in (0, 1)
        ]
        if all(len(now) == len(before) for now, before in zip(kept, left, strict=True)):
            return np.isin(np.arange(len(utility)), kept[0])
        left = kept


def check(game: Game) -> ej.Solution:
    """The same extreme strategies as exact enumeration's, each an equilibrium by definition; their supports are
    rationalizable, and that survives elimination.

    The two lists of extreme strategies are one in games with ties too. σ is extreme for Gambit if some (σ, μ) is a
    vertex on both sides, for us if it is alone in having its support and what fits it best: a vertex of the first side.
    The beliefs that make it an equilibrium are then a face of the second, which has a vertex.
    """
    utility, divergence = game.own.astype(float), game.divergence.astype(float)
    expected = extreme_strategies(game)
    if width := WIDTH.get(len(utility)):
        wide = padded(utility, width, 0), padded(divergence, width, divergence.max() + 1)
        solution, found = answer(*wide)
        if len(utility) == 2:  # in single precision right, or undecided; others take long to compile twice
            with jax.enable_x64(False):
                single, listed = answer(*wide)
            assert single.margin.dtype == np.float32
            if single.status == ej.Status.SOLVED:
                same(single, listed, expected, atol=1e-4)
                assert (single.rationalizable == solution.rationalizable).all()
    else:  # more actions than the ordinary solver takes
        solution, found = answer(utility, divergence, exact=True)
    same(solution, found, expected)
    assert all(is_equilibrium(utility, divergence, sigma) for sigma in [*expected, *found])
    between(solution.rationalizable, expected, utility, divergence)
    return solution


def same(solution: ej.Solution, found: np.ndarray, expected: np.ndarray, atol: float = 1e-9) -> None:
    assert {*np.flatnonzero(solution.pure)} == {*expected[expected.max(axis=1) == 1].argmax(axis=1)}
    assert found.shape == expected.shape, (found, expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def between(rationalizable, equilibria: np.ndarray, utility: np.ndarray, divergence: np.ndarray) -> None:
    assert not ((equilibria > 0).any(axis=0) & ~np.asarray(rationalizable)).any()
    assert not (np.asarray(rationalizable) & ~survivors(utility, divergence)).any()


def compare(subtests: pytest.Subtests, games: dict[str, Game]) -> tuple[int, int]:
    """How many games were compared, and in how many of them no tie decided."""
    compared = clear = 0
    for name, game in sorted(games.items(), key=lambda named: named[1].own.shape):
        with subtests.test(name):
            solution = check(game)
            compared += 1
            clear += int(solution.status) == ej.Status.SOLVED
    return compared, clear


def test_the_catalogue_of_gambit(subtests):
    games = {name: game for name, game in catalogue().items() if len(game.own) != LARGE}
    compared, clear = compare(subtests, games)
    assert compared == len(games) >= 30 and clear >= 10


@pytest.mark.parametrize("payoffs", ["", "_small_payoffs"])
def test_von_stengels_game_with_75_equilibria(payoffs):
    """In rational arithmetic; the equations of the large payoffs lose so many digits that floats decide nothing."""
    game = catalogue()[f"journals/dcg/vonstengel1999/6x6_game_with_75_eq{payoffs}"]
    found = solve_exactly(game.own.tolist(), game.divergence.tolist())
    pure = np.eye(6)[np.array(found.pure)].tolist()
    strategies = np.array(sorted([*pure, *np.array(found.mixed, float).tolist()]))
    assert len(strategies) == 75
    np.testing.assert_allclose(strategies, extreme_strategies(game), rtol=0, atol=1e-12)


def test_the_golden_problems_of_three_and_four_actions(golden):
    larger = [entry for entry in golden if len(entry["utility"]) in (3, 4)]
    assert larger
    for entry in larger:
        tables = repeated(entry, WIDTH[len(entry["utility"])])
        agrees(ej.solve(ej.FiniteProblem(**tables)), entry)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("refuted", [0.0, 0.2])
def test_random_tables_of_four_actions(refuted, whole):
    """What is solved is what rational arithmetic finds, and so are the sets where ties decide."""
    solved = 0
    for utility, divergence in zip(*draw(1, 40, 4, 3, refuted=refuted, whole=whole), strict=True):
        exact = solve_exactly(utility.tolist(), divergence.tolist())
        wide = repeated({"utility": utility, "divergence": divergence}, WIDTH[4])
        solution, found = answer(**wide)
        assert (solution.status == ej.Status.REFUTED) == exact.refuted
        for name in ("rationalizable", "pure", "strict"):
            np.testing.assert_array_equal(getattr(solution, name), getattr(exact, name), err_msg=name)
        if solution.status == ej.Status.SOLVED:
            solved += 1
            pure = np.eye(4)[np.array(exact.pure)].tolist()
            expected = sorted([*pure, *np.array(exact.mixed, float).round(13).reshape(-1, 4).tolist()])
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)
    assert solved > (2 if whole else 12)


def test_the_games_in_quantecons_tests(subtests):
    compared, clear = compare(subtests, {name: game(*tables) for name, tables in QUANTECON.items()})
    assert compared == len(QUANTECON) and clear >= 1


def test_quantecons_generated_games(subtests):
    compared, clear = compare(subtests, generated())
    assert compared == len(generated()) and clear >= 3


def tables(entries):
    rows = st.lists(st.lists(entries, min_size=4, max_size=4), min_size=3, max_size=3)
    return st.tuples(rows, rows).map(lambda pair: [np.array(table, float) for table in pair])


@settings(max_examples=100, deadline=None, derandomize=True)
@given(tables(st.integers(0, 3)))
def test_where_ties_abound_the_equilibria_are_those_of_exact_enumeration(case):
    utility, divergence = case
    solution, found = answer(**repeated({"utility": utility, "divergence": divergence}, WIDTH[3]))
    expected = extreme_strategies(game(utility, -divergence))
    same(solution, found, expected)
    between(solution.rationalizable, expected, utility, divergence)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(tables(st.one_of(st.integers(0, 3), st.floats(0, 3))))
def test_rationalizable_lies_between_equilibria_and_elimination(case):
    utility, divergence = case
    solution, found = answer(**repeated({"utility": utility, "divergence": divergence}, WIDTH[3]))
    between(solution.rationalizable, found, utility, divergence)
    between(solution.rationalizable, extreme_strategies(game(utility, -divergence)), utility, divergence)
