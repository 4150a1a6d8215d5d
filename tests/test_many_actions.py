"""Tables with other than two actions: against the reference and rational enumeration; ties and infinities."""

from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epijax as ej
from epijax import reference
from epijax.exact import solve_exactly
from epijax.games import game_value

BATCH = 100
SOLVED, BOUNDARY, REFUTED = ej.Status.SOLVED, ej.Status.BOUNDARY, ej.Status.REFUTED


class Cell(NamedTuple):
    """What a solution says, as arrays of NumPy, of one cell or of many."""

    rationalizable: np.ndarray
    pure: np.ndarray
    strict: np.ndarray
    mixed: np.ndarray
    num_mixed: np.ndarray
    margin: np.ndarray
    status: np.ndarray


@jax.jit
@jax.vmap
def solve_batch(utility, divergence):
    solution = ej.solve(ej.FiniteProblem(utility, divergence))
    return Cell(*(getattr(solution, name) for name in Cell._fields))


def solve_all(utility: np.ndarray, divergence: np.ndarray) -> Cell:
    """Batches of one size, so that each number of actions and parameters is compiled once."""
    batches = []
    for start in range(0, len(utility), BATCH):
        some = [table[start : start + BATCH] for table in (utility, divergence)]
        padded = [np.pad(table, ((0, BATCH - len(table)), (0, 0), (0, 0)), mode="edge") for table in some]
        batches.append([np.asarray(leaf)[: len(some[0])] for leaf in solve_batch(*padded)])
    return Cell(*map(np.concatenate, zip(*batches, strict=True)))


def cells_of(cells: Cell) -> list[Cell]:
    return [Cell(*values) for values in zip(*cells, strict=True)]


def mixed_of(cell: Cell) -> np.ndarray:
    """The mixed equilibria in lexical order; the rows in use are the first."""
    assert not np.isnan(cell.mixed[: cell.num_mixed]).any() and np.isnan(cell.mixed[cell.num_mixed :]).all()
    return in_order(cell.mixed[: cell.num_mixed])


def in_order(rows) -> np.ndarray:
    rows = np.asarray(rows, float)
    return rows[np.lexsort(rows.round(7).T)]


def draw(seed: int, count: int, num_actions: int, num: int, *, refuted: float = 0.0, whole: bool = False):
    """Random tables; of small whole numbers, most have ties."""
    rng = np.random.default_rng([seed, num_actions, num])
    shape = count, num_actions, num
    if whole:
        utility, divergence = rng.integers(-2, 3, shape).astype(float), rng.integers(0, 4, shape).astype(float)
    else:
        utility, divergence = rng.normal(size=shape), rng.exponential(size=shape)
    divergence[rng.random(shape) < refuted] = np.inf
    return utility, divergence


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("refuted", [0.0, 0.2])
def test_random_tables_and_random_ties(refuted, whole):
    """What is solved is right, and so are the sets where ties decide."""
    utility, divergence = draw(1, 40, 3, 4, refuted=refuted, whole=whole)
    unsafe = [True, False, False]
    solved = 0
    for u, d, cell in zip(utility, divergence, cells_of(solve_all(utility, divergence)), strict=True):
        answer, context = reference.finite(u, d, unsafe=unsafe), str((u.tolist(), d.tolist()))
        for name in ("rationalizable", "pure", "strict"):
            np.testing.assert_array_equal(getattr(cell, name), getattr(answer, name), err_msg=f"{name} {context}")
        assert (cell.status == REFUTED) == (answer.status == "refuted"), context
        if cell.status == SOLVED:
            solved += 1
            assert answer.status == "solved", context
            found, expected = mixed_of(cell), in_order(answer.mixed)
            assert found.shape == expected.shape, (context, found, expected)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8, err_msg=context)
    assert solved > (2 if whole else 12)


def test_what_is_called_solved_is_so_in_rational_arithmetic():
    rng = np.random.default_rng([3, 4])
    shape = 400, 3, 4
    utility, divergence = rng.integers(0, 30, shape).astype(float), rng.integers(0, 30, shape).astype(float)
    divergence[:200][rng.random((200, 3, 4)) < 0.2] = np.inf
    cells = solve_all(utility, divergence)
    assert (cells.status == SOLVED).mean() > 0.4
    for u, d, cell in zip(utility, divergence, cells_of(cells), strict=True):
        answer, context = solve_exactly(u.tolist(), d.tolist()), str((u.tolist(), d.tolist()))
        assert answer.refuted == (cell.status == REFUTED), context
        if cell.status == SOLVED:
            for name in ("rationalizable", "pure", "strict"):
                np.testing.assert_array_equal(getattr(cell, name), getattr(answer, name), err_msg=context)
            expected = in_order(np.array(answer.mixed, float).reshape(-1, 3))
            np.testing.assert_allclose(mixed_of(cell), expected, rtol=0, atol=1e-8, err_msg=context)


def test_rational_enumeration_finds_the_same_equilibria():
    gambit = pytest.importorskip("pygambit")
    rng = np.random.default_rng(2)
    hundredths = rng.integers(-300, 300, (25, 3, 4)), rng.integers(0, 300, (25, 3, 4))
    compared = 0
    for u, d, cell in zip(*hundredths, cells_of(solve_all(*(table / 100 for table in hundredths))), strict=True):
        if cell.status == BOUNDARY:
            continue
        exact = [np.array([[Fraction(int(n), 100) for n in row] for row in table]) for table in (u, d)]
        game = gambit.StrategicGame.from_arrays(exact[0], -exact[1])
        row_player = next(iter(game.players))
        profiles = gambit.nash.enummixed_solve(game, rational=True).equilibria
        expected = {tuple(float(weight) for _, weight in profile[row_player]) for profile in profiles}
        found = np.concatenate([np.eye(3)[cell.pure], mixed_of(cell)])
        np.testing.assert_allclose(in_order(found), in_order(list(expected)), rtol=0, atol=1e-10)
        compared += 1
    assert compared > 15


def test_the_number_of_equilibria_of_a_regular_problem_is_odd():
    cells = solve_all(*draw(3, 1000, 3, 4))
    counts = cells.num_mixed + cells.pure.sum(-1)
    assert (cells.status == SOLVED).mean() > 0.99
    assert (counts[cells.status == SOLVED] % 2 == 1).all()
    assert (counts > 1).sum() > 50


def test_support_of_equilibria_is_rationalizable_and_that_survives_strict_dominance():
    utility, divergence = draw(3, 1000, 3, 4)
    cells = solve_all(utility, divergence)
    used = np.nan_to_num(cells.mixed).max(axis=1) > 0
    assert not (used & ~cells.rationalizable).any() and not (cells.pure & ~cells.rationalizable).any()
    beaten = (utility[:, :, None] < utility[:, None, :]).all(axis=-1).any(axis=-1)
    assert beaten.any() and not (beaten & cells.rationalizable).any()


def test_order_and_units_do_not_matter():
    """Actions and parameters permuted; U to aU + b_θ, K to cK + d_x."""
    utility, divergence = draw(4, 60, 3, 4)
    rng = np.random.default_rng(5)
    cells = solve_all(utility, divergence)
    actions, parameters = np.array([2, 0, 1]), rng.permutation(4)
    other = solve_all(utility[:, actions][:, :, parameters], divergence[:, actions][:, :, parameters])
    scaled = solve_all(
        1e-9 * utility + 1e-9 * rng.normal(size=(60, 1, 4)), 1e9 * divergence + 1e9 * rng.random((60, 3, 1))
    )
    clear = (cells.status == SOLVED) & (other.status == SOLVED) & (scaled.status == SOLVED)
    assert clear.mean() > 0.95
    for name in ("rationalizable", "pure", "strict"):
        np.testing.assert_array_equal(getattr(cells, name)[clear][:, actions], getattr(other, name)[clear])
        np.testing.assert_array_equal(getattr(cells, name)[clear], getattr(scaled, name)[clear])
    for one, permuted, rescaled in zip(*map(cells_of, (cells, other, scaled)), strict=True):
        if SOLVED == one.status == permuted.status == rescaled.status:
            np.testing.assert_allclose(in_order(mixed_of(one)[:, actions]), mixed_of(permuted), rtol=0, atol=1e-9)
            np.testing.assert_allclose(mixed_of(one), mixed_of(rescaled), rtol=0, atol=1e-6)


def test_single_precision_is_right_or_says_that_it_cannot_decide():
    utility, divergence = (table.astype(np.float32) for table in draw(6, 500, 3, 4, refuted=0.1))
    double = solve_all(utility.astype(float), divergence.astype(float))
    with jax.enable_x64(False):
        single = solve_all(utility, divergence)
    assert single.margin.dtype == np.float32
    both = (single.status == SOLVED) & (double.status == SOLVED)
    assert both.mean() > 0.5
    for name in ("rationalizable", "pure", "strict", "num_mixed"):
        np.testing.assert_array_equal(getattr(single, name)[both], getattr(double, name)[both], err_msg=name)


def test_small_differences_are_not_taken_for_none():
    """Divergences that differ by a thousandth of their size, in float32: right, or undecided."""
    utility, divergence = draw(8, 300, 3, 4)
    utility, divergence = utility.astype(np.float32), (1 + 1e-3 * divergence).astype(np.float32)
    double = solve_all(utility.astype(float), divergence.astype(float))
    with jax.enable_x64(False):
        single = solve_all(utility, divergence)
    both = (single.status == SOLVED) & (double.status == SOLVED)
    assert both.mean() > 0.3
    for name in ("rationalizable", "pure", "strict", "num_mixed"):
        np.testing.assert_array_equal(getattr(single, name)[both], getattr(double, name)[both], err_msg=name)


def test_one_cell_and_a_batch_agree():
    utility, divergence = draw(7, 3, 3, 4)
    for cell, u, d in zip(cells_of(solve_all(utility, divergence)), utility, divergence, strict=True):
        one = ej.solve(ej.FiniteProblem(u, d))
        np.testing.assert_array_equal(one.rationalizable, cell.rationalizable)
        np.testing.assert_array_equal(one.pure, cell.pure)
        np.testing.assert_allclose(one.mixed, cell.mixed, rtol=0, atol=1e-12)


# By hand


def test_one_action_is_all_there_is():
    solution = ej.solve(ej.FiniteProblem([[1.0, -2.0, 0.0]], [[0.3, 0.1, 0.1]]))
    assert solution.status == SOLVED
    assert solution.rationalizable.tolist() == solution.pure.tolist() == solution.strict.tolist() == [True]
    assert solution.num_mixed == 0


def test_one_action_under_divergences_alone():
    """Payoffs that no cell has of its own: its answer is there in every cell."""
    utility, divergence = jnp.array([[1.0, 2.0]]), jnp.array([[[0.0, 1.0]], [[1.0, 0.0]], [[2.0, 1.0]]])
    found = jax.vmap(lambda d: ej.solve(ej.FiniteProblem(utility, d)))(divergence)
    assert found.strict.tolist() == found.pure.tolist() == found.rationalizable.tolist() == [[True]] * 3
    assert found.status.tolist() == [SOLVED] * 3


def test_one_parameter_leaves_only_the_best_action():
    solution = ej.solve(ej.FiniteProblem([[1.0], [3.0], [2.0]], [[0.5], [0.7], [0.0]]))
    assert solution.status == SOLVED
    assert solution.rationalizable.tolist() == solution.strict.tolist() == [False, True, False]


def test_one_belief_a_strategy_is_less_than_a_mixture_of_beliefs():
    """Action 2 is best only under a mixture of beliefs, and these two never fit one strategy equally well."""
    utility = [[3.0, -3.0, -3.0, -3.0], [-3.0, 3.0, 3.0, 3.0], [1.0] * 4]
    apart, together = (
        np.array(table)[:, [0, 1, 1, 1]]
        for table in ([[0.0, 1.0], [0.1, 1.0], [0.0, 2.0]], [[0.0, 1.0], [1.0, 0.0], [0.5, 0.5]])
    )
    assert ej.solve(ej.FiniteProblem(utility, apart)).rationalizable.tolist() == [True, False, False]
    solution = ej.solve(ej.FiniteProblem(utility, together))
    assert solution.rationalizable.tolist() == [True, True, True]
    assert bool(solution.pure[2])


def test_actions_that_pay_the_same_are_no_tie():
    """The first two are one action in payoffs, and better than the third whatever is believed."""
    solution = ej.solve(
        ej.FiniteProblem(
            [[1.0, 2.0, 2.0, 2.0], [1.0, 2.0, 2.0, 2.0], [0.0] * 4],
            [[0.0, 1.0, 1.0, 1.0], [0.0, 1.5, 1.5, 1.5], [1.0, 0.2, 0.2, 0.2]],
        )
    )
    assert solution.rationalizable.tolist() == solution.pure.tolist() == [True, True, False]
    assert solution.strict.tolist() == [False, False, False]


def test_where_full_support_refutes_everything_there_is_no_number():
    utility = np.eye(3, 4)
    divergence = np.where(np.eye(3)[:, [0, 1, 2, 2]] == 1, np.inf, 0.5)
    solution = ej.solve(ej.FiniteProblem(utility, divergence))
    assert solution.status == REFUTED
    assert not solution.rationalizable.any() and np.isnan(solution.margin)


@pytest.mark.parametrize(("num_actions", "num"), [(5, 128), (7, 2)])
def test_tables_too_large_are_refused_before_anything_is_computed(num_actions, num):
    tables = ej.FiniteProblem(np.zeros((num_actions, num)), np.zeros((num_actions, num)))
    with pytest.raises(ValueError, match=rf"{num_actions} actions and {num} parameters make .* solve with exact=True"):
        ej.solve(tables)
    assert ej.solve(tables, exact=True).status == SOLVED


def test_a_grid_of_payoffs_and_divergences_is_each_problem_by_itself():
    """What one axis does not change is computed once for all of it, and is the same."""
    utility, divergence = draw(9, 5, 3, 4, refuted=0.1)
    divergence = divergence[:3]

    def answer(u, d):
        solution = ej.solve(ej.FiniteProblem(u, d))
        return Cell(*(getattr(solution, name) for name in Cell._fields))

    grid = jax.jit(jax.vmap(jax.vmap(answer, (0, None)), (None, 0)))(utility, divergence)
    for i in range(3):
        row = solve_all(utility, np.broadcast_to(divergence[i], utility.shape))
        for name in ("rationalizable", "pure", "strict", "num_mixed", "status"):
            np.testing.assert_array_equal(getattr(grid, name)[i], getattr(row, name), err_msg=name)
        np.testing.assert_allclose(grid.mixed[i], row.mixed, rtol=0, atol=1e-12)


def test_temporaries_stay_small_for_one_action_and_many_parameters():
    table = jax.ShapeDtypeStruct((2048, 1, 256), float)
    solve = jax.vmap(lambda utility, divergence: ej.solve(ej.FiniteProblem(utility, divergence)).margin)
    memory = jax.jit(solve).lower(table, table).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 64 << 20


def test_it_lowers_for_every_platform():
    tables = [jax.ShapeDtypeStruct((8, 3, 4), float)] * 2
    exported = jax.export.export(solve_batch, platforms=("cpu", "cuda", "rocm", "tpu"))(*tables)
    assert "custom_call" not in exported.mlir_module()


# Matrix games


def test_values_of_games_whose_answers_are_known():
    everything = jnp.ones(3, bool)
    paper = jnp.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]])
    np.testing.assert_allclose(game_value(paper, everything, everything), 0, atol=1e-14)
    np.testing.assert_allclose(game_value(paper + 0.25, everything, everything), 0.25, atol=1e-14)
    assert game_value(paper, jnp.array([True, False, False]), everything) == -1  # the least of the first row
    assert game_value(paper, ~everything, everything) == -jnp.inf
    assert jnp.isnan(game_value(paper, everything, ~everything))
