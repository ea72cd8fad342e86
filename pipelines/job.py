"""A pipeline that runs in a thread of its own, so that its progress is shown and Ctrl-C heard."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.runners.runner import PipelineState


@dataclass
class Job:
    """A pipeline that has been started.

    Attributes:
        root: the pipeline.
        wait: whether to wait for a runner that works elsewhere.
        result: Beam's result, as soon as there is one.
        error: what it failed with.
        ended: set when it is over. Wait for this and not for the thread: before Python 3.13 a
            thread whose join a signal has interrupted passes for one that has ended.
    """

    root: beam.Pipeline
    wait: bool = True
    result: Any = None
    error: BaseException | None = None
    ended: threading.Event = field(init=False, default_factory=threading.Event)

    def __post_init__(self) -> None:
        # A daemon: after Ctrl-C nobody waits for it.
        threading.Thread(target=self._run, name="pipeline", daemon=True).start()

    def _run(self) -> None:
        try:
            self.result = self.root.run()
            if self.wait:
                state = self.result.wait_until_finish()
                if state not in (None, PipelineState.DONE):
                    reason = f"the runner says {state}"
                    raise RuntimeError(reason)
        except BaseException as error:  # whatever it is, it is the main thread's to tell
            self.error = error
        finally:
            self.ended.set()
