"""Ids of steps: by labels, whatever else is in the pipeline."""

from __future__ import annotations

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.portability.api import beam_runner_api_pb2

from pipelines.flink_ids import take_labels


class Doubled(beam.PTransform):
    """A step of steps."""

    def expand(self, numbers: beam.PCollection) -> beam.PCollection:
        """Wire the step."""
        return numbers | "Double" >> beam.Map(lambda number: 2 * number)


def made(*, more: bool) -> beam_runner_api_pb2.Pipeline:
    root = beam.Pipeline(options=PipelineOptions([]))
    if more:
        root | "Others" >> beam.Create(["a"]) | "Print" >> beam.Map(print)
    root | "Numbers" >> beam.Create([1, 2]) | "Doubled" >> Doubled()
    found = root.to_runner_api()
    take_labels(found)
    return found


def test_ids_are_of_labels() -> None:
    few, many = made(more=False), made(more=True)
    ids = set(few.components.transforms)
    assert ids < set(many.components.transforms)
    assert "step Doubled/Double" in ids
    step = few.components.transforms["step Doubled"]
    assert list(step.subtransforms) == ["step Doubled/Double"]


def test_a_pipeline_is_whole_afterwards() -> None:
    found = made(more=True)
    steps = found.components.transforms
    assert list(found.root_transform_ids)
    below = {each for step in steps.values() for each in step.subtransforms}
    assert below | set(found.root_transform_ids) == set(steps)
    # Beam itself can read it.
    again = beam.Pipeline.from_runner_api(found, None, PipelineOptions([]))
    assert len(again.to_runner_api().components.transforms) == len(steps)
