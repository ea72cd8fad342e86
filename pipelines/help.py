"""The help texts, made from the tables of pipelines, options, formats and exit codes."""

from __future__ import annotations

import shutil
import textwrap

from pipelines.exit_codes import MEANING
from pipelines.option_table import OPTIONS, Option, options_of
from pipelines.option_values import format_names
from pipelines.registry import PIPELINES, Pipeline

WIDEST = 100

SOURCES: tuple[tuple[str, str], ...] = (
    ("files", "paths, folders, globs (** for any depth); gzip, bzip2, xz, zstandard are unpacked"),
    ("gs://, s3://, azfs://", "with pip install 'apache-beam[gcp]', [aws], [azure]"),
    ("hdfs://", "with [hadoop], and --hdfs_host, --hdfs_port, --hdfs_user"),
    ("kafka://", "topics, as a stream; with pip install 'imixs-data-streaming[kafka]'"),
    ("pubsub://", "subscriptions, as a stream; with [pubsub]"),
)


def overview(program: str) -> str:
    """Return the help of the program: pipelines, sources, exit codes."""
    pipelines = [(p.name, p.title) for p in PIPELINES.values()]
    pipelines.append(("inspect", "the first messages of an input, and what becomes of them"))
    pipelines.append(("show", "the first rows of the tables that a run has written"))
    pipelines.append(("report", "a page of what a run has measured: one file, for any browser"))
    pipelines.append(("serve", "the same page, kept current while a stream runs"))
    pipelines.append(("workers", "a pool of Python workers, beside a task manager of Flink"))
    return "\n".join(
        [
            f"usage: {program} PIPELINE [options]",
            "",
            *wrapped(
                "Columnar Apache Beam pipelines that turn workflow events into transitions, "
                "cases and the numbers of their processes."
            ),
            "",
            "Pipelines",
            *pairs(pipelines),
            "",
            "Sources",
            *pairs(list(SOURCES)),
            "",
            *_exit_codes(),
            "",
            f"{program} PIPELINE --help shows a pipeline's options and examples.",
            f"{program} --version shows the version.",
        ]
    )


def of_pipeline(pipeline: Pipeline, program: str) -> str:
    """Return the help of a pipeline: its options by group, examples, exit codes."""
    lines = [
        f"usage: {program} {pipeline.name} --input PATH --output FOLDER [options] [Beam's options]",
        "",
        *wrapped(f"{pipeline.name}: {pipeline.title}."),
        "",
        *wrapped(
            "--input, --output and options that take a list (NAME,..) may be given again, and all "
            "of it counts; of others given again the last one does."
        ),
        "",
        "Examples",
    ]
    for example in pipeline.examples:
        lines.append(f"  # {example.title}")
        lines.append(
            "  " + " \\\n  ".join([f"{program} {example.command[0]}", *example.command[1:]])
        )
        lines.append("")
    options = options_of(pipeline.name)
    for group in dict.fromkeys(option.group for option in options):
        lines.append(group)
        lines.extend(pairs([_described(o, pipeline) for o in options if o.group == group]))
        lines.append("")
    lines.append("Beam's options")
    lines.extend(
        wrapped(
            "Every other option is Beam's: --runner PrismRunner, FlinkRunner, DataflowRunner ..., "
            "--temp_location, and those of the runner, such as --flink_master, "
            "--checkpointing_interval and --savepoint_path of Flink. Without --runner the work is "
            "done on this machine by the FnApiRunner. Options are not abbreviated.",
            "  ",
        )
    )
    tables = pipeline.default or pipeline.tables
    lines += ["", "Tables written", *wrapped(", ".join(tables), "  "), "", *_exit_codes()]
    return "\n".join(lines)


def of_inspect(program: str) -> str:
    """Return the help of `inspect`."""
    reading = [o for o in OPTIONS if o.group == OPTIONS[0].group]
    reading += [
        o
        for o in OPTIONS
        if o.name in ("timezone", "time_format", "max_future", "mask", "mask_key")
    ]
    return "\n".join(
        [
            f"usage: {program} inspect --input PATH|URI [--messages N] [--json] [options]",
            "",
            *wrapped(
                "The first messages of an input: the format they are taken for, where each event "
                "column comes from, and the events that they become, or that one is skipped, or "
                "the reason why it is a dead letter. Nothing is consumed: no offsets are "
                "committed. The other options of a pipeline may stand, so that a command can be "
                "tried as it is."
            ),
            "",
            "Examples",
            f"  {program} inspect --input orders.jsonl",
            f"  {program} inspect --input orders.jsonl --mapping orders.yaml --messages 20",
            f"  {program} inspect --input kafka://localhost:9092/orders --json",
            f"  {program} inspect --input log.jsonocel --object_type 'Purchase Order'",
            "",
            *pairs(
                [
                    (
                        "--messages N",
                        "so many of each topic, or of all files (default: 5); at least one of "
                        "each format",
                    ),
                    ("--json", "for machines: one object, on standard output"),
                ]
            ),
            "",
            "How the input is read",
            *pairs([_described(option) for option in reading]),
        ]
    )


def of_show(program: str) -> str:
    """Return the help of `show`."""
    return "\n".join(
        [
            f"usage: {program} show FOLDER [--table NAME] [--rows N]",
            "",
            *wrapped("The laws of a finished run, and the first rows of its tables."),
            "",
            *pairs(
                [
                    ("FOLDER", "the --output of the run"),
                    ("--table NAME,..", "of these tables only"),
                    ("--rows N", "so many rows (default: 5)"),
                ]
            ),
        ]
    )


def of_workers(program: str) -> str:
    """Return the help of `workers`."""
    return "\n".join(
        [
            f"usage: {program} workers [--host ADDRESS] [--port N]",
            "",
            *wrapped(
                "A pool of Python workers for Flink: run one beside each task manager, until "
                "Ctrl-C or SIGTERM, and name it in the job. It starts a process when a task "
                "manager asks for one. Whoever reaches its port can have it run code: it listens "
                "to this machine alone, unless --host says otherwise."
            ),
            "",
            "Example",
            f"  {program} workers --port 50000",
            f"  {program} transitions --input kafka://... --output kafka://... \\",
            "    --runner FlinkRunner --flink_master jobmanager:8081 \\",
            "    --environment_type EXTERNAL --environment_config localhost:50000",
            "",
            *pairs(
                [
                    ("--host ADDRESS", "to listen to; 0.0.0.0 for all (default: 127.0.0.1)"),
                    ("--port N", "0 for a free one (default: 50000)"),
                    ("--verbose", "say which workers start and end, and show Beam's log"),
                ]
            ),
        ]
    )


def _described(option: Option, pipeline: Pipeline | None = None) -> tuple[str, str]:
    flag = f"--{option.name} {option.metavar}".strip()
    text = option.help
    if "{formats}" in text:
        text = text.replace("{formats}", ", ".join(format_names()))
    if pipeline is not None:
        text = text.replace("{tables}", ", ".join(pipeline.tables))
    if option.default is not None:
        text = f"{text} (default: {option.default})"
    return flag, text


def _exit_codes() -> list[str]:
    codes = [(f"{int(code):>3}", text) for code, text in MEANING.items()]
    return ["Exit codes", *pairs(codes)]


def _width() -> int:
    return min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)


def wrapped(text: str, indent: str = "") -> list[str]:
    """Return the lines of a text, as wide as the terminal."""
    return textwrap.wrap(
        text,
        _width(),
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
        break_long_words=False,
    )


def pairs(rows: list[tuple[str, str]]) -> list[str]:
    """Return names and what they mean, in two columns."""
    column = 2 + min(28, max(len(name) for name, _ in rows)) + 2
    lines = []
    for name, text in rows:
        texts = wrapped(text, " " * column)
        if len(name) + 4 > column:
            lines.append(f"  {name}")
        else:
            texts[0] = f"  {name}".ljust(column) + texts[0].lstrip()
        lines.extend(texts)
    return lines
