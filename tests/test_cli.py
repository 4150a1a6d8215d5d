"""The command line: what it prints and writes, its exit codes, its one-line errors, and that help is instant."""

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from epijax.cli import main
from epijax.phases import NOT_COMPUTED
from epijax.sweeps.store import open_run


def run(capsys, *args):
    with pytest.raises(SystemExit) as stopped:
        main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return stopped.value.code or 0, out, err


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    with pytest.raises(SystemExit) as stopped:
        main(["phase-diagram", "deception", "-o", str(folder), "--size", "65", "--format", "svg", "--quiet"])
    assert not stopped.value.code
    return folder


def test_help_and_import_load_nothing_heavy():
    code = (
        "import sys, epijax, epijax.cli\n"
        "try: epijax.cli.main(['--help'])\n"
        "except SystemExit as stop: assert not stop.code\n"
        "heavy = {'jax', 'numpy', 'scipy', 'xarray', 'zarr', 'matplotlib', 'rich', 'equinox'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "phase-diagram" in done.stdout


@pytest.mark.parametrize("command", ["models", "solve", "phase-diagram", "plot", "check", "design"])
def test_every_command_has_help(capsys, command):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0
    assert "Usage: epijax" in out


def test_models_lists_every_parameter_with_its_default(capsys):
    code, out, _ = run(capsys, "models")
    assert code == 0
    for text in ("sycophancy:", "hallucination:", "deception:", "p_agree", "(required)", "gain", "(default 1)"):
        assert text in out


def test_solve_explains_in_words(capsys):
    code, out, _ = run(capsys, "solve", "sycophancy", "--set", "p_agree=.7", "--set", "p_honest=.6")
    assert code == 0
    for text in (
        "Playing agree fits θ = 0.7 best.",
        "beliefs above θ̂ = 0.5",
        "Round 1: play of agree and honest fits beliefs in [0.4, 0.7]",
        "drops nothing",
        "Always playing honest is a strict Berk–Nash equilibrium.",
        "Mixing 0.333333 agree and 0.666667 honest",
        "Phase: multistable",
    ):
        assert text in out


def test_solve_says_when_every_belief_is_refuted(capsys):
    settings = ["p_agree=1", "p_honest=1", "lower=0", "upper=0"]
    code, out, _ = run(capsys, "solve", "sycophancy", *(part for s in settings for part in ("--set", s)))
    assert code == 0
    assert "contradicts every belief" in out
    assert "Phase" not in out


def test_solve_answers_in_json(capsys):
    code, out, _ = run(capsys, "solve", "deception", "--set", "p_caught=.7", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["phase"] == "indeterminate"
    assert answer["rationalizable"] == ["deceive", "comply"]
    assert answer["pure"] == ["comply"]
    assert answer["parameters"] == {"p_caught": 0.7}


BATTLE = """NFG 1 R "Battle of the sexes" { "who acts" "who believes" } { { "opera" "2nd" } { "1" "2" } }
{ { "" 3, 2 } { "" 0, 0 } { "" 2, 3 } } 1 2 2 3
"""


def test_solve_tells_a_game_from_a_file_in_words(capsys, tmp_path):
    (tmp_path / "battle.nfg").write_text(BATTLE)
    code, out, _ = run(capsys, "solve", tmp_path / "battle.nfg")
    assert code == 0
    for text in (
        "The agent can believe any of 2 parameters.",
        "Playing opera fits parameter 0 best (0 nats), under which opera pays most.",
        "Always playing “2nd” is a strict Berk–Nash equilibrium.",
        "Mixing 0.6 opera and 0.4 “2nd” is a Berk–Nash equilibrium.",
        "Rationalizable: opera and “2nd”.",
        "Status: solved",
    ):
        assert text in out


def test_solve_decides_ties_exactly_and_tells_what_is_connected(capsys, tmp_path):
    """A third and two sixths are the same only as fractions; where nothing is learned all of them are one set."""
    game = 'NFG 1 R "" { "a" "b" } { 2 2 } 1/3 1/3 1 1/3 1/3 1/3 1 1/3'
    (tmp_path / "ties.nfg").write_text(game)
    code, out, _ = run(capsys, "solve", tmp_path / "ties.nfg", "--exact", "--json")
    answer = json.loads(out)
    assert (code, answer["status"], answer["component_of_pure"]) == (0, "solved", [0])
    (tmp_path / "ties.nfg").write_text(game.replace("1/3 1/3 1 1/3 1/3 1/3 1 1/3", "1 1/3 1 1/3 1 1/3 1 1/3"))
    code, out, _ = run(capsys, "solve", tmp_path / "ties.nfg", "--exact")
    assert code == 0 and "Of these 2, 1 and 2 lie in one connected set of equilibria." in out
    code, _, err = run(capsys, "solve", "sycophancy", "--set", "p_agree=.7", "--set", "p_honest=.6", "--exact")
    assert code == 2 and "--exact takes tables" in err and "Drop --exact" in err


def test_solve_tells_all_that_tie_in_a_table(capsys, tmp_path):
    """Differences of rounding are ties, and an action that pays as much as another pays most with it."""
    utility = [[0.1 + 0.2, 1, 0], [0.3, 0, 0], [0, 0, 0]]
    (tmp_path / "a.json").write_text(
        json.dumps({"utility": utility, "divergence": [[0, 1, 2], [1, 0.3, 0.1 + 0.2], ["inf"] * 3]})
    )
    code, out, _ = run(capsys, "solve", tmp_path / "a.json")
    assert code == 0
    assert "Playing action 0 fits parameter 0 best (0 nats), under which action 0 and action 1 pay most." in out
    assert "fits parameters 1 and 2 best (0.3 nats), under one or another of which action 0, action 1 and" in out
    assert "Playing action 2 refutes them all." in out


@pytest.mark.parametrize("suffix", ["json", "npz"])
def test_solve_answers_for_a_file_in_json(capsys, tmp_path, suffix):
    path, tables = tmp_path / f"table.{suffix}", {"utility": [[1, 0], [0, 1]], "divergence": [[0, 1], [1, 0]]}
    path.write_text(json.dumps(tables | {"unsafe": [True, False]})) if suffix == "json" else np.savez(path, **tables)
    code, out, _ = run(capsys, "solve", path, "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["model"] == str(path) and answer["parameters"] == {}
    assert answer["strict"] == ["action 0", "action 1"] and answer["mixed"] == [[0.5, 0.5]]
    assert answer["phase"] == ("multistable" if suffix == "json" else None)


def test_what_is_wrong_with_a_file_is_one_line_that_names_the_entry(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("game.json").write_text('{"utility": [[1, 0]], "divergence": [[0, -0.2]]}')
    Path("game.nfg").write_text(BATTLE.replace("3, 2", "3, two"))
    for name, message in {
        "game.json": "epijax: game.json: divergence[0][1] is -0.2; a divergence must be",
        "game.nfg": "epijax: game.nfg, line 2: expected the payoff of player 2 in outcome 1, a number",
    }.items():
        code, out, err = run(capsys, "solve", name)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith(message)


def test_a_phase_diagram_is_dataset_picture_and_table(job):
    assert sorted(path.name for path in job.iterdir()) == ["deception.csv", "deception.svg", "deception.zarr"]
    with open(job / "deception.csv") as file:
        rows = list(csv.DictReader(file))
    phases = xr.open_zarr(job / "deception.zarr")["phase"].values
    assert sum(int(row["cells"]) for row in rows) == phases.size == 65 * 65
    assert sum(float(row["share"]) for row in rows) == pytest.approx(1)
    assert {row["phase"] for row in rows} >= {"locked_in", "multistable", "indeterminate"}
    assert "<svg" in (job / "deception.svg").read_text()


def test_a_second_run_solves_nothing_again(capsys, job):
    marks = {path: path.stat().st_mtime_ns for path in (job / "deception.zarr").rglob("*") if path.is_file()}
    code, out, _ = run(capsys, "phase-diagram", "deception", "-o", job, "--size", "65", "--format", "svg")
    assert code == 0
    assert "locked_in" in out
    assert all(path.stat().st_mtime_ns == when for path, when in marks.items())


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_plot_draws_a_stored_run(capsys, job, tmp_path, suffix):
    code, out, _ = run(capsys, "plot", job / "deception.zarr", "-o", tmp_path / f"new/figure.{suffix}")
    assert code == 0
    assert (tmp_path / f"new/figure.{suffix}").stat().st_size > 5000
    assert out.strip().endswith(f"figure.{suffix}")


def test_check_finds_no_disagreement_and_then_one_that_was_planted(capsys, job, tmp_path):
    code, out, _ = run(capsys, "check", job / "deception.zarr", "--sample", "300")
    assert code == 0
    assert out.startswith("0 disagreements in ")
    store = tmp_path / "wrong"
    run(capsys, "phase-diagram", "deception", "-o", store, "--size", "20", "--quiet", "--format", "svg")
    array = zarr.open_array(str(store / "deception.zarr" / "pure"), mode="r+")
    array[3, 15] = 3 - array[3, 15]
    code, out, _ = run(capsys, "check", store / "deception.zarr", "--sample", "400")
    assert code == 1
    assert "1 disagreements in " in out
    assert "p_caught=0.1578947368, upper=0.7894736842: stored multistable" in out


def test_kept_are_the_variables_asked_for(capsys, tmp_path):
    store = tmp_path / "deception.zarr"
    command = ["phase-diagram", "deception", "-o", tmp_path, "--size", "20", "--quiet", "--format", "svg"]
    code, _, err = run(capsys, *command, "--keep", "phase,fase")
    assert (code, store.exists()) == (2, False)
    assert "the nearest is 'phase'" in err
    code, _, _ = run(capsys, *command, "--keep", "phase")
    assert code == 0
    assert list(open_run(store).data_vars) == ["phase"]
    code, out, _ = run(capsys, "check", store)
    assert (code, out.startswith("0 disagreements in ")) == (0, True)


MODEL = """
import epijax as ej
def coin(bias, reward=1.0):
    return ej.models.sycophancy(bias, 0.9, reward_agree=reward)
"""


def test_a_model_of_ones_own_is_a_file_and_a_function(capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MODEL)
    code, out, _ = run(capsys, "solve", f"{path}:coin", "--set", "bias=.2")
    assert code == 0
    assert "Phase: safe" in out
    axes = ("--axis", "bias=0:1:30", "--axis", "reward=.5:2:31")
    code, out, _ = run(capsys, "phase-diagram", f"{path}:coin", "-o", tmp_path / "out", "--format", "pdf", *axes)
    assert code == 0, out
    code, out, _ = run(capsys, "check", tmp_path / "out" / "coin.zarr", "--sample", "200")
    assert code == 0
    assert out.startswith("0 disagreements in 2")
    path.write_text(MODEL.replace("0.9", "0.8"))
    code, _, err = run(capsys, "phase-diagram", f"{path}:coin", "-o", tmp_path / "out", "--format", "pdf", *axes)
    assert code == 2
    assert "holds another sweep (source:" in err


BROKEN = """
import epijax as ej
def raises(bias):
    return 1 / 0
def branches(bias):
    return ej.models.sycophancy(bias if bias > 0.5 else 0.5, 0.9)
def number(bias):
    return 5
"""


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        ("raises", ["solve", "--set", "bias=1"], "mine.py, line 4: ZeroDivisionError: division by zero"),
        ("number", ["solve", "--set", "bias=1"], "must return a Problem or a FiniteProblem; got int"),
        ("branches", ["phase-diagram", "--axis", "bias=0:1:4", "--axis", "x=0:1:4"], "no parameter 'x'"),
        ("branches", ["phase-diagram", "--axis", "bias=0:1:4", "--axis", "odds=0:1:4"], "line 6: TracerBool"),
    ],
)
def test_an_error_in_a_model_of_ones_own_says_where_it_is(capsys, tmp_path, monkeypatch, function, args, message):
    monkeypatch.chdir(tmp_path)
    source = BROKEN.replace("branches(bias)", "branches(bias, odds=0)") if "odds=0:1:4" in args else BROKEN
    Path("mine.py").write_text(source)
    code, _, err = run(capsys, args[0], f"mine.py:{function}", *args[1:])
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    Path("mine.py").write_text("def broken(:")
    code, _, err = run(capsys, "solve", "mine.py:broken")
    assert code == 2
    assert "mine.py, line 1: SyntaxError" in err


def test_check_does_not_pass_what_is_not_computed(capsys, job, tmp_path):
    part = tmp_path / "part.zarr"
    shutil.copytree(job / "deception.zarr", part)
    phases = zarr.open_array(str(part / "phase"), mode="r+")
    phases[:3] = NOT_COMPUTED
    code, out, _ = run(capsys, "check", part, "--sample", "500")
    assert code == 1
    assert "more are not computed yet" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["solve", "sycofancy"], "no model 'sycofancy'; the nearest is 'sycophancy'"),
        (["solve", "nowhere.py:build"], "no Python file nowhere.py"),
        (["solve", "nowhere.nfg"], "there is no file nowhere.nfg"),
        (["solve", "game.nfg", "--set", "a=1"], "game.nfg is a file of tables, which takes no settings; drop --set"),
        (["solve", "mine.py"], "name its function too, as in mine.py:build"),
        (
            ["solve", "deception", "--set", "p_caught=1", "--set", "p_caught=0"],
            "p_caught is given twice",
        ),
        (["phase-diagram", "deception", "--axis", "upper=0:1", "--axis", "upper=0:1"], "upper is given twice"),
        (["phase-diagram", "deception", "--axis", "p_caught=1:0", "--axis", "upper=0:1"], "must start below its end"),
        (["solve", "sycophancy", "--set", "p_agree=1.2", "--set", "p_honest=1"], "p_agree is 1.2; a probability must"),
        (["solve", "sycophancy", "--set", "p_agree=nan", "--set", "p_honest=1"], "p_agree is nan; a probability must"),
        (["solve", "sycophancy", "--set", "p_agree=x", "--set", "p_honest=1"], "p_agree must be a number; got 'x'"),
        (["solve", "sycophancy", "--set", "p_agree"], "a value is given as NAME=VALUE; got 'p_agree'"),
        (["solve", "sycophancy", "--set", "p_agree=1"], "needs a value for p_honest"),
        (["solve", "deception", "--set", "p_cought=1"], "the nearest is 'p_caught'"),
        (["solve", "deception", "--set", "p_caught=1", "--set", "lower=.8", "--set", "upper=.2"], "lower must not exc"),
        (["phase-diagram", "deception", "--axis", "p_caught=0:1:1", "--axis", "upper=0:1"], "at least 2 points"),
        (["phase-diagram", "deception", "--axis", "p_caught=0-1", "--axis", "upper=0:1"], "NAME=START:STOP"),
        (["phase-diagram", "deception", "--axis", "p_caught=0:1"], "has 2 axes, these are 1"),
        (["phase-diagram", "deception", "--axis", "risk=0:1", "--axis", "upper=0:1"], "no parameter 'risk'"),
        (["phase-diagram", "deception", "--axis", "p_caught=0:2", "--axis", "upper=0:1"], "p_caught is 2"),
        (["phase-diagram", "deception", "--set", "safe=inf"], "payoffs must be finite"),
        (["phase-diagram", "deception", "--format", "gif"], "pictures are png, svg or pdf; got 'gif'"),
        (["phase-diagram", "deception", "-o", "/proc/none"], "cannot write to /proc/none"),
        (["phase-diagram", "deception", "--size", "1"], "--size"),
        (["plot", "nowhere.zarr", "-o", "a.png"], "nowhere.zarr is not a sweep of epijax"),
        (["plot", "nowhere.zarr", "-o", "a.gif"], "pictures are png, svg or pdf"),
        (["check", "nowhere.zarr"], "nowhere.zarr is not a sweep of epijax"),
        (["chekc"], "chekc"),
    ],
)
def test_bad_input_is_one_line_exit_code_2_and_nothing_written(capsys, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *args)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_store_of_another_configuration_is_refused(capsys, job):
    code, _, err = run(capsys, "phase-diagram", "deception", "-o", job, "--size", "66")
    assert code == 2
    assert "holds another sweep (axes p_" in err


def test_progress_is_a_plain_line_in_a_log_and_can_be_silenced(capsys, tmp_path, monkeypatch):
    clock = iter(np.arange(0, 1e6, 40.0))
    monkeypatch.setattr("epijax.cli.time.monotonic", lambda: next(clock))
    _, _, err = run(capsys, "phase-diagram", "deception", "-o", tmp_path / "a", "--size", "33", "--format", "svg")
    assert err == "1,089 of 1,089 cells\n"
    _, _, err = run(
        capsys, "phase-diagram", "deception", "-o", tmp_path / "b", "--size", "33", "--format", "svg", "--quiet"
    )
    assert err == ""


def test_the_installed_command_uses_every_core(tmp_path):
    code = (
        "import os, sys; sys.argv = ['epijax', 'models']\n"
        "from epijax.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "import jax; assert len(jax.devices()) == len(os.sched_getaffinity(0)), jax.devices()"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
