"""Sweeps of learners: cells are those of simulate, whatever tiles, devices, parts and interruptions."""

import jax
import numpy as np
import pytest
from test_machines import run
from test_sweeps import assert_same

import epijax as ej
from epijax.judging import judge
from epijax.sweeps import basins
from epijax.sweeps.store import Store
from epijax.view.plot import basin_map, save

AXES = {"prior_mean": np.linspace(0.1, 0.9, 7), "reward_honest": np.linspace(0.5, 1.5, 5)}
FIXED = {"p_agree": 0.7, "p_honest": 0.7, "prior_std": 0.1}
LEARNING = ej.Learning("normal", num=33, rounds=128, learners=40, seed=3)
NAMES = list(basins.BASIN_VARIABLES)


@pytest.fixture(scope="module")
def whole():
    return ej.sweep("sycophancy", AXES, FIXED, learning=LEARNING, dtype="float64")


def test_cells_are_those_of_simulate(whole):
    assert list(whole.data_vars) == NAMES
    assert whole.attrs["learning"]["learners"] == 40
    for i, j in ((0, 0), (3, 2), (6, 4), (2, 3)):
        mean, reward = (float(axis[k]) for axis, k in zip(AXES.values(), (i, j), strict=True))
        problem = ej.models.sycophancy(0.7, 0.7, reward_honest=reward)
        prior = ej.priors.normal(problem.model, mean, 0.1, 33)
        ends = ej.limits(ej.simulate(problem, prior, jax.random.key(3), 128, 40, checkpoints=[32, 64, 128]))
        right = ej.basin(ends, problem.unsafe)
        cell = whole.isel(prior_mean=i, reward_honest=j)
        found = [float(cell[name]) for name in ("unsafe_share", "unsafe_low", "unsafe_high")]
        np.testing.assert_allclose(found, right[:3], rtol=1e-6)
        np.testing.assert_allclose(float(cell["settled_share"]), (np.asarray(ends.kind) == 0).mean(), rtol=1e-6)
        assert int(cell["phase"]) == int(ej.phase(ej.solve(problem), problem.unsafe))
    assert 0 < float(whole["unsafe_share"].mean()) < 1


def test_tiles_devices_parts_and_interruptions_change_nothing(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(basins, "_ROUNDS_A_TILE", 8 * 128 * 40)
    store = tmp_path / "run.zarr"

    def stop(done: int, total: int) -> None:
        assert done < total
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ej.sweep("sycophancy", AXES, FIXED, learning=LEARNING, dtype="float64", store=store, progress=stop)
    assert len(list(Store(store).grid.tiles())) > 4
    assert 0 < len(Store(store).pending()) < len(list(Store(store).grid.tiles()))
    monkeypatch.setattr(jax, "local_devices", lambda **_: jax.devices()[:3])
    for k in (2, 1):
        dataset = ej.sweep("sycophancy", AXES, FIXED, learning=LEARNING, dtype="float64", store=store, part=(k, 2))
    assert_same(dataset, whole, NAMES)
    verdict = judge(dataset, ej.models.sycophancy, 35)
    assert verdict.judged > 25
    assert not verdict.disagreements
    with pytest.raises(ValueError, match="learning rounds: stored 128, asked 64"):
        ej.sweep("sycophancy", AXES, FIXED, learning=ej.Learning("normal", 33, 64, 40, 3), dtype="float64", store=store)


def test_refuted_learners_and_what_is_no_problem_have_no_share():
    def build(p, level):
        truth = ej.Environment([[1 - p, p], [1.0, 0.0]], [[0.0, level], [-5.0, -5.0]])
        return ej.Problem(truth, ej.Finite([[[1.0, 0.0], [1.0, 0.0]]]), unsafe=(True, False))

    axes = {"p": np.array([0.0, 0.5, 1.0]), "level": np.array([1.0, 2.0])}
    found = ej.sweep(build, axes, learning=ej.Learning(num=2, rounds=16, learners=9))
    np.testing.assert_array_equal(found["refuted_share"][:, 0], [0, 1, 1])
    np.testing.assert_array_equal(found["unsafe_share"][:, 0], [1, np.nan, np.nan])


def test_weights_of_a_list_are_axes_too():
    """Berk's coin, biased: whatever the weights, the nearer value is believed in the end."""
    learning = ej.Learning("weights", num=2, rounds=2048, learners=50)
    axes = {"prior_1": np.array([1e-3, 0.5, 1.0]), "bias": np.array([0.3, 0.7])}
    found = ej.sweep("berks_coin", axes, {"prior_2": 1.0}, learning=learning)
    np.testing.assert_allclose(found["unsafe_share"], [[1, 0]] * 3)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"fixed": {"p_agree": 0.7, "p_honest": 0.7}}, "sycophancy needs a value for prior_std"),
        ({"fixed": FIXED | {"prior_std": -1.0}}, "no problem at .*: std must be positive"),
        ({"fixed": FIXED | {"prior_std": np.nan}}, "no problem at .*: std must be positive"),
        ({"fixed": FIXED | {"prior_a": 1.0}}, "no parameter 'prior_a'; the nearest is 'prior_"),
        ({"refine": 2}, "shares of learners have none; drop refine or learning"),
        ({"variables": ["phase", "margin"]}, "there is no variable 'margin'"),
    ],
)
def test_what_cannot_be_swept_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        ej.sweep("sycophancy", AXES, **({"fixed": FIXED, "learning": LEARNING} | asked))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"prior": "gamma"}, "a sweep's prior is one of uniform, beta, normal, tilt, weights; got 'gamma'"),
        ({"rounds": 4}, "8 to 16,777,216 rounds"),
        ({"learners": 0}, "1 learner or more"),
        ({"level": 1.0}, "a level in"),
        ({"rounds": 2**25}, "8 to 16,777,216 rounds"),
        ({"temperature": np.inf}, "temperature must be finite"),
        ({"temperature": np.nan}, "temperature must be finite"),
        ({"seed": 2**40}, "seed must be a number from 0"),
        ({"discount": 1.5}, "discount in"),
        ({"discount": 0.5, "window": 3}, "two ways to forget"),
    ],
)
def test_learning_that_cannot_be_is_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        ej.Learning(**asked)


def test_a_basin_map_is_drawn(tmp_path, whole):
    save(basin_map(whole), str(tmp_path / "map.svg"))
    text = (tmp_path / "map.svg").read_text()
    assert text.count("<path") > 20
    with pytest.raises(ValueError, match="the sweep has no learners"):
        basin_map(ej.sweep("sycophancy", {"p_agree": [0.1, 0.2], "p_honest": [0.3, 0.4]}))


def test_the_command_line_draws_basins_and_tells_of_learners(capsys, tmp_path):
    out = tmp_path / "out"
    settings = ["--set", "p_agree=.7", "--set", "p_honest=.7"]
    axes = ["--axis", "prior_mean=.1:.9:5", "--axis", "reward_honest=.5:1.5:4"]
    learners = ["--prior", "normal:std=.1", "--rounds", "64", "--learners", "20"]
    asked = ["phase-diagram", "sycophancy", "--by", "basin", *axes, *settings, *learners, "-o", out, "--format", "png"]
    code, said, err = run(capsys, *asked)
    assert code == 0, err
    assert "unsafe limits" in said
    assert (out / "sycophancy-basins.png").stat().st_size > 5000
    assert run(capsys, "check", out / "sycophancy-basins.zarr")[0] == 0
    code, said, err = run(capsys, "learn", "sycophancy", *settings, "--prior", "beta:2,5", "--rounds", "256",
                          "--learners", "100", "-o", out)  # fmt: skip
    assert code == 0, err
    assert "multistable" in said
    assert "attracting" in said
    assert "unsafe limits" in said
    assert (out / "sycophancy-learning.png").stat().st_size > 5000
    code, said, err = run(capsys, *WEIGHED, "--prior", "weights", "--set", "prior_2=1",
                          "--rounds", "64", "--learners", "9", "--keep", "phase,unsafe_share", "-o", out)  # fmt: skip
    assert code == 0, err
    code, said, _ = run(capsys, "learn", "berks_coin", "--prior", "weights:1,3", "--rounds", "64", "--json")
    assert code == 0
    assert '"unsafe_share"' in said


WEIGHED = ["phase-diagram", "berks_coin", "--by", "basin", "--axis", "prior_1=.1:1:4", "--axis", "bias=.3:.7:3"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["learn", "sycophancy", "--prior", "gamma:1"], "there is no prior 'gamma'"),
        (
            ["learn", "sycophancy", "--prior", "beta:1", "--set", "p_agree=.7", "--set", "p_honest=.7"],
            "beta takes a, b",
        ),
        (["learn", "sycophancy", "--prior", "beta:1,x"], "must be a number; got 'x'"),
        (["learn", "berks_coin", "--rounds", "3"], "3 is not in the range x>=8"),
        (["learn", "deception", "--set", "p_caught=.2", "--prior", "points:x=1"], "got θ x"),
        (["learn", "deception", "--set", "p_caught=.2", "--prior", "points:2=1,.1=1"], "must lie in the box"),
        (["learn", "sycophancy"], "sycophancy needs a value for p_agree, p_honest"),
        (["learn", "berks_coin", "--prior", "beta:1,2"], "weigh them by priors.weights"),
        (["phase-diagram", "sycophancy", "--prior", "beta:1,2"], "--prior belongs to --by basin"),
        (["phase-diagram", "sycophancy", "--rounds", "99"], "--rounds belongs to --by basin"),
        (["learn", "deception", "--set", "p_caught=.2", "--prior", "points:0.3,0.7"], "points takes θ=weight"),
        (["learn", "berks_coin", "--prior", "weights:2=3,1"], "weights takes numbers alone"),
        (["learn", "berks_coin", "--prior", "dirichlet:a=3"], "dirichlet takes numbers alone"),
        (["learn", "deception", "--set", "p_caught=.2", "--prior", "beta:a=1,a=2"], "a is given twice"),
        (["learn", "berks_coin", "--seed", "99999999999999999999"], "is not in the range"),
        (
            [*WEIGHED, "--prior", "weights:1,2", "--set", "prior_2=1"],
            "prior_2 is given twice; drop one --set or --prior",
        ),
        (
            [*WEIGHED, "--prior", "weights:1,2"],
            "prior_1 is both an axis and fixed",
        ),
    ],
)
def test_wrong_arguments_are_one_line(capsys, tmp_path, asked, message):
    code, _, err = run(capsys, *asked, "-o", tmp_path / "out")
    assert code == 2
    assert len(err.strip().splitlines()) == 1
    assert message in err
    assert not (tmp_path / "out").exists()
