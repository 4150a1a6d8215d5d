"""How the answer of a cell is packed into words, on the devices, and unpacked into the variables of a dataset."""

from dataclasses import dataclass, replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from epijax.one_parameter import Lessons, learned
from epijax.phases import NO_PHASE, code_of, phase_index
from epijax.solution import Solution, Status

Block = dict[str, np.ndarray]  # variable -> values of one tile
VARIABLES = ("phase", "rationalizable", "pure", "num_mixed", "margin")


@dataclass(frozen=True)
class Layout:
    """How the answer of a cell is packed: 3 bits of phase, a bit for each action twice, the count of mixed equilibria.

    Where all that takes at most 8 bits, as it does for two actions, it replaces the lowest bits of the float32 margin,
    which keeps 15 bits of its own; otherwise code and margin are two words. Without the margin the code is alone, in as
    few bytes as it needs.
    """

    num_actions: int
    max_mixed: int
    names: tuple[str, ...]  # of the variables kept

    @property
    def num_bits(self) -> int:
        return 3 + 2 * self.num_actions + self.max_mixed.bit_length()

    @property
    def code_dtype(self) -> np.dtype:
        return np.min_scalar_type((1 << self.num_bits) - 1)

    @property
    def margin_kept(self) -> bool:
        return "margin" in self.names

    @property
    def one_word(self) -> bool:
        return self.margin_kept and self.num_bits <= 8

    def keeping(self, names: tuple[str, ...]) -> "Layout":
        """The same answer, with these variables kept."""
        return replace(self, names=names)

    def variables(self) -> dict[str, np.dtype]:
        """The variables of a dataset and their dtypes."""
        sets, counts = np.min_scalar_type((1 << self.num_actions) - 1), np.min_scalar_type(self.max_mixed)
        kinds = (np.dtype(np.uint8), sets, sets, counts, np.dtype(np.float32))
        return {name: kind for name, kind in zip(VARIABLES, kinds, strict=True) if name in self.names}

    def pack(self, solution: Solution, unsafe: tuple[bool, ...]) -> tuple[jax.Array, ...]:
        """The words of a solution."""
        return self._words(self.code(solution, unsafe), solution.margin)

    def code(self, solution: Solution, unsafe: tuple[bool, ...]) -> jax.Array:
        """All variables of a solution but its margin."""
        code = phase_index(solution, unsafe)
        code |= solution.rationalizable_bits << 3
        code |= solution.pure_bits << (3 + self.num_actions)
        return code | solution.num_mixed.astype(jnp.uint32) << (3 + 2 * self.num_actions)

    def look_up(self, told: Lessons, unsafe: tuple[bool, ...]) -> tuple[jax.Array, ...]:
        """The words of the solution that follows from what two actions teach: there are but nine, all coded beforehand.

        A third of the arithmetic of a map, since what is looked up for one axis alone is looked up once for it.
        """

        def among(only: tuple, codes: list) -> jax.Array:
            return jnp.where(only[0], codes[0], jnp.where(only[1], codes[1], codes[2]))

        first, second = told.only
        code = among(first, [among(second, [jnp.uint32(code) for code in row]) for row in _two_action_codes(unsafe)])
        code = jnp.where(told.clear, code, (code & ~jnp.uint32(7)) | (4 + Status.BOUNDARY))
        answered = told.refusal == 0
        code = jnp.where(answered, code, 4 + told.refusal)
        return self._words(code, jnp.where(answered, told.margin, jnp.nan))

    def _words(self, code: jax.Array, margin: jax.Array) -> tuple[jax.Array, ...]:
        if not self.margin_kept:
            return (code.astype(self.code_dtype),)
        margin = jax.lax.bitcast_convert_type(margin.astype(jnp.float32), jnp.uint32)
        return ((margin & jnp.uint32(0xFFFFFF00)) | code,) if self.one_word else (code, margin)

    def blank(self, shape: tuple[int, ...]) -> Block:
        """Memory for the variables of so many cells."""
        return {name: np.empty(shape, kind) for name, kind in self.variables().items()}

    def unpack(self, words: tuple[np.ndarray, ...], block: Block) -> tuple[np.ndarray, ...]:
        """Writes the variables in such words into a block: the indices of the cells that have no phase, `[n]` a
        dimension."""
        code, n = words[0].astype(self.code_dtype, copy=False), self.num_actions
        first = {"phase": 0, "rationalizable": 3, "pure": 3 + n, "num_mixed": 3 + 2 * n}
        width = {"phase": 3, "rationalizable": n, "pure": n, "num_mixed": self.max_mixed.bit_length()}
        for name in (name for name in self.names if name != "margin"):
            shifted = code >> first[name] if first[name] else code
            np.bitwise_and(shifted, self.code_dtype.type((1 << width[name]) - 1), out=block[name], casting="unsafe")
        # found in one row, which is much the quickest where they are few
        none = np.unravel_index(np.flatnonzero(block["phase"] >= NO_PHASE), code.shape)
        block["phase"][none] = code_of(block["phase"][none])
        if self.margin_kept:
            kept = np.uint32(0xFFFFFF00 if self.one_word else 0xFFFFFFFF)
            np.bitwise_and(words[-1], kept, out=block["margin"].view(np.uint32))
        return none


@lru_cache
def _two_action_codes(unsafe: tuple[bool, ...]) -> list[list[int]]:
    """The code of each solution that two actions can teach: `Lessons.only` of either is its first, its second or
    neither."""
    outcomes = np.array([[True, False], [False, True], [False, False]])

    def code(first: jax.Array, second: jax.Array) -> jax.Array:
        told = Lessons(((first[0], first[1]), (second[0], second[1])), jnp.ones(()), jnp.array(True), jnp.uint32(0))
        return Layout(2, 1, VARIABLES).code(learned(told, jnp.ones(2)), unsafe)

    with jax.ensure_compile_time_eval():
        return np.asarray(jax.jit(jax.vmap(jax.vmap(code, (None, 0)), (0, None)))(outcomes, outcomes)).tolist()
