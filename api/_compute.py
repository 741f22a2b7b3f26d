"""``tickstate.compute``: features of Arrow tables in memory, for a notebook."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tickstate._run import as_config
from tickstate.features.engine import Engine
from tickstate.features.graph import Graph, build_graph
from tickstate.features.table import output_schema
from tickstate.kernels.errors import TickstateError
from tickstate.lake.arrow import int64_values
from tickstate.lake.book import book_rows
from tickstate.lake.names import HOUR, Lane, safe_name
from tickstate.lake.schema import BRONZE, same_kind
from tickstate.lake.stream import drop_duplicates, sort_rows
from tickstate.runners.assemble import partition_table

CHUNK_ROWS = 32_768


def compute(
    orderbook: pa.Table,
    features: str | Sequence[str] | None = None,
    *,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
) -> pa.Table:
    """Features of order books in memory: the rows and columns that ``run`` would write, lane after lane.

    Args:
        orderbook: bronze rows in any order (FEATURES.md section 2): ``capture_ts``, ``timestamp``, ``bids``,
            ``asks``, optional ``nonce``, ``collected_at``, and ``exchange``, ``symbol`` where there are several lanes.
        features: names of features, groups or columns; default every built-in that is on.
        config: path of a features.toml, or the same as nested dictionaries.

    Returns:
        One row a bronze row (equal rows dropped), null where undefined, ``row_id`` counted from 0 in every hour.

    Raises:
        TickstateError: a missing column, a wrong type, an unknown feature.
    """
    chosen = as_config(config)
    selected = (features,) if isinstance(features, str) else features
    parts, graph = [], None
    for lane, table in _lanes(orderbook):
        graph = build_graph(
            "orderbook", selected or chosen.features, settings=chosen.settings, params=chosen.of_lane(lane)
        )
        parts += _compute_lane(graph, lane, table)
    if graph is None:
        graph = build_graph("orderbook", selected or chosen.features, settings=chosen.settings)
    return pa.concat_tables(parts) if parts else output_schema(graph).empty_table()


def _compute_lane(graph: Graph, lane: Lane, table: pa.Table) -> list[pa.Table]:
    table = drop_duplicates(sort_rows(table))
    hours = int64_values(table, "capture_ts") // HOUR
    edges = np.flatnonzero(np.diff(hours)) + 1
    engine, parts = Engine(graph), []
    for begin, end in zip([0, *edges.tolist()], [*edges.tolist(), table.num_rows], strict=True):
        for first in range(begin, end, CHUNK_ROWS):
            chunk = table.slice(first, min(CHUNK_ROWS, end - first))
            rows = book_rows(chunk, graph.settings.depth)
            parts.append(partition_table(graph, rows, engine.push(rows), lane, int(hours[begin]), first - begin))
    return parts


def _lanes(table: pa.Table) -> Iterator[tuple[Lane, pa.Table]]:
    """The table by lane, contract columns only, canonical types."""
    import pyarrow.compute as pc

    wanted = BRONZE["orderbook"]
    columns: dict[str, pa.ChunkedArray] = {}
    for name, kind in wanted.types.items():
        if name not in table.column_names:
            if name in wanted.required:
                raise TickstateError(f"no column {name!r}", where="orderbook", expected=f"{name}: {kind}")
            columns[name] = pa.chunked_array([pa.nulls(table.num_rows, kind)])
        elif not same_kind(table.schema.field(name).type, kind):
            got = table.schema.field(name).type
            raise TickstateError(f"column {name!r} is {got}", where="orderbook", expected=f"{kind}")
        else:
            columns[name] = table.column(name).cast(kind)
    if columns["capture_ts"].null_count:
        raise TickstateError("capture_ts has nulls", where="orderbook", fix="drop these rows first")
    contract = pa.table(columns)
    names = [
        table.column(c).cast(pa.string())
        if c in table.column_names
        else pa.chunked_array([pa.repeat("memory", len(table))])
        for c in ("exchange", "symbol")
    ]
    pairs = pa.table(names, names=["exchange", "symbol"]).group_by(["exchange", "symbol"]).aggregate([])
    for exchange, symbol in sorted(zip(pairs["exchange"].to_pylist(), pairs["symbol"].to_pylist(), strict=True)):
        lane = Lane(safe_name(exchange) or exchange, safe_name(symbol) or symbol)
        mask = pc.and_(pc.equal(names[0], exchange), pc.equal(names[1], symbol))
        yield lane, contract if pairs.num_rows == 1 else contract.filter(mask)
