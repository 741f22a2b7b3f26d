"""The pages of docs/ are true: their commands run and print what they show, the tutorial's feature is one."""

from __future__ import annotations

import re
from pathlib import Path

import pages
import pytest

DOCS = Path(__file__).parents[1] / "docs"
WRITTEN = sorted(p.name for p in DOCS.glob("*.md"))


@pytest.mark.slow
@pytest.mark.parametrize("page", ["concepts.md", "runners.md", "scaling.md"])
def test_every_command(page, tmp_path):
    pages.with_demo(tmp_path)
    for language, block in pages.blocks((DOCS / page).read_text()):
        if language == "console":
            pages.check_commands(block, tmp_path)


@pytest.mark.slow
def test_the_tutorial_from_top_to_bottom(tmp_path):
    """As a reader does, but for pip: the package is made importable, and known, as an editable install does it."""
    pages.with_demo(tmp_path)
    site, source = tmp_path / "site", tmp_path / "my-plugin/src"
    environment = {"PYTHONPATH": f"{site}:{source}"}
    for language, block in pages.blocks((DOCS / "tutorial.md").read_text()):
        if language == "python":
            (source / "tickstate_spread_entropy/spread_entropy.py").write_text(block)
        elif "$ pip install -e my-plugin" in block:
            install(site, tmp_path / "my-plugin")
            pages.check_commands(block.partition("...\n")[2], tmp_path, **environment)
        else:
            pages.check_commands(block, tmp_path, **environment)


def install(site, package):
    """What pip would note of a package."""
    name = re.search(r'^name = "(.*)"$', (package / "pyproject.toml").read_text(), re.MULTILINE)[1]
    point = re.search(r"^(spread_entropy) = \"(.*)\"$", (package / "pyproject.toml").read_text(), re.MULTILINE)
    folder = site / f"{name.replace('-', '_')}-0.1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    (folder / "entry_points.txt").write_text(f"[tickstate.features]\n{point[1]} = {point[2]}\n")


@pytest.mark.parametrize("page", WRITTEN)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", (DOCS / page).read_text()):
        assert (DOCS / target).exists(), target


def test_every_page_is_in_the_menu():
    menu = (DOCS.parent / "mkdocs.yml").read_text()
    assert all(f": {page}" in menu for page in WRITTEN)
