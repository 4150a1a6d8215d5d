"""The waist: a truth and a subjective model, or the two tables they end in (theory §1–§2)."""

from collections.abc import Sequence
from functools import reduce

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from epijax.environment import Environment, GaussianEnvironment, Numbers, as_float, every, is_concrete
from epijax.subjective import GaussianLinear, SubjectiveModel


class Problem(eqx.Module):
    """A truth and what the agent can believe of it: one cell of a phase diagram.

    **Arguments:**

    - `environment`: the truth.
    - `model`: the subjective model; its box or list of parameters is the support of the prior.
    - `exploration`: ε in [0, 1]; the agent learns as if it played (1−ε)σ + ε·uniform (theory §4).
    - `actions`: a name for each action, for people; "action 0", … if left out.
    - `unsafe`: for each action whether it is unsafe; needed for `phase`.

    Raises `ValueError` when numbers of actions or outcomes differ or, on the host, for an exploration outside [0, 1].
    """

    environment: Environment | GaussianEnvironment
    model: SubjectiveModel
    exploration: Float[Array, ""] | float
    actions: tuple[str, ...] = eqx.field(static=True)
    unsafe: tuple[bool, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        environment: Environment | GaussianEnvironment,
        model: SubjectiveModel,
        exploration: ArrayLike = 0.0,
        actions: Sequence[str] | None = None,
        unsafe: Sequence[bool] | None = None,
    ):
        n = environment.num_actions
        self.environment, self.model = environment, model
        # A plain zero stays one, so that a problem without exploration is known to be one before it is traced.
        none = isinstance(exploration, int | float) and exploration == 0
        self.exploration = 0.0 if none else as_float(exploration)
        self.actions, self.unsafe = _labels(n, actions, unsafe)
        gaussian = isinstance(environment, GaussianEnvironment)
        if gaussian != isinstance(model, GaussianLinear):
            raise ValueError(
                "a GaussianEnvironment and a GaussianLinear model go together: outcomes are real numbers in both or in "
                f"neither; got {type(environment).__name__} and {type(model).__name__}"
            )
        happens = environment.mean.shape if gaussian else environment.outcome_probs.shape
        if model.shape != happens:
            raise ValueError(
                f"the model speaks of [actions, outcomes] = {list(model.shape)}, "
                f"the environment of {list(happens)}; make them the same"
            )
        if jnp.shape(self.exploration) != ():
            raise ValueError(f"exploration must be one number, not one an action; got {jnp.shape(self.exploration)}")
        if is_concrete(self.exploration) and not 0 <= self.exploration <= 1:
            raise ValueError(f"exploration must lie in [0, 1]; got {float(self.exploration):.6g}")

    @property
    def num_actions(self) -> int:
        return self.environment.num_actions

    def explores(self) -> bool:
        """Whether exploration may be positive: false only where it is known to be zero."""
        return not isinstance(self.exploration, float)

    def explored(self, sigma: Float[Array, "A"]) -> Float[Array, "A"]:
        """The frequencies (1−ε)σ + ε·uniform that the agent learns from."""
        return (1 - self.exploration) * sigma + self.exploration / self.num_actions

    def valid_parts(self) -> list[Bool[Array, ""]]:
        """Whether what belongs to each action makes a problem, and whether the rest does, for values inside a trace."""
        exploration = jnp.asarray(self.exploration)
        rest = self.model.is_valid() & (exploration >= 0) & (exploration <= 1)
        return [*self.environment.valid_actions(), rest]

    def is_valid(self) -> Bool[Array, ""]:
        """Whether the numbers make a problem, for values inside a trace."""
        return reduce(jnp.logical_and, self.valid_parts())


class FiniteProblem(eqx.Module):
    """Finitely many parameters, as two tables: all that Berk–Nash equilibria depend on (theory §2).

    **Arguments:**

    - `utility`: `[A, K]`, U(x, θ) in payoff units.
    - `divergence`: `[A, K]`, K(x, θ) in nats, non-negative; +∞ where playing x refutes θ.
    - `log_prior`: `[K]`, log weights of the prior, or `None`; no equilibrium depends on them, learning does.
    - `actions`, `unsafe`: as in `Problem`.

    Raises `ValueError` for shapes that do not fit and, on the host, for entries outside these ranges.
    """

    utility: Float[Array, "A K"]
    divergence: Float[Array, "A K"]
    log_prior: Float[Array, "K"] | None
    actions: tuple[str, ...] = eqx.field(static=True)
    unsafe: tuple[bool, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        utility: Numbers,
        divergence: Numbers,
        log_prior: Numbers | None = None,
        actions: Sequence[str] | None = None,
        unsafe: Sequence[bool] | None = None,
    ):
        self.utility, self.divergence = as_float(utility), as_float(divergence)
        self.log_prior = None if log_prior is None else as_float(log_prior)
        if self.utility.ndim != 2 or self.utility.shape != self.divergence.shape or self.utility.size == 0:
            raise ValueError(
                f"utility and divergence must both be [actions, parameters], at least one parameter; "
                f"got {self.utility.shape} and {self.divergence.shape}"
            )
        self.actions, self.unsafe = _labels(self.utility.shape[0], actions, unsafe)
        if self.log_prior is not None and self.log_prior.shape != self.utility.shape[1:]:
            raise ValueError(f"log_prior must be [{self.utility.shape[1]}]; got {self.log_prior.shape}")
        if is_concrete(self.utility) and not np.isfinite(self.utility).all():
            raise ValueError("utility must be finite; a parameter that cannot be priced has no best response")
        if is_concrete(self.divergence) and not (np.asarray(self.divergence) >= 0).all():
            raise ValueError("divergence must be non-negative, in nats, and not NaN; +inf says that x refutes θ")

    @property
    def num_actions(self) -> int:
        return self.utility.shape[0]

    def is_valid(self) -> Bool[Array, ""]:
        """Whether the tables make a problem, for values inside a trace."""
        priced = every(jnp.isfinite, self.utility)
        return priced & every(lambda d: d >= 0, self.divergence)


def _labels(
    num_actions: int, actions: Sequence[str] | None, unsafe: Sequence[bool] | None
) -> tuple[tuple[str, ...], tuple[bool, ...] | None]:
    names = tuple(actions) if actions is not None else tuple(f"action {i}" for i in range(num_actions))
    flags = None if unsafe is None else tuple(bool(u) for u in unsafe)
    if len(names) != num_actions or (flags is not None and len(flags) != num_actions):
        raise ValueError(f"actions and unsafe must have one entry for each of the {num_actions} actions")
    return names, flags
