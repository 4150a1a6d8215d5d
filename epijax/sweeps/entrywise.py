"""A cell's program with its small tables taken entry by entry, so that each entry varies along its own axes alone.

A table of probabilities is one array, though each row may follow another parameter. Under `vmap` the whole array varies
along the axes of all of them, and whatever is made of one entry is computed for every cell instead of once for a value.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, jaxpr_as_fun

_FEW = 64  # entries of a table; beyond, it stays an array

# primitive -> the program that it calls
_CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}
_SHAPED = {"reshape", "squeeze", "expand_dims"}
_MOVED = {"broadcast_in_dim", "concatenate", "slice", "stack", "transpose"}
_COMPUTED = {
    *("abs", "add", "clamp", "convert_element_type", "copy", "div", "exp", "integer_pow", "is_finite", "log", "log1p"),
    *("max", "min", "mul", "neg", "pow", "select_n", "sign", "sqrt", "square", "stop_gradient", "sub"),
    *("and", "bitcast_convert_type", "eq", "ge", "gt", "le", "lt", "ne", "not", "or", "xor"),
    *("shift_left", "shift_right_logical"),
}


def entrywise(program: ClosedJaxpr) -> Callable[..., list[jax.Array]]:
    """The same function, computed entry by entry, if it does nothing but arithmetic on small tables; else as it is."""
    if not _is_plain(program.jaxpr):
        return jaxpr_as_fun(program)
    return lambda *arguments: [_whole(result) for result in _run(program, [_entries(a) for a in arguments])]


def _is_plain(jaxpr: Jaxpr) -> bool:
    """Whether all of it is arithmetic on small tables."""
    for step in jaxpr.eqns:
        name = step.primitive.name
        if name in _CALLS:
            if not _is_plain(step.params[_CALLS[name]].jaxpr):
                return False
        elif name not in _SHAPED | _MOVED | _COMPUTED or any(map(_is_large, (*step.invars, *step.outvars))):
            return False
    return True


def _is_large(atom: Any) -> bool:
    return atom.aval.size > _FEW


def _run(program: ClosedJaxpr, arguments: list[np.ndarray]) -> list[np.ndarray]:
    """The results, arrays of scalars like the arguments."""
    jaxpr = program.jaxpr
    known = dict(zip(jaxpr.constvars, map(_entries, program.consts), strict=True))
    known |= zip(jaxpr.invars, arguments, strict=True)

    def read(atom: Any) -> np.ndarray:
        kind = getattr(atom.aval, "dtype", None)
        return _entries(np.asarray(atom.val, kind)) if isinstance(atom, Literal) else known[atom]

    for step in jaxpr.eqns:
        name, operands = step.primitive.name, [read(atom) for atom in step.invars]
        if name in _CALLS:
            results = _run(step.params[_CALLS[name]], operands)
        elif name in _SHAPED:
            results = [operands[0].reshape(step.outvars[0].aval.shape)]
        elif name in _MOVED:
            results = [_moved(name, operands, step.params)]
        else:
            together = np.broadcast(*operands)
            each = [step.primitive.bind(*scalars, **step.params) for scalars in together]
            results = [_filled(together.shape, each)]
        known |= zip(step.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def _moved(name: str, operands: list[np.ndarray], params: dict[str, Any]) -> np.ndarray:
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
    return np.stack(operands, axis=params["axis"])


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
