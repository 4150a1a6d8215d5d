"""How the answer of a cell is packed into words, on the devices, and unpacked into the variables of a dataset."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from epijax.one_parameter import Lessons, sets_taught
from epijax.phases import NO_PHASE, code_of, index_of_sets, phase_index
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
        index, count = phase_index(solution, unsafe), solution.num_mixed.astype(jnp.uint32)
        return self._words(self._code(index, solution.rationalizable_bits, solution.pure_bits, count), solution.margin)

    def look_up(self, told: Lessons, unsafe: tuple[bool, ...]) -> tuple[jax.Array, ...]:
        """The words of the solution that follows from what two actions teach.

        There are but nine, all coded beforehand: less than half of the arithmetic of a map.
        """

        def among(only: tuple, codes: list) -> jax.Array:
            return jnp.where(only[0], codes[0], jnp.where(only[1], codes[1], codes[2]))

        def coded(first: int, second: int) -> jax.Array:
            rationalizable, pure, exists = sets_taught(first, second)
            index = index_of_sets(rationalizable, pure, unsafe, lambda holds, one, other: one if holds else other)
            return jnp.uint32(self._code(index, rationalizable, pure, int(exists)))

        first, second = told.only
        code = among(first, [among(second, [coded(one, other) for other in (1, 2, 3)]) for one in (1, 2, 3)])
        code = jnp.where(told.clear, code, (code & ~jnp.uint32(7)) | (4 + Status.BOUNDARY))
        answered = told.refusal == 0
        code = jnp.where(answered, code, 4 + told.refusal)
        return self._words(code, jnp.where(answered, told.margin, jnp.nan))

    def _code(self, index: Any, rationalizable: Any, pure: Any, num_mixed: Any) -> Any:
        """All variables but the margin in one number."""
        n = self.num_actions
        return index | rationalizable << 3 | pure << (3 + n) | num_mixed << (3 + 2 * n)

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
