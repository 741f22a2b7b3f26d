"""The plan of gold: days of bars against the hours of silver they are made from.

A day of bars is a function of the silver hours of its lane and UTC day, by their content hashes. Silver is planned
and computed before, so that a late file flows through an hour of silver to exactly its day.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from tickstate.features.barengine import Kind, check_kind, find_kind
from tickstate.features.bars import AUTO
from tickstate.features.base import BARS, FeatureError, Settings, near
from tickstate.features.table import KEYS, PASSED
from tickstate.lake.commit import Commit, commit_path, read_commits
from tickstate.lake.errors import LakeError
from tickstate.lake.listing import Listing, list_channel
from tickstate.lake.names import HOUR, Lane, hour_name, partition_path, time_name
from tickstate.lake.segment import Files
from tickstate.lake.store import Place, folders, snapshot, stat_of
from tickstate.runners import reasons
from tickstate.runners.choice import DEFAULT, rule_kinds
from tickstate.runners.config import Config
from tickstate.runners.outcome import Outcome
from tickstate.runners.plan import Clock, Planned
from tickstate.runners.selection import Selection, is_chosen

DAY = 24
"""Hours of a day: partitions of gold carry the number of their first hour."""
PAST_DAYS = 7
PENDING = "it is to be computed first"
"""Why a day waits for an hour of silver that a plan has found stale."""
FACTS = ("max_staleness", "contract_size", "inverse")
"""Settings that bars take over from the silver they are made from."""


@dataclass(frozen=True)
class DaySpan:
    """A task: days of one lane of a silver channel, each with the kinds of bars to make of it."""

    silver: Place
    root: Place
    """Gold."""
    channel: str
    """Of silver."""
    lane: Lane
    hours: tuple[int, ...]
    """The first hour of each day."""
    kinds: Mapping[int, tuple[Kind, ...]]
    contents: Mapping[int, Mapping[int, str]]
    """Content hash of each silver hour, by day."""
    settings: Mapping[tuple[int, str], Mapping[str, Any]]
    """What a commit record says of facts and of where a threshold is from, by day and kind."""
    cutoffs: Mapping[int, int] = field(default_factory=dict)
    newest: ClassVar[bool] = False

    @property
    def writes(self) -> str:
        """The channel that is written, its kinds apart."""
        return f"{self.channel}_bars"


@dataclass
class GoldPlan:
    """All days of bars of a selection; the same face as the plan of silver."""

    selection: Selection
    files: Files
    clock: Clock | None = None
    partitions: list[Planned] = field(default_factory=list)
    failed: list[Outcome] = field(default_factory=list)
    """Days that cannot be made, and why."""
    notices: list[str] = field(default_factory=list)
    kinds: dict[tuple[str, Lane, int], Kind] = field(default_factory=dict)
    contents: dict[tuple[str, Lane, int], dict[int, str]] = field(default_factory=dict)
    settings: dict[tuple[str, Lane, int], dict[str, Any]] = field(default_factory=dict)
    source: ClassVar[str] = "silver"
    misplaced: ClassVar[tuple[()]] = ()
    known: ClassVar[Mapping[str, Any]] = {}
    listings: ClassVar[Mapping[str, Any]] = {}

    @cached_property
    def silver(self) -> Place:
        """Silver as it was when the plan began to look at it."""
        return snapshot(self.selection.silver)

    @cached_property
    def gold(self) -> Place:
        """Gold as it was when the plan began to look at it."""
        assert self.selection.gold is not None
        return snapshot(self.selection.gold)

    @property
    def stale(self) -> list[Planned]:
        return [p for p in self.partitions if p.reasons]

    def groups(self, longest: int) -> list[list[Planned]]:
        """A task a lane's day: its hours are read once for all kinds that go equally far."""
        groups: dict[tuple[str, Lane, int, int | None], list[Planned]] = {}
        for p in self.stale:
            groups.setdefault((_made_of(p), p.lane, p.hour, p.cutoff), []).append(p)
        return list(groups.values())

    def spans(self, longest: int) -> list[DaySpan]:
        """The same with all that a worker needs."""
        return [self._span(_made_of(g[0]), g[0].lane, g[0].hour, g) for g in self.groups(longest)]

    def _span(self, channel: str, lane: Lane, day: int, group: list[Planned]) -> DaySpan:
        cutoff = group[0].cutoff
        return DaySpan(
            self.selection.silver, self.selection.gold, channel, lane, (day,),
            kinds={day: tuple(self.kinds[p.channel, lane, day] for p in group)},
            contents={day: self.contents[channel, lane, day]},
            settings={(day, p.channel): self.settings[p.channel, lane, day] for p in group},
            cutoffs={} if cutoff is None else {day: cutoff},
        )  # fmt: skip


def _made_of(planned: Planned) -> str:
    """The channel of silver that a partition of bars is made of."""
    return BARS[planned.channel.partition("/")[0]]


def make_gold_plan(
    selection: Selection,
    files: Files | None = None,
    clock: Clock | None = None,
    waiting: Mapping[tuple[str, Lane, int], str] | None = None,
    bronze: Mapping[str, Listing] | None = None,
) -> GoldPlan:
    """Compare every day of bars of the selection with its commit record.

    ``waiting``: silver partitions that are not what they should be, and why; their days are not made. ``bronze``: what
    silver could be made of; days that lack hours of it are named.
    """
    plan = GoldPlan(selection, files or Files(), clock)
    found = False
    for channel in BARS.values():
        if selection.channels and channel not in selection.channels:
            continue
        listing = list_channel(selection.silver, channel)
        for where, lane, hour in waiting or ():
            if where == channel:
                listing.lanes.setdefault(lane, {}).setdefault(hour, [])
        for lane in sorted(listing.lanes):
            if is_chosen(lane, selection):
                found = True
                _plan_lane(plan, channel, lane, listing, waiting or {})
                if bronze is not None and channel in bronze:
                    _name_parts(plan, channel, lane, listing, bronze[channel])
    if not found and clock is None and not waiting:
        raise LakeError("no silver fits the selection", where=str(selection.silver), fix="run with --tier silver first")
    return plan


def asked_kinds(selection: Selection) -> tuple[str, ...]:
    """The kinds of bars that this run names: as bars, or as features that are rules of bars."""
    return (*selection.bars, *rule_kinds(selection.features))


def configured_kinds(config: Config) -> tuple[str, ...]:
    """The kinds of bars that the configuration names, in either way."""
    return (*config.bars, *rule_kinds(config.features))


def kinds_of(selection: Selection) -> tuple[str, ...]:
    """The kinds of bars that are asked for, each known to some channel that is."""
    chosen = asked_kinds(selection) or configured_kinds(selection.config) or DEFAULT
    for channel in selection.channels:
        if channel not in BARS.values():
            raise LakeError(f"unknown channel {channel!r}", fix=near(channel, BARS.values()))
    for name in chosen:
        _check_threshold(name, selection)
        channels = check_kind(name)
        if selection.channels and not {BARS[c] for c in channels} & set(selection.channels):
            made_of = ", ".join(BARS[c] for c in channels)
            raise FeatureError(
                f"bars {name!r} are made of {made_of}", where="--channel", fix=f"add --channel {made_of}"
            )
    return tuple(dict.fromkeys(chosen))


def _check_threshold(name: str, selection: Selection) -> None:
    """Bars without a number in their name need a threshold in the configuration."""
    rules = [find_kind(channel, name) for channel in BARS]
    for rule in (k.rule for k in rules if k is not None):
        if dict(rule.values).get("threshold") == "" and "threshold" not in selection.config.params.get(rule.name, {}):
            raise FeatureError(
                f"bars {name!r} have no threshold", where="--bars",
                fix=f"write {rule.prefix}_1000{f' or {rule.prefix}_auto' if rule.total else ''}, or set "
                f"[features.{rule.name}] threshold",
            )  # fmt: skip


def _plan_lane(plan: GoldPlan, channel: str, lane: Lane, listing: Listing, waiting: Mapping[Any, str]) -> None:
    selection = plan.selection
    read = read_commits(plan.silver, channel, lane, listing.lanes[lane])
    records = {h: r for h, r in sorted(read.items()) if r is not None}
    bars, chosen = f"{channel}_bars", kinds_of(selection)
    explicit = bool(asked_kinds(selection) or configured_kinds(selection.config))
    existing = () if asked_kinds(selection) else _existing(plan.gold, bars)
    doubts = _doubts(plan, channel, lane, listing, records, waiting)
    traded = sorted({h // DAY * DAY for h in listing.lanes[lane] if h in doubts or records[h].totals.get("trades")})
    thresholds = {n: _threshold(bars, n, lane, selection) for n in (*chosen, *existing)}
    days = [d for d in sorted({h // DAY * DAY for h in listing.lanes[lane]}) if _overlaps(d, selection)]
    kinds = [n for n, threshold in thresholds.items() if threshold is not None]
    made = {n: read_commits(plan.gold, f"{bars}/{n}", lane, days) for n in kinds}
    for day in days:
        hours = {h: r for h, r in records.items() if day <= h < day + DAY}
        past = [d for d in traded if d < day][-PAST_DAYS:]
        for name in (n for n in kinds if n in chosen or made[n][day] is not None):
            target = f"{bars}/{name}"
            auto = thresholds[name] == AUTO
            since = past[0] if auto and past else day
            held = next(((h, why) for h, why in doubts.items() if since <= h < day + DAY), None)
            if held is not None and (past or not auto):
                text = f"silver {channel} {hour_name(held[0])}: {held[1]}"
                if held[1] == PENDING:
                    plan.partitions.append(Planned(target, lane, day, (text,), ()))
                else:
                    plan.failed.append(Outcome(target, lane, day, error=text))
                continue
            try:
                _plan_day(plan, channel, lane, day, name, hours, records, made[name][day])
            except FeatureError as error:
                if explicit:
                    plan.failed.append(Outcome(target, lane, day, error=str(error)))
                else:
                    text = f"{bars} are left out: {error.got}; {error.fix}"
                    plan.notices += [text] if text not in plan.notices else []


def _name_parts(plan: GoldPlan, channel: str, lane: Lane, listing: Listing, bronze: Listing) -> None:
    """A day that is made while bronze has hours of it that silver has not: its bars are those of a part."""
    missing = sorted(bronze.lanes.get(lane, {}).keys() - listing.lanes[lane].keys())
    made = {p.hour for p in plan.stale if p.lane == lane and p.channel.startswith(f"{channel}_bars/")}
    for day in sorted(made & {h // DAY * DAY for h in missing}):
        lacks = [h for h in missing if day <= h < day + DAY]
        plan.notices.append(
            f"{channel}_bars of {lane} {time_name(f'{channel}_bars/', day)} are of a part of the day: no silver yet of "
            f"{len(lacks)} of its hours in bronze, first {hour_name(lacks[0])}"
        )


def _doubts(
    plan: GoldPlan, channel: str, lane: Lane, listing: Listing, records: Mapping[int, Commit],
    waiting: Mapping[tuple[str, Lane, int], str],
) -> dict[int, str]:  # fmt: skip
    """Hours of a lane's silver that no day can be made from, in order, and why."""
    silver = plan.silver
    found = {}
    for hour in sorted(listing.lanes[lane]):
        if (channel, lane, hour) in waiting:
            found[hour] = waiting[channel, lane, hour]
        elif hour not in records:
            found[hour] = "it has no commit record"
        else:
            path, beside = partition_path(silver, channel, lane, hour), commit_path(silver, channel, lane, hour)
            stat = stat_of(path)
            if stat is not None and not reasons.is_recorded(plan.files, path, stat, beside, records[hour]):
                found[hour] = "its file is not the one that was recorded"
    return found


def _threshold(channel: str, name: str, lane: Lane, selection: Selection) -> Any:
    """What a lane's bars of a kind close by; "" where nothing is set, None where the channel has no such kind."""
    kind = find_kind(channel, name, params=selection.config.params_of(lane))
    return None if kind is None else dict(kind.rule.values).get("threshold", "")


def _plan_day(
    plan: GoldPlan, channel: str, lane: Lane, day: int, name: str,
    hours: Mapping[int, Commit], records: Mapping[int, Commit], record: Commit | None,
) -> None:  # fmt: skip
    selection, bars = plan.selection, f"{channel}_bars"
    target = f"{bars}/{name}"
    facts = _facts(hours, lane)
    config, select = selection.config, selection.features or selection.config.features or ()
    kind = find_kind(bars, name, Settings(**facts), config.params_of(lane), select)
    assert kind is not None
    _check_columns(kind, channel, hours)
    settings: dict[str, Any] = dict(facts)
    threshold = dict(kind.rule.values).get("threshold")
    if threshold == "":
        where = f"[features.{kind.rule.name}]"
        raise FeatureError(f"bars {name!r} of {lane} have no threshold", where=where, fix="set threshold, or auto")
    if threshold == AUTO:
        past, date = _past(records, day, kind.rule.total), time_name(target, day)
        if past is None:
            if plan.clock is None:  # a watcher will come back
                plan.notices.append(f"{target} of {lane} has no {date} yet: a day before it is still open")
            return
        if not past:
            plan.notices.append(f"{target} of {lane} has no {date}: no complete day before to derive a threshold from")
            return
        kind = replace(kind, rule=kind.rule.resolved(past))
        settings["threshold_from"] = past
    cutoff = _cutoff(plan, day, hours, records, record)
    contents = {h: r.content for h, r in hours.items()}
    why = _reasons(plan, target, lane, day, kind, settings, contents, record, cutoff, channel)
    held = None if record is None else record.cutoff or (day + DAY) * HOUR
    plan.partitions.append(Planned(target, lane, day, tuple(why), (), cutoff, held=held))
    plan.kinds[target, lane, day] = kind
    plan.settings[target, lane, day] = settings
    plan.contents[channel, lane, day] = contents


def _reasons(
    plan: GoldPlan, target: str, lane: Lane, day: int, kind: Kind, settings: Mapping[str, Any],
    contents: Mapping[int, str], record: Commit | None, cutoff: int | None, channel: str,
) -> list[str]:  # fmt: skip
    gold = plan.gold
    path, beside = partition_path(gold, target, lane, day), commit_path(gold, target, lane, day)
    stat = stat_of(path)
    found = reasons.output_reasons(plan.files, path, stat, beside, record)
    if record is None or stat is None:
        return found
    found += reasons.input_reasons("silver", {channel: {hour_name(h): c for h, c in contents.items()}}, record)
    columns = [c.name for f in kind.families for c in f.columns()]
    found += reasons.definition_reasons(reasons.plain(kind.definition()), reasons.plain(settings), columns, record)
    if record.cutoff != cutoff and not found:
        until = "the day is" if cutoff is None else f"rows up to {np.datetime64(cutoff, 'us')} are"
        found.append(f"{until} complete")
    return found


def _cutoff(
    plan: GoldPlan, day: int, hours: Mapping[int, Commit], records: Mapping[int, Commit], record: Commit | None
) -> int | None:
    """Up to which time a day's silver is complete: None all of it. A closed day stays closed until it gets an hour."""
    still_open = [r.cutoff for r in hours.values() if r.cutoff is not None]
    if still_open:
        return min(still_open)
    if record is not None and record.cutoff is None:
        known = {name for names in record.inputs.values() for name in names}
        if known.issuperset(map(hour_name, hours)):
            return None
    end = (day + DAY) * HOUR
    over = plan.clock is None or plan.clock.now - plan.clock.grace >= end
    if over or max(hours) == day + DAY - 1 or max(records) >= day + DAY:
        return None
    return (max(hours) + 1) * HOUR


def _past(records: Mapping[int, Commit], day: int, total: str) -> dict[str, float] | None:
    """Totals of the last complete days before one, by date; None while one of them is open."""
    before: dict[str, float] = {}
    for hour, record in records.items():
        if hour < day:
            if record.cutoff is not None:
                return None
            date = hour_name(hour)[:10]
            before[date] = before.get(date, 0.0) + record.totals.get(total, 0.0)
    traded = [date for date in sorted(before) if before[date] > 0]
    return {date: before[date] for date in traded[-PAST_DAYS:]}


def _facts(hours: Mapping[int, Commit], lane: Lane) -> dict[str, Any]:
    """The settings that the silver of a day was made with."""
    found = [{k: r.settings[k] for k in FACTS if k in r.settings} for r in hours.values()]
    if any(f != found[0] for f in found):
        raise FeatureError(f"silver of {lane} was made with other settings from hour to hour", fix="run --tier silver")
    return found[0] if found else {}


def _check_columns(kind: Kind, channel: str, hours: Mapping[int, Commit]) -> None:
    fixed = {*PASSED[channel], *KEYS[channel]}
    for hour, record in hours.items():
        missing = [n for n in kind.inputs if n not in fixed and n not in record.columns]
        if missing:
            shown = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            raise FeatureError(
                f"silver {channel} lacks {shown}, which they are made of", where=hour_name(hour),
                fix=f"run with --feature {kind.rule.name if kind.rule.prefix else 'bars'}",
            )  # fmt: skip


def _existing(gold: Place, channel: str) -> tuple[str, ...]:
    """Kinds that gold has of a channel already: they are kept up to date where they are."""
    return tuple(n for n in folders(gold / channel) if _is_kind(channel, n))


def _is_kind(channel: str, name: str) -> bool:
    try:
        return find_kind(channel, name) is not None
    except FeatureError:  # somebody's folder
        return False


def _overlaps(day: int, selection: Selection) -> bool:
    start, end = selection.start, selection.end
    return (start is None or day + DAY > start) and (end is None or day < end)


def waiting_hours(outcomes: Iterable[Outcome]) -> dict[tuple[str, Lane, int], str]:
    """Silver partitions that were to be computed and were not, with the reason."""
    late = (o for o in outcomes if o.error or o.busy or o.changed)
    return {(o.channel, o.lane, o.hour): o.error or "it is being made" for o in late}
