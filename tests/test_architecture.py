"""docs/architecture.md names files, tests and functions: all of them exist, and it stays short."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w.]+(?:/[\w.]*)+|[\w.]+\.(?:py|ini|cfg|toml|md))(?:::(\w+))?`", PAGE)))


@cache
def defined(path: Path) -> set[str]:
    """Functions, classes and constants of a module."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return found


@pytest.mark.parametrize(("path", "name"), NAMED, ids=["::".join(filter(None, n)) for n in NAMED])
def test_what_it_names_exists(path, name):
    assert (ROOT / path).exists()
    if name:
        assert name in defined(ROOT / path)


def test_all_five_contracts_name_a_file_and_a_test():
    section = PAGE.partition("## The five contracts")[2].partition("\n## ")[0]
    contracts = re.split(r"^\*\*\d\. ", section, flags=re.MULTILINE)[1:]
    assert len(contracts) == 5
    for contract in contracts:
        assert re.search(r"`(features|kernels|lake|runners)/\w+\.py", contract), contract
        assert re.search(r"`tests/[\w/]+\.py::test_", contract), contract


def test_every_module_of_the_flow_is_of_this_tree():
    """Nothing it names has moved away from the five folders."""
    folders = {path.split("/")[0] for path, _ in NAMED if path.endswith(".py") and "/" in path}
    assert folders >= {"features", "kernels", "lake", "runners", "api", "tests"}


def test_it_is_short():
    assert len(PAGE.splitlines()) <= 150
