"""Runs on a bucket: the bytes of local runs, by every runner, through kills, faults and restarts."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import bronze
import pyarrow.parquet as pq
import pytest
from bronze import ALPHA, HOURS, SECOND, START
from faults.test_crash import DRIVER, Driver
from s3server import rule, tree, upload

import tickstate
from tickstate.lake import demo
from tickstate.lake.errors import StoreError
from tickstate.lake.store import place
from tickstate.runners import cli
from tickstate.runners.run import Silent
from tickstate.runners.selection import Selection
from tickstate.runners.watcher import Pace, Watcher

FEATURES = ("mid_price", "ofi_sum_60s")
REAL = Path(__file__).resolve().parents[2] / "shared/bronze"


@pytest.fixture
def bucket(s3):
    """The URI of a new bucket."""
    return f"s3://{s3.bucket()}"


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The tiny lake with gold, computed here."""
    lake = bronze.copy_tiny(tmp_path_factory.mktemp("reference") / "lake")
    assert bronze.run(lake, tier=None).exit_code == 0
    return lake


def tiers(lake):
    """Data, records and lists of silver and gold, here or in a bucket."""
    read = tree if isinstance(lake, str) else bronze.tree
    return {
        f"{tier}/{name}": data
        for tier in ("silver", "gold")
        for name, data in read(f"{lake}/{tier}" if isinstance(lake, str) else lake / tier).items()
    }


@pytest.mark.parametrize("runner", ["single", "batch"])
def test_a_bucket_gives_the_bytes_of_a_folder(bucket, reference, runner):
    lake = f"{bucket}/some/lake"
    upload(reference / "bronze", f"{lake}/bronze")
    summary = bronze.run(lake, tier=None, runner=runner, workers=2)
    assert (summary.exit_code, len(summary.computed)) == (0, 8 + 16)
    expected = tiers(reference)
    assert len(expected) == 48
    assert tiers(lake) == expected
    again = bronze.run(lake, tier=None, runner=runner, workers=2)
    assert (again.computed, again.up_to_date) == ([], 24)


def test_a_cluster_on_a_bucket_gives_the_bytes_of_a_folder(bucket, reference):
    """Places travel as URIs; each worker opens its own client."""
    upload(reference / "bronze", f"{bucket}/bronze")
    summary = bronze.run(bucket, tier=None, runner="batch", executor="dask", workers=2)
    assert (summary.exit_code, len(summary.computed)) == (0, 24)
    assert tiers(bucket) == tiers(reference)


def test_one_tier_here_and_one_there(bucket, reference, tmp_path):
    """Copies are the same lake: nothing is stale, wherever which tier lies."""
    upload(reference / "silver", f"{bucket}/silver")
    places = {"bronze": reference / "bronze", "silver": f"{bucket}/silver", "gold": tmp_path / "gold"}
    summary = tickstate.run(**places, runner="single")
    assert (len(summary.computed), summary.up_to_date) == (16, 8)
    assert bronze.tree(tmp_path / "gold") == bronze.tree(reference / "gold")


def test_a_second_plan_asks_little(s3, bucket, reference, monkeypatch):
    """Once files are older than half a minute: a listing of each channel, each record once a process, no other file."""
    monkeypatch.setattr("tickstate.lake.store.SETTLED_REMOTE", 0)
    monkeypatch.setattr("tickstate.lake.segment.SETTLED_REMOTE", 0)
    monkeypatch.setattr("tickstate.lake.remote.SETTLED_REMOTE", 0)
    lake = f"{bucket}/lake"
    upload(reference / "bronze", f"{lake}/bronze")
    upload(reference / "silver", f"{lake}/silver")
    s3.requests()
    assert bronze.run(lake).up_to_date == 8
    records = [r for r in s3.requests() if "_commits" in r and r.startswith("GET") and ".json" in r]
    assert len(records) == 8
    assert bronze.run(lake).up_to_date == 8
    asked = s3.requests()
    assert not [r for r in asked if ".parquet" in r or ("_commits" in r and ".json" in r)]
    listed = [r for r in asked if "list-type" in r and "max-keys=1000" in r]
    assert len([r for r in listed if "delimiter" not in r]) == 4, "orderbook, trades; data, records"
    assert len([r for r in listed if "delimiter" in r]) == 2, "whether bronze and silver have records"
    assert len(asked) < 30


def test_a_copy_whose_data_is_younger_is_read_once(s3, bucket, reference, monkeypatch):
    """Copying goes by name, records first; so data must show by its bytes that it is what they speak of."""
    for module in ("store", "segment", "remote"):
        monkeypatch.setattr(f"tickstate.lake.{module}.SETTLED_REMOTE", 0)
    lake = f"{bucket}/lake"
    upload(reference / "bronze", f"{lake}/bronze")
    for part in ("_commits", "orderbook", "orderbook_bars"):
        for tier in ("silver", "gold"):
            upload(reference / tier / part, f"{lake}/{tier}/{part}")
        time.sleep(1.1)
    reads = []
    for _ in range(3):
        s3.requests()
        assert bronze.run(lake, tier=None).up_to_date == 24
        reads.append(len([r for r in s3.requests() if r.startswith("GET") and "part-0.parquet" in r]))
    assert reads[0] >= 8 + 16
    assert reads[1:] == [0, 0]


class Pair:
    """A growing bronze here and in a bucket, and a watcher of each."""

    def __init__(self, folder, uri):
        self.folder, self.uri, self.clock = folder, uri, 0
        self.start()

    def start(self):
        def watcher(root):
            selection = Selection(root / "bronze", root / "silver", root / "gold", features=FEATURES)
            return Watcher(selection, Pace(grace=600.0), now=lambda: self.clock)

        self.watchers = [watcher(self.folder), watcher(place(self.uri))]

    def deliver(self, source, relative):
        target = self.folder / "bronze" / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
        (place(self.uri) / "bronze" / relative).upload(target)

    def cycle(self, now):
        self.clock = now
        found = [sorted(str(o) for o in w.cycle()) for w in self.watchers]
        assert found[0] == found[1]
        assert tiers(self.folder) == tiers(self.uri)
        return found[0]

    def close(self):
        for watcher in self.watchers:
            watcher.close()


def test_the_watcher_on_a_bucket_does_what_it_does_on_a_folder(bucket, tmp_path, monkeypatch):
    """Delivery by delivery: open hours, a restart from its state, a bad file and its mending, the end of the day."""
    monkeypatch.setattr("tickstate.lake.files.SETTLED", 1_000_000_000)  # the server has this machine's clock
    source = tmp_path / "source"
    paths = bronze.write_lane(source, bronze.walk(ALPHA, hours=3, rows=40), every=1800 * SECOND)
    (tmp_path / "here").mkdir()
    pair = Pair(tmp_path / "here", f"{bucket}/there")
    assert pair.cycle(START) == []
    seen = []
    for i, path in enumerate(paths):
        relative = path.relative_to(source)
        if i == 2:
            (tmp_path / "torn").write_bytes(b"PAR1")
            pair.deliver(tmp_path / "torn", relative)
            seen += pair.cycle(START + (i + 1) * 1800 * SECOND)
            assert [len(w.summary.quarantined) for w in pair.watchers] == [1, 1]
        pair.deliver(path, relative)
        seen += pair.cycle(START + (i + 1) * 1800 * SECOND)
        if i == 3:
            pair.close()
            pair.start()
    seen += pair.cycle(START + 48 * 3600 * SECOND)
    assert pair.cycle(START + 48 * 3600 * SECOND) == []
    pair.close()
    assert {s.rpartition(" ")[2] for s in seen if s.startswith("orderbook ")} == set(HOURS[:3])
    assert [w.summary.states_dropped for w in pair.watchers] == [0, 0]
    batch = bronze.make_lake(tmp_path / "batch", [ALPHA], hours=1, rows=4)
    shutil.rmtree(batch / "bronze")
    shutil.copytree(tmp_path / "here/bronze", batch / "bronze")
    bronze.run(batch, tier=None, features=FEATURES)
    assert bronze.parquet(batch / "silver") == bronze.parquet(tmp_path / "here/silver")


def test_the_watcher_lives_through_a_store_that_fails(s3, bucket, reference, impatient):
    upload(reference / "bronze", f"{bucket}/bronze")
    said = []

    class Listening(Silent):
        def noticed(self, text):
            said.append(text)
            s3.tell("rules")
            watcher.stop()

    selection = Selection(place(bucket) / "bronze", place(bucket) / "silver", features=FEATURES, tiers=("silver",))
    watcher = Watcher(selection, Pace(poll=0.01), Listening())
    with s3.rules(rule("GET", "", status=503, code="SlowDown")):
        watcher.run()
    assert [t.endswith("; trying again") for t in said] == [True]
    with s3.rules(rule("GET", "", status=503, code="SlowDown")):
        watcher = Watcher(selection, Pace(poll=0.01))  # a start waits for the store, as a cycle does
        with pytest.raises(StoreError):
            watcher.run(once=True)


# ---- kills


class World:
    """Two hours computed, then late rows and a broken file that make both stale; as often as asked, in a bucket."""

    def __init__(self, root, uri):
        lake = bronze.make_lake(root / "lake", [ALPHA], hours=2, rows=30)
        bronze.run(lake, features=FEATURES)
        self._old, self._lake, self._uri, self._count = root / "old", lake, uri, 0
        shutil.copytree(lake / "silver", self._old)
        late = START + 3500 * SECOND
        bronze.write(lake / "bronze", bronze.table([bronze.row(late + i, 480 + i) for i in range(3)]), "late.parquet")
        (bronze.bronze_folder(lake, ALPHA, HOURS[0]) / "broken.parquet").write_bytes(b"PAR1")
        bronze.run(lake, features=FEATURES)
        self.old, self.new = bronze.tree(self._old), bronze.tree(lake / "silver")
        assert [n for n in self.old if n.endswith(".parquet") and self.old[n] == self.new[n]] == []

    def lake(self):
        self._count += 1
        uri = f"{self._uri}/{self._count}"
        upload(self._lake / "bronze", f"{uri}/bronze")
        upload(self._old, f"{uri}/silver")
        return uri

    def check(self, lake, what):
        """What is there after a kill is old or new, a record's data never older than it; then the next run ends it."""
        left = tree(f"{lake}/silver")
        for name, data in left.items():
            assert data in (self.old.get(name), self.new[name]), f"{what}: {name} is neither old nor new"
            if name.endswith(".json") and data == self.new[name] != self.old.get(name) and "_commits" in name:
                part = f"{name.removeprefix('_commits/').removesuffix('.json')}/part-0.parquet"
                assert left[part] == self.new[part], f"{what}: a record before its data"
        summary = bronze.run(lake, features=FEATURES)
        assert (summary.failed, tree(f"{lake}/silver") == self.new) == ([], True), what
        assert bronze.run(lake, features=FEATURES).computed == [], what


@pytest.fixture(scope="module")
def world(s3, tmp_path_factory):
    return World(tmp_path_factory.mktemp("world"), f"s3://{s3.bucket()}")


POINTS = (
    *((f"{label}:{at}", n) for n in (1, 2) for label in ("data", "commit") for at in ("written", "replaced")),
    ("data:rows", 1), ("quarantine:written", 1), ("quarantine:replaced", 1),
)  # fmt: skip


def test_killed_at_the_steps_of_a_commit(world):
    lakes = [world.lake() for _ in POINTS]
    time.sleep(2)  # else each run waits until the records it replaces are that old
    driver = Driver()
    for lake, (step, occurrence) in zip(lakes, POINTS, strict=True):
        assert driver.single(lake, step, occurrence) == -signal.SIGKILL, f"{step} {occurrence} was not met"
        world.check(lake, f"killed at {step} {occurrence}")
    driver.close()


@pytest.mark.parametrize(("runner", "contains"), [("batch", "/silver/orderbook/"), ("single", "/silver/_commits/")])
def test_killed_while_it_uploads(s3, world, runner, contains):
    """Parent and workers at once, when the first byte of an upload is on its way."""
    lake = world.lake()
    time.sleep(2)
    with s3.rules(rule("PUT", contains, hold=True)):
        command = [sys.executable, DRIVER, lake, runner, *FEATURES]
        process = subprocess.Popen(command, start_new_session=True)
        deadline = time.monotonic() + 60
        while not s3.tell("held") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert s3.tell("held")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(0.3)
    world.check(lake, contains)


# ---- faults


def test_transient_errors_do_not_show(s3, bucket, reference):
    upload(reference / "bronze", f"{bucket}/bronze")
    methods = {"HEAD": 503, "GET": 500, "PUT": 503}
    with s3.rules(*[rule(m, "", status=s, code="SlowDown", every=9, times=6) for m, s in methods.items()]):
        summary = bronze.run(bucket)
    assert (summary.exit_code, len(summary.computed)) == (0, 8)
    assert tree(f"{bucket}/silver") == bronze.tree(reference / "silver")


def test_a_store_that_fails_fails_its_partitions_and_quarantines_nothing(s3, bucket, reference, impatient):
    """Reading and writing: the fault is said in one line, all else is done, and the next run does the rest."""
    upload(reference / "bronze", f"{bucket}/bronze")
    hour = "symbol=BTC-USDT/year=2024/month=3/day=2/hour=0/"
    bronze.run(bucket, start=HOURS[0], end=HOURS[1], symbol=ALPHA[1])
    with s3.rules(rule("PUT", f"silver/orderbook/exchange=alpha/{hour}", status=403, code="AccessDenied")):
        summary = bronze.run(bucket, features=FEATURES)
    assert [str(o) for o in summary.failed] == [f"orderbook alpha/BTC-USDT {HOURS[2]}"]
    assert "access denied in PutObject (as told); check the credentials" in summary.failed[0].error
    assert (summary.exit_code, summary.quarantined, len(summary.computed)) == (1, [], 6)
    closed = rule("GET", f"bronze/orderbook/exchange=alpha/{hour}", status=403, code="AccessDenied")
    with s3.rules(closed), pytest.raises(StoreError, match="access denied"):
        bronze.run(bucket, features=FEATURES)
    bronze.run(bucket)
    assert tree(f"{bucket}/silver") == bronze.tree(reference / "silver")


# ---- the command line and Python


def test_validate_parity_and_plan(bucket, reference):
    upload(reference, bucket)
    done = bronze.features("validate", "--lake", bucket)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "48 files checked, 0 breaches"), done.stderr
    done = bronze.features("parity", "--left", f"{bucket}/silver", "--right", reference / "silver")
    assert (done.returncode, done.stdout.endswith(" columns compared, 0 differ\n")) == (0, True), done.stderr
    done = bronze.features("plan", "--lake", bucket, "--json")
    assert (done.returncode, "no output" in done.stdout) == (0, False), done.stderr
    part = next(iter(n for n in bronze.tree(reference / "silver") if n.endswith(".parquet")))
    (place(bucket) / "silver" / part).upload(next((reference / "bronze").rglob("*.parquet")))
    done = bronze.features("validate", "--lake", bucket)
    assert (done.returncode, "not those that were committed" in done.stdout) == (1, True)


def test_runners_compared_on_a_bucket(bucket, tmp_path):
    lake = bronze.make_lake(tmp_path / "lake", [ALPHA], hours=1, rows=40)
    upload(lake / "bronze", f"{bucket}/bronze")
    done = bronze.features("parity", "--bronze", f"{bucket}/bronze", "--feature", "mid_price", timeout=200)
    assert (done.returncode, done.stdout.endswith(" differ\n")) == (0, True), done.stderr


def test_prune_and_scan(bucket, reference):
    upload(reference, bucket)
    table = tickstate.scan(f"{bucket}/silver", exchange="alpha", start=HOURS[1], end=HOURS[3]).to_table()
    assert table.equals(tickstate.scan(reference / "silver", exchange="alpha", start=HOURS[1], end=HOURS[3]).to_table())
    assert table.num_rows > 200
    bars = tickstate.scan(f"{bucket}/gold", "orderbook_bars/60s")
    assert bars.count_rows() == tickstate.scan(reference / "gold", "orderbook_bars/60s").count_rows() > 0
    with pytest.raises(tickstate.LakeError, match="no partition fits"):
        tickstate.scan(f"{bucket}/silver", "trades")
    for name, _ in (place(bucket) / "bronze/orderbook").walk():
        if "alpha" in name:
            (place(bucket) / "bronze/orderbook" / name).unlink()
    done = bronze.features("validate", "--bronze", f"{bucket}/bronze", "--silver", f"{bucket}/silver", "--prune")
    assert done.returncode == 0, done.stdout
    left = tree(f"{bucket}/silver")
    assert left == {n: d for n, d in bronze.tree(reference / "silver").items() if "alpha" not in n}


def test_the_demo_in_a_bucket(bucket, tmp_path, monkeypatch):
    """The files of the demo lake here; what a killed upload lacks is made up for."""
    monkeypatch.setattr(demo, "LANES", demo.LANES[3:])
    root = place(f"{bucket}/demo/bronze")
    assert demo.ensure_demo(root)
    assert demo.ensure_demo(tmp_path / "bronze")
    assert tree(str(root)) == bronze.tree(tmp_path / "bronze")
    assert not demo.ensure_demo(root)
    (root / next(name for name, _ in root.walk())).unlink()
    assert demo.ensure_demo(root)
    assert tree(str(root)) == bronze.tree(tmp_path / "bronze")


def test_demo_and_run_from_the_command_line(bucket, monkeypatch):
    said = []
    monkeypatch.setattr(demo, "ensure_demo", lambda root: said.append(root) or upload_one(root))

    def upload_one(root):
        (root / segment.relative_to(bronze.tiny() / "bronze").as_posix()).upload(segment)
        return True

    segment = next((bronze.tiny() / "bronze").rglob("*.parquet"))
    command = ["run", "--demo", "--lake", bucket, "--runner", "single", "--bars", "60s"]
    assert cli.features(command, standalone_mode=False) == 0
    assert said == [place(bucket) / "bronze"]
    assert [n.rpartition("/")[2] for n in sorted(tiers(bucket))].count("part-0.parquet") == 2


@pytest.mark.parametrize(
    ("lake", "said"),
    [
        ("s3://no-such-bucket/lake", "features: bronze s3://no-such-bucket/lake/bronze: no such folder"),
        ("{bucket}/nothing", "/nothing/bronze: no such folder; check --bronze or --lake"),
        ("s3:/bucket/lake", "features: 's3:/bucket/lake' is no place; expected a local path, or s3://BUCKET/PREFIX"),
        ("s3://k:hush@bucket/lake", "features: s3://...@bucket: credentials in a path"),
        ("gs://bucket/lake", "features: 'gs://bucket/lake' is no place"),
    ],
)
def test_a_wrong_place_is_one_line_and_exit_code_2(bucket, lake, said):
    done = bronze.features("run", "--lake", lake.format(bucket=bucket))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert said in done.stderr
    assert "hush" not in done.stderr


def test_no_way_in_is_one_line_and_exit_code_2(s3, bucket, monkeypatch):
    with s3.rules(rule("", bucket.removeprefix("s3://"), status=403, code="AccessDenied")):
        for command in (("run",), ("plan",), ("validate",), ("run", "--runner", "watcher", "--once")):
            done = bronze.features(*command, "--lake", bucket)
            assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
            assert "check the credentials" in done.stderr
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    done = bronze.features("run", "--lake", bucket)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert "check AWS_ENDPOINT_URL, the region and the network" in done.stderr


# ---- real data


@pytest.mark.slow
@pytest.mark.skipif(not REAL.exists(), reason="no real data at ../shared/bronze")
def test_real_bronze_gives_the_local_bytes(bucket, tmp_path):
    """All channels of both exchanges and their bars, by a pool of processes on the bucket, by one process here."""
    upload(REAL, f"{bucket}/bronze")
    there = tickstate.run(bucket, workers=2)
    here = tickstate.run(bronze=REAL, silver=tmp_path / "silver", gold=tmp_path / "gold", runner="single")
    assert (there.exit_code, len(there.computed)) == (here.exit_code, len(here.computed))
    assert len(here.computed) > 12
    assert tiers(bucket) == tiers(tmp_path)
    names = [n for n in tiers(tmp_path) if n.endswith(".parquet")]
    assert pq.read_table(tmp_path / names[0], partitioning=None).num_rows
