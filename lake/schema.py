"""Bronze schemas (FEATURES.md section 2), and the check of a file against them before a row is read."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from tickstate.lake.errors import BadFile

TIME = pa.timestamp("us", tz="UTC")
DOUBLE = pa.float64()
LEVELS = pa.list_(pa.struct([("price", pa.float64()), ("size", pa.float64())]))


@dataclass(frozen=True)
class Bronze:
    """The contract columns of a channel beside the six partition columns."""

    required: dict[str, pa.DataType]
    optional: dict[str, pa.DataType]
    extras: dict[str, pa.DataType] = field(default_factory=dict)
    """Optional ones that silver has only where a segment of the hour does."""
    unread: tuple[str, ...] = ()
    """Checked, but needed for nothing."""

    @property
    def types(self) -> dict[str, pa.DataType]:
        """All contract columns, required first."""
        return {**self.required, **self.optional, **self.extras}

    @property
    def read(self) -> dict[str, pa.DataType]:
        """What reading a segment gives."""
        return {name: kind for name, kind in self.types.items() if name not in self.unread}


BRONZE = {
    "orderbook": Bronze(
        {"capture_ts": TIME, "timestamp": pa.int64(), "bids": LEVELS, "asks": LEVELS},
        {"nonce": pa.int64(), "collected_at": pa.int64()},
    ),
    "trades": Bronze(
        {"capture_ts": TIME, "timestamp": pa.int64(), "side": pa.string(), "price": DOUBLE, "amount": DOUBLE},
        {"trade_id": pa.string(), "collected_at": pa.int64(), "cost": DOUBLE},
        unread=("collected_at", "cost"),
    ),
    "ticker": Bronze(
        {"capture_ts": TIME, "timestamp": pa.int64(), "bid": DOUBLE, "ask": DOUBLE,
         "bid_volume": DOUBLE, "ask_volume": DOUBLE},
        {"collected_at": pa.int64()},
        dict.fromkeys(
            ("last", "open", "high", "low", "close", "previous_close", "change", "percentage", "average", "vwap",
             "base_volume", "quote_volume"), DOUBLE,
        ),
    ),
}  # fmt: skip
"""The channels of bronze. ``extras`` are the fields that exchange libraries give a ticker."""

PARTITION_TYPES = {
    "exchange": pa.string(), "symbol": pa.string(),
    "year": pa.int32(), "month": pa.int32(), "day": pa.int32(), "hour": pa.int32(),
}  # fmt: skip

SHOWN = 20
"""How many names of columns an error has."""


def check_schema(schema: pa.Schema, channel: str, relative: str) -> None:
    """Raise ``BadFile`` where a required column is missing or a contract column has another type."""
    wanted = {**PARTITION_TYPES, **BRONZE[channel].types}
    for name, kind in wanted.items():
        index = schema.get_all_field_indices(name)
        if len(index) > 1:
            raise BadFile(relative, "wrong_type", f"column {name!r} stands {len(index)} times")
        if not index:
            if name not in PARTITION_TYPES and name not in BRONZE[channel].required:
                continue
            more = len(schema.names) - SHOWN
            names = ", ".join(schema.names[:SHOWN]) + (f" and {more} more" if more > 0 else "")
            raise BadFile(relative, "missing_column", f"no column {name!r} ({kind}); has {names}")
        got = schema.field(index[0]).type
        if not same_kind(got, kind):
            raise BadFile(relative, "wrong_type", f"column {name!r} is {got}, expected {kind}")


def same_kind(got: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a type holds the same values: wider or narrower integers, large lists and strings are welcome."""
    if got == wanted:
        return True
    if pa.types.is_integer(wanted):
        return pa.types.is_integer(got)
    if pa.types.is_floating(wanted):
        return pa.types.is_floating(got)
    if pa.types.is_string(wanted):
        inner = got.value_type if pa.types.is_dictionary(got) else got
        return pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_string_view(inner)
    if pa.types.is_timestamp(wanted):
        return pa.types.is_timestamp(got) and got.unit == "us" and got.tz in ("UTC", "+00:00", "Etc/UTC")
    if pa.types.is_list(wanted):
        if not (pa.types.is_list(got) or pa.types.is_large_list(got)) or not pa.types.is_struct(got.value_type):
            return False
        fields = {f.name: f.type for f in got.value_type}
        return fields == {f.name: f.type for f in wanted.value_type}
    return False
