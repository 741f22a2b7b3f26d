"""``tickstate.run``: what ``features run`` does, from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from tickstate.kernels.errors import TickstateError
from tickstate.lake.names import parse_hour
from tickstate.lake.store import RemotePath, place
from tickstate.runners.config import Config, load_config, make_config
from tickstate.runners.run import Observer, Summary, run_batch, run_single
from tickstate.runners.selection import NOWHERE, Selection

Text = str | Sequence[str] | None
Place = str | os.PathLike[str] | RemotePath | None


def run(
    lake: Place = None,
    *,
    bronze: Place = None,
    silver: Place = None,
    gold: Place = None,
    tier: Text = None,
    bars: Text = None,
    runner: str = "batch",
    channel: Text = None,
    exchange: Text = None,
    symbol: Text = None,
    start: str | None = None,
    end: str | None = None,
    features: Text = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    workers: int | None = None,
    executor: Executor | str | Any = None,
    observer: Observer | None = None,
) -> Summary:
    """Compute what is missing or stale in a selection, and return what was done.

    Args:
        lake: a folder with ``bronze``, ``silver`` and ``gold`` in it; or give the places by name. Each may be
            ``"s3://BUCKET/PREFIX"``.
        tier: ``"silver"``, ``"gold"`` or both; default each whose place is given.
        bars: kinds of bars, like ``["60s", "tick_1000"]``; default those of ``config``, or four lengths of time.
        runner: ``"batch"`` (a pool of ``workers`` processes) or ``"single"`` (this process).
        channel, exchange, symbol: one name or several; default all.
        start, end: hours, UTC, like ``"2024-08-08T23"``; ``end`` is exclusive.
        features: names of features, groups, columns or rules of bars; default every built-in that is on.
        config: path of a features.toml, or the same as nested dictionaries.
        executor: where the batch runner works, in place of processes of this machine: any
            ``concurrent.futures.Executor`` whose workers see the same places, a ``distributed.Client``, or what
            ``--executor`` takes: ``"dask"``, ``"dask://HOST:PORT"``, ``"dask:SCHEDULER_FILE.json"``.
        observer: told of the plan and of each partition (``tickstate.runners.run.Observer``).

    Returns:
        A ``Summary``: outcomes, counters, quarantined files, ``exit_code``. Partitions that fail and files that
        are set aside are in it and raise nothing.

    Raises:
        TickstateError: a place, name, hour or parameter that does not exist or does not fit.

    A script that uses worker processes needs the usual ``if __name__ == "__main__":`` around its call.
    """
    given = {"bronze": bronze, "silver": silver, "gold": gold}
    places = {n: place(p) if p is not None else place(lake) / n if lake is not None else None for n, p in given.items()}
    wanted = tuple(t for t in ("silver", "gold") if places[t] is not None) or ("silver",)
    if places["bronze"] is None and places["gold"] is not None:
        wanted = ("gold",)
    tiers = _names(tier) or wanted
    if set(tiers) - {"silver", "gold"}:
        raise TickstateError(f"tier {tier!r}", expected="'silver' or 'gold'")
    needed = {"silver": ("bronze", "silver"), "gold": ("silver", "gold")}
    for name in (n for t in tiers for n in needed[t]):
        if places[name] is None:
            raise TickstateError(f"no place for {name}", fix=f"give lake=, or {name}=")
    if runner not in ("single", "batch"):
        raise TickstateError(f"runner {runner!r}", expected="'single' or 'batch'")
    selection = Selection(
        bronze=places["bronze"] or NOWHERE, silver=places["silver"], gold=places["gold"], tiers=tiers,
        bars=_names(bars) or (), channels=_names(channel) or (), exchanges=_names(exchange) or (),
        symbols=_names(symbol) or (), start=parse_hour(start) if start else None, end=parse_hour(end) if end else None,
        features=_names(features), config=as_config(config),
    )  # fmt: skip
    if runner == "single" and executor is not None:
        raise TickstateError(
            "executor with runner 'single'", expected="runner 'batch'", fix="single works in this process"
        )
    if runner == "single":
        return run_single(selection, observer)
    return run_batch(selection, workers, executor, observer)


def as_config(config: str | os.PathLike[str] | Mapping[str, Any] | None) -> Config:
    """A checked configuration from a path, nested dictionaries, or nothing."""
    if isinstance(config, Mapping):
        return make_config(config)
    return load_config(Path(config) if config is not None else None)


def _names(given: Text) -> tuple[str, ...] | None:
    if given is None:
        return None
    return (given,) if isinstance(given, str) else tuple(given)
