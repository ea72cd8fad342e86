"""Beam's reader of one slice of Kafka's partitions."""

from __future__ import annotations

from transforms.sources.standing import StandingReader


class KafkaReader(StandingReader):
    """Reads the partitions of one slice: see `StandingReader`."""
