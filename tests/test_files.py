"""Problems from files: what each format says, exactly, and one line that names what is wrong with it."""

import json
from fractions import Fraction
from math import inf

import jax
import numpy as np
import pytest

import epijax as ej

THIRD = Fraction(1, 3)
# own payoffs [[2, 1/3], [0, 1.5], [-1, 0]], the other's [[1, 0.25], [0, 0], [2e-1, 4]]
PAYOFFS = """NFG 1 R "title" { "row" "column" }
{ 3 2 }
2 1 0 0 -1 2e-1
1/3 .25 1.5 0 0 4
"""
OUTCOMES = r"""NFG 1 R "a \"game\"" { "row" "column" } { { "up" "mid \"1\"" "" } { "l" "r" } }
"a comment
of two lines"
{ { "" 2, 1 } { "" -1.0 .2 } { "b" 1/3, 2.5E-1 } { "" +1.5, 0 } { "" 0, 4 } }
1 0 2
3 4 5
"""
UTILITY = [[2, THIRD], [0, Fraction(3, 2)], [-1, 0]]
DIVERGENCE = [[0, Fraction(3, 4)], [0, 0], [Fraction(19, 5), 0]]


def write(tmp_path, text, suffix=".nfg"):
    path = tmp_path / f"game{suffix}"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("text", [PAYOFFS, OUTCOMES, "\ufeff" + " ".join(PAYOFFS.split()).replace("R", "D")])
def test_a_game_of_gambit_is_read_exactly(tmp_path, text):
    path = write(tmp_path, text)
    assert ej.read_tables(path) == (UTILITY, DIVERGENCE)
    problem = ej.read_problem(path)
    np.testing.assert_array_equal(problem.utility, [[2, 1 / 3], [0, 1.5], [-1, 0]])
    np.testing.assert_array_equal(problem.divergence, [[0, 0.75], [0, 0], [3.8, 0]])


def test_the_first_players_labels_are_the_actions(tmp_path):
    assert ej.read_problem(write(tmp_path, OUTCOMES)).actions == ("up", 'mid "1"', "action 2")
    assert ej.read_problem(write(tmp_path, PAYOFFS)).actions == ("action 0", "action 1", "action 2")


def test_differences_are_taken_before_rounding(tmp_path):
    """1e17 + 1 and 1e17 are one float."""
    path = write(tmp_path, 'NFG 1 R "" { "" "" } { 1 2 } 0 100000000000000001 0 1e17')
    assert ej.read_tables(path)[1] == [[0, 1]]
    np.testing.assert_array_equal(ej.read_problem(path).divergence, [[0, 1]])


def test_what_gambit_writes_is_read_back(tmp_path):
    gambit = pytest.importorskip("pygambit")
    rng = np.random.default_rng(0)
    for shape in ((1, 3), (2, 2), (4, 3)):
        own, other = ([[Fraction(int(p), 7) for p in row] for row in rng.integers(-20, 20, shape)] for _ in range(2))
        game = gambit.StrategicGame.from_arrays(np.array(own), np.array(other))
        path = tmp_path / "written.nfg"
        game.to_nfg(path)
        assert ej.read_tables(path) == (own, [[max(row) - p for p in row] for row in other])
    named = {"journals/ijgt/nau2004/sec3": ("Top", "Bottom"), "journals/other/shapley1974/fig2": ("1", "2", "3")}
    for name, actions in named.items():
        game = gambit.catalog.load(name)
        game.to_nfg(path)
        own, other = (table.tolist() for table in game.to_arrays())
        assert ej.read_tables(path) == (own, [[max(row) - p for p in row] for row in other])
        assert ej.read_problem(path).actions == actions


def test_tables_in_json(tmp_path):
    text = """{"utility": [[0.1, 1], ["1/3", -2e-1]], "divergence": [["inf", 0], [Infinity, 0.3]],
        "log_prior": [-1, 0], "actions": ["a", "β"], "unsafe": [true, false]}"""
    path = write(tmp_path, text, ".json")
    exact = [[Fraction(1, 10), 1], [THIRD, Fraction(-1, 5)]], [[inf, 0], [inf, Fraction(3, 10)]]
    assert ej.read_tables(path) == exact
    problem = ej.read_problem(str(path))
    np.testing.assert_array_equal(problem.utility, [[0.1, 1], [1 / 3, -0.2]])
    np.testing.assert_array_equal(problem.divergence, [[inf, 0], [inf, 0.3]])
    np.testing.assert_array_equal(problem.log_prior, [-1, 0])
    assert (problem.actions, problem.unsafe) == (("a", "β"), (True, False))


def test_tables_in_npz(tmp_path):
    rng = np.random.default_rng(1)
    utility, divergence = rng.normal(size=(3, 4)), rng.exponential(size=(3, 4))
    divergence[1, 2] = inf
    path = tmp_path / "TABLES.NPZ"
    with open(path, "wb") as file:
        np.savez(file, utility=utility, divergence=divergence, actions=["a", "b", "c"], unsafe=[True, False, False])
    problem = ej.read_problem(path)
    np.testing.assert_array_equal(problem.utility, utility)
    np.testing.assert_array_equal(problem.divergence, divergence)
    assert (problem.log_prior, problem.actions, problem.unsafe) == (None, ("a", "b", "c"), (True, False, False))
    exact = ej.read_tables(path)
    assert exact[0] == [[Fraction(u) for u in row] for row in utility.tolist()]
    assert exact[1][1][2] == inf and exact[1][0][0] == Fraction(divergence[0, 0])


def test_whole_numbers_in_npz(tmp_path):
    np.savez(tmp_path / "a.npz", utility=np.eye(2, dtype=np.int32), divergence=np.eye(2, dtype=np.float32) / 3)
    third = Fraction(float(np.float32(1) / 3))
    assert ej.read_tables(tmp_path / "a.npz") == ([[1, 0], [0, 1]], [[third, 0], [0, third]])


def test_a_problem_is_read_in_the_precision_in_force(tmp_path):
    with jax.enable_x64(False):
        assert ej.read_problem(write(tmp_path, PAYOFFS)).utility.dtype == np.float32


def start(body: str, strategies: str = "{ 2 2 }", players: str = '{ "1" "2" }') -> str:
    return f'NFG 1 R "t" {players}\n{strategies}\n{body}'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"game.nfg, line 1: expected a game in strategic form, .*; got the end of the file"),
        ('EFG 2 R "t" { "1" "2" }', "line 1: expected a game in strategic form, .*; got EFG"),
        ('NFG 2 R "t" { "1" "2" }', "line 1: expected a game in strategic form, .*; got 2"),
        ("NFG 1 R title", "line 1: expected the title in quotation marks; got title"),
        ('NFG 1 R "title { 1 }', "line 1: expected a second quotation mark; got none"),
        (start("", players='{ "1" "2" "3" }'), "line 1: the game has 3 players; a finite problem is a game of two"),
        (
            start("", players="{ 1 2 }"),
            "line 1: expected one of the names of the players in quotation marks, .*; got 1",
        ),
        (start("", "{ 2 0 }"), "line 2: expected how many strategies player 2 has, at least 1; got 0"),
        (start("", "{ 2 }"), r"line 2: expected how many strategies player 2 has, at least 1; got \}"),
        (start("", "{ 2 2 2 }"), "line 2: expected a closing brace after two numbers of strategies; got 2"),
        (start("", '{ { "a" } { "b" } "two\nlines"'), 'line 2: expected a closing brace after .*; got "two lines"'),
        (start("", '{ { "a" } { } }'), r"line 2: expected at least one strategy of player 2; got \}"),
        (start("", '{ { "a" } { b } }'), "line 2: expected one of the strategies of player 2 in .*; got b"),
        (
            start("1 2 3 4 5 6 7"),
            "line 3: expected the payoff of player 2 at strategies 2 and 2, .*the end of the file",
        ),
        (start("1 2 3 4\n5 6 7 8 9"), "line 4: expected the end, after the 4 pairs of strategies; got 9"),
        (
            start("1 2 3 x\n5 6 7 8"),
            "line 3: expected the payoff of player 2 at strategies 2 and 1, a number .*; got x",
        ),
        (start("1 2 3 1/0 5 6 7 8"), "player 2 at strategies 2 and 1, .*; got 1/0"),
        (start("1 2 3 1e999999999 5 6 7 8"), "player 2 at strategies 2 and 1, .*; got 1e999999999"),
        (start("1 2 3 1e99999 5 6 7 8"), "player 2 at strategies 2 and 1, .*; got 1e99999"),
        (start("1 2 3 nan 5 6 7 8"), "player 2 at strategies 2 and 1, .*; got nan"),
        (start("1 2 1e400 4 5 6 7 8"), r"game.nfg: utility\[1\]\[0\] is too large for a float; scale it down"),
        (start('{ { "" 1, 2 } }\n1 1 1 2'), "line 4: expected the outcome at strategies 2 and 2, .* 0 to 1; got 2"),
        (start('{ { "" 1, 2 } }\n1 1 1'), "line 4: expected the outcome at strategies 2 and 2, .*; got the end of the"),
        (start('{ { "" 1 } }\n1 1 1 1'), r"line 3: expected the payoff of player 2 in outcome 1, .*; got \}"),
        (
            start('{ { "" 1, 2, 3 } }\n1 1 1 1'),
            "line 3: expected a closing brace after two payoffs of outcome 1; got 3",
        ),
        (
            start('{ { "" 1, 2 }\n{ 1, 2 } }'),
            "line 4: expected a name of outcome 2, be it empty, in quotation .*; got 1",
        ),
        (start('{ { "" 1, 2 }'), "line 3: expected outcome 2 in braces, or a closing brace; got the end of the file"),
    ],
)
def test_what_is_wrong_with_a_game_is_told_by_line_and_entry(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        ej.read_problem(write(tmp_path, text))
    assert "\n" not in str(error.value)


GOOD = {"utility": [[1, 2], [3, 4]], "divergence": [[0, 1], [0.5, 0]]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"divergence": [[0, 1], [0.5, -0.2]]},
            r"game.json: divergence\[1\]\[1\] is -0.2; a divergence must be a non-neg",
        ),
        ({"divergence": [[0, float("nan")], [1, 0]]}, r"divergence\[0\]\[1\] is \"NaN\"; a divergence must be"),
        ({"divergence": [[0, 1], ["-inf", 0]]}, r"divergence\[1\]\[0\] is \"-inf\"; a divergence must be"),
        ({"divergence": [[0, 1], [None, 0]]}, r"divergence\[1\]\[0\] is null; a divergence must be"),
        ({"divergence": [[0, 1], ["x" * 99, 0]]}, r"divergence\[1\]\[0\] is \"x{39}…; a divergence must be"),
        ({"utility": [[1, float("nan")], [3, 4]]}, r"utility\[0\]\[1\] is \"NaN\"; it must be a finite number"),
        ({"utility": [[1, float("inf")], [3, 4]]}, r"utility\[0\]\[1\] is \"Infinity\"; it must be a finite number"),
        ({"utility": [[1, True], [3, 4]]}, r"utility\[0\]\[1\] is true; it must be a finite number"),
        ({"utility": [[1, [2]], [3, 4]]}, r"utility\[0\]\[1\] is \[\"2\"\]; it must be a finite number"),
        ({"utility": [[1, "1/0"], [3, 4]]}, r"utility\[0\]\[1\] is \"1/0\"; it must be a finite number"),
        ({"utility": [[1, 2], [3]]}, r"utility\[1\] has 1 entries, utility\[0\] has 2; every row needs one"),
        ({"divergence": [[1, 2, 3], [3, 4, 5]]}, "utility is 2 by 2, divergence is 2 by 3; make them the same"),
        ({"utility": []}, "utility must be a list of rows, one an action"),
        ({"utility": [[], []]}, "utility must be a list of rows, one an action"),
        ({"utility": 3}, "utility must be a list of rows, one an action"),
        ({"utlity": []}, "'utlity' is not known; the keys are utility, divergence, log_prior, actions, unsafe"),
        ({"actions": ["a"]}, "actions must be a list with one entry for each of the 2 actions"),
        ({"actions": ["a", 1]}, r"actions\[1\] is 1; it must be a name in quotation marks"),
        ({"unsafe": [True, 0]}, r"unsafe\[1\] is 0; it must be true or false"),
        ({"log_prior": [0, 0, 0]}, "log_prior must be a list with one entry for each of the 2 parameters"),
        ({"log_prior": [0, float("-inf")]}, r"log_prior\[1\] is \"-Infinity\"; it must be a finite number"),
    ],
)
def test_what_is_wrong_with_tables_is_told_by_entry(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message) as error:
        ej.read_problem(write(tmp_path, json.dumps({**GOOD, **changes}), ".json"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"utility": [[1, 2],\n[3 4]]}', "game.json, line 2: Expecting ',' delimiter, at column 4"),
        ("[1, 2]", "game.json must be one object"),
        ("[" * 100_000, "lists stand in lists without end; a table is a list of rows"),
        ('{"utility": [[1]]}', "game.json has no divergence; give a row for each action"),
        ('{"utility": [[1]], "utility": [[2]]}', "'utility' is given 2 times; keep one"),
        (
            '{"utility": [[1e999999999999]], "divergence": [[0]]}',
            r"utility\[0\]\[0\] is .*; it must be a finite number",
        ),
        (
            '{"utility": [[1e99999]], "divergence": [[0]]}',
            r"utility\[0\]\[0\] is 1E\+99999; it must be a finite number",
        ),
        ('{"utility": [[1e400]], "divergence": [[0]]}', r"utility\[0\]\[0\] is too large for a float; scale it down"),
    ],
)
def test_what_is_no_table_in_json_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        ej.read_problem(write(tmp_path, text, ".json"))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"utility": np.eye(2)}, "game.npz has no divergence"),
        ({"utility": np.eye(2), "divergence": -np.eye(2)}, r"divergence\[0\]\[0\] is -1.0; a divergence must be"),
        (
            {"utility": np.eye(2) * np.nan, "divergence": np.eye(2)},
            r"utility\[0\]\[0\] is NaN; it must be a finite num",
        ),
        ({"utility": np.eye(2) * 1j, "divergence": np.eye(2)}, r"utility\[0\]\[0\] is \"1j\"; it must be a finite num"),
        ({"utility": np.ones(2), "divergence": np.eye(2)}, "utility must be a list of rows, one an action"),
        ({"utility": np.array([[None]]), "divergence": np.eye(1)}, "game.npz is no archive of arrays .*pickle"),
        ({"utility": np.eye(2), "divergence": np.eye(2), "prior": np.ones(2)}, "'prior' is not known; the keys are"),
    ],
)
def test_what_is_wrong_with_arrays_is_told_by_entry(tmp_path, arrays, message):
    np.savez(tmp_path / "game.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        ej.read_problem(tmp_path / "game.npz")


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04no archive"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "game.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"game\.npz is no archive of arrays"):
        ej.read_problem(tmp_path / "game.npz")


def test_a_bare_array_is_no_archive(tmp_path):
    with open(tmp_path / "game.npz", "wb") as file:
        np.save(file, np.eye(2))
    with pytest.raises(ValueError, match=r"game\.npz is no archive of arrays"):
        ej.read_problem(tmp_path / "game.npz")


def test_what_is_no_file_of_a_problem_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*game\.nfg"):
        ej.read_problem(tmp_path / "game.nfg")
    with pytest.raises(ValueError, match=r"game\.efg: problems are read from files that end in \.nfg, \.json, \.npz"):
        ej.read_problem(write(tmp_path, "EFG 2 R", ".efg"))
    (tmp_path / "game.json").write_bytes(b'{"actions": ["\xe9"]}')
    with pytest.raises(ValueError, match=r"game\.json is not text in UTF-8: .* at byte 14"):
        ej.read_problem(tmp_path / "game.json")
