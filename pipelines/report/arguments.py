"""What `report` and `serve` are told: their options, read once, and their help."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipelines import option_values, values
from pipelines.brokers import broker_of, missing, no_folder, parse_target
from pipelines.exit_codes import UsageError
from pipelines.help import pairs, wrapped
from pipelines.options import Parser, Reader
from pipelines.paths import local_path
from pipelines.values import BadValue

if TYPE_CHECKING:
    from transforms.kafka import KafkaTarget

LEAST_TOKEN = 16
DEFAULT_PORT = 8050

_INPUT = ("--input FOLDER", "the --output of a run of analytics")
_TITLE = ("--title TEXT", "the page's heading (default: the folder's name)")
_ZONE = ("--timezone ZONE", "of the times shown (default: that of the windows' days, else UTC)")


@dataclass(frozen=True)
class Report:
    """What `report` makes.

    Attributes:
        folder: of the tables.
        output: path of the page.
        title: its heading.
        zone: time zone of what it shows; empty for that of the windows.
    """

    folder: str
    output: str
    title: str
    zone: str


@dataclass(frozen=True)
class Serving:
    """What `serve` shows, and to whom.

    Attributes:
        folder: of the tables; empty if they are topics.
        target: where the topics are.
        title: the page's heading.
        zone: time zone of what it shows; empty for that of the windows.
        host: address to listen to.
        port: 0 for a free one.
        token: what whoever looks must know; empty for nothing.
    """

    folder: str
    target: KafkaTarget | None
    title: str
    zone: str
    host: str
    port: int
    token: bytes


def parse_report(argv: Sequence[str]) -> Report:
    """Read the arguments of `report`.

    Raises:
        UsageError: with a sentence for each problem.
    """
    reader = _given("report", argv, ("input", "output", "title", "timezone"))
    given = reader.given
    folder, output = local_path(given["input"] or "").rstrip("/"), given["output"] or ""
    if not given["input"]:
        reader.problems.append("--input is missing; give the folder that analytics has written to")
    elif broker_of(folder):
        reader.problems.append(
            f"--input '{folder}': a report is of a folder; topics are shown by: "
            f"run.py serve --input {folder}"
        )
    elif misfit := no_folder(folder):
        reader.problems.append(f"--input {misfit}")
    output = os.path.expanduser(output)
    if not output:
        reader.problems.append("--output is missing; give the page's file, such as report.html")
    elif os.path.isdir(output) or output.endswith("/"):
        file = os.path.join(output, "report.html")
        reader.problems.append(f"--output '{output}' is a folder; give a file, such as {file}")
    zone = reader.read("timezone", values.zone, "")
    if reader.problems:
        raise UsageError(*reader.problems)
    return Report(folder or "/", output, given["title"] or _name_of(folder), zone)


def parse_serve(argv: Sequence[str]) -> Serving:
    """Read the arguments of `serve`.

    Raises:
        UsageError: with a sentence for each problem.
    """
    options = ("input", "title", "timezone", "host", "port", "token")
    reader = _given("serve", argv, options, ("verbose",))
    given = reader.given
    text = given["input"] or ""
    target: KafkaTarget | None = None
    if not text:
        reader.problems.append(
            "--input is missing; give the folder or the topics that a stream writes to, such as "
            "out or kafka://localhost:9092/out-"
        )
    elif broker_of(text):
        target = _target(text, reader.problems)
    elif misfit := no_folder(text):
        reader.problems.append(f"--input {misfit}")
    zone = reader.read("timezone", values.zone, "")
    port = reader.read("port", lambda text: values.whole(text, 0, 65_535), DEFAULT_PORT)
    token = reader.read("token", _token, b"")
    host = given["host"] or "127.0.0.1"
    if not _is_loopback(host) and given["token"] is None:
        reader.problems.append(
            f"--host '{host}' lets other machines look; add --token env:NAME or file:PATH, which "
            "they must know, or leave out --host"
        )
    if reader.problems:
        raise UsageError(*reader.problems)
    folder = "" if target else local_path(text).rstrip("/") or "/"
    return Serving(folder, target, given["title"] or _name_of(text), zone, host, port, token)


def _given(
    command: str, argv: Sequence[str], options: Sequence[str], switches: Sequence[str] = ()
) -> Reader:
    parser = Parser(prog=f"run.py {command}", add_help=False, allow_abbrev=False)
    for name in options:
        parser.add_argument(f"--{name}")
    for name in switches:
        parser.add_argument(f"--{name}", action="store_true")
    given, rest = parser.parse_known_args(list(argv))
    if rest:
        known = [f"--{name}" for name in (*options, *switches)]
        hint = values.suggest(rest[0], known) or f"; see {command} --help"
        problem = f"{rest[0]} is not an option of {command}{hint}"
        raise UsageError(problem)
    return Reader(vars(given))


def _target(text: str, problems: list[str]) -> KafkaTarget | None:
    from transforms.addresses import BadAddress  # noqa: PLC0415 (pyarrow: not for --help)

    broker = broker_of(text)
    if broker is None or broker.extra != "kafka":
        problems.append(
            f"--input '{text}': of topics only those of Kafka can be read from their beginning; "
            "write to a folder too, and give that"
        )
        return None
    if missing(broker):
        problems.append(f"{text} needs a client; pip install 'imixs-data-streaming[kafka]'")
        return None
    try:
        return parse_target(text)  # type: ignore[return-value]
    except BadAddress as bad:
        problems.append(str(bad))
        return None


def _token(text: str) -> bytes:
    token = option_values.secret(text, "a token")
    if len(token) < LEAST_TOKEN:
        reason = f"holds {len(token)} bytes; a token has at least {LEAST_TOKEN}"
        raise BadValue(reason)
    if not token.isascii() or not token.decode("ascii").isprintable() or b" " in token:
        reason = "holds what an address can't; use letters and digits, as openssl rand -hex 16"
        raise BadValue(reason)
    return token


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _name_of(text: str) -> str:
    """Return what a page is called where nobody has said so."""
    if broker_of(text):
        return text.partition("?")[0]
    name = os.path.basename(os.path.abspath(text)) if "://" not in text else text.rpartition("/")[2]
    return name or text


def report_help(program: str) -> str:
    """Return the help of `report`."""
    return "\n".join(
        [
            f"usage: {program} report --input FOLDER --output FILE [--title TEXT] "
            "[--timezone ZONE]",
            "",
            *wrapped(
                "A page of what a run of analytics has measured: the process map, bottlenecks, "
                "cycle times, flow, workload, variants, and what the data is worth. One file that "
                "any browser opens, without a network; group, version and period are chosen in it."
            ),
            "",
            "Examples",
            f"  {program} report --input out --output report.html",
            f"  {program} report --input out --output report.html \\",
            "    --title 'Orders, 2024' --timezone Europe/Berlin",
            "",
            *pairs(
                [
                    _INPUT,
                    ("--output FILE", "the page; one that is there is replaced"),
                    _TITLE,
                    _ZONE,
                ]
            ),
        ]
    )


def serve_help(program: str) -> str:
    """Return the help of `serve`."""
    return "\n".join(
        [
            f"usage: {program} serve --input FOLDER|kafka://HOST:PORT/PREFIX [--port N] "
            "[--host ADDRESS]",
            "",
            *wrapped(
                "The page of `report`, kept current while a stream runs, with its throughput and "
                "how far it is behind. It listens to this machine alone, unless --host says "
                "otherwise; then whoever looks needs the token: open the address once with "
                "?token=..., a cookie keeps it. Ctrl-C ends it."
            ),
            "",
            "Examples",
            f"  {program} serve --input out",
            f"  {program} serve --input kafka://localhost:9092/out- --port 8080",
            f"  {program} serve --input out --host 0.0.0.0 --token file:token.txt",
            "",
            *pairs(
                [
                    ("--input FOLDER|TOPICS", "what a stream of analytics writes to: its --output"),
                    ("--port N", f"0 for a free one (default: {DEFAULT_PORT})"),
                    ("--host ADDRESS", "to listen to; 0.0.0.0 for all (default: 127.0.0.1)"),
                    (
                        "--token KEY",
                        f"env:NAME or file:PATH of a token of at least {LEAST_TOKEN} characters",
                    ),
                    _TITLE,
                    _ZONE,
                    ("--verbose", "say what goes wrong in detail"),
                ]
            ),
        ]
    )
