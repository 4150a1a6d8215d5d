"""The values of small matrix games, by the simplex method in a fixed amount of memory."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

_ROUNDS = 200


def game_value(losses: Float[Array, "R C"], rows: Bool[Array, "R"], columns: Bool[Array, "C"]) -> Float[Array, ""]:
    """min_μ max_r Σ_c losses[r, c] μ(c) over distributions μ on some columns, the maximum over some rows.

    With losses made positive it is 1/Σp for the p ≥ 0 of the largest sum with losses·p ≤ 1, found by the simplex method
    from p = 0.

    **Arguments:** `losses`: of order one; `rows`, `columns`: which of them are in the game.

    **Returns:** the value; −∞ without rows, NaN without columns or where the method has not ended.
    """
    num_rows = len(losses)
    shift = 1 + jnp.max(jnp.abs(losses))
    bound = 32 * float(jnp.finfo(losses.dtype).eps)
    body = jnp.where(rows[:, None] & columns, losses + shift, 0)
    start = jnp.block(
        [
            [body, jnp.eye(num_rows, dtype=losses.dtype), jnp.ones((num_rows, 1), losses.dtype)],
            [jnp.where(columns, -1.0, 0.0)[None], jnp.zeros((1, num_rows + 1), losses.dtype)],
        ]
    )

    def goes_on(state: tuple) -> Bool[Array, ""]:
        table, step = state
        return (step < _ROUNDS) & jnp.any(table[-1, :-1] < -bound)

    def pivot(state: tuple) -> tuple:
        table, step = state
        gains = table[-1, :-1]
        enters = jnp.where(
            step < _ROUNDS // 2, jnp.argmin(gains), jnp.argmax(gains < -bound)
        )  # then Bland's: no cycles
        column = table[:-1, enters]
        ratios = jnp.where(column > bound, table[:-1, -1] / jnp.where(column > bound, column, 1), jnp.inf)
        leaves = jnp.argmin(ratios)
        row = table[leaves] / table[leaves, enters]
        swept = table - table[:, enters, None] * row
        return swept.at[leaves].set(row), step + 1

    table, step = jax.lax.while_loop(goes_on, pivot, (start, jnp.int32(0)))
    total = table[-1, -1]
    ended = (step < _ROUNDS) & jnp.any(columns)
    value = 1 / jnp.where(total > 0, total, 1) - shift
    return jnp.where(ended, jnp.where(jnp.any(rows), value, -jnp.inf), jnp.nan)
