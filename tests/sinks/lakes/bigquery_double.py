"""A little of BigQuery's REST interface on loopback: datasets, tables, inserts, TRUNCATE.

Not BigQuery: it keeps what Google's client sends, as it was sent, and refuses rows and schemas that
the documented rules refuse (unknown columns, values that are not of their type).
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Double:
    """What the service holds.

    Attributes:
        datasets: ids of datasets.
        tables: table id -> resource, as `tables.insert` got it.
        rows: table id -> insert id -> row.
        refuses: ids of rows that it does not take.
    """

    def __init__(self) -> None:
        self.datasets = {"ds"}
        self.tables: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.refuses: set[str] = set()
        self.address = ""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        if match := re.fullmatch(r".*/datasets/(\w+)", path):
            if match[1] in self.datasets:
                return 200, {"datasetReference": {"projectId": "p", "datasetId": match[1]}}
            return 404, _error(404, f"Not found: Dataset p:{match[1]}")
        if path.endswith("/tables") and method == "POST":
            name = body["tableReference"]["tableId"]
            self.tables[name] = {**body, "id": name, "numRows": "0"}
            self.rows[name] = {}
            return 200, self.tables[name]
        if match := re.fullmatch(r".*/tables/(\w+)/insertAll", path):
            return self._insert(match[1], body)
        if match := re.fullmatch(r".*/tables/(\w+)", path):
            if match[1] not in self.tables:
                return 404, _error(404, f"Not found: Table {match[1]}")
            if method == "PATCH":
                before = {f["name"]: f["type"] for f in self.tables[match[1]]["schema"]["fields"]}
                after = {f["name"]: f["type"] for f in body["schema"]["fields"]}
                if any(after.get(name) != type_ for name, type_ in before.items()):
                    return 400, _error(400, "Provided Schema does not match")
                self.tables[match[1]]["schema"] = body["schema"]
            found = {**self.tables[match[1]], "numRows": str(len(self.rows[match[1]]))}
            return 200, found
        return 404, _error(404, f"no such method: {method} {path}")

    def _insert(self, name: str, body: Any) -> tuple[int, Any]:
        fields = {f["name"]: f for f in self.tables[name]["schema"]["fields"]}
        errors = []
        for index, each in enumerate(body["rows"]):
            row = each["json"]
            wrong = [_wrong(fields.get(column), value) for column, value in row.items()]
            said = next((w for w in wrong if w), "")
            if row.get("row_id") in self.refuses:
                said = "no such row, please"
            if said:
                errors.append({"index": index, "errors": [{"reason": "invalid", "message": said}]})
        if not errors:
            for each in body["rows"]:
                self.rows[name].setdefault(each["insertId"], each["json"])
        return 200, {"insertErrors": errors} if errors else {}


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "errors": [{"message": message}]}}


def _wrong(field: dict[str, Any] | None, value: Any) -> str:
    """Say why a value is none of a column; empty if it is one."""
    if field is None:
        return "no such field"
    if field.get("mode") == "REPEATED":
        inner = {**field, "mode": "NULLABLE"}
        if not isinstance(value, list):
            return f"{field['name']}: not repeated"
        return next((w for w in (_wrong(inner, each) for each in value) if w), "")
    if value is None:
        return ""
    type_ = field["type"]
    try:
        if type_ == "RECORD":
            parts = {f["name"]: f for f in field["fields"]}
            return next((w for n, v in value.items() if (w := _wrong(parts.get(n), v))), "")
        if type_ == "TIMESTAMP":
            datetime.strptime(value, "%Y-%m-%dT%H:%M:%S.%fZ")  # noqa: DTZ007
        elif type_ == "BYTES":
            base64.b64decode(value, validate=True)
        fits: Any = {
            "STRING": str,
            "INTEGER": int,
            "FLOAT": (int, float),
            "BOOLEAN": bool,
            "TIMESTAMP": str,
            "BYTES": str,
        }[type_]
    except (ValueError, TypeError, AttributeError) as error:
        return f"{field['name']}: {error}"
    return "" if isinstance(value, fits) else f"{field['name']}: {value!r} is no {type_}"


@contextmanager
def running() -> Iterator[Double]:
    """Serve on a free port of loopback."""
    double = Double()

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(size)
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip  # noqa: PLC0415

                sent = gzip.decompress(sent)
            body = json.loads(sent) if sent else None
            code, answer = double.answer(self.command, self.path.partition("?")[0], body)
            content = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = _do  # noqa: N815

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    double.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
