"""Finite problems from files: games of Gambit in .nfg, tables in .json and .npz, read exactly (theory §2)."""

import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from math import inf, isfinite
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, NoReturn
from zipfile import BadZipFile

import numpy as np

from epijax.problem import FiniteProblem

SUFFIXES = (".nfg", ".json", ".npz")
KEYS = ("utility", "divergence", "log_prior", "actions", "unsafe")

Table = list[list[Fraction]]
Divergences = list[list[Fraction | float]]  # a float only where it is inf


def read_problem(path: str | PathLike[str]) -> FiniteProblem:
    """The finite problem in a file, by its suffix.

    - `.nfg`: a game (A, B) of two players in Gambit's strategic form, read as U = A and
      K(x, θ) = max_θ′ B(x, θ′) − B(x, θ), which has the same best responses. The first player's strategies are the
      actions.
    - `.json`: an object with `utility` and `divergence`, lists of rows, and perhaps `log_prior`, `actions` and
      `unsafe`, as in `FiniteProblem`. An infinite divergence is `"inf"` or `Infinity`; a string may be a fraction.
    - `.npz`: arrays of the same names.

    Raises `ValueError` for a file that is none of these, naming the line or the entry that is wrong.
    """
    found = _read(Path(path))
    return FiniteProblem(
        _floats(path, "utility", found.utility),
        _floats(path, "divergence", found.divergence),
        None if found.log_prior is None else _floats(path, "log_prior", [found.log_prior])[0],
        found.actions,
        found.unsafe,
    )


def read_tables(path: str | PathLike[str]) -> tuple[Table, Divergences]:
    """Utility and divergence of the problem in a file, exactly: decimals as they are written, floats as they are."""
    found = _read(Path(path))
    return found.utility, found.divergence


class _Found(NamedTuple):
    utility: Table
    divergence: Divergences
    log_prior: list[Fraction] | None = None
    actions: list[str] | None = None
    unsafe: list[bool] | None = None


def _read(path: Path) -> _Found:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: problems are read from files that end in {', '.join(SUFFIXES)}")
    if not path.exists():
        raise ValueError(f"there is no file {path}")
    if suffix == ".npz":
        return _found(path, _arrays(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8: {error.reason} at byte {error.start}") from error
    return _Game(path, text).read() if suffix == ".nfg" else _found(path, _object(path, text))


def _floats(path: str | PathLike[str], name: str, rows: list[list[Fraction]] | Divergences) -> np.ndarray:
    for x, row in enumerate(rows):
        for i, value in enumerate(row):
            try:
                float(value)
            except OverflowError:
                raise ValueError(f"{path}: {name}[{x}][{i}] is too large for a float; scale it down") from None
    return np.array([[float(value) for value in row] for row in rows])


# Numbers


_NUMBER = re.compile(r"[+-]?(\d+/\d+|(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?)", re.ASCII)
_MOST_DIGITS = 9999  # before or after the point: a short text must not become an endless number


def _rational(text: str) -> Fraction | None:
    """An integer, decimal or fraction; `None` where it is none."""
    if not _NUMBER.fullmatch(text):
        return None
    top, _, bottom = text.partition("/")
    over, under = _exact(Decimal(top)), _exact(Decimal(bottom or 1))
    return over / under if over is not None and under else None


def _exact(value: Decimal) -> Fraction | None:
    return Fraction(value) if value.is_finite() and (not value or abs(value.adjusted()) <= _MOST_DIGITS) else None


def _literal(text: str) -> Decimal | str:
    return Decimal(text) if _NUMBER.fullmatch(text) else text  # what stays text has too large an exponent


def _number(value: Any) -> Fraction | float | None:
    """An entry of a table: exact, or ±inf; `None` where it is no number."""
    if isinstance(value, Decimal):
        return _exact(value)
    if isinstance(value, str):
        infinite = {"inf": inf, "infinity": inf, "-inf": -inf, "-infinity": -inf}
        return infinite.get(value.lower().removeprefix("+"), _rational(value))
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    return Fraction(value) if isfinite(value) else value


# Tables with names


def _object(path: Path, text: str) -> Mapping[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        for key, times in Counter(key for key, _ in pairs).items():
            if times > 1:
                raise ValueError(f"{path}: {key!r} is given {times} times; keep one")
        return dict(pairs)

    try:
        found = json.loads(text, parse_float=_literal, parse_int=_literal, parse_constant=str, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}, at column {error.colno}") from error
    except RecursionError:
        raise ValueError(f"{path}: lists stand in lists without end; a table is a list of rows") from None
    if not isinstance(found, dict):
        raise ValueError(f'{path} must be one object, {{"utility": [[…]], "divergence": [[…]]}}')
    return found


def _arrays(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is one array without a name")
            return {key: archive[key].tolist() for key in archive.files}
    except (ValueError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is no archive of arrays as np.savez writes them ({error})") from error


def _found(path: Path, data: Mapping[str, Any]) -> _Found:
    for key in data:
        if key not in KEYS:
            raise ValueError(f"{path}: {key!r} is not known; the keys are {', '.join(KEYS)}")
    for key in ("utility", "divergence"):
        if key not in data:
            raise ValueError(f"{path} has no {key}; give a row for each action, an entry for each parameter")
    utility = [list(_finite(path, row)) for row in _rows(path, "utility", data["utility"])]
    divergence = [list(_nats(path, row)) for row in _rows(path, "divergence", data["divergence"])]
    shape, other = [(len(table), len(table[0])) for table in (utility, divergence)]
    if shape != other:
        told = [f"{name} is {n} by {k}" for name, (n, k) in (("utility", shape), ("divergence", other))]
        raise ValueError(f"{path}: {', '.join(told)}; make them the same")
    prior = _list(path, data, "log_prior", shape[1], "parameter")
    return _Found(
        utility,
        divergence,
        None if prior is None else list(_finite(path, {f"log_prior[{i}]": value for i, value in enumerate(prior)})),
        _typed(path, "actions", _list(path, data, "actions", shape[0], "action"), str, "a name in quotation marks"),
        _typed(path, "unsafe", _list(path, data, "unsafe", shape[0], "action"), bool, "true or false"),
    )


def _rows(path: Path, name: str, table: Any) -> list[dict[str, Any]]:
    """The rows of a table, each from where an entry stands to the entry."""
    if not isinstance(table, list) or not table or not all(isinstance(row, list) and row for row in table):
        raise ValueError(f"{path}: {name} must be a list of rows, one an action, each with an entry for each parameter")
    for x, row in enumerate(table):
        if len(row) != len(table[0]):
            raise ValueError(
                f"{path}: {name}[{x}] has {len(row)} entries, {name}[0] has {len(table[0])}; "
                f"every row needs one for each parameter"
            )
    return [{f"{name}[{x}][{k}]": entry for k, entry in enumerate(row)} for x, row in enumerate(table)]


def _finite(path: Path, entries: Mapping[str, Any]) -> Iterator[Fraction]:
    for where, entry in entries.items():
        value = _number(entry)
        if not isinstance(value, Fraction):
            raise ValueError(f"{path}: {where} is {_shown(entry)}; it must be a finite number")
        yield value


def _nats(path: Path, entries: Mapping[str, Any]) -> Iterator[Fraction | float]:
    for where, entry in entries.items():
        value = _number(entry)
        if value is None or value < 0:
            raise ValueError(
                f"{path}: {where} is {_shown(entry)}; a divergence must be a non-negative number, in nats, "
                f'or "inf" where the action refutes the parameter'
            )
        yield value


def _list(path: Path, data: Mapping[str, Any], key: str, length: int, of: str) -> list[Any] | None:
    values = data.get(key)
    if values is not None and (not isinstance(values, list) or len(values) != length):
        raise ValueError(f"{path}: {key} must be a list with one entry for each of the {length} {of}s")
    return values


def _typed(path: Path, name: str, values: list[Any] | None, kind: type, wanted: str) -> list[Any] | None:
    for i, value in enumerate(values or []):
        if not isinstance(value, kind):
            raise ValueError(f"{path}: {name}[{i}] is {_shown(value)}; it must be {wanted}")
    return values


def _shown(entry: Any) -> str:
    text = str(entry) if isinstance(entry, Decimal) else json.dumps(entry, default=str, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:40]}…"


# Gambit's strategic form


class _Token(NamedTuple):
    text: str
    line: int


class _Game:
    """A reader of .nfg: `NFG 1 R "title" {players} {strategies} "comment"`, then payoffs, or outcomes and indices.

    Whitespace and commas only separate. The first player's strategy goes round fastest.
    """

    _TOKEN = re.compile(r'"(?:\\"|\\(?!")|[^"\\])*"|[{}"]|[^\s{},"]+')

    def __init__(self, path: Path, text: str):
        self._path, self._next, self._tokens = path, 0, []
        line, last = 1, 0
        for match in self._TOKEN.finditer(text):
            line, last = line + text.count("\n", last, match.start()), match.start()
            self._tokens.append(_Token(match[0], line))
        self._tokens.append(_Token("", line))  # the end

    def read(self) -> _Found:
        for wanted in (("NFG",), ("1",), ("R", "D")):
            if self._text not in wanted:
                self._fail('a game in strategic form, which begins with NFG 1 R "title"')
            self._next += 1
        self._string("the title in quotation marks")
        self._players()
        names, shape = self._strategies()
        if self._text.startswith('"'):
            self._string("a comment in quotation marks")
        pairs = list(self._outcomes(shape) if self._text == "{" else self._payoffs(shape))
        if self._text:
            self._fail(f"the end, after the {shape[0] * shape[1]} pairs of strategies")
        own, other = ([[pairs[x + shape[0] * k][i] for k in range(shape[1])] for x in range(shape[0])] for i in (0, 1))
        return _Found(own, [[max(row) - value for value in row] for row in other], actions=names)

    @property
    def _text(self) -> str:
        return self._tokens[self._next].text

    def _fail(self, wanted: str) -> NoReturn:
        got = " ".join(self._text.split())[:40] or "the end of the file"
        if got == '"':
            wanted, got = "a second quotation mark", "none"
        raise ValueError(f"{self._path}, line {self._tokens[self._next].line}: expected {wanted}; got {got}")

    def _take(self, text: str, wanted: str) -> None:
        if self._text != text:
            self._fail(wanted)
        self._next += 1

    def _string(self, wanted: str) -> str:
        text = self._text
        if len(text) < 2 or not text.startswith('"'):
            self._fail(wanted)
        self._next += 1
        return text[1:-1].replace('\\"', '"')

    def _payoff(self, wanted: str) -> Fraction:
        value = _rational(self._text)
        if value is None:
            self._fail(f"{wanted}, a number such as 2, -0.5, 1e-3 or 1/3")
        self._next += 1
        return value

    def _whole(self, least: int, most: int, wanted: str) -> int:
        text = self._text
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not least <= int(text) <= most:
            self._fail(wanted)
        self._next += 1
        return int(text)

    def _strings(self, what: str) -> list[str]:
        self._take("{", f"{what} in braces")
        found = []
        while self._text != "}":
            found.append(self._string(f"one of {what} in quotation marks, or a closing brace"))
        self._next += 1
        return found

    def _players(self) -> None:
        line = self._tokens[self._next].line
        count = len(self._strings("the names of the players"))
        if count != 2:
            raise ValueError(
                f"{self._path}, line {line}: the game has {count} players; a finite problem is a game of two, "
                f"one who acts and one who believes"
            )

    def _strategies(self) -> tuple[list[str] | None, tuple[int, int]]:
        """The first player's labels, if there are any, and how many strategies each has."""
        self._take("{", "the strategies of both players in braces")
        if self._text != "{":
            rows, columns = (
                self._whole(1, 999_999_999, f"how many strategies player {i} has, at least 1") for i in (1, 2)
            )
            self._take("}", "a closing brace after two numbers of strategies")
            return None, (rows, columns)
        own, other = (self._labels(i) for i in (1, 2))
        self._take("}", "a closing brace after the strategies of two players")
        return [label or f"action {x}" for x, label in enumerate(own)], (len(own), len(other))

    def _labels(self, player: int) -> list[str]:
        labels = self._strings(f"the strategies of player {player}")
        if not labels:
            self._next -= 1
            self._fail(f"at least one strategy of player {player}")
        return labels

    def _payoffs(self, shape: tuple[int, int]) -> Iterator[tuple[Fraction, Fraction]]:
        for where in self._profiles(shape):
            own, other = (self._payoff(f"the payoff of player {i} at {where}") for i in (1, 2))
            yield own, other

    def _outcomes(self, shape: tuple[int, int]) -> Iterator[tuple[Fraction, Fraction]]:
        self._next += 1
        outcomes = [(Fraction(0), Fraction(0))]
        while self._text != "}":
            label = f"outcome {len(outcomes)}"
            self._take("{", f"{label} in braces, or a closing brace")
            self._string(f"a name of {label}, be it empty, in quotation marks")
            own, other = (self._payoff(f"the payoff of player {i} in {label}") for i in (1, 2))
            outcomes.append((own, other))
            self._take("}", f"a closing brace after two payoffs of {label}")
        self._next += 1
        most = len(outcomes) - 1
        for where in self._profiles(shape):
            yield outcomes[self._whole(0, most, f"the outcome at {where}, a whole number from 0 to {most}")]

    @staticmethod
    def _profiles(shape: tuple[int, int]) -> Iterator[str]:
        return (f"strategies {x} and {k}" for k in range(1, shape[1] + 1) for x in range(1, shape[0] + 1))
