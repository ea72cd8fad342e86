"""The options of Beam's Flink runner that Beam's Python does not know, so that slips are errors.

The runner is written in Java and reads them from the job. Beam's Python passes on what it does
not know and warns of the rest; here each is known, with its type. They are those of
`FlinkPipelineOptions` of Beam 2.77, but for what its Python declares itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

RUNNERS = ("flinkrunner", "flink")

Kind = Literal["whole", "text", "switch"]


@dataclass(frozen=True)
class FlinkOption:
    """An option of the runner.

    Attributes:
        name: without the dashes.
        kind: a whole number, a text, or a switch, which may be followed by true or false.
        help: what it does.
    """

    name: str
    kind: Kind
    help: str


def _of(kind: Kind, **helps: str) -> Iterator[FlinkOption]:
    for name, text in helps.items():
        yield FlinkOption(name, kind, text)


FLINK_OPTIONS: tuple[FlinkOption, ...] = (
    *_of(
        "whole",
        checkpointing_interval="ms between checkpoints",
        checkpoint_timeout_millis="ms after which a checkpoint is given up",
        min_pause_between_checkpoints="least ms from the end of a checkpoint to the next",
        num_concurrent_checkpoints="checkpoints at a time",
        max_bundle_size="most elements of a bundle",
        max_bundle_time_mills="ms after which a bundle ends",
        number_of_execution_retries="restarts; -1: as the cluster is configured",
        execution_retry_delay="ms before a restart",
        shutdown_sources_after_idle_ms="ms after which an idle source ends",
        auto_watermark_interval="ms between watermarks",
        latency_tracking_interval="ms between latency marks",
        job_check_interval_in_secs="s between looks at a job that is not waited for",
    ),
    *_of(
        "text",
        checkpointing_mode="EXACTLY_ONCE or AT_LEAST_ONCE, of the state",
        savepoint_path="savepoint or retained checkpoint that the job goes on from",
        state_backend="rocksdb or filesystem",
        state_backend_factory="class of the state backend",
        state_backend_storage_path="where the state backend keeps its state",
        execution_mode_for_batch="how bounded jobs exchange data",
        flink_conf_dir="folder of Flink's configuration, of a job server that is started here",
        report_checkpoint_duration="namespace of a metric of checkpoint durations",
    ),
    *_of(
        "switch",
        allow_non_restored_state="leave out state of a savepoint that no step of the job has",
        attached_mode="whether the job server waits for the job",
        auto_balance_write_files_sharding_enabled="spread the shards of written files",
        disable_metrics="do without Beam's metrics",
        enable_stable_input_drain="drain steps that need stable input",
        externalized_checkpoints_enabled="checkpoints outlive a job that fails",
        fail_on_checkpointing_errors="a checkpoint that fails lets the job restart",
        faster_copy="leave out copies between operators",
        finish_bundle_before_checkpointing="end bundles before a checkpoint",
        force_slot_sharing_group="bounded sources share slots",
        force_unaligned_checkpoint_enabled="unaligned checkpoints even with loops",
        object_reuse="reuse objects between operators",
        operator_chaining="chain operators in one task",
        re_iterable_group_by_key_result="groups can be iterated several times",
        retain_externalized_checkpoints_on_cancellation="checkpoints outlive a cancelled job",
        unaligned_checkpoint_enabled="checkpoints hold what is on its way between tasks",
        use_data_stream_for_batch="bounded jobs by Flink's DataStream API",
    ),
)


def _truth(text: str) -> bool:
    lowered = text.lower()
    if lowered not in ("true", "false"):
        reason = f"'{text}' is neither true nor false"
        raise ValueError(reason)
    return lowered == "true"


class FlinkJobOptions(PipelineOptions):
    """Beam's view of `FLINK_OPTIONS`; what is not given is None, and the runner decides."""

    @classmethod
    def _add_argparse_args(cls, parser: Any) -> None:
        for option in FLINK_OPTIONS:
            flag = f"--{option.name}"
            if option.kind == "switch":
                parser.add_argument(
                    flag, type=_truth, nargs="?", const=True, default=None, help=option.help
                )
            else:
                parser.add_argument(
                    flag,
                    type=int if option.kind == "whole" else str,
                    default=None,
                    help=option.help,
                )


def given(flags: PipelineOptions) -> dict[str, Any]:
    """Return the options of the runner that have a value."""
    values = flags.view_as(FlinkJobOptions).get_all_options(drop_default=True)
    return {
        option.name: values[option.name]
        for option in FLINK_OPTIONS
        if values.get(option.name) is not None
    }


def wanted(flags: PipelineOptions) -> bool:
    """Say whether the runner is Flink's."""
    return is_flink(flags.view_as(StandardOptions).runner or "")


def is_flink(runner: str) -> bool:
    """Say whether a runner, by its name, is Flink's."""
    return runner.rpartition(".")[2].lower() in RUNNERS
