"""The README: its Python runs and says what it says, its commands exist."""

import re
import shlex
from pathlib import Path

import pytest

from epijax.cli import cli

README = (Path(__file__).parents[1] / "README.md").read_text()


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL))
def test_the_python_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    for line in code.splitlines():
        promised = re.search(r"print\(.*#.*?(multistable|\d\.\d+)$", line)
        if promised:
            assert promised[1] in printed


def test_the_commands_parse():
    lines = [line for line in README.splitlines() if line.startswith("epijax ")]
    assert len(lines) >= 6
    for line in lines:
        name, *args = shlex.split(line, comments=True)[1:]
        cli.commands[name].make_context(name, args)


def test_every_public_name_is_there():
    import epijax

    for name in epijax.__all__:
        assert getattr(epijax, name) is not None
    assert all(word in README for word in ("scripts/demo", "scripts/test"))
