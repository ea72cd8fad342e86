"""Fetch and build the services; run a Kafka broker, Pub/Sub and a Flink cluster until Ctrl-C.

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
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from pipelines.prism import built
from tests.services import flink, kafka, prism, pubsub
from tests.services.provision import Missing
from tests.services.schema_registry import FakeRegistry

_DESCRIPTION = """Fetch and build the services once (Kafka and Flink with Maven, Prism and Pub/Sub
with Go), then run a Kafka broker, a schema registry, a Pub/Sub double and a Flink cluster of
several processes for trying things out, with data that is gone afterwards, until Ctrl-C."""

FLINK_PORTS = (8081, 8099, 50_000)
"""Of Flink's page, Beam's job server and the pool of workers."""


REGISTRY_PORT = 8085
"""Of the schema registry; a free one if it is taken."""


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
    add("--pubsub-port", type=int, default=0, help="of the Pub/Sub double (default: a free one)")
    add("--no-flink", action="store_true", help="only the broker")
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
    except (kafka.BrokerError, flink.FlinkError) as error:
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
    wanted = [options.port, *(() if options.no_flink else FLINK_PORTS)]
    taken = [port for port in wanted if port and _taken(port)]
    if taken and not options.provision:
        print(f"error: port {taken[0]} is taken: free it, or see --help", file=sys.stderr)
        return 2
    began = time.monotonic()
    print("== Kafka: fetching its jars with Maven, once", flush=True)
    print(f"   {kafka.provision()}", flush=True)
    if not options.no_flink:
        print("== Flink: fetching its jars with pip and Maven, once", flush=True)
        print(f"   {flink.provision()}", flush=True)
    if options.provision:
        print("== Prism: building it with Go, once (some minutes)", flush=True)
        print(f"   {prism.provision()}", flush=True)
        print("== Pub/Sub: building its double with Go, once", flush=True)
        print(f"   {pubsub.provision()}", flush=True)
        return 0
    print(f"== starting ({time.monotonic() - began:.0f} s so far)", flush=True)
    broker = kafka.KafkaBroker(options.folder, port=options.port, heap=options.heap)
    page, jobs, workers = FLINK_PORTS
    cluster: AbstractContextManager[object] = nullcontext()
    if not options.no_flink:
        cluster = flink.FlinkCluster(port=page, job_port=jobs, worker_port=workers)
    service = _pubsub(options.pubsub_port)
    schemas = FakeRegistry(port=0 if _taken(REGISTRY_PORT) else REGISTRY_PORT)
    with broker, cluster, service or nullcontext(), schemas:
        print(_help(broker, not options.no_flink, service, schemas), flush=True)
        # They are of use meanwhile.
        threading.Thread(target=_build_prism, daemon=True).start()
        try:
            while broker.running:
                ended.wait(0.5)
        except KeyboardInterrupt:
            print("\nstopping", flush=True)
            broker.stop()
            return 0
        # A temporary folder goes with it.
        print(f"error: the broker has ended; its last words:\n{broker.log_end()}", file=sys.stderr)
    return 1


def _pubsub(port: int) -> pubsub.PubSubService | None:
    """Return a Pub/Sub service to run besides; None where it can't be built."""
    print("== Pub/Sub: building its double with Go, once", flush=True)
    try:
        print(f"   {pubsub.provision()}", flush=True)
    except Missing as missing:
        print(f"   goes on without: {missing.why}", flush=True)
        return None
    return pubsub.PubSubService(port=port)


def _build_prism() -> None:
    if built().exists():
        return
    print("== Prism: building it with Go, once (some minutes)", flush=True)
    try:
        print(f"   {prism.provision()}", flush=True)
    except Missing as missing:
        print(f"   goes on without: {missing.why}", flush=True)


def _help(
    broker: kafka.KafkaBroker,
    on_flink: bool,
    service: pubsub.PubSubService | None,
    schemas: FakeRegistry,
) -> str:
    python = os.path.relpath(sys.executable)
    if python.startswith(".."):
        python = "python3" if shutil.which("python3") == sys.executable else sys.executable
    cluster = f"""
A Flink cluster runs: two task managers, a job server, a pool of workers; its page is
http://127.0.0.1:{FLINK_PORTS[0]}. The same pipeline on it, with these options besides:

  --runner FlinkRunner --flink_master 127.0.0.1:{FLINK_PORTS[0]} \\
    --job_endpoint 127.0.0.1:{FLINK_PORTS[1]} \\
    --environment_type EXTERNAL --environment_config 127.0.0.1:{FLINK_PORTS[2]}
"""
    other = ""
    if service is not None:
        other = f"""
A Pub/Sub service runs at {service.address}: the double of Google's Go client, in memory. In a
terminal with

  export PUBSUB_EMULATOR_HOST={service.address}

  messages    {python} -m examples.publish pubsub://local-project/imixs --create FILE.jsonl ...
  a pipeline  {python} run.py transitions --input pubsub://local-project/imixs \\
                --output 'pubsub://local-project/out-?create=yes'
"""
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

A schema registry runs at {schemas.url}, as far as readers need one. Events as Avro:

  messages    {python} -m examples.producer --broker {broker.address} --topic orders \\
                --format avro --schema-registry {schemas.url} --rate 1000
  a pipeline  {python} run.py transitions --input 'kafka://{broker.address}/orders?group=avro' \\
                --output kafka://{broker.address}/avro- --schema_registry {schemas.url}
{other}{cluster if on_flink else ""}"""


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
