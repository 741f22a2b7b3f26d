"""Bars of one day, from chunks of silver rows in order. As with the engine of rows, where chunks end does not show."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from tickstate.features.barcolumns import CLOSE, ZERO, BarColumns
from tickstate.features.bars import AUTO, LARGEST, BarRule, as_number
from tickstate.features.base import BARS, SECOND, FeatureError, Settings, near
from tickstate.features.engine import Values
from tickstate.features.registry import BUILT_IN, Registry, default_registry
from tickstate.features.table import TIME, TYPES, to_arrow
from tickstate.kernels import bars as kernels
from tickstate.kernels import columns as column_kernels

Arrays = Mapping[str, np.ndarray]
VALID = {"orderbook": "mid_price", "trades": "quote_volume", "ticker": "mid_price"}
"""A column of silver that is null on the rows that no bar holds, by channel."""
COUNTS = {"orderbook_bars": "snapshot_count", "trades_bars": "trade_count", "ticker_bars": "tick_count"}
EMPTY, DAY_END = "empty", "day_end"
_INTEGERS = ("capture_ts", "timestamp", "bar_end")
PARTITION = {
    "exchange": pa.string(), "symbol": pa.string(), "year": pa.int32(), "month": pa.int32(), "day": pa.int32(),
}  # fmt: skip
_BEFORE = {
    "bar_id": pa.int64(), "bar_start": TIME, "bar_end": TIME, "bar_duration_sec": pa.float64(), "known_at": TIME,
    "bar_reason": pa.string(), "threshold": pa.float64(), "complete": pa.bool_(), "first_ts": TIME, "last_ts": TIME,
}  # fmt: skip
_IDS = {"first_trade_id": pa.string(), "last_trade_id": pa.string()}


@dataclass(frozen=True)
class Kind:
    """One kind of bars of one lane: ``60s`` of ``trades_bars``, with its rule and the families of its columns."""

    name: str
    rule: BarRule
    families: tuple[BarColumns, ...]

    @property
    def channel(self) -> str:
        """The channel of gold."""
        return self.rule.channel

    @property
    def inputs(self) -> tuple[str, ...]:
        """Columns of silver that are read, rows' own keys included."""
        made = {"bar_end", "base"} | {name for f in self.families for name in f.names}
        own = {"trades": ("timestamp", "trade_id", "price", "amount", "side")}.get(BARS[self.channel], ())
        wanted = ("capture_ts", VALID[BARS[self.channel]], *own, *self.rule.inputs)
        rows = {n for f in self.families for n in f.inputs if n not in made or n in wanted}
        return tuple(sorted({*wanted, *rows}))

    @property
    def schema(self) -> pa.Schema:
        """The schema of a partition."""
        ids = _IDS if self.channel == "trades_bars" else {}
        fixed = {**PARTITION, **_BEFORE, **ids, COUNTS[self.channel]: pa.int64()}
        return pa.schema([*fixed.items(), *((c.name, TYPES[c.dtype]) for f in self.families for c in f.columns())])

    def definition(self) -> dict[str, dict[str, Any]]:
        """What identifies the numbers: version and parameters of the rule and of every family."""
        return {f.name: {"version": f.version, "params": dict(f.values)} for f in (self.rule, *self.families)}


def find_kind(
    channel: str,
    name: str,
    settings: Settings | None = None,
    params: Mapping[str, Mapping[str, Any]] | None = None,
    select: Iterable[str] = (),
    registry: Registry | None = None,
) -> Kind | None:
    """The kind called so among the rules of a channel of gold, None where none is; ``select``: plugins' columns.

    Raises ``FeatureError`` where the name or a parameter does not fit.
    """
    entries = list((registry or default_registry()).of_channel(channel).values())
    settings, params = settings or Settings(), params or {}
    for rule in (e.feature for e in entries if issubclass(e.feature, BarRule)):
        given = rule.read_kind(name)
        if given is None:
            continue
        families = tuple(
            e.feature.make(settings, params.get(e.feature.name))
            for e in entries
            if issubclass(e.feature, BarColumns)
            and (e.package == BUILT_IN or {e.feature.name, e.feature.group, *e.names} & set(select))
        )
        made = rule.make(settings, {**params.get(rule.name, {}), **given})
        return Kind(name, made, families)  # type: ignore[arg-type]
    return None


def check_kind(name: str, registry: Registry | None = None) -> tuple[str, ...]:
    """The channels of gold that have bars of this kind; a ``FeatureError`` with what there is where none has."""
    registry = registry or default_registry()
    found = tuple(channel for channel in BARS if find_kind(channel, name, registry=registry) is not None)
    if not found:
        rules = [e.feature for c in BARS for e in registry.of_channel(c).values() if issubclass(e.feature, BarRule)]
        digits = re.search(r"[0-9]+\.?[0-9]*(?:e[0-9]+)?", name)
        number = as_number(float(digits[0])) if digits and 0 < float(digits[0]) < LARGEST else "1000"
        examples = {f"{r.prefix}_{number}" for r in rules if r.prefix} | {"60s"}
        patterns = ", ".join(dict.fromkeys(r.kind_pattern() for r in rules))
        close = near(name, examples)
        expected = close if close.startswith("did you mean") else f"one of {patterns}"
        raise FeatureError(f"unknown bars {name!r}", where="--bars", fix=expected)
    return found


class BarBuilder:
    """Takes the rows of a day in order, gives its bars."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        if getattr(kind.rule, "values", ()) and dict(kind.rule.values).get("threshold") in ("", AUTO):
            raise FeatureError(f"bars {kind.name!r} have no threshold")
        self._rule_state = kind.rule.new_state()
        self._states = {f.name: f.new_state() for f in kind.families}
        self._open: dict[str, Any] | None = None
        self._bars = 0
        self._close: tuple[int, dict[str, float]] | None = None

    def copy(self) -> BarBuilder:
        """A builder that goes on alone."""
        return deepcopy(self)

    def push(self, arrays: Arrays, ids: pa.Array | None = None) -> pa.Table:
        """The bars that the next rows end. ``arrays``: the kind's inputs for valid rows; ``ids``: their trade ids."""
        if not arrays["capture_ts"].shape[0]:
            return self._table([], {}, [])
        cuts = self._cuts(arrays)
        ends = np.flatnonzero(~np.isnan(cuts[0]))
        reasons = [self.kind.rule.reasons[int(code)] for code in cuts[0][ends]]
        shown = arrays["capture_ts"][ends]
        return self._bars_of(arrays, ids, ends, reasons, cuts[1][ends], shown, [True] * len(reasons))

    def finish(self, time: int, closed: bool) -> pa.Table:
        """The bars that no row before ``time`` (us) can change; all of them, where the day is ``closed``."""
        if self._open is None or not (closed or self.kind.rule.settles):
            return self._table([], {}, [])
        unknown = {name: np.full(1, np.nan) for name in self.kind.rule.inputs}
        unknown |= {"capture_ts": np.array([time]), "timestamp": np.array([kernels.UNKNOWN])}
        cuts = self._cuts(unknown)
        met = not np.isnan(cuts[0, 0])
        if not met and not closed:
            return self._table([], {}, [])
        reason = self.kind.rule.reasons[int(cuts[0, 0])] if met else DAY_END
        rows = {name for family in self.kind.families for name in family.inputs} & {*self.kind.inputs, "base"}
        none = {name: np.empty(0) for name in rows}
        none |= dict.fromkeys(_INTEGERS, np.empty(0, np.int64))
        end, shown = np.zeros(1, np.int64), np.array([time])
        return self._bars_of(none, pa.array([], pa.string()), end, [reason], cuts[1], shown, [met])

    def _cuts(self, arrays: Arrays) -> np.ndarray:
        rule = self.kind.rule
        cuts = np.empty((2, arrays["capture_ts"].shape[0]))
        rule.kernel(*(_read_only(arrays[n]) for n in rule.inputs), *self._rule_state, *rule.call, cuts)
        return cuts

    def _bars_of(
        self, arrays: Arrays, ids: pa.Array | None, ends: np.ndarray, reasons: list[str],
        thresholds: np.ndarray, shown: np.ndarray, complete: list[bool],
    ) -> pa.Table:  # fmt: skip
        """Fold rows into bars; ``shown``: capture_ts of the row that showed each end."""
        times, n, b = arrays["capture_ts"], arrays["capture_ts"].shape[0], ends.shape[0]
        carried = self._open or {"first": None, "last": None, "count": 0, "first_id": None, "last_id": None}
        begins = np.concatenate(([0], ends))
        held = np.diff(np.concatenate((begins, [n])))  # rows of each bar in this chunk, the open one last
        first, last = _at(times, begins), _at(times, np.append(ends, n) - 1)
        if self._open is not None:
            first[0] = carried["first"]
            last[0] = last[0] if held[0] else carried["last"]
        counts = held.copy()
        counts[0] += carried["count"]
        start, end = self.kind.rule.bounds(first[:b], last[:b])
        known = np.where(complete, end, shown) if self.kind.rule.settles else shown
        columns = self._fold(arrays, ends, end)
        identity = self._ids(ids, begins, ends, held, carried)
        at_end = {"first": first[b], "last": last[b], "count": int(counts[b])}
        at_end |= {"first_id": identity[0][b], "last_id": identity[1][b]} if identity else {}
        self._open = at_end if counts[b] else None
        frame = {
            "bar_start": start, "bar_end": end, "known_at": known, "bar_reason": reasons, "threshold": thresholds,
            "complete": complete, "first_ts": first[:b], "last_ts": last[:b], "count": counts[:b],
            "first_trade_id": identity[0][:b] if identity else [], "last_trade_id": identity[1][:b] if identity else [],
        }  # fmt: skip
        return self._table(reasons, frame, columns)

    def _ids(self, ids: pa.Array | None, begins: np.ndarray, ends: np.ndarray, held: np.ndarray, carried: Any) -> Any:
        """Trade ids of each bar's first and last row, the open bar's too."""
        if self.kind.channel != "trades_bars" or ids is None:
            return None
        n = len(ids)
        mask = held == 0
        first = ids.take(pa.array(np.where(mask, 0, begins), mask=mask)).to_pylist() if n else [None] * len(held)
        final = np.append(ends, n) - 1
        last = ids.take(pa.array(np.where(mask, 0, final), mask=mask)).to_pylist() if n else [None] * len(held)
        if self._open is not None:
            first[0] = carried["first_id"]
            last[0] = last[0] if held[0] else carried["last_id"]
        return first, last

    def _fold(self, arrays: Arrays, ends: np.ndarray, bar_end: np.ndarray) -> list[tuple[BarColumns, np.ndarray]]:
        made: dict[str, np.ndarray] = {"bar_end": bar_end}
        found = []
        for family in self.kind.families:
            given = [
                _read_only(np.ascontiguousarray(made[n] if n == "bar_end" or n not in arrays else arrays[n]))
                for n in family.inputs
            ]
            if family.stacked:
                given = [_read_only(np.stack(given) if len(given) > 1 else given[0][None])]
            out = np.empty((len(family.names), ends.shape[0]))
            family.kernel(*given, _read_only(ends), *self._states[family.name], *family.call, out)
            made |= dict(zip(family.names, out, strict=True))
            found.append((family, out))
        return found

    def _table(
        self, reasons: list[str], frame: Mapping[str, Any], columns: list[tuple[BarColumns, np.ndarray]]
    ) -> pa.Table:  # fmt: skip
        """Bars as a table of the kind's schema without partition columns, empty ones filled in where asked for."""
        schema = pa.schema([f for f in self.kind.schema if f.name not in PARTITION])
        if not reasons:
            return schema.empty_table()
        arrays: dict[str, pa.Array] = {}
        for family, out in columns:
            arrays |= _finished(family, out)
        count = COUNTS[self.kind.channel]
        for name in ("bar_start", "bar_end", "known_at", "first_ts", "last_ts"):
            arrays[name] = pa.array(np.asarray(frame[name], np.int64)).cast(TIME)
        arrays["bar_duration_sec"] = pa.array((frame["bar_end"] - frame["bar_start"]) / SECOND)
        arrays["bar_reason"], arrays["complete"] = pa.array(reasons), pa.array(frame["complete"], pa.bool_())
        arrays["threshold"] = pa.array(np.asarray(frame["threshold"], np.float64), from_pandas=True)
        arrays[count] = pa.array(np.asarray(frame["count"], np.int64))
        for name in _IDS:
            arrays[name] = pa.array(frame[name] or [None] * len(reasons), pa.string())
        n = len(reasons)
        arrays["bar_id"] = pa.array(np.arange(self._bars, self._bars + n))
        table = pa.table([arrays[f.name] for f in schema], schema=schema)
        if dict(self.kind.rule.values).get("fill_empty"):
            table = self._filled(table)
        self._bars += table.num_rows
        return table

    def _filled(self, table: pa.Table) -> pa.Table:
        """The bars with flat ones in the intervals between them."""
        import pyarrow.compute as pc  # it takes longest of all to import, and a plan is made without it

        width = self.kind.rule["seconds"] * SECOND
        start = table.column("bar_start").cast(pa.int64()).to_numpy()
        price = {
            c.name: table.column("close").to_numpy()
            for f in self.kind.families for c in f.columns() if getattr(c, "empty", "") == CLOSE
        }  # fmt: skip
        before, closes = self._close if self._close is not None else (int(start[0]) - width, {})
        gaps = np.diff(start, prepend=before) // width - 1
        self._close = int(start[-1]), {name: float(values[-1]) for name, values in price.items()}
        total = int(gaps.sum()) + start.shape[0]
        place = np.cumsum(gaps + 1) - 1  # where the bars with rows stand
        source = np.full(total, -1)
        source[place] = np.arange(start.shape[0])
        empty = source < 0
        taken = pa.array(np.where(empty, 0, source), mask=empty)
        starts = np.zeros(total, np.int64)
        starts[place] = start
        ahead = np.append(place, total)[np.searchsorted(place, np.arange(total))]
        starts = starts[ahead] - (ahead - np.arange(total)) * width
        arrays = {name: table.column(name).combine_chunks().take(taken) for name in table.column_names}
        follows = np.searchsorted(place, np.arange(total)) - 1  # the bar with rows before each place
        fixed = {
            "bar_start": pa.array(starts).cast(TIME), "bar_end": pa.array(starts + width).cast(TIME),
            "known_at": pa.array(starts + width).cast(TIME), "bar_reason": pa.array([EMPTY] * total),
            "threshold": pa.array(np.full(total, width / SECOND)), "complete": pa.array([True] * total),
            "bar_duration_sec": pa.array(np.full(total, width / SECOND)),
            COUNTS[self.kind.channel]: pa.array(np.zeros(total, np.int64)),
        }  # fmt: skip
        for family in self.kind.families:
            for column in family.columns():
                rule = getattr(column, "empty", "")
                if rule == ZERO:
                    fixed[column.name] = pa.array(np.zeros(total)).cast(TYPES[column.dtype])
                elif rule == CLOSE:
                    values = np.append(price[column.name], closes.get(column.name, np.nan))[follows]
                    fixed[column.name] = pa.array(values)
        for name, values in fixed.items():
            arrays[name] = pc.if_else(pa.array(empty), values, arrays[name])
        arrays["bar_id"] = pa.array(np.arange(self._bars, self._bars + total))
        return pa.table([arrays[n] for n in table.column_names], schema=table.schema)


def _at(times: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Times of rows; of one before the first or behind the last, which no bar asks for, any."""
    return times.take(rows, mode="clip") if times.shape[0] else np.zeros(rows.shape[0], np.int64)


def _finished(family: BarColumns, out: np.ndarray) -> dict[str, pa.Array]:
    validity = np.empty((out.shape[0], (out.shape[1] + 7) // 8), np.uint8)
    nulls = np.empty(out.shape[0], np.int64)
    column_kernels.finish_columns(out, validity, nulls)
    return {
        c.name: to_arrow(c, Values(out[i], validity[i], int(nulls[i]))) for i, c in enumerate(family.columns())
    }  # fmt: skip


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array[:]
    view.flags.writeable = False
    return view
