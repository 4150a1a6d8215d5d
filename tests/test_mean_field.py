"""The mean field: rest points told from their surroundings, and the flow between them."""

import numpy as np
import pytest

import epijax as ej
from epijax.mean_field import Rest


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (ej.models.sycophancy(0.3, 0.8), {1.0: None, 0.0: Rest.ATTRACTING}),
        (ej.models.sycophancy(0.7, 0.7), {1.0: Rest.ATTRACTING, 0.0: Rest.ATTRACTING, 0.5: Rest.REPELLING}),
        (ej.models.sycophancy(0.3, 0.2), {0.6: Rest.ATTRACTING}),
        (ej.models.monopolist(), {35 / 36: Rest.ATTRACTING}),
        (ej.models.deception(0.8), {0.0: Rest.ATTRACTING}),
        (ej.models.deception(0.2), {1.0: Rest.ATTRACTING, 0.0: Rest.REPELLING}),
        (ej.models.deception(0.8, upper=0.4), {1.0: Rest.ATTRACTING}),
        (ej.models.berks_coin(), {1.0: Rest.UNDECIDED, 0.0: Rest.UNDECIDED}),
        (ej.models.berks_coin(bias=0.7), {1.0: Rest.ATTRACTING}),
    ],
)
def test_rest_points_of_two_actions(problem, expected):
    found = ej.rest_points(problem)
    shares = {
        round(float(share), 9): Rest(int(kind)) for share, kind in zip(found.strategy[:, 0], found.kind, strict=True)
    }
    assert shares == {round(share, 9): kind for share, kind in expected.items() if kind is not None}
    if isinstance(problem.model, ej.AffineBernoulli):
        tables = ej.rest_points(ej.tabulate(problem, 1000))
        attracting = tables.strategy[tables.kind == Rest.ATTRACTING, 0]
        right = found.strategy[found.kind == Rest.ATTRACTING, 0]
        assert all(np.abs(attracting - share).min() < 2e-3 for share in right)


def test_the_flow_ends_where_it_is_attracted():
    tables = ej.tabulate(ej.models.sycophancy(0.7, 0.7), 257)
    for start, end in ((0.6, 1.0), (0.4, 0.0)):
        path = np.asarray(ej.flow(tables, [start, 1 - start], step=2e-3, steps=5000))
        assert abs(path[-1, 0] - end) < 1e-4
        assert (np.diff(path[:, 0]) * (end - start) >= 0).all()
    mixed = ej.flow(ej.tabulate(ej.models.sycophancy(0.3, 0.2), 1000), [1.0, 0.0], step=1e-3, steps=5000)
    assert abs(float(mixed[-1, 0]) - 0.6) < 5e-3


def test_the_prior_decides_where_play_identifies_nothing():
    tables = ej.tabulate(ej.models.deception(0.8), 65)
    model = ej.models.deception(0.8).model
    afraid = ej.flow(tables, [0.0, 1.0], steps=50, log_prior=ej.priors.beta(model, 8.0, 2.0, 65))
    assert (np.asarray(afraid)[:, 0] == 0).all()
    hopeful = ej.flow(tables, [0.0, 1.0], steps=50, log_prior=ej.priors.beta(model, 2.0, 8.0, 65))
    assert float(hopeful[1, 0]) > 0  # then caught: what is learned sends it back
    assert np.asarray(hopeful)[:, 0].max() < 3e-3


def test_strict_equilibria_attract_whatever_the_number_of_actions():
    """[FLS21]: uniformly strict equilibria attract."""
    rng = np.random.default_rng(0)
    kinds = {kind: 0 for kind in Rest}
    for _ in range(30):
        tables = ej.FiniteProblem(rng.normal(size=(3, 4)), rng.exponential(size=(3, 4)))
        solution = ej.solve(tables)
        if int(solution.status) != ej.Status.SOLVED or float(solution.margin) < 0.01:
            continue
        found = ej.rest_points(tables)
        for strategy, kind in zip(found.strategy, found.kind, strict=True):
            kinds[Rest(int(kind))] += 1
            if strategy.max() == 1 and bool(solution.strict[int(strategy.argmax())]):
                assert kind == Rest.ATTRACTING
    assert min(kinds[kind] for kind in (Rest.ATTRACTING, Rest.REPELLING, Rest.SADDLE)) > 0, kinds
    assert kinds[Rest.UNDECIDED] < 3, kinds


def test_of_two_actions_both_ways_agree():
    rng = np.random.default_rng(1)
    seen = 0
    for _ in range(40):
        tables = ej.FiniteProblem(rng.normal(size=(2, 4)), rng.exponential(size=(2, 4)))
        if float(ej.solve(tables).margin) < 0.01:
            continue
        # a third action that is never worth it and changes no belief near the edge leaves the line as it is
        third = ej.FiniteProblem(
            np.vstack([tables.utility, np.full(4, -9.0)]), np.vstack([tables.divergence, tables.divergence.mean(0)])
        )
        two, three = ej.rest_points(tables), ej.rest_points(third)
        np.testing.assert_allclose(two.strategy, three.strategy[:, :2], atol=1e-9)
        np.testing.assert_array_equal(two.kind == Rest.ATTRACTING, three.kind == Rest.ATTRACTING)
        seen += len(two.kind)
    assert seen > 40


@pytest.mark.parametrize(
    ("p_agree", "p_honest", "reward_honest"),
    [(0.3, 0.2, 1.0), (0.3, 0.2, 1.1), (0.31, 0.17, 0.93), (0.25, 0.33, 1.05), (0.2, 0.1, 0.9), (0.7, 0.6, 1.0)],
)
def test_a_third_action_that_is_never_worth_it_changes_nothing(p_agree, p_honest, reward_honest):
    two = ej.models.sycophancy(p_agree, p_honest, reward_honest=reward_honest)
    truth = ej.Environment(
        np.vstack([two.environment.outcome_probs, [0.5, 0.5]]), np.vstack([two.environment.payoffs, [-9.0, -9.0]])
    )
    model = ej.AffineBernoulli((0.0, 1.0, 0.5), (1.0, -1.0, 0.0), 0.0, 1.0)
    right, found = ej.rest_points(two), ej.rest_points(ej.Problem(truth, model))
    np.testing.assert_allclose(found.strategy[:, :2], right.strategy, atol=1e-9)
    inside = (right.strategy > 0).all(axis=1)  # a mixture that repels along the line attracts from the third action
    np.testing.assert_array_equal(
        found.kind, np.where(inside & (right.kind == Rest.REPELLING), Rest.SADDLE, right.kind)
    )


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda tables: ej.flow(tables, [0.5, 0.6]), "start must be a strategy of 2 actions"),
        (lambda tables: ej.flow(tables, [0.5, 0.5], log_prior=np.zeros(3)), r"log_prior must be \[257\]; got \(3,\)"),
        (lambda tables: ej.rest_points(ej.models.sycophancy(0.5, 0.5)), "no rest points to tell of: boundary"),
    ],
)
def test_what_has_no_flow_is_refused(act, message):
    with pytest.raises(ValueError, match=message):
        act(ej.tabulate(ej.models.sycophancy(0.7, 0.6)))
