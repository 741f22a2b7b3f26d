"""The README is true: its commands run and print what it shows, its Python runs, its set-up is what CI does."""

from __future__ import annotations

import doctest
import os
import re
import shlex
from pathlib import Path

import polars as pl
import pytest
from pages import SHOWN, check_commands, commands, run, with_demo

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
FIRST_SCREEN = "\n".join(README.splitlines()[:24])
TABLES = {"tbl_formatting": "ASCII_MARKDOWN", "tbl_hide_column_data_types": True, "tbl_hide_dataframe_shape": True}


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def set_up() -> list[str]:
    (block,) = blocks(FIRST_SCREEN, "sh")
    return block.strip().splitlines()


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
            check_commands(block, tmp_path)
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
    with_demo(tmp_path)
    done = run("features run --runner single --demo --channel orderbook --exchange alpha --symbol BTC-USDT", tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(f"python {shlex.quote(str(ROOT / 'examples' / 'notebook.py'))}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("the run wrote the same numbers\n")
