"""The README is true: its commands run and print what it shows, its Python runs, its set-up is what CI does."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FIRST_SCREEN = "\n".join(README.splitlines()[:24])
SHOWN = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
TABLES = {"tbl_formatting": "ASCII_MARKDOWN", "tbl_hide_column_data_types": True, "tbl_hide_dataframe_shape": True}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def set_up() -> list[str]:
    (block,) = blocks(FIRST_SCREEN, "sh")
    return block.strip().splitlines()


def commands(block: str) -> list[tuple[str, int, str]]:
    """Commands, their exit codes, and what they print, of a console block."""
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        code = re.search(r"# exit code (\d+)$", command)
        found.append((command, int(code[1]) if code else 0, output))
    return found


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A shell command with this environment's programs first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "200"}
    return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)


def check(said: str, shown: str, what: str) -> None:
    checker = doctest.OutputChecker()
    if not checker.check_output(shown, said, SHOWN):
        example = doctest.Example(what, shown)
        raise AssertionError(f"{what}\n{checker.output_difference(example, said, SHOWN | doctest.REPORT_NDIFF)}")


def test_first_screen_has_the_two_commands_of_the_set_up():
    main_job, tests = set_up()
    assert main_job.startswith("python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/features run")
    assert main_job.endswith("--demo")
    assert tests == "python3 -m venv .venv && .venv/bin/pip install tox && .venv/bin/tox"


def test_ci_runs_the_two_commands_word_for_word():
    lines = [line.strip() for line in (ROOT / ".ci" / "run").read_text().splitlines()]
    assert [line for line in lines if line.startswith("python3 -m venv")] == set_up()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_first_example_is_the_main_job_of_the_set_up():
    command, code, _ = commands(blocks(README, "console")[0])[0]
    assert (f".venv/bin/{command}", code) == (set_up()[0].rpartition(" && ")[2], 0)


def run_doctest(block: str, names: dict[str, object]) -> None:
    """A block of ``>>>`` examples; names live on in ``names``."""
    said: list[str] = []
    test = doctest.DocTestParser().get_doctest(block, names, "README.md", "README.md", None)
    doctest.DocTestRunner(optionflags=SHOWN).run(test, out=said.append, clear_globs=False)
    names.update(test.globs)
    assert not said, "".join(said)


@pytest.mark.slow
def test_every_command_and_example_in_order(tmp_path, monkeypatch):
    """One folder from top to bottom, as a reader would work through it."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", README, re.MULTILINE | re.DOTALL):
        if language == "toml":
            (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block)
        elif language == "console":
            for command, code, shown in commands(block):
                done = run(command, tmp_path)
                assert done.returncode == code, f"{command}\n{done.stdout}{done.stderr}"
                check(done.stdout + (done.stderr if code else ""), shown, command)
        elif language == "python":
            with pl.Config(**TABLES, tbl_cols=-1, tbl_width_chars=200):
                run_doctest(block, names)


def test_every_block_is_of_a_kind_that_is_checked():
    assert set(re.findall(r"^```(\w+)$", README, re.MULTILINE)) <= {"sh", "console", "python", "toml"}


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.slow
def test_notebook_example(tmp_path):
    done = run("features run --runner single --demo --channel orderbook --exchange alpha --symbol BTC-USDT", tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(f"python {shlex.quote(str(ROOT / 'examples' / 'notebook.py'))}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("the run wrote the same numbers\n")
