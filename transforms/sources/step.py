"""The step of an own source: how a runner cuts it, and how a job that goes on learns of it anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, TypeVar

import apache_beam as beam
from apache_beam.coders import BytesCoder, Coder, registry
from apache_beam.coders.coders import LengthPrefixCoder
from apache_beam.io.unbounded_source import (
    _DEFAULT_DESIRED_NUM_SPLITS,
    CheckpointMark,
    UnboundedReader,
    UnboundedSource,
    _ReadFromUnboundedSourceDoFn,
)

from transforms.sources.slice import Slice
from transforms.sources.standing import StandingReader
from transforms.spread import number_for

_CURRENT: dict[str, NamedSource] = {}
"""By name, what the steps of this process read, as their job was launched with it."""

S = TypeVar("S", bound="NamedSource")


class NamedSource(Slice, UnboundedSource):
    """One slice of what some topics hold, read in packed batches.

    A runner keeps a source with where it stands. So a job that goes on from a savepoint has the
    sources of the job before, and would never learn of an address that is another now: where a
    source has a name, its step's own is taken, and of the old one only which slice it is.
    """

    def current(self: S) -> S:
        """Return this slice as the step of this process has it."""
        found = _CURRENT.get(self.reads) if self.reads else None
        if not isinstance(found, type(self)):
            return self
        return replace(found, number=self.number, of=self.of)

    def parts(self, wanted: int) -> int:
        """Return into how many slices this is cut, if so many are wanted."""
        raise NotImplementedError

    def split(self: S, desired_num_splits: int, options: Any = None) -> list[S]:
        """Cut into slices; one that has been cut stays as it is."""
        if self.of > 1:
            return [self]
        count = self.parts(desired_num_splits)
        return [replace(self, number=number, of=count) for number in range(count)]

    def create_reader(
        self, options: Any, checkpoint_mark: CheckpointMark | None
    ) -> UnboundedReader:
        """Make a reader that goes on after a mark."""
        return StandingReader(self.current(), checkpoint_mark)

    def get_checkpoint_mark_coder(self) -> Coder:
        """Return the coder of marks."""
        return self.current().mark_coder()

    def default_output_coder(self) -> BytesCoder:
        """Elements are bytes."""
        return BytesCoder()


def evenly_placed(source: NamedSource) -> list[NamedSource]:
    """Cut a source into slices that Flink spreads evenly over the instances of a step."""
    slices = source.split(_DEFAULT_DESIRED_NUM_SPLITS)
    # Flink gets what it can't decode with its length.
    coder = LengthPrefixCoder(registry.get_coder(type(source)))

    def key_of(slice_: NamedSource, place: int) -> bytes:
        # As a worker has it: what is one object here may be two there, and encoded twice.
        there = coder.decode(coder.encode(replace(slice_, place=place)))
        encoded: bytes = coder.encode(there)
        return encoded

    return [
        replace(each, place=number_for(number, len(slices), partial(key_of, each)))
        for number, each in enumerate(slices)
    ]


@dataclass(eq=False)
class ReadBatches(beam.PTransform):
    """Reads messages: packed batches of `MESSAGE_SCHEMA` (bytes), stamped with record time - D.

    A batch's timestamp is that of its oldest message.

    Attributes:
        source: what to read, and how.
        poll_interval_s: pause of a reader that has nothing.
        batches_per_bundle: after so many batches a bundle ends, and what was read is finalized.
        seconds_per_bundle: likewise.
        ahead: whether the source is cut before the job starts. Flink has all that comes of one
            source read by one instance of the step, so it gets a source for each slice.
    """

    source: NamedSource
    poll_interval_s: float = 0.05
    batches_per_bundle: int = 4
    seconds_per_bundle: float = 0.2
    ahead: bool = False

    what: ClassVar[str] = "topics"

    def expand(self, root: beam.pvalue.PBegin) -> beam.PCollection:
        """Wire the step."""
        read = _Read(
            self.source, self.poll_interval_s, self.batches_per_bundle, self.seconds_per_bundle
        )
        sources = evenly_placed(self.source) if self.ahead else [self.source]
        return (
            root
            | f"Read {self.what}/Create" >> beam.Create(sources)
            | f"Read {self.what}/ReadUnbounded" >> beam.ParDo(read).with_output_types(bytes)
        )


class _Read(_ReadFromUnboundedSourceDoFn):
    """Beam's own step of an unbounded source, which lets its process know the source it has."""

    def __init__(
        self, source: NamedSource, poll_interval_s: float, batches: int, seconds: float
    ) -> None:
        super().__init__(poll_interval_s, batches, seconds)
        self._source = source

    def setup(self) -> None:
        if self._source.reads:
            _CURRENT[self._source.reads] = self._source
        super().setup()
