"""The judge of boxes: problems solved by hand, the one-parameter judge, and brute force over the box."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from scipy.special import expit

from epijax import reference, reference_families

SYCOPHANCY = {"intercept": [0, 1], "slope": [[1], [-1]]}
LOADED = """
import sys
import epijax.reference_families
mine = {name for name in sys.modules if name.partition(".")[0] in ("epijax", "jax", "jaxlib", "jaxtyping", "equinox")}
assert mine == {f"epijax{rest}" for rest in ("", ".reference", ".reference_families", ".reference_tables")}, mine
"""


def laws(*ones):
    """Rows (Q(0|x), Q(1|x))."""
    return np.stack([1 - np.array(ones), np.array(ones)], axis=1)


def assert_equal(first, second, *, atol=1e-9):
    for name in ("rationalizable", "pure", "strict"):
        assert getattr(first, name).tolist() == getattr(second, name).tolist(), (name, first, second)
    assert (first.status, first.phase) == (second.status, second.phase), (first, second)
    np.testing.assert_allclose(first.margin, second.margin, rtol=0, atol=atol)
    np.testing.assert_allclose(np.sort(first.mixed, axis=0), np.sort(second.mixed, axis=0), rtol=0, atol=1e-8)


def test_it_imports_neither_jax_nor_a_sibling():
    subprocess.run([sys.executable, "-c", LOADED], check=True)


# Bernoulli


@pytest.mark.parametrize("seed", range(24))
def test_sycophancy_by_the_table(seed):
    """Theory §4, random truth, rewards, costs and bounds; a parameter that nothing depends on changes nothing."""
    rng = np.random.default_rng(seed)
    truth, (reward, other), (cost, price) = rng.random(2), 0.5 + rng.random(2), 0.3 * rng.random(2)
    lower, upper = 0.3 * rng.random(), 1 - 0.3 * rng.random()
    threshold = (other - price + cost) / (reward + other)
    agreeing, honest = np.clip([truth[0], 1 - truth[1]], lower, upper)
    payoffs = [[-cost, reward - cost], [-price, other - price]]
    answer = reference_families.affine_bernoulli_box(
        laws(*truth), payoffs, **SYCOPHANCY, lower=[lower], upper=[upper], unsafe=[True, False]
    )
    rows = [["safe", "oscillatory"], ["multistable", "locked_in"]]
    assert answer.phase == rows[int(agreeing > threshold)][int(honest > threshold)]
    assert answer.pure.tolist() == answer.strict.tolist() == [agreeing > threshold, honest < threshold]
    if answer.phase in ("multistable", "oscillatory"):
        share = (threshold - (1 - truth[1])) / (truth.sum() - 1)
        np.testing.assert_allclose(answer.mixed, [[share, 1 - share]], rtol=0, atol=1e-10)
    else:
        assert answer.mixed.shape == (0, 2)
    more = reference_families.affine_bernoulli_box(
        laws(*truth), payoffs, [0, 1], [[1, 0], [-1, 0]], [lower, -2], [upper, 3], unsafe=[True, False]
    )
    assert_equal(answer, more)


@pytest.mark.parametrize("p_caught", [0.2, 0.5])
@pytest.mark.parametrize(("lower", "upper"), [(0.0, 0.3), (0.4, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("exploration", [0.0, 0.1])
def test_deception_by_the_table(p_caught, lower, upper, exploration):
    """Theory §4 with gain 1, loss 1, safe 0.3: to deceive is optimal iff θ <= θ̂ = 0.35."""
    answer = reference_families.affine_bernoulli_box(
        laws(p_caught, 0.0), [[1, -1], [0.3, 0.3]], [0, 0], [[1], [0]], [lower], [upper], exploration=exploration,
        unsafe=[True, False],
    )  # fmt: skip
    straddling = {0.0: {0.2: "multistable", 0.5: "indeterminate"}, 0.1: {0.2: "locked_in", 0.5: "safe"}}
    assert answer.phase == (
        "locked_in" if upper < 0.35 else "safe" if lower > 0.35 else straddling[exploration][p_caught]
    )
    np.testing.assert_array_equal(answer.mixed, np.zeros((0, 2)))


@pytest.mark.parametrize("exploration", [0.0, 0.07])
@pytest.mark.parametrize("num", [2, 3, 5])
def test_one_parameter_by_the_other_judge(num, exploration):
    """D = 1; a third of the actions teach nothing. Of more than two the mixed equilibria are not sought."""
    rng = np.random.default_rng(num)
    phases = set()
    for _ in range(30 if num == 2 else 6):
        ends = np.where(rng.random((num, 1)) < 1 / 3, rng.random((num, 1)), rng.random((num, 2)))
        intercept, slope = ends[:, 0], ends[:, 1] - ends[:, 0]
        truth, payoffs, unsafe = laws(*rng.random(num)), rng.normal(size=(num, 2)), np.arange(num) % 2 == 0
        known = reference.affine_bernoulli(
            truth, payoffs, intercept, slope, 0, 1, exploration=exploration, unsafe=unsafe
        )
        found = reference_families.affine_bernoulli_box(
            truth, payoffs, intercept, slope[:, None], [0], [1], exploration=exploration, unsafe=unsafe
        )
        phases.add(found.phase)
        if num == 2:
            assert_equal(found, known)
        else:
            assert found.pure.tolist() == known.pure.tolist() and found.strict.tolist() == known.strict.tolist()
            assert not (found.rationalizable & ~known.rationalizable).any() and found.mixed.shape == (0, num)
    assert len(phases) > 1


@pytest.mark.parametrize(("lower", "upper", "pure", "phase"), [
    ([0, 0], [1, 1], [True, True], "multistable"),
    ([0, 0.65], [1, 1], [False, True], "indeterminate"),  # agreeing can never disappoint enough, but hope can last
    ([0, 0.65], [0.64, 1], [False, True], "safe"),
    ([0.75, 0], [1, 1], [True, False], "indeterminate"),  # misspecified: agreeing is believed to be 0.75 at least
    ([0.75, 0], [1, 0.74], [True, False], "locked_in"),
])  # fmt: skip
def test_separate_parameters(lower, upper, pure, phase):
    """U = θ_x, truth (0.6, 0.7): playing x teaches clip(p_x) and leaves the other parameter anywhere in its bounds."""
    problem = laws(0.6, 0.7), [[0, 1], [0, 1]], [0, 0], np.eye(2), lower, upper
    answer = reference_families.affine_bernoulli_box(*problem, unsafe=[True, False])
    assert answer.pure.tolist() == pure and answer.phase == phase and answer.mixed.shape == (0, 2)
    assert answer.strict.tolist() == [lower[0] > upper[1], lower[1] > upper[0]]
    explored = reference_families.affine_bernoulli_box(*problem, exploration=0.01, unsafe=[True, False])
    assert explored.phase == ("locked_in" if lower[0] == 0.75 else "safe")
    assert explored.strict.tolist() == explored.pure.tolist() == [lower[0] == 0.75, lower[0] < 0.75]
    np.testing.assert_allclose(explored.margin, np.abs(np.diff(np.clip([0.6, 0.7], lower, upper)))[0], atol=1e-12)


def test_three_arms_learnt_apart():
    """U = θ_x, truth (0.5, 0.6, 0.7), bounds [0.55, 1] but [0, 1] for the first: only it is never an equilibrium."""
    answer = reference_families.affine_bernoulli_box(
        laws(0.5, 0.6, 0.7), [[0, 1]] * 3, [0] * 3, np.eye(3), [0, 0.55, 0.55], [1] * 3, unsafe=[True, False, False]
    )
    assert answer.pure.tolist() == [False, True, True] and answer.rationalizable.all() and not answer.strict.any()
    assert answer.phase == "indeterminate"
    np.testing.assert_allclose(answer.margin, 0.05, atol=1e-12)


def test_refuted_ties_and_no_unsafe_actions():
    """Certainty that is wrong is refuted; equal payoffs are a tie; without `unsafe` there is no phase."""
    refuted = reference_families.affine_bernoulli_box(
        laws(0.5, 0.5), [[0, 1], [0, 1]], [1, 0], [[0, 0], [1, 1]], [0, 0], [0.5, 0.5], unsafe=[True, False]
    )
    assert refuted.status == refuted.phase == "refuted" and np.isnan(refuted.margin)
    assert (
        refuted.pure.tolist() == [False, False] and not refuted.rationalizable[1]
    )  # play of 1 alone teaches θ = ½ < 1
    tie = reference_families.affine_bernoulli_box(laws(0.5, 0.8), [[0, 1], [0, 1]], **SYCOPHANCY, lower=[0], upper=[1])
    assert tie.status == tie.phase == "boundary" and tie.margin < 1e-12
    solved = reference_families.affine_bernoulli_box(
        laws(0.7, 0.8), [[0, 1], [0, 1]], **SYCOPHANCY, lower=[0], upper=[1]
    )
    assert solved.status == solved.phase == "solved"


# Gaussian


def monopolist(**options):
    """[EP16]'s monopolist: price 2 or 10, true demand 34 and 2, believed a − b·price with (a, b) ∈ [33,40]×[3,3.5]."""
    return reference_families.gaussian_linear(
        [34, 2], 1.0, [0, 0], [2, 10], [[1, -2], [1, -10]], 2.0, [33, 3], [40, 3.5], unsafe=[True, False], **options
    )


def test_monopolist():
    """By hand: price 2 is better iff a < 12b.

    Price 2 alone teaches a − 2b = 34, so (40, 3), and then price 10 is better; price 10 alone a − 10b = 2, b >= 3.1,
    and then price 2 is. In between a = 40 and 2 s_2 (2b − 6) + 10 s_10 (10b − 38) = 0, which at b = 40/12 is
    s_2 = 35 s_10. The slacks are 8·40 − 96·3 = 32 of at most U = 10·10 = 100, and 96b − 8(2 + 10b) = 16b − 16 >= 33.6.
    """
    answer = monopolist()
    assert not answer.pure.any() and answer.rationalizable.all() and answer.phase == "oscillatory"
    np.testing.assert_allclose(answer.mixed, [[35 / 36, 1 / 36]], rtol=0, atol=1e-10)
    np.testing.assert_allclose(answer.margin, 0.32, rtol=0, atol=1e-9)


@pytest.mark.parametrize("exploration", [0.02, 0.05, 0.06, 0.5])
def test_monopolist_who_explores(exploration):
    """Price 10 is seen ε/2 of the time at least, and 1/36 of it is what it takes to find price 2 the better one."""
    answer = monopolist(exploration=exploration)
    if exploration < 1 / 18:
        share = (1 / 36 - exploration / 2) / (1 - exploration)
        np.testing.assert_allclose(answer.mixed, [[1 - share, share]], rtol=0, atol=1e-9)
        assert answer.phase == "oscillatory"
    else:
        assert answer.phase == "locked_in" and answer.strict.tolist() == [True, False] and answer.mixed.size == 0


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize(("level", "mixed", "rationalizable"), [
    (-0.5, [[0.8, 0.2], [0.2, 0.8]], [True, True]),
    (-1.5, [], [False, True]),
    (0.5, [], [True, True]),
])  # fmt: skip
def test_a_path_round_a_corner(level, mixed, rationalizable, scale):
    """m = (u_0 + 2u_1, −2u_0 − u_1) on the unit square, truth (4, 1), U(0) − U(1) = level + m_0 + m_1.

    From s = 0 to 1 the predictions run (3, −3), (2, −1), (0, 0): the sum is 0, 1, 0. At (2.5, −2) along (1, −2)
    (1−s)(2.5 − 4) + s(−3)(−2) = 0, s = 0.2; at (1, −½) along (2, −1) 2(1−s)(1 − 4) + 1.5 s = 0, s = 0.8.
    """
    answer = reference_families.gaussian_linear(
        scale * np.array([4, 1]), 3.0, [level * scale, 0], [1, -1], [[1, 2], [-2, -1]], 0.5, [0, 0], [scale, scale],
        unsafe=[True, False],
    )  # fmt: skip
    assert answer.pure.tolist() == answer.strict.tolist() == [level > 0, level < 0]
    assert answer.rationalizable.tolist() == ([True, False] if level > 0 else rationalizable)
    np.testing.assert_allclose(np.sort(answer.mixed, axis=0), np.sort(np.reshape(mixed, (-1, 2)), axis=0), atol=1e-9)
    np.testing.assert_allclose(answer.margin, 0.5 / max(3 + level, 3), rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(12))
def test_brute_force_over_the_box(seed):
    """A fine grid of the box, literally: at each s the best fit on it sides with the action that the answer implies."""
    rng = np.random.default_rng(seed)
    design, truth, slope = rng.normal(size=(2, 2)), 2 * rng.normal(size=2), rng.normal(size=2)
    middle = slope * (design @ rng.random(2))
    intercept, exploration = [middle[1] - middle[0], 0.0], [0.0, 0.1][seed % 2]
    answer = reference_families.gaussian_linear(
        truth, 1.0, intercept, slope, design, 1.0, [0, 0], [1, 1], exploration=exploration, unsafe=[True, False]
    )
    steps = np.linspace(0, 1, 201)
    thetas = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    divergences = reference_families.gaussian_divergences(truth, 1.0, design, 1.0)
    nats = np.array([divergences(theta) for theta in thetas])
    leads = np.subtract(*(np.array(intercept)[:, None] + slope[:, None] * (design @ thetas.T)))
    seen, roots = [], [0.0, *sorted(answer.mixed[:, 1]), 1.0]
    for s in np.linspace(0.01, 0.99, 99):
        weights = (1 - exploration) * np.array([1 - s, s]) + exploration / 2
        seen.append((s, leads[(nats @ weights).argmin()]))
    clear = [(s, lead) for s, lead in seen if abs(lead) > 0.05 * np.abs(leads).max()]
    for start, stop in itertools.pairwise(roots):
        assert len({lead > 0 for s, lead in clear if start + 0.02 < s < stop - 0.02}) <= 1, (start, stop)
    if answer.status == "solved":
        for side in (0, 1):
            assert answer.rationalizable[side] or not any((lead > 0) == (side == 0) for _, lead in clear)


@pytest.mark.parametrize("num", [1, 2, 3, 4])
def test_splitting_a_parameter_changes_nothing(num):
    """Two parameters with one slope and half the range each are one parameter."""
    rng = np.random.default_rng(num)
    for _ in range(5):
        design, truth, payoff = rng.normal(size=(2, num)), rng.normal(size=2), rng.normal(size=(2, 2))
        options = {"exploration": float(rng.choice([0.0, 0.1])), "unsafe": [True, False]}
        ends = -np.ones(num), np.ones(num)
        whole = reference_families.gaussian_linear(truth, 1.0, *payoff, design, 1.0, *ends, **options)
        halves = [np.append(end, end[0] / 2) for end in ends]
        for end in halves:
            end[0] /= 2
        split = np.column_stack([design, design[:, 0]])
        assert_equal(whole, reference_families.gaussian_linear(truth, 1.0, *payoff, split, 1.0, *halves, **options))


# Projections


def test_project_by_hand():
    """Sycophancy: clip(σ_S p_S + σ_H (1 − p_H)); one logit: the mean; a Gaussian: least squares, then at the bound."""
    bernoulli = reference_families.affine_bernoulli_divergences(laws(0.7, 0.9), [0, 1], [[1], [-1]])
    for upper, expected in ((1.0, 0.28), (0.2, 0.2)):
        theta, value = reference_families.project(bernoulli, [0.3, 0.7], [0], [upper])
        np.testing.assert_allclose(theta, [expected], rtol=0, atol=1e-5)
        exact = reference.divergence(laws(0.7, 0.9), laws(expected, 1 - expected)) @ [0.3, 0.7]
        assert abs(value - exact) < 1e-12
    logit = reference_families.categorical_divergences(laws(0.7, 0.2), [[0, 0], [0, 0]], [[[0], [1]], [[0], [1]]])
    theta, value = reference_families.project(logit, [0.5, 0.5], [-3], [3])
    np.testing.assert_allclose(expit(theta), [0.45], rtol=0, atol=1e-5)
    exact = reference.divergence(laws(0.7, 0.2), laws(0.45, 0.45)) @ [0.5, 0.5]
    assert abs(value - exact) < 1e-12
    demand = reference_families.gaussian_divergences([34, 2], 1.0, [[1, -2], [1, -10]], 2.0)
    theta, value = reference_families.project(demand, [35 / 36, 1 / 36], [33, 3], [40, 3.5])
    np.testing.assert_allclose(theta, [40, 10 / 3], rtol=0, atol=1e-4)
    square = 1 + 35 / 36 * (2 / 3) ** 2 + 1 / 36 * (14 / 3) ** 2
    assert abs(value - (np.log(2) + square / 8 - 0.5)) < 1e-10
    theta, value = reference_families.project(demand, [0.5, 0.5], [0, 0], [50, 50])
    np.testing.assert_allclose(theta, [42, 4], rtol=0, atol=1e-3)
    assert abs(value - (np.log(2) + 1 / 8 - 0.5)) < 1e-10


def test_projections_agree():
    """At a mixed equilibrium the general-purpose minimum makes both actions equally good, poles at the bounds too."""
    rng, found = np.random.default_rng(3), 0
    for _ in range(16):
        num = int(rng.integers(1, 4))
        slope, truth = rng.dirichlet(np.ones(num + 1), size=2)[:, :num], rng.random(2)
        middle = slope @ rng.random(num)
        payoffs = np.stack([np.zeros(2), rng.normal(size=2)], axis=1)
        payoffs[1] += payoffs[0, 1] * middle[0] - payoffs[1, 1] * middle[1]
        answer = reference_families.affine_bernoulli_box(
            laws(*truth), payoffs, [0, 0], slope, np.zeros(num), np.ones(num)
        )
        divergences = reference_families.affine_bernoulli_divergences(laws(*truth), [0, 0], slope)
        for sigma in answer.mixed:
            theta, _ = reference_families.project(divergences, sigma, np.zeros(num), np.ones(num), starts=1)
            gain = payoffs[:, 0] + (payoffs[:, 1] - payoffs[:, 0]) * (slope @ theta)
            assert abs(gain[0] - gain[1]) < 1e-5 * np.abs(payoffs).max()
            found += 1
    assert found > 3


def test_divergences_and_infinities():
    """The three against plain sums; 0·∞ = 0; what is refuted everywhere has no projection."""
    bernoulli = reference_families.affine_bernoulli_divergences(laws(0.3, 0.0), [0, 0], [[1, 0], [0, 1]])
    np.testing.assert_allclose(bernoulli([0.4, 0.5]), [0.3 * np.log(0.75) + 0.7 * np.log(7 / 6), np.log(2)])
    assert bernoulli([0.0, 0.0]).tolist() == [np.inf, 0.0]
    theta, value = reference_families.project(bernoulli, [0.0, 1.0], [0, 0], [0, 1])
    assert value == 0.0 and theta.tolist() == [0.0, 0.0]
    with pytest.raises(ValueError, match="refutes every parameter"):
        reference_families.project(bernoulli, [0.5, 0.5], [0, 0], [0, 1])
    table = reference_families.categorical_divergences([[0.5, 0.5, 0.0]], [[0, 0, 0]], [[[0], [1], [2]]])
    np.testing.assert_allclose(table([0.0]), [np.log(1.5)])
    gaussian = reference_families.gaussian_divergences([1.0], 2.0, [[1.0]], 2.0)
    np.testing.assert_allclose(gaussian([3.0]), [0.5])


@pytest.mark.parametrize(("change", "message"), [
    ({"payoffs": [[0, 1]]}, r"must be \[A, 2\]"),
    ({"slope": [1, -1]}, "slope must be finite, with 2 dimension"),
    ({"upper": [1, 1]}, r"must be \[A\], \[A, D\], \[D\], \[D\]"),
    ({"lower": [2]}, "bounds must be ordered"),
    ({"upper": [1.5]}, r"must stay in \[0, 1\]"),
    ({"exploration": 2.0}, "exploration must be in"),
    ({"unsafe": [True]}, "one entry per action"),
])  # fmt: skip
def test_what_is_wrong_is_refused(change, message):
    call = {"outcome_probs": laws(0.7, 0.8), "payoffs": [[0, 1], [0, 1]], **SYCOPHANCY, "lower": [0], "upper": [1]}
    with pytest.raises(ValueError, match=message):
        reference_families.affine_bernoulli_box(**{**call, **change})


def test_a_standard_deviation_is_positive():
    with pytest.raises(ValueError, match="standard deviations must be positive"):
        reference_families.gaussian_divergences([0.0], 0.0, [[1.0]], 1.0)
