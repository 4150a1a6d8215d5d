"""Axes, cells and tiles: which cells there are, and how they are cut into blocks of the product grid."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import prod
from typing import Any

import numpy as np

Tile = tuple[int, ...]  # its index along each dimension
Axes = Mapping[Any, Sequence[Any] | np.ndarray]  # parameter, or several -> numbers


@dataclass(frozen=True)
class Grid:
    """The product of named dimensions, cut into equal tiles; the last tile along a dimension may hang over the edge.

    `axes`: dimension -> strictly increasing values, float64 `[n]`, n ≥ 2, of the parameter of that name; or points
    `[n, p]` of several parameters that vary together. `together`: dimension -> those parameters. `tile`: cells of a
    tile along each dimension.
    """

    axes: dict[str, np.ndarray]
    tile: tuple[int, ...]
    together: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(values) for values in self.axes.values())

    @property
    def num_cells(self) -> int:
        return prod(self.shape)

    def coordinates(self) -> dict[str, tuple[str, np.ndarray]]:
        """Of each parameter the dimension along which it varies, and its values there."""
        found = {}
        for dimension, values in self.axes.items():
            columns = values.T if dimension in self.together else [values]
            for name, column in zip(self.together.get(dimension, (dimension,)), columns, strict=True):
                found[name] = dimension, column
        return found

    def tiles(self) -> Iterator[Tile]:
        """All tiles, the last dimension fastest."""
        return product(*(range(-(-n // side)) for n, side in zip(self.shape, self.tile, strict=True)))

    def region(self, tile: Tile) -> tuple[slice, ...]:
        """The cells of the tile, as slices of the whole grid."""
        return tuple(
            slice(i * side, min((i + 1) * side, n)) for i, side, n in zip(tile, self.tile, self.shape, strict=True)
        )

    def cells_of(self, tile: Tile) -> int:
        """How many cells the tile has inside the grid."""
        return prod(part.stop - part.start for part in self.region(tile))

    def corners(self) -> Iterator[dict[str, float]]:
        """The extreme cells: every combination of places where a parameter is least or largest."""
        places = []
        for dimension, values in self.axes.items():
            names = self.together.get(dimension, (dimension,))
            points = values.reshape(len(values), len(names))
            ends = sorted({*points.argmin(axis=0).tolist(), *points.argmax(axis=0).tolist()})
            places.append([dict(zip(names, points[i].tolist(), strict=True)) for i in ends])
        for corner in product(*places):
            yield {name: value for point in corner for name, value in point.items()}


def make_grid(axes: Axes, tile_cells: int, tile_side: int) -> Grid:
    """The grid of these axes, in tiles of at most `tile_side` a dimension and about `tile_cells` cells.

    A key that is several parameters has points `[n, p]` of them, and is a dimension called "point".

    Raises `ValueError` for no axis, a parameter of two axes, and an axis that has fewer than two points, a value that
    is not finite, or, of one parameter, values that do not increase.
    """
    if not axes:
        raise ValueError("a sweep needs at least one axis, e.g. p_agree=0:1:256")
    checked: dict[str, np.ndarray] = {}
    together: dict[str, tuple[str, ...]] = {}
    seen: set[str] = set()
    for key, given in axes.items():
        names = (key,) if isinstance(key, str) else tuple(key)
        name, values = " and ".join(names), np.asarray(given, dtype=np.float64)
        for twice in (each for i, each in enumerate(names) if each in seen or each in names[:i]):
            raise ValueError(f"{twice} is given twice; a parameter belongs to one axis")
        seen.update(names)
        if not isinstance(key, str) and (values.ndim != 2 or len(values) < 2 or values.shape[1] != len(names)):
            raise ValueError(f"{name} vary together, as points [n, {len(names)}], n ≥ 2; got shape {values.shape}")
        if isinstance(key, str) and (values.ndim != 1 or len(values) < 2):
            raise ValueError(f"axis {name} needs at least 2 points in one dimension; got shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"axis {name} has a value that is not finite; take NaN and inf out")
        if isinstance(key, str) and not (np.diff(values) > 0).all():
            raise ValueError(f"axis {name} must increase strictly; sort it and take repeats out")
        if isinstance(key, str):
            checked[key] = values
        else:
            dimension = f"point_{len(together) + 1}" if together else "point"
            checked[dimension], together[dimension] = values, names
    sides: list[int] = []
    left = tile_cells
    for n in reversed([len(values) for values in checked.values()]):
        sides.append(max(1, min(n, tile_side, left)))
        left //= sides[-1]
    return Grid(checked, tuple(reversed(sides)), together)


def scattered(
    spans: Mapping[str, Sequence[Any]], num: int, *, kind: str = "sobol", seed: int = 0
) -> dict[tuple[str, ...], np.ndarray]:
    """Points that fill a box of many parameters evenly, as one axis for `sweep`, where a grid would be too large.

    **Arguments:** `spans`, parameter -> lower and upper end; `num`, points; `kind`, "sobol" (scrambled; powers of two
    are balanced) or "latin_hypercube"; `seed`.

    **Returns:** {all these parameters: points `[num, parameters]`}.

    Raises `ValueError` for another kind, fewer than two points, and ends that are reversed or not finite.

    Source: Owen (1998) for scrambled Sobol points, McKay, Beckman & Conover (1979) for Latin hypercubes, as in
    `scipy.stats.qmc`.
    """
    import warnings

    from scipy.stats import qmc  # half a second

    if num < 2:
        raise ValueError(f"a design needs at least 2 points; got {num}")
    low, high = np.array([*spans.values()], float).reshape(-1, 2).T
    for name, start, stop in zip(spans, low, high, strict=True):
        if not (np.isfinite([start, stop]).all() and start < stop):
            raise ValueError(f"{name} must go from a finite number to a larger one; got {start:g} to {stop:g}")
    designs = {"sobol": qmc.Sobol, "latin_hypercube": qmc.LatinHypercube}
    if kind not in designs:
        raise ValueError(f"a design is sobol or latin_hypercube; got {kind!r}")
    with warnings.catch_warnings():  # that the balance of Sobol points needs a power of two, as said above
        warnings.simplefilter("ignore", UserWarning)
        unit = designs[kind](len(spans), rng=np.random.default_rng(seed)).random(num)
    return {tuple(spans): low + (high - low) * unit}
