"""The one executor: read, compute, write, commit. Runners decide which spans, when and where; this does them."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from tickstate.features.base import Feature
from tickstate.lake.commit import (
    Commit,
    Link,
    Quarantined,
    broken_links,
    commit_path,
    quarantine_path,
    quarantined,
    read_commit,
    read_quarantine,
    write_commit,
    write_quarantine,
)  # fmt: skip
from tickstate.lake.digest import fingerprint
from tickstate.lake.errors import BadFile, LakeError, StoreError
from tickstate.lake.names import HOUR, hour_name, partition_path
from tickstate.lake.segment import Files, are_unchanged
from tickstate.lake.state import BadState, load_state, save_state, state_path
from tickstate.lake.store import persistent
from tickstate.lake.write import PartitionWriter, read_rows, read_schema, writing
from tickstate.runners.bars import GoldWorker
from tickstate.runners.gold import DaySpan
from tickstate.runners.lane import LaneRun
from tickstate.runners.outcome import Outcome
from tickstate.runners.reasons import plain
from tickstate.runners.span import Span, aim_of, keeps, settings_of
from tickstate.runners.worker import Changed, Worker


def execute(span: Span | DaySpan, report: Callable[[Outcome], None] | None = None) -> list[Outcome]:
    """Compute the partitions of a span in order; a failed one does not stop the next."""
    with closing(worker_for(span, Files())) as worker:
        found = worker.run(report)
        if span.newest:
            worker.save()
    return found


def worker_for(span: Span | DaySpan, files: Files, patience: float = -1) -> Worker:
    """What does the work of a span: hours of silver or days of gold."""
    return SilverWorker(span, files, patience) if isinstance(span, Span) else GoldWorker(span, files, patience)


class SilverWorker(Worker):
    """Computes and commits the partitions of one lane of silver."""

    def __init__(self, span: Span, files: Files, patience: float = -1) -> None:
        super().__init__(span, files, patience)
        self.span: Span
        self.lane = LaneRun(span.work(), files)
        self._dropped = ""
        self._load()

    def update(self, span: Span) -> None:
        """Go on with a newer plan for the same lane."""
        self.span = span
        self.lane.update(span.work())

    def fits(self, span: Span) -> bool:
        """Whether a plan is of the features that this one computes."""
        return self.span.graph.columns == span.graph.columns and self.span.kept == span.kept

    def close(self) -> None:
        """End threads."""
        self.lane.close()

    def _make(self, hour: int) -> list[Outcome] | Callable[[], list[Outcome]]:
        return [] if self._is_done(hour) else self._partition(hour)

    def _follows(self, hour: int) -> bool:
        return bool(self.lane.graph.unbounded) or hour in self.span.before

    def _blocked(self, found: list[Outcome]) -> str:
        if found and found[-1].error and self.lane.graph.unbounded:
            return "not tried: the partition before it in its chain failed"
        return ""

    def save(self) -> None:
        """Save the state the lane stands at, beside the output. A disk that is full costs the cache, no more."""
        found = self.lane.dump()
        if found is not None and not self.span.kept:
            with suppress(OSError):
                save_state(state_path(self.span.silver, self.span.channel, self.span.lane), *found)

    def _load(self) -> None:
        """Begin from the saved state where it stands in the first hour; one that does not fit is dropped, and said."""
        path = state_path(self.span.silver, self.span.channel, self.span.lane)
        if self.span.kept:
            return
        try:
            if not path.exists():
                return
            about, arrays = load_state(path)
            if self.span.hours[0] * HOUR <= about["position"] <= (self.span.hours[0] + 1) * HOUR:
                self.lane.load(about, arrays)
        except BadState as reason:
            self._dropped = str(reason)
        except StoreError as error:  # what else it does to the partitions, their outcomes say
            self._dropped = str(error)

    def _partition(self, hour: int) -> list[Outcome] | Callable[[], list[Outcome]]:
        """Compute one partition; anew without a file whenever one turns out to be bad."""
        while True:
            try:
                return self._attempt(hour)
            except BadFile as bad:
                known = (s for hours in self.span.segments.values() for group in hours.values() for s in group)
                self.files.set_bad(next(s for s in known if s.where == bad.relative), bad)

    def _attempt(self, hour: int) -> list[Outcome] | Callable[[], list[Outcome]]:
        """Compute one partition and have it encoded; returns what is left to do."""
        span, lane = self.span, self.lane
        end = span.cutoffs.get(hour, (hour + 1) * HOUR)
        if hour in span.conditional and self._chain_holds(hour):
            return []
        loaded = lane.is_loaded
        since = lane.go_to(hour)
        path = partition_path(span.silver, span.channel, span.lane, hour)
        schema = lane.schema(hour, span.graph)
        if since > hour * HOUR and not self._holds_until(hour, since, schema):
            lane.position = None
            since = lane.go_to(hour)
        if loaded and lane.is_cold:
            self._dropped = "bronze or silver behind it has changed"
        began = self._link(hour, since)
        held = self._record(hour) if span.kept else None
        with ExitStack() as stack:
            record = commit_path(span.silver, span.channel, span.lane, hour)
            writer = stack.enter_context(writing(path, schema, record, self._behind))
            if since > hour * HOUR:
                for batch in read_rows(path):
                    writer.write(batch)
            with closing(lane.tables(hour, since, end, writer.rows)) as found:
                for table in self._joined(hour, schema, found) if span.kept else found:
                    writer.write(table)
                    del table  # the writer alone holds it now
            writer.finish()
            bad = self._bad_files(hour)
            chain = {name: Link(began[name], ended) for name, ended in self._chain_state().items()}
            made = {
                "counters": self._counters(hour, held), "chain": chain, "totals": lane.quality.totals(),
                "quarantined": sorted(q for found in bad.values() for q in found),
            }  # fmt: skip
            dropped, self._dropped = self._dropped, ""
            return partial(self._finish, hour, writer, stack.pop_all(), bad, made, dropped)

    def _finish(
        self,
        hour: int,
        writer: PartitionWriter,
        file: ExitStack,
        bad: dict[tuple[str, int], list[Quarantined]],
        made: dict[str, Any],
        dropped: str,
    ) -> list[Outcome]:
        """Commit the partition once it is encoded, while the lane is further on already.

        ``file``: what replaces the partition once it is left; ``made``: what its record says of the rows.
        """
        span = self.span
        with file:
            content = writer.close()
            if self._has_changed(hour):
                raise Changed
        persistent(lambda: self._quarantine(hour, bad))
        record = self._new_record(hour, content=content, size=writer.size, file=writer.file, **made)
        write_commit(commit_path(span.silver, span.channel, span.lane, hour), record)
        outcome = Outcome(
            span.channel, span.lane, hour, counters=record.counters, quarantined=tuple(record.quarantined),
            cutoff=span.cutoffs.get(hour), dropped_state=dropped,
        )  # fmt: skip
        return [outcome]

    def _counters(self, hour: int, held: Commit | None) -> dict[str, int]:
        """What a record says of the rows, the step into the hour as far as the lookback of all its columns shows it.

        Where what is computed looks back less than the columns that are kept, their record (``held``) knows.
        """
        lane = self.lane
        if held is not None and lane.graph.total_lookback < self.span.graph.total_lookback:
            return held.counters
        found = {"rows": lane.counted.rows, "duplicates": lane.counted.duplicates}
        return {**found, "out_of_order": lane.out_of_order(hour), **lane.quality.counters()}

    def _joined(self, hour: int, schema: pa.Schema, added: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """The columns of the partition as it is, and those that are computed beside them."""
        span, path = self.span, partition_path(self.span.silver, self.span.channel, self.span.lane, hour)
        inputs = {c: {hour_name(h): d for h, d in digests.items()} for c, digests in span.inputs(hour).items()}
        record, aim = self._record(hour), aim_of(span.graph, span.lane, span.config)
        if record is None or fingerprint(path) != record.file or not keeps(aim, inputs, record):
            raise Changed
        held: Iterator[pa.Table] = read_rows(path)
        rest: pa.Table | None = None
        for table in added:
            while rest is None or rest.num_rows < table.num_rows:
                more = next(held, None)
                if more is None:
                    raise Changed
                rest = more if rest is None else pa.concat_tables((rest, more))
            beside, rest = rest.slice(0, table.num_rows), rest.slice(table.num_rows)
            columns = [table if f.name in table.column_names else beside for f in schema]
            yield pa.table([c.column(f.name) for c, f in zip(columns, schema, strict=True)], schema=schema)
        if (rest is not None and rest.num_rows) or next(held, None) is not None:
            raise Changed

    def _is_done(self, hour: int) -> bool:
        """Whether another runner has made the partition, or went further, since the plan was made."""
        record, span = self._record(hour), self.span
        path = partition_path(span.silver, span.channel, span.lane, hour)
        if record is None or not path.exists() or not self._is_current(hour, record):
            return False
        return self.files.fingerprint(path) == record.file  # last: it reads the whole file

    def _is_current(self, hour: int, record: Commit) -> bool:
        """Whether a record speaks of what this span would make, or of more."""
        span = self.span
        if hour in span.cutoffs and (record.cutoff is None or record.cutoff > span.cutoffs[hour]):
            return True  # never lowered; what else may be stale the next plan sees
        if any(self.files.fingerprint(span.bronze / q.path) != q.fingerprint for q in record.quarantined):
            return False
        if not self._begins_right(hour, record):
            return False
        made = {
            name: getattr(record, name)
            for name in ("counters", "content", "size", "file", "quarantined", "chain", "totals")
        }
        return self._new_record(hour, **made) == record

    def _begins_right(self, hour: int, record: Commit) -> bool:
        """Whether the unbounded features of a partition began where the one before ends now."""
        before = self._record(self.span.before.get(hour))
        return before is None or not broken_links(record, before)

    def _holds_until(self, hour: int, since: int, schema: pa.Schema) -> bool:
        """Whether the partition on disk is the open one that the lane stands behind."""
        span, record = self.span, self._record(hour)
        path = partition_path(span.silver, span.channel, span.lane, hour)
        if record is None or record.cutoff != since or fingerprint(path) != record.file:
            return False
        if not self._begins_right(hour, record):
            return False
        return record.columns == [c.name for c in self.lane.graph.columns] and read_schema(path).equals(schema)

    def _has_changed(self, hour: int) -> bool:
        """Whether a file that was read is no longer the one that was listed."""
        return not are_unchanged(
            segment
            for channel, digests in self.span.inputs(hour).items()
            for h in digests
            for segment in self.span.segments[channel][h]
        )

    def _bad_files(self, hour: int) -> dict[tuple[str, int], list[Quarantined]]:
        """Which files of the inputs were left out, by channel and hour."""
        span, found = self.span, {}
        for channel, hours in span.inputs(hour).items():
            for h in hours:
                bad = [self.files.bad(s) for s in span.segments[channel][h]]
                found[channel, h] = [quarantined(b, span.bronze) for b in bad if b is not None]
        return found

    def _quarantine(self, hour: int, bad: dict[tuple[str, int], list[Quarantined]]) -> None:
        """Write down which files were left out, hour by hour."""
        span = self.span
        for (channel, h), listed in bad.items():
            lane = span.lane if channel == span.channel else span.config.trades_lane(span.lane)
            path = quarantine_path(span.silver, channel, lane, h)
            held = [] if (channel, h) == (span.channel, hour) else read_quarantine(path)  # read in part only
            still = [q for q in held if self.files.fingerprint(span.bronze / q.path) == q.fingerprint]
            write_quarantine(path, {q.path: q for q in (*still, *listed)}.values())

    def _new_record(self, hour: int, **made: Any) -> Commit:
        span, graph = self.span, self.span.graph
        inputs = span.inputs(hour)
        return Commit(
            channel=span.channel, exchange=span.lane.exchange, symbol=span.lane.symbol, hour=hour_name(hour),
            cutoff=span.cutoffs.get(hour),
            inputs={c: {hour_name(h): d for h, d in digests.items()} for c, digests in inputs.items()},
            settings=settings_of(graph, span.lane, span.config), features=plain(graph.definition()),
            columns=[c.name for c in graph.columns], **made,
        )  # fmt: skip

    def _chain_state(self) -> dict[str, str]:
        """What each unbounded feature carries now, as text."""
        carried = self.lane.engine.remembered.carried
        names = [f.name for f in self.lane.graph.features if f.lookback().unbounded]
        return {n: b64encode(b"".join(a.tobytes() for a in carried[n])).decode() for n in names}

    def _link(self, hour: int, since: int) -> dict[str, str]:
        """Put unbounded features where the partition before ended: their past is longer than any lookback.

        Returns the states they began the hour with; in the middle of an open hour they go on as they are.
        """
        unbounded = [f for f in self.lane.graph.features if f.lookback().unbounded]
        if not unbounded:
            return {}
        if since > hour * HOUR:
            record = self._record(hour)
            return {name: link.began for name, link in record.chain.items()} if record else {}
        before = self.span.before.get(hour)
        record = self._record(before)
        if before is not None and (record is None or not {f.name for f in unbounded} <= record.chain.keys()):
            raise LakeError(
                f"{', '.join(f.name for f in unbounded)} needs the partition before, {hour_name(before)}",
                where=str(self.span.lane), fix="run that one too (leave --start away)",
            )  # fmt: skip
        states = {f.name: _unpack(f, record.chain[f.name].ended if record else None) for f in unbounded}
        self.lane.engine.set_carried(states)
        return self._chain_state()

    def _record(self, hour: int | None) -> Commit | None:
        if hour is None:
            return None
        return read_commit(commit_path(self.span.silver, self.span.channel, self.span.lane, hour))

    def _chain_holds(self, hour: int) -> bool:
        """Whether a partition that only follows others still begins where the one before now ends."""
        record, last = self._record(hour), self._record(self.span.before.get(hour))
        if record is None or last is None:
            return False
        return record.chain.keys() <= last.chain.keys() and not broken_links(record, last)


def _unpack(feature: Feature, text: str | None) -> tuple[np.ndarray, ...]:
    """A feature's carried arrays from ``Link.ended``; fresh ones at the beginning of a chain."""
    fresh = feature.new_state()
    if text is None:
        return fresh
    data, found, begin = b64decode(text), [], 0
    for array in fresh:
        found.append(np.frombuffer(data[begin : begin + array.nbytes], array.dtype).reshape(array.shape).copy())
        begin += array.nbytes
    return tuple(found)
