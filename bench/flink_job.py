"""The stream's peer on Flink: the same job as a DataStream program in Java, built and submitted.

The program is in `bench/flink_peer`: JSON events of a topic, keyed by case, wait for the watermark,
are sorted and folded, and become rows of `transitions` and `cases` on two topics. It is built by
Maven once, for as long as its sources stay as they are.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from bench.measure import CommandFailed
from tests.services.provision import Missing, call, program, provide

NAME = "Flink's DataStream job"
JAR = "flink-peer.jar"

_PROJECT = Path(__file__).parent / "flink_peer"
_TIMEOUT_S = 60.0


def jar() -> Path:
    """Return the program's jar, built at the first call.

    Raises:
        Missing: Java or Maven is missing, or it cannot be built.
    """
    program(NAME, "java", "openjdk-17-jre-headless or newer")
    return provide(f"flink-peer-{_fingerprint()}", _build) / JAR


def _fingerprint() -> str:
    found = blake2b(digest_size=6)
    for path in _sources():
        found.update(path.relative_to(_PROJECT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def _sources() -> list[Path]:
    return [_PROJECT / "pom.xml", *sorted((_PROJECT / "src").rglob("*.java"))]


def _build(folder: Path) -> None:
    maven = program(NAME, "mvn", "maven")
    program(NAME, "javac", "openjdk-17-jdk-headless or newer")
    target = folder / "target"
    project = ["-f", str(_PROJECT / "pom.xml"), f"-Dbuilt.in={target}"]
    call(NAME, [maven, "-B", "-q", *project, "package"])
    if not (target / JAR).is_file():
        raise Missing(NAME, f"Maven built no {JAR}")
    (target / JAR).rename(folder / JAR)


def options(
    broker: str,
    topic: str,
    prefix: str,
    *,
    disorder_ms: int = 0,
    parallelism: int = 2,
    checkpoint_ms: int = 10_000,
) -> list[str]:
    """Return the program's words for a job that ends where the topic ends now."""
    words = ["--broker", broker, "--topic", topic, "--prefix", prefix, "--group", f"{prefix}group"]
    words += ["--disorder", str(disorder_ms), "--checkpoint", str(checkpoint_ms)]
    return [*words, "--parallelism", str(parallelism), "--until-end", "true", "--name", prefix]


def submit(url: str, words: Sequence[str]) -> str:
    """Run the program on a cluster.

    Args:
        url: of the job manager's REST interface.
        words: its options.

    Returns:
        The job's id.

    Raises:
        CommandFailed: the job manager does not take it.
        Missing: it cannot be built.
    """
    content = jar().read_bytes()
    edge = uuid.uuid4().hex
    head = (
        f'--{edge}\r\nContent-Disposition: form-data; name="jarfile"; filename="{JAR}"\r\n'
        "Content-Type: application/java-archive\r\n\r\n"
    )
    body = head.encode() + content + f"\r\n--{edge}--\r\n".encode()
    kind = f"multipart/form-data; boundary={edge}"
    uploaded = Path(_post(f"{url}/jars/upload", body, kind)["filename"]).name
    order = json.dumps({"programArgsList": list(words)}).encode()
    return str(_post(f"{url}/jars/{uploaded}/run", order, "application/json")["jobid"])


def _post(url: str, body: bytes, kind: str) -> Any:
    request = Request(url, body, {"Content-Type": kind})  # noqa: S310
    try:
        with urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
            return json.loads(answer.read())
    except HTTPError as error:
        reason = f"{url} answers {error.code}: {error.read().decode(errors='replace')[-2000:]}"
    except URLError as error:
        reason = f"{url}: {error.reason}"
    raise CommandFailed(reason)
