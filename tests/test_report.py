"""The README's figures are what ``python -m benchmarks.report`` makes of a run of the benchmarks."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.peers import FAMILIES

ROOT = Path(__file__).parents[1]
FILE = ROOT / "tests" / "benchmarks.json"
README = (ROOT / "README.md").read_text()
DATA = json.loads(FILE.read_text())
SECTION = """\
Measured on 2026-01-02 on A CPU, 2 cores, Linux, load 0.4 beforehand, with CPython 3.11.7, numba 0.61.2, polars 2.1.0.

| what | measured | aim |
| --- | --- | --- |
| bars: rule alone, the worst of 2: trades a second, median | 45,700,000 | at least 50,000,000, missed |
| growth: lanes, 64: times the memory of one lane | 1.1 | at most 1.2 |
| job: one busy hour: times the floor, median of pairs | 1.46 | at most 1.5 |
"""
PEERS = """\
| columns | tickstate | polars | DuckDB | finmlkit | Python rows | Python rows, sums anew |
| --- | --- | --- | --- | --- | --- | --- |
| window sums (10) | 133 ns a snapshot | 1.64 (aim 3, missed) |  |  | 78.9 |  |
| time bars (12) | 13 ns a trade |  |  | 1.46 (aim 1) |  |  |
"""


def tables(text):
    """Tables of a text as lists of cells."""
    found = re.findall(r"(?:^\|.*\|\n?)+", text, re.MULTILINE)
    return [[[cell.strip() for cell in line[1:-1].split("|")] for line in block.splitlines()] for block in found]


def test_what_a_file_becomes():
    text = report.section(DATA)
    assert text.startswith(SECTION)
    assert PEERS in text
    assert text.endswith(f"]({report.PLOT})")


def test_every_tool_of_the_table_of_peers_has_a_column():
    assert {peer.tool for family in FAMILIES for peer in family.peers} == set(report.TOOLS)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.012345, "0.0123"), (1.0, "1"), (12.34, "12.3"), (99.96, "100"), (123.4, "123"), (12_345.6, "12,300")],
)
def test_three_figures(value, text):
    assert report.shown(value) == text


def test_a_page_is_rewritten_between_its_markers_and_nowhere_else():
    page = f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n"
    once = report.replaced(page, "new")
    assert once == f"before\n{report.BEGIN}\n\nnew\n\n{report.END}\nafter\n"
    assert report.replaced(once, "new") == once
    with pytest.raises(SystemExit, match="lacks"):
        report.replaced("no markers", "new")


def test_the_readme_has_the_shape_that_the_report_gives():
    """Header, aims, peers and the plot, every family once, every row of the table's width."""
    assert README.count(report.BEGIN) == README.count(report.END) == 1
    shown = README.partition(report.BEGIN)[2].partition(report.END)[0]
    assert re.match(r"\n\nMeasured on \d{4}-\d\d-\d\d on .+, \d+ cores, .+ numba .+ polars .+ duckdb .+\.\n", shown)
    for found, model in zip(tables(shown), tables(report.section(DATA)), strict=True):
        assert found[:2] == model[:2]
        assert {len(row) for row in found} == {len(model[0])}
    aims, peers = tables(shown)
    assert all(re.match(r"at (least|most) [\d.,]+(, missed)?$", row[2]) for row in aims[2:])
    assert [re.sub(r" \(\d+\)$", "", row[0]) for row in peers[2:]] == [family.name for family in FAMILIES]
    for row, family in zip(peers[2:], FAMILIES, strict=True):
        measured = {tool for tool, cell in zip(report.TOOLS, row[2:], strict=True) if cell}
        assert measured == {peer.tool for peer in family.peers}
    assert (ROOT / report.PLOT).stat().st_size < 100_000


@pytest.mark.skipif(
    importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed here; tox -e bench draws it"
)
def test_the_command_writes_page_and_plot(tmp_path):
    page, plots = tmp_path / "page.md", [tmp_path / "a.svg", tmp_path / "b.svg"]
    page.write_text(f"{report.BEGIN}\n{report.END}\n")
    for plot in plots:
        report.main(["--from", str(FILE), "--page", str(page), "--plot", str(plot)])
    assert PEERS in page.read_text()
    assert plots[0].read_bytes() == plots[1].read_bytes()
    assert all(f"{family}, {tool}" in plots[0].read_text() for family, tool in (("time bars", "finmlkit"),))
