"""The closed one-parameter path: against the reference cell by cell, against the finite path, at every edge."""

from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epijax as ej
from epijax import reference
from epijax.one_parameter import elimination_rounds

SOLVED, BOUNDARY, REFUTED = ej.Status.SOLVED, ej.Status.BOUNDARY, ej.Status.REFUTED


class Batch(NamedTuple):
    """Solutions of a batch of problems, on the host."""

    rationalizable: np.ndarray  # [N, A]
    pure: np.ndarray  # [N, A]
    strict: np.ndarray  # [N, A]
    mixed: np.ndarray  # [N, E, A]
    num_mixed: np.ndarray  # [N]
    margin: np.ndarray  # [N]
    status: np.ndarray  # [N]
    phase: np.ndarray  # [N]


def solve_all(problems: ej.Problem) -> Batch:
    """Solves a batch: a problem whose leaves have a leading axis."""
    solution = jax.jit(jax.vmap(ej.solve))(problems)
    unsafe = [True] + [False] * (problems.model.intercept.shape[-1] - 1)
    names = [name for name in Batch._fields if name != "phase"]
    return Batch(*(np.asarray(getattr(solution, name)) for name in names), np.asarray(ej.phase(solution, unsafe)))


def judge_all(problems: ej.Problem) -> list[reference.Answer]:
    """The reference's answers, one cell after the other."""
    environment, model = jax.tree.map(np.asarray, (problems.environment, problems.model))
    count = len(model.lower)
    unsafe = [True] + [False] * (model.intercept.shape[-1] - 1)
    exploration = np.broadcast_to(np.asarray(problems.exploration), (count,))
    return [
        reference.affine_bernoulli(
            environment.outcome_probs[i],
            environment.payoffs[i],
            model.intercept[i],
            model.slope[i, :, 0],
            model.lower[i, 0],
            model.upper[i, 0],
            exploration=float(exploration[i]),
            unsafe=unsafe,
        )
        for i in range(count)
    ]


def in_order(mixed: np.ndarray) -> np.ndarray:
    """Rows `[E, A]` in lexical order, NaN last."""
    return mixed[np.lexsort(mixed.T[::-1])]


def assert_agrees(problems: ej.Problem) -> Batch:
    """Solved cells agree with the reference in everything; the others are refuted, or within tolerance of a tie."""
    batch, answers = solve_all(problems), judge_all(problems)
    margins = np.array([answer.margin for answer in answers])
    refuted = np.array([answer.status == "refuted" for answer in answers])
    np.testing.assert_array_equal(batch.status == REFUTED, refuted)
    assert (margins[batch.status == BOUNDARY] < 1e-8).all(), "only a tie may be called one"
    assert (batch.status[margins > 1e-8] == SOLVED).all()
    solved = np.flatnonzero(batch.status == SOLVED)
    for name in ("rationalizable", "pure", "strict"):
        right = np.array([getattr(answer, name) for answer in answers])
        np.testing.assert_array_equal(getattr(batch, name)[solved], right[solved], err_msg=name)
    assert [ej.PHASES[code] for code in batch.phase[solved]] == [answers[i].phase for i in solved]
    np.testing.assert_array_equal(batch.num_mixed[solved], [len(answers[i].mixed) for i in solved])
    assert ((~np.isnan(batch.mixed).any(-1)).sum(-1) == batch.num_mixed).all()
    mixing = solved[batch.num_mixed[solved] > 0]
    if len(mixing):
        found = np.concatenate([in_order(batch.mixed[i])[: batch.num_mixed[i]] for i in mixing])
        right = np.concatenate([in_order(answers[i].mixed) for i in mixing])
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-8)
    return batch


# Whole maps, every cell

HALVES = np.linspace(0, 1, 129)  # ½ is among them, and with it the ties of the usual parameters
COARSE = np.linspace(0, 1, 64)
SKEWED = {"reward_fabricate": 1.3, "cost_fabricate": 0.1, "lower": 0.15, "upper": 0.9, "exploration": 0.1}
MAPS = {
    "sycophancy": (lambda s, h: ej.models.sycophancy(s, h), HALVES, HALVES, {0, 1, 2, 3, 255}),
    "deception": (lambda p, hi: ej.models.deception(p, upper=hi), HALVES, HALVES, {1, 2, 4, 254, 255}),
    "hallucination, exploring": (lambda s, h: ej.models.hallucination(s, h, **SKEWED), COARSE, COARSE, {0, 1, 2, 3}),
    "deception, exploring": (
        lambda p, lo: ej.models.deception(p, gain=0.9, safe=0.2, lower=lo, exploration=0.05),
        COARSE,
        COARSE,
        {0, 1, 254},
    ),
}


@pytest.mark.parametrize("name", MAPS)
def test_every_cell_of_a_map(name):
    build, rows, columns, phases = MAPS[name]
    first, second = (side.ravel() for side in np.meshgrid(rows, columns, indexing="ij"))
    batch = assert_agrees(jax.vmap(build)(jnp.asarray(first), jnp.asarray(second)))
    assert set(np.unique(batch.phase)) == phases


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sycophancy", "deception"])
def test_every_cell_of_a_finer_map(name):
    build, *_, phases = MAPS[name]
    first, second = (side.ravel() for side in np.meshgrid(*[np.linspace(0, 1, 257)] * 2, indexing="ij"))
    batch = assert_agrees(jax.vmap(build)(jnp.asarray(first), jnp.asarray(second)))
    assert set(np.unique(batch.phase)) == phases


def test_the_map_of_hallucination_is_that_of_sycophancy():
    """The same tables cell by cell, so that the reference's answers are those above, and the same bits."""
    first, second = (jnp.asarray(side.ravel()) for side in np.meshgrid(HALVES, HALVES, indexing="ij"))
    one, other = (jax.vmap(build)(first, second) for build in (ej.models.sycophancy, ej.models.hallucination))
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(left, right)
    for left, right in zip(solve_all(one), solve_all(other), strict=True):
        assert left.tobytes() == right.tobytes()


# Any links, any number of actions


def make(truth, payoffs, intercept, slope, lower, upper, exploration=0.0) -> ej.Problem:
    """A problem from the true probability of outcome 1 for each action and arrays of the rest."""
    truth = jnp.asarray(truth)
    environment = ej.Environment(jnp.stack([1 - truth, truth], -1), payoffs)
    return ej.Problem(environment, ej.AffineBernoulli(intercept, slope, lower, upper), exploration)


def random_links(seed: int, count: int, num_actions: int, *, explores: bool) -> ej.Problem:
    """A batch of random problems."""
    return jax.vmap(make)(*draw_links(seed, count, num_actions, explores=explores))


def draw_links(seed: int, count: int, num_actions: int, *, explores: bool) -> tuple[np.ndarray, ...]:
    """What `make` takes: some links constant (two at most), some boxes a point, some actions certain to succeed."""
    rng = np.random.default_rng([seed, num_actions, explores])
    start, stop = rng.uniform(0, 1, (2, count, num_actions))  # the prediction at θ = 0 and at θ = 1
    constant = rng.random((count, num_actions)) < 0.2
    constant[:, 2:] = False
    stop = np.where(constant, start, stop)
    truth = rng.uniform(-0.1, 1.1, (count, num_actions)).clip(0, 1)
    payoffs = rng.normal(size=(count, num_actions, 2))
    lower, upper = np.sort(rng.uniform(-0.3, 1.3, (2, count)).clip(0, 1), axis=0)
    upper = np.where(rng.random(count) < 0.05, lower, upper)
    arguments = truth, payoffs, start, stop - start, lower, upper
    if explores:
        exploration = np.where(rng.random(count) < 0.3, rng.choice([1e-6, 1.0], count), rng.uniform(0, 1, count))
        arguments += (exploration,)
    return arguments


@pytest.mark.parametrize(("num_actions", "explores"), [(2, False), (2, True), (3, False), (3, True)])
def test_random_links(num_actions, explores):
    batch = assert_agrees(random_links(1, 1000, num_actions, explores=explores))
    assert (batch.num_mixed > 0).sum() > 5
    assert (batch.status == SOLVED).mean() > 0.95


def test_single_precision_is_right_or_says_that_it_cannot_decide():
    arguments = [drawn.astype(np.float32) for drawn in draw_links(6, 2000, 3, explores=True)]
    double = solve_all(jax.vmap(make)(*(drawn.astype(np.float64) for drawn in arguments)))
    with jax.enable_x64(False):
        single = solve_all(jax.vmap(make)(*arguments))
    assert single.margin.dtype == np.float32
    both = (single.status == SOLVED) & (double.status == SOLVED)
    assert both.mean() > 0.95
    for name in ("rationalizable", "pure", "strict", "num_mixed", "phase"):
        np.testing.assert_array_equal(getattr(single, name)[both], getattr(double, name)[both], err_msg=name)
    flagged = (single.status == BOUNDARY) & (double.status == SOLVED)
    assert (double.margin[flagged] < 1e-4).all()
    assert (single.status[double.status == BOUNDARY] != SOLVED).all()


def test_the_rows_in_use_come_first():
    """`mixed[:num_mixed]` are the mixed equilibria, whichever actions they mix."""
    batch = solve_all(random_links(7, 1000, 3, explores=False))
    used = ~np.isnan(batch.mixed).any(-1)
    assert (batch.num_mixed > 0).sum() > 5
    np.testing.assert_array_equal(used, np.arange(3) < batch.num_mixed[:, None])


def test_constant_payoffs_are_no_tie():
    """Three parallel payoff lines never cross; the first is far above the others."""
    problem = make([0.3, 0.6, 0.5], [[1, 1], [0, 0], [-1, -1]], [0, 1, 0.2], [1, -1, 0.5], 0.0, 1.0)
    solution = ej.solve(problem)
    assert solution.margin > 0.1
    assert solution.status == SOLVED
    np.testing.assert_array_equal(solution.strict, [True, False, False])


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e3, 1e9])
def test_the_unit_of_the_parameter_does_not_matter(unit):
    """θ may be a probability, per cent or parts per billion: neither answer nor margin depends on it."""
    truth, payoffs = [0.3, 0.8], [[0, 1], [0.2, 1.1]]
    usual = ej.solve(make(truth, payoffs, [0.0, 1.0], [1.0, -0.7], 0.1, 0.9, 0.2))
    other = ej.solve(make(truth, payoffs, [0.0, 1.0], np.array([1.0, -0.7]) / unit, 0.1 * unit, 0.9 * unit, 0.2))
    assert other.status == usual.status == SOLVED
    np.testing.assert_allclose(other.margin, usual.margin, rtol=1e-6)
    np.testing.assert_array_equal(other.pure, usual.pure)
    np.testing.assert_allclose(other.mixed, usual.mixed, rtol=1e-6)


@pytest.mark.parametrize("x64", [True, False])
@pytest.mark.parametrize("slope", [1e-15, 1e-19, 1e-30, 1e-46, 1e-170, 1e-320])
def test_slopes_whose_square_is_lost_are_the_same_whether_known_before_tracing_or_not(slope, x64):
    """Next to nothing is learned, and payoffs next to nothing move: no tie, whatever is believed."""

    def found(slope):
        return ej.solve(make([0.6, 0.3], [[0, 1], [0.2, 1.1]], [0.3, 0.6], (slope, -slope), 0.1, 0.8))

    with jax.enable_x64(x64):
        known, traced = found(slope), jax.jit(found)(slope)
    assert known.status == traced.status == SOLVED
    np.testing.assert_array_equal(known.pure, traced.pure)
    np.testing.assert_allclose(known.margin, (0.2 + 0.6 * 0.9 - 0.3) / 1.1, rtol=1e-6)


def test_links_may_be_lists_of_traced_numbers():
    def margin(level, slope):
        return ej.solve(make([0.3, 0.6], [[0, 1], [0.2, 1.1]], [level, 1.0], (slope, -slope), 0.0, 1.0)).margin

    np.testing.assert_allclose(jax.jit(margin)(0.1, 0.8), margin(0.1, 0.8), rtol=1e-12)


@pytest.mark.parametrize("num_actions", [2, 3])
def test_no_exploration_is_the_same_whether_known_before_tracing_or_not(num_actions):
    known = random_links(2, 200, num_actions, explores=False)
    traced = jax.vmap(lambda p: ej.Problem(p.environment, p.model, jnp.zeros(())))(known)
    plain = jax.jit(jax.vmap(lambda p: ej.solve(ej.Problem(p.environment, p.model))))(known)
    told = jax.jit(jax.vmap(ej.solve))(traced)
    for name in ("rationalizable", "pure", "strict", "num_mixed", "status"):
        np.testing.assert_array_equal(np.asarray(getattr(told, name)), np.asarray(getattr(plain, name)), err_msg=name)
    np.testing.assert_allclose(told.margin, plain.margin, rtol=1e-6)


def test_a_traced_zero_exploration_keeps_the_unplayed_out_of_the_fit():
    """Action 0 excludes an outcome at θ = 1, where action 1, alone, fits best: 0·∞ = 0 (theory §1)."""
    arguments = [0.5, 0.1], [[0.0, 1.0], [0.45, 0.46]], [0.0, 0.5], [1.0, -0.2], 0.0, 1.0
    for exploration in (0.0, jnp.zeros(())):
        problem = make(*arguments, exploration)
        assert [float(end) for end in ej.project(problem, jnp.array([0.0, 1.0]))] == [1.0, 1.0]
        solution = ej.solve(problem)
        assert solution.status == SOLVED
        np.testing.assert_array_equal(solution.pure, [True, False])


def test_rounds_of_elimination_shrink_to_the_rationalizable_set():
    problems = random_links(3, 200, 3, explores=False)
    rounds = np.asarray(jax.jit(jax.vmap(lambda p: elimination_rounds(p, 1e-9)))(problems))
    batch = solve_all(problems)
    assert rounds[:, 0].all() and not (rounds[:, 1:] & ~rounds[:, :-1]).any()
    clear = batch.status == SOLVED
    np.testing.assert_array_equal(rounds[clear, -1], batch.rationalizable[clear])
    assert (rounds[clear, 1] != rounds[clear, 2]).any(), "some need two rounds"


# Edges

CORNERS = [0.0, 0.5, 1.0]
BOXES = [(lo, hi) for lo, hi in product([0.0, 0.25, 0.5, 0.75, 1.0], repeat=2) if lo <= hi]


def assert_agrees_even_in_ties(problems: ej.Problem) -> Batch:
    """As `assert_agrees`; and ties, exact here, are found, and the weak inequalities hold in them."""
    batch = assert_agrees(problems)
    for i, answer in enumerate(judge_all(problems)):
        expected = {"solved": SOLVED, "boundary": BOUNDARY, "refuted": REFUTED}[answer.status]
        assert batch.status[i] == expected, f"cell {i}"
        if expected == REFUTED:
            assert not (batch.rationalizable[i] | batch.pure[i] | batch.strict[i]).any() and batch.num_mixed[i] == 0
            assert np.isnan(batch.mixed[i]).all() and np.isnan(batch.margin[i]) and batch.phase[i] == 254
        else:
            np.testing.assert_array_equal(batch.rationalizable[i], answer.rationalizable, err_msg=f"cell {i}")
            np.testing.assert_array_equal(batch.pure[i], answer.pure, err_msg=f"cell {i}")
    return batch


def test_the_corners_of_sycophancy():
    """Certain outcomes, boxes that are a point, end at the critical belief or miss it, full exploration."""
    rows = [(s, h, lo, hi, e) for s, h, (lo, hi), e in product(CORNERS, CORNERS, BOXES, CORNERS)]
    build = lambda s, h, lo, hi, e: ej.models.sycophancy(s, h, lower=lo, upper=hi, exploration=e)  # noqa: E731
    batch = assert_agrees_even_in_ties(jax.vmap(build)(*np.transpose(rows)))
    assert {0, 1, 2, 3, 254, 255} == set(np.unique(batch.phase))


@pytest.mark.parametrize("safe", [-1.5, 0.0, 0.25, 1.5])  # θ̂ = 1.25, ½, 3/8, −¼
def test_the_corners_of_deception(safe):
    rows = [(p, lo, hi, e) for p, (lo, hi), e in product(CORNERS, BOXES, CORNERS)]
    build = lambda p, lo, hi, e: ej.models.deception(p, safe=safe, lower=lo, upper=hi, exploration=e)  # noqa: E731
    batch = assert_agrees_even_in_ties(jax.vmap(build)(*np.transpose(rows)))
    if safe in (-1.5, 1.5):  # the critical belief is outside every box
        assert set(np.unique(batch.phase)) == {1 if safe < 0 else 0, 254}


def test_a_box_that_is_a_point_is_refuted_only_by_what_it_excludes():
    point = lambda p, theta: ej.solve(ej.models.deception(p, lower=theta, upper=theta)).status  # noqa: E731
    assert point(0.3, 0.0) == REFUTED  # believes never to be caught, and is
    assert point(0.0, 0.0) == SOLVED
    assert point(0.3, 1.0) == REFUTED
    assert point(1.0, 1.0) == SOLVED
    assert point(0.3, 0.2) == SOLVED


def test_what_nothing_identifies_stays_open():
    """Slope zero everywhere: every θ fits every play, and payoffs alone decide."""
    problem = make([0.3, 0.6], [[0.0, 1.0], [0.5, 0.4]], [0.2, 0.7], [0.0, 0.0], 0.1, 0.8)
    assert [float(end) for end in ej.project(problem, jnp.array([0.4, 0.6]))] == [0.1, 0.8]
    solution = ej.solve(problem)
    assert solution.status == SOLVED and solution.num_mixed == 0
    np.testing.assert_array_equal(solution.strict, [False, True])
    np.testing.assert_array_equal(solution.rationalizable, [False, True])


# The closed path and the finite path


def smooth_problems() -> list[dict]:
    """Sycophants whose critical belief is on no grid, half of them exploring."""
    rng = np.random.default_rng(4)
    drawn = []
    while len(drawn) < 24:
        p_agree, p_honest = rng.uniform(0, 1, 2)
        values = {
            "p_agree": p_agree,
            "p_honest": p_honest,
            "reward_agree": rng.uniform(0.5, 2),
            "cost_honest": rng.uniform(-0.3, 0.3),
            "exploration": rng.choice([0.0, 0.2]),
        }
        if ej.solve(ej.models.sycophancy(**values)).margin > 0.1:
            drawn.append(values)
    return drawn


def test_the_finite_path_converges_to_the_closed_one():
    """Masks agree away from ties; the mixed strategy and the projection are off by O(1/num)."""
    drawn = smooth_problems()
    batched = {key: jnp.array([values[key] for values in drawn]) for key in drawn[0]}
    exact = solve_all(jax.vmap(lambda v: ej.models.sycophancy(**v))(batched))
    sigma = jnp.array([0.3, 0.7])
    there = exact.num_mixed == 1
    assert there.sum() > 6 and (~there).sum() > 6

    sizes = [12, 36, 108]
    errors = {"mixed": [], "projection": []}
    for num in sizes:

        def cell(values, num=num):
            problem = ej.models.sycophancy(**values)
            tables = ej.tabulate(problem, num)
            fit = jnp.argmin(sigma @ tables.divergence[:, 1:-1]) + 1  # at the ends 0·∞ may stand
            return ej.solve(tables), fit / (num - 1), ej.project(problem, sigma)[0]

        tables, fit, projection = jax.jit(jax.vmap(cell))(batched)
        assert (np.asarray(tables.status) == SOLVED).all()
        for name in ("rationalizable", "pure", "strict", "num_mixed"):
            np.testing.assert_array_equal(np.asarray(getattr(tables, name)), getattr(exact, name), err_msg=name)
        errors["mixed"].append(np.abs(np.asarray(tables.mixed)[there, 0] - exact.mixed[there, 0]).max())
        errors["projection"].append(np.abs(np.asarray(fit - projection)).max())
    for name, error in errors.items():
        rate = np.polyfit(np.log(sizes), np.log(error), 1)[0]
        assert -1.4 < rate < -0.7, f"{name}: {error}"
    assert errors["projection"][-1] <= 1 / 107


@pytest.mark.parametrize("exploration", [0.0, 0.1])
def test_deception_on_a_grid(exploration):
    """What complying leaves open stays open on every grid."""
    risk = jnp.linspace(0.03, 0.97, 40)
    build = lambda p: ej.models.deception(p, gain=0.9, upper=0.93, exploration=exploration)  # noqa: E731
    exact = solve_all(jax.vmap(build)(risk))
    phase = jax.vmap(lambda p: ej.phase(ej.solve(ej.tabulate(build(p), 100)), (True, False)))(risk)
    clear = exact.margin > 0.02
    assert clear.sum() > 35
    np.testing.assert_array_equal(np.asarray(phase)[clear], exact.phase[clear])


def test_one_indifferent_belief_among_many_is_no_tie():
    """The usual grid holds θ̂ = ½. While complying it fits, and so do hope and fear, which decide."""
    for p_caught in (0.3, 0.7):
        problem = ej.models.deception(p_caught)
        solution = ej.solve(ej.tabulate(problem))
        assert solution.status == SOLVED
        assert ej.phase(solution, problem.unsafe) == ej.phase(ej.solve(problem), problem.unsafe)


@pytest.mark.parametrize("upper", [0.474, 0.48, 0.6])
def test_the_margin_on_a_grid_is_that_of_the_closed_path(upper):
    """θ̂ = 0.9/1.9: complying holds by the fear of what lies above it, however many points of the grid do."""
    problem = ej.models.deception(0.1, gain=0.9, upper=upper)
    tables = ej.tabulate(problem, 101)
    slack = ej.solve(tables).margin * jnp.abs(tables.utility).max()
    np.testing.assert_allclose(slack, ej.solve(problem).margin, rtol=1e-6)  # max|π| is 1


# The projection and its derivatives


@pytest.mark.parametrize("num_actions", [2, 3])
def test_projection(num_actions):
    problems = random_links(5, 300, num_actions, explores=True)
    sigma = np.random.default_rng(5).dirichlet(np.ones(num_actions) / 2, 300)
    sigma[:20] = np.eye(num_actions)[np.arange(20) % num_actions]
    found = np.transpose(jax.jit(jax.vmap(ej.project))(problems, jnp.asarray(sigma)))
    truth, model, exploration = jax.tree.map(np.asarray, (problems.environment, problems.model, problems.exploration))
    refuted = solve_all(problems).status == REFUTED
    for i in np.flatnonzero(~refuted):
        links = model.intercept[i], model.slope[i, :, 0], model.lower[i, 0], model.upper[i, 0]
        right = reference.project(truth.outcome_probs[i], *links, sigma[i], exploration=exploration[i])
        np.testing.assert_allclose(found[i], right, rtol=0, atol=1e-9)


POINTS = {  # truth, lower, upper, then the links, where they are not those of one event
    "one event": [0.35, 0.8, 0.1, 0.9],
    "one event, clipped from below": [0.05, 0.99, 0.2, 0.9],
    "one event, clipped from above": [0.97, 0.01, 0.2, 0.7],
    "any links": [0.35, 0.7, 0.0, 1.0, 0.1, 0.9, 0.7, -0.3],
    "any links, clipped": [0.05, 0.6, 0.1, 0.8, 0.1, 0.6, 0.7, 0.3],
}


def fit(v):
    """The projection as a function of play, exploration, truth, bounds and, where given, intercepts and slopes."""
    links = (v[7:9], v[9:11]) if len(v) > 7 else ([0.0, 1.0], [1.0, -1.0])
    return ej.project(make(v[3:5], jnp.zeros((2, 2)), *links, v[5], v[6], v[2]), v[:2])[0]


fit_value, fit_gradient = jax.jit(fit), jax.jit(jax.grad(fit))


def difference(function, point: np.ndarray, i: int, step: float = 1e-5) -> float:
    """∂function/∂point[i] to second order: central, or from inside where the number is 0 or 1."""
    at = lambda steps: float(function(point + steps * step * np.eye(len(point))[i]))  # noqa: E731
    if point[i] in (0, 1):
        inwards = 1 if point[i] == 0 else -1
        return inwards * (4 * at(inwards) - 3 * at(0) - at(2 * inwards)) / (2 * step)
    return (at(1) - at(-1)) / (2 * step)


@pytest.mark.parametrize("exploration", [0.0, 0.3])
@pytest.mark.parametrize("sigma", [[0.6, 0.4], [1.0, 0.0], [0.0, 1.0]])
@pytest.mark.parametrize("name", POINTS)
def test_the_gradient_of_the_projection(name, sigma, exploration):
    point = np.array([*sigma, exploration, *POINTS[name]])
    expected = [difference(fit_value, point, i) for i in range(len(point))]
    np.testing.assert_allclose(fit_gradient(point), expected, rtol=1e-6, atol=1e-8)


def test_the_gradient_where_what_is_not_played_excludes_an_outcome():
    """Action 1 fits best at θ = 1, where action 0 is at infinity, without weight: the fit moves with the bound."""

    def bounded(upper):
        problem = make([0.5, 0.1], jnp.zeros((2, 2)), [0.0, 0.5], [1.0, -0.2], 0.0, upper)
        return ej.project(problem, jnp.array([0.0, 1.0]))[0]

    assert bounded(1.0) == 1 and jax.grad(bounded)(1.0) == 1


def test_the_gradient_of_a_projection_that_nothing_played_informs():
    """The whole box fits: its ends move with the bounds and with nothing else."""

    def ends(truth, lower, upper):
        problem = make(truth, jnp.zeros((3, 2)), [0.0, 0.5, 0.3], [1.0, -0.2, 0.0], lower, upper)
        return jnp.stack(ej.project(problem, jnp.array([0.0, 0.0, 1.0])))

    by_truth, by_lower, by_upper = jax.jacobian(ends, (0, 1, 2))(jnp.array([0.5, 0.1, 0.3]), 0.1, 0.9)
    np.testing.assert_array_equal(by_truth, np.zeros((2, 3)))
    np.testing.assert_array_equal(by_lower, [1, 0])
    np.testing.assert_array_equal(by_upper, [0, 1])


BUILDS = {
    "sycophancy": (lambda v: ej.models.sycophancy(v[0], v[1], lower=v[2], upper=v[3]), [0.7, 0.8, 0.1, 0.95]),
    "exploring": (
        lambda v: ej.models.sycophancy(v[0], v[1], reward_agree=v[2], exploration=v[3]),
        [0.7, 0.2, 1.3, 0.1],
    ),
    "deception": (lambda v: ej.models.deception(v[0], gain=v[1], safe=v[2], upper=v[3]), [0.3, 1.2, 0.1, 0.9]),
    "three actions": (
        lambda v: make(v, [[0.0, 1.0], [0.7, 0.1], [0.2, 0.3]], [0.0, 1.0, 0.4], [1.0, -1.0, 0.2], 0.0, 1.0),
        [0.8, 0.7, 0.5],
    ),
    "two of three pay a constant": (
        lambda v: make([0.3, 0.6, 0.5], [[1.0, v[0]], [0.0, 0.0], [-0.3, -0.3]], [0, 1, 0.2], [1, -1, 0.5], 0.0, 1.0),
        [0.7],
    ),
}


@pytest.mark.parametrize("name", BUILDS)
def test_the_gradient_of_the_margin(name):
    build, at = BUILDS[name]
    margin = jax.jit(lambda v: ej.solve(build(v)).margin)
    point = np.array(at)
    slopes = np.asarray(jax.grad(margin)(jnp.asarray(point)))
    for i in range(len(point)):
        nudge = 1e-6 * np.eye(len(point))[i]
        difference = (margin(point + nudge) - margin(point - nudge)) / 2e-6
        np.testing.assert_allclose(slopes[i], difference, rtol=1e-6, atol=1e-8)
