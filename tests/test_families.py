"""The families of subjective models: what they predict, what is refused, and projections on boxes against SciPy."""

from collections.abc import Callable
from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.special import softmax
from scipy.stats import norm

import epijax as ej
from epijax import reference_families as families
from epijax.projection import divergences
from epijax.response import utilities

HALF = [[0.5, 0.5], [0.5, 0.5]]


def draw(family: str, seed: int, count: int, num_actions: int, dimensions: int) -> dict[str, np.ndarray]:
    """The numbers of random problems, `[count, ...]` each; of projections, many lie on a face of the box."""
    rng = np.random.default_rng([seed, num_actions, dimensions])
    lower = rng.uniform(-2, 0, (count, dimensions))
    box = {"lower": lower, "upper": lower + rng.uniform(0.1, 3, (count, dimensions))}
    sides = (count, num_actions)
    slope = rng.normal(size=(*sides, dimensions)) * (rng.random((*sides, dimensions)) < 0.8)
    if family == "gaussian":
        names = ("mean", "payoff_intercept", "payoff_slope")
        stds = {name: rng.uniform(0.3, 2, count) for name in ("noise_std", "model_std")}
        return box | stds | {"design": slope} | {name: rng.normal(size=sides) for name in names}
    num = 2 if family == "bernoulli" else 3
    truth = {"probs": rng.dirichlet(np.ones(num), sides), "payoffs": rng.normal(size=(*sides, num))}
    if family == "bernoulli":
        ends = np.stack([slope * box[end][:, None] for end in box])
        slope *= (rng.uniform(0.2, 1, sides) / np.maximum(np.ptp(ends, axis=0).sum(-1), 1e-3))[..., None]
        ends = np.stack([slope * box[end][:, None] for end in box])
        intercept = rng.uniform(-ends.min(0).sum(-1), 1 - ends.max(0).sum(-1))
        return box | truth | {"intercept": intercept, "slope": slope}
    return box | truth | {"base": rng.normal(size=(*sides, num)), "tilt": rng.normal(size=(*sides, num, dimensions))}


def build(family: str, n: dict) -> ej.Problem:
    box = n["lower"], n["upper"]
    if family == "gaussian":
        truth = ej.GaussianEnvironment(n["mean"], n["noise_std"], n["payoff_intercept"], n["payoff_slope"])
        return ej.Problem(truth, ej.GaussianLinear(n["design"], n["model_std"], *box))
    model = {
        "bernoulli": lambda: ej.AffineBernoulli(n["intercept"], n["slope"], *box),
        "categorical": lambda: ej.Categorical(n["base"], n["tilt"], *box),
        "custom": lambda: ej.Custom(lambda theta: jax.nn.log_softmax(n["base"] + n["tilt"] @ theta, axis=-1), *box),
    }[family]()
    return ej.Problem(ej.Environment(n["probs"], n["payoffs"]), model)


def slope_and_judge(family: str, n: dict, sigma: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, Callable]:
    """∂K(σ, θ)/∂θ by hand, and the divergences of the reference."""
    if family == "gaussian":
        missed = (n["design"] @ theta - n["mean"]) / n["model_std"] ** 2
        judge = families.gaussian_divergences(n["mean"], n["noise_std"], n["design"], n["model_std"])
        return sigma * missed @ n["design"], judge
    if family == "bernoulli":
        p, q = n["intercept"] + n["slope"] @ theta, n["probs"][:, 1]
        judge = families.affine_bernoulli_divergences(n["probs"], n["intercept"], n["slope"])
        return sigma * ((1 - q) / (1 - p) - q / p) @ n["slope"], judge
    logits = n["base"] + n["tilt"] @ theta
    excess = sigma[:, None] * (softmax(logits, axis=1) - n["probs"])
    return np.einsum("xy,xyd->d", excess, n["tilt"]), families.categorical_divergences(n["probs"], n["base"], n["tilt"])


@pytest.mark.parametrize(
    ("family", "dimensions"),
    [("bernoulli", d) for d in (1, 3, 8)] + [("categorical", 2), ("categorical", 7), ("gaussian", 2), ("custom", 1)],
)
def test_projections_are_certified_and_those_of_scipy(family, dimensions):
    """K is convex, so that no θ is better by more than what its slope at the answer promises over the box."""
    count, judged = (2000, 20) if dimensions <= 3 else (500, 3)
    many = draw(family, 0, count, 3, dimensions)
    sigmas = np.random.default_rng(dimensions).dirichlet(np.ones(3), count)
    found = jax.jit(jax.vmap(lambda n, sigma: ej.best_fit(build(family, n), sigma)))(many, sigmas)
    thetas, values = np.asarray(found.theta), np.asarray(found.value)
    assert found.converged.all()
    assert (found.agreement > 0.99).all()
    assert ((thetas >= many["lower"]) & (thetas <= many["upper"])).all()
    assert np.mean(np.isin(thetas, [many["lower"], many["upper"]]).any(axis=1)) > 0.1
    for i, (sigma, theta) in enumerate(zip(sigmas, thetas, strict=True)):
        numbers = {name: values[i] for name, values in many.items()}
        slope, judge = slope_and_judge(family, numbers, sigma, theta)
        promised = np.maximum(slope * (theta - numbers["lower"]), slope * (theta - numbers["upper"])).sum()
        assert promised <= 1e-8
        assert abs(sigma @ judge(theta) - values[i]) < 1e-12
        if i < judged:
            _, theirs = families.project(judge, sigma, numbers["lower"], numbers["upper"], starts=2)
            assert abs(values[i] - theirs) < 1e-8


def closed_form(family: str, truth: np.ndarray, bounds: tuple) -> tuple[ej.Problem, jax.Array]:
    """A parameter of its own for each of two actions, which two outcomes, or a mean, tell by themselves."""
    own, none = np.eye(2), np.zeros((2, 2))
    if family == "gaussian":
        environment = ej.GaussianEnvironment(4 * truth - 2, 0.7, [0, 0], [1, 1])
        return ej.Problem(environment, ej.GaussianLinear(own, 1.3, *bounds)), jnp.clip(4 * truth - 2, *bounds)
    environment = ej.Environment(jnp.stack([1 - truth, truth], axis=1), HALF)
    if family == "bernoulli":
        return ej.Problem(environment, ej.AffineBernoulli([0, 0], own, *bounds)), jnp.clip(truth, *bounds)
    tilt = np.stack([none, own], axis=1)
    model = {
        "categorical": lambda: ej.Categorical(none, tilt, *bounds),
        "custom": lambda: ej.Custom(lambda theta: jax.nn.log_softmax(tilt @ theta, axis=-1), *bounds),
    }[family]()
    return ej.Problem(environment, model), jnp.clip(jnp.log(truth / (1 - truth)), *bounds)


@pytest.mark.parametrize(
    ("family", "count"), [("bernoulli", 2000), ("categorical", 2000), ("gaussian", 2000), ("custom", 100)]
)
def test_projections_are_the_closed_forms_where_there_are_some(family, count):
    rng = np.random.default_rng(3)
    truth, weights = rng.uniform(0.02, 0.98, (count, 2)), rng.dirichlet([1, 1], count)
    ends = (0, 1) if family == "bernoulli" else (-2, 2)
    lower, upper = np.sort(rng.uniform(*ends, (2, count, 2)), axis=0)

    def both(truth, lower, upper, sigma):
        problem, expected = closed_form(family, truth, (lower, upper))
        return ej.best_fit(problem, sigma).theta, expected

    found, expected = jax.jit(jax.vmap(both))(truth, lower, upper, weights)
    seen = weights.min(axis=1) > 1e-3
    np.testing.assert_allclose(found[seen], expected[seen], rtol=0, atol=1e-12)
    assert 0.2 < np.mean((expected > lower) & (expected < upper)) < 0.8


def test_lines_through_overlapping_actions_are_those_of_least_squares():
    rng = np.random.default_rng(4)
    mean, design, weights = rng.normal(size=(2000, 4)), rng.normal(size=(2000, 4, 2)), rng.dirichlet(np.ones(4), 2000)

    def fit(mean, design, sigma):
        environment = ej.GaussianEnvironment(mean, 1.0, np.zeros(4), np.ones(4))
        return ej.best_fit(ej.Problem(environment, ej.GaussianLinear(design, 1.0, -20, 20)), sigma).theta

    root = np.sqrt(weights)
    expected = np.stack(
        [np.linalg.lstsq(r[:, None] * d, r * m, rcond=None)[0] for r, d, m in zip(root, design, mean, strict=True)]
    )
    clear = (np.linalg.cond(root[:, :, None] * design) < 30) & (np.abs(expected) < 20).all(axis=1)
    np.testing.assert_allclose(
        jax.jit(jax.vmap(fit))(mean, design, weights)[clear], expected[clear], rtol=1e-9, atol=1e-10
    )


def test_predictions_and_payoffs_by_hand():
    theta = jnp.array([0.3, 0.2])
    truth = ej.Environment([[0.4, 0.6], [0.9, 0.1]], [[1.0, 3.0], [0.0, 2.0]])
    bernoulli = ej.AffineBernoulli([0.1, 0.5], [[1.0, 1.0], [0.0, -1.0]], 0.0, 0.4)
    np.testing.assert_allclose(bernoulli.probs(theta), [[0.4, 0.6], [0.7, 0.3]])
    np.testing.assert_allclose(utilities(truth, bernoulli, theta), [0.4 + 1.8, 0.6])
    expected = [0, 0.9 * np.log(0.9 / 0.7) + 0.1 * np.log(0.1 / 0.3)]
    np.testing.assert_allclose(divergences(truth, bernoulli, theta), expected, atol=1e-15)

    logits = ej.Categorical(np.log(truth.outcome_probs), np.zeros((2, 2, 2)), -1.0, 1.0)
    np.testing.assert_allclose(divergences(truth, logits, theta), [0, 0], atol=1e-15)

    gauss = ej.GaussianEnvironment([1.0, 2.0], 0.5, [0.0, 1.0], [2.0, -1.0])
    linear = ej.GaussianLinear([[1.0, 0.0], [1.0, 5.0]], 2.0, -3.0, 3.0)
    np.testing.assert_allclose(utilities(gauss, linear, theta), [0.6, 1 - 1.3])
    grid = np.linspace(-30, 30, 200_001)
    for x, believed in enumerate((0.3, 1.3)):
        true, other = norm(gauss.mean[x], 0.5), norm(believed, 2.0)
        integral = np.trapezoid(true.pdf(grid) * (true.logpdf(grid) - other.logpdf(grid)), grid)
        np.testing.assert_allclose(divergences(gauss, linear, theta)[x], integral, rtol=1e-9)


def test_logits_far_apart_are_no_infinity():
    truth = ej.Environment([[0.5, 0.5], [0.5, 0.5]], HALF)
    model = ej.Categorical([[0.0, 0.0], [0.0, 0.0]], [[[0.0], [-2000.0]], [[0.0], [0.0]]], 0.0, 1.0)
    np.testing.assert_allclose(divergences(truth, model, jnp.ones(1))[0], 0.5 * np.log(0.5) * 2 + 1000, rtol=1e-12)


@pytest.mark.parametrize("family", ["bernoulli", "categorical", "gaussian"])
def test_gradients_of_the_projection_are_those_of_finite_differences(family):
    def moved(by, n, ways):
        if family == "gaussian":
            n = n | {"mean": n["mean"] + by * ways[0]}
        else:
            probs = n["probs"] * jnp.exp(by * ways[0][:, None] * jnp.arange(n["probs"].shape[1]))
            n = n | {"probs": probs / jnp.sum(probs, axis=1, keepdims=True)}
        if family == "bernoulli":  # room for the bounds to move
            n = n | {"intercept": 0.9 * n["intercept"] + 0.05, "slope": 0.9 * n["slope"]}
        n = n | {"lower": n["lower"] + 0.01 * by * ways[1], "upper": n["upper"] + 0.01 * by * ways[2]}
        return ej.best_fit(build(family, n), [0.35, 0.65]).theta

    plain, forward, reverse = jax.jit(moved), jax.jit(jax.jacfwd(moved)), jax.jit(jax.jacrev(moved))
    step, free = 1e-5, 0
    many = draw(family, 0, 20, 2, 2)
    for seed in range(20):
        numbers = {name: values[seed] for name, values in many.items()}
        ways = np.random.default_rng(seed).normal(size=(3, 2))
        numerical = (plain(step, numbers, ways) - plain(-step, numbers, ways)) / (2 * step)
        np.testing.assert_allclose(forward(0.0, numbers, ways), numerical, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(reverse(0.0, numbers, ways), forward(0.0, numbers, ways), rtol=1e-9, atol=1e-12)
        free += bool(np.abs(numerical).max() > 0.1)
    assert free > 3


def test_what_play_leaves_open_is_a_set():
    truth = ej.Environment([[0.3, 0.7], [0.6, 0.4]], HALF)
    own = ej.AffineBernoulli([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], [0.0, 0.2], [1.0, 0.9])
    found = ej.best_fit(ej.Problem(truth, own), [1.0, 0.0])
    points = np.asarray(found.extremes)
    points = points[~np.isnan(points).any(axis=1)]
    np.testing.assert_allclose(points[:, 0], 0.7, atol=1e-12)
    assert sorted(set(points[1:, 1].round(12))) == [0.2, 0.9]
    both = ej.best_fit(ej.Problem(truth, own), [0.5, 0.5])
    assert np.nanmax(np.abs(both.extremes - jnp.array([0.7, 0.4]))) < 1e-12
    explored = ej.best_fit(ej.Problem(truth, own, exploration=0.01), [1.0, 0.0])
    assert np.nanmax(np.abs(explored.extremes - jnp.array([0.7, 0.4]))) < 1e-9

    # one direction of three is identified: of the slice a + b + c = 1.2 through the cube, six corners
    sums = ej.GaussianLinear([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], 1.0, 0.0, 1.0)
    cut = ej.best_fit(ej.Problem(ej.GaussianEnvironment([1.2, 0.0], 1.0, [0, 0], [1, 1]), sums), [1.0, 0.0])
    corners = {tuple(row) for row in np.asarray(cut.extremes[1:]).round(9) if not np.isnan(row).any()}
    assert corners == set(permutations((0, 0.2, 1)))


@pytest.mark.parametrize("family", ["bernoulli", "gaussian"])
def test_what_many_parameters_leave_open_ends_where_linear_programs_say(family):
    many = draw(family, 2, 40, 3, 9)
    sigmas = np.eye(3)[np.arange(40) % 3]
    sigmas[:5] = [0.3, 0.7, 0.0]
    found = jax.jit(jax.vmap(lambda n, sigma: ej.best_fit(build(family, n), sigma)))(many, sigmas)
    assert found.converged.all()
    rows = many["slope" if family == "bernoulli" else "design"]
    for i, sigma in enumerate(sigmas):
        played = rows[i][sigma > 0]
        bounds = list(zip(many["lower"][i], many["upper"][i], strict=True))
        for row in rows[i]:
            for sign in (1, -1):
                program = linprog(sign * row, A_eq=played, b_eq=played @ found.theta[i], bounds=bounds)
                furthest = np.min(sign * np.asarray(found.extremes[i]) @ row)
                np.testing.assert_allclose(furthest, program.fun, rtol=0, atol=1e-7)
    apart = np.einsum("nad,nvd->nva", rows, found.extremes - found.theta[:, None])
    assert np.max(np.abs(apart) * (sigmas[:, None] > 0)) < 1e-7
    np.testing.assert_array_equal(found.single, np.abs(apart).max(axis=(1, 2)) < 1e-6)
    assert np.mean(~found.single) > 0.5


@pytest.mark.parametrize("family", ["bernoulli", pytest.param("categorical", marks=pytest.mark.slow), "custom"])
def test_a_parameter_split_into_several_predicts_the_same(family):
    """θ = mean of four new ones for each of two: eight parameters, of which play identifies two at most."""
    many = draw(family, 5, 10, 2, 2)
    sigmas = np.random.default_rng(5).dirichlet([1, 1], 10)
    split = {name: np.repeat(values, 4, axis=-1) for name, values in many.items() if name in ("lower", "upper")}
    names = {"slope", "design", "tilt"} & many.keys()
    split |= {name: np.repeat(many[name], 4, axis=-1) / 4 for name in names}
    few, lots = (
        jax.jit(jax.vmap(lambda n, sigma: ej.best_fit(build(family, n), sigma)))(numbers, sigmas)
        for numbers in (many, many | split)
    )
    assert lots.converged.all()
    np.testing.assert_allclose(lots.value, few.value, rtol=0, atol=1e-12)
    np.testing.assert_allclose(lots.theta.reshape(10, 2, 4).mean(axis=2), few.theta, atol=1e-6)


def test_a_family_that_is_not_convex_is_searched_and_told_apart():
    """P(1|x) = a wave in θ with two lowest points of its divergence: both are found."""
    truth = ej.Environment([[0.2, 0.8], [0.5, 0.5]], HALF)

    def log_prob(theta):
        p = 0.5 + 0.45 * jnp.sin(theta[0])
        return jnp.log(jnp.stack([jnp.stack([1 - p, p]), jnp.array([0.5, 0.5])]))

    found = ej.best_fit(ej.Problem(truth, ej.Custom(log_prob, 0.0, 2 * np.pi)), [1.0, 0.0])
    first = np.arcsin(0.3 / 0.45)
    points = np.unique(np.asarray(found.extremes[~np.isnan(found.extremes[:, 0])]).round(6))
    np.testing.assert_allclose(points, [first, np.pi - first], atol=2e-6)
    assert 0.5 < found.agreement < 1
    np.testing.assert_allclose(found.value, 0, atol=1e-12)


REFUSED = {
    "reversed bounds": (lambda: ej.AffineBernoulli([0, 0], [[1.0, 0], [0, 1.0]], [0, 0.8], [1, 0.2]), "lower=.*0.8"),
    "infinite bounds": (lambda: ej.GaussianLinear([[1.0], [2.0]], 1.0, -np.inf, 1.0), "must be finite"),
    "leaves [0, 1]": (lambda: ej.AffineBernoulli([0, 0], [[1.0, 0.5], [0, 1.0]], 0.0, 0.8), r"\[0, 0\] is -0.2"),
    "bounds of another length": (lambda: ej.Categorical(HALF, np.ones((2, 2, 2)), [0, 0, 0], 1), "each of the 2"),
    "no noise": (lambda: ej.GaussianLinear([[1.0], [2.0]], 0.0, 0.0, 1.0), "must be positive"),
    "shape of log_prob": (lambda: ej.Custom(lambda theta: theta, 0.0, 1.0), r"\[actions, outcomes\]"),
    "not normalised": (lambda: ej.Custom(lambda theta: jnp.zeros((2, 2)) * theta, 0.0, 1.0), "sum to .2. 2.. in prob"),
    "impossible action": (lambda: ej.Categorical([[-np.inf] * 2, [0, 0]], np.zeros((2, 2, 1)), 0, 1), "above −∞"),
    "kinds of outcome": (
        lambda: ej.Problem(ej.Environment(HALF, HALF), ej.GaussianLinear([[1.0], [2.0]], 1.0, 0.0, 1.0)),
        "go together",
    ),
    "numbers of outcomes": (
        lambda: ej.Problem(ej.Environment(HALF, HALF), ej.Categorical(np.zeros((2, 3)), np.zeros((2, 3, 1)), 0, 1)),
        r"\[2, 3\].*\[2, 2\]",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_family_is_refused_with_the_place(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make()
