"""Features in a notebook: read a bronze hour, compute in memory, look at it with polars.

Run ``features run --demo`` first, or say where that lake is: ``python examples/notebook.py [LAKE]``. The cells
(``# %%``) run one by one in editors that know them. The demo lake is synthetic: it says nothing about any market.
"""

# %% an hour of order books, as it was recorded
import sys

import polars as pl

import tickstate

lake = sys.argv[1] if len(sys.argv) > 1 else "demo-lake"
bronze = tickstate.scan(f"{lake}/bronze", "orderbook", exchange="alpha", symbol="BTC-USDT", end="2024-03-01T23")
books = bronze.to_table()
print(f"{books.num_rows:,} order books")

# %% the features to look at; what they are computed from comes along by itself
table = tickstate.compute(books, ["top_of_book", "depth_imbalance", "ofi_sum"])
rows = pl.from_arrow(table)
print(rows.group_by("book_flag").len().sort("book_flag"))

# %% valid rows only: does order flow of the last minute lean the way the mid goes in the next?
minute = pl.duration(minutes=1)
valid = rows.filter(book_flag="ok").select("capture_ts", "mid_price", "depth_imbalance_5", "ofi_sum_60s")
later = valid.select(pl.col("capture_ts") - minute, next_mid="mid_price")
joined = (
    valid.join_asof(later, on="capture_ts")  # the last mid known one minute later
    .filter(pl.col("capture_ts") <= pl.col("capture_ts").max() - minute)
    .with_columns(next_return=(pl.col("next_mid") / pl.col("mid_price")).log())
)
print(joined.select(pl.corr(name, "next_return").alias(name) for name in ("ofi_sum_60s", "depth_imbalance_5")))

# %% the numbers of the run, bit for bit
names = ["row_id", "mid_price", "depth_imbalance_5", "ofi_sum_60s"]
silver = tickstate.scan(f"{lake}/silver", exchange="alpha", symbol="BTC-USDT", end="2024-03-01T23")
assert rows.select(names).equals(pl.from_arrow(silver.to_table(columns=names)))
print("the run wrote the same numbers")
