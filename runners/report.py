"""What people and machines read: progress on stderr, results as text or JSON."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from tickstate.lake.names import is_daily

if TYPE_CHECKING:  # they load pyarrow, which listing features does not need
    from tickstate.runners.outcome import Outcome
    from tickstate.runners.run import AnyPlan, Summary

EVERY_SECONDS = 5.0


class Progress:
    """Progress on stderr: a bar on a terminal, now and then a line elsewhere."""

    def __init__(self) -> None:
        self._total, self._done, self._last = 0, 0, time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def planned(self, plan: AnyPlan) -> None:
        """Begin a bar over the stale partitions."""
        self._total, self._done = len(plan.stale), 0
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        if self._total and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress as Bar

            self._bar = Bar(console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("partitions", total=self._total)
            self._bar.start()

    def compiling(self, kernels: int) -> None:
        """Say why the first run takes longer."""
        click.echo(f"compiling {kernels} kernels for this machine: once, a minute or so", err=True)

    def finished(self, outcome: Outcome) -> None:
        """Move on by one partition; say what failed at once."""
        self._done += 1
        if outcome.error:
            click.echo(f"failed: {outcome}: {outcome.error}", err=True)
        if self._bar is not None:
            self._bar.advance(self._task)
        elif time.monotonic() - self._last > EVERY_SECONDS:
            self._last = time.monotonic()
            click.echo(f"{self._done} of {self._total} partitions", err=True)

    def noticed(self, text: str) -> None:
        """Something out of the ordinary."""
        click.echo(text, err=True)


def as_json(data: Any) -> str:
    """JSON for machines."""
    import msgspec

    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode()


def summary_text(summary: Summary) -> str:
    """A run in a few lines."""
    from tickstate.kernels.book import FLAGS

    counters = summary.counters
    lines = []
    left = f", {summary.left} left" if summary.left else ""
    if summary.partitions == summary.up_to_date and not summary.stopped:
        lines.append(f"nothing to do: all {summary.partitions} partitions are up to date ({summary.seconds:.1f} s)")
    else:
        lines.append(
            f"{len(summary.computed)} partitions computed, {summary.up_to_date} up to date, "
            f"{len(summary.failed)} failed{left} ({summary.seconds:.1f} s)"
        )
        rows = [
            {"channel": name, **_quality(counts)} for name, counts in summary.by_channel.items() if not is_daily(name)
        ]
        lines += [table(rows)] if rows else []
        flags = ", ".join(f"{counters[f'flag_{f}']:,} {f}" for f in FLAGS if counters.get(f"flag_{f}"))
        lines += [f"order-book rows by flag: {flags}"] if flags else []
        lines += _bar_lines(summary)
    if summary.states_dropped:
        reasons = sorted({o.dropped_state for o in summary.computed if o.dropped_state})
        lines.append(f"{summary.states_dropped} saved states dropped, lookback read instead: {'; '.join(reasons)}")
    for outcome in summary.failed:
        lines.append(f"failed: {outcome}: {outcome.error}")
    lines += [f"stopped: {summary.stopped}"] if summary.stopped else []
    for q in summary.quarantined:
        lines.append(f"quarantined: {q.path}: {q.reason}: {q.detail}")
    return "\n".join(lines)


def _bar_lines(summary: Summary) -> list[str]:
    """How many bars of which kind, a line a channel."""
    found: dict[str, list[str]] = {}
    for name, counts in summary.by_channel.items():
        channel, _, kind = name.partition("/")
        if kind:
            found.setdefault(channel, []).append(f"{counts['rows']:,} {kind}")
    return [f"{channel}: {', '.join(kinds)}" for channel, kinds in found.items()]


def _quality(counters: Mapping[str, int]) -> dict[str, str]:
    """The counters that every channel has, and invalid rows, as texts."""
    invalid = sum(n for name, n in counters.items() if name.startswith("flag_") and name != "flag_ok")
    shown = {"rows": counters.get("rows", 0), "invalid": invalid + counters.get("invalid", 0)}
    shown.update({name: counters.get(name, 0) for name in ("duplicates", "out_of_order", "gaps", "latency_steps")})
    found = {name: f"{value:,}" for name, value in shown.items()}
    found["covered"] = f"{counters.get('seconds_covered', 0):,} s"
    alive = counters.get("seconds_trades_alive")
    return {**found, "trades_alive": "" if alive is None else f"{alive:,} s"}


def plan_text(plans: Iterable[AnyPlan], json: bool = False) -> str:
    """The plans of the tiers: every stale partition with its reasons."""
    plans = list(plans)
    stale = [p for plan in plans for p in plan.stale]
    failed = [o for plan in plans for o in plan.failed]
    bad = [q for plan in plans for q in (*plan.misplaced, *plan.known.values())]
    total = sum(len(plan.partitions) for plan in plans)
    if json:
        return as_json(
            {
                "partitions": total,
                "stale": [{"partition": str(p), "reasons": list(p.reasons)} for p in stale],
                "impossible": [{"partition": str(o), "error": o.error} for o in failed],
                "quarantined": [{"path": q.path, "reason": q.reason} for q in bad],
            }
        )
    lines = [f"{p}: {'; '.join(p.reasons)}" for p in stale]
    lines += [f"cannot be made: {o}: {o.error}" for o in failed]
    lines += [text for plan in plans for text in plan.notices]
    lines += [f"quarantined: {q.path}: {q.reason}: {q.detail}" for q in bad]
    return "\n".join([*lines, f"{len(stale)} partitions to compute, {total - len(stale)} up to date"])


def parity_text(found: Mapping[str, list[Any]], json: bool = False) -> str:
    """A comparison: every column with its rows, differences and the first of them."""
    rows = [
        {
            "compared": pair, "channel": c.channel, "column": c.column, "rows": c.rows, "differ": c.differ,
            "verdict": c.verdict, "first": c.first,
        }
        for pair, columns in found.items()
        for c in columns
    ]  # fmt: skip
    if json:
        return as_json(rows)
    differ = sum(1 for r in rows if r["differ"])
    return "\n".join([table(rows), f"{len(rows)} columns compared, {differ} differ"])


def validation_text(found: Any, json: bool = False) -> str:
    """Breaches, then coverage by lane and day."""
    import msgspec

    if json:
        return as_json(msgspec.to_builtins(found))
    lines = [f"{f.path}: {f.rule}: {f.detail}" for f in found.findings]
    lines += [f"removed: {path}" for path in found.removed]
    lines += [table(msgspec.to_builtins(c) for c in found.coverage)] if found.coverage else []
    return "\n".join([*lines, f"{found.files} files checked, {len(found.findings)} breaches"])


def list_text(json: bool = False) -> str:
    """Every registered feature."""
    from tickstate.features.registry import default_registry

    rows = [
        {
            "name": e.feature.name, "channel": e.feature.channel, "group": e.feature.group,
            "columns": len(e.names), "default": e.feature.default, "package": e.package,
            "kinds": e.feature.kind_pattern() if hasattr(e.feature, "kind_pattern") else "",
        }
        for e in default_registry()
    ]  # fmt: skip
    if json:
        return as_json(rows)
    return table({k: v for k, v in {**r, "default": _how_chosen(r)}.items() if k != "kinds"} for r in rows)


def _how_chosen(row: Mapping[str, Any]) -> str:
    """What makes a feature take part."""
    if row["kinds"]:
        return f"--bars {re.split(', | or ', row['kinds'])[0]}"
    return "on" if row["default"] and row["package"] == "tickstate" else "when selected"


def table(rows: Iterable[dict[str, Any]]) -> str:
    """Rows of equal keys as aligned text."""
    rows = [{k: str(v) for k, v in row.items()} for row in rows]
    if not rows:
        return ""
    head = {k: k for k in rows[0]}
    width = {k: max(len(r[k]) for r in (head, *rows)) for k in head}
    return "\n".join("  ".join(r[k].ljust(width[k]) for k in head).rstrip() for r in (head, *rows))


def describe_text(name: str, json: bool = False) -> str:
    """All that the registry knows of what ``name`` selects."""
    from tickstate.features.registry import default_registry

    found = [_described(e.feature, e.package, name) for e in default_registry().find(name)]
    return as_json(found) if json else "\n\n".join(_as_text(d) for d in found)


def _described(feature: Any, package: str, name: str) -> dict[str, Any]:
    instance = feature.make()
    columns = [c for c in instance.columns() if c.name == name] or instance.columns()
    if name in (feature.name, feature.group):
        columns = instance.columns()
    return {
        "name": feature.name, "channel": feature.channel, "group": feature.group, "package": package,
        "version": feature.version, "about": (feature.__doc__ or "").strip(), "source": feature.source,
        "inputs": list(feature.inputs), **reach(feature, instance),
        "default": feature.default,
        "parameters": {
            k: {"value": instance[k], "unit": p.unit, "about": p.doc} for k, p in feature.params.items()
        },
        "columns": [{"name": c.name, "unit": c.unit, "formula": c.formula, "null": c.nulls} for c in columns],
    }  # fmt: skip


def reach(feature: Any, instance: Any) -> dict[str, Any]:
    """How far back a feature looks, alone and with its inputs; of bars, their kinds and when one closes."""
    from tickstate.features.base import BARS
    from tickstate.features.graph import build_graph

    if feature.channel not in BARS:
        graph = build_graph(feature.channel, [feature.name])
        own = next(f for f in graph.features if f.name == feature.name)
        found = {"lookback": str(instance.lookback()), "total_lookback_s": graph.lookback(own) / 1e6}
        if own.lookback().unbounded:
            found["total_lookback_s"] = None
        parts = [(f.name, us / 1e6) for f, us in graph.lookback_path(own)]
        found["lookback_path"] = [{"feature": name, "seconds": s} for name, s in parts if s]
        joined = {f.name: str(f.trades_lookback()) for f in graph.upstream(own) if f.joins}
        return {**found, "trades_lookback": joined}
    rule = {"kinds": feature.kind_pattern(), "closes_when": feature.formula} if hasattr(feature, "kind_pattern") else {}
    return {"lookback": "its UTC day", **rule}


def reach_text(d: Mapping[str, Any]) -> str:
    """A lookback in words, with its sum along the graph and that of the joined trades."""
    text, path = d["lookback"], d.get("lookback_path", [])
    if d.get("total_lookback_s") is None:
        path = []  # bars, and what depends on all of the past
    if len(path) > 1 or (path and path[0]["feature"] != d["name"]):
        summed = " + ".join(f"{p['seconds']:g} s {p['feature']}" for p in path)
        text += f"; along the graph {d['total_lookback_s']:g} s: {summed}"
    elif "step" in text:
        text += f" ({d['total_lookback_s']:g} s)"
    for name, reach in d.get("trades_lookback", {}).items():
        text += f"; of trades {reach}{'' if name == d['name'] else f' ({name})'}" if reach != "none" else ""
    return text


def _as_text(d: dict[str, Any]) -> str:
    lines = [
        f"{d['name']} ({d['channel']}, group {d['group']}, version {d['version']}, from {d['package']})",
        f"  {d['about']}",
        f"  inputs: {', '.join(d['inputs'])}",
    ]
    lines.append(f"  lookback: {reach_text(d)}")
    lines += [f"  kinds: {d['kinds']}", f"  closes when: {d['closes_when']}"] if "kinds" in d else []
    lines += [f"  source: {d['source']}"] if d["source"] else []
    for key, p in d["parameters"].items():
        value = list(p["value"]) if isinstance(p["value"], tuple) else "none" if p["value"] == "" else p["value"]
        lines.append(f"  parameter {key} = {value} ({p['unit']}): {p['about']}")
    lines += ["  " + line for line in table(d["columns"]).splitlines()]
    return "\n".join(lines)
