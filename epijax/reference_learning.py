"""The judge of learners: one myopic Bayesian after another in plain NumPy, by another method (theory §7).

Beliefs are carried from round to round as log weights, to which the log likelihood of each outcome is added, and
normalised at every choice; `learning` counts outcomes instead. What is random is handed in.
"""

from collections import deque

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

FloatArray = npt.NDArray[np.float64]


def learn(
    outcome_probs: npt.ArrayLike,
    payoffs: npt.ArrayLike,
    subjective_probs: npt.ArrayLike,
    log_prior: npt.ArrayLike,
    draws: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
    *,
    exploration: float = 0.0,
    temperature: float = 0.0,
    discount: float = 1.0,
    window: int | None = None,
    tolerance: float = 1e-9,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]:
    """What one learner plays, what its best response was (theory §1), and what it believes in the end.

    **Arguments:** `outcome_probs`, `payoffs`: `[A, Y]`; `subjective_probs`: `[K, A, Y]`; `log_prior`: `[K]`; `draws`:
    numbers in [0, 1), `[T]` each, of outcomes, choices and exploration; the rest as of `ej.simulate`; `tolerance`, the
    share of the largest payoff within which two actions tie.

    **Returns:** plays and choices, `[T]`; the posterior, `[K]`, NaN where no parameter is possible.
    """
    truth, paid, believed = (np.asarray(a, float) for a in (outcome_probs, payoffs, subjective_probs))
    with np.errstate(divide="ignore"):
        logs = np.log(believed)
    utility = (believed * paid).sum(-1).T

    def outcome(play: int, draw: float) -> tuple[int, FloatArray]:
        possible = np.flatnonzero(truth[play])
        y = int(possible[min(np.searchsorted(np.cumsum(truth[play, possible]), draw, "right"), len(possible) - 1)])
        return y, logs[:, play, y]

    return _learn(utility, log_prior, draws, outcome, exploration, temperature, discount, window, tolerance)


def learn_gaussian(
    mean: npt.ArrayLike,
    noise_std: float,
    payoff_intercept: npt.ArrayLike,
    payoff_slope: npt.ArrayLike,
    predicted: npt.ArrayLike,
    model_std: float,
    log_prior: npt.ArrayLike,
    draws: tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
    *,
    exploration: float = 0.0,
    temperature: float = 0.0,
    discount: float = 1.0,
    window: int | None = None,
    tolerance: float = 1e-9,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], FloatArray]:
    """The same where outcomes are real: `mean`, `payoff_intercept` and `payoff_slope` are `[A]`, `predicted` the means
    that each parameter predicts, `[K, A]`."""
    true, level, slope, means = (np.asarray(a, float) for a in (mean, payoff_intercept, payoff_slope, predicted))
    utility = level[:, None] + slope[:, None] * means.T

    def outcome(play: int, draw: float) -> tuple[float, FloatArray]:
        y = true[play] + noise_std * float(ndtri(draw + 2.0**-25))
        return y, -((y - means[:, play]) ** 2) / (2 * model_std**2)

    return _learn(utility, log_prior, draws, outcome, exploration, temperature, discount, window, tolerance)


def _learn(utility, log_prior, draws, outcome, exploration, temperature, discount, window, tolerance):
    num_actions = len(utility)
    scale = np.abs(utility).max()
    prior = np.asarray(log_prior, float)
    remembered: deque[FloatArray] = deque(maxlen=window)
    evidence = np.zeros_like(prior)
    plays, choices = [], []
    for happening, choosing, exploring in zip(*(np.asarray(d, float) for d in draws), strict=True):
        belief = _normalised(prior + (evidence if window is None else sum(remembered, np.zeros_like(prior))))
        worth = utility @ belief
        choice = play = int(np.flatnonzero(worth >= worth.max() - tolerance * scale)[0])
        if temperature > 0:
            odds = np.exp((worth - worth.max()) / temperature)
            play = int((choosing >= np.cumsum(odds / odds.sum())[:-1]).sum())
        if exploring < exploration:
            play = min(int(exploring / exploration * num_actions), num_actions - 1)
        _, added = outcome(play, happening)
        remembered.append(added)
        evidence = discount * evidence + added
        plays.append(play)
        choices.append(choice)
    last = prior + (evidence if window is None else sum(remembered, np.zeros_like(prior)))
    return np.array(plays), np.array(choices), _normalised(last)


def _normalised(weights: FloatArray) -> FloatArray:
    if weights.max() == -np.inf:
        return np.full_like(weights, np.nan)
    belief = np.exp(weights - weights.max())
    return belief / belief.sum()
