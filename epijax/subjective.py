"""What can be believed: the families of subjective models Q_θ(y|x) (theory §1, §6)."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Bool, Float

from epijax.environment import (
    Numbers,
    as_float,
    check_probs,
    check_std,
    every,
    is_concrete,
    is_distribution,
    rounding,
)


class AffineBernoulli(eqx.Module):
    """Two outcomes, the probability of the second affine in θ: Q_θ(1|x) = intercept[x] + slope[x]·θ.

    One slope shared by several actions, or its negative, ties their outcomes to one belief: the conflated model of
    sycophancy is `intercept=(0, 1)`, `slope=(1, -1)` (after [X26]). A slope of zero makes an action uninformative; a
    parameter of its own for each action is the correctly specified model.

    **Arguments:**

    - `intercept`: `[A]`.
    - `slope`: `[A, D]`, or `[A]` for one parameter.
    - `lower`, `upper`: `[D]`, or a scalar for all: the box of believable θ, the support of the prior.

    Raises `ValueError` for shapes that do not fit and, for values known on the host, for bounds that are reversed or
    infinite, or a predicted probability that leaves [0, 1] inside the box.
    """

    intercept: Float[Array, "A"]
    slope: Float[Array, "A D"]
    lower: Float[Array, "D"]
    upper: Float[Array, "D"]
    # Whether every informative action reports one and the same event or its complement; known when the links are.
    one_event: bool = eqx.field(static=True)
    # For each action whether it is informative of the one parameter, where the slope is known and leaves no doubt.
    informative: tuple[bool | None, ...] = eqx.field(static=True)

    def __init__(self, intercept: Numbers, slope: Numbers, lower: Numbers, upper: Numbers):
        self.one_event = _reports_one_event(intercept, slope)
        self.intercept = as_float(intercept)
        known = _informative(slope) if is_concrete(slope) else None
        slope = as_float(slope)
        self.informative = known or (None,) * slope.size
        self.slope = slope[:, None] if slope.ndim == 1 else slope
        if self.slope.ndim != 2 or self.intercept.shape != self.slope.shape[:1]:
            raise ValueError(
                f"intercept must be [actions] and slope [actions, parameters]; "
                f"got {self.intercept.shape} and {slope.shape}"
            )
        self.lower, self.upper = _box(lower, upper, self.slope.shape[1])
        for predicted in self._extremes():
            nearest = jnp.clip(predicted, 0, 1)
            forgiven = jnp.abs(predicted - nearest) <= rounding(predicted)
            check_probs("predicted probability", _bernoulli(jnp.where(forgiven, nearest, predicted)))

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of actions and of outcomes."""
        return self.intercept.shape[0], 2

    def predict(self, theta: Float[Array, "D"]) -> Float[Array, "A"]:
        """The predicted probability of outcome 1, `[A]`."""
        return self.intercept + self.slope @ theta

    def probs(self, theta: Float[Array, "D"]) -> Float[Array, "A 2"]:
        """Q_θ(y|x), `[A, 2]`; what rounding puts outside [0, 1] is put back."""
        return _bernoulli(jnp.clip(self.predict(theta), 0, 1))

    def is_valid(self) -> Bool[Array, ""]:
        """Whether the box is ordered and predicts probabilities, for values inside a trace."""
        slack = rounding(self.intercept)
        least, most = self._extremes()
        inside = every(lambda p: (p >= -slack) & (p <= 1 + slack), least)
        return _ordered(self.lower, self.upper) & inside & every(lambda p: (p >= -slack) & (p <= 1 + slack), most)

    def _extremes(self) -> tuple[Float[Array, "A"], Float[Array, "A"]]:
        """The least and the greatest prediction in the box, `[A]`; of one parameter, those at its two ends."""
        if self.slope.shape[1] == 1:
            at_lower, at_upper = (self.intercept + self.slope[:, 0] * bound[0] for bound in (self.lower, self.upper))
            return at_lower, at_upper
        low, high = self.slope * self.lower, self.slope * self.upper
        least, most = (self.intercept + jnp.sum(way(low, high), axis=1) for way in (jnp.minimum, jnp.maximum))
        return least, most


class Categorical(eqx.Module):
    """Any number of outcomes, with logits affine in θ: Q_θ(·|x) = softmax(logit_intercept[x] + logit_slope[x]·θ).

    The exponential family of theory §6: K is convex in θ, and inside the box the KL projection matches expected
    statistics.

    **Arguments:**

    - `logit_intercept`: `[A, Y]`; −∞ for an outcome held to be impossible.
    - `logit_slope`: `[A, Y, D]`.
    - `lower`, `upper`: `[D]`, or a scalar for all.

    Raises `ValueError` for shapes that do not fit and, for values known on the host, for bounds that are reversed or
    infinite, a slope that is not finite, or an action with no possible outcome.
    """

    logit_intercept: Float[Array, "A Y"]
    logit_slope: Float[Array, "A Y D"]
    lower: Float[Array, "D"]
    upper: Float[Array, "D"]

    def __init__(self, logit_intercept: Numbers, logit_slope: Numbers, lower: Numbers, upper: Numbers):
        self.logit_intercept, self.logit_slope = as_float(logit_intercept), as_float(logit_slope)
        if self.logit_slope.ndim != 3 or self.logit_intercept.shape != self.logit_slope.shape[:2]:
            raise ValueError(
                f"logit_intercept must be [actions, outcomes] and logit_slope [actions, outcomes, parameters]; "
                f"got {self.logit_intercept.shape} and {self.logit_slope.shape}"
            )
        self.lower, self.upper = _box(lower, upper, self.logit_slope.shape[2])
        if is_concrete(self.logit_slope) and not np.isfinite(self.logit_slope).all():
            raise ValueError("logit_slope must be finite; −∞ in logit_intercept says that an outcome is impossible")
        if is_concrete(self.logit_intercept):
            logits = np.asarray(self.logit_intercept)
            if not (logits < np.inf).all() or np.isneginf(logits).all(axis=1).any():
                raise ValueError("logit_intercept must be below +∞, and above −∞ for some outcome of each action")

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers of actions and of outcomes."""
        return self.logit_slope.shape[:2]

    def log_probs(self, theta: Float[Array, "D"]) -> Float[Array, "A Y"]:
        """ln Q_θ(y|x), `[A, Y]`."""
        return jax.nn.log_softmax(self.logit_intercept + self.logit_slope @ theta, axis=-1)

    def is_valid(self) -> Bool[Array, ""]:
        """Whether the box is ordered and the logits are numbers, for values inside a trace."""
        possible = jnp.all(jnp.max(self.logit_intercept, axis=1) > -jnp.inf) & jnp.all(self.logit_intercept < jnp.inf)
        return _bounded(self.lower, self.upper) & possible & jnp.all(jnp.isfinite(self.logit_slope))


class GaussianLinear(eqx.Module):
    """A real outcome, linear in θ with normal noise of known size: y = design[x]·θ + noise.

    For a `GaussianEnvironment`. K(x, θ) is (mean[x] − design[x]·θ)²/2s² and what the believed noise s misses of the
    true one.

    **Arguments:**

    - `design`: `[A, D]`, or `[A]` for one parameter; a column of ones is a believed constant.
    - `noise_std`: the believed standard deviation of the noise, positive.
    - `lower`, `upper`: `[D]`, or a scalar for all.

    Raises `ValueError` for shapes that do not fit and, for values known on the host, for bounds that are reversed or
    infinite, a design that is not finite, or a noise that is not positive.
    """

    design: Float[Array, "A D"]
    noise_std: Float[Array, ""]
    lower: Float[Array, "D"]
    upper: Float[Array, "D"]

    def __init__(self, design: Numbers, noise_std: Numbers, lower: Numbers, upper: Numbers):
        design = as_float(design)
        self.design = design[:, None] if design.ndim == 1 else design
        self.noise_std = as_float(noise_std)
        if self.design.ndim != 2:
            raise ValueError(f"design must be [actions, parameters]; got {design.shape}")
        if is_concrete(self.design) and not np.isfinite(self.design).all():
            raise ValueError("design must be finite")
        check_std("noise_std", self.noise_std)
        self.lower, self.upper = _box(lower, upper, self.design.shape[1])

    @property
    def shape(self) -> tuple[int]:
        """The number of actions; outcomes are a continuum."""
        return (self.design.shape[0],)

    def predict(self, theta: Float[Array, "D"]) -> Float[Array, "A"]:
        """The believed mean outcome of each action, `[A]`."""
        return self.design @ theta

    def is_valid(self) -> Bool[Array, ""]:
        """Whether the box is ordered and the numbers are finite, for values inside a trace."""
        noisy = (self.noise_std > 0) & jnp.isfinite(self.noise_std)
        return _bounded(self.lower, self.upper) & noisy & jnp.all(jnp.isfinite(self.design))


class Custom(eqx.Module):
    """A family of the user's own, as one function: `log_prob(theta)` gives ln Q_θ(y|x).

    It need not be convex: projections search the box from many starts, and say how sure they are.

    **Arguments:**

    - `log_prob`: from θ `[D]` to `[A, Y]`, written in `jax.numpy`; −∞ for what is held to be impossible. No derivative
      is needed. Arrays that it depends on may be closed over, or be leaves of an `equinox.Module` or a
      `jax.tree_util.Partial`.
    - `lower`, `upper`: `[D]`, or numbers for one parameter.

    Raises `ValueError` for bounds that are reversed or infinite and, for values known on the host, where the function's
    shape is not [actions, outcomes] or its rows do not sum to one, tried at the corners and the middle of the box.
    """

    log_prob: Callable
    lower: Float[Array, "D"]
    upper: Float[Array, "D"]
    shape: tuple[int, int] = eqx.field(static=True)

    def __init__(self, log_prob: Callable, lower: Numbers, upper: Numbers):
        # a function with arrays as its leaves, as transformations want it
        leafy = isinstance(log_prob, (eqx.Module, Partial))
        self.log_prob = log_prob if leafy else Partial(log_prob)  # pyright: ignore[reportAttributeAccessIssue]
        self.lower, self.upper = _box(lower, upper, max(as_float(lower).size, as_float(upper).size))
        made = jax.eval_shape(self.log_prob, self.lower)
        if getattr(made, "ndim", None) != 2:
            raise ValueError(f"log_prob must return an array [actions, outcomes]; got {made}")
        self.shape = made.shape
        if not is_concrete(self.lower, self.upper):
            return
        for share in (0.0, 0.5, 1.0):
            theta = (1 - share) * self.lower + share * self.upper
            logs = self.log_probs(theta)
            if is_concrete(logs):
                sums = np.exp(np.asarray(logs)).sum(axis=1)
                if not np.allclose(sums, 1, rtol=0, atol=1e3 * rounding(logs)):
                    raise ValueError(
                        f"log_prob is not normalised at theta = {np.asarray(theta)}: its rows sum to "
                        f"{np.array2string(sums, precision=8)} in probability; each must sum to one"
                    )

    def log_probs(self, theta: Float[Array, "D"]) -> Float[Array, "A Y"]:
        """ln Q_θ(y|x), `[A, Y]`."""
        return as_float(self.log_prob(theta))

    def is_valid(self) -> Bool[Array, ""]:
        """Whether the box is ordered and its middle is a distribution, for values inside a trace."""
        total = jnp.sum(jnp.exp(self.log_probs((self.lower + self.upper) / 2)), axis=1)
        return _bounded(self.lower, self.upper) & jnp.all(jnp.abs(total - 1) <= 1e3 * rounding(total[:, None]))


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

    @property
    def shape(self) -> tuple[int, ...]:
        """The numbers of actions and of outcomes."""
        return self.outcome_probs.shape[1:]

    def is_valid(self) -> Bool[Array, ""]:
        """Whether the probabilities are probabilities, for values inside a trace."""
        return jnp.all(jax.vmap(jax.vmap(is_distribution))(self.outcome_probs))


BoxModel = AffineBernoulli | Categorical | GaussianLinear | Custom  # the families of continuous parameters
SubjectiveModel = BoxModel | Finite


def is_one_parameter(model: SubjectiveModel) -> bool:
    """Whether theory §3 has a closed path for it: Bernoulli outcomes and a single parameter."""
    return isinstance(model, AffineBernoulli) and model.slope.shape[1] == 1


def _box(lower: Numbers, upper: Numbers, num: int) -> tuple[Float[Array, "D"], Float[Array, "D"]]:
    """The bounds of a box of `num` parameters, checked."""
    bounds = []
    for name, bound in (("lower", as_float(lower)), ("upper", as_float(upper))):
        if bound.shape not in ((), (num,)):
            raise ValueError(f"{name} must hold one bound for each of the {num} parameters; got {bound.shape}")
        bounds.append(jnp.broadcast_to(bound, (num,)))
    low, high = bounds
    if is_concrete(low, high):
        if not np.isfinite([low, high]).all():
            raise ValueError(f"lower and upper must be finite; got {_shown(low)} and {_shown(high)}")
        if (np.asarray(low) > np.asarray(high)).any():
            raise ValueError(f"lower must not exceed upper; got lower={_shown(low)}, upper={_shown(high)}")
    return low, high


def _shown(bound: Float[Array, "D"]) -> str:
    return f"{float(bound[0]):.6g}" if bound.size == 1 else np.array2string(np.asarray(bound), precision=6)


def _ordered(lower: Float[Array, "D"], upper: Float[Array, "D"]) -> Bool[Array, ""]:
    """Whether the box is one; infinite bounds show elsewhere where predictions are probabilities."""
    return lower[0] <= upper[0] if len(lower) == 1 else jnp.all(lower <= upper)


def _bounded(lower: Float[Array, "D"], upper: Float[Array, "D"]) -> Bool[Array, ""]:
    return _ordered(lower, upper) & jnp.all(jnp.isfinite(lower) & jnp.isfinite(upper))


def _bernoulli(p: Float[Array, "A"]) -> Float[Array, "A 2"]:
    return jnp.stack([1 - p, p], axis=-1)


def _informative(slope: Numbers) -> tuple[bool | None, ...]:
    """Whether each known slope is other than zero; `None` where its square may be lost to rounding."""
    limits = jnp.finfo(jnp.result_type(float))
    slopes = np.ravel(slope).tolist()
    return tuple(b != 0 if b == 0 or b * b > limits.tiny / limits.eps else None for b in slopes)


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
