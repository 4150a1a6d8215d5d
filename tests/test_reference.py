"""The judge itself: it imports nothing of what it judges, and agrees with the golden problems."""

import itertools
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from epijax import reference
from epijax.reference_tables import Tables

LOADED = """
import sys
import epijax.reference
mine = {name for name in sys.modules if name.partition(".")[0] in ("epijax", "jax", "jaxlib", "jaxtyping", "equinox")}
assert mine == {"epijax", "epijax.reference", "epijax.reference_tables"}, mine
"""


def test_it_imports_neither_jax_nor_a_sibling():
    subprocess.run([sys.executable, "-c", LOADED], check=True)


def test_golden(golden):
    chosen = [entry for entry in golden if len(entry["utility"]) == 2]
    assert len(chosen) == 44
    for entry in chosen:
        answer = reference.finite(entry["utility"], entry["divergence"], unsafe=(True, False))
        assert answer.rationalizable.tolist() == entry["rationalizable"], entry
        assert answer.pure.tolist() == entry["pure_equilibria"], entry
        assert answer.status == ("solved" if entry["margin"] > 0 else "boundary"), entry
        if entry["kind"] == "regular":
            found = np.concatenate([np.eye(2)[answer.pure], answer.mixed])
            expected = np.array(entry["equilibria"])
            assert found.shape == expected.shape, entry
            np.testing.assert_allclose(np.sort(found[:, 1]), np.sort(expected[:, 1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("p_agree", "p_honest", "name"), [
    (0.7, 0.8, "multistable"),
    (0.7, 0.2, "locked_in"),
    (0.3, 0.8, "safe"),
    (0.3, 0.2, "oscillatory"),
    (0.5, 0.8, "boundary"),
])  # fmt: skip
def test_the_four_phases_by_hand(p_agree, p_honest, name):
    """θ̂ = ½; agreeing teaches p_S, honesty 1 − p_H."""
    truth = [[1 - p_agree, p_agree], [1 - p_honest, p_honest]]
    answer = reference.affine_bernoulli(truth, [[0, 1], [0, 1]], [0, 1], [1, -1], 0, 1, unsafe=(True, False))
    assert answer.phase == name
    if name in ("multistable", "oscillatory"):
        share = (p_honest - 0.5) / (p_agree + p_honest - 1)
        np.testing.assert_allclose(answer.mixed, [[share, 1 - share]], rtol=0, atol=1e-12)


def test_an_action_that_no_single_play_justifies():
    """Each parameter that favours action 1 fits some play, none fits where another does: a table by hand."""
    answer = reference.finite([[1, 0, 1], [0, 1, 0]], [[0, 1.01, 2], [2, 1.01, 0]], unsafe=(False, True))
    assert answer.rationalizable.tolist() == [True, False] and answer.phase == "safe"


@pytest.mark.parametrize(("call", "message"), [
    (lambda: reference.finite(np.eye(3), np.eye(2), unsafe=(1, 0, 0)), r"must be two \[A, K\] tables; got \(3, 3\)"),
    (lambda: reference.finite(np.zeros((0, 3)), np.zeros((0, 3)), unsafe=()), r"must be two \[A, K\] tables"),
    (lambda: reference.finite(np.eye(2), -np.eye(2), unsafe=(1, 0)), "divergence must be >= 0"),
    (lambda: reference.finite(np.eye(2), np.eye(2), unsafe=(1,)), "one entry per action"),
    (lambda: reference.divergence([[0.5, 0.6]], [[0.5, 0.5]]), "sum to 1"),
    (lambda: reference.project([[0.5, 0.5]] * 2, [0, 1], [1, -1], 1, 0, [1, 0]), "lower <= upper"),
    (lambda: reference.project([[0.5, 0.5]] * 2, [0, 1], [1, -1], 0, 0, [1, 0]), "refutes every parameter"),
])  # fmt: skip
def test_what_is_wrong_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# Tables of any number of actions


def solve(utility, divergence, unsafe=None) -> reference.Answer:
    num_actions = len(utility)
    return reference.finite(utility, divergence, unsafe=np.arange(num_actions) == 0 if unsafe is None else unsafe)


def equilibria(answer: reference.Answer) -> np.ndarray:
    """All extreme equilibrium strategies, pure and mixed, `[m, A]`."""
    return np.concatenate([np.eye(len(answer.pure))[answer.pure], answer.mixed])


def assert_same_strategies(found: np.ndarray, expected: np.ndarray, context: object) -> None:
    """Equal as sets of distinct rows, in whatever order."""
    assert found.shape == expected.shape, (found, expected, context)
    for strategy in expected:
        assert np.abs(found - strategy).max(axis=1).min() < 1e-9, (found, expected, context)


def test_golden_of_more_actions(golden):
    chosen = [entry for entry in golden if len(entry["utility"]) > 2]
    assert len(chosen) in (5, 116)
    for entry in chosen:
        answer = solve(entry["utility"], entry["divergence"])
        assert answer.rationalizable.tolist() == entry["rationalizable"], entry
        assert answer.pure.tolist() == entry["pure_equilibria"], entry
        assert answer.status == ("solved" if entry["margin"] > 0 else "boundary"), entry
        if entry["kind"] == "regular":
            assert_same_strategies(equilibria(answer), np.array(entry["equilibria"]), entry)


@pytest.mark.parametrize("kind", ["finite", "refuted", "uninformative", "whole numbers"])
def test_set_by_set_and_along_the_line_give_one_answer(random_tables, kind):
    """Two actions, solved both ways; whole numbers tie all the time, and the weak inequalities decide."""
    statuses = []
    for num in (1, 2, 4, 7):
        utility, divergence = random_tables(8, 15, num, refuted=0.25 if kind == "refuted" else 0.0)
        if kind == "uninformative":
            divergence[:, 0] = 0.3
        if kind == "whole numbers":
            utility, divergence = np.rint(1.5 * utility), np.rint(1.5 * divergence)
        for u, d in zip(utility, divergence, strict=True):
            line, context = solve(u, d), (u.tolist(), d.tolist())
            finite = d[np.isfinite(d)]
            tables = Tables(u / (np.abs(u).max() or 1.0), d / (finite.max(initial=0.0) or 1.0), 1e-9)
            rationalizable, pure, strict, mixed, margin = tables.answer()
            statuses.append(line.status)
            assert np.isnan(margin) == (line.status == "refuted"), context
            if line.status == "refuted":
                assert not rationalizable.any() and not pure.any() and not strict.any() and not len(mixed), context
                continue
            assert rationalizable.tolist() == line.rationalizable.tolist(), context
            assert pure.tolist() == line.pure.tolist() and strict.tolist() == line.strict.tolist(), context
            assert_same_strategies(mixed, line.mixed, context)
            assert (margin > 1e-9) == (line.status == "solved") or kind == "whole numbers", context
    assert statuses.count("solved") > 20


def exact_equilibria(utility: np.ndarray, divergence: np.ndarray) -> np.ndarray:
    """The extreme equilibrium strategies of the bimatrix game (U, −K) of whole numbers, in rational arithmetic."""
    gambit = pytest.importorskip("pygambit")
    tables = [np.array([[Fraction(int(n)) for n in row] for row in table]) for table in (utility, -divergence)]
    game = gambit.StrategicGame.from_arrays(*tables)
    row_player = next(iter(game.players))
    profiles = gambit.nash.enummixed_solve(game, rational=True).equilibria
    strategies = {tuple(weight for _, weight in profile[row_player]) for profile in profiles}
    return np.array(sorted(strategies), dtype=np.float64)


@pytest.mark.parametrize("largest", [1000, 3])
@pytest.mark.parametrize("num", [3, 4])
def test_exact_rational_enumeration_finds_the_same_equilibria(num, largest):
    """Numbers up to 3 tie: then equilibria come in continua, of which the ends are listed."""
    rng = np.random.default_rng([num, largest])
    statuses = []
    for _ in range(12):
        utility, divergence = rng.integers(-largest, largest + 1, (3, num)), rng.integers(0, largest + 1, (3, num))
        answer = solve(utility, divergence)
        assert_same_strategies(equilibria(answer), exact_equilibria(utility, divergence), (utility, divergence))
        played = (equilibria(answer) > 0).any(axis=0)
        assert (answer.rationalizable >= played).all(), (utility, divergence)
        statuses.append(answer.status)
    assert "boundary" in statuses if largest == 3 else statuses.count("solved") > 9


def test_exact_rational_enumeration_of_what_each_support_leaves_unrefuted():
    """σ with support S is an equilibrium iff it is one of the game whose columns are the parameters finite on S."""
    rng = np.random.default_rng(9)
    compared = 0
    for _ in range(12):
        utility, divergence = rng.integers(-999, 1000, (3, 4)), rng.integers(0, 1000, (3, 4)).astype(float)
        divergence[rng.random((3, 4)) < 0.25] = np.inf
        answer = solve(utility, divergence)
        if answer.status == "refuted":
            assert np.isinf(divergence).any(axis=0).all()
            continue
        expected = [np.zeros((0, 3))]
        for support in (list(s) for size in (1, 2, 3) for s in itertools.combinations(range(3), size)):
            alive = np.isfinite(divergence[support]).all(axis=0)
            game = utility[:, alive], np.where(np.isfinite(divergence), divergence, 0.0)[:, alive]
            played = (exact_equilibria(*game) > 0) == np.isin(range(3), support)
            expected.append(exact_equilibria(*game)[played.all(axis=1)])
        assert_same_strategies(equilibria(answer), np.concatenate(expected), (utility, divergence))
        compared += 1
    assert compared > 6


def assert_masks(answer: reference.Answer, rationalizable, pure, strict) -> None:
    assert answer.rationalizable.tolist() == [bool(x) for x in rationalizable]
    assert answer.pure.tolist() == [bool(x) for x in pure]
    assert answer.strict.tolist() == [bool(x) for x in strict]


def test_a_single_action():
    answer = solve([[3.0, -1.0, 0.0]], [[0.2, 0.2, 1.0]], unsafe=(True,))
    assert_masks(answer, [1], [1], [1])
    assert answer.mixed.shape == (0, 1) and answer.margin == np.inf and answer.phase == "locked_in"


def test_a_single_parameter():
    """Nothing to learn: action 1 is best whatever is played, by 1 of a scale of 4."""
    answer = solve([[3.0], [4.0], [-2.0]], [[0.7], [0.1], [0.0]])
    assert_masks(answer, [0, 1, 0], [0, 1, 0], [0, 1, 0])
    assert answer.mixed.shape == (0, 3) and answer.margin == pytest.approx(0.25) and answer.phase == "safe"


def test_equal_actions_are_a_tie():
    """Actions 0 and 1 are one and the same: both are best, neither strictly, and so is every mixture of them."""
    answer = solve([[1.0, 2.0], [1.0, 2.0], [0.0, 0.0]], [[0.3, 0.1], [0.3, 0.1], [0.0, 1.0]])
    assert_masks(answer, [1, 1, 0], [1, 1, 0], [0, 0, 0])
    assert answer.mixed.shape == (0, 3) and answer.margin == 0.0 and answer.phase == "boundary"


def test_an_uninformative_action_leaves_every_belief_open():
    """Θ(δ_1) is both parameters: 0 is best at the first, 2 at the second, 1 in between. Playing 0 teaches the second,
    playing 2 the first, and any σ with σ_0 = σ_2 > 0 ties them, where 1 beats a mixture of 0 and 2."""
    answer = solve([[2.0, -2.0], [0.5, 0.5], [-2.0, 2.0]], [[0.5, 0.1], [0.0, 0.0], [0.1, 0.5]])
    assert_masks(answer, [1, 1, 1], [0, 1, 0], [0, 0, 0])
    assert answer.mixed.shape == (0, 3) and answer.phase == "indeterminate"


def test_equal_columns_are_told_apart_by_nothing():
    """The first two parameters fit equally, and best until σ_1 = ½: one favours 0, the other 1, so that everything
    from δ_0 to (½, ½) is in equilibrium. Its far end has three best fits and two actions. Action 2 is never best."""
    answer = solve([[0, 0, 0], [-1, 1, 1], [-5, -5, -5]], [[0, 0, 1], [1, 1, 0], [2, 2, 2]])
    assert_masks(answer, [1, 1, 0], [1, 1, 0], [0, 1, 0])
    np.testing.assert_allclose(answer.mixed, [[0.5, 0.5, 0.0]], rtol=0, atol=1e-12)
    assert answer.phase == "multistable"


@pytest.mark.parametrize("refuting", [10.0, np.inf])
def test_refuting_is_not_fitting_badly(refuting):
    """Action 2 speaks against the first parameter, 0 and 1 for it. While that is finite, K = M, they tie at σ_2 =
    1/(M + ½) against action 0 or 1, a half of each makes 1 best, and with μ = (0.4, 0.6) it equals 2: an equilibrium.
    If M is infinite, the least weight on 2 leaves the second parameter alone, and nothing justifies 1."""
    answer = solve([[2.0, 0.0], [1.2, 1.2], [0.0, 2.0]], [[0.0, 1.0], [0.0, 1.0], [refuting, 0.5]])
    assert_masks(answer, [1, np.isfinite(refuting), 1], [1, 0, 1], [1, 0, 1])
    expected = [[0.0, 9.5 / 10.5, 1 / 10.5]] if np.isfinite(refuting) else np.zeros((0, 3))
    np.testing.assert_allclose(answer.mixed, expected, rtol=0, atol=1e-12)
    assert answer.phase == "multistable"


def test_actions_that_together_refute_what_each_teaches():
    """0 teaches the first parameter and refutes the second, 1 the reverse, 2 favours the first: only a mixture of 0 and
    1 leaves the third, at which 2 is best. So 2 is rationalizable, though no play that it is part of justifies it."""
    tables = np.array([[2, 0, 0], [0, 2, 0], [0, 0, 2]]), [[0, np.inf, 1], [np.inf, 0, 1], [0.5, 0.6, 1]]
    answer = solve(*tables, unsafe=(False, False, True))
    assert_masks(answer, [1, 1, 1], [1, 1, 0], [1, 1, 0])
    assert answer.mixed.shape == (0, 3) and answer.phase == "indeterminate"


def test_refutation_may_leave_no_equilibrium():
    """Playing 0 teaches the first parameter, at which 1 is best; any weight on 1 refutes it and leaves the second,
    at which 0 is best. Action 2 is never best. Best fits jump where a parameter is refuted, with nothing in between."""
    answer = solve([[0, 1], [1, 0], [-1, -1]], [[0, 1], [np.inf, 0], [0, 1]])
    assert_masks(answer, [1, 1, 0], [0, 0, 0], [0, 0, 0])
    assert answer.mixed.shape == (0, 3) and answer.phase == "oscillatory"


@pytest.mark.parametrize(("last", "phase"), [(0.9, "indeterminate"), (1.0, "boundary"), (1.1, "safe")])
def test_a_tie_that_only_the_limit_sees(last, phase):
    """At δ_0 the second parameter is best and favours 0; a little of 1 or 2 refutes it. Then the first, for 0, and the
    third, for 1, have 1 and `last` in the limit: the lower one is best next to δ_0, and the first one is elsewhere."""
    utility, divergence = [[1, 1, 0], [0, 0, 1], [-1, -1, -1]], [[1, 0, last], [0, np.inf, 1], [0, np.inf, 1]]
    answer = solve(utility, divergence, unsafe=(False, True, False))
    assert answer.phase == phase
    if phase != "boundary":
        assert_masks(answer, [1, last < 1, 0], [1, 0, 0], [1, 0, 0])
        expected = [[1 / (2 - last), (1 - last) / (2 - last), 0]] if last < 1 else np.zeros((0, 3))
        np.testing.assert_allclose(answer.mixed, expected, rtol=0, atol=1e-12)


def test_full_support_that_refutes_every_parameter():
    """Each parameter is denied by one of the actions: pure play would leave a belief, but the model is refuted."""
    answer = solve(np.eye(3)[:, :2], [[0, np.inf], [np.inf, 0], [1, 1]])
    assert_masks(answer, [0, 0, 0], [0, 0, 0], [0, 0, 0])
    assert answer.mixed.shape == (0, 3) and np.isnan(answer.margin) and answer.status == answer.phase == "refuted"
