"""Evidence: witnesses, beliefs and components, checked from the definitions."""

import jax
import numpy as np
import pytest

import epijax as ej
from epijax.exact import solve_exactly


def random_tables(seed: int, count: int, num_actions: int, num: int, *, refuted: float = 0.0) -> list[ej.FiniteProblem]:
    """Small whole numbers, most of them with ties."""
    rng = np.random.default_rng([seed, num_actions, num])
    utility = rng.integers(-2, 3, (count, num_actions, num)).astype(float)
    divergence = rng.integers(0, 4, utility.shape).astype(float)
    divergence[rng.random(utility.shape) < refuted] = np.inf
    return [ej.FiniteProblem(u, d) for u, d in zip(utility, divergence, strict=True)]


def exactly(problem: ej.FiniteProblem):
    return solve_exactly(np.asarray(problem.utility).tolist(), np.asarray(problem.divergence).tolist())


@pytest.mark.parametrize("refuted", [0.0, 0.3])
@pytest.mark.parametrize(("num_actions", "num"), [(2, 5), (3, 4), (4, 3), (1, 2)])
def test_each_action_has_a_witness_or_is_eliminated(num_actions, num, refuted):
    seen = {True: 0, False: 0}
    for problem in random_tables(1, 60, num_actions, num, refuted=refuted):
        answer = exactly(problem)
        if answer.refuted:
            with pytest.raises(ValueError, match="refutes every parameter"):
                ej.witness(problem, 0)
            continue
        for action in range(num_actions):
            found = ej.witness(problem, action)
            seen[found.rationalizable] += 1
            assert found.rationalizable == answer.rationalizable[action]
            if found.rationalizable:
                assert ej.verify(problem, found.strategy, found.belief, action)
                assert not (found.strategy[~np.array(answer.rationalizable)] > 0).any()
            else:
                assert found.gap > 0
                held = [kept[action] for kept in answer.rounds]
                assert held[found.round - 1] and not held[found.round]
    assert seen[True] > 20 and (seen[False] > 5 or num_actions == 1)


def test_the_gap_is_what_every_belief_from_play_leaves():
    """By hand: action 1 pays 1 less than the better of the others under either parameter, and no strategy fits both."""
    problem = ej.FiniteProblem([[3.0, 0.0], [2.0, -1.0], [0.0, 3.0]], [[0.0, 1.0], [0.0, 1.0], [0.0, 2.0]])
    found = ej.witness(problem, 1)
    assert (found.rationalizable, found.round) == (False, 1)
    np.testing.assert_allclose(found.gap, 1)


def test_a_claim_that_is_wrong_is_not_verified():
    problem = ej.FiniteProblem([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]])
    assert ej.verify(problem, [1, 0], [1, 0]) and ej.verify(problem, [0.5, 0.5], [0.5, 0.5])
    assert not ej.verify(problem, [1, 0], [0, 1])  # a belief that does not fit
    assert not ej.verify(problem, [0.5, 0.5], [0.9, 0.1])  # one of the actions is not a best response
    assert not ej.verify(problem, [0, 1], [0, 1], action=0)
    assert not ej.verify(problem, [0.5, 0.6], [0.5, 0.5])  # no distribution
    with pytest.raises(ValueError, match=r"strategy and belief must be \[2\] and \[2\]"):
        ej.verify(problem, [1, 0, 0], [1, 0])


def test_beliefs_support_each_equilibrium_and_nothing_else():
    listed = 0
    for problem in random_tables(2, 60, 3, 4):
        answer = exactly(problem)
        for strategy in [*np.eye(3)[list(answer.pure)], *np.array(answer.mixed, float).reshape(-1, 3)]:
            found = ej.beliefs(problem, strategy)
            assert len(found) and all(ej.verify(problem, strategy, belief) for belief in found)
            assert ej.verify(problem, strategy, found.mean(axis=0))
            listed += 1
        for x in np.flatnonzero(~np.array(answer.pure)):
            assert ej.beliefs(problem, np.eye(3)[x]).shape == (0, 4)
    assert listed > 60


def test_extreme_beliefs_by_hand():
    """Both parameters fit; action 0 is a best response while the first has a weight of at least a half."""
    problem = ej.FiniteProblem([[1.0, 0.0], [0.0, 1.0]], np.zeros((2, 2)))
    found = ej.beliefs(problem, [1, 0])
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], [[0.5, 0.5], [1, 0]], atol=1e-12)
    np.testing.assert_allclose(ej.beliefs(problem, [0.3, 0.7]), [[0.5, 0.5]], atol=1e-12)


@pytest.mark.parametrize(("num_actions", "num"), [(2, 4), (3, 4)])
def test_components_are_those_of_rational_arithmetic(num_actions, num):
    together = 0
    for problem in random_tables(3, 60, num_actions, num):
        answer = exactly(problem)
        solution = ej.solve(problem, exact=True)
        found = ej.components(problem, solution)
        assert found.pure.tolist() == list(answer.pure_component)
        assert found.mixed[: len(answer.mixed)].tolist() == list(answer.component)
        assert (found.mixed[len(answer.mixed) :] == -1).all()
        together += len(set(found.mixed) | set(found.pure)) - 1 < sum(answer.pure) + len(answer.mixed)
    assert together > 10


def test_where_nothing_matters_every_strategy_is_one_component():
    problem = ej.FiniteProblem(np.zeros((2, 2)), np.zeros((2, 2)))
    assert ej.components(problem, ej.solve(problem)).pure.tolist() == [0, 0]


def test_isolated_equilibria_are_components_of_their_own():
    problem = ej.FiniteProblem([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]])
    found = ej.components(problem, ej.solve(problem))
    assert found.pure.tolist() == [0, 1] and found.mixed.tolist() == [2, -1]


def test_a_finite_model_is_as_good_as_its_tables():
    problem = ej.Problem(
        ej.Environment([[0.4, 0.6], [0.7, 0.3]], [[0.0, 1.0], [0.0, 1.2]]),
        ej.Finite([[[0.3, 0.7], [0.7, 0.3]], [[0.6, 0.4], [0.4, 0.6]]]),
    )
    found = ej.witness(problem, 0)
    assert found.rationalizable == bool(ej.solve(problem).rationalizable[0])
    if found.rationalizable:
        assert ej.verify(problem, found.strategy, found.belief, 0)


def test_what_no_evidence_can_be_given_of():
    tables = ej.FiniteProblem([[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match=r"pass tabulate\(problem\)"):
        ej.witness(ej.models.sycophancy(0.7, 0.6), 0)
    with pytest.raises(ValueError, match="action must be one of 0 to 1; got 2"):
        ej.witness(tables, 2)
    with pytest.raises(ValueError, match="shares that sum to one"):
        ej.beliefs(tables, [0.5, 0.2])
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda u: ej.witness(ej.FiniteProblem(u, tables.divergence), 0).gap)(tables.utility)
    many = ej.FiniteProblem(np.ones((4, 200)), np.zeros((4, 200)))
    with pytest.raises(ValueError, match="too many for a list"):
        ej.beliefs(many, [1, 0, 0, 0])
