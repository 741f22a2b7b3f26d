"""An S3 server of its own process: moto's, behind a layer that fails, holds and writes down requests when told to.

``Server`` starts it and talks to it; run as a script, this file is the server.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SETTINGS = {
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}  # fmt: skip


class Server:
    """A running server and its client side."""

    def __init__(self) -> None:
        command = [sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        port = self._process.stdout.readline().strip()
        assert port, "the server did not start: is the extra `test` (moto[server]) installed?"
        self.url = f"http://127.0.0.1:{port}"
        self._buckets = 0

    @property
    def settings(self) -> dict[str, str]:
        """The environment of a client."""
        return {**SETTINGS, "AWS_ENDPOINT_URL": self.url}

    def bucket(self) -> str:
        """A new bucket."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{name}", method="PUT"), timeout=30).close()
        return name

    def tell(self, what: str, *rules: dict[str, Any]) -> Any:
        """Set ``rules``, ``release`` what is held, or ask for the ``log`` since last time or what is ``held``."""
        request = urllib.request.Request(f"{self.url}/_{what}", json.dumps(rules).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    @contextmanager
    def rules(self, *rules: dict[str, Any]) -> Iterator[None]:
        """Rules for a block."""
        self.tell("rules", *rules)
        try:
            yield
        finally:
            self.tell("rules")
            self.tell("release")

    def requests(self) -> list[str]:
        """``METHOD /path?query`` of each request since last time."""
        return self.tell("log")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # it ends with its client, however that ends
        self._process.wait(10)
        self._process.stdout.close()


def rule(method: str, contains: str = "", **what: Any) -> dict[str, Any]:
    """What becomes of requests: fail with ``status`` and ``code``, or ``hold`` on; ``every`` n-th, some ``times``."""
    return {"method": method, "contains": contains, "every": 1, "times": -1, "seen": 0, **what}


def upload(folder: Path, uri: str) -> None:
    """Copy a folder's files into a bucket, but for locks and saved state."""
    from tickstate.lake.store import at_once, place

    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not {"_locks", "_state"} & {*p.parts}]
    at_once(lambda p: (place(uri) / p.relative_to(folder).as_posix()).upload(p), files, remote=True)


def tree(uri: str) -> dict[str, bytes]:
    """The bytes of every object below a place, but for saved state."""
    from tickstate.lake.store import at_once, place

    root = place(uri)
    names = sorted(name for name, _ in root.walk() if "_state" not in name.split("/"))
    return dict(zip(names, at_once(lambda n: (root / n).read_bytes(), names, remote=True), strict=True))


class Layer:
    """The WSGI application: rules first, then moto."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._lock, self._go = threading.Lock(), threading.Event()
        self._rules: list[dict[str, Any]] = []
        self._log: list[str] = []
        self._held: list[str] = []

    def __call__(self, environ: dict[str, Any], start: Any) -> Any:
        path = environ["PATH_INFO"]
        if path.startswith("/_"):
            data = json.loads(environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)) or "[]")
            start("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(self._told(path[2:], data)).encode()]
        request = f"{environ['REQUEST_METHOD']} {path}?{environ['QUERY_STRING']}"
        found = self._rule(environ["REQUEST_METHOD"], request)
        if found is not None and found.get("hold"):
            self._held.append(request)
            self._go.wait(60)
        elif found is not None:
            environ["wsgi.input"].read() if environ["REQUEST_METHOD"] == "PUT" else None
            start(f"{found['status']} Told", [("Content-Type", "application/xml")])
            body = f"<?xml version='1.0'?><Error><Code>{found['code']}</Code><Message>as told</Message></Error>"
            return [b"" if environ["REQUEST_METHOD"] == "HEAD" else body.encode()]
        return self._application(environ, start)

    def _told(self, what: str, data: Any) -> Any:
        with self._lock:
            if what == "rules":
                self._rules, self._held = data, []
                self._go.clear()
            elif what == "release":
                self._go.set()
            elif what == "log":
                found, self._log = self._log, []
                return found
            return self._held

    def _rule(self, method: str, request: str) -> dict[str, Any] | None:
        with self._lock:
            self._log.append(request)
            for found in self._rules:
                if found["method"] in ("", method) and found["contains"] in request and found["times"]:
                    found["seen"] += 1
                    if found["seen"] % found["every"] == 0:
                        found["times"] -= 1
                        return found
            return None


def serve() -> None:
    """Serve on a free port of this machine, and say which."""
    import logging

    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, Layer(DomainDispatcherApplication(create_backend_app)), threaded=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve()
