"""Pictures and words: colours that every eye tells apart, boundaries where they are, and sentences that are true."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import PathPatch

import epijax as ej
from epijax.phases import LEGEND
from epijax.view import plot, words

PHASES = [entry.colour for code, entry in LEGEND.items() if code < 5]

# Machado, Oliveira & Fernandes 2009, IEEE TVCG 15(6), severity 1: linear RGB to what is seen
DEFICIENCY = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
    "none": np.eye(3),
}


def lab(colour, deficiency="none"):
    """CIE L*a*b* (D65) of an sRGB colour as seen."""
    rgb = np.asarray(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(DEFICIENCY[deficiency]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    ratio = xyz / [0.9505, 1.0, 1.089]
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCY)
def test_the_five_phases_differ_for_every_eye_and_in_grey(deficiency):
    for one, other in combinations(PHASES, 2):
        a, b = lab(one, deficiency), lab(other, deficiency)
        assert np.linalg.norm(a - b) > 20, (one, other)
        assert abs(a[0] - b[0]) > 9, (one, other)
    lightness = sorted(lab(colour)[0] for colour in PHASES)
    assert min(np.diff(lightness)) > 12


def sycophancy_map(n, m=None, **fixed):
    return ej.sweep("sycophancy", {"p_agree": np.linspace(0, 1, n), "p_honest": np.linspace(0, 1, m or n)}, fixed)


def polygons(figure):
    return [artist for artist in figure.axes[0].patches if isinstance(artist, PathPatch)]


def test_boundaries_are_vectors_where_the_margin_is_zero():
    figure = plot.phase_diagram(sycophancy_map(64, reward_agree=3.0))  # θ̂ = 1/4
    shapes = polygons(figure)
    assert len(shapes) == 3
    for shape in shapes:
        corners = np.unique(shape.get_path().vertices.round(12), axis=0)
        assert len(corners) <= 6, "a straight side needs no vertex between its ends; one corner is cut by a cell"
        inner = corners[(corners > 0) & (corners < 1)]
        off = np.minimum(abs(inner - 0.25), abs(inner - 0.75))
        assert np.count_nonzero(off < 1e-4) >= 3, "but for the cut corner, sides lie on the true boundary"
        assert off.max() < 2 / 63


def test_the_picture_states_meanings_shares_and_what_is_fixed():
    figure = plot.phase_diagram(sycophancy_map(64, reward_agree=3.0))
    axes = figure.axes[0]
    assert axes.get_xlabel() == "probability that agreeing is approved, p_agree"
    assert axes.get_ylabel() == "probability that honesty is approved, p_honest"
    assert axes.get_title() == "Sycophancy"
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    assert labels == {"safe  6.2 %", "locked in  56.2 %", "multistable  18.8 %", "oscillatory  18.8 %"}
    (note,) = [text.get_text() for text in axes.texts]
    assert "reward_agree = 3\nreward_honest = 1" in note


def test_ties_and_refuted_cells_are_drawn_and_named():
    figure = plot.phase_diagram(
        ej.sweep("sycophancy", {"p_agree": np.linspace(0, 1, 65), "upper": np.linspace(0, 1, 65)}, {"p_honest": 0.9})
    )
    labels = " ".join(text.get_text() for text in figure.axes[0].get_legend().get_texts())
    assert "boundary" in labels
    assert "refuted" in labels


def test_thinning_keeps_the_rarest_phase(monkeypatch):
    dataset = sycophancy_map(65)  # one line of ties each way
    monkeypatch.setattr(plot, "MOST_CELLS", 16)
    codes, _, across, along = plot._thinned(dataset, plot.phase_counts(dataset))
    assert codes.shape == (13, 13)
    assert (across[0], across[-1], along[0], along[-1]) == (0, 1, 0, 1)
    assert (codes == 255).any(axis=0).all()
    assert (codes == 255).any(axis=1).all()


def test_a_picture_needs_two_axes():
    dataset = ej.sweep("sycophancy", {"p_agree": np.linspace(0, 1, 4)}, {"p_honest": 0.5})
    with pytest.raises(ValueError, match="a picture needs 2 axes, the sweep has 1"):
        plot.phase_diagram(dataset)


def test_words_for_elimination_in_two_rounds():
    # all play fits [0.2, 0.9]: c is best above 0.8; without c, beliefs reach 0.6 and b is never best
    environment = ej.Environment([[0.8, 0.2], [0.4, 0.6], [0.4, 0.6]], [[1.0, 0.0], [0.5, 0.5], [-2.0, 1.75]])
    problem = ej.Problem(
        environment,
        ej.AffineBernoulli((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 0.0, 1.0),
        actions=("a", "b", "c"),
        unsafe=(False, False, True),
    )
    solution = ej.solve(problem)
    text = words.explain(problem, solution)
    assert "Round 1: play of a, b and c fits beliefs in [0.2, 0.6]; they justify a and b: the round drops c." in text
    assert "Round 2: play of a and b fits beliefs in [0.2, 0.6]; they justify a and b: the round drops nothing." in text
    assert words.summary(problem, solution)["rationalizable"] == ["a", "b"]


def test_words_for_tables():
    tables = ej.FiniteProblem(
        [[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]], actions=("left", "right"), unsafe=(True, False)
    )
    text = words.explain(tables, ej.solve(tables))
    assert "Playing left fits parameter 0 best (0 nats), under which left pays most." in text
    assert "Mixing 0.5 left and 0.5 right is a Berk–Nash equilibrium." in text
    assert "Phase: multistable" in text
