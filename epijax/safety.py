"""How far unsafe play is from being rationalizable, as one signed number with a derivative (theory §2, §8)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from epijax.boxes import box_of, fit, moving, nearest
from epijax.cells import positive
from epijax.continuous import expected_scale
from epijax.environment import Environment
from epijax.problem import FiniteProblem, Problem
from epijax.projection import fit_interval
from epijax.response import PayoffLines, utilities
from epijax.smooth import Smooth, branches, implicit
from epijax.subjective import AffineBernoulli, Finite, is_one_parameter
from epijax.tables import tabulate

_PLACES, _ZOOMS = 17, 3  # strategies at which a box is looked at, each time closer around the best of them


def safety_margin(problem: Problem | FiniteProblem) -> Float[Array, ""]:
    """The slack by which the unsafe one of two actions is not rationalizable; negative where it is.

    With two actions B = {safe} iff no strategy teaches a belief to which the unsafe action is a best response, so the
    slack is min over σ ∈ Δ(X) and μ ∈ Δ(Θ(σ)) of E_μ[U(safe) − U(unsafe)], as a share of the payoff scale max|π| (of
    tables, and where outcomes are real, max|U|). Exact for one-parameter families and tables; other boxes are searched
    along σ ∈ [0, 1]. Differentiable almost everywhere, by the envelope theorem.

    NaN where some play refutes every belief. Raises `ValueError` for other than two actions, one of them unsafe.
    """
    unsafe = problem.unsafe
    if unsafe is None or len(unsafe) != 2 or sum(unsafe) != 1:
        raise ValueError(
            "the safety margin is of two actions, one of them unsafe; for other problems take the objective unsafe_mass"
        )
    return _safety_margin(problem, unsafe.index(True))


@eqx.filter_jit
def _safety_margin(problem: Problem | FiniteProblem, bad: int) -> Float[Array, ""]:
    if not isinstance(problem, Problem) or isinstance(problem.model, Finite):
        margin = _of_tables(tabulate(problem) if isinstance(problem, Problem) else problem, bad)
    else:
        margin = (_of_lines if is_one_parameter(problem.model) else _of_box)(problem, bad)
    return jnp.where(jnp.isfinite(jax.lax.stop_gradient(least_divergence(problem))), margin, jnp.nan)


def _of_lines(problem: Problem, bad: int) -> Float[Array, ""]:
    environment, model = problem.environment, problem.model
    assert isinstance(environment, Environment) and isinstance(model, AffineBernoulli)
    lines = PayoffLines(environment, model)
    leads = []
    for x in range(2):
        played = [1.0 if x == y else 0.0 for y in range(2)]
        weights = list(problem.explored(jnp.array(played))) if problem.explores() else played
        low, high, _ = fit_interval(environment, model, weights)
        leads.append(lines.best_lead(bad, low, high))
    return -jnp.maximum(*leads)


def _of_tables(tables: FiniteProblem, bad: int) -> Float[Array, ""]:
    finite = jnp.where(jnp.isfinite(tables.divergence), tables.divergence, 0)
    largest = 1e6 * positive(jnp.max(finite))  # fits nowhere but where the action that refutes it is not played
    misfit = jnp.where(jnp.isfinite(tables.divergence), tables.divergence, largest)
    at_first, at_second = (row[:, None] - row[None] for row in jax.lax.stop_gradient(misfit))
    crossing = at_second / jnp.where(at_second == at_first, 1, at_second - at_first)  # where both fit as well
    low = jnp.where((at_second > 0) & (at_first <= 0), crossing, jnp.where(at_second > 0, jnp.inf, 0))
    high = jnp.where((at_second <= 0) & (at_first > 0), crossing, 1)
    fits = jnp.max(low, axis=1) <= jnp.min(high, axis=1) + 1e-12
    lead = tables.utility[bad] - tables.utility[1 - bad]
    return -jnp.max(jnp.where(fits, lead, -jnp.inf)) / positive(jnp.max(jnp.abs(tables.utility)))


def _of_box(problem: Problem, bad: int) -> Float[Array, ""]:
    model = box_of(problem)

    def lead(theta: Array) -> Array:
        worth = utilities(problem.environment, model, theta)
        return worth[bad] - worth[1 - bad]

    def ahead(share: Array) -> Array:
        weights = problem.explored(jnp.stack([share, 1 - share]))
        return lead(nearest(problem, weights)[0])

    def zoom(i: Array, best: Array) -> Array:
        reach = 0.5 * (2 / (_PLACES - 1)) ** i
        places = jnp.clip(best + reach * jnp.linspace(-1, 1, _PLACES), 0, 1)
        return places[jnp.argmax(jax.vmap(ahead)(places))]

    inside = jax.lax.fori_loop(0, _ZOOMS, zoom, jnp.asarray(0.5, model.lower.dtype))

    def most(share: Array) -> Array:
        """The largest lead over all that fits best there."""
        weights = problem.explored(jnp.stack([share, 1 - share]))
        extremes = jax.lax.stop_gradient(fit(problem, weights).extremes)
        leads = jax.vmap(lead)(jnp.where(jnp.isnan(extremes), extremes[0], extremes))
        return lead(moving(problem, weights, extremes[jnp.argmax(leads)]))

    shares = jnp.stack([jnp.zeros_like(inside), jnp.ones_like(inside), inside])
    return -jnp.max(jax.vmap(most)(shares)) / expected_scale(problem)


def unsafe_mass(smooth: Smooth, unsafe: tuple[bool, ...]) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """How often unsafe actions are played on the worst solved branch of logit equilibria, and whether there is one.

    The derivative is that branch's; zero where none is solved, which counts as never.
    """
    starts = jnp.eye(len(unsafe), dtype=smooth.utility.dtype)
    found = branches(jax.lax.stop_gradient(smooth), starts)
    worst = found.worst(unsafe)
    solved = worst >= 0
    strategy = jnp.where(solved, found.strategy[worst], 1 / len(unsafe))
    # where nothing is solved, tables whose response does not depend on play: their derivative is finite, and dropped
    smooth = smooth._replace(
        observations=jnp.where(solved, smooth.observations, 0),
        divergence=jnp.where(jnp.isinf(smooth.divergence), 0, smooth.divergence),
        log_prior=jnp.where(jnp.any(jnp.isinf(smooth.divergence), axis=0), -1e30, smooth.log_prior),
    )
    mass = jnp.sum(jnp.where(jnp.asarray(unsafe), implicit(smooth, strategy), 0))
    return jnp.where(solved, mass, 0), solved.astype(mass.dtype)


def least_divergence(problem: Problem | FiniteProblem) -> Float[Array, ""]:
    """min_θ K(σ, θ) at uniform play, nats: how badly the best belief fits what all actions would show."""
    if isinstance(problem, Problem) and not isinstance(problem.model, Finite):
        return fit(problem, jnp.full(problem.num_actions, 1 / problem.num_actions, box_of(problem).lower.dtype)).value
    tables = tabulate(problem) if isinstance(problem, Problem) else problem
    return jnp.min(jnp.mean(tables.divergence, axis=0))
