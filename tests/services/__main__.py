"""Fetch and build the services, and run the Kafka broker until Ctrl-C.

python -m tests.services --port 9092
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pipelines.prism import built
from tests.services import kafka, prism
from tests.services.provision import Missing

_DESCRIPTION = """Fetch and build the services once (Kafka with Maven, Prism with Go), then run
a Kafka broker for trying things out, with data that is gone afterwards, until Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 stopped by the user, 1 the broker ended, 2 it cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=_DESCRIPTION)
    add = parser.add_argument
    add("--port", type=int, default=0, help="of the broker (default: a free one)")
    add(
        "--folder",
        type=Path,
        help="for its settings, data and log; only the log and settings stay (default: temporary)",
    )
    add("--heap", default="512m", help="its largest heap (default: 512m)")
    add("--provision", action="store_true", help="only fetch and build; start nothing")
    options = parser.parse_args(argv)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _end(ended))
    try:
        return _run(options, ended)
    except Missing as missing:
        print(f"error: {missing}", file=sys.stderr)
        return 2
    except kafka.BrokerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _end(ended: threading.Event) -> None:
    if ended.is_set():
        return
    ended.set()
    # Whatever it does, fetch or start, is given up.
    raise KeyboardInterrupt


def _run(options: argparse.Namespace, ended: threading.Event) -> int:
    if options.port and _taken(options.port):
        print(f"error: port {options.port} is taken: choose another one", file=sys.stderr)
        return 2
    began = time.monotonic()
    print("== Kafka: fetching its jars with Maven, once", flush=True)
    print(f"   {kafka.provision()}", flush=True)
    if options.provision:
        print("== Prism: building it with Go, once (some minutes)", flush=True)
        print(f"   {prism.provision()}", flush=True)
        return 0
    print(f"== starting a broker ({time.monotonic() - began:.0f} s so far)", flush=True)
    broker = kafka.KafkaBroker(options.folder, port=options.port, heap=options.heap)
    with broker:
        print(_help(broker), flush=True)
        # The broker is of use meanwhile.
        threading.Thread(target=_build_prism, daemon=True).start()
        try:
            while broker.running:
                ended.wait(0.5)
        except KeyboardInterrupt:
            print("\nstopping the broker", flush=True)
            broker.stop()
            return 0
        print(f"error: the broker has ended: {broker.log}", file=sys.stderr)
    return 1


def _build_prism() -> None:
    if built().exists():
        return
    print("== Prism: building it with Go, once (some minutes)", flush=True)
    try:
        print(f"   {prism.provision()}", flush=True)
    except Missing as missing:
        print(f"   goes on without: {missing.why}", flush=True)


def _help(broker: kafka.KafkaBroker) -> str:
    python = os.path.relpath(sys.executable)
    if python.startswith(".."):
        python = "python3" if shutil.which("python3") == sys.executable else sys.executable
    return f"""
A Kafka broker runs at {broker.address} (process {broker.pid}; its log: {broker.log}).
With Ctrl-C here it stops, and its data is gone. In other terminals:

  messages    {python} -m examples.producer --broker {broker.address} --topic imixs --rate 1000
  a pipeline  {python} run.py transitions --input 'kafka://{broker.address}/imixs?group=try' \\
                --output kafka://{broker.address}/out-
  its rows    {python} -m examples.watch --broker {broker.address} --topic out-transitions

With credentials: {broker.sasl_address}, security.protocol=SASL_PLAINTEXT, sasl.mechanism=PLAIN,
  sasl.username={kafka.SASL_USER}, sasl.password={kafka.SASL_PASSWORD}
With TLS: {broker.ssl_address}, security.protocol=SSL, ssl.ca.location={broker.ssl_ca}
"""


def _taken(port: int) -> bool:
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


if __name__ == "__main__":
    sys.exit(main())
