"""From argv to frozen `Settings` and Beam's options.

Options are read once, here; nothing below sees argv, the environment or the clock. What
is not ours is passed to Beam, and what Beam does not know either is an error with a
suggestion. Every problem is found and said in one line before anything starts. Beam is
imported only when the options have turned out right, so that mistakes answer at once.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import urlsplit

from pipelines import option_values, values
from pipelines.brokers import (
    broker_of,
    database_of,
    is_database,
    missing,
    no_folder,
    parse_address,
    parse_target,
    topics_among,
)
from pipelines.exit_codes import UsageError
from pipelines.option_table import OPTIONS, options_of
from pipelines.paths import local_path, matches, missing_client, patterns_of
from pipelines.registry import PIPELINES, Pipeline
from pipelines.settings import Settings
from pipelines.values import BadValue
from transforms.durations import show_ms

if TYPE_CHECKING:
    from apache_beam.options.pipeline_options import PipelineOptions

    from pipelines.brokers import Address, Target
    from transforms.formats.avro.settings import AvroSettings
    from transforms.formats.mapping.rules import EventMapping
    from transforms.windows import Windowing

T = TypeVar("T")
D = TypeVar("D")

MAX_SHARDS = 4096
MAX_WORKERS = 1024
LARGEST_MESSAGE = 2**31 - 2**20
"""Arrow's string offsets are 32 bits wide: a longer text would not fit in a column."""

_SECRET = re.compile(r"secret|password|passwd|token|credential|access_key", re.IGNORECASE)


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are `UsageError`s in our words."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found wrong."""
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


class Listed(argparse.Action):
    """A list, such as `a,b`, that may be given several times: all of its entries count."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        """Add the entries to those given before."""
        before = getattr(namespace, self.dest)
        setattr(namespace, self.dest, values if before is None else f"{before},{values}")


def parser_of(pipeline: Pipeline) -> argparse.ArgumentParser:
    """Return a parser of our options: their texts, not their values."""
    parser = Parser(prog=f"run.py {pipeline.name}", add_help=False, allow_abbrev=False)
    for option in options_of(pipeline.name):
        flag = f"--{option.name}"
        if option.many:
            parser.add_argument(flag, action="extend", nargs="+")
        elif option.is_list:
            parser.add_argument(flag, action=Listed)
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
    reader = Reader(vars(given))
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
    parser = Parser(prog="run.py show", add_help=False, allow_abbrev=False)
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--table", action=Listed)
    parser.add_argument("--rows", default="5")
    given, rest = parser.parse_known_args(list(argv))
    if rest:
        hint = values.suggest(rest[0], ["--table", "--rows"]) or "; see show --help"
        problem = f"{rest[0]} is not an option of show{hint}"
        raise UsageError(problem)
    if not given.folder:
        problem = "show needs the folder of a run, its --output"
        raise UsageError(problem)
    reader = Reader(vars(given))
    misfit = no_folder(given.folder)
    if misfit:
        reader.problems.append(misfit)
    tables = reader.read("table", values.names, ())
    rows = reader.read("rows", lambda text: values.whole(text, 1, 1000), 5)
    if reader.problems:
        raise UsageError(*reader.problems)
    return local_path(given.folder).rstrip("/") or "/", list(tables), rows


def parse_inspect(argv: Sequence[str]) -> tuple[Settings, int, bool]:
    """Read the arguments of `inspect`: those of a pipeline, `--messages` and `--json`.

    A pipeline's command can be given as it is: what has nothing to do with reading is checked, and
    not used.

    Raises:
        UsageError: with a sentence for each problem.
    """
    pipeline = PIPELINES["transitions"]
    parser = parser_of(pipeline)
    parser.add_argument("--messages")
    parser.add_argument("--json", action="store_true")
    given, rest = parser.parse_known_args(list(argv))
    # Nothing is written.
    given.output, given.explain_plan = None, True
    reader = Reader(vars(given))
    settings = reader.settings(pipeline, time.time_ns() // 1000, ())
    most = reader.read("messages", lambda text: values.whole(text, 1, 1000), 5)
    if rest:
        from pipelines import beam_flags  # noqa: PLC0415 (Beam costs a second)

        own = [*(f"--{option.name}" for option in OPTIONS), "--messages", "--json"]
        try:
            beam_flags.parse(rest, own, workers=given.workers is not None)
        except UsageError as error:
            reader.problems.extend(error.problems)
    if reader.problems:
        raise UsageError(*reader.problems)
    return settings, most, given.json


def parse_workers(argv: Sequence[str]) -> tuple[str, int]:
    """Read the arguments of `workers`: host and port.

    Raises:
        UsageError: with a sentence for each problem.
    """
    parser = Parser(prog="run.py workers", add_help=False, allow_abbrev=False)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default="50000")
    parser.add_argument("--verbose", action="store_true")
    given, rest = parser.parse_known_args(list(argv))
    if rest:
        hint = values.suggest(rest[0], ["--host", "--port"]) or "; see workers --help"
        problem = f"{rest[0]} is not an option of workers{hint}"
        raise UsageError(problem)
    reader = Reader(vars(given))
    port = reader.read("port", lambda text: values.whole(text, 0, 65_535), 0)
    if reader.problems:
        raise UsageError(*reader.problems)
    return given.host, port


class Reader:
    """Turns texts into values, and collects the problems.

    Args:
        given: option -> its text, None where it is not given.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self.given = given
        self.problems: list[str] = []

    def read(self, name: str, reader: Callable[[str], T], default: D) -> T | D:
        """Return an option's value, the default where there is none or it is wrong."""
        text = self.given[name]
        if text is None:
            return default
        try:
            return reader(text)
        except BadValue as bad:
            self.problems.append(f"--{name} '{text}' {bad}")
            return default

    def settings(self, pipeline: Pipeline, started: int, arguments: tuple[str, ...]) -> Settings:
        """Return the settings of a run."""
        given, read = self.given, self.read
        default = Settings(pipeline.name, (), "", started)
        tables = self._tables(pipeline)
        pipeline = replace(pipeline, tables=tables)
        reading = self.reading()
        timezone, items = reading["timezone"], reading["items"]
        dead = read("max_dead_letters", values.share, (None, None))
        output_format = read("output_format", option_values.output_format, default.output_format)
        since = read("since", lambda text: values.time_us(text, timezone), None)
        until = read("until", lambda text: option_values.until(text, timezone), started)
        if since is not None and until is not None and since >= until:
            ends = "" if self.given["until"] else ", the start of the run, where none is given"
            self.problems.append(
                f"--since {values.time_text(since)} is not before --until "
                f"{values.time_text(until)}{ends}; there is nothing between them"
            )
        patterns, sources = self._input(pipeline)
        output, targets = self._outputs(pipeline, output_format, patterns)
        granule = read("granule", option_values.granule, None)
        window, early = self._window(), self._early()
        # An address that is wrong is one of a stream, too.
        if any(broker_of(text) for text in given["input"] or ()):
            self._check_stream()
        else:
            self._check_backfill(targets, output)
        if window is not None:
            self._check_windows(streams=bool(sources))
        return Settings(
            pipeline=pipeline.name,
            input=patterns,
            output=output,
            sources=sources,
            targets=targets,
            granule_ms=self._granule(
                granule, 1000 if topics_among(targets) or not sources else 60_000, window, early
            ),
            window=window,
            early_ms=early,
            tables=tables,
            max_future_ms=read("max_future", values.duration_ms, default.max_future_ms),
            state_from=local_path(given["state_from"] or "").rstrip("/"),
            keep_state=given["keep_state"],
            started_us=started,
            output_format=output_format,
            **reading,
            end_states=read("end_states", values.names, ()),
            complete_log=given["complete_log"],
            since_us=since,
            until_us=None if sources else until,
            disorder_ms=read("disorder", values.duration_ms, default.disorder_ms),
            case_retention_ms=read(
                "case_retention", option_values.retention, default.case_retention_ms
            ),
            idle_retention_ms=read(
                "idle_retention", option_values.retention, default.idle_retention_ms
            ),
            max_dead_letters=dead[0],
            max_dead_percent=dead[1],
            mask=read("mask", lambda text: option_values.mask(text, items), ()),
            mask_key=self._mask_key(),
            shards=read("shards", lambda text: values.whole(text, 1, MAX_SHARDS), None),
            workers=read("workers", lambda text: values.whole(text, 1, MAX_WORKERS), _cores()),
            savepoint_folder=given["savepoint_folder"] or "",
            start_patience_ms=read("start_patience", values.duration_ms, default.start_patience_ms),
            explain_plan=given["explain_plan"],
            quiet=given["quiet"],
            progress=read("progress", option_values.progress, True) and not given["quiet"],
            verbose=given["verbose"],
            color=read("color", option_values.color, "auto"),
            arguments=arguments,
        )

    def _tables(self, pipeline: Pipeline) -> tuple[str, ...]:
        default = pipeline.default or pipeline.tables
        if self.given.get("tables") is None:
            return default
        names = self.read("tables", lambda text: option_values.tables(text, pipeline.tables), ())
        # In the order in which they are always shown.
        return tuple(name for name in pipeline.tables if name in names) or default

    def _window(self) -> Windowing | None:
        if "window" not in self.given:
            return None
        from transforms.windows import WindowError, Windowing, windowing  # noqa: PLC0415 (NumPy)

        try:
            given = self.given["window"]
            return windowing("fixed:1h" if given is None else given)
        except WindowError as wrong:
            self.problems.append(f"--window {wrong}")
            return Windowing()

    def _early(self) -> int:
        if self.given.get("early_firing") is None:
            return 0
        found = self.read("early_firing", values.duration_ms, None)
        if found == 0:
            self.problems.append("--early_firing 0 is never; leave it out")
        return found or 0

    def _granule(
        self, given: int | None, default: int, window: Windowing | None, early: int
    ) -> int:
        """Return how much of a stream is folded at a time: no more than fits into a window."""
        if window is None:
            return given or default
        if given is None:
            unit = math.gcd(window.unit_ms, early)
            return math.gcd(default, unit) or default
        misfit = window.misfit(given)
        if misfit:
            self.problems.append(misfit)
        if early % given:
            self.problems.append(
                f"--early_firing {show_ms(early)} is no whole number of granules of "
                f"{show_ms(given)} (--granule)"
            )
        return given

    def reading(self) -> dict[str, Any]:
        """Return the settings that say how the input is read."""
        read = self.read
        typed = read("items", option_values.items, ())
        mapping = self._mapping()
        items = [name for name, _ in typed]
        items += [name for name in mapping.items if name not in items] if mapping else []
        return {
            "format": read("format", option_values.format, "auto"),
            "columns": read("columns", option_values.columns, ()),
            "items": tuple(items),
            "item_types": tuple((name, type_) for name, type_ in typed if type_ is not None),
            "mapping": mapping,
            "object_type": self.given["object_type"],
            "avro": self._avro(),
            "timezone": read("timezone", values.zone, "UTC"),
            "time_format": read("time_format", values.time_format, None),
            "delimiter": read("delimiter", values.delimiter, None),
            "encoding": read("encoding", values.encoding, Settings.encoding),
            "max_message_bytes": read(
                "max_message_bytes",
                lambda text: values.size_bytes(text, 1024, LARGEST_MESSAGE),
                Settings.max_message_bytes,
            ),
        }

    def _mapping(self) -> EventMapping | None:
        if self.given["mapping"] is None:
            return None
        from transforms.formats.mapping.document import MappingError  # noqa: PLC0415

        try:
            return self.read("mapping", option_values.mapping, None)
        except MappingError as wrong:
            self.problems += [f"--mapping {problem}" for problem in wrong.problems]
            return None

    def _avro(self) -> AvroSettings | None:
        """Return where schemas of Avro messages come from."""
        read, given = self.read, self.given
        url = read("schema_registry", option_values.schema_registry, "")
        user, password = read("schema_registry_auth", option_values.registry_auth, ("", ""))
        ca = read("schema_registry_ca", option_values.registry_ca, "")
        schema = read("avro_schema", option_values.avro_schema, "")
        for name in ("schema_registry_auth", "schema_registry_ca"):
            if given[name] is not None and given["schema_registry"] is None:
                self.problems.append(f"--{name} is for a registry; add --schema_registry URL")
        if not url and not schema:
            return None
        from transforms.formats.avro.settings import AvroSettings  # noqa: PLC0415

        if user and url.startswith("http://") and not _is_local(url):
            self.problems.append(
                f"--schema_registry '{url}' would carry a password in clear; use https://"
            )
        return AvroSettings(url, user, password, ca, schema)

    def _input(self, pipeline: Pipeline) -> tuple[tuple[str, ...], tuple[Address, ...]]:
        texts = self.given["input"] or []
        topics = [text for text in texts if broker_of(text)]
        if topics:
            if len(topics) < len(texts):
                other = next(text for text in texts if text not in topics)
                self.problems.append(
                    f"--input '{other}' is no topic, and the others are; read files first, with "
                    "--keep_state, and then the topics, with --state_from"
                )
            name = pipeline.name
            found = [self._address(lambda t: parse_address(t, name), text) for text in topics]
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
        from transforms.addresses import BadAddress  # noqa: PLC0415 (pyarrow: not for --help)

        broker = broker_of(text) or database_of(text)
        if broker is not None and missing(broker):
            problem = f"{text} needs a client; pip install 'imixs-data-streaming[{broker.extra}]'"
            self.problems.append(problem)
            return None
        try:
            return parse(text)
        except BadAddress as bad:
            self.problems.append(str(bad))
            return None

    def _outputs(
        self, pipeline: Pipeline, output_format: str, patterns: tuple[str, ...]
    ) -> tuple[str, tuple[Target, ...]]:
        texts = self.given["output"] or []
        topics = [text for text in texts if broker_of(text) or database_of(text)]
        folders = [text for text in texts if text not in topics]
        if len(folders) > 1:
            self.problems.append(f"--output '{folders[1]}' is a second folder; give one")
        targets: list[Target] = []
        if topics:
            parsed = [self._address(parse_target, text) for text in topics]
            targets = [each for each in parsed if each is not None]
            self._check_databases(targets, patterns)
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

    def _check_databases(self, targets: Sequence[Target], patterns: tuple[str, ...]) -> None:
        for target in targets:
            # Of the others nothing lies here.
            place = getattr(target, "folder", "")
            inside = [p for p in patterns if place and matches(p, f"{place}/x/x.parquet")]
            inside += [p for p in patterns if place and matches(p, place)]
            if inside:
                self.problems.append(
                    f"--output '{target}' lies in --input '{inside[0]}'; a second run would read "
                    "the tables of the first: give a place outside"
                )

    def _check_backfill(self, targets: tuple[Target, ...], folder: str) -> None:
        """Refuse what only a stream can do."""
        for name in ("state_from", "granule", "max_future", "early_firing"):
            if self.given.get(name):
                self.problems.append(f"--{name} is for streams, and --input names files")
        topics = topics_among(targets)
        if topics:
            self.problems.append(
                f"--output {topics[0]} is for streams, and --input names files; give a folder, or "
                "a database, such as out.duckdb"
            )
        databases = [each for each in targets if is_database(each)]
        if len(databases) > 1:
            self.problems.append(
                f"--output {databases[1]} is a second database; a run over files fills one, and a "
                "folder"
            )
        if databases and self.given["output_format"] not in (None, "parquet"):
            self.problems.append(
                f"--output {databases[0]} is filled from Parquet; leave out --output_format"
            )
        if databases and self.given["keep_state"] and not folder:
            self.problems.append(
                "--keep_state needs a folder; give one besides, --output FOLDER ..."
            )
        if self.given["keep_state"] and self.given["complete_log"]:
            self.problems.append("--keep_state has nothing to keep: --complete_log ends every case")
        if self.given["keep_state"] and self.given["until"] == "end":
            self.problems.append("--keep_state has nothing to keep after --until end; leave it out")
        if self.given["keep_state"] and self.given["output_format"] not in (None, "parquet"):
            self.problems.append("--keep_state writes Parquet; leave out --output_format")

    def _check_windows(self, *, streams: bool) -> None:
        """Refuse what only a pipeline without windows can do."""
        # Of a stream `_check_stream` has refused the first.
        for name in ("state_from",) if streams else ("keep_state", "state_from"):
            if self.given[name]:
                self.problems.append(
                    f"--{name} is of transitions: windows that are open could not go on; leave it "
                    "out, and let the stream read from ?start=earliest"
                )

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
        return self.read("mask_key", option_values.key, b"")


def _is_local(url: str) -> bool:
    return urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")


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
