"""The one executor: read, compute, write, commit. Runners decide which spans, when and where; this does them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import pyarrow as pa

from tickstate.features.engine import Engine, Rows
from tickstate.features.sampling import Sampler, sampled_schema
from tickstate.features.table import output_schema
from tickstate.lake.commit import (
    Commit,
    Quarantined,
    commit_path,
    hour_digest,
    quarantine_path,
    quarantined,
    write_commit,
    write_quarantine,
)  # fmt: skip
from tickstate.lake.errors import BadFile
from tickstate.lake.feed import TradeFeed
from tickstate.lake.files import step
from tickstate.lake.listing import Segment
from tickstate.lake.names import HOUR, Lane, hour_name, partition_path
from tickstate.lake.schema import BRONZE
from tickstate.lake.segment import Inspected, inspect_segment
from tickstate.lake.stream import Counted, read_hour
from tickstate.lake.tape import RepeatedIds, TapeRows
from tickstate.lake.write import PartitionWriter, writing
from tickstate.runners.ahead import read_ahead
from tickstate.runners.assemble import partition_table, push_joined, rows_of, sampled_table
from tickstate.runners.plan import Span, inputs_of, plain, rows_since, settings_of, trades_since
from tickstate.runners.quality import Quality


@dataclass(frozen=True)
class Outcome:
    """What became of one partition."""

    channel: str
    lane: Lane
    hour: int
    error: str = ""
    """Empty: written and committed, unless ``changed``."""
    changed: bool = False
    """Bronze changed while it was read: nothing was written, plan again."""
    counters: dict[str, int] = field(default_factory=dict)
    quarantined: tuple[Quarantined, ...] = ()

    def __str__(self) -> str:
        return f"{self.channel} {self.lane} {hour_name(self.hour)}"


class _Changed(Exception):  # noqa: N818 - not an error: the plan is out of date
    pass


def execute(span: Span, report: Callable[[Outcome], None] | None = None) -> list[Outcome]:
    """Compute the partitions of a span in order; a failed one does not stop the next."""
    found = []
    with closing(_Work(span)) as work:
        for hour in span.hours:
            try:
                outcome = work.partition(hour)
            except _Changed:
                outcome = Outcome(span.channel, span.lane, hour, changed=True)
            except Exception as error:  # this partition's fault: said in its outcome, and all else is done
                text = str(error).strip().splitlines()
                reason = f"{type(error).__name__}: {text[0] if text else ''}"
                outcome = Outcome(span.channel, span.lane, hour, error=reason)
            found.append(outcome)
            if report is not None:
                report(outcome)
    return found


class _Work:
    """The state of one span: an engine, the hour it stands before, and what is known of the files."""

    def __init__(self, span: Span) -> None:
        self.span, self.graph = span, span.graph
        self._bad: dict[Segment, BadFile] = {}
        self._inspected: dict[Segment, Inspected] = {}
        self._stands_before: int | None = None
        self._engine: Engine
        self._feed: TradeFeed | None = None
        self._repeats: RepeatedIds | None = None
        self._sampler: Sampler | None = None

    def partition(self, hour: int) -> Outcome:
        """Compute and commit one partition; anew without a file whenever one turns out to be bad."""
        while True:
            try:
                return self._attempt(hour)
            except BadFile as bad:
                known = (s for hours in self.span.segments.values() for group in hours.values() for s in group)
                self._bad[next(s for s in known if s.where == bad.relative)] = bad

    def _attempt(self, hour: int) -> Outcome:
        span, inputs = self.span, self.span.inputs(hour)
        if self._stands_before != hour:
            self._warm_up(hour)
        self._stands_before = None  # should this hour fail, the next one starts from its lookback
        for segment in (s for c, hours in inputs.items() for h in hours for s in span.segments[c][h]):
            self._inspect(segment)
        counted = Counted()
        quality = Quality(span.channel, self.graph.settings, self.graph.joins)
        path = partition_path(span.silver, span.channel, span.lane, hour)
        extras = self._extras(hour)
        with writing(path, self._schema(extras)) as writer:
            for rows in self._rows(span.channel, hour, 0, counted, self._repeats):
                values = push_joined(self._engine, self._feed, rows)
                quality.add(rows, values.get("trade_age_s"))
                table = partition_table(self.graph, rows, values, span.lane, hour, writer.rows, extras)
                self._write(
                    writer, hour, [table] if self._sampler is None else self._sampler.add(table, rows.flag == 0)
                )
                step("compute:chunk")
            if self._sampler is not None:
                self._write(writer, hour, self._sampler.finish((hour + 1) * HOUR))
            content = writer.close()
            if self._has_changed(inputs):
                raise _Changed
        counters = {"rows": counted.rows, "duplicates": counted.duplicates, "out_of_order": counted.late}
        counters.update(quality.counters())
        found = self._quarantine(inputs)
        self._commit(hour, counters, content, path.stat().st_size, found)
        self._stands_before = hour + 1
        return Outcome(span.channel, span.lane, hour, counters=counters, quarantined=found)

    def _warm_up(self, hour: int) -> None:
        """Bring a fresh engine to the beginning of an hour, from the lookbacks alone."""
        self._close_feed()
        self._engine = Engine(self.graph)
        self._repeats = RepeatedIds() if self.span.channel == "trades" else None
        if self.graph.joins:
            self._chunks = self._trades(trades_since(self.graph, hour))
            self._feed = TradeFeed(self._chunks)
        settings, since = self.graph.settings, rows_since(self.graph, hour)
        self._sampler = Sampler(settings, output_schema(self.graph)) if self._samples else None
        for before in inputs_of(self.graph, hour).own[:-1]:
            for rows in self._rows(self.span.channel, before, since, Counted(), self._repeats):
                times = rows.arrays["capture_ts"]
                seen = self._samples and times.size and times[-1] > hour * HOUR - settings.sample_reach_us
                values = push_joined(self._engine, self._feed, rows, emit=bool(seen))
                if self._sampler is not None and seen:
                    table = partition_table(self.graph, rows, values, self.span.lane, before, 0)
                    deque(self._sampler.add(table, rows.flag == 0), maxlen=0)
        if self._sampler is not None:
            deque(self._sampler.finish(hour * HOUR), maxlen=0)

    @property
    def _samples(self) -> bool:
        return self.span.channel == "orderbook" and bool(self.graph.settings.sample)

    def _schema(self, extras: tuple[str, ...]) -> pa.Schema:
        schema = output_schema(self.graph, extras)
        return sampled_schema(schema) if self._samples else schema

    def _write(self, writer: PartitionWriter, hour: int, tables: Iterable[pa.Table]) -> None:
        for table in tables:
            writer.write(sampled_table(table, self.span.lane, hour, writer.rows) if self._samples else table)

    def _trades(self, since: int) -> Iterator[TapeRows]:
        """The trades beside the book, from a time on to the end of the span."""
        repeats = RepeatedIds()
        hours = self.span.segments.get("trades", {})
        return read_ahead(
            rows
            for hour in sorted(h for h in hours if h >= since // HOUR)
            for rows in self._read("trades", hour, since, Counted(), repeats)
        )

    def _rows(
        self, channel: str, hour: int, since: int, counted: Counted, repeats: RepeatedIds | None
    ) -> Iterator[Rows]:
        return read_ahead(self._read(channel, hour, since, counted, repeats))

    def _read(
        self, channel: str, hour: int, since: int, counted: Counted, repeats: RepeatedIds | None
    ) -> Iterator[Rows]:
        """The rows of an hour, ready for the engine."""
        segments = self.span.segments.get(channel, {}).get(hour, ())
        good = [i for i in map(self._inspect, segments) if i is not None]
        for table in read_hour(good, counted, since, repeats):
            yield rows_of(channel, table, self.graph.settings)

    def _inspect(self, segment: Segment) -> Inspected | None:
        """What is known of a file; None where it is quarantined."""
        if segment not in self._inspected and segment not in self._bad:
            try:
                self._inspected[segment] = inspect_segment(segment)
            except BadFile as bad:
                self._bad[segment] = bad
        return None if segment in self._bad else self._inspected[segment]

    def _extras(self, hour: int) -> tuple[str, ...]:
        """Optional fields to pass through: those that any segment of the hour has."""
        wanted = BRONZE[self.span.channel].extras
        if not wanted:
            return ()
        segments = self.span.segments[self.span.channel].get(hour, ())
        present = {c for i in map(self._inspect, segments) if i is not None for c in i.columns}
        return tuple(name for name in wanted if name in present)

    def _has_changed(self, inputs: Mapping[str, Mapping[int, str]]) -> bool:
        segments = self.span.segments
        return any(
            hour_digest(segments[channel][hour]) != digest
            for channel, digests in inputs.items()
            for hour, digest in digests.items()
        )

    def close(self) -> None:
        """End the thread that reads trades ahead."""
        self._close_feed()

    def _close_feed(self) -> None:
        if self._feed is not None:
            self._chunks.close()
            self._feed = None

    def _quarantine(self, inputs: Mapping[str, Iterable[int]]) -> tuple[Quarantined, ...]:
        """Write down which files of the inputs were left out, hour by hour; returns them all."""
        found: list[Quarantined] = []
        for channel, hours in inputs.items():
            lane = self.span.lane if channel == self.span.channel else self.span.config.trades_lane(self.span.lane)
            for hour in hours:
                bad = [self._bad[s] for s in self.span.segments[channel][hour] if s in self._bad]
                listed = [quarantined(b, self.span.bronze) for b in bad]
                write_quarantine(quarantine_path(self.span.silver, channel, lane, hour), listed)
                found += listed
        return tuple(sorted(found))

    def _commit(
        self, hour: int, counters: dict[str, int], content: str, size: int, found: tuple[Quarantined, ...]
    ) -> None:
        span = self.span
        inputs = span.inputs(hour)
        record = Commit(
            channel=span.channel, exchange=span.lane.exchange, symbol=span.lane.symbol, hour=hour_name(hour),
            inputs={c: {hour_name(h): d for h, d in digests.items()} for c, digests in inputs.items()},
            settings=settings_of(self.graph, span.lane, span.config), features=plain(self.graph.definition()),
            columns=[c.name for c in self.graph.columns], counters=counters, content=content, size=size,
            quarantined=list(found),
        )  # fmt: skip
        write_commit(commit_path(span.silver, span.channel, span.lane, hour), record)
