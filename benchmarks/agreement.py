"""Whether a peer's values are tickstate's, but for what the table of peers says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.market import Market
from benchmarks.peers import Family, Peer

REGIMES = {"tight": 0.0, "normal": 1.0, "wide": 2.0}
PLAIN = {"tolerance": 1e-11, "omits": (), "empty": None, "first": 0, "last": 0}
"""A peer that does nothing otherwise."""


def as_columns(found: Any, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Whatever a peer gives as double columns, NaN where null."""
    if isinstance(found, list):
        return {name: _doubles([row.get(name) for row in found]) for name in names}
    if isinstance(found, dict):
        return {name: np.asarray(found[name], float) for name in names if name in found}
    table = found if isinstance(found, pa.Table) else found.to_arrow()
    return {name: _doubles(table[name].to_pylist()) for name in names if name in table.column_names}


def _doubles(values: list[Any]) -> np.ndarray:
    return np.array([np.nan if v is None else REGIMES.get(v, v) if isinstance(v, str) else v for v in values], float)


def differences(family: Family, peer: Peer, market: Market) -> list[str]:
    """What a peer says otherwise than tickstate, beyond what the table of peers allows: one line a column."""
    names = tuple(name for name in family.columns if name not in peer.omits)
    ours = as_columns(family.ours(market)(), names)
    theirs = as_columns(peer.prepare(market)(), names)
    found = [f"{name}: not there" for name in names if name not in theirs or name not in ours]
    return found + [line for name in names if name in theirs and (line := _differs(name, ours, theirs, peer))]


def _differs(name: str, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray], peer: Peer) -> str:
    mine, other = ours[name], theirs[name]
    if "trade_count" in theirs:  # bars
        mine, other = mine[peer.first : len(mine) - peer.last], other[theirs["trade_count"] > 0][peer.first :]
    if len(mine) != len(other):
        return f"{name}: {len(other)} rows, tickstate has {len(mine)}"
    if not np.isfinite(mine).any():
        return f"{name}: nothing to compare"
    alike = np.isnan(mine) == np.isnan(other)
    if peer.empty is not None:
        alike |= np.isnan(mine) & (other == peer.empty)
    if not alike.all():
        row = int(np.argmin(alike))
        return f"{name}: {other[row]} in row {row}, tickstate has {mine[row]}"
    far = np.nanmax(np.abs(mine - other)) / max(np.nanmax(np.abs(mine)), np.finfo(float).tiny)
    return "" if far <= peer.tolerance else f"{name}: {far:.1e} of the largest value away"


def undeclared(family: Family, peer: Peer, market: Market) -> dict[str, list[str]]:
    """For each thing that the table says a peer does otherwise, what would be noticed if it did not say so."""
    said = {what: plain for what, plain in PLAIN.items() if getattr(peer, what) != plain}
    return {what: differences(family, replace(peer, **{what: plain}), market) for what, plain in said.items()}
