"""Places in a bucket: names, what is asked of the store and how often, and what becomes of its errors."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import Timeout
from hypothesis import given
from hypothesis import strategies as st
from s3server import rule

from tickstate.kernels.errors import TickstateError
from tickstate.lake import digest, files, remote
from tickstate.lake.errors import LakeError, StoreError
from tickstate.lake.listing import Segment
from tickstate.lake.remote import RemotePath, View
from tickstate.lake.segment import Files, is_unchanged
from tickstate.lake.store import at_once, folders, place, reading, snapshot, walk
from tickstate.lake.write import read_schema
from tickstate.runners import locks


@pytest.fixture
def root(s3):
    """A new bucket."""
    return place(f"s3://{s3.bucket()}")


def put(path, data):
    """One object."""
    files.write_bytes(path, data, "test")
    return path


# ---- names


def test_places_are_told_apart():
    assert place("lake/silver") == Path("lake/silver")
    assert place(Path("lake")) == Path("lake")
    found = place("s3://bucket/a/b/")
    assert (type(found), found.key, found.name, str(found.parent)) == (RemotePath, "bucket/a/b", "b", "s3://bucket/a")
    assert place(found) is found
    assert str(place("s3://bucket/x?region=eu-west-1") / "y") == "s3://bucket/x/y?region=eu-west-1"


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/"), min_size=1), min_size=1))
def test_a_key_survives_its_uri_and_a_pickle(parts):
    found = RemotePath("/".join(("bucket", *parts)), "region=eu-west-1")
    assert place(str(found)) == found
    assert pickle.loads(pickle.dumps(found)) == found
    assert hash(pickle.loads(pickle.dumps(found))) == hash(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s3:/bucket/lake", "one / of two"),
        ("gs://bucket/lake", "expected a local path, or s3://"),
        ("s3://", "no place"),
        ("s3://bucket/a//b", "no empty part"),
        ("s3://bucket/x?regio=eu", "unknown option 'regio'"),
        ("s3://[bucket/x", "no place"),
    ],
)
def test_what_is_no_place_is_refused(text, said):
    with pytest.raises(LakeError, match=said):
        place(text)


def test_a_path_that_was_a_uri_is_refused():
    with pytest.raises(LakeError, match="give s3:// as a text"):
        place(Path("s3://bucket/lake"))


def test_credentials_in_a_path_are_refused_and_not_repeated():
    with pytest.raises(LakeError, match="AWS_ACCESS_KEY_ID") as caught:
        place("s3://KEY:hush@bucket/lake")
    assert "hush" not in str(caught.value)
    assert "KEY:" not in str(caught.value)


# ---- the operations


def test_an_object_is_like_a_file(root):
    path = root / "a" / "b=1" / "x%?#.bin"
    assert (path.exists(), path.is_file(), path.is_dir(), path.parent.is_dir()) == (False,) * 4
    with pytest.raises(FileNotFoundError):
        path.read_bytes()
    with pytest.raises(FileNotFoundError):
        path.stat()
    put(path, b"0123456789")
    assert (path.exists(), path.is_file(), path.is_dir(), path.parent.is_dir()) == (True, True, False, True)
    assert (path.read_bytes(), path.stat().st_size) == (b"0123456789", 10)
    assert abs(path.stat().st_mtime_ns - time.time_ns()) < 60e9
    put(path, b"")
    assert path.read_bytes() == b""
    path.unlink()
    path.unlink(missing_ok=True)
    assert not path.is_file()


def test_one_listing_whatever_the_depth_and_the_number(s3, root):
    """2,001 objects in 100 folders: three requests of at most 1,000."""
    names = [f"channel/exchange=e/hour={i % 100}/s{i:04d}.parquet" for i in range(2001)]
    at_once(lambda n: put(root / n, n.encode()), names, remote=True)
    for hidden in ("channel/_work/x.parquet", "channel/exchange=e/.tmp-x.parquet", "channel/exchange=e/note.txt"):
        put(root / hidden, b"")
    s3.requests()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tickstate.lake.store.SETTLED_REMOTE", 0)  # else each is asked for its ETag: they are all new
        found = {relative: stat.st_size for relative, _, stat in walk(root / "channel")}
    assert found == {n.removeprefix("channel/"): len(n) for n in names}
    assert [r.partition("?")[0] for r in s3.requests()] == [f"GET /{root.name}"] * 3


def test_folders_are_named(root):
    for name in ("trades_bars/60s/x", "trades_bars/_old/x", "_commits/x", "y"):
        put(root / name, b"")
    assert folders(root) == ["trades_bars"]
    assert folders(root / "trades_bars") == ["60s"]
    assert folders(root / "none") == []


def test_a_young_object_is_known_by_its_etag(root):
    """Two of one size within a second: the time of neither tells them apart."""
    path = root / "c" / "x.parquet"
    seen = set()
    for data in (b"1234", b"5678", b"1234"):
        put(path, data)
        ((_, uri, stat),) = walk(root / "c")
        assert uri == str(path)
        seen.add((stat.st_size, stat.etag))
    assert len(seen) == 2


def test_a_snapshot_asks_once_a_channel(s3, root):
    for i in range(30):
        put(root / "silver" / "trades" / f"h{i}" / "x.json", b"1")
        put(root / "silver" / "_commits" / "trades" / f"h{i}.json", b"2")
    now = snapshot(root / "silver")
    s3.requests()
    for i in range(40):
        assert (now / "trades" / f"h{i}" / "x.json").exists() == (i < 30)
        assert (now / "trades" / f"h{i}").is_dir() == (i < 30)
        assert (now / "_commits" / "trades" / f"h{i}.json").is_file() == (i < 30)
    assert now.is_dir()
    assert (now / "trades" / "h1" / "x.json").stat().st_size == 1
    with pytest.raises(FileNotFoundError):
        (now / "_commits" / "trades" / "none.json").read_bytes()
    lists = [r for r in s3.requests() if "max-keys=1000" in r]
    assert len(lists) == 2
    assert snapshot(Path("x")) == Path("x")
    assert isinstance(pickle.loads(pickle.dumps(now)), RemotePath), "and a view does not travel"
    assert not isinstance(pickle.loads(pickle.dumps(now))._view, View)


def test_footers_are_read_by_range(s3, root, tmp_path):
    """The digest of a file in a bucket is that of the same bytes here, for two requests."""
    table = pa.table({"x": pa.array(range(200_000)), "wide": pa.array([os.urandom(8) for _ in range(200_000)])})
    local = tmp_path / "x.parquet"
    pq.write_table(table, local)
    path = root / "x.parquet"
    path.upload(local)
    s3.requests()
    assert digest._footer(path) == digest._footer(local)
    assert len(s3.requests()) == 2
    small = put(root / "torn.parquet", b"PAR1")
    assert digest._footer(small) == digest.fingerprint(small).encode() != b""
    assert digest._footer(root / "none") == b"gone"
    assert digest.fingerprint(path) == digest.fingerprint(local)
    assert digest.fingerprint(root / "none") == digest.fingerprint(tmp_path / "none") == ""


def test_footers_longer_than_what_is_read_at_once(root, tmp_path, monkeypatch):
    local = tmp_path / "x.parquet"
    pq.write_table(pa.table({f"c{i}": [i] for i in range(40)}), local)
    (root / "x.parquet").upload(local)
    whole = digest._footer(local)
    assert len(whole) > 100
    for tail in (8, 9, 100, len(whole) + 7, len(whole) + 8, len(whole) + 9):
        monkeypatch.setattr(digest, "TAIL", tail)
        assert digest._footer(local) == digest._footer(root / "x.parquet") == whole


def test_columns_are_read_by_range(s3, root, tmp_path):
    table = pa.table({"x": pa.array(range(1_000_000)), "y": pa.array(range(1_000_000))})
    local = tmp_path / "x.parquet"
    pq.write_table(table, local)
    (root / "x.parquet").upload(local)
    s3.requests()
    with reading(root / "x.parquet") as file:
        assert file.read(["y"]).equals(table.select(["y"]))
    asked = s3.requests()
    assert len(asked) < 8
    assert not [r for r in asked if r.startswith("PUT")]


def test_what_is_replaced_while_it_is_read_is_read_whole(s3, root):
    """The size is of the old object, the bytes are of the new one: no part of it is taken for all."""
    path = put(root / "x", b"old")
    found = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()))
    with s3.rules(rule("GET", "/x", hold=True, times=1)):
        reader.start()
        while reader.is_alive() and not s3.tell("held"):
            time.sleep(0.02)
        put(path, b"another, longer")
        s3.tell("release")
        reader.join(60)
    assert found == [b"another, longer"]


# ---- writing


BIG = 25 << 20
"""Three parts of a multipart upload."""


@pytest.mark.parametrize(
    ("size", "requests"), [(0, ["PUT"]), (9 << 20, ["PUT"]), (BIG, ["POST", "PUT", "PUT", "PUT", "POST"])]
)
def test_an_output_is_one_put_or_a_completed_multipart_upload(s3, root, size, requests):
    s3.requests()
    put(root / "x", b"x" * size)
    found = [r.partition(" ")[0] for r in s3.requests()]
    assert sorted(found) == sorted(requests)
    assert found[-1] == requests[-1]
    assert (root / "x").stat().st_size == size


@pytest.mark.parametrize("size", [10, BIG])
@pytest.mark.parametrize("contains", ["partNumber=1&", "partNumber=3&", "uploadId", ""])
def test_a_failed_upload_leaves_the_old_object(s3, root, size, contains):
    put(root / "x", b"old")
    refused = {"status": 403, "code": "AccessDenied"}
    with s3.rules(rule("PUT", contains, **refused), rule("POST", "uploadId", **refused)):
        if size == BIG or not contains:
            with pytest.raises(StoreError, match=r"access denied in .*; check the credentials"):
                put(root / "x", b"n" * size)
    assert (root / "x").read_bytes() == b"old"
    assert not uploads(os.getpid()), "temporary files go"


def test_a_block_that_fails_uploads_nothing(s3, root):
    put(root / "x", b"old")
    s3.requests()
    with pytest.raises(KeyError), files.replacing(root / "x", "test") as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert s3.requests() == []
    assert (root / "x").read_bytes() == b"old"


def uploads(process):
    """What a process is uploading."""
    return [*Path(tempfile.gettempdir()).glob(f"{files.UPLOADS}*-{process}-*")]


UPLOAD = """
import sys
from tickstate.lake.files import write_bytes
from tickstate.lake.store import place
write_bytes(place(sys.argv[1]), b"n" * int(sys.argv[2]), "test")
"""


@pytest.mark.parametrize(("size", "held"), [(10, "PUT"), (9 << 20, "PUT"), (BIG, "PUT"), (BIG, "POST")])
def test_a_process_killed_while_it_uploads_leaves_the_old_object_or_the_new(
    s3, root, size, held, tmp_path, monkeypatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where no other test's process clears up first
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path = put(root / "x", b"old")
    with s3.rules(rule(held, "uploadId" if held == "POST" else "/x", hold=True)):
        process = subprocess.Popen([sys.executable, "-c", UPLOAD, str(path), str(size)])
        deadline = time.monotonic() + 30
        while not s3.tell("held") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
    time.sleep(0.3)  # what was on its way arrives
    found = path.read_bytes()
    assert found in (b"old", b"n" * size)
    assert found == b"old" or size == 10 or held == "POST", "a body that was cut off is no object"
    assert uploads(process.pid)
    files._clear_uploads.cache_clear()
    put(root / "y", b"")
    assert not uploads(process.pid), "the next process clears up"


def test_what_replaces_an_output_is_later_than_its_record(root, monkeypatch):
    """Times are whole seconds: with the same one, a run that died between the two would look complete."""
    put(root / "data", b"1")
    put(root / "record", b"1")
    with files.replacing(root / "data", "data", root / "record") as temporary:
        temporary.write_bytes(b"2")
    assert (root / "data").stat().st_mtime_ns > (root / "record").stat().st_mtime_ns
    with files.replacing(root / "other", "data", root / "none") as temporary:
        temporary.write_bytes(b"2")


# ---- errors


@pytest.mark.parametrize(
    ("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (503, "ServiceUnavailable"), (429, "Throttling")]
)
def test_transient_errors_are_tried_again(s3, root, status, code):
    path = put(root / "x", b"1234")
    with s3.rules(*[rule(method, "", status=status, code=code, every=2) for method in ("HEAD", "GET", "PUT")]):
        assert path.read_bytes() == b"1234"
        put(path, b"5678")
        assert [n for n, *_ in walk(root, "x")] == ["x"]
    assert path.read_bytes() == b"5678"


FAILING = "the store keeps failing: run again later"


def test_what_keeps_failing_ends_in_one_line(s3, root, impatient):
    path = put(root / "x", b"1234")
    with s3.rules(rule("GET", "", status=503, code="SlowDown")):
        s3.requests()
        with pytest.raises(StoreError) as caught:
            path.read_bytes()
        assert len([r for r in s3.requests() if r.startswith("GET")]) == 2
        assert str(caught.value) == f"{path}: an error in place of data in GetObject; {FAILING}"
    with s3.rules(rule("PUT", "", status=503, code="SlowDown")):
        with pytest.raises(StoreError) as caught:
            put(path, b"5678")
        assert len([r for r in s3.requests() if r.startswith("PUT")]) == 2
    assert str(caught.value) == (
        f"{path}: slow down in PutObject (as told); the store is overloaded: run again later, or with fewer workers"
    )
    assert isinstance(caught.value, TickstateError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.errno, again.code) == (str(caught.value), 5, "SLOW_DOWN")


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_a_store_that_fails_is_never_a_file_that_is_gone_or_bad(s3, root, impatient, tmp_path, method):
    local = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": range(10)}), local)
    (root / "x.parquet").upload(local)
    path = root / "x.parquet"
    segment = Segment("x.parquet", "orderbook", str(path), "e", "s", 0, local.stat().st_size)
    inspect = Files().inspect
    with s3.rules(rule(method, "x.parquet", status=500, code="InternalError")):
        for ask in (digest._footer, digest.fingerprint, read_schema, inspect, Files().digest, is_unchanged):
            if (method, ask) == ("GET", is_unchanged):
                continue  # it asks for no data
            with pytest.raises(StoreError, match=FAILING):
                ask(path if ask in (digest._footer, digest.fingerprint, read_schema) else segment)


def test_a_bucket_that_is_not_there(s3):
    path = place("s3://no-such-bucket/lake")
    assert not path.is_dir()
    assert [*walk(path)] == []
    with pytest.raises(StoreError, match=r"no such bucket in PutObject .*; check the bucket's name"):
        put(path / "x", b"1")


def test_settings_come_from_the_environment_and_from_the_query(s3, root, monkeypatch):
    put(root / "x", b"1")
    host = s3.url.removeprefix("http://")
    given = place(f"{root}/x?endpoint_override={host}&scheme=http&region=eu-west-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert given.read_bytes() == b"1"
    assert given.filesystem.region == "eu-west-1"
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.url)
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    remote.client.cache_clear()
    assert root.filesystem.region == "ap-south-1"
    assert (root / "x").read_bytes() == b"1"
    remote.client.cache_clear()


def test_no_region_is_looked_up_where_an_endpoint_is_given(s3, root, monkeypatch):
    monkeypatch.setattr(remote, "_region_of", lambda bucket: pytest.fail("the network was asked"))
    remote.client.cache_clear()
    assert root.filesystem.region == "us-east-1"


# ---- locks


def test_a_bucket_is_locked_on_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "user_cache_path", lambda name: tmp_path / name)
    one, other = place("s3://bucket/silver"), place("s3://other/silver")
    with locks.partition_lock(one, "trades/e/s/1") as waited:
        assert not waited
        with pytest.raises(Timeout), locks.partition_lock(place(str(one)), "trades/e/s/1", timeout=0.05):
            pass
        with locks.partition_lock(other, "trades/e/s/1", timeout=0.05) as waited:
            assert not waited
    assert len([*(tmp_path / "tickstate/locks").iterdir()]) == 2


def test_without_a_home_to_write_in_locks_are_temporary_files(tmp_path, monkeypatch):
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setattr(locks, "user_cache_path", lambda name: tmp_path / "home" / name)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "spare"))
    (tmp_path / "spare").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", None)
    with locks.partition_lock(place("s3://bucket/silver"), "trades/e/s/1"):
        assert [p.suffix for p in (tmp_path / "spare").rglob("*.lock")] == [".lock"]


# ---- caches


def test_digests_in_a_bucket_are_uploaded_seldom(s3, root, tmp_path, monkeypatch):
    """A watcher learns of a file in nearly every cycle."""
    monkeypatch.setattr("tickstate.lake.segment.SETTLED_REMOTE", 0)
    found = Files(root / "_state" / "digests.msgpack")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    s3.requests()
    for i in range(3):
        (root / f"c/{i}.parquet").upload(tmp_path / "x.parquet")
        stat = (root / f"c/{i}.parquet").stat()
        segment = Segment(
            f"{i}.parquet", "c", str(root / f"c/{i}.parquet"), "e", "s", 0, stat.st_size, stat.st_mtime_ns
        )
        found.digest(segment)
        found.save()
    assert len([r for r in s3.requests() if r.startswith("PUT") and "_state" in r]) == 1
    s3.requests()
    again = Files(root / "_state" / "digests.msgpack")
    assert again.digest(Segment("0.parquet", "c", str(root / "c/0.parquet"), "e", "s", 0, stat.st_size, 0))
    again._digests.clear()
    kept = next(iter(again._kept))
    size, modified, digest_of = again._kept[kept]
    s3.requests()
    assert again.digest(Segment("0.parquet", "c", kept, "e", "s", 0, size, modified)) == digest_of
    assert s3.requests() == []


def test_records_read_under_a_snapshot_are_read_once_until_they_change(s3, root, monkeypatch):
    monkeypatch.setattr("tickstate.lake.remote.SETTLED_REMOTE", 0)
    path = put(root / "silver/_commits/trades/x.json", b"one")
    s3.requests()
    for _ in range(3):
        assert (snapshot(root / "silver") / "_commits/trades/x.json").read_bytes() == b"one"
    assert len([r for r in s3.requests() if r.startswith("GET") and "x.json" in r]) == 1
    put(path, b"three")
    assert (snapshot(root / "silver") / "_commits/trades/x.json").read_bytes() == b"three"
    path.unlink()
    with pytest.raises(FileNotFoundError):
        (snapshot(root / "silver") / "_commits/trades/x.json").read_bytes()
