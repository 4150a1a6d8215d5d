"""Phase boundaries as lines: against closed forms, closed curves, and the phases on their two sides."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_refine import islands

import epijax as ej
from epijax.view.plot import phase_diagram

UNIT = {"p_agree": (0, 1), "p_honest": (0, 1)}


def test_the_boundaries_of_sycophancy_are_four_half_lines():
    lines = ej.boundaries("sycophancy", UNIT)
    assert sorted(line.phases for line in lines) == [(0, 2), (0, 3), (1, 2), (1, 3)]
    for line in lines:
        upright = line.phases in ((0, 2), (1, 3))
        across, along = line.points.T if upright else line.points[:, ::-1].T
        np.testing.assert_allclose(across, 0.5, rtol=0, atol=2e-9)
        assert (np.diff(along) > 0).all() or (np.diff(along) < 0).all()
        np.testing.assert_allclose(sorted(along[[0, -1]]), [0.5, 1] if line.phases[1] == 2 else [0, 0.5], atol=1e-8)


def test_circles_are_closed_and_round():
    lines = ej.boundaries(islands, {"x": (0, 1), "y": (0, 1)}, resolution=128)
    radii = {0.1: (0.75, 0.75), 0.02: (0.2, 0.77), 0.012: (0.52, 0.31)}
    assert len(lines) == 3
    for line in lines:
        np.testing.assert_array_equal(line.points[0], line.points[-1])
        found = [radius for radius, middle in radii.items() if np.hypot(*(line.points[0] - middle)) < 0.11]
        assert len(found) == 1
        distances = np.hypot(*(line.points - radii[found[0]]).T)
        np.testing.assert_allclose(distances, found[0], rtol=0, atol=2e-9)
        between = np.hypot(*((line.points[1:] + line.points[:-1]) / 2 - radii[found[0]]).T)
        np.testing.assert_allclose(between, found[0], rtol=0, atol=1.1e-6)


@pytest.mark.parametrize(
    ("name", "fixed"), [("deception", {"exploration": 0.1}), ("sycophancy", {"exploration": 0.2, "upper": 0.8})]
)
def test_each_point_has_its_phases_on_its_sides(name, fixed):
    model = ej.models.MODELS[name]
    names = list(model.axes)
    lines = ej.boundaries(name, model.axes, fixed, resolution=64)
    assert len(lines) >= 1
    solve = jax.jit(
        jax.vmap(
            lambda point: ej.phase(
                ej.solve(model.build(**fixed, **dict(zip(names, point, strict=True)))), (True, False)
            )
        )
    )
    for line in lines:
        middle = (line.points[:-1] + line.points[1:])[5:-5] / 2
        along = (line.points[1:] - line.points[:-1])[5:-5]
        points = line.points[5:-6]
        normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.linalg.norm(along, axis=1)[:, None]
        assert len(middle) > 10
        inside = ((points > 0.01) & (points < 0.99)).all(axis=1)
        one, other = (
            np.asarray(solve(jnp.asarray(points + far * normal[: len(points)])))[inside] for far in (1e-6, -1e-6)
        )
        np.testing.assert_array_equal(
            np.sort(np.stack([one, other]), axis=0), np.array(line.phases)[:, None] * np.ones(len(one))
        )


def test_a_picture_takes_them_as_its_lines():
    axes = {name: np.linspace(*span, 40) for name, span in UNIT.items()}
    lines = ej.boundaries("sycophancy", UNIT, resolution=8)
    figure = phase_diagram(ej.sweep("sycophancy", axes), lines)
    drawn = [line.get_xydata() for line in figure.axes[0].lines]
    assert len(drawn) == 4
    for one, other in zip(drawn, lines, strict=True):
        np.testing.assert_array_equal(one, other.points)


@pytest.mark.parametrize(
    ("spans", "options", "message"),
    [
        ({"p_agree": (0, 1)}, {}, "boundaries are lines in 2 parameters, these are 1"),
        (UNIT, {"resolution": 1}, "the lattice needs 2 cells an axis"),
        ({"p_agree": (0, 1), "p_honst": (0, 1)}, {}, "no parameter 'p_honst'"),
        ({"p_agree": (1, 0), "p_honest": (0, 1)}, {}, "axis p_agree must increase"),
    ],
)
def test_boundaries_that_cannot_be_are_refused(spans, options, message):
    with pytest.raises(ValueError, match=message):
        ej.boundaries("sycophancy", spans, **options)
