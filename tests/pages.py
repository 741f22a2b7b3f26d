"""Pages whose console and Python blocks are run: what they show is what comes out."""

from __future__ import annotations

import atexit
import doctest
import os
import re
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

SHOWN = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def blocks(text: str) -> list[tuple[str, str]]:
    """The fenced blocks with their languages."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[tuple[str, int, str]]:
    """Commands, their exit codes, and what they print, of a console block."""
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        code = re.search(r"# exit code (\d+)$", command)
        found.append((command, int(code[1]) if code else 0, output))
    return found


@cache
def _demo() -> Path:
    """The demo's bronze, made once for all pages."""
    from tickstate.lake.demo import ensure_demo

    place = Path(tempfile.mkdtemp(prefix="tickstate-demo-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    ensure_demo(place / "bronze")
    return place / "bronze"


def with_demo(folder: Path) -> Path:
    """A folder in which ``--demo`` finds its lake there already."""
    shutil.copytree(_demo(), folder / "demo-lake" / "bronze")
    return folder


def run(command: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A shell command with this environment's programs first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    given = {**os.environ, "PATH": path, "COLUMNS": "200", **environment}
    return subprocess.run(command, shell=True, cwd=folder, env=given, capture_output=True, text=True)


def check(said: str, shown: str, what: str) -> None:
    """Raise with the difference where a command said something else."""
    checker = doctest.OutputChecker()
    if not checker.check_output(shown, said, SHOWN):
        example = doctest.Example(what, shown)
        raise AssertionError(f"{what}\n{checker.output_difference(example, said, SHOWN | doctest.REPORT_NDIFF)}")


def check_commands(block: str, folder: Path, **environment: str) -> None:
    """Run the commands of a console block."""
    for command, code, shown in commands(block):
        done = run(command, folder, **environment)
        assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
        check(done.stdout + (done.stderr if code else ""), shown, command)
