"""The polars forms of the table of peers: lazy queries over the same Arrow tables, in the fastest form that we found.

Measured on the busy hour with one thread (polars 2.1), and slower: ``rolling(...).agg`` (1.5 times ``rolling_sum_by``);
list expressions with a mask for what ``when`` sums over a column a level (2.4 times); ``list.eval`` with ``cum_sum``
(8 times); masks as factors for ``when`` (1.7 times).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate, pairwise

import polars as pl
import pyarrow as pa

from benchmarks.rowwise import HORIZONS

BANDS = tuple(pairwise((0, 1, 2, 5, 10, 25, 50)))
DEPTH, FLOW = 20, 10
Query = Callable[[], pl.DataFrame]
E = pl.Expr


def frame_of(table: pa.Table) -> pl.DataFrame:
    return pl.from_arrow(table)  # type: ignore[return-value]


def levels(books: pl.LazyFrame, depth: int) -> pl.LazyFrame:
    """A column a level, side and field: ``bp0``, ``bs0``, ``ap0``, ... null where the level is absent."""
    sides = [(c, f) for c in ("bids", "asks") for f in ("price", "size")]
    lists = [pl.col(c).list.eval(pl.element().struct.field(f)).alias(c[0] + f[0]) for c, f in sides]
    wide = [
        pl.col(name).list.get(i, null_on_oob=True).alias(f"{name}{i}")
        for name in ("bp", "bs", "ap", "as")
        for i in range(depth)
    ]
    return books.select("capture_ts", *lists).select("capture_ts", *wide)


def flow(side: str, i: int) -> E:
    """e of one side and level: what arrived less what left."""
    price, size = pl.col(f"{side}p{i}"), pl.col(f"{side}s{i}")
    before, gone = price.shift(1), size.shift(1)
    better, worse = (price >= before, price <= before) if side == "b" else (price <= before, price >= before)
    return pl.when(better).then(size).when(worse).then(0.0) - pl.when(worse).then(gone).when(better).then(0.0)


def order_flow() -> list[list[E]]:
    """Stages of ofi, ofi_L1 .. ofi_L9 and mlofi."""
    each = [flow(side, i).alias(f"{side}e{i}") for side in "ba" for i in range(FLOW)]
    sides = [
        pl.sum_horizontal([math.exp(-0.5 * i) * pl.col(f"{side}e{i}") for i in range(FLOW)]) for side in "ba"
    ]  # fmt: skip
    has = pl.col("be0").is_not_null()
    by_level = [(pl.col(f"be{i}") - pl.col(f"ae{i}")).alias(f"ofi_L{i}" if i else "ofi") for i in range(FLOW)]
    return [each, [*by_level, pl.when(has).then(sides[0] - sides[1]).alias("mlofi")]]


def sums(column: str, name: str) -> list[E]:
    return [pl.col(column).rolling_sum_by("capture_ts", f"{h}s").alias(f"{name}_{h}s") for h in HORIZONS]


def means(column: str, name: str) -> list[E]:
    return [pl.col(column).rolling_mean_by("capture_ts", f"{h}s").alias(f"{name}_{h}s") for h in HORIZONS]


def moments(column: str, name: str) -> list[E]:
    mean = pl.col(column).rolling_mean_by("capture_ts", "60s").alias(f"{name}_mean_60s")
    return [mean, pl.col(column).rolling_std_by("capture_ts", "60s").alias(f"{name}_std_60s")]


def deviations() -> list[E]:
    found = moments("bid_slope_regression", "bid_slope") + moments("ask_slope_regression", "ask_slope")
    found += moments("cog_vs_mid", "cog_momentum")
    return [*found, pl.col("depth_5bps").rolling_std_by("capture_ts", "300s").alias("depth_5bps_sigma")]


def imbalance(bid: E, ask: E, name: str) -> E:
    return pl.when(bid + ask != 0).then((bid - ask) / (bid + ask)).alias(name)


def total(exprs: list[E]) -> E:
    return pl.sum_horizontal(exprs)


def side_columns(side: str, name: str) -> tuple[list[E], list[E]]:
    """Two stages of what one side says: sums over its levels, and what is made of them."""
    price, size, d = ([pl.col(f"{side}{f}{i}") for i in range(DEPTH)] for f in "psd")
    depth = total(size)
    first = [
        depth.alias(f"total_{name}_depth"), pl.max_horizontal(d).alias(f"{name}_reach_bps"),
        (total([p * s for p, s in zip(price[:5], size[:5], strict=True)]) / total(size[:5])).alias(f"vwap_{name}_5"),
        total([s * (x * -0.5).exp() for s, x in zip(size, d, strict=True)]).alias(f"smart_{name}_depth"),
        ((price[0] - price[4]).abs() / total(size[:5])).alias(f"{name}_slope_simple"),
        (size[4] / size[0]).alias(f"{name}_depth_decay_5"),
        (total([s * s for s in size]) / (depth * depth)).alias(f"{name}_concentration"),
        total([p * s for p, s in zip(price, size, strict=True)]).alias(f"{name}_worth"),
        *(total(size[:n]).alias(f"{name}_first_{n}") for n in (1, 3, 5, 6, 10)),
        total([pl.when(x <= 5).then(s) for x, s in zip(d, size, strict=True)]).alias(f"{name}_near"),
        *(
            total([pl.when(x.is_between(lo, hi, closed="right" if lo else "both")).then(s)
                   for x, s in zip(d, size, strict=True)]).alias(f"{name}_{lo}_{hi}")
            for lo, hi in BANDS
        ),
    ]  # fmt: skip
    cumulative = [c.alias(f"{side}c{i}") for i, c in enumerate(accumulate(size))]
    return first, cumulative


def slope(side: str, name: str) -> E:
    """Least squares of cumulative size on distance, from sums over the levels that are there."""
    d, c = ([pl.col(f"{side}{f}{i}") for i in range(DEPTH)] for f in "dc")
    n = total([x.is_not_null().cast(pl.Float64) for x in d])
    x, y = total(d), total(c)
    xx, xy = total([v * v for v in d]), total([v * w for v, w in zip(d, c, strict=True)])
    return pl.when(n >= 3).then((n * xy - x * y) / (n * xx - x * x)).alias(f"{name}_slope_regression")


def structure() -> list[list[E]]:
    """Stages of FEATURES.md 3.2."""
    m, b, a, q, r = (pl.col(c) for c in ("mid_price", "bp0", "ap0", "bs0", "as0"))
    mid = ((b + a) / 2).alias("mid_price")
    spread, weighted = a - b, (q * a + r * b) / (q + r)
    distance = [
        *(((m - pl.col(f"bp{i}")) * 1e4 / m).alias(f"bd{i}") for i in range(DEPTH)),
        *(((pl.col(f"ap{i}") - m) * 1e4 / m).alias(f"ad{i}") for i in range(DEPTH)),
        spread.alias("spread"), (spread / m).alias("relative_spread"), weighted.alias("weighted_mid"),
        (weighted - m).alias("weighted_mid_minus_mid"),
    ]  # fmt: skip
    bids, asks = side_columns("b", "bid"), side_columns("a", "ask")
    bid, ask = (lambda n, s=s: pl.col(f"{s}_{n}") for s in ("bid", "ask"))
    bid_depth, ask_depth = pl.col("total_bid_depth"), pl.col("total_ask_depth")
    cog = (bid("worth") + ask("worth")) / (bid_depth + ask_depth)
    bands = [
        pl.when(pl.col(f"{s}_reach_bps") > lo).then(pl.col(f"{s}_{lo}_{hi}")).alias(f"{s}_vol_band_{lo}_{hi}bps")
        for s in ("bid", "ask")
        for lo, hi in BANDS
    ]
    third = [
        slope("b", "bid"), slope("a", "ask"), *bands, cog.alias("center_of_gravity"),
        (1e4 * (cog - m) / m).alias("cog_vs_mid"), (bid("near") + ask("near")).alias("depth_5bps"),
        (pl.col("vwap_ask_5") - pl.col("vwap_bid_5")).alias("vwap_spread"),
        ((bid("depth_decay_5") + ask("depth_decay_5")) / 2).alias("avg_depth_decay_5"),
        imbalance(bid_depth, ask_depth, "total_imbalance"),
        imbalance(pl.col("smart_bid_depth"), pl.col("smart_ask_depth"), "smart_depth_imbalance"),
        *(imbalance(bid(f"first_{n}"), ask(f"first_{n}"), f"depth_imbalance_{n}") for n in (1, 3, 5, 10)),
        *((pl.col("spread") / (bid(f"first_{n}") + ask(f"first_{n}"))).alias(f"spread_per_depth_{n}") for n in (3, 6)),
    ]  # fmt: skip
    last = [
        imbalance(bid(f"vol_band_{lo}_{hi}bps"), ask(f"vol_band_{lo}_{hi}bps"), f"imb_band_{lo}_{hi}bps")
        for lo, hi in BANDS
    ]
    return [[mid], distance, [*bids[0], *bids[1], *asks[0], *asks[1]], third, last]


def mid_steps() -> list[list[E]]:
    m, dt = pl.col("mid_price"), pl.col("capture_ts").diff().dt.total_microseconds() / 1e6
    v = pl.col("mid_velocity")
    first = [
        (m / m.shift(1)).log().alias("log_return"), pl.when(dt > 0).then(m.diff() / dt).alias("mid_velocity"),
        dt.alias("dt"),
    ]  # fmt: skip
    return [first, [(v.diff() / ((pl.col("dt") + pl.col("dt").shift(1)) / 2)).alias("mid_accel")]]


def mid_returns(rows: pl.LazyFrame) -> pl.LazyFrame:
    """ret_h: the mid of the last row at or before t - h, by an as-of join a horizon."""
    mids = rows.select(then_at="capture_ts", then="mid_price").set_sorted("then_at")
    for h in HORIZONS:
        rows = rows.with_columns(at=pl.col("capture_ts") - pl.duration(seconds=h)).set_sorted("at")
        rows = rows.join_asof(mids, left_on="at", right_on="then_at", strategy="backward")
        rows = rows.with_columns((pl.col("mid_price") / pl.col("then")).log().alias(f"ret_{h}s"))
        rows = rows.drop("then", "at", "then_at", strict=False)
    return rows


def stages(rows: pl.LazyFrame, *found: list[list[E]]) -> pl.LazyFrame:
    for family in found:
        for exprs in family:
            rows = rows.with_columns(exprs)
    return rows


def every_column(books: pa.Table, columns: tuple[str, ...]) -> Query:
    """All that expressions say, from the lists of bronze."""
    lazy = frame_of(books).lazy()
    windows = [
        *sums("ofi", "ofi_sum"), *sums("mlofi", "mlofi_sum"), *means("relative_spread", "mean_relative_spread"),
        *(
            (pl.col("log_return") ** 2).rolling_sum_by("capture_ts", f"{h}s").sqrt().alias(f"rv_{h}s")
            for h in HORIZONS
        ),
        *deviations(),
    ]  # fmt: skip
    rows = stages(levels(lazy, DEPTH), structure(), mid_steps(), order_flow(), [windows])
    rows = mid_returns(rows).select("capture_ts", *columns)
    return rows.collect


def flow_and_sums(books: pa.Table, columns: tuple[str, ...]) -> Query:
    lazy = frame_of(books).lazy()
    windows = [*sums("ofi", "ofi_sum"), *sums("mlofi", "mlofi_sum")]
    return stages(levels(lazy, FLOW), order_flow(), [windows]).select("capture_ts", *columns).collect


def window_query(silver: pa.Table, exprs: list[E]) -> Query:
    return frame_of(silver).lazy().select("capture_ts", *exprs).collect


def time_bars(tape: pa.Table) -> Query:
    grouped = frame_of(tape).lazy().group_by_dynamic("capture_ts", every="60s")
    return grouped.agg(bar_columns()).collect


def tick_bars(tape: pa.Table, trades: int) -> Query:
    bar = (pl.int_range(pl.len()) // trades).alias("bar")
    return frame_of(tape).lazy().group_by(bar, maintain_order=True).agg(bar_columns()).collect


def bar_columns() -> list[E]:
    price, amount, quote, side = (pl.col(c) for c in ("price", "amount", "quote_volume", "side"))
    return [
        price.first().alias("open"), price.max().alias("high"), price.min().alias("low"), price.last().alias("close"),
        pl.len().alias("trade_count"), amount.sum().alias("volume"), quote.sum().alias("quote_volume"),
        (quote.sum() / amount.sum()).alias("vwap"), amount.filter(side > 0).sum().alias("buy_volume"),
        amount.filter(side < 0).sum().alias("sell_volume"),
        (pl.col("log_return") ** 2).sum().alias("realized_variance"), pl.col("log_return").sum().alias("log_return_cc"),
    ]  # fmt: skip
