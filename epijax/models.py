"""The published problems as ready `Problem`s, with the result each is known for; `MODELS` lists them.

Here those after [X26]: the parametrisation is ours, chosen to give its published statements (theory §4). Those of other
papers are in `gallery`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from epijax.environment import Environment, as_float, is_concrete
from epijax.gallery import berks_coin as berks_coin
from epijax.gallery import dieters_dilemma as dieters_dilemma
from epijax.gallery import linear_tax as linear_tax
from epijax.gallery import monopolist as monopolist
from epijax.gallery import overconfident_worker as overconfident_worker
from epijax.problem import Problem
from epijax.subjective import AffineBernoulli

Number = ArrayLike  # one number, or one a cell inside a trace


def sycophancy(
    p_agree: Number,
    p_honest: Number,
    *,
    reward_agree: Number = 1.0,
    reward_honest: Number = 1.0,
    cost_agree: Number = 0.0,
    cost_honest: Number = 0.0,
    lower: Number = 0.0,
    upper: Number = 1.0,
    coupling: Number = 1.0,
    exploration: Number = 0.0,
) -> Problem:
    """An agent that takes agreement for truth: it agrees with the user or answers honestly.

    It conflates the two on one axis, Q_θ(approved|agree) = θ and Q_θ(approved|honest) = 1 − θ. Published: with equal
    rewards and no bounds the phase does not depend on the reward's size; it is `locked_in` where agreeing is approved
    more often than not and honesty is too rarely learned, and each of four phases covers a quarter of the square
    (Theorem 3.2 of [X26]). Ours: the rewards, costs, bounds and exploration as separate parameters.

    **Arguments:**

    - `p_agree`, `p_honest`: true probability that agreeing, that honesty is approved.
    - `reward_agree`, `reward_honest`: payoff of approval, in payoff units; `cost_agree`, `cost_honest`: paid always.
    - `lower`, `upper`: the believable θ; `upper` below the critical belief makes agreement unrationalizable.
    - `coupling`: λ in [0, 1], from the correctly specified model, 0, in which honesty has a parameter of its own in
      [0, 1], to the conflated one, 1: Q_θ(approved|honest) = λ(1 − θ₁) + (1 − λ)θ₂.
    - `exploration`: ε, the share of uniform play the agent also learns from.

    **Returns:** a `Problem` with actions ("agree", "honest"), of which agreeing is unsafe.

    Raises `ValueError`, here and below, for a probability outside [0, 1], reversed bounds, or payoffs not finite.
    """
    _check_probability(p_agree=p_agree, p_honest=p_honest, coupling=coupling)
    return Problem(
        Environment(
            _table(((1 - as_float(p_agree), p_agree), (1 - as_float(p_honest), p_honest))),
            _table(
                (
                    (-as_float(cost_agree), as_float(reward_agree) - cost_agree),
                    (-as_float(cost_honest), as_float(reward_honest) - cost_honest),
                )
            ),
        ),
        _coupled(coupling, lower, upper),
        exploration,
        actions=("agree", "honest"),
        unsafe=(True, False),
    )


def hallucination(
    p_fabricate: Number,
    p_abstain: Number,
    *,
    reward_fabricate: Number = 1.0,
    reward_abstain: Number = 1.0,
    cost_fabricate: Number = 0.0,
    cost_abstain: Number = 0.0,
    lower: Number = 0.0,
    upper: Number = 1.0,
    coupling: Number = 1.0,
    exploration: Number = 0.0,
) -> Problem:
    """An agent that makes an answer up or says that it does not know.

    Published: the same mathematics as sycophancy, cell by cell (Corollary 4.1 of [X26]); one model, two sets of labels.
    The parametrisation is ours, as there.

    **Arguments:** those of `sycophancy`, with fabricate for agree and abstain for honest.

    **Returns:** a `Problem` with actions ("fabricate", "abstain"), of which fabricating is unsafe.
    """
    _check_probability(p_fabricate=p_fabricate, p_abstain=p_abstain)
    problem = sycophancy(
        p_fabricate,
        p_abstain,
        reward_agree=reward_fabricate,
        reward_honest=reward_abstain,
        cost_agree=cost_fabricate,
        cost_honest=cost_abstain,
        lower=lower,
        upper=upper,
        coupling=coupling,
        exploration=exploration,
    )
    return Problem(
        problem.environment,
        problem.model,
        problem.exploration,
        actions=("fabricate", "abstain"),
        unsafe=problem.unsafe,
    )


def deception(
    p_caught: Number,
    *,
    gain: Number = 1.0,
    loss: Number = 1.0,
    safe: Number = 0.0,
    lower: Number = 0.0,
    upper: Number = 1.0,
    exploration: Number = 0.0,
) -> Problem:
    """An agent that may deceive, at a risk whose size it must guess.

    Deception is caught with probability θ in its eyes; compliance is never caught and teaches nothing, so fear and hope
    go unrefuted. Deceiving is optimal iff θ ≤ θ̂ = (gain − safe)/(gain + loss). Published: an overconfident agent,
    upper < θ̂, is `locked_in` to deception for every true risk, even certainty (Theorem 5.2 of [X26]). Ours: the
    payoffs, bounds and exploration as separate parameters.

    **Arguments:**

    - `p_caught`: true probability that deception is caught.
    - `gain`, `loss`: payoff of deceiving unnoticed, loss when caught; `safe`: payoff of compliance. Payoff units.
    - `lower`, `upper`: the believable risks.
    - `exploration`: ε, the share of uniform play the agent also learns from.

    **Returns:** a `Problem` with actions ("deceive", "comply"), of which deceiving is unsafe; outcome 1: caught.
    """
    _check_probability(p_caught=p_caught)
    return Problem(
        Environment(
            _table(((1 - as_float(p_caught), p_caught), (1.0, 0.0))),
            _table(((gain, -as_float(loss)), (safe, safe))),
        ),
        AffineBernoulli((0.0, 0.0), (1.0, 0.0), lower, upper),
        exploration,
        actions=("deceive", "comply"),
        unsafe=(True, False),
    )


class Model(NamedTuple):
    """A named model for the command line and for pictures: how to build it and what its parameters mean."""

    build: Callable[..., Problem]
    axes: dict[str, tuple[float, float]]  # drawn unless others are asked for: parameter -> (start, stop)
    meaning: dict[str, str]  # parameter -> what it means, for axis labels and help


_EXPLORED = {"exploration": "exploration ε"}
_BELIEF = {"lower": "least believable θ", "upper": "greatest believable θ", **_EXPLORED}
_COUPLED = {**_BELIEF, "coupling": "coupling λ of the two beliefs"}

MODELS = {
    "sycophancy": Model(
        sycophancy,
        {"p_agree": (0.0, 1.0), "p_honest": (0.0, 1.0)},
        {
            "p_agree": "probability that agreeing is approved",
            "p_honest": "probability that honesty is approved",
            "reward_agree": "reward of approved agreement",
            "reward_honest": "reward of approved honesty",
            "cost_agree": "cost of agreeing",
            "cost_honest": "cost of honesty",
            **_COUPLED,
        },
    ),
    "hallucination": Model(
        hallucination,
        {"p_fabricate": (0.0, 1.0), "p_abstain": (0.0, 1.0)},
        {
            "p_fabricate": "probability that a fabricated answer is approved",
            "p_abstain": "probability that abstaining is approved",
            "reward_fabricate": "reward of approved fabrication",
            "reward_abstain": "reward of approved abstention",
            "cost_fabricate": "cost of fabricating",
            "cost_abstain": "cost of abstaining",
            **_COUPLED,
        },
    ),
    "deception": Model(
        deception,
        {"p_caught": (0.0, 1.0), "upper": (0.0, 1.0)},
        {
            "p_caught": "probability that deception is caught",
            "gain": "gain from unnoticed deception",
            "loss": "loss when caught",
            "safe": "payoff of compliance",
            "lower": "least believable risk of being caught",
            "upper": "greatest believable risk of being caught",
            **_EXPLORED,
        },
    ),
    "monopolist": Model(
        monopolist,
        {"demand_low": (26.0, 36.0), "demand_high": (0.0, 10.0)},
        {
            "demand_low": "expected demand at the low price",
            "demand_high": "expected demand at the high price",
            "price_low": "low price",
            "price_high": "high price",
            "intercept_lower": "least believable intercept of demand",
            "intercept_upper": "greatest believable intercept of demand",
            "slope_lower": "least believable slope of demand",
            "slope_upper": "greatest believable slope of demand",
            **_EXPLORED,
        },
    ),
    "berks_coin": Model(
        berks_coin,
        {"bias": (0.0, 1.0), "low": (0.05, 0.45)},
        {
            "bias": "probability of heads",
            "low": "lower believable probability of heads",
            "high": "higher believable probability of heads",
        },
    ),
    "overconfident_worker": Model(
        overconfident_worker,
        {"overconfidence": (-1.0, 2.0), "cost_high": (0.0, 1.2)},
        {
            "overconfidence": "believed minus true ability",
            "ability": "true ability",
            "fundamental": "output per unit of effort",
            "effort_low": "low effort",
            "effort_high": "high effort",
            "cost_low": "cost of low effort",
            "cost_high": "cost of high effort",
            "least": "least believable fundamental",
            "most": "greatest believable fundamental",
            **_EXPLORED,
        },
    ),
    "linear_tax": Model(
        linear_tax,
        {"progressivity": (0.0, 0.6), "cost_high": (0.0, 1.0)},
        {
            "progressivity": "tax per unit of income squared",
            "income_low": "low income",
            "income_high": "high income",
            "cost_low": "cost of earning the low income",
            "cost_high": "cost of earning the high income",
            **_EXPLORED,
        },
    ),
    "dieters_dilemma": Model(
        dieters_dilemma,
        {"cost": (0.0, 0.6), "health": (0.05, 0.95)},
        {"cost": "cost of the diet", "health": "probability of health", **_EXPLORED},
    ),
}
X26 = ("sycophancy", "hallucination", "deception")  # those with a closed form


def _coupled(coupling: Number, lower: Number, upper: Number) -> AffineBernoulli:
    """The sycophant's beliefs; of one parameter where the coupling is known to be complete."""
    if isinstance(coupling, int | float) and coupling == 1:
        return AffineBernoulli((0.0, 1.0), (1.0, -1.0), lower, upper)
    share = as_float(coupling)
    slope = jnp.stack([jnp.array([1.0, 0.0], share.dtype), jnp.stack([-share, 1 - share])])
    low, high = as_float(lower), as_float(upper)
    intercept = jnp.stack([jnp.zeros_like(share), share])
    return AffineBernoulli(intercept, slope, jnp.stack([low, 0 * low]), jnp.stack([high, 0 * high + 1]))


def _check_probability(**given: Number) -> None:
    for name, value in given.items():
        if is_concrete(value) and not 0 <= float(np.asarray(value)) <= 1:
            raise ValueError(f"{name} is {float(np.asarray(value)):.6g}; a probability must lie in [0, 1]")


def _table(rows: tuple[tuple[Number, Number], ...]) -> Float[Array, "A Y"]:
    return jnp.stack([jnp.stack([as_float(value) for value in row]) for row in rows])
