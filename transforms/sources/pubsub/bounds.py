"""The watermark of one subscription: publish times, of which nobody knows the oldest to come.

Pure: no client, no clock. Pub/Sub delivers roughly in the order of publishing and promises
nothing, so what is still to come can only be estimated. The bound is the oldest publish time of

- what came within the last `idle`: who comes next is most likely no older;
- what was taken from the service and not yet given away;
- what was given back, and has not come again.

Where nothing has come for `idle`, and a pull has found nothing, it is the time of that pull less
`idle`. During the first `idle` after a start nothing is promised, so that a backlog shows its age.
(The rule is that of Beam's own PubsubUnboundedSource in Java, with 60 s for `idle`.)

A message whose publish time is before the bound that was promised is raised to it, and counted.
It is not raised to the running maximum: delivery has no order, and what a replay makes of a
message must not depend on who came first.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]

_NEVER = int(np.iinfo(np.int64).min)


class Bound:
    """What no publish time to come is before.

    Args:
        idle_us: see above.
        floor: what an earlier reader has promised, in µs.
        now_us: when reading begins.
    """

    def __init__(self, idle_us: int, floor: int | None, now_us: int) -> None:
        self._idle = idle_us
        self._begun = now_us
        self._floor = _NEVER if floor is None else floor
        self._came: deque[tuple[int, int]] = deque()
        """(When, the oldest publish time), of which those that something older followed are out."""
        self._last = now_us
        self._quiet = _NEVER

    @property
    def floor(self) -> int | None:
        """What has been promised, in µs."""
        return None if self._floor == _NEVER else self._floor

    def received(self, oldest_us: int, now_us: int) -> None:
        """Messages came, the oldest of them published then."""
        while self._came and self._came[-1][1] >= oldest_us:
            self._came.pop()
        self._came.append((now_us, oldest_us))
        self._last = now_us

    def found_nothing(self, now_us: int) -> None:
        """A pull has found nothing."""
        self._quiet = now_us

    def promise(self, now_us: int, held: int | None) -> int | None:
        """Return the bound, which holds from now on; None: nothing can be said yet.

        Args:
            now_us: the time.
            held: the oldest publish time of what is here and not given away, or awaited again.
        """
        while self._came and self._came[0][0] < now_us - self._idle:
            self._came.popleft()
        oldest = [each for each in (held, self._came[0][1] if self._came else None) if each]
        if now_us - self._begun < self._idle:
            return self.floor
        if oldest:
            self._floor = max(self._floor, min(oldest))
        elif self._quiet >= self._last:
            self._floor = max(self._floor, self._quiet - self._idle)
        return self.floor

    def raised(self, times: Integers) -> tuple[Integers, int]:
        """Return record times of messages: their publish times, but not before the bound.

        Returns:
            Times in µs, and how many were raised.
        """
        behind = int((times < self._floor).sum())
        return (np.maximum(times, self._floor) if behind else times), behind
