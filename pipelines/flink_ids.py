"""Steps by their labels alone, so that a savepoint is of the labels and of nothing else.

Flink keeps a timer under the id of its step. Beam numbers the ids of a pipeline's steps in the
order of their making: `ref_AppliedPTransform_Fold-Fold-shards_13`. With one more output, or a step
more in a new version, the number is another, and a job that goes on from a savepoint fails at
its first timer. Here every id is made of the step's full label, which is what a user is told to
keep.
"""

from __future__ import annotations

from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.runner import PipelineResult

_PREFIX = "step "


class LabelledFlinkRunner(FlinkRunner):
    """Beam's runner for Flink, with ids that do not depend on the other steps."""

    def run_portable_pipeline(
        self, pipeline: beam_runner_api_pb2.Pipeline, options: PipelineOptions
    ) -> PipelineResult:
        """Submit a pipeline."""
        take_labels(pipeline)
        return super().run_portable_pipeline(pipeline, options)


def take_labels(pipeline: beam_runner_api_pb2.Pipeline) -> None:
    """Give every step of a pipeline its full label as its id.

    Args:
        pipeline: as Beam's job API takes it; changed.
    """
    steps = dict(pipeline.components.transforms)
    ids = {old: f"{_PREFIX}{step.unique_name}" for old, step in steps.items()}
    assert len(set(ids.values())) == len(ids), "two steps of one label"
    pipeline.components.transforms.clear()
    for old, step in steps.items():
        step.subtransforms[:] = [ids[each] for each in step.subtransforms]
        pipeline.components.transforms[ids[old]].CopyFrom(step)
    pipeline.root_transform_ids[:] = [ids[each] for each in pipeline.root_transform_ids]
