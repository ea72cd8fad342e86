"""A schema registry with Confluent's HTTP interface, as far as a reader of schemas needs it.

It listens on a free loopback port, and can be told to be away, slow, refusing or nonsensical.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

from tests.services.ports import free_ports


@dataclass
class FakeRegistry:
    """A registry; use it as a context, which starts it.

    Attributes:
        user: and `password`: who may read; empty for everybody.
        tls: certificate and key files; None for HTTP.
        failing: so many of the next answers are 503.
        answer: bytes (status 200) that are given instead of any answer; None for none.
        status: given with `answer`.
        delay_s: seconds before an answer.
        asked: the paths asked for so far.
    """

    user: str = ""
    password: str = ""
    tls: tuple[str, str] | None = None
    failing: int = 0
    answer: bytes | None = None
    status: int = 200
    delay_s: float = 0.0
    asked: list[str] = field(default_factory=list)
    port: int = 0
    _schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    _subjects: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def register(
        self,
        schema: object,
        subject: str = "",
        references: list[tuple[str, str]] | None = None,
        kind: str | None = None,
    ) -> int:
        """Add a schema, and return its id.

        Args:
            schema: as JSON would have it, or text that is given as it is.
            subject: that it is version 1 of.
            references: (name of a type, subject) that it refers to.
            kind: `schemaType`.
        """
        number = len(self._schemas) + 1
        text = schema if isinstance(schema, str) else json.dumps(schema)
        entry: dict[str, Any] = {"schema": text}
        if references:
            entry["references"] = [
                {"name": name, "subject": of, "version": 1} for name, of in references
            ]
        if kind:
            entry["schemaType"] = kind
        self._schemas[number] = entry
        if subject:
            self._subjects[subject, 1] = {"subject": subject, "version": 1, "id": number, **entry}
        return number

    def __enter__(self) -> FakeRegistry:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen; again at the same port, if it did before."""
        self.port = self.port or free_ports(1)[0]
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.serve(self)

            def do_POST(self) -> None:
                registry.serve(self)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self.tls)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Listen no longer."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def serve(self, request: BaseHTTPRequestHandler) -> None:
        """Answer a request."""
        self.asked.append(request.path)
        time.sleep(self.delay_s)
        if self.failing:
            self.failing -= 1
            self._send(request, 503, b'{"error_code": 50301, "message": "no leader"}')
        elif self.answer is not None:
            self._send(request, self.status, self.answer)
        elif self.user and request.headers.get("Authorization") != self._token():
            self._send(request, 401, b'{"error_code": 401, "message": "Unauthorized"}')
        else:
            path = [unquote(part) for part in request.path.split("/")[1:]]
            if request.command == "POST":
                body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
                self._send(request, *self._registered(path, body))
            else:
                self._send(request, *self._found(path))

    def _token(self) -> str:
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def _registered(self, path: list[str], body: bytes) -> tuple[int, bytes]:
        """Add a schema to a subject; the same one again keeps its id, another is not taken."""
        if path[:1] != ["subjects"] or path[2:] != ["versions"]:
            return 404, b"<html>not found</html>"
        text = json.loads(body)["schema"]
        there = self._subjects.get((path[1], 1))
        if there is not None and there["schema"] != text:
            return 409, b'{"error_code": 409, "message": "another schema is there"}'
        number = self.register(text, path[1]) if there is None else there["id"]
        return 200, json.dumps({"id": number}).encode()

    def _found(self, path: list[str]) -> tuple[int, bytes]:
        if path[:2] == ["schemas", "ids"] and len(path) == 3:
            entry = self._schemas.get(int(path[2]))
            error = b'{"error_code": 40403, "message": "Schema not found"}'
        elif path[:1] == ["subjects"] and len(path) == 4 and path[2] == "versions":
            entry = self._subjects.get((path[1], int(path[3])))
            error = b'{"error_code": 40401, "message": "Subject not found"}'
        else:
            return 404, b"<html>not found</html>"
        return (404, error) if entry is None else (200, json.dumps(entry).encode())

    def _send(self, request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        try:
            request.send_response(status)
            request.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
            request.send_header("Content-Length", str(len(body)))
            if 300 <= status < 400:
                request.send_header("Location", "http://127.0.0.1:1/")
            request.end_headers()
            request.wfile.write(body)
        except OSError:
            pass  # whoever asked waits no longer
