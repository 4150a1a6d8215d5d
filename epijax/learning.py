"""Learning: what myopic Bayesians come to do, and how often a prior leads to unsafe play (theory §7).

Learners are laid out last: a round is one fused pass over parameters for hundreds of them at a time. What a learner
draws in a round follows from its number and the round alone, so nothing depends on tiles, devices or order.
"""

from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache, partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Bool, Float, Int, UInt
from scipy.special import betaincinv

from epijax.cells import wide_vectors
from epijax.environment import GaussianEnvironment, Numbers, as_float, is_concrete
from epijax.priors import check_prior
from epijax.problem import FiniteProblem, Problem
from epijax.projection import log_likelihoods
from epijax.response import utilities
from epijax.solution import tolerance_of
from epijax.subjective import Finite
from epijax.tables import parameter_grid

_BLOCK = 1 << 15  # learners × parameters at a time on a core, so that they stay in its cache
_IMPOSSIBLE, _REFUTED = -1e28, -1e15  # a log weight that stands for −∞, counts of it being finite; and what is below it
_LOST = 1e-20  # a sum of weights this small has lost digits
_TRACE = 1e-12  # what discounting leaves of evidence at least, so that what was refuted stays so
_MOST_ROUNDS = 1 << 30
_EXPLORES = np.uint32(1 << 31)  # set in the counters of draws that explore


class Trajectories(eqx.Module):
    """What learners did up to each checkpoint. Letters: L learners, C checkpoints, A actions, M statistics an action.

    - `rounds`: `[C]`, the checkpoints: so many rounds were played.
    - `plays`: `[L, C, A]`, how often each action was played.
    - `choices`: `[L, C, A]`, how often it was the best response chosen; other than `plays` where learners explore or
      play by logit.
    - `switches`: `[L, C]`, how often a choice was not that of the round before.
    - `longest`: `[L, C]`, the longest run of one choice, from its beginning, that reached beyond the checkpoint before.
    - `choice`: `[L, C]`, the choice of the last round.
    - `statistics`: `[L, C, A, M]`, all that the posterior depends on: for each action how often each outcome came, or,
      where outcomes are real, how often it was played and the sum of what came beyond the true mean; of what is not
      forgotten, and with its weight. `posterior` makes beliefs of them.
    - `refuted`: `[L]`, the round after which no parameter was possible any more, 0 if there was none such. What such a
      learner did from there on means nothing.
    """

    rounds: Int[Array | np.ndarray, "C"]
    plays: Int[Array, "L C A"]
    choices: Int[Array, "L C A"]
    switches: Int[Array, "L C"]
    longest: Int[Array, "L C"]
    choice: Int[Array, "L C"]
    statistics: Float[Array, "L C A M"]
    refuted: Int[Array, "L"]

    @property
    def frequencies(self) -> Float[Array, "L C A"]:
        """The share of each action in all rounds so far."""
        return self.plays / self.rounds[:, None].astype(self.statistics.dtype)

    @property
    def recent(self) -> Float[Array, "L C A"]:
        """The share of each action in the rounds since the checkpoint before."""
        since = jnp.diff(self.rounds, prepend=0)[:, None].astype(self.statistics.dtype)
        return jnp.diff(self.plays, axis=1, prepend=0) / since


class Tables(eqx.Module):
    """A problem as a learner on K parameters sees it.

    - `evidence`: `[A, M, K]`, what a unit of each statistic adds to the log weight of each parameter, nats.
    - `utility`: `[A, K]`, payoff units.
    - `outcomes`: `[A, M]`, the cumulative probabilities of outcomes; where these are real, `[A, 1]`, their deviation.
    """

    evidence: Float[Array, "A M K"]
    utility: Float[Array, "A K"]
    outcomes: Float[Array, "A Y"]
    exploration: Float[Array, ""]
    explores: bool = eqx.field(static=True)  # false only where exploration is known to be zero
    real: bool = eqx.field(static=True)


def simulate(
    problem: Problem | FiniteProblem,
    log_prior: Numbers,
    key: Array,
    rounds: int,
    learners: int = 1,
    *,
    parameters: Numbers | None = None,
    checkpoints: Sequence[int] | None = None,
    temperature: float = 0.0,
    discount: float = 1.0,
    window: int | None = None,
) -> Trajectories:
    """Myopic Bayesians in a problem: x_t ∈ F(μ_{t−1}), y_t ~ Q(·|x_t), μ_t ∝ μ_{t−1} Q_θ(y_t|x_t) (theory §7).

    The posterior on these parameters is exact but for rounding, in logarithms, from counts of what was seen: in float32
    log weights are off by some 1e-7 nats a round. Of actions that pay the same within tolerance the first is chosen.
    With the problem's exploration ε, a share ε of rounds is played uniformly at random instead.

    **Arguments:**

    - `problem`: any family; a box of beliefs is a grid of as many points a dimension as `log_prior` has room for.
    - `log_prior`: `[K]`, or `[L, K]` for learners that differ; need not be normalised, −∞ outside the support.
      `ej.priors` makes them.
    - `key`: of `jax.random.key` or `PRNGKey`, threefry.
    - `rounds`, `learners`: how many. The i-th learner draws the same however many there are.
    - `parameters`: `[K, D]`, a list of θ in place of the grid.
    - `checkpoints`: increasing numbers of rounds at which to look, the last one `rounds`; by default `rounds` halved
      down to one, which is what `limits` needs.
    - `temperature`: τ of play by logit, P(x) ∝ exp(E_μ U(x)/τ), in payoff units; 0 for best responses.
    - `discount`: what evidence keeps of its weight each round; `window`: how many rounds are remembered. The prior is
      never forgotten. One of the two at most.

    **Returns:** the `Trajectories`; memory does not grow with `rounds`.

    Raises `ValueError` for numbers out of range, a prior that is none or does not fit, and tables without outcomes.
    """
    log_prior = as_float(log_prior)
    tables = tables_of(problem, log_prior.shape[-1] if log_prior.ndim else 0, parameters)
    if log_prior.shape not in ((tables.utility.shape[1],), (learners, tables.utility.shape[1])):
        raise ValueError(f"log_prior must be [parameters] or [learners, parameters]; got {log_prior.shape}")
    if is_concrete(log_prior):
        check_prior(np.atleast_2d(np.asarray(log_prior)))
    most = min(_MOST_ROUNDS, 2 ** (jnp.finfo(tables.utility.dtype).nmant + 1))  # to which counts are exact
    if not 1 <= rounds <= most or learners < 1:
        raise ValueError(
            f"there must be 1 to {most:,} rounds in {tables.utility.dtype} and 1 learner or more; got {rounds:,} and "
            f"{learners}"
        )
    stops = _halved(rounds) if checkpoints is None else np.asarray(checkpoints)
    if stops.ndim != 1 or not stops.size or stops[0] < 1 or (np.diff(stops) <= 0).any() or stops[-1] != rounds:
        raise ValueError(f"checkpoints must increase from 1 or more to the number of rounds, {rounds}; got {stops}")
    check_habits(temperature, discount, window)
    words = jax.random.key_data(key)
    if words.shape != (2,):
        raise ValueError(f"key must be one threefry key, as of jax.random.key(0); got words of shape {words.shape}")
    habits = (float(temperature), float(discount), None if window is None else min(window, rounds))
    at_top = is_concrete(tables.evidence, tables.utility, tables.outcomes, log_prior, words)
    run = _compiled(tuple(jax.local_devices()), at_top)
    found = run(tables, log_prior.T, words, jnp.asarray(stops, jnp.int32), learners=learners, habits=habits)
    return Trajectories(rounds=stops.astype(np.int32), **found)  # known on the host, in a trace too


def posterior(
    problem: Problem | FiniteProblem, log_prior: Numbers, statistics: Numbers, parameters: Numbers | None = None
) -> Float[Array, "*batch K"]:
    """The log posterior after what was seen: ln μ(θ), normalised; NaN where no parameter is possible any more.

    **Arguments:** `problem`, `log_prior` and `parameters` as of `simulate`; `statistics`: `[..., A, M]`, as in its
    `Trajectories`.
    """
    log_prior, seen = as_float(log_prior), as_float(statistics)
    tables = tables_of(problem, log_prior.shape[-1], parameters)
    priors = log_prior if log_prior.ndim == 1 else log_prior.reshape(len(log_prior), *(1,) * (seen.ndim - 3), -1)
    weights = _finite(priors) + jnp.einsum("...am,amk->...k", seen, tables.evidence, precision="highest")
    weights = jnp.where(weights > _REFUTED, weights, -jnp.inf)
    return jnp.where(jnp.max(weights, axis=-1, keepdims=True) > -jnp.inf, jax.nn.log_softmax(weights), jnp.nan)


class Limit(IntEnum):
    """Where a learner's behaviour tends, as far as it can be seen; `limits` says by which thresholds."""

    ACTION = 0
    MIXTURE = 1
    CYCLE = 2
    GROWING_CYCLE = 3
    UNDECIDED = 4
    REFUTED = 5


class Limits(NamedTuple):
    """- `kind`: `[L]`, a `Limit` each.
    - `action`: `[L]`, the action settled on; −1 without one.
    - `chosen`: `[L, A]`, the actions chosen in the last half of the rounds: the limit actions, as far as can be seen.
    - `frequencies`: `[L, A]`, of play in the last half.
    """

    kind: Int[Array, "L"]
    action: Int[Array, "L"]
    chosen: Bool[Array, "L A"]
    frequencies: Float[Array, "L A"]


def limits(
    trajectories: Trajectories,
    *,
    steady: float = 0.05,
    growth: float = 1.5,
    share: float = 0.05,
    block: float = 10.0,
) -> Limits:
    """Where each learner ended, judged by the last half of its rounds against the quarter before.

    `ACTION`: it chose one action alone in the last half. Otherwise `GROWING_CYCLE`: its longest run of one choice is
    `growth` times as long as in the quarter before, or longer, and a `share` of the last half at least. Otherwise, if
    no frequency moved by more than `steady` between the two: `CYCLE` where runs last `block` rounds or more on average,
    `MIXTURE` where they are shorter. Otherwise `UNDECIDED`. `REFUTED` where no parameter was possible any more.

    Choices are best responses, whatever is played in exploring or by logit. Near an indifferent belief, learners on a
    grid hop between its two nearest points like Berk's coin, in runs that grow; more points make them rarer.

    Raises `ValueError` unless a quarter and a half of all rounds are among the checkpoints.
    """
    stops = np.asarray(trajectories.rounds)
    total = int(stops[-1])
    if total < 4 or not {total // 4, total // 2} <= set(stops[:-1].tolist()):
        raise ValueError(f"limits needs checkpoints at {total // 4} and {total // 2} of {total} rounds, of 4 at least")
    early, middle = (int(np.flatnonzero(stops == at)[0]) for at in (total // 4, total // 2))
    return _limits(trajectories, total, early, middle, steady, growth, share, block)


@eqx.filter_jit
def _limits(
    trajectories: Trajectories,
    total: int,
    early: int,
    middle: int,
    steady: float,
    growth: float,
    share: float,
    block: float,
) -> Limits:
    def between(counts: Array, start: int, stop: int) -> Array:
        return (counts[:, stop] - counts[:, start]).astype(trajectories.statistics.dtype)

    def longest(start: int, stop: int) -> Array:
        return jnp.max(trajectories.longest[:, start + 1 : stop + 1], axis=1)

    last = len(trajectories.rounds) - 1
    chosen = between(trajectories.choices, middle, last) > 0
    half, quarter = total - total // 2, total // 2 - total // 4
    frequencies = between(trajectories.plays, middle, last) / half
    moved = jnp.max(jnp.abs(frequencies - between(trajectories.plays, early, middle) / quarter), axis=1)
    run, before = longest(middle, last), longest(early, middle)
    in_blocks = half >= block * (between(trajectories.switches, middle, last) + 1)
    kind = jnp.where(moved > steady, Limit.UNDECIDED, jnp.where(in_blocks, Limit.CYCLE, Limit.MIXTURE))
    kind = jnp.where((run >= growth * before) & (run >= share * half), Limit.GROWING_CYCLE, kind)
    settled = jnp.sum(chosen, axis=1) == 1
    kind = jnp.where(settled, Limit.ACTION, kind)
    kind = jnp.where(trajectories.refuted > 0, Limit.REFUTED, kind)
    action = jnp.where(kind == Limit.ACTION, jnp.argmax(chosen, axis=1), -1)
    return Limits(kind.astype(jnp.int32), action, chosen, frequencies)


class Basin(NamedTuple):
    """How often behaviour tends to unsafe play: the `share` of learners, with a confidence interval [`low`, `high`].

    Unsafe is to whom an unsafe action was a best response in the last half of its rounds. `counted` learners are not
    refuted.
    """

    share: float
    low: float
    high: float
    counted: int


def basin(limits: Limits, unsafe: Sequence[bool], level: float = 0.95) -> Basin:
    """P(limit unsafe | prior), with the exact (Clopper–Pearson) confidence interval of this `level`.

    Raises `ValueError` unless `unsafe` has an entry an action and `level` lies in (0, 1).
    """
    chosen = np.asarray(limits.chosen)
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1); got {level}")
    if len(unsafe) != chosen.shape[1]:
        raise ValueError(f"unsafe must have one entry for each of the {chosen.shape[1]} actions; got {len(unsafe)}")
    counted = np.asarray(limits.kind) != Limit.REFUTED
    count, n = int((chosen[:, np.asarray(unsafe, bool)].any(axis=1) & counted).sum()), int(counted.sum())
    low, high = interval(np.array(count), n, level)
    return Basin(count / n if n else float("nan"), float(low), float(high), n)


def interval(count: np.ndarray, n: Any, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """The exact confidence interval of a probability, of which `count` of `n` trials came true; NaN without trials."""
    tail, n = (1 - level) / 2, np.asarray(n)
    with np.errstate(invalid="ignore"):
        low = np.where(count > 0, betaincinv(np.maximum(count, 1), n - count + 1.0, tail), 0.0)
        high = np.where(count < n, betaincinv(count + 1.0, np.maximum(n - count, 1), 1 - tail), 1.0)
    return np.where(n > 0, low, np.nan), np.where(n > 0, high, np.nan)


def threefry(key: UInt[Array, "2"], first: UInt[Array, "*n"], second: UInt[Array, "*n"]) -> tuple[Array, Array]:
    """Threefry-2×32 with 20 rounds (Salmon et al., SC 2011), the generator behind `jax.random`.

    Written out, so that it melts into the loop that uses it; JAX's own goes through memory on a CPU.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ jnp.uint32(0x1BD11BDA))
    turns = ((13, 15, 26, 6), (17, 29, 16, 24))
    x, y = first + keys[0], second + keys[1]
    for i in range(5):
        for turn in turns[i % 2]:
            x = x + y
            y = x ^ ((y << turn) | (y >> (32 - turn)))
        x, y = x + keys[(i + 1) % 3], y + keys[(i + 2) % 3] + jnp.uint32(i + 1)
    return x, y


def tables_of(problem: Problem | FiniteProblem, num: int, parameters: Numbers | None = None) -> Tables:
    """The problem on `num` parameters: those given, those of its list, or a grid over its box."""
    if not isinstance(problem, Problem):
        raise ValueError(
            "learning needs outcomes, and tables of utility and divergence have none; pass the Problem that they are of"
        )
    model = problem.model
    if isinstance(model, Finite):
        if parameters is not None or num != len(model.outcome_probs):
            raise ValueError(f"the model lists its {len(model.outcome_probs)} parameters; log_prior must weigh these")
        return _tables(problem, None)
    if parameters is None:
        dimensions = len(model.lower)
        side = round(num ** (1 / dimensions))
        if side < 2 or side**dimensions != num:
            raise ValueError(
                f"a grid over {dimensions} parameters has n**{dimensions} points, 2 or more a dimension; log_prior "
                f"has {num}"
            )
        return _tables(problem, side)
    theta = as_float(parameters)
    if theta.shape != (num, len(model.lower)):
        raise ValueError(f"parameters must be [{num}, {len(model.lower)}], as log_prior is; got {theta.shape}")
    if is_concrete(theta, model.lower, model.upper):
        outside = (np.asarray(theta) < np.asarray(model.lower)) | (np.asarray(theta) > np.asarray(model.upper))
        if outside.any():
            raise ValueError(f"parameters must lie in the box; {np.asarray(theta)[outside.any(1)][0]} does not")
    return _tables(problem, theta)


@eqx.filter_jit
def _tables(problem: Problem, parameters: Array | int | None) -> Tables:
    """On these parameters `[K, D]`, or on a grid of so many points a dimension; on those of a list."""
    environment, model = problem.environment, problem.model
    if isinstance(model, Finite):
        assert not isinstance(environment, GaussianEnvironment)
        evidence = jnp.moveaxis(jnp.log(model.outcome_probs), 0, -1)
        utility = jnp.einsum("kay,ay->ak", model.outcome_probs, environment.payoffs)
    else:
        assert parameters is not None
        theta = parameter_grid(model, parameters) if isinstance(parameters, int) else parameters
        evidence = jnp.moveaxis(jax.vmap(partial(log_likelihoods, environment, model))(theta), 0, -1)
        utility = jax.vmap(partial(utilities, environment, model))(theta).T
    # What all parameters share changes no belief, and without it counts of many rounds lose less of their digits.
    possible = jnp.isfinite(evidence)
    shared = jnp.sum(evidence, axis=-1, keepdims=True, where=possible) / jnp.maximum(1, possible.sum(-1, keepdims=True))
    real = isinstance(environment, GaussianEnvironment)
    if isinstance(environment, GaussianEnvironment):
        outcomes = jnp.broadcast_to(environment.noise_std, (problem.num_actions, 1))
    else:
        rest = jnp.cumsum(environment.outcome_probs[:, ::-1], axis=1)[:, ::-1]
        to_come = jnp.pad(rest[:, 1:], ((0, 0), (0, 1)))
        outcomes = jnp.where(to_come > 0, jnp.cumsum(environment.outcome_probs, axis=1), 2)  # the last is never passed
    exploration = jnp.asarray(problem.exploration, utility.dtype)
    return Tables(_finite(evidence - shared), utility, outcomes, exploration, problem.explores(), real)


def check_habits(temperature: float, discount: float, window: int | None) -> None:
    """Raises `ValueError` for a temperature that is negative or infinite, and for forgetting that is none."""
    if not 0 <= temperature < np.inf or not 0 < discount <= 1 or (window is not None and window < 1):
        raise ValueError(
            f"temperature must be finite and not negative, discount in (0, 1] and window 1 or more; got {temperature}, "
            f"{discount} and {window}"
        )
    if discount < 1 and window is not None:
        raise ValueError("discount and window are two ways to forget; choose one")


def _finite(logs: Array) -> Array:
    return jnp.where(logs > -jnp.inf, logs, _IMPOSSIBLE)


def _halved(rounds: int) -> np.ndarray:
    return np.unique([rounds >> i for i in range(max(1, int(rounds).bit_length()))])


@lru_cache
def _compiled(devices: tuple, at_top: bool) -> Any:
    """`_simulate` on these devices; inside another function that is compiled, options are that one's."""
    options = wide_vectors(devices[0]) if at_top else None
    return jax.jit(partial(_simulate, devices), static_argnames=("learners", "habits"), compiler_options=options)


def _simulate(
    devices: tuple, tables: Tables, log_prior: Array, words: Array, stops: Array, learners: int, habits: tuple
) -> dict[str, Array]:
    """All learners, shared out among the devices, and on each taken in blocks that stay in the cache."""
    block = min(-(-learners // len(devices)), max(64, _BLOCK // len(log_prior)))
    padded = -(-learners // (block * len(devices))) * block * len(devices)
    lanes = jnp.arange(padded, dtype=jnp.uint32)
    own = log_prior.ndim == 2
    if own:
        log_prior = jnp.pad(log_prior, ((0, 0), (0, padded - learners)), mode="edge")

    def shard(log_prior: Array, lanes: Array) -> dict:
        def some(i: Array) -> dict:
            prior = jax.lax.dynamic_slice_in_dim(log_prior, i * block, block, 1) if own else log_prior[:, None]
            return learn(tables, prior, words, jax.lax.dynamic_slice_in_dim(lanes, i * block, block), stops, habits)

        blocks = jax.lax.map(some, jnp.arange(len(lanes) // block))
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 1).reshape(-1, *leaf.shape[1:-1]), blocks)

    split = PartitionSpec("cells")
    shared = jax.shard_map(
        shard,
        mesh=Mesh(np.array(devices), ("cells",)),
        in_specs=(PartitionSpec(None, "cells") if own else PartitionSpec(), split),
        out_specs=split,
        check_vma=False,
    )
    return jax.tree.map(lambda leaf: leaf[:learners], shared(log_prior, lanes))


def learn(tables: Tables, log_prior: Array, words: Array, lanes: Array, stops: Array, habits: tuple) -> dict:
    """What `Trajectories` holds, of these learners, learners last.

    **Arguments:** `log_prior`: `[K, L]` or `[K, 1]`; `words`: of the key; `lanes`: `[L]`, the learners' numbers;
    `stops`: `[C]`, the checkpoints; `habits`: temperature, discount and window.
    """
    _, discount, window = habits
    num_actions, num, _ = tables.evidence.shape
    zeros, dtype = jnp.zeros(lanes.shape, jnp.int32), tables.utility.dtype
    state: dict[str, Any] = {
        "seen": jnp.zeros((num_actions, num, *lanes.shape), dtype),
        "plays": jnp.zeros((num_actions, *lanes.shape), jnp.int32),
        "choice": zeros - 1,
        "switches": zeros,
        "run": zeros,
        "longest": zeros,
        "refuted": zeros,
    }
    log_prior = _finite(log_prior)
    if tables.explores or habits[0] > 0:
        state["choices"] = state["plays"]
    if window is not None:
        state["memory"] = jnp.zeros((window, 2, *lanes.shape), dtype)
    elif discount == 1 and not tables.real:  # no outcome adds more than this: a bound for the next round's weights
        state["bound"] = jnp.broadcast_to(jnp.max(log_prior, axis=0), lanes.shape)
    judge = partial(_judge, tables, log_prior)

    def rounds_until(carry: tuple, stop: Array) -> tuple:
        state, start = carry
        state = state | {"longest": zeros}

        def one_round(t: Array, state: dict) -> dict:
            return _round(tables, judge, habits, state, t) | {"draws": draws(t + 1)}

        state = jax.lax.fori_loop(start, stop, one_round, state)
        return (state, stop), {name: state[name] for name in _KEPT if name in state}

    def draws(t: Array) -> dict[str, Array]:
        """A round's draws, made in the round before: what a loop carries is made once, and not again for each use."""
        counter = jnp.full_like(lanes, t.astype(jnp.uint32))
        outcome, choosing = threefry(words, lanes, counter)
        made = {"outcome": _unit(outcome, dtype)}
        if habits[0] > 0:
            made["choosing"] = _unit(choosing, dtype)
        if tables.explores:
            made["exploring"] = _unit(threefry(words, lanes, counter | _EXPLORES)[0], dtype)
        return made

    state["draws"] = draws(jnp.int32(0))
    (state, total), kept = jax.lax.scan(rounds_until, (state, jnp.int32(0)), stops)
    kept.setdefault("choices", kept["plays"])
    refuted = jnp.where((state["refuted"] == 0) & (judge(state["seen"], None)[2] <= _REFUTED), total, state["refuted"])
    return kept | {"statistics": kept.pop("seen"), "refuted": refuted}


_KEPT = ("plays", "choices", "switches", "longest", "choice", "seen")


def _weights(tables: Tables, log_prior: Float[Array, "K _"], seen: Float[Array, "A M L"]) -> Float[Array, "K L"]:
    """Log weights, not normalised: prior and evidence. Term by term, which melts into what is made of them."""
    weights = log_prior
    for action, outcomes in enumerate(tables.evidence):
        for i, evidence in enumerate(outcomes):
            weights = weights + evidence[:, None] * seen[action, i]
    return weights


def _judge(
    tables: Tables, log_prior: Float[Array, "K _"], seen: Float[Array, "A M L"], bound: Float[Array, "L"] | None
) -> tuple[Float[Array, "A L"], Float[Array, "L"], Float[Array, "L"]]:
    """By how much each action leads the last, times the sum of the weights; that sum; and the log weight that counts
    as one: the largest, or else `bound`, which is none of them but is above all and close.
    """
    weights = _weights(tables, log_prior, seen)
    wanted = jnp.concatenate([tables.utility - tables.utility[-1], jnp.ones_like(tables.utility[:1])])

    def sums(one: Array) -> tuple[Array, Array, Array]:
        found = jnp.dot(wanted, jnp.exp(weights - one), precision=jax.lax.Precision.HIGHEST)
        return found[:-1], found[-1], one

    def exactly(_: Array) -> tuple[Array, Array, Array]:
        return sums(jnp.max(weights, axis=0))

    if bound is None:
        return exactly(seen)
    near = sums(bound)
    return jax.lax.cond(jnp.all(near[1] > _LOST), lambda _: near, exactly, seen)


def _round(tables: Tables, judge: Any, habits: tuple, state: dict, t: Array) -> dict:
    """The state after round t."""
    temperature, discount, window = habits
    draws = state["draws"]
    num_actions = len(tables.utility)
    actions = jnp.arange(num_actions)[:, None]
    leads, total, largest = judge(state["seen"], state.get("bound"))
    best = jnp.max(leads, axis=0)
    close = tolerance_of(tables.utility.dtype) * jnp.max(jnp.abs(tables.utility)) * total
    choice = jnp.full(total.shape, num_actions - 1, jnp.int32)
    for action in reversed(range(num_actions - 1)):
        choice = jnp.where(leads[action] >= best - close, action, choice)
    play, after = choice, {}
    if "choices" in state:
        after["choices"] = state["choices"] + (actions == choice)
    if temperature > 0:
        odds = jax.nn.softmax(leads / (total * temperature), axis=0)
        play = _which(list(jnp.cumsum(odds, axis=0)[:-1]), draws["choosing"])
    if tables.explores:
        exploring = draws["exploring"]
        anything = exploring / jnp.where(tables.exploration > 0, tables.exploration, 1) * num_actions
        any_action = jnp.minimum(anything.astype(jnp.int32), num_actions - 1)
        play = jnp.where(exploring < tables.exploration, any_action, play)

    seen = state["seen"]
    if tables.real:
        happens = _normal(draws["outcome"]) * _of(tables.outcomes[:, 0], play)
    else:
        happens = _which([_of(column, play) for column in tables.outcomes[:, :-1].T], draws["outcome"]).astype(
            seen.dtype
        )

    def evidence(play: Array, happens: Array) -> Array:
        """The statistics `[A, M, L]` of one round."""
        if tables.real:
            each = jnp.stack([jnp.ones_like(happens), happens])
        else:
            each = (jnp.arange(seen.shape[1])[:, None] == happens).astype(seen.dtype)
        return jnp.where((actions == play)[:, None], each, 0)

    more = evidence(play, happens)
    if window is not None:
        past_play, past = state["memory"][t % window]
        more = more - jnp.where(t >= window, evidence(past_play, past), 0)
        after["memory"] = state["memory"].at[t % window].set(jnp.stack([play.astype(seen.dtype), happens]))
    if "bound" in state:
        most = [_of(column, play) for column in jnp.max(tables.evidence, axis=-1).T]
        after["bound"] = largest + jnp.log(total) + _of_outcome(most, happens)
    if discount < 1:
        seen = discount * seen if tables.real else jnp.where(seen > 0, jnp.maximum(discount * seen, _TRACE), 0)
    same = choice == state["choice"]
    run = jnp.where(same, state["run"] + 1, 1)
    return after | {
        "seen": seen + more,
        "plays": state["plays"] + (actions == play),
        "choice": choice,
        "switches": state["switches"] + (~same & (t > 0)),
        "run": run,
        "longest": jnp.maximum(state["longest"], run),
        "refuted": jnp.where((state["refuted"] == 0) & (largest <= _REFUTED), jnp.maximum(t, 1), state["refuted"]),
    }


def _of(values: Float[Array, "A"], play: Int[Array, "L"]) -> Float[Array, "L"]:
    """What belongs to the action played; by comparison, which is quicker than looking it up."""
    found = jnp.broadcast_to(values[0], play.shape)
    for action in range(1, len(values)):
        found = jnp.where(play == action, values[action], found)
    return found


def _of_outcome(values: list[Array], happens: Float[Array, "L"]) -> Float[Array, "L"]:
    """What belongs to the outcome that came."""
    found = values[0]
    for y in range(1, len(values)):
        found = jnp.where(happens == y, values[y], found)
    return found


def _which(cumulative: list[Array], draw: Float[Array, "L"]) -> Int[Array, "L"]:
    """How many of the cumulative probabilities a draw has passed."""
    return sum(((draw >= each).astype(jnp.int32) for each in cumulative), jnp.zeros(draw.shape, jnp.int32))


def _unit(word: UInt[Array, "*n"], dtype: Any) -> Float[Array, "*n"]:
    """A number in [0, 1) of the highest 24 bits, which float32 holds exactly."""
    return (word >> 8).astype(dtype) * 2.0**-24


def _normal(draw: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """A standard normal number from one in [0, 1), finite: in float32 the largest draw and half a step would be one."""
    return ndtri(jnp.minimum(draw + 2.0**-25, 1 - jnp.finfo(draw.dtype).epsneg))
