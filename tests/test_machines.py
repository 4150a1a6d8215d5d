"""Sweeps by many processes and from files: parts, Dask, damage, full disks; parameters that vary together."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import distributed
import jax
import numpy as np
import psutil
import pytest
import xarray as xr
from test_sweeps import assert_same

import epijax as ej
from epijax.cli import main
from epijax.judging import judge
from epijax.sweeps import job, phase_counts
from epijax.sweeps import store as on_disk
from epijax.sweeps.jobfile import read_job
from epijax.view.plot import phase_diagram

AXES = {"p_agree": np.linspace(0, 1, 90), "p_honest": np.linspace(0, 1, 77)}


@pytest.fixture(scope="module")
def whole() -> xr.Dataset:
    return ej.sweep("sycophancy", AXES)


def run(capsys, *arguments) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0), *capsys.readouterr()


# Many processes: all of them end with the bytes of `whole`, which eight devices made


def test_one_device_makes_the_whole(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda **_: jax.devices()[:1])
    alone = ej.sweep("sycophancy", AXES)
    assert alone.attrs["device"] != whole.attrs["device"]
    assert_same(alone, whole)


def test_pmap_makes_the_whole(whole):
    agree, honest = (np.resize(axis.ravel(), 6936) for axis in np.meshgrid(*AXES.values(), indexing="ij"))  # 8 x 867
    problems = jax.vmap(ej.models.sycophancy)(agree, honest)
    solutions = jax.pmap(jax.vmap(ej.solve))(jax.tree.map(lambda leaf: leaf.reshape(8, 867, *leaf.shape[1:]), problems))
    answers = {
        "phase": ej.phase(solutions, problems.unsafe),
        "rationalizable": solutions.rationalizable_bits,
        "pure": solutions.pure_bits,
    }
    for name, values in answers.items():
        kept = np.asarray(values).ravel()[: whole[name].size]
        assert kept.astype(np.uint8).tobytes() == whole[name].values.tobytes(), name


def test_an_interrupted_sweep_gone_on_with_makes_the_whole(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(job, "TILE_SIDE", 32)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            ej.sweep("sycophancy", AXES, store=tmp_path / "run.zarr", progress=stop)
    assert_same(ej.sweep("sycophancy", AXES, store=tmp_path / "run.zarr"), whole)


def test_parts_make_the_whole(tmp_path, whole):
    store = tmp_path / "run.zarr"
    for k in (3, 1, 4, 2):
        before = len(list((store / ".done").glob("*.*.json")))
        dataset = ej.sweep("sycophancy", AXES, store=store, part=(k, 4))
        done = len(list((store / ".done").glob("*.*.json"))) - before
        assert done >= 4
    assert_same(dataset, whole)
    assert dataset.attrs["rechecked"] == whole.attrs["rechecked"]


def test_a_part_leaves_the_rest_uncomputed(tmp_path):
    dataset = ej.sweep("sycophancy", AXES, store=tmp_path / "run.zarr", part=(1, 4))
    counts = phase_counts(dataset)
    assert 0 < counts[255] < dataset["phase"].size
    tiles = on_disk.Store(tmp_path / "run.zarr")
    everything = list(tiles.grid.tiles())
    assert sorted([*tiles.pending(), *everything[::4]]) == everything
    assert not tiles.pending((1, 4))


def test_workers_of_dask_do_it_though_one_is_killed(tmp_path, whole):
    killed = []

    def kill_one(done: int, total: int) -> None:
        if not killed:
            children = psutil.Process().children(recursive=True)
            worker = next(child for child in children if "spawn_main" in " ".join(child.cmdline()))
            worker.kill()
            killed.append(worker.pid)

    dataset = ej.sweep("sycophancy", AXES, store=tmp_path / "run.zarr", workers=2, progress=kill_one)
    assert killed
    assert_same(dataset, whole)


def test_a_scheduler_that_does_not_answer_is_an_error(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("epijax.sweeps.cluster._SILENCE", 1.0)
    store = tmp_path / "run.zarr"
    options = ["--axis", "p_agree=0:1:9", "--axis", "p_honest=0:1:9", "--scheduler", "tcp://127.0.0.1:9"]
    code, _, err = run(capsys, "sweep", "sycophancy", *options, "-o", store)
    assert code == 1
    assert err.strip().splitlines()[-1].startswith("epijax: no Dask scheduler answers at tcp://127.0.0.1:9; start one")
    assert not store.exists()


def test_a_scheduler_without_workers_is_not_waited_for_without_end(tmp_path, whole, monkeypatch):
    monkeypatch.setattr("epijax.sweeps.cluster._ALONE", 1.0)
    monkeypatch.setattr("epijax.sweeps.cluster._COUNTED_EVERY", 0.2)
    store = tmp_path / "run.zarr"
    nobody = distributed.LocalCluster(n_workers=0, processes=False, dashboard_address=None)
    with nobody, pytest.raises(ej.RunError, match="no worker for 1 s; start some by `dask worker`; what is finished"):
        ej.sweep("sycophancy", AXES, store=store, scheduler=nobody.scheduler_address)
    assert_same(ej.sweep("sycophancy", AXES, store=store), whole)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"part": (5, 4)}, "there is no part 5 of 4; parts go from 1/4 to 4/4"),
        ({"part": (0, 4)}, "there is no part 0 of 4"),
        ({"workers": 0}, "there must be 1 worker at least"),
        ({"workers": 2, "part": (1, 2)}, "part and workers exclude each other"),
        ({"workers": 2, "store": None}, "workers needs a store"),
    ],
)
def test_processes_that_cannot_be_are_refused(tmp_path, asked, message):
    with pytest.raises(ValueError, match=message):
        ej.sweep("sycophancy", AXES, **({"store": tmp_path / "run.zarr"} | asked))
    assert not list(tmp_path.iterdir())


def test_of_several_who_make_a_store_one_wins(tmp_path, whole):
    store = tmp_path / "run.zarr"
    ej.sweep("sycophancy", AXES, store=store, part=(1, 4))
    made = on_disk.Store(store)
    attributes = dict(whole.attrs)
    kinds = {name: whole[name].dtype for name in whole.data_vars}
    on_disk.create(store, made.grid, made.config, attributes, kinds)  # as if it had not been there a moment ago
    assert [path.name for path in tmp_path.iterdir()] == ["run.zarr"]
    assert_same(ej.sweep("sycophancy", AXES, store=store), whole)


@pytest.mark.slow
def test_every_fault_is_told_and_leaves_no_wrong_cell():
    script = Path(__file__).parent.parent / "scripts" / "faults.py"
    told = subprocess.run([sys.executable, script, "--kills", "2"], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert told.stdout.count("every cell is right") >= 5


# Damage


def test_damaged_tiles_are_told_and_computed_again(capsys, tmp_path, whole):
    store = tmp_path / "run.zarr"
    ej.sweep("sycophancy", AXES, store=store, part=(1, 4))
    assert run(capsys, "status", store)[0] == 1
    ej.sweep("sycophancy", AXES, store=store)
    code, out, _ = run(capsys, "status", store, "--verify")
    assert code == 0
    assert " 0 damaged" in out
    short, changed, gone = (store / "phase" / "c" / "0" / "0", store / "margin/c/1/0", store / "pure/c/2/0")
    short.write_bytes(short.read_bytes()[:-3])
    changed.write_bytes(bytes([changed.read_bytes()[0] ^ 1]) + changed.read_bytes()[1:])
    gone.unlink()
    code, out, _ = run(capsys, "status", store, "--verify")
    assert code == 1
    assert all(f"damaged: {chunk}" in out for chunk in (short, changed, gone))
    assert " 3 damaged" in out
    assert run(capsys, "status", store)[0] == 1
    assert_same(ej.sweep("sycophancy", AXES, store=store), whole)
    assert run(capsys, "status", store, "--verify")[0] == 0


def test_a_full_disk_stops_the_run_and_loses_nothing(tmp_path, whole, monkeypatch):
    store, really = tmp_path / "run.zarr", os.replace
    ej.sweep("sycophancy", AXES, store=store, part=(1, 4))
    done = set((store / ".done").iterdir())

    def full(source, target):
        if ".done" in str(target):
            raise OSError(errno.ENOSPC, "No space left on device")
        really(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(ej.RunError, match=r"No space left on device\); make room, and the same command"):
            ej.sweep("sycophancy", AXES, store=store)
    assert set((store / ".done").iterdir()) == done
    assert_same(ej.sweep("sycophancy", AXES, store=store), whole)


def test_a_store_of_a_newer_version_is_not_touched(tmp_path, monkeypatch):
    store = tmp_path / "run.zarr"
    monkeypatch.setattr(on_disk, "FORMAT", 2)
    ej.sweep("sycophancy", AXES, store=store)
    monkeypatch.setattr(on_disk, "FORMAT", 1)
    for again in (lambda: ej.sweep("sycophancy", AXES, store=store), lambda: on_disk.open_run(store)):
        with pytest.raises(ValueError, match=r"was made by epijax .*install that version"):
            again()


# Parameters that vary together


def test_parameters_that_vary_together_are_one_dimension(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "TILE_SIDE", 16)
    bounds = np.sort(np.random.default_rng(0).random((40, 2)), axis=1)
    axes = {"p_agree": np.linspace(0, 1, 21), ("lower", "upper"): bounds}
    dataset = ej.sweep("sycophancy", axes, {"p_honest": 0.7}, store=tmp_path / "run.zarr")
    assert dataset["phase"].dims == ("p_agree", "point")
    np.testing.assert_array_equal(dataset["lower"], bounds[:, 0])
    assert_same(ej.sweep("sycophancy", axes, {"p_honest": 0.7}, store=tmp_path / "run.zarr"), dataset)
    first, second = (axis.ravel() for axis in np.meshgrid(axes["p_agree"], np.arange(40), indexing="ij"))
    right = jax.vmap(lambda a, b: ej.solve(ej.models.sycophancy(a, 0.7, lower=b[0], upper=b[1])))(first, bounds[second])
    np.testing.assert_array_equal(dataset["phase"].values.ravel(), ej.phase(right, (True, False)))
    verdict = judge(dataset, ej.models.sycophancy, 200)
    assert verdict.judged > 150
    assert not verdict.disagreements
    with pytest.raises(ValueError, match="point holds parameters that vary together"):
        phase_diagram(dataset)


@pytest.mark.parametrize("kind", ["sobol", "latin_hypercube"])
def test_a_design_fills_the_box(kind):
    spans = {"p_agree": (0, 1), "p_honest": (0.2, 0.4), "reward_agree": (1, 3)}
    design = ej.scattered(spans, 64, kind=kind, seed=1)
    ((names, points),) = design.items()
    assert names == tuple(spans)
    low, high = np.array([*spans.values()]).T
    strata = np.sort(((points - low) / (high - low) * 64).astype(int), axis=0)
    np.testing.assert_array_equal(strata, np.arange(64)[:, None].repeat(3, axis=1))  # one in each 64th of each axis
    np.testing.assert_array_equal(points, ej.scattered(spans, 64, kind=kind, seed=1)[names])
    dataset = ej.sweep("sycophancy", design)
    assert dataset["phase"].shape == (64,)
    assert len(np.unique(dataset["phase"])) >= 2


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({("lower", "upper"): np.zeros((1, 2))}, r"lower and upper vary together, as points \[n, 2\]"),
        ({("lower", "upper"): np.zeros((5, 3))}, r"got shape \(5, 3\)"),
        ({("lower", "lower"): np.zeros((5, 2))}, "lower is given twice"),
        ({"lower": [0, 1], ("lower", "upper"): np.zeros((5, 2))}, "lower is given twice"),
    ],
)
def test_points_that_are_none_are_refused(axes, message):
    with pytest.raises(ValueError, match=message):
        ej.sweep("sycophancy", axes, {"p_agree": 0.4, "p_honest": 0.4})


# Written down


JOB = """
model = "sycophancy"
output = "out/map.zarr"
dtype = "float64"
keep = ["phase"]
[fixed]
exploration = 0.05
[axes]
p_agree = "0:1:11"
p_honest = [0.1, 0.2, 0.9]
"""


def test_a_job_is_a_file(capsys, tmp_path):
    file = tmp_path / "job.toml"
    file.write_text(JOB)
    code, out, _ = run(capsys, "sweep", file, "--set", "exploration=0.1", "--axis", "p_agree=0:1:7", "--part", "1/1")
    assert code == 0
    assert "21 cells in" in out
    dataset = on_disk.open_run(tmp_path / "out" / "map.zarr")
    assert list(dataset.data_vars) == ["phase"]
    assert dataset.attrs["fixed"]["exploration"] == 0.1
    right = ej.sweep("sycophancy", {"p_agree": np.linspace(0, 1, 7), "p_honest": [0.1, 0.2, 0.9]}, {"exploration": 0.1})
    assert_same(dataset, right, ["phase"])


def test_a_job_with_everything_else(tmp_path):
    file = tmp_path / "job.toml"
    together, random = '[[together]]\nlower = "0:0.3:4"\nupper = [0.4, 0.5, 0.6, 1]\n', "[random]\nnum = 8\nseed = 3\n"
    file.write_text(
        f'model = "models.py:build"\n{together}{random}[random.spans]\np_agree = [0, 1]\np_honest = [0, 1]\n'
    )
    found = read_job(file)
    assert found["model"] == f"{tmp_path}/models.py:build"
    np.testing.assert_allclose(found["axes"]["lower", "upper"], [[0, 0.4], [0.1, 0.5], [0.2, 0.6], [0.3, 1]])
    design = ej.scattered({"p_agree": (0, 1), "p_honest": (0, 1)}, 8, seed=3)
    np.testing.assert_array_equal(found["axes"]["p_agree", "p_honest"], design["p_agree", "p_honest"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model =", "is no TOML file"),
        ('modle = "sycophancy"', "has a key 'modle' that says nothing; the nearest is 'model'"),
        ("dtype = 'float32'", "must name a model"),
        ('model = "sycophancy"\naxes = 3', "axes must be a table"),
        ('model = "sycophancy"\n[axes]\na = "0:1"', "axis a is given as NAME=START:STOP:NUM; got '0:1'"),
        ('model = "sycophancy"\n[axes]\na = "1:0:5"', "axis a must start below its end"),
        ('model = "sycophancy"\n[axes]\na = ["x"]', "axis a must be"),
        ('model = "sycophancy"\n[[together]]\na = [1, 2]\nb = [1, 2, 3]', "as many values each; got a 2, b 3"),
        ('model = "sycophancy"\n[random]\nnum = 4', "random needs num, and spans"),
        ('model = "sycophancy"\n[random]\nnum = 4\nkind = "halton"\nspans = {a = [0, 1]}', "sobol or latin_hypercube"),
        ('model = "sycophancy"\n[random]\nnum = 4\nspans = {a = [1, 0]}', "a must go from a finite number to a larger"),
    ],
)
def test_a_job_that_says_nothing_is_refused(tmp_path, text, message):
    file = tmp_path / "job.toml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_job(file)
