"""From ordered chunks of bronze trades and tickers to what the engine takes; and repeated trades."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tickstate.kernels import order
from tickstate.kernels.bars import UNKNOWN
from tickstate.lake.arrow import int64_values, one_chunk, plain
from tickstate.lake.names import REPEAT_WINDOW

SOURCE = "_source"
"""Column that a reader adds: which bronze symbol a trade came from, since ids are unique within one only."""
_SIGNS = np.array((1.0, -1.0, np.nan))
"""Of buy, sell, and all else."""


@dataclass(frozen=True)
class TapeRows:
    """One chunk, ready for the engine, with the Arrow table it came from."""

    table: pa.Table
    flag: np.ndarray
    arrays: dict[str, np.ndarray]
    lead: int = 0


def trade_rows(table: pa.Table, contract_size: float = 1.0, inverse: bool = False) -> TapeRows:
    """Trades; valid are those whose price and amount are finite and above 0. Notional by the lane facts."""
    price, amount = floats(table, "price"), floats(table, "amount")
    valid = _positive(price) & _positive(amount)
    arrays = {"capture_ts": int64_values(table, "capture_ts"), "price": price, "amount": amount}
    arrays["side"] = side_signs(table)
    if not valid.all():
        arrays = {name: values[valid] for name, values in arrays.items()}
    with np.errstate(over="ignore"):  # an overflow is infinite, and infinite becomes null
        lots = arrays["amount"] * contract_size
        arrays["quote"] = lots if inverse else arrays["price"] * arrays["amount"] * contract_size
        arrays["base"] = base_of(arrays["price"], arrays["amount"], contract_size, inverse)
    return TapeRows(table, (~valid).astype(np.uint8), arrays)


def base_of(price: np.ndarray, amount: np.ndarray, contract_size: float, inverse: bool) -> np.ndarray:
    """What trades are worth in the base currency, by the lane facts."""
    lots = amount * contract_size
    return lots / price if inverse else lots


def timestamps(rows: TapeRows) -> np.ndarray:
    """The exchange's times (ms) of the valid rows, ``UNKNOWN`` where null."""
    found = filled_timestamps(rows.table)
    return found if not rows.flag.any() else found[rows.flag == 0]


def filled_timestamps(table: pa.Table) -> np.ndarray:
    """The column ``timestamp`` (ms), ``UNKNOWN`` where null."""
    array = one_chunk(table.column("timestamp"))
    return plain(pc.fill_null(array, UNKNOWN) if array.null_count else array)


def side_signs(table: pa.Table) -> np.ndarray:
    """The column ``side`` as +1 buy, -1 sell, NaN unknown."""
    sides = pc.index_in(one_chunk(table.column("side")), value_set=pa.array(("buy", "sell")))
    return _SIGNS[plain(pc.fill_null(sides, len(_SIGNS) - 1))]


def quote_rows(table: pa.Table) -> TapeRows:
    """Tickers; valid are those with both sides finite, above 0, and bid < ask."""
    names = ("bid", "ask", "bid_volume", "ask_volume")
    arrays = {name: floats(table, name) for name in names}
    with np.errstate(invalid="ignore"):
        valid = _positive(arrays["bid"]) & _positive(arrays["ask"]) & (arrays["bid"] < arrays["ask"])
    arrays["capture_ts"] = int64_values(table, "capture_ts")
    if not valid.all():
        arrays = {name: values[valid] for name, values in arrays.items()}
    return TapeRows(table, (~valid).astype(np.uint8), arrays)


@dataclass
class RepeatedIds:
    """Drops trades whose id stands on an earlier trade of their bronze symbol at most 300 s older.

    Remembers the ids of the last 300 s as 128-bit hashes. Trades without an id are never dropped. An earlier trade
    counts even where it was dropped itself: else dropping would depend on the whole past.
    """

    times: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    high: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    low: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    def drop(self, table: pa.Table) -> pa.Table:
        """The table without its repeats; tables come in order."""
        ids, source = one_chunk(table.column("trade_id")), one_chunk(table.column(SOURCE))
        known = plain(pc.is_valid(ids))
        if not known.any():
            return table
        text = pc.fill_null(ids, "")
        offsets = np.frombuffer(text.buffers()[1], np.int32)[text.offset : text.offset + len(text) + 1]
        data = np.frombuffer(text.buffers()[2] or b"\0", np.uint8)
        hashes = []
        for seed in (0, -7046029254386353131):
            found = plain(source) ^ np.int64(seed)
            order.hash_texts(offsets, data, found)
            hashes.append(found[known])
        times = int64_values(table, "capture_ts")[known]
        before = self.times.shape[0]
        self.times, self.high, self.low = (
            np.concatenate(pair) for pair in zip((self.times, self.high, self.low), (times, *hashes), strict=True)
        )
        repeated = np.empty(self.times.shape[0], np.uint8)
        order.find_recent(self.times, self.high, self.low, REPEAT_WINDOW, repeated)
        keep = self.times >= self.times[-1] - REPEAT_WINDOW
        self.times, self.high, self.low = self.times[keep], self.high[keep], self.low[keep]
        if not repeated[before:].any():
            return table
        mask = np.ones(table.num_rows, bool)
        mask[np.flatnonzero(known)[repeated[before:] == 1]] = False
        return table.filter(pa.array(mask))


def floats(table: pa.Table, name: str) -> np.ndarray:
    """A column of doubles, NaN where null."""
    array = one_chunk(table.column(name))
    return plain(pc.fill_null(array, float("nan")) if array.null_count else array)


def _positive(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        return (values > 0.0) & (values < np.inf)
