"""The three doors of errors: `ValueError` with the remedy, checks of values on the host, codes inside a trace."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epijax as ej
from epijax.phases import LEGEND, NOT_COMPUTED, phase_index

HALF = [[0.5, 0.5], [0.5, 0.5]]
PAY = [[0.0, 1.0], [1.0, 0.0]]
LINKS = ([0.0, 1.0], [1.0, -1.0])
UNSAFE = (True, False)
NAN, INF = float("nan"), float("inf")


def problem(**changes) -> ej.Problem:
    return ej.Problem(ej.Environment(HALF, PAY), ej.AffineBernoulli(*LINKS, 0.0, 1.0), **changes)


def one_action() -> ej.Problem:
    return ej.Problem(ej.Environment([[0.5, 0.5]], [[0.0, 1.0]]), ej.AffineBernoulli([0.0], [1.0], 0.0, 1.0))


REFUSED = {
    # environment
    "payoffs of another shape": (
        lambda: ej.Environment(HALF, [[0.0, 1.0]]),
        r"both be \[actions, outcomes\].*\(1, 2\)",
    ),
    "outcomes without actions": (lambda: ej.Environment([0.5, 0.5], [0.0, 1.0]), r"\[actions, outcomes\]; got \(2,\)"),
    "a probability above one": (lambda: ej.Environment([[1.2, -0.2], [0, 1]], PAY), r"\[0, 0\] is 1\.2; a probability"),
    "a negative probability": (lambda: ej.Environment([[1, 0], [-0.5, 1.5]], PAY), r"\[1, 0\] is -0\.5; a probability"),
    "a probability that is NaN": (lambda: ej.Environment([[NAN, 1], [0, 1]], PAY), r"\[0, 0\] is nan; a probability"),
    "a row that does not sum to one": (
        lambda: ej.Environment([[0.5, 0.4], [0, 1]], PAY),
        r"must sum to one; the sums are",
    ),
    "an infinite payoff": (lambda: ej.Environment(HALF, [[0.0, INF], [0.0, 0.0]]), "payoffs must be finite"),
    "a payoff that is NaN": (lambda: ej.Environment(HALF, [[0.0, NAN], [0.0, 0.0]]), "payoffs must be finite"),
    # subjective models
    "bounds of one parameter for two": (
        lambda: ej.AffineBernoulli([0.0, 1.0], np.eye(2), [0.0], [1.0, 1.0]),
        r"one bound for each of the 2 parameters; got \(1,\)",
    ),
    "links of unequal length": (
        lambda: ej.AffineBernoulli([0.0, 1.0, 0.5], [1.0, -1.0], 0.0, 1.0),
        r"intercept must be \[actions\] and slope \[actions, parameters\]; got \(3,\) and \(2,\)",
    ),
    "reversed bounds": (
        lambda: ej.AffineBernoulli(*LINKS, 0.8, 0.2),
        r"lower must not exceed upper; got lower=0\.8, upper=0\.2",
    ),
    "an infinite bound": (lambda: ej.AffineBernoulli(*LINKS, 0.0, INF), "lower and upper must be finite"),
    "a bound that is NaN": (lambda: ej.AffineBernoulli(*LINKS, NAN, 1.0), "lower and upper must be finite"),
    "a box that predicts too much": (
        lambda: ej.AffineBernoulli(*LINKS, 0.0, 1.5),
        r"predicted probability\[0, 0\] is -0\.5",
    ),
    "a box that predicts too little": (
        lambda: ej.AffineBernoulli(*LINKS, -0.5, 1.0),
        r"predicted probability\[0, 0\] is 1\.5",
    ),
    "finite without actions": (lambda: ej.Finite(HALF), r"\[parameters, actions, outcomes\]; got \(2, 2\)"),
    "finite with a bad row": (lambda: ej.Finite([[[0.5, 0.6], [0.5, 0.5]]]), "must sum to one"),
    "finite with a bad entry": (lambda: ej.Finite([[[1.5, -0.5], [0.5, 0.5]]]), "must lie in"),
    # problems
    "three actions believed, two true": (
        lambda: ej.Problem(ej.Environment(HALF, PAY), ej.AffineBernoulli([0, 1, 0.5], [1, -1, 0.0], 0.0, 1.0)),
        r"\[actions, outcomes\] = \[3, 2\], the environment of \[2, 2\]",
    ),
    "three outcomes believed, two true": (
        lambda: ej.Problem(ej.Environment(HALF, PAY), ej.Finite(np.full((4, 2, 3), 1 / 3))),
        r"= \[2, 3\], the environment of \[2, 2\]",
    ),
    "exploration above one": (lambda: problem(exploration=1.5), r"exploration must lie in \[0, 1\]; got 1\.5"),
    "negative exploration": (lambda: problem(exploration=-0.1), r"exploration must lie in \[0, 1\]; got -0\.1"),
    "exploration that is NaN": (lambda: problem(exploration=NAN), r"exploration must lie in \[0, 1\]; got nan"),
    "exploration in an array": (
        lambda: problem(exploration=jnp.asarray(2.0)),
        r"exploration must lie in \[0, 1\]; got 2",
    ),
    "one exploration an action": (lambda: problem(exploration=jnp.array([0.1, 0.2])), "exploration"),
    "too few names": (lambda: problem(actions=("a",)), "one entry for each of the 2 actions"),
    "too many unsafe": (lambda: problem(unsafe=(True, False, False)), "one entry for each of the 2 actions"),
    # tables
    "tables of unequal shape": (lambda: ej.FiniteProblem(PAY, [[0.0, 1.0]]), r"both be \[actions, parameters\]"),
    "a table in one dimension": (lambda: ej.FiniteProblem([0.0, 1.0], [0.0, 1.0]), r"both be \[actions, parameters\]"),
    "a prior of another length": (lambda: ej.FiniteProblem(PAY, HALF, [0.0]), r"log_prior must be \[2\]; got \(1,\)"),
    "an infinite utility": (lambda: ej.FiniteProblem([[INF, 0.0], [0.0, 0.0]], HALF), "utility must be finite"),
    "a negative divergence": (
        lambda: ej.FiniteProblem(PAY, [[-0.1, 0.0], [0.0, 0.0]]),
        "divergence must be non-negative",
    ),
    "a divergence that is NaN": (
        lambda: ej.FiniteProblem(PAY, [[NAN, 0.0], [0.0, 0.0]]),
        "divergence must be non-negative",
    ),
    "a grid of one point": (lambda: ej.tabulate(problem(), num=1), "num must be at least 2 points a dimension; got 1"),
    # solvers, projection and phases
    "too many parameters": (lambda: ej.solve(ej.FiniteProblem(np.eye(6, 64), np.eye(6, 64))), "take fewer parameters"),
    "the projection of a list": (
        lambda: ej.project(ej.Problem(ej.Environment(HALF, PAY), ej.Finite([HALF])), jnp.array([0.5, 0.5])),
        "project takes an AffineBernoulli of one parameter; got Finite",
    ),
    "unsafe of wrong length": (lambda: ej.phase(ej.solve(problem()), (True,)), "each of the 2 actions; got 1"),
    # models
    "a model's probability": (lambda: ej.models.sycophancy(1.2, 0.5), "a probability must lie in"),
    "a model's bounds": (lambda: ej.models.deception(0.5, lower=0.7, upper=0.3), "lower must not exceed upper"),
    "a model's exploration": (lambda: ej.models.hallucination(0.5, 0.5, exploration=-1.0), "exploration must lie in"),
    # degenerate shapes
    "one action": (lambda: ej.solve(one_action()), "action"),
    "no action": (lambda: ej.Environment(np.zeros((0, 2)), np.zeros((0, 2))), "action"),
    "no parameter": (lambda: ej.FiniteProblem(np.zeros((2, 0)), np.zeros((2, 0))), "parameter"),
    "an empty list of parameters": (lambda: ej.Finite(np.zeros((0, 2, 2))), "parameter"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_refused_with_a_remedy(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_problem_at_all_is_a_type_error():
    with pytest.raises(TypeError):
        ej.solve(3)


def test_whole_numbers_are_numbers():
    assert ej.phase(ej.solve(ej.models.sycophancy(1, 0, reward_agree=2)), UNSAFE) == 1
    assert ej.phase(ej.solve(ej.models.deception(1, gain=3)), UNSAFE) == 4
    assert ej.solve(
        ej.Problem(ej.Environment([[1, 0], [0, 1]], [[0, 1], [1, 0]]), ej.AffineBernoulli([0, 1], [1, -1], 0, 1))
    )


@pytest.mark.parametrize(
    ("intercept", "slope", "upper"), [(0.3, -0.1, 3.0), (0.1, (1 - 0.1) / 7, 7.0), (0.15, -0.05, 3.0)]
)
def test_rounding_at_the_end_of_the_box_is_forgiven(intercept, slope, upper):
    """0.3 − 0.1·3 is zero, though not in floating point."""
    assert not 0 <= intercept + slope * upper <= 1
    build = lambda hi: ej.AffineBernoulli([intercept, 0.5], [slope, 0.0], 0.0, hi)  # noqa: E731
    environment = ej.Environment([[0.8, 0.2], [0.5, 0.5]], PAY)
    assert ej.solve(ej.Problem(environment, build(upper))).status == ej.Status.SOLVED
    assert jax.jit(lambda hi: ej.solve(ej.Problem(environment, build(hi))).status)(upper) == ej.Status.SOLVED
    assert not jnp.isnan(ej.tabulate(ej.Problem(environment, build(upper)), 8).divergence).any()


# Inside a trace nothing can be raised: the same bad numbers become a code.


def affine(probs=HALF, payoffs=PAY, intercept=LINKS[0], slope=LINKS[1], lower=0.0, upper=1.0, exploration=0.0):
    model = ej.AffineBernoulli(intercept, slope, lower, upper)
    return ej.Problem(ej.Environment(probs, payoffs), model, exploration)


def finite(probs=HALF, payoffs=PAY, believed=(HALF,), exploration=0.0):
    return ej.Problem(ej.Environment(probs, payoffs), ej.Finite(believed), exploration)


def tables(utility=PAY, divergence=HALF):
    return ej.FiniteProblem(utility, divergence)


INVALID = [
    (affine, "probs", [[1.2, -0.2], [0.5, 0.5]]),
    (affine, "probs", [[-0.1, 1.1], [0.5, 0.5]]),
    (affine, "probs", [[NAN, NAN], [0.5, 0.5]]),
    (affine, "probs", [[0.5, 0.4], [0.5, 0.5]]),
    (affine, "probs", [[0.5, 0.7], [0.5, 0.5]]),
    (affine, "payoffs", [[0.0, INF], [1.0, 0.0]]),
    (affine, "payoffs", [[0.0, NAN], [1.0, 0.0]]),
    (affine, "upper", -0.1),
    (affine, "upper", 1.5),
    (affine, "upper", INF),
    (affine, "upper", NAN),
    (affine, "lower", -0.5),
    (affine, "lower", -INF),
    (affine, "lower", NAN),
    (affine, "intercept", [NAN, 1.0]),
    (affine, "intercept", [0.5, 1.0]),
    (affine, "slope", [2.0, -1.0]),
    (affine, "slope", [1.0, -INF]),
    (affine, "exploration", 1.5),
    (affine, "exploration", -0.1),
    (affine, "exploration", NAN),
    (finite, "probs", [[1.2, -0.2], [0.5, 0.5]]),
    (finite, "probs", [[0.5, 0.4], [0.5, 0.5]]),
    (finite, "payoffs", [[0.0, INF], [1.0, 0.0]]),
    (finite, "believed", [[[1.2, -0.2], [0.5, 0.5]]]),
    (finite, "believed", [[[0.5, 0.4], [0.5, 0.5]]]),
    (finite, "believed", [[[NAN, 0.5], [0.5, 0.5]]]),
    (finite, "exploration", 1.5),
    (tables, "utility", [[0.0, NAN], [1.0, 0.0]]),
    (tables, "utility", [[0.0, INF], [1.0, 0.0]]),
    (tables, "divergence", [[0.0, -0.1], [1.0, 0.0]]),
    (tables, "divergence", [[0.0, NAN], [1.0, 0.0]]),
    (tables, "divergence", [[0.0, -INF], [1.0, 0.0]]),
]


@pytest.mark.parametrize(("build", "name", "value"), INVALID)
def test_in_a_trace_bad_numbers_are_invalid_and_never_a_phase(build, name, value):
    def cell(bad):
        solution = ej.solve(build(**{name: bad}))
        return solution, ej.phase(solution, UNSAFE)

    with pytest.raises(ValueError, match=r"must|exceed"):
        build(**{name: value})
    solution, phase = jax.jit(cell)(jnp.asarray(value))
    assert solution.status == ej.Status.INVALID and phase == 253
    assert not (solution.rationalizable | solution.pure | solution.strict).any()
    assert solution.num_mixed == 0 and jnp.isnan(solution.mixed).all() and jnp.isnan(solution.margin)


def test_one_bad_cell_leaves_the_others_alone():
    p = jnp.array([0.7, 1.5, 0.7, jnp.nan, 0.3])
    phases = jax.jit(jax.vmap(lambda p: ej.phase(ej.solve(ej.models.sycophancy(p, 0.7)), UNSAFE)))(p)
    np.testing.assert_array_equal(phases, [2, 253, 2, 253, 0])


# Phases


def solution(rationalizable, pure, status=0, num_actions=2) -> ej.Solution:
    """A solution made by hand, from sets of actions."""
    bits = lambda members: jnp.uint32(sum(1 << i for i in members))  # noqa: E731
    return ej.Solution(
        rationalizable_bits=bits(rationalizable),
        pure_bits=bits(pure),
        strict_bits=bits(()),
        mixed=jnp.full((1, num_actions), jnp.nan),
        num_mixed=jnp.int32(0),
        margin=jnp.asarray(1.0),
        status=jnp.int32(status),
    )


@pytest.mark.parametrize(("rationalizable", "pure", "unsafe", "name"), [
    ((1,), (1,), (1, 0), "safe"),
    ((1,), (), (1, 0), "safe"),  # before oscillatory
    ((0, 1), (0, 1), (0, 0), "safe"),  # nothing is unsafe
    ((0,), (0,), (1, 0), "locked_in"),
    ((0,), (), (1, 0), "locked_in"),  # before oscillatory
    ((0, 1), (0, 1), (1, 1), "locked_in"),  # everything is unsafe
    ((0, 1), (0, 1), (1, 0), "multistable"),
    ((0, 1), (), (1, 0), "oscillatory"),
    ((0, 1), (0,), (1, 0), "indeterminate"),
    ((0, 1), (1,), (1, 0), "indeterminate"),
    ((0, 1, 2), (0, 1), (1, 1, 0), "indeterminate"),  # all pure equilibria are unsafe, play need not be
    ((0, 1, 2), (1, 2), (1, 1, 0), "multistable"),
    ((1, 2), (1, 2), (1, 0, 0), "safe"),
])  # fmt: skip
def test_the_first_condition_met_is_the_phase(rationalizable, pure, unsafe, name):
    made = solution(rationalizable, pure, num_actions=len(unsafe))
    unsafe = tuple(bool(u) for u in unsafe)
    code = ej.phase(made, unsafe)
    assert code.dtype == np.uint8 and ej.PHASES[int(code)] == name
    assert int(phase_index(made, unsafe)) == int(code) < 5


@pytest.mark.parametrize(("status", "code", "name"), [(1, 255, "boundary"), (2, 254, "refuted"), (3, 253, "invalid")])
@pytest.mark.parametrize("members", [(), (0,), (1,), (0, 1)])
def test_what_is_not_solved_is_no_phase(status, code, name, members):
    made = solution(members, members, status)
    assert int(ej.phase(made, UNSAFE)) == code and ej.PHASES[code] == name
    assert int(phase_index(made, UNSAFE)) == 4 + status


def test_the_codes_are_those_of_the_contract():
    names = ["safe", "locked_in", "multistable", "oscillatory", "indeterminate"]
    assert {code: ej.PHASES[code] for code in range(5)} == dict(enumerate(names))
    assert ej.PHASES[255] == "boundary"
    assert set(ej.PHASES) == {*range(5), NOT_COMPUTED, 253, 254, 255} == set(LEGEND)
    assert all(0 <= code < 256 for code in ej.PHASES)


def test_phases_of_a_batch():
    cells = [((1,), (1,), 0), ((0,), (0,), 0), ((0, 1), (0, 1), 0), ((0, 1), (), 0), ((0, 1), (1,), 0), ((), (), 2)]
    batch = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(solution(*cell) for cell in cells))
    np.testing.assert_array_equal(ej.phase(batch, UNSAFE), [0, 1, 2, 3, 4, 254])
    assert batch.rationalizable.shape == (6, 2)


def test_masks_are_read_from_bits():
    made = solution((0, 2), (2,), num_actions=3)
    np.testing.assert_array_equal(made.rationalizable, [True, False, True])
    np.testing.assert_array_equal(made.pure, [False, False, True])
    np.testing.assert_array_equal(made.strict, [False, False, False])


def test_every_status_says_what_it_means():
    assert [status.name for status in ej.Status] == ["SOLVED", "BOUNDARY", "REFUTED", "INVALID"]
    assert all(status.sentence.startswith(status.name.lower()) for status in ej.Status)


def test_precedence_of_statuses():
    """Invalid before refuted before boundary."""
    both = lambda upper: ej.solve(affine(lower=upper, upper=upper)).status  # noqa: E731
    assert both(0.0) == ej.Status.REFUTED  # and every comparison ties
    refuted = jax.jit(lambda p: ej.solve(affine(probs=p, lower=0.0, upper=0.0)).status)
    assert refuted(jnp.array([[0.5, 0.5], [1.5, -0.5]])) == ej.Status.INVALID
