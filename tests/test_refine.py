"""Refined sweeps: the same answers as of every cell, from some of them; islands that no corner hits."""

import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr
from test_sweeps import assert_same

import epijax as ej
from epijax.sweeps import job
from epijax.sweeps import store as on_disk

KEPT = ("phase", "rationalizable", "pure", "num_mixed")


@pytest.mark.parametrize(
    ("name", "fixed"), [("sycophancy", {}), ("deception", {}), ("deception", {"exploration": 0.07})]
)
def test_a_refined_sweep_is_the_whole_one(name, fixed):
    axes = {key: np.linspace(*span, 403) for key, span in ej.models.MODELS[name].axes.items()}
    refined = ej.sweep(name, axes, fixed, refine=4)
    assert tuple(refined.data_vars) == KEPT
    assert_same(refined, ej.sweep(name, axes, fixed), KEPT)
    assert refined.attrs["evaluated"] < 0.15


def islands(x, y):
    """Action 0 is the best one on three discs, the smallest a fifth of the lattice's step across."""
    gain = jnp.maximum(0.012**2 - (x - 0.52) ** 2 - (y - 0.31) ** 2, 0.02**2 - (x - 0.2) ** 2 - (y - 0.77) ** 2)
    gain = jnp.maximum(gain, 0.1**2 - (x - 0.75) ** 2 - (y - 0.75) ** 2)
    return ej.FiniteProblem(
        jnp.stack([1 + gain, jnp.ones_like(gain)])[:, None], jnp.zeros((2, 1)), unsafe=(True, False)
    )


def test_islands_that_no_corner_hits_are_found():
    axes = {"x": np.linspace(0, 1, 257), "y": np.linspace(0, 1, 257)}
    whole, refined = ej.sweep(islands, axes), ej.sweep(islands, axes, refine=5)
    coarse = whole["phase"].values[::32, ::32]
    assert (coarse == 1).sum() < 8  # of all discs corners hit the large one alone
    assert_same(refined, whole, KEPT)
    assert refined.attrs["evaluated"] < 0.5


@pytest.mark.parametrize("points", [(2,), (33, 2, 40)])
def test_any_number_of_axes_and_sizes_that_nothing_divides(points):
    names = ("p_agree", "p_honest", "upper")
    axes = {name: np.linspace(0.1, 0.9, n) for name, n in zip(names, points, strict=False)}
    fixed = {name: 0.45 for name in names[:2] if name not in axes}
    assert_same(ej.sweep("sycophancy", axes, fixed, refine=3), ej.sweep("sycophancy", axes, fixed), KEPT)


def test_tiles_parts_and_interruption_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "_FILLED_CELLS", 1 << 12)
    axes = {"p_caught": np.linspace(0, 1, 200), "upper": np.linspace(0, 1, 150)}
    store = tmp_path / "run.zarr"
    whole = ej.sweep("deception", axes)

    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ej.sweep("deception", axes, store=store, refine=4, progress=stop)
    refined = ej.sweep("deception", axes, store=store, refine=4)
    assert len(list(on_disk.Store(store).grid.tiles())) > 4
    assert_same(refined, whole, KEPT)
    assert 0 < refined.attrs["evaluated"] < 1
    assert xr.open_zarr(store).attrs["config"]["refine"] == 4
    for k in (1, 2):
        parts = ej.sweep("deception", axes, store=tmp_path / "parts.zarr", refine=4, part=(k, 2))
    assert_same(parts, whole, KEPT)
    with pytest.raises(ValueError, match="refine: stored 4, asked None"):
        ej.sweep("deception", axes, store=store, variables=KEPT)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"refine": 0}, "refine cuts blocks in two 1 to 10 times; got 0"),
        ({"refine": 3, "variables": ["phase", "margin"]}, "cells that refinement fills have no margin"),
    ],
)
def test_refinements_that_cannot_be_are_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        ej.sweep("sycophancy", {"p_agree": [0.0, 1.0]}, {"p_honest": 0.5}, **asked)
