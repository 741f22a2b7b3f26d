"""One good feature, and features that are each broken in one way, with the check that must catch it."""

import math
import time
from dataclasses import replace

import numpy as np

from tickstate import BarRule, Column, Feature, Float, Lookback, Param, State, Threshold, helper, kernel
from tickstate.features.trades import TradeWindows
from tickstate.features.windows import Windows
from tickstate.kernels._jit import Block, Floats, Int, Ints, Levels, OutFloats

CLOCK_AND_MID = ("capture_ts", "mid_price")
A_YEAR = 365 * 86_400
FIRST = "on the first row and after a gap > max_staleness"


def column(name, nulls=FIRST, **others):
    return (Column(name, "quote", "by a kernel of the tests", nulls, **others),)


@kernel
def steps(capture_ts: Ints, mid: Floats, start: Int, max_staleness: Int, out: Block) -> None:
    """m - m_prev."""
    for i in range(start, mid.shape[0]):
        near = i > 0 and capture_ts[i] - capture_ts[i - 1] <= max_staleness
        out[0, i - start] = mid[i] - mid[i - 1] if near else math.nan


class Good(Feature):
    """Breaks no rule."""

    name, group, inputs, outputs = "good", "test", CLOCK_AND_MID, column("good_step")
    looks_back = Lookback(steps=1)
    kernel = steps
    waivers = {"version_raised": "a feature of the tests"}

    def arguments(self):
        return (self.settings.max_staleness_us,)

    def reference(self, columns):
        times, mids = columns["capture_ts"], columns["mid_price"]
        found = [None] * len(mids)
        for i in range(1, len(mids)):
            if times[i] - times[i - 1] <= self.settings.max_staleness_us:
                found[i] = mids[i] - mids[i - 1]
        return {"good_step": found}


class Mid(Feature):
    """What most of the broken ones are: a kernel of the mid alone."""

    group, inputs = "test", ("mid_price",)


@kernel
def next_mid(mid: Floats, start: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        out[0, i - start] = mid[min(i + 1, mid.shape[0] - 1)] - mid[i]


class LooksAhead(Mid):
    name, outputs, kernel = "looks_ahead", column("ahead"), next_mid


class ShortLookback(Windows):
    """Sums five minutes, and declares one."""

    name, group, inputs, pattern, unit, formula = "short_lookback", "test", CLOCK_AND_MID, "short", "quote", "sum"

    def lookback(self):
        return Lookback(seconds=60)


MEMORY = np.zeros(1)


@kernel
def count_up(mid: Floats, start: Int, memory: OutFloats, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        memory[0] += 1.0
        out[0, i - start] = memory[0]


class HiddenState(Mid):
    """Counts in a global, handed to the kernel as if it were a parameter."""

    name, outputs, kernel = "hidden_state", column("hidden"), count_up

    def arguments(self):
        return (MEMORY,)


class Python:
    """A kernel that is none: a function that numba never sees."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args):
        self.function(*args)


def fill_in_place(price, start, out):
    price.flags.writeable = True
    price[:] = np.nan_to_num(price)
    out[0] = price[0, start:]


class WritesInput(Feature):
    name, group, inputs, outputs = "writes_input", "test", ("bid_price",), column("written")
    kernel = Python(fill_in_place)


@kernel
def running_sum(capture_ts: Ints, mid: Floats, start: Int, width: Int, out: Block) -> None:
    total, low = 0.0, 0
    for i in range(mid.shape[0]):
        total += mid[i]
        while capture_ts[low] <= capture_ts[i] - width:
            total -= mid[low]
            low += 1
        if i >= start:
            out[0, i - start] = total


class Drifts(Feature):
    """Adds what enters the window and subtracts what leaves it."""

    name, group, inputs, outputs = "drifts", "test", CLOCK_AND_MID, column("drifting")
    looks_back = Lookback(seconds=60)
    kernel = running_sum

    def arguments(self):
        return (60_000_000,)


@kernel
def since_chunk(mid: Floats, start: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        out[0, i - start] = mid[i] - mid[start]


class DependsOnChunks(Mid):
    name, outputs, kernel = "depends_on_chunks", column("chunky"), since_chunk


@kernel
def double_in_place(mid: OutFloats, start: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        mid[i] *= 2.0
        out[0, i - start] = mid[i]


class NeedsWritable(Mid):
    name, outputs, kernel = "needs_writable", column("doubled"), double_in_place


@kernel
def half(mid: Floats, start: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        out[0, i - start] = mid[i] / 2.0


class WrongReference(Mid):
    name, outputs, kernel = "wrong_reference", column("halved"), half

    def reference(self, columns):
        return {"halved": [mid / 2.0 + 1e-6 * (i == 7) for i, mid in enumerate(columns["mid_price"])]}


class NoReference(Mid):
    name, outputs, kernel = "no_reference", column("unchecked"), half


class NoUnit(Mid):
    name, kernel = "no_unit", half
    outputs = (Column("unitless", "", "m / 2"),)


class NotWhole(Mid):
    name, outputs, kernel = "not_whole", column("counted", dtype="int64"), half


@kernel
def divide_by_zero(mid: Floats, start: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        out[0, i - start] = 1.0 / (mid[i] - mid[i]) if i % 2 else mid[i]


class Infinite(Mid):
    """Infinite where it says that it is never null."""

    name, kernel = "infinite", divide_by_zero
    outputs = (Column("infinite", "1/quote", "1 / 0"),)


class Remembers(Windows):
    """Looks back on a year of rows."""

    name, group, inputs, pattern, unit, formula = "remembers", "test", CLOCK_AND_MID, "year", "quote", "sum"

    def lookback(self):
        return Lookback(seconds=A_YEAR)


@helper
def scramble(x):
    """A hash that counts on 64 bits."""
    found = 1
    for _ in range(4):
        found = found * 6_364_136_223_846_793 + x
    return found


@kernel
def hashes(capture_ts: Ints, start: Int, out: Block) -> None:
    for i in range(start, capture_ts.shape[0]):
        out[0, i - start] = scramble(i - i + 7) % 1000


class WrapsAround(Feature):
    """Integers wrap when compiled, and grow in Python."""

    name, group, inputs, outputs, kernel = "wraps_around", "test", ("capture_ts",), column("wrapped"), hashes


SCRATCH = np.zeros(10_000)


@kernel
def through_scratch(mid: Floats, start: Int, scratch: OutFloats, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        scratch[i] = mid[i]
    for i in range(start, mid.shape[0]):
        out[0, i - start] = scratch[i]


class SharesScratch(Mid):
    """Right, unless two threads use the one scratch array."""

    name, outputs, kernel = "shares_scratch", column("scratched"), through_scratch

    def arguments(self):
        return (SCRATCH,)


@kernel
def second_row(mid: Floats, start: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        out[0, i - start] = mid[i] - mid[1] + mid[1]


class NeedsTwoRows(Mid):
    name, outputs, kernel = "needs_two_rows", column("second"), second_row


@kernel
def third_level(bid_price: Levels, start: Int, out: Block) -> None:
    for i in range(start, bid_price.shape[1]):
        out[0, i - start] = bid_price[2, i]


class NeedsThreeLevels(Feature):
    name, group, inputs, kernel = "needs_three_levels", "test", ("bid_price",), third_level
    outputs = column("third")


@kernel
def all_sizes(bid_size: Levels, start: Int, out: Block) -> None:
    for i in range(start, bid_size.shape[1]):
        out[0, i - start] = 0.0
        for j in range(bid_size.shape[0]):
            out[0, i - start] += 0.0 if math.isnan(bid_size[j, i]) else bid_size[j, i]


class SaysTooFewLevels(Feature):
    name, group, inputs, kernel = "says_too_few_levels", "test", ("bid_size",), all_sizes
    outputs = column("lots")

    def levels(self):
        return 2


@kernel
def last_trade(capture_ts: Ints, amount: Floats, start: Int, out: Block) -> None:
    for i in range(start, capture_ts.shape[0]):
        out[0, i - start] = amount[amount.shape[0] - 1] if amount.shape[0] else math.nan


class LooksAheadAtTrades(Feature):
    """The last trade of the chunk, not of the row."""

    name, group, inputs, kernel = "looks_ahead_at_trades", "test", ("capture_ts", "trades.amount"), last_trade
    outputs = column("last_amount")

    def trades_lookback(self):
        return Lookback(seconds=86_400)


class ShortTradesLookback(TradeWindows):
    """Windows of 900 s over trades of which it asks for 5 s."""

    name, group = "short_trades_lookback", "test"

    def columns(self):
        return tuple(replace(c, name=f"short_{c.name}") for c in super().columns())

    def trades_lookback(self):
        return Lookback(seconds=5)


def count_objects(mid, start, state, out):
    for i in range(start, mid.shape[0]):
        state[0]["seen"] = state[0]["seen"] + 1
        out[0, i - start] = state[0]["seen"]


class UnsavedState(Mid):
    """Carries a Python object."""

    name, outputs, kernel = "unsaved_state", column("seen"), Python(count_objects)
    looks_back, state = Lookback(unbounded=True), np.dtype([("seen", "O")])


MINUTE = 60_000_000


@kernel
def highest_closed(capture_ts: Ints, mid: Floats, start: Int, width: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        j, high = i - 1, mid[i]
        while j >= 0 and capture_ts[j] >= capture_ts[i] - width:
            high = max(high, mid[j])
            j -= 1
        out[0, i - start] = high


class ClosedWindow(Feature):
    """[t - 60 s, t] over a lookback that hands it (t - 60 s, t]; its reference is wrong in the same way."""

    name, group, inputs, outputs = "closed_window", "test", CLOCK_AND_MID, column("highest", "never on a valid row")
    looks_back, kernel = Lookback(seconds=60), highest_closed

    def arguments(self):
        return (MINUTE,)

    def reference(self, columns):
        times, mids = columns["capture_ts"], columns["mid_price"]
        seen = [[m for t, m in zip(times[: i + 1], mids, strict=False) if t >= times[i] - MINUTE]
                for i in range(len(times))]  # fmt: skip
        return {"highest": [max(window) for window in seen]}


class OpenWindow(ClosedWindow):
    """The same kernel; its reference knows that a row exactly 60 s old is out."""

    name, outputs = "open_window", column("highest_open", "never on a valid row")

    def reference(self, columns):
        times, mids = columns["capture_ts"], columns["mid_price"]
        seen = [[m for t, m in zip(times[: i + 1], mids, strict=False) if t > times[i] - MINUTE]
                for i in range(len(times))]  # fmt: skip
        return {"highest_open": [max(window) for window in seen]}


@kernel
def add_tick(mid: Floats, start: Int, now: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        out[0, i - start] = mid[i] + now


class WallClock(Mid):
    """Depends on when it is declared."""

    name, outputs, kernel = "wall_clock", column("clocked"), add_tick

    def arguments(self):
        return (time.perf_counter_ns(),)


@kernel
def null_as_zero(ofi: Floats, start: Int, out: Block) -> None:
    for i in range(start, ofi.shape[0]):
        out[0, i - start] = 0.0 if math.isnan(ofi[i]) else ofi[i]


class NullAsZero(Feature):
    """Turns what is undefined into 0."""

    name, group, inputs, outputs, kernel = "null_as_zero", "test", ("ofi",), column("zeroed"), null_as_zero

    def reference(self, columns):
        return {"zeroed": columns["ofi"]}


COUNTED = np.dtype([("n", "i8")])


@kernel
def count_rows(mid: Floats, start: Int, state: State(COUNTED), out: Block) -> None:
    for i in range(start, mid.shape[0]):
        state[0]["n"] += 1
        out[0, i - start] = state[0]["n"]


ONE_FOR_ALL = np.zeros(1, COUNTED)


class SharesState(Mid):
    """Every lane begins with the one array that all lanes write to."""

    name, outputs, kernel, state = "shares_state", column("shared"), count_rows, COUNTED
    looks_back = Lookback(unbounded=True)

    def new_state(self):
        return (ONE_FOR_ALL,)


@kernel
def by_length(mid: Floats, start: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        out[0, i - start] = mid[i] / (mid.shape[0] - start)


class DependsOnLength(Mid):
    """A mean over however many rows there are."""

    name, outputs, kernel = "depends_on_length", column("by_length"), by_length


@kernel
def single(mid: Floats, start: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        out[0, i - start] = np.float32(mid[i]) / np.float32(3.0)


class SinglePrecision(Mid):
    name, outputs, kernel = "single_precision", column("single"), single

    def reference(self, columns):
        return {"single": [mid / 3.0 for mid in columns["mid_price"]]}


@kernel
def steps_from_zero(capture_ts: Ints, mid: Floats, start: Int, max_staleness: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        near = i > 0 and capture_ts[i] - capture_ts[i - 1] <= max_staleness
        out[0, i - start] = mid[i] - mid[i - 1] if near else 0.0


class WrongNullRule(Good):
    """0 where there is no step."""

    name, outputs, kernel = "wrong_null_rule", column("never_null"), steps_from_zero

    def reference(self, columns):
        return {"never_null": Good.reference(self, columns)["good_step"]}


class FixedStaleness(Good):
    """Right with the default settings alone."""

    name, outputs = "fixed_staleness", column("fixed_step")

    def arguments(self):
        return (300_000_000,)

    def reference(self, columns):
        return {"fixed_step": Good.reference(self, columns)["good_step"]}


class FixedParameter(OpenWindow):
    """Declares a parameter and goes its own way."""

    name, outputs = "fixed_parameter", column("fixed_high", "never on a valid row")
    params = {"seconds": Param(61, "window length", "s", minimum=1)}

    def lookback(self):
        return Lookback(seconds=61)

    def reference(self, columns):
        times, mids, width = columns["capture_ts"], columns["mid_price"], self["seconds"] * 1_000_000
        seen = [[m for t, m in zip(times[: i + 1], mids, strict=False) if t >= times[i] - width + 1_000_000]
                for i in range(len(times))]  # fmt: skip
        return {"fixed_high": [max(window) for window in seen]}


@kernel
def only_rises(mid: Floats, start: Int, out: Block) -> None:
    for i in range(start, mid.shape[0]):
        if mid[i] > 100.0:
            out[0, i - start] = mid[i]


class LeavesHoles(Mid):
    """Does not fill what was not asked of it: memory shows."""

    name, outputs, kernel = "leaves_holes", column("rises"), only_rises


# ---- bars

MOVED = np.dtype([("known", "i8"), ("met", "i8"), ("first", "f8")])


@kernel
def cut_by_move(price: Floats, state: State(MOVED), threshold: Float, out: Block) -> None:
    known, met, first = state[0]["known"], state[0]["met"], state[0]["first"]
    for i in range(price.shape[0]):
        out[0, i] = 0.0 if met != 0 else math.nan
        out[1, i] = threshold
        if known == 0 or met != 0:
            first = price[i]
        known, met = 1, 1 if abs(price[i] - first) >= threshold else 0
    state[0]["known"], state[0]["met"], state[0]["first"] = known, met, first


class Moves(BarRule):
    """Breaks no rule."""

    name, channel, prefix, inputs = "moves", "trades_bars", "moves", ("price",)
    formula = "its last price is threshold away from its first one"
    kernel, state = cut_by_move, MOVED
    params = {"threshold": Threshold(1.5, "how far", "quote")}
    waivers = {"version_raised": "a rule of the tests"}

    def arguments(self):
        return (self["threshold"],)

    def reference(self, columns):
        prices, found, begin = columns["price"], [], 0
        for i in range(len(prices) + 1):
            met = i > begin and abs(prices[i - 1] - prices[begin]) >= self["threshold"]
            found.append("threshold" if met else None)
            begin = i if met else begin
        return found


class MovesTooFar(Moves):
    name, prefix = "moves_too_far", "moves_too_far"

    def arguments(self):
        return (self["threshold"] + 0.5,)


@kernel
def cut_forgetting(price: Floats, state: State(MOVED), threshold: Float, out: Block) -> None:
    met, first = 0, price[0]
    for i in range(price.shape[0]):
        out[0, i] = 0.0 if met != 0 else math.nan
        out[1, i] = threshold
        first = price[i] if met != 0 else first
        met = 1 if abs(price[i] - first) >= threshold else 0


class MovesForgets(Moves):
    """Keeps nothing from chunk to chunk."""

    name, prefix, kernel = "moves_forgets", "moves_forgets", cut_forgetting


@kernel
def cut_ahead(price: Floats, state: State(MOVED), threshold: Float, out: Block) -> None:
    for i in range(price.shape[0]):
        out[0, i] = 0.0 if price[price.shape[0] - 1] > price[i] and i > 0 else math.nan
        out[1, i] = threshold


class MovesAhead(Moves):
    """Knows the last price of the day."""

    name, prefix, kernel = "moves_ahead", "moves_ahead", cut_ahead


@kernel
def cut_writing(price: OutFloats, state: State(MOVED), threshold: Float, out: Block) -> None:
    for i in range(price.shape[0]):
        price[i] += 1.0
        out[0, i], out[1, i] = math.nan, threshold


class MovesWrites(Moves):
    name, prefix, kernel = "moves_writes", "moves_writes", cut_writing


class MovesShares(Moves):
    """All days begin with one array."""

    name, prefix = "moves_shares", "moves_shares"
    shared = np.zeros(1, MOVED)

    def new_state(self):
        return (self.shared,)


BROKEN = (  # class, check, what it says
    (LooksAhead, "prefix", "do not read rows after"),
    (ShortLookback, "cold_start", "declare a longer looks_back"),
    (HiddenState, "repeatable", "run again"),
    (WritesInput, "inputs_unchanged", "input 'bid_price' was written to"),
    (Drifts, "cold_start", "let no value depend on older rows"),
    (DependsOnChunks, "cuts", "where a chunk begins"),
    (NeedsWritable, "read_only_inputs", "'mid' of the kernel, for the input 'mid_price', is writable"),
    (WrongReference, "agrees_with_reference", "at the valid row 7 (1 of "),
    (NoReference, "agrees_with_reference", "give the class a method reference"),
    (NoUnit, "schema_and_units", "'unitless' lacks unit or formula"),
    (NotWhole, "schema_and_units", "a whole number"),
    (WritesInput, "schema_and_units", "declared with @tickstate.kernel"),
    (Infinite, "nulls_and_flagged_rows", "(NaN or infinite) on the valid row 1"),
    (Remembers, "memory_is_bounded", "bytes of state after"),
    (WrapsAround, "compiled_equals_interpreted", "integers that overflow"),
    (SharesScratch, "two_threads", "scratch belongs inside the kernel"),
    (NeedsThreeLevels, "shallow_books", "out of bounds"),
    (SaysTooFewLevels, "shallow_books", "let levels() say how many are read"),
    (LooksAheadAtTrades, "prefix", "the first 1 rows alone"),
    (ShortTradesLookback, "cold_start", "(or trades_lookback)"),
    (NeedsTwoRows, "empty_and_one_row", "out of bounds"),
    (UnsavedState, "state_restored", "Python objects cannot be saved"),
    (ClosedWindow, "cold_start", "declare a longer looks_back"),
    (OpenWindow, "agrees_with_reference", "against the reference"),
    (WallClock, "repeatable", "let arguments() and new_state() be constant"),
    (NullAsZero, "agrees_with_reference", "zeroed = 0.0 at the valid row 0"),
    (SharesState, "repeatable", "run again"),
    (DependsOnLength, "cuts", "where a chunk begins"),
    (SinglePrecision, "agrees_with_reference", "single = "),
    (WrongNullRule, "agrees_with_reference", "never_null = 0.0 at the valid row 0"),
    (FixedStaleness, "agrees_with_reference", "with max_staleness 30, against the reference"),
    (FixedParameter, "agrees_with_reference", "with seconds = 30, against the reference"),
    (LeavesHoles, "prefix", "rises = "),
    (MovesTooFar, "agrees_with_reference", "bar ends before row"),
    (MovesForgets, "cuts", "carry in state what a bar needs"),
    (MovesForgets, "state_restored", "state restored after every row"),
    (MovesAhead, "prefix", "do not read later rows"),
    (MovesWrites, "read_only_inputs", "is writable"),
    (MovesShares, "repeatable", "run again"),
)
