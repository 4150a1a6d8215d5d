"""From a problem to its two tables: every family of models ends here (theory §1, §3)."""

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from epijax.environment import Environment
from epijax.problem import FiniteProblem, Problem
from epijax.projection import divergences, kl_divergence
from epijax.response import utilities
from epijax.subjective import BoxModel, Finite


def tabulate(problem: Problem, num: int = 257) -> FiniteProblem:
    """The finite problem of a grid over the box of beliefs: K(x, θ) and U(x, θ) at `num` points a dimension.

    Exploration is folded into the divergences, K_ε(x, ·) = (1−ε)K(x, ·) + ε·mean_x′ K(x′, ·) (theory §4). A model that
    is finite already keeps its own parameters.

    **Arguments:** `problem`; `num`, points for each dimension of θ, at least 2: `num**D` parameters in all.

    **Returns:** the `FiniteProblem`, divergences in nats; its answers tend to the problem's own as `num` grows, with an
    error of O(1/num) in θ (theory §3), as long as play identifies θ: of a set of θ that all fit best a grid holds but
    the nearest point or two.
    """
    environment, model = problem.environment, problem.model
    if isinstance(model, Finite):
        assert isinstance(environment, Environment)
        utility = jnp.sum(model.outcome_probs * environment.payoffs, axis=-1).T
        divergence = jax.vmap(partial(kl_divergence, environment.outcome_probs))(model.outcome_probs).T
    else:
        if num < 2:
            raise ValueError(f"num must be at least 2 points a dimension; got {num}")
        grid = parameter_grid(model, num)
        utility = jax.vmap(partial(utilities, environment, model))(grid).T
        divergence = jax.vmap(partial(divergences, environment, model))(grid).T
    if problem.explores():
        eps = jnp.asarray(problem.exploration)
        mean = jnp.mean(divergence, axis=0)
        # 0·∞ is 0: without exploration, and for an action never played but in exploration, infinities must not spread.
        explored = jnp.where(eps < 1, (1 - eps) * divergence, 0) + jnp.where(eps > 0, eps * mean, 0)
        divergence = jnp.where(eps > 0, explored, divergence)
    return FiniteProblem(utility, divergence, actions=problem.actions, unsafe=problem.unsafe)


def parameter_grid(model: BoxModel, num: int) -> Float[Array, "K D"]:
    """`num` parameters a dimension, evenly spaced over the box, both ends included: `[num**D, D]`, the last coordinate
    running fastest."""
    share = jnp.arange(num) / (num - 1)
    dimensions = len(model.lower)
    places = jnp.stack(jnp.meshgrid(*[share] * dimensions, indexing="ij"), axis=-1).reshape(-1, dimensions)
    return model.lower * (1 - places) + model.upper * places
