"""Prior weights on the parameters of a model: what the support says nothing about, and learning turns on (theory §7).

Each gives log weights `[K]` for `ej.simulate`, over `num` points a dimension of the model's box, as `ej.tabulate` has
them; a point weighs what its part of the box does, half of that at an end. Of a list of parameters only `weights`.
"""

import inspect
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from epijax.environment import Numbers, as_float, is_concrete
from epijax.subjective import BoxModel, Finite, SubjectiveModel

NUM = 65  # points a dimension unless another number is asked for


def uniform(model: SubjectiveModel, num: int = NUM) -> Float[Array, "K"]:
    """The same for all: over a box by its volume, over a list by number."""
    if isinstance(model, Finite):
        return jnp.full(len(model.outcome_probs), -jnp.log(len(model.outcome_probs)))
    return _product(_box(model), num, _flat)


def beta(model: SubjectiveModel, a: Numbers, b: Numbers, num: int = NUM) -> Float[Array, "K"]:
    """Beta(a, b) over the box's width, of each parameter by itself; a and b are positive, one number or `[D]`."""
    a, b = _positive(model, a=a, b=b)
    return _product(_box(model), num, _beta, a, b)


def normal(model: SubjectiveModel, mean: Numbers, std: Numbers, num: int = NUM) -> Float[Array, "K"]:
    """Normal in θ, cut off at the bounds; of each parameter by itself; `mean` and a positive `std` are one or `[D]`."""
    (std,), (mean,) = _positive(model, std=std), _numbers(model, mean=mean)
    return _product(_box(model), num, _normal, mean, std)


def tilt(model: SubjectiveModel, slope: Numbers, num: int = NUM) -> Float[Array, "K"]:
    """The uniform prior tilted, ∝ exp(slope · share) with the share of the way from lower to upper; one or `[D]`."""
    (slope,) = _numbers(model, slope=slope)
    return _product(_box(model), num, _tilted, slope)


def weights(model: SubjectiveModel, *given: ArrayLike) -> Float[Array, "K"]:
    """Weights of one's own, one a parameter or a point of the grid, in its order; not all zero, need not sum to one.

    Raises `ValueError` for a negative weight, none that is positive, or a number of them that a list does not have.
    """
    each = jnp.stack([as_float(weight) for weight in given]) if given else jnp.zeros(0)
    if isinstance(model, Finite) and len(each) != len(model.outcome_probs):
        raise ValueError(f"the model lists {len(model.outcome_probs)} parameters; got {len(each)} weights")
    if is_concrete(each) and not ((np.asarray(each) >= 0).all() and np.asarray(each).any()):
        raise ValueError("weights must not be negative, nor all zero")
    return jnp.log(each) - jnp.log(jnp.sum(each))


def dirichlet(key: Array, concentration: Numbers, learners: int) -> Float[Array, "L K"]:
    """A prior for each learner, its weights drawn from Dirichlet(concentration): log weights `[learners, K]`.

    **Arguments:** `concentration`: `[K]`, positive.
    """
    concentration = as_float(concentration)
    if is_concrete(concentration) and not (np.asarray(concentration) > 0).all():
        raise ValueError("concentration must be positive")
    gammas = jax.random.loggamma(key, concentration, (learners, len(concentration)))
    return jax.nn.log_softmax(gammas, axis=1)


PRIORS: dict[str, Callable[..., Float[Array, "K"]]] = {
    "uniform": uniform,
    "beta": beta,
    "normal": normal,
    "tilt": tilt,
    "weights": weights,
}


def parameters_of(name: str) -> list[str]:
    """The parameters of a named prior that are numbers; none for one that takes any number of them."""
    kinds = inspect.signature(PRIORS[name]).parameters
    return [
        key for key, kind in kinds.items() if key not in ("model", "num") and kind.kind is kind.POSITIONAL_OR_KEYWORD
    ]


def check_prior(log_prior: np.ndarray) -> None:
    """Raises `ValueError` unless each row of `[L, K]` weighs some parameter, and none infinitely."""
    if np.isnan(log_prior).any() or (log_prior == np.inf).any() or (log_prior == -np.inf).all(axis=1).any():
        raise ValueError("log_prior must be log weights: numbers or −∞, and above −∞ for some parameter")


def _flat(box: BoxModel, share: Array) -> Array:
    return 0 * share


def _beta(box: BoxModel, share: Array, a: Array, b: Array) -> Array:
    return (a - 1) * jnp.log(share) + (b - 1) * jnp.log1p(-share)


def _normal(box: BoxModel, share: Array, mean: Array, std: Array) -> Array:
    return -(((box.lower + (box.upper - box.lower) * share - mean) / std) ** 2) / 2


def _tilted(box: BoxModel, share: Array, slope: Array) -> Array:
    return slope * share


@eqx.filter_jit
def _product(box: BoxModel, num: int, log_density: Callable, *numbers: Array) -> Float[Array, "K"]:
    """The normalised product over dimensions of densities: their logarithms `[D]` at a share `[D]` of the box."""
    if num < 2:
        raise ValueError(f"num must be at least 2 points a dimension; got {num}")
    dims, step = len(box.lower), 1 / (num - 1)
    centre = np.clip(np.linspace(0, 1, num), step / 4, 1 - step / 4)  # an end has half a part of its own
    width = np.where((np.arange(num) == 0) | (np.arange(num) == num - 1), 0.5, 1.0)
    each = jax.vmap(lambda share, part: log_density(box, jnp.full(dims, share), *numbers) + jnp.log(part))(
        as_float(centre), as_float(width)
    )
    total = jnp.zeros(())
    for d in range(dims):
        total = total[..., None] + each[:, d]
    return jax.nn.log_softmax(total.reshape(-1))


def _box(model: SubjectiveModel) -> BoxModel:
    if isinstance(model, Finite):
        raise ValueError("a list of parameters has no coordinates; weigh them by priors.weights")
    return model


def _numbers(model: SubjectiveModel, **given: Numbers) -> list[Array]:
    """Each a number, or one for each of the model's parameters."""
    numbers = {name: as_float(value) for name, value in given.items()}
    for name, value in numbers.items():
        if value.shape not in ((), (dims := _box(model).lower.shape)):
            raise ValueError(f"{name} must be one number, or {dims[0]}, one for each parameter; got {given[name]}")
        if is_concrete(value) and not np.isfinite(np.asarray(value)).all():
            raise ValueError(f"{name} must be finite; got {given[name]}")
    return list(numbers.values())


def _positive(model: SubjectiveModel, **given: Numbers) -> list[Array]:
    for name, value in given.items():
        if is_concrete(value) and not (np.asarray(value) > 0).all():
            raise ValueError(f"{name} must be positive; got {value}")
    return _numbers(model, **given)
