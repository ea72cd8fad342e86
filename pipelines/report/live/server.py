"""`run.py serve`: the report over HTTP, kept current.

    python run.py serve --input out
    python run.py serve --input kafka://localhost:9092/out- --port 8080

Two addresses are answered, the page and its data; no file is. On a loopback address the Host
header must name this machine, so that no web site reaches it under a name of its own (DNS
rebinding). Elsewhere whoever looks must know the token: once in the address, then a cookie has
what is derived from it.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import hmac
import ipaddress
import logging
import os
import socket
import socketserver
import sys
import threading
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from pipelines import brokers
from pipelines.exit_codes import ExitCode, RunError
from pipelines.report.arguments import Serving
from pipelines.report.live.files import LiveFolder
from pipelines.report.live.snapshot import Snapshots
from pipelines.report.live.source import Source
from pipelines.report.page import page, policy
from pipelines.screen import Screen

LOGGER = logging.getLogger(__name__)

COOKIE = "imixs_report"
STANDING = "X-Stream"
"""Header with how the stream stands: it changes while the data does not."""

SILENCE_S = 30.0
"""A connection that says nothing for so long is closed."""

_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"{policy(live=True)}; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_WELCOME = (
    b"<!doctype html><meta charset=utf-8><title>Report</title>"
    # Not a redirect: a cookie that is SameSite=Strict would not come along from another site.
    b'<meta http-equiv=refresh content="0;url=/"><a href="/">To the report</a>'
)


class Server(ThreadingHTTPServer):
    """Answers for a report.

    Args:
        wanted: to whom it is shown, and where.
        snapshots: its data.

    Raises:
        OSError: nobody can listen there.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, wanted: Serving, snapshots: Snapshots) -> None:
        self.title, self.token, self.snapshots = wanted.title, wanted.token, snapshots
        self.cookie = hmac.new(wanted.token, b"imixs report cookie", hashlib.sha256).hexdigest()
        found = socket.getaddrinfo(wanted.host, wanted.port, type=socket.SOCK_STREAM)
        self.address_family = found[0][0]
        address = found[0][4]
        super().__init__((str(address[0]), int(address[1])), _Handler)
        self.local = ipaddress.ip_address(str(self.server_address[0])).is_loopback

    def server_bind(self) -> None:
        """Bind, without asking for the name of this machine, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say what broke an answer, unless it is that nobody waits for it any more."""
        error = sys.exc_info()[1]
        if isinstance(error, (ConnectionError, TimeoutError)):
            LOGGER.debug("%s has gone: %s", client_address, error)
        else:
            LOGGER.error("an answer to %s failed", client_address, exc_info=error)

    @property
    def url(self) -> str:
        """Where it is."""
        host = self.server_name
        return f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/"

    def knows(self, host: str) -> bool:
        """Say whether a Host header names this machine, where that can be told."""
        if not self.local:
            return True
        name = (urlsplit(f"//{host}").hostname or "") if host else ""
        try:
            return name == "localhost" or ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "imixs-streams"
    sys_version = ""
    timeout = SILENCE_S

    def do_GET(self) -> None:  # noqa: N802 (http.server's name)
        self._answer()

    def do_HEAD(self) -> None:  # noqa: N802
        self._answer()

    def _answer(self) -> None:
        server = self.server
        if not server.knows(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "open it as http://localhost")
            return
        asked = urlsplit(self.path)
        if server.token:
            given = parse_qs(asked.query).get("token", [""])[0]
            if given and not _same(given.encode(errors="surrogateescape"), server.token):
                self._refuse(HTTPStatus.FORBIDDEN, "that is not the token")
                return
            if given:
                cookie = f"{COOKIE}={server.cookie}; HttpOnly; SameSite=Strict; Path=/"
                self._send(HTTPStatus.OK, _WELCOME, {"Set-Cookie": cookie})
                return
            if not self._has_cookie():
                self._refuse(
                    HTTPStatus.UNAUTHORIZED, "open it once with ?token=..., the token of --token"
                )
                return
        snapshot = server.snapshots.newest
        if asked.path == "/":
            self._send(HTTPStatus.OK, page(server.title, snapshot.data, live=True), {})
        elif asked.path == "/data":
            tag = {"ETag": snapshot.tag, STANDING: snapshot.live}
            if snapshot.tag in self.headers.get("If-None-Match", ""):
                self._send(HTTPStatus.NOT_MODIFIED, b"", tag)
            elif "gzip" in self.headers.get("Accept-Encoding", ""):
                tag["Content-Encoding"] = "gzip"
                packed = gzip.compress(snapshot.data, 1, mtime=0)
                self._send(HTTPStatus.OK, packed, tag, "application/json")
            else:
                self._send(HTTPStatus.OK, snapshot.data, tag, "application/json")
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "there are only / and /data")

    def _has_cookie(self) -> bool:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            return False
        return found is not None and _same(found.value.encode(), self.server.cookie.encode())

    def _refuse(self, status: HTTPStatus, text: str) -> None:
        self._send(status, f"{status.phrase}: {text}\n".encode(), {}, "text/plain")

    def _send(
        self, status: HTTPStatus, body: bytes, more: dict[str, str], kind: str = "text/html"
    ) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, **more}.items():
            self.send_header(name, value)
        if status is not HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD" and body:
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: an address may hold the token."""


def _same(given: bytes, wanted: bytes) -> bool:
    return hmac.compare_digest(given, wanted)


def serve(screen: Screen, wanted: Serving) -> ExitCode:
    """Serve the report until Ctrl-C or SIGTERM.

    Args:
        screen: where it is said that it does.
        wanted: what is shown, and to whom.

    Raises:
        RunError: there is no such folder, no broker answers, or nobody can listen there.
    """
    source = _source(screen, wanted)
    snapshots = Snapshots(source, wanted.title, wanted.zone)
    try:
        server = Server(wanted, snapshots)
    except OSError as error:
        source.close()
        raise RunError(ExitCode.USAGE, _cannot_listen(wanted, error)) from None
    try:
        snapshots.start()
        threading.Thread(target=server.serve_forever, name="answer", daemon=True).start()
        more = "?token=... of --token" if wanted.token else ""
        screen.note(f"the report is at {server.url}{more}; Ctrl-C ends it")
        threading.Event().wait()
    except KeyboardInterrupt:
        screen.note("ended")
    finally:
        server.server_close()
        snapshots.stop()
        source.close()
    return ExitCode.OK


def _source(screen: Screen, wanted: Serving) -> Source:
    if wanted.target is not None:
        from pipelines.report.live.topics import Topics  # noqa: PLC0415 (the client may be missing)

        screen.note(f"looking for the broker at {','.join(wanted.target.servers)}")
        try:
            brokers.check_target(wanted.target, ())
        except RunError as error:
            # What a stream writes to is what we read.
            raise RunError(ExitCode.NO_INPUT, error.text) from None
        return Topics(wanted.target)
    if "://" not in wanted.folder and not os.path.isdir(wanted.folder):
        text = (
            f"--input '{wanted.folder}': there is no such folder; give the --output of a stream: "
            "run.py analytics --input kafka://... --output OUT"
        )
        raise RunError(ExitCode.NO_INPUT, text)
    return LiveFolder(wanted.folder)


def _cannot_listen(wanted: Serving, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"--port {wanted.port} is taken; give another, or 0 for a free one"
    if error.errno == errno.EACCES:
        return f"--port {wanted.port} is not for everybody; give one from 1024 on"
    return f"--host '{wanted.host}' can't be listened to: {error.strerror or error}"
