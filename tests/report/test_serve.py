"""The live page over HTTP: what is answered, to whom, and how it goes on."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

import run
from pipelines.exit_codes import ExitCode
from pipelines.report.arguments import Serving, parse_serve
from pipelines.report.live.files import LiveFolder
from pipelines.report.live.server import Server
from pipelines.report.live.snapshot import Snapshots
from pipelines.report.live.source import Rate, final_until, named_until
from tests.report.tables import cases, save, tables

ROOT = Path(__file__).parents[2]
TOKEN = "a-token-that-is-long-enough"


@contextmanager
def serving(folder: Path, token: str = "", host: str = "127.0.0.1") -> Iterator[Server]:
    snapshots = Snapshots(LiveFolder(str(folder)), "Live", "UTC")
    server = Server(Serving(str(folder), None, "Live", "UTC", host, 0, token.encode()), snapshots)
    snapshots.start()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        snapshots.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "out", tables(cases(8, (("in", "done"),))))


def get(server: Server, path: str, method: str = "GET", **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    try:
        connection.request(
            method, path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_page_and_data(folder: Path) -> None:
    with serving(folder) as server:
        status, headers, body = get(server, "/")
        assert status == 200
        assert b"<title>Live</title>" in body
        # What the server says, and what the page says of itself.
        inner = re.search(rb'Policy" content="([^"]*)"', body)
        assert inner is not None
        assert headers["Content-Security-Policy"].startswith(inner[1].decode())
        assert "connect-src 'self'" in headers["Content-Security-Policy"]
        status, headers, body = get(server, "/data")
        data = orjson.loads(body)
        assert sum(data["process_map"]["count"]) == 16
        assert data["tag"] == headers["ETag"]
        assert data["live"]["known_until"] is not None
        status, more, packed = get(server, "/data", Accept_Encoding="gzip")
        assert more["Content-Encoding"] == "gzip"
        assert "process_map" in orjson.loads(gzip.decompress(packed))


def test_what_is_known_is_not_sent_again(folder: Path) -> None:
    with serving(folder) as server:
        tag = get(server, "/data")[1]["ETag"]
        time.sleep(2.5)
        status, headers, body = get(server, "/data", If_None_Match=tag)
        assert (status, body) == (304, b"")
        # How the stream stands is told all the same.
        assert json.loads(headers["X-Stream"])["rate"] == 0
        # And in the data of whoever asks for it anew.
        _, headers, body = get(server, "/data")
        assert headers["ETag"] == tag
        assert orjson.loads(body)["live"] == json.loads(headers["X-Stream"])


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/../../etc/passwd", "/data/", "/style.css", "/%2e%2e/run.py"]
)
def test_no_file_is_served(folder: Path, path: str) -> None:
    with serving(folder) as server:
        assert get(server, path)[0] == 404


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "10.0.0.1", "", "localhost.evil.example"]
)
def test_a_strange_host_is_refused(folder: Path, host: str) -> None:
    with serving(folder) as server:
        assert get(server, "/", Host=host)[0] == 421
        assert get(server, "/data", Host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1:80", "[::1]:8050"])
def test_names_of_this_machine_are_taken(folder: Path, host: str) -> None:
    with serving(folder) as server:
        assert get(server, "/", Host=host)[0] == 200


def test_only_reading_is_answered(folder: Path) -> None:
    with serving(folder) as server:
        assert get(server, "/", "POST")[0] == 501
        status, headers, body = get(server, "/data", "HEAD")
        assert status == 200 and not body and int(headers["Content-Length"]) > 0


def test_who_does_not_know_the_token_sees_nothing(folder: Path) -> None:
    with serving(folder, TOKEN) as server:
        for path in ("/", "/data", "/other"):
            status, headers, body = get(server, path)
            assert status == 401 and "Set-Cookie" not in headers and b"process_map" not in body
        assert get(server, f"/?token={TOKEN}x")[0] == 403
        assert get(server, "/?token=%ff")[0] == 403
        assert get(server, "/data", Cookie="imixs_report=x")[0] == 401
        assert get(server, "/data", Cookie=f"imixs_report={TOKEN}")[0] == 401
        assert get(server, "/data", Cookie="a b; imixs_report")[0] == 401


def test_the_token_is_given_once_and_a_cookie_keeps_it(folder: Path) -> None:
    with serving(folder, TOKEN) as server:
        status, headers, body = get(server, f"/?token={TOKEN}")
        cookie = headers["Set-Cookie"]
        assert status == 200
        assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
        # The token itself is in neither: not in a browser's history, and not in its store.
        assert TOKEN.encode() not in body and TOKEN not in cookie
        kept = cookie.partition(";")[0]
        assert get(server, "/", Cookie=kept)[0] == 200
        assert get(server, "/data", Cookie=kept)[0] == 200


def test_the_page_follows_what_comes(folder: Path) -> None:
    with serving(folder) as server:
        old = orjson.loads(get(server, "/data")[2])
        more = tables(cases(50, (("in", "check", "done"),)))
        path = folder / "process_map" / "process_map-stream-1725000000000-00000-00.parquet"
        aside = save(folder.parent / "aside", {"process_map": more["process_map"]})
        (aside / "process_map" / "process_map-00000-of-00001.parquet").rename(path)
        until = time.monotonic() + 30
        while time.monotonic() < until:
            data = orjson.loads(get(server, "/data")[2])
            if "check" in data["states"]["names"]:
                break
            time.sleep(0.2)
        assert "check" in data["states"]["names"]
        assert data["tag"] != old["tag"]
        assert data["live"]["known_until"] == 1725000000000


def test_a_broken_file_is_said_and_the_rest_still_shown(folder: Path) -> None:
    with serving(folder) as server:
        (folder / "flow" / "broken.parquet").write_bytes(b"no")
        until = time.monotonic() + 30
        while time.monotonic() < until:
            _, headers, body = get(server, "/data")
            live, data = json.loads(headers["X-Stream"]), orjson.loads(body)
            if live["problem"]:
                break
            time.sleep(0.2)
        assert "broken.parquet" in live["problem"]
        assert sum(data["process_map"]["count"]) == 16


def test_a_broken_manifest_is_said_while_the_tables_are_shown(folder: Path) -> None:
    """From the first look on, and gone when the file is whole again."""
    rows = {each.name: {"rows": 0} for each in folder.iterdir()}
    for name, found in tables(cases(8, (("in", "done"),))).items():
        rows[name]["rows"] = found.num_rows
    (folder / "_run.json").write_bytes(orjson.dumps({"tables": rows})[:-9])
    with serving(folder) as server:
        _, headers, body = get(server, "/data")
        live, data = json.loads(headers["X-Stream"]), orjson.loads(body)
        assert "_run.json can't be read as what a run says of itself" in live["problem"]
        assert data["live"]["problem"] == live["problem"]
        assert sum(data["process_map"]["count"]) == 16
        assert (data["run"], data["unknown"]) == (None, True)
        (folder / "aside").write_bytes(orjson.dumps({"tables": rows}))
        (folder / "aside").rename(folder / "_run.json")
        until = time.monotonic() + 30
        while live["problem"] or data["unknown"]:
            assert time.monotonic() < until
            time.sleep(0.2)
            _, headers, body = get(server, "/data")
            live, data = json.loads(headers["X-Stream"]), orjson.loads(body)
        assert data["run"] is not None


def test_a_stream_that_has_written_nothing_yet_has_a_page(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        assert get(server, "/")[0] == 200
        assert orjson.loads(get(server, "/data")[2])["live"]["known_until"] is None


def test_a_taken_port_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        code = run.main(["serve", "--input", str(folder), "--port", port])
    assert code == ExitCode.USAGE
    assert f"--port {port} is taken" in capsys.readouterr().err


def test_no_folder_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = run.main(["serve", "--input", str(tmp_path / "no"), "--port", "0"])
    assert code == ExitCode.NO_INPUT
    assert "there is no such folder" in capsys.readouterr().err


def test_no_broker_is_said_and_a_signal_ends_the_wait(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("confluent_kafka")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{nobody.getsockname()[1]}"
        command = [sys.executable, "run.py", "serve", "--input", f"kafka://{address}/m-"]
        with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == f"looking for the broker at {address}\n"
            os.kill(process.pid, signal.SIGTERM)
            assert process.stderr.read() == "error: terminated\n"
            assert process.wait(30) == ExitCode.TERMINATED
        assert run.main(["serve", "--input", f"kafka://{address}/m-"]) == ExitCode.NO_INPUT
        assert f"no Kafka broker answers at {address}" in capsys.readouterr().err


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well(folder: Path, stop: signal.Signals) -> None:
    command = [sys.executable, "run.py", "serve", "--input", str(folder), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", line)
        assert found is not None, line
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
        connection.request("GET", "/data")
        assert connection.getresponse().status == 200
        os.kill(process.pid, stop)
        rest = process.stderr.read()
        assert process.wait(30) == ExitCode.OK
        assert "Traceback" not in rest


def test_an_address_of_ipv6(folder: Path) -> None:
    try:
        with serving(folder, host="::1") as server:
            assert server.url == f"http://[::1]:{server.server_port}/"
            assert server.local
    except OSError as error:
        pytest.skip(f"needs IPv6: {error}")


def test_other_addresses_need_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOK", TOKEN)
    wanted = parse_serve(["--input", "o", "--host", "0.0.0.0", "--token", "env:LOOK"])
    assert (wanted.host, wanted.token) == ("0.0.0.0", TOKEN.encode())
    assert parse_serve(["--input", "o"]).host == "127.0.0.1"


def test_the_rate_is_of_the_last_minute() -> None:
    now = [100.0]
    rate = Rate(lambda: now[0])
    assert rate.of(50) is None
    now[0] += 10
    assert rate.of(150) == 10
    now[0] += 100
    assert 0 <= (rate.of(150) or 0) < 1
    for _ in range(3):
        now[0] += 61
        last = rate.of(150)
    assert last == 0
    # Another run has replaced the tables.
    now[0] += 1
    assert rate.of(3) is None


def test_how_far_a_stream_is() -> None:
    assert named_until(["o/flow/flow-stream-17-00000-ab.jsonl", "o/flow-stream-99-x/p.csv"]) == 17
    assert named_until(["o/flow/flow-00000-of-00001.parquet"]) is None
    found = tables(cases(2, (("in", "done"),)))
    last = max(row["window_end"] for row in found["flow"].to_pylist())
    assert final_until(found) == int(last.timestamp() * 1000)
    assert final_until({}) is None
