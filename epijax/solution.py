"""What a solver answers: sets of actions, equilibria, the margin, and a status that is data (theory §2, §9)."""

from enum import IntEnum
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int, UInt


class Status(IntEnum):
    """How far an answer can be trusted; `explain` says it in a sentence."""

    SOLVED = 0
    BOUNDARY = 1
    REFUTED = 2
    INVALID = 3

    @property
    def sentence(self) -> str:
        return _SENTENCES[self]


_SENTENCES = {
    Status.SOLVED: "solved: every comparison that matters was clear",
    Status.BOUNDARY: "boundary: a tie within tolerance decided, so the answer may differ on either side",
    Status.REFUTED: "refuted: some play contradicts every belief the agent can hold, so no belief fits",
    Status.INVALID: "invalid: the numbers make no problem (a probability outside [0, 1], reversed bounds, or NaN)",
}

# A tie is a difference within this share of the scale (theory §9).
TOLERANCE = {"float32": 1e-5, "float64": 1e-9}
NUMERICAL = 100.0  # times as much where projections are found by iteration


class Solution(eqx.Module):
    """The equilibria and the rationalizable set of one cell.

    Sets of actions are kept as bits of an integer (bit i is action i), which is what makes whole maps fast, and read as
    masks: `rationalizable`, `pure` and `strict` are bool `[A]`.

    - `mixed`: `[E, A]`, the extreme equilibrium strategies that are not pure, NaN in unused rows; `num_mixed` counts
      them.
    - `margin`: the smallest scaled slack of any comparison that could change the answer (theory §9): a share of the
      payoff or divergence scale; NaN where no belief fits.
    - `status`: a `Status`. Where it is `REFUTED` or `INVALID` the sets are empty and nothing else is a number.
    """

    rationalizable_bits: UInt[Array, "*batch"]
    pure_bits: UInt[Array, "*batch"]
    strict_bits: UInt[Array, "*batch"]
    mixed: Float[Array, "*batch E A"]
    num_mixed: Int[Array, "*batch"]
    margin: Float[Array, "*batch"]
    status: Int[Array, "*batch"]

    @property
    def num_actions(self) -> int:
        return self.mixed.shape[-1]

    @property
    def rationalizable(self) -> Bool[Array, "*batch A"]:
        return _mask(self.rationalizable_bits, self.num_actions)

    @property
    def pure(self) -> Bool[Array, "*batch A"]:
        return _mask(self.pure_bits, self.num_actions)

    @property
    def strict(self) -> Bool[Array, "*batch A"]:
        return _mask(self.strict_bits, self.num_actions)


def bits(members: list) -> UInt[Array, "*cells"]:
    """The set of the actions i whose `members[i]` is true, as bits."""
    total = jnp.uint32(0)
    for i, member in enumerate(members):
        total = total | jnp.where(member, jnp.uint32(1 << i), jnp.uint32(0))
    return total


def verdict(
    slack: Float[ArrayLike, ""] = jnp.inf,
    tolerance: float = 0.0,
    refuted: Bool[ArrayLike, ""] = False,
    valid: Bool[ArrayLike, ""] = True,
) -> UInt[Array, ""]:
    """The status that one part of a problem allows; the greatest of all parts is the problem's.

    Judged part by part, so that what one action says is said once for all cells that share it. NaN is no clear slack.
    """
    status = jnp.where(jnp.asarray(slack) > tolerance, jnp.uint32(Status.SOLVED), jnp.uint32(Status.BOUNDARY))
    status = jnp.maximum(status, jnp.where(refuted, jnp.uint32(Status.REFUTED), 0))
    return jnp.maximum(status, jnp.where(valid, 0, jnp.uint32(Status.INVALID)))


def conclude(
    *,
    rationalizable: UInt[Array, ""],
    pure: UInt[Array, ""],
    strict: UInt[Array, ""],
    mixed: Float[Array, "E A"],
    num_mixed: Int[Array, ""],
    margin: Float[Array, ""],
    status: UInt[Array, ""],
) -> Solution:
    """The `Solution`, emptied of numbers where its status says that there is no answer."""
    answered = status <= Status.BOUNDARY
    return Solution(
        rationalizable_bits=jnp.where(answered, rationalizable, 0),
        pure_bits=jnp.where(answered, pure, 0),
        strict_bits=jnp.where(answered, strict, 0),
        mixed=jnp.where(answered, mixed, jnp.nan),
        num_mixed=jnp.where(answered, num_mixed, 0),
        margin=jnp.where(answered, margin, jnp.nan),
        status=status.astype(jnp.int32),
    )


def tolerance_of(dtype) -> float:
    """The tie tolerance of a floating dtype, as a share of the scale."""
    return TOLERANCE[jnp.dtype(dtype).name]


@partial(jax.jit, static_argnums=1)
def _mask(members: UInt[Array, "*batch"], num_actions: int) -> Bool[Array, "*batch A"]:
    return (members[..., None] >> jnp.arange(num_actions, dtype=members.dtype)) & 1 == 1
