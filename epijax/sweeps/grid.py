"""Axes, cells and tiles: which cells there are, and how they are cut into blocks of the product grid."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

Tile = tuple[int, ...]  # its index along each axis


@dataclass(frozen=True)
class Grid:
    """The product of named axes, cut into equal tiles; the last tile along an axis may hang over the edge.

    `axes`: name -> strictly increasing values, float64 `[n]`, n ≥ 2. `tile`: cells of a tile along each axis.
    """

    axes: dict[str, np.ndarray]
    tile: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(values) for values in self.axes.values())

    @property
    def num_cells(self) -> int:
        return prod(self.shape)

    def tiles(self) -> Iterator[Tile]:
        """All tiles, the last axis fastest."""
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
        """The extreme cells: every combination of first and last values."""
        for values in product(*((float(v[0]), float(v[-1])) for v in self.axes.values())):
            yield dict(zip(self.axes, values, strict=True))


def make_grid(axes: Mapping[str, Sequence[float] | np.ndarray], tile_cells: int, tile_side: int) -> Grid:
    """The grid of these axes, in tiles of at most `tile_side` an axis and about `tile_cells` cells.

    Raises `ValueError` for no axis, and for one that has fewer than two points, a value that is not finite, or values
    that do not increase.
    """
    if not axes:
        raise ValueError("a sweep needs at least one axis, e.g. p_agree=0:1:256")
    checked = {}
    for name, given in axes.items():
        values = np.asarray(given, dtype=np.float64)
        if values.ndim != 1 or len(values) < 2:
            raise ValueError(f"axis {name} needs at least 2 points in one dimension; got shape {values.shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"axis {name} has a value that is not finite; take NaN and inf out")
        if not (np.diff(values) > 0).all():
            raise ValueError(f"axis {name} must increase strictly; sort it and take repeats out")
        checked[name] = values
    sides: list[int] = []
    left = tile_cells
    for n in reversed([len(values) for values in checked.values()]):
        sides.append(max(1, min(n, tile_side, left)))
        left //= sides[-1]
    return Grid(checked, tuple(reversed(sides)))
