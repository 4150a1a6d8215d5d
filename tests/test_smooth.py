"""Logit equilibria: fixed points judged by NumPy, derivatives by three other ways, limits by the solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from scipy.optimize import brentq
from scipy.special import softmax

import epijax as ej
from epijax.smooth import Branch


def random_tables(seed: int, *sizes: int) -> tuple[np.ndarray, np.ndarray]:
    """U and K of random truths, payoffs and beliefs with three outcomes, `[..., A, K]`; sizes are `..., A, K`."""
    rng = np.random.default_rng(seed)
    *cells, num_actions, num = sizes
    truth = rng.dirichlet(np.ones(3), (*cells, num_actions, 1))
    beliefs = rng.dirichlet(np.ones(3), (*cells, num_actions, num))
    utility = np.einsum("...aky,...ay->...ak", beliefs, rng.uniform(size=(*cells, num_actions, 3)))
    return utility, np.sum(truth * np.log(truth / beliefs), axis=-1)


def response(utility, divergence, temperature, observations, strategy, log_prior=0.0):
    """G(σ), by SciPy."""
    return softmax(utility @ softmax(log_prior - observations * (strategy @ divergence)) / temperature)


def vmapped(function):
    """Of arrays with cells first, at once; answers in NumPy, which is quicker to walk through."""
    return lambda *leaves: jax.tree.map(np.asarray, jax.jit(jax.vmap(function))(*leaves))


def principal(utility, divergence, temperature, observations, log_prior=None):
    tables = ej.FiniteProblem(utility, divergence)
    none = np.zeros((0, len(utility)))
    found = ej.logit_equilibria(tables, temperature, observations, none, log_prior=log_prior)
    return found.strategy[-1]


@pytest.mark.parametrize(
    ("num_actions", "num"),
    [(2, 9), (4, 32), (6, 8), *(pytest.param(*few, marks=pytest.mark.slow) for few in [(3, 17), (5, 8)])],
)
def test_every_start_leads_to_a_fixed_point(num_actions, num):
    tables = random_tables(0, 400, num_actions, num)
    blunt = np.arange(400) % 2 == 0
    sharpness = np.where(blunt, 0.1, 0.02), np.where(blunt, 10.0, 100.0)
    found = vmapped(lambda u, d, *sharp: ej.logit_equilibria(ej.FiniteProblem(u, d), *sharp))(*tables, *sharpness)
    assert found.strategy.shape == (400, num_actions + 1, num_actions)
    assert (found.status == Branch.SOLVED).all()
    for u, d, *sharp, strategies, residuals in zip(*tables, *sharpness, found.strategy, found.residual, strict=True):
        for strategy, residual in zip(strategies, residuals, strict=True):
            off = np.abs(response(u, d, *sharp, strategy) - strategy).max()
            assert off < 1e-10
            assert abs(off - residual) < 1e-12


def test_of_two_actions_the_branches_are_among_all_roots():
    tables = random_tables(1, 100, 2, 12)
    found = vmapped(lambda u, d: ej.logit_equilibria(ej.FiniteProblem(u, d), 0.01, 60.0))(*tables)
    grid = np.concatenate([np.geomspace(1e-12, 1e-3, 500), np.linspace(1e-3, 1 - 1e-3, 4001)])
    grid = np.unique(np.concatenate([[0.0], grid, 1 - grid, [1.0]]))
    several = 0
    for u, d, strategy in zip(*tables, found.strategy, strict=True):

        def rise(share, u=u, d=d):
            return response(u, d, 0.01, 60.0, np.array([share, 1 - share]))[0] - share

        beliefs = softmax(-60.0 * np.stack([grid, 1 - grid], axis=1) @ d, axis=1)
        signs = softmax(beliefs @ u.T / 0.01, axis=1)[:, 0] - grid
        roots = [
            brentq(rise, low, high, xtol=1e-15)
            for low, high, below, above in zip(grid, grid[1:], signs, signs[1:], strict=False)
            if below * above <= 0
        ]
        several += len(roots) > 1
        for share in strategy[:, 0]:
            assert np.abs(np.array(roots) - share).min() < 1e-8
        # the flow from a pure strategy is monotone, so it ends at the root nearest to it
        np.testing.assert_allclose(strategy[:2, 0], [max(roots), min(roots)], atol=1e-8)
    assert several > 5


def test_the_prior_counts_here():
    problem = ej.models.sycophancy(0.7, 0.7)
    away = ej.logit_equilibria(problem, 0.05, 2.0, log_prior=ej.priors.beta(problem.model, 2.0, 8.0, 65))
    towards = ej.logit_equilibria(problem, 0.05, 2.0, log_prior=ej.priors.beta(problem.model, 8.0, 2.0, 65))
    assert float(towards.strategy[-1, 0] - away.strategy[-1, 0]) > 0.5
    assert float(ej.logit_equilibria(problem, 0.05, 0.0).residual.max()) < 1e-10  # without observations, of the prior


# Derivatives


def test_implicit_unrolled_and_finite_differences_agree():
    """On 300 problems: towards random directions in U, K, prior, τ and N, forward and reverse."""
    count, num_actions, num = 300, 3, 8
    utility, divergence = random_tables(2, count, num_actions, num)
    rng = np.random.default_rng(3)
    given = (utility, divergence, np.full(count, 0.1), np.full(count, 10.0), np.zeros((count, num)))
    towards = tuple(
        rng.normal(size=np.shape(leaf)) * scale for leaf, scale in zip(given, (1, 1, 0.1, 1, 1), strict=True)
    )
    weights = jnp.array([1.0, -2.0, 0.5])

    def value(*leaves):
        return principal(*leaves) @ weights

    def unrolled(utility, divergence, temperature, observations, log_prior):
        def step(strategy, _):
            belief = jax.nn.softmax(log_prior - observations * (strategy @ divergence))
            return strategy + 0.2 * (jax.nn.softmax(utility @ belief / temperature) - strategy), None

        return jax.lax.scan(step, jnp.full(num_actions, 1 / num_actions), length=3000)[0] @ weights

    def forward(function, leaves, directions):
        return jax.jvp(function, leaves, directions)[1]

    def reverse(leaves, directions):
        gradients = jax.grad(value, argnums=tuple(range(5)))(*leaves)
        return sum(jnp.sum(g * d) for g, d in zip(gradients, directions, strict=True))

    one = jax.jit(jax.vmap(lambda *args: forward(value, args[:5], args[5:])))(*given, *towards)
    other = jax.jit(jax.vmap(lambda *args: reverse(args[:5], args[5:])))(*given, *towards)
    np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-11)
    iterated = jax.jit(jax.vmap(lambda *args: forward(unrolled, args[:5], args[5:])))(*given, *towards)
    settled = np.abs(jax.vmap(unrolled)(*given) - jax.vmap(value)(*given)) < 1e-11
    assert settled.sum() > 280, "of a cycle nothing can be unrolled"
    np.testing.assert_allclose(one[settled], iterated[settled], rtol=1e-6, atol=1e-8)
    values = jax.jit(jax.vmap(value))

    def difference(step):
        up, down = (
            values(*(leaf + sign * step * d for leaf, d in zip(given, towards, strict=True))) for sign in (1, -1)
        )
        return (up - down) / (2 * step)

    # two central differences, extrapolated, are good to the fourth power of the step
    measured = (4 * difference(1e-4) - difference(2e-4)) / 3
    off = np.abs(measured - one) / np.maximum(np.abs(one), 1e-2)
    assert (off < 1e-6).sum() >= 295, np.sort(off)[-10:]


def test_higher_derivatives_are_implicit_too():
    utility, divergence = random_tables(4, 3, 6)

    def value(temperature):
        return principal(utility, divergence, temperature, 10.0)[0]

    slopes = [jax.grad(value)(0.1 + step) for step in (1e-5, -1e-5)]
    np.testing.assert_allclose(jax.grad(jax.grad(value))(0.1), (slopes[0] - slopes[1]) / 2e-5, rtol=1e-6)


def test_at_a_fold_there_is_a_status_and_no_derivative():
    """Symmetric: uniform play is a fixed point whatever N, and loses its stability at N = N_c."""
    utility, divergence = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.0, 1.0], [1.0, 0.0]])

    def found(observations):
        return ej.logit_equilibria(ej.FiniteProblem(utility, divergence), 1.0, observations, [[0.5, 0.5]])

    # the share s of the first action believes in the first parameter with logistic(N(2s − 1)), and so plays it with
    # logistic(2·that − 1): slope at ½ is N/2·(2/4)
    before, fold, after = (found(n) for n in (3.9, 4.0, 4.1))
    assert [int(each.status[0]) for each in (before, fold, after)] == [Branch.SOLVED, Branch.FOLD, Branch.SOLVED]
    assert float(before.residual[0]) < 1e-12
    assert float(before.sensitivity[0]) > 10

    def slope(observations):
        moved = lambda x: ej.logit_equilibria(  # noqa: E731
            ej.FiniteProblem(utility + x * jnp.array([[1.0], [0.0]]), divergence), 1.0, observations, [[0.5, 0.5]]
        ).strategy[0, 0]
        return float(jax.grad(moved)(0.0))

    assert slope(3.9) > 5
    assert np.isnan(slope(4.0))
    np.testing.assert_allclose(slope(2.0), 0.25 / (1 - 0.5), rtol=1e-9)


# Limits


def test_sharp_branches_are_berk_nash_equilibria_and_all_stable_ones_are_reached():
    utility, divergence = random_tables(5, 130, 3, 6)
    strict = near = 0
    for u, d in zip(utility, divergence, strict=True):
        tables = ej.FiniteProblem(u, d)
        solution = ej.solve(tables)
        if float(solution.margin) < 0.01:
            continue
        found = ej.logit_equilibria(tables, 2e-4, 1e5)
        strategies = np.asarray(found.strategy)[np.asarray(found.status) < Branch.UNSOLVED]
        exact = np.concatenate([np.eye(3)[np.asarray(solution.pure)], solution.mixed[: int(solution.num_mixed)]])
        stable = ej.rest_points(tables)
        for strategy in strategies:
            assert np.abs(exact - strategy).max(1).min() < 0.02
            near += 1
        for strategy, kind in zip(stable.strategy, stable.kind, strict=True):
            if kind == ej.Rest.ATTRACTING:
                assert np.abs(strategies - strategy).max(1).min() < 0.02
                strict += 1
    assert near > 150
    assert strict > 40


def test_sycophancy_tends_to_its_equilibria():
    both = ej.logit_equilibria(ej.models.sycophancy(0.7, 0.7), 0.005, 5000.0, num=257)
    np.testing.assert_allclose(both.strategy[:2, 0], [1, 0], atol=1e-6)
    cycling = ej.logit_equilibria(ej.models.sycophancy(0.3, 0.2), 0.005, 5000.0, num=257)
    np.testing.assert_allclose(cycling.strategy[:, 0], 0.6, atol=0.02)
    assert int(both.worst((True, False))) == 0
    assert int(both.worst((False, True))) == 1


# Batches, devices, precision


def test_a_cell_alone_in_a_batch_and_on_devices_is_the_same():
    utility, divergence = random_tables(6, 130, 3, 8)

    def solve(u, d):
        return ej.logit_equilibria(ej.FiniteProblem(u, d), 0.02, 100.0).strategy

    def total(u, d):
        strategies = jax.vmap(solve)(u, d)
        return jnp.sum(strategies[..., 0] ** 2), strategies

    def shared_total(u, d):
        part, strategies = total(u, d)
        return jax.lax.psum(part, "cells"), strategies

    (_, many), slope = jax.jit(jax.value_and_grad(total, has_aux=True))(utility, divergence)
    for i in (0, 64, 129):
        np.testing.assert_allclose(many[i], solve(utility[i], divergence[i]), atol=1e-10)
    grid = jax.vmap(jax.vmap(solve))(utility.reshape(10, 13, 3, 8), divergence.reshape(10, 13, 3, 8))
    np.testing.assert_allclose(grid.reshape(many.shape), many, atol=1e-10)
    mesh, split = Mesh(np.array(jax.devices()[:2]), ("cells",)), PartitionSpec("cells")
    shared = jax.shard_map(shared_total, mesh=mesh, in_specs=split, out_specs=(PartitionSpec(), split), check_vma=False)
    (_, on_devices), its_slope = jax.jit(jax.value_and_grad(shared, has_aux=True))(utility, divergence)
    np.testing.assert_allclose(on_devices, many, atol=1e-10)
    np.testing.assert_allclose(its_slope, slope, atol=1e-9)


def test_single_precision():
    utility, divergence = (np.asarray(leaf, np.float32) for leaf in random_tables(7, 300, 4, 16))

    def solve(u, d):
        return ej.logit_equilibria(ej.FiniteProblem(u, d), 0.1, 10.0)

    with jax.enable_x64(False):
        found = jax.jit(jax.vmap(solve))(utility, divergence)
        assert found.strategy.dtype == np.float32
    double = jax.jit(jax.vmap(solve))(utility.astype(float), divergence.astype(float))
    assert (np.asarray(found.status) == Branch.SOLVED).mean() > 0.999
    off = np.abs(found.strategy - double.strategy).max(-1)
    assert (off < 1e-3).mean() > 0.995


# Bad input


def test_refuted_parameters_are_never_believed():
    utility, divergence = np.array([[1.0, 0.0, 9.0], [0.0, 1.0, 0.0]]), np.array([[0.0, 1.0, np.inf], [1.0, 0.0, 0.0]])
    with_it = ej.logit_equilibria(ej.FiniteProblem(utility, divergence), 0.1, 10.0)
    without = ej.logit_equilibria(ej.FiniteProblem(utility[:, :2], divergence[:, :2]), 0.1, 10.0)
    np.testing.assert_allclose(with_it.strategy, without.strategy, atol=1e-12)
    slope = jax.grad(lambda u: principal(u, divergence, 0.1, 10.0)[0])(utility)
    assert np.isfinite(slope).all()
    nobody = ej.logit_equilibria(ej.FiniteProblem(utility, np.full((2, 3), np.inf)), 0.1, 10.0)
    assert (np.asarray(nobody.status) == Branch.REFUTED).all()
    assert int(nobody.worst((True, False))) == -1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"temperature": 0.0}, "temperature must be positive and finite"),
        ({"temperature": np.array([0.1, 0.2])}, r"temperature must be one number; got \(2,\)"),
        ({"temperature": np.nan}, "temperature must be positive and finite"),
        ({"observations": -1.0}, "observations must not be negative"),
        ({"observations": np.inf}, "observations must not be negative, and finite"),
        ({"starts": np.zeros((2, 3))}, r"starts must be strategies, \[starts, 2\]; got \(2, 3\)"),
        ({"starts": [[0.5, 0.6]]}, "starts must be strategies: not negative, with sum 1"),
        ({"log_prior": np.zeros(3)}, r"log_prior must be \[65\]"),
        ({"log_prior": np.full(65, np.nan)}, "log_prior must be log weights"),
        ({"log_prior": np.full(65, -np.inf)}, "log_prior must be log weights"),
    ],
)
def test_what_has_no_logit_equilibrium_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        ej.logit_equilibria(ej.models.sycophancy(0.7, 0.6), **({"temperature": 0.1, "observations": 5.0} | asked))


def test_in_a_trace_what_is_no_problem_is_unsolved_and_harms_no_other_cell():
    tables = ej.tabulate(ej.models.sycophancy(0.7, 0.6), 17)
    temperature = jnp.array([0.1, 0.0, jnp.nan, -1.0, 1e-60, 1e-12])
    found = jax.jit(jax.vmap(lambda tau: ej.logit_equilibria(tables, tau, 100.0)))(temperature)
    alone = ej.logit_equilibria(tables, 0.1, 100.0)
    np.testing.assert_allclose(found.strategy[0], alone.strategy, atol=1e-12)
    assert (np.asarray(found.status[0]) == Branch.SOLVED).all()
    assert (np.asarray(found.status[1:4]) == Branch.UNSOLVED).all()
    assert (np.asarray(found.status[5]) == Branch.SOLVED).all()


def test_no_branch_counts_as_solved_whose_residual_is_large():
    rng = np.random.default_rng(0)
    utility, divergence = rng.normal(size=(800, 3, 17)), rng.exponential(size=(800, 3, 17))
    tables = jax.vmap(lambda u, k: ej.FiniteProblem(u, k))(utility, divergence)
    found = jax.jit(jax.vmap(lambda problem: ej.logit_equilibria(problem, 1e-6, 1e5)))(tables)
    solved = np.asarray(found.status) == Branch.SOLVED
    assert solved.mean() > 0.8
    assert np.asarray(found.residual)[solved].max() <= 1e-7
