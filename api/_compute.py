"""``tickstate.compute``: features of Arrow tables in memory, for a notebook."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tickstate._run import as_config
from tickstate.features.engine import Engine
from tickstate.features.graph import Graph, build_graph
from tickstate.features.sampling import Sampler, sampled_schema
from tickstate.features.table import output_schema
from tickstate.kernels.errors import TickstateError
from tickstate.lake.arrow import int64_values
from tickstate.lake.feed import TradeFeed
from tickstate.lake.listing import Listing, Segment, normalize_quotes
from tickstate.lake.names import HOUR, Lane, safe_name
from tickstate.lake.schema import BRONZE, same_kind
from tickstate.lake.stream import drop_duplicates, hash_text, sort_rows
from tickstate.lake.tape import SOURCE, RepeatedIds
from tickstate.runners.assemble import partition_table, push_joined, rows_of, sampled_table
from tickstate.runners.config import Config
from tickstate.runners.lane import CHUNK_ROWS


def compute(
    table: pa.Table,
    features: str | Sequence[str] | None = None,
    *,
    channel: str = "orderbook",
    trades: pa.Table | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
) -> pa.Table:
    """Features of bronze rows in memory: the rows and columns that ``run`` would write, lane after lane.

    Args:
        table: bronze rows of ``channel`` in any order (FEATURES.md section 2), the six partition columns aside: only
            ``exchange`` and ``symbol`` are looked at, and only where there are several lanes.
        features: names of features, groups or columns; default every built-in that is on.
        channel: ``"orderbook"``, ``"trades"`` or ``"ticker"``.
        trades: bronze trades of the same lanes, for order books; without them every trade column is null.
        config: path of a features.toml, or the same as nested dictionaries.

    Returns:
        One row a bronze row (repeats dropped), null where undefined, ``row_id`` counted from 0 in every hour.

    Raises:
        TickstateError: a missing column, a wrong type, an unknown feature or channel.
    """
    if channel not in BRONZE:
        raise TickstateError(f"unknown channel {channel!r}", expected=", ".join(BRONZE))
    chosen = as_config(config)
    selected = ((features,) if isinstance(features, str) else features) or chosen.features
    tapes = dict(_lanes(trades, "trades", chosen)) if trades is not None else {}
    graph = _graph(channel, selected, chosen, Lane("memory", "memory"))
    parts = [_schema(graph).empty_table()]
    for lane, rows in _lanes(table, channel, chosen):
        graph = _graph(channel, selected, chosen, lane)
        parts += _compute_lane(graph, lane, rows, tapes.get(chosen.trades_lane(lane)))
    return pa.concat_tables(parts)


def _graph(channel: str, selected: Sequence[str] | None, config: Config, lane: Lane) -> Graph:
    return build_graph(channel, selected, settings=config.settings_of(lane), params=config.params_of(lane))


def _schema(graph: Graph) -> pa.Schema:
    schema = output_schema(graph)
    return sampled_schema(schema) if _samples(graph) else schema


def _samples(graph: Graph) -> bool:
    return graph.channel == "orderbook" and bool(graph.settings.sample)


def _compute_lane(graph: Graph, lane: Lane, table: pa.Table, trades: pa.Table | None) -> Iterator[pa.Table]:
    engine, settings = Engine(graph), graph.settings
    tape = [] if trades is None else [rows_of("trades", _in_order(trades, "trades"), graph)]
    feed = TradeFeed(iter(tape)) if graph.joins else None
    sampler = Sampler(settings, output_schema(graph)) if _samples(graph) else None
    counts: Counter[int] = Counter()
    table = _in_order(table, graph.channel)
    for hour, begin, end in _hours(int64_values(table, "capture_ts")):
        for first in range(begin, end, CHUNK_ROWS):
            rows = rows_of(graph.channel, table.slice(first, min(CHUNK_ROWS, end - first)), graph)
            found = partition_table(graph, rows, push_joined(engine, feed, rows), lane, hour, first - begin)
            if sampler is None:
                yield found
            else:
                yield from _by_hour(sampler.add(found, rows.flag == 0), lane, counts)
    if sampler is not None and table.num_rows:
        yield from _by_hour(sampler.finish((hour + 2) * HOUR + settings.sample_reach_us), lane, counts)


def _by_hour(tables: Iterable[pa.Table], lane: Lane, counts: Counter[int]) -> Iterator[pa.Table]:
    """Sampled rows with the partition columns of their stamps' hours; ``counts``: rows of each hour so far."""
    for table in tables:
        stamps = int64_values(table, "sample_ts")
        for hour, begin, end in _hours(stamps):
            yield sampled_table(table.slice(begin, end - begin), lane, hour, counts[hour])
            counts[hour] += end - begin


def _hours(times: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(hour, first row, end row) of each hour in ascending times."""
    hours = times // HOUR
    edges = (np.flatnonzero(np.diff(hours)) + 1).tolist()
    for begin, end in zip([0, *edges], [*edges, times.shape[0]], strict=True):
        if end > begin:
            yield int(hours[begin]), begin, end


def _in_order(table: pa.Table, channel: str) -> pa.Table:
    table = sort_rows(table)
    return RepeatedIds().drop(table) if channel == "trades" else drop_duplicates(table)


def _lanes(table: pa.Table, channel: str, config: Config) -> Iterator[tuple[Lane, pa.Table]]:
    """The table by lane, contract columns only, canonical types; quotes normalised where that is asked for."""
    contract = _contract(table, channel)
    names = [
        table.column(c).cast(pa.string()) if c in table.column_names else pa.repeat("memory", table.num_rows)
        for c in ("exchange", "symbol")
    ]
    pairs = pa.table(names, names=["exchange", "symbol"]).group_by(["exchange", "symbol"]).aggregate([])
    found = list(zip(pairs["exchange"].to_pylist(), pairs["symbol"].to_pylist(), strict=True))
    if any(value is None for pair in found for value in pair):
        raise TickstateError("exchange or symbol has nulls", where=channel, fix="fill or drop these rows first")
    for lane, sources in _by_lane(sorted(found), channel, config).items():
        parts = []
        for exchange, symbol in sources:
            rows = contract
            if pairs.num_rows > 1:
                rows = contract.filter(pc.and_(pc.equal(names[0], exchange), pc.equal(names[1], symbol)))
            if channel == "trades":
                rows = rows.append_column(SOURCE, pa.repeat(hash_text(symbol), rows.num_rows))
            parts.append(rows)
        yield lane, pa.concat_tables(parts)


def _by_lane(pairs: Sequence[tuple[str, str]], channel: str, config: Config) -> dict[Lane, list[tuple[str, str]]]:
    """Which exchange and symbol make up each lane, by the rules that a lake is listed by."""
    listing = Listing(channel)
    spelled: dict[Lane, tuple[str, str]] = {}
    for exchange, symbol in pairs:
        lane = Lane(safe_name(exchange) or exchange, safe_name(symbol) or symbol)
        if spelled.setdefault(lane, (exchange, symbol)) != (exchange, symbol):
            both = f"{'/'.join(spelled[lane])!r} and {exchange + '/' + symbol!r}"
            raise TickstateError(f"{both} would both be {lane}", where=channel, fix="rename one")
        listing.lanes[lane] = {0: [Segment(str(lane), channel, "", exchange, symbol, 0, 0)]}
    if config.normalize_quotes:
        listing = normalize_quotes(listing, config.prefer)
    return {lane: [(s.exchange, s.symbol) for s in hours[0]] for lane, hours in sorted(listing.lanes.items())}


def _contract(table: pa.Table, channel: str) -> pa.Table:
    bronze = BRONZE[channel]
    columns: dict[str, Any] = {}
    for name, kind in bronze.read.items():
        if name not in table.column_names:
            if name in bronze.required:
                raise TickstateError(f"no column {name!r}", where=channel, expected=f"{name}: {kind}")
            columns[name] = pa.nulls(table.num_rows, kind)
        elif not same_kind(table.schema.field(name).type, kind):
            got = table.schema.field(name).type
            raise TickstateError(f"column {name!r} is {got}", where=channel, expected=f"{kind}")
        else:
            columns[name] = table.column(name).cast(kind)
    if columns["capture_ts"].null_count:
        raise TickstateError("capture_ts has nulls", where=channel, fix="drop these rows first")
    return pa.table(columns)
