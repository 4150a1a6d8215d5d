"""Batches of cells laid out last, so that each operation of a table solver runs along many cells at once.

`vmap` puts its axis first. Actions and parameters are then the innermost loops, too short for a processor's vectors;
with the cells innermost the same arithmetic takes a tenth of the time or less.
"""

from collections.abc import Callable
from functools import reduce
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped

_NEEDED_AT_ONCE = 8


def cells_last(solve: Callable, differentiable: Callable) -> Callable:
    """A solver of one cell, whose `vmap` adds an axis of cells behind all others instead of before them.

    What does not depend on an axis has size one there, so that it is computed once for all cells that share it.

    **Arguments:** `solve`, from arrays `[..., *cells]` to a tree of arrays `[..., *cells]`; `differentiable`, the same
    in a form that reverse differentiation can take.
    """

    @jax.custom_batching.custom_vmap
    def batched(*arguments: Array) -> Any:
        return solve(*arguments)

    @batched.def_vmap
    def _(size: int, is_batched: list[bool], *arguments: Array) -> tuple[Any, Any]:
        del size
        moved = [
            jnp.moveaxis(argument, 0, -1) if own else argument[..., None]
            for argument, own in zip(arguments, is_batched, strict=True)
        ]
        answers = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), batched(*moved))
        return answers, jax.tree.map(lambda _: True, answers)

    @jax.custom_jvp
    def solver(*arguments: Array) -> Any:
        return batched(*arguments)

    @solver.defjvp
    def _(primals: tuple, tangents: tuple) -> tuple:
        return jax.jvp(differentiable, primals, tangents)

    return solver


def wide_vectors(device: Any) -> dict[str, Any] | None:
    """Options for `jax.jit` where many cells are computed alike: a CPU's widest vectors, which XLA does not take by
    itself."""
    return {"xla_cpu_prefer_vector_width": 512} if device.platform == "cpu" else None


def in_pieces(function: Callable, arguments: Any, cells: tuple[int, ...], at_once: int) -> Any:
    """`function` of arrays `[..., *cells]`, taken in pieces of some of these axes, so that it stays in the cache.

    **Arguments:** `arguments`, a tree of arrays, each axis of cells of full size or one; `cells`, their sizes, one for
    an axis that is not to be taken in pieces; `at_once`, the number of cells in a piece.

    **Returns:** the answers, each of full size along these axes.
    """
    count = len(cells)

    def full(leaf: Array) -> Array:
        lead = leaf.ndim - count
        return jnp.broadcast_to(leaf, (*leaf.shape[:lead], *jnp.broadcast_shapes(leaf.shape[lead:], cells)))

    if prod(cells) <= at_once:
        return jax.tree.map(full, function(arguments))
    axis = cells.index(max(cells))
    step = max(1, at_once * cells[axis] // prod(cells))
    smaller = (*cells[:axis], step, *cells[axis + 1 :])

    def piece(start: Array) -> Any:
        def part(leaf: Array) -> Array:
            at = leaf.ndim - count + axis
            return leaf if leaf.shape[at] == 1 else jax.lax.dynamic_slice_in_dim(leaf, start, step, at)

        return in_pieces(function, jax.tree.map(part, arguments), smaller, at_once)

    def place(i: Array, answers: Any) -> Any:
        start = jnp.minimum(i * step, cells[axis] - step)

        def put(whole: Array, part: Array) -> Array:
            return jax.lax.dynamic_update_slice_in_dim(whole, part, start, whole.ndim - count + axis)

        return jax.tree.map(put, answers, piece(start))

    def blank(leaf: jax.ShapeDtypeStruct) -> Array:
        at = leaf.ndim - count + axis
        return jnp.zeros((*leaf.shape[:at], cells[axis], *leaf.shape[at + 1 :]), leaf.dtype)

    answers = jax.tree.map(blank, jax.eval_shape(piece, jax.ShapeDtypeStruct((), jnp.int32)))
    return jax.lax.fori_loop(0, -(-cells[axis] // step), place, answers)


def where_needed(function: Callable, needed: Bool[Array, "*cells"], arguments: Any, answers: Any) -> Any:
    """`answers`, and in the cells that need it those of `function` instead, which takes a few cells at a time.

    **Arguments:** `arguments`, `answers`: trees of arrays `[..., *cells]`.
    """
    cells = needed.shape

    def in_a_row(leaf: Array) -> Array:
        lead = leaf.shape[: leaf.ndim - len(cells)]
        return jnp.broadcast_to(leaf, (*lead, *cells)).reshape(*lead, prod(cells))

    arguments, answers = jax.tree.map(in_a_row, (arguments, answers))

    def some_more(state: tuple) -> tuple:
        left, answers = state
        (index,) = jnp.nonzero(left, size=min(_NEEDED_AT_ONCE, left.size), fill_value=left.size)
        found = function(jax.tree.map(lambda leaf: jnp.take(leaf, index, axis=-1, mode="clip"), arguments))
        answers = jax.tree.map(lambda whole, part: whole.at[..., index].set(part, mode="drop"), answers, found)
        return left.at[index].set(False, mode="drop"), answers

    _, answers = jax.lax.while_loop(lambda state: jnp.any(state[0]), some_more, (needed.reshape(-1), answers))
    return jax.tree.map(lambda leaf: leaf.reshape(*leaf.shape[:-1], *cells), answers)


def apart(function: Callable, *arguments: Any) -> Any:
    """`function(*arguments)`, computed once, whatever becomes of it.

    On a CPU, XLA fuses what it takes for cheap into each of its uses and there computes it again for every entry of a
    broadcast. What a branch returns is left as it is, as long as XLA cannot tell which branch it will be.
    """
    function = jax.jit(function)

    def branch(*arguments: Any) -> Any:
        entry = jax.tree.leaves(arguments)[0].reshape(-1)[0]
        shapes = jax.eval_shape(function, *arguments)
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return jax.lax.cond(jnp.where(entry > 0, 1, 2) > 0, function, lambda *_: nothing, *arguments)

    return jax.lax.platform_dependent(*arguments, cpu=branch, default=function)


def fold(better: Callable, arrays: tuple[Shaped[Array, "N *rest"], ...]) -> tuple[Shaped[Array, "*rest"], ...]:
    """Arrays reduced along their first axis together, by halves: of two entries, that which `better` says."""
    while (length := len(arrays[0])) > 1:
        half = (length + 1) // 2
        one, other = tuple(a[:half] for a in arrays), tuple(a[length - half :] for a in arrays)
        first = better(one, other)
        arrays = tuple(jnp.where(first, a, b) for a, b in zip(one, other, strict=True))
    return tuple(a[0] for a in arrays)


def least(values: Shaped[Array, "N *rest"]) -> Shaped[Array, "*rest"]:
    """The minimum along the first axis, whose derivative is that of one entry that attains it."""
    return fold(lambda one, other: one[0] < other[0], (values,))[0]


def most(values: Shaped[Array, "N *rest"]) -> Shaped[Array, "*rest"]:
    """The maximum along the first axis."""
    return fold(lambda one, other: one[0] > other[0], (values,))[0]


def some(mask: Bool[Array, "N *rest"]) -> Bool[Array, "*rest"]:
    """Whether any is true along the first axis."""
    return _halved(jnp.logical_or, mask)


def every_one(mask: Bool[Array, "N *rest"]) -> Bool[Array, "*rest"]:
    """Whether all are true along the first axis."""
    return _halved(jnp.logical_and, mask)


def _halved(combine: Callable, mask: Bool[Array, "N *rest"]) -> Bool[Array, "*rest"]:
    while (length := len(mask)) > 1:
        half = (length + 1) // 2
        mask = combine(mask[:half], mask[length - half :])
    return mask[0]


def first_true(mask: Bool[Array, "N *cells"], room: int) -> Int[Array, "room *cells"]:
    """Where the first true entries are along the first axis, in order; N in the rows that are left over.

    Entries are counted in words of 32 bits; each row looks up its word by halves, then its bit.
    """
    num, cells = len(mask), mask.shape[1:]
    words = -(-num // 32)
    padded = jnp.concatenate([mask, jnp.zeros((32 * words - num, *cells), bool)]).reshape(words, 32, *cells)
    word = reduce(jnp.bitwise_or, [padded[:, i].astype(jnp.uint32) << i for i in range(32)])
    counted = jnp.cumsum(jax.lax.population_count(word).astype(jnp.int32), axis=0)
    row = jnp.broadcast_to(jnp.arange(room, dtype=jnp.int32).reshape(-1, *(1,) * len(cells)), (room, *cells))

    def count_of(index: Int[Array, "room *cells"]) -> Int[Array, "room *cells"]:
        before = jnp.take_along_axis(counted, jnp.clip(index - 1, 0, words - 1), axis=0, mode="promise_in_bounds")
        return jnp.where(index > 0, before, 0)

    # in loops, which XLA keeps apart: what it melts together it computes once for each use
    def nearer_word(i: Array, at: Int[Array, "room *cells"]) -> Int[Array, "room *cells"]:
        further = at + (1 << (words.bit_length() - 1) >> i)
        return jnp.where((further <= words) & (count_of(further) <= row), further, at)

    def nearer_bit(i: Array, state: tuple) -> tuple:
        here, place, left = state
        width = jnp.uint32(16) >> i.astype(jnp.uint32)
        low = jax.lax.population_count(here & ((jnp.uint32(1) << width) - 1)).astype(jnp.int32)
        beyond = left >= low
        place = place + jnp.where(beyond, width, 0).astype(jnp.int32)
        return jnp.where(beyond, here >> width, here), place, left - jnp.where(beyond, low, 0)

    at = jax.lax.fori_loop(0, words.bit_length(), nearer_word, jnp.zeros_like(row))  # words before that of this row
    here = jnp.take_along_axis(word, jnp.clip(at, 0, words - 1), axis=0, mode="promise_in_bounds")
    _, place, _ = jax.lax.fori_loop(0, 5, nearer_bit, (here, jnp.zeros_like(row), row - count_of(at)))
    return jnp.where(row < counted[-1], 32 * at + place, num)


def positive(scale: Float[Array, "*cells"]) -> Float[Array, "*cells"]:
    """The scale to divide by: 1 where it is zero."""
    return jnp.where(scale > 0, scale, 1)
