"""The table of peers: for each family of columns how tickstate makes them, and how others do.

It drives the comparison tests (tests/test_peers.py), the benchmarks (bench_peers.py) and the README's table
(report.py). Whatever a peer does otherwise is written down as data; what is not written down has to agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

import tickstate
from benchmarks import deques, peer_duckdb, peer_finmlkit, peer_polars, rowbars, rowwise
from benchmarks.market import Market
from tickstate.features.barengine import BarBuilder, find_kind
from tickstate.features.engine import Engine
from tickstate.features.graph import build_graph

Run = Callable[[], Any]
Prepare = Callable[[Market], Run]
TICKS, VOLUME, DOLLARS, PRINTS = 100, 400.0, 40_000.0, 100
END = 19_945 * 86_400_000_000  # of the tape's day, us


@dataclass(frozen=True)
class Peer:
    """How one tool makes a family; ``prepare`` gives it the market in its own form, what that returns is timed.

    ``tolerance``: of a column's largest magnitude. ``omits``: columns that it does not make. ``empty``: what it says
    of a window without a value, where tickstate says null. ``first``, ``last``: bars at the ends that are others.
    ``share``: of the market's rows that it is timed on, ``rounds`` times. ``differs`` says it all in words.
    """

    tool: str
    prepare: Prepare
    tolerance: float = 1e-11
    omits: tuple[str, ...] = ()
    empty: float | None = None
    first: int = 0
    last: int = 0
    share: float = 1.0
    rounds: int = 7
    aim: float | None = None
    differs: str = ""


@dataclass(frozen=True)
class Family:
    """Columns that belong together. ``of``: what a row is. ``ours``: tickstate's form."""

    name: str
    of: str
    columns: tuple[str, ...]
    ours: Prepare
    peers: tuple[Peer, ...]

    def rows(self, market: Market) -> int:
        """How many rows of a market it reads."""
        return (market.tape if self.of == "trade" else market.books).num_rows


def columns_of(*features: str) -> tuple[str, ...]:
    """Columns of order-book features, those aside that every selection has."""
    keys = ("book_history_s", "trade_age_s", "trade_history_s")
    return tuple(c.name for c in build_graph("orderbook", features or None).columns if c.name not in keys)


EXPRESSED = (
    "structure", "mid_steps", "ofi", "ofi_sum", "mlofi_sum", "rv", "mean_relative_spread", "ret",
    "bid_slope_moments", "ask_slope_moments", "cog_momentum", "depth_sigma",
)  # fmt: skip
FLOW = ("ofi", "ofi_sum", "mlofi_sum")
DEVIATIONS = ("bid_slope_moments", "ask_slope_moments", "cog_momentum", "depth_sigma")
ALL = tuple(f.name for f in build_graph("orderbook").features if f.name != "vpin")
BAR_COLUMNS = (
    "open", "high", "low", "close", "trade_count", "volume", "quote_volume", "vwap", "buy_volume", "sell_volume",
    "realized_variance", "log_return_cc",
)  # fmt: skip


# ---- how tickstate does it


def from_books(*features: str, joined: bool = False) -> Prepare:
    """The public form: Arrow tables in, an Arrow table out."""

    def prepare(market: Market) -> Run:
        trades = market.trades if joined else None
        return lambda: tickstate.compute(market.books, features, trades=trades)

    return prepare


@dataclass(frozen=True)
class SilverRows:
    """Columns of silver as the engine takes rows."""

    flag: np.ndarray
    arrays: Mapping[str, np.ndarray]
    lead: int = 0


def from_silver(*features: str) -> Prepare:
    """The engine over columns that are there: windows alone, without what they are windows of."""

    def prepare(market: Market) -> Run:
        graph = build_graph("orderbook", features)
        graph = replace(graph, features=tuple(f for f in graph.features if f.name in features))
        arrays = {name: market.silver[name].to_numpy() for name in market.silver.column_names}
        arrays["capture_ts"] = market.silver["capture_ts"].cast(pa.int64()).to_numpy()
        rows = SilverRows(np.zeros(market.silver.num_rows, np.uint8), arrays)
        return lambda: {name: values.data for name, values in Engine(graph).push(rows).items()}

    return prepare


def from_tape(kind: str) -> Prepare:
    """Rule and columns of bars."""

    def prepare(market: Market) -> Run:
        tape, found = market.tape, find_kind("trades_bars", kind)
        arrays = {name: tape[name].to_numpy() for name in tape.column_names if name != "capture_ts"}
        arrays |= {"capture_ts": tape["capture_ts"].cast(pa.int64()).to_numpy(), "base": arrays["amount"]}
        ids = pa.nulls(tape.num_rows, pa.string())

        def run() -> pa.Table:
            builder = BarBuilder(found)
            return pa.concat_tables([builder.push(arrays, ids), builder.finish(END, closed=True)])

        return run

    return prepare


# ---- how a row-at-a-time processor does it


def row_windows(make: Mapping[str, Callable[[], Any]], read: Callable[[Any, Any], Mapping[str, Any]]) -> Prepare:
    """Windows over columns of silver: ``make`` gives the windows of a column, ``read`` what they say of a row."""

    def prepare(market: Market) -> Run:
        table = market.silver.select(["capture_ts", *make])

        def run() -> list[dict[str, Any]]:
            windows = {name: new() for name, new in make.items()}
            return [read(windows, row) for row in rowwise.rows_of(table)]

        return run

    return prepare


def read_sums(windows: Any, row: Any) -> dict[str, Any]:
    t = row["capture_ts"]
    return {
        f"{name}_sum_{h}s": window.update(t, row[name])
        for name, each in windows.items()
        for h, window in zip(rowwise.HORIZONS, each, strict=True)
    }


def read_means(windows: Any, row: Any) -> dict[str, Any]:
    found = {}
    for h, window in zip(rowwise.HORIZONS, windows["relative_spread"], strict=True):
        window.update(row["capture_ts"], row["relative_spread"])
        found[f"mean_relative_spread_{h}s"] = window.mean()
    return found


NAMES = {"bid_slope_regression": "bid_slope", "ask_slope_regression": "ask_slope", "cog_vs_mid": "cog_momentum"}


def read_deviations(windows: Any, row: Any) -> dict[str, Any]:
    found = {}
    for column, name in NAMES.items():
        pair = windows[column].update(row["capture_ts"], row[column])
        found[f"{name}_mean_60s"], found[f"{name}_std_60s"] = pair
    return found | {"depth_5bps_sigma": windows["depth_5bps"].update(row["capture_ts"], row["depth_5bps"])[1]}


def row_sums() -> list[deques.RollingSum]:
    return [deques.RollingSum(h) for h in rowwise.HORIZONS]


MOMENTS = dict.fromkeys(NAMES, lambda: deques.RollingMoments(60)) | {"depth_5bps": lambda: deques.RollingMoments(300)}


# ---- the table

TIES = "rows of one capture_ts are all in each other's windows"
DRIFTS = "adds and subtracts: the last digits depend on where the run began"
CLEAN = "takes every snapshot for a valid one without a gap before it"
FIRST = "the first bar lacks its first trade, and a bar that the tape leaves open is not given"
NO_SQUARES = ("quote_volume", "realized_variance", "log_return_cc")


def polars(prepare: Prepare, **others: Any) -> Peer:
    return Peer("polars", prepare, **others)


def duckdb(prepare: Prepare, **others: Any) -> Peer:
    return Peer("DuckDB", prepare, **{"share": 0.25, "rounds": 5, **others})


def finmlkit(prepare: Prepare, first: int = 1, last: int = 1, differs: str = FIRST) -> Peer:
    said = f"{differs}; volumes are single precision"
    return Peer("finmlkit", prepare, 1e-6, NO_SQUARES, first=first, last=last, aim=1.0, differs=said)


def python(prepare: Prepare, **others: Any) -> Peer:
    return Peer("Python rows", prepare, **{"share": 0.1, "rounds": 3, "differs": DRIFTS, **others})


SUMS = {"ofi": row_sums, "mlofi": row_sums}
FAMILIES = (
    Family(
        "every default column", "snapshot", columns_of(*ALL), from_books(*ALL, joined=True),
        (
            python(lambda m: lambda: rowwise.process(m.books, m.trades), tolerance=1e-7, aim=300.0),
            Peer(
                "Python rows, sums anew", lambda m: lambda: rowwise.process(m.books, m.trades, anew=True), 1e-11,
                share=0.02, rounds=1, aim=300.0, differs="none: like tickstate's, its windows do not drift",
            ),
        ),
    ),
    Family(
        "columns that polars can express", "snapshot", columns_of(*EXPRESSED), from_books(*EXPRESSED),
        (
            polars(
                lambda m: peer_polars.every_column(m.books, columns_of(*EXPRESSED)), tolerance=1e-7, empty=0.0,
                aim=3.0, differs=f"{CLEAN}; {TIES}; {DRIFTS}; a sum of no value is 0",
            ),
        ),
    ),
    Family(
        "order flow and its sums", "snapshot", columns_of(*FLOW), from_books(*FLOW),
        (
            polars(
                lambda m: peer_polars.flow_and_sums(m.books, columns_of(*FLOW)), empty=0.0,
                differs=f"{CLEAN}; {TIES}; {DRIFTS}; a sum of no value is 0",
            ),
            duckdb(lambda m: peer_duckdb.flow_and_sums(m.books, columns_of(*FLOW)), differs=f"{CLEAN}; {TIES}"),
        ),
    ),
    Family(
        "window sums", "snapshot", columns_of("ofi_sum", "mlofi_sum"), from_silver("ofi_sum", "mlofi_sum"),
        (
            polars(
                lambda m: peer_polars.window_query(
                    m.silver, peer_polars.sums("ofi", "ofi_sum") + peer_polars.sums("mlofi", "mlofi_sum")
                ),
                empty=0.0, differs=f"{TIES}; {DRIFTS}; a sum of no value is 0",
            ),
            duckdb(
                lambda m: peer_duckdb.window_query(
                    m.silver,
                    peer_duckdb.folds("sum", "ofi", "ofi_sum") + peer_duckdb.folds("sum", "mlofi", "mlofi_sum"),
                ),
                differs=TIES,
            ),
            python(row_windows(SUMS, read_sums)),
        ),
    ),
    Family(
        "window means", "snapshot", columns_of("mean_relative_spread"), from_silver("mean_relative_spread"),
        (
            polars(
                lambda m: peer_polars.window_query(
                    m.silver, peer_polars.means("relative_spread", "mean_relative_spread")
                ),
                differs=f"{TIES}; {DRIFTS}",
            ),
            duckdb(
                lambda m: peer_duckdb.window_query(
                    m.silver, peer_duckdb.folds("avg", "relative_spread", "mean_relative_spread")
                ),
                differs=TIES,
            ),
            python(row_windows({"relative_spread": row_sums}, read_means)),
        ),
    ),
    Family(
        "window deviations", "snapshot", columns_of(*DEVIATIONS), from_silver(*DEVIATIONS),
        (
            polars(
                lambda m: peer_polars.window_query(m.silver, peer_polars.deviations()),
                differs=f"{TIES}; {DRIFTS}",
            ),
            duckdb(lambda m: peer_duckdb.window_query(m.silver, peer_duckdb.deviations()), differs=TIES),
            python(row_windows(MOMENTS, read_deviations)),
        ),
    ),
    Family(
        "time bars", "trade", BAR_COLUMNS, from_tape("60s"),
        (
            polars(lambda m: peer_polars.time_bars(m.tape)),
            duckdb(lambda m: peer_duckdb.time_bars(m.tape)),
            finmlkit(
                lambda m: peer_finmlkit.time_bars(m.tape), 0, 0, "(k h, (k + 1) h], with a bar for an empty interval"
            ),
            python(lambda m: lambda: rowbars.time_bars(m.tape), differs=""),
        ),
    ),
    Family(
        "tick bars", "trade", BAR_COLUMNS, from_tape(f"tick_{TICKS}"),
        (
            polars(lambda m: peer_polars.tick_bars(m.tape, TICKS)),
            duckdb(lambda m: peer_duckdb.tick_bars(m.tape, TICKS)),
            finmlkit(lambda m: peer_finmlkit.tick_bars(m.tape, TICKS)),
        ),
    ),
    Family(
        "volume bars", "trade", BAR_COLUMNS, from_tape(f"volume_{VOLUME:g}"),
        (
            finmlkit(lambda m: peer_finmlkit.volume_bars(m.tape, VOLUME)),
            python(lambda m: lambda: rowbars.sum_bars(m.tape, "volume", VOLUME), differs=""),
        ),
    ),
    Family(  # finmlkit's dollar bars carry what is over the threshold into the next one: they are other bars
        "dollar bars", "trade", BAR_COLUMNS, from_tape(f"dollar_{DOLLARS:g}"),
        (python(lambda m: lambda: rowbars.sum_bars(m.tape, "quote", DOLLARS), differs=""),),
    ),
    Family(
        "imbalance bars", "trade", BAR_COLUMNS, from_tape(f"volume_imbalance_{PRINTS}"),
        (python(lambda m: lambda: rowbars.imbalance_bars(m.tape, PRINTS), differs=""),),
    ),
    Family(
        "run bars", "trade", BAR_COLUMNS, from_tape(f"volume_run_{PRINTS}"),
        (python(lambda m: lambda: rowbars.run_bars(m.tape, PRINTS), differs=""),),
    ),
)  # fmt: skip
PAIRS = {f"{family.name}, {peer.tool}": (family, peer) for family in FAMILIES for peer in family.peers}
