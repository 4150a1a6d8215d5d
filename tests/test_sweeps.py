"""Sweeps: the dataset's contract, tiles and padding, float32 made certain, interruption, resumption and refusal."""

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from itertools import product
from pathlib import Path

import jax
import numpy as np
import pytest
import xarray as xr

import epijax as ej
from epijax.judging import judge
from epijax.sweeps import VARIABLES, job, phase_counts
from epijax.sweeps import store as on_disk
from epijax.sweeps.engine import Engine
from epijax.sweeps.grid import make_grid
from epijax.sweeps.layout import Layout

UNIT = np.linspace(0, 1, 65)  # holds 1/2: ties
ODD = {"p_agree": np.linspace(0, 1, 50), "p_honest": np.linspace(0, 1, 37)}
INTEGERS = ["phase", "rationalizable", "pure", "num_mixed"]


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(job, "TILE_SIDE", 16)


def assert_same(one: xr.Dataset, other: xr.Dataset, variables=(*INTEGERS, "margin")):
    for name in variables:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=name)


def test_the_dataset_is_what_the_contract_says(tmp_path):
    store = tmp_path / "run.zarr"
    ej.sweep(ej.models.sycophancy, {"p_agree": UNIT, "upper": UNIT[1:]}, {"p_honest": 0.9}, store=store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset = xr.open_zarr(store)
    assert dataset["phase"].dims == ("p_agree", "upper")
    np.testing.assert_array_equal(dataset["upper"], UNIT[1:])
    assert {name: str(variable.dtype) for name, variable in dataset.data_vars.items()} == {
        "phase": "uint8",
        "rationalizable": "uint8",
        "pure": "uint8",
        "num_mixed": "uint8",
        "margin": "float32",
    }
    flags = dataset["phase"].attrs
    named = dict(zip(flags["flag_values"], flags["flag_meanings"].split(), strict=True))
    assert named == {code: name for code, name in ej.PHASES.items() if name != "not_computed"}
    assert dataset["pure"].attrs["flag_masks"] == [1, 2]
    assert dataset["pure"].attrs["flag_meanings"] == "agree honest"
    attributes = dataset.attrs
    assert attributes["model"] == "sycophancy"
    assert attributes["fixed"]["p_honest"] == 0.9
    assert attributes["fixed"]["reward_agree"] == 1.0
    assert "upper" not in attributes["fixed"]
    assert (attributes["actions"], attributes["unsafe"]) == (["agree", "honest"], [True, False])
    assert attributes["dtype"] == "float32"
    assert "cpu" in attributes["device"]
    assert attributes["versions"]["jax"] == jax.__version__
    assert attributes["command"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("num_devices", [1, 3, 8])
def test_every_cell_is_that_of_solve_whatever_the_tiles_and_devices(dtype, num_devices):
    axes = {"reward_agree": np.linspace(0.5, 2, 5), "p_agree": np.linspace(0, 1, 23), "p_honest": np.linspace(0, 1, 9)}
    problems = jax.vmap(lambda r, a, h: ej.models.sycophancy(a, h, reward_agree=r))(
        *(values.ravel() for values in np.meshgrid(*axes.values(), indexing="ij"))
    )
    direct = jax.jit(jax.vmap(ej.solve))(problems)
    grid = make_grid(axes, tile_cells=60, tile_side=8)
    assert grid.tile == (1, 7, 8)
    engine = Engine(ej.models.sycophancy, {}, grid, dtype, (True, False), jax.devices()[:num_devices])
    found = {name: np.full(grid.shape, 99, kind) for name, kind in engine.layout.variables().items()}
    for tile, block, _ in engine.answers(grid.tiles()):
        for name, values in block.items():
            found[name][grid.region(tile)] = values
    expected = {
        "phase": ej.phase(direct, (True, False)),
        "rationalizable": direct.rationalizable_bits,
        "pure": direct.pure_bits,
        "num_mixed": direct.num_mixed,
    }
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name].ravel(), values, err_msg=name)
    np.testing.assert_allclose(found["margin"].ravel(), direct.margin, rtol=2**-14, atol=1e-6)


@pytest.mark.parametrize("model", ej.models.X26)
def test_float32_equals_float64_bit_for_bit_where_it_matters(model):
    spans = ej.models.MODELS[model].axes
    for exploration in (0.0, 0.2):
        axes = {name: np.linspace(*span, 257) for name, span in spans.items()}  # ties along whole lines
        single = ej.sweep(model, axes, {"exploration": exploration})
        double = ej.sweep(model, axes, {"exploration": exploration}, dtype="float64")
        assert_same(single, double, INTEGERS)
        assert 0 < single.attrs["rechecked"] < 0.02 * single["phase"].size
        np.testing.assert_allclose(single["margin"], double["margin"], rtol=2**-14, atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_float32_flags_what_it_cannot_decide(offset):
    """A safe action tells of θ by a thousandth only, and another's pay rides on it; then all stands on a thousand."""

    def weakly_informed(truth, price):
        stack, array = jax.numpy.stack, jax.numpy.array
        payoffs = stack([stack([offset + price, offset + price]), array([offset, offset + 1])])
        probs = stack([stack([1 - truth, truth]), array([0.7, 0.3])])
        model = ej.AffineBernoulli((0.5, 0.0), (1e-3, 1.0), 0.0, 1.0)
        return ej.Problem(ej.Environment(probs, payoffs), model, unsafe=(False, True))

    axes = {"truth": np.linspace(0.5002, 0.5008, 301), "price": np.linspace(0.21, 0.81, 300)}
    single, double = (ej.sweep(weakly_informed, axes, dtype=dtype) for dtype in ("float32", "float64"))
    assert_same(single, double, INTEGERS)
    assert len(phase_counts(double)) >= 3
    assert single.attrs["rechecked"] > 100


def test_a_disk_and_a_memory_sweep_are_the_same(tmp_path, small_tiles):
    assert_same(ej.sweep("sycophancy", ODD), ej.sweep("sycophancy", ODD, store=tmp_path / "run.zarr"))


def test_a_table_of_beliefs_can_be_swept():
    def build(tilt):
        model = ej.Finite(np.array([[[0.5, 0.5], [0.5, 0.5]], [[0.2, 0.8], [0.9, 0.1]], [[0.7, 0.3], [0.4, 0.6]]]))
        probs = jax.numpy.stack([jax.numpy.stack([1 - tilt, tilt]), jax.numpy.array([0.3, 0.7])])
        return ej.Problem(ej.Environment(probs, np.array([[0.0, 1.0], [0.2, 0.8]])), model, unsafe=(True, False))

    axis = np.linspace(0.05, 0.95, 41)
    dataset = ej.sweep(build, {"tilt": axis}, dtype="float64")
    for value, code, mixed in zip(axis, dataset["phase"].values, dataset["num_mixed"].values, strict=True):
        solution = ej.solve(build(value))
        assert (code, mixed) == (ej.phase(solution, (True, False)), solution.num_mixed)
    assert len(np.unique(dataset["phase"])) > 1


def test_more_actions_take_two_words():
    def build(shift, slope):
        environment = ej.Environment(
            jax.numpy.stack([jax.numpy.array([0.4, 0.6]), jax.numpy.array([0.7, 0.3]), jax.numpy.array([0.5, 0.5])]),
            jax.numpy.stack(
                [jax.numpy.array([0.0, 1.0]), jax.numpy.array([0.8, 0.1]), jax.numpy.stack([shift, slope])]
            ),
        )
        model = ej.AffineBernoulli((0.0, 1.0, 0.0), (1.0, -1.0, 1.0), 0.0, 1.0)
        return ej.Problem(environment, model, unsafe=(True, False, False))

    assert not Layout(3, 3, VARIABLES).one_word
    assert Layout(3, 3, ("phase",)).code_dtype == np.uint16
    axes = {"shift": np.linspace(0, 1, 12), "slope": np.linspace(0, 1, 13)}
    dataset = ej.sweep(build, axes, dtype="float64")
    solve = jax.jit(lambda a, b: ej.solve(build(a, b)))
    for i, shift in enumerate(axes["shift"]):
        for j, slope in enumerate(axes["slope"]):
            solution = solve(shift, slope)
            cell = {name: int(variable[i, j]) for name, variable in dataset[INTEGERS].items()}
            assert cell["rationalizable"] == solution.rationalizable_bits
            assert cell["phase"] == ej.phase(solution, (True, False, False))
            assert cell["num_mixed"] == solution.num_mixed
            np.testing.assert_allclose(dataset["margin"][i, j], solution.margin, rtol=1e-6)
    few = ej.sweep(build, axes, dtype="float64", variables=["phase", "num_mixed"])
    xr.testing.assert_equal(few, dataset[["phase", "num_mixed"]])


def test_the_variables_kept_are_those_of_a_whole_sweep(tmp_path, small_tiles):
    whole = ej.sweep("sycophancy", ODD)
    for names in (["phase"], ["pure", "phase"], ["phase", "margin"], list(INTEGERS)):
        kept = ej.sweep("sycophancy", ODD, variables=names)
        xr.testing.assert_equal(kept, whole[[name for name in VARIABLES if name in names]])
    stored = ej.sweep("sycophancy", ODD, variables=["phase", "pure"], store=tmp_path / "run.zarr")
    xr.testing.assert_equal(stored.load(), whole[["phase", "pure"]])
    assert judge(stored, ej.models.sycophancy, 50).disagreements == []
    wrong = stored.copy(deep=True)
    wrong["pure"][:] = 0
    assert judge(wrong, ej.models.sycophancy, 50).disagreements
    with pytest.raises(ValueError, match=r"holds another sweep .*variables: stored .*asked"):
        ej.sweep("sycophancy", ODD, store=tmp_path / "run.zarr")
    with pytest.raises(ValueError, match="no variable 'fase'; the nearest is 'phase'"):
        ej.sweep("sycophancy", ODD, variables=["phase", "fase"])
    with pytest.raises(ValueError, match="phase must be among"):
        ej.sweep("sycophancy", ODD, variables=["margin"])


def test_stopped_after_any_tile_it_goes_on_and_ends_the_same(tmp_path, small_tiles):
    whole = ej.sweep("sycophancy", ODD)
    for stop_after in (1, 4, 11):
        store = tmp_path / f"{stop_after}.zarr"
        seen = []

        def stop(done, total, seen=seen, stop_after=stop_after):
            seen.append(done)
            if len(seen) == stop_after:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ej.sweep("sycophancy", ODD, store=store, progress=stop)
        marks = {path: path.stat().st_mtime_ns for path in (store / ".done").glob("*.*.json")}
        assert len(marks) == stop_after
        rest = []
        dataset = ej.sweep("sycophancy", ODD, store=store, progress=lambda done, total, rest=rest: rest.append(done))
        assert_same(whole, dataset)
        assert len(rest) == 12 - stop_after
        assert rest[-1] == 50 * 37
        assert all(path.stat().st_mtime_ns == when for path, when in marks.items()), "finished tiles were touched"


KILLED = """
import sys, numpy as np, epijax as ej
from epijax.sweeps import job, store as on_disk
job.TILE_SIDE = 64
axes = {"p_agree": np.linspace(0, 1, 901), "p_honest": np.linspace(0, 1, 700)}
print("start", flush=True)
ej.sweep("sycophancy", axes, store=sys.argv[1], progress=lambda done, total: print(done, flush=True))
"""


def test_killed_at_random_moments_it_goes_on_and_ends_the_same(tmp_path, monkeypatch):
    store = tmp_path / "run.zarr"
    moments = np.random.default_rng(0)
    for _ in range(2):
        run = subprocess.Popen([sys.executable, "-c", KILLED, str(store)], stdout=subprocess.PIPE, text=True)
        assert run.stdout is not None
        for _ in range(int(moments.integers(2, 30))):  # wait for some tiles, then for a moment within the next
            run.stdout.readline()
        time.sleep(moments.uniform(0, 0.03))
        run.send_signal(signal.SIGKILL)
        run.wait()
        run.stdout.close()
    done = len(list((store / ".done").glob("*.*.json")))
    assert 4 < done < 15 * 11
    monkeypatch.setattr(job, "TILE_SIDE", 64)
    axes = {"p_agree": np.linspace(0, 1, 901), "p_honest": np.linspace(0, 1, 700)}
    assert_same(ej.sweep("sycophancy", axes), ej.sweep("sycophancy", axes, store=store))


def test_a_tile_without_a_valid_marker_is_computed_again(tmp_path, small_tiles):
    store = tmp_path / "run.zarr"
    whole = ej.sweep("sycophancy", ODD, store=store).load()
    (store / ".done" / "1.1.json").write_text('{"config_')  # torn
    (store / ".done" / "2.1.json").write_text(json.dumps({"config_sha256": "another"}))
    for name in ("1/1", "2/1"):
        (store / "phase" / "c" / name).unlink()
    counted = []
    again = ej.sweep("sycophancy", ODD, store=store, progress=lambda done, total: counted.append(done))
    assert len(counted) == 2
    assert_same(whole, again)


def test_a_tile_whose_values_are_all_zero_is_stored(tmp_path, small_tiles):
    store = tmp_path / "run.zarr"
    axes = {"p_agree": np.linspace(0, 0.4, 32), "p_honest": np.linspace(0.6, 1, 32)}
    ej.sweep("sycophancy", axes, store=store)
    assert len(list((store / "phase" / "c").glob("*/*"))) == 4
    assert phase_counts(xr.open_zarr(store)) == {0: 1024}


def test_another_configuration_is_refused_and_the_difference_shown(tmp_path):
    store = tmp_path / "run.zarr"
    ej.sweep("sycophancy", ODD, {"reward_agree": 2.0}, store=store)
    before = sorted(str(path) for path in store.rglob("*"))
    with pytest.raises(ValueError, match=r"another sweep \(fixed reward_agree: stored 2.0, asked 3.0\)"):
        ej.sweep("sycophancy", ODD, {"reward_agree": 3.0}, store=store)
    with pytest.raises(ValueError, match="dtype: stored float32, asked float64"):
        ej.sweep("sycophancy", ODD, {"reward_agree": 2.0}, store=store, dtype="float64")
    assert sorted(str(path) for path in store.rglob("*")) == before


def test_what_is_no_run_is_neither_overwritten_nor_opened(tmp_path):
    (tmp_path / "notes").mkdir()
    with pytest.raises(ValueError, match="not a sweep of epijax"):
        ej.sweep("sycophancy", ODD, store=tmp_path / "notes")
    with pytest.raises(ValueError, match="not a sweep of epijax"):
        on_disk.open_run(tmp_path / "nowhere")


def half(x):
    return ej.models.sycophancy(x, 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("sycofancy", ODD), "no model 'sycofancy'; the nearest is 'sycophancy'"),
        (("sycophancy", {"p_agre": UNIT, "p_honest": UNIT}), "parameter 'p_agre'; the nearest is 'p_agree'"),
        (("sycophancy", ODD, {"cost": 1.0}), "parameter 'cost'; the nearest is 'cost_agree'"),
        (("sycophancy", ODD, {"p_agree": 1.0}), "p_agree is both an axis and fixed"),
        (("sycophancy", {"p_agree": UNIT}), "needs a value for p_honest"),
        (("sycophancy", {}), "at least one axis"),
        (("sycophancy", {"p_agree": [0.5], "p_honest": UNIT}), "p_agree needs at least 2 points"),
        (("sycophancy", {"p_agree": [0.1, np.nan], "p_honest": UNIT}), "p_agree has a value that is not finite"),
        (("sycophancy", {"p_agree": [0.2, 0.1], "p_honest": UNIT}), "p_agree must increase strictly"),
        (("sycophancy", {"p_agree": 1.5 * UNIT, "p_honest": UNIT}), "p_agree=1.5, p_honest=0: p_agree is 1.5"),
        (("sycophancy", ODD, {"lower": 0.8, "upper": 0.2}), "lower must not exceed upper"),
        (("sycophancy", ODD, {"reward_agree": np.nan}), "payoffs must be finite"),
        (("sycophancy", ODD, {"exploration": 1.5}), r"exploration must lie in \[0, 1\]"),
        ((lambda x: ej.FiniteProblem(np.eye(2), np.eye(2)), {"x": UNIT}), "which actions are unsafe"),
        ((lambda x: x, {"x": UNIT}), "must return a Problem"),
    ],
)
def test_bad_input_is_one_message_and_nothing_is_written(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        ej.sweep(*arguments, store=tmp_path / "deep" / "run.zarr")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_cell_that_is_no_problem_or_refutes_all_beliefs_has_no_phase():
    axes = {"p_agree": np.linspace(0, 1, 5), "upper": np.linspace(0, 1, 5)}
    refuted = ej.sweep("sycophancy", axes, {"p_honest": 1.0})
    names = [ej.PHASES[code] for code in refuted["phase"].values[:, 0]]
    assert names == ["safe", "refuted", "refuted", "refuted", "refuted"]  # θ fixed at 0, truth p_agree
    assert np.isnan(refuted["margin"].values[1:, 0]).all()
    assert not refuted["rationalizable"].values[1:, 0].any()

    def humped(x):  # a problem at both ends of the axis, none in the middle
        return ej.models.sycophancy(0.3 + 4 * x * (1 - x), 0.9)

    inside = ej.sweep(humped, {"x": np.linspace(0, 1, 11)})["phase"].values
    assert [ej.PHASES[code] for code in inside[[0, 5, 10]]] == ["safe", "invalid", "safe"]


def test_shares_are_counted_block_by_block(monkeypatch):
    dataset = ej.sweep("sycophancy", {"p_agree": np.linspace(0, 1, 256), "p_honest": np.linspace(0, 1, 128)})
    assert phase_counts(dataset) == {code: 256 * 128 // 4 for code in range(4)}


def test_a_tile_is_solved_without_temporaries_to_speak_of():
    """A block is one fused loop: a single table kept for each of its cells would take four times as much as this."""
    for model in ej.models.X26:
        entry = ej.models.MODELS[model]
        for dtype, fixed in product(("float32", "float64"), ({}, {"exploration": 0.1})):
            axes = {name: np.linspace(*span, 4096) for name, span in entry.axes.items()}
            grid = make_grid(axes, job.TILE_CELLS, job.TILE_SIDE)
            engine = Engine(entry.build, fixed, grid, dtype, (True, False), jax.devices()[:2])
            assert engine.memory().temp_size_in_bytes <= 1 << 18, (model, dtype, fixed)


def test_a_run_is_the_same_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ej.sweep("sycophancy", ODD, store="run.zarr")
    assert Path(os.fspath(tmp_path / "run.zarr" / "zarr.json")).is_file()
    assert_same(ej.sweep("sycophancy", ODD), ej.sweep("sycophancy", ODD, store=tmp_path / "run.zarr"))
