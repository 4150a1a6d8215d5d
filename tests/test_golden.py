"""The golden problems: finite problems whose answers come from a solver written apart from this library."""

import jax
import numpy as np
import pytest

import epijax as ej


def strategies_of(solution: ej.Solution) -> np.ndarray:
    """All equilibrium strategies that a solution lists, pure and mixed, in lexical order, `[m, A]`."""
    mixed = np.asarray(solution.mixed)[: int(solution.num_mixed)]
    both = np.concatenate([np.eye(solution.num_actions)[np.asarray(solution.pure)], mixed])
    return both[np.lexsort(both.round(9).T)]


_solve = jax.jit(ej.solve)


def solve(entry: dict) -> ej.Solution:
    return _solve(ej.FiniteProblem(entry["utility"], entry["divergence"]))


def masks_are_right(solution: ej.Solution, entry: dict) -> bool:
    return (
        np.asarray(solution.rationalizable).tolist() == entry["rationalizable"]
        and np.asarray(solution.pure).tolist() == entry["pure_equilibria"]
    )


def agrees(solution: ej.Solution, entry: dict) -> None:
    """Sets of every kind, equilibria of the regular ones; what is solved has no tie, what has one is `boundary`."""
    assert masks_are_right(solution, entry), entry
    assert solution.status in (ej.Status.SOLVED, ej.Status.BOUNDARY), entry
    if entry["kind"] in ("regular", "dominated", "uninformative"):
        assert (solution.status == ej.Status.SOLVED) == (entry["margin"] > 0), entry
    if entry["kind"] == "regular":
        expected, found = np.array(entry["equilibria"]), strategies_of(solution)
        assert found.shape == expected.shape, entry
        np.testing.assert_allclose(found, expected[np.lexsort(expected.round(9).T)], rtol=0, atol=1e-9)


def repeated(entry: dict, width: int) -> dict:
    """The same problem with so many parameters: the last is repeated, which is one belief under more names."""
    missing = width - len(entry["utility"][0])
    return {name: np.pad(entry[name], ((0, 0), (0, missing)), mode="edge") for name in ("utility", "divergence")}


def two_actions(golden: list[dict]) -> list[dict]:
    chosen = [entry for entry in golden if len(entry["utility"]) == 2]
    assert len(chosen) == 44
    return chosen


def test_masks(golden):
    for entry in two_actions(golden):
        solution = solve(entry)
        assert masks_are_right(solution, entry), entry
        assert (solution.status == ej.Status.SOLVED) == (entry["margin"] > 0), entry


def test_equilibria(golden):
    regular = [entry for entry in two_actions(golden) if entry["kind"] == "regular"]
    assert len(regular) > 20
    for entry in regular:
        expected = np.array(entry["equilibria"])
        found = strategies_of(solve(entry))
        assert found.shape == expected.shape, entry
        np.testing.assert_allclose(found, expected[np.lexsort(expected.T)], rtol=0, atol=1e-12)


def test_single_precision_is_right_or_says_that_it_cannot_decide(golden):
    for entry in two_actions(golden):
        with jax.enable_x64(False):
            solution = solve(entry)
            assert solution.margin.dtype == np.float32
        if solution.status == ej.Status.BOUNDARY:
            assert entry["margin"] < 1e-4, entry
            continue
        assert solution.status == ej.Status.SOLVED and masks_are_right(solution, entry), entry
        if entry["kind"] == "regular":
            expected = np.array(entry["equilibria"])
            np.testing.assert_allclose(strategies_of(solution), expected[np.lexsort(expected.T)], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_five_actions(golden):
    larger = [entry for entry in golden if len(entry["utility"]) == 5]
    assert larger
    for entry in larger:
        agrees(solve(repeated(entry, 10)), entry)
