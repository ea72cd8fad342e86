"""The table of our options: what `--help` shows, and what the parser is made from."""

from __future__ import annotations

from dataclasses import dataclass

MASKABLE = ("actor", "case_id", "transaction_id", "workflow_group")
"""Columns whose values may be replaced by keyed hashes, beside items."""


@dataclass(frozen=True)
class Option:
    """One option, as `--help` shows it.

    Attributes:
        name: without the dashes.
        group: its heading.
        metavar: what its value is; empty for a switch.
        help: what it does.
        default: the text that stands for it where it is not given.
        many: takes several values, and may be given several times.
        of: the pipelines that have it; empty for all.
    """

    name: str
    group: str
    metavar: str
    help: str
    default: str | None = None
    many: bool = False
    of: tuple[str, ...] = ()

    @property
    def is_list(self) -> bool:
        """Whether its value is a list, separated by commas."""
        return self.metavar.endswith(",..")


_READING, _WRITING = "What is read", "What is written"
_MEANING, _TIMES = "What it means", "Time and order"
_MEASURED, _RUNNING = "What is measured", "How it runs"
ANALYTICS = ("analytics",)

OPTIONS: tuple[Option, ...] = (
    Option(
        "input",
        _READING,
        "PATH",
        "files, folders or globs (** for any depth; in quotes, or the shell expands them), of "
        "any Beam file system; several, or separated by commas; may be given again; or topics: "
        "'kafka://host:9092/topic,pattern-*?group=G&start=WHEN&config=FILE', where WHEN is "
        "earliest, latest or a time; or 'pubsub://PROJECT/SUBSCRIPTION,...?idle=10s&lease=60s'",
        many=True,
    ),
    Option("format", _READING, "NAME", "auto, or one of {formats}", "auto"),
    Option(
        "columns",
        _READING,
        "COLUMN=NAME,..",
        "the input's names (or JSON paths) of event columns, such as case_id=CaseID;"
        " ce:NAME is an attribute of a CloudEvent",
    ),
    Option(
        "items",
        _READING,
        "NAME:TYPE,..",
        "business items kept in the column attributes; with a type (long, double, boolean, "
        "timestamp) a value that is none of it is left out and counted",
    ),
    Option(
        "mapping",
        _READING,
        "FILE",
        "YAML or JSON that says where event columns and items are, with constants, value maps and "
        "what to skip; for what is read by columns: JSON, CSV, Parquet, Avro",
    ),
    Option("object_type", _READING, "NAME", "OCEL: objects of this type are the cases"),
    Option(
        "schema_registry",
        _READING,
        "URL",
        "where the schemas of Avro messages are, as https://host:8081 (Confluent's interface)",
    ),
    Option(
        "schema_registry_auth",
        _READING,
        "KEY",
        "user:password of the registry, as env:NAME or file:PATH",
    ),
    Option(
        "schema_registry_ca",
        _READING,
        "FILE",
        "certificates (PEM) that the registry's is checked by (default: those of this machine)",
    ),
    Option("avro_schema", _READING, "FILE", "schema of Avro messages that name none in a registry"),
    Option("delimiter", _READING, "CHAR", "separator of CSV columns, or tab; found if not given"),
    Option("encoding", _READING, "NAME", "text encoding of CSV and JSON files", "utf-8"),
    Option("max_message_bytes", _READING, "SIZE", "a larger document is a dead letter", "64MiB"),
    Option(
        "output",
        _WRITING,
        "FOLDER|URI",
        "where the tables go: a folder, in which those of an earlier run are replaced; or a "
        "database: FILE.duckdb, delta:///folder (also delta+s3://, delta+gs://, delta+az://), "
        "'iceberg://CATALOG/NAMESPACE?uri=U&warehouse=W', 'bigquery://PROJECT/DATASET?prefix=P'; "
        "of a stream also topics, kafka://host:9092/prefix- or "
        "'pubsub://PROJECT/prefix-?create=yes', and several outputs",
        many=True,
    ),
    Option("output_format", _WRITING, "NAME", "parquet, jsonl or csv", "parquet"),
    Option(
        "max_dead_letters",
        _WRITING,
        "N|N%",
        "exit with 3 if there are more dead letters, or a larger share of the messages",
    ),
    Option(
        "mask",
        _WRITING,
        "NAME,..",
        "write keyed hashes for the values of columns (" + ", ".join(MASKABLE) + ") and items",
    ),
    Option("mask_key", _WRITING, "KEY", "key of the hashes: file:PATH or env:NAME, 16 bytes up"),
    Option("end_states", _MEANING, "STATE,..", "states that end a case"),
    Option(
        "complete_log",
        _MEANING,
        "",
        "the input holds whole cases: the last event of each is its end",
    ),
    Option("timezone", _TIMES, "ZONE", "zone of times that have none", "UTC"),
    Option(
        "time_format",
        _TIMES,
        "FORMAT",
        "strptime format, or s, ms, us, ns for epochs; otherwise ISO 8601 and epochs are seen",
    ),
    Option(
        "since",
        _TIMES,
        "TIME",
        "write only what happened from this time or date on; earlier events count for the state "
        "of their cases",
    ),
    Option(
        "until",
        _TIMES,
        "TIME",
        "leave out events from this time or date on, and fire the deadlines before it; "
        "'end' fires all (default: the start of the run)",
    ),
    Option(
        "state_from",
        _MEANING,
        "FOLDER",
        "a stream goes on from what a run with --keep_state has left in its output",
    ),
    Option(
        "keep_state",
        _MEANING,
        "",
        "leave the state of the cases in the output, for the --state_from of a stream",
    ),
    Option("disorder", _TIMES, "DURATION", "how late a broker's record may be", "30s"),
    Option(
        "granule",
        _TIMES,
        "DURATION",
        "a stream folds so much of it at a time: shorter is sooner, longer costs less (default: "
        "1s; 1m where no output is a topic)",
    ),
    Option(
        "max_future",
        _TIMES,
        "DURATION",
        "an event so far ahead of its record's time is a dead letter",
        "1d",
    ),
    Option("case_retention", _TIMES, "DURATION", "forget a case so long after its end", "30d"),
    Option("idle_retention", _TIMES, "DURATION", "forget an idle case after so long", "365d"),
    Option(
        "window",
        _MEASURED,
        "WINDOW",
        "fixed:1h, sliding:1d/1h (a day, each hour), days of a time zone as "
        "fixed:1d@Europe/Berlin, or global",
        "fixed:1h",
        of=ANALYTICS,
    ),
    Option(
        "early_firing",
        _MEASURED,
        "DURATION",
        "a stream writes the numbers of open windows so often, too (default: only when they are "
        "over; every 10s with --window global)",
        of=ANALYTICS,
    ),
    Option(
        "tables",
        _WRITING,
        "NAME,..",
        "write only these tables, or others than by default: {tables}",
        of=ANALYTICS,
    ),
    Option(
        "shards",
        _RUNNING,
        "N",
        "parts of the fold (default: from the input's size; of a stream 16 on Flink, 64 on other "
        "clusters, 2 here)",
    ),
    Option("workers", _RUNNING, "N", "threads or processes here (default: one a core)"),
    Option(
        "savepoint_folder",
        _RUNNING,
        "FOLDER",
        "where a stream on Flink that is stopped leaves its savepoint (default: the cluster's)",
    ),
    Option(
        "start_patience",
        _RUNNING,
        "DURATION",
        "a job on Flink that does not work so long after it was submitted is cancelled",
        "45s",
    ),
    Option("explain_plan", _RUNNING, "", "say what would be read, run and written, and stop"),
    Option(
        "progress", _RUNNING, "auto|off", "progress: a display on a terminal, else lines", "auto"
    ),
    Option("quiet", _RUNNING, "", "say nothing but errors and warnings"),
    Option("verbose", _RUNNING, "", "show Beam's log, and stack traces of errors"),
    Option("color", _RUNNING, "WHEN", "auto, always or never (NO_COLOR is heeded)", "auto"),
)


def options_of(pipeline: str) -> tuple[Option, ...]:
    """Return the options that a pipeline has."""
    return tuple(option for option in OPTIONS if not option.of or pipeline in option.of)
