"""Learners as pictures: what they play and believe over time, with the equilibria they tend to."""

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from epijax.environment import Numbers
from epijax.learning import Trajectories, posterior
from epijax.mean_field import Rest, RestPoints
from epijax.phases import LEGEND
from epijax.problem import Problem
from epijax.subjective import Finite
from epijax.tables import parameter_grid
from epijax.view.plot import INK, STYLE

_SHOWN = 30  # learners drawn one by one
_MARKS = {  # line, and mark
    Rest.ATTRACTING: ("-", "o"),
    Rest.SADDLE: ("-.", "s"),
    Rest.REPELLING: (":", "X"),
    Rest.UNDECIDED: ("--", "D"),
}


@rc_context(STYLE)
def learning(
    problem: Problem,
    trajectories: Trajectories,
    log_prior: Numbers,
    rests: RestPoints | None = None,
    parameters: Numbers | None = None,
) -> Figure:
    """Frequencies of play to the left, beliefs to the right, over rounds; some learners as lines, the median bold.

    Of two actions the frequency of the first, rest points across; of three the simplex of frequencies, some learners'
    paths as lines and the ends of all as dots, rest points marked; of more the median frequency of each action. The
    belief is the expected first parameter, or, of a list of parameters, the weight of the last.
    """
    figure = Figure(figsize=(6.8, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    frequencies = np.asarray(trajectories.frequencies)
    rounds = np.asarray(trajectories.rounds)
    if problem.num_actions == 2:
        _lines(left, rounds, frequencies[:, :, 0], LEGEND[3].colour)
        left.set(ylabel=f"frequency of “{problem.actions[0]}”", ylim=(-0.02, 1.02))
        for strategy, kind in [] if rests is None else zip(rests.strategy, rests.kind, strict=True):
            left.axhline(strategy[0], color=LEGEND[1].colour, linestyle=_MARKS[Rest(kind)][0], linewidth=1, zorder=3)
            left.annotate(
                Rest(kind).name.lower(),
                (1, strategy[0]),
                xycoords=("axes fraction", "data"),
                xytext=(-3, 2 if strategy[0] < 0.9 else -7),
                textcoords="offset points",
                ha="right",
                fontsize=6,
                color=LEGEND[1].colour,
            )
    elif problem.num_actions == 3:
        _simplex(left, frequencies, problem.actions, rests)
    else:
        for action, name in enumerate(problem.actions):
            left.plot(rounds, np.median(frequencies[:, :, action], axis=0), label=name, linewidth=1)
        left.set(ylabel="median frequency", xscale="log", xlabel="rounds")
        left.legend(frameon=False, fontsize=6)
    num = np.shape(log_prior)[-1]
    if isinstance(problem.model, Finite):
        wanted = np.eye(num)[-1]
        right.set(ylabel=f"belief in parameter {num} of {num}", ylim=(-0.02, 1.02))
    else:
        side = round(num ** (1 / len(problem.model.lower)))
        wanted = np.asarray(parameter_grid(problem.model, side) if parameters is None else parameters)[:, 0]
        right.set(ylabel="expected θ" if len(problem.model.lower) == 1 else "expected θ₁")
    beliefs = [  # one checkpoint after the other: of all at once they may take gigabytes
        np.exp(np.asarray(posterior(problem, log_prior, trajectories.statistics[:, i], parameters))) @ wanted
        for i in range(len(rounds))
    ]
    _lines(right, rounds, np.stack(beliefs, axis=1), LEGEND[2].colour)
    for axes in (left, right):
        axes.tick_params(width=0.6)
        axes.set_box_aspect(1)
    return figure


def _lines(axes: Axes, rounds: np.ndarray, values: np.ndarray, colour: str) -> None:
    axes.plot(rounds, values[:_SHOWN].T, color=colour, linewidth=0.4, alpha=0.5)
    axes.plot(rounds, np.nanmedian(values, axis=0), color=INK, linewidth=1.6)
    axes.set(xscale="log", xlabel="rounds", xlim=(rounds[0], rounds[-1]))


def _simplex(axes: Axes, frequencies: np.ndarray, actions: tuple[str, ...], rests: RestPoints | None) -> None:
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3) / 2]])
    axes.fill(*corners.T, facecolor="none", edgecolor=INK, linewidth=0.8)
    for path in frequencies[:_SHOWN] @ corners:
        axes.plot(*path.T, color=LEGEND[3].colour, linewidth=0.4, alpha=0.5)
    axes.scatter(*(frequencies[:, -1] @ corners).T, s=4, color=LEGEND[2].colour, linewidths=0, zorder=3)
    for strategy, kind in [] if rests is None else zip(rests.strategy, rests.kind, strict=True):
        mark = _MARKS[Rest(kind)][1]
        axes.scatter(*(strategy @ corners), marker=mark, s=28, facecolor="white", edgecolor=INK, linewidth=1, zorder=4)
    for name, corner, side in zip(actions, corners, ("top", "top", "bottom"), strict=True):
        axes.annotate(name, corner, ha="center", va=side, fontsize=7)
    axes.set(xlim=(-0.1, 1.1), ylim=(-0.17, 1.03))
    axes.set_axis_off()
