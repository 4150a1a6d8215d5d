"""The truth: what happens when the agent acts, and what it is paid (theory §1).

Letters in shapes, here and everywhere: A actions, Y outcomes, K parameters, D dimensions of θ, E equilibria.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped

_FEW = 64  # entries
Numbers = ArrayLike | Sequence[Any]  # whatever becomes an array: one, a number, nested lists


class Environment(eqx.Module):
    """The true law of the outcome and the reward scheme, over finitely many actions and outcomes.

    **Arguments:**

    - `outcome_probs`: `[A, Y]`, the probability Q(y|x) of outcome y when x is played; each row sums to one.
    - `payoffs`: `[A, Y]`, the payoff π(x, y), in payoff units.

    Raises `ValueError` for shapes that differ and, for values known on the host, for a probability outside [0, 1], a
    row that does not sum to one, or a payoff that is not finite. Values known only inside a trace are judged there: a
    cell that breaks these rules has the status `invalid`.
    """

    outcome_probs: Float[Array, "A Y"]
    payoffs: Float[Array, "A Y"]

    def __init__(self, outcome_probs: Numbers, payoffs: Numbers):
        self.outcome_probs = as_float(outcome_probs)
        self.payoffs = as_float(payoffs)
        if self.outcome_probs.ndim != 2 or self.outcome_probs.shape != self.payoffs.shape:
            raise ValueError(
                f"outcome_probs and payoffs must both be [actions, outcomes]; "
                f"got {self.outcome_probs.shape} and {self.payoffs.shape}"
            )
        if self.num_actions < 2:
            raise ValueError("a problem needs at least 2 actions, or there is nothing to choose")
        check_probs("outcome_probs", self.outcome_probs)
        if is_concrete(self.payoffs) and not np.isfinite(self.payoffs).all():
            raise ValueError("payoffs must be finite; an outcome that cannot be priced has no best response")

    @property
    def num_actions(self) -> int:
        return self.outcome_probs.shape[0]

    def valid_actions(self) -> list[Bool[Array, ""]]:
        """For each action whether its row is a distribution and its payoffs finite, for values inside a trace."""
        rows = zip(self.outcome_probs, self.payoffs, strict=True)
        return [is_distribution(probs) & every(jnp.isfinite, payoffs) for probs, payoffs in rows]


class GaussianEnvironment(eqx.Module):
    """A truth whose outcome is a real number: y = mean[x] + noise, paid payoff_intercept[x] + payoff_slope[x]·y.

    **Arguments:**

    - `mean`: `[A]`, the expected outcome of each action.
    - `noise_std`: the standard deviation of the normal noise, positive.
    - `payoff_intercept`, `payoff_slope`: `[A]`, in payoff units and payoff units per unit of y.

    Raises `ValueError` for shapes that differ and, for values known on the host, for a value that is not finite or a
    noise that is not positive; inside a trace such a cell has the status `invalid`.
    """

    mean: Float[Array, "A"]
    noise_std: Float[Array, ""]
    payoff_intercept: Float[Array, "A"]
    payoff_slope: Float[Array, "A"]

    def __init__(self, mean: Numbers, noise_std: Numbers, payoff_intercept: Numbers, payoff_slope: Numbers):
        self.mean, self.noise_std = as_float(mean), as_float(noise_std)
        self.payoff_intercept, self.payoff_slope = as_float(payoff_intercept), as_float(payoff_slope)
        rows = {"payoff_intercept": self.payoff_intercept, "payoff_slope": self.payoff_slope}
        if self.mean.ndim != 1 or any(row.shape != self.mean.shape for row in rows.values()):
            raise ValueError(
                f"mean, payoff_intercept and payoff_slope must each be [actions]; "
                f"got {self.mean.shape}, {self.payoff_intercept.shape} and {self.payoff_slope.shape}"
            )
        if self.num_actions < 2:
            raise ValueError("a problem needs at least 2 actions, or there is nothing to choose")
        for name, row in {"mean": self.mean, **rows}.items():
            if is_concrete(row) and not np.isfinite(row).all():
                raise ValueError(f"{name} must be finite; got {np.asarray(row)}")
        check_std("noise_std", self.noise_std)

    @property
    def num_actions(self) -> int:
        return self.mean.shape[0]

    def valid_actions(self) -> list[Bool[Array, ""]]:
        """For each action whether its numbers are finite and there is noise, for values inside a trace."""
        rows = jnp.stack([self.mean, self.payoff_intercept, self.payoff_slope], axis=-1)
        noisy = (self.noise_std > 0) & jnp.isfinite(self.noise_std)
        return [noisy & every(jnp.isfinite, row) for row in rows]


def as_float(x: Numbers) -> Float[Array, "..."]:
    """`x` as an array of the session's floating dtype: float64 under `jax_enable_x64`, float32 otherwise."""
    return jnp.asarray(x, dtype=jnp.result_type(float))


def every(test: Callable, table: Shaped[Array, "..."]) -> Bool[Array, ""]:
    """Whether every entry passes the test, entry by entry where they are few.

    A reduction over a tiny table is a loop of its own for the compiler; taken entry by entry it melts into the one
    elementwise loop over cells, which makes maps some thirty times faster.
    """
    if table.size > _FEW:
        return jnp.all(test(table))
    return reduce(jnp.logical_and, [test(table[index]) for index in np.ndindex(table.shape)])


def is_distribution(probs: Float[Array, "Y"]) -> Bool[Array, ""]:
    """Whether the entries lie in [0, 1], as NaN does not, and sum to one but for rounding."""
    total = reduce(jnp.add, [probs[y] for y in range(probs.size)]) if probs.size <= _FEW else jnp.sum(probs)
    return every(lambda p: (p >= 0) & (p <= 1), probs) & (jnp.abs(total - 1) <= rounding(probs))


def rounding(table: Float[Array, "... Y"]) -> float:
    """What the sum of a row may miss one by, and a computed probability the unit interval."""
    return 16 * table.shape[-1] * float(jnp.finfo(table.dtype).eps)


def is_concrete(*xs: Numbers) -> bool:
    """Whether the values are known now, on the host; inside `jit`, `vmap` or `grad` they are not."""
    return not any(isinstance(x, Tracer) for x in jax.tree.leaves(xs))


def check_std(name: str, std: Float[Array, ""]) -> None:
    """Raises `ValueError` where `std` is no single number or, if it is known, not positive and finite."""
    if std.shape != ():
        raise ValueError(f"{name} must be one number; got {std.shape}")
    if is_concrete(std) and not (np.isfinite(std) and std > 0):
        raise ValueError(f"{name} is {float(std):.6g}; a standard deviation must be positive and finite")


def check_probs(name: str, probs: Float[Array, "... Y"]) -> None:
    """Raises `ValueError` where `probs` is known and some row is no probability distribution."""
    if not is_concrete(probs):
        return
    values = np.asarray(probs)
    bad = ~((values >= 0) & (values <= 1))
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name}{list(where)} is {values[where]:.6g}; a probability must lie in [0, 1]")
    sums = values.sum(-1)
    if not np.allclose(sums, 1, rtol=0, atol=rounding(probs)):
        raise ValueError(f"each row of {name} must sum to one; the sums are {np.array2string(sums, precision=8)}")
