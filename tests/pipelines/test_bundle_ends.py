"""Bundles of our workers do not wait for Beam's sampler for long."""

from __future__ import annotations

import os
import subprocess
import sys

SEEN = """
from apache_beam.runners.worker import statesampler
from apache_beam.utils.counters import CounterFactory
from pipelines.bundle_ends import LOOK_MS, wait_less

# If Beam does otherwise some day, this and the module may go.
assert statesampler.StateSampler.__init__.__defaults__ == (200,)
wait_less()
wait_less()
sampler = statesampler.StateSampler("bundle", CounterFactory())
assert sampler.sampling_period_ms == LOOK_MS
given = statesampler.StateSampler("bundle", CounterFactory(), sampling_period_ms=7)
assert given.sampling_period_ms == 7
sampler.start()
sampler.stop()
"""


def test_the_sampler_looks_more_often() -> None:
    """In a process of its own: it changes a default of Beam's."""
    command = [sys.executable, "-c", SEEN]
    environment = {**os.environ, "PYTHONPATH": "."}
    ended = subprocess.run(command, check=False, env=environment, capture_output=True)
    assert ended.returncode == 0, ended.stderr.decode()
