"""What a run is about, held against what bronze has: a name that fits nothing is an error that says what there is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path

from tickstate.features.base import near
from tickstate.lake.errors import LakeError
from tickstate.lake.names import Lane
from tickstate.lake.schema import BRONZE
from tickstate.lake.store import Place
from tickstate.runners.choice import rule_kinds, silver_names
from tickstate.runners.config import Config


@dataclass(frozen=True)
class Selection:
    """What a run is about: places, channels, lanes, hours, features."""

    bronze: Place
    silver: Place
    gold: Place | None = None
    tiers: tuple[str, ...] = ("silver", "gold")
    """Of these, gold is made where it has a place."""
    bars: tuple[str, ...] = ()
    """Kinds of bars; empty: those of the configuration, or the default ones and those that gold has."""
    channels: tuple[str, ...] = ()
    exchanges: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    start: int | None = None
    end: int | None = None
    features: tuple[str, ...] | None = None
    config: Config = field(default_factory=Config)

    def __post_init__(self) -> None:
        check_places({"bronze": self.bronze, "silver": self.silver, "gold": self.gold})


def check_places(places: Mapping[str, Place | None]) -> None:
    """Raise where one tier's files would lie among another's."""
    parts = {tier: _parts(p) for tier, p in places.items() if p is not None}
    for (outer, above), (inner, below) in permutations(parts.items(), 2):
        rest = below[len(above) :] if below[: len(above)] == above else None
        if rest is not None and (not rest or rest[0] in BRONZE or rest[0].startswith("_")):
            what = f"the same place as {outer}" if not rest else f"in {outer}'s folder {rest[0]!r}"
            raise LakeError(
                f"{inner} is {what}", where=str(places[inner]), expected="a folder of its own for each tier",
                fix=f"change --{inner} or --{outer}, or give --lake DIR for all",
            )  # fmt: skip


def _parts(of: Place) -> tuple[str, ...]:
    return of.resolve().parts if isinstance(of, Path) else tuple(str(of).partition("?")[0].split("/"))


def is_within(hour: int, selection: Selection) -> bool:
    """Whether a selection means an hour."""
    return (selection.start is None or hour >= selection.start) and (selection.end is None or hour < selection.end)


def channels_of(selection: Selection, live: bool = False) -> tuple[str, ...]:
    """The channels of bronze that a selection means; ``live``: one that is not there may still come."""
    if live and not any((selection.bronze / c).is_dir() for c in BRONZE):
        return ()  # nothing has come yet
    if not selection.bronze.is_dir():
        raise LakeError("no such folder", where=f"bronze {selection.bronze}", fix="check --bronze or --lake")
    present = [c for c in BRONZE if (selection.bronze / c).is_dir()]
    for channel in selection.channels:
        if channel not in BRONZE:
            raise LakeError(f"unknown channel {channel!r}", fix=near(channel, BRONZE))
        if channel not in present:
            raise LakeError(
                f"no folder {channel!r}", where=f"bronze {selection.bronze}",
                expected=f"{', '.join(BRONZE)}", fix=f"it has: {_has(selection.bronze)}",
            )  # fmt: skip
    if not present:
        raise LakeError(
            "no channel in it", where=f"bronze {selection.bronze}", expected=f"a folder {', '.join(BRONZE)}",
            fix=f"it has: {_has(selection.bronze)}",
        )  # fmt: skip
    chosen = [c for c in present if not selection.channels or c in selection.channels]
    names = selection.features or selection.config.features
    if selection.gold is None and rule_kinds(selection.features):
        kinds = ", ".join(rule_kinds(selection.features))
        raise LakeError(f"{kinds}: bars are gold", where="--feature", fix="give --gold DIR, or --lake DIR")
    found = tuple(c for c in chosen if silver_names(c, names) != ())
    if not found:
        what, where = ", ".join(names or ()), ", ".join(chosen)
        raise LakeError(f"{what}: no feature of {where}", fix="see: features list")
    return found


def _has(folder: Place) -> str:
    names = sorted(p.name for p in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def check_names(what: str, given: tuple[str, ...], known: set[str], selection: Selection) -> None:
    """Raise for an exchange or symbol that bronze does not have."""
    for name in given:
        if name not in known:
            raise LakeError(f"no {what} {name!r}", where=f"bronze {selection.bronze}", fix=near(name, known))


def is_chosen(lane: Lane, selection: Selection) -> bool:
    """Whether a selection means a lane."""
    return (not selection.exchanges or lane.exchange in selection.exchanges) and (
        not selection.symbols or lane.symbol in selection.symbols
    )
