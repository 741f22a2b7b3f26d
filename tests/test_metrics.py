"""``/metrics`` and ``/healthz`` of the watcher."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest
from faults.delivery import FIRST, World, cycle, deliver
from lakes import HOUR, SECOND

from tickstate.runners.metrics import Metrics
from tickstate.runners.run import Silent

FEATURES = ("mid_price",)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("metrics"), hours=2, seconds=600, features=FEATURES)


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def values(text):
    """{name{labels}: value} of a page of metrics."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}


BOOK = 'channel="orderbook",exchange="demo",symbol="A-B"'


def test_what_it_says(world):
    lake = world.place("says")
    mine = [p for p in world.pieces if "orderbook" in str(p.relative)]
    for piece in mine[:-3]:
        deliver(piece, lake / "bronze")
    broken = (lake / "bronze" / mine[0].relative).with_name("broken.parquet")
    broken.write_bytes(b"PAR1 no more")
    now = mine[-4].time + 60 * SECOND
    metrics = Metrics(Silent(), stale_after=60)
    watcher = world.watcher(lake, [now], grace=30.0, observer=metrics)
    began = time.time()
    cycle(watcher)
    cycle(watcher)
    watcher.close()
    with metrics.served(0) as port:
        assert port > 0
        status, text = get(port, "/metrics")
        assert status == 200
        assert get(port, "/healthz") == (200, "ok\n")
        assert get(port, "/other")[0] == 404
    found = values(text)
    assert found['tickstate_segments{channel="orderbook"}'] == len(mine) - 3 + 1
    assert found["tickstate_quarantined_files"] == 1
    assert found['tickstate_partitions_total{channel="orderbook",outcome="computed"}'] >= 2
    assert found[f"tickstate_lag_seconds{{{BOOK}}}"] == pytest.approx(30.0, abs=1e-5), "now - grace is complete"
    assert began - 1 <= found["tickstate_last_commit_timestamp_seconds"] <= time.time()
    assert found[f"tickstate_rows{{{BOOK}}}"] > 0


class Clocked:
    """A watcher with metrics over a lake that is open at `now`."""

    def __init__(self, world, name, **pace):
        self.world, self.lake, self.clock = world, world.place(name), [0]
        self.mine = [p for p in world.pieces if "orderbook" in str(p.relative)]
        self.metrics = Metrics(Silent(), stale_after=60)
        self.watcher = world.watcher(self.lake, self.clock, grace=30.0, observer=self.metrics, **pace)

    def deliver(self, pieces):
        for piece in pieces:
            deliver(piece, self.lake / "bronze")
            self.clock[0] = piece.time + 60 * SECOND

    def lag(self):
        from prometheus_client import generate_latest

        return values(generate_latest(self.metrics.registry).decode())[f"tickstate_lag_seconds{{{BOOK}}}"]


def test_lag_while_an_open_hour_rests(world):
    """--refresh leaves the hour alone for a while: the lag grows by that, not to the hour before."""
    lane = Clocked(world, "rests", refresh=600.0)
    lane.deliver(lane.mine[:8])
    cycle(lane.watcher)
    assert lane.clock[0] > (FIRST + 1) * HOUR + 300 * SECOND
    assert lane.lag() == pytest.approx(30, abs=1)
    lane.clock[0] += 20 * SECOND
    cycle(lane.watcher)
    lane.watcher.close()
    assert lane.lag() == pytest.approx(50, abs=21)


def test_lag_of_a_lane_that_fails(world, monkeypatch):
    """What is not in silver is behind, however often it was planned."""
    lane = Clocked(world, "fails")
    lane.deliver(lane.mine[:7])
    cycle(lane.watcher)
    lane.deliver(lane.mine[7:9])

    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tickstate.runners.executor.writing", fail)
    for _ in range(2):
        cycle(lane.watcher, fails=True)
    lane.watcher.close()
    assert lane.watcher.summary.failed
    assert lane.lag() > 600


def test_healthz_says_when_no_cycle_comes(world):
    metrics = Metrics(Silent(), stale_after=0.05)
    with metrics.served(0) as port:
        time.sleep(0.1)
        assert get(port, "/healthz") == (503, "no cycle lately\n")
    with pytest.raises(urllib.error.URLError):
        get(port, "/healthz")


def test_a_long_cycle_that_makes_partitions_is_alive(world):
    """Catching up on a year is one cycle of hours: killing it for want of health would never let it end."""
    lake, states = world.place("long"), []
    for piece in world.pieces:
        deliver(piece, lake / "bronze")

    class Slow(Silent):
        def finished(self, outcome):
            time.sleep(0.15)
            states.append(metrics.is_healthy())

    metrics = Metrics(Slow(), stale_after=0.4)
    slow = world.watcher(lake, [(FIRST + 100) * HOUR], observer=metrics)
    cycle(slow)
    slow.close()
    assert states == [True] * 4


def test_from_the_command_line(world):
    lake = world.place("cli")
    deliver(world.pieces[0], lake / "bronze")
    command = [sys.executable, "-c", "from tickstate.runners.cli import main; main()", "run", "--runner", "watcher"]
    command += ["--bronze", lake / "bronze", "--silver", lake / "silver", "--poll", "0.1", "--metrics-port", "0"]
    with subprocess.Popen(
        [*command, "--feature", "mid_price"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        line = process.stderr.readline()
        assert line.startswith("metrics on http://127.0.0.1:")
        port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        until = time.monotonic() + 60
        found = {}
        while not found.get("tickstate_last_commit_timestamp_seconds"):
            assert time.monotonic() < until
            time.sleep(0.1)
            found = values(get(port, "/metrics")[1])
        assert get(port, "/healthz")[0] == 200
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == 0
