"""A bundle's end waits for a thread of Beam's; it waits less here.

Beam's worker has a thread for each bundle that looks where its time goes, and joins it when the
bundle ends. The thread sleeps between two looks, a fifth longer each time, up to 0.2 s; so a bundle
that took half a second waits for it about 0.05 s more. There is no option for that.
"""

from __future__ import annotations

from apache_beam.runners.worker import statesampler

LOOK_MS = 10
"""Between two looks, at most."""


def wait_less() -> None:
    """Let the thread of every bundle of this process look more often, and so end sooner."""
    start = statesampler.StateSampler.__init__
    if start.__defaults__ == (statesampler.DEFAULT_SAMPLING_PERIOD_MS,):
        start.__defaults__ = (LOOK_MS,)
