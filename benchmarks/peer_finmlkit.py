"""The finmlkit forms of the table of peers: its indexers, prices, volumes and sides of bars, one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

Bars = Callable[[], dict[str, np.ndarray]]
COLUMNS = ("open", "high", "low", "close", "volume", "vwap", "trade_count", "buy_volume", "sell_volume")


def bars(tape: pa.Table, index: Callable[[Any, dict[str, np.ndarray]], Any]) -> Bars:
    """``index``: finmlkit's rule, called with its module of rules and the columns of the tape."""
    import numba
    from finmlkit.bar import base, logic

    columns = {name: tape[name].to_numpy() for name in ("price", "amount", "side")}
    columns["times"] = tape["capture_ts"].cast("int64").to_numpy() * 1000
    side = columns["side"].astype(np.int8)
    numba.set_num_threads(1)

    def run() -> dict[str, np.ndarray]:
        closes = np.asarray(index(logic, columns), np.int64)
        found = base.comp_bar_ohlcv(columns["price"], columns["amount"], closes)
        sides = base.comp_bar_directional_features(columns["price"], columns["amount"], closes, side)
        columns_of = dict(zip(COLUMNS[:7], found, strict=False))
        return columns_of | {"buy_volume": sides[2], "sell_volume": sides[3]}

    return run


def time_bars(tape: pa.Table) -> Bars:
    return bars(tape, lambda rules, columns: rules._time_bar_indexer(columns["times"], 60.0)[1])


def tick_bars(tape: pa.Table, trades: int) -> Bars:
    return bars(tape, lambda rules, columns: rules._tick_bar_indexer(columns["times"], trades))


def volume_bars(tape: pa.Table, volume: float) -> Bars:
    return bars(tape, lambda rules, columns: rules._volume_bar_indexer(columns["amount"], volume))
