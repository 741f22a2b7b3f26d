"""What tickstate and its peers are given: one lane's bronze in memory, its silver, and a tape for bars. Seeded."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import tickstate
from benchmarks.busy import write_busy_hour

DAY = 86_400_000_000  # us


def read_channel(bronze: Path, channel: str) -> pa.Table:
    """One channel of a lane, in order."""
    files = sorted((bronze / channel).rglob("*.parquet"))
    return pa.concat_tables(pq.read_table(path, partitioning=None) for path in files).combine_chunks()


@dataclass(frozen=True)
class Market:
    """``books`` and ``trades`` as in bronze, ``tape`` of ``make_tape``."""

    books: pa.Table
    trades: pa.Table
    tape: pa.Table

    @cached_property
    def silver(self) -> pa.Table:
        """What windows fold: columns of silver, null where undefined."""
        names = ["ofi", "mlofi", "relative_spread", "cog_vs_mid", "depth_5bps"]
        names += ["bid_slope_regression", "ask_slope_regression"]
        return tickstate.compute(self.books, names).select(["capture_ts", *names]).combine_chunks()

    def first(self, share: float) -> Market:
        """The first share of the snapshots, with their trades, and of the tape."""
        if share == 1:
            return self
        books = self.books.slice(0, round(share * self.books.num_rows))
        upto = int(np.searchsorted(_times(self.trades), _times(books)[-1], side="right"))
        return Market(books, self.trades.slice(0, upto), self.tape.slice(0, round(share * self.tape.num_rows)))


def _times(table: pa.Table) -> np.ndarray:
    return table["capture_ts"].cast(pa.int64()).to_numpy()


def make_tape(trades: int, seed: int = 7) -> pa.Table:
    """A day of trades as in silver: lognormal sizes, sticky sides (+1, -1), each trade a print."""
    rng = np.random.Generator(np.random.PCG64(seed))
    times = 19_944 * DAY + np.sort(rng.integers(0, DAY, trades))
    side = np.where(np.cumsum(rng.random(trades) < 0.1) % 2, 1.0, -1.0)
    price = 100.0 + 0.01 * np.cumsum(rng.integers(-1, 2, trades))
    amount = rng.lognormal(0.0, 1.5, trades)
    moves = np.diff(np.log(price), prepend=np.nan)
    columns = {
        "capture_ts": pa.array(times, pa.timestamp("us", "UTC")), "timestamp": pa.array(np.arange(trades)),
        "side": side, "price": price, "amount": amount, "quote_volume": price * amount,
        "log_return": pa.array(moves, from_pandas=True),
    }  # fmt: skip
    return pa.table(columns)


def cheaper(books: pa.Table, by: float) -> pa.Table:
    """The same books at prices lower by so much: their levels are further from the mid in basis points."""
    for name in ("bids", "asks"):
        lists = books[name].combine_chunks()
        price, size = lists.values.field("price").to_numpy() - by, lists.values.field("size")
        levels = pa.StructArray.from_arrays([pa.array(price), size], names=["price", "size"])
        place = books.schema.get_field_index(name)
        books = books.set_column(place, name, pa.ListArray.from_arrays(lists.offsets, levels))
    return books


def make_market(rows: int, trades: int, lower: float = 0.0) -> Market:
    """An hour of ``rows`` snapshots, a quarter as many trades, and a tape of ``trades`` more.

    ``lower`` takes the books down in price, so that every band of basis points is reached.
    """
    with tempfile.TemporaryDirectory() as folder:
        bronze = write_busy_hour(Path(folder) / "bronze", rows)
        books = cheaper(read_channel(bronze, "orderbook"), lower)
        return Market(books, read_channel(bronze, "trades"), make_tape(trades))


def small_market() -> Market:
    """What values are compared on: no two rows of one time, every band reached, no one-trade bar, an open bar left."""
    return make_market(3_000, 12_037, lower=59_000.0)
