"""Rational arithmetic against outside judges, by hand, and as the keyword `exact` of `solve`."""

import math
import time
from fractions import Fraction
from random import Random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epijax as ej
from epijax import reference
from epijax.exact import ExactAnswer, solve_exactly

INF = math.inf
SOLVED, BOUNDARY, REFUTED, INVALID = ej.Status.SOLVED, ej.Status.BOUNDARY, ej.Status.REFUTED, ej.Status.INVALID
MASKS = ("rationalizable", "pure", "strict")


def unit(x: int, num_actions: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(int(x == y)) for y in range(num_actions))


def equilibria_of(answer: ExactAnswer) -> dict[tuple[Fraction, ...], int]:
    """All listed strategies, pure and mixed, each with the number of its component."""
    num_actions = len(answer.pure)
    pure = {unit(x, num_actions): number for x, number in enumerate(answer.pure_component) if number >= 0}
    return pure | dict(zip(answer.mixed, answer.component, strict=True))


def parts_of(answer: ExactAnswer) -> set[frozenset]:
    """The listed strategies, those of one component together."""
    listed = equilibria_of(answer)
    return {frozenset(s for s, number in listed.items() if number == part) for part in listed.values()}


def draw(random: Random, num_actions: int, num: int, most: int, refuted: float = 0.0) -> tuple[list, list]:
    """Small whole numbers from 0 to `most`, full of ties."""
    utility = [[random.randint(0, most) for _ in range(num)] for _ in range(num_actions)]
    nats = [[INF if random.random() < refuted else random.randint(0, most) for _ in row] for row in utility]
    return utility, nats


def in_order(rows) -> np.ndarray:
    rows = np.array(rows, float)
    return rows[np.lexsort(rows.round(7).T)]


# Outside judges


def test_golden_problems(golden):
    """Sets of every kind, ties included; equilibria of the regular ones."""
    for entry in golden:
        tables = [[[Fraction(str(x)) for x in row] for row in entry[name]] for name in ("utility", "divergence")]
        answer = solve_exactly(*tables)
        assert list(answer.rationalizable) == entry["rationalizable"], entry
        assert list(answer.pure) == entry["pure_equilibria"], entry
        if entry["kind"] == "regular":
            found, expected = in_order(list(equilibria_of(answer))), in_order(entry["equilibria"])
            assert found.shape == expected.shape, entry
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("most", [0, 1, 3])
@pytest.mark.parametrize(("num_actions", "num"), [(2, 2), (2, 5), (3, 3), (3, 5), (4, 4)])
def test_rational_enumeration_finds_the_same_equilibria_and_components(num_actions, num, most):
    """A vertex σ is an extreme equilibrium iff it belongs to an extreme pair (σ, μ) of the bimatrix game.

    For the μ that support it are a face of the best-response polytope. Pairs that share σ or μ lie in one component.
    """
    gambit = pytest.importorskip("pygambit")
    random = Random(num_actions * 100 + num * 10 + most)
    for _ in range(60 if most else 1):
        utility, nats = draw(random, num_actions, num, most)
        exact = [np.array([[Fraction(entry) for entry in row] for row in table]) for table in (utility, nats)]
        game = gambit.StrategicGame.from_arrays(exact[0], -exact[1])
        players = list(game.players)
        components: list[set] = []
        for profile in gambit.nash.enummixed_solve(game, rational=True).equilibria:
            pair = {(side, tuple(Fraction(w) for _, w in profile[player])) for side, player in enumerate(players)}
            touched = [component for component in components if component & pair]
            components = [c for c in components if c not in touched] + [pair.union(*touched)]
        expected = {frozenset(strategy for side, strategy in c if side == 0) for c in components}
        assert parts_of(solve_exactly(utility, nats)) == expected, (utility, nats)


@pytest.mark.parametrize("refuted", [0.0, 0.3])
@pytest.mark.parametrize(("num_actions", "num"), [(1, 3), (2, 4), (3, 4), (4, 3), (4, 4)])
def test_linear_programs_find_the_same(num_actions, num, refuted):
    random = Random(num_actions * 10 + num)
    for i in range(50 - 10 * num_actions):
        utility, nats = draw(random, num_actions, num, 1 + i % 3, refuted)
        answer, context = solve_exactly(utility, nats), str((utility, nats))
        judge = reference.finite(utility, nats, unsafe=[True] + [False] * (num_actions - 1))
        assert answer.refuted == (judge.status == "refuted"), context
        if not answer.refuted:
            for name in MASKS:
                assert list(getattr(answer, name)) == getattr(judge, name).tolist(), (name, context)
            assert len(answer.mixed) == len(judge.mixed), context
            if answer.mixed:
                np.testing.assert_allclose(in_order(answer.mixed), in_order(judge.mixed), rtol=0, atol=1e-8)


def test_what_the_ordinary_solver_calls_solved_is_so():
    rng = np.random.default_rng([2, 5])
    shape = 600, 2, 5
    utility, nats = rng.integers(0, 30, shape).astype(float), rng.integers(0, 30, shape).astype(float)
    nats[:300][rng.random((300, 2, 5)) < 0.2] = INF
    solution = jax.jit(jax.vmap(lambda u, d: ej.solve(ej.FiniteProblem(u, d))))(utility, nats)
    cells = {name: np.asarray(getattr(solution, name)) for name in (*MASKS, "mixed", "num_mixed", "status")}
    assert (cells["status"] == SOLVED).mean() > 0.4
    for i, (u, d) in enumerate(zip(utility.tolist(), nats.tolist(), strict=True)):
        answer, cell = solve_exactly(u, d), {name: values[i] for name, values in cells.items()}
        assert answer.refuted == (cell["status"] == REFUTED), (u, d)
        if cell["status"] == SOLVED:
            for name in MASKS:
                assert list(getattr(answer, name)) == cell[name].tolist(), (name, u, d)
            assert len(answer.mixed) == cell["num_mixed"], (u, d)
            if answer.mixed:
                mixed = in_order(cell["mixed"][: cell["num_mixed"]])
                np.testing.assert_allclose(in_order(answer.mixed), mixed, rtol=0, atol=1e-8)


# What must always hold


def test_the_sets_contain_each_other_as_they_must():
    random = Random(1)
    for _ in range(300):
        utility, nats = draw(random, random.randint(1, 5), random.randint(1, 6), random.randint(1, 4), 0.15)
        answer = solve_exactly(utility, nats)
        if answer.refuted:
            assert not any(answer.rationalizable + answer.pure + answer.strict) and not answer.mixed
            continue
        assert all(answer.rounds[0]) and answer.rounds[-1] == answer.rationalizable and any(answer.rationalizable)
        for before, after in zip(answer.rounds, answer.rounds[1:], strict=False):
            assert before != after and all(b for b, a in zip(before, after, strict=True) if a)
        for strategy in equilibria_of(answer):
            assert sum(strategy) == 1 and min(strategy) >= 0
            assert all(kept for kept, weight in zip(answer.rationalizable, strategy, strict=True) if weight)
        assert all(p for p, s in zip(answer.pure, answer.strict, strict=True) if s)
        assert list(answer.mixed) == sorted(set(answer.mixed)) and not any(1 in row for row in answer.mixed)
        assert list(dict.fromkeys(equilibria_of(answer).values())) == list(range(len(parts_of(answer))))
        beaten = [any(all(map(int.__lt__, low, high)) for high in utility) for low in utility]
        assert not any(b and kept for b, kept in zip(beaten, answer.rationalizable, strict=True))


def test_units_levels_and_repeated_parameters_do_not_matter():
    """U to aU + b_θ, K to cK + d_x, and the last parameter once more."""
    random = Random(2)
    for _ in range(100):
        utility, nats = draw(random, random.randint(2, 4), random.randint(1, 5), 3, 0.1)
        answer = solve_exactly(utility, nats)
        a, c = (Fraction(10) ** random.randint(-9, 9) for _ in range(2))
        b = [Fraction(random.randint(-99, 99), 7) for _ in utility[0]]
        d = [Fraction(random.randint(0, 99), 11) for _ in nats]
        scaled = [[a * u + shift for u, shift in zip(row, b, strict=True)] for row in utility]
        shifted = [[k if k == INF else c * k + shift for k in row] for row, shift in zip(nats, d, strict=True)]
        assert solve_exactly(scaled, shifted) == answer
        assert solve_exactly([[*row, row[-1]] for row in utility], [[*row, row[-1]] for row in nats]) == answer


def test_order_does_not_matter():
    random = Random(3)
    for _ in range(100):
        utility, nats = draw(random, 4, 5, 3, 0.1)
        answer = solve_exactly(utility, nats)
        actions, params = random.sample(range(4), 4), random.sample(range(5), 5)
        other = solve_exactly(*([[table[x][k] for k in params] for x in actions] for table in (utility, nats)))
        for name in MASKS:
            assert [getattr(answer, name)[x] for x in actions] == list(getattr(other, name))
        moved = {frozenset(tuple(s[x] for x in actions) for s in part) for part in parts_of(answer)}
        assert moved == parts_of(other)


# In closed form, and by hand


@pytest.mark.parametrize("num", [2, 3, 4])
def test_each_action_refuting_its_own_reason_leaves_one_mixed_equilibrium(num):
    """K(x,θ) = a_x at θ = x, else 0: Θ(σ) = argmin σ_θ a_θ, and who does not play x comes to believe in it."""
    level = [Fraction(i + 1, 2 * i + 3) for i in range(num)]
    nats = [[level[x] if x == k else 0 for k in range(num)] for x in range(num)]
    answer = solve_exactly([[int(x == k) for k in range(num)] for x in range(num)], nats)
    total = sum(1 / a for a in level)
    assert answer.mixed == (tuple(1 / a / total for a in level),)
    assert not any(answer.pure) and all(answer.rationalizable) and answer.component == (0,)


@pytest.mark.parametrize("num", [2, 3, 4])
def test_each_action_confirming_its_own_reason_leaves_one_equilibrium_a_support(num):
    """K(x,θ) = 0 at θ = x, else 1: K(σ,θ) = 1 − σ_θ is least, and equal, on the support of a uniform strategy."""
    identity = [[int(x == k) for k in range(num)] for x in range(num)]
    answer = solve_exactly(identity, [[1 - entry for entry in row] for row in identity])
    assert all(answer.strict) and answer.pure_component == tuple(range(num))
    assert len(answer.mixed) == 2**num - 1 - num and len(parts_of(answer)) == 2**num - 1
    assert all(len({weight for weight in row if weight}) == 1 for row in answer.mixed)


def test_where_nothing_matters_everything_is_one_component():
    for num_actions in range(1, 5):
        zero = [[0, 0, 0]] * num_actions
        answer = solve_exactly(zero, zero)
        assert all(answer.pure) and answer.pure_component == (0,) * num_actions and answer.mixed == ()
        assert answer.strict == (num_actions == 1,) * num_actions


def test_indifference_joins_all_vertices_of_the_envelope():
    """Three lines over [0, 1] with two turns, at ⅓ and ⅔; equal payoffs support every strategy."""
    answer = solve_exactly([[1, 1, 1]] * 2, [[0, 1, 3], [3, 1, 0]])
    assert answer.mixed == ((Fraction(1, 3), Fraction(2, 3)), (Fraction(2, 3), Fraction(1, 3)))
    assert answer.component == (0, 0) and answer.pure_component == (0, 0)


def test_components_with_more_than_one_equilibrium():
    """Playing 0 confirms θ = 0, under which 0 and 1 pay the same; so do 2, 3 and θ = 1."""
    utility, nats = [[1, 0], [1, 0], [0, 1], [0, 1]], [[0, 1], [0, 1], [1, 0], [1, 0]]
    answer = solve_exactly(utility, nats)
    assert answer.pure_component == (0, 0, 1, 1)
    assert len(answer.mixed) == 4 and set(answer.component) == {2}  # one of 0 and 1 with one of 2 and 3, half each


def test_one_round_of_elimination_after_another():
    """Each action makes the agent believe in a parameter under which the next one is best; the last stays."""
    utility = [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
    nats = [[0, 1, 1], [1, 0, 1], [2, 2, 0], [2, 2, 0]]
    answer = solve_exactly(utility, nats)
    kept = [[x for x, keeps in enumerate(mask) if keeps] for mask in answer.rounds]
    assert kept == [[0, 1, 2, 3], [1, 2, 3], [2, 3], [3]]
    assert answer.strict == (False, False, False, True) and answer.mixed == ()


def test_one_belief_a_strategy_is_less_than_a_mixture_of_beliefs():
    """Action 2 is best only under a mixture of beliefs, which have to fit one strategy equally well."""
    utility = [[3, -3], [-3, 3], [1, 1]]
    assert solve_exactly(utility, [[0, 1], [Fraction(1, 10), 1], [0, 2]]).rationalizable == (True, False, False)
    answer = solve_exactly(utility, [[0, 1], [1, 0], [1, 1]])
    assert answer.rationalizable == (True, True, True) and answer.pure[2]


def test_what_fits_only_while_all_is_played():
    """Each pure strategy is explained better by what the other refutes; in between θ = 2 is all that is left.

    It makes action 2 best, though no vertex of the subdivision is attained by play of 0 and 1.
    """
    utility, nats = [[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, INF, 1], [INF, 0, 1], [0, 0, 1]]
    answer = solve_exactly(utility, nats)
    assert answer.rationalizable == (True, True, True)
    assert answer.strict == (True, True, False) and not answer.pure[2] and answer.mixed == ()
    apart = solve_exactly(utility, [[0, INF, INF], [INF, 0, INF], [0, 0, 1]])
    assert apart.refuted and apart.rounds == () and not any(apart.rationalizable)


def test_what_fits_only_while_three_are_played():
    """Action x of the first three refutes θ = x, so only all three together leave θ = 3, which makes action 3 best.

    Action 2 is never best, and without it θ = 2 fits better. Action 3 itself refutes θ = 3.
    """
    utility = [[1, 0, 1, 0], [0, 1, 0, 0], [-1, -1, -1, -1], [0, 0, 0, 1]]
    nats = [[INF, 0, 0, 1], [0, INF, 0, 1], [0, 0, INF, 1], [0, 1, 1, INF]]
    assert solve_exactly(utility, nats).refuted
    nats = [[*row, 9] for row in nats]
    answer = solve_exactly([[*row, least] for row, least in zip(utility, [1, 0, -1, 0], strict=True)], nats)
    assert [sum(mask) for mask in answer.rounds] == [4, 3, 2]
    assert answer.rationalizable == (True, True, False, False)


def test_a_link_needs_a_belief_that_neither_strategy_refutes():
    """All pays the same: every strategy is in equilibrium. θ = 0 fits both actions, until one of them refutes it."""
    utility = [[1, 1, 1]] * 2
    assert solve_exactly(utility, [[0, 1, 1], [0, 1, 1]]).pure_component == (0, 0)
    assert solve_exactly(utility, [[0, INF, 1], [INF, 0, 1]]).pure_component == (0, 1)


def test_large_tables_take_seconds():
    random = Random(4)
    theta = [k / 256 for k in range(257)]
    curves = [[(m - t) ** 2 for t in theta] for m in (0.2, 0.9)], [[t for t in theta], [1 - t for t in theta]]
    problems = [(curves[1], curves[0]), ([[0] * 257] * 2, curves[0])]
    for num_actions, num in ((3, 32), (6, 64)):
        utility = [[random.gauss(0, 1) for _ in range(num)] for _ in range(num_actions)]
        problems.append((utility, [[random.expovariate(1) for _ in row] for row in utility]))
    for utility, nats in problems:
        start = time.perf_counter()
        answer = solve_exactly(utility, nats)
        assert time.perf_counter() - start < 10
        assert any(answer.rationalizable) and equilibria_of(answer)


@pytest.mark.parametrize(
    ("utility", "nats", "message"),
    [
        ([], [], "at least one of each"),
        ([[], []], [[], []], "at least one of each"),
        ([[1, 2]], [[1, 2], [1, 2]], "must both be"),
        ([[1, 2], [1]], [[1, 2], [1, 2]], "must both be"),
        ([[INF]], [[0]], "utility must be finite"),
        ([[0]], [[-1]], "non-negative"),
        ([[0]], [[math.nan]], "not NaN"),
    ],
)
def test_tables_that_make_no_problem(utility, nats, message):
    with pytest.raises(ValueError, match=message):
        solve_exactly(utility, nats)


# The keyword of solve


def test_a_tie_is_decided_to_the_last_bit():
    """Payoffs within the tolerance of a tie: the ordinary solver cannot tell, and the exact one is right on each side.

    Both actions leave θ = 0 alone, under which action 0 is best iff it pays no less.
    """
    for shift, rationalizable, strict in (
        (0.0, [True, True], [False, False]),
        (2.0**-50, [True, False], [True, False]),
        (-(2.0**-50), [False, True], [False, True]),
    ):
        problem = ej.FiniteProblem([[1 + shift, 0.0], [1.0, 0.5]], [[0.0, 1.0], [0.0, 2.0]])
        assert ej.solve(problem).status == BOUNDARY
        solution = ej.solve(problem, exact=True)
        assert solution.status == SOLVED and solution.margin <= 1e-9
        assert solution.rationalizable.tolist() == solution.pure.tolist() == rationalizable
        assert solution.strict.tolist() == strict and solution.num_mixed == 0


def test_the_solution_is_as_of_the_ordinary_solver_where_that_is_sure():
    problem = ej.FiniteProblem([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]])
    ordinary, exact = ej.solve(problem), ej.solve(problem, exact=True)
    assert ordinary.status == exact.status == SOLVED
    for one, other in zip(jax.tree.leaves(ordinary), jax.tree.leaves(exact), strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    np.testing.assert_array_equal(jax.jit(lambda: ej.solve(problem, exact=True).pure)(), exact.pure)


def test_refuted_and_invalid_stay_so():
    refuted = ej.solve(ej.FiniteProblem([[1.0, 0.0]] * 2, [[0.0, INF], [INF, 0.0]]), exact=True)
    assert refuted.status == REFUTED and not refuted.rationalizable.any() and np.isnan(refuted.margin)
    invalid = jax.jit(ej.FiniteProblem)(jnp.full((2, 2), jnp.nan), jnp.zeros((2, 2)))
    assert ej.solve(invalid, exact=True).status == INVALID


def test_single_precision_is_taken_for_the_numbers_that_it_is():
    with jax.enable_x64(False):
        solution = ej.solve(ej.FiniteProblem([[0.1, 0.0], [0.0, 0.3]], [[0.7, 0.0], [0.0, 0.1]]), exact=True)
    assert solution.mixed.dtype == solution.margin.dtype == np.float32 and solution.num_mixed == 1
    np.testing.assert_allclose(solution.mixed[0], [0.125, 0.875], rtol=1e-6)


def test_tables_too_large_for_the_ordinary_solver_have_no_margin():
    rng = np.random.default_rng(5)
    problem = ej.FiniteProblem(rng.normal(size=(5, 64)), rng.exponential(size=(5, 64)))
    with pytest.raises(ValueError, match="sets of parameters to try"):
        ej.solve(problem)
    solution = ej.solve(problem, exact=True)
    assert solution.status == SOLVED and np.isnan(solution.margin)
    assert solution.rationalizable.any() and (solution.num_mixed + solution.pure.sum()) % 2 == 1


def test_what_has_no_rational_tables_is_refused_with_the_way_out():
    truth = ej.Environment([[0.3, 0.7], [0.4, 0.6]], [[0.0, 1.0], [0.0, 1.0]])
    finite = ej.Problem(truth, ej.Finite([[[0.5, 0.5], [0.5, 0.5]], [[0.2, 0.8], [0.8, 0.2]]]))
    with pytest.raises(ValueError, match=r"logarithms.*pass tabulate\(problem\).*rounded tables"):
        ej.solve(finite, exact=True)
    box = ej.Problem(truth, ej.AffineBernoulli([0.0, 1.0], [1.0, -1.0], 0.0, 1.0))
    with pytest.raises(ValueError, match=r"box of beliefs.*pass tabulate\(problem\).*grid"):
        ej.solve(box, exact=True)
    assert ej.solve(ej.tabulate(finite), exact=True).status == SOLVED
    with pytest.raises(ValueError, match="call solve outside jit"):
        jax.jit(lambda u: ej.solve(ej.FiniteProblem(u, u), exact=True).pure)(jnp.ones((2, 2)))
