"""Business logs for the benchmark: seeded, in time order, cases interleaved.

Three processes of eight activities, two model versions each, 300 clerks; a case has about ten
events and some 5,000 cases are open at any time. Made in pieces, so that memory does not grow
with the log, and kept under `bench/work`: a file that is there is not made again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

WORK = Path(__file__).parent / "work"
SEED = 20250301
START = np.datetime64("2025-01-06T06:00:00", "ms").astype(np.int64)
CASES_PER_HOUR = 250
MEAN_GAP_MS = 2 * 3600 * 1000
LONGEST_CASE = 60
ACTORS = 300
ROW_GROUP = 122_880  # what DuckDB writes, so that neither side reads row groups made for the other
CASES_PER_PIECE = 50_000

PROCESSES: dict[str, tuple[str, ...]] = {
    "Invoice approval": (
        "Receive invoice",
        "Check invoice",
        "Ask the supplier",
        "Assign cost centre",
        "Approve amount",
        "Approve as manager",
        "Post to ledger",
        "Pay invoice",
    ),
    "Damage claim": (
        "Report damage",
        "Register claim",
        "Request documents",
        "Assess damage",
        "Appoint an expert",
        "Decide on claim",
        "Inform customer",
        "Pay compensation",
    ),
    "Staff onboarding": (
        "Sign contract",
        "Create account",
        "Order equipment",
        "Deliver equipment",
        "Grant permissions",
        "Plan training",
        "Attend training",
        "Close onboarding",
    ),
}
VERSIONS = ("1.0.0", "1.1.0")
STEPS = 8
END = STEPS

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Piece:
    """Events as integers: time in ms, number of the case, code of its row's texts."""

    time: Int64s
    case: Int64s
    code: Int64s

    def __len__(self) -> int:
        return len(self.time)

    def take(self, which: Any) -> _Piece:
        return _Piece(self.time[which], self.case[which], self.code[which])


def _chances() -> npt.NDArray[np.float64]:
    """Return cumulative chances of the next step: (process, version, step, next step or END)."""
    rng = np.random.default_rng(SEED)
    chances = np.zeros((len(PROCESSES), len(VERSIONS), STEPS, STEPS + 1))
    for step in range(STEPS):
        onward = rng.dirichlet((8, 2, 1), (len(PROCESSES), len(VERSIONS)))
        for skip in range(3):  # one further, or over one or two
            chances[..., step, min(step + 1 + skip, END)] += 0.74 * onward[..., skip]
        for back, share in ((0, 0.06), (1, 0.14), (2, 0.06)):  # rework: again, or back
            chances[..., step, max(step - back, 0)] += share
    cumulative: npt.NDArray[np.float64] = chances.cumsum(axis=-1)
    return cumulative


def _cases(first: int, count: int, halfway: int, cumulative: npt.NDArray[np.float64]) -> _Piece:
    """Run cases `first`... from start to end, in no order; version 1.1.0 from case `halfway` on."""
    rng = np.random.default_rng((SEED, first))
    case = np.arange(first, first + count)
    spacing = 3_600_000 / CASES_PER_HOUR
    time = START + (case * spacing).astype(np.int64) + rng.integers(0, int(spacing), count)
    process = rng.integers(0, len(PROCESSES), count)
    version = (case >= halfway).astype(np.int64)
    step = np.zeros(count, np.int64)
    pieces = []
    for _ in range(LONGEST_CASE):
        actor = rng.integers(0, ACTORS, len(case))
        code = ((process * len(VERSIONS) + version) * STEPS + step) * ACTORS + actor
        pieces.append(_Piece(time, case, code))
        draw = rng.random((len(case), 1))
        step = (draw > cumulative[process, version, step, :-1]).sum(axis=1)
        gap = rng.exponential(MEAN_GAP_MS, len(case)).astype(np.int64)
        gap[rng.random(len(case)) < 0.02] = 0  # steps in one transaction: a tie of time
        on = step < END
        case, time, step = case[on], (time + gap)[on], step[on]
        process, version = process[on], version[on]
        if not len(case):
            break
    return _join(pieces)


def _join(pieces: list[_Piece]) -> _Piece:
    return _Piece(
        np.concatenate([p.time for p in pieces]),
        np.concatenate([p.case for p in pieces]),
        np.concatenate([p.code for p in pieces]),
    )


def _ordered(events: int) -> Iterator[_Piece]:
    """Yield pieces of a log of exactly so many events, in time order."""
    cumulative = _chances()
    halfway = events // 20
    open_: list[_Piece] = []
    first, left = 0, events
    while left:
        open_.append(_cases(first, CASES_PER_PIECE, halfway, cumulative))
        first += CASES_PER_PIECE
        # No case that starts later has an event before this.
        complete = START + math.floor(first * 3_600_000 / CASES_PER_HOUR)
        pending = _join(open_)
        past = pending.time < complete
        open_ = [pending.take(~past)]
        ready = pending.take(past)
        # Stable: of one case and time, the earlier step stays first.
        ready = ready.take(np.argsort(ready.time, kind="stable"))
        ready = ready.take(slice(0, left))
        left -= len(ready)
        yield ready


def _dictionaries() -> dict[str, pa.Array]:
    """Return, by code of a row's texts, each text column's values."""
    rows: dict[str, list[str]] = {
        "activity": [],
        "resource": [],
        "workflow_group": [],
        "model_version": [],
    }
    for group, activities in PROCESSES.items():
        for version in VERSIONS:
            for activity in activities:
                for actor in range(ACTORS):
                    rows["activity"].append(activity)
                    rows["resource"].append(f"clerk.{actor:03d}@example.org")
                    rows["workflow_group"].append(group)
                    rows["model_version"].append(f"{group.lower().replace(' ', '-')}-{version}")
    return {name: pa.array(values, pa.string()) for name, values in rows.items()}


def _case_ids(case: Int64s) -> pa.Array:
    """Write case numbers as `3f9a1c-000123`: the number, and before it a bijection of it."""
    prefix = (case * 0x9E3779 + 0x51ED27) & 0xFFFFFF
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    text = np.empty((len(case), 13), np.uint8)
    for place in range(6):
        text[:, place] = digits[(prefix >> (4 * (5 - place))) & 15]
        text[:, 7 + place] = digits[(case // 10 ** (5 - place)) % 10]
    text[:, 6] = ord("-")
    offsets = np.arange(0, 13 * (len(case) + 1), 13, dtype=np.int32)
    return pa.StringArray.from_buffers(len(case), pa.py_buffer(offsets), pa.py_buffer(text))


def _table(piece: _Piece, texts: dict[str, pa.Array]) -> pa.Table:
    """Return rows as Parquet has them: text columns with few values dictionary-encoded."""
    code = pa.array(piece.code)
    columns: dict[str, pa.Array] = {
        "case_id": _case_ids(piece.case),
        "event_time": pa.array(piece.time * 1000, pa.timestamp("us", tz="UTC")),
    }
    for name, values in texts.items():
        encoded = values.dictionary_encode()
        columns[name] = pa.DictionaryArray.from_arrays(
            encoded.indices.take(code), encoded.dictionary
        )
    return pa.table(columns)


def _lines(piece: _Piece, tails: pa.Array) -> bytes:
    """Return rows as JSON Lines: what follows the time has few values, so it is made once."""
    times = pa.array(piece.time, pa.timestamp("ms", tz="UTC")).cast(pa.string())
    times = pc.replace_substring(times, " ", "T")  # 2025-01-06 06:00:00.000Z
    lines = pc.binary_join_element_wise(
        '{"case_id":"',
        _case_ids(piece.case),
        '","event_time":"',
        times,
        tails.take(pa.array(piece.code)),
        "",
    )
    return bytes(lines.buffers()[2])


def _tails(texts: dict[str, pa.Array]) -> pa.Array:
    parts: list[Any] = ['"']
    for name, values in texts.items():
        parts += [f',"{name}":"', values, '"']
    return pc.binary_join_element_wise(*parts, "}\n", "")


def business_log(kind: str, events: int, folder: Path = WORK) -> Path:
    """Return the log of so many events as a file, made if it is not there.

    Args:
        kind: `jsonl` or `parquet`. Both hold the same rows in the same order.
        events: number of rows.
        folder: where it is kept.

    Raises:
        ValueError: the kind is another one.
    """
    if kind not in ("jsonl", "parquet"):
        reason = f"kind {kind!r} is neither jsonl nor parquet"
        raise ValueError(reason)
    path = folder / f"log-{events}.{kind}"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    texts = _dictionaries()
    with ExitStack() as stack:
        if kind == "jsonl":
            out = stack.enter_context(partial.open("wb"))
            tails = _tails(texts)
            for piece in _ordered(events):
                out.write(_lines(piece, tails))
        else:
            _write_parquet(partial, events, texts, stack)
    partial.replace(path)
    return path


def _write_parquet(path: Path, events: int, texts: dict[str, pa.Array], stack: ExitStack) -> None:
    writer: Any = None
    held: list[pa.Table] = []
    for piece in _ordered(events):
        table = pa.concat_tables([*held, _table(piece, texts)]).unify_dictionaries()
        if writer is None:
            # Written as plain strings in dictionary pages: no reader needs Arrow's own types.
            writer = stack.enter_context(
                pq.ParquetWriter(path, table.schema, compression="snappy", store_schema=False)
            )
        whole = len(table) - len(table) % ROW_GROUP
        if whole:
            writer.write_table(table.slice(0, whole), row_group_size=ROW_GROUP)
        held = [table.slice(whole)]
    if held and len(held[0]):
        writer.write_table(held[0])
