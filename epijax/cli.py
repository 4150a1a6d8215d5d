"""The command line: arguments to calls to exit codes. Nothing heavy is imported before a command needs it."""

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

from epijax.arguments import (
    axis_of,
    formats_of,
    log_prior_of,
    model_of,
    once,
    part_of,
    prior_of,
    setting_of,
    settings_of,
    short_name,
    spans_of,
)

_WEIGHTS = (0.0, 0.1, 1.0, 10.0, 30.0, 100.0, 300.0)  # of a cost, along a trade-off
_LIMITS = tuple(i / 20 for i in range(17))  # on the change of levers, where kinds of levers are compared
SEE_ALSO = "A model of your own is named path/to/file.py:build wherever a built-in name is accepted."


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=SEE_ALSO)
@click.version_option(package_name="epijax")
def cli() -> None:
    """Berk–Nash equilibria, rationalizable sets and phase diagrams of agents with wrong models."""


@cli.command()
def models() -> None:
    """What there is: the built-in models, with parameters, meanings and defaults."""
    import inspect

    from epijax.models import MODELS

    for name, model in MODELS.items():
        summary = (inspect.getdoc(model.build) or "").splitlines()[0]
        click.echo(f"{name}: {summary}")
        for key, parameter in inspect.signature(model.build).parameters.items():
            default = "required" if parameter.default is parameter.empty else f"default {parameter.default:g}"
            click.echo(f"    {key:<17} {model.meaning[key]} ({default})")


@cli.command(epilog=SEE_ALSO)
@click.argument("model")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter's value; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
@click.option("--exact", is_flag=True, help="Decide tables in rational arithmetic: a tie is a tie.")
def solve(model: str, settings: tuple[str, ...], as_json: bool, exact: bool) -> None:
    """Equilibria, rationalizable set and phase of one problem, in words.

    MODEL is a built-in model, or a file: a game of two players in game.nfg of Gambit, of which the first acts and the
    second believes, or tables "utility" and "divergence" in table.json or table.npz.
    """
    import json
    from functools import partial

    import jax

    import epijax as ej
    from epijax.files import SUFFIXES, read_tables
    from epijax.solver import decide_exactly
    from epijax.sweeps import check_parameters
    from epijax.view import words

    values = settings_of(settings)
    if Path(model).suffix.lower() in SUFFIXES:
        if values:
            raise ValueError(f"{model} is a file of tables, which takes no settings; drop --set")
        name, build = model, partial(ej.read_problem, model)
        numbers = read_tables(model) if exact else None
    else:
        name, build = model_of(model)
        check_parameters(name, build, [], list(values))
        numbers = None
    with jax.enable_x64(True):
        problem = build(**values)
        if not isinstance(problem, ej.Problem | ej.FiniteProblem):
            raise ValueError(f"{name} must return a Problem or a FiniteProblem; got {type(problem).__name__}")
        if exact and isinstance(problem, ej.Problem):
            raise ValueError(
                f"--exact takes tables, whose numbers are rational; those of {name} are logarithms. Drop --exact, or "
                f"write its tables to a .json or .npz file and solve that"
            )
        solution = decide_exactly(problem, numbers) if exact else ej.solve(problem)
        if as_json:
            answer = {"model": name, "parameters": values, **words.summary(problem, solution)}
            click.echo(json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False))
        else:
            click.echo(words.explain(problem, solution))


def _learning_options(command: Callable) -> Callable:
    """The options of `learn` and of `phase-diagram --by basin`: who learns, and for how long."""
    for option in reversed(
        [
            click.option(
                "--prior", metavar="NAME[:…]", help="beta:2,5, normal:mean=.3,std=.1, tilt:-2; uniform if left out."
            ),
            click.option("--points", default=65, show_default=True, help="Points of the prior for each parameter."),
            click.option(
                "--rounds",
                default=1024,
                show_default=True,
                type=click.IntRange(8),
                help="Rounds that each learner plays.",
            ),
            click.option(
                "--learners", default=256, show_default=True, type=click.IntRange(1), help="Learners, in each cell."
            ),
            click.option(
                "--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Of what learners see."
            ),
            click.option("--temperature", default=0.0, help="Of a logit choice, in payoff units; 0: best responses."),
            click.option("--discount", default=1.0, help="What evidence keeps of its weight each round."),
            click.option("--window", type=int, help="How many rounds are remembered; all by default."),
        ]
    ):
        command = option(command)
    return command


@cli.command("phase-diagram", epilog=SEE_ALSO)
@click.argument("model")
@click.option("-o", "--output", default="out", show_default=True, type=click.Path(path_type=Path), help="Folder.")
@click.option("--axis", "axes", multiple=True, metavar="NAME=START:STOP[:NUM]", help="An axis; repeat for two.")
@click.option("--size", type=click.IntRange(2), help="Points of an axis without NUM; 2048, or 32 by basin.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter held fixed; repeatable.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True)
@click.option("--keep", default=None, metavar="NAME,…", help="Variables to keep, e.g. phase,margin; all by default.")
@click.option("--format", "formats", default="png,svg,pdf", show_default=True, help="Pictures to draw.")
@click.option("--boundaries", is_flag=True, help="Find the boundaries anew, to 1e-9, and draw these.")
@click.option(
    "--by",
    type=click.Choice(["phase", "basin"]),
    default="phase",
    help="By basin: the share of learners who end unsafe.",
)
@_learning_options
@click.option("--quiet", is_flag=True, help="No progress.")
def phase_diagram(
    model: str,
    output: Path,
    axes: tuple[str, ...],
    size: int | None,
    settings: tuple[str, ...],
    dtype: str,
    keep: str | None,
    formats: str,
    boundaries: bool,
    by: str,
    quiet: bool,
    prior: str | None,
    **learner: Any,
) -> None:
    """Solve a map of problems and draw it: the dataset, a picture and a table of shares.

    With --by basin learners are simulated in each cell; a prior's parameters are axes or settings like others, called
    prior_mean and so on. Interrupted, the same command goes on where it stopped.
    """
    suffixes = formats_of(formats)
    fixed = settings_of(settings)
    context = click.get_current_context()
    for option in ("prior", *learner) if by == "phase" else ():
        if context.get_parameter_source(option) != click.core.ParameterSource.DEFAULT:
            raise ValueError(f"--{option} belongs to --by basin: a phase does not depend on who learns, nor on weights")
    if by == "basin" and boundaries:
        raise ValueError("--boundaries are of phases; leave them out, or --by basin")
    size = size or (2048 if by == "phase" else 32)
    grid = once((axis_of(text, size) for text in axes), "--axis")

    from epijax.models import MODELS

    name, build = model_of(model)
    if not grid:
        if name not in MODELS:
            raise ValueError(f"{model} has no axes of its own; name two, as in --axis a=0:1 --axis b=0:1")
        grid = dict(axis_of(f"{key}={low}:{high}", size) for key, (low, high) in MODELS[name].axes.items())
    if len(grid) != 2:
        raise ValueError(f"a phase diagram has 2 axes, these are {len(grid)}; give --axis twice")

    from epijax.sweeps import Learning, phase_counts, sweep

    learning = None
    if by == "basin":
        prior_name, given = prior_of(prior)
        fixed = once([*fixed.items(), *((f"prior_{key}", value) for key, value in given.items())], "--set or --prior")
        if prior_name == "weights":
            named = [key.removeprefix("prior_") for key in (*fixed, *grid) if key.startswith("prior_")]
            learner["points"] = max((int(key) for key in named if key.isdecimal()), default=0)
        learning = Learning(prior_name, learner.pop("points"), **learner)
    stem = short_name(name) if by == "phase" else f"{short_name(name)}-basins"
    store = output / f"{stem}.zarr"
    start = time.perf_counter()
    with _progress(quiet) as report:
        kept = None if keep is None else keep.split(",")
        dataset = sweep(
            build, grid, fixed, store=store, dtype=dtype, variables=kept, learning=learning, progress=report
        )
    seconds = time.perf_counter() - start
    table = _share_table(phase_counts(dataset))
    (output / f"{stem}.csv").write_text("phase,cells,share\n" + "".join(f"{n},{c},{s:.9g}\n" for n, c, s in table))
    paths = [output / f"{stem}.{suffix}" for suffix in suffixes]
    _draw(dataset, paths, boundaries)

    click.echo(_title(dataset))
    _tell(dataset, table, seconds)
    if "unsafe_share" in dataset and "unsafe_low" in dataset:
        mean, most = float(dataset["unsafe_share"].mean()), float((dataset["unsafe_low"] > 0.5).mean())
        level = dataset.attrs["learning"]["level"]
        click.echo(
            f"unsafe limits: {mean:.2%} of learners; in {most:.2%} of cells of most learners, with confidence "
            f"{level:.0%} in each cell by itself"
        )
    for path in (store, output / f"{stem}.csv", *paths):
        click.echo(f"  {path}")


@cli.command(epilog=SEE_ALSO)
@click.argument("model")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder for a picture of paths.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter's value; repeatable.")
@_learning_options
@click.option("--format", "formats", default="png,svg,pdf", show_default=True, help="Pictures to draw.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON.")
def learn(
    model: str,
    output: Path | None,
    settings: tuple[str, ...],
    prior: str | None,
    points: int,
    rounds: int,
    learners: int,
    seed: int,
    formats: str,
    as_json: bool,
    **habits: Any,
) -> None:
    """Simulate learners from a prior: where they end, and how often that is unsafe.

    Besides those of a phase diagram, priors are weights:1,3 (one for each parameter of a list, or point of the grid),
    points:0.3=1,0.7=2 (of θ) and dirichlet:1 (drawn for each learner).
    """
    import json

    import jax
    import numpy as np

    import epijax as ej
    from epijax.sweeps import check_parameters
    from epijax.view import words

    suffixes, values = formats_of(formats), settings_of(settings)
    given_prior = prior_of(prior)
    name, build = model_of(model)
    check_parameters(name, build, [], list(values))
    with jax.enable_x64(True):
        problem = build(**values)
        if not isinstance(problem, ej.Problem) or problem.unsafe is None:
            raise ValueError(
                f"{name} must return a Problem that says which actions are unsafe; learning needs outcomes"
            )
        key = jax.random.key(seed)
        parameters, log_prior = log_prior_of(problem.model, *given_prior, points, learners, key)
        solution = ej.solve(problem)
        rests = (
            ej.rest_points(problem) if int(solution.status) == ej.Status.SOLVED and len(problem.actions) < 4 else None
        )
        paths = ej.simulate(problem, log_prior, key, rounds, learners, parameters=parameters, **habits)
        ends = ej.limits(paths)
        found = words.limits_summary(problem, solution, rests, ends)
        if as_json:
            answer = {"model": name, "parameters": values, "prior": prior or "uniform", **found}
            click.echo(json.dumps(answer, indent=2, allow_nan=False))
        else:
            click.echo(words.explain_limits(problem, found, rounds))
        if output is not None:
            from epijax.view import paths as drawing
            from epijax.view.plot import save

            looked = sorted({*np.unique(np.geomspace(1, rounds, 200).astype(int)).tolist()})
            shown = ej.simulate(
                problem, log_prior, key, rounds, min(learners, 400), parameters=parameters, checkpoints=looked, **habits
            ) if np.ndim(log_prior) == 1 else paths  # fmt: skip
            figure = drawing.learning(problem, shown, log_prior, rests, parameters)
            _make(output)
            for suffix in suffixes:
                path = output / f"{short_name(name)}-learning.{suffix}"
                save(figure, str(path))
                click.echo(f"  {path}", err=as_json)


@cli.command(epilog=SEE_ALSO)
@click.argument("model")
@click.option("-o", "--output", default="design", show_default=True, type=click.Path(path_type=Path), help="Folder.")
@click.option("--vary", required=True, metavar="NAME[=A:B],…", help="Levers, with ranges; prior for its weights.")
@click.option("--over", required=True, metavar="NAME=A:B,…", help="Environments that must be safe, or a store of them.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Other values, or a lever's present one.")
@click.option(
    "--objective", default="margin", show_default=True, metavar="NAME", help="margin, region_share or unsafe_mass."
)
@click.option("--cost", "costs", multiple=True, metavar="NAME=WEIGHT", help="fit, change or prior; repeatable.")
@click.option("--limit", "limits", multiple=True, metavar="NAME=MOST", help="The most a cost may be; repeatable.")
@click.option("--steps", default=200, show_default=True, type=click.IntRange(1), help="Steps of gradient descent.")
@click.option("--restarts", default=4, show_default=True, type=click.IntRange(1), help="Starts, one at present values.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0, 2**32 - 1), help="Of all that is drawn.")
@click.option("--compare/--no-compare", default=True, help="Trade-off curves, and beliefs against rewards.")
@click.option("--format", "formats", default="png", show_default=True, help="Pictures to draw: png, svg, pdf.")
@click.option("--quiet", is_flag=True, help="No progress.")
def design(
    model: str,
    output: Path,
    vary: str,
    over: str,
    settings: tuple[str, ...],
    objective: str,
    costs: tuple[str, ...],
    limits: tuple[str, ...],
    steps: int,
    restarts: int,
    seed: int,
    compare: bool,
    formats: str,
    quiet: bool,
) -> None:
    """Find the least change of beliefs or rewards that keeps unsafe play away, and prove it.

    Writes a folder: numbers, words, phase diagrams before and after, the trade-off. Interrupted, the same command goes
    on where it stopped. Exit code 1 if the design is not certified.
    """
    import epijax as ej
    from epijax.engineering import check_costs
    from epijax.sweeps.store import open_run
    from epijax.view import report

    suffixes, fixed = formats_of(formats), settings_of(settings)
    weights = check_costs(once(map(setting_of, costs), "--cost") or {"fit": 0.1})
    most = once(map(setting_of, limits), "--limit")
    ranges = spans_of(vary, "--vary")
    if over and Path(over).is_dir():
        box, where = {}, {"environments": open_run(Path(over))}
    else:
        spans = spans_of(over, "--over")
        box = {name: span for name, span in spans.items() if span is not None}
        for bare in spans.keys() - box:
            raise ValueError(f"--over takes NAME=A:B, or the folder of a sweep's store; {bare} has no range")
        where = {"over": box}
    name, build = model_of(model)
    asked: dict[str, Any] = {"objective": objective, "steps": steps, "restarts": restarts, "seed": seed}
    told = {"model": name, "vary": vary, "over": over, "set": fixed, "costs": weights, "limits": most} | asked
    report.check_folder(output, told)
    study = ej.Study(build, ranges, fixed=fixed, **where, **asked)
    studies = _kinds_of_levers(name, study, fixed, where | asked) if compare else {}
    _make(output)
    checkpoint = output / "checkpoint"
    with _progress(quiet, "steps") as progress:
        found = study.run(weights, limits=most, checkpoint=checkpoint, progress=progress)
    click.echo("\n".join(report.summary(found)))
    maps = _before_and_after(name, study, found, box)
    taken = {"require": study.require, "points": study.num, "used": len(next(iter(study.used.values())))}
    write = partial(report.write, output, found, maps, box, told | taken | study.sharpness, suffixes)
    paths = write()
    if compare:
        with _progress(quiet, "designs") as progress:
            cost = max(weights, key=lambda key: weights[key])
            front = ej.trade_off(study, cost, _WEIGHTS, progress, costs=weights, limits=most)
        levers = None
        if studies:
            with _progress(quiet, "designs") as progress:
                levers = ej.compare_levers(studies, "change", _LIMITS, progress)
        paths = write(front, levers)
    checkpoint.unlink()
    for path in paths:
        click.echo(f"  {path}")
    if not found.certified:
        sys.exit(1)


def _before_and_after(name: str, study: Any, found: Any, box: dict[str, Any]) -> dict[str, Any]:
    """Sweeps over two parameters of the environments, the model's own square where it has one of them."""
    import numpy as np

    import epijax as ej
    from epijax.engineering import PRIOR
    from epijax.models import MODELS

    levers = [key for key in found.after if key != PRIOR]
    if len(box) != 2 or any(np.ndim(found.after[key]) for key in levers):
        return {}
    spans = MODELS[name].axes if name in MODELS and set(MODELS[name].axes) == set(box) else box
    axes = {key: np.linspace(low, high, 512) for key, (low, high) in spans.items()}
    given = {"before": found.before, "after": found.after}
    return {
        when: ej.sweep(study.build, axes, study.fixed | {key: values[key] for key in levers})
        for when, values in given.items()
    }


def _kinds_of_levers(name: str, study: Any, fixed: dict[str, float], asked: dict[str, Any]) -> dict[str, Any]:
    """A study of beliefs alone and one of rewards alone, of a model that is known to have both."""
    import epijax as ej
    from epijax.engineering import BELIEFS
    from epijax.models import MODELS

    if name not in MODELS or not {"lower", "upper"} <= set(MODELS[name].meaning):
        return {}
    free = [key for key in MODELS[name].meaning if key not in study.used]
    kinds = {
        "beliefs": [key for key in free if key in ("lower", "upper")],
        "rewards": [key for key in free if key not in BELIEFS and not key.startswith("p_")],
    }
    if asked["objective"] == "margin":
        asked = asked | {"objective": "region_share"}
    asked = asked | {"refuse_idle": False}
    if not all(kinds.values()):
        return {}
    try:
        return {
            kind: ej.Study(study.build, dict.fromkeys(names), fixed=fixed, **asked) for kind, names in kinds.items()
        }
    except ValueError as error:
        raise ValueError(f"beliefs and rewards cannot be compared: {error}; or give --no-compare") from error


@cli.command(epilog=SEE_ALSO)
@click.argument("job")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The store; JOB's, or <model>.zarr, by default.")
@click.option("--axis", "axes", multiple=True, metavar="NAME=START:STOP:NUM", help="An axis; any number of them.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter held fixed; repeatable.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default=None, help="float32 by default.")
@click.option("--keep", default=None, metavar="NAME,…", help="Variables to keep, e.g. phase,margin; all by default.")
@click.option("--refine", type=int, metavar="L", help="Solve blocks of 2^L cells a side, and finer where needed.")
@click.option("--part", "--task", metavar="K/N", help="Only the K-th of N parts, for N processes anywhere.")
@click.option("--workers", type=int, help="So many processes on this machine, by Dask.")
@click.option("--scheduler", metavar="ADDRESS", help="The workers of this Dask scheduler, e.g. tcp://host:8786.")
@click.option("--quiet", is_flag=True, help="No progress.")
def sweep(
    job: str,
    output: Path | None,
    axes: tuple[str, ...],
    settings: tuple[str, ...],
    dtype: str | None,
    keep: str | None,
    refine: int | None,
    part: str | None,
    workers: int | None,
    scheduler: str | None,
    quiet: bool,
) -> None:
    """Solve a grid of problems into a store.

    JOB is a file job.toml, or a model. Options take precedence over what the file says. Interrupted, the same command
    goes on where it stopped.
    """
    asked = {"model": job, "axes": {}, "fixed": {}}
    fixed = settings_of(settings)
    grid = once((axis_of(text, None) for text in axes), "--axis")
    share = None if part is None else part_of(part)
    if job.endswith(".toml"):
        from epijax.sweeps.jobfile import read_job

        asked |= read_job(Path(job))
    name, build = model_of(asked["model"])

    import epijax as ej
    from epijax.sweeps import phase_counts
    from epijax.sweeps.store import Store

    kept = asked.get("keep") if keep is None else keep.split(",")
    store = output or Path(asked.get("output", f"{short_name(name)}.zarr"))
    start = time.perf_counter()
    with _progress(quiet) as report:
        dataset = ej.sweep(
            build,
            {key: values for key, values in asked["axes"].items() if key not in fixed} | grid,
            {key: value for key, value in asked["fixed"].items() if key not in grid} | fixed,
            store=store,
            dtype=dtype or asked.get("dtype", "float32"),
            variables=kept,
            refine=asked.get("refine") if refine is None else refine,
            part=share,
            workers=workers,
            scheduler=scheduler,
            progress=report,
        )
    seconds = time.perf_counter() - start
    click.echo(_title(dataset))
    run = Store(store)
    pending = len(run.pending())
    if pending:
        click.echo(f"part {part} is done; {pending} of {len(list(run.grid.tiles()))} tiles are left to other parts")
    else:
        _tell(dataset, _share_table(phase_counts(dataset)), seconds)
    click.echo(f"  {store}")


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Read all values again; tiles that are damaged will be computed again.")
def status(run: Path, verify: bool) -> None:
    """What is done of a stored sweep; exit code 1 if anything is missing or damaged."""
    from epijax.sweeps.store import Store, open_run

    dataset, store = open_run(run), Store(run)
    tiles = list(store.grid.tiles())
    marks = {tile: mark for tile in tiles if (mark := store.mark(tile)) is not None}
    damaged = 0
    for tile in marks if verify else ():
        wrong = store.damage(tile)
        if wrong is not None:
            click.echo(f"damaged: {wrong}")
            store.forget(tile)
            damaged += 1
    cells = sum(map(store.grid.cells_of, marks))
    click.echo(_title(dataset))
    click.echo(f"  {len(marks)} of {len(tiles)} tiles, {cells:,} of {store.grid.num_cells:,} cells")
    if marks:
        seconds, again = (sum(mark[key] for mark in marks.values()) for key in ("seconds", "rechecked"))
        last = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(max(mark["finished"] for mark in marks.values())))
        hosts = ", ".join(sorted({mark["host"] for mark in marks.values()}))
        click.echo(f"  {seconds:.1f} s of work on {hosts}, the last at {last}; {again:,} cells solved again in float64")
    if verify:
        click.echo(f"  {len(marks) - damaged} tiles verified, {damaged} damaged")
    if damaged or len(marks) < len(tiles):
        click.echo(f"the rest: {dataset.attrs['command']}")
        sys.exit(1)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="fig.png, fig.svg or fig.pdf.")
@click.option("--boundaries", is_flag=True, help="Find the boundaries anew, to 1e-9, and draw these.")
def plot(run: Path, output: Path, boundaries: bool) -> None:
    """Draw the phase diagram of a stored sweep."""
    formats_of(output.suffix.removeprefix("."))
    from epijax.sweeps.store import open_run

    dataset = open_run(run)
    _make(output.parent)
    _draw(dataset, [output], boundaries)
    click.echo(str(output))


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--sample", default=2000, show_default=True, type=click.IntRange(1), help="Cells to judge.")
@click.option("--seed", default=0, show_default=True, help="Which cells are drawn.")
def check(run: Path, sample: int, seed: int) -> None:
    """Judge a stored sweep by the reference solver; exit code 1 if any cell disagrees or is not computed yet."""
    from epijax.judging import judge
    from epijax.sweeps.store import open_run

    dataset = open_run(run)
    _, build = model_of(dataset.attrs["model"])
    verdict = judge(dataset, build, sample, seed)
    for line in verdict.disagreements[:20]:
        click.echo(line)
    click.echo(
        f"{len(verdict.disagreements)} disagreements in {verdict.judged} cells judged by the reference solver; "
        f"{verdict.undecided} more are undecided"
    )
    if verdict.missing:
        click.echo(f"{verdict.missing} more are not computed yet: run the command that made {run} again")
    if verdict.disagreements or verdict.missing:
        sys.exit(1)


def main(args: list[str] | None = None) -> None:
    """Runs the command; what the user got wrong becomes one line and exit code 2."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(cores))  # each core a device; read when JAX is imported
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Slurm sends: the same as Ctrl-C
    try:
        sys.exit(cli.main(args, prog_name="epijax", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except click.ClickException as error:
        _fail(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        click.echo("epijax: stopped; what is finished is kept, and the same command does the rest", err=True)
        sys.exit(1)
    except (ValueError, OSError) as error:
        _fail(str(error))
    except RuntimeError as error:
        from epijax.sweeps import RunError

        if not isinstance(error, RunError):
            raise
        _fail(str(error), code=1)


def _fail(message: str, code: int = 2) -> None:
    click.echo(f"epijax: {' '.join(message.split())}", err=True)
    sys.exit(code)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write to {folder} ({error.strerror}); name another place with -o") from error


def _draw(dataset: Any, paths: list[Path], boundaries: bool) -> None:
    from epijax.view.plot import basin_map, phase_diagram, save

    lines = []
    if boundaries:
        import epijax as ej

        _, build = model_of(dataset.attrs["model"])
        spans = {key: dataset[key].values[[0, -1]] for key in dataset["phase"].dims if key in dataset.coords}
        lines = ej.boundaries(build, spans, dataset.attrs["config"]["fixed"])
    figure = basin_map(dataset) if "unsafe_share" in dataset else phase_diagram(dataset, lines)
    for path in paths:
        save(figure, str(path))


def _tell(dataset: Any, table: list[tuple[str, int, float]], seconds: float) -> None:
    for phase, cells, share in table:
        click.echo(f"  {phase:<14} {cells:>12,}  {share:8.4%}")
    again = dataset.attrs["rechecked"]
    looked = f", {dataset.attrs['evaluated']:.2%} of them solved" if "evaluated" in dataset.attrs else ""
    click.echo(f"{dataset['phase'].size:,} cells in {seconds:.2f} s{looked}, {again:,} solved again in float64")


def _share_table(counts: dict[int, int]) -> list[tuple[str, int, float]]:
    from epijax.phases import PHASES

    total = sum(counts.values())
    return [(PHASES[code], count, count / total) for code, count in counts.items()]


def _title(dataset: Any) -> str:
    axes = " x ".join(
        f"{key} [{dataset[key].values[0]:g}, {dataset[key].values[-1]:g}]"
        if key in dataset.coords
        else f"{size:,} points of {', '.join(name for name in dataset.coords if dataset[name].dims == (key,))}"
        for key, size in dataset.sizes.items()
    )
    fixed = ", ".join(f"{key}={value}" for key, value in dataset.attrs["config"]["fixed"].items())
    return f"{dataset.attrs['title']} over {axes}" + (f", {fixed}" if fixed else "")


class _progress:
    """A bar on a terminal, a plain line every 30 s elsewhere, nothing when quiet."""

    def __init__(self, quiet: bool, unit: str = "cells"):
        self._quiet, self._unit, self._bar, self._said = quiet, unit, None, time.monotonic()

    def __enter__(self) -> Callable[[int, int], None] | None:
        return None if self._quiet else self._report

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _report(self, done: int, total: int) -> None:
        if sys.stderr.isatty():
            if self._bar is None:
                from rich.console import Console
                from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

                self._bar = Progress(
                    TextColumn("{task.percentage:3.0f} %"),
                    BarColumn(),
                    TextColumn("{task.fields[rate]}"),
                    TimeRemainingColumn(),
                    console=Console(stderr=True),
                )
                self._task = self._bar.add_task(self._unit, total=total, rate="")
                self._started = time.monotonic(), done
                self._bar.start()
            elapsed = time.monotonic() - self._started[0]
            speed = (done - self._started[1]) / elapsed if elapsed > 0 else 0.0
            rate = f"{speed / 1e6:.1f} M{self._unit}/s" if speed > 1e5 else f"{speed:.0f} {self._unit}/s"
            self._bar.update(self._task, completed=done, rate=rate)
        elif time.monotonic() - self._said >= 30:
            self._said = time.monotonic()
            click.echo(f"{done:,} of {total:,} {self._unit}", err=True)
