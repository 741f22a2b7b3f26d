"""What a channel of a tier holds: one walk over the folders or one listing of the bucket, no file opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from tickstate.lake.errors import BadFile, LakeError
from tickstate.lake.names import Lane, parse_folder, partition_columns, safe_name, time_name
from tickstate.lake.store import Place, folders, modified_of, walk


class Segment(msgspec.Struct, frozen=True, order=True, gc=False):
    """One file of a channel. ``relative`` (to the channel's folder) orders segments and is rows' last tie-break.

    A plan holds one for each file of the lake: a struct is made, compared and hashed in a tenth of a dataclass's time.
    """

    relative: str
    channel: str
    path: str
    exchange: str
    symbol: str
    hour: int
    size: int
    modified: int = 0
    """Nanoseconds, as the file system says: a key of caches, never part of a digest."""

    @property
    def where(self) -> str:
        """How messages call it."""
        return f"{self.channel}/{self.relative}"


@dataclass
class Listing:
    """The segments of one channel by lane and hour, and the files whose very path is wrong."""

    channel: str
    lanes: dict[Lane, dict[int, list[Segment]]] = field(default_factory=dict)
    misplaced: list[BadFile] = field(default_factory=list)

    def segments(self, lane: Lane, hour: int) -> list[Segment]:
        """The segments of a lane's hour, in the order of their paths."""
        return self.lanes.get(lane, {}).get(hour, [])


_NEITHER = "no regular file, nor a folder that can be listed"


class _Folder(NamedTuple):
    """What the path of a folder says of the files in it."""

    exchange: str
    symbol: str
    hour: int
    segments: list[Segment]


def list_channel(root: Place, channel: str) -> Listing:
    """Walk ``root/channel`` of any tier. Hidden files, and names that begin with ``_``, are work in progress."""
    found = Listing(channel)
    spelled: dict[Lane, tuple[str, str]] = {}
    known: dict[str, _Folder | tuple[str, str]] = {}
    for relative, path, stat in walk(root / channel):
        if stat is None:
            found.misplaced.append(BadFile(f"{channel}/{relative}", "unreadable", _NEITHER))
            continue
        name = relative.rpartition("/")[0]
        folder = known.get(name)
        if folder is None:
            folder = known[name] = _look_up(name, found, spelled, f"{channel}/{relative}")
        if not isinstance(folder, _Folder):
            found.misplaced.append(BadFile(f"{channel}/{relative}", *folder))
            continue
        exchange, symbol, hour, segments = folder
        segments.append(Segment(relative, channel, path, exchange, symbol, hour, stat.st_size, modified_of(stat)))
    return found


def _look_up(
    name: str, found: Listing, spelled: dict[Lane, tuple[str, str]], where: str
) -> _Folder | tuple[str, str]:  # fmt: skip
    """A folder's place in a listing, or the reason why its files have none, with the detail."""
    channel, columns = found.channel, partition_columns(found.channel)
    parsed = parse_folder(name.split("/"), columns)
    if parsed is None:
        return "bad_path", f"no hive path of {', '.join(columns)}"
    exchange, symbol, hour = parsed
    safe = safe_name(exchange), safe_name(symbol)
    if safe[0] is None or safe[1] is None:
        return "bad_name", f"exchange {exchange!r}, symbol {symbol!r}: no safe name for a folder"
    lane = Lane(safe[0], safe[1])
    if spelled.setdefault(lane, (exchange, symbol)) != (exchange, symbol):
        raise LakeError(
            f"{'/'.join(spelled[lane])!r} and {exchange + '/' + symbol!r} would both be written as {lane}",
            where=f"{where} ({time_name(channel, hour)})", fix="rename one of them in bronze",
        )  # fmt: skip
    return _Folder(exchange, symbol, hour, found.lanes.setdefault(lane, {}).setdefault(hour, []))


def gold_channels(root: Place) -> list[str]:
    """Channels of gold with their kinds, ``trades_bars/60s``, that a place holds."""
    channels = [name for name in folders(root) if name.endswith("_bars")]
    return [f"{channel}/{kind}" for channel in channels for kind in folders(root / channel)]


STABLECOINS = ("USDC", "USDT", "BUSD", "DAI", "TUSD", "GUSD", "USDP", "PYUSD", "FRAX", "LUSD")
"""Quotes that count as USD where ``normalize_quotes`` is asked for."""


def canonical_symbol(symbol: str) -> str:
    """A symbol with its stablecoin quote as USD.

    >>> canonical_symbol("BTC-USDT"), canonical_symbol("ETH-BTC")
    ('BTC-USD', 'ETH-BTC')
    """
    base, dash, quote = symbol.rpartition("-")
    return f"{base}-USD" if dash and quote in STABLECOINS else symbol


def normalize_quotes(listing: Listing, prefer: Iterable[str]) -> Listing:
    """The listing with stablecoin quotes as USD (FEATURES.md section 6).

    Trades of lanes that become equal are one lane. Books and tickers are never interleaved: ``prefer`` names the
    quotes, best first, of which one is taken; without it, two that become equal are a ``LakeError``.
    """
    same: dict[Lane, list[Lane]] = {}
    for lane in sorted(listing.lanes):
        same.setdefault(Lane(lane.exchange, canonical_symbol(lane.symbol)), []).append(lane)
    found = Listing(listing.channel, misplaced=listing.misplaced)
    for target, lanes in same.items():
        merge = listing.channel == "trades" or len(lanes) == 1
        chosen = lanes if merge else [_preferred(target, lanes, prefer, listing)]
        for lane in chosen:
            for hour, segments in listing.lanes[lane].items():
                merged = found.lanes.setdefault(target, {}).setdefault(hour, [])
                merged[:] = sorted([*merged, *segments])
    return found


def _preferred(target: Lane, lanes: list[Lane], prefer: Iterable[str], listing: Listing) -> Lane:
    for quote in prefer:
        for lane in lanes:
            if lane.symbol.rpartition("-")[2] == quote:
                return lane
    raise LakeError(
        f"{', '.join(map(str, lanes))} would all be {target}", where=listing.channel,
        fix='name the quote to take under [run]: prefer = ["USD", "USDC", ...]',
    )  # fmt: skip
