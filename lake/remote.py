"""Paths in an object store: the operations of ``pathlib.Path`` that the code uses, on S3 through ``pyarrow.fs``.

A ``RemotePath`` is a URI and no more: it pickles as one, and the client behind it is opened once a process, when
the first question is asked. Credentials, region and endpoint come from where the AWS tools take them (environment,
``~/.aws``), and from the URI's query. Transient errors are retried with growing pauses (``AWS_MAX_ATTEMPTS``).
"""

from __future__ import annotations

import errno
import os
import re
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from tickstate.lake.errors import LakeError, StoreError

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, S3FileSystem

T = TypeVar("T")
SCHEME = "s3://"
OPTIONS = ("region", "endpoint_override", "scheme", "anonymous", "tls_ca_file_path")
"""What a URI's query may say: names and meaning are those of ``pyarrow.fs.S3FileSystem``."""
ATTEMPTS = 6
"""How often a request is tried, about 15 s in all; ``AWS_MAX_ATTEMPTS`` says otherwise."""
SECOND = 1_000_000_000
AT_ONCE = 16
"""Requests at a time where many small objects are asked for."""


REREADS = 10
"""How often an object is read that is replaced meanwhile, before something else must be wrong."""
SETTLED_REMOTE = 30 * SECOND
"""How long ago an object's time must be to show every later change: it is in whole seconds of another's clock."""


class Stat(NamedTuple):
    """Size and time of an object, under the names that ``os.stat`` has for them.

    S3 keeps whole seconds; servers that list finer ones are cut to them, since a HEAD has no more.
    """

    st_size: int
    st_mtime_ns: int
    etag: str = ""
    """As a HEAD says it; pyarrow's listings have none."""


class RemotePath:
    """A place in a bucket. ``str`` gives its URI, and ``remote_path`` takes that back."""

    __slots__ = ("_key", "_query", "_view")

    def __init__(self, key: str, query: str = "", view: View | None = None) -> None:
        self._key, self._query, self._view = key, query, view

    def __str__(self) -> str:
        query = f"?{self._query}" if self._query else ""
        return f"{SCHEME}{quote(self._key, safe='/=:+@, ~')}{query}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemotePath) and (self._key, self._query) == (other._key, other._query)

    def __hash__(self) -> int:
        return hash((self._key, self._query))

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePath, (self._key, self._query)

    def __truediv__(self, name: object) -> RemotePath:
        return RemotePath(f"{self._key}/{name}", self._query, self._view)

    @property
    def key(self) -> str:
        """Bucket and key, as the file system takes them."""
        return self._key

    @property
    def name(self) -> str:
        """The last part."""
        return self._key.rpartition("/")[2]

    @property
    def parent(self) -> RemotePath:
        """What it lies in; a bucket lies in itself."""
        return RemotePath(self._key.rpartition("/")[0] or self._key, self._query, self._view)

    @property
    def filesystem(self) -> S3FileSystem:
        """The client of this process."""
        return client(self._query, self._key.partition("/")[0], os.getpid())

    def bound(self, view: View) -> RemotePath:
        """The same place, answered from a listing; so are the places below it."""
        return RemotePath(self._key, self._query, view)

    def stat(self) -> Stat:
        """Size and time of an object; ``FileNotFoundError`` where there is none."""
        found = self._stat() if self._view is None else self._view.stat(self._key)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such object", str(self))
        return found

    def exists(self) -> bool:
        """Whether there is an object of this name, or any below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def is_dir(self) -> bool:
        """Whether there is an object below this name."""
        if self._view is not None:
            return self._view.holds(self._key)
        with asking(self):
            return self.filesystem.get_file_info(self._key).type.name == "Directory"

    def iterdir(self) -> Iterator[RemotePath]:
        """What lies directly in it."""
        for info in self._list(recursive=False):
            yield RemotePath(info.path, self._query, self._view)

    def folders(self) -> list[str]:
        """Names of what lies directly in it and has something below."""
        return [info.base_name for info in self._list(recursive=False) if info.type.name == "Directory"]

    def walk(self) -> list[tuple[str, Stat]]:
        """Every object below it, by its path from here: one listing, a request for each 1,000 objects."""
        start = len(self._key) + 1
        return [(info.path[start:], _listed(info)) for info in self._list(recursive=True) if info.is_file]

    def read_bytes(self) -> bytes:
        """The whole object. Under a snapshot, one that was read before and is as old as then is not asked for again."""
        if self._view is None:
            return persistent(self._read)
        stat = self.stat()
        held = _held.get(self)
        if held is not None and held[0] == stat:
            return zlib.decompress(held[1])
        data = persistent(self._read)
        if stat.st_mtime_ns < time.time_ns() - SETTLED_REMOTE:
            _held[RemotePath(self._key, self._query)] = stat, zlib.compress(data, 1)
        return data

    def _read(self) -> bytes:
        """The bytes of one object. pyarrow asks for the size, then for so many bytes: where the object was replaced in
        between, they are the first of another, so the store is asked once more what is there."""
        for _ in range(REREADS):
            with self.open() as file, asking(self):
                data, read = file.read(), _as_stat(file.metadata(), file.size())
            if self._stat() == read:
                return data
        raise StoreError("it was another each time it was looked at", where=str(self), fix=_FAILING)

    def _stat(self) -> Stat:
        with self.open() as file, asking(self):
            return _as_stat(file.metadata(), file.size())

    def open(self) -> Any:
        """A pyarrow file whose reads are requests of a range; errors of these are for ``fault_of`` to name."""
        with asking(self):
            return self.filesystem.open_input_file(self._key)

    def upload(self, source: Path) -> None:
        """Replace the object by a local file, whole or not at all: one PUT, or a multipart upload that is completed.

        pyarrow completes an upload when it lets go of a stream, even one that was given half of the data. So the
        data is given in one piece, and its parts are sent in the background: one that fails makes the closing fail,
        and the old object stays. (Sent in the foreground, what was sent would be completed: tried.)
        Guarded by ``tests/test_store.py::test_a_failed_upload_leaves_the_old_object``.
        """
        import pyarrow as pa

        with pa.memory_map(str(source)) as mapped, asking(self):
            data = mapped.read_buffer() if mapped.size() else pa.py_buffer(b"")
            stream = self.filesystem.open_output_stream(self._key)
            stream.write(data)
            stream.close()

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        if missing_ok and not self.is_file():
            return
        with asking(self):
            self.filesystem.delete_file(self._key)

    def _list(self, recursive: bool) -> list[FileInfo]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._key, recursive=recursive, allow_not_found=True)
        try:
            with asking(self):
                return self.filesystem.get_file_info(selector)
        except StoreError as error:
            if error.code == "NO_SUCH_BUCKET":  # nothing is there, as in a folder that does not exist
                return []
            raise


_held: dict[RemotePath, tuple[Stat, bytes]] = {}
"""Commit records that plans of this process have read, compressed: a watcher reads each once."""


class View:
    """What a place held when it was looked at: each of its channels is listed once, when first asked about.

    A plan asks after thousands of partitions and records; so it costs a request for each 1,000 of them.
    """

    def __init__(self, root: RemotePath) -> None:
        self._root = RemotePath(root.key, root._query)
        self._groups: dict[str, tuple[dict[str, Stat], set[str]]] = {}
        self._lock = Lock()

    def stat(self, key: str) -> Stat | None:
        """Of the object of this name, if there is one."""
        return self._group(key)[0].get(key)

    def holds(self, key: str) -> bool:
        """Whether any object is below a name."""
        return self._root.is_dir() if key == self._root.key else key in self._group(key)[1]

    def _group(self, key: str) -> tuple[dict[str, Stat], set[str]]:
        parts = key[len(self._root.key) + 1 :].split("/")
        name = "/".join(parts[: 2 if parts[0].startswith("_") else 1])
        with self._lock:
            if name not in self._groups:
                place = self._root / name
                found = {f"{place.key}/{relative}": stat for relative, stat in place.walk()}
                folders = {place.key} if found else set()
                for path in found:
                    while (path := path.rpartition("/")[0]) not in folders:
                        folders.add(path)
                self._groups[name] = found, folders
            return self._groups[name]


def remote_path(uri: str) -> RemotePath:
    """A place from its URI, ``s3://bucket/prefix?region=eu-west-1``."""
    try:
        parts = urlsplit(uri.replace("#", "%23"))
    except ValueError as error:
        raise LakeError(f"{uri!r} is no place", where=str(error)) from None
    if "@" in parts.netloc:  # and never printed
        raise LakeError(
            "credentials in a path", where=f"{SCHEME}...@{parts.netloc.rpartition('@')[2]}",
            fix="give them as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in ~/.aws: paths are shown",
        )  # fmt: skip
    key = unquote(parts.netloc + parts.path).rstrip("/")
    if not parts.netloc or "//" in key:
        raise LakeError(f"{uri!r} is no place", expected="s3://BUCKET or s3://BUCKET/PREFIX, no empty part")
    for name, _ in _query(parts.query):
        if name not in OPTIONS:
            raise LakeError(f"unknown option {name!r}", where=uri, expected=f"one of {', '.join(OPTIONS)}")
    return RemotePath(key, parts.query)


def _query(text: str) -> list[tuple[str, str]]:
    return parse_qsl(text, keep_blank_values=True)


@cache
def client(query: str, bucket: str, process: int) -> S3FileSystem:
    """The client for a bucket; ``process`` keeps a forked child from using its parent's."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    given: dict[str, Any] = dict(_query(query))
    if "anonymous" in given:
        given["anonymous"] = given["anonymous"].lower() in ("1", "true", "yes")
    endpoint = given.pop("endpoint_override", "") or os.environ.get("AWS_ENDPOINT_URL_S3", "")
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL", "")
    if endpoint:
        scheme, _, host = endpoint.rpartition("://")
        given.update(endpoint_override=host.rstrip("/"), scheme=given.get("scheme") or scheme or "https")
    region = given.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    given["region"] = region or ("us-east-1" if endpoint else _region_of(bucket))
    with asking(RemotePath(bucket)):
        return S3FileSystem(
            **given, allow_delayed_open=True, background_writes=True, connect_timeout=10, request_timeout=60,
            retry_strategy=AwsStandardS3RetryStrategy(max_attempts=_attempts()),
        )  # fmt: skip


def _attempts() -> int:
    text = os.environ.get("AWS_MAX_ATTEMPTS", "")
    return max(1, int(text)) if text.isdigit() else ATTEMPTS


def _region_of(bucket: str) -> str:
    """Where a bucket of AWS is; asked of AWS only where neither region nor endpoint is given."""
    from pyarrow.fs import resolve_s3_region

    with asking(RemotePath(bucket)):
        return resolve_s3_region(bucket)


def _listed(info: FileInfo) -> Stat:
    return Stat(info.size or 0, (info.mtime_ns or 0) // SECOND * SECOND)


def _as_stat(metadata: Mapping[str, bytes], size: int) -> Stat:
    """What a HEAD says of an object."""
    modified = datetime.fromisoformat(metadata["Last-Modified"].decode())
    return Stat(size, int(modified.timestamp()) * SECOND, metadata.get("ETag", b"").decode())


_OVERFLOWN = "flush response stream"
_SAID = re.compile(
    r"AWS Error (?:\[?code )?(?P<code>\w+)\]?(?: \(HTTP status (?P<status>\d+)\))?"
    r"(?: during (?P<operation>\w+) operation)?(?:: (?P<detail>[^\n]*))?"
)
_FAILING = "the store keeps failing: run again later"
_BUSY = "the store is overloaded: run again later, or with fewer workers"
_CREDENTIALS = "check the credentials (AWS_ACCESS_KEY_ID, AWS_PROFILE, ~/.aws) and what they may do"
_OTHERWISE = "run again, or check the store"
_FIXES = {
    **dict.fromkeys(("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "403", "401"), _CREDENTIALS),
    "SIGNATURE_DOES_NOT_MATCH": "check the credentials (AWS_SECRET_ACCESS_KEY) and the region",
    "NO_SUCH_BUCKET": "check the bucket's name",
    "301": "the bucket is in another region: set AWS_REGION, or ?region= in the path",
    "NETWORK_CONNECTION": "check AWS_ENDPOINT_URL, the region and the network",
    **dict.fromkeys(("INTERNAL_FAILURE", "SERVICE_UNAVAILABLE", "500", "502", "504"), _FAILING),
    **dict.fromkeys(("SLOW_DOWN", "THROTTLING", "429", "503"), _BUSY),
}
"""What to do, by what the store said: an error's code, or where an answer has no body its status."""


def fault_of(error: BaseException, where: object) -> StoreError | None:
    """What a failed request to the store means for people; None where the error is not of a request.

    pyarrow raises the same ``OSError`` for a page that does not decode and for a store that does not answer. The
    second must never be taken for a damaged file: only its text tells.
    """
    if isinstance(error, StoreError):
        return error
    said = _SAID.search(str(error)) if isinstance(error, OSError) else None
    if said is None:
        return None
    operation = said["operation"] or "a request"
    if _OVERFLOWN in str(error):
        got = f"an error in place of data in {operation}"
        return StoreError(got, where=str(where), fix=_FAILING, code=_OVERFLOWN)
    code, status = said["code"], said["status"] or ""
    detail = (said["detail"] or "").partition(" (Request ID")[0].strip()
    got = f"HTTP status {status}" if status else code.lower().replace("_", " ")
    got = f"{got} in {operation}" + (f" ({detail})" if detail else "")
    return StoreError(got, where=str(where), fix=_FIXES.get(code) or _FIXES.get(status) or _OTHERWISE, code=code)


def persistent(work: Callable[[], T]) -> T:
    """What ``work`` returns, tried again where the client gave up at the first transient error.

    pyarrow reads a range into memory of just its length. An error's text that is longer does not fit, which the
    AWS SDK takes for a fault of its own that no retry can mend (pyarrow 26; ``tests/test_store.py`` meets it).
    """
    for attempt in range(1, _attempts()):
        try:
            return work()
        except StoreError as error:
            if error.code != _OVERFLOWN:
                raise
            time.sleep(min(0.2 * 2**attempt, 5))
    return work()


@contextmanager
def asking(path: object) -> Iterator[None]:
    """Errors of the store for people: ``FileNotFoundError`` where nothing is there, else ``StoreError``."""
    import pyarrow as pa

    try:
        yield
    except StoreError:
        raise
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such object", str(path)) from None
    except (OSError, pa.ArrowException, ValueError) as error:
        fault = fault_of(error, path)
        text = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        raise fault or StoreError(text, where=str(path), fix="check the path and the store's settings") from error
