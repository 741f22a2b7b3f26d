"""What a run is told: features.toml, ``--set``, and the options of the command line, checked."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from tickstate.features.base import FeatureError, Settings, near
from tickstate.features.registry import Registry, default_registry
from tickstate.lake.names import Lane


@dataclass(frozen=True)
class Config:
    """A checked configuration: run settings, selected features, parameters by feature."""

    settings: Settings = field(default_factory=Settings)
    features: tuple[str, ...] | None = None
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def of_lane(self, lane: Lane) -> dict[str, dict[str, Any]]:
        """Parameters by feature, tables keyed by ``"exchange/symbol"`` resolved for this lane."""
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
        except tomllib.TOMLDecodeError as error:
            raise FeatureError(f"not TOML: {error}", where=where) from None
    for text in assignments:
        _assign(data, text)
    return make_config(data, where, registry)


def make_config(data: Mapping[str, Any], where: str = "config", registry: Registry | None = None) -> Config:
    """Check a configuration given as nested dictionaries; unknown keys are errors with a suggestion."""
    registry = registry or default_registry()
    _known(data, ("run", "features"), where)
    run = data.get("run", {})
    settings = {f.name: f for f in fields(Settings)}
    _known(run, (*settings, "features"), f"{where} [run]")
    given = {}
    for name, value in run.items():
        if name in settings:
            kind = type(settings[name].default)
            if not isinstance(value, int | float) or isinstance(value, bool) or value != kind(value):
                raise FeatureError(f"{value!r}", where=f"{where} [run] {name}", expected=kind.__name__)
            given[name] = kind(value)
    params = data.get("features", {})
    classes: dict[str, list[Any]] = {}
    for entry in registry:
        classes.setdefault(entry.feature.name, []).append(entry.feature)
    _known(params, classes, f"{where} [features]")
    for name, chosen in params.items():
        for feature in classes[name]:
            for variant in _variants(chosen):
                feature.make(Settings(**given), variant)
    selected = run.get("features")
    for name in selected or ():
        registry.find(name)
    return Config(Settings(**given), tuple(selected) if selected is not None else None, params)


def _variants(given: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """The parameter sets that lanes may see, so that each value is checked."""
    yield {k: v for k, v in given.items() if not isinstance(v, Mapping)}
    for key, table in given.items():
        if isinstance(table, Mapping):
            for lane, value in table.items():
                if lane.count("/") != 1:
                    raise FeatureError(f"{lane!r} is no lane", where=f"[features] {key}", expected='"exchange/symbol"')
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
