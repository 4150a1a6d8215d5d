"""The published problems: each has the result it is known for."""

import inspect
from functools import cache

import jax
import numpy as np
import pytest

import epijax as ej
from epijax.judging import reference_answer

SOLVED = ej.Status.SOLVED


def solve(build, **values) -> ej.Solution:
    """One answer a value; as many of a model, however given, are compiled once."""
    return compiled(build)({name: np.asarray(each, float) for name, each in values.items()})


def first(build, count: int, values: dict) -> ej.Solution:
    """One answer, from as many as are compiled already."""
    return jax.tree.map(lambda each: each[0], solve(build, **{name: [each] * count for name, each in values.items()}))


@cache
def compiled(build):
    return jax.jit(jax.vmap(lambda values: ej.solve(build(**values))))


def test_the_monopolist_mixes_35_to_1_and_believes_in_a_corner():
    found = ej.solve(ej.models.monopolist())
    assert found.status == SOLVED
    assert not found.pure.any()
    assert found.num_mixed == 1
    np.testing.assert_allclose(found.mixed[0], [35 / 36, 1 / 36], rtol=0, atol=1e-12)
    belief = ej.best_fit(ej.models.monopolist(), found.mixed[0]).theta
    np.testing.assert_allclose(belief, [40, 10 / 3], rtol=0, atol=1e-9)
    assert ej.PHASES[int(ej.phase(found, (False, True)))] == "oscillatory"


def test_berks_coin_favours_neither_side_while_it_is_fair():
    fair = ej.solve(ej.models.berks_coin())
    assert fair.pure.all()
    assert not fair.strict.any()
    biased = solve(ej.models.berks_coin, bias=[0.3, 0.49, 0.51, 0.9])
    np.testing.assert_array_equal(biased.strict[:, 0], [False, False, True, True])
    np.testing.assert_array_equal(biased.rationalizable, biased.strict)


def test_overconfidence_feeds_itself():
    """Low effort teaches Φ − Δ/e_low, high effort Φ − Δ/e_high; effort pays above (c_high − c_low)/(e_high − e_low)."""
    overconfidence = np.linspace(-1, 2, 61) + 0.003
    found = solve(ej.models.overconfident_worker, overconfidence=overconfidence)
    low, high = 1 - overconfidence / 1, 1 - overconfidence / 2
    np.testing.assert_array_equal(found.pure, np.stack([low < 0.6, high > 0.6], axis=1))
    both = found.pure.all(axis=1)
    assert both.any()
    assert (np.diff(np.asarray(found.rationalizable[:, 0]).astype(int)) >= 0).all()  # never less lazy for more of it
    assert found.strict[overconfidence < 0, 1].all()  # the underconfident do as well as those who know themselves


def test_average_tax_rates_make_one_work_too_much():
    progressivity = np.linspace(0.01, 0.6, 60) + 0.001
    found = solve(ej.models.linear_tax, progressivity=progressivity)
    more_is_best = (2 - 0.3 - 4 * progressivity) > (1 - progressivity)
    taught = [rate < 1 - 0.3 for rate in (progressivity, 2 * progressivity)]  # earning more pays, if that is the rate
    np.testing.assert_array_equal(found.pure, np.stack([~taught[0], taught[1]], axis=1))
    assert not (more_is_best & ~np.asarray(found.pure[:, 1])).any()
    assert (~more_is_best & np.asarray(found.strict[:, 1])).sum() > 5  # work too much, for good


def test_the_dieters_dilemma():
    cost = np.array([0.1, 0.24, 0.26, 0.3, 0.4, 0.49, 0.51, 0.7])
    found = solve(ej.models.dieters_dilemma, cost=cost)
    assert (found.status == SOLVED).all()
    np.testing.assert_array_equal(found.pure, np.stack([cost < 0.25, cost > 0.5], axis=1))
    between = (cost > 0.25) & (cost < 0.5)
    np.testing.assert_array_equal(found.num_mixed, between.astype(int))
    np.testing.assert_allclose(found.mixed[between, 0, 0], 1 / (2 * cost[between]) - 1, rtol=0, atol=1e-8)


def test_coupling_leads_from_the_correct_model_to_the_conflated_one():
    """λ = 1 is the model of one parameter; at λ = 0 whoever sees both arms is honest iff honesty is approved more."""
    p_agree, p_honest = np.random.default_rng(0).random((2, 60))
    full = solve(
        ej.models.sycophancy, p_agree=p_agree, p_honest=p_honest, coupling=np.ones(60), exploration=np.zeros(60)
    )
    closed = jax.jit(jax.vmap(lambda a, h: ej.solve(ej.models.sycophancy(a, h))))(p_agree, p_honest)
    for name in ("rationalizable", "pure", "strict", "num_mixed"):
        np.testing.assert_array_equal(getattr(full, name), getattr(closed, name))
    right = solve(
        ej.models.sycophancy,
        **{"p_agree": p_agree, "p_honest": p_honest},
        coupling=np.zeros(60),
        exploration=np.where(np.arange(60) < 59, 0.05, 0),  # the last never tries honesty, and can think it hopeless
    )
    clear = (np.abs(p_agree - p_honest) > 1e-3) & (np.arange(60) < 59)
    np.testing.assert_array_equal(right.strict[clear, 1], (p_honest > p_agree)[clear])
    np.testing.assert_array_equal(right.rationalizable[clear], right.strict[clear])
    assert p_honest[-1] > p_agree[-1]
    assert right.pure[-1].all()


@pytest.mark.parametrize("name", ej.models.MODELS)
def test_every_model_is_listed_with_all_its_parameters(name):
    model = ej.models.MODELS[name]
    corner = {key: low for key, (low, _) in model.axes.items()}
    problem = model.build(**corner)
    assert problem.unsafe is not None
    assert any(problem.unsafe)
    names = inspect.signature(model.build).parameters
    assert set(names) == set(model.meaning)


def test_the_reference_agrees_on_the_gallery():
    numbers = {"p_agree": 0.7, "p_honest": 0.6, "coupling": 0.4, "exploration": 0.0}
    worker, tax = {"overconfidence": 0.5}, {"progressivity": 0.5}
    answers = [
        (ej.models.monopolist(), ej.solve(ej.models.monopolist())),
        (ej.models.overconfident_worker(**worker), first(ej.models.overconfident_worker, 61, worker)),
        (ej.models.linear_tax(**tax), first(ej.models.linear_tax, 60, tax)),
        (ej.models.sycophancy(**numbers), first(ej.models.sycophancy, 60, numbers)),
    ]
    for problem, ours in answers:
        theirs = reference_answer(problem)
        for name in ("rationalizable", "pure", "strict"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        np.testing.assert_allclose(ours.mixed[: len(theirs.mixed)], np.reshape(theirs.mixed, (-1, 2)), atol=1e-9)
        assert ours.num_mixed == len(theirs.mixed)


def test_maps_of_boxes_are_their_cells():
    axes = {"overconfidence": np.linspace(-0.5, 1.5, 7), "cost_high": np.linspace(0.1, 1.1, 5)}
    dataset = ej.sweep("overconfident_worker", axes, dtype="float64")
    cells = {
        name: values.ravel() for name, values in zip(axes, np.meshgrid(*axes.values(), indexing="ij"), strict=True)
    }
    found = solve(ej.models.overconfident_worker, **cells)
    np.testing.assert_array_equal(dataset["phase"].values.ravel(), ej.phase(found, (True, False)))
    np.testing.assert_array_equal(dataset["pure"].values.ravel(), found.pure_bits)
    assert len(np.unique(dataset["phase"])) >= 3
