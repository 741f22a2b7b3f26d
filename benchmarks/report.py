"""Figures for the README, from a run of the benchmarks: ``python -m benchmarks.report [--from FILE.json]``.

Without ``--from`` it runs them all first. It rewrites what stands between the two markers, and the plot. The same file
gives the same text: every figure, aim and date is taken from it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- figures: begin (python -m benchmarks.report) -->", "<!-- figures: end -->"
PLOT = "docs/peers.svg"
TOOLS = ("polars", "DuckDB", "finmlkit", "Python rows", "Python rows, sums anew")
RATIO, NS, OURS = "times as fast, median of pairs", "ns a row", "ns a row of tickstate"
Entry = dict[str, Any]


def shown(value: float) -> str:
    """Three figures: 0.0123, 1.23, 123, 12,300."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [list(head), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def header(data: dict[str, Any]) -> str:
    """Date, machine and versions."""
    machine, day = data["machine_info"], datetime.fromisoformat(data["datetime"]).date()
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    cpu = machine["cpu"].get("brand_raw") or machine["machine"]
    python = f"{machine['python_implementation']} {machine['python_version']}"
    place = f"{cpu}, {machine['cores']} cores, {machine['system']}, load {machine['load']:.1f} beforehand"
    return f"Measured on {day} on {place}, with {python}, {versions}."


def aims(data: dict[str, Any]) -> str:
    """Every figure that has an aim, but those beside peers; of several with one aim in a group the worst."""
    alike: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in data["benchmarks"]:
        info = entry["extra_info"]
        for key in (k for k in info if f"{k}: target" in info and "tool" not in info):
            alike.setdefault((entry["group"], key, info[f"{key}: target"]), []).append(entry)
    rows = []
    for (group, key, target), entries in sorted(alike.items()):
        worst = (min if target.startswith("at least") else max)(entries, key=lambda e: e["extra_info"][key])
        met = "" if worst["extra_info"][f"{key}: met"] else ", missed"
        rows.append((f"{group}{label(entries)}: {key}", shown(worst["extra_info"][key]), target + met))
    return table(("what", "measured", "aim"), rows)


def label(entries: list[Entry]) -> str:
    """Which benchmark of a group; of several, how many."""
    if len(entries) > 1:
        return f", the worst of {len(entries)}"
    return f", {entries[0]['param']}" if entries[0].get("param") else ""


def peers(data: dict[str, Any]) -> str:
    """Families by tools: how many times as fast tickstate is."""
    families: dict[str, dict[str, Entry]] = {}
    for entry in data["benchmarks"]:
        info = entry["extra_info"]
        if "tool" in info:
            families.setdefault(info["family"], {})[info["tool"]] = info
    rows = []
    for name, found in families.items():
        first = min(found.values(), key=lambda info: -info["rows"])
        cost = f"{shown(first[OURS])} ns a {first['of']}"
        rows.append([f"{name} ({first['columns']})", cost, *(ratio(found.get(tool)) for tool in TOOLS)])
    return table(("columns", "tickstate", *TOOLS), rows)


def ratio(info: Entry | None) -> str:
    if info is None:
        return ""
    aim = info.get(f"{RATIO}: target", "").removeprefix("at least ")
    met = "" if info.get(f"{RATIO}: met") else ", missed"
    return shown(info[RATIO]) + (f" (aim {aim}{met})" if aim else "")


def section(data: dict[str, Any]) -> str:
    """What stands between the markers."""
    return "\n\n".join(
        (
            header(data), aims(data),
            "How many times as fast tickstate is as others, in memory, one thread each, on the same rows in the same "
            "run. `Python rows` is a row-at-a-time processor with deques and running totals; `sums anew` is the same "
            "but for windows that it sums anew at every row, so that they do not drift: the fuller they are, the "
            "dearer (timed on the first 2 % of the rows). The table of peers (`benchmarks/peers.py`) has every form, "
            "and what it does otherwise.",
            peers(data), f"![Times as fast as peers]({PLOT})",
        )
    )  # fmt: skip


def replaced(page: str, text: str) -> str:
    """A page with another section."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def draw(data: dict[str, Any], path: Path) -> None:
    """The ratios of ``peers`` as bars on a logarithmic axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    found = [e["extra_info"] for e in data["benchmarks"] if "tool" in e["extra_info"]]
    colours = dict(zip(TOOLS, ("#0072b2", "#e69f00", "#009e73", "#999999", "#555555"), strict=True))
    with pyplot.rc_context({"svg.hashsalt": "tickstate", "svg.fonttype": "none", "font.size": 9}):
        figure, axes = pyplot.subplots(figsize=(8, 0.24 * len(found) + 1.2), layout="constrained")
        places = list(range(len(found)))
        axes.barh(places, [i[RATIO] - 1 for i in found], left=1, color=[colours[i["tool"]] for i in found])
        axes.set_yticks(places, [f"{i['family']}, {i['tool']}" for i in found])
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.bar_label(axes.containers[0], [shown(i[RATIO]) for i in found], padding=3)
        axes.margins(x=0.12, y=0.01)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("times as long as tickstate takes (one thread each)")
        figure.savefig(path, metadata={"Date": None})
        pyplot.close(figure)


def measured() -> dict[str, Any]:
    """A run of all benchmarks."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "benchmarks.json"
        command = [sys.executable, "-m", "pytest", "benchmarks", "--benchmark-only", f"--benchmark-json={path}", "-q"]
        subprocess.run([*command, "--benchmark-columns=median,rounds"], cwd=ROOT, check=True)
        return json.loads(path.read_text())


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__.partition("\n")[0])
    parser.add_argument("--from", dest="file", type=Path, help="JSON of pytest --benchmark-json; without, a new run")
    parser.add_argument("--page", type=Path, default=ROOT / "README.md")
    parser.add_argument("--plot", type=Path, default=ROOT / PLOT)
    given = parser.parse_args(arguments)
    data = json.loads(given.file.read_text()) if given.file else measured()
    given.page.write_text(replaced(given.page.read_text(), section(data)))
    draw(data, given.plot)


if __name__ == "__main__":
    main()
