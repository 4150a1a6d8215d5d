"""Phase boundaries as lines: found where they cross the edges of a lattice, to 1e-9, and joined."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import KDTree

from epijax.phases import PHASES
from epijax.sweeps.grid import make_grid
from epijax.sweeps.job import check_parameters, named, problem_at_corners, work_of
from epijax.sweeps.provenance import Build
from epijax.sweeps.refine import Points

_CLOSE = 1e-9  # as shares of the spans: how near to a boundary its points are, and what is one point
_BETWEEN = 1e-6  # how near between these
_TIES_CLOSE = 1e-5  # how near lines come at worst to where they meet in ties
_TIE = next(code for code, name in PHASES.items() if name == "boundary")
_OFF = 0.381966  # lattice lines start here, as a share of a step: no round number is on them
_BAND = 0.1  # of an edge: the widest stretch of ties that counts as one boundary
_AT_ONCE, _CELLS = 1 << 12, 1 << 24

# Corners of a lattice cell, and its edges as pairs of them: each leads to the right or upwards
_CORNERS = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
_EDGES = np.array([[0, 1], [2, 3], [0, 2], [1, 3]])


@dataclass(frozen=True)
class Boundary:
    """A line between two phases.

    - `phases`: the codes on its two sides, as in `ej.PHASES`, the smaller first.
    - `points`: `[n, 2]`, n ≥ 2, values of the two parameters; the first is the last where it is closed.
    """

    phases: tuple[int, int]
    points: np.ndarray


def boundaries(
    build: Build | str,
    spans: Mapping[str, Sequence[Any]],
    fixed: Mapping[str, Any] | None = None,
    *,
    resolution: int = 256,
) -> list[Boundary]:
    """The phase boundaries on a rectangle of two parameters, as lines.

    Where the phases at the ends of an edge of a lattice differ, halving finds where, in float64. Lattice cells in which
    more than two such points lie are cut in four, down to 1e-9, so that lines meet where phases do. The points are
    boundaries to 1e-9 of the spans, or the middle of what is a tie within tolerance; between points lines are straight,
    and right to 1e-6. Where several meet in such ties they end before, 1e-5 at most. What enters and leaves a lattice
    cell through one edge is not seen.

    **Arguments:** `build` and `fixed`, as of `sweep`; `spans`, two parameters -> (lower, upper); `resolution`, lattice
    cells an axis.

    **Returns:** the lines, each as long as it has the same two phases on its sides.

    Raises `ValueError` for other than two parameters, and what `sweep` refuses.
    """
    if len(spans) != 2:
        raise ValueError(f"boundaries are lines in 2 parameters, these are {len(spans)}; fix the others")
    if resolution < 2:
        raise ValueError(f"the lattice needs 2 cells an axis at least; got {resolution}")
    name, build = named(build)
    fixed = dict(fixed or {})
    grid = make_grid(spans, 1, 1)
    check_parameters(name, build, list(spans), list(fixed))
    problem, unsafe = problem_at_corners(build, fixed, grid)
    low, high = np.array([*grid.axes.values()])[:, [0, -1]].T
    at_once = max(64, min(_AT_ONCE, _CELLS // work_of(problem)))
    points = Points(build, fixed, tuple(grid.axes), "float64", unsafe, ("phase",), at_once)

    def phase(places: np.ndarray) -> np.ndarray:
        """The codes at places `[..., 2]` in the unit square."""
        values = low + (high - low) * places.reshape(-1, 2)
        return points(values)[0]["phase"].reshape(places.shape[:-1])

    ends, sides = _segments(phase, resolution)
    ends = np.where(ends <= _CLOSE, 0, np.where(ends >= 1 - _CLOSE, 1, ends))
    return [Boundary(pair, low * (1 - line) + high * line) for pair, line in _joined(ends, sides)]


def _segments(phase: Callable, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of boundaries `[n, 2, 2]`, and the codes on their sides `[n, 2]`."""
    ticks = np.concatenate([[_CLOSE], (np.arange(resolution - 1) + _OFF) / (resolution - 1), [1 - _CLOSE]])
    lattice = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1)
    codes = phase(lattice)
    at = np.stack(np.meshgrid(*[np.arange(resolution)] * 2, indexing="ij"), axis=-1).reshape(-1, 1, 2) + _CORNERS
    places, codes = (
        lattice[at[..., 0], at[..., 1]],
        codes[at[..., 0], at[..., 1]],
    )  # [cells, corners, 2], [cells, corners]
    ends, sides = [], []
    while (mixed := (codes != codes[:, :1]).any(axis=1)).any():
        places, codes = places[mixed], codes[mixed]
        pairs, one = codes[:, _EDGES], places[:, _EDGES]
        crossed = pairs[..., 0] != pairs[..., 1]
        where, single = np.zeros((*crossed.shape, 2)), np.ones_like(crossed)
        where[crossed], single[crossed] = _crossings(phase, one[crossed], pairs[crossed])
        pairs = np.sort(pairs, axis=-1)
        tied = (codes == _TIE).any(axis=1)
        small = np.ptp(places, axis=1).max(axis=1) <= np.where(tied, _TIES_CLOSE, _CLOSE)
        plain = (crossed.sum(axis=1) == 2) & single.all(axis=1)
        plain[plain] = _straight(phase, where[plain][crossed[plain]].reshape(-1, 2, 2)) | small[plain]
        ends.append(where[plain][crossed[plain]].reshape(-1, 2, 2))
        sides.append(pairs[plain][crossed[plain]].reshape(-1, 2, 2)[:, 0])
        meeting = small & ~plain & ~tied  # all that is this near is one point
        middle = np.broadcast_to(places[meeting].mean(axis=1)[:, None], where[meeting].shape)
        ends.append(np.stack([where[meeting], middle], axis=2)[crossed[meeting]])
        sides.append(pairs[meeting][crossed[meeting]])
        rest = ~plain & ~small
        if not rest.any():
            break
        places, codes = _quartered(phase, places[rest])
    ends, sides = np.concatenate([np.zeros((0, 2, 2)), *ends]), np.concatenate([np.zeros((0, 2), np.uint8), *sides])
    phases = (sides != _TIE).all(axis=1)
    return ends[phases], sides[phases]


def _crossings(phase: Callable, edges: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where on edges `[n, 2, 2]` the phase at their start ends, and whether that at their end begins there."""
    start, along = edges[:, 0], edges[:, 1] - edges[:, 0]

    def looked(shares: np.ndarray) -> np.ndarray:
        return phase(start + shares[..., None] * along)

    low, high = np.zeros((2, len(edges))), np.ones((2, len(edges)))  # for the start, and for the end
    for _ in range(max(1, math.ceil(math.log2(np.abs(along).max() / (_CLOSE / 16))))):
        middle = (low + high) / 2
        before = (looked(middle) == codes.T) == [[True], [False]]
        low, high = np.where(before, middle, low), np.where(before, high, middle)
    left, entered = (low + high) / 2
    apart = np.abs(entered - left)
    tie = (looked((left + entered) / 2) == _TIE) & (apart < _BAND)
    return start + ((left + entered) / 2)[:, None] * along, tie | (apart * np.abs(along).max(axis=1) <= _CLOSE)


def _straight(phase: Callable, ends: np.ndarray) -> np.ndarray:
    """Whether a boundary passes by the middle of these pieces, as near as lines have to be between their points."""
    along = ends[:, 1] - ends[:, 0]
    aside = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1, keepdims=True)
    middle = ends.mean(axis=1) + _BETWEEN * np.stack([aside, -aside])
    one, other = phase(np.clip(middle, 0, 1)) if len(ends) else np.zeros((2, 0))
    return (one != other) | (np.linalg.norm(along, axis=1) < _BETWEEN)


def _quartered(phase: Callable, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low, high = places[:, 0], places[:, 3]
    ticks = np.stack([low, (low + high) / 2, high], axis=1)  # [cells, 3, 2]
    i, j = (index.ravel() for index in np.meshgrid(range(3), range(3), indexing="ij"))
    lattice = np.stack([ticks[:, i, 0], ticks[:, j, 1]], axis=-1)  # [cells, 9, 2]
    codes = phase(lattice)
    index = ((_CORNERS[:, None, 0] + _CORNERS[None, :, 0]) * 3 + _CORNERS[:, None, 1] + _CORNERS[None, :, 1]).ravel()
    return lattice[:, index].reshape(-1, 4, 2), codes[:, index].reshape(-1, 4)


def _joined(ends: np.ndarray, sides: np.ndarray) -> list[tuple[tuple[int, int], np.ndarray]]:
    """The pieces with the same phases on their sides, joined into lines as long as no third one meets them."""
    lines = []
    for pair in np.unique(sides, axis=0):
        pieces = ends[(sides == pair).all(axis=1)]
        flat = pieces.reshape(-1, 2)
        near = KDTree(flat).query_ball_point(flat, 4 * _CLOSE)
        first = np.array([min(group) for group in near])
        first = first[first]
        next_to: dict[int, list[int]] = defaultdict(list)
        for a, b in {tuple(sorted(each)) for each in first.reshape(-1, 2).tolist() if each[0] != each[1]}:
            next_to[a].append(b)
            next_to[b].append(a)
        loose = [node for node, others in next_to.items() if len(others) != 2]
        for start in (*loose, *next_to):
            while next_to[start]:
                path = [start]
                while next_to[path[-1]] and (len(path) == 1 or (path[-1] != start and path[-1] not in loose)):
                    following = next_to[path[-1]].pop()
                    next_to[following].remove(path[-1])
                    path.append(following)
                if np.ptp(flat[path], axis=0).max() > 2 * _TIES_CLOSE:  # no crumbs where lines meet in ties
                    lines.append(((int(pair[0]), int(pair[1])), flat[path]))
    return lines
