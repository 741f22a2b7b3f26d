"""``tickstate.bars``: bars of silver rows in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tickstate._run import as_config
from tickstate.features.barengine import BarBuilder, check_kind, find_kind
from tickstate.features.base import BARS, FeatureError
from tickstate.kernels.errors import TickstateError
from tickstate.lake.arrow import int64_values
from tickstate.lake.names import HOUR, Lane
from tickstate.runners.bars import bar_rows, partitioned
from tickstate.runners.gold import DAY


def bars(
    table: pa.Table,
    kind: str,
    *,
    channel: str = "trades",
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
) -> pa.Table:
    """Bars of silver rows in memory: what ``run`` would write of them, lane after lane and day after day.

    Args:
        table: rows of silver of ``channel``, each lane's in order, as ``compute`` gives them and ``scan`` reads them.
        kind: like ``"60s"`` or ``"volume_imbalance_500"``; thresholds that ``auto`` derives need a lake.
        channel: ``"orderbook"``, ``"trades"`` or ``"ticker"``.
        config: path of a features.toml, or the same as nested dictionaries.

    Returns:
        One row a bar, the columns of the kind's partitions in gold.

    Raises:
        TickstateError: an unknown kind or channel, a column that the kind reads and the table lacks.
    """
    chosen = as_config(config)
    target = f"{channel}_bars"
    if target not in BARS:
        raise TickstateError(f"unknown channel {channel!r}", expected=", ".join(BARS.values()))
    if target not in check_kind(kind):
        raise FeatureError(f"bars {kind!r} are not made of {channel}", fix=f"channel: {', '.join(check_kind(kind))}")
    lanes = table.select(["exchange", "symbol"]).group_by(["exchange", "symbol"]).aggregate([]).to_pylist()
    parts: list[pa.Table] = []
    for lane in sorted(Lane(row["exchange"], row["symbol"]) for row in lanes):
        rows = table.filter(pc.and_(pc.equal(table["exchange"], lane.exchange), pc.equal(table["symbol"], lane.symbol)))
        settings = chosen.settings_of(lane)
        found = find_kind(target, kind, settings, chosen.params_of(lane), chosen.features or ())
        assert found is not None
        missing = [name for name in found.inputs if name not in rows.column_names]
        if missing:
            raise FeatureError(f"no column {', '.join(missing)}", where=f"bars {kind!r}", fix="compute these too")
        days = int64_values(rows, "capture_ts") // (DAY * HOUR)
        for day in np.unique(days).tolist():
            builder = BarBuilder(found)
            facts = {"contract_size": settings.contract_size, "inverse": settings.inverse}
            arrays, ids = bar_rows(channel, rows.filter(pa.array(days == day)), facts)
            made = [builder.push(arrays, ids), builder.finish((day + 1) * DAY * HOUR, closed=True)]
            parts.append(partitioned(found, lane, day * DAY, pa.concat_tables(made)))
        parts = parts or [found.schema.empty_table()]
    if not parts:
        raise TickstateError("a table without rows", where=f"bars {kind!r}", expected="one or more rows of silver")
    return pa.concat_tables(parts)
