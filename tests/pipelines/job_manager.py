"""A job manager that says what it is told to: the answers of Flink's REST interface, by path."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JOB = "832443f84219f4a39e266ad22fc07ade"
NAME = "imixs-streams-transitions"


class JobManager:
    """Answers on loopback.

    Attributes:
        answers: path without its query -> what is answered; a text is sent as it is.
        asked: methods and paths, in order.
        address: `host:port`.
    """

    def __init__(self, host: str) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        manager = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length).decode()
                manager.asked.append(f"{self.command} {self.path} {body}".strip())
                found = manager.answers.get(self.path.partition("?")[0].lstrip("/"))
                text = found if isinstance(found, str) else json.dumps(found)
                self.send_response(404 if found is None else 200)
                self.end_headers()
                self.wfile.write(b'{"errors":["Not found"]}' if found is None else text.encode())

            do_GET = do_POST = do_PATCH = _answer  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self.address = f"{host}:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def cluster(self, managers: int = 2, slots: int = 4, free: int = 4) -> None:
        """Have a cluster."""
        self.answers["overview"] = {
            **{"taskmanagers": managers, "slots-total": slots, "slots-available": free},
            "flink-version": "1.19.3",
        }

    def job(self, state: str, *, start_ms: int, **tasks: int) -> None:
        """Have a job with tasks in states."""
        found = {"jid": JOB, "name": NAME, "state": state, "start-time": start_ms}
        self.answers["jobs/overview"] = {"jobs": [found]}
        self.answers[f"jobs/{JOB}"] = {"state": state, "vertices": [{"tasks": tasks}]}
        self.answers.setdefault(f"jobs/{JOB}/exceptions", {})
        self.checkpoints()

    def failed(self, *traces: str) -> None:
        """Have failures, a second apart."""
        entries = [{"timestamp": 1000 * n, "stacktrace": t} for n, t in enumerate(traces, 1)]
        self.answers[f"jobs/{JOB}/exceptions"] = {"exceptionHistory": {"entries": entries}}

    def checkpoints(self, completed: int = 0, failure: str = "") -> None:
        """Have checkpoints, and perhaps one that failed after them."""
        latest: dict[str, Any] = {
            "completed": {"id": completed, "state_size": 2**20, "end_to_end_duration": 80}
        }
        if failure:
            latest["failed"] = {"id": completed + 1, "failure_message": failure}
        counts = {"completed": completed, "failed": int(bool(failure)), "restored": 0}
        self.answers[f"jobs/{JOB}/checkpoints"] = {"counts": counts, "latest": latest}

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def job_manager(host: str = "127.0.0.1") -> Iterator[JobManager]:
    """Have a job manager while the block runs."""
    manager = JobManager(host)
    try:
        yield manager
    finally:
        manager.close()
