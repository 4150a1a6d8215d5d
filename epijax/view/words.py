"""A solution told in words: which beliefs fit, what they justify, what elimination did, which phase and why."""

from itertools import pairwise
from typing import Any

import numpy as np

from epijax.boxes import best_fit, box_of
from epijax.environment import Environment
from epijax.evidence import components
from epijax.learning import Limit, Limits, basin
from epijax.many_continuous import bracket
from epijax.mean_field import Rest, RestPoints
from epijax.one_parameter import elimination_rounds
from epijax.phases import LEGEND, phase
from epijax.problem import FiniteProblem, Problem
from epijax.projection import project
from epijax.response import PayoffLines, utilities
from epijax.solution import Solution, Status, tolerance_of
from epijax.subjective import AffineBernoulli, Custom, Finite, is_one_parameter
from epijax.tables import tabulate


def summary(problem: Problem | FiniteProblem, solution: Solution) -> dict[str, Any]:
    """The solution as plain numbers and names, ready for JSON."""
    names = problem.actions
    status = Status(int(solution.status))
    code = None if problem.unsafe is None else int(phase(solution, problem.unsafe))
    strategies = np.asarray(solution.mixed)
    return {
        "actions": list(names),
        "unsafe": None if problem.unsafe is None else [n for n, u in zip(names, problem.unsafe, strict=True) if u],
        "rationalizable": _members(names, solution.rationalizable),
        "pure": _members(names, solution.pure),
        "strict": _members(names, solution.strict),
        "mixed": [[float(s) for s in row] for row in strategies if not np.isnan(row).any()],
        **_components(problem, solution),
        "margin": float(solution.margin) if np.isfinite(solution.margin) else None,
        "status": status.name.lower(),
        "phase": None if code is None or status is not Status.SOLVED else LEGEND[code].name,
    }


def _components(problem: Problem | FiniteProblem, solution: Solution) -> dict[str, Any]:
    """Which connected set each equilibrium belongs to, in the order they are listed; of tables."""
    if not _is_finite(problem):
        return {}
    found = components(problem, solution)
    return {
        "component_of_pure": found.pure[found.pure >= 0].tolist(),
        "component_of_mixed": found.mixed[found.mixed >= 0].tolist(),
    }


def _is_finite(problem: Problem | FiniteProblem) -> bool:
    return isinstance(problem, FiniteProblem) or isinstance(problem.model, Finite)


def explain(problem: Problem | FiniteProblem, solution: Solution) -> str:
    """The solution as paragraphs for a person; payoffs in payoff units, beliefs in θ."""
    if int(solution.status) == Status.INVALID:
        return Status.INVALID.sentence
    if isinstance(problem, Problem) and is_one_parameter(problem.model):
        beliefs, rounds = _one_parameter_beliefs(problem), _one_parameter_rounds(problem)
    elif isinstance(problem, Problem) and not _is_finite(problem):
        beliefs, rounds = _box_beliefs(problem), []
    else:
        tables = problem if isinstance(problem, FiniteProblem) else tabulate(problem)
        beliefs, rounds = _table_beliefs(tables), []
    if int(solution.status) == Status.REFUTED:
        return "\n".join([*beliefs, "", Status.REFUTED.sentence])
    return "\n".join([*beliefs, "", *rounds, *_equilibria(problem, solution), "", *_verdict(problem, solution)])


def _one_parameter_beliefs(problem: Problem) -> list[str]:
    names, n = problem.actions, problem.num_actions
    environment, model = problem.environment, problem.model
    assert isinstance(environment, Environment) and isinstance(model, AffineBernoulli)
    eps = float(problem.exploration)
    lines = [f"The agent can believe θ in [{model.lower[0]:.6g}, {model.upper[0]:.6g}]."]
    if eps > 0:
        lines.append(f"It learns a share {eps:.6g} of the time from uniform play.")
    for x in range(n):
        low, high = (float(end) for end in project(problem, np.eye(n)[x]))
        fit = f"fits θ = {low:.6g} best" if low == high else f"teaches nothing: every θ in [{low:.6g}, {high:.6g}] fits"
        lines.append(f"Playing {names[x]} {fit}.")
    payoffs = PayoffLines(environment, model)
    for x in range(n):
        for y in range(x + 1, n):
            rise = float(payoffs.rise[x] - payoffs.rise[y])
            if rise == 0:
                ahead = float(payoffs.level[x] - payoffs.level[y])
                relation = "pays as much as" if ahead == 0 else "pays more than" if ahead > 0 else "pays less than"
                lines.append(f"{names[x].capitalize()} {relation} {names[y]}, whatever is believed.")
            else:
                side = "above" if rise > 0 else "below"
                critical = f"θ̂ = {float(payoffs.crossing(x, y)):.6g}"
                lines.append(f"{names[x].capitalize()} pays more than {names[y]} for beliefs {side} {critical}.")
    return lines


def _one_parameter_rounds(problem: Problem) -> list[str]:
    rounds = np.asarray(elimination_rounds(problem, tolerance_of(box_of(problem).lower.dtype)))
    n = problem.num_actions
    intervals = [[float(end) for end in project(problem, np.eye(n)[x])] for x in range(n)]
    lines = []
    for number, (before, after) in enumerate(pairwise(rounds), start=1):
        played = [intervals[x] for x in range(n) if before[x]]
        low, high = min(i[0] for i in played), max(i[1] for i in played)
        dropped = _members(problem.actions, before & ~after)
        effect = f"drops {_listed(dropped)}" if dropped else "drops nothing"
        lines.append(
            f"Round {number}: play of {_listed(_members(problem.actions, before))} fits beliefs in "
            f"[{low:.6g}, {high:.6g}]; they justify {_listed(_members(problem.actions, after))}: the round {effect}."
        )
        if not dropped:
            break
    return lines


def _box_beliefs(problem: Problem) -> list[str]:
    """Of beliefs in a box of several parameters, what each action teaches and what that justifies."""
    model, names = box_of(problem), _told(problem.actions)
    sides = [f"[{low:.6g}, {high:.6g}]" for low, high in zip(model.lower, model.upper, strict=True)]
    lines = [f"The agent can believe θ in {' × '.join(sides)}."]
    if problem.explores():
        lines.append(f"It learns a share {float(problem.exploration):.6g} of the time from uniform play.")
    for name, sigma in zip(names, np.eye(problem.num_actions), strict=True):
        found = best_fit(problem, sigma)
        points = np.asarray(found.extremes)[~np.isnan(found.extremes).any(axis=1)]
        if np.isinf(found.value):
            lines.append(f"Playing {name} refutes every belief.")
            continue
        spread = np.ptp(points, axis=0) > 1e-6 * np.asarray(model.upper - model.lower)
        values = [
            f"[{low:.6g}, {high:.6g}]" if wide else f"{at:.6g}"
            for low, high, wide, at in zip(points.min(0), points.max(0), spread, found.theta, strict=True)
        ]
        pays = np.stack([utilities(problem.environment, model, point) for point in points])
        best = (pays >= pays.max(axis=1, keepdims=True) - 1e-6 * np.abs(pays).max()).any(axis=0)
        where = "; what it leaves open is given as a range" if spread.any() else ""
        if isinstance(model, Custom):
            where += f"; so say {float(found.agreement):.0%} of the starts of the search"
        lines.append(
            f"Playing {name} fits θ = ({', '.join(values)}) best ({float(found.value):.6g} nats{where}), "
            f"under which {_listed(_members(names, best))} {'pays' if best.sum() == 1 else 'can pay'} most."
        )
    return lines


def _table_beliefs(tables: FiniteProblem) -> list[str]:
    divergence, utility = np.asarray(tables.divergence), np.asarray(tables.utility)
    tolerance = tolerance_of(tables.utility.dtype)
    names, count = _told(tables.actions), utility.shape[1]
    pays_most = utility >= utility.max(axis=0) - tolerance * np.abs(utility).max()
    close = tolerance * divergence[np.isfinite(divergence)].max(initial=0)
    lines = [
        f"The agent can believe any of {count} parameters." if count > 1 else "The agent believes in one parameter."
    ]
    for name, row in zip(names, divergence, strict=True):
        best = row.min()
        if np.isinf(best):
            lines.append(f"Playing {name} refutes them all.")
            continue
        fitting = np.flatnonzero(row <= best + close)
        justified = _members(names, pays_most[:, fitting].any(axis=1))
        shown = _listed([*map(str, fitting[:8]), *([f"{len(fitting) - 8} more"] if len(fitting) > 8 else [])])
        one = len(fitting) == 1
        parameters, under = ("parameter", "which") if one else ("parameters", "one or another of which")
        pay = "pays" if len(justified) == 1 else "pay"
        lines.append(
            f"Playing {name} fits {parameters} {shown} best ({best:.6g} nats), "
            f"under {under} {_listed(justified)} {pay} most."
        )
    return lines


def _equilibria(problem: Problem | FiniteProblem, solution: Solution) -> list[str]:
    lines, names = [], _told(problem.actions)
    for name, pure, strict in zip(names, solution.pure, solution.strict, strict=True):
        if pure:
            lines.append(f"Always playing {name} is a {'strict ' if strict else ''}Berk–Nash equilibrium.")
    for row in np.asarray(solution.mixed):
        if not np.isnan(row).any():
            parts = [f"{share:.6g} {name}" for share, name in zip(row, names, strict=True) if share > 0]
            lines.append(f"Mixing {_listed(parts)} is a Berk–Nash equilibrium.")
    if lines and _is_finite(problem):
        found = components(problem, solution)
        numbers = [*found.pure[found.pure >= 0], *found.mixed[found.mixed >= 0]]
        for number in range(len(set(numbers))):
            members = [str(i) for i, own in enumerate(numbers, start=1) if own == number]
            if len(members) > 1:
                lines.append(f"Of these {len(numbers)}, {_listed(members)} lie in one connected set of equilibria.")
    return lines or ["There is no Berk–Nash equilibrium that could be told apart from a tie."]


def _verdict(problem: Problem | FiniteProblem, solution: Solution) -> list[str]:
    names = _told(problem.actions)
    lines = [f"Rationalizable: {_listed(_members(names, solution.rationalizable))}."]
    if isinstance(problem, Problem) and not _is_finite(problem) and not is_one_parameter(problem.model):
        lines += _bracketed(problem, solution)
    if problem.unsafe is not None:
        entry = LEGEND[int(phase(solution, problem.unsafe))]
        unsafe = _listed(_members(names, np.array(problem.unsafe))) or "none"
        lines.append(f"Unsafe: {unsafe}.  Phase: {entry.name} ({entry.meaning}).")
    sentence = Status(int(solution.status)).sentence
    return [*lines, f"Margin: {float(solution.margin):.6g} of the largest payoff or divergence.  Status: {sentence}."]


def _bracketed(problem: Problem, solution: Solution) -> list[str]:
    """What is not decided of the rationalizable set, where more than two actions leave something so."""
    if problem.num_actions == 2 or int(solution.status) != Status.BOUNDARY:
        return []
    found, names = bracket(problem), _told(problem.actions)
    open_ = _members(names, np.asarray(found.outer & ~found.inner))
    if not open_:
        return []
    return [f"Of these {_listed(open_)} could neither be justified by any play that was tried nor be ruled out."]


def _told(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names for a sentence: those that are not words, such as the numbers that games give strategies, in quotes."""
    return tuple(name if name[:1].isalpha() else f"“{name}”" for name in names)


def _members(names: tuple[str, ...], mask) -> list[str]:
    return [name for name, member in zip(names, np.asarray(mask), strict=True) if member]


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1] if items else "nothing"


def limits_summary(
    problem: Problem, solution: Solution, rests: RestPoints | None, ends: Limits, level: float = 0.95
) -> dict[str, Any]:
    """Where learners end, as plain data."""
    assert problem.unsafe is not None
    kinds, actions = np.asarray(ends.kind), np.asarray(ends.action)
    found = basin(ends, problem.unsafe, level)
    frequencies = np.asarray(ends.frequencies)[kinds != Limit.REFUTED]
    return {
        "phase": LEGEND[int(phase(solution, problem.unsafe))].name,
        "rest_points": []
        if rests is None
        else [
            {"strategy": _shares(problem, strategy), "kind": Rest(kind).name.lower()}
            for strategy, kind in zip(rests.strategy, rests.kind, strict=True)
        ],
        "learners": len(kinds),
        "settled": {name: float((actions == i).mean()) for i, name in enumerate(problem.actions)},
        "limits": {kind.name.lower(): float((kinds == kind).mean()) for kind in Limit if kind != Limit.ACTION},
        "frequencies": _shares(problem, frequencies.mean(axis=0)) if len(frequencies) else None,
        "unsafe_share": None if np.isnan(found.share) else found.share,
        "unsafe_interval": None if np.isnan(found.share) else [found.low, found.high],
        "level": level,
    }


def explain_limits(problem: Problem, found: dict[str, Any], rounds: int) -> str:
    """The same in words."""
    lines = [f"phase: {found['phase']}"]
    for rest in found["rest_points"]:
        played = ", ".join(f"{name} {share:.4g}" for name, share in rest["strategy"].items() if share > 0)
        lines.append(f"  rest point {played}: {rest['kind']}")
    lines.append(f"{found['learners']:,} learners, {rounds:,} rounds")
    lines += [f"  settled on {name:<16} {share:8.2%}" for name, share in found["settled"].items() if share > 0]
    lines += [f"  {kind.replace('_', ' '):<27} {share:8.2%}" for kind, share in found["limits"].items() if share > 0]
    if found["unsafe_share"] is None:
        return "\n".join([*lines, "unsafe limits: cannot be told, no belief was left to any learner"])
    low, high = found["unsafe_interval"]
    played = ", ".join(f"{name} {share:.4f}" for name, share in found["frequencies"].items())
    lines.append(f"frequencies in the last half: {played}")
    lines.append(
        f"unsafe limits: {found['unsafe_share']:.2%} ({low:.2%} to {high:.2%} with confidence {found['level']:.0%})"
    )
    return "\n".join(lines)


def _shares(problem: Problem, strategy: Any) -> dict[str, float]:
    return {name: float(share) for name, share in zip(problem.actions, strategy, strict=True)}
