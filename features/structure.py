"""FEATURES.md section 3.2 and 3.1: what one snapshot says by itself."""

from __future__ import annotations

from itertools import pairwise

from tickstate.features.base import LEVELS, Column, Feature, Fusion, Param
from tickstate.kernels import bands, levels, slope, structure, whole

WHOLE = Fusion(
    whole.whole_book,
    ("depth_imbalance", "depth_bands", "book_vwap", "smart_depth", "book_slope", "center_of_gravity", "book_shape"),
)


class BookLevels(Feature):
    """Prices and sizes of every level, as bronze has them."""

    name, group, default = "levels", "levels", False
    inputs = LEVELS
    kernel = levels.copy_levels

    def columns(self) -> tuple[Column, ...]:
        return tuple(
            Column(f"{side}_{what}_L{i}", unit, f"{what} of {side} level {i}", "where the level is absent")
            for side, what, unit in (
                ("bid", "price", "quote"), ("bid", "size", "lots"), ("ask", "price", "quote"), ("ask", "size", "lots"),
            )
            for i in range(self.settings.depth)
        )  # fmt: skip


class TopOfBook(Feature):
    """Mid, spread and the size-weighted mid of the touch."""

    name, group = "top_of_book", "structure"
    inputs = LEVELS
    outputs = (
        Column("mid_price", "quote", "m = (b_0 + a_0) / 2"),
        Column("spread", "quote", "a_0 - b_0"),
        Column("relative_spread", "1", "spread / m"),
        Column("weighted_mid", "quote", "(q_0 a_0 + r_0 b_0) / (q_0 + r_0), often called microprice"),
        Column("weighted_mid_minus_mid", "quote", "weighted_mid - m"),
    )
    kernel = structure.top_of_book
    source = "Not Stoikov's fitted micro-price (Stoikov 2018), but its zeroth approximation"

    def levels(self) -> int:
        return 1


class DepthImbalance(Feature):
    """Depth of both sides and its imbalance, near the touch and over all levels."""

    name, group = "depth_imbalance", "structure"
    fusion = WHOLE
    inputs = ("bid_size", "ask_size")
    params = {"levels": Param((1, 3, 5, 10), "numbers of levels", "levels", minimum=1, ascending=True)}
    kernel = structure.depth_imbalance

    def columns(self) -> tuple[Column, ...]:
        near = [
            Column(f"depth_imbalance_{n}", "1", f"(B - A) / (B + A), sums of the first {n} present sizes a side")
            for n in self["levels"]
        ]
        return (
            *near,
            Column("total_bid_depth", "lots", "sum of the present bid sizes, i < depth"),
            Column("total_ask_depth", "lots", "sum of the present ask sizes, i < depth"),
            Column("total_imbalance", "1", "(bid - ask) / (bid + ask) of the total depths"),
        )

    def arguments(self) -> tuple[object, ...]:
        return (self["levels"],)


class DepthBands(Feature):
    """Depth by distance from the mid, in basis points."""

    name, group = "depth_bands", "structure"
    fusion = WHOLE
    inputs = LEVELS
    params = {
        "edges": Param(
            (0, 1, 2, 5, 10, 25, 50), "band edges", "bps", minimum=0, ascending=True
        )
    }  # fmt: skip
    kernel = bands.depth_bands

    def columns(self) -> tuple[Column, ...]:
        found = [
            Column("bid_reach_bps", "bps", "d of the deepest present bid level, i < depth"),
            Column("ask_reach_bps", "bps", "d of the deepest present ask level, i < depth"),
            Column("depth_5bps", "lots", "sum of sizes of both sides with d <= 5"),
        ]
        edges = self["edges"]
        for lo, hi in pairwise(edges):
            band = f"band_{lo}_{hi}bps"
            for side in ("bid", "ask"):
                found.append(
                    Column(
                        f"{side}_vol_{band}", "lots",
                        f"sum of {side} sizes with {lo:g} < d <= {hi:g} (the first band includes d = 0); "
                        f"a lower bound where {lo:g} < reach < {hi:g}",
                        f"where the {side} side's reach <= {lo:g} bps: not seen",
                    )
                )  # fmt: skip
            found.append(
                Column(f"imb_{band}", "1", "(bid - ask) / (bid + ask) of the band", "if either side is, or 0 / 0")
            )
        return tuple(found)

    def arguments(self) -> tuple[object, ...]:
        return (tuple(float(edge) for edge in self["edges"]),)


class BookVwap(Feature):
    """Volume-weighted prices of the first five levels a side."""

    name, group = "book_vwap", "structure"
    fusion = WHOLE
    inputs = LEVELS
    outputs = (
        Column("vwap_bid_5", "quote", "sum(price * size) / sum(size) over the first 5 present bid levels"),
        Column("vwap_ask_5", "quote", "the same of the ask"),
        Column("vwap_spread", "quote", "vwap_ask_5 - vwap_bid_5"),
    )
    kernel = structure.book_vwap

    def levels(self) -> int:
        return 5


class SmartDepth(Feature):
    """Depth discounted exponentially by its distance from the mid."""

    name, group, version = "smart_depth", "structure", 3
    fusion = WHOLE
    inputs = LEVELS
    params = {"decay_bps": Param(2.0, "distance over which depth loses a factor e", "bps", above=0.0)}
    outputs = (
        Column("smart_bid_depth", "lots", "sum of size * exp(-d / decay_bps) over the bid levels"),
        Column("smart_ask_depth", "lots", "the same of the ask"),
        Column("smart_depth_imbalance", "1", "(bid - ask) / (bid + ask)", "where both underflow to 0"),
    )
    kernel = structure.smart_depth

    def arguments(self) -> tuple[object, ...]:
        return (self["decay_bps"],)


class BookSlope(Feature):
    """How fast depth builds up away from the touch."""

    name, group = "book_slope", "structure"
    fusion = WHOLE
    inputs = (*LEVELS, "bid_levels", "ask_levels")
    outputs = (
        Column("bid_slope_simple", "quote/lot", "abs(b_0 - b_4) / (sum of the first 5 bid sizes)", "below 5 levels"),
        Column("ask_slope_simple", "quote/lot", "the same of the ask", "below 5 levels"),
        Column("bid_slope_regression", "lots/bps", "least-squares slope of cumulative bid size on d", "below 3 levels"),
        Column("ask_slope_regression", "lots/bps", "the same of the ask", "below 3 levels"),
    )
    kernel = slope.book_slope


class CenterOfGravity(Feature):
    """Where the mass of the book lies."""

    name, group = "center_of_gravity", "structure"
    fusion = WHOLE
    inputs = LEVELS
    outputs = (
        Column("center_of_gravity", "quote", "sum(price * size) / sum(size), both sides"),
        Column("cog_vs_mid", "bps", "1e4 * (center_of_gravity - m) / m"),
    )
    kernel = structure.center_of_gravity


class BookShape(Feature):
    """Decay of sizes with depth, their concentration, and the spread's price in depth."""

    name, group = "book_shape", "structure"
    fusion = WHOLE
    inputs = LEVELS
    outputs = (
        Column("bid_depth_decay_5", "1", "q_4 / q_0", "below 5 levels"),
        Column("ask_depth_decay_5", "1", "r_4 / r_0", "below 5 levels"),
        Column("avg_depth_decay_5", "1", "mean of bid_depth_decay_5 and ask_depth_decay_5", "if either is"),
        Column("bid_concentration", "1", "sum of (q_i / total)^2 (Herfindahl)"),
        Column("ask_concentration", "1", "sum of (r_i / total)^2"),
        Column("spread_per_depth_3", "quote/lot", "spread / (sum of the first 3 present sizes of both sides)"),
        Column("spread_per_depth_6", "quote/lot", "spread / (sum of the first 6 present sizes of both sides)"),
    )
    kernel = structure.book_shape


FEATURES = (
    TopOfBook, DepthImbalance, DepthBands, BookVwap, SmartDepth, BookSlope, CenterOfGravity, BookShape, BookLevels,
)  # fmt: skip
