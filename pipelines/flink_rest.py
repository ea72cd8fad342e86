"""What Flink's job manager tells by its REST interface, and what it can be told.

The interface is described in Flink's documentation under "REST API".
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

TIMEOUT_S = 10.0

RUNNING = "RUNNING"
ENDED = ("FINISHED", "CANCELED", "FAILED", "SUSPENDED")


class FlinkUnreachable(Exception):
    """Nobody answers, or not as a job manager does."""


@dataclass(frozen=True)
class Checkpoints:
    """What a job manager tells of a job's checkpoints.

    Attributes:
        completed: how many are whole.
        failed: how many failed.
        restored: how often the job went back to one.
        last: folder of the newest whole one; empty if there is none.
        last_bytes: its size.
        last_ms: how long it took.
        failure: why the newest one that failed did; empty if a later one is whole.
    """

    completed: int
    failed: int
    restored: int
    last: str
    last_bytes: int
    last_ms: int
    failure: str


@dataclass(frozen=True)
class Failure:
    """Why a job failed, once.

    Attributes:
        at_ms: when, ms since the epoch.
        trace: the stack trace, of Java, and in it perhaps one of Python.
    """

    at_ms: int
    trace: str


class FlinkRest:
    """A job manager.

    Args:
        address: `host:port`, with or without `http://`.
    """

    def __init__(self, address: str) -> None:
        with_scheme = address if "://" in address else f"http://{address}"
        self.url = with_scheme.rstrip("/")

    def get(self, path: str) -> Any:
        """Return the answer to a GET.

        Raises:
            FlinkUnreachable: there is none, or an error.
        """
        return self._ask(urllib.request.Request(f"{self.url}/{path}"))  # noqa: S310

    def overview(self) -> dict[str, Any]:
        """Return `taskmanagers`, `slots-total`, `slots-available`, `flink-version` and others."""
        found: dict[str, Any] = self.get("overview")
        if "slots-total" not in found:
            reason = f"{self.url} is no job manager of Flink"
            raise FlinkUnreachable(reason)
        return found

    def jobs(self) -> list[dict[str, Any]]:
        """Return `jid`, `name`, `state` and others of each job, the newest first."""
        found = self.get("jobs/overview")["jobs"]
        return sorted(found, key=lambda each: -each["start-time"])

    def job(self, name: str) -> dict[str, Any] | None:
        """Return the newest job of a name; None if there is none."""
        return next((each for each in self.jobs() if each["name"] == name), None)

    def state(self, job_id: str) -> str:
        """Return a job's state."""
        return str(self.get(f"jobs/{job_id}")["state"])

    def tasks(self, job_id: str) -> dict[str, int]:
        """Return how many of a job's tasks are in which state; states of none are left out."""
        found: dict[str, int] = {}
        for vertex in self.get(f"jobs/{job_id}")["vertices"]:
            for state, count in vertex["tasks"].items():
                if count:
                    found[state] = found.get(state, 0) + count
        return found

    def failures(self, job_id: str) -> list[Failure]:
        """Return what a job failed with and was restarted after, the newest last."""
        found = self.get(f"jobs/{job_id}/exceptions?maxExceptions=20")
        entries = found.get("exceptionHistory", {}).get("entries", [])
        failures = [Failure(each["timestamp"], str(each.get("stacktrace", ""))) for each in entries]
        if not failures and found.get("root-exception"):
            failures = [Failure(found.get("timestamp") or 0, str(found["root-exception"]))]
        return sorted(failures, key=lambda each: each.at_ms)

    def checkpoints(self, job_id: str) -> Checkpoints:
        """Return what is known of a job's checkpoints."""
        found = self.get(f"jobs/{job_id}/checkpoints")
        counts = found.get("counts", {})
        latest = found.get("latest", {})
        last = latest.get("completed") or {}
        failed = latest.get("failed") or {}
        newer = failed.get("id", -1) > last.get("id", -1)
        return Checkpoints(
            counts.get("completed", 0),
            counts.get("failed", 0),
            counts.get("restored", 0),
            last.get("external_path", ""),
            last.get("state_size", 0),
            last.get("end_to_end_duration", 0),
            failed.get("failure_message") or "" if newer else "",
        )

    def cancel(self, job_id: str) -> None:
        """Cancel a job; it is not waited for."""
        self._ask(self._request(f"jobs/{job_id}?mode=cancel", None, "PATCH"))

    def stop(self, job_id: str, folder: str, patience_s: float = 300.0, drain: bool = False) -> str:
        """Stop a job with a savepoint.

        Args:
            job_id: of the job.
            folder: where it goes, as the cluster sees it; empty: as the cluster is configured.
            patience_s: how long it is waited for.
            drain: whether the watermark goes to its end first, so that all is folded.

        Returns:
            The savepoint's path.

        Raises:
            FlinkUnreachable: it could not be made; holds the reason.
        """
        order = {"targetDirectory": folder, "drain": drain} if folder else {"drain": drain}
        asked = self._ask(self._request(f"jobs/{job_id}/stop", order, "POST"))["request-id"]
        until = time.monotonic() + patience_s
        while time.monotonic() < until:
            found = self.get(f"jobs/{job_id}/savepoints/{asked}")
            if found["status"]["id"] == "COMPLETED":
                done = found["operation"]
                if "location" in done:
                    return str(done["location"])
                raise FlinkUnreachable(root_cause(done["failure-cause"]["stack-trace"]))
            time.sleep(0.2)
        reason = f"no savepoint within {patience_s:.0f} s"
        raise FlinkUnreachable(reason)

    def _request(self, path: str, body: Any, method: str) -> urllib.request.Request:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return urllib.request.Request(  # noqa: S310
            f"{self.url}/{path}", data=data, headers=headers, method=method
        )

    def _ask(self, request: urllib.request.Request) -> Any:
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310
                text = answer.read()
        except urllib.error.HTTPError as error:
            said = error.read().decode("utf-8", "replace").strip()
            reason = f"{self.url} answers {error.code}: {said[:500]}"
            raise FlinkUnreachable(reason) from None
        except (OSError, ValueError) as error:
            why = getattr(error, "reason", error)
            reason = f"nobody answers at {self.url} ({why})"
            raise FlinkUnreachable(reason) from None
        try:
            return json.loads(text) if text else {}
        except ValueError:
            reason = f"{self.url} is no job manager of Flink"
            raise FlinkUnreachable(reason) from None


def root_cause(trace: str) -> str:
    """Return the message of the innermost cause of a Java stack trace, on one line."""
    lines = [line for line in trace.splitlines() if line.strip()]
    if not lines:
        return ""
    starts = [0, *(i for i, line in enumerate(lines) if line.startswith("Caused by: "))]
    text = []
    for line in lines[starts[-1] :]:
        if line.startswith(("\tat ", "\t...", "    at ")):
            break
        text.append(line.removeprefix("Caused by: "))
    return " ".join(" ".join(text).split())
