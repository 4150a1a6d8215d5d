"""Learners: the reference's path action for action, draws that depend on nothing else, what theory says of limits."""

from itertools import islice, pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import epijax as ej
from epijax import learning, reference_learning
from epijax.learning import Limit

KEY = jax.random.key(20251116)
HABIT = (0.0, 1.0, None)  # of a best response that forgets nothing
SINGLE = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), ej.models.berks_coin())
HABITS = [
    {},
    {"discount": 0.9},
    {"window": 7},
    {"temperature": 0.2},
    {"temperature": 0.05, "window": 20},
]


def draw_problem(seed: int, num_actions: int, num_outcomes: int, num: int, exploration=0.0) -> ej.Problem:
    rng = np.random.default_rng([seed, num_actions, num_outcomes, num])
    return ej.Problem(
        ej.Environment(rng.dirichlet(np.ones(num_outcomes), num_actions), rng.normal(size=(num_actions, num_outcomes))),
        ej.Finite(rng.dirichlet(np.ones(num_outcomes), (num, num_actions))),
        exploration,
    )


def restless(count: int, *sizes) -> list[ej.Problem]:
    """Problems in which no action is an equilibrium."""
    drawn = (draw_problem(seed, *sizes) for seed in range(1000))
    return list(islice((problem for problem in drawn if not ej.solve(problem).pure.any()), count))


def runs(paths: np.ndarray) -> np.ndarray:
    """How long the run of one choice is by then, of paths `[L, T]`."""
    lengths = np.ones(paths.shape, int)
    for t in range(1, paths.shape[1]):
        lengths[:, t] += np.where(paths[:, t] == paths[:, t - 1], lengths[:, t - 1], 0)
    return lengths


def uniforms(key: jax.Array, learners: jax.Array, rounds: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The draws of these learners: of outcomes, of choices and of exploration, `[L, rounds]`."""
    words, counters = jax.random.key_data(key), jnp.arange(rounds, dtype=jnp.uint32)
    outcomes, choices = learning.threefry(words, *jnp.broadcast_arrays(learners[:, None], counters))
    explores, _ = learning.threefry(words, *jnp.broadcast_arrays(learners[:, None], counters | jnp.uint32(1 << 31)))
    return tuple(np.asarray(word >> 8) / 2.0**24 for word in (outcomes, choices, explores))


def paths(trajectories: learning.Trajectories) -> tuple[np.ndarray, np.ndarray]:
    """Plays and choices round by round, of trajectories that were looked at in each."""
    counts = [np.diff(np.asarray(c), axis=1, prepend=0) for c in (trajectories.plays, trajectories.choices)]
    return counts[0].argmax(-1), counts[1].argmax(-1)


# The same path as the reference's


@pytest.mark.parametrize("habits", HABITS, ids=str)
@pytest.mark.parametrize(("num_actions", "num_outcomes", "exploration"), [(2, 2, 0.0), (3, 4, 0.3)])
def test_the_path_is_that_of_the_reference(num_actions, num_outcomes, exploration, habits):
    rounds, learners = 80, 3
    draws = uniforms(KEY, jnp.arange(learners, dtype=jnp.uint32), rounds)
    switches = 0
    for problem in restless(3, num_actions, num_outcomes, 6, exploration):
        log_prior = np.log(np.random.default_rng(2).dirichlet(np.ones(6), learners))
        log_prior[0, 3] = -np.inf
        found = ej.simulate(problem, log_prior, KEY, rounds, learners, checkpoints=range(1, rounds + 1), **habits)
        plays, choices = paths(found)
        beliefs = ej.posterior(problem, log_prior, found.statistics[:, -1])
        for i in range(learners):
            right = reference_learning.learn(
                problem.environment.outcome_probs,
                problem.environment.payoffs,
                problem.model.outcome_probs,
                log_prior[i],
                tuple(each[i] for each in draws),
                exploration=exploration,
                **habits,
            )
            np.testing.assert_array_equal(plays[i], right[0])
            np.testing.assert_array_equal(choices[i], right[1])
            np.testing.assert_allclose(np.exp(beliefs[i]), right[2], atol=1e-9)
        switches += int(found.switches[:, -1].sum())
    assert switches > 10


@pytest.mark.parametrize("habits", HABITS, ids=str)
def test_real_outcomes_have_the_path_of_the_reference(habits):
    rounds, learners = 150, 3
    problem = ej.models.monopolist(exploration=0.1)
    log_prior = ej.priors.uniform(problem.model, 5)
    found = ej.simulate(problem, log_prior, KEY, rounds, learners, checkpoints=range(1, rounds + 1), **habits)
    draws = uniforms(KEY, jnp.arange(learners, dtype=jnp.uint32), rounds)
    grid = learning.parameter_grid(problem.model, 5)
    beliefs = ej.posterior(problem, log_prior, found.statistics[:, -1])
    environment = problem.environment
    for i in range(learners):
        right = reference_learning.learn_gaussian(
            environment.mean,
            float(environment.noise_std),
            environment.payoff_intercept,
            environment.payoff_slope,
            jax.vmap(problem.model.predict)(grid),
            float(problem.model.noise_std),
            log_prior,
            tuple(each[i] for each in draws),
            exploration=0.1,
            **habits,
        )
        np.testing.assert_array_equal(paths(found)[0][i], right[0])
        np.testing.assert_allclose(np.exp(beliefs[i]), right[2], atol=1e-8)


def test_a_box_is_a_grid_and_what_is_impossible_is_never_believed_again():
    problem = ej.models.sycophancy(0.7, 0.6)
    log_prior = ej.priors.beta(problem.model, 2.0, 5.0, 33)
    found = ej.simulate(problem, log_prior, KEY, 80, 4, checkpoints=range(1, 81), discount=0.5)
    probs = jax.vmap(problem.model.probs)(learning.parameter_grid(problem.model, 33))
    draws = uniforms(KEY, jnp.arange(4, dtype=jnp.uint32), 80)
    beliefs = np.exp(ej.posterior(problem, log_prior, found.statistics))
    for i in range(4):
        right = reference_learning.learn(
            problem.environment.outcome_probs,
            problem.environment.payoffs,
            probs,
            log_prior,
            tuple(each[i] for each in draws),
            discount=0.5,
        )
        np.testing.assert_array_equal(paths(found)[0][i], right[0])
        np.testing.assert_allclose(beliefs[i, -1], right[2], atol=1e-9)
    assert (beliefs[:, -1, [0, -1]] == 0).all(), "both ends were refuted within 80 rounds"


def test_normal_noise_is_finite_in_single_precision():
    with jax.enable_x64(False):
        words = jnp.array([0, 0xFFFFFFFF, 0x80000000], jnp.uint32)
        noise = np.asarray(learning._normal(learning._unit(words, jnp.float32)))
    assert noise.dtype == np.float32
    np.testing.assert_allclose(noise, [-5.42, 5.29, 0], atol=0.01)


# Counts


def test_draws_are_those_of_jax():
    counters = np.arange(7, dtype=np.uint32), np.arange(7, 14, dtype=np.uint32)
    words = jax.random.key_data(KEY)
    found = learning.threefry(words, *map(jnp.asarray, counters))
    right = jax.extend.random.threefry_2x32(words, jnp.concatenate(list(map(jnp.asarray, counters))))
    np.testing.assert_array_equal(np.concatenate(found), right)


def test_learners_depend_neither_on_how_many_they_are_nor_on_devices_nor_on_when_they_are_looked_at(monkeypatch):
    problem = draw_problem(3, 3, 3, 9, 0.1)
    whole = ej.simulate(problem, np.zeros(9), KEY, 64, 300, checkpoints=[3, 17, 64])
    few = ej.simulate(problem, np.zeros(9), KEY, 64, 7, checkpoints=[64])
    np.testing.assert_array_equal(whole.statistics[:7, -1], few.statistics[:, -1])
    np.testing.assert_array_equal(whole.switches[:7, -1], few.switches[:, -1])
    monkeypatch.setattr(jax, "local_devices", lambda **_: jax.devices()[:3])
    jax.tree.map(
        np.testing.assert_array_equal, whole, ej.simulate(problem, np.zeros(9), KEY, 64, 300, checkpoints=[3, 17, 64])
    )


def test_what_is_counted():
    problem = draw_problem(4, 2, 2, 3, 0.4)
    each = ej.simulate(problem, np.zeros(3), KEY, 50, 20, checkpoints=range(1, 51))
    found = ej.simulate(problem, np.zeros(3), KEY, 50, 20, checkpoints=[10, 50])
    plays, choices = paths(each)
    np.testing.assert_array_equal(found.plays[:, 0, 1], (plays[:, :10] == 1).sum(1))
    np.testing.assert_allclose(found.frequencies[:, 1, 0], (plays == 0).mean(1), rtol=1e-15)
    np.testing.assert_allclose(found.recent[:, 1, 0], (plays[:, 10:] == 0).mean(1), rtol=1e-15)
    np.testing.assert_array_equal(found.choice[:, -1], choices[:, -1])
    np.testing.assert_array_equal(found.switches[:, -1], (np.diff(choices, axis=1) != 0).sum(1))
    np.testing.assert_array_equal(found.longest[:, 0], runs(choices)[:, :10].max(1))
    np.testing.assert_array_equal(found.longest[:, 1], runs(choices)[:, 10:].max(1))
    assert (np.asarray(found.statistics).sum((-1, -2)) == [10, 50]).all()


def test_refuted_learners_are_told():
    truth = ej.Environment([[0.5, 0.5], [1.0, 0.0]], [[0.0, 1.0], [0.2, 0.2]])
    problem = ej.Problem(truth, ej.Finite([[[0.0, 1.0], [1.0, 0.0]], [[0.0, 1.0], [0.9, 0.1]]]))
    found = ej.simulate(problem, [0.0, 0.0], KEY, 64, 30)
    beliefs = np.asarray(ej.posterior(problem, [0.0, 0.0], found.statistics))
    happened = np.asarray(found.statistics)[:, :, 0, 0] > 0  # outcome 0 of the first action, impossible to all
    np.testing.assert_array_equal(np.isnan(beliefs).all(-1), happened)
    assert (np.asarray(found.refuted) > 0).all()
    ends = ej.limits(found)
    assert (np.asarray(ends.kind) == Limit.REFUTED).all()
    assert np.isnan(ej.basin(ends, (True, False)).share)


# What theory says


def test_limit_actions_are_rationalizable():
    """[EP25]: limit actions lie in B; at finite times some learners are not there yet, fewer and fewer."""
    count, learners = 1050, 16
    rng = np.random.default_rng(5)
    truths, payoffs = rng.dirichlet((1, 1), (count, 3)), rng.normal(size=(count, 3, 2))
    believed = rng.dirichlet((1, 1), (count, 3, 3))
    lanes = jnp.arange(learners, dtype=jnp.uint32)
    words = jax.random.key_data(KEY)

    def problem_of(truth, paid, model):
        return ej.Problem(ej.Environment(truth, paid), ej.Finite(model), unsafe=(True, False, False))

    solutions = jax.jit(jax.vmap(lambda *tables: ej.solve(problem_of(*tables))))(truths, payoffs, believed)
    clear = (np.asarray(solutions.status) == ej.Status.SOLVED) & (np.asarray(solutions.margin) > 0.01)
    strange = []
    for rounds in (128, 1024, 8192):
        stops = np.array([rounds // 4, rounds // 2, rounds])

        def chosen(truth, paid, model, stops=stops):
            tables = learning.tables_of(problem_of(truth, paid, model), 3)
            counts = learning.learn(tables, jnp.zeros((3, 1)), words, lanes, jnp.asarray(stops, jnp.int32), HABIT)[
                "choices"
            ]
            return (counts[-1] > counts[-2]).T

        found = np.asarray(jax.jit(jax.vmap(chosen))(truths, payoffs, believed))[clear]
        strange.append((found & ~np.asarray(solutions.rationalizable)[clear][:, None]).any(-1).mean())
    assert clear.sum() * learners >= 10_000
    assert strange[0] > strange[1] > strange[2]
    assert strange[2] < 1e-3, strange


def test_the_posterior_of_berks_coin_is_a_random_walk():
    """[B66]: log-odds are ±ln 3 a toss; their variance grows linearly, and time on one side obeys the arcsine law."""
    learners, rounds = 3000, 4096
    problem = ej.models.berks_coin()
    found = ej.simulate(problem, np.zeros(2), KEY, rounds, learners, checkpoints=[256, 1024, 4096])
    beliefs = np.asarray(ej.posterior(problem, np.zeros(2), found.statistics))
    walk = (beliefs[..., 1] - beliefs[..., 0]) / np.log(3)
    np.testing.assert_allclose(walk, np.round(walk), atol=1e-9)
    for t, place in zip((256, 1024, 4096), walk.T, strict=True):
        assert 0.001 < stats.chi2.cdf((place**2).sum() / t, learners) < 0.999
    heads = np.asarray(found.frequencies)[:, -1, 0]  # bet on heads while ahead, and at ties
    spread = heads + np.random.default_rng(0).uniform(-1, 1, learners) / np.sqrt(rounds)  # ties: some 1/√T of the time
    assert stats.kstest(np.clip(spread, 0, 1), stats.arcsine.cdf).pvalue > 1e-3
    middle = ((heads > 0.4) & (heads < 0.6)).mean()
    assert abs(middle - np.diff(stats.arcsine.cdf([0.4, 0.6]))[0]) < 4 * np.sqrt(0.13 * 0.87 / learners)


@pytest.mark.parametrize(("p_agree", "p_honest", "action"), [(0.3, 0.8, 1), (0.8, 0.3, 0)])
def test_sycophants_settle_where_only_one_action_is_rationalizable(p_agree, p_honest, action):
    problem = ej.models.sycophancy(p_agree, p_honest)
    ends = ej.limits(ej.simulate(problem, ej.priors.uniform(problem.model, 33), KEY, 2048, 500))
    assert (np.asarray(ends.kind) == Limit.ACTION).all()
    assert (np.asarray(ends.action) == action).all()


def test_where_both_are_equilibria_the_prior_decides():
    problem = ej.models.sycophancy(0.7, 0.7)
    shares = []
    for mean in (0.2, 0.35, 0.5, 0.65, 0.8):
        prior = ej.priors.normal(problem.model, mean, 0.1, 65)
        ends = ej.limits(ej.simulate(problem, prior, KEY, 1024, 400))
        assert (np.asarray(ends.kind) == Limit.ACTION).all()
        shares.append(ej.basin(ends, problem.unsafe))
    assert all(one.share <= other.share for one, other in pairwise(shares)), shares
    assert shares[0].high < 0.05
    assert shares[-1].low > 0.95
    assert 0.1 < shares[2].share < 0.95


def test_where_no_action_is_an_equilibrium_frequencies_tend_to_the_mixed_one():
    problem = ej.models.sycophancy(0.3, 0.2)
    mixed = np.asarray(ej.solve(problem).mixed)[0]
    found = ej.simulate(problem, ej.priors.uniform(problem.model, 64), KEY, 16384, 200)
    last = np.asarray(found.frequencies)[:, -1, 0]
    assert abs(last.mean() - mixed[0]) < 4 * last.std() / np.sqrt(len(last)) + 1e-3
    earlier = np.asarray(found.frequencies)[:, -4, 0]
    assert np.abs(last - mixed[0]).mean() < 0.6 * np.abs(earlier - mixed[0]).mean()
    assert not (np.asarray(ej.limits(found).kind) == Limit.ACTION).any()


def test_pessimists_never_deceive_optimists_once_and_the_overconfident_for_ever():
    problem = ej.models.deception(0.8)
    assert ej.PHASES[int(ej.phase(ej.solve(problem), problem.unsafe))] == "indeterminate"
    pessimists = ej.simulate(problem, ej.priors.beta(problem.model, 8.0, 2.0, 65), KEY, 512, 300)
    assert (np.asarray(pessimists.plays)[:, -1, 0] == 0).all()
    optimists = ej.simulate(problem, ej.priors.beta(problem.model, 2.0, 8.0, 65), KEY, 512, 300)
    assert (np.asarray(optimists.plays)[:, -1, 0] > 0).all()
    assert (np.asarray(ej.limits(optimists).action) == 1).all()
    overconfident = ej.models.deception(0.8, upper=0.4)
    for a, b in ((8.0, 2.0), (2.0, 8.0)):
        prior = ej.priors.beta(overconfident.model, a, b, 65)
        for exploring in (overconfident, ej.models.deception(0.8, upper=0.4, exploration=0.2)):
            assert (np.asarray(ej.limits(ej.simulate(exploring, prior, KEY, 512, 300)).action) == 0).all()


def test_exploration_frees_the_pessimist_whose_fear_is_wrong():
    prior = ej.priors.beta(ej.models.deception(0.2).model, 8.0, 2.0, 65)
    afraid = ej.simulate(ej.models.deception(0.2), prior, KEY, 2048, 200)
    assert (np.asarray(afraid.plays)[:, -1, 0] == 0).all()
    freed = ej.limits(ej.simulate(ej.models.deception(0.2, exploration=0.1), prior, KEY, 2048, 200))
    assert (np.asarray(freed.action) == 0).all()


# Limits


def test_kinds_of_limits():
    def trajectories(choices: np.ndarray) -> learning.Trajectories:
        """Of paths `[L, T]` of choices."""
        total = choices.shape[1]
        stops = np.array([total // 4, total // 2, total])
        counts = np.cumsum(choices[..., None] == np.arange(2), axis=1)[:, stops - 1]
        longest = np.stack([piece.max(1) for piece in np.split(runs(choices), stops[:-1], axis=1)], axis=1)
        switches = np.cumsum(np.diff(choices, axis=1, prepend=choices[:, :1]) != 0, axis=1)[:, stops - 1]
        counts, longest, switches = (jnp.asarray(each, jnp.int32) for each in (counts, longest, switches))
        none = jnp.zeros((len(choices), 3, 2, 2))
        return learning.Trajectories(
            jnp.asarray(stops, jnp.int32),
            counts,
            counts,
            switches,
            longest,
            longest * 0,
            none,
            jnp.zeros(len(choices), jnp.int32),
        )

    t = np.arange(4096)
    paths = {
        Limit.ACTION: (t < 1000).astype(int),
        Limit.MIXTURE: np.random.default_rng(0).integers(0, 2, 4096),
        Limit.CYCLE: (t // 32) % 2,
        Limit.GROWING_CYCLE: (np.log(t + 1) / 0.3).astype(int) % 2,
        Limit.UNDECIDED: ((t % 3 == 0) | (t > 3000)).astype(int) * (t % 7 > 0),
    }
    found = ej.limits(trajectories(np.stack(list(paths.values()))))
    assert [Limit(int(kind)).name for kind in found.kind] == [kind.name for kind in paths]
    np.testing.assert_array_equal(found.action, [0, -1, -1, -1, -1])


def test_more_checkpoints_change_no_limit():
    problem = ej.models.berks_coin()
    usual = ej.limits(ej.simulate(problem, np.zeros(2), KEY, 1024, 300))
    often = sorted({*range(20, 1024, 20), 256, 512, 1024})
    jax.tree.map(
        np.testing.assert_array_equal,
        usual,
        ej.limits(ej.simulate(problem, np.zeros(2), KEY, 1024, 300, checkpoints=often)),
    )
    assert len(np.unique(usual.kind)) > 2


def test_limits_can_be_compiled_and_mapped():
    def kinds(p):
        problem = ej.models.sycophancy(p, 0.2)
        return ej.limits(ej.simulate(problem, jnp.zeros(33), KEY, 256, 20))

    alone = [kinds(p) for p in (0.3, 0.8)]
    for i, p in enumerate((0.3, 0.8)):
        jax.tree.map(np.testing.assert_array_equal, jax.jit(kinds)(p), alone[i])
        many = jax.jit(jax.vmap(kinds))(jnp.array([0.3, 0.8]))
        jax.tree.map(lambda leaf, one, i=i: np.testing.assert_array_equal(leaf[i], one), many, alone[i])


def test_slips_of_a_logit_player_are_no_limits():
    problem = ej.models.sycophancy(0.3, 0.8)
    found = ej.simulate(problem, ej.priors.uniform(problem.model, 33), KEY, 1024, 200, temperature=0.2)
    assert (np.asarray(found.plays)[:, -1, 0] > 0).all()
    ends = ej.limits(found)
    assert ej.basin(ends, problem.unsafe).share == 0
    assert ej.basin(ends, (False, True)).share == 1


def test_the_interval_is_that_of_scipy():
    count = np.array([0, 3, 50, 99, 100])
    low, high = learning.interval(count, 100, 0.9)
    for k, one, other in zip(count, low, high, strict=True):
        right = stats.binomtest(int(k), 100).proportion_ci(0.9, "exact")
        np.testing.assert_allclose((one, other), right, atol=1e-12)


# Priors


def test_priors_are_what_they_are_called():
    model = ej.AffineBernoulli((0.0, 1.0), (1.0, -1.0), 0.2, 0.7)
    theta = np.linspace(0.2, 0.7, 401)
    for prior, law in (
        (ej.priors.beta(model, 2.0, 5.0, 401), stats.beta(2, 5, loc=0.2, scale=0.5)),
        (ej.priors.normal(model, 0.3, 0.1, 401), stats.truncnorm(-1, 4, loc=0.3, scale=0.1)),
        (ej.priors.uniform(model, 401), stats.uniform(0.2, 0.5)),
        (ej.priors.tilt(model, -3.0, 401), stats.truncexpon(3.0, loc=0.2, scale=0.5 / 3)),
    ):
        weight = np.exp(prior)
        assert abs(weight.sum() - 1) < 1e-12
        assert abs(weight @ theta - law.mean()) < 1e-4
        assert abs(weight @ theta**2 - law.moment(2)) < 1e-4
    two = ej.AffineBernoulli((0.0, 0.0), ((1.0, 0.0), (0.0, 1.0)), 0.0, 1.0)
    square = np.exp(ej.priors.beta(two, (2.0, 1.0), (1.0, 3.0), 21)).reshape(21, 21)
    line = ej.AffineBernoulli((0.0, 0.0), (1.0, 1.0), 0.0, 1.0)
    np.testing.assert_allclose(square.sum(1), np.exp(ej.priors.beta(line, 2.0, 1.0, 21)), rtol=1e-9)
    np.testing.assert_allclose(square.sum(0), np.exp(ej.priors.beta(line, 1.0, 3.0, 21)), rtol=1e-9)
    np.testing.assert_allclose(np.exp(ej.priors.weights(two, 1.0, 0.0, 3.0)), [0.25, 0, 0.75])
    drawn = np.exp(ej.priors.dirichlet(KEY, [1.0, 2.0, 5.0], 20_000))
    np.testing.assert_allclose(drawn.mean(0), [1 / 8, 2 / 8, 5 / 8], atol=0.01)


# Bad input


@pytest.mark.parametrize(
    ("prior", "given", "message"),
    [
        ("beta", (1.0, (1.0, 2.0, 3.0)), "b must be one number, or 1, one for each parameter"),
        ("beta", (0.0, 1.0), "a must be positive"),
        ("normal", (np.nan, 1.0), "mean must be finite"),
        ("tilt", ((1.0, 2.0),), "slope must be one number, or 1"),
        ("weights", (1.0, -1.0), "weights must not be negative"),
    ],
)
def test_priors_that_cannot_be_are_refused(prior, given, message):
    with pytest.raises(ValueError, match=message):
        getattr(ej.priors, prior)(ej.models.deception(0.2).model, *given)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"log_prior": np.zeros(3)}, "the model lists its 2 parameters; log_prior must weigh these"),
        ({"log_prior": np.full(2, -np.inf)}, "above −∞ for some parameter"),
        ({"log_prior": [0.0, np.nan]}, "log_prior must be log weights"),
        ({"log_prior": np.zeros((3, 2))}, r"\[learners, parameters\]; got \(3, 2\)"),
        ({"rounds": 0}, "1 learner or more; got 0 and 4"),
        ({"learners": 0}, "got 16 and 0"),
        ({"checkpoints": [4, 2, 16]}, "checkpoints must increase"),
        ({"checkpoints": [4, 8]}, "checkpoints must increase .* to the number of rounds, 16"),
        ({"temperature": -1.0}, "temperature must be finite and not negative"),
        ({"temperature": np.nan}, "temperature must be finite and not negative"),
        ({"rounds": 2**31}, "1 to 1,073,741,824 rounds in float64"),
        (
            {"log_prior": np.zeros(2, np.float32), "problem": SINGLE, "rounds": 2**24 + 1},
            "16,777,216 rounds in float32",
        ),
        ({"discount": 0.0}, r"discount in \(0, 1\]"),
        ({"window": 0}, "window 1 or more"),
        ({"window": 3, "discount": 0.5}, "two ways to forget; choose one"),
        ({"parameters": [[0.1], [0.2]]}, "the model lists its 2 parameters"),
        ({"key": jax.random.split(KEY)}, "key must be one threefry key"),
        ({"problem": ej.FiniteProblem([[1.0], [0.0]], [[0.0], [0.0]])}, "learning needs outcomes"),
        ({"problem": ej.models.sycophancy(0.5, 0.5), "log_prior": [0.0]}, "2 or more a dimension; log_prior has 1"),
        (
            {"problem": ej.models.sycophancy(0.5, 0.5), "parameters": [[0.1]]},
            r"parameters must be \[2, 1\], as log_prior is",
        ),
        (
            {"problem": ej.models.sycophancy(0.5, 0.5, upper=0.4), "parameters": [[0.1], [0.5]]},
            r"parameters must lie in the box; \[0.5\] does not",
        ),
    ],
)
def test_what_cannot_be_simulated_is_refused(asked, message):
    usual = {"problem": ej.models.berks_coin(), "log_prior": np.zeros(2), "key": KEY, "rounds": 16, "learners": 4}
    with pytest.raises(ValueError, match=message):
        ej.simulate(**(usual | asked))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda line, coin: ej.priors.beta(line, 0.0, 1.0), "a must be positive"),
        (lambda line, coin: ej.priors.normal(line, 0.5, -1.0), "std must be positive"),
        (lambda line, coin: ej.priors.tilt(coin.model, 1.0), "weigh them by priors.weights"),
        (lambda line, coin: ej.priors.weights(coin.model, 1.0), "lists 2 parameters; got 1 weights"),
        (lambda line, coin: ej.priors.weights(coin.model, 0.0, 0.0), "nor all zero"),
        (lambda line, coin: ej.priors.uniform(line, 1), "at least 2 points a dimension"),
        (lambda line, coin: ej.priors.dirichlet(KEY, [0.0, 1.0], 3), "concentration must be positive"),
        (
            lambda line, coin: ej.basin(ej.limits(ej.simulate(coin, [0, 0], KEY, 8)), (True,)),
            "one entry for each of the 2",
        ),
        (
            lambda line, coin: ej.limits(ej.simulate(coin, [0, 0], KEY, 8, checkpoints=[8])),
            "needs checkpoints at 2 and 4",
        ),
    ],
)
def test_what_is_no_prior_or_limit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(ej.models.sycophancy(0.5, 0.5).model, ej.models.berks_coin())
