"""A task: hours of one lane, with all that a worker needs to compute them, and what they are made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from tickstate.features.graph import Graph, build_graph
from tickstate.lake.commit import Commit
from tickstate.lake.listing import Segment
from tickstate.lake.names import HOUR, REPEAT_WINDOW, Lane
from tickstate.lake.store import Place
from tickstate.runners import reasons
from tickstate.runners.config import Config


@dataclass(frozen=True)
class Inputs:
    """Which hours of which channels a partition is made from: its own and those its lookbacks reach."""

    own: range
    trades: range = range(0)

    def of(self, channel: str) -> dict[str, range]:
        """Hours by input channel."""
        return {channel: self.own, "trades": self.trades} if self.trades else {channel: self.own}


def inputs_of(graph: Graph, hour: int) -> Inputs:
    """The hours of bronze that the partition of an hour depends on."""
    own = range(rows_since(graph, hour) // HOUR, hour + 1)
    if not graph.joins:
        return Inputs(own)
    return Inputs(own, range(trades_since(graph, hour) // HOUR, hour + 1))


def rows_since(graph: Graph, hour: int) -> int:
    """The first capture_ts (us) of the channel's own rows that the partition of an hour depends on."""
    repeats = REPEAT_WINDOW if graph.channel == "trades" else 0
    return hour * HOUR - _sample_reach(graph) - graph.total_lookback - repeats


def trades_since(graph: Graph, hour: int) -> int:
    """The first capture_ts (us) of joined trades that the partition of an hour depends on."""
    return graph.trades_since(hour * HOUR - _sample_reach(graph)) - REPEAT_WINDOW


def _sample_reach(graph: Graph) -> int:
    return graph.settings.sample_reach_us if graph.channel == "orderbook" else 0


@dataclass(frozen=True)
class Span:
    """A task: hours of one lane, in order, to be computed one after the other. Names and paths only."""

    bronze: Place
    silver: Place
    channel: str
    lane: Lane
    hours: tuple[int, ...]
    config: Config
    columns: tuple[str, ...]
    segments: Mapping[str, Mapping[int, tuple[Segment, ...]]] = field(default_factory=dict)
    """Bronze of these hours and of those that their lookbacks reach, by channel."""
    digests: Mapping[str, Mapping[int, str]] = field(default_factory=dict)
    cutoffs: Mapping[int, int] = field(default_factory=dict)
    """Of open hours: rows before this capture_ts (us) are complete."""
    before: Mapping[int, int] = field(default_factory=dict)
    """The hour with bronze before each hour, for features whose partitions form a chain."""
    conditional: frozenset[int] = frozenset()
    """Hours that are up to date as long as the one before ends as it did."""
    kept: tuple[str, ...] = ()
    """Columns that are copied from the partitions as they are: only the others are computed."""
    newest: bool = False
    """Whether the last hour is the lane's last one, so that its state is worth saving."""

    @property
    def root(self) -> Place:
        """The tier that is written."""
        return self.silver

    @property
    def writes(self) -> str:
        """The channel that is written."""
        return self.channel

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # not the graph: names and paths only

    @cached_property
    def graph(self) -> Graph:
        """The graph of this lane, rebuilt where the task runs."""
        return build_graph(
            self.channel, (), keep=self.columns,
            settings=self.config.settings_of(self.lane), params=self.config.params_of(self.lane),
        )  # fmt: skip

    def work(self) -> Span:
        """The same span with the columns that are computed, not copied, alone."""
        return replace(self, columns=tuple(c for c in self.columns if c not in self.kept), kept=())

    def inputs(self, hour: int) -> dict[str, dict[int, str]]:
        """Digests of the lane-hours that a partition is made from, by channel."""
        return {
            channel: {h: self.digests[channel][h] for h in hours if h in self.digests.get(channel, {})}
            for channel, hours in inputs_of(self.graph, hour).of(self.channel).items()
        }


MATTERS = {
    "orderbook": ("max_staleness", "depth", "sample", "fill_gaps"),
    "trades": ("max_staleness", "contract_size", "inverse"),
    "ticker": (),
}
"""Settings that decide what a channel's partitions hold."""


def settings_of(graph: Graph, lane: Lane, config: Config) -> dict[str, Any]:
    """The settings that matter to a partition, for its commit record."""
    found = {name: getattr(graph.settings, name) for name in MATTERS[graph.channel]}
    if graph.joins:
        found["trades_max_gap"] = graph.settings.trades_max_gap
        found["trades_symbol"] = config.trades_lane(lane).symbol
    if config.normalize_quotes:
        found["normalize_quotes"] = True
    return found


@dataclass(frozen=True)
class Aim:
    """What partitions should be like today, as commit records say it: the same for a lane's hours of one graph."""

    graph: Graph
    definition: Mapping[str, Any]
    settings: Mapping[str, Any]
    columns: list[str]


def aim_of(graph: Graph, lane: Lane, config: Config) -> Aim:
    """The aim for a lane's partitions of a graph."""
    columns = [c.name for c in graph.columns]
    return Aim(graph, reasons.plain(graph.definition()), reasons.plain(settings_of(graph, lane, config)), columns)


def keeps(aim: Aim, inputs: Mapping[str, Mapping[str, str]], record: Commit) -> bool:
    """Whether all that a partition's columns were made of is the same today, so that others may join them."""
    return (
        all(inputs.get(c, {}).get(h) == d for c, hours in record.inputs.items() for h, d in hours.items())
        and all(aim.settings.get(k) == v for k, v in record.settings.items())
        and all(aim.definition.get(name) == made for name, made in record.features.items())
        and set(record.columns).issubset(aim.columns)
    )
