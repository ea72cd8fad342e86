"""A real Flink cluster on free loopback ports: each part a process that can be killed.

A job manager, task managers, Beam's job server, a pool of Python workers and, where the job
manager's death is to be outlived, a ZooKeeper. Flink's own jars come as a Python package, those
of Beam's job server from Maven. A part keeps its ports while it is away.
"""

from __future__ import annotations

import re
import shutil
import signal
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pipelines.flink_rest import FlinkRest, FlinkUnreachable
from tests.services import kafka
from tests.services.leash import Leashed
from tests.services.ports import free_ports, listens
from tests.services.provision import Missing, call, program, provide
from tests.services.service import Service

VERSION = "1.19.3"
BEAM = "2.70.0"
NAME = "a Flink cluster"

_FETCH = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies"
_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent
_JVM = "openjdk-17-jre-headless or newer"
_START_SECONDS = 60.0

_NEEDED = ("flink-dist-", "log4j-")
"""Of Flink's own jars; the others are for its tables."""

_OPENED = (
    *("java.net", "java.io", "java.nio", "java.lang", "java.lang.reflect", "java.text"),
    *("java.time", "java.util", "java.util.concurrent", "java.util.concurrent.atomic"),
    *("java.util.concurrent.locks", "sun.nio.ch"),
)
_OPENS = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]

_SERVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"

_SIGNED = re.compile(r"META-INF/(MANIFEST\.MF|.*\.(SF|DSA|RSA))|(.*/)?module-info\.class")
"""What is true of a jar by itself only."""

_LOG4J = """rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
appender.out.name = out
appender.out.type = CONSOLE
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{HH:mm:ss.SSS} %-5p %c{1}: %m%n
"""


class FlinkError(RuntimeError):
    """A part does not do what it should; holds the end of its log."""


class Part:
    """One process of the cluster.

    Attributes:
        name: as in its log's name.
        log: what it prints.
    """

    def __init__(self, name: str, command: Sequence[str | Path], folder: Path) -> None:
        self.name: Final = name
        self.log: Final = folder / f"{name}.log"
        self._command = list(command)
        self._process: Leashed | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None while it does not run."""
        return self._process.pid if self._process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether its process is alive."""
        return self._process is not None and self._process.exit_code() is None

    def start(self) -> None:
        """Start it; whether it is of use yet, its cluster knows."""
        if not self.running:
            self._process = Leashed(self._command, self.log)

    def kill(self) -> None:
        """Kill it (`kill -9`)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.end(how, 10.0)
            self._process = None

    def log_end(self) -> str:
        """Return the last lines of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-15:])


class FlinkCluster(Service):
    """A cluster of its own, with data that is gone when it is closed.

    Attributes:
        folder: its settings, logs, checkpoints and savepoints.
        master: `host:port` of the job manager: its REST interface, and its page.
        job_endpoint: `host:port` of Beam's job server.
        workers: `host:port` of the pool of Python workers.
        rest: asks the job manager.
        job_manager: a part, as are the following.
        task_managers: as many as were asked for.
        job_server: Beam's.
        pool: starts Python workers; None if it was not asked for.
        zookeeper: None without `high_availability`.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        task_managers: int = 2,
        slots: int = 2,
        pool: bool = True,
        high_availability: bool = False,
        port: int = 0,
        job_port: int = 0,
        worker_port: int = 0,
        python: str = sys.executable,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare a cluster; `start` starts it.

        Args:
            folder: where its files go; by default a temporary folder, removed by `close`.
            task_managers: how many.
            slots: of each.
            pool: whether there is one for Python workers.
            high_availability: the job manager's death is outlived.
            port: of the job manager's page; 0 takes a free one, as below.
            job_port: of Beam's job server.
            worker_port: of the pool of workers.
            python: interpreter of the workers.
            settings: more lines for Flink's configuration.

        Raises:
            Missing: Java or Maven is missing, or what they need cannot be fetched.
        """
        home = provision()
        self._own_folder = folder is None
        self.folder: Final = folder or Path(tempfile.mkdtemp(prefix="imixs-flink-"))
        rest, rpc, blobs, jobs, artifacts, workers, keeper = free_ports(7)
        self.master: Final = f"127.0.0.1:{port or rest}"
        jobs, workers = job_port or jobs, worker_port or workers
        self.job_endpoint: Final = f"127.0.0.1:{jobs}"
        self.workers: Final = f"127.0.0.1:{workers}"
        self.rest: Final = FlinkRest(self.master)
        self._slots = slots * task_managers
        self._conf = self.folder / "conf"
        self._lines = {
            "jobmanager.rpc.address": "127.0.0.1",
            "jobmanager.rpc.port": rpc,
            "rest.address": "127.0.0.1",
            "rest.bind-address": "127.0.0.1",
            "rest.port": port or rest,
            "blob.server.port": blobs,
            "taskmanager.host": "127.0.0.1",
            "taskmanager.bind-host": "127.0.0.1",
            "taskmanager.numberOfTaskSlots": slots,
            "taskmanager.cpu.cores": "2.0",
            # Flink's start script works these out; without it each has to be said.
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "128m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "192m",
            "taskmanager.memory.jvm-overhead.max": "192m",
            "taskmanager.memory.task.heap.size": "768m",
            "taskmanager.memory.task.off-heap.size": "128m",
            "taskmanager.memory.network.min": "160m",
            "taskmanager.memory.network.max": "160m",
            "taskmanager.memory.managed.size": "16m",
            "heartbeat.interval": "2000",
            "heartbeat.timeout": "12000",
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": "1000",
            "restart-strategy.fixed-delay.delay": "1 s",
            "state.backend.type": "hashmap",
            "state.checkpoint-storage": "filesystem",
            "state.checkpoints.dir": f"file://{self.checkpoints}",
            "state.savepoints.dir": f"file://{self.savepoints}",
            "state.checkpoints.num-retained": "3",
            "io.tmp.dirs": self.folder / "tmp",
            "parallelism.default": "1",
        }
        if high_availability:
            self._lines |= {
                "high-availability.type": "zookeeper",
                "high-availability.zookeeper.quorum": f"127.0.0.1:{keeper}",
                "high-availability.storageDir": f"file://{self.folder / 'ha'}",
                "high-availability.jobmanager.port": rpc,
                "high-availability.zookeeper.client.session-timeout": "12000",
            }
        self._lines |= settings or {}
        conf = ["--configDir", str(self._conf)]
        entry = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
        task = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
        small = ["-Xmx640m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        self.job_manager: Final = self._part("job-manager", home, [*small, entry, *conf])
        large = ["-Xms256m", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxDirectMemorySize=512m"]
        self.task_managers: Final = [
            self._part(
                f"task-manager-{n}",
                home,
                [*large, task, *conf, "-D", f"taskmanager.resource-id=tm{n}"],
            )
            for n in range(1, task_managers + 1)
        ]
        server = [
            *("--job-host", "127.0.0.1", "--job-port", str(jobs)),
            *("--artifact-port", str(artifacts), "--expansion-port", "-1"),
            *("--artifacts-dir", str(self.folder / "artifacts")),
            *("--flink-master", self.master, "--flink-conf-dir", str(self._conf)),
        ]
        jar = ["-jar", str(home / "job-server.jar")]
        self.job_server: Final = Part(
            "job-server", [_java(), *small, *_OPENS, *jar, *server], self.folder
        )
        asked: list[str | Path] = [python, _ROOT / "run.py", "workers", "--port", str(workers)]
        self.pool: Final = Part("workers", asked, self.folder) if pool else None
        self.zookeeper: Final = (
            Part(
                "zookeeper",
                kafka.java(
                    kafka.provision(),
                    "org.apache.zookeeper.server.ZooKeeperServerMain",
                    [str(keeper), str(self.folder / "zookeeper")],
                    ["-Xmx128m", "-Dzookeeper.admin.enableServer=false"],
                ),
                self.folder,
            )
            if high_availability
            else None
        )

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    @property
    def savepoints(self) -> Path:
        """The folder of savepoints."""
        return self.folder / "savepoints"

    @property
    def parts(self) -> list[Part]:
        """Everything there is, in the order in which it is started."""
        found = [self.zookeeper, self.job_manager, *self.task_managers, self.job_server, self.pool]
        return [part for part in found if part is not None]

    def start(self) -> None:
        """Start everything that does not run, and wait until it is of use.

        Raises:
            FlinkError: a part ended, or is of no use within a minute.
        """
        self._configure()
        for part in self.parts:
            part.start()
        self.wait()

    def wait(self) -> None:
        """Wait until the parts that run are of use, and all task managers have come.

        Raises:
            FlinkError: a part ended, or is of no use within a minute.
        """
        self._until(self.job_manager, lambda: bool(self._overview()))
        for part in self.task_managers:
            self._until(part, lambda: self._overview().get("slots-total", 0) >= self._slots)
        self._until(self.job_server, lambda: listens(self.job_endpoint))
        if self.pool is not None:
            self._until(self.pool, lambda: listens(self.workers))

    def close(self) -> None:
        """Kill everything and remove its data; with a folder given, its logs stay."""
        for part in reversed(self.parts):
            # The pool takes its workers with it.
            part.stop() if part is self.pool else part.kill()
        if self._own_folder:
            shutil.rmtree(self.folder, True)
        else:
            for name in ("checkpoints", "savepoints", "tmp", "artifacts", "ha", "zookeeper"):
                shutil.rmtree(self.folder / name, True)

    def _part(self, name: str, home: Path, arguments: Sequence[str]) -> Part:
        logs = f"-Dlog4j2.configurationFile=file:{self._conf / 'log4j.properties'}"
        # The last is for high availability: Flink's own jar does without ZooKeeper's client.
        path = f"{home / 'lib'}/*:{home / 'zookeeper'}/*"
        return Part(
            name,
            [_java(), *_OPENS, logs, "-cp", path, *arguments],
            self.folder,
        )

    def _configure(self) -> None:
        self._conf.mkdir(parents=True, exist_ok=True)
        (self.folder / "tmp").mkdir(exist_ok=True)
        lines = "".join(f"{key}: {value}\n" for key, value in self._lines.items())
        (self._conf / "flink-conf.yaml").write_text(lines, "utf-8")
        (self._conf / "log4j.properties").write_text(_LOG4J, "utf-8")

    def _overview(self) -> dict[str, int]:
        try:
            return self.rest.overview()
        except FlinkUnreachable:
            return {}

    def _until(self, part: Part, of_use: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not of_use():
            late = time.monotonic() > deadline
            if late or not part.running:
                what = f"is of no use after {_START_SECONDS:.0f} s" if late else "ended"
                reason = f"{part.name} {what}; {part.log}:\n{part.log_end()}"
                raise FlinkError(reason)
            time.sleep(0.1)


def job_server_jar() -> Path:
    """Return Beam's job server as one jar."""
    return provision() / "job-server.jar"


def provision() -> Path:
    """Return the folder with the jars of Flink and of Beam's job server, fetched once.

    Raises:
        Missing: Java or Maven is missing, or the jars cannot be fetched.
    """
    _java()
    return provide(f"flink-{VERSION}-beam-{BEAM}-in-one", _fetch)


def _java() -> str:
    return program(NAME, "java", _JVM)


def _fetch(folder: Path) -> None:
    maven = program(NAME, "mvn", "maven")
    jobs = folder / "jobs"
    scope = ["-DincludeScope=runtime", f"-DoutputDirectory={jobs}"]
    call(NAME, [maven, "-B", "-q", "-f", str(_HERE / "pom-flink.xml"), _FETCH, *scope])
    keeper = folder / "zookeeper"
    keeper.mkdir()
    for jar in jobs.glob("flink-shaded-zookeeper-*.jar"):
        shutil.copy(jar, keeper)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wanted = f"apache-flink-libraries=={VERSION}"
        fetch = ["download", "--quiet", "--no-deps", "--no-binary", "apache-flink-libraries"]
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        call(NAME, [*pip, *fetch, "--dest", scratch, wanted])
        found = list(Path(scratch).glob("*.tar.gz"))
        if not found:
            raise Missing(NAME, f"pip fetched no {wanted}")
        _unpack(found[0], folder / "lib")
    _merge(folder / "job-server.jar", sorted(jobs.glob("*.jar")))
    shutil.rmtree(jobs)


def _unpack(package: Path, lib: Path) -> None:
    """Take the jars that a cluster needs out of the package."""
    lib.mkdir()
    with tarfile.open(package) as archive:
        for member in archive:
            path = Path(member.name)
            if path.parent.match("deps/lib") and path.name.startswith(_NEEDED):
                content = archive.extractfile(member)
                assert content is not None
                with (lib / path.name).open("wb") as file:
                    shutil.copyfileobj(content, file)
    if not list(lib.glob("flink-dist-*.jar")):
        raise Missing(NAME, f"{package.name} holds no flink-dist")


def _merge(jar: Path, others: Sequence[Path]) -> None:
    """Write all that jars hold into one, as Beam publishes its job server.

    A job is sent to the cluster with the jars of its job server, and each of them costs a tenth of
    a second. Of a file that several have the first counts, but lists of services are joined.
    """
    services: dict[str, list[bytes]] = {}
    seen = set()
    with zipfile.ZipFile(jar, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        manifest = "Manifest-Version: 1.0\r\nMulti-Release: true\r\nMain-Class: " + _SERVER
        file.writestr("META-INF/MANIFEST.MF", manifest + "\r\n\r\n")
        for other in others:
            with zipfile.ZipFile(other) as found:
                for name in found.namelist():
                    if name.startswith("META-INF/services/") and not name.endswith("/"):
                        services.setdefault(name, []).append(found.read(name))
                    elif not (name in seen or name.endswith("/") or _SIGNED.fullmatch(name)):
                        seen.add(name)
                        file.writestr(name, found.read(name))
        for name, texts in services.items():
            file.writestr(name, b"\n".join(texts))
