"""The partitions on which single, batch and live paths of such systems disagree: a named test each.

Every lake is computed by the single runner, the batch runner, and every hour alone from nothing: the same bytes, and
the values that FEATURES.md asks for.
"""

import pytest
import tapes
from lakes import HOUR, MIDNIGHT, SECOND
from tapes import SYMBOL, read, touch, trade

S, MINUTE = SECOND, 60 * SECOND
BOOK, TRADES = ("orderbook", SYMBOL), ("trades", SYMBOL)
ALIVE = ("trade_age_s", "trade_history_s", "signed_trade_vol", "trade_vol_5s", "trade_count_60s", "signed_vol_900s")


def compute(lake, book, tape=(), **options):
    """Rows of silver, the lake computed every way."""
    tapes.write(lake, {BOOK: book, TRADES: tape})
    return read(tapes.run_every_way(lake, **options))


def at(rows, t):
    """The row at a time."""
    (found,) = (row for row in rows if row["capture_ts"] == t)
    return found


def every_minute(begin, end, step=MINUTE):
    return [touch(t, 100 + t // step % 3) for t in range(begin, end, step)]


def buys(*times, amount=1.0):
    return [trade(t, amount, "buy", str(t)) for t in times]


# ---- hours without trades


def test_trades_missing_for_an_hour(tmp_path):
    """Not its file but the last trade decides: alive for 300 s, then unknown, then alive at the first one."""
    book = every_minute(MIDNIGHT - HOUR, MIDNIGHT + 2 * HOUR)
    tape = buys(MIDNIGHT - HOUR, MIDNIGHT - MINUTE, MIDNIGHT + HOUR + 90 * S)
    rows = compute(tmp_path, book, tape)
    missing = [row for row in rows if 0 <= row["capture_ts"] - MIDNIGHT < HOUR]
    alive = [row["trade_age_s"] for row in missing if row["trade_age_s"] is not None]
    assert alive == [60.0, 120.0, 180.0, 240.0, 300.0]
    assert [row["trade_vol_900s"] for row in missing[:5]] == [1.0] * 5
    assert {row[name] for row in missing[5:] for name in ALIVE} == {None}
    after = [row["trade_age_s"] for row in rows if 0 <= row["capture_ts"] - MIDNIGHT - HOUR < 4 * MINUTE]
    assert after == [None, None, 30.0, 90.0]
    assert at(rows, MIDNIGHT + HOUR + 2 * MINUTE)["signed_trade_vol"] == 1.0
    assert at(rows, MIDNIGHT)["signed_trade_vol"] == 0.0


def test_trades_of_the_first_hour_missing(tmp_path):
    rows = compute(tmp_path, every_minute(MIDNIGHT, MIDNIGHT + 2 * HOUR), buys(MIDNIGHT + HOUR))
    assert {row[name] for row in rows[:60] for name in ALIVE} == {None}
    assert (rows[60]["signed_trade_vol"], rows[60]["trade_age_s"]) == (1.0, 0.0)


def test_an_hours_trades_file_present_but_empty(tmp_path):
    """The same bytes as without the file."""
    book = every_minute(MIDNIGHT - HOUR, MIDNIGHT + 2 * HOUR)
    tape = buys(MIDNIGHT - HOUR, MIDNIGHT - MINUTE, MIDNIGHT + HOUR + 90 * S)
    tapes.write_empty(tmp_path / "empty", "trades", MIDNIGHT // HOUR)
    rows = compute(tmp_path / "empty", book, tape)
    assert rows == compute(tmp_path / "missing", book, tape)
    empty, missing = (tapes.parts(tmp_path / name / "whole") for name in ("empty", "missing"))
    assert {**missing, **empty} == empty
    assert [name for name in empty if name not in missing] == [
        f"trades/exchange=demo/symbol=A-B/{tapes.folder(MIDNIGHT)}/part-0.parquet"
    ]
    assert read(tmp_path / "empty" / "whole", "trades", t=MIDNIGHT) == []


def test_an_empty_trades_file_beside_a_full_one(tmp_path):
    book, tape = every_minute(MIDNIGHT, MIDNIGHT + HOUR), buys(MIDNIGHT + 90 * S)
    tapes.write_empty(tmp_path / "two", "trades", MIDNIGHT // HOUR, name="0.parquet")
    assert compute(tmp_path / "two", book, tape) == compute(tmp_path / "one", book, tape)
    assert tapes.parts(tmp_path / "two" / "whole") == tapes.parts(tmp_path / "one" / "whole")


def test_an_hours_book_file_present_but_empty(tmp_path):
    """Trades of that hour belong to the snapshot after it."""
    tapes.write_empty(tmp_path, "orderbook", MIDNIGHT // HOUR)
    book = [touch(MIDNIGHT - MINUTE), touch(MIDNIGHT + HOUR), touch(MIDNIGHT + HOUR + S)]
    tape = buys(MIDNIGHT + 30 * MINUTE, MIDNIGHT + HOUR - S)
    config = {"run": {"max_staleness": 7200}}
    rows = compute(tmp_path, book, tape, config=config)
    assert [row["signed_trade_vol"] for row in rows] == [None, 2.0, 0.0]


def test_an_hour_of_flagged_books(tmp_path):
    flagged = [touch(MIDNIGHT + k * 10 * MINUTE) | {"asks": None} for k in range(6)]
    book = [touch(MIDNIGHT - S), *flagged, touch(MIDNIGHT + HOUR + S)]
    rows = compute(tmp_path, book, buys(MIDNIGHT, MIDNIGHT + HOUR), config={"run": {"max_staleness": 86_400}})
    assert [row["book_flag"] for row in rows] == ["ok", *["one_sided"] * 6, "ok"]
    assert [row["signed_trade_vol"] for row in rows] == [None] * 7 + [2.0]


# ---- sparse snapshots


def test_sparse_snapshots_one_an_hour(tmp_path):
    """Each is stale to the next: no step, no return; the trades' columns are of the trades."""
    book = [touch(MIDNIGHT + k * HOUR + 1800 * S, 100 + k) for k in range(-1, 3)]
    tape = buys(*range(MIDNIGHT - HOUR, MIDNIGHT + 3 * HOUR, 200 * S))
    rows = compute(tmp_path, book, tape)
    assert len(rows) == 4
    for row in rows:
        unknown = ("log_return", "ofi", "mlofi", "signed_trade_vol", "ret_5s", "ret_900s", "rv_900s", "ofi_sum_900s")
        assert {row[name] for name in unknown} == {None}
        assert row["trade_age_s"] == (row["capture_ts"] - MIDNIGHT) / S % 200
        assert row["trade_count_900s"] == row["trade_vol_900s"] in (4.0, 5.0)
        assert row["book_history_s"] == 0.0
        assert row["row_id"] == 0
    assert [row["trade_history_s"] for row in rows] == [900.0] * 4


def test_sparse_snapshots_with_a_longer_staleness(tmp_path):
    """One an hour, and a day in which one is the previous of the next: a lookback of a day and more."""
    book = [touch(MIDNIGHT + k * HOUR + 1800 * S, 100 + k) for k in range(-3, 3)]
    tape = buys(*range(MIDNIGHT - 3 * HOUR, MIDNIGHT + 3 * HOUR, 200 * S))
    rows = compute(tmp_path, book, tape, config={"run": {"max_staleness": 86_400}})
    assert [row["signed_trade_vol"] for row in rows] == [None] + [18.0] * 5
    assert [row["book_history_s"] for row in rows] == [0.0] + [900.0] * 5


# ---- gaps across an hour's boundary


@pytest.mark.parametrize("boundary", [MIDNIGHT, MIDNIGHT + HOUR], ids=["midnight", "hour"])
@pytest.mark.parametrize(("gap", "known"), [(300 * S - 1, True), (300 * S, True), (300 * S + 1, False)])
def test_a_gap_of_the_book_across_the_hour_boundary(tmp_path, boundary, gap, known):
    """Just under max_staleness, exactly, and just over."""
    first = boundary - 100 * S
    book = [touch(first - S), touch(first, 101), touch(first + gap, 102, 5.0), touch(first + gap + S, 103)]
    rows = compute(tmp_path, book, buys(first - S, first + S, first + gap))
    row = at(rows, first + gap)
    assert (row["ofi"] == 6.0) == known  # 5 came at the bid, 1 went from the ask
    assert (row["signed_trade_vol"] == 2.0) == known
    assert {row[n] is not None for n in ("log_return", "ofi", "mlofi", "signed_trade_vol", "mid_velocity")} == {known}
    assert row["book_history_s"] == ((gap + S) / S if known else 0.0)
    assert (row["ret_5s"] is not None) == known
    assert row["rv_900s"] is not None  # windows are not reset
    assert at(rows, first + gap + S)["ofi"] is not None
    assert (at(rows, first + gap + S)["mid_accel"] is not None) == known


@pytest.mark.parametrize("boundary", [MIDNIGHT, MIDNIGHT + HOUR], ids=["midnight", "hour"])
@pytest.mark.parametrize(("gap", "alive"), [(300 * S - 1, True), (300 * S, True), (300 * S + 1, False)])
def test_a_gap_of_the_trades_across_the_hour_boundary(tmp_path, boundary, gap, alive):
    """Just under trades_max_gap, exactly, and just over: whether alive before, and where the history begins after."""
    last = boundary - 100 * S
    book = [touch(last + k * 50 * S, nonce=k) for k in range(-3, 6)]
    book += [touch(last + gap - 1), touch(last + gap, 101), touch(last + gap + S)]
    rows = compute(tmp_path, book, buys(last - 20 * S, last, last + gap + S))
    row = at(rows, last + gap)
    assert row["trade_age_s"] == (gap / S if alive else None)
    assert {row[name] is not None for name in ALIVE} == {alive}
    assert row["trade_vol_900s"] == (2.0 if alive else None)
    after = at(rows, last + gap + S)
    assert after["trade_history_s"] == 0.0  # gap + 1 s is over in each case
    assert after["trade_vol_900s"] == 3.0
    assert at(rows, last + 250 * S)["trade_history_s"] == 270.0


@pytest.mark.parametrize(("gap", "kept"), [(299, True), (300, True), (301, False)])
def test_the_history_of_trades_goes_on_over_a_gap_across_midnight(tmp_path, gap, kept):
    last = MIDNIGHT - 100 * S
    rows = compute(tmp_path, [touch(last + gap * S)], buys(last - 20 * S, last, last + gap * S))
    assert rows[0]["trade_history_s"] == (gap + 20 if kept else 0.0)


@pytest.mark.parametrize("gap", [2400, 4000])
def test_trades_alive_over_hours(tmp_path, gap):
    """A lane whose trades may be rare: the last one lies two hours back."""
    config = {"lanes": {"demo/A-B": {"trades_max_gap": gap}}}
    book = every_minute(MIDNIGHT - HOUR, MIDNIGHT + 2 * HOUR, 10 * MINUTE)
    rows = compute(tmp_path, book, buys(MIDNIGHT - 10 * MINUTE), config=config)
    for row in rows:
        age = (row["capture_ts"] - MIDNIGHT) / S + 600
        assert row["trade_age_s"] == (age if 0 <= age <= gap else None)


# ---- beginnings


def test_the_first_hour_of_a_lane(tmp_path):
    """No past, and none is asked for: the same whether hours before exist for other lanes or not."""
    rows = compute(tmp_path, every_minute(MIDNIGHT, MIDNIGHT + HOUR), buys(MIDNIGHT, MIDNIGHT + 90 * S))
    first = rows[0]
    assert (first["row_id"], first["book_history_s"], first["trade_history_s"]) == (0, 0.0, 0.0)
    assert {first[n] for n in ("log_return", "ofi", "signed_trade_vol", "ofi_sum_900s", "rv_1s_900s")} == {None}
    assert first["trade_vol_900s"] == 1.0
    tapes.write(tmp_path, {("orderbook", "C-D"): every_minute(MIDNIGHT - HOUR, MIDNIGHT + HOUR)})
    tapes.write(tmp_path, {("trades", "C-D"): buys(MIDNIGHT - 1)})
    assert read(tapes.run_every_way(tmp_path)) == rows


def test_a_symbol_whose_trades_start_later_than_its_book(tmp_path):
    begin = MIDNIGHT + HOUR + 90 * S
    tape = buys(*range(begin, MIDNIGHT + 2 * HOUR, 100 * S))
    rows = compute(tmp_path, every_minute(MIDNIGHT - HOUR, MIDNIGHT + 2 * HOUR), tape)
    for row in rows:
        known = row["capture_ts"] >= begin
        assert {row[name] is not None for name in ALIVE} == {known}
        if known:
            assert row["trade_history_s"] == min(900.0, (row["capture_ts"] - begin) / S)
    assert sum(row["signed_trade_vol"] or 0 for row in rows) == sum(one["capture_ts"] <= MIDNIGHT + 2 * HOUR - MINUTE
                                                                    for one in tape)  # fmt: skip


def test_a_symbol_whose_trades_start_before_its_book(tmp_path):
    rows = compute(tmp_path, every_minute(MIDNIGHT, MIDNIGHT + HOUR), buys(*range(MIDNIGHT - HOUR, MIDNIGHT, 60 * S)))
    assert rows[0]["trade_history_s"] == 900.0
    assert rows[0]["trade_count_900s"] == 14  # (t - 900 s, t]
    assert rows[0]["signed_trade_vol"] is None


def test_a_lane_without_trades(tmp_path):
    tapes.write(tmp_path, {BOOK: every_minute(MIDNIGHT, MIDNIGHT + HOUR)})
    rows = read(tapes.run_every_way(tmp_path))
    assert {row[name] for row in rows for name in ALIVE} == {None}


# ---- whose trade it is


def test_a_trade_at_exactly_a_snapshots_time(tmp_path):
    """It is that snapshot's: also where both stand at the first instant of an hour or a day."""
    times = [t for k in (0, HOUR) for t in (MIDNIGHT + k - S, MIDNIGHT + k, MIDNIGHT + k + S)]
    book = [touch(t, 100 + i) for i, t in enumerate(times)]
    tape = [trade(t, 2.0**i) for i, t in enumerate(times)]
    rows = compute(tmp_path, book, tape)
    assert [row["trade_age_s"] for row in rows] == [0.0] * 6
    assert [row["signed_trade_vol"] for row in rows] == [None, 2.0, 4.0, None, 16.0, 32.0]
    assert [row["trade_vol_5s"] for row in rows] == [1.0, 3.0, 7.0, 8.0, 24.0, 56.0]


@pytest.mark.parametrize("boundary", [MIDNIGHT, MIDNIGHT + HOUR], ids=["midnight", "hour"])
def test_trades_after_the_last_snapshot_of_an_hour_are_the_next_hours(tmp_path, boundary):
    """None lost, none counted twice."""
    book = [touch(boundary + k * S, 100 + k, nonce=k) for k in (-20, -10, 10, 20)]
    tape = [trade(boundary + e, 2.0**i, trade_id=str(i)) for i, e in enumerate((-12 * S, -5 * S, -1, 0, 1, 10 * S))]
    rows = compute(tmp_path, book, tape)
    assert [row["signed_trade_vol"] for row in rows] == [None, 1.0, 2.0 + 4 + 8 + 16 + 32, 0.0]
    assert [row["trade_vol_15s"] for row in rows] == [None, 1.0, 60.0, 32.0]
    assert sum(row["signed_trade_vol"] or 0 for row in rows) == sum(one["amount"] for one in tape)


def test_trades_at_file_boundaries(tmp_path):
    """Trades cut into files anywhere, also between two of one time, and repeated across files."""
    book = [touch(MIDNIGHT + k * 10 * S, 100 + k) for k in range(-6, 7)]
    tape = [trade(MIDNIGHT + k * 2 * S, 1.0, trade_id=str(k)) for k in range(-30, 30)]
    tape = sorted([*tape, *({**one, "trade_id": f"b{i}"} for i, one in enumerate(tape))], key=lambda r: r["capture_ts"])
    one = compute(tmp_path / "one", book, tape)
    for name, cut in (("odd", 7), ("alone", 1)):
        lake = tapes.write(tmp_path / name, {BOOK: book})
        for i, begin in enumerate(range(0, len(tape), cut)):
            again = tape[max(0, begin - 2) : begin + cut]  # each file begins with the last trades of the one before
            tapes.write(lake, {TRADES: again}, name=f"{i:03d}.parquet")
        assert read(tapes.run_every_way(lake)) == one
    assert [row["signed_trade_vol"] for row in one] == [None] + [10.0] * 11 + [8.0]
    assert sum(row["signed_trade_vol"] for row in one[1:]) == len(
        [t for t in tape if t["capture_ts"] > MIDNIGHT - 60 * S]
    )


def test_a_trade_repeated_across_the_hour_boundary(tmp_path):
    """Within 300 s it is one trade, whichever hour is computed alone; after them it is another."""
    book = [touch(MIDNIGHT + k * 50 * S, 100 + k % 2) for k in range(-10, 10)]
    tape = [trade(MIDNIGHT + t * S, 2.0**i, trade_id="same") for i, t in enumerate((-100, 100, 401, 702))]
    rows = compute(tmp_path, book, tape)
    assert sum(row["signed_trade_vol"] or 0 for row in rows) == 1.0 + 4.0
    assert [row["amount"] for row in read(tmp_path / "whole", "trades")] == [1.0, 4.0, 8.0]


def test_a_repeated_trade_where_nothing_else_looks_back(tmp_path):
    """The memory of trade ids reaches over the hour boundary, also where the features need no past at all."""
    tape = [trade(MIDNIGHT + t * S, 2.0**i, trade_id="same") for i, t in enumerate((-200, 100, 401))]
    tapes.write(tmp_path, {TRADES: tape})
    whole = tapes.run_every_way(tmp_path, features=["trade_values", "mid_price"])
    assert [row["signed_volume"] for row in read(whole, "trades")] == [1.0, 4.0]


def test_a_repeated_trade_at_the_far_end_of_the_lookback(tmp_path):
    """Its first coming lies before all that the features need: the gap behind it is a gap all the same."""
    times = (-1250, -1000, -710, -420, -130)
    tape = [trade(MIDNIGHT + t * S, trade_id="same" if t <= -1000 else str(t)) for t in times]
    rows = compute(tmp_path, [touch(MIDNIGHT)], tape, features=["mid_price"])
    assert [row["trade_history_s"] for row in rows] == [710.0]


def test_buckets_of_volume_over_midnight(tmp_path):
    """VPIN needs the whole day and the day before; an hour alone reads so far back."""
    book = every_minute(MIDNIGHT - 26 * HOUR, MIDNIGHT + 2 * HOUR, 30 * MINUTE)
    tape = [
        trade(t, 1.0 + i % 3, ("buy", "sell", "buy", None)[i % 4])
        for i, t in enumerate(range(MIDNIGHT - 26 * HOUR, MIDNIGHT + 2 * HOUR, 4 * MINUTE))
    ]
    config = {"features": {"vpin": {"bucket_volume": 7.5, "window": 400, "min_buckets": 1}}}
    rows = compute(tmp_path, book, tape, config=config, features=["vpin", "trade_clock"])
    last = [row["vpin_buckets"] for row in rows]
    days = [row["capture_ts"] // (24 * HOUR) for row in rows]
    assert max(last) > 90
    assert all(b >= a for a, b, c, d in zip(last, last[1:], days, days[1:], strict=False) if c == d)
    assert last[days.index(days[-1])] < max(last)  # at the second midnight the first day has gone
