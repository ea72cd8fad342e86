"""A real Kafka broker on free loopback ports: one node, KRaft, no ZooKeeper.

Four listeners: plain text, SASL (PLAIN over plain text), TLS, and the controller's own. A broker
keeps its ports and data while it is stopped or killed, so a test can let it bounce.
"""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    NewPartitions,
    NewTopic,
)

from tests.services.leash import Leashed
from tests.services.ports import free_ports, listens
from tests.services.provision import Missing, call, program, provide
from tests.services.service import Service

VERSION = "3.9.0"
NAME = "a Kafka broker"

SASL_USER = "stream"
SASL_PASSWORD = "only-for-tests"
_STORE_PASSWORD = "only-for-tests"

_FETCH = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"
_HERE = Path(__file__).parent
_JVM = "openjdk-17-jre-headless or newer"

_START_SECONDS = 60.0


class BrokerError(RuntimeError):
    """The broker does not do what it should; holds the end of its log."""


class KafkaBroker(Service):
    """A broker of its own, with data that is gone when it is closed.

    Attributes:
        address: `127.0.0.1:port`, plain text.
        sasl_address: the same broker for clients with `security.protocol=SASL_PLAINTEXT`,
            `sasl.mechanism=PLAIN`, SASL_USER and SASL_PASSWORD.
        ssl_address: for clients with `security.protocol=SSL` and `ssl.ca.location=ssl_ca`.
        ssl_ca: the certificate to trust, PEM.
        folder: its settings, data and log.
        log: what it prints.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        port: int = 0,
        heap: str = "512m",
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a broker; `start` starts it.

        Args:
            folder: where its files go; by default a temporary folder, removed by `close`.
            port: of the plain listener; 0 takes a free one.
            heap: largest heap, as the JVM has it.
            settings: more lines for its server.properties, such as `message.max.bytes`.
        """
        self._own_folder = folder is None
        self.folder: Final = folder or Path(tempfile.mkdtemp(prefix="imixs-kafka-"))
        self.log: Final = self.folder / "broker.log"
        self._heap = heap
        self._settings = dict(settings or {})
        plain, self._controller, sasl, ssl = free_ports(4)
        self.address: Final = f"127.0.0.1:{port or plain}"
        self.sasl_address: Final = f"127.0.0.1:{sasl}"
        self.ssl_address: Final = f"127.0.0.1:{ssl}"
        self._process: Leashed | None = None

    @property
    def ssl_ca(self) -> Path:
        """The certificate to trust."""
        return provision() / "tls" / "ca.pem"

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether its process is alive."""
        return self._process is not None and self._process.exit_code() is None

    def start(self) -> None:
        """Start it, again after `stop` or `kill`, and wait until it answers.

        Raises:
            Missing: Java or Maven is missing.
            BrokerError: its settings are wrong, it ended, or did not answer within a minute.
        """
        if self.running:
            return
        home = provision()
        if not (self.folder / "data" / "meta.properties").exists():
            self._format(home)
        command = java(
            home,
            "kafka.Kafka",
            [str(self.folder / "server.properties")],
            [f"-Xmx{self._heap}", "-Xms128m", "-XX:+UseG1GC", "-XX:MaxDirectMemorySize=128m"],
        )
        self._process = Leashed(command, self.log)
        self._wait()

    def stop(self) -> None:
        """Stop it in good order; the data stays for the next `start`."""
        if self._process is not None:
            self._process.end(signal.SIGTERM)
            self._process = None

    def kill(self) -> None:
        """Kill it (`kill -9`); the data stays as it is."""
        if self._process is not None:
            self._process.end(signal.SIGKILL)
            self._process = None

    def restart(self) -> None:
        """Stop it and start it again: the same ports, the same data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Kill it and remove its data; with a folder given, its settings and log stay."""
        self.kill()
        shutil.rmtree(self.folder if self._own_folder else self.folder / "data", True)

    def admin(self) -> AdminClient:
        """Return a client for topics, offsets and groups."""
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def create_topic(self, name: str, partitions: int = 1, **config: str) -> None:
        """Create a topic and wait until it is there.

        Args:
            name: must be new.
            partitions: how many.
            config: its settings, `_` for `.`: `retention_ms="-1"`.

        Raises:
            KafkaException: the broker refuses.
        """
        settings = {key.replace("_", "."): value for key, value in config.items()}
        admin = self.admin()
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=settings)
        for done in admin.create_topics([topic]).values():
            done.result(30)
        self._wait_for_partitions(admin, name, partitions)

    def delete_topics(self, *names: str) -> None:
        """Delete topics and wait until the broker has done it."""
        admin = self.admin()
        for done in admin.delete_topics(list(names)).values():
            done.result(10)

    def add_partitions(self, name: str, total: int) -> None:
        """Let a topic have `total` partitions and wait until it has.

        Raises:
            KafkaException: the broker refuses.
        """
        admin = self.admin()
        for done in admin.create_partitions([NewPartitions(name, total)]).values():
            done.result(30)
        self._wait_for_partitions(admin, name, total)

    def _wait_for_partitions(self, admin: AdminClient, name: str, count: int) -> None:
        # The controller answers before every partition has its leader.
        for _ in range(300):
            found = admin.list_topics(name, timeout=10).topics[name].partitions
            if len(found) == count and all(part.leader >= 0 for part in found.values()):
                return
            time.sleep(0.02)
        reason = f"topic {name} has no leaders after some seconds\n{self.log_end()}"
        raise BrokerError(reason)

    def _format(self, home: Path) -> None:
        properties = self.folder / "server.properties"
        properties.parent.mkdir(parents=True, exist_ok=True)
        lines = {**self._properties(home), **self._settings}
        properties.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), "utf-8")
        # The first byte is fixed: an id that begins with `-` would be taken for an option.
        cluster = urlsafe_b64encode(b"K" + uuid.uuid4().bytes[1:]).decode().rstrip("=")
        arguments = ["format", "--cluster-id", cluster, "--config", str(properties)]
        options = ["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        try:
            call(NAME, java(home, "kafka.tools.StorageTool", arguments, options))
        except Missing as error:
            # The parts are there, the settings are wrong: no reason to skip a test.
            raise BrokerError(error.why) from None

    def _properties(self, home: Path) -> dict[str, str]:
        listeners = {
            "PLAIN": (self.address, "PLAINTEXT"),
            "SASL": (self.sasl_address, "SASL_PLAINTEXT"),
            "TLS": (self.ssl_address, "SSL"),
        }
        controller = f"127.0.0.1:{self._controller}"
        listed = ",".join(f"{name}://{address}" for name, (address, _) in listeners.items())
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"{listed},CONTROLLER://{controller}",
            "advertised.listeners": listed,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,"
            + ",".join(f"{name}:{protocol}" for name, (_, protocol) in listeners.items()),
            "listener.name.sasl.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl.plain.sasl.jaas.config": (
                f'{login} user_{SASL_USER}="{SASL_PASSWORD}";'
            ),
            "ssl.keystore.location": str(home / "tls" / "broker.p12"),
            "ssl.keystore.password": _STORE_PASSWORD,
            "ssl.keystore.type": "PKCS12",
            "log.dirs": str(self.folder / "data"),
            # Tests write events of years ago; nothing may delete or refuse them.
            "log.retention.ms": "-1",
            "log.retention.bytes": "-1",
            "log.message.timestamp.before.max.ms": str(2**63 - 1),
            "log.message.timestamp.after.max.ms": str(2**63 - 1),
            "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "4",
            "num.network.threads": "2",
            "num.io.threads": "4",
            # The default takes 128 MiB of the heap.
            "log.cleaner.dedupe.buffer.size": str(8 * 2**20),
            # A killed broker is let in again when its last session has ended.
            "broker.heartbeat.interval.ms": "500",
            "broker.session.timeout.ms": "3000",
        }

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if not self.running:
                reason = f"the broker ended while it started; {self.log}:\n{self.log_end()}"
                raise BrokerError(reason)
            if time.monotonic() > deadline:
                self.kill()
                reason = (
                    f"the broker did not answer within {_START_SECONDS:.0f} s; "
                    f"{self.log}:\n{self.log_end()}"
                )
                raise BrokerError(reason)
            time.sleep(0.05)

    def _answers(self) -> bool:
        # A refused socket is cheaper than a client, and says nothing on stderr.
        if not listens(self.address):
            return False
        try:
            return bool(self.admin().list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def log_end(self) -> str:
        """Return the last lines of its log."""
        if not self.log.exists():
            return ""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return "\n".join(lines[-15:])


def provision() -> Path:
    """Return the folder with the broker's jars and key store, fetched at the first call.

    Raises:
        Missing: Java or Maven is missing, or the jars cannot be fetched.
    """
    program(NAME, "java", _JVM)
    return provide(f"kafka-{VERSION}", _fetch)


def _fetch(folder: Path) -> None:
    maven = program(NAME, "mvn", "maven")
    keytool = program(NAME, "keytool", _JVM)
    libs = folder / "libs"
    scope = ["-DincludeScope=runtime", f"-DoutputDirectory={libs}"]
    call(NAME, [maven, "-B", "-q", "-f", str(_HERE / "pom.xml"), _FETCH, *scope])
    if not list(libs.glob(f"kafka_2.13-{VERSION}.jar")):
        raise Missing(NAME, f"Maven fetched no kafka_2.13-{VERSION}.jar")
    tls = folder / "tls"
    tls.mkdir()
    store = ["-keystore", str(tls / "broker.p12"), "-storetype", "PKCS12"]
    access = [*store, "-storepass", _STORE_PASSWORD, "-alias", "broker"]
    key = ["-keyalg", "RSA", "-keysize", "2048", "-validity", "3650", "-dname", "CN=localhost"]
    names = ["-ext", "SAN=dns:localhost,ip:127.0.0.1", "-ext", "BC=ca:true"]
    call(NAME, [keytool, "-genkeypair", *access, *key, *names])
    call(NAME, [keytool, "-exportcert", *access, "-rfc", "-file", str(tls / "ca.pem")])


def java(home: Path, main: str, arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return the command that runs a class of Kafka."""
    return [
        program(NAME, "java", _JVM),
        *options,
        "-Xshare:auto",
        "-Djava.awt.headless=true",
        f"-Dlog4j.configuration=file:{_HERE / 'log4j.properties'}",
        "-cp",
        f"{home / 'libs'}/*",
        main,
        *arguments,
    ]
