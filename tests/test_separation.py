"""What each axis decides by itself, and what joins them: the same results, nothing computed where it need not be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import epijax as ej
from epijax.sweeps.engine import Engine
from epijax.sweeps.grid import make_grid
from epijax.sweeps.separation import separated

SCALAR = jax.ShapeDtypeStruct((), "float64")


def product(row, column):
    """Of two parameters a table, and what is made of its rows apart and together."""
    probs = jnp.stack([jnp.stack([1 - row, row]), jnp.stack([jnp.log(column), jnp.exp(column)])])
    weights = jnp.where(probs > 0.5, probs, 2.0 * probs)
    totals = jnp.sum(weights.T, axis=0)  # of each row
    return jnp.clip(totals[0], 0.1, 0.9) * totals[1] + jnp.max(probs[1]), jnp.all(jnp.concatenate([probs, probs]) < 2)


def names_of(jaxpr) -> set[str]:
    return {equation.primitive.name for equation in jaxpr.eqns}


def both(function, *shapes):
    """A function's jaxpr, and its parts'."""
    program = jax.make_jaxpr(function)(*shapes)
    alone, joined = separated(program)
    lists = [jax.eval_shape(part, shape) for part, shape in zip(alone, shapes, strict=True)]
    return [jax.make_jaxpr(part)(shape) for part, shape in zip(alone, shapes, strict=True)], jax.make_jaxpr(joined)(
        *lists
    )


def mapped(function, rows, columns):
    return jax.jit(jax.vmap(jax.vmap(function, (None, 0)), (0, None)))(rows, columns)


def test_the_parts_give_what_the_whole_gives():
    rows, columns = np.linspace(0, 1, 9), np.linspace(0.1, 2, 11)
    alone, joined = separated(jax.make_jaxpr(product)(SCALAR, SCALAR))

    def apart(row, column):
        return joined(alone[0](row), alone[1](column))

    for one, other in zip(mapped(product, rows, columns), mapped(apart, rows, columns), strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-14)


def test_what_follows_one_axis_is_left_to_it():
    (first, second), joined = both(product, SCALAR, SCALAR)
    assert {"exp", "log", "max"} <= names_of(second.jaxpr)
    assert names_of(first.jaxpr).isdisjoint({"exp", "log", "stack"})
    assert names_of(joined.jaxpr) == {"mul", "add", "and"}, "the table is gone, and with it all that a row decides"


def test_nothing_is_computed_twice():
    def twice(row, column):
        return jnp.exp(row) * column + jnp.exp(row)

    (first, _), joined = both(twice, SCALAR, SCALAR)
    assert [equation.primitive.name for equation in first.jaxpr.eqns] == ["exp"]
    assert len(joined.jaxpr.eqns) == 2


@pytest.mark.parametrize(
    "function",
    [
        lambda row, column: jax.lax.fori_loop(0, 3, lambda _, x: x * column, row),
        lambda row, column: jnp.sum(jnp.linspace(0, 1, 1000) * row) * column,
    ],
    ids=["a loop", "a long table"],
)
def test_what_is_more_than_arithmetic_on_small_tables_stays_as_it_is(function):
    alone, joined = separated(jax.make_jaxpr(function)(SCALAR, SCALAR))
    assert [part(value) for part, value in zip(alone, (0.5, 0.25), strict=True)] == [[0.5], [0.25]]
    np.testing.assert_allclose(joined([0.5], [0.25])[0], function(0.5, 0.25), rtol=1e-15)


@pytest.mark.parametrize("model", ej.models.X26)
def test_the_maps_of_the_published_models_come_apart(model):
    """A primitive that a newer JAX brings would leave them whole, and slower, with the same answers."""
    entry = ej.models.MODELS[model]
    for fixed in ({}, {"exploration": 0.1}):
        grid = make_grid({name: np.linspace(*span, 16) for name, span in entry.axes.items()}, 256, 16)
        engine = Engine(entry.build, fixed, grid, "float32", (True, False), jax.devices()[:1])
        _, decided = engine.shapes
        assert all(len(values) > 1 for values in decided)
