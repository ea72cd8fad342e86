"""From argv to frozen `Settings` and Beam's options.

Options are read once, here; nothing below sees argv, the environment or the clock. What
is not ours is passed to Beam, and what Beam does not know either is an error with a
suggestion. Every problem is found and said in one line before anything starts. Beam is
imported only when the options have turned out right, so that mistakes answer at once.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from pipelines import values
from pipelines.option_table import MASKABLE, OPTIONS
from pipelines.paths import local_path, matches, missing_client, patterns_of
from pipelines.registry import PIPELINES, Pipeline
from pipelines.values import BadValue

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from transforms.formats.base import Context
    from transforms.kafka import KafkaAddress, KafkaTarget

T = TypeVar("T")
D = TypeVar("D")

KAFKA = "kafka://"
FORMAT_ALIASES = {"jsonl": "json_lines", "ndjson": "json_lines", "xml": "imixs_xml"}
OUTPUT_FORMATS = ("parquet", "jsonl", "csv")
MAX_SHARDS = 4096
MAX_WORKERS = 1024
LEAST_MASK_KEY = 16
LARGEST_MASK_KEY = 64 * 2**10
LARGEST_MESSAGE = 2**31 - 2**20
"""Arrow's string offsets are 32 bits wide: a longer text would not fit in a column."""

_UNMAPPED = {"log", "truncated", "source", "source_offset", "attributes"}
_SECRET = re.compile(r"secret|password|passwd|token|credential|access_key", re.IGNORECASE)


class UsageError(Exception):
    """Wrong options: one sentence a problem."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True)
class Settings:
    """What a run is to do: made once from the options, picklable.

    Attributes:
        pipeline: the pipeline's name.
        input: paths and globs, of any Beam file system.
        output: folder of the output tables, without a slash at its end.
        format: name of a format, or `auto`.
        output_format: `parquet`, `jsonl` or `csv`.
        columns: pairs of event column and the input's name for it.
        items: business items kept as `attributes`.
        timezone: zone of times that have none.
        time_format: `strptime` format or unit of an epoch; None: ISO 8601 or an epoch.
        delimiter: separator of CSV columns; None: found from the first lines.
        encoding: of text files.
        max_message_bytes: larger single documents are dead letters.
        end_states: names of states that end a case.
        complete_log: each case's last event is its end.
        since_us: events before are outside, in µs since the epoch; None: no limit.
        until_us: the input is complete up to here (exclusive); None: every deadline fires.
        started_us: when the run started.
        sources: topics to read, each an address; a run with any is a stream.
        targets: topics to write.
        granule_ms: so much of a stream is folded at a time.
        max_future_ms: an event so far ahead of its record's time is a dead letter.
        state_from: output of a run whose state a stream goes on from; empty for none.
        keep_state: leave the state in the output.
        disorder_ms: how late a record may be, the bound of the watermark.
        case_retention_ms: how long the state of a finished case is kept.
        idle_retention_ms: how long the state of an idle case is kept.
        max_dead_letters: more of them fail the run; None: no limit.
        max_dead_percent: a larger share of the messages fails the run; None: no limit.
        mask: columns and items whose values are replaced by keyed hashes.
        mask_key: key of these hashes.
        shards: how many parts the fold has; None: from the input's size.
        workers: how many threads or processes work on this machine.
        explain_plan: say what would be done, and do nothing.
        quiet: say nothing but errors.
        progress: show the progress.
        verbose: show Beam's log and stack traces.
        color: `auto`, `always` or `never`.
        arguments: the command line, for the manifest; secrets are left out.
    """

    pipeline: str
    input: tuple[str, ...]
    output: str
    started_us: int
    format: str = "auto"
    output_format: str = "parquet"
    columns: tuple[tuple[str, str], ...] = ()
    items: tuple[str, ...] = ()
    timezone: str = "UTC"
    time_format: str | None = None
    delimiter: str | None = None
    encoding: str = "utf-8"
    max_message_bytes: int = 64 * 2**20
    end_states: tuple[str, ...] = ()
    complete_log: bool = False
    since_us: int | None = None
    until_us: int | None = None
    sources: tuple[KafkaAddress, ...] = ()
    targets: tuple[KafkaTarget, ...] = ()
    granule_ms: int = 1000
    max_future_ms: int = 86_400_000
    state_from: str = ""
    keep_state: bool = False
    disorder_ms: int = 30_000
    case_retention_ms: int = 30 * 86_400_000
    idle_retention_ms: int = 365 * 86_400_000
    max_dead_letters: int | None = None
    max_dead_percent: float | None = None
    mask: tuple[str, ...] = ()
    mask_key: bytes = field(default=b"", repr=False)
    shards: int | None = None
    workers: int = 1
    explain_plan: bool = False
    quiet: bool = False
    progress: bool = True
    verbose: bool = False
    color: str = "auto"
    arguments: tuple[str, ...] = ()

    def context(self) -> Context:
        """Return the settings that decoding depends on."""
        from transforms.formats.base import Context  # noqa: PLC0415 (pyarrow: not for --help)

        return Context(
            columns=dict(self.columns),
            items=self.items,
            timezone=self.timezone,
            time_format=self.time_format,
            delimiter=self.delimiter,
            encoding=self.encoding,
            max_message_bytes=self.max_message_bytes,
        )

    @property
    def until_ms(self) -> int:
        """`until_us` as kernels take it: in ms, rounded up; `kernels.base.END` for None."""
        from transforms.kernels.base import END  # noqa: PLC0415 (pyarrow: not for --help)

        return END if self.until_us is None else -(-self.until_us // 1000)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are `UsageError`s in our words."""

    def error(self, message: str) -> NoReturn:
        match = re.fullmatch(r"argument (--\w+).*?: (.*)", message, re.DOTALL)
        if match is None:
            raise UsageError(message)
        if match[2].startswith("expected"):
            problem = f"{match[1]} needs a value"
        elif match[2].startswith("ignored explicit argument"):
            problem = f"{match[1]} is a switch and takes no value"
        else:
            problem = f"{match[1]}: {match[2]}"
        raise UsageError(problem)


def parser_of(pipeline: Pipeline) -> argparse.ArgumentParser:
    """Return a parser of our options: their texts, not their values."""
    parser = _Parser(prog=f"run.py {pipeline.name}", add_help=False, allow_abbrev=False)
    for option in OPTIONS:
        flag = f"--{option.name}"
        if option.many:
            parser.add_argument(flag, action="extend", nargs="+")
        elif option.metavar:
            parser.add_argument(flag)
        else:
            parser.add_argument(flag, action="store_true")
    return parser


def parse(
    argv: Sequence[str], pipeline: str = "transitions", started_us: int | None = None
) -> tuple[Settings, PipelineOptions]:
    """Read the arguments that follow the pipeline's name.

    Args:
        argv: ours and Beam's, in any order.
        pipeline: a name in `PIPELINES`.
        started_us: when the run started; now, if not given.

    Returns:
        The settings, and Beam's options.

    Raises:
        UsageError: with a sentence for each problem.
    """
    started = time.time_ns() // 1000 if started_us is None else started_us
    given, rest = parser_of(PIPELINES[pipeline]).parse_known_args(list(argv))
    reader = _Reader(vars(given))
    settings = reader.settings(PIPELINES[pipeline], started, _without_secrets(argv))
    flags: PipelineOptions | None = None
    try:
        # Importing Beam costs a second: if something is wrong anyway, only for its own flags.
        if rest or not reader.problems:
            from pipelines import beam_flags  # noqa: PLC0415

            flags = beam_flags.parse(
                rest, [f"--{option.name}" for option in OPTIONS], workers=given.workers is not None
            )
    except UsageError as error:
        reader.problems.extend(error.problems)
    if flags is None or reader.problems:
        raise UsageError(*reader.problems)
    return settings, flags


def parse_show(argv: Sequence[str]) -> tuple[str, list[str], int]:
    """Read the arguments of `show`: folder, tables, rows.

    Raises:
        UsageError: with a sentence for the first problem.
    """
    parser = _Parser(prog="run.py show", add_help=False, allow_abbrev=False)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--table")
    parser.add_argument("--rows", default="5")
    given, rest = parser.parse_known_args(list(argv))
    if rest:
        hint = values.suggest(rest[0], ["--table", "--rows"]) or "; see show --help"
        problem = f"{rest[0]} is not an option of show{hint}"
        raise UsageError(problem)
    if not given.folder:
        problem = "show needs the folder of a run, its --output"
        raise UsageError(problem)
    reader = _Reader(vars(given))
    tables = reader.read("table", values.names, ())
    rows = reader.read("rows", lambda text: values.whole(text, 1, 1000), 5)
    if reader.problems:
        raise UsageError(*reader.problems)
    return local_path(given.folder).rstrip("/") or "/", list(tables), rows


class _Reader:
    """Turns texts into values, and collects the problems."""

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.problems: list[str] = []

    def read(self, name: str, reader: Callable[[str], T], default: D) -> T | D:
        text = self.given[name]
        if text is None:
            return default
        try:
            return reader(text)
        except BadValue as bad:
            self.problems.append(f"--{name} '{text}' {bad}")
            return default

    def settings(self, pipeline: Pipeline, started: int, arguments: tuple[str, ...]) -> Settings:
        given, read = self.given, self.read
        default = Settings(pipeline.name, (), "", started)
        timezone = read("timezone", values.zone, "UTC")
        items = read("items", values.names, ())
        dead = read("max_dead_letters", values.share, (None, None))
        output_format = read("output_format", _output_format, default.output_format)
        since = read("since", lambda text: values.time_us(text, timezone), None)
        until = read("until", lambda text: _until(text, timezone), started)
        if since is not None and until is not None and since >= until:
            self.problems.append(
                f"--since {values.time_text(since)} is not before --until "
                f"{values.time_text(until)}; there is nothing between them"
            )
        patterns, sources = self._input(pipeline)
        output, targets = self._outputs(pipeline, output_format, patterns)
        granule = read("granule", _granule, None)
        # An address that is wrong is one of a stream, too.
        if any(text.startswith(KAFKA) for text in given["input"] or ()):
            self._check_stream()
        else:
            self._check_backfill(targets)
        return Settings(
            pipeline=pipeline.name,
            input=patterns,
            output=output,
            sources=sources,
            targets=targets,
            granule_ms=granule or (1000 if targets or not sources else 60_000),
            max_future_ms=read("max_future", values.duration_ms, default.max_future_ms),
            state_from=local_path(given["state_from"] or "").rstrip("/"),
            keep_state=given["keep_state"],
            started_us=started,
            format=read("format", _format, "auto"),
            output_format=output_format,
            columns=read("columns", _columns, ()),
            items=items,
            timezone=timezone,
            time_format=read("time_format", values.time_format, None),
            delimiter=read("delimiter", values.delimiter, None),
            encoding=read("encoding", values.encoding, default.encoding),
            max_message_bytes=read(
                "max_message_bytes",
                lambda text: values.size_bytes(text, 1024, LARGEST_MESSAGE),
                default.max_message_bytes,
            ),
            end_states=read("end_states", values.names, ()),
            complete_log=given["complete_log"],
            since_us=since,
            until_us=None if sources else until,
            disorder_ms=read("disorder", values.duration_ms, default.disorder_ms),
            case_retention_ms=read("case_retention", _retention, default.case_retention_ms),
            idle_retention_ms=read("idle_retention", _retention, default.idle_retention_ms),
            max_dead_letters=dead[0],
            max_dead_percent=dead[1],
            mask=read("mask", lambda text: _mask(text, items), ()),
            mask_key=self._mask_key(),
            shards=read("shards", lambda text: values.whole(text, 1, MAX_SHARDS), None),
            workers=read("workers", lambda text: values.whole(text, 1, MAX_WORKERS), _cores()),
            explain_plan=given["explain_plan"],
            quiet=given["quiet"],
            progress=read("progress", _progress, True) and not given["quiet"],
            verbose=given["verbose"],
            color=read("color", _color, "auto"),
            arguments=arguments,
        )

    def _input(self, pipeline: Pipeline) -> tuple[tuple[str, ...], tuple[KafkaAddress, ...]]:
        texts = self.given["input"] or []
        topics = [text for text in texts if text.startswith(KAFKA)]
        if topics:
            if len(topics) < len(texts):
                other = next(text for text in texts if text not in topics)
                self.problems.append(
                    f"--input '{other}' is no topic, and the others are; read files first, with "
                    "--keep_state, and then the topics, with --state_from"
                )
            from transforms.kafka import KafkaAddress  # noqa: PLC0415 (pyarrow: not for --help)

            group = f"imixs-streams-{pipeline.name}"
            found = [self._address(lambda t: KafkaAddress.parse(t, group), text) for text in topics]
            return (), tuple(each for each in found if each is not None)
        patterns = patterns_of(texts)
        if not patterns:
            self.problems.append("--input is missing; give the files to read, such as 'data/**'")
        for pattern in patterns:
            missing = missing_client(pattern)
            if missing:
                self.problems.append(f"--input '{pattern}' {missing}")
        return patterns, ()

    def _address(self, parse: Callable[[str], T], text: str) -> T | None:
        from transforms.kafka import BadAddress  # noqa: PLC0415

        if importlib.util.find_spec("confluent_kafka") is None:
            problem = f"{text} needs a client; pip install 'imixs-data-streaming[kafka]'"
            self.problems.append(problem)
            return None
        try:
            return parse(text)
        except BadAddress as bad:
            self.problems.append(str(bad))
            return None

    def _outputs(
        self, pipeline: Pipeline, output_format: str, patterns: tuple[str, ...]
    ) -> tuple[str, tuple[KafkaTarget, ...]]:
        texts = self.given["output"] or []
        topics = [text for text in texts if text.startswith(KAFKA)]
        folders = [text for text in texts if text not in topics]
        if len(folders) > 1:
            self.problems.append(f"--output '{folders[1]}' is a second folder; give one")
        targets: list[KafkaTarget] = []
        if topics:
            from transforms.kafka import KafkaTarget  # noqa: PLC0415

            found = [self._address(KafkaTarget.parse, text) for text in topics]
            targets = [each for each in found if each is not None]
            if not folders:
                return "", tuple(targets)
        folder = folders[0] if folders else ""
        return self._output(folder, pipeline, output_format, patterns), tuple(targets)

    def _check_stream(self) -> None:
        """Refuse what only a backfill can do."""
        for name, reason in (
            ("until", "a stream ends when it is stopped"),
            ("complete_log", "a stream never knows that a case is whole"),
            ("keep_state", "only a backfill leaves its state"),
        ):
            if self.given[name]:
                self.problems.append(f"--{name} is not for topics: {reason}; leave it out")

    def _check_backfill(self, targets: tuple[KafkaTarget, ...]) -> None:
        """Refuse what only a stream can do."""
        for name in ("state_from", "granule", "max_future"):
            if self.given[name]:
                self.problems.append(f"--{name} is for streams, and --input names files")
        if targets:
            self.problems.append(
                f"--output {targets[0]} is for streams, and --input names files; give a folder"
            )
        if self.given["keep_state"] and self.given["complete_log"]:
            self.problems.append("--keep_state has nothing to keep: --complete_log ends every case")
        if self.given["keep_state"] and self.given["until"] == "end":
            self.problems.append("--keep_state has nothing to keep after --until end; leave it out")
        if self.given["keep_state"] and self.given["output_format"] not in (None, "parquet"):
            self.problems.append("--keep_state writes Parquet; leave out --output_format")

    def _output(
        self, text: str, pipeline: Pipeline, output_format: str, patterns: tuple[str, ...]
    ) -> str:
        if not text:
            if not self.given["explain_plan"]:
                self.problems.append("--output is missing; give a folder for the tables")
            return ""
        output = local_path(text).rstrip("/") or "/"
        missing = missing_client(output)
        if missing:
            self.problems.append(f"--output '{output}' {missing}")
        from transforms.sinks.commit import MANIFEST  # noqa: PLC0415 (pyarrow: not for --help)

        written = [f"{output}/{table}/part.{output_format}" for table in pipeline.tables]
        written.append(f"{output}/{MANIFEST}")
        inside = [p for p in patterns if any(matches(p, path) for path in written)]
        if inside:
            self.problems.append(
                f"--output '{text}' lies in --input '{inside[0]}'; a second run would read "
                "the tables of the first: give a folder outside"
            )
        return output

    def _mask_key(self) -> bytes:
        text = self.given["mask_key"]
        if text is None:
            if self.given["mask"]:
                self.problems.append("--mask needs a key; give --mask_key file:PATH or env:NAME")
            return b""
        if not self.given["mask"]:
            self.problems.append("--mask_key is given, but nothing to mask; add --mask actor")
        return self.read("mask_key", _key, b"")


def format_names() -> list[str]:
    """Return the names of the formats that can be read."""
    from transforms.formats import registry  # noqa: PLC0415 (pyarrow: not for wrong options)

    return list(registry.names())


def _granule(text: str) -> int:
    length = values.duration_ms(text)
    if not length:
        reason = "is no time at all; give 200ms or more"
        raise BadValue(reason)
    return length


def _format(text: str) -> str:
    name = FORMAT_ALIASES.get(text, text)
    if name == "auto":
        return name
    if name == "json":
        reason = "could be two formats; use imixs_json or json_lines"
        raise BadValue(reason)
    return values.one_of(name, ["auto", *format_names()], "a format")


def _output_format(text: str) -> str:
    aliases = {"json": "jsonl", "json_lines": "jsonl", "ndjson": "jsonl"}
    return values.one_of(aliases.get(text, text), OUTPUT_FORMATS, "an output format")


def _columns(text: str) -> tuple[tuple[str, str], ...]:
    from schemas.events import EVENT_SCHEMA  # noqa: PLC0415 (pyarrow: not for --help)

    mapped = values.pairs(text)
    known = [name for name in EVENT_SCHEMA.names if name not in _UNMAPPED]
    for name, _ in mapped:
        if name not in known:
            reason = f"maps '{name}', which is not an event column"
            hint = values.suggest(name, known) or f"; they are {', '.join(known)}"
            raise BadValue(reason + hint)
    return mapped


def _until(text: str, timezone: str) -> int | None:
    return None if text == "end" else values.time_us(text, timezone)


def _retention(text: str) -> int:
    return values.duration_ms(text, least=1)


def _mask(text: str, items: tuple[str, ...]) -> tuple[str, ...]:
    masked = values.names(text)
    for name in masked:
        # A misspelt name would write in clear what was to be hidden.
        if name not in MASKABLE and name not in items:
            reason = f"names '{name}', which is neither one of {', '.join(MASKABLE)} nor of --items"
            raise BadValue(reason + values.suggest(name, [*MASKABLE, *items]))
    return masked


def _key(text: str) -> bytes:
    kind, _, name = text.partition(":")
    if kind == "env" and name:
        key = os.environ.get(name, "").encode()
        if not key:
            reason = f"names the environment variable {name}, which is not set"
            raise BadValue(reason)
    elif kind == "file" and name:
        try:
            with open(os.path.expanduser(name), "rb") as file:
                key = file.read(LARGEST_MASK_KEY + 1).rstrip(b"\r\n")
        except OSError as error:
            reason = f"can't be read: {error.strerror}"
            raise BadValue(reason) from None
    else:
        reason = "is not file:PATH or env:NAME; a key never stands on the command line itself"
        raise BadValue(reason)
    if len(key) > LARGEST_MASK_KEY:
        reason = f"holds more than {values.size_text(LARGEST_MASK_KEY)}; give the key alone"
        raise BadValue(reason)
    if len(key) < LEAST_MASK_KEY:
        reason = f"holds {len(key)} bytes; a key has at least {LEAST_MASK_KEY}"
        raise BadValue(reason)
    return key


def _progress(text: str) -> bool:
    return values.one_of(text, ("auto", "off"), "a progress display") == "auto"


def _color(text: str) -> str:
    return values.one_of(text, ("auto", "always", "never"), "a choice of color")


def _cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _without_secrets(argv: Sequence[str]) -> tuple[str, ...]:
    """Return the arguments with the values of secret flags (Beam's, of object stores) left out."""
    shown: list[str] = []
    hide = False
    for argument in argv:
        flag, equals, _ = argument.partition("=")
        if argument.startswith("--"):
            hide = bool(_SECRET.search(flag))
            shown.append(f"{flag}=..." if hide and equals else argument)
        else:
            shown.append("..." if hide else argument)
    return tuple(shown)
