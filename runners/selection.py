"""What a run is about, held against what bronze has: a name that fits nothing is an error that says what there is."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import islice, permutations
from pathlib import Path

from tickstate.features.base import BARS, near
from tickstate.lake.errors import LakeError
from tickstate.lake.names import Lane
from tickstate.lake.schema import BRONZE
from tickstate.lake.store import Place, place, walk
from tickstate.runners.choice import rule_kinds, silver_names
from tickstate.runners.config import Config

LOOKED_AT = 3
"""Files of a channel that are opened to see whose they are."""


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


def check_places(selection: Selection) -> None:
    """Raise where tiers are mixed up, before a file is written: output would lie among bronze or replace it."""
    read = {"silver": ("bronze", selection.bronze), "gold": ("silver", selection.silver)}
    written = {"silver": selection.silver, "gold": selection.gold}
    made = {tier: root for tier, root in written.items() if tier in selection.tiers and root is not None}
    places = dict(read[tier] for tier in made) | made
    for (outer, above), (inner, below) in permutations(places.items(), 2):
        rest = _below(above, below)
        if rest == [] and "bronze" in (outer, inner):
            what = f"the same place as {outer}"
        elif rest and (rest[0] in BRONZE or rest[0] in BARS):
            what = f"in {outer}'s folder {rest[0]!r}"
        else:
            continue
        fix = f"change --{inner} or --{outer}, or give --lake DIR for all"
        raise LakeError(f"{inner} is {what}", where=str(below), expected="a folder of its own for it", fix=fix)
    fix = "check --bronze, --silver and --gold"
    if "bronze" in places and any((selection.bronze / "_commits" / c).is_dir() for c in BRONZE):
        raise LakeError("it is silver, with records of commits", where=f"bronze {selection.bronze}", fix=fix)
    for tier in (t for t in ("silver", "gold") if t in places):
        for channel in BRONZE if tier == "silver" else BARS:
            stranger = _stranger(places[tier], channel)
            if stranger:
                raise LakeError(
                    f"{stranger} is not of tickstate's making", where=f"{tier} {places[tier]}",
                    expected="a place for output alone", fix=f"{fix}, or move what is there away",
                )  # fmt: skip


def _below(above: Place, below: Place) -> list[str] | None:
    """The names of folders from a place to one that lies in it; None where it does not."""
    one, two = _names_of(above), _names_of(below)
    return two[len(one) :] if two[: len(one)] == one else None


def _names_of(root: Place) -> list[str]:
    if isinstance(root, Path):
        return list(Path(os.path.realpath(root)).parts)
    path, _, query = str(root).partition("?")
    return [query, *path.split("/")]


def _stranger(root: Place, channel: str) -> str:
    """A Parquet file of somebody else's in a channel of which no commit is recorded; "" where there is none."""
    folder = root / channel
    if (root / "_commits" / channel).is_dir() or not folder.is_dir():
        return ""
    from tickstate.lake.write import is_output  # reads Parquet: only where something is odd

    found = islice(walk(folder), LOOKED_AT)
    return next((f"{channel}/{relative}" for relative, path, _ in found if is_output(place(path)) is False), "")


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
