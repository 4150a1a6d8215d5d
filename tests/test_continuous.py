"""Two actions and beliefs in a box: against the reference, the closed path for one parameter, and finer grids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_families import build, draw

import epijax as ej
from epijax.judging import reference_answer

BATCH = 150
SETS = ("rationalizable", "pure", "strict")


@pytest.fixture(scope="module")
def solve():
    """All problems of a batch, compiled once for each family and size."""
    compiled = {}

    def solve_batch(family: str, many: dict, exploration=0.0) -> ej.Solution:
        key = family, many["lower"].shape
        if key not in compiled:
            compiled[key] = jax.jit(jax.vmap(lambda n, explored: ej.solve(problem(family, n, explored))))
        return compiled[key](many, np.broadcast_to(np.asarray(exploration, float), BATCH))

    return solve_batch


def problem(family: str, numbers: dict, exploration) -> ej.Problem:
    made = build(family, numbers)
    return ej.Problem(made.environment, made.model, exploration, unsafe=(True, False))


def cell(many: dict, i: int) -> dict:
    return {name: values[i] for name, values in many.items()}


def sycophants(seed: int, least: float = 0.0) -> tuple[np.ndarray, ej.Solution]:
    """Random sycophants' p_agree, p_honest, lower and upper, `[4, BATCH]`, and the answers of the closed path."""
    numbers = np.random.default_rng(seed).uniform(least, 1 - least, (4, BATCH))
    numbers[2:] = np.sort(numbers[2:], axis=0)
    return numbers, jax.jit(
        jax.vmap(lambda a, h, low, high: ej.solve(ej.models.sycophancy(a, h, lower=low, upper=high)))
    )(*numbers)


def strategies_of(mixed, num_mixed) -> np.ndarray:
    rows = np.asarray(mixed)[: int(num_mixed)]
    return rows[np.argsort(rows[:, 0])]


@pytest.mark.parametrize("family", ["bernoulli", "gaussian"])
def test_random_problems_are_solved_as_the_reference_solves_them(solve, family):
    many = draw(family, 1, BATCH, 2, 2)
    exploration = np.random.default_rng(2).choice([0.0, 0.0, 0.05, 0.4], BATCH)
    found = solve(family, many, exploration)
    assert (found.status == ej.Status.SOLVED).mean() > 0.97
    kinds = set()
    for i in np.flatnonzero(found.status == ej.Status.SOLVED):
        right = reference_answer(problem(family, cell(many, i), float(exploration[i])))
        if right.status == "boundary":
            continue
        assert right.status == "solved"
        for name in SETS:
            np.testing.assert_array_equal(getattr(found, name)[i], getattr(right, name), err_msg=f"{name} of {i}")
        theirs = np.asarray(right.mixed).reshape(-1, 2)
        ours = strategies_of(found.mixed[i], found.num_mixed[i])
        np.testing.assert_allclose(ours, theirs[np.argsort(theirs[:, 0])], atol=1e-8)
        np.testing.assert_allclose(found.margin[i], right.margin, rtol=0.02, atol=1e-4)
        kinds.add((*map(bool, found.pure[i]), *map(bool, found.rationalizable[i]), int(found.num_mixed[i])))
    assert len(kinds) >= 5


@pytest.mark.slow
def test_parameters_split_into_several_change_nothing(solve):
    """Each of two parameters becomes the mean of four: eight, which play cannot tell apart."""
    many = draw("bernoulli", 1, BATCH, 2, 2)
    exploration = np.random.default_rng(2).choice([0.0, 0.0, 0.05, 0.4], BATCH)
    split = {name: np.repeat(many[name], 4, axis=-1) for name in ("lower", "upper", "slope")}
    few, lots = (solve("bernoulli", n, exploration) for n in (many, many | split | {"slope": split["slope"] / 4}))
    assert ((few.status == ej.Status.SOLVED) == (lots.status == ej.Status.SOLVED)).all()
    for name in (*SETS, "num_mixed"):
        np.testing.assert_array_equal(getattr(lots, name), getattr(few, name))
    np.testing.assert_allclose(lots.mixed[:, :2], few.mixed[:, :2], rtol=0, atol=1e-8)
    np.testing.assert_allclose(lots.margin, few.margin, rtol=1e-5, atol=1e-7)


def test_an_idle_second_parameter_changes_nothing(solve):
    (p_agree, p_honest, lower, upper), closed = sycophants(0)
    probs = np.stack([np.stack([1 - p, p], axis=-1) for p in (p_agree, p_honest)], axis=1)
    idle = np.zeros(BATCH)
    found = solve(
        "bernoulli",
        {
            "probs": probs,
            "payoffs": np.broadcast_to([0.0, 1.0], (BATCH, 2, 2)),
            "intercept": np.broadcast_to([0.0, 1.0], (BATCH, 2)),
            "slope": np.broadcast_to([[1.0, 0.0], [-1.0, 0.0]], (BATCH, 2, 2)),
            "lower": np.stack([lower, idle], axis=1),
            "upper": np.stack([upper, idle + 1], axis=1),
        },
    )
    assert (found.status == ej.Status.SOLVED).all()
    for name in (*SETS, "num_mixed"):
        np.testing.assert_array_equal(getattr(found, name), getattr(closed, name))
    np.testing.assert_allclose(found.mixed[:, 0], closed.mixed[:, 0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.margin, closed.margin, rtol=0, atol=1e-5)


def test_one_parameter_as_logits_is_the_closed_path(solve):
    """The sycophant's belief as a logit: P(approved|agree) = sigmoid(θ) = 1 − P(approved|honest)."""
    (p_agree, p_honest, *bounds), closed = sycophants(3, 0.02)
    lower, upper = (np.log(end / (1 - end))[:, None] for end in bounds)
    found = solve(
        "categorical",
        {
            "probs": np.stack([np.stack([1 - p, p], axis=-1) for p in (p_agree, p_honest)], axis=1),
            "payoffs": np.broadcast_to([0.0, 1.0], (BATCH, 2, 2)),
            "base": np.zeros((BATCH, 2, 2)),
            "tilt": np.broadcast_to([[[0.0], [1.0]], [[1.0], [0.0]]], (BATCH, 2, 2, 1)),
            "lower": lower,
            "upper": upper,
        },
    )
    clear = np.asarray((found.status == ej.Status.SOLVED) & (closed.margin > 1e-6))
    assert clear.mean() > 0.98
    for name in (*SETS, "num_mixed"):
        np.testing.assert_array_equal(getattr(found, name)[clear], getattr(closed, name)[clear])
    np.testing.assert_allclose(found.mixed[clear, 0], closed.mixed[clear, 0], rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "family", ["bernoulli", *(pytest.param(family, marks=pytest.mark.slow) for family in ("categorical", "gaussian"))]
)
def test_grids_tend_to_the_box(solve, family):
    """Away from ties finer grids agree more often, and mixed equilibria differ by the order of the grid's step.

    With exploration: what play leaves unidentified is a set that a grid hardly meets.
    """
    many = draw(family, 5, BATCH, 2, 2)
    found = solve(family, many, 0.2)
    clear = np.asarray(found.margin > 0.02)
    wrong, far = [], []
    for num in (5, 33):
        grid = jax.jit(jax.vmap(lambda n, num=num: ej.solve(ej.tabulate(problem(family, n, 0.2), num))))(many)
        same = np.all([np.asarray(getattr(found, name) == getattr(grid, name)).all(1) for name in SETS[:2]], axis=0)
        wrong.append(np.mean(~same[clear]))
        one = clear & np.asarray((found.num_mixed == 1) & (grid.num_mixed == 1))
        far.append(np.mean(np.abs(found.mixed[one, 0, 0] - grid.mixed[one, 0, 0])))
    assert wrong[1] <= wrong[0]
    assert wrong[1] < 0.05
    assert far[1] < far[0] / 3


def test_a_custom_family_is_its_namesake():
    problem = ej.models.sycophancy(0.8, 0.4)

    def log_prob(theta):
        p = jnp.stack([theta[0], 1 - theta[0]])
        return jnp.log(jnp.stack([1 - p, p], axis=1))

    custom = ej.Problem(problem.environment, ej.Custom(log_prob, 0.01, 0.99), unsafe=problem.unsafe)
    found, closed = ej.solve(custom), ej.solve(ej.models.sycophancy(0.8, 0.4, lower=0.01, upper=0.99))
    assert found.status == ej.Status.SOLVED
    for name in ("rationalizable", "pure", "strict", "num_mixed"):
        np.testing.assert_array_equal(getattr(found, name), getattr(closed, name))
    np.testing.assert_allclose(found.margin, closed.margin, rtol=1e-6)


@pytest.mark.slow
def test_one_function_is_the_family_that_it_writes_down(solve):
    """So that grids tend to its answer too, as they do to that of the logits it is here."""
    few, many = 4, draw("categorical", 5, BATCH, 2, 2)
    found = solve("categorical", many, 0.2)
    custom = jax.jit(jax.vmap(lambda n: ej.solve(problem("custom", n, 0.2))))(
        {name: values[:few] for name, values in many.items()}
    )
    assert (custom.status == ej.Status.SOLVED).all()
    for name in (*SETS, "num_mixed"):
        np.testing.assert_array_equal(getattr(custom, name), getattr(found, name)[:few])
    np.testing.assert_allclose(custom.mixed, found.mixed[:few], atol=1e-7)


def test_a_root_next_to_an_end_is_found_or_missed_aloud(solve):
    """Action 0 says next to nothing of θ, which play of action 1 tells: the root is at 2.5e-7 of action 1."""
    many = {name: values.copy() for name, values in draw("bernoulli", 7, BATCH, 2, 2).items()}
    many["probs"][0], many["payoffs"][0] = [[0.1, 0.9], [0.9, 0.1]], [[0.5, 0.5], [0.0, 1.0]]
    many["intercept"][0], many["slope"][0] = [0.49975, 0], [[5e-4, 0], [1, 0]]
    many["lower"][0], many["upper"][0] = 0, 1
    found = solve("bernoulli", many)
    assert not found.pure[0].any()
    assert found.num_mixed[0] == 1 or found.status[0] == ej.Status.BOUNDARY


def test_refuted_and_invalid(solve):
    many = {name: values.copy() for name, values in draw("bernoulli", 7, BATCH, 2, 2).items()}
    many["probs"][0] = 0.5
    many["intercept"][0], many["slope"][0] = 0, [[0, 0], [1, 0]]  # certain that action 0 never yields outcome 1
    many["lower"][:2], many["upper"][:2] = 0, 1
    many["lower"][1] = 2  # reversed
    found = solve("bernoulli", many)
    assert found.status[:2].tolist() == [ej.Status.REFUTED, ej.Status.INVALID]
    assert not found.rationalizable[:2].any()
