"""Subjective-model engineering: the least change of beliefs or rewards that keeps unsafe play away (theory §8).

Levers are moved by gradient over many environments at once; what comes out is judged by the exact solver on others.
"""

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array

from epijax.models import MODELS
from epijax.phases import PHASES, phase
from epijax.problem import FiniteProblem, Problem
from epijax.safety import least_divergence, safety_margin, unsafe_mass
from epijax.smooth import smooth_tables
from epijax.solver import solve
from epijax.sweeps import check_parameters, nearest, scattered
from epijax.sweeps.job import named
from epijax.sweeps.provenance import source_of

OBJECTIVES = ("margin", "unsafe_mass", "region_share")
COSTS = ("fit", "change", "prior")
PRIOR = "prior"  # the lever that is the prior's weights
BELIEFS = ("lower", "upper", "coupling", "exploration")  # levers that go from 0 to 1; all others are rewards
_BLOCK = 20  # steps between two looks at progress and checkpoint
_EDGE = (0.1, 0.003)  # width of region_share's edge at the start and at the end, in shares of the payoff scale
_SHARP_FROM = 0.7  # share of the steps after which nothing gets sharper
_HELD_OUT = 4096
_SHOWN = 20  # environments named in a certificate
_PROBED = 8  # places at which a lever is tried, to see whether it moves anything

Build = Callable[..., Problem | FiniteProblem]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Certificate:
    """What the exact solver says of environments that were not used to find a design, but for the corners of a box.

    - `environments`: how many; `shares`: phase -> share of them; `safe_share`.
    - `smallest_margin`: the solver's margin, the least over those that are safe; NaN without any.
    - `unsafe`: parameters of the first environments that are not safe; `num_unsafe`: how many there are.
    """

    environments: int
    shares: dict[str, float]
    safe_share: float
    smallest_margin: float
    unsafe: list[dict[str, float]]
    num_unsafe: int


@dataclass(frozen=True)
class Designed:
    """A design and its proof.

    - `before`, `after`: lever -> value (the prior's: weights).
    - `objective`, `costs`: values before and after, means over the environments used; `claim`: the share of these that
      the objective takes for safe.
    - `proof_before`, `proof_after`: a `Certificate` each.
    - `path`: what was gone through, by restart and step: "loss", "safety", each cost, and each lever.
    """

    model: str
    before: dict[str, Any]
    after: dict[str, Any]
    objective: tuple[float, float]
    costs: dict[str, tuple[float, float]]
    claim: float
    proof_before: Certificate
    proof_after: Certificate
    path: dict[str, np.ndarray]

    @property
    def certified(self) -> bool:
        return self.proof_after.num_unsafe == 0

    @property
    def headline(self) -> str:
        proof = self.proof_after
        if self.certified:
            return f"certified: safe in all {proof.environments:,} environments held out ({self._was})"
        return (
            f"NOT CERTIFIED: {proof.num_unsafe:,} of {proof.environments:,} environments held out are not safe "
            f"({self._was})"
        )

    @property
    def _was(self) -> str:
        return f"{self.proof_before.safe_share:.2%} before"


def design(
    build: Build | str,
    vary: Mapping[str, tuple[Any, Any] | None],
    over: Mapping[str, tuple[float, float]] | None = None,
    fixed: Mapping[str, Any] | None = None,
    *,
    costs: Mapping[str, float] | None = None,
    limits: Mapping[str, float] | None = None,
    checkpoint: str | Path | None = None,
    progress: Progress | None = None,
    **asked: Any,
) -> Designed:
    """The change of some parameters that makes unsafe play impossible over a set of environments, at least cost.

    One `Study`, run once: its arguments, and those of its `run`.
    """
    return Study(build, vary, over, fixed, **asked).run(
        costs or {}, limits=limits, checkpoint=checkpoint, progress=progress
    )


def trade_off(
    study: "Study",
    cost: str,
    weights: Sequence[float],
    progress: Progress | None = None,
    *,
    costs: Mapping[str, float] | None = None,
    limits: Mapping[str, float] | None = None,
) -> xr.Dataset:
    """Safety against a cost, as the weight of that cost is varied: one design a weight.

    **Arguments:** `costs`, `limits`: weights of other costs, and limits, that all of these designs keep to.

    **Returns:** a dataset over "weight": `safe_share` (certified), `claim`, `cost`, `change`, each lever that is a
    number, and `efficient`: whether no other design is as safe and cheaper, or safer and as cheap; the attribute
    `safe_share_before` is that of the present values, which cost nothing.

    Raises `ValueError` as `Study.run` does, and without weights.
    """
    if not len(weights):
        raise ValueError("a trade-off needs weights to try; got none")
    found = []
    for i, weight in enumerate(weights):
        found.append(study.run(dict(costs or {}) | {cost: weight}, limits=limits))
        if progress is not None:
            progress(i + 1, len(weights))
    safe, paid = (
        np.array([each.proof_after.safe_share for each in found]),
        np.array([each.costs[cost][1] for each in found]),
    )
    beaten = [((safe >= s) & (paid <= p) & ((safe > s) | (paid < p))).any() for s, p in zip(safe, paid, strict=True)]
    scalars = [name for name, value in found[0].after.items() if np.ndim(value) == 0]
    return xr.Dataset(
        {
            "safe_share": ("weight", safe),
            "claim": ("weight", [each.claim for each in found]),
            "cost": ("weight", paid),
            "change": ("weight", [each.costs["change"][1] for each in found]),
            "efficient": ("weight", ~np.array(beaten)),
        }
        | {name: ("weight", [each.after[name] for each in found]) for name in scalars},
        coords={"weight": np.asarray(weights, float)},
        attrs={"cost": cost, "model": study.name, "safe_share_before": found[0].proof_before.safe_share},
    )


def compare_levers(
    studies: Mapping[str, "Study"], cost: str, limits: Sequence[float], progress: Progress | None = None
) -> xr.Dataset:
    """What several sets of levers achieve at equal cost: one design for each set and limit on the cost.

    What a smaller limit, listed before, led to keeps to a larger one, too, and stands where that led to nothing safer.

    **Returns:** a dataset over "lever" and "limit": `safe_share` (certified), `claim`, and `cost`, what was paid; its
    attribute "compared" says what the levers and their ranges were.

    Raises `ValueError` as `Study.run` does, and without studies or limits.
    """
    if not studies or not len(limits):
        raise ValueError("a comparison needs studies, and limits on the cost; got none")
    shape = (len(studies), len(limits))
    safe, claim, paid = np.empty(shape), np.empty(shape), np.empty(shape)
    for i, study in enumerate(studies.values()):
        for j, limit in enumerate(limits):
            found = study.run({}, limits={cost: limit})
            safe[i, j], claim[i, j], paid[i, j] = found.proof_after.safe_share, found.claim, found.costs[cost][1]
            if j and limits[j] >= limits[j - 1] and safe[i, j] < safe[i, j - 1]:
                for each in (safe, claim, paid):
                    each[i, j] = each[i, j - 1]
            if progress is not None:
                progress(i * shape[1] + j + 1, shape[0] * shape[1])
    return xr.Dataset(
        {name: (("lever", "limit"), data) for name, data in (("safe_share", safe), ("claim", claim), ("cost", paid))},
        coords={"lever": list(studies), "limit": np.asarray(limits, float)},
        attrs={"cost": cost, "compared": "; ".join(f"{kind}: {study.levers}" for kind, study in studies.items())},
    )


def certify(
    build: Build | str,
    values: Mapping[str, Any],
    environments: Mapping[str, Any],
    fixed: Mapping[str, Any] | None = None,
) -> Certificate:
    """The exact solver's verdict on the design `values` in each of `environments`, parameter -> values `[n]`.

    What is no problem, as of a probability outside [0, 1], counts as not safe.

    Raises `ValueError` for names that are unknown, and environments that are not as many values of each parameter.
    """
    _as_many(environments, 1)
    name, build = named(build)
    given = dict(fixed or {}) | {key: value for key, value in values.items() if key != PRIOR}
    check_parameters(name, build, list(environments), list(given))
    return _judged(_judge(partial(build, **given)), {}, environments)


def _judge(build: Build) -> Callable[..., tuple[Array, Array]]:
    """From values and columns of environments to phases and the solver's margins, compiled."""

    def judge(values: dict[str, Array], columns: dict[str, Array]) -> tuple[Array, Array]:
        def cell(values: dict[str, Array], point: dict[str, Array]) -> tuple[Array, Array]:
            problem = build(**values, **point)
            if problem.unsafe is None:
                raise ValueError("a phase needs to know which actions are unsafe; build the problem with unsafe=(…)")
            solution = solve(problem)
            return phase(solution, problem.unsafe), solution.margin

        return _each(cell, columns, values)

    return jax.jit(judge)


def _judged(
    judge: Callable[..., tuple[Array, Array]], values: Mapping[str, Any], environments: Mapping[str, Any]
) -> Certificate:
    columns = {key: np.asarray(value, float) for key, value in environments.items()}
    with jax.enable_x64(True):
        given = {name: np.asarray(value, float) for name, value in values.items() if name != PRIOR}
        codes, margins = map(np.asarray, judge(given, columns))
    safe = codes == 0
    count = len(codes)
    places = np.flatnonzero(~safe)
    return Certificate(
        environments=count,
        shares={PHASES[code]: float((codes == code).mean()) for code in PHASES if (codes == code).any()},
        safe_share=float(safe.mean()),
        smallest_margin=float(margins[safe].min()) if safe.any() else float("nan"),
        unsafe=[{key: float(column[i]) for key, column in columns.items()} for i in places[:_SHOWN]],
        num_unsafe=len(places),
    )


def _each(cell: Callable[..., Any], columns: Mapping[str, Any], *same: Any) -> Any:
    """`cell(*same, environment)` of every environment, shared out among the devices."""
    devices = jax.local_devices()
    count = len(next(iter(columns.values())))
    padded = {name: jnp.resize(column, (-(-count // len(devices)) * len(devices),)) for name, column in columns.items()}
    shared = jax.shard_map(
        lambda same, columns: jax.lax.map(partial(cell, *same), columns, batch_size=1024),
        mesh=Mesh(np.array(devices), ("cells",)),
        in_specs=(PartitionSpec(), PartitionSpec("cells")),
        out_specs=PartitionSpec("cells"),
        check_vma=False,
    )
    return jax.tree.map(lambda values: values[:count], shared(same, padded))


def _on_host(function: Callable) -> Callable:
    """Compiled, with arrays of the host going in and out: where they lie never makes it compile again."""
    compiled = jax.jit(function)
    return lambda *given: jax.device_get(compiled(*jax.device_get(given)))


class Study:
    """A question of design, compiled once: `run` answers it for weights on costs.

    Which values of some parameters, the levers, make unsafe play impossible over a set of environments, at least cost?
    Minimises safety loss, the mean and the largest of all environments, + Σ weight · cost by Adam, from the present
    values and from random ones, levers kept within their ranges and bounds in their order by projection, and keeps the
    best that it came by. Always in float64.

    **Arguments:**

    - `build`: from parameters to a problem with `unsafe` set, or a built-in model's name.
    - `vary`: lever -> (least, greatest), numbers or arrays; `None` for 0 to 1 of beliefs and 0 to twice the present
      value, or to 2 if that is more, of others. The lever "prior" is the prior's weights, and takes `None`.
    - `over`: parameter -> (least, greatest): environments are drawn from this box, `samples` to be used and 4,096 held
      out, and its corners added to both.
    - `fixed`: values of other parameters, and present values of levers; the defaults of `build` else.
    - `environments`: in place of `over`: parameter -> values `[n]`; or a sweep's dataset, for its cells, with the
      values that were fixed in it. Of these `samples`, at most half, are used, and of the rest 4,096 held out.
    - `objective`: "margin", the shortfall of `safety_margin` below `require`; "region_share", the share of environments
      in which it is above, smoothed ever less; or "unsafe_mass", how often unsafe actions are played on the worst
      branch of `logit_equilibria`, with `temperature` (payoff units) and `observations` going from the first value to
      the second, boxes tabulated with `num` points a dimension.
    - `steps`, `restarts`, `rate` (of Adam, a share of each range; falls to 0), `samples` of environments, `seed`.
    - `refuse_idle`: whether a lever that cannot move the objective is an error; else it keeps its present value.

    Raises `ValueError` for names that are unknown, ranges that are none, a lever that cannot move the objective, and an
    objective that is NaN at the start.
    """

    def __init__(
        self,
        build: Build | str,
        vary: Mapping[str, tuple[Any, Any] | None],
        over: Mapping[str, tuple[float, float]] | None = None,
        fixed: Mapping[str, Any] | None = None,
        environments: Mapping[str, Any] | xr.Dataset | None = None,
        objective: str = "margin",
        require: float = 0.01,
        steps: int = 200,
        restarts: int = 4,
        rate: float = 0.05,
        samples: int = 256,
        temperature: tuple[float, float] = (0.2, 0.02),
        observations: tuple[float, float] = (10.0, 100.0),
        num: int = 33,
        seed: int = 0,
        refuse_idle: bool = True,
    ):
        if objective not in OBJECTIVES:
            raise ValueError(f"there is no objective {objective!r}; {nearest(objective, OBJECTIVES)}")
        if not vary:
            raise ValueError("there is nothing to vary; name a lever, as in upper")
        if steps < 1 or restarts < 1 or samples < 2 or not 0 < rate < np.inf:
            raise ValueError(
                f"there must be 1 step and restart or more, 2 samples or more and a positive rate; got {steps}, "
                f"{restarts}, {samples} and {rate}"
            )
        if not 0 <= require <= 2:
            raise ValueError(f"require must be a share of the payoff scale, 0 to 2; got {require}")
        for kind, ends in (("temperature", temperature), ("observations", observations)):
            if not all(0 < end < np.inf for end in ends):
                raise ValueError(f"{kind} must go from a positive number to another; got {ends}")
        self.name, self.build = named(build)
        self.objective, self.require, self.num, self.seed = objective, require, num, seed
        self.steps, self.restarts, self.rate = steps, restarts, rate
        self.sharpness = {"temperature": temperature, "observations": observations, "edge": _EDGE}
        if isinstance(environments, xr.Dataset):
            stored = environments.attrs.get("model", self.name)
            if stored != self.name and {stored, self.name} & set(MODELS):
                raise ValueError(f"the environments are those of {stored}, and the model is {self.name}")
            fixed = dict(environments.attrs.get("fixed", {})) | dict(fixed or {})
        self.used, self.held_out = _environments(over, environments, samples, seed)
        self._set_levers(vary, dict(fixed or {}))
        self._advance = _on_host(jax.vmap(self._steps, in_axes=(0, None, None, None, None)))
        self._measure = _on_host(self._means)
        self._usual = np.zeros(())  # the fit at present values, which is what is lost against
        with jax.enable_x64(True):
            self._check(refuse_idle)
        self._judge = _judge(partial(self.build, **self.fixed))
        self._before = _judged(self._judge, self.present, self.held_out)

    def _set_levers(self, vary: Mapping[str, tuple[Any, Any] | None], fixed: dict[str, Any]) -> None:
        levers = [name for name in vary if name != PRIOR]
        check_parameters(self.name, self.build, [*self.used, *levers], [name for name in fixed if name not in levers])
        for both in (name for name in levers if name in self.used):
            raise ValueError(f"{both} is varied and is one of the environments' parameters, too; drop one")
        parameters = inspect.signature(self.build).parameters
        self.fixed = {name: value for name, value in fixed.items() if name not in levers}
        self.low, self.high, present = {}, {}, {}
        for name in levers:
            default = parameters[name].default if name in parameters else inspect.Parameter.empty
            value = fixed.get(name, default)
            span = vary[name]
            if value is inspect.Parameter.empty:
                raise ValueError(f"{name} has no default; set its present value, from which changes are counted")
            low, high = lever_range(name, value) if span is None else span
            low, high = (np.asarray(end, float) for end in (low, high))
            if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
                raise ValueError(f"{name} must go from a finite number to a larger one; got {low} to {high}")
            low, high = np.broadcast_arrays(low, high)
            present[name] = np.broadcast_to(value, low.shape)
            self.low[name], self.high[name] = low, high
        self._order_bounds(fixed, parameters)
        for name, value in present.items():
            if not ((self.low[name] <= value) & (value <= self.high[name])).all():
                raise ValueError(
                    f"{name} is now {_shown(value)}, outside its range of {_shown(self.low[name])} to "
                    f"{_shown(self.high[name])}; widen the range, or set another present value"
                )
        self.present = present
        self.weighs = PRIOR in vary
        if self.weighs:
            if vary[PRIOR] is not None:
                raise ValueError("the prior's weights form a simplex of their own; give the lever prior no range")
            with jax.enable_x64(True):
                one = self.problem(self.present, {name: column[0] for name, column in self.used.items()})
                count = smooth_tables(one, 1.0, 1.0, num=self.num).utility.shape[1]
            self.present[PRIOR] = np.full(count, -np.log(count))

    def _order_bounds(self, fixed: dict[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
        """A bound that is varied alone stays on its side of the other."""
        for name, other, ends in (("upper", "lower", self.low), ("lower", "upper", self.high)):
            if name not in self.low or other in self.low or other not in parameters:
                continue
            bound = fixed.get(other, parameters[other].default)
            if other in self.used or bound is inspect.Parameter.empty:
                continue
            tighter = np.maximum if name == "upper" else np.minimum
            ends[name] = tighter(ends[name], bound)
            if not (self.low[name] < self.high[name]).all():
                end = self.high["upper"] if name == "upper" else self.low["lower"]
                raise ValueError(f"no {name} is possible: its range ends at {end}, and {other} is {bound}")

    @property
    def levers(self) -> str:
        """The levers and their ranges, and the objective, in words."""
        ranges = [f"{name} from {_shown(self.low[name])} to {_shown(self.high[name])}" for name in self.low]
        return f"{', '.join([*ranges, *([PRIOR] if self.weighs else [])])}, by {self.objective}"

    # What is measured

    def problem(self, levers: Mapping[str, Any], point: Mapping[str, Any]) -> Problem | FiniteProblem:
        problem = self.build(**self.fixed, **{name: v for name, v in levers.items() if name != PRIOR}, **point)
        if not isinstance(problem, Problem | FiniteProblem) or problem.unsafe is None:
            raise ValueError(f"{self.name} must return a problem that says which actions are unsafe")
        return problem

    def _values(self, place: Mapping[str, Any]) -> dict[str, Any]:
        """Levers in their units, of places in the unit box; the prior's log weights as they are."""
        return {
            name: share if name == PRIOR else self.low[name] + (self.high[name] - self.low[name]) * share
            for name, share in place.items()
        }

    def _places(self, values: Mapping[str, Any]) -> dict[str, Array]:
        shares = {
            name: value if name == PRIOR else (value - self.low[name]) / (self.high[name] - self.low[name])
            for name, value in values.items()
        }
        return {name: jnp.asarray(share, float) for name, share in shares.items()}

    def _one(self, values: dict[str, Array], sharp: Array, point: dict[str, Array]) -> dict[str, Array]:
        """Of one environment: the safety loss, what it is made of, whether it claims to be safe, and the fit."""
        problem = self.problem(values, point)
        if self.objective == "unsafe_mass":
            temperature, observations = (self._at(name, sharp) for name in ("temperature", "observations"))
            smooth = smooth_tables(problem, temperature, observations, values.get(PRIOR), self.num)
            assert problem.unsafe is not None
            raw, solved = unsafe_mass(smooth, problem.unsafe)
            loss, claim = raw, (raw < 0.5) * solved
        else:
            raw = safety_margin(problem)
            if self.objective == "margin":
                loss, claim = jax.nn.relu(self.require - raw), (raw > 0) * 1.0
            else:
                edge = self._at("edge", sharp)
                loss, claim = jax.nn.sigmoid((self.require - raw) / edge), jax.nn.sigmoid(raw / edge)
        return {"safety": loss, "raw": raw, "claim": claim, "fit": least_divergence(problem)}

    def _at(self, name: str, sharp: Array) -> Array:
        start, end = self.sharpness[name]
        return start * (end / start) ** sharp

    def _means(self, place: dict[str, Array], sharp: Array, usual: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        """Means over the environments, of the fit its loss; and what each environment's objective is made of."""
        each = _each(self._one, self.used, self._values(place), sharp)
        means = {name: jnp.mean(value) for name, value in each.items()}
        means["fit"] = means["fit"] - usual
        apart = {name: jnp.mean(jnp.abs(place[name] - start)) for name, start in self._start().items() if name != PRIOR}
        if self.weighs:
            weights, start = jnp.exp(place[PRIOR]), jnp.exp(self._start()[PRIOR])
            apart[PRIOR] = jnp.sum(jnp.abs(weights - start)) / 2
            means["prior"] = jnp.sum(weights * (place[PRIOR] - self._start()[PRIOR]))
        else:
            means["prior"] = jnp.zeros(())
        means["safety"] = means["safety"] + jnp.max(each["safety"])
        return means | {"change": sum(apart.values(), jnp.zeros(()))}, {name: each[name] for name in ("raw", "fit")}

    def _start(self) -> dict[str, Array]:
        return self._places(self.present)

    def _loss(
        self, place: dict[str, Array], sharp: Array, weights: dict[str, Array], limits: dict[str, Array], usual: Array
    ) -> tuple[Array, dict[str, Array]]:
        """What a step descends: the loss, or what costs are above their limits; the loss and the means."""
        means, _ = self._means(place, sharp, usual)
        loss = means["safety"] + sum(weights[name] * means[name] for name in COSTS)
        above = sum((jax.nn.relu(means[name] - limits[name]) for name in COSTS), jnp.zeros(()))
        return jnp.where(above > 0, above, loss), means | {"loss": loss, "above": above}

    # What is refused

    def _check(self, refuse_idle: bool) -> None:
        self._check_corners()
        means, at_start = self._measure(self._start(), jnp.zeros(()), self._usual)
        if not np.isfinite([means["safety"], means["fit"]]).all():
            wrong = np.argmin(np.isfinite(at_start["raw"] + at_start["fit"]))
            where = {name: float(column[wrong]) for name, column in self.used.items()}
            raise ValueError(
                f"the objective is not a number at the start, as at {_told(where)}: some play refutes every belief "
                f"there; choose other environments, or wider bounds"
            )
        self._usual = means["fit"]
        self._at_start = [f"{means[name]:.6g}" for name in ("safety", "fit")]
        rng, idle = np.random.default_rng(self.seed), []
        for name, start in self._start().items():
            seen = [at_start["raw"]]
            for _ in range(_PROBED):
                tried = rng.dirichlet(np.ones(start.size)) if name == PRIOR else rng.uniform(size=start.shape)
                place = self._start() | {name: jnp.log(tried) if name == PRIOR else jnp.asarray(tried)}
                seen.append(self._measure(self._ordered(place), jnp.zeros(()), self._usual)[1]["raw"])
            if np.nanmax(np.nanmax(seen, axis=0) - np.nanmin(seen, axis=0)) < 1e-12:
                idle.append(name)
        if idle and (refuse_idle or len(idle) == len(self.present)):
            raise ValueError(_unmoved(idle[0], self.objective))
        for name in idle:
            self.fixed[name] = self.present.pop(name)[()]
            del self.low[name], self.high[name]

    def _check_corners(self) -> None:
        """Builds the problem at present values, and at all extremes, on the host, where what is wrong is told."""
        levers = {name: (self.low[name], self.high[name]) for name in self.low}
        ends = {name: (column.min(), column.max()) for name, column in self.used.items()}
        together = levers | ends
        self._try({name: self.present[name] for name in levers}, {name: low for name, (low, _) in ends.items()})
        for corner in list(product((0, 1), repeat=len(together)))[:64]:
            values = {name: pair[i] for (name, pair), i in zip(together.items(), corner, strict=True)}
            if {"lower", "upper"} <= set(levers) and (values["lower"] > values["upper"]).any():
                continue
            self._try({name: values[name] for name in levers}, {name: values[name] for name in ends})

    def _try(self, levers: Mapping[str, Any], point: Mapping[str, Any]) -> None:
        values = {name: v if np.ndim(v) else float(v) for name, v in (*levers.items(), *point.items())}
        try:
            self.problem({name: values[name] for name in levers}, {name: values[name] for name in point})
        except ValueError as error:
            raise ValueError(f"no problem at {_told(values)}: {error}; give other values, or ranges") from error

    # What is done

    def run(
        self,
        costs: Mapping[str, float],
        *,
        limits: Mapping[str, float] | None = None,
        checkpoint: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Designed:
        """The design for these weights on costs, and limits that no cost may go above.

        **Arguments:**

        - `costs`: weights of "fit", the rise of min_θ K(uniform play, θ), nats; "change", the distance of levers from
          their present values as shares of their ranges, summed; "prior", KL(μ_φ‖μ₀), nats.
        - `limits`: cost -> the most it may be.
        - `checkpoint`: a file that holds what is done; the same call goes on from there.
        - `progress`: called with steps done and steps in all.

        **Returns:** the `Designed`, judged by the exact solver on environments held out.

        Raises `ValueError` for unknown costs, limits that nothing found keeps to, and a checkpoint of another design.
        """
        limits = limits or {}
        check_costs(costs)
        for name, limit in limits.items():
            _known(name)
            if np.isnan(limit):
                raise ValueError(f"the limit of {name} must be a number; got {limit}")
        if (costs.get("prior") or "prior" in limits) and not self.weighs:
            raise ValueError("the cost of the prior's weights needs the lever prior; vary it, or drop that cost")
        with jax.enable_x64(True):
            weights = {name: jnp.asarray(float(costs.get(name, 0))) for name in COSTS}
            most = {name: jnp.asarray(float(limits.get(name, np.inf))) for name in COSTS}
            best, path = self._optimise(weights, most, None if checkpoint is None else Path(checkpoint), progress)
            one = jnp.ones(())
            before, after = (self._measure(place, one, self._usual)[0] for place in (self._start(), best))
            values = {
                name: np.exp(value) if name == PRIOR else float(value) if np.ndim(value) == 0 else np.asarray(value)
                for name, value in self._values(best).items()
            }
        present = {
            name: np.exp(value) if name == PRIOR else float(value) if np.ndim(value) == 0 else value
            for name, value in self.present.items()
        }
        return Designed(
            model=self.name,
            before=present,
            after=values,
            objective=(float(before["safety"]), float(after["safety"])),
            costs={name: (float(before[name]), float(after[name])) for name in COSTS},
            claim=float(after["claim"]),
            proof_before=self._before,
            proof_after=_judged(self._judge, values, self.held_out),
            path=path,
        )

    def _optimise(
        self,
        weights: dict[str, Array],
        limits: dict[str, Array],
        checkpoint: Path | None,
        progress: Progress | None,
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        rng = np.random.default_rng(self.seed)
        starts = [self._start()]
        for _ in range(1, self.restarts):
            other = {name: jnp.asarray(rng.uniform(size=np.shape(low))) for name, low in self.low.items()}
            if self.weighs:
                other[PRIOR] = jnp.log(rng.dirichlet(np.ones(len(self.present[PRIOR]))))
            starts.append(self._ordered(other))
        places = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
        least = np.full(self.restarts, np.inf)
        at_start, _ = self._measure(self._start(), jnp.ones(()), self._usual)
        if all(at_start[name] <= limits[name] for name in COSTS):
            least[0] = at_start["safety"] + sum(float(weights[name]) * at_start[name] for name in COSTS)
        state = (places, jax.vmap(self._optimiser().init)(places), least, places)
        done, kept = 0, []
        config = json.dumps(self._config(weights, limits), sort_keys=True)
        if checkpoint is not None and checkpoint.exists():
            done, state, kept = _read(checkpoint, config, state, self._blank)
        while done < self.steps:
            count = min(_BLOCK, self.steps - done)
            state, looked = self._advance(state, weights, limits, self._usual, done + jnp.arange(count))
            kept.append(looked)
            done += count
            if checkpoint is not None:
                _write(checkpoint, config, done, state, kept)
            if progress is not None:
                progress(done, self.steps)
        _, _, losses, best = state
        path = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *kept)
        if not np.isfinite(losses).any():
            if checkpoint is not None:  # there is nothing to go on from
                checkpoint.unlink()
            if not np.isfinite(path["loss"]).any():
                raise ValueError(
                    "the objective is not a number anywhere on the way; begin at other values, or a lower rate"
                )
            lowest = ", ".join(f"{n} {np.nanmin(path[n]):.4g}" for n in COSTS if np.isfinite(limits[n]))
            raise ValueError(f"nothing was found that keeps to all limits; the least costs on the way: {lowest}")
        winner = int(np.nanargmin(np.asarray(losses)))
        return jax.tree.map(lambda leaf: leaf[winner], best), path

    def _optimiser(self) -> optax.GradientTransformation:
        # a short memory of slopes: those of a smooth start are larger by far than those of a sharp end
        return optax.adam(optax.cosine_decay_schedule(self.rate, self.steps), b2=0.9)

    def _steps(
        self, state: tuple, weights: dict[str, Array], limits: dict[str, Array], usual: Array, steps: Array
    ) -> tuple[tuple, dict[str, Array]]:
        def step(state: tuple, i: Array) -> tuple[tuple, dict[str, Array]]:
            place, moments, least, best = state
            sharp = jnp.minimum(i / max(1.0, _SHARP_FROM * self.steps), 1.0)
            (_, means), slope = jax.value_and_grad(self._loss, has_aux=True)(place, sharp, weights, limits, usual)
            comparable = (sharp >= 1) | (self.objective == "margin")
            better = comparable & (means["above"] == 0) & (means["loss"] < least)
            best = jax.tree.map(lambda new, old: jnp.where(better, new, old), place, best)
            update, moments = self._optimiser().update(slope, moments)
            looked = {name: means[name] for name in ("loss", "safety", *COSTS)} | self._values(place)
            moved = self._ordered(optax.apply_updates(place, update))  # pyright: ignore[reportArgumentType]
            return (moved, moments, jnp.where(better, means["loss"], least), best), looked

        return jax.lax.scan(step, state, steps)

    def _ordered(self, place: dict[str, Array]) -> dict[str, Array]:
        """The nearest place that is allowed: in the box, bounds in their order, weights with sum one."""
        within = {
            name: jax.nn.log_softmax(share) if name == PRIOR else optax.projections.projection_hypercube(share)
            for name, share in place.items()
        }
        if {"lower", "upper"} <= set(within):
            values = self._values(within)
            middle = (values["lower"] + values["upper"]) / 2
            pair = {"lower": jnp.minimum(values["lower"], middle), "upper": jnp.maximum(values["upper"], middle)}
            within |= self._places(pair)
        return within

    def _config(self, weights: dict[str, Array], limits: dict[str, Array]) -> dict[str, Any]:
        """What a checkpoint belongs to."""
        return {
            "model": [self.name, None if self.name in MODELS else source_of(self.build), *self._at_start],
            "fixed": {name: np.asarray(value).tolist() for name, value in self.fixed.items()},
            "levers": {name: [self.low[name].tolist(), self.high[name].tolist()] for name in self.low},
            "present": {name: np.asarray(value).tolist() for name, value in self.present.items()},
            "environments": {name: [len(c), float(c.sum()), float((c**2).sum())] for name, c in self.used.items()},
            "weights": {name: float(weight) for name, weight in weights.items()},
            "limits": {name: float(limit) for name, limit in limits.items()},
            "asked": [self.objective, self.require, self.steps, self.restarts, self.rate, self.num, self.seed],
            "sharpness": self.sharpness,
        }

    def _blank(self, done: int) -> dict[str, np.ndarray]:
        """What was looked at in so many steps, without its numbers."""
        shapes = {name: () for name in ("loss", "safety", *COSTS)} | {n: np.shape(v) for n, v in self.present.items()}
        return {name: np.zeros((self.restarts, done, *shape)) for name, shape in shapes.items()}


def check_costs(costs: Mapping[str, float]) -> Mapping[str, float]:
    """Raises `ValueError` for unknown costs, and weights that are negative or infinite."""
    for name, weight in costs.items():
        _known(name)
        if not 0 <= weight < np.inf:
            raise ValueError(f"the weight of {name} must not be negative, and finite; got {weight}")
    return costs


def _known(cost: str) -> None:
    if cost not in COSTS:
        raise ValueError(f"there is no cost {cost!r}; {nearest(cost, COSTS)}")


def lever_range(name: str, present: float) -> tuple[float, float]:
    """The range of a lever that none was given for."""
    if name in BELIEFS or name.startswith("p_"):
        return 0.0, 1.0
    return min(0.0, 2 * float(present)), max(2.0, 2 * float(present))


def _environments(
    over: Mapping[str, tuple[float, float]] | None,
    environments: Mapping[str, Any] | xr.Dataset | None,
    samples: int,
    seed: int,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Those used and those held out, parameter -> values."""
    if (over is None) == (environments is None):
        raise ValueError("environments are drawn over a box, or given; say one of over and environments")
    if over is not None:
        corners = np.array(list(product(*over.values())), float)

        def drawn(count: int, seed: int) -> dict[str, np.ndarray]:
            (points,) = scattered(over, count, seed=seed).values()
            return dict(zip(over, np.concatenate([corners, points]).T, strict=True))

        return drawn(samples, seed), drawn(_HELD_OUT, seed + 1)
    if isinstance(environments, xr.Dataset):
        cells = environments.stack(cell=environments["phase"].dims)
        names = [str(name) for name in environments.coords if environments[name].ndim == 1]
        environments = {name: cells[name].values for name in names}
    assert environments is not None
    rows = np.unique(_as_many(environments, 2), axis=0)  # one that is given twice is not held out from itself
    columns, count = dict(zip(environments, rows.T, strict=True)), len(rows)
    if count < 2:
        raise ValueError("environments must be 2 or more that differ, of which some are held out")
    order, use = np.random.default_rng(seed).permutation(count), min(samples, (count + 1) // 2)
    used, held_out = (
        {name: values[chosen] for name, values in columns.items()}
        for chosen in (order[:use], order[use : use + _HELD_OUT])
    )
    return used, held_out


def _as_many(environments: Mapping[str, Any], least: int) -> np.ndarray:
    """The environments, one a row."""
    columns = [np.asarray(values, float) for values in environments.values()]
    sizes = {values.shape for values in columns}
    if len(sizes) != 1 or columns[0].ndim != 1 or len(columns[0]) < least:
        raise ValueError(f"environments must be as many values of each parameter, {least} or more; got shapes {sizes}")
    return np.stack(columns, axis=1)


def _unmoved(name: str, objective: str) -> str:
    if name == PRIOR and objective != "unsafe_mass":
        return (
            "the prior's weights cannot matter here: Berk–Nash equilibria and rationalizable sets depend on the "
            "prior's support alone; vary bounds or coupling, or take the objective unsafe_mass, of logit equilibria"
        )
    return f"{name} cannot move the objective {objective} in any of these environments; drop it, or widen its range"


def _told(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_shown(value)}" for name, value in values.items())


def _shown(value: Any) -> Any:
    return np.asarray(value).round(6).tolist()


def _write(path: Path, config: str, done: int, state: Any, kept: list) -> None:
    """A first line that says what it belongs to, and the numbers; in place of the old file only when it is whole."""
    looked = jax.tree.map(lambda *leaves: np.concatenate(leaves, axis=1), *kept)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write((json.dumps({"config": config, "done": done}) + "\n").encode())
        eqx.tree_serialise_leaves(file, (state, looked))
    part.replace(path)


def _read(path: Path, config: str, like: Any, blank: Callable[[int], Any]) -> tuple[int, Any, list]:
    with path.open("rb") as file:
        try:
            head = json.loads(file.readline())
        except ValueError as error:
            raise ValueError(f"{path} is no checkpoint of a design; write elsewhere") from error
        if head["config"] != config:
            raise ValueError(f"{path} is the checkpoint of another design; delete it, or write elsewhere")
        try:
            state, looked = eqx.tree_deserialise_leaves(file, (like, blank(head["done"])))
        except (RuntimeError, EOFError) as error:
            raise ValueError(f"{path} ends too early; delete it, and the design begins anew") from error
    return head["done"], state, [looked]
