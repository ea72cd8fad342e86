"""What a run is to do, whatever the user wrote to say so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipelines.brokers import Address, Target
    from transforms.formats.avro.settings import AvroSettings
    from transforms.formats.base import Context
    from transforms.formats.mapping.rules import EventMapping
    from transforms.windows import Windowing


@dataclass(frozen=True)
class Settings:
    """What a run is to do: made once from the options, picklable.

    Attributes:
        pipeline: the pipeline's name.
        input: paths and globs, of any Beam file system.
        output: folder of the output tables, without a slash at its end.
        staged: that folder is a temporary one, from which a database is filled.
        format: name of a format, or `auto`.
        output_format: `parquet`, `jsonl` or `csv`.
        columns: pairs of event column and the input's name for it.
        items: business items kept as `attributes`.
        item_types: pairs of item and declared type.
        mapping: what `--mapping` says; None for nothing.
        object_type: of the objects that are the cases of an object-centric log.
        avro: where schemas of Avro messages come from; None for nowhere.
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
        targets: topics and databases to write.
        granule_ms: so much of a stream is folded at a time.
        max_future_ms: an event so far ahead of its record's time is a dead letter.
        state_from: output of a run whose state a stream goes on from; empty for none.
        keep_state: leave the state in the output.
        disorder_ms: how late a record may be, the bound of the watermark.
        case_retention_ms: how long the state of a finished case is kept.
        idle_retention_ms: how long the state of an idle case is kept.
        window: how order time is cut, for a pipeline that measures; None for others.
        early_ms: how often a window that is open gives its numbers; 0: as the pipeline sees fit.
        tables: names of the tables that are written; empty: what the pipeline writes by itself.
        max_dead_letters: more of them fail the run; None: no limit.
        max_dead_percent: a larger share of the messages fails the run; None: no limit.
        mask: columns and items whose values are replaced by keyed hashes.
        mask_key: key of these hashes.
        shards: how many parts the fold has; None: from the input's size.
        workers: how many threads or processes work on this machine.
        savepoint_folder: where a stream on Flink leaves its savepoint; empty: the cluster's own.
        start_patience_ms: a job on Flink that does not work by then is cancelled.
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
    staged: bool = False
    format: str = "auto"
    output_format: str = "parquet"
    columns: tuple[tuple[str, str], ...] = ()
    items: tuple[str, ...] = ()
    item_types: tuple[tuple[str, str], ...] = ()
    mapping: EventMapping | None = None
    object_type: str | None = None
    avro: AvroSettings | None = None
    timezone: str = "UTC"
    time_format: str | None = None
    delimiter: str | None = None
    encoding: str = "utf-8"
    max_message_bytes: int = 64 * 2**20
    end_states: tuple[str, ...] = ()
    complete_log: bool = False
    since_us: int | None = None
    until_us: int | None = None
    sources: tuple[Address, ...] = ()
    targets: tuple[Target, ...] = ()
    granule_ms: int = 1000
    max_future_ms: int = 86_400_000
    state_from: str = ""
    keep_state: bool = False
    disorder_ms: int = 30_000
    case_retention_ms: int = 30 * 86_400_000
    idle_retention_ms: int = 365 * 86_400_000
    window: Windowing | None = None
    early_ms: int = 0
    tables: tuple[str, ...] = ()
    max_dead_letters: int | None = None
    max_dead_percent: float | None = None
    mask: tuple[str, ...] = ()
    mask_key: bytes = field(default=b"", repr=False)
    shards: int | None = None
    workers: int = 1
    savepoint_folder: str = ""
    start_patience_ms: int = 45_000
    explain_plan: bool = False
    quiet: bool = False
    progress: bool = True
    verbose: bool = False
    color: str = "auto"
    arguments: tuple[str, ...] = ()

    def context(self) -> Context:
        """Return the settings that decoding depends on."""
        from transforms.formats.base import Context  # noqa: PLC0415 (pyarrow: not for --help)

        context = Context(
            columns=dict(self.columns),
            items=self.items,
            timezone=self.timezone,
            time_format=self.time_format,
            delimiter=self.delimiter,
            encoding=self.encoding,
            max_message_bytes=self.max_message_bytes,
            item_types=dict(self.item_types),
            object_type=self.object_type,
            avro=self.avro,
        )
        if self.mapping is None:
            return context
        from transforms.formats.mapping.context import with_mapping  # noqa: PLC0415

        return with_mapping(context, self.mapping)

    @property
    def windowing(self) -> Windowing:
        """`window` of a pipeline that has one."""
        assert self.window is not None
        return self.window

    @property
    def cut(self) -> dict[str, str]:
        """How time is cut, as the manifest has it; nothing for a pipeline without windows."""
        return {} if self.window is None else {"window": str(self.window)}

    @property
    def types(self) -> dict[str, str]:
        """The type of each item, as the manifest has it: `string` where none is declared."""
        declared = self.context().item_types if self.items else {}
        return {item: declared.get(item, "string") for item in self.items}

    @property
    def until_ms(self) -> int:
        """`until_us` as kernels take it: in ms, rounded up; `kernels.base.END` for None."""
        from transforms.kernels.base import END  # noqa: PLC0415 (pyarrow: not for --help)

        return END if self.until_us is None else -(-self.until_us // 1000)
