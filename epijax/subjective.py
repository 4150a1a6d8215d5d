"""What can be believed: the families of subjective models Q_θ(y|x) (theory §1, §6)."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from epijax.environment import Numbers, as_float, check_probs, every, is_concrete, is_distribution, rounding


class AffineBernoulli(eqx.Module):
    """Two outcomes, the probability of the second affine in θ: Q_θ(1|x) = intercept[x] + slope[x]·θ.

    One slope shared by several actions, or its negative, ties their outcomes to one belief: the conflated model of
    sycophancy is `intercept=(0, 1)`, `slope=(1, -1)` (after [X26]). A slope of zero makes an action uninformative.

    **Arguments:**

    - `intercept`: `[A]`.
    - `slope`: `[A, 1]`, or `[A]` for short.
    - `lower`, `upper`: `[1]`, or scalars: the box of believable θ, the support of the prior.

    Raises `ValueError` for shapes that do not fit, for more than one parameter and, for values known on the host, for
    lower > upper or a predicted probability that leaves [0, 1] inside the box.
    """

    intercept: Float[Array, "A"]
    slope: Float[Array, "A 1"]
    lower: Float[Array, "1"]
    upper: Float[Array, "1"]
    # Whether every informative action reports one and the same event or its complement; known when the links are.
    one_event: bool = eqx.field(static=True)

    def __init__(self, intercept: Numbers, slope: Numbers, lower: Numbers, upper: Numbers):
        self.one_event = _reports_one_event(intercept, slope)
        self.intercept = as_float(intercept)
        slope = as_float(slope)
        self.slope = slope[:, None] if slope.ndim == 1 else slope
        self.lower, self.upper = jnp.atleast_1d(as_float(lower)), jnp.atleast_1d(as_float(upper))
        if self.slope.ndim != 2 or self.slope.shape[1] != 1 or self.lower.shape != (1,) or self.upper.shape != (1,):
            raise ValueError(
                f"AffineBernoulli takes one parameter so far: slope must be [actions, 1] and the bounds [1]; "
                f"got {slope.shape}, {self.lower.shape} and {self.upper.shape}"
            )
        if self.intercept.shape != self.slope.shape[:1]:
            raise ValueError(f"intercept must be [{self.slope.shape[0]}], one an action; got {self.intercept.shape}")
        if is_concrete(self.lower, self.upper):
            if not np.isfinite([self.lower, self.upper]).all():
                raise ValueError(f"lower and upper must be finite; got {self.lower[0]:.6g} and {self.upper[0]:.6g}")
            if self.lower[0] > self.upper[0]:
                raise ValueError(
                    f"lower must not exceed upper; got lower={self.lower[0]:.6g}, upper={self.upper[0]:.6g}"
                )
        for bound in (self.lower, self.upper):
            predicted = self.predict(bound[0])
            nearest = jnp.clip(predicted, 0, 1)
            forgiven = jnp.abs(predicted - nearest) <= rounding(predicted)
            check_probs("predicted probability", _bernoulli(jnp.where(forgiven, nearest, predicted)))

    def predict(self, theta: Float[Array, ""]) -> Float[Array, "A"]:
        """The predicted probability of outcome 1, `[A]`."""
        return self.intercept + self.slope[:, 0] * theta

    def probs(self, theta: Float[Array, "1"]) -> Float[Array, "A 2"]:
        """Q_θ(y|x), `[A, 2]`; what rounding puts outside [0, 1] is put back."""
        return _bernoulli(jnp.clip(self.predict(theta[0]), 0, 1))

    def is_valid(self) -> Bool[Array, ""]:
        """Whether the box is ordered and predicts probabilities, for values inside a trace."""
        slack = rounding(self.intercept)

        def predicts(bound: Float[Array, ""]) -> Bool[Array, ""]:
            return every(lambda p: (p >= -slack) & (p <= 1 + slack), self.predict(bound))

        return (self.lower[0] <= self.upper[0]) & predicts(self.lower[0]) & predicts(self.upper[0])


class Finite(eqx.Module):
    """Finitely many parameters, each a table of its own: Q_θ(y|x) = outcome_probs[θ, x, y].

    **Arguments:**

    - `outcome_probs`: `[K, A, Y]`; each row sums to one.

    Raises `ValueError` as `Environment` does.
    """

    outcome_probs: Float[Array, "K A Y"]

    def __init__(self, outcome_probs: Numbers):
        self.outcome_probs = as_float(outcome_probs)
        if self.outcome_probs.ndim != 3:
            raise ValueError(f"outcome_probs must be [parameters, actions, outcomes]; got {self.outcome_probs.shape}")
        if len(self.outcome_probs) == 0:
            raise ValueError("outcome_probs must hold at least one parameter; the agent has to believe something")
        check_probs("outcome_probs", self.outcome_probs)

    def is_valid(self) -> Bool[Array, ""]:
        """Whether the probabilities are probabilities, for values inside a trace."""
        return jnp.all(jax.vmap(jax.vmap(is_distribution))(self.outcome_probs))


SubjectiveModel = AffineBernoulli | Finite


def _bernoulli(p: Float[Array, "A"]) -> Float[Array, "A 2"]:
    return jnp.stack([1 - p, p], axis=-1)


def _reports_one_event(intercept: Numbers, slope: Numbers) -> bool:
    if not is_concrete(intercept, slope):
        return False
    a, b = np.asarray(intercept, float).ravel(), np.asarray(slope, float).ravel()
    if a.shape != b.shape:
        return False
    a, b = a[b != 0], b[b != 0]
    same = (a == a[:1]) & (b == b[:1])
    complement = (a == 1 - a[:1]) & (b == -b[:1])
    return bool(np.all(same | complement))
