"""What a partition goes on holding: the features recorded for it, with the parameters of today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from tickstate.features.base import FeatureError, Settings
from tickstate.features.registry import default_registry
from tickstate.lake.commit import Commit
from tickstate.runners import reasons


@dataclass(frozen=True)
class Held:
    """Columns that a partition goes on holding."""

    columns: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    """Columns beside these that no feature makes any more: of a package that is not installed."""

    @property
    def error(self) -> str:
        """Why a partition with orphans cannot be made."""
        text = FeatureError(
            f"column {self.orphans[0]!r} of an existing partition has no feature any more",
            fix="install the package that made it, or write to a new place",
        )
        return str(text)


class Holding:
    """``Held`` of the partitions of one lane's channel, record by record; most are like the one before."""

    def __init__(self, channel: str, settings: Settings, params: Mapping[str, Mapping[str, Any]]) -> None:
        self._entries, self._settings = default_registry().of_channel(channel), settings
        self._today = {name: e.feature.make(settings, params.get(name)) for name, e in self._entries.items()}
        self._known = {column for feature in self._today.values() for column in feature.names}
        self._last: tuple[Commit, Held] | None = None

    def of(self, record: Commit | None) -> Held:
        """What the partition of a commit record goes on holding: features, with the columns they have today."""
        if record is None:
            return Held()
        last = self._last
        if last is None or (last[0].columns, last[0].features) != (record.columns, record.features):
            self._last = last = record, self._held(record)
        return last[1]

    def _held(self, record: Commit) -> Held:
        columns = dict.fromkeys(record.columns)
        for name, made in record.features.items():
            today = self._today.get(name)
            if today is None or reasons.plain(dict(today.values)) == made["params"]:
                continue
            try:
                before = self._entries[name].feature.make(self._settings, made["params"]).names
            except FeatureError:  # parameters that it no longer has: its columns of then are orphans, if gone
                continue
            if columns.keys() >= set(before):
                columns |= dict.fromkeys(today.names)
            for column in set(before) - set(today.names):
                columns.pop(column, None)
        return Held(
            tuple(c for c in columns if c in self._known), tuple(c for c in columns if c not in self._known)
        )  # fmt: skip


def without_orphans(record: Commit, held: Held, definition: Mapping[str, Any]) -> Commit:
    """What a record says of the features that are there: the rest cannot be compared with anything."""
    columns = [c for c in record.columns if c not in held.orphans]
    return replace(record, columns=columns, features={n: f for n, f in record.features.items() if n in definition})
