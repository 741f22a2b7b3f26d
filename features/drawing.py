"""The dependency graph of a registry, as text and as Graphviz dot."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tickstate.features.base import BARS, JOINED
from tickstate.features.registry import BUILT_IN, Entry, Registry


@dataclass(frozen=True)
class Edge:
    """Columns that ``reader`` reads from ``maker``; None: from bronze."""

    reader: Entry
    maker: Entry | None
    columns: tuple[str, ...]


def edges(registry: Registry, names: Iterable[str] = ()) -> list[Edge]:
    """What every feature reads, inputs before their readers' own; of ``names`` and what they need, or of all.

    >>> from tickstate.features.registry import default_registry
    >>> print(as_text(edges(default_registry(), ["ofi_beta"])).splitlines()[0])
    orderbook
    """
    chosen = [e for name in names for e in registry.find(name)] or list(registry)
    found: dict[Entry, list[Edge]] = {}

    def visit(entry: Entry) -> None:
        if entry in found:
            return
        by_maker: dict[tuple[Entry | None, bool], list[str]] = {}
        for name in entry.feature.inputs:
            maker = registry.maker(entry.feature.channel, name)
            by_maker.setdefault((maker, name.startswith(JOINED)), []).append(name)
        found[entry] = [Edge(entry, maker, tuple(dict.fromkeys(columns))) for (maker, _), columns in by_maker.items()]
        for maker, _ in by_maker:
            if maker is not None:
                visit(maker)

    for entry in chosen:
        visit(entry)
    return [edge for entry in registry for edge in found.get(entry, ())]


def as_text(found: Iterable[Edge]) -> str:
    """One line a feature, by channel: what it reads, from whom."""
    by_reader: dict[Entry, list[str]] = {}
    for edge in found:
        source = _bronze(edge) if edge.maker is None else edge.maker.feature.name
        by_reader.setdefault(edge.reader, []).append(f"{source} ({', '.join(edge.columns)})")
    lines: list[str] = []
    for channel in dict.fromkeys(e.feature.channel for e in by_reader):
        lines.append(channel)
        for entry, sources in by_reader.items():
            if entry.feature.channel == channel:
                lines.append(f"  {entry.feature.name}{_from(entry)} <- {', '.join(sources)}")
    return "\n".join(lines)


def as_dot(found: Iterable[Edge]) -> str:
    """Graphviz: boxes of bronze, features by channel, the columns on the arrows."""
    found = list(found)
    lines = ["digraph features {", "  rankdir=LR; node [fontname=sans, fontsize=10]; edge [fontname=sans, fontsize=8];"]
    for channel in dict.fromkeys(e.reader.feature.channel for e in found):
        here = [e for e in found if e.reader.feature.channel == channel]
        lines.append(f"  subgraph {_quoted(f'cluster_{channel}')} {{ label={_quoted(channel)};")
        for source in dict.fromkeys(_bronze(e) for e in here if e.maker is None):
            lines.append(f"    {_quoted(f'{channel}: {source}')} [shape=box, label={_quoted(source)}];")
        for entry in dict.fromkeys(e.reader for e in here):
            lines.append(f"    {_quoted(_key(entry))} [label={_quoted(entry.feature.name + _from(entry))}];")
        lines.append("  }")
    for edge in found:
        tail = f"{edge.reader.feature.channel}: {_bronze(edge)}" if edge.maker is None else _key(edge.maker)
        label = ", ".join(edge.columns[:4]) + (", ..." if len(edge.columns) > 4 else "")
        lines.append(f"  {_quoted(tail)} -> {_quoted(_key(edge.reader))} [label={_quoted(label)}];")
    return "\n".join([*lines, "}"])


def _bronze(edge: Edge) -> str:
    if edge.reader.feature.channel in BARS:
        return "silver"
    return "bronze trades" if edge.columns[0].startswith(JOINED) else "bronze"


def _key(entry: Entry) -> str:
    return f"{entry.feature.channel}/{entry.feature.name}"


def _from(entry: Entry) -> str:
    return "" if entry.package == BUILT_IN else f" [{entry.package}]"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
