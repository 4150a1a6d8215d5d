"""Tables with two actions: random ones against the reference, ties and infinities on purpose, outside judges.

The judges solve the bimatrix game (U, −K), whose Nash equilibria are the Berk–Nash equilibria (theory §2).
"""

from fractions import Fraction
from functools import cache
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import epijax as ej
from epijax import reference

INF = np.inf
UNSAFE = (True, False)
SOLVED, BOUNDARY, REFUTED = ej.Status.SOLVED, ej.Status.BOUNDARY, ej.Status.REFUTED


class Cell(NamedTuple):
    """One solution on the host."""

    rationalizable: np.ndarray  # [2]
    pure: np.ndarray  # [2]
    strict: np.ndarray  # [2]
    mixed: np.ndarray  # [K, 2]
    num_mixed: int
    margin: float
    status: int


BATCH = 200  # one size of batch, so that each number of parameters is compiled once
_solve = jax.jit(jax.vmap(lambda utility, divergence: ej.solve(ej.FiniteProblem(utility, divergence))))


def solve_all(utility: np.ndarray, divergence: np.ndarray) -> list[Cell]:
    """The solutions of a batch of tables, `[N, 2, K]`."""
    cells = []
    for start in range(0, len(utility), BATCH):
        chunks = [jnp.asarray(table[start : start + BATCH]) for table in (utility, divergence)]
        num = len(chunks[0])
        solution = _solve(*(jnp.concatenate([chunk, chunk[jnp.zeros(BATCH - num, int)]]) for chunk in chunks))
        columns = [np.asarray(getattr(solution, name))[:num] for name in Cell._fields]
        cells += [Cell(*row) for row in zip(*columns, strict=True)]
    return cells


def solve(utility, divergence) -> Cell:
    return solve_all(np.array([utility], float), np.array([divergence], float))[0]


def mixed_of(cell: Cell) -> np.ndarray:
    """The rows in use, in order of their weight on action 1; the others must be NaN."""
    used = ~np.isnan(cell.mixed).any(axis=1)
    assert used.sum() == cell.num_mixed and np.isnan(cell.mixed[~used]).all()
    rows = cell.mixed[used]
    return rows[np.argsort(rows[:, 1])]


def assert_masks(cell: Cell, rationalizable, pure, strict, context: object = "") -> None:
    np.testing.assert_array_equal(cell.rationalizable, np.array(rationalizable, bool), err_msg=str(context))
    np.testing.assert_array_equal(cell.pure, np.array(pure, bool), err_msg=str(context))
    np.testing.assert_array_equal(cell.strict, np.array(strict, bool), err_msg=str(context))


def assert_agrees(cell: Cell, answer: reference.Answer, context: object) -> None:
    """The same status; where solved, the same sets and the same equilibria; where refuted, nothing."""
    names = {SOLVED: "solved", BOUNDARY: "boundary", REFUTED: "refuted"}
    assert names[ej.Status(int(cell.status))] == answer.status, context
    if answer.status == "refuted":
        assert_masks(cell, (0, 0), (0, 0), (0, 0), context)
        assert cell.num_mixed == 0 and np.isnan(cell.mixed).all() and np.isnan(cell.margin), context
    if answer.status == "solved":
        assert_masks(cell, answer.rationalizable, answer.pure, answer.strict, context)
        mixed, right = mixed_of(cell), answer.mixed[np.argsort(answer.mixed[:, 1])]
        assert mixed.shape == right.shape, (context, mixed, right)
        np.testing.assert_allclose(mixed, right, rtol=0, atol=1e-9, err_msg=str(context))


def agree_with_the_reference(utility: np.ndarray, divergence: np.ndarray) -> list[str]:
    """Compares a batch, cell by cell, and returns the statuses."""
    statuses = []
    for u, d, cell in zip(utility, divergence, solve_all(utility, divergence), strict=True):
        answer = reference.finite(u, d, unsafe=UNSAFE)
        assert_agrees(cell, answer, (u.tolist(), d.tolist()))
        statuses.append(answer.status)
    return statuses


# Random tables


@pytest.mark.parametrize("refuted", [0.0, 0.25])
@pytest.mark.parametrize("num", range(1, 17))
def test_random_tables(random_tables, num, refuted):
    statuses = agree_with_the_reference(*random_tables(3, 200, num, refuted=refuted))
    assert statuses.count("solved") > 80


@pytest.mark.parametrize("refuted", [0.0, 0.2])
@pytest.mark.parametrize("num", [3, 7])
def test_an_uninformative_action_is_no_tie(random_tables, num, refuted):
    utility, divergence = random_tables(4, 200, num, refuted=refuted)
    divergence[:, 0] = 0.3
    assert "boundary" not in agree_with_the_reference(utility, divergence)


@pytest.mark.parametrize("num", [2, 5, 9])
def test_single_precision_is_right_or_says_that_it_cannot_decide(random_tables, num):
    utility, divergence = (table.astype(np.float32) for table in random_tables(5, 500, num, refuted=0.1))
    with jax.enable_x64(False):
        cells = solve_all(utility, divergence)
    assert cells[0].margin.dtype == np.float32
    for u, d, cell in zip(utility, divergence, cells, strict=True):
        answer = reference.finite(u, d, unsafe=UNSAFE)
        if cell.status == BOUNDARY:
            assert answer.margin < 1e-4
        else:
            assert (cell.status == REFUTED) == (answer.status == "refuted")
        if cell.status == SOLVED:
            assert_masks(cell, answer.rationalizable, answer.pure, answer.strict)
            np.testing.assert_allclose(mixed_of(cell)[:, 1], np.sort(answer.mixed[:, 1]), rtol=0, atol=1e-3)
    assert sum(cell.status == BOUNDARY for cell in cells) < 5


@pytest.mark.parametrize("exploration", [0.0, 0.2, 0.9])
def test_finite_models(exploration):
    rng = np.random.default_rng(6)
    for _ in range(40):
        truth, believed = rng.dirichlet(np.ones(3), size=2), rng.dirichlet(np.ones(3), size=(5, 2))
        payoffs = rng.normal(size=(2, 3))
        problem = ej.Problem(ej.Environment(truth, payoffs), ej.Finite(believed), exploration)
        answer = reference.finite_model(truth, payoffs, believed, exploration=exploration, unsafe=UNSAFE)
        tables = ej.tabulate(problem)
        assert_agrees(solve(tables.utility, tables.divergence), answer, (truth, payoffs, believed))


@pytest.mark.parametrize("exploration", [0.0, 0.1, 1.0])
def test_a_finite_model_that_denies_what_happens(exploration):
    truth, payoffs = [[1.0, 0.0], [0.4, 0.6]], [[0.0, 1.0], [0.3, 0.2]]
    believed = [[[0.0, 1.0], [0.4, 0.6]], [[0.9, 0.1], [1.0, 0.0]], [[0.5, 0.5], [0.5, 0.5]]]
    problem = ej.Problem(ej.Environment(truth, payoffs), ej.Finite(believed), exploration)
    refuted_by = np.array([[True, False, False], [False, True, False]])
    refuted = np.tile(refuted_by.any(axis=0), (2, 1)) if exploration else refuted_by
    np.testing.assert_array_equal(np.isinf(ej.tabulate(problem).divergence), refuted)
    answer = reference.finite_model(truth, payoffs, believed, exploration=exploration, unsafe=UNSAFE)
    solution = ej.solve(problem)
    assert ej.PHASES[int(ej.phase(solution, UNSAFE))] == answer.phase
    np.testing.assert_array_equal(solution.pure, answer.pure)


# What an equilibrium is


def is_equilibrium(utility: np.ndarray, divergence: np.ndarray, sigma: np.ndarray) -> bool:
    """Whether some belief over the best fits makes everything that σ plays optimal, straight from the definition."""
    weighted = sum(p * row for p, row in zip(sigma, divergence, strict=True) if p > 0)
    gain = (utility[1] - utility[0])[weighted <= weighted.min() + 1e-9]
    optimal = gain.min() <= 1e-9, gain.max() >= -1e-9
    return all(optimal[action] for action in (0, 1) if sigma[action] > 0)


@pytest.mark.parametrize("num", [2, 5, 12])
def test_what_is_listed_is_an_equilibrium_and_nothing_else_is(random_tables, num):
    utility, divergence = random_tables(7, 200, num, refuted=0.1)
    for u, d, cell in zip(utility, divergence, solve_all(utility, divergence), strict=True):
        if cell.status == REFUTED:
            continue
        np.testing.assert_array_equal(cell.pure, [is_equilibrium(u, d, sigma) for sigma in np.eye(2)])
        mixed = mixed_of(cell)
        assert all(is_equilibrium(u, d, sigma) for sigma in mixed)
        elsewhere = [np.array([1 - s, s]) for s in np.linspace(0.01, 0.99, 30) if (abs(mixed[:, 1] - s) > 1e-6).all()]
        assert not any(is_equilibrium(u, d, sigma) for sigma in elsewhere)


# Outside judges


def distinct(strategies) -> np.ndarray:
    """Strategies by their weight on action 1, in order, those equal up to rounding only once."""
    weights = np.sort([float(sigma[1]) for sigma in strategies])
    return weights[np.diff(weights, prepend=-1) > 1e-9]


def all_equilibria(cell: Cell) -> np.ndarray:
    return distinct([*np.eye(2)[cell.pure], *mixed_of(cell)])


@pytest.mark.parametrize("num", [1, 2, 3, 4, 6])
def test_quantecon_finds_the_same_equilibria(random_tables, num):
    games = pytest.importorskip("quantecon.game_theory")
    utility, divergence = random_tables(8, 150, num)
    for u, d, cell in zip(utility, divergence, solve_all(utility, divergence), strict=True):
        players = games.Player(np.ascontiguousarray(u)), games.Player(np.ascontiguousarray(-d.T))
        expected = distinct([sigma for sigma, _ in games.support_enumeration(games.NormalFormGame(players))])
        found = all_equilibria(cell)
        assert found.shape == expected.shape, (u.tolist(), d.tolist())
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("num", [2, 4, 6])
def test_exact_rational_enumeration_finds_the_same_equilibria(num):
    gambit = pytest.importorskip("pygambit")
    rng = np.random.default_rng(num)
    compared = 0
    for _ in range(15):
        hundredths = rng.integers(-300, 300, (2, num)), rng.integers(0, 300, (2, num))
        cell = solve(hundredths[0] / 100, hundredths[1] / 100)
        if cell.status == BOUNDARY:
            continue
        exact = [np.array([[Fraction(int(n), 100) for n in row] for row in table]) for table in hundredths]
        game = gambit.StrategicGame.from_arrays(exact[0], -exact[1])
        row_player = next(iter(game.players))
        profiles = gambit.nash.enummixed_solve(game, rational=True).equilibria
        expected = distinct([[weight for _, weight in profile[row_player]] for profile in profiles])
        found = all_equilibria(cell)
        assert found.shape == expected.shape, hundredths
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        compared += 1
    assert compared > 10


# Invariances


def assert_same(cell: Cell, other: Cell, *, swap: bool = False, margin: bool = True) -> None:
    order = [1, 0] if swap else [0, 1]
    assert cell.status == other.status
    assert_masks(cell, other.rationalizable[order], other.pure[order], other.strict[order])
    mixed = np.sort(mixed_of(other)[:, order[1]])
    np.testing.assert_allclose(mixed_of(cell)[:, 1], mixed, rtol=0, atol=1e-8)
    if margin:
        np.testing.assert_allclose(cell.margin, other.margin, rtol=1e-6)


def assert_all_same(cells: list[Cell], others: list[Cell], **how) -> None:
    for cell, other in zip(cells, others, strict=True):
        assert_same(cell, other, **how)


@pytest.mark.parametrize("scale_k", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("scale_u", [1e-9, 1.0, 1e9])
def test_units_do_not_matter(random_tables, scale_u, scale_k):
    utility, divergence = random_tables(9, 100, 6, refuted=0.1)
    assert_all_same(solve_all(scale_u * utility, scale_k * divergence), solve_all(utility, divergence))


def test_a_constant_added_to_a_row_of_divergences_does_not_matter(random_tables):
    utility, divergence = random_tables(10, 200, 6, refuted=0.1)
    shift = np.random.default_rng(10).exponential(size=(200, 2, 1))
    assert_all_same(solve_all(utility, divergence + shift), solve_all(utility, divergence), margin=False)


def test_a_constant_added_to_the_payoffs_of_a_parameter_does_not_matter(random_tables):
    utility, divergence = random_tables(11, 200, 6, refuted=0.1)
    shift = np.random.default_rng(11).normal(size=(200, 1, 6))
    assert_all_same(solve_all(utility + shift, divergence), solve_all(utility, divergence), margin=False)


def test_the_order_of_parameters_does_not_matter(random_tables):
    utility, divergence = random_tables(12, 200, 6, refuted=0.1)
    order = np.random.default_rng(12).permutation(6)
    assert_all_same(solve_all(utility[..., order], divergence[..., order]), solve_all(utility, divergence))


def test_the_order_of_actions_does_not_matter(random_tables):
    utility, divergence = random_tables(13, 200, 6, refuted=0.1)
    swapped = solve_all(utility[:, ::-1], divergence[:, ::-1])
    assert_all_same(swapped, solve_all(utility, divergence), swap=True)


def test_a_parameter_listed_twice_does_not_matter(random_tables):
    utility, divergence = random_tables(14, 200, 4, refuted=0.1)
    twice = [0, 1, 2, 3, 0, 1, 2, 3]
    assert_all_same(solve_all(utility[..., twice], divergence[..., twice]), solve_all(utility, divergence))


# Ties. Each case: payoffs, divergences; then rationalizable, pure, strict, number of mixed equilibria, status.

FOR_0, FOR_1, FOR_NONE = (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)  # payoffs of the two actions under one parameter

TIES = {
    "nothing is paid": ([(0, 0), (0, 0)], [[0, 1], [1, 0]], (1, 1), (1, 1), (0, 0), 0, BOUNDARY),
    "zero tables": ([(0, 0), (0, 0)], [[0, 0], [0, 0]], (1, 1), (1, 1), (0, 0), 0, BOUNDARY),
    "equal actions": ([(1, 1), (2, 2)], [[0, 1], [0, 1]], (1, 1), (1, 1), (0, 0), 0, BOUNDARY),
    "one indifferent parameter": ([FOR_NONE], [[0.5], [2]], (1, 1), (1, 1), (0, 0), 0, BOUNDARY),
    "indifferent at the best fit": ([FOR_NONE, FOR_0], [[0, 1], [0, 2]], (1, 1), (1, 1), (0, 0), 0, BOUNDARY),
    "indifferent, but it never fits": ([FOR_NONE, FOR_0], [[1, 0], [2, 0]], (1, 0), (1, 0), (1, 0), 0, SOLVED),
    "no action teaches anything": ([FOR_0, FOR_1], [[0, 0], [0, 0]], (1, 1), (1, 1), (0, 0), 0, SOLVED),
    "action 0 teaches nothing": ([FOR_0, FOR_1], [[0.5, 0.5], [0, 1]], (1, 1), (1, 0), (0, 0), 0, SOLVED),
    "both teach the same, parameters tie": (
        [FOR_0, FOR_1, FOR_0], [[0.3, 0.3, 1], [0.3, 0.3, 1]], (1, 1), (1, 1), (0, 0), 0, BOUNDARY,
    ),
    "a tie at δ₀": ([FOR_0, FOR_1, FOR_0], [[0.5, 0.5, 1], [0, 1, 1]], (1, 1), (1, 0), (0, 0), 0, BOUNDARY),
    "a tie at δ₀ up to rounding": (
        [FOR_0, FOR_1, FOR_0], [[0.1 + 0.2, 0.3, 1], [0, 1, 1]], (1, 1), (1, 0), (0, 0), 0, BOUNDARY,
    ),
    "a tie at δ₁": ([FOR_0, FOR_1, FOR_0], [[0, 1, 1], [0.5, 0.5, 1]], (1, 1), (1, 1), (1, 0), 0, BOUNDARY),
    "two touch inside": ([FOR_0, FOR_1, FOR_0], [[0, 1, 2], [2, 1, 0]], (1, 1), (1, 0), (1, 0), 1, BOUNDARY),
    "two nearly touch": ([FOR_0, FOR_1, FOR_0], [[0, 1.01, 2], [2, 1.01, 0]], (1, 0), (1, 0), (1, 0), 0, SOLVED),
    "two cross twice": ([FOR_0, FOR_1, FOR_0], [[0, 0.99, 2], [2, 0.99, 0]], (1, 1), (1, 0), (1, 0), 2, SOLVED),
    "a stretch inside": (
        [FOR_0, FOR_1, FOR_0, FOR_0], [[0, 0.75, 2, 0.75], [2, 0.75, 0, 0.75]], (1, 1), (1, 0), (1, 0), 2, BOUNDARY,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TIES)
def test_ties(name):
    payoffs, divergence, rationalizable, pure, strict, num_mixed, status = TIES[name]
    cell = solve(np.transpose(payoffs), divergence)
    assert cell.status == status
    assert_masks(cell, rationalizable, pure, strict)
    assert len(mixed_of(cell)) == num_mixed
    assert (cell.margin < 1e-9) == (status == BOUNDARY)


def test_in_random_ties_the_weak_inequalities_hold():
    """Tables of small whole numbers, most of which have ties: the sets are right even there."""
    rng = np.random.default_rng(15)
    solved = 0
    for num in (1, 2, 3, 4, 5, 8):
        utility = rng.integers(-2, 3, (400, 2, num)).astype(float)
        divergence = rng.integers(0, 4, (400, 2, num)).astype(float)
        for u, d, cell in zip(utility, divergence, solve_all(utility, divergence), strict=True):
            answer = reference.finite(u, d, unsafe=UNSAFE)
            assert_masks(cell, answer.rationalizable, answer.pure, answer.strict, (u.tolist(), d.tolist()))
            if cell.status == SOLVED:
                assert_agrees(cell, answer, (u.tolist(), d.tolist()))
                solved += 1
    assert solved > 400


def test_lines_that_meet_in_one_point_make_one_equilibrium():
    """However the rounding falls, f crosses zero once."""
    payoffs = np.transpose([FOR_0, FOR_1, FOR_0, FOR_1])
    natural = [[0.1, 0.2, 0.2, 0.3], [0.3, 0.2, 0.2, 0.1]]
    rng = np.random.default_rng(16)
    tables = [natural]
    for _ in range(100):
        share, slopes = rng.uniform(0.1, 0.9), np.sort(rng.normal(size=4))
        tables.append(np.stack([2.5 - share * slopes, 2.5 + (1 - share) * slopes]).clip(0))
    counts = [cell.num_mixed for cell in solve_all(np.array([payoffs] * len(tables)), np.array(tables))]
    np.testing.assert_array_equal(counts, 1)


@pytest.mark.parametrize("tilt", [1e-10, 1e-12])
def test_an_equilibrium_that_a_change_within_tolerance_would_move_far_is_boundary(tilt):
    """Two opposed parameters alike to within the tolerance along the whole middle of [0, 1]."""
    payoffs = np.transpose([FOR_1, FOR_0, FOR_0, FOR_1])
    cell = solve(payoffs, [[1, 1 - tilt, 0.7, 1.7], [1, 1 + tilt, 1.7, 0.7]])
    assert cell.status == BOUNDARY


@pytest.mark.parametrize(("utility", "divergence"), [
    ([[-1, 0, -1], [1, -1, -2]], [[2, 0, 2], [1, INF, 0]]),
    ([[0, 0, 2], [-2, 0, -1]], [[INF, 2, 0], [2, 3, 3]]),
])  # fmt: skip
def test_a_fit_that_no_play_attains_justifies_nothing(utility, divergence):
    """Its divergence ties with the best only in the limit at an end, where another parameter fits."""
    cell, answer = solve(utility, divergence), reference.finite(utility, divergence, unsafe=UNSAFE)
    assert answer.rationalizable.tolist() == [True, False]
    assert_masks(cell, answer.rationalizable, answer.pure, answer.strict)


# Infinities


def test_infinities_can_leave_no_equilibrium_at_all():
    """θ₀ fits δ₀ and makes action 1 better; any play of action 1 refutes it, and θ₁ makes action 0 better."""
    cell = solve(np.transpose([FOR_1, FOR_0]), [[0, 1], [INF, 0]])
    assert_masks(cell, (1, 1), (0, 0), (0, 0))
    assert cell.status == SOLVED and cell.num_mixed == 0


@pytest.mark.parametrize("num", [1, 2, 3])
def test_every_pattern_of_infinities(random_tables, num):
    patterns = np.array(list(product([False, True], repeat=2 * num))).reshape(-1, 2, num)
    utility, divergence = random_tables(17, len(patterns), num)
    statuses = agree_with_the_reference(utility, np.where(patterns, INF, divergence))
    all_refuted = patterns.any(axis=1).all(axis=1)
    assert statuses == ["refuted" if refuted else "solved" for refuted in all_refuted]


def test_a_parameter_that_one_action_refutes_still_holds_while_only_the_other_is_played():
    hope = solve(np.transpose([FOR_0, FOR_1]), [[0, 1], [INF, 1]])  # θ₀ fits δ₀, and any play of action 1 refutes it
    assert_masks(hope, (1, 1), (1, 1), (1, 1))
    assert hope.status == SOLVED and hope.num_mixed == 0


def test_where_full_support_refutes_everything_there_is_no_number():
    cell = solve(np.transpose([FOR_0, FOR_1]), [[0, INF], [INF, 0]])
    assert cell.status == REFUTED
    assert_masks(cell, (0, 0), (0, 0), (0, 0))
    assert np.isnan(cell.margin) and np.isnan(cell.mixed).all() and cell.num_mixed == 0


# Derivatives


@cache
def compiled(what: str) -> tuple:
    """The margin, or the first mixed equilibrium, of many tables; its gradient of one, and of many."""

    def value(tables):
        solution = ej.solve(ej.FiniteProblem(*tables))
        return solution.margin if what == "margin" else solution.mixed[0, 1]

    return jax.jit(jax.vmap(value)), jax.jit(jax.grad(value)), jax.jit(jax.vmap(jax.grad(value)))


def gradient_and_differences(
    random_tables, what: str, *, refuted: float, batched: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients with respect to all payoffs and divergences, and central differences, 0 where K is infinite."""
    utility, divergence = random_tables(18, 200, 3, refuted=refuted)
    kept = [c.status == SOLVED and (what == "margin" or c.num_mixed > 0) for c in solve_all(utility, divergence)]
    points = np.stack([utility, divergence], axis=1)[kept]
    assert len(points) >= 10
    points = np.resize(points, (200, *points.shape[1:]))  # over again, so that all are compiled for one size

    values, one, many = compiled(what)
    found = many(points) if batched else np.stack([one(point) for point in points[:40]])
    expected = np.zeros(points.shape)
    for entry in np.ndindex(2, 2, 3):
        nudge = np.zeros((2, 2, 3))
        nudge[entry] = 1e-6
        expected[:, *entry] = (values(points + nudge) - values(points - nudge)) / 2e-6
    finite = np.isfinite(points)[: len(found)]
    return np.where(finite, found, 0), np.where(finite, expected[: len(found)], 0)


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("refuted", [0.0, 0.2])
@pytest.mark.parametrize("what", ["margin", "mixed"])
def test_gradients_are_those_of_central_differences(random_tables, what, refuted, batched):
    """Of the margin, and of the first mixed equilibrium; of one cell compiled alone, and of many at once."""
    found, expected = gradient_and_differences(random_tables, what, refuted=refuted, batched=batched)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


# The sandwich of theory §2


def never_best_reply_elimination(utility: np.ndarray, divergence: np.ndarray) -> list[bool]:
    """The actions that survive iterated elimination of never-best replies in (U, −K), in exact arithmetic."""
    exact = [[Fraction(x) if np.isfinite(x) else None for x in row] for row in divergence.tolist()]  # None: refuted
    rows, columns = {0, 1}, set(range(utility.shape[1]))

    def fits_inside(j: int) -> bool:
        """Whether j is among the best fits for some s in (0, 1), s the weight on action 1."""
        low, high, open_low, open_high = Fraction(0), Fraction(1), True, True
        if exact[0][j] is None or exact[1][j] is None:
            return False
        for k in columns:
            if exact[0][k] is None or exact[1][k] is None:
                continue
            start, end = exact[0][j] - exact[0][k], exact[1][j] - exact[1][k]  # need (1−s)·start + s·end ≤ 0
            if start > 0 and end > 0:
                return False
            if start > 0 >= end:
                root = start / (start - end)
                low, open_low = (root, False) if root > low else (low, open_low)
            if end > 0 >= start:
                root = start / (start - end)
                high, open_high = (root, False) if root < high else (high, open_high)
        return low < high or (low == high and not open_low and not open_high and 0 < low < 1)

    def fits_at(row: int, j: int) -> bool:
        known = [exact[row][k] for k in columns if exact[row][k] is not None]
        return exact[row][j] is not None and exact[row][j] == min(known)

    for _ in range(2 + utility.shape[1]):  # each round removes something or is the last
        kept = {j for j in columns if any(fits_at(row, j) for row in rows) or (len(rows) == 2 and fits_inside(j))}
        best = {
            0: any(utility[0, j] >= utility[1, j] for j in kept),
            1: any(utility[1, j] >= utility[0, j] for j in kept),
        }
        rows, columns = {row for row in rows if best[row]}, kept
    return [row in rows for row in (0, 1)]


eighths = st.integers(-8, 8).map(lambda n: n / 8)
nats = st.integers(0, 8).map(lambda n: n / 8)


@st.composite
def tables(draw, divergences):
    num = draw(st.integers(1, 5))
    row = lambda of: st.lists(of, min_size=num, max_size=num)  # noqa: E731
    return np.array([draw(row(eighths)) for _ in range(2)]), np.array([draw(row(divergences)) for _ in range(2)])


def assert_sandwich(cell: Cell, utility: np.ndarray, divergence: np.ndarray) -> None:
    survivors = np.array(never_best_reply_elimination(utility, divergence))
    played = cell.pure | (cell.num_mixed > 0)
    assert played.any() or np.isinf(divergence).any(), "one exists where every divergence is finite"
    assert not (played & ~cell.rationalizable).any()
    assert not (cell.rationalizable & ~survivors).any()
    assert not (cell.strict & ~cell.pure).any()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(tables(nats))
def test_sandwich(case):
    assert_sandwich(solve(*case), *case)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(tables(st.one_of(nats, st.just(INF))))
def test_sandwich_with_infinities(case):
    cell = solve(*case)
    if cell.status == REFUTED:
        assert np.isinf(case[1]).any(axis=0).all()
    elif cell.status == SOLVED:
        assert_sandwich(cell, *case)
