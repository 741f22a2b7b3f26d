"""The registry: which features there are, checked when they come in.

An instance, so that tests and notebooks can have their own; ``default_registry()`` holds the built-ins
and what other packages offer under the entry-point group ``tickstate.features``.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from tickstate.features.base import (
    BAR_SOURCES,
    BARS,
    DTYPES,
    SOURCES,
    Column,
    Feature,
    FeatureError,
    Param,
    Settings,
    near,
)

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "tickstate.features"
BUILT_IN = "tickstate"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_COLUMN = re.compile(r"[a-z][A-Za-z0-9_]*")
RESERVED = (
    "exchange", "symbol", "year", "month", "day", "hour",
    "capture_ts", "timestamp", "nonce", "row_id", "book_flag", "latency_ms",
    "trade_id", "side", "price", "amount", "sample_ts", "snapshot_count", "data_staleness_ms",
    "bar_id", "bar_start", "bar_end", "bar_duration_sec", "known_at", "bar_reason", "threshold", "complete",
    "first_ts", "last_ts", "first_trade_id", "last_trade_id", "trade_count", "tick_count",
)  # fmt: skip
"""Columns that every partition has and no feature may make."""


@dataclass(frozen=True)
class Entry:
    """A registered feature class and the package it came from."""

    feature: type[Feature]
    package: str
    names: tuple[str, ...]
    """Columns with default parameters."""


class Registry:
    """Features by channel and name."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}
        self._makers: dict[tuple[str, str], Entry] = {}
        self.left_out: tuple[FeatureError, ...] = ()
        """What is wrong with installed plugins that are not in."""

    def register(self, feature: type[Feature], package: str = BUILT_IN) -> type[Feature]:
        """Add a feature class, or raise a ``FeatureError`` that names package, plugin and the rule it breaks."""
        where = f"plugin {getattr(feature, 'name', feature)!r} of package {package!r}"
        self._check_declarations(feature, where)
        instance = self._default_instance(feature, where)
        if len(set(instance.names)) != len(instance.names) or not (instance.names or _is_rule(feature)):
            raise FeatureError(f"columns {list(instance.names)}", where=where, expected="one or more, each once")
        for column in instance.columns():
            self._check_column(column, feature, where)
        entry = self._entries[feature.channel, feature.name] = Entry(feature, package, instance.names)
        self._makers.update({(feature.channel, name): entry for name in instance.names})
        return feature

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def of_channel(self, channel: str) -> dict[str, Entry]:
        """Entries of a channel by name, in the order of registration."""
        return {name: e for (c, name), e in self._entries.items() if c == channel}

    def find(self, name: str) -> list[Entry]:
        """Features called ``name``, in a group called so, or with a column called so; raises if there is none."""
        found = [e for e in self if name in (e.feature.name, e.feature.group)]
        found = found or [e for e in self if name in e.names]
        if not found:
            out = f"; left out: {'; '.join(map(str, self.left_out))}" if self.left_out else ""
            raise FeatureError(f"unknown feature {name!r}", fix=near(name, self.names()) + out)
        return found

    def maker(self, channel: str, name: str) -> Entry | None:
        """Who makes an input of a channel's features: of bars, a feature of silver before another of bars."""
        found = self._makers.get((BARS[channel], name)) if channel in BARS else None
        return found or self._makers.get((channel, name))

    def names(self, channels: Iterable[str] | None = None) -> set[str]:
        """Everything that selects: names of features, groups and columns."""
        chosen = [e for e in self if channels is None or e.feature.channel in channels]
        found = {e.feature.name for e in chosen} | {e.feature.group for e in chosen}
        return found.union(*(e.names for e in chosen))

    def extended(self, features: Iterable[type[Feature]], package: str) -> Registry:
        """A registry with these features beside ours (or instead: a class imported anew), held together."""
        features = list(features)
        again = {(f.channel, f.name, f.__module__, f.__qualname__) for f in features}
        made = Registry()
        made.left_out = self.left_out
        for e in self:
            f = e.feature
            if (f.channel, f.name, f.__module__, f.__qualname__) not in again:
                made.register(f, e.package)
        for f in features:
            made.register(f, self.package_of(f) or package)
        made.check()
        return made

    def package_of(self, feature: type[Feature]) -> str:
        """The package that a class was registered from, empty if it was not."""
        return next((e.package for e in self if e.feature is feature), "")

    def check(self) -> None:
        """Hold all features together: inputs that nobody makes, and circles. Raises a ``FeatureError`` on the first.

        Apart from ``register``, since a plugin may read what one that is registered later makes.
        """
        for _, error in self._misfits():
            raise error

    def settle(self) -> None:
        """``check``, but plugins that do not fit are left out, and those that read them too."""
        while (found := next(self._misfits(), None)) is not None:
            entry, error = found
            if entry.package == BUILT_IN:
                raise error
            self.leave_out(error)
            del self._entries[entry.feature.channel, entry.feature.name]
            self._makers = {key: e for key, e in self._makers.items() if e is not entry}

    def leave_out(self, error: FeatureError) -> None:
        """Note what is wrong with a plugin that is not in."""
        self.left_out = (*self.left_out, error)

    def _misfits(self) -> Iterator[tuple[Entry, FeatureError]]:
        """Features that do not fit together with the others, and why."""
        for entry in self:
            channel = entry.feature.channel
            rows = BARS.get(channel, channel)
            known = {n for (c, n) in self._makers if c in (channel, rows)} | set(SOURCES[rows])
            known |= set(BAR_SOURCES) if channel in BARS else set()
            for name in entry.feature.inputs:
                if name not in known:
                    where = f"plugin {entry.feature.name!r} of package {entry.package!r}"
                    fix = f"{near(name, known)}; mend the plugin{_or_uninstall(entry.package)}"
                    yield entry, FeatureError(f"unknown input {name!r}", where=where, fix=fix)
        done: set[str] = set()
        for entry in self:
            circle = self._circle(entry, done, ())
            if circle:
                guilty = next((e for e in circle if e.package != BUILT_IN), circle[0])
                packages = sorted({repr(e.package) for e in circle})
                got = f"features read each other in a circle: {' -> '.join(e.feature.name for e in circle)}"
                where = f"package{'s' * (len(packages) > 1)} {' and '.join(packages)}"
                fix = f"break one of these inputs{_or_uninstall(guilty.package)}"
                yield guilty, FeatureError(got, where=where, fix=fix)

    def _circle(self, entry: Entry, done: set[str], path: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """A circle of inputs, depth first; ``path`` is how ``entry`` was come to."""
        key = f"{entry.feature.channel} {entry.feature.name}"
        if key in done:
            return ()
        if entry in path:
            return (*path[path.index(entry) :], entry)
        for name in entry.feature.inputs:
            maker = self.maker(entry.feature.channel, name)
            found = self._circle(maker, done, (*path, entry)) if maker is not None else ()
            if found:
                return found
        done.add(key)
        return ()

    def _default_instance(self, feature: type[Feature], where: str) -> Feature:
        """With default parameters and settings: what every declaration must stand."""
        try:
            instance = feature.make(Settings())
            instance.columns(), instance.lookback(), instance.trades_lookback(), instance.arguments()
        except FeatureError as error:
            inside = f"{where}: {error.where}" if error.where else where
            raise FeatureError(error.got, where=inside, expected=error.expected, fix=error.fix) from error
        except Exception as error:
            got = f"its declarations fail with the default parameters: {type(error).__name__}: {error}"
            raise FeatureError(got, where=where, fix="mend columns(), lookback() or arguments()") from error
        return instance

    def _check_declarations(self, feature: type[Feature], where: str) -> None:
        if not (inspect.isclass(feature) and issubclass(feature, Feature)):
            raise FeatureError(f"{feature!r}", where=where, expected="a subclass of tickstate.Feature")
        if not _NAME.fullmatch(feature.name):
            raise FeatureError(f"name {feature.name!r}", where=where, expected="lower-case letters, digits and _")
        if feature.channel not in SOURCES and feature.channel not in BARS:
            raise FeatureError(
                f"channel {feature.channel!r}", where=where, fix=near(feature.channel, [*SOURCES, *BARS])
            )
        taken = self._entries.get((feature.channel, feature.name))
        if taken is not None:
            raise FeatureError(f"name {feature.name!r} is taken by package {taken.package!r}", where=where)
        if not feature.group or not feature.inputs or not hasattr(feature, "kernel"):
            raise FeatureError("a declaration is missing", where=where, expected="group, inputs and kernel")
        if feature.version < 1:
            raise FeatureError(f"version {feature.version}", where=where, expected="an integer from 1 on")
        for key, param in feature.params.items():
            if not isinstance(param, Param) or not param.doc:
                raise FeatureError(f"parameter {key!r}", where=where, expected="a Param with a doc")
        for key in feature.examples:
            if key not in feature.params:
                raise FeatureError(f"examples[{key!r}] is no parameter", where=where, fix=near(key, feature.params))

    def _check_column(self, column: Column, feature: type[Feature], where: str) -> None:
        if not _COLUMN.fullmatch(column.name):
            raise FeatureError(f"column {column.name!r}", where=where, expected="letters, digits and _")
        if not column.unit or not column.formula:
            raise FeatureError(f"column {column.name!r} lacks unit or formula", where=where)
        if column.dtype not in DTYPES or (column.dtype == "string") != bool(column.categories):
            raise FeatureError(f"column {column.name!r}: dtype {column.dtype!r}", where=where, expected=str(DTYPES))
        if column.name in RESERVED or column.name in SOURCES.get(feature.channel, ()):
            raise FeatureError(f"column {column.name!r} is reserved", where=where, fix="choose another name")
        other = self._makers.get((feature.channel, column.name))
        if other is not None:
            raise FeatureError(
                f"column {column.name!r} is already made by {other.feature.name!r} of package {other.package!r}",
                where=where, fix="choose another name",
            )  # fmt: skip


def _is_rule(feature: type[Feature]) -> bool:
    """A kind of bars: it makes no columns of its own."""
    from tickstate.features.bars import BarRule

    return issubclass(feature, BarRule)


@cache
def default_registry() -> Registry:
    """The built-in features, then those of installed packages; what is wrong with some is in ``left_out``."""
    from importlib.metadata import entry_points

    from tickstate.features import barcolumns, bars, ewma, flow, regime, structure, tape, trades

    registry = Registry()
    of_rows = [f for module in (structure, flow, trades, regime, ewma, tape) for f in module.FEATURES]
    of_bars = sorted((*bars.FEATURES, *barcolumns.FEATURES), key=lambda f: list(BARS).index(f.channel))
    for feature in (*of_rows, *of_bars):
        registry.register(feature)
    for point in sorted(entry_points(group=GROUP), key=lambda p: (p.dist.name if p.dist else "", p.name)):
        _load(registry, point)
    registry.settle()
    return registry


def _load(registry: Registry, point: EntryPoint) -> None:
    """Register what an entry point offers; whatever goes wrong is noted, and says which package to mend or remove."""
    package = point.dist.name if point.dist else point.value
    try:
        loaded = point.load()
    except (Exception, SystemExit) as error:
        where = f"entry point {point.name!r} of package {package!r}"
        fix = f"mend or remove it: pip uninstall {package}"
        registry.leave_out(FeatureError(f"{type(error).__name__}: {error}", where=where, fix=fix))
        return
    for feature in loaded if isinstance(loaded, list | tuple) else (loaded,):
        try:
            registry.register(feature, package)
        except FeatureError as error:
            fix = f"{error.fix or 'mend the plugin'}{_or_uninstall(package)}"
            registry.leave_out(FeatureError(error.got, where=error.where, expected=error.expected, fix=fix))


def _or_uninstall(package: str) -> str:
    return "" if package == BUILT_IN else f", or remove it: pip uninstall {package}"
