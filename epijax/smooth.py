"""Logit Berk–Nash equilibria and their implicit derivatives (theory §8).

After N observations with frequencies σ the posterior is μ ∝ μ₀ exp(−N K(σ, ·)); who chooses by logit with temperature τ
then plays G(σ) = softmax(E_μ U/τ). Its fixed points are smooth in the tables, the prior, τ and N, and tend to Berk–Nash
equilibria as τ → 0 and N → ∞. There can be several: from which start each was reached is part of the answer.

Cells come first here, unlike elsewhere: one product of beliefs with a table of moments gives G and its Jacobian
−(N/τ)·(diag(σ) − σσᵀ)·Cov_μ(U, K), and that product is what a processor does best.
"""

from collections.abc import Callable, Sequence
from enum import IntEnum
from functools import partial, reduce
from math import prod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from epijax.cells import positive
from epijax.environment import Numbers, as_float, is_concrete
from epijax.priors import check_prior
from epijax.problem import FiniteProblem, Problem
from epijax.tables import tabulate

RESIDUAL = {"float32": 2e-5, "float64": 1e-10}  # of a solved branch
_BLURRED = {"float32": 1e-3, "float64": 1e-7}  # of one where rounding permits no better, at most
_POLISHED = {"float32": 1e-6, "float64": 1e-14}  # to which it is refined if rounding permits
_FOLD = {"float32": 1e2, "float64": 1e5}  # sensitivity from which derivatives lose their digits
_AT_ONCE = 64  # cells on a core, which wait for the slowest
_ON_ACCELERATOR = 1 << 14
_STAGES, _MORE_STAGES = 2.25, 12.0  # of the continuation, for each e-fold of τ and N: of all cells, of those it leaves
_POLISH = 12  # steps at its end
_FOLLOWED = 40  # steps along the logit dynamics
_LONGEST, _STEPS = (0.2, 0.2, 0.02), (300, 3000, 5000)  # along a path that is traced: one try each
_CORRECTIONS = 3  # Newton's steps in each


class Branch(IntEnum):
    """How far a logit equilibrium can be trusted.

    Fold: (1 − ∂G/∂σ) is nearly singular there, as where two branches meet and vanish, and derivatives mean nothing.
    """

    SOLVED = 0
    FOLD = 1
    UNSOLVED = 2
    REFUTED = 3


class LogitEquilibria(eqx.Module):
    """The fixed points that were reached, one from each of S starts and the principal branch last.

    - `strategy`: `[S + 1, A]`; derivatives are implicit, forward and reverse, and NaN where `status` is not solved.
    - `status`: `[S + 1]`, a `Branch` each.
    - `residual`: `[S + 1]`, the largest |G(σ) − σ|.
    - `sensitivity`: `[S + 1]`, ‖(1 − ∂G/∂σ)⁻¹‖∞, by how much a change of the response moves the equilibrium.
    """

    strategy: Float[Array, "*batch S A"]
    status: Int[Array, "*batch S"]
    residual: Float[Array, "*batch S"]
    sensitivity: Float[Array, "*batch S"]

    def worst(self, unsafe: Sequence[bool]) -> Int[Array, "*batch"]:
        """The solved branch on which unsafe actions are played most; −1 if none is solved."""
        mass = jnp.sum(jnp.where(jnp.asarray(unsafe), self.strategy, 0), axis=-1)
        solved = self.status == Branch.SOLVED
        return jnp.where(jnp.any(solved, axis=-1), jnp.argmax(jnp.where(solved, mass, -1), axis=-1), -1)


class Smooth(NamedTuple):
    """Tables with a temperature τ in payoff units, a number of observations N, and the log prior."""

    utility: Float[Array, "*cells A K"]
    divergence: Float[Array, "*cells A K"]
    log_prior: Float[Array, "*cells K"]
    temperature: Float[Array, "*cells"]
    observations: Float[Array, "*cells"]


def logit_equilibria(
    problem: Problem | FiniteProblem,
    temperature: ArrayLike,
    observations: ArrayLike,
    starts: Numbers | None = None,
    *,
    log_prior: Numbers | None = None,
    num: int = 65,
) -> LogitEquilibria:
    """Logit Berk–Nash equilibria: σ = softmax(E_μ U/τ), μ = softmax(ln μ₀ − N·K(σ, ·)) (theory §8).

    From each start the logit dynamics σ̇ = G(σ) − σ are followed to where they rest, in implicit steps that grow into
    Newton's. The principal branch is continued from uniform play at a high temperature and few observations. Where the
    dynamics do not come to rest, or the continuation folds, the path σ = (1 − s)·start + s·G(σ) is traced from s = 0 to
    s = 1, through its folds. Differentiable in the tables, the prior, τ and N, forward and reverse, by the implicit
    function theorem at the solution; under `jit`, `vmap` and `shard_map`.

    **Arguments:**

    - `problem`: tables, or a problem whose box is tabulated with `num` points a dimension.
    - `temperature`: τ > 0, in payoff units; `observations`: N ≥ 0.
    - `starts`: `[S, A]`, strategies; by default the pure ones, `[0, A]` for the principal branch alone.
    - `log_prior`: `[K]`, log weights; by default those of the tables, else uniform.

    **Returns:** the `LogitEquilibria`. Solved is a residual within 1e-10 (2e-5 in float32), or what rounding permits
    where N/τ is so large that G itself cannot be told to that, within 1e-7 (1e-3) at most.

    Raises `ValueError` for a temperature that is not positive, a negative or infinite number of observations, and
    starts or priors that do not fit.
    """
    smooth = smooth_tables(problem, temperature, observations, log_prior, num)
    num_actions = smooth.utility.shape[0]
    starts = jnp.eye(num_actions) if starts is None else as_float(starts)
    if starts.ndim != 2 or starts.shape[1] != num_actions:
        raise ValueError(f"starts must be strategies, [starts, {num_actions}]; got {starts.shape}")
    if is_concrete(starts) and not (
        (np.asarray(starts) >= 0).all() and np.allclose(np.sum(starts, axis=1), 1, atol=1e-6)
    ):
        raise ValueError("starts must be strategies: not negative, with sum 1 each")
    return branches(smooth, starts)


def smooth_tables(
    problem: Problem | FiniteProblem,
    temperature: ArrayLike,
    observations: ArrayLike,
    log_prior: Numbers | None = None,
    num: int = 65,
) -> Smooth:
    """The tables of a problem with τ, N and the log prior, checked."""
    temperature, observations = as_float(temperature), as_float(observations)
    for name, value in (("temperature", temperature), ("observations", observations)):
        if value.shape != ():
            raise ValueError(f"{name} must be one number; got {value.shape}. Map over several by jax.vmap")
    if is_concrete(temperature) and not 0 < temperature < jnp.inf:
        raise ValueError(f"temperature must be positive and finite, in payoff units; got {float(temperature):.6g}")
    if is_concrete(observations) and not 0 <= observations < jnp.inf:
        raise ValueError(f"observations must not be negative, and finite; got {float(observations):.6g}")
    tables = tabulate(problem, num) if isinstance(problem, Problem) else problem
    count = tables.utility.shape[1]
    given = tables.log_prior if log_prior is None else as_float(log_prior)
    prior = jnp.zeros(count) if given is None else given
    if prior.shape != (count,):
        raise ValueError(f"log_prior must be [{count}], one weight a parameter; got {prior.shape}")
    if is_concrete(prior):
        check_prior(np.asarray(prior)[None])
    dtype = tables.utility.dtype
    return Smooth(
        tables.utility, tables.divergence, *(leaf.astype(dtype) for leaf in (prior, temperature, observations))
    )


@jax.jit
def branches(smooth: Smooth, starts: Float[Array, "S A"]) -> LogitEquilibria:
    """`logit_equilibria` of tables that were checked."""
    dtype = smooth.utility.dtype
    strategy, residual, sensitivity = _found(*jax.lax.stop_gradient((*smooth, starts.astype(dtype))))
    smooth, refuted = _finite(smooth)
    constant = jax.lax.stop_gradient(smooth)
    name = smooth.utility.dtype.name
    # rounding of N·K, as G magnifies it
    blur = 16 * jnp.finfo(name).eps * constant.observations * _range(constant.divergence)
    permitted = jnp.minimum(_BLURRED[name], blur * _range(constant.utility) / constant.temperature)
    solved = residual <= jnp.maximum(RESIDUAL[name], permitted)
    solved &= (constant.temperature > 0) & (constant.observations >= 0)  # in a trace nothing was refused
    status = jnp.where(sensitivity > _FOLD[name], Branch.FOLD, Branch.SOLVED)
    status = jnp.where(solved, status, Branch.UNSOLVED)
    status = jnp.where(refuted, Branch.REFUTED, status).astype(jnp.int32)
    clear = (status == Branch.SOLVED)[:, None]
    attached = jax.vmap(lambda one: implicit(smooth, one))(strategy)
    return LogitEquilibria(_marked(attached, clear), status, residual, sensitivity)


def _finite(smooth: Smooth) -> tuple[Smooth, Bool[Array, "*cells"]]:
    """Tables without infinities, and whether all is refuted: by logit every action is played, if ever so rarely."""
    infinite = jnp.isinf(smooth.divergence)
    log_prior = jnp.where(jnp.any(infinite, axis=-2), -jnp.inf, smooth.log_prior)
    refuted = jnp.max(log_prior, axis=-1) == -jnp.inf
    log_prior = jnp.where(refuted[..., None], 0, log_prior)
    return smooth._replace(divergence=jnp.where(infinite, 0, smooth.divergence), log_prior=log_prior), refuted


@jax.custom_jvp
def _marked(strategy: Array, clear: Array) -> Array:
    """The strategy, of which the derivative is NaN where it is not clear."""
    del clear
    return strategy


@_marked.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (strategy, clear), (change, _) = primals, tangents
    return strategy, change * jnp.where(clear, 1.0, jnp.nan).astype(strategy.dtype)


def response(smooth: Smooth, strategy: Float[Array, "A"]) -> Float[Array, "A"]:
    """G(σ), the logit response to what is believed after N observations of σ."""
    belief = jax.nn.softmax(smooth.log_prior - smooth.observations * (strategy @ smooth.divergence))
    return jax.nn.softmax(smooth.utility @ belief / smooth.temperature)


@jax.custom_jvp
def implicit(smooth: Smooth, strategy: Float[Array, "A"]) -> Float[Array, "A"]:
    """A fixed point of G, given, whose derivative is dσ = (1 − ∂G/∂σ)⁻¹ ∂G/∂φ dφ."""
    del smooth
    return strategy


@implicit.defjvp
def _(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (smooth, strategy), (change, _) = primals, tangents
    strategy = implicit(smooth, strategy)  # so that higher derivatives are implicit, too
    _, pushed = jax.jvp(lambda given: response(given, strategy), (smooth,), (change,))
    jacobian = jax.jacfwd(partial(response, smooth))(strategy)
    inverse = _inverse(jnp.eye(len(strategy) - 1, dtype=strategy.dtype) - _reduced(jacobian))
    return strategy, _whole(jnp.sum(inverse * pushed[:-1], axis=-1))


# Cells [C], starts [S] of each, actions [A], parameters [K].


@jax.custom_batching.custom_vmap
def _found(
    utility: Array, divergence: Array, log_prior: Array, temperature: Array, observations: Array, starts: Array
) -> tuple[Array, Array, Array]:
    """Strategies `[*cells, S + 1, A]`, residuals and sensitivities `[*cells, S + 1]`, of cells all of full size."""
    cells = temperature.shape
    flat = [
        leaf.reshape(prod(cells), *leaf.shape[len(cells) :])
        for leaf in (utility, divergence, log_prior, temperature, observations, starts)
    ]
    found = jax.lax.platform_dependent(
        *flat, cpu=partial(_all_cells, _AT_ONCE), default=partial(_all_cells, _ON_ACCELERATOR)
    )
    return jax.tree.map(lambda leaf: leaf.reshape(*cells, *leaf.shape[1:]), found)


@_found.def_vmap
def _(size: int, is_batched: list[bool], *arguments: Array) -> tuple[Any, Any]:
    full = [
        argument if own else jnp.broadcast_to(argument, (size, *argument.shape))
        for argument, own in zip(arguments, is_batched, strict=True)
    ]
    return _found(*full), (True, True, True)


def _all_cells(at_once: int, *arguments: Array) -> tuple[Array, Array, Array]:
    smooth, starts = Smooth(*arguments[:-1]), arguments[-1]
    uniform = jnp.full((len(starts), 1, starts.shape[2]), 1 / starts.shape[2], starts.dtype)

    def quickly(smooth: Smooth, starts: Array, uniform: Array) -> tuple[Array, Array, Array]:
        smooth, _ = _finite(smooth)  # here, as a few cells stay in the cache
        principal = _continued(smooth, uniform, _STAGES)
        if not starts.shape[1]:
            return principal
        followed = _refined(smooth, starts, jnp.full(starts.shape[:2], 0.5, starts.dtype), _FOLLOWED)
        return tuple(jnp.concatenate(pair, axis=1) for pair in zip(followed, principal, strict=True))  # pyright: ignore[reportReturnType]

    found = _in_chunks(quickly, (smooth, starts, uniform), at_once)
    starts = jnp.concatenate([starts, uniform], axis=1)
    principal = jnp.arange(starts.shape[1]) == starts.shape[1] - 1
    found = _retried(partial(_continued, density=_MORE_STAGES), smooth, starts, found, principal, at_once)

    def traced(i: Array, found: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        tried = partial(_traced, longest=jnp.asarray(_LONGEST, starts.dtype)[i], steps=jnp.asarray(_STEPS)[i])
        return _retried(tried, smooth, starts, found, jnp.ones_like(principal), at_once)

    return jax.lax.fori_loop(0, len(_STEPS), traced, found)


def _in_chunks(function: Callable, arguments: tuple, at_once: int) -> Any:
    """`function` of arrays `[C, ...]`, so many cells at a time."""
    count = len(jax.tree.leaves(arguments)[0])
    if count <= at_once:
        return function(*arguments)
    chunks = -(-count // at_once)

    def split(leaf: Array) -> Array:
        padded = jnp.pad(leaf, ((0, chunks * at_once - count), *((0, 0),) * (leaf.ndim - 1)), mode="edge")
        return padded.reshape(chunks, at_once, *leaf.shape[1:])

    answers = jax.lax.map(lambda part: function(*part), jax.tree.map(split, arguments))
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], answers)


def _retried(
    method: Callable, smooth: Smooth, starts: Array, found: tuple[Array, Array, Array], which: Array, at_once: int
) -> tuple[Array, Array, Array]:
    """What was found, and of these starts, in place of what is not solved, what the method finds, so many at a time."""
    cells, each = found[1].shape
    count = cells * each
    starts, *before = (leaf.reshape(count, *leaf.shape[2:]) for leaf in (starts, *found))

    left = (before[1] > RESIDUAL[before[1].dtype.name]) & jnp.tile(which, cells)
    at_once = min(at_once, count)
    (order,) = jnp.nonzero(left, size=-(-count // at_once) * at_once, fill_value=count)

    def some_more(state: tuple) -> tuple:
        done, found = state
        index = jax.lax.dynamic_slice_in_dim(order, done, at_once)
        tables = jax.tree.map(lambda leaf: jnp.take(leaf, index // each, axis=0, mode="clip"), smooth)
        start = jnp.take(starts, index, axis=0, mode="clip")[:, None]
        again = tuple(leaf[:, 0] for leaf in method(_finite(tables)[0], start))
        better = again[1] < jnp.take(found[1], index, mode="clip")
        place = jnp.where(better, index, count)
        found = tuple(whole.at[place].set(part, mode="drop") for whole, part in zip(found, again, strict=True))
        return done + at_once, found

    _, after = jax.lax.while_loop(lambda state: state[0] < jnp.sum(left), some_more, (jnp.int32(0), tuple(before)))
    return tuple(leaf.reshape(cells, each, *leaf.shape[1:]) for leaf in after)  # pyright: ignore[reportReturnType]


def _continued(smooth: Smooth, start: Array, density: float) -> tuple[Array, Array, Array]:
    """Newton's method along a path from a high temperature and few observations to those asked for.

    In single precision, which leads as near and takes half the time; what comes last is refined in full.
    """
    rough = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), smooth)
    moments = _moments(rough)
    worth, gap = (jnp.maximum(_range(leaf), jnp.finfo(leaf.dtype).tiny) for leaf in (rough.utility, rough.divergence))
    warm = jnp.maximum(2 * worth, rough.temperature)
    few = jnp.minimum(1 / gap, rough.observations)

    cooler, more = rough.temperature / warm, jnp.where(few > 0, rough.observations / positive(few), 1)
    stages = jnp.ceil(density * (1 + jnp.log(more) - jnp.log(cooler)))
    stages = jnp.where(jnp.isfinite(stages), stages, 0)  # of what is no problem, too sharp for single precision

    def stage(i: Array, strategy: Array) -> Array:
        share = (i.astype(stages.dtype) + 1) / stages
        here = rough._replace(temperature=warm * cooler**share, observations=few * more**share)
        return jnp.where((share <= 1)[:, None, None], _newton(here, moments, strategy, None)[0], strategy)

    near = jax.lax.fori_loop(0, jnp.max(stages).astype(jnp.int32), stage, start.astype(jnp.float32))
    return _refined(smooth, near.astype(start.dtype), None, _POLISH)


def _traced(smooth: Smooth, starts: Float[Array, "L 1 A"], longest: Array, steps: Array) -> tuple[Array, Array, Array]:
    """Along the path of solutions of σ = (1 − s)·start + s·G(σ), from s = 0, where the start alone is one, to s = 1.

    The path goes through folds, by pseudo-arclength, and for almost all starts it arrives (Chow, Mallet-Paret & Yorke
    1978): it cannot return to s = 0, nor leave the simplex. Steps are `longest` at most, and the shorter the less bent.
    """
    start = starts[:, 0]
    moments, dtype = _moments(smooth), start.dtype
    num, num_actions = start.shape
    identity = jnp.eye(num_actions - 1, dtype=dtype)
    goal = jnp.sqrt(jnp.asarray(_POLISHED[dtype.name], dtype))
    last = jnp.zeros((num, num_actions), dtype).at[:, -1].set(1)

    def system(place: Array) -> tuple[Array, Array]:
        """How far from the path `[L, A − 1]`, and its derivatives `[L, A − 1, A]`."""
        shares, s = place[:, :-1], place[:, -1:]
        strategy = jnp.concatenate([shares, 1 - jnp.sum(shares, axis=1, keepdims=True)], axis=1)
        played, jacobian = _respond(smooth, moments, strategy[:, None])
        towards = (played[:, 0] - start)[:, :-1]
        slope = s[..., None] * _reduced(jacobian)[:, 0] - identity
        return start[:, :-1] + s * towards - shares, jnp.concatenate([slope, towards[..., None]], axis=2)

    def solved(slope: Array, along: Array, right: Array) -> Array:
        return jnp.sum(_inverse(jnp.concatenate([slope, along[:, None]], axis=1)) * right[:, None], axis=-1)

    def unit(vector: Array) -> Array:
        return vector / jnp.linalg.norm(vector, axis=1, keepdims=True)

    def onward(state: tuple) -> tuple:
        i, place, along, length, done = state
        foreseen = place + length[:, None] * along

        def corrected(_: Array, reached: Array) -> Array:
            off, slope = system(reached)
            past = jnp.sum(along * (reached - foreseen), axis=1, keepdims=True)
            return reached - solved(slope, along, jnp.concatenate([off, past], axis=1))

        reached = jax.lax.fori_loop(0, _CORRECTIONS, corrected, foreseen)
        off, slope = system(reached)
        turned = unit(solved(slope, along, last))
        bent = jnp.linalg.norm(reached - foreseen, axis=1) > longest * length
        good = (jnp.max(jnp.abs(off), axis=1) <= goal) & ~bent & (jnp.sum(turned * along, axis=1) > 0.9)
        over = reached[:, -1] - 1
        to_end = length * (1 - place[:, -1]) / positive(reached[:, -1] - place[:, -1])  # and not past it
        ahead = jnp.where(good, jnp.where(over > goal, to_end, 1.5 * length), 0.4 * length)
        taken = good & (over <= goal) & ~done
        place, along = (jnp.where(taken[:, None], new, old) for new, old in ((reached, place), (turned, along)))
        lost = (ahead < 1e-12) | (place[:, -1] < -0.1)
        return i + 1, place, along, jnp.minimum(ahead, longest), done | (taken & (over >= -goal)) | lost

    _, slope = system(jnp.concatenate([start[:, :-1], jnp.zeros((num, 1), dtype)], axis=1))
    first = unit(solved(slope, last, last))
    state = (
        jnp.int32(0),
        jnp.concatenate([start[:, :-1], jnp.zeros((num, 1), dtype)], axis=1),
        first,
        jnp.full(num, longest / 4, dtype),
        jnp.zeros(num, bool),
    )
    _, place, *_ = jax.lax.while_loop(lambda state: (state[0] < steps) & ~jnp.all(state[-1]), onward, state)
    shares = place[:, :-1]
    strategy = jnp.concatenate([shares, 1 - jnp.sum(shares, axis=1, keepdims=True)], axis=1)
    return _refined(smooth, strategy[:, None], None, _POLISH)


def _refined(smooth: Smooth, strategy: Array, pace: Array | None, steps: int) -> tuple[Array, Array, Array]:
    """Newton's steps, or where there is a pace those of implicit Euler along σ̇ = G(σ) − σ, longer as it comes to rest,
    until all branches are solved as well as rounding permits: the best that each has come by, its residual, and its
    sensitivity.
    """
    moments, dtype = _moments(smooth), strategy.dtype
    goal = _POLISHED[dtype.name]
    far = jnp.full(strategy.shape[:2], jnp.inf, dtype)

    def onward(state: tuple) -> tuple:
        i, strategy, pace, before, best, residual, stalled = state
        after, found = _newton(smooth, moments, strategy, pace)
        if pace is not None:
            faster = jnp.where(found < before, before / positive(found), 0.5)
            pace = jnp.clip(pace * jnp.clip(faster, 0.3, 2.5), 1e-3, 1e12)
        better = found < residual
        stalled = jnp.where(found < 0.5 * residual, 0, stalled + 1)
        best = jnp.where(better[..., None], strategy, best)
        return i + 1, after, pace, found, best, jnp.fmin(found, residual), stalled

    def busy(state: tuple) -> Array:
        i, *_, residual, stalled = state
        done = (residual <= goal) | ((residual <= RESIDUAL[dtype.name]) & (stalled >= 2))
        return (i < steps) & ~jnp.all(done)

    zeros = jnp.zeros(strategy.shape[:2], jnp.int32)
    state = (jnp.int32(0), strategy, pace, far, strategy, far, zeros)
    _, _, _, _, best, residual, _ = jax.lax.while_loop(busy, onward, state)
    _, jacobian = _respond(smooth, moments, best)
    inverse = _inverse(jnp.eye(best.shape[-1] - 1, dtype=dtype) - _reduced(jacobian))
    sensitivity = jnp.max(jnp.sum(jnp.abs(inverse), axis=-1), axis=-1)
    return best, residual, jnp.where(jnp.isnan(sensitivity), jnp.inf, sensitivity)


def _newton(smooth: Smooth, moments: Array, strategy: Array, pace: Array | None) -> tuple[Array, Array]:
    """One step, of implicit Euler where there is a pace, and the residual before it."""
    played, jacobian = _respond(smooth, moments, strategy)
    residual = played - strategy
    identity = jnp.eye(strategy.shape[-1] - 1, dtype=strategy.dtype)
    slowed = identity if pace is None else (1 + 1 / pace)[..., None, None] * identity
    step = _whole(jnp.sum(_inverse(slowed - _reduced(jacobian)) * residual[..., None, :-1], axis=-1))
    moved = jnp.maximum(jnp.where(jnp.isfinite(step), strategy + step, played), 0)
    return moved / jnp.sum(moved, axis=-1, keepdims=True), jnp.max(jnp.abs(residual), axis=-1)


def _moments(smooth: Smooth) -> Float[Array, "C K M"]:
    """(1, U) ⊗ (1, K) at each parameter: what beliefs are multiplied with, `[C, K, (A + 1)²]`."""
    one = jnp.ones_like(smooth.utility[:, :1])
    left, right = (jnp.concatenate([one, leaf], axis=1) for leaf in (smooth.utility, smooth.divergence))
    product = jnp.einsum("cak,cbk->ckab", left, right)
    return product.reshape(*product.shape[:2], -1)


def _respond(
    smooth: Smooth, moments: Float[Array, "C K M"], strategy: Float[Array, "C S A"]
) -> tuple[Float[Array, "C S A"], Float[Array, "C S A A"]]:
    """G(σ) and ∂G/∂σ."""
    num_actions = strategy.shape[-1]
    rate = smooth.observations[:, None, None]
    weights = smooth.log_prior[:, None] - rate * jnp.matmul(strategy, smooth.divergence, precision="highest")
    means = jnp.matmul(jax.nn.softmax(weights), moments, precision="highest")
    means = means.reshape(*means.shape[:2], num_actions + 1, num_actions + 1)
    worth, misfit = means[..., 1:, 0], means[..., 0, 1:]
    covariance = means[..., 1:, 1:] - worth[..., :, None] * misfit[..., None, :]
    played = jax.nn.softmax(worth / smooth.temperature[:, None, None])
    mean = jnp.sum(played[..., None] * covariance, axis=-2, keepdims=True)
    slope = -(smooth.observations / smooth.temperature)[:, None, None, None]
    return played, slope * played[..., None] * (covariance - mean)


def _reduced(jacobian: Float[Array, "*n A A"]) -> Float[Array, "*n B B"]:
    """The Jacobian of all shares but the last, which is what they leave over."""
    return jacobian[..., :-1, :-1] - jacobian[..., :-1, -1:]


def _whole(step: Float[Array, "*n B"]) -> Float[Array, "*n A"]:
    return jnp.concatenate([step, -jnp.sum(step, axis=-1, keepdims=True)], axis=-1)


def _inverse(matrix: Float[Array, "*n B B"]) -> Float[Array, "*n B B"]:
    """The inverse; up to four rows by cofactors, which need no pivots and run along all cells at once."""
    size = matrix.shape[-1]
    if size <= 1:
        return 1 / matrix
    if size > 4:
        return jnp.linalg.inv(matrix)
    entries = [[matrix[..., i, j] for j in range(size)] for i in range(size)]
    cofactors = [[(-1) ** (i + j) * _determinant(_minor(entries, i, j)) for j in range(size)] for i in range(size)]
    determinant = reduce(jnp.add, [entries[0][j] * cofactors[0][j] for j in range(size)])
    transposed = [jnp.stack([cofactors[j][i] for j in range(size)], axis=-1) for i in range(size)]
    return jnp.stack(transposed, axis=-2) / determinant[..., None, None]


def _minor(entries: list[list[Array]], row: int, column: int) -> list[list[Array]]:
    return [[x for j, x in enumerate(line) if j != column] for i, line in enumerate(entries) if i != row]


def _determinant(entries: list[list[Array]]) -> Array:
    if len(entries) == 1:
        return entries[0][0]
    return reduce(jnp.add, [(-1) ** j * x * _determinant(_minor(entries, 0, j)) for j, x in enumerate(entries[0])])


def _range(table: Float[Array, "*cells A K"]) -> Float[Array, "*cells"]:
    return jnp.max(table, axis=(-2, -1)) - jnp.min(table, axis=(-2, -1))
