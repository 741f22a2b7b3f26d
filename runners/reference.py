"""The reference page of every built-in feature, from the registry: ``features describe --all``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from tickstate.features.base import BARS, SOURCES, Feature
from tickstate.features.registry import BUILT_IN, default_registry
from tickstate.runners.report import reach, reach_text

TITLES = {
    "orderbook": "Order books (silver)", "trades": "Trades (silver)", "ticker": "Tickers (silver)",
    "orderbook_bars": "Bars of order books (gold)", "trades_bars": "Bars of trades (gold)",
    "ticker_bars": "Bars of tickers (gold)",
}  # fmt: skip
HEAD = """\
# Features

Every built-in feature, from the registry: `features describe --all > docs/features.md` writes this page. A row that is
not valid (`book_flag`, a bad trade or quote) is null in all of them. A lookback is a feature's own; where it reads
others that look back, then the sum along the graph.
"""


def reference() -> str:
    """The page, in Markdown."""
    classes = [e.feature for e in default_registry() if e.package == BUILT_IN]
    parts = [HEAD]
    for channel in (*SOURCES, *BARS):
        parts.append(f"\n## {TITLES[channel]}\n")
        for feature in (f for f in classes if f.channel == channel):
            parts.append("\n".join(_section(feature)))
    return "\n".join(parts)


def _section(feature: type[Feature]) -> Iterator[str]:
    instance, how = feature.make(), reach(feature, feature.make())
    yield f"### {feature.name} {{ #{feature.channel}-{feature.name} }}\n"
    yield f"{(feature.__doc__ or '').strip()}\n"
    yield f"Group `{feature.group}`, version {feature.version}, {'on' if feature.default else 'only when selected'}."
    reads = ", ".join(f"`{n}`" for n in feature.inputs)
    yield f"Reads {reads}. Looks back: {reach_text({**how, 'name': feature.name})}."
    if "kinds" in how:
        yield f"Kinds: `{how['kinds']}`. A bar closes when {how['closes_when']}."
    if feature.source:
        yield f"Source: {feature.source}."
    yield ""
    if feature.params:
        rows = ((f"`{k}`", _text(instance[k]), p.unit, _bounds(p), p.doc) for k, p in feature.params.items())
        yield from _table(("parameter", "default", "unit", "bounds", "meaning"), rows)
    if instance.columns():
        rows = ((f"`{c.name}`", c.unit, c.dtype, c.formula, c.nulls) for c in instance.columns())
        yield from _table(("column", "unit", "type", "formula", "null"), rows)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value) if value != "" else "none"


def _bounds(param: Any) -> str:
    found = [f"at least {param.minimum:g}"] if param.minimum is not None else []
    found += [f"above {param.above:g}"] if param.above is not None else []
    return ", ".join(found + (["ascending"] if param.ascending else []))


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""
