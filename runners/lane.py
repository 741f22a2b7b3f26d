"""One lane on its way through time: the engine, the trades beside it, the sampler, and all they remember.

It stands at a ``position``: every row before it has been seen. From there it goes on with the next hour, or
with the next rows of an open one, as long as the files behind it are as they were; else it starts from
the lookback. Either way the same rows come out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tickstate.features.engine import Engine, Rows, State
from tickstate.features.graph import Graph
from tickstate.features.sampling import Sampler, sampled_schema
from tickstate.features.table import output_schema
from tickstate.kernels import _jit
from tickstate.kernels._jit import source_digest
from tickstate.lake.feed import TradeFeed
from tickstate.lake.files import step
from tickstate.lake.listing import Segment
from tickstate.lake.names import HOUR, hour_name
from tickstate.lake.schema import BRONZE
from tickstate.lake.segment import Files
from tickstate.lake.state import BadState
from tickstate.lake.stream import Counted, read_hour, regroup
from tickstate.lake.tape import REPEAT_WINDOW, RepeatedIds, TapeRows
from tickstate.lake.write import ROW_GROUP_ROWS
from tickstate.runners.ahead import read_ahead
from tickstate.runners.assemble import partition_table, push_joined, rows_of, sampled_table
from tickstate.runners.environment import version_of
from tickstate.runners.quality import Quality
from tickstate.runners.reasons import plain
from tickstate.runners.span import Span, inputs_of, rows_since, settings_of, trades_since

CHUNK_ROWS = ROW_GROUP_ROWS
"""Rows of an hour that are computed at once: those of a row group, so that its columns are written without a copy.
Kernels that gain from the processor's cache go through them in smaller blocks."""


class _Part(NamedTuple):
    """Rows of an hour to be read, ``since`` <= capture_ts < ``until`` (us); ``first_row`` of them are there already."""

    hour: int
    since: int
    until: int
    first_row: int = 0


class _End(NamedTuple):
    """All of a part is read: what was counted, the trades that are remembered behind it, and the part read next."""

    counted: Counted
    repeats: RepeatedIds | None
    then: _Part | None


class LaneRun:
    """The state of one lane's computation. ``span`` may be replaced by one that lists more files."""

    def __init__(self, span: Span, files: Files) -> None:
        self.span, self.files, self.graph = span, files, span.graph
        self.position: int | None = None
        self.hour: int | None = None
        """The hour that ``position`` is in or at the end of, and that the counters speak of."""
        self.is_loaded, self.is_cold = False, False
        """Whether it stands at a state from disk, and whether the last partition started from the lookback."""
        self._seen: dict[str, str] = {}
        self._fed: int | None = None
        self._feed: TradeFeed | None = None
        self._engine: Engine
        self._repeats: RepeatedIds | None = None
        self._reading: Iterator[Rows | _End] = iter(())
        self._next: _Part | None = None
        """What ``_reading`` comes to next."""
        self._sampler: Sampler | None = None
        self.counted, self.quality = Counted(), self._new_quality()

    @property
    def engine(self) -> Engine:
        """The engine at ``position``."""
        return self._engine

    @property
    def samples(self) -> bool:
        """Whether partitions are sampled."""
        return self.span.channel == "orderbook" and bool(self.graph.settings.sample)

    def schema(self, hour: int, graph: Graph | None = None) -> pa.Schema:
        """The schema of an hour's partition, with the columns of ``graph``."""
        schema = output_schema(graph or self.graph, self._extras(hour))
        return sampled_schema(schema) if self.samples else schema

    def close(self) -> None:
        """End the threads that read ahead."""
        self._stop_reading()
        if self._feed is not None:
            self._trade_chunks.close()
            self._feed = None

    def update(self, span: Span) -> None:
        """Go on with a newer listing of the same lane."""
        self.close()  # what is not handed over yet is read again, from the files there are now
        self.span = span

    def go_to(self, hour: int) -> int:
        """Stand at the beginning of an hour, or further on in it where what is behind is unchanged; says where."""
        begin = hour * HOUR
        self.files.look_at(self._inputs(hour))
        self.is_loaded, self.is_cold = False, not self._fits(hour)
        if self.is_cold:
            self._start(hour)
        elif self._feed is None and self.graph.joins:
            self._resume_feed(hour)
        if self.hour != hour:
            seen = self._fed is not None and self._fed >= begin - self.graph.total_lookback
            self.counted, self.quality, self.hour = Counted(), self._new_quality(self._fed if seen else None), hour
        self._seen = self._files_of(hour)
        found, self.position = self.position or begin, None  # a failure from here on means a cold start
        return found

    def tables(self, hour: int, since: int, until: int, first_row: int) -> Iterator[pa.Table]:
        """The partition's rows with ``since`` <= capture_ts < ``until``; afterwards the position is ``until``."""
        span, extras, count = self.span, self._extras(hour), first_row
        for rows in self._rows(_Part(hour, since, until, first_row)):
            values = self._push(rows)
            self.quality.add(rows, values.get("trade_age_s"))
            table = partition_table(self.graph, rows, values, span.lane, hour, count, extras)
            for found in [table] if self._sampler is None else self._sampler.add(table, rows.flag == 0):
                yield sampled_table(found, span.lane, hour, count) if self.samples else found
                count += found.num_rows
                del found
            del rows, values, table  # nothing of a chunk is held while the next one is computed
            step("compute:chunk")
        if self._sampler is not None:
            for found in self._sampler.finish(until):
                yield sampled_table(found, span.lane, hour, count)
                count += found.num_rows
        self.position = until

    def _start(self, hour: int) -> None:
        """A fresh engine at the beginning of an hour, from the lookbacks alone."""
        self.close()
        self._engine, self._fed, self.hour = Engine(self.graph), None, None
        self._repeats = RepeatedIds() if self.span.channel == "trades" else None
        if self.graph.joins:
            self._open_feed(trades_since(self.graph, hour))
        settings, since = self.graph.settings, rows_since(self.graph, hour)
        self._sampler = Sampler(settings, output_schema(self.graph)) if self.samples else None
        for before in inputs_of(self.graph, hour).own[:-1]:
            for rows in self._rows(_Part(before, max(since, before * HOUR), (before + 1) * HOUR), hour):
                times = rows.arrays["capture_ts"]
                seen = self.samples and times.size and times[-1] > hour * HOUR - settings.sample_reach_us
                values = self._push(rows, emit=bool(seen))
                if self._sampler is not None and seen:
                    table = partition_table(self.graph, rows, values, self.span.lane, before, 0)
                    deque(self._sampler.add(table, rows.flag == 0), maxlen=0)
        if self._sampler is not None:
            deque(self._sampler.finish(hour * HOUR), maxlen=0)
        self.position = hour * HOUR

    def _fits(self, hour: int) -> bool:
        """Whether the position serves an hour: in it or at its start, and no file behind it is new, changed or gone."""
        if self.position is None or not hour * HOUR <= self.position <= (hour + 1) * HOUR:
            return False
        listed = set()
        for segment in self._inputs(hour):
            key = segment.where
            listed.add(key)
            if key in self._seen:
                if self._seen[key] != self.files.identity(segment):
                    return False
            else:
                found = self.files.inspect(segment)
                if found is not None and found.rows and found.low < self.position:
                    return False
        hours = inputs_of(self.graph, hour).of(self.span.channel)
        behind = {k for k in self._seen if _hour_in(k, self._places, hours)}
        return behind <= listed

    def _inputs(self, hour: int) -> list[Segment]:
        span, hours = self.span, inputs_of(self.graph, hour).of(self.span.channel)
        return [
            s for channel, needed in hours.items() for h in needed for s in span.segments.get(channel, {}).get(h, ())
        ]

    def _files_of(self, hour: int) -> dict[str, str]:
        self._places = {s.where: (s.channel, s.hour) for s in self._inputs(hour)}
        for segment in self._inputs(hour):
            self.files.inspect(segment)
        return {s.where: self.files.identity(s) for s in self._inputs(hour)}

    def _push(self, rows: Rows, emit: bool = True) -> dict[str, Any]:
        values = push_joined(self._engine, self._feed, rows, emit)
        times = rows.arrays["capture_ts"]
        if times.size:
            self._fed = int(times[-1])
        return values

    def _open_feed(self, since: int) -> None:
        self._trade_chunks = self._trades(since)
        self._feed = TradeFeed(self._trade_chunks)

    def _resume_feed(self, hour: int) -> None:
        """Trades again, behind those that were handed over already."""
        if self._fed is None:
            self._open_feed(trades_since(self.graph, hour))
            return
        self._open_feed(self._fed - REPEAT_WINDOW)
        deque(self._feed.pieces(self._fed), maxlen=0)

    def _trades(self, since: int) -> Iterator[TapeRows]:
        """The trades beside the book, from a time on to the end of the span."""
        repeats = RepeatedIds()
        hours = sorted(h for h in self.span.segments.get("trades", {}) if h >= since // HOUR)
        parts = (_Part(h, since, (h + 1) * HOUR) for h in hours)
        return read_ahead(rows for part in parts for rows in self._read("trades", part, Counted(), repeats))

    def _rows(self, part: _Part, target: int | None = None) -> Iterator[Rows]:
        """The lane's own rows; the thread that reads them goes on with the hours behind, up to ``target`` or the span's
        end, and no call may come in between that reads other ones."""
        if part != self._next:
            self._stop_reading()
            self._reading = read_ahead(self._parts(part, target), lambda item: isinstance(item, _End))
        self._next, reading = None, self._reading
        try:
            for item in reading:
                if isinstance(item, _End):
                    self.counted.rows += item.counted.rows
                    self.counted.duplicates += item.counted.duplicates
                    self._repeats, self._next = item.repeats, item.then
                    return
                yield item
                del item
            raise RuntimeError(
                f"reading ended before {hour_name(part.hour)} did"
            )  # never a part of an hour for the whole
        finally:
            if self._next is None and self._reading is reading:  # one let go of late has no say in what is read by then
                self._stop_reading()

    def _stop_reading(self) -> None:
        reading, self._reading, self._next = self._reading, iter(()), None
        getattr(reading, "close", lambda: None)()

    def _parts(self, part: _Part | None, target: int | None) -> Iterator[Rows | _End]:
        """A part and those that follow, each with its end. Runs in a thread: the lane's own memory is not touched."""
        repeats = self._repeats
        while part is not None:
            counted, repeats = Counted(), repeats and replace(repeats)
            yield from self._read(self.span.channel, part, counted, repeats)
            part = self._following(part, target)
            yield _End(counted, repeats, part)

    def _following(self, part: _Part, target: int | None) -> _Part | None:
        """What is read after a part, if its hour was read to the end."""
        hour = part.hour + 1
        wanted = hour in self.span.hours or (target is not None and hour <= target)
        if not wanted or part.until < hour * HOUR:
            return None
        return _Part(hour, hour * HOUR, self.span.cutoffs.get(hour, (hour + 1) * HOUR))

    def _read(self, channel: str, part: _Part, counted: Counted, repeats: RepeatedIds | None) -> Iterator[Rows]:
        """Rows ready for the engine, in chunks that are a partition's row groups after the first rows."""
        segments = self.span.segments.get(channel, {}).get(part.hour, ())
        self.files.look_at(segments)
        good = [i for i in map(self.files.inspect, segments) if i is not None]
        tables = read_hour(good, counted, part.since, part.until, repeats)
        for table in regroup(tables, part.first_row, CHUNK_ROWS):
            yield rows_of(channel, table, self.graph)

    def _extras(self, hour: int) -> tuple[str, ...]:
        """Optional fields to pass through: those that any segment of the hour has."""
        wanted = BRONZE[self.span.channel].extras
        segments = self.span.segments.get(self.span.channel, {}).get(hour, ()) if wanted else ()
        present = {c for i in map(self.files.inspect, segments) if i is not None for c in i.columns}
        return tuple(name for name in wanted if name in present)

    def out_of_order(self, hour: int) -> int:
        """Rows of the hour's good files that stand below an earlier one of their file."""
        segments = self.span.segments.get(self.span.channel, {}).get(hour, ())
        return sum(i.late for i in map(self.files.inspect, segments) if i is not None)

    def _new_quality(self, last_time: int | None = None) -> Quality:
        return Quality(self.span.channel, self.graph.settings, self.graph.joins, last_time)

    def dump(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """All that is remembered, for ``lake.state``; None where it cannot be saved (a sampled lane)."""
        if self.position is None or self._sampler is not None:
            return None
        state, arrays = self._engine.remembered, {}
        arrays.update({f"tail {name}": a for name, a in state.tails.items()})
        for feature, carried in state.carried.items():
            arrays.update({f"carried {feature} {i}": a for i, a in enumerate(carried)})
        if self._repeats is not None:
            arrays.update(vars(self._repeats))
        about = {
            "definition": self._definition(), "position": self.position, "hour": self.hour, "fed": self._fed,
            "seen": self._seen, "places": {k: list(v) for k, v in self._places.items()},
            "duplicates": self.counted.duplicates, "rows": self.counted.rows, "quality": self.quality.dump(),
        }  # fmt: skip
        return about, arrays

    def load(self, about: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Stand where ``dump`` was made; raises ``BadState`` where it speaks of another computation."""
        if about.get("definition") != self._definition():
            raise BadState("it is of other features, settings or versions")
        if self.samples:
            raise BadState("sampled lanes start from the lookback")
        tails = {name.removeprefix("tail "): a for name, a in arrays.items() if name.startswith("tail ")}
        carried: dict[str, list[np.ndarray]] = {}
        for name, a in arrays.items():
            if name.startswith("carried "):
                carried.setdefault(name.split(" ")[1], []).append(a)
        self._engine = Engine(self.graph, State(tails, {k: tuple(v) for k, v in carried.items()}))
        if self.span.channel == "trades":
            self._repeats = RepeatedIds(**{k: arrays[k] for k in ("times", "high", "low")})
        self.position, self.hour, self._fed = about["position"], about["hour"], about["fed"]
        self._seen, self._places = about["seen"], {k: tuple(v) for k, v in about["places"].items()}
        self.counted, self.is_loaded = Counted(about["rows"], about["duplicates"]), True
        self.quality.load(about["quality"])

    def _definition(self) -> dict[str, Any]:
        """What a state must have in common with this computation."""
        span = self.span
        versions = {name: version_of(name) for name in ("tickstate", "numba", "numpy", "pyarrow")}
        kernels = source_digest(Path(_jit.__file__).parent)
        found = {"settings": settings_of(self.graph, span.lane, span.config), "features": self.graph.definition()}
        found["levels"] = self.graph.levels
        return plain({**found, "lane": str(span.lane), "versions": versions, "kernels": kernels})


def _hour_in(key: str, places: dict[str, tuple[str, int]], hours: dict[str, range]) -> bool:
    channel, hour = places[key]
    return hour in hours.get(channel, ())
