"""From options to exit code: a backfill over files, or a stream over topics."""

from __future__ import annotations

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.exit_codes import ExitCode
from pipelines.registry import Pipeline
from pipelines.screen import Screen
from pipelines.settings import Settings


def launch(
    pipeline: Pipeline, settings: Settings, flags: PipelineOptions, screen: Screen
) -> ExitCode:
    """Run a pipeline.

    Raises:
        RunError: it can't be started, or it failed.
        KeyboardInterrupt: the user has had enough; everything temporary is removed.
    """
    if settings.sources:
        from pipelines.live import launch_stream  # noqa: PLC0415 (needs a broker's client)

        return launch_stream(pipeline, settings, flags, screen)
    from pipelines.backfill import launch_backfill  # noqa: PLC0415 (a stream needs none of it)

    return launch_backfill(pipeline, settings, flags, screen)
