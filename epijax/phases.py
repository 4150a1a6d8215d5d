"""From a solution to its phase; the legend: codes, names, meanings and colours (theory §5)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt

from epijax.solution import Solution, Status


class Phase(NamedTuple):
    name: str
    meaning: str
    colour: str  # the five differ by at least 12 of 100 in lightness: for grey print and for every eye
    hatch: str = ""  # for what is no phase


LEGEND = {
    0: Phase("safe", "no unsafe action is rationalizable", "#e6f2f8"),
    1: Phase("locked_in", "only unsafe actions are rationalizable", "#45195a"),
    2: Phase("multistable", "safe and unsafe equilibria coexist: the prior decides", "#a8402f"),
    3: Phase("oscillatory", "no pure equilibrium: play cycles", "#5b9ecb"),
    4: Phase("indeterminate", "unsafe play is rationalizable, yet pure equilibria do not meet both sides", "#f0c24f"),
    252: Phase("not_computed", "not computed yet", "#ffffff", "."),
    253: Phase("invalid", "the parameters make no problem", "#b0b0b0", "xxxx"),
    254: Phase("refuted", "some play contradicts every belief", "#ffffff", "////"),
    255: Phase("boundary", "a tie within tolerance decided", "#000000"),
}
PHASES = {code: entry.name for code, entry in LEGEND.items()}
NOT_COMPUTED = 252
NO_PHASE = 5  # the least `phase_index` that is none


def phase(solution: Solution, unsafe: Sequence[bool]) -> UInt[Array, "*batch"]:
    """The phase of a solution, given which actions are unsafe (theory §5): the first condition met.

    With B the rationalizable set, E the pure equilibria and N the unsafe actions: `safe` if B ∩ N = ∅, `locked_in` if
    B ⊆ N, `multistable` if E meets N and its complement, `oscillatory` if E = ∅, else `indeterminate`. Where the
    solution's status is not `SOLVED` the code says which status it is, and is never a phase.

    **Arguments:** `solution`, of one cell or of many; `unsafe`, `[A]`, known on the host.

    **Returns:** uint8 codes, named by `PHASES`.

    Raises `ValueError` if `unsafe` does not have one entry an action.
    """
    return _phase(solution, tuple(bool(u) for u in unsafe))


@partial(jax.jit, static_argnums=1)
def _phase(solution: Solution, unsafe: tuple[bool, ...]) -> UInt[Array, "*batch"]:
    return code_of(phase_index(solution, unsafe).astype(jnp.uint8))


def phase_index(solution: Solution, unsafe: Sequence[bool]) -> UInt[Array, "*batch"]:
    """The phase, or 4 + status where there is none: three bits, for packing."""
    if len(unsafe) != solution.num_actions:
        raise ValueError(
            f"unsafe must have one entry for each of the {solution.num_actions} actions; got {len(unsafe)}"
        )
    index = index_of_sets(solution.rationalizable_bits, solution.pure_bits, unsafe, jnp.where)
    return jnp.where(solution.status == Status.SOLVED, index, 4 + solution.status).astype(jnp.uint32)


def index_of_sets(rationalizable: Any, pure: Any, unsafe: Sequence[bool], where: Callable[[Any, Any, Any], Any]) -> Any:
    """The phase that follows from two sets, as bits: of plain numbers as of arrays, `where` being theirs."""
    harmful = sum(1 << i for i, u in enumerate(unsafe) if u)
    harmless = (1 << len(unsafe)) - 1 - harmful
    index = where((pure & harmful != 0) & (pure & harmless != 0), 2, where(pure == 0, 3, 4))
    index = where(rationalizable & harmless != 0, index, 1)
    return where(rationalizable & harmful != 0, index, 0)


def code_of(index):
    """The code of a `phase_index`, in bytes: 0 to 4 stay, then boundary 255, refuted 254, invalid 253."""
    return index + (index > 4) * (4 - 2 * index)  # beyond 4 it is 4 − index, modulo 256
