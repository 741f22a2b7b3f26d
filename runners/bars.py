"""Days of bars: silver hours in order, once for all kinds, one file and one commit record a kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tickstate.features.barengine import PARTITION, VALID, BarBuilder, Kind
from tickstate.lake.arrow import int64_values, one_chunk
from tickstate.lake.commit import Commit, commit_path, read_commit, write_commit
from tickstate.lake.files import step
from tickstate.lake.names import HOUR, Lane, hour_name, hour_time, partition_path, time_name
from tickstate.lake.segment import Files
from tickstate.lake.store import Place, reading, stat_of
from tickstate.lake.tape import base_of, filled_timestamps, floats, side_signs
from tickstate.lake.write import PartitionWriter, writing
from tickstate.runners.gold import DAY, DaySpan
from tickstate.runners.outcome import Outcome
from tickstate.runners.reasons import is_recorded, plain
from tickstate.runners.worker import Changed, Worker

BATCH_ROWS = 131_072


@dataclass
class _Warm:
    """Where the bars of an open day stand behind its closed hours."""

    contents: dict[int, str]
    builders: dict[str, BarBuilder]
    tables: dict[str, list[pa.Table]]


class GoldWorker(Worker):
    """Makes the bars of days of one lane. A watcher's keeps those behind the closed hours of the open day."""

    def __init__(self, span: DaySpan, files: Files, patience: float = -1) -> None:
        super().__init__(span, files, patience)
        self.span: DaySpan
        self._warm: dict[int, _Warm] = {}

    def _make(self, hour: int) -> list[Outcome]:
        kinds = tuple(k for k in self.span.kinds[hour] if not self._is_done(hour, k))
        if not kinds:
            return []
        try:
            return self._day(hour, kinds)
        except (Changed, OSError):
            raise
        except Exception:
            if len(kinds) == 1:
                raise
        return [o for kind in kinds for o in self._alone(hour, kind)]

    def _alone(self, hour: int, kind: Kind) -> list[Outcome]:
        """One kind by itself, after one of several failed: the fault is its own."""
        try:
            return self._day(hour, (kind,))
        except Changed:
            raise
        except Exception as error:
            return [Outcome(_target(kind), self.span.lane, hour, **self._fault(hour, error))]

    def _outcomes(self, hour: int, **what: Any) -> list[Outcome]:
        return [Outcome(_target(kind), self.span.lane, hour, **what) for kind in self.span.kinds[hour]]

    def _day(self, day: int, kinds: tuple[Kind, ...]) -> list[Outcome]:
        span, end = self.span, (day + DAY) * HOUR
        cutoff = span.cutoffs.get(day)
        with ExitStack() as stack:
            writers = {
                k.name: stack.enter_context(writing(self._path(k, day), k.schema, self._beside(k, day))) for k in kinds
            }  # fmt: skip
            builders = self._begin(day, kinds, writers)
            for hour in sorted(span.contents[day]):
                if hour in builders.done:
                    continue
                for table in self._rows(day, hour, kinds):
                    self._push(day, kinds, builders, writers, table)
                if cutoff is not None and (hour + 1) * HOUR <= cutoff:
                    builders.keep(hour, span.contents[day][hour])
            for kind in kinds:
                last = builders.now[kind.name].finish(min(cutoff or end, end), closed=cutoff is None)
                self._write(day, kind, writers[kind.name], last)
            if self._has_changed(day):
                raise Changed
            contents = {k.name: writers[k.name].close() for k in kinds}
        self._warm = {day: builders.warm} if cutoff is not None else {}
        return [self._commit(day, k, writers[k.name], contents[k.name]) for k in kinds]

    def _begin(self, day: int, kinds: tuple[Kind, ...], writers: dict[str, PartitionWriter]) -> _Run:
        """Builders at the day's beginning, or behind the hours that an earlier look has seen to the end."""
        warm = self._warm.get(day)
        known = warm is not None and warm.contents.items() <= self.span.contents[day].items()
        in_order = known and list(warm.contents) == sorted(self.span.contents[day])[: len(warm.contents)]
        if warm is None or not in_order or {k.name: k for k in kinds} != {n: b.kind for n, b in warm.builders.items()}:
            warm = _Warm({}, {k.name: BarBuilder(k) for k in kinds}, {k.name: [] for k in kinds})
        for kind in kinds:
            for table in warm.tables[kind.name]:
                self._write(day, kind, writers[kind.name], table)
        return _Run(warm, self.span.cutoffs.get(day) is not None)

    def _push(
        self, day: int, kinds: tuple[Kind, ...], run: _Run, writers: dict[str, PartitionWriter], table: pa.Table
    ) -> None:  # fmt: skip
        arrays, ids = bar_rows(self.span.channel, table, self.span.settings[day, _target(kinds[0])])
        for kind in kinds:
            found = run.now[kind.name].push(arrays, ids)
            run.add(kind.name, found)
            self._write(day, kind, writers[kind.name], found)
        step("compute:chunk")

    def _rows(self, day: int, hour: int, kinds: tuple[Kind, ...]) -> Iterator[pa.Table]:
        """The columns that any kind reads of an hour of silver, rows before the cutoff; its content is checked."""
        span = self.span
        wanted = sorted({n for k in kinds for n in k.inputs})
        with reading(partition_path(span.silver, span.channel, span.lane, hour)) as file:
            clock = "sample_ts" if "sample_ts" in file.schema_arrow.names else "capture_ts"
            for batch in file.iter_batches(BATCH_ROWS, columns=sorted({*wanted, clock})):
                table = pa.Table.from_batches([batch])
                if clock != "capture_ts":
                    table = table.drop_columns("capture_ts").rename_columns(
                        ["capture_ts" if n == clock else n for n in table.column_names if n != "capture_ts"]
                    )
                if day in span.cutoffs:
                    before = int64_values(table, "capture_ts") < span.cutoffs[day]
                    table = table if before.all() else table.filter(pa.array(before))
                yield table

    def _write(self, day: int, kind: Kind, writer: PartitionWriter, bars: pa.Table) -> None:
        if bars.num_rows:
            writer.write(partitioned(kind, self.span.lane, day, bars))

    def _commit(self, day: int, kind: Kind, writer: PartitionWriter, content: str) -> Outcome:
        counters = {"rows": writer.rows}
        record = self._new_record(
            day, kind, counters=counters, content=content, size=writer.size, file=writer.file
        )  # fmt: skip
        write_commit(self._beside(kind, day), record)
        return Outcome(_target(kind), self.span.lane, day, counters=counters, cutoff=self.span.cutoffs.get(day))

    def _new_record(self, day: int, kind: Kind, **made: object) -> Commit:
        span, target = self.span, _target(kind)
        return Commit(
            channel=target, exchange=span.lane.exchange, symbol=span.lane.symbol, hour=time_name(target, day),
            cutoff=span.cutoffs.get(day),
            inputs={span.channel: {hour_name(h): c for h, c in span.contents[day].items()}},
            settings=plain(span.settings[day, target]), features=plain(kind.definition()),
            columns=[c.name for f in kind.families for c in f.columns()], **made,
        )  # type: ignore[arg-type]  # fmt: skip

    def _is_done(self, day: int, kind: Kind) -> bool:
        """Whether another runner has made it since the plan."""
        path = self._path(kind, day)
        record = read_commit(self._beside(kind, day))
        if record is None or not path.exists():
            return False
        made = {name: getattr(record, name) for name in ("counters", "content", "size", "file")}
        return self._new_record(day, kind, **made) == record and self.files.fingerprint(path) == record.file

    def _has_changed(self, day: int) -> bool:
        """Whether an hour of silver is no longer the one that was planned with."""
        span = self.span
        for hour, content in span.contents[day].items():
            path = partition_path(span.silver, span.channel, span.lane, hour)
            beside = commit_path(span.silver, span.channel, span.lane, hour)
            record = read_commit(beside)
            stat = stat_of(path)
            if record is None or record.content != content or stat is None:
                return True
            if not is_recorded(self.files, path, stat, beside, record):
                return True  # the rows are replaced before the record is
        return False

    def _path(self, kind: Kind, day: int) -> Place:
        return partition_path(self.span.root, _target(kind), self.span.lane, day)

    def _beside(self, kind: Kind, day: int) -> Place:
        return commit_path(self.span.root, _target(kind), self.span.lane, day)


class _Run:
    """The builders of a day on their way, and what is kept of them behind closed hours."""

    def __init__(self, warm: _Warm, keeps: bool) -> None:
        self.warm, self._keeps = warm, keeps
        self.done = set(warm.contents)
        self.now = {name: b.copy() for name, b in warm.builders.items()} if keeps else warm.builders
        self._since: dict[str, list[pa.Table]] = {name: [] for name in warm.builders}

    def add(self, name: str, bars: pa.Table) -> None:
        """Remember bars, where the day may be looked at again."""
        if self._keeps and bars.num_rows:
            self._since[name].append(bars)

    def keep(self, hour: int, content: str) -> None:
        """An hour is through, and closed."""
        tables = {name: [*self.warm.tables[name], *self._since[name]] for name in self._since}
        builders = {name: b.copy() for name, b in self.now.items()}
        self.warm = _Warm({**self.warm.contents, hour: content}, builders, tables)
        self._since = {name: [] for name in self._since}


def partitioned(kind: Kind, lane: Lane, day: int, bars: pa.Table) -> pa.Table:
    """Bars with the columns of their partition; ``day``: its first hour."""
    time = hour_time(day)
    values = (lane.exchange, lane.symbol, time.year, time.month, time.day)
    fixed = [pa.repeat(pa.scalar(v, t), bars.num_rows) for v, t in zip(values, PARTITION.values(), strict=True)]
    return pa.table([*fixed, *bars.columns], schema=kind.schema)


def bar_rows(channel: str, table: pa.Table, facts: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], pa.Array | None]:
    """Rows of silver as the builder takes them: those that bars hold; and the trades' ids."""
    valid = pc.is_valid(table.column(VALID[channel]))
    table = table if pc.all(valid).as_py() is not False else table.filter(valid)
    arrays = {}
    for name in table.column_names:
        if name == "timestamp":
            arrays[name] = filled_timestamps(table)
        elif name == "capture_ts":
            arrays[name] = int64_values(table, name)
        elif pa.types.is_floating(table.schema.field(name).type):
            arrays[name] = floats(table, name)
        elif pa.types.is_integer(table.schema.field(name).type):
            arrays[name] = one_chunk(table.column(name)).cast(pa.float64()).fill_null(float("nan")).to_numpy()
    if channel != "trades":
        return arrays, None
    arrays["side"] = side_signs(table)
    size, inverse = facts.get("contract_size", 1.0), facts.get("inverse", False)
    arrays["base"] = base_of(arrays["price"], arrays["amount"], size, inverse)
    return arrays, one_chunk(table.column("trade_id"))


def _target(kind: Kind) -> str:
    return f"{kind.channel}/{kind.name}"
