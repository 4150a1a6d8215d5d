"""More than two actions and beliefs in a box: the reference, the closed path, finer grids, and witnesses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog
from test_families import build, draw

import epijax as ej
from epijax.judging import reference_answer
from epijax.response import utilities

BATCH = 60
SETS = ("rationalizable", "pure", "strict")


def problem(family: str, numbers: dict, exploration) -> ej.Problem:
    made = build(family, numbers)
    return ej.Problem(made.environment, made.model, exploration, unsafe=(True, False, False))


@jax.jit
def bernoulli(many: dict, exploration) -> tuple[ej.Solution, ej.Bracket]:
    def one(numbers, explored):
        made = problem("bernoulli", numbers, explored)
        return ej.solve(made), ej.bracket(made)

    return jax.vmap(one)(many, exploration)


@pytest.fixture(scope="module")
def solved() -> tuple[dict, np.ndarray, ej.Solution, ej.Bracket]:
    many, exploration = draw("bernoulli", 1, BATCH, 3, 2), np.random.default_rng(0).choice([0.0, 0.0, 0.1], BATCH)
    return many, exploration, *bernoulli(many, exploration)


def cell(many: dict, i: int) -> dict:
    return {name: values[i] for name, values in many.items()}


def test_random_problems_are_solved_as_the_reference_solves_them(solved):
    many, exploration, found, _ = solved
    assert (found.status == ej.Status.SOLVED).mean() > 0.9
    kinds = set()
    for i in np.flatnonzero(found.status == ej.Status.SOLVED)[:15]:
        right = reference_answer(problem("bernoulli", cell(many, i), float(exploration[i])))
        for name in SETS:
            np.testing.assert_array_equal(getattr(found, name)[i], getattr(right, name), err_msg=f"{name} of {i}")
        kinds.add((int(found.rationalizable_bits[i]), int(found.pure_bits[i])))
    assert len(kinds) >= 5


def test_witnesses_justify_what_they_are_said_to(solved):
    """Each by a linear program over beliefs on the extreme points of what fits its strategy best."""
    many, exploration, found, bracket = solved
    inner, outer = np.asarray(bracket.inner), np.asarray(bracket.outer)
    assert (inner <= outer).all()
    np.testing.assert_array_equal(found.rationalizable, outer)
    # what is not decided is not called solved
    assert not ((inner != outer).any(axis=1) & np.asarray(found.status == ej.Status.SOLVED)).any()
    look = jax.jit(lambda n, explored, sigma: ej.best_fit(problem("bernoulli", n, explored), sigma).extremes)
    for i, x in np.argwhere(inner)[:40]:
        sigma = np.asarray(bracket.strategy[i, x])
        assert abs(sigma.sum() - 1) < 1e-9
        assert (sigma[~inner[i]] < 1e-9).all()
        made = build("bernoulli", cell(many, i))
        fits = look(cell(many, i), exploration[i], sigma)
        worth = np.stack([utilities(made.environment, made.model, t) for t in fits if not jnp.isnan(t[0])], axis=1)
        found_belief = linprog(
            np.zeros(worth.shape[1]),
            A_ub=worth - worth[x],
            b_ub=np.full(3, 1e-6),
            A_eq=np.ones((1, worth.shape[1])),
            b_eq=[1],
        )
        assert found_belief.success


def test_an_idle_second_parameter_changes_nothing():
    """Of random links of one parameter, whose closed path knows all mixed equilibria."""
    rng = np.random.default_rng(5)
    slope = rng.uniform(-0.9, 0.9, (BATCH, 3))
    intercept = rng.uniform(np.maximum(0, -slope) + 0.02, np.minimum(1, 1 - slope) - 0.02)
    numbers = {
        "probs": rng.dirichlet([1, 1], (BATCH, 3)),
        "payoffs": rng.normal(size=(BATCH, 3, 2)),
        "intercept": intercept,
        "slope": np.stack([slope, 0 * slope], axis=-1),
        "lower": np.zeros((BATCH, 2)),
        "upper": np.ones((BATCH, 2)),
    }
    found, _ = bernoulli(numbers, np.zeros(BATCH))
    environment = partial(jax.tree.map, np.asarray)
    assert (found.status == ej.Status.SOLVED).mean() > 0.9
    seen = 0
    for i in np.flatnonzero(found.status == ej.Status.SOLVED):
        truth = ej.Environment(*environment((numbers["probs"][i], numbers["payoffs"][i])))
        closed = ej.solve(ej.Problem(truth, ej.AffineBernoulli(intercept[i], slope[i], 0.0, 1.0)))
        for name in (*SETS, "num_mixed"):
            np.testing.assert_array_equal(getattr(found, name)[i], getattr(closed, name), err_msg=f"{name} of {i}")
        ours, theirs = (np.asarray(one)[: int(closed.num_mixed)] for one in (found.mixed[i], closed.mixed))
        np.testing.assert_allclose(sorted(ours.tolist()), sorted(theirs.tolist()), atol=1e-8)
        seen += int(closed.num_mixed)
    assert seen > 5


def test_more_actions_than_can_be_solved_are_refused():
    with pytest.raises(ValueError, match=r"two to 6 actions.*tabulate"):
        ej.solve(build("gaussian", cell(draw("gaussian", 0, 1, 7, 2), 0)))
    with pytest.raises(ValueError, match="solve decides"):
        ej.bracket(ej.models.berks_coin())
