"""A cell's program, separated into what each axis decides by itself and what joins the axes.

A table of probabilities is one array, though each row may follow another parameter. Under `vmap` the whole array varies
along the axes of all of them, and whatever is made of one entry is computed for every cell instead of once for a value.
So small tables are taken entry by entry first; then it shows which numbers follow one axis alone.
"""

from collections.abc import Callable
from functools import partial, reduce
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

_FEW = 64  # entries of a table; beyond, it stays an array

# primitive -> the program that it calls
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}
_SHAPED = {"reshape", "squeeze", "expand_dims"}
_MOVED = {"broadcast_in_dim", "concatenate", "slice", "stack", "transpose", "unstack"}
_REDUCED = {
    "reduce_and": jax.lax.bitwise_and,
    "reduce_max": jax.lax.max,
    "reduce_min": jax.lax.min,
    "reduce_or": jax.lax.bitwise_or,
    "reduce_sum": jax.lax.add,
}
_COMPUTED = {
    *("abs", "add", "clamp", "convert_element_type", "copy", "div", "exp", "integer_pow", "is_finite", "log", "log1p"),
    *("max", "min", "mul", "neg", "pow", "select_n", "sign", "sqrt", "square", "stop_gradient", "sub"),
    *("and", "bitcast_convert_type", "eq", "ge", "gt", "le", "lt", "ne", "not", "or", "xor"),
    *("shift_left", "shift_right_logical"),
}
_KNOWN = _SHAPED | _MOVED | _REDUCED.keys() | _COMPUTED


class Separated(NamedTuple):
    """`alone[i]` takes the values of axis i at a cell and gives a list of what they decide; `joined` takes all these
    lists and gives the results."""

    alone: list[Callable[[jax.Array], list[jax.Array]]]
    joined: Callable[..., list[jax.Array]]


class _Step(NamedTuple):
    equation: Any
    operands: list[Any]
    axes: frozenset[int]  # that it follows


def entrywise(program: ClosedJaxpr) -> Callable[..., list[jax.Array]]:
    """The same function, entry by entry if it does nothing but arithmetic on small tables, else as it is."""
    if not _is_plain(program.jaxpr):
        return jaxpr_as_fun(program)
    return lambda *axes: [_whole(result) for result in _run(program, [_entries(values) for values in axes])]


def separated(program: ClosedJaxpr) -> Separated:
    """The program in two parts, if it does nothing but arithmetic on small tables, along more than one axis.

    Otherwise an axis just gives its values, and `joined` is the program.
    """
    num_axes, whole = len(program.in_avals), entrywise(program)
    if num_axes == 1 or not _is_plain(program.jaxpr):
        return Separated([lambda values: [values]] * num_axes, lambda *lists: whole(*(each for [each] in lists)))

    flat = jax.make_jaxpr(whole)(*program.in_avals)
    steps, results, follows = _steps(flat.jaxpr)
    used = [*(atom for step in steps if len(step.axes) > 1 for atom in step.operands), *results]
    decided = [list(dict.fromkeys(atom for atom in used if follows(atom) == {i})) for i in range(num_axes)]

    def compute(known: dict, wanted: list, included: Callable[[frozenset[int]], bool]) -> list[jax.Array]:
        known = known | dict(zip(flat.jaxpr.constvars, flat.consts, strict=True))
        for equation, operands, _ in (step for step in steps if included(step.axes)):
            values = [atom.val if isinstance(atom, Literal) else known[atom] for atom in operands]
            found = equation.primitive.bind(*values, **equation.params)
            known |= zip(equation.outvars, found if equation.primitive.multiple_results else [found], strict=True)
        return [atom.val if isinstance(atom, Literal) else known[atom] for atom in wanted]

    def alone(i: int, values: jax.Array) -> list[jax.Array]:
        return compute({flat.jaxpr.invars[i]: values}, decided[i], lambda axes: axes <= {i})

    def joined(*lists: list[jax.Array]) -> list[jax.Array]:
        known = {}
        for atoms, values in zip(decided, lists, strict=True):
            known |= zip(atoms, values, strict=True)
        return compute(known, results, lambda axes: len(axes) != 1)

    return Separated([partial(alone, i) for i in range(num_axes)], joined)


def _steps(jaxpr: Jaxpr) -> tuple[list[_Step], list[Any], Callable[[Any], frozenset[int]]]:
    """What is computed, nothing twice; what results; and which axes a number follows, arguments being those."""
    axes_of: dict[Any, frozenset[int]] = {argument: frozenset([i]) for i, argument in enumerate(jaxpr.invars)}
    same: dict[Any, Any] = {}  # what has been computed before -> as what
    computed: dict[tuple, list] = {}
    steps = []

    def read(atom: Any) -> Any:
        return atom if isinstance(atom, Literal) else same.get(atom, atom)

    def follows(atom: Any) -> frozenset[int]:
        return frozenset() if isinstance(atom, Literal) else axes_of.get(atom, frozenset())

    for equation in jaxpr.eqns:
        operands = [read(atom) for atom in equation.invars]
        names = [f"{atom.val} {atom.aval}" if isinstance(atom, Literal) else atom for atom in operands]
        before = computed.setdefault((equation.primitive, *names, str(equation.params)), equation.outvars)
        if before is not equation.outvars:
            same |= zip(equation.outvars, before, strict=True)
            continue
        axes = frozenset().union(*map(follows, operands))
        axes_of |= dict.fromkeys(equation.outvars, axes)
        steps.append(_Step(equation, operands, axes))
    return steps, [read(atom) for atom in jaxpr.outvars], follows


def _is_plain(jaxpr: Jaxpr) -> bool:
    """Whether all of it is arithmetic on small tables."""
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in _CALLS:
            if not _is_plain(equation.params[_CALLS[name]].jaxpr):
                return False
        elif name not in _KNOWN or any(map(_is_large, (*equation.invars, *equation.outvars))):
            return False
    return True


def _is_large(atom: Any) -> bool:
    return atom.aval.size > _FEW


def _dtype(atom: Any) -> Any:
    return atom.aval.dtype


def _run(program: ClosedJaxpr, arguments: list[np.ndarray]) -> list[np.ndarray]:
    """The results, as arrays of scalars like the arguments."""
    jaxpr = program.jaxpr
    known = dict(zip(jaxpr.constvars, map(_entries, program.consts), strict=True))
    known |= zip(jaxpr.invars, arguments, strict=True)

    def read(atom: Any) -> np.ndarray:
        return known[atom] if not isinstance(atom, Literal) else _entries(np.asarray(atom.val, _dtype(atom)))

    for equation in jaxpr.eqns:
        name, operands = equation.primitive.name, [read(atom) for atom in equation.invars]
        if name in _CALLS:
            results = _run(equation.params[_CALLS[name]], operands)
        elif name == "unstack":
            axis = equation.params["axis"]
            results = [part.squeeze(axis) for part in np.split(operands[0], len(equation.outvars), axis)]
        elif name in _SHAPED | _MOVED:
            results = [_moved(name, operands, equation.params, equation.outvars[0])]
        elif name in _REDUCED:
            axes = equation.params["axes"]
            rest = np.moveaxis(operands[0], axes, range(-len(axes), 0))
            shape = rest.shape[: rest.ndim - len(axes)]
            each = [reduce(_REDUCED[name], entries) for entries in rest.reshape(prod(shape), -1)]
            results = [_filled(shape, each)]
        else:
            together = np.broadcast(*operands)
            each = [equation.primitive.bind(*scalars, **equation.params) for scalars in together]
            results = [_filled(together.shape, each)]
        known |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _moved(name: str, operands: list[np.ndarray], params: dict[str, Any], result: Any) -> np.ndarray:
    """Entries moved to their places."""
    if name == "broadcast_in_dim":
        sides = [1] * len(params["shape"])
        for dimension, side in zip(params["broadcast_dimensions"], operands[0].shape, strict=True):
            sides[dimension] = side
        return np.broadcast_to(operands[0].reshape(sides), params["shape"])
    if name == "slice":
        strides = params["strides"] or (1,) * operands[0].ndim
        cuts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        return operands[0][tuple(slice(*cut) for cut in cuts)]
    if name == "transpose":
        return operands[0].transpose(params["permutation"])
    if name == "concatenate":
        return np.concatenate(operands, axis=params["dimension"])
    if name == "stack":
        return np.stack(operands, axis=params["axis"])
    return operands[0].reshape(result.aval.shape)


def _entries(array: Any) -> np.ndarray:
    """The entries of an array, as an array of scalars of the same shape."""
    return _filled(array.shape, [array[index] for index in np.ndindex(array.shape)])


def _filled(shape: tuple[int, ...], scalars: list) -> np.ndarray:
    filled = np.empty(shape, object)
    for index, scalar in zip(np.ndindex(shape), scalars, strict=True):
        filled[index] = scalar
    return filled


def _whole(entries: np.ndarray) -> jax.Array:
    return jnp.stack(entries.ravel().tolist()).reshape(entries.shape) if entries.ndim else entries.item()
