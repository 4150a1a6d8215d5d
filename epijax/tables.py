"""From a problem to its two tables: every family of models ends here (theory §1, §3)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from epijax.problem import FiniteProblem, Problem
from epijax.projection import kl_divergence
from epijax.subjective import AffineBernoulli, Finite


def tabulate(problem: Problem, num: int = 257) -> FiniteProblem:
    """The finite problem of a grid over the box of beliefs: K(x, θ) and U(x, θ) at `num` points a dimension.

    Exploration is folded into the divergences, K_ε(x, ·) = (1−ε)K(x, ·) + ε·mean_x′ K(x′, ·) (theory §4). A model that
    is finite already keeps its own parameters.

    **Arguments:** `problem`; `num`, points for each dimension of θ, at least 2.

    **Returns:** the `FiniteProblem`, divergences in nats; its answers tend to the problem's own as `num` grows, with an
    error of O(1/num) in θ (theory §3).
    """
    truth = problem.environment
    if isinstance(problem.model, Finite):
        believed = problem.model.outcome_probs
    else:
        if num < 2:
            raise ValueError(f"num must be at least 2 points a dimension; got {num}")
        believed = jax.vmap(problem.model.probs)(parameter_grid(problem.model, num))
    utility = jnp.sum(believed * truth.payoffs, axis=-1).T
    divergence = jax.vmap(lambda probs: kl_divergence(truth.outcome_probs, probs))(believed).T
    if problem.explores():
        eps = jnp.asarray(problem.exploration)
        mean = jnp.mean(divergence, axis=0)
        # 0·∞ is 0: without exploration, and for an action never played but in exploration, infinities must not spread.
        explored = jnp.where(eps < 1, (1 - eps) * divergence, 0) + jnp.where(eps > 0, eps * mean, 0)
        divergence = jnp.where(eps > 0, explored, divergence)
    return FiniteProblem(utility, divergence, actions=problem.actions, unsafe=problem.unsafe)


def parameter_grid(model: AffineBernoulli, num: int) -> Float[Array, "{num} 1"]:
    """`num` parameters evenly spaced over the box, both ends included, `[K, D]`."""
    share = jnp.arange(num) / (num - 1)
    return model.lower * (1 - share[:, None]) + model.upper * share[:, None]
