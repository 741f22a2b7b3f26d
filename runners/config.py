"""What a run is told: features.toml, ``--set``, and the options of the command line, checked."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tickstate.features.barengine import check_kind
from tickstate.features.base import FeatureError, Settings, near
from tickstate.features.registry import Registry, default_registry
from tickstate.lake.listing import canonical_symbol
from tickstate.lake.names import Lane

RUN = ("max_staleness", "depth", "sample", "fill_gaps")
"""Settings of ``[run]`` that every lane shares."""
FACTS = ("trades_max_gap", "contract_size", "inverse")
"""Settings that are facts of a lane, under ``[lanes."exchange/symbol"]``."""


@dataclass(frozen=True)
class Config:
    """A checked configuration."""

    run: Mapping[str, Any] = field(default_factory=dict)
    lanes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def features(self) -> tuple[str, ...] | None:
        """The selection, or None for the default one."""
        return tuple(self.run["features"]) if "features" in self.run else None

    @property
    def bars(self) -> tuple[str, ...]:
        """The kinds of bars, empty for the default ones."""
        return tuple(self.run.get("bars", ()))

    @property
    def normalize_quotes(self) -> bool:
        """Whether stablecoin quotes count as USD (FEATURES.md section 6)."""
        return bool(self.run.get("normalize_quotes", False))

    @property
    def prefer(self) -> tuple[str, ...]:
        """Quotes in order of preference, where several books become one lane."""
        return tuple(self.run.get("prefer", ()))

    def settings_of(self, lane: Lane) -> Settings:
        """Run settings and facts of a lane."""
        facts = self.lanes.get(str(lane), {})
        return Settings(**{k: self.run[k] for k in RUN if k in self.run}, **{k: facts[k] for k in FACTS if k in facts})

    def trades_lane(self, lane: Lane) -> Lane:
        """The lane whose trades a lane's order book is joined with."""
        symbol = self.lanes.get(str(lane), {}).get("trades_symbol", lane.symbol)
        return Lane(lane.exchange, canonical_symbol(symbol) if self.normalize_quotes else symbol)

    def params_of(self, lane: Lane) -> dict[str, dict[str, Any]]:
        """Parameters by feature, tables keyed by ``"exchange/symbol"`` resolved for a lane."""
        found: dict[str, dict[str, Any]] = {}
        for name, given in self.params.items():
            chosen = {}
            for key, value in given.items():
                if not isinstance(value, Mapping):
                    chosen[key] = value
                elif str(lane) in value:
                    chosen[key] = value[str(lane)]
            found[name] = chosen
        return found


def load_config(path: Path | None = None, assignments: Iterable[str] = (), registry: Registry | None = None) -> Config:
    """Read ``features.toml`` and apply ``--set feature.parameter=value`` (or ``run.setting=value``) on top."""
    data: dict[str, Any] = {}
    where = str(path) if path else "--set"
    if path is not None:
        try:
            data = tomllib.loads(path.read_text())
        except FileNotFoundError:
            raise FeatureError("no such file", where=where, fix="give --config an existing file") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FeatureError(f"not TOML: {error}", where=where) from None
        except OSError as error:
            raise FeatureError(f"not readable: {error.strerror}", where=where) from None
    for text in assignments:
        _assign(data, text)
    return make_config(data, where, registry)


def make_config(data: Mapping[str, Any], where: str = "config", registry: Registry | None = None) -> Config:
    """Check a configuration given as nested dictionaries; unknown keys are errors with a suggestion."""
    registry = registry or default_registry()
    _known(data, ("run", "lanes", "features"), where)
    run = {k: _run_value(k, v, f"{where} [run]", registry) for k, v in _table(data, "run", RUN_KEYS, where)}
    lanes = {name: _facts(name, facts, where) for name, facts in data.get("lanes", {}).items()}
    config = Config(run, lanes, data.get("features", {}))
    settings = Settings(**{k: v for k, v in run.items() if k in RUN})
    if config.prefer and not config.normalize_quotes:
        raise FeatureError("prefer without normalize_quotes", where=f"{where} [run]", fix="set normalize_quotes = true")
    classes: dict[str, list[Any]] = {}
    for entry in registry:
        classes.setdefault(entry.feature.name, []).append(entry.feature)
    for name, chosen in _table(data, "features", classes, where):
        for variant in _variants(chosen, f"{where} [features.{name}]"):
            for feature in classes[name]:
                feature.make(settings, variant)
    return config


RUN_KEYS = (*RUN, "features", "bars", "normalize_quotes", "prefer")


def _run_value(key: str, value: Any, where: str, registry: Registry) -> Any:
    if key in RUN:
        return _typed(value, type(getattr(Settings(), key)), f"{where} {key}")
    if key == "normalize_quotes":
        return _typed(value, bool, f"{where} {key}")
    if not isinstance(value, list | tuple) or not all(isinstance(v, str) for v in value):
        raise FeatureError(f"{value!r}", where=f"{where} {key}", expected="a list of names")
    if key == "features":
        for name in value:
            registry.find(name)
    if key == "bars":
        for name in value:
            check_kind(name, registry)
    return tuple(value)


def _facts(lane: str, facts: Any, where: str) -> dict[str, Any]:
    where = f'{where} [lanes."{lane}"]'
    if lane.count("/") != 1:
        raise FeatureError(f"{lane!r} is no lane", where=where, expected='"exchange/symbol"')
    _known(facts, (*FACTS, "trades_symbol"), where)
    found = {}
    for key, value in facts.items():
        kind = str if key == "trades_symbol" else type(getattr(Settings(), key))
        found[key] = _typed(value, kind, f"{where} {key}")
    Settings(**{k: v for k, v in found.items() if k in FACTS})
    return found


def _typed(value: Any, kind: type, where: str) -> Any:
    """``value`` as ``kind``; an integer is welcome where a float is wanted."""
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        names = {str: "a text", bool: "true or false", int: "an integer", float: "a number"}
        raise FeatureError(f"{value!r}", where=where, expected=names[kind])
    return value


def _table(data: Mapping[str, Any], key: str, known: Iterable[str], where: str) -> Iterable[tuple[str, Any]]:
    """The items of a table of the configuration, its keys checked."""
    found = data.get(key, {})
    _known(found, known, f"{where} [{key}]")
    return found.items()


def _variants(given: Any, where: str) -> Iterable[dict[str, Any]]:
    """The parameter sets that lanes may see, so that each value is checked."""
    if not isinstance(given, Mapping):
        raise FeatureError(f"{given!r}", where=where, expected="a table of parameters")
    yield {k: v for k, v in given.items() if not isinstance(v, Mapping)}
    for key, table in given.items():
        if isinstance(table, Mapping):
            for lane, value in table.items():
                if lane.count("/") != 1:
                    raise FeatureError(f"{lane!r} is no lane", where=f"{where} {key}", expected='"exchange/symbol"')
                yield {key: value}


def _known(given: Any, known: Iterable[str], where: str) -> None:
    if not isinstance(given, Mapping):
        raise FeatureError(f"{given!r}", where=where, expected="a table")
    known = list(known)
    for key in given:
        if key not in known:
            raise FeatureError(f"unknown key {key!r}", where=where, fix=near(key, known))


def _assign(data: dict[str, Any], text: str) -> None:
    path, eq, value = text.partition("=")
    first, dot, key = path.strip().partition(".")
    if not eq or not dot or not key:
        raise FeatureError(f"{text!r}", where="--set", expected="feature.parameter=value, like vpin.window=20")
    try:
        parsed = tomllib.loads(f"x = {value.strip()}")["x"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()
    table = data.setdefault("run", {}) if first == "run" else data.setdefault("features", {}).setdefault(first, {})
    table[key] = parsed
