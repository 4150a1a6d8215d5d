"""Published problems of misspecified learning as ready `Problem`s, beyond those of [X26] in `models`.

Each states the result it is known for, and where we made it finite or simpler.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from epijax.environment import Environment, GaussianEnvironment, as_float
from epijax.problem import Problem
from epijax.subjective import Custom, Finite, GaussianLinear

Number = ArrayLike  # one number, or one a cell inside a trace


def monopolist(
    demand_low: Number = 34.0,
    demand_high: Number = 2.0,
    *,
    price_low: Number = 2.0,
    price_high: Number = 10.0,
    intercept_lower: Number = 33.0,
    intercept_upper: Number = 40.0,
    slope_lower: Number = 3.0,
    slope_upper: Number = 3.5,
    exploration: Number = 0.0,
) -> Problem:
    """A monopolist who must set one of two prices and believes in a demand line that the truth does not lie on.

    Demand is believed to be a − b·price + noise with (a, b) in a box that excludes the truth. Published, with the
    defaults: no price can be set for good, since each teaches that the other is better; the only Berk–Nash equilibrium
    sets the low price 35 times in 36, under the belief (a, b) = (40, 10/3), a corner of what fits (example 2.1 of
    [EP16], after Nyarko, JET 55, 1991, where beliefs cycle for ever). Two prices, as there.

    **Arguments:**

    - `demand_low`, `demand_high`: true expected demand at the low and at the high price.
    - `price_low`, `price_high`: the two prices; the payoff is price times demand.
    - `intercept_lower`, …, `slope_upper`: the box of believable a and b.
    - `exploration`: ε, the share of uniform play the agent also learns from.

    **Returns:** a `Problem` with actions ("low price", "high price"); the high one, the mistake, counts as unsafe.
    """
    prices = _row(price_low, price_high)
    return Problem(
        GaussianEnvironment(_row(demand_low, demand_high), 1.0, jnp.zeros(2), prices),
        GaussianLinear(
            jnp.stack([jnp.ones(2), -prices], axis=1),
            1.0,
            _row(intercept_lower, slope_lower),
            _row(intercept_upper, slope_upper),
        ),
        exploration,
        actions=("low price", "high price"),
        unsafe=(False, True),
    )


def berks_coin(bias: Number = 0.5, *, low: Number = 0.25, high: Number = 0.75) -> Problem:
    """A bet on a coin whose probability of heads is believed to be one of two values, neither of them true.

    Published, for a fair coin between 1/4 and 3/4: both values fit equally well for ever, and the posterior never
    settles ([B66]); so both bets are Berk–Nash equilibria, under suitable beliefs, and neither is strict. Away from ½
    the nearer value, in divergence, is believed and bet on. The bets are ours: the coin itself knows no actions.

    **Arguments:** `bias`: true probability of heads; `low`, `high`: the two that are believable.

    **Returns:** a `Problem` with actions ("bet on heads", "bet on tails"), payoff 1 for a bet won; tails count
    as unsafe.
    """
    coin = _row(1 - as_float(bias), bias)
    believed = jnp.stack([_row(1 - as_float(value), value) for value in (low, high)])
    return Problem(
        Environment(jnp.stack([coin, coin]), jnp.array([[0.0, 1.0], [1.0, 0.0]])),
        Finite(jnp.stack([believed, believed], axis=1)),
        actions=("bet on heads", "bet on tails"),
        unsafe=(False, True),
    )


def overconfident_worker(
    overconfidence: Number = 0.5,
    *,
    ability: Number = 1.0,
    fundamental: Number = 1.0,
    effort_low: Number = 1.0,
    effort_high: Number = 2.0,
    cost_low: Number = 0.0,
    cost_high: Number = 0.6,
    least: Number = -5.0,
    most: Number = 5.0,
    exploration: Number = 0.0,
) -> Problem:
    """A worker too sure of their own ability, who blames what is missing on the fundamental that effort multiplies.

    Output is ability + fundamental·effort + noise. The worker is certain of ability + overconfidence and learns the
    fundamental, as fundamental − overconfidence/effort. Published: an overconfident agent underestimates the
    fundamental and the mistake feeds itself, lower effort lowering the estimate further, while underconfidence limits
    itself (Heidhues, Kőszegi & Strack, Econometrica 86, 2018). Ours: output linear in effort, and two efforts of the
    continuum there, so that a band of overconfidence has both equilibria.

    **Arguments:**

    - `overconfidence`: believed minus true ability, in units of output.
    - `ability`, `fundamental`: the true ones.
    - `effort_low`, `effort_high`, `cost_low`, `cost_high`: the efforts, and what they cost in payoff units.
    - `least`, `most`: the believable fundamentals.
    - `exploration`: ε, the share of uniform play the agent also learns from.

    **Returns:** a `Problem` with actions ("low effort", "high effort"), of which the low one is unsafe.
    """
    efforts, costs = _row(effort_low, effort_high), _row(cost_low, cost_high)
    believed = as_float(ability) + overconfidence
    return Problem(
        GaussianEnvironment(as_float(ability) + as_float(fundamental) * efforts, 1.0, -costs, jnp.ones(2)),
        GaussianLinear(
            jnp.stack([jnp.ones(2), efforts], axis=1), 1.0, jnp.stack([believed, as_float(least)]), _row(believed, most)
        ),
        exploration,
        actions=("low effort", "high effort"),
        unsafe=(True, False),
    )


def linear_tax(
    progressivity: Number = 0.3,
    *,
    income_low: Number = 1.0,
    income_high: Number = 2.0,
    cost_low: Number = 0.0,
    cost_high: Number = 0.3,
    exploration: Number = 0.0,
) -> Problem:
    """A taxpayer who takes a progressive tax for a proportional one.

    The tax on income z is progressivity·z²; it is believed to be θ·z plus noise, so that the average rate passes for
    the marginal one. Published: who confuses the two under a progressive tax works more than is best (Sobel, 1984; the
    nonlinear taxation example of [EP16]). Ours: two incomes of the continuum there, and normal noise of constant size.

    **Arguments:**

    - `progressivity`: of the tax, per unit of income squared.
    - `income_low`, `income_high`, `cost_low`, `cost_high`: the incomes, and what their effort costs in payoff units.
    - `exploration`: ε, the share of uniform play the agent also learns from.

    **Returns:** a `Problem` with actions ("earn less", "earn more"), payoff income − cost − tax; earning more, the
    mistake, counts as unsafe.
    """
    incomes, costs = _row(income_low, income_high), _row(cost_low, cost_high)
    return Problem(
        GaussianEnvironment(as_float(progressivity) * incomes**2, 1.0, incomes - costs, -jnp.ones(2)),
        GaussianLinear(incomes, 1.0, 0.0, 10.0),
        exploration,
        actions=("earn less", "earn more"),
        unsafe=(False, True),
    )


def dieters_dilemma(cost: Number = 0.3, *, health: Number = 0.5, exploration: Number = 0.0) -> Problem:
    """A dieter who takes a chemical level for the cause of health, though health is one of its causes.

    In truth health is a coin that nothing affects, and the chemical is high iff one is ill and does not diet. The
    subjective causal graph is diet → chemical → health: what is learned is the frequency of health given each level.
    Published: dieting seems to help, and for costs between ¼ and ½ the only equilibrium diets with frequency
    1/(2·cost) − 1, dieting itself spoiling the evidence in its favour (Spiegler, QJE 131, 2016).
    The effect of diet on the chemical is known to the agent, here.

    **Arguments:** `cost`: of the diet, health being worth 1; `health`: true probability of health; `exploration`: ε,
    the share of uniform play the agent also learns from.

    **Returns:** a `Problem` with actions ("diet", "no diet") and outcomes (low and ill, low and healthy, high and ill,
    high and healthy); dieting, the mistake, counts as unsafe.
    """
    healthy, price = as_float(health), as_float(cost)
    zero = jnp.zeros_like(healthy)
    truth = [[1 - healthy, healthy, zero, zero], [zero, healthy, 1 - healthy, zero]]
    low = jnp.stack([jnp.ones_like(healthy), healthy])  # P(chemical low) with and without a diet
    chemical = jnp.log(jnp.stack([low, low, 1 - low, 1 - low], axis=1))

    paid = [[zero - price, 1 - price, zero - price, 1 - price], [zero, zero + 1, zero, zero + 1]]
    return Problem(
        Environment(jnp.stack([jnp.stack(row) for row in truth]), jnp.stack([jnp.stack(row) for row in paid])),
        Custom(jax.tree_util.Partial(_healthy_by_chemical, chemical), jnp.zeros(2), jnp.ones(2)),
        exploration,
        actions=("diet", "no diet"),
        unsafe=(True, False),
    )


def _healthy_by_chemical(chemical: Float[Array, "2 4"], theta: Float[Array, "2"]) -> Float[Array, "2 4"]:
    return chemical + jnp.log(jnp.stack([1 - theta[0], theta[0], 1 - theta[1], theta[1]]))


def _row(*values: Number) -> Float[Array, "N"]:
    return jnp.stack([as_float(value) for value in values])
