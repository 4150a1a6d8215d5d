"""A stored sweep judged by the reference solver: cells drawn at random, solved again without JAX, and compared."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
import xarray as xr

from epijax import reference, reference_families
from epijax.environment import GaussianEnvironment
from epijax.phases import LEGEND, NOT_COMPUTED
from epijax.problem import FiniteProblem, Problem
from epijax.subjective import AffineBernoulli, Finite, is_one_parameter
from epijax.sweeps.basins import Learning, WithPrior

_TOLD = {"phase": "{}", "rationalizable": "rationalizable {:b}", "pure": "pure {:b}", "num_mixed": "{} mixed"}


@dataclass(frozen=True)
class Verdict:
    """How many cells were judged, how many a tie decided, how many are not computed yet, and each that disagrees."""

    judged: int
    undecided: int
    missing: int
    disagreements: list[str]


def judge(dataset: xr.Dataset, build: Callable[..., Problem | FiniteProblem], sample: int, seed: int = 0) -> Verdict:
    """Compares phase, rationalizable set, pure equilibria and number of mixed ones with the reference solver.

    Of these four, those that the sweep keeps; not the number of mixed ones of more than two actions with beliefs in a
    box, which the reference solver does not look for.

    **Arguments:** `dataset`, a sweep; `build`, what built it; `sample`, how many cells to draw without repeats (all of
    them, if there are fewer); `seed`.

    **Returns:** the `Verdict`. Cells that the sweep, or the reference, calls `boundary` count as undecided.
    """
    shape = dataset["phase"].shape
    count = min(sample, dataset["phase"].size)
    draw = np.random.default_rng(seed)
    cells = draw.choice(dataset["phase"].size, count, replace=False) if count < dataset["phase"].size else range(count)
    where = np.stack(np.unravel_index(np.sort(np.asarray(cells)), shape), axis=-1)
    dimensions = [str(dimension) for dimension in dataset["phase"].dims]
    axes = {str(name): (dimensions.index(values.dims[0]), values.values) for name, values in dataset.coords.items()}
    if "learning" in dataset.attrs:
        build = WithPrior(build, Learning(**dataset.attrs["learning"]))
    found = {name: _read(dataset[name], where) for name in _TOLD if name in dataset}

    undecided, missing, disagreements = 0, 0, []
    for i, index in enumerate(where):
        if found["phase"][i] == NOT_COMPUTED:
            missing += 1
            continue
        cell = {name: float(values[index[k]]) for name, (k, values) in axes.items()}
        with jax.enable_x64(True):
            problem = build(**dataset.attrs["config"]["fixed"], **cell)
            answer = reference_answer(problem)
        ours = {key: int(values[i]) for key, values in found.items()} | {"phase": LEGEND[int(found["phase"][i])].name}
        if "boundary" in (answer.status, ours["phase"]):
            undecided += 1
            continue
        theirs = {
            "phase": answer.phase,
            "rationalizable": _bits(answer.rationalizable),
            "pure": _bits(answer.pure),
            "num_mixed": len(answer.mixed),
        }
        if _mixed_unsought(problem):
            ours.pop("num_mixed", None)
        theirs = {key: theirs[key] for key in ours}
        if ours != theirs and not (ours["phase"] == theirs["phase"] == "refuted"):
            place = ", ".join(f"{name}={value:.10g}" for name, value in cell.items())
            disagreements.append(f"{place}: stored {_told(ours)}, reference {_told(theirs)}")
    return Verdict(count - undecided - missing, undecided, missing, disagreements)


def reference_answer(problem: Problem | FiniteProblem) -> reference.Answer:
    """The reference solver's answer to a problem whose numbers are known.

    Raises `ValueError` for families that it has no path for.
    """
    unsafe = problem.unsafe or (False,) * problem.num_actions
    if isinstance(problem, FiniteProblem):
        return reference.finite(np.asarray(problem.utility), np.asarray(problem.divergence), unsafe=unsafe)
    environment, model = jax.tree.map(np.asarray, (problem.environment, problem.model))
    explored = {"exploration": float(problem.exploration), "unsafe": unsafe}
    if isinstance(environment, GaussianEnvironment):
        truth = environment.mean, float(environment.noise_std), environment.payoff_intercept, environment.payoff_slope
        believed = model.design, float(model.noise_std), model.lower, model.upper
        return reference_families.gaussian_linear(*truth, *believed, **explored)
    truth = environment.outcome_probs, environment.payoffs
    if isinstance(model, Finite):
        return reference.finite_model(*truth, model.outcome_probs, **explored)
    if not isinstance(model, AffineBernoulli):
        raise ValueError(f"the reference solver has no path for {type(model).__name__} models; check their tabulate(…)")
    if not is_one_parameter(model):
        box = model.intercept, model.slope, model.lower, model.upper
        return reference_families.affine_bernoulli_box(*truth, *box, **explored)
    links = model.intercept, model.slope[:, 0]
    return reference.affine_bernoulli(*truth, *links, float(model.lower[0]), float(model.upper[0]), **explored)


def _mixed_unsought(problem: Problem | FiniteProblem) -> bool:
    """Whether the reference solver looks for no mixed equilibria: of boxes and more than two actions."""
    if isinstance(problem, FiniteProblem) or isinstance(problem.model, Finite) or is_one_parameter(problem.model):
        return False
    return problem.num_actions > 2


def _read(variable: xr.DataArray, where: np.ndarray) -> np.ndarray:
    """The values at these cells, reading each stored chunk once."""
    sides = variable.encoding.get("chunks") or variable.shape
    values = np.empty(len(where), variable.dtype)
    chunks = where // np.asarray(sides)
    for chunk in np.unique(chunks, axis=0):
        here = np.all(chunks == chunk, axis=1)
        part = tuple(slice(k * side, (k + 1) * side) for k, side in zip(chunk, sides, strict=True))
        values[here] = variable[part].values[tuple((where[here] - chunk * np.asarray(sides)).T)]
    return values


def _bits(members: np.ndarray) -> int:
    return sum(1 << i for i, member in enumerate(members) if member)


def _told(answer: dict) -> str:
    rest = ", ".join(f"{_TOLD[key].format(value)}" for key, value in answer.items() if key != "phase")
    return f"{answer['phase']} ({rest})" if rest else answer["phase"]
