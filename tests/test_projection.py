"""The one KL divergence: the textbook sum, zeros and infinities, and accuracy where belief and truth nearly agree."""

from decimal import Decimal, localcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr

import epijax as ej

LN2 = np.log(2)


def exact(truth: np.ndarray, model: np.ndarray) -> Decimal:
    """Σ [Q ln Q/q − Q + q] of the very floats given, to fifty digits; for rows that sum to one it is Σ Q ln Q/q."""
    with localcontext() as context:
        context.prec = 50
        total = Decimal(0)
        for q, m in zip(truth, model, strict=True):
            q, m = Decimal(float(q)), Decimal(float(m))
            total += (q * (q / m).ln() if q else 0) - q + m
        return total


def relative_error(found, truth, model) -> float:
    right = exact(truth, model)
    return abs(float((Decimal(float(found)) - right) / right))


def rows(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]) / 2, shape[:-1])


@pytest.mark.parametrize("num", [2, 3, 8])
def test_the_textbook_sum(num):
    truth, model = rows(1, (500, num)), rows(2, (500, num))
    found = ej.kl_divergence(truth, model)
    assert found.shape == (500,)
    np.testing.assert_allclose(found, rel_entr(truth, model).sum(-1), rtol=1e-9, atol=1e-14)


def test_to_the_last_digits():
    truth, model = rows(3, (200, 4)), rows(4, (200, 4))
    for q, m, found in zip(truth, model, np.asarray(ej.kl_divergence(truth, model)), strict=True):
        assert relative_error(found, q, m) < 2e-14


@pytest.mark.parametrize("misfit", [0.3, 0.1, 1e-2, 1e-3, 1e-5, 1e-7, 1e-9])
@pytest.mark.parametrize("p", [1e-6, 0.01, 0.3, 0.5, 0.99])
def test_a_tiny_misfit_is_accurate(p, misfit):
    """A relative misfit δ costs about δ²/2 nats, far below the rounding of the logarithms themselves."""
    truth = np.array([1 - p, p])
    for sign in (1, -1):
        moved = p * (1 + sign * misfit) if p < 0.5 else 1 - (1 - p) * (1 + sign * misfit)
        model = np.array([1 - moved, moved])
        assert relative_error(ej.kl_divergence(truth, model), truth, model) < 1e-13


@pytest.mark.parametrize("misfit", [0.3, 0.1, 1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("p", [0.01, 0.3, 0.5, 0.99])
def test_a_tiny_misfit_is_accurate_in_single_precision(p, misfit):
    truth = np.array([1 - p, p], np.float32)
    moved = p * (1 + misfit) if p < 0.5 else 1 - (1 - p) * (1 + misfit)
    model = np.array([1 - moved, moved], np.float32)
    with jax.enable_x64(False):
        found = ej.kl_divergence(jnp.asarray(truth), jnp.asarray(model))
        assert found.dtype == np.float32
    assert relative_error(found, truth, model) < 1e-5


@pytest.mark.parametrize(("dtype", "worst"), [("float64", 1e-14), ("float32", 1e-5)])
@pytest.mark.parametrize("p", [1e-3, 1e-6, 1e-9, 1e-12, 1e-17, 1e-30])
def test_what_is_all_but_excluded_is_not_excluded(p, dtype, worst):
    """The outcome happens every other time and is believed to have probability p: finite, about −½ ln p."""
    truth, model = np.array([0.5, 0.5], dtype), np.array([p, 1], dtype)
    with jax.enable_x64(dtype == "float64"):
        found = ej.kl_divergence(jnp.asarray(truth), jnp.asarray(model))
    assert np.isfinite(found)
    assert relative_error(found, truth, model) < worst


def test_both_formulas_meet_where_one_takes_over_from_the_other():
    ratio = np.concatenate([np.linspace(0.0999, 0.1001, 41), -np.linspace(0.0999, 0.1001, 41)])
    truth = np.full((82, 2), 0.5)
    model = np.stack([0.5 * (1 + ratio), 0.5 * (1 - ratio)], -1)
    for q, m, found in zip(truth, model, np.asarray(ej.kl_divergence(truth, model)), strict=True):
        assert relative_error(found, q, m) < 1e-13


@pytest.mark.parametrize(
    ("truth", "model", "nats"),
    [
        ([0.0, 1.0], [0.0, 1.0], 0.0),
        ([0.0, 1.0], [0.5, 0.5], LN2),  # what never happens contributes nothing
        ([1.0, 0.0], [0.5, 0.5], LN2),
        ([0.5, 0.5], [0.0, 1.0], np.inf),  # what is excluded happens
        ([0.5, 0.5], [1.0, 0.0], np.inf),
        ([1.0, 0.0], [0.0, 1.0], np.inf),
        ([0.2, 0.0, 0.8], [0.2, 0.0, 0.8], 0.0),
        ([0.5, 0.5, 0.0], [0.25, 0.25, 0.5], LN2),
        ([1e-300, 1.0], [0.5, 0.5], LN2),
        ([0.5, 0.5], [1e-300, 1.0], 0.5 * np.log(0.5 / 1e-300) + 0.5 * np.log(0.5)),
    ],
)
def test_zeros_and_infinities(truth, model, nats):
    np.testing.assert_allclose(ej.kl_divergence(truth, model), nats, rtol=1e-12, atol=0)


def test_each_row_on_its_own():
    truth = np.array([[0.5, 0.5], [1.0, 0.0]])
    model = np.array([[[0.5, 0.5], [0.5, 0.5]], [[0.0, 1.0], [1.0, 0.0]], [[0.9, 0.1], [0.0, 1.0]]])
    together = np.asarray(ej.kl_divergence(truth, model))
    assert together.shape == (3, 2)
    for index in np.ndindex(3, 2):
        np.testing.assert_array_equal(together[index], ej.kl_divergence(truth[index[1]], model[index]))


def test_the_gradient():
    """∂/∂q_y of Σ [Q ln Q/q − Q + q] is 1 − Q/q, also at a truth of zero or one."""
    for truth in ([0.3, 0.7], [0.0, 1.0], [1.0, 0.0], [0.25, 0.75]):
        slopes = jax.grad(ej.kl_divergence, 1)(jnp.array(truth), jnp.array([0.25, 0.75]))
        np.testing.assert_allclose(slopes, 1 - np.array(truth) / [0.25, 0.75], rtol=1e-12, atol=1e-15)


weight = st.one_of(st.just(0.0), st.floats(1e-200, 1))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(2, 6).flatmap(lambda num: st.lists(st.tuples(weight, weight), min_size=num, max_size=num)))
def test_never_negative_and_zero_only_for_the_truth(drawn):
    weights = np.array(drawn).T
    assume((weights.sum(axis=1) > 1e-3).all())
    truth, model = weights / weights.sum(axis=1, keepdims=True)
    nats = float(ej.kl_divergence(truth, model))
    assert nats >= 0
    assert (nats == np.inf) == bool(((truth > 0) & (model == 0)).any())
    assert float(ej.kl_divergence(truth, truth)) == 0
    if np.abs(truth - model).max() > 1e-6:
        assert nats > 0
