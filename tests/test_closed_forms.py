"""The three models against the closed forms of theory §4, written again here in plain NumPy, on random parameters.

Half the draws are continuous, where ties do not happen, and half lie on a coarse grid, where they often do.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epijax as ej

UNSAFE = (True, False)
SAFE, LOCKED_IN, MULTISTABLE, OSCILLATORY, INDETERMINATE = range(5)
NUM = 120_000


class Expected(NamedTuple):
    """What theory §4 says of each draw; `slack` is the smallest scaled distance to a tie."""

    phase: np.ndarray  # [N]
    rationalizable: np.ndarray  # [N, 2]
    pure: np.ndarray  # [N, 2]
    strict: np.ndarray  # [N, 2]
    mixed: np.ndarray  # [N], the weight on the unsafe action, NaN where there is no mixed equilibrium
    slack: np.ndarray  # [N]


def sycophancy(
    p_agree, p_honest, reward_agree, reward_honest, cost_agree, cost_honest, lower, upper, exploration
) -> Expected:
    """Exploration turns the data of each action into (1−ε/2) of its own and ε/2 of the other's: K_ε is K of these."""
    theta_hat = (reward_honest - cost_honest + cost_agree) / (reward_agree + reward_honest)
    half = exploration / 2
    agree, honest = p_agree, 1 - p_honest  # the θ that each teaches
    a = np.clip((1 - half) * agree + half * honest, lower, upper)
    b = np.clip((1 - half) * honest + half * agree, lower, upper)
    agree_holds, honest_holds = a > theta_hat, b < theta_hat
    phase = np.select(
        [agree_holds & honest_holds, agree_holds, honest_holds], [MULTISTABLE, LOCKED_IN, SAFE], OSCILLATORY
    )
    pure = np.stack([agree_holds, honest_holds], -1)
    both = agree_holds == honest_holds
    with np.errstate(divide="ignore", invalid="ignore"):
        learned = (theta_hat - honest) / (agree - honest)
        mixed = np.where(both, (learned - half) / (1 - exploration), np.nan)
    payoffs = [-cost_agree, reward_agree - cost_agree, -cost_honest, reward_honest - cost_honest]
    scale = np.max(np.abs(np.broadcast_arrays(*payoffs)), axis=0)
    slack = np.minimum(np.abs(a - theta_hat), np.abs(b - theta_hat)) * (reward_agree + reward_honest) / scale
    return Expected(phase, pure | both[:, None], pure, pure, mixed, slack)


def deception(p_caught, gain, loss, safe, lower, upper, exploration) -> Expected:
    """Without exploration complying teaches nothing, with any it teaches what deceiving teaches."""
    theta_hat = (gain - safe) / (gain + loss)
    a = np.clip(p_caught, lower, upper)
    fear, hope = (np.where(exploration > 0, a, end) for end in (upper, lower))
    deceive_holds, comply_holds = a < theta_hat, fear > theta_hat
    only_comply = hope > theta_hat
    phase = np.select([only_comply, ~comply_holds, deceive_holds], [SAFE, LOCKED_IN, MULTISTABLE], INDETERMINATE)
    pure = np.stack([deceive_holds, comply_holds], -1)
    rationalizable = np.stack([~only_comply, comply_holds], -1)
    scale = np.max(np.abs(np.broadcast_arrays(gain, loss, safe)), axis=0)
    slack = np.min(np.abs([a - theta_hat, fear - theta_hat, hope - theta_hat]), axis=0) * (gain + loss) / scale
    strict = np.stack([deceive_holds, only_comply], -1)
    return Expected(phase, rationalizable, pure, strict, np.full(len(a), np.nan), slack)


def draw(names: list[str], *, seed: int, explores: bool) -> dict[str, np.ndarray]:
    """`NUM` draws of each parameter, the second half on a coarse grid."""
    rng = np.random.default_rng(seed)

    def number(low: float, high: float) -> np.ndarray:
        smooth = rng.uniform(low, high, NUM)
        return np.where(np.arange(NUM) < NUM // 2, smooth, np.round(smooth * 8) / 8)

    drawn = {}
    for name in names:
        if name.startswith("p_"):
            drawn[name] = number(0, 1)
        elif name.startswith(("reward", "gain", "loss")):
            drawn[name] = number(0.25, 4)
        elif name.startswith(("cost", "safe")):
            drawn[name] = number(-1, 1)
    ends = np.sort([number(0, 1), number(0, 1)], axis=0)
    ends = np.where(rng.random(NUM) < 0.4, np.array([[0.0], [1.0]]), ends)
    thin = ends[0] == ends[1]  # a single believable θ may be refuted: test_one_parameter
    drawn["lower"], drawn["upper"] = np.where(thin, 0.0, ends[0]), np.where(thin, 1.0, ends[1])
    if explores:
        some = np.where(rng.random(NUM) < 0.2, rng.choice([1e-12, 1e-6, 1.0], NUM), number(0, 1))
        drawn["exploration"] = np.where(rng.random(NUM) < 0.3, 0.0, some)
    return drawn


MODELS = {
    "sycophancy": (
        ej.models.sycophancy,
        sycophancy,
        ["p_agree", "p_honest", "reward_agree", "reward_honest", "cost_agree", "cost_honest"],
    ),
    "deception": (ej.models.deception, deception, ["p_caught", "gain", "loss", "safe"]),
}


def solve_all(build: Callable[..., ej.Problem], parameters: dict) -> tuple[ej.Solution, np.ndarray]:
    def cell(values):
        solution = ej.solve(build(**values))
        return solution, ej.phase(solution, UNSAFE)

    solution, phase = jax.jit(jax.vmap(cell))(jax.tree.map(jnp.asarray, parameters))
    return solution, np.asarray(phase)


def assert_masks_are(solution: ej.Solution, expected: Expected, where: np.ndarray) -> None:
    for name in ("rationalizable", "pure", "strict"):
        mask = np.asarray(getattr(solution, name))
        np.testing.assert_array_equal(mask[where], getattr(expected, name)[where], err_msg=name)


@pytest.mark.parametrize("explores", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_the_solver_gives_the_closed_form(name, explores):
    build, closed_form, names = MODELS[name]
    parameters = draw(names, seed=len(name), explores=explores)
    solution, phase = solve_all(build, parameters)
    expected = closed_form(**{"exploration": np.zeros(NUM), **parameters})

    status, num_mixed, mixed = map(np.asarray, (solution.status, solution.num_mixed, solution.mixed))

    clear = expected.slack > 1e-7
    assert 0.5 < clear.mean() < 1, "ties must be among the draws, and not everywhere"
    assert (expected.slack[status == ej.Status.BOUNDARY] < 1e-7).all()
    assert (status[clear] == ej.Status.SOLVED).all()
    assert (status[expected.slack < 1e-12] == ej.Status.BOUNDARY).all()
    assert_masks_are(solution, expected, clear)
    np.testing.assert_array_equal(phase[clear], expected.phase[clear])
    np.testing.assert_array_equal(num_mixed[clear], np.isfinite(expected.mixed[clear]))
    there = clear & np.isfinite(expected.mixed)
    np.testing.assert_allclose(mixed[there, 0, 0], expected.mixed[there], rtol=0, atol=1e-7)
    np.testing.assert_allclose(mixed[there].sum(-1), 1, rtol=0, atol=1e-7)
    assert np.isnan(mixed[clear & ~there]).all()

    oscillates, undecided = name == "sycophancy", name == "deception"
    present = [SAFE, LOCKED_IN, MULTISTABLE] + [OSCILLATORY] * oscillates + [INDETERMINATE] * undecided
    shares = [(phase == code).mean() for code in present]
    assert min(shares) > 0.01, f"each phase must be tried; the shares are {shares}"
    assert set(np.unique(phase)) == {*present, 255}


def test_the_gradient_of_the_mixed_equilibrium():
    """σ_S = (½ − (1 − p_H)) / (p_S + p_H − 1), so that ∂σ_S/∂p_S = −σ_S / (p_S + p_H − 1), and so on."""
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 0.45, (1000, 2))
    p_agree, p_honest = np.where(rng.random((1000, 1)) < 0.5, low, 1 - low).T
    share = lambda s, h: ej.solve(ej.models.sycophancy(s, h)).mixed[0, 0]  # noqa: E731
    by_agree, by_honest = jax.jit(jax.vmap(jax.grad(share, (0, 1))))(jnp.asarray(p_agree), jnp.asarray(p_honest))
    spread = p_agree + p_honest - 1
    sigma = (p_honest - 0.5) / spread
    np.testing.assert_allclose(by_agree, -sigma / spread, rtol=1e-9)
    np.testing.assert_allclose(by_honest, (1 - sigma) / spread, rtol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_single_precision_is_right_or_says_that_it_cannot_decide(name):
    build, closed_form, names = MODELS[name]
    parameters = {key: v.astype(np.float32) for key, v in draw(names, seed=len(name), explores=True).items()}
    with jax.enable_x64(False):
        solution, phase = solve_all(build, parameters)
    assert solution.margin.dtype == np.float32
    expected = closed_form(**{key: v.astype(np.float64) for key, v in parameters.items()})

    status, num_mixed = np.asarray(solution.status), np.asarray(solution.num_mixed)
    solved = status == ej.Status.SOLVED
    assert (status[~solved] == ej.Status.BOUNDARY).all()
    assert (expected.slack[~solved] < 1e-4).all()
    assert_masks_are(solution, expected, solved)
    np.testing.assert_array_equal(phase[solved], expected.phase[solved])
    np.testing.assert_array_equal(num_mixed[solved], np.isfinite(expected.mixed[solved]))


def test_hallucination_is_sycophancy_bit_by_bit():
    parameters = draw(MODELS["sycophancy"][2], seed=1, explores=True)
    renamed = {key.replace("agree", "fabricate").replace("honest", "abstain"): v for key, v in parameters.items()}
    one, other = (
        solve_all(build, values)
        for build, values in ((ej.models.sycophancy, parameters), (ej.models.hallucination, renamed))
    )
    for left, right in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        assert left.dtype == right.dtype and np.asarray(left).tobytes() == np.asarray(right).tobytes()


def phase_map(build: Callable, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    def cell(row, column):
        return ej.phase(ej.solve(build(row, column)), UNSAFE)

    return np.asarray(jax.jit(jax.vmap(jax.vmap(cell, (None, 0)), (0, None)))(rows, columns))


@pytest.mark.parametrize("num", [1024, 2048])
def test_each_phase_of_sycophancy_covers_a_quarter_of_the_square(num):
    p = np.linspace(0, 1, num)
    phases = phase_map(ej.models.sycophancy, p, p)
    for code in (SAFE, LOCKED_IN, MULTISTABLE, OSCILLATORY):
        assert abs((phases == code).mean() - 0.25) < 1 / 1024
    high = p > 0.5
    np.testing.assert_array_equal(phases[np.ix_(high, high)], MULTISTABLE)
    np.testing.assert_array_equal(phases[np.ix_(high, ~high)], LOCKED_IN)
    np.testing.assert_array_equal(phases[np.ix_(~high, high)], SAFE)
    np.testing.assert_array_equal(phases[np.ix_(~high, ~high)], OSCILLATORY)


def test_the_boundary_of_sycophancy_is_the_cross_and_nothing_else():
    p = np.linspace(0, 1, 1025)
    on_the_cross = (p[:, None] == 0.5) | (p == 0.5)
    np.testing.assert_array_equal(phase_map(ej.models.sycophancy, p, p) == 255, on_the_cross)


@pytest.mark.parametrize("reward", [1e-9, 1e-3, 1.0, 1e3, 1e9])
def test_phases_do_not_depend_on_the_size_of_the_reward(reward):
    p = np.linspace(0, 1, 101)
    usual = phase_map(ej.models.sycophancy, p, p)
    scaled = phase_map(lambda s, h: ej.models.sycophancy(s, h, reward_agree=reward, reward_honest=reward), p, p)
    np.testing.assert_array_equal(scaled, usual)


@pytest.mark.parametrize("exploration", [0.0, 0.3])
def test_the_overconfident_are_locked_in_whatever_the_risk(exploration):
    risk, upper = np.linspace(0, 1, 101), np.linspace(0.01, 0.49, 49)
    build = lambda p, hi: ej.models.deception(p, upper=hi, exploration=exploration)  # noqa: E731
    assert (phase_map(build, risk, upper) == LOCKED_IN).all()


@pytest.mark.parametrize("exploration", [1e-9, 0.1, 1.0])
def test_exploration_refutes_unfounded_hope_and_fear(exploration):
    risk, upper = np.linspace(0, 1, 100), np.linspace(0.55, 1, 10)
    before = phase_map(lambda p, hi: ej.models.deception(p, upper=hi), risk, upper)
    after = phase_map(lambda p, hi: ej.models.deception(p, upper=hi, exploration=exploration), risk, upper)
    assert {*np.unique(before)} == {MULTISTABLE, INDETERMINATE}
    np.testing.assert_array_equal(after, np.where(before == INDETERMINATE, SAFE, LOCKED_IN))
