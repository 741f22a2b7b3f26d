"""Real data against the reference values of ../shared/expected, to the accuracy of FEATURES.md section 1."""

import tomllib
from pathlib import Path

import lakes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lakes import assert_close, columns_of, tolerances

import tickstate

SHARED = Path(__file__).parents[1].parent / "shared"
LANES = ("binance/BTC-USDT", "binancecoinm/BTC-USD")
ROWS = {
    ("orderbook", LANES[0]): 6_492, ("orderbook", LANES[1]): 44_770,
    ("trades", LANES[0]): 19_904, ("trades", LANES[1]): 5_235,
    ("ticker", LANES[0]): 73_174, ("ticker", LANES[1]): 48_355,
}  # fmt: skip
"""Rows of bronze, DATA.md; equal rows among them are dropped."""

pytestmark = pytest.mark.skipif(
    not (SHARED / "expected" / "orderbook").is_dir(), reason=f"no reference data: {SHARED} is absent"
)


def read_bronze(channel, lane):
    exchange, symbol = lane.split("/")
    folder = SHARED / "bronze" / channel / f"exchange={exchange}" / f"symbol={symbol}"
    return pa.concat_tables([pq.read_table(path, partitioning=None) for path in sorted(folder.rglob("*.parquet"))])


def expected_of(channel, lane):
    return pq.read_table(SHARED / "expected" / channel / f"{lane.replace('/', '_')}.parquet")


def keys_of(table):
    return list(zip(table["capture_ts"].cast(pa.int64()).to_pylist(), table["timestamp"].to_pylist(), strict=True))


@pytest.fixture(scope="module", params=ROWS, ids="-".join)
def compared(request):
    """(channel, all rows that the library made, its row of each expected one, expected, tolerances)."""
    channel, lane = request.param
    bronze, options, trades = read_bronze(channel, lane), {"channel": channel}, None
    options["config"] = tomllib.loads((SHARED / "expected" / "features.toml").read_text())
    if channel == "orderbook":
        tape = read_bronze("trades", lane)
        in_order = np.argsort(np.asarray(tape["capture_ts"].cast(pa.int64())), kind="stable")
        trades = [np.asarray(tape[name].cast(kind))[in_order] for name, kind in lakes.TAPE_TYPES.items()]
        options["trades"] = tape
    got = tickstate.compute(bronze, **options)
    assert 0.9 * ROWS[request.param] < got.num_rows <= ROWS[request.param] == bronze.num_rows
    columns = columns_of(got)
    if channel == "orderbook":
        columns |= columns_of(tickstate.compute(bronze, "levels", config=options["config"]))
    numbers = {name: values for name, values in columns.items() if not isinstance(values, list)}
    allowed = tolerances(numbers, np.asarray(got["capture_ts"].cast(pa.int64())), trades=trades)
    expected, rows = expected_of(channel, lane), {}
    for i, key in enumerate(keys_of(got)):
        rows.setdefault(key, []).append(i)
    found = [rows[key] for key in keys_of(expected)]
    once = [len(places) == 1 for places in found]  # of the tape, some reference rows are not alone in their time
    assert all(once) or channel != "orderbook"
    return channel, got, np.array([f[0] for f in found if len(f) == 1]), expected.filter(pa.array(once)), allowed


def made_columns(channel):
    """What the library makes, from its registry."""
    return {name for feature in lakes.features_of(channel).values() for name in feature.names}


def test_every_column_agrees(compared):
    channel, got, rows, expected, allowed = compared
    assert len(rows) >= 300
    wrong, common = [], [name for name in expected.column_names if name in got.column_names]
    for name in common:
        here, want = got[name].take(pa.array(rows)), expected[name]
        if not pa.types.is_floating(want.type):
            if here.to_pylist() != want.to_pylist():
                wrong.append(f"{name}: not the same")
            continue
        try:
            assert_close(name, lakes.floats(here), lakes.floats(want), allowed[name][rows])
        except AssertionError as error:
            wrong.append(str(error))
    assert not wrong, "\n".join(wrong)
    assert made_columns(channel) & set(expected.column_names) <= set(common)
    assert "latency_ms" in common


def test_values_are_there_to_compare(compared):
    """A column of nulls proves little: only bands too far out, and returns longer than the rows, may be."""
    expected = compared[3]
    empty = [name for name in expected.column_names if expected[name].null_count == expected.num_rows]
    assert all("_band_" in name or name in ("ret_300s", "ret_900s") for name in empty), empty


@pytest.mark.parametrize("channel", ["orderbook", "trades", "ticker"])
def test_no_expected_column_is_missing(channel):
    """Every expected column is passed through or made; what the library lacks is listed here."""
    expected = set().union(*(expected_of(channel, lane).column_names for lane in LANES))
    passed = set(tickstate.compute(read_bronze(channel, LANES[0]).slice(0, 0), channel=channel).column_names)
    assert not expected - made_columns(channel) - passed
