"""The one executor: read, compute, write, commit. Runners decide which spans, when and where; this does them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from tickstate.features.engine import Engine
from tickstate.features.table import output_schema
from tickstate.kernels.book import FLAGS
from tickstate.lake.book import BookRows, book_rows
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
from tickstate.lake.files import remove_leftovers, step
from tickstate.lake.listing import Segment
from tickstate.lake.names import HOUR, Lane, hour_name, partition_path
from tickstate.lake.segment import Inspected, inspect_segment
from tickstate.lake.stream import Counted, read_hour
from tickstate.lake.write import writing
from tickstate.runners.ahead import read_ahead
from tickstate.runners.assemble import partition_table
from tickstate.runners.plan import Span, plain, settings_of


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
    work = _Work(span)
    found = []
    for hour in span.hours:
        try:
            outcome = work.partition(hour)
        except _Changed:
            outcome = Outcome(span.channel, span.lane, hour, changed=True)
        except Exception as error:  # this partition's fault: said in its outcome, and all else is done
            text = str(error).strip().splitlines()
            outcome = Outcome(span.channel, span.lane, hour, error=f"{type(error).__name__}: {text[0] if text else ''}")
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
        self._engine: Engine = Engine(self.graph)
        self._stands_before: int | None = None

    def partition(self, hour: int) -> Outcome:
        """Compute and commit one partition; anew without a file whenever one turns out to be bad."""
        while True:
            try:
                return self._attempt(hour)
            except BadFile as bad:
                segments = self.span.segments.values()
                culprit = next(s for group in segments for s in group if s.where == bad.relative)
                self._bad[culprit] = bad

    def _attempt(self, hour: int) -> Outcome:
        span, inputs = self.span, self.span.inputs(hour)
        if self._stands_before != hour:
            self._warm_up(hour)
        self._stands_before = None  # should this hour fail, the next one starts from its lookback
        counted, counters = Counted(), {f"flag_{name}": 0 for name in FLAGS}
        path = partition_path(span.silver, span.channel, span.lane, hour)
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        with writing(path, output_schema(self.graph)) as writer:
            for rows in self._rows(hour, 0, counted):
                values = self._engine.push(rows)
                writer.write(partition_table(self.graph, rows, values, span.lane, hour, writer.rows))
                for name, count in zip(FLAGS, np.bincount(rows.flag, minlength=len(FLAGS)), strict=True):
                    counters[f"flag_{name}"] += int(count)
                step("compute:chunk")
            content = writer.close()
            if any(hour_digest(span.segments[h]) != digest for h, digest in inputs.items()):
                raise _Changed
        counters.update(rows=counted.rows, duplicates=counted.duplicates, late=counted.late)
        bad = {s: quarantined(b, span.bronze) for s, b in self._bad.items() if s.hour in inputs}
        write_quarantine(
            quarantine_path(span.silver, span.channel, span.lane, hour), [q for s, q in bad.items() if s.hour == hour]
        )
        found = tuple(sorted(bad.values()))
        self._commit(hour, counters, content, path.stat().st_size, found)
        self._stands_before = hour + 1
        return Outcome(span.channel, span.lane, hour, counters=counters, quarantined=found)

    def _warm_up(self, hour: int) -> None:
        """Bring a fresh engine to the beginning of an hour, from the lookback alone."""
        self._engine = Engine(self.graph)
        since = hour * HOUR - self.graph.total_lookback
        for before in sorted(h for h in self.span.inputs(hour) if h != hour):
            for rows in self._rows(before, since, Counted()):
                self._engine.push(rows, emit=False)

    def _rows(self, hour: int, since: int, counted: Counted) -> Iterator[BookRows]:
        """The rows of an hour, ready for the engine, prepared one chunk ahead."""
        good = [i for i in map(self._inspect, self.span.segments.get(hour, ())) if i is not None]
        depth = self.graph.settings.depth
        return read_ahead(book_rows(table, depth) for table in read_hour(good, counted, since))

    def _inspect(self, segment: Segment) -> Inspected | None:
        """What is known of a file; None where it is quarantined."""
        if segment not in self._inspected and segment not in self._bad:
            try:
                self._inspected[segment] = inspect_segment(segment)
            except BadFile as bad:
                self._bad[segment] = bad
        return None if segment in self._bad else self._inspected[segment]

    def _commit(
        self, hour: int, counters: dict[str, int], content: str, size: int, found: tuple[Quarantined, ...]
    ) -> None:
        span = self.span
        record = Commit(
            channel=span.channel, exchange=span.lane.exchange, symbol=span.lane.symbol, hour=hour_name(hour),
            inputs={span.channel: {hour_name(h): d for h, d in span.inputs(hour).items()}},
            settings=settings_of(self.graph), features=plain(self.graph.definition()),
            columns=[c.name for c in self.graph.columns], counters=counters, content=content, size=size,
            quarantined=list(found),
        )  # fmt: skip
        write_commit(commit_path(span.silver, span.channel, span.lane, hour), record)
