"""The judge itself: it imports nothing of what it judges, and agrees with the golden problems."""

import subprocess
import sys

import numpy as np
import pytest

from epijax import reference

LOADED = """
import sys
import epijax.reference
mine = {name for name in sys.modules if name.partition(".")[0] in ("epijax", "jax", "jaxlib", "jaxtyping", "equinox")}
assert mine == {"epijax", "epijax.reference"}, mine
"""


def test_it_imports_neither_jax_nor_a_sibling():
    subprocess.run([sys.executable, "-c", LOADED], check=True)


def test_golden(golden):
    chosen = [entry for entry in golden if len(entry["utility"]) == 2]
    assert len(chosen) == 44
    for entry in chosen:
        answer = reference.finite(entry["utility"], entry["divergence"], unsafe=(True, False))
        assert answer.rationalizable.tolist() == entry["rationalizable"], entry
        assert answer.pure.tolist() == entry["pure_equilibria"], entry
        assert answer.status == ("solved" if entry["margin"] > 0 else "boundary"), entry
        if entry["kind"] == "regular":
            found = np.concatenate([np.eye(2)[answer.pure], answer.mixed])
            expected = np.array(entry["equilibria"])
            assert found.shape == expected.shape, entry
            np.testing.assert_allclose(np.sort(found[:, 1]), np.sort(expected[:, 1]), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("p_agree", "p_honest", "name"), [
    (0.7, 0.8, "multistable"),
    (0.7, 0.2, "locked_in"),
    (0.3, 0.8, "safe"),
    (0.3, 0.2, "oscillatory"),
    (0.5, 0.8, "boundary"),
])  # fmt: skip
def test_the_four_phases_by_hand(p_agree, p_honest, name):
    """θ̂ = ½; agreeing teaches p_S, honesty 1 − p_H."""
    truth = [[1 - p_agree, p_agree], [1 - p_honest, p_honest]]
    answer = reference.affine_bernoulli(truth, [[0, 1], [0, 1]], [0, 1], [1, -1], 0, 1, unsafe=(True, False))
    assert answer.phase == name
    if name in ("multistable", "oscillatory"):
        share = (p_honest - 0.5) / (p_agree + p_honest - 1)
        np.testing.assert_allclose(answer.mixed, [[share, 1 - share]], rtol=0, atol=1e-12)


def test_an_action_that_no_single_play_justifies():
    """Each parameter that favours action 1 fits some play, none fits where another does: a table by hand."""
    answer = reference.finite([[1, 0, 1], [0, 1, 0]], [[0, 1.01, 2], [2, 1.01, 0]], unsafe=(False, True))
    assert answer.rationalizable.tolist() == [True, False] and answer.phase == "safe"


@pytest.mark.parametrize(("call", "message"), [
    (lambda: reference.finite(np.eye(3), np.eye(3), unsafe=(1, 0, 0)), "two actions only; got 3"),
    (lambda: reference.finite(np.eye(2), -np.eye(2), unsafe=(1, 0)), "divergence must be >= 0"),
    (lambda: reference.finite(np.eye(2), np.eye(2), unsafe=(1,)), "one entry per action"),
    (lambda: reference.divergence([[0.5, 0.6]], [[0.5, 0.5]]), "sum to 1"),
    (lambda: reference.project([[0.5, 0.5]] * 2, [0, 1], [1, -1], 1, 0, [1, 0]), "lower <= upper"),
    (lambda: reference.project([[0.5, 0.5]] * 2, [0, 1], [1, -1], 0, 0, [1, 0]), "refutes every parameter"),
])  # fmt: skip
def test_what_is_wrong_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
