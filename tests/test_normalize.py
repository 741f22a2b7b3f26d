"""`normalize_quotes`, `prefer`, `trades_symbol` (FEATURES.md 6): which lanes are one, which never mix."""

import lakes
import pytest
import tapes
from lakes import HOUR, MIDNIGHT, SECOND
from tapes import read, touch, trade

import tickstate
from tickstate.lake.listing import STABLECOINS, canonical_symbol

S = SECOND
ON = {"run": {"normalize_quotes": True}}


def prefer(*quotes):
    return {"run": {"normalize_quotes": True, "prefer": list(quotes)}}


def lanes_of(silver, channel="orderbook"):
    return sorted(p.name.partition("=")[2] for p in (silver / channel).glob("exchange=*/symbol=*"))


# ---- names


@pytest.mark.parametrize("coin", STABLECOINS)
def test_stablecoins_count_as_usd(coin):
    assert canonical_symbol(f"BTC-{coin}") == "BTC-USD"


def test_the_stablecoins_are_those_of_the_page():
    assert {*STABLECOINS} == {*["USDC", "USDT", "BUSD", "DAI", "TUSD", "GUSD", "USDP", "PYUSD", "FRAX", "LUSD"]}


@pytest.mark.parametrize("symbol", ["BTC-USD", "USDT-BTC", "USDC-EUR", "BTC-EUR", "BTCUSDT", "USDT", "BTC-usdt", "A-"])
def test_other_symbols_stay(symbol):
    assert canonical_symbol(symbol) == symbol


def test_only_the_quote_counts():
    assert canonical_symbol("USDC-USDT") == "USDC-USD"
    assert canonical_symbol("BTC-PERP-USDT") == "BTC-PERP-USD"


# ---- trades are merged


def test_trades_are_merged_in_the_contracts_order(tmp_path):
    """By capture_ts, timestamp, then path: USD before USDC before USDT. Ids that coincide are of different trades."""
    t, e = MIDNIGHT + S, (MIDNIGHT + S) // 1000
    tape = {
        ("trades", "BTC-USDT"): [trade(t, 1.0, trade_id="1"), trade(t, 2.0, trade_id="2", timestamp=e - 9),
                                 trade(t + S, 4.0, trade_id="3"), trade(t + 2 * S, 8.0, trade_id="3")],
        ("trades", "BTC-USDC"): [trade(t, 16.0, trade_id="1"), trade(t + S // 2, 32.0, trade_id="2"),
                                 trade(t + S, 64.0, trade_id="3")],
        ("trades", "BTC-USD"): [trade(t, 128.0, trade_id="1")],
    }  # fmt: skip
    lake = tapes.write(tmp_path, tape)
    whole = tapes.run_every_way(lake, config=ON)
    rows = read(whole, "trades", "BTC-USD")
    assert [row["amount"] for row in rows] == [2.0, 128.0, 16.0, 1.0, 32.0, 64.0, 4.0]
    assert lanes_of(whole, "trades") == ["BTC-USD"]
    assert {row["symbol"] for row in rows} == {"BTC-USD"}
    assert [row["row_id"] for row in rows] == [*range(7)]
    assert rows[-1]["volume_60s"] == 247.0
    assert tapes.record(whole, MIDNIGHT, "trades", "BTC-USD")["counters"]["duplicates"] == 1  # 3 again, of BTC-USDT


def test_an_hour_in_which_only_one_of_them_traded(tmp_path):
    tape = {
        ("trades", "BTC-USDT"): [trade(MIDNIGHT + k * HOUR - S, 2.0**k) for k in range(3)],
        ("trades", "BTC-USDC"): [trade(MIDNIGHT + HOUR, 8.0)],
    }
    whole = tapes.run_every_way(tapes.write(tmp_path, tape), config=ON)
    assert [row["amount"] for row in read(whole, "trades", "BTC-USD")] == [1.0, 2.0, 8.0, 4.0]


def test_merged_trades_are_joined_to_the_book(tmp_path):
    found = {
        ("orderbook", "BTC-USDT"): [touch(MIDNIGHT + k * S, 100 + k) for k in range(4)],
        ("trades", "BTC-USDT"): [trade(MIDNIGHT + S, 1.0, trade_id="1"), trade(MIDNIGHT + 2 * S, 2.0, trade_id="2")],
        ("trades", "BTC-DAI"): [trade(MIDNIGHT + S, 4.0, "sell", "1"), trade(MIDNIGHT + 3 * S, 8.0, "sell", "2")],
    }
    whole = tapes.run_every_way(tapes.write(tmp_path, found), config=ON)
    assert lanes_of(whole) == ["BTC-USD"]
    rows = read(whole, symbol="BTC-USD")
    assert {row["symbol"] for row in rows} == {"BTC-USD"}
    assert [row["signed_trade_vol"] for row in rows] == [None, -3.0, 2.0, -8.0]


def test_exchanges_are_apart(tmp_path):
    for exchange, amount in (("one", 1.0), ("two", 2.0)):
        tapes.write(tmp_path, {("trades", "BTC-USDT"): [trade(MIDNIGHT, amount)]}, exchange)
    tapes.run(tmp_path, config=ON)
    for exchange, amount in (("one", 1.0), ("two", 2.0)):
        assert [r["amount"] for r in read(tmp_path / "silver", "trades", "BTC-USD", exchange=exchange)] == [amount]


def test_facts_of_the_canonical_lane(tmp_path):
    tape = {("trades", "BTC-USDT"): [trade(MIDNIGHT, 2.0, price=50.0)], ("trades", "BTC-USDC"): [trade(MIDNIGHT + S)]}
    config = {**ON, "lanes": {"demo/BTC-USD": {"contract_size": 10}}}
    tapes.run(tapes.write(tmp_path, tape), config=config)
    assert read(tmp_path / "silver", "trades", "BTC-USD")[0]["quote_volume"] == 1000.0


# ---- books and tickers are not


def colliding(channel):
    make = touch if channel == "orderbook" else tapes.quote
    return {
        (channel, "BTC-USDC"): [make(MIDNIGHT + k * S) for k in range(2)],
        (channel, "BTC-USDT"): [make(MIDNIGHT + k * S) for k in range(3)],
        (channel, "ETH-USDT"): [make(MIDNIGHT)],
    }


@pytest.mark.parametrize("channel", ["orderbook", "ticker"])
@pytest.mark.parametrize("config", [ON, prefer("USD", "DAI")], ids=["none preferred", "others preferred"])
def test_two_that_become_equal_are_an_error_that_names_them(tmp_path, channel, config):
    lake = tapes.write(tmp_path, colliding(channel))
    with pytest.raises(tickstate.TickstateError) as caught:
        tapes.run(lake, config=config)
    text = str(caught.value)
    for part in ("demo/BTC-USDC", "demo/BTC-USDT", "demo/BTC-USD", channel, "prefer"):
        assert part in text
    assert "ETH" not in text
    assert not (lake / "silver").exists()


@pytest.mark.parametrize("channel", ["orderbook", "ticker"])
@pytest.mark.parametrize(
    ("quotes", "rows"), [(("USD", "USDT"), 3), (("USDC", "USDT"), 2), (("USDT", "USDC"), 3), (("DAI", "USDC"), 2)]
)
def test_prefer_picks_one(tmp_path, channel, quotes, rows):
    lake = tapes.write(tmp_path, colliding(channel))
    tapes.run(lake, config=prefer(*quotes))
    assert lanes_of(lake / "silver", channel) == ["BTC-USD", "ETH-USD"]
    found = read(lake / "silver", channel, "BTC-USD")
    assert len(found) == rows
    assert {row["symbol"] for row in found} == {"BTC-USD"}


def test_prefer_picks_one_for_all_hours(tmp_path):
    """Never the other where the one is missing: the basis between quotes would look like flow."""
    found = {
        ("orderbook", "BTC-USDT"): [touch(MIDNIGHT - S), touch(MIDNIGHT + S)],
        ("orderbook", "BTC-USDC"): [touch(MIDNIGHT + S), touch(MIDNIGHT + HOUR)],
    }
    lake = tapes.write(tmp_path, found)
    tapes.run(lake, config=prefer("USDT"))
    times = [row["capture_ts"] for row in read(lake / "silver", symbol="BTC-USD")]
    assert times == [MIDNIGHT - S, MIDNIGHT + S]


def test_prefer_does_not_choose_among_trades(tmp_path):
    tape = {("trades", f"BTC-{q}"): [trade(MIDNIGHT, 1.0, trade_id="1")] for q in ("USDC", "USDT")}
    lake = tapes.write(tmp_path, tape | {("orderbook", "BTC-USDT"): [touch(MIDNIGHT)]})
    tapes.run(lake, config=prefer("USDT"))
    assert read(lake / "silver", symbol="BTC-USD")[0]["trade_vol_5s"] == 2.0


def test_another_preference_makes_partitions_stale(tmp_path):
    lake = tapes.write(tmp_path, colliding("orderbook"))
    tapes.run(lake, config=prefer("USDT"))
    assert tapes.run(lake, config=prefer("USDT", "USDC")).computed == []
    assert [str(o) for o in tapes.run(lake, config=prefer("USDC", "USDT")).computed] == [
        "orderbook demo/BTC-USD 2024-08-09T00"
    ]
    assert len(read(lake / "silver", symbol="BTC-USD")) == 2


# ---- off


def test_off_they_never_mix(tmp_path):
    found = {
        ("orderbook", "BTC-USD"): [touch(MIDNIGHT + k * S) for k in range(3)],
        ("trades", "BTC-USDT"): [trade(MIDNIGHT + S)],
    }
    lake = tapes.write(tmp_path, colliding("orderbook") | found)
    tapes.run(lake)
    assert lanes_of(lake / "silver") == ["BTC-USD", "BTC-USDC", "BTC-USDT", "ETH-USDT"]
    assert lanes_of(lake / "silver", "trades") == ["BTC-USDT"]
    for symbol, known in (("BTC-USD", False), ("BTC-USDC", False), ("BTC-USDT", True)):
        rows = read(lake / "silver", symbol=symbol)
        assert {row["symbol"] for row in rows} == {symbol}
        assert (rows[-1]["trade_age_s"] is not None) == known


def test_turned_on_it_is_another_lane_and_turned_off_nothing_changed(tmp_path):
    lake = tapes.write(
        tmp_path, {("orderbook", "BTC-USD"): [touch(MIDNIGHT)], ("trades", "BTC-USDT"): [trade(MIDNIGHT)]}
    )
    tapes.run(lake)
    assert read(lake / "silver", symbol="BTC-USD")[0]["trade_age_s"] is None
    assert len(tapes.run(lake, config=ON).computed) == 2  # the book's partition is stale: other trades are its own
    assert read(lake / "silver", symbol="BTC-USD")[0]["trade_age_s"] == 0.0
    assert [o.channel for o in tapes.run(lake).computed] == ["orderbook"]
    assert read(lake / "silver", symbol="BTC-USD")[0]["trade_age_s"] is None


def test_prefer_alone_is_an_error():
    with pytest.raises(tickstate.TickstateError, match="prefer without normalize_quotes"):
        tickstate.compute(lakes.book_table([touch(MIDNIGHT)]), config={"run": {"prefer": ["USD"]}})


@pytest.mark.parametrize(
    "run", [{"normalize_quotes": "yes"}, {"normalize_quotes": True, "prefer": "USD"}, {"prefers": 1}]
)
def test_a_bad_value_is_an_error(run):
    with pytest.raises(tickstate.TickstateError, match=r"normalize_quotes|prefer"):
        tickstate.compute(lakes.book_table([touch(MIDNIGHT)]), config={"run": run})


# ---- the selection, with canonical names


def test_symbols_are_selected_by_their_canonical_name(tmp_path):
    lake = tapes.write(tmp_path, colliding("orderbook"))
    tapes.run(lake, config=prefer("USDT"), symbol="ETH-USD")
    assert lanes_of(lake / "silver") == ["ETH-USD"]
    with pytest.raises(tickstate.TickstateError, match="ETH-USDT"):
        tapes.run(lake, config=prefer("USDT"), symbol="ETH-USDT")


# ---- another symbol's trades


def with_trades_of(symbol):
    return {"lanes": {"demo/BTC-USD": {"trades_symbol": symbol}}}


def test_a_book_with_another_symbols_trades(tmp_path):
    found = {
        ("orderbook", "BTC-USD"): [touch(MIDNIGHT - S + k * S, 100 + k) for k in range(3)],
        ("orderbook", "BTC-USDT"): [touch(MIDNIGHT - S + k * S, 100 + k) for k in range(3)],
        ("trades", "BTC-USD"): [trade(MIDNIGHT - S, 1.0)],
        ("trades", "BTC-USDT"): [trade(MIDNIGHT - S // 2, 2.0), trade(MIDNIGHT, 4.0), trade(MIDNIGHT + S, 8.0)],
    }
    whole = tapes.run_every_way(tapes.write(tmp_path, found), config=with_trades_of("BTC-USDT"))
    assert [row["signed_trade_vol"] for row in read(whole, symbol="BTC-USD")] == [None, 6.0, 8.0]
    assert [row["signed_trade_vol"] for row in read(whole, symbol="BTC-USDT")] == [None, 6.0, 8.0]
    assert [row["amount"] for row in read(whole, "trades", "BTC-USD")] == [1.0]
    assert {row["symbol"] for row in read(whole, symbol="BTC-USD")} == {"BTC-USD"}


def test_the_trades_symbol_is_part_of_staleness(tmp_path):
    tape = [trade(MIDNIGHT, 2.0)]
    found = {("orderbook", "BTC-USD"): [touch(MIDNIGHT)], ("trades", "BTC-USDT"): tape, ("trades", "BTC-USDC"): tape}
    lake = tapes.write(tmp_path, found | {("orderbook", "ETH-USD"): [touch(MIDNIGHT)]})
    tapes.run(lake)
    for symbol in ("BTC-USDT", "BTC-USDC", "BTC-USD"):
        for count in (1, 0):
            summary = tapes.run(lake, config=with_trades_of(symbol))
            assert [str(o) for o in summary.computed] == ["orderbook demo/BTC-USD 2024-08-09T00"] * count
        age = read(lake / "silver", symbol="BTC-USD")[0]["trade_age_s"]
        assert age == (None if symbol == "BTC-USD" else 0.0)
    tapes.run(lake, config=with_trades_of("BTC-USDT"))
    tapes.write(lake, {("trades", "BTC-USDT"): [*tape, trade(MIDNIGHT, 4.0)]})
    again = tapes.run(lake, config=with_trades_of("BTC-USDT")).computed
    assert sorted(str(o).rpartition(" ")[0] for o in again) == ["orderbook demo/BTC-USD", "trades demo/BTC-USDT"]
    assert read(lake / "silver", symbol="BTC-USD")[0]["trade_vol_5s"] == 6.0


@pytest.mark.parametrize("symbol", ["BTC-USDC", "BTC-USD"])
def test_the_trades_symbol_with_quotes_normalised(tmp_path, symbol):
    """Named as in bronze or by its canonical name, its trades are there: never null in silence."""
    found = {("orderbook", "ETH-USDT"): [touch(MIDNIGHT)], ("trades", "BTC-USDC"): [trade(MIDNIGHT)]}
    lake = tapes.write(tmp_path, found)
    tapes.run(lake, config={**ON, "lanes": {"demo/ETH-USD": {"trades_symbol": symbol}}})
    assert read(lake / "silver", symbol="ETH-USD")[0]["trade_age_s"] == 0.0


def test_a_trades_symbol_must_be_a_text():
    with pytest.raises(tickstate.TickstateError, match="trades_symbol"):
        tickstate.compute(lakes.book_table([touch(MIDNIGHT)]), config={"lanes": {"a/b": {"trades_symbol": 3}}})


# ---- in memory


def test_in_memory_as_in_a_lake(tmp_path):
    """compute gives the rows that run would write."""
    book = [touch(MIDNIGHT + k * S, 100 + k) for k in range(3)]
    tape = [trade(MIDNIGHT + S, 1.0, trade_id="1")]
    lake = tapes.write(tmp_path, {("orderbook", "BTC-USDT"): book, ("trades", "BTC-USDC"): tape})
    tapes.run(lake, config=ON)
    tables = lakes.book_table(book, symbol="BTC-USDT"), lakes.bronze_table("trades", tape, symbol="BTC-USDC")
    table = tickstate.compute(tables[0], trades=tables[1], config=ON)
    assert tapes.to_rows(table) == read(lake / "silver", symbol="BTC-USD")


def test_in_memory_another_symbols_trades():
    book = lakes.book_table([touch(MIDNIGHT)], symbol="BTC-USD")
    tape = lakes.bronze_table("trades", [trade(MIDNIGHT)], symbol="BTC-USDT")
    for config, age in ((None, None), (with_trades_of("BTC-USDT"), 0.0)):
        assert tickstate.compute(book, "keys", trades=tape, config=config)["trade_age_s"].to_pylist() == [age]
