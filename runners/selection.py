"""What a run is about, held against what bronze has: a name that fits nothing is an error that says what there is."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from itertools import islice, permutations
from pathlib import Path
from urllib.parse import parse_qs

from tickstate.features.base import BARS, near
from tickstate.lake.errors import LakeError
from tickstate.lake.names import Lane
from tickstate.lake.schema import BRONZE
from tickstate.lake.store import Place, folders, place, walk
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


NOWHERE = Path(os.devnull, "nowhere")
"""For bronze or outputs that a selection has no use for."""


def check_places(selection: Selection) -> None:
    """Raise where one tier's files would lie in bronze, or among another's, by the names of the places."""
    places = {"bronze": selection.bronze, "silver": selection.silver, "gold": selection.gold}
    named = {tier: (root, _names_of(root)) for tier, root in places.items() if root is not None}
    for (outer, (_, above)), (inner, (root, below)) in permutations(named.items(), 2):
        if below[: len(above)] != above:
            continue
        rest = below[len(above) :]
        if not rest and "bronze" in (outer, inner):
            what = f"the same place as {outer}"
        elif rest and (rest[0] in BRONZE or rest[0] in BARS):
            what = f"in {outer}'s folder {rest[0]!r}"
        else:
            continue
        fix = f"change --{inner} or --{outer}, or give --lake DIR for all"
        raise LakeError(f"{inner} is {what}", where=str(root), expected="a folder of its own for it", fix=fix)


def check_files(selection: Selection) -> None:
    """Raise where tiers are mixed up, by what lies there: records of commits in bronze, others' Parquet in outputs."""
    fix = "check --bronze, --silver and --gold"
    if "silver" in selection.tiers and set(folders(selection.bronze / "_commits")) & set(BRONZE):
        raise LakeError(
            "it has records of commits, as silver has", where=f"bronze {selection.bronze}",
            fix=f"{fix}, or remove its folder _commits if it is bronze",
        )  # fmt: skip
    for tier, root, channels in (("silver", selection.silver, BRONZE), ("gold", selection.gold, BARS)):
        if root is None or tier not in selection.tiers:
            continue
        recorded = folders(root / "_commits")
        for channel in channels:
            wanted = not selection.channels or BARS.get(channel, channel) in selection.channels
            stranger = _stranger(root, channel) if wanted and channel not in recorded else ""
            if stranger:
                raise LakeError(
                    f"{stranger} is not of tickstate's making", where=f"{tier} {root}",
                    expected="a place for output alone", fix=f"{fix}, or move what is there away",
                )  # fmt: skip


def _names_of(root: Place) -> list[str]:
    if isinstance(root, Path):
        return list(Path(os.path.realpath(root)).parts)
    path, _, query = str(root).partition("?")
    return [*parse_qs(query).get("endpoint_override", [""]), *path.split("/")]


def _stranger(root: Place, channel: str) -> str:
    """The path of a Parquet file of somebody else's in a channel; "" where there is none."""
    if not (root / channel).is_dir():
        return ""
    from tickstate.lake.write import is_output  # reads Parquet: only where something is odd

    files = ((relative, is_output(place(path))) for relative, path, stat in walk(root / channel) if stat is not None)
    looked_at = islice((found for found in files if found[1] is not None), LOOKED_AT)
    return next((f"{channel}/{relative}" for relative, ours in looked_at if not ours), "")


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
