"""``features parity``: the runners against each other, or two lakes, column by column."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tickstate.features.table import PASSED
from tickstate.lake.arrow import one_chunk, plain
from tickstate.lake.errors import LakeError
from tickstate.lake.listing import Segment, gold_channels, list_channel
from tickstate.lake.names import time_name
from tickstate.lake.segment import Files
from tickstate.lake.store import Place, copy, place, reading
from tickstate.runners.plan import Plan, make_plan
from tickstate.runners.run import LONGEST_SPAN, run_batch, run_single
from tickstate.runners.selection import Selection
from tickstate.runners.watcher import Pace, Watcher

STEPS = 12
"""In how many deliveries the watcher gets its bronze."""


@dataclass
class ColumnParity:
    """One column of one channel in two lakes."""

    channel: str
    column: str
    rows: int = 0
    differ: int = 0
    first: str = ""

    @property
    def verdict(self) -> str:
        """``same`` or ``DIFFERS``."""
        return "DIFFERS" if self.differ else "same"


def compare_lakes(left: Place, right: Place) -> list[ColumnParity]:
    """Every column of every partition of two tiers; a partition that one lacks differs in all its rows."""
    found: dict[tuple[str, str], ColumnParity] = {}
    for channel in dict.fromkeys((*PASSED, *gold_channels(left), *gold_channels(right))):
        both = [_partitions(root, channel) for root in (left, right)]
        for key in sorted(both[0].keys() | both[1].keys()):
            tables = [_read(paths[key]) if key in paths else None for paths in both]
            for name in _names(tables):
                entry = found.setdefault((channel, name), ColumnParity(channel, name))
                _compare(entry, key, tables, name)
    if not found:
        raise LakeError("no partition in either", where=f"{left}, {right}", fix="give two silver or gold folders")
    return list(found.values())


def compare_runners(selection: Selection, report: Callable[[str], None]) -> dict[str, list[ColumnParity]]:
    """Run a selection with all three runners in a folder of its own; batch and watcher each against single."""
    with tempfile.TemporaryDirectory(prefix="tickstate-parity-") as folder:
        chosen = {name: _placed(selection, Path(folder) / name) for name in ("single", "batch", "watcher")}
        report("single")
        run_single(chosen["single"])
        report("batch")
        run_batch(chosen["batch"], workers=max(2, os.cpu_count() or 2))
        report("watcher")
        _watch(chosen["watcher"], Path(folder) / "bronze")
        found = {name: compare_lakes(chosen["single"].silver, chosen[name].silver) for name in ("batch", "watcher")}
        if selection.gold is not None:
            for name, columns in found.items():
                both = chosen["single"].gold, chosen[name].gold
                columns += compare_lakes(*both) if any(map(gold_channels, both)) else []
        return found


def _placed(selection: Selection, folder: Path) -> Selection:
    """The selection with its outputs in a folder of their own."""
    return replace(selection, silver=folder / "silver", gold=selection.gold and folder / "gold")


def _watch(selection: Selection, staging: Path) -> None:
    """The watcher over a bronze that arrives bit by bit, by links or copies, its clock at the newest row."""
    plan = make_plan(selection)
    files, now = Files(), [0]
    arrivals = sorted((_end(files, s), s.where, s) for s in _needed(plan))
    watcher = Watcher(replace(selection, bronze=staging), Pace(grace=3600.0), now=lambda: now[0])
    for part in np.array_split(np.arange(len(arrivals)), STEPS):
        for i in part:
            end, where, segment = arrivals[i]
            copy(place(segment.path), staging / where)
            now[0] = max(now[0], end)
        if part.size:
            watcher.cycle()
    now[0] += 48 * 3_600_000_000
    watcher.run(once=True)


def _needed(plan: Plan) -> set[Segment]:
    """All bronze that the selection's partitions are made from."""
    hours = (h for span in plan.spans(LONGEST_SPAN) for c in span.segments.values() for h in c.values())
    return {segment for segments in hours for segment in segments}


def _end(files: Files, segment: Segment) -> int:
    found = files.inspect(segment)
    return found.high if found is not None and found.rows else segment.hour * 3_600_000_000


def _read(path: str) -> pa.Table:
    with reading(path) as file:
        return file.read()


def _partitions(root: Place, channel: str) -> dict[str, str]:
    listing = list_channel(root, channel)
    return {
        f"{lane} {time_name(channel, hour)}": segments[0].path
        for lane, hours in listing.lanes.items()
        for hour, segments in hours.items()
    }


def _names(tables: list[pa.Table | None]) -> Iterator[str]:
    seen: dict[str, None] = {}
    for table in tables:
        seen.update(dict.fromkeys(table.column_names if table is not None else ()))
    return iter(seen)


def _compare(entry: ColumnParity, key: str, tables: list[pa.Table | None], name: str) -> None:
    columns = [t.column(name) if t is not None and name in t.column_names else None for t in tables]
    lengths = [0 if t is None else t.num_rows for t in tables]
    n = max(lengths)
    entry.rows += n
    if columns[0] is not None and columns[1] is not None and lengths[0] == lengths[1]:
        wrong = _unequal(columns[0], columns[1])
    else:
        wrong = np.arange(n)
    entry.differ += wrong.shape[0]
    if wrong.shape[0] and not entry.first:
        row = int(wrong[0])
        values = [_value(c, row) for c in columns]
        entry.first = f"{key} row {row}: {values[0]} | {values[1]}"


def _value(column: pa.ChunkedArray | None, row: int) -> Any:
    return "absent" if column is None or row >= len(column) else column[row].as_py()


def _unequal(left: pa.ChunkedArray, right: pa.ChunkedArray) -> np.ndarray:
    """Rows that differ, to the bit: null equals null."""
    if left.type != right.type:
        return np.arange(len(left))
    columns = left, right
    nulls = pc.and_(pc.is_null(left), pc.is_null(right)).to_numpy()
    if pa.types.is_floating(left.type):
        left, right = (plain(pc.fill_null(one_chunk(c), 0.0)).view(np.int64) for c in (left, right))
        either = pc.xor(pc.is_null(columns[0]), pc.is_null(columns[1])).to_numpy()
        return np.flatnonzero(~nulls & (either | (left != right)))
    same = pc.fill_null(pc.equal(left, right), False).to_numpy()
    return np.flatnonzero(~(same | nulls))
