"""What is typed on the command line: text to models, axes, settings and priors; what is none is refused in a line."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any


def model_of(name: str) -> tuple[str, Callable[..., Any]]:
    """A built-in model, or `build` from path/to/file.py:build, whose every error becomes one that says where."""
    path, colon, function = name.rpartition(":")
    if not colon or not path.endswith(".py"):
        from epijax.models import MODELS
        from epijax.sweeps import nearest

        if name.endswith(".py"):
            raise ValueError(f"{name} is a file; name its function too, as in {name}:build")
        if name not in MODELS:
            raise ValueError(f"there is no model {name!r}; {nearest(name, MODELS)}")
        return name, MODELS[name].build
    import importlib.util

    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None or spec.loader is None or not Path(path).is_file():
        raise ValueError(f"there is no Python file {path}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ValueError(_blame(path, error)) from error
    if not callable(getattr(module, function, None)):
        raise ValueError(f"{path} has no function {function!r}")
    return f"{Path(path).resolve()}:{function}", _blamed(path, getattr(module, function))


def _blamed(path: str, build: Callable[..., Any]) -> Callable[..., Any]:
    from functools import wraps

    @wraps(build)
    def problem(*args: Any, **kwargs: Any) -> Any:
        try:
            return build(*args, **kwargs)
        except Exception as error:
            raise ValueError(_blame(path, error)) from error

    return problem


def _blame(path: str, error: Exception) -> str:
    """Where in the user's file the error arose, and which it is; with advice where JAX's tracing is the cause."""
    import traceback

    from jax.errors import JAXTypeError

    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    told = (str(error).splitlines() or [""])[0].rstrip(".")
    advice = "; maps are traced by JAX: choose by jnp.where, not by if, and do not call float()"
    advice = advice if isinstance(error, JAXTypeError) else ""
    return f"{path}{'' if line is None else f', line {line}'}: {type(error).__name__}: {told}{advice}"


def short_name(name: str) -> str:
    """A name for files: the model's, or of a user's own the function's, the file's where that is just `build`."""
    path, _, function = name.rpartition(":")
    return Path(path).stem if function == "build" else function


def once(pairs: Iterable[tuple[str, Any]], option: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"{key} is given twice; drop one {option}")
        values[key] = value
    return values


def settings_of(settings: tuple[str, ...]) -> dict[str, float]:
    return once(map(setting_of, settings), "--set")


def setting_of(text: str) -> tuple[str, float]:
    key, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"a value is given as NAME=VALUE; got {text!r}")
    try:
        return key.strip(), float(value)
    except ValueError:
        raise ValueError(f"{key.strip()} must be a number; got {value!r}") from None


def spans_of(text: str, option: str) -> dict[str, tuple[float, float] | None]:
    """NAME=A:B, and NAME for one without a range, with commas between them."""

    def span(part: str) -> tuple[str, tuple[float, float] | None]:
        key, equals, ends = part.partition("=")
        if not key.strip():
            raise ValueError(f"{option} takes NAME=A:B, as in upper=0:1, with commas between them; got {text!r}")
        if not equals:
            return key.strip(), None
        try:
            low, high = map(float, ends.split(":"))
        except ValueError:
            raise ValueError(f"{option} takes NAME=A:B, as in upper=0:1; got {part!r}") from None
        return key.strip(), (low, high)

    return once(map(span, text.split(",")), option)


def axis_of(text: str, size: int | None) -> tuple[str, Any]:
    key, equals, values = text.partition("=")
    if not equals:
        raise ValueError(
            f"--axis takes NAME=START:STOP:NUM{'' if size is None else ' or NAME=START:STOP'}; got {text!r}"
        )
    from epijax.sweeps.jobfile import span

    return key.strip(), span(key.strip(), values, size)


def prior_of(text: str | None) -> tuple[str, dict[str, float]]:
    """The name of a prior and its numbers, by name; those without one in their order."""
    from epijax.priors import PRIORS, parameters_of
    from epijax.sweeps import nearest

    name, colon, rest = (text or "uniform").partition(":")
    more = ["points", "dirichlet"]
    if name not in PRIORS and name not in more:
        raise ValueError(f"there is no prior {name!r}; {nearest(name, [*PRIORS, *more])}")
    parts = rest.split(",") if colon else []
    if name in ("weights", "dirichlet"):
        known, takes = [str(i) for i in range(1, len(parts) + 1)], f"numbers alone, as in {name}:1,3"
    elif name == "points":
        known, takes = [], "θ=weight, as in points:0.3=1,0.7=2"
    else:
        known = parameters_of(name)
        takes = ", ".join(known) or "no numbers"
    pairs = []
    for i, part in enumerate(parts):
        left, equals, right = (text.strip() for text in part.rpartition("="))
        if name == "points":
            fits = bool(equals)
        else:
            fits = left in known and name in PRIORS and name != "weights" if equals else i < len(known)
        if not fits:
            raise ValueError(f"{name} takes {takes}; got {rest!r}")
        try:
            pairs.append((left if equals else known[i], float(right)))
        except ValueError:
            raise ValueError(f"--prior {name}: each of its numbers must be a number; got {right!r}") from None
    return name, once(pairs, f"from --prior {name}")


def log_prior_of(model: Any, name: str, given: dict[str, float], num: int, learners: int, key: Any) -> tuple[Any, Any]:
    """Parameters, where they are no grid, and log weights: one prior for all, or one each."""
    import jax
    import numpy as np

    import epijax as ej
    from epijax.priors import PRIORS, parameters_of

    if name == "points":
        try:
            theta = np.array([[float(place)] for place in given])
        except ValueError:
            raise ValueError(f"points takes θ=weight, as in points:0.3=1,0.7=2; got θ {', '.join(given)}") from None
        if not given or (weights := np.array(list(given.values()))).min() < 0 or not weights.any():
            raise ValueError("points takes θ=weight, as in points:0.3=1,0.7=2, weights not negative and not all zero")
        with np.errstate(divide="ignore"):
            return theta, np.log(weights)
    if name == "dirichlet":
        count = len(model.outcome_probs) if isinstance(model, ej.Finite) else num ** len(model.lower)
        concentration = list(given.values()) if len(given) == count else list(given.values()) * count
        if len(given) not in (1, count):
            raise ValueError(f"dirichlet takes one concentration, or {count}; got {len(given)}")
        return None, ej.priors.dirichlet(jax.random.fold_in(key, 1), concentration, learners)
    if name == "weights":
        return None, ej.priors.weights(model, *given.values())
    missing = [parameter for parameter in parameters_of(name) if parameter not in given]
    if missing:
        raise ValueError(f"{name} takes {', '.join(parameters_of(name))}, as in {name}:2,5; {missing[0]} is missing")
    return None, PRIORS[name](model, **given, num=num)


def part_of(text: str) -> tuple[int, int]:
    k, slash, n = text.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal()):
        raise ValueError(f"--part takes K/N, as in 3/64; got {text!r}")
    return int(k), int(n)


def formats_of(text: str) -> list[str]:
    suffixes = [part.strip().lower() for part in text.split(",")]
    for suffix in suffixes:
        if suffix not in ("png", "svg", "pdf"):
            raise ValueError(f"pictures are png, svg or pdf; got {suffix!r}")
    return suffixes
