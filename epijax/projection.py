"""The KL projection: how well a belief fits, and the beliefs that fit best (theory §1, §3, §9)."""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from epijax.environment import Environment, GaussianEnvironment, Numbers, as_float
from epijax.problem import Problem
from epijax.solution import bits
from epijax.subjective import AffineBernoulli, BoxModel, GaussianLinear, is_one_parameter


def divergences(
    environment: Environment | GaussianEnvironment, model: BoxModel, theta: Float[Array, "D"]
) -> Float[Array, "A"]:
    """K(x, θ) of every action at one θ, in nats, `[A]` (theory §1, §6)."""
    if isinstance(environment, GaussianEnvironment):
        assert isinstance(model, GaussianLinear)
        ratio = environment.noise_std / model.noise_std
        missed = (environment.mean - model.predict(theta)) / model.noise_std
        return (missed**2 + (ratio**2 - 1)) / 2 - jnp.log(ratio)
    assert not isinstance(model, GaussianLinear)
    if isinstance(model, AffineBernoulli):
        return kl_divergence(environment.outcome_probs, model.probs(theta))
    log_probs = model.log_probs(theta)
    return kl_divergence(environment.outcome_probs, jnp.exp(log_probs), log_probs)


def log_likelihoods(
    environment: Environment | GaussianEnvironment, model: BoxModel, theta: Float[Array, "D"]
) -> Float[Array, "A M"]:
    """What a unit of each statistic adds to ln Q_θ, nats, up to what no θ changes: `[A, M]`.

    Where outcomes are discrete, ln Q_θ(y|x) for each outcome. Where they are real: for a play of the action, and for
    what came beyond the true mean.
    """
    if isinstance(model, GaussianLinear):
        assert isinstance(environment, GaussianEnvironment)
        beyond = (model.predict(theta) - environment.mean) / model.noise_std**2
        return jnp.stack([-(beyond**2) * model.noise_std**2 / 2, beyond], axis=1)
    return jnp.log(model.probs(theta)) if isinstance(model, AffineBernoulli) else model.log_probs(theta)


def kl_divergence(
    true_probs: Numbers, model_probs: Numbers, log_model_probs: Numbers | None = None
) -> Float[Array, "..."]:
    """Σ_y Q(y) ln Q(y)/q(y) in nats, over the last axis; +∞ where q excludes what Q does not.

    An outcome with Q(y) = 0 contributes nothing. Summed as Σ_y [Q ln Q/q − Q + q], whose terms are non-negative and
    keep their accuracy where q is close to Q (theory §9).

    **Arguments:** `true_probs`, `model_probs`: `[..., Y]`, each row a distribution; `log_model_probs`: ln q where it is
    known better than q, which may be too small for a float.

    **Returns:** `[...]`, nats.
    """
    true_probs, model_probs = as_float(true_probs), as_float(model_probs)
    happens = true_probs > 0
    truth = jnp.where(happens, true_probs, 1)
    ratio = jnp.where(happens, (model_probs - true_probs) / truth, 0)
    # ratio − log1p(ratio), by a series in s = ratio/(2 + ratio) where the difference would cancel
    s = ratio / (2 + ratio)
    s2 = s * s
    tail = 1 / 3 + s2 * (1 / 5 + s2 * (1 / 7 + s2 * (1 / 9 + s2 * (1 / 11 + s2 / 13))))
    near = jnp.abs(ratio) < 0.1
    series = ratio * s - 2 * s * s2 * tail
    far = ~near & happens
    if log_model_probs is None:
        excluded = model_probs == 0  # +∞ whatever is close to it, so without derivative
        direct = ratio - jnp.log(jnp.where(far & ~excluded, model_probs, 1) / truth)
        direct = jnp.where(excluded, jnp.inf, direct)
    else:
        direct = ratio - (jnp.where(far, as_float(log_model_probs), 0) - jnp.log(truth))
    return jnp.sum(jnp.where(happens, true_probs * jnp.where(near, series, direct), model_probs), axis=-1)


def project(problem: Problem, sigma: Numbers) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Θ(σ) = argmin_θ K(σ, θ) of a one-parameter family: the ends of an interval (theory §3).

    **Arguments:** `problem`, its model an `AffineBernoulli`; `sigma`: `[A]`, frequencies of play, before exploration.

    **Returns:** the least and the greatest θ that fits best; equal, unless no action played is informative, when every
    θ in the box fits. Meaningless where every belief is refuted, which `Solution.status` tells.

    Raises `ValueError` for a sigma of another length, and for other models: `best_fit` takes any family with a box.
    """
    model, sigma = problem.model, as_float(sigma)
    if not is_one_parameter(model):
        raise ValueError(
            f"project takes an AffineBernoulli of one parameter; got {type(model).__name__}. best_fit takes any family"
        )
    if sigma.shape != (problem.num_actions,):
        raise ValueError(f"sigma must be [{problem.num_actions}], one frequency an action; got {sigma.shape}")
    return _project(problem, sigma)


@eqx.filter_jit
def _project(problem: Problem, sigma: Float[Array, "A"]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    environment, model, weights = problem.environment, problem.model, problem.explored(sigma)
    assert isinstance(environment, Environment) and isinstance(model, AffineBernoulli)
    lower, upper, _ = fit_interval(environment, model, [weights[x] for x in range(problem.num_actions)])
    return lower, upper


def fit_interval(
    environment: Environment, model: AffineBernoulli, weights: Sequence[Float[ArrayLike, ""]]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """The ends of the KL projection for the given weights on actions, and how firmly the data hold it.

    With one informative action, or several that report one event or its complement, the minimiser is the average
    Σ w β (Q(1|x) − α) / Σ w β², clipped to the box; otherwise the root of the increasing derivative, by bisection.

    **Arguments:** `weights`: for each action its frequency; the plain number 0 for one that is not played.

    **Returns:** lower end, upper end, and the change of data (in probability) that moves the fit by one unit of θ.
    """
    played = [x for x, w in enumerate(weights) if not (isinstance(w, int | float) and w == 0)]
    weights = [weights[x] for x in played]
    truth = [environment.outcome_probs[x, 1] for x in played]
    alpha, beta = [model.intercept[x] for x in played], [model.slope[x, 0] for x in played]
    lower, upper = model.lower[0], model.upper[0]

    def total(terms: Iterable) -> Float[Array, ""]:
        return reduce(jnp.add, [w * term for w, term in zip(weights, terms, strict=True)])

    informative = {model.informative[x] for x in played}
    information = total(b * b for b in beta)
    informed = informative == {True} or (informative != {False} and information > 0)
    information = jnp.where(informed, information, 1)
    firmness = jnp.where(informed, information / jnp.where(informed, total(jnp.abs(b) for b in beta), 1), 1)
    if len(played) == 1 or model.one_event:
        # each share of the average is the same for all truths
        fit = total(b / information * (q - a) for a, b, q in zip(alpha, beta, truth, strict=True))
        fit = jnp.where(fit < lower, lower, fit)
        fit = jnp.where(fit > upper, upper, fit)
    else:

        def slope(theta: Float[Array, ""]) -> Float[Array, ""]:
            slopes = [divergence_slope(environment, model, x, theta) for x in played]
            shares = [jnp.asarray(w) for w in weights]
            # 0·∞ is 0: what is not played refutes nothing
            return reduce(
                jnp.add, [w * jnp.where((w > 0) | jnp.isfinite(s), s, 0) for w, s in zip(shares, slopes, strict=True)]
            )

        fit = _bisect(slope, lower, upper)
    if isinstance(informed, bool):
        return (fit, fit, firmness) if informed else (lower, upper, firmness)
    return jnp.where(informed, fit, lower), jnp.where(informed, fit, upper), firmness


def divergence_slope(
    environment: Environment, model: AffineBernoulli, x: int, theta: Float[Array, ""]
) -> Float[Array, ""]:
    """∂K(x, θ)/∂θ = β[(1−Q)/(1−P) − Q/P] with P the predicted and Q the true probability of outcome 1, nats per θ."""
    alpha, beta = model.intercept[x], model.slope[x, 0]
    predicted, truth = alpha + beta * theta, environment.outcome_probs[x, 1]
    return jnp.where(beta == 0, 0, beta * (_ratio(1 - truth, 1 - predicted) - _ratio(truth, predicted)))


def refutes(environment: Environment, model: AffineBernoulli, x: int) -> Bool[Array, ""]:
    """Whether playing x refutes every θ in the box: each excludes an outcome that happens.

    A link that is not constant excludes nothing inside its box, so the middle of the box speaks for all of it.
    """
    predicted = model.intercept[x]
    if model.informative[x] is not False:
        predicted += model.slope[x, 0] * (model.lower[0] + model.upper[0]) / 2
    excluded = bits([predicted >= 1, predicted <= 0])
    return excluded & bits([environment.outcome_probs[x, y] > 0 for y in (0, 1)]) != 0


def _ratio(p: Float[Array, ""], q: Float[Array, ""]) -> Float[Array, ""]:
    """p/q with 0/0 = 0 and p/0 = +∞."""
    return jnp.where(p > 0, p / jnp.where(q > 0, q, 1) + jnp.where(q > 0, 0, jnp.inf), 0)


def _bisect(slope: Callable, lower: Float[Array, ""], upper: Float[Array, ""]) -> Float[Array, ""]:
    """The root of an increasing function on [lower, upper], or the end it has passed; differentiable.

    Halves the box to the last bit, then takes one Newton step whose only effect is the derivative (implicit function
    theorem): the root moves by −∂slope / (∂slope/∂θ) while it is inside the box, with the box's end otherwise.
    """

    def halve(_, ends):
        low, high = ends
        middle = low + (high - low) / 2
        below = slope(middle) < 0
        return jnp.where(below, middle, low), jnp.where(below, high, middle)

    steps = jnp.finfo(jnp.result_type(float)).nmant + 8
    frozen = jax.lax.stop_gradient((lower, upper))
    low, high = jax.lax.fori_loop(0, steps, halve, frozen)
    at_lower, at_upper = slope(frozen[0]) >= 0, slope(frozen[1]) <= 0
    root = jax.lax.stop_gradient(low + (high - low) / 2)
    curvature = jax.lax.stop_gradient(jax.grad(slope)(root))
    curvature = jnp.where(curvature > 0, curvature, 1)
    residual = slope(root)
    inside = root - (residual - jax.lax.stop_gradient(residual)) / curvature
    return jnp.where(at_lower, lower, jnp.where(at_upper, upper, inside))
