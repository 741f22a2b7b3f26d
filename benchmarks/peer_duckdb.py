"""The DuckDB forms of the table of peers: window functions over a table of its own, in memory, one thread."""

from __future__ import annotations

import math
from collections.abc import Callable

import duckdb
import pyarrow as pa

from benchmarks.rowwise import HORIZONS

FLOW = 10
Query = Callable[[], pa.Table]


def query(table: pa.Table, text: str) -> Query:
    """A query over ``rows``, which is copied into DuckDB beforehand; its result as an Arrow table.

    Times have no zone: windows over those with one take a tenth longer.
    """
    place = table.schema.get_field_index("capture_ts")
    table = table.set_column(place, "capture_ts", table["capture_ts"].cast(pa.timestamp("us")))
    connection = duckdb.connect(config={"threads": 1})
    connection.register("given", table)
    connection.execute("CREATE TABLE rows AS SELECT * FROM given")
    connection.unregister("given")
    return lambda: connection.sql(text).to_arrow_table()


def ranges() -> str:
    """A named window (t - h, t] for each horizon."""
    frame = "(ORDER BY capture_ts RANGE BETWEEN INTERVAL '{} microseconds' PRECEDING AND CURRENT ROW)"
    return "WINDOW " + ", ".join(f"w{h} AS {frame.format(h * 1_000_000 - 1)}" for h in HORIZONS)


def folds(fold: str, column: str, name: str) -> list[str]:
    return [f"{fold}({column}) OVER w{h} AS {name}_{h}s" for h in HORIZONS]


def flow(side: str, i: int) -> str:
    """e of one side and level."""
    better, worse = (">", "<") if side == "b" else ("<", ">")
    now, before = f"{side}p{i}", f"lag({side}p{i}) OVER o"
    size, gone = f"{side}s{i}", f"lag({side}s{i}) OVER o"
    return (
        f"CASE WHEN {now} {better} {before} THEN {size} WHEN {now} {worse} {before} THEN -({gone}) "
        f"WHEN {now} = {before} THEN {size} - {gone} END AS {side}e{i}"
    )


def order_flow() -> str:
    """A query for ofi, ofi_L1 .. ofi_L9 and mlofi, from the lists of bronze."""
    sides = (("b", "bids"), ("a", "asks"))
    levels = [
        f"{c}[{i + 1}].{f} AS {s}{f[0]}{i}" for s, c in sides for f in ("price", "size") for i in range(FLOW)
    ]  # fmt: skip
    steps = [flow(side, i) for side in "ba" for i in range(FLOW)]
    each = [f"be{i} - ae{i} AS {f'ofi_L{i}' if i else 'ofi'}" for i in range(FLOW)]
    weigh = [" + ".join(f"{math.exp(-0.5 * i)!r} * coalesce({s}e{i}, 0)" for i in range(FLOW)) for s in "ba"]
    mlofi = f"CASE WHEN be0 IS NOT NULL THEN ({weigh[0]}) - ({weigh[1]}) END AS mlofi"
    return (
        f"SELECT capture_ts, {', '.join([*each, mlofi])} FROM (SELECT capture_ts, {', '.join(steps)} FROM "
        f"(SELECT capture_ts, {', '.join(levels)} FROM rows) WINDOW o AS (ORDER BY capture_ts))"
    )


def flow_and_sums(books: pa.Table, columns: tuple[str, ...]) -> Query:
    windows = [*folds("sum", "ofi", "ofi_sum"), *folds("sum", "mlofi", "mlofi_sum")]
    text = f"SELECT *, {', '.join(windows)} FROM ({order_flow()}) {ranges()}"
    return query(books, f"SELECT capture_ts, {', '.join(columns)} FROM ({text}) ORDER BY capture_ts")


def window_query(silver: pa.Table, windows: list[str]) -> Query:
    return query(silver, f"SELECT capture_ts, {', '.join(windows)} FROM rows {ranges()} ORDER BY capture_ts")


def moments(column: str, name: str) -> list[str]:
    return [f"avg({column}) OVER w60 AS {name}_mean_60s", f"stddev_samp({column}) OVER w60 AS {name}_std_60s"]


def deviations() -> list[str]:
    found = moments("bid_slope_regression", "bid_slope") + moments("ask_slope_regression", "ask_slope")
    return [*found, *moments("cog_vs_mid", "cog_momentum"), "stddev_samp(depth_5bps) OVER w300 AS depth_5bps_sigma"]


BAR_COLUMNS = """
    arg_min(price, capture_ts) AS open, max(price) AS high, min(price) AS low,
    arg_max(price, capture_ts) AS close, count(*) AS trade_count, sum(amount) AS volume,
    sum(quote_volume) AS quote_volume, sum(quote_volume) / sum(amount) AS vwap,
    coalesce(sum(amount) FILTER (side > 0), 0) AS buy_volume, coalesce(sum(amount) FILTER (side < 0), 0) AS sell_volume,
    sum(log_return * log_return) AS realized_variance, sum(log_return) AS log_return_cc
"""


def time_bars(tape: pa.Table) -> Query:
    bar = "time_bucket(INTERVAL '60 seconds', capture_ts)"
    return query(tape, f"SELECT {bar} AS bar, {BAR_COLUMNS} FROM rows GROUP BY bar ORDER BY bar")


def tick_bars(tape: pa.Table, trades: int) -> Query:
    numbered = f"SELECT *, (row_number() OVER (ORDER BY capture_ts) - 1) // {trades} AS bar FROM rows"
    return query(tape, f"SELECT bar, {BAR_COLUMNS} FROM ({numbered}) GROUP BY bar ORDER BY bar")
