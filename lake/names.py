"""Names of lanes, hours and files. The only place where a path is made from data."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote

from tickstate.lake.errors import LakeError
from tickstate.lake.store import Place

HOUR = 3_600_000_000
"""Microseconds in an hour. Hours are numbered from the epoch: hour * HOUR is its first capture_ts."""
REPEAT_WINDOW = 300_000_000
"""Microseconds in which a trade id that comes again is the same trade."""

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
PARTITION_COLUMNS = ("exchange", "symbol", "year", "month", "day", "hour")
DAY_COLUMNS = PARTITION_COLUMNS[:-1]
PART = "part-0.parquet"
_lanes_share = lru_cache(1 << 14)
"""Of names of hours: a plan makes each for every lane, channel and tier. Two years of them are remembered."""


def is_daily(channel: str) -> bool:
    """Whether a partition is a day: bars, whose channel is named with their kind.

    >>> is_daily("trades_bars/60s"), is_daily("trades")
    (True, False)
    """
    return "/" in channel


def partition_columns(channel: str) -> tuple[str, ...]:
    """The columns that name a partition of a channel."""
    return DAY_COLUMNS if is_daily(channel) else PARTITION_COLUMNS


@lru_cache(1 << 12)
def safe_name(raw: str) -> str | None:
    """A partition value that is safe in a path, or None where there is none.

    >>> safe_name("BTC/USD"), safe_name("BTC/USDT:USDT"), safe_name("../../x")
    ('BTC-USD', 'BTC-USDT-USDT', None)
    """
    name = re.sub(r"[/:]", "-", raw)
    return name if _SAFE.fullmatch(name) else None


class Lane(NamedTuple):
    """One exchange and symbol: the unit within which rows are ordered."""

    exchange: str
    symbol: str

    def __str__(self) -> str:
        return f"{self.exchange}/{self.symbol}"

    @property
    def folder(self) -> str:
        return f"exchange={self.exchange}/symbol={self.symbol}"


def hour_time(hour: int) -> datetime:
    """The beginning of an hour, UTC."""
    return _EPOCH + timedelta(hours=hour)


@_lanes_share
def hour_name(hour: int) -> str:
    """An hour as the command line writes it.

    >>> hour_name(478752)
    '2024-08-13T00'
    """
    return hour_time(hour).strftime("%Y-%m-%dT%H")


def parse_hour(text: str) -> int:
    """``2024-08-08T23`` or ``2024-08-08`` (its first hour) as an hour number."""
    for form in ("%Y-%m-%dT%H", "%Y-%m-%d", "%Y-%m-%dT%H:%M"):
        try:
            time = datetime.strptime(text, form).replace(tzinfo=UTC)
        except ValueError:
            continue
        if time.minute:
            break
        return int((time - _EPOCH).total_seconds()) // 3600
    raise LakeError(f"{text!r} is no hour", expected="UTC, like 2024-08-08T23 or 2024-08-08")


def time_name(channel: str, hour: int) -> str:
    """A partition's time, for people: its hour or, of bars, its day.

    >>> time_name("trades", 478752), time_name("trades_bars/60s", 478752)
    ('2024-08-13T00', '2024-08-13')
    """
    return hour_name(hour)[:10] if is_daily(channel) else hour_name(hour)


def time_folder(channel: str, hour: int) -> str:
    """``year=2024/month=8/day=8/hour=23``; bars have no hour."""
    found = _hour_folder(hour)
    return found.rpartition("/")[0] if is_daily(channel) else found


@_lanes_share
def _hour_folder(hour: int) -> str:
    t = hour_time(hour)
    return f"year={t.year}/month={t.month}/day={t.day}/hour={t.hour}"


def partition_path(root: Place, channel: str, lane: Lane, hour: int) -> Place:
    """Where a partition of silver or gold lies; raises ``LakeError`` were it to leave the lake."""
    for value in (lane.exchange, lane.symbol):
        if safe_name(value) != value:
            raise LakeError(f"{value!r} is no safe partition value", expected=f"a match of {_SAFE.pattern}")
    return root / f"{channel}/{lane.folder}/{time_folder(channel, hour)}/{PART}"


def parse_folder(parts: list[str], columns: tuple[str, ...] = PARTITION_COLUMNS) -> tuple[str, str, int] | None:
    """(exchange, symbol, hour) of the folder names of a hive path, padded or not; None if they are not.

    >>> parse_folder(["exchange=a", "symbol=BTC%2FUSD", "year=1970", "month=01", "day=1", "hour=02"])
    ('a', 'BTC/USD', 2)
    """
    if len(parts) != len(columns):
        return None
    values = []
    for part, column in zip(parts, columns, strict=True):
        key, eq, value = part.partition("=")
        if key != column or not eq or not value:
            return None
        values.append(unquote(value))
    hour = _parse_time(*values[2:])
    return None if hour is None else (values[0], values[1], hour)


@_lanes_share
def _parse_time(*values: str) -> int | None:
    """The hour of year, month, day and, of an hour, hour."""
    if not all(re.fullmatch(r"[0-9]{1,4}", v) for v in values):
        return None
    try:
        time = datetime(*(int(v) for v in values), tzinfo=UTC)
    except ValueError:
        return None
    return int((time - _EPOCH).total_seconds()) // 3600
