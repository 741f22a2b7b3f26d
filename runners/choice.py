"""What the names of a selection mean in each tier: columns of silver, kinds of bars."""

from __future__ import annotations

from collections.abc import Iterable

from tickstate.features.barengine import find_kind
from tickstate.features.bars import BarRule
from tickstate.features.base import BARS, SOURCES
from tickstate.features.registry import Entry, default_registry

DEFAULT = ("60s", "300s", "900s", "3600s")
"""The kinds of bars that are made where none are asked for."""


def silver_names(channel: str, names: Iterable[str] | None) -> tuple[str, ...] | None:
    """Of selected names those that mean something in a channel of silver; None where the default selection is meant.

    A name of bars (a rule, or columns of bars) means in silver what these bars are made of. Raises ``FeatureError``
    for a name that nobody has.
    """
    if names is None:
        return None
    registry, names = default_registry(), tuple(names)
    for name in names:
        registry.find(name)
    known = registry.names([channel])
    found = [n for n in names if n in known]
    bars = next(b for b, rows in BARS.items() if rows == channel)
    chosen = [e for n in names for e in _of_bars(n) if e.feature.channel == bars]
    if chosen:
        kinds = [find_kind(bars, k, select=names) for k in (*rule_kinds(e.feature.name for e in chosen), DEFAULT[0])]
        wanted = {column for kind in kinds if kind is not None for column in kind.inputs}
        found += sorted(n for n in wanted if (e := registry.maker(channel, n)) and e.feature.channel == channel)
    return tuple(dict.fromkeys(found))


def rule_kinds(names: Iterable[str] | None) -> tuple[str, ...]:
    """The kinds of bars among selected names: a rule means its kind without a number, time bars the default ones."""
    rules = [e.feature for n in names or () for e in _of_bars(n) if e.feature.name == n and _is_rule(e)]
    return tuple(dict.fromkeys(k for rule in rules for k in ([rule.prefix] if rule.prefix else DEFAULT)))  # type: ignore[attr-defined]


def _of_bars(name: str) -> list[Entry]:
    """The features of bars that a name selects; none where it selects some of silver."""
    registry = default_registry()
    chosen = () if name in registry.names(SOURCES) else (e for e in registry if e.feature.channel in BARS)
    return [e for e in chosen if name in (e.feature.name, e.feature.group, *e.names)]


def _is_rule(entry: Entry) -> bool:
    return issubclass(entry.feature, BarRule)
