"""Best responses: the one argmax over actions and its ties (theory §1, §3)."""

from functools import reduce
from itertools import combinations

import jax.numpy as jnp
from jaxtyping import Array, Float

from epijax.environment import Environment, GaussianEnvironment
from epijax.subjective import AffineBernoulli, BoxModel, GaussianLinear


def utilities(
    environment: Environment | GaussianEnvironment, model: BoxModel, theta: Float[Array, "D"]
) -> Float[Array, "A"]:
    """U(x, θ), what every action is worth to one who believes θ, in payoff units, `[A]` (theory §1)."""
    if isinstance(environment, GaussianEnvironment):
        assert isinstance(model, GaussianLinear)
        return environment.payoff_intercept + environment.payoff_slope * model.predict(theta)
    assert not isinstance(model, GaussianLinear)
    probs = model.probs(theta) if isinstance(model, AffineBernoulli) else jnp.exp(model.log_probs(theta))
    return jnp.sum(probs * environment.payoffs, axis=-1)


class PayoffLines:
    """Expected payoffs affine in θ, U(x, θ) = level[x] + rise[x]·θ, one line an action, as shares of max|π|.

    Kept as one scalar an action, not as an array over actions: under `vmap` every operation is then elementwise over
    cells and the whole solver fuses into one kernel.
    """

    def __init__(self, environment: Environment, model: AffineBernoulli):
        payoffs = environment.payoffs
        self.num_actions = environment.num_actions
        actions = range(self.num_actions)
        largest = reduce(jnp.maximum, [jnp.abs(payoffs[x, y]) for x in actions for y in (0, 1)])
        scale = jnp.where(largest > 0, largest, 1)
        gain = [payoffs[x, 1] - payoffs[x, 0] for x in actions]
        self.level = [(payoffs[x, 0] + gain[x] * model.intercept[x]) / scale for x in actions]
        self.rise = [gain[x] * model.slope[x, 0] / scale for x in actions]

    def advantage(self, x: int, other: int, theta: Float[Array, ""]) -> Float[Array, ""]:
        """U(x, θ) − U(other, θ)."""
        if x > other:  # the same to the bit, and computed once
            return -self.advantage(other, x, theta)
        return (self.level[x] - self.level[other]) + (self.rise[x] - self.rise[other]) * theta

    def crossing(self, x: int, other: int) -> Float[Array, ""]:
        """The θ̂ at which x and other pay the same; +∞ for parallel lines."""
        rise = self.rise[x] - self.rise[other]
        level = self.level[other] - self.level[x]
        return jnp.where(rise == 0, jnp.inf, level / jnp.where(rise == 0, 1, rise))

    def lead(self, x: int, theta: Float[Array, ""], against: list[int] | None = None) -> Float[Array, ""]:
        """min over the other actions of x's advantage at θ: non-negative iff x is a best response."""
        others = [y for y in range(self.num_actions) if y != x] if against is None else against
        return reduce(jnp.minimum, [self.advantage(x, y, theta) for y in others])

    def best_lead(self, x: int, lower: Float[Array, ""], upper: Float[Array, ""]) -> Float[Array, ""]:
        """The largest lead of x over [lower, upper]: non-negative iff x is on the upper envelope somewhere there.

        The lead is concave and piecewise linear, so it peaks at an end or where two of the other actions cross.
        """
        others = [y for y in range(self.num_actions) if y != x]
        points = [lower, upper]
        points += [jnp.clip(self.crossing(y, z), lower, upper) for y, z in combinations(others, 2)]
        return reduce(jnp.maximum, [self.lead(x, point) for point in points])

    def worst_lead(self, x: int, lower: Float[Array, ""], upper: Float[Array, ""]) -> Float[Array, ""]:
        """The smallest lead of x over [lower, upper]: positive iff x alone is a best response to all of it."""
        return jnp.minimum(self.lead(x, lower), self.lead(x, upper))
