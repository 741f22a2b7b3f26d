"""What a channel of a tier holds: one walk over the folders or one listing of the bucket, no file opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tickstate.lake.errors import BadFile, LakeError
from tickstate.lake.names import Lane, parse_folder, partition_columns, safe_name, time_name
from tickstate.lake.store import Place, folders, modified_of, walk


@dataclass(frozen=True, order=True)
class Segment:
    """One file of a channel. ``relative`` (to the channel's folder) orders segments and is rows' last tie-break."""

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


def list_channel(root: Place, channel: str) -> Listing:
    """Walk ``root/channel`` of any tier. Hidden files, and names that begin with ``_``, are work in progress."""
    found, columns = Listing(channel), partition_columns(channel)
    spelled: dict[Lane, tuple[str, str]] = {}
    known: dict[str, tuple[str, str, int] | None] = {}
    for relative, path, stat in sorted(walk(root / channel), key=lambda f: f[0]):
        if stat is None:
            found.misplaced.append(BadFile(f"{channel}/{relative}", "unreadable", "no regular file"))
            continue
        folder = relative.rpartition("/")[0]
        if folder not in known:
            known[folder] = parse_folder(folder.split("/"), columns)
        parsed = known[folder]
        if parsed is None:
            found.misplaced.append(
                BadFile(f"{channel}/{relative}", "bad_path", f"no hive path of {', '.join(columns)}")
            )
            continue
        exchange, symbol, hour = parsed
        safe = safe_name(exchange), safe_name(symbol)
        if safe[0] is None or safe[1] is None:
            detail = f"exchange {exchange!r}, symbol {symbol!r}: no safe name for a folder"
            found.misplaced.append(BadFile(f"{channel}/{relative}", "bad_name", detail))
            continue
        lane = Lane(safe[0], safe[1])
        if spelled.setdefault(lane, (exchange, symbol)) != (exchange, symbol):
            raise LakeError(
                f"{'/'.join(spelled[lane])!r} and {exchange + '/' + symbol!r} would both be written as {lane}",
                where=f"{channel}/{relative} ({time_name(channel, hour)})", fix="rename one of them in bronze",
            )  # fmt: skip
        segment = Segment(relative, channel, path, exchange, symbol, hour, stat.st_size, modified_of(stat))
        found.lanes.setdefault(lane, {}).setdefault(hour, []).append(segment)
    return found


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
