"""What a plan asks of the file system: an ordered walk, and no question twice."""

from __future__ import annotations

import os
from pathlib import Path

import bronze

from tickstate.features.graph import DAY, build_graph
from tickstate.lake.store import DEEPEST, stat_of, walk

NAMES = ("a/x", "a/b/x", "a/b/c/x", "a/b-c/x", "a/b", "a/b0", "a-b/x", "a", "a0", "A/x", "é/x", "b=01/x", "b=1/x")
"""A folder's name ends in ``/``, which sorts behind ``-`` and before ``0``."""


def made(root, *names):
    for name in names:
        path = root / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return [f"{name}.parquet" for name in names]


def test_files_come_in_the_order_of_their_paths(tmp_path):
    names = made(tmp_path, *NAMES)
    found = list(walk(tmp_path))
    assert [relative for relative, *_ in found] == sorted(names)
    for relative, path, stat in found:
        assert path == str(tmp_path / relative)
        assert stat.st_size == len(relative.removesuffix(".parquet").encode())


def test_no_regular_file_has_no_stat(tmp_path):
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "loop.parquet").symlink_to("loop.parquet")
    (tmp_path / "symbol=LOOP").symlink_to("symbol=LOOP")  # it may be a folder: it is not passed over
    made(tmp_path, "file")
    assert {relative: stat is not None for relative, _, stat in walk(tmp_path)} == {
        "file.parquet": True, "loop.parquet": False, "pipe.parquet": False, "symbol=LOOP": False,
    }  # fmt: skip


def test_a_folder_that_cannot_be_listed_is_said(tmp_path, monkeypatch):
    made(tmp_path, "a/x", "b/x")
    scandir = os.scandir

    def denied(folder):
        if str(folder).endswith("/a"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", denied)
    assert [(relative, stat is None) for relative, _, stat in walk(tmp_path)] == [("a", True), ("b/x.parquet", False)]


def test_a_link_to_itself_is_no_file(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    assert stat_of(tmp_path / "loop") is None


def test_a_loop_of_folders_ends(tmp_path):
    made(tmp_path, "a/x")
    (tmp_path / "a/again").symlink_to(tmp_path / "a")
    depths = [relative.count("/") for relative, *_ in walk(tmp_path)]
    assert sorted(depths) == [*range(1, DEEPEST + 1)]


def test_a_plan_asks_once_after_an_output_and_once_after_its_record(tmp_path, monkeypatch):
    lake = bronze.make_lake(tmp_path / "lake", lanes=(bronze.ALPHA,), hours=4)
    assert bronze.run(lake, features="spread").exit_code == 0
    asked, stat = [], Path.stat

    def counted(path, **chosen):
        asked.append(path)
        return stat(path, **chosen)

    monkeypatch.setattr(Path, "stat", counted)
    assert bronze.run(lake, features="spread").up_to_date == 4
    outputs = [p for p in asked if p.suffix in (".parquet", ".json") and p.is_relative_to(lake / "silver")]
    assert len(outputs) == len(set(outputs)) == 2 * 4


def test_how_far_trades_reach_is_alike_every_day():
    graph = build_graph("orderbook", ("vpin", "log_return", "ofi_sum"))
    assert graph.joins
    for day in (0, 1, 19_750):
        for time in (0, 1, DAY // 3, DAY - 1):
            expected = min(graph._trades_since(f, day * DAY + time) for f in graph.features)
            assert graph.trades_since(day * DAY + time) == expected < day * DAY + time
