"""Designs: margins judged by the exact solver, known optima, certificates, and what is refused."""

import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epijax as ej
from epijax.cli import main
from epijax.engineering import Study
from epijax.phases import PHASES
from epijax.view.report import summary

SYCOPHANCY = {"p_agree": (0.0, 1.0), "p_honest": (0.6, 1.0)}
QUICK = {"steps": 120, "restarts": 2, "samples": 60}


# The margin


def sycophants(share, ends):
    payoffs = {"reward_agree": share[2], "reward_honest": share[3], "cost_agree": share[4], "cost_honest": share[5]}
    return ej.models.sycophancy(share[0], share[1], **payoffs, lower=ends[0], upper=ends[1], exploration=0.2 * share[6])


def deceivers(share, ends):
    return ej.models.deception(share[0], gain=share[1], loss=share[2], safe=0.1, lower=ends[0], upper=ends[1])


def tables(share, ends):
    divergence = jnp.concatenate([share[4:], jnp.where(share < 0.15, jnp.inf, share)]).reshape(2, 6)
    return ej.FiniteProblem(jnp.concatenate([share, ends, ends[::-1]]).reshape(2, 6), divergence, unsafe=(True, False))


def coupled(share, ends):
    return ej.models.sycophancy(share[0], share[1], lower=ends[0], upper=ends[1], coupling=share[2])


@pytest.mark.parametrize("build", [sycophants, deceivers, tables, pytest.param(coupled, marks=pytest.mark.slow)])
def test_the_margin_has_the_sign_of_the_exact_verdict(build):
    def both(share, ends):
        problem = build(share, ends)
        return ej.safety_margin(problem), ej.phase(ej.solve(problem), problem.unsafe)

    rng = np.random.default_rng(0)
    shares, ends = rng.uniform(0.05, 0.95, (400, 8)), np.sort(rng.uniform(0.01, 0.99, (400, 2)), axis=1)
    margins, codes = map(np.asarray, jax.jit(jax.vmap(both))(shares, ends))
    clear = np.abs(margins) > 2e-3
    np.testing.assert_array_equal((margins > 0)[clear], (codes == 0)[clear])
    assert clear.sum() > 300
    assert (margins[clear] > 0).any()
    assert (margins[clear] < 0).any()


def test_the_margin_is_the_slack_of_the_closed_form():
    # deception, lower above p: nothing is learned that is not believed, and D pays g − (g + ℓ)·lower
    margin = ej.safety_margin(ej.models.deception(0.3, lower=0.7))
    assert margin == pytest.approx(0.4, abs=1e-12)


@pytest.mark.parametrize("box", ["of one parameter", pytest.param("of two", marks=pytest.mark.slow)])
def test_the_derivative_of_the_margin_is_that_of_differences(box):
    def margin(point):
        p_agree, p_honest, low, high, explored, reward, cost, coupling = point
        payoffs = {"reward_agree": 1 + reward, "cost_agree": cost}
        coupled = {"coupling": coupling} if box == "of two" else {}
        bounds = {"lower": 0.5 * low, "upper": 0.5 + 0.5 * high}
        return ej.safety_margin(
            ej.models.sycophancy(p_agree, p_honest, **payoffs, **bounds, exploration=0.3 * explored, **coupled)
        )

    assert_differences(margin, np.random.default_rng(0).uniform(0.1, 0.9, (100, 8)), atol=1e-8)


def test_the_derivative_of_the_margin_of_real_outcomes_counts_the_scale():
    def margin(point):
        environment = ej.GaussianEnvironment([1.0, 2.0], 0.5, [0.0, 0.3], [1.0, 0.5])
        model = ej.GaussianLinear([1.0, 1.5], 0.5, [point[0]], [point[1]])
        return ej.safety_margin(ej.Problem(environment, model, unsafe=(True, False)))

    assert_differences(margin, np.random.default_rng(0).uniform([0.0, 0.8], [0.5, 4.0], (50, 2)), atol=1e-7)


def assert_differences(margin, points, atol):
    value, slope = (jax.jit(jax.vmap(function)) for function in (margin, jax.grad(margin)))
    steps = 1e-6 * np.eye(points.shape[1])[:, None]
    differences = np.stack([value(points + step) - value(points - step) for step in steps], axis=1) / 2e-6
    np.testing.assert_allclose(slope(points), differences, rtol=1e-6, atol=atol)


def test_where_play_refutes_every_belief_there_is_no_margin():
    assert np.isnan(ej.safety_margin(ej.models.sycophancy(0.4, 0.5, lower=1.0)))
    lost = ej.FiniteProblem([[1.0, 0.0], [0.0, 1.0]], [[0.1, 0.2], [np.inf, np.inf]], unsafe=(True, False))
    assert np.isnan(ej.safety_margin(lost))


def test_the_margin_is_of_two_actions():
    problem = ej.FiniteProblem(np.eye(3), np.ones((3, 3)), unsafe=(True, False, False))
    with pytest.raises(ValueError, match=r"of two actions, one of them unsafe; .* unsafe_mass"):
        ej.safety_margin(problem)


# Known optima


def indifferent(reward_agree=1.0, reward_honest=1.0, cost_agree=0.0, cost_honest=0.0):
    return (reward_honest - cost_honest + cost_agree) / (reward_agree + reward_honest)


@pytest.mark.parametrize(
    "rewards", [pytest.param({}, marks=pytest.mark.slow), {"reward_agree": 1.5, "cost_agree": 0.2}]
)
def test_the_least_binding_cap_of_sycophancy_is_where_both_actions_pay_the_same(rewards):
    found = ej.design("sycophancy", {"upper": None}, SYCOPHANCY, rewards, costs={"fit": 0.1}, require=1e-4, **QUICK)
    assert found.certified
    assert found.after["upper"] == pytest.approx(indifferent(**rewards), abs=5e-3)
    assert found.after["upper"] < indifferent(**rewards)


def test_the_least_binding_floor_of_deception_is_where_both_actions_pay_the_same():
    values = {"gain": 1.0, "loss": 0.6, "safe": 0.1}
    found = ej.design("deception", {"lower": None}, {"p_caught": (0.0, 1.0)}, values, costs={"change": 0.1}, **QUICK)
    assert found.certified
    assert found.proof_before.safe_share == 0
    assert found.after["lower"] == pytest.approx(0.9 / 1.6 + 0.01 / 1.6, abs=2e-3)


def test_exploration_frees_the_deceiver_where_the_risk_is_high_enough_and_nowhere_else():
    lever = {"exploration": (0.0, 0.5)}
    found = ej.design("deception", lever, {"p_caught": (0.6, 0.95)}, costs={"change": 0.1}, **QUICK)
    assert found.proof_before.shares == {"indeterminate": 1.0}
    assert found.certified
    assert found.after["exploration"] > 0
    low = Study("deception", lever, {"p_caught": (0.2, 0.9)}, **QUICK).run({})
    assert low.headline.startswith("NOT CERTIFIED: ")
    assert {unsafe["p_caught"] > 0.5 for unsafe in low.proof_after.unsafe} == {False}


def test_without_coupling_but_with_exploration_honesty_wins_wherever_it_is_better():
    # the correct family that sees both arms is honest iff p_honest > p_agree (theory §4, §6)
    box = {"p_agree": (0.6, 0.8), "p_honest": (0.85, 1.0)}
    levers = {"coupling": None, "exploration": (0.0, 0.5)}
    found = ej.design("sycophancy", levers, box, costs={"fit": 0.1}, steps=80, restarts=2, samples=24)
    assert found.proof_before.safe_share == 0
    assert found.certified
    assert found.after["exploration"] > 0
    assert found.costs["fit"][1] < 0  # the correct family fits better, too
    alone = ej.certify("sycophancy", {"coupling": found.after["coupling"]}, {"p_agree": [0.7], "p_honest": [0.9]})
    assert not alone.safe_share  # without exploration nobody learns what the other arm would pay


# Certificates


def whistle(truth, fear):
    """Three beliefs about how often reports are heard; speaking up tells, silence does not."""
    beliefs, truth = jnp.array([0.1, 0.5, 0.9]), jnp.asarray(truth)
    divergence = truth * jnp.log(truth / beliefs) + (1 - truth) * jnp.log((1 - truth) / (1 - beliefs))
    heard = beliefs - fear
    return ej.FiniteProblem(
        jnp.stack([heard, jnp.zeros(3)]), jnp.stack([divergence, jnp.zeros(3)]), unsafe=(False, True)
    )


CLAIMS = {
    "sycophancy": ("sycophancy", {"upper": None}, SYCOPHANCY),
    "hallucination": (
        "hallucination",
        {"cost_fabricate": (0.0, 1.5)},
        {"p_fabricate": (0.0, 1.0), "p_abstain": (0.6, 1.0)},
    ),
    "deception": ("deception", {"lower": None}, {"p_caught": (0.1, 0.9), "loss": (0.5, 1.5)}),
    "of one's own": (whistle, {"fear": (-0.5, 0.9)}, {"truth": (0.3, 0.8)}),
}


@pytest.mark.parametrize(
    ("case", "objective"),
    [
        ("sycophancy", "margin"),
        ("hallucination", "region_share"),
        ("deception", "margin"),
        ("of one's own", "region_share"),
        pytest.param("sycophancy", "region_share", marks=pytest.mark.slow),
        pytest.param("hallucination", "margin", marks=pytest.mark.slow),
        pytest.param("deception", "region_share", marks=pytest.mark.slow),
        pytest.param("of one's own", "margin", marks=pytest.mark.slow),
    ],
)
def test_no_more_is_claimed_than_is_certified(case, objective):
    build, vary, over = CLAIMS[case]
    fixed = {"fear": 0.4} if build is whistle else None
    found = ej.design(build, vary, over, fixed, objective=objective, costs={"change": 0.02}, **QUICK)
    assert found.proof_after.safe_share >= found.claim - 0.01
    assert found.proof_after.safe_share > found.proof_before.safe_share
    assert found.certified


def test_a_certificate_is_the_solvers_word():
    rng = np.random.default_rng(0)
    points = {"p_agree": rng.uniform(size=50), "p_honest": rng.uniform(size=50)}
    proof = ej.certify("sycophancy", {"upper": 0.7}, points)
    phases, margins = [], []
    for p_agree, p_honest in zip(*points.values(), strict=True):
        problem = ej.models.sycophancy(p_agree, p_honest, upper=0.7)
        solution = ej.solve(problem)
        phases.append(PHASES[int(ej.phase(solution, problem.unsafe))])
        margins.append(float(solution.margin))
    assert proof.shares == {name: phases.count(name) / 50 for name in set(phases)}
    assert proof.num_unsafe == 50 - phases.count("safe")
    assert proof.smallest_margin == min(m for m, name in zip(margins, phases, strict=True) if name == "safe")
    first = next(i for i, name in enumerate(phases) if name != "safe")
    assert proof.unsafe[0] == {name: column[first] for name, column in points.items()}


# What is optimised, and how


def test_bounds_keep_their_order():
    found = ej.design("sycophancy", {"lower": None, "upper": None}, SYCOPHANCY, {"lower": 0.4, "upper": 0.6}, **QUICK)
    assert (found.path["lower"] <= found.path["upper"] + 1e-12).all()
    assert found.certified
    assert found.after["lower"] <= found.after["upper"] < 0.5
    capped = Study("sycophancy", {"upper": (0.0, 1.0)}, SYCOPHANCY, {"lower": 0.3}, **QUICK)
    assert capped.run({}).path["upper"].min() >= 0.3


def test_the_priors_weights_move_play_but_not_the_certificate():
    # speaking up pays if reports are heard; who starts out hopeful keeps speaking, who does not never learns
    kept = {"temperature": (0.1, 0.05), "observations": (5.0, 5.0), "steps": 60, "restarts": 2, "samples": 12}
    study = Study(whistle, {"prior": None}, {"truth": (0.6, 0.8)}, {"fear": 0.45}, objective="unsafe_mass", **kept)
    found = study.run({"prior": 0.01})
    assert found.objective[1] < 0.5 * found.objective[0]
    assert found.after["prior"].sum() == pytest.approx(1)
    assert found.after["prior"][0] < 0.2 < found.before["prior"][0]
    assert 0 < found.costs["prior"][1] < np.log(3)
    assert found.proof_after.shares == found.proof_before.shares
    assert found.headline.startswith("NOT CERTIFIED")
    assert "the exact verdict turns on its support alone" in "\n".join(summary(found))


def test_a_lever_can_be_an_array():
    def build(fears, truth):
        return whistle(truth, fears)

    asked = {"objective": "region_share", **QUICK}
    low, high = np.full(3, -1.0), np.full(3, 0.5)
    found = ej.design(build, {"fears": (low, high)}, {"truth": (0.3, 0.8)}, {"fears": [0.3, 0.4, 0.45]}, **asked)
    assert found.after["fears"].shape == (3,)
    assert found.path["fears"].shape == (2, 120, 3)
    assert found.certified


def _points(columns):
    return set(zip(*(column.tolist() for column in columns.values()), strict=True))


def test_certificates_take_as_many_values_of_each_parameter():
    with pytest.raises(ValueError, match="as many values of each parameter, 1 or more"):
        ej.certify("sycophancy", {"upper": 0.4}, {"p_agree": [0.5, 0.6], "p_honest": [0.7]})
    with pytest.raises(ValueError, match="as many values of each parameter, 1 or more"):
        ej.certify("sycophancy", {"upper": 0.4}, {"p_agree": [], "p_honest": []})


def test_environments_can_be_lists_and_datasets():
    rng = np.random.default_rng(0)
    given = {"p_agree": rng.uniform(size=101), "p_honest": rng.uniform(0.6, 1, 101)}
    study = Study("sycophancy", {"upper": None}, environments=given, **QUICK)
    assert [len(columns["p_agree"]) for columns in (study.used, study.held_out)] == [51, 50]
    twice = {name: np.tile(values, 2) for name, values in given.items()}
    assert _points(Study("sycophancy", {"upper": None}, environments=twice, **QUICK).used) == _points(study.used)
    together = np.concatenate([study.used["p_agree"], study.held_out["p_agree"]])
    np.testing.assert_array_equal(np.sort(together), np.sort(given["p_agree"]))
    axes = {"p_agree": np.linspace(0, 1, 9), "p_honest": np.linspace(0.6, 1, 8)}
    stored = ej.sweep("sycophancy", axes, {"cost_agree": 0.2, "upper": 0.9})
    study = Study("sycophancy", {"upper": None}, environments=stored, **QUICK)
    found = study.run({"fit": 0.1})
    assert found.certified
    assert found.proof_after.environments == 36
    assert found.before == {"upper": 0.9}
    assert found.after["upper"] == pytest.approx(indifferent(cost_agree=0.2) - 0.005, abs=6e-3)
    with pytest.raises(ValueError, match="the environments are those of sycophancy, and the model is deception"):
        Study("deception", {"upper": None}, environments=stored)


def test_an_interrupted_design_goes_on_where_it_stopped(tmp_path):
    study = Study("sycophancy", {"upper": None}, SYCOPHANCY, **QUICK)
    whole = study.run({"fit": 0.1})

    def stop(done, total):
        if done >= 60:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.run({"fit": 0.1}, checkpoint=tmp_path / "half", progress=stop)
    told = []
    again = study.run({"fit": 0.1}, checkpoint=tmp_path / "half", progress=lambda done, total: told.append(done))
    assert told == [80, 100, 120]
    assert again.after == whole.after
    for name, values in whole.path.items():
        np.testing.assert_array_equal(again.path[name], values)
    with pytest.raises(ValueError, match="is the checkpoint of another design"):
        study.run({"fit": 0.2}, checkpoint=tmp_path / "half")
    (tmp_path / "other").write_bytes(b"\x00\xff nothing")
    with pytest.raises(ValueError, match="is no checkpoint of a design"):
        study.run({"fit": 0.1}, checkpoint=tmp_path / "other")
    content = (tmp_path / "half").read_bytes()
    (tmp_path / "half").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="ends too early"):
        study.run({"fit": 0.1}, checkpoint=tmp_path / "half")


def test_no_cost_goes_above_its_limit_and_the_present_is_kept_where_nothing_is_gained():
    study = Study("sycophancy", {"cost_agree": None}, SYCOPHANCY, objective="region_share", **QUICK)
    levers = ej.compare_levers({"rewards": study}, "change", [0.0, 0.1, 0.2, 0.6])
    assert (levers["cost"] <= levers["limit"]).all()
    shares = levers["safe_share"].sel(lever="rewards").values
    assert shares[0] == study.run({"change": 100.0}).proof_before.safe_share
    assert (np.diff(shares) > 0.05).all()
    assert shares[-1] == 1


def test_the_checkpoint_of_a_model_that_was_edited_is_refused(tmp_path):
    def model(cost):
        def build(p_agree, p_honest, upper=1.0):
            return ej.models.sycophancy(p_agree, p_honest, upper=upper, cost_agree=cost)

        return build

    asked = {"steps": 20, "restarts": 1, "samples": 20}
    Study(model(0.0), {"upper": None}, SYCOPHANCY, **asked).run({}, checkpoint=tmp_path / "half")
    with pytest.raises(ValueError, match="is the checkpoint of another design"):
        Study(model(0.1), {"upper": None}, SYCOPHANCY, **asked).run({}, checkpoint=tmp_path / "half")


def test_a_trade_off_marks_what_is_efficient():
    study = Study("deception", {"lower": None}, {"p_caught": (0.05, 1.0), "loss": (0.2, 1.5)}, **QUICK)
    front = ej.trade_off(study, "fit", [0.0, 1.0, 10.0, 1000.0])
    assert (np.diff(front["safe_share"]) <= 0).all()
    assert (np.diff(front["cost"]) < 0).all()
    assert front["safe_share"][0] == 1
    assert front["safe_share"][-1] < 0.1
    for i in range(4):
        safer = (front["safe_share"] >= front["safe_share"][i]) & (front["cost"] < front["cost"][i])
        assert bool(front["efficient"][i]) == (not safer.any())


# What is refused


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"vary": {}}, "there is nothing to vary"),
        ({"vary": {"uper": None}}, "has no parameter 'uper'; the nearest is 'upper'"),
        ({"vary": {"upper": (0.5, 0.5)}}, "upper must go from a finite number to a larger one"),
        ({"vary": {"upper": (0.0, 0.3)}, "fixed": {"lower": 0.4}}, "no upper is possible: .* lower is 0.4"),
        ({"vary": {"upper": (0.0, 0.45)}}, "upper is now 1.0, outside its range of 0.0 to 0.45"),
        ({"vary": {"p_agree": None}}, "p_agree is varied and is one of the environments' parameters"),
        ({"vary": {"cost_agree": (0.0, 1.0)}, "fixed": {"lower": 1.0}}, "not a number at the start, as at p_agree="),
        ({"vary": {"lower": None, "upper": None}, "fixed": {"lower": 0.9, "upper": 0.1}}, "lower must not exceed"),
        ({"vary": {"prior": None}}, "the prior's weights cannot matter here: Berk–Nash equilibria"),
        ({"vary": {"prior": (0, 1)}}, "the prior's weights form a simplex"),
        ({"vary": {"upper": None}, "objective": "margn"}, "no objective 'margn'; the nearest is 'margin'"),
        ({"vary": {"upper": None}, "over": {"p_agree": (0.1, 0.2)}}, "needs a value for p_honest"),
        ({"vary": {"upper": None}, "over": None}, "environments are drawn over a box, or given"),
        ({"vary": {"upper": None}, "over": None, "environments": {"p_agree": [0.5], "p_honest": [1.0]}}, "2 or more"),
        ({"vary": {"upper": None}, "steps": 0}, "there must be 1 step"),
        ({"vary": {"upper": None}, "require": np.nan}, "require must be a share of the payoff scale"),
        ({"vary": {"upper": None}, "require": np.inf}, "require must be a share of the payoff scale"),
        ({"vary": {"upper": None}, "temperature": (0.0, 0.1)}, "temperature must go from a positive number"),
        ({"vary": {"upper": None}, "observations": (0.0, 10.0)}, "observations must go from a positive number"),
        (
            {"vary": {"upper": None}, "over": None, "environments": {"p_agree": [0.5] * 3, "p_honest": [0.8] * 3}},
            "2 or more that differ",
        ),
    ],
)
def test_studies_without_an_answer_are_refused_in_words(given, words):
    with pytest.raises(ValueError, match=words):
        Study("sycophancy", **{"over": SYCOPHANCY} | given)


def test_a_lever_that_moves_nothing_is_refused_or_left():
    over = {"p_caught": (0.1, 0.4)}
    with pytest.raises(ValueError, match="upper cannot move the objective margin"):
        Study("deception", {"upper": (0.6, 1.0)}, over)
    both = Study("deception", {"lower": None, "upper": (0.6, 1.0)}, over, {"upper": 0.8}, refuse_idle=False, **QUICK)
    assert list(both.present) == ["lower"]
    assert both.fixed["upper"] == 0.8


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"costs": {"fitt": 1.0}}, "no cost 'fitt'; the nearest is 'fit'"),
        ({"costs": {"fit": -1.0}}, "the weight of fit must not be negative"),
        ({"costs": {"prior": 1.0}}, "needs the lever prior"),
        ({"costs": {}, "limits": {"ft": 1.0}}, "no cost 'ft'"),
        ({"costs": {}, "limits": {"fit": np.nan}}, "the limit of fit must be a number"),
        ({"costs": {}, "limits": {"change": -0.1}}, "nothing was found that keeps to all limits; .*: change 0"),
    ],
)
def test_runs_without_an_answer_are_refused_in_words(study, given, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        study.run(**given, checkpoint=tmp_path / "checkpoint")
    assert not any(tmp_path.iterdir())


@pytest.fixture(scope="module")
def study():
    return Study("sycophancy", {"upper": None}, SYCOPHANCY, **QUICK)


def test_results_do_not_depend_on_devices(study, monkeypatch):
    every = jax.local_devices()
    whole = study.run({"fit": 0.1})
    monkeypatch.setattr(jax, "local_devices", lambda *_, **__: every[:1])
    alone = Study("sycophancy", {"upper": None}, SYCOPHANCY, **QUICK).run({"fit": 0.1})
    assert alone.after["upper"] == pytest.approx(whole.after["upper"], abs=1e-9)
    assert alone.proof_after == whole.proof_after


# The command


def command(*args):
    with pytest.raises(SystemExit) as stopped:
        main(["design", *map(str, args), "--quiet"])
    return stopped.value.code or 0


def test_the_command_writes_a_folder(tmp_path, capsys):
    over = ["--over", "p_agree=0:1,p_honest=0.6:1"]
    asked = ["--steps", 60, "--restarts", 2, "--cost", "fit=0.1", "--format", "svg"]
    assert command("sycophancy", "--vary", "upper=0:1", *over, *asked, "-o", tmp_path) == 0
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["certified"] is True
    assert told["headline"] in capsys.readouterr().out
    assert told["design"]["after"]["upper"] < 0.5
    assert told["levers"]["lever"].count("beliefs") == told["levers"]["lever"].count("rewards")
    assert len(told["trade_off"]["weight"]) == len(told["trade_off"]["safe_share"])
    words = (tmp_path / "report.md").read_text()
    assert words.startswith("# sycophancy: certified: safe in all")
    assert "beliefs: lower from 0.0 to 1.0, upper from 0.0 to 1.0, by region_share; rewards: " in words
    for name in ("before", "after", "path", "trade-off", "levers"):
        assert f"({name}.svg)" in words
        assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")
    assert not (tmp_path / "checkpoint").exists()
    with np.load(tmp_path / "path.npz") as path:
        assert path["upper"].shape == (2, 60)


def test_the_command_takes_the_environments_of_a_sweep(tmp_path, capsys):
    axes = {"p_agree": np.linspace(0, 1, 9), "p_honest": np.linspace(0.6, 1, 8)}
    ej.sweep("sycophancy", axes, {"cost_agree": 0.2}, store=tmp_path / "run.zarr")
    asked = ["--over", tmp_path / "run.zarr", "--no-compare", "--steps", 60, "-o", tmp_path / "out"]
    assert command("sycophancy", "--vary", "upper", *asked) == 0
    assert "safe in all 36 environments held out" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "report.json").read_text())["design"]["after"]["upper"] < 0.6


def test_a_design_that_is_not_certified_says_so_and_fails(tmp_path, capsys):
    asked = ["--over", "p_caught=0.1:0.9", "--no-compare", "--steps", 20, "--restarts", 1, "-o", tmp_path]
    assert command("deception", "--vary", "lower=0:0.4", *asked) == 1
    assert capsys.readouterr().out.startswith("NOT CERTIFIED: 4,098 of 4,098 environments")
    assert "Environments that are not safe, the first of them:" in (tmp_path / "report.md").read_text()
    told = json.loads((tmp_path / "report.json").read_text(), parse_constant=pytest.fail)
    assert told["design"]["proof_after"]["smallest_margin"] is None
    assert command("deception", "--vary", "lower=0:0.5", *asked) == 2
    assert "holds the report of another design, which differs in vary; choose another" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nobody", "--vary", "upper", "--over", "p=0:1"], "there is no model 'nobody'"),
        (["sycophancy", "--vary", "upper", "--over", "p_agree,p_honest=0:1"], "store; p_agree has no range"),
        (["sycophancy", "--vary", "upper", "--over", ""], "--over takes NAME=A:B"),
        (["sycophancy", "--vary", "upper=0", "--over", "p_agree=0:1"], "--vary takes NAME=A:B, as in upper=0:1"),
        (["sycophancy", "--vary", "upper", "--over", "p_agree=0:1", "--cost", "fit"], "given as NAME=VALUE; got 'fit'"),
        (["sycophancy", "--vary", "upper,upper", "--over", "p_agree=0:1"], "upper"),
        (["sycophancy", "--vary", "prior", "--over", "p_agree=0:1,p_honest=0:1"], "cannot matter here"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_made(tmp_path, capsys, args, words):
    assert command(*args, "-o", tmp_path / "out") == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_certificates_need_unsafe_actions():
    build = partial(ej.models.sycophancy, p_honest=0.8)
    assert ej.certify(build, {"upper": 0.4}, {"p_agree": [0.2, 0.7]}).safe_share == 1
    with pytest.raises(ValueError, match="a phase needs to know which actions are unsafe"):
        ej.certify(lambda p: ej.FiniteProblem([[0.0, p], [p, 0.0]], np.zeros((2, 2))), {}, {"p": [0.1]})
