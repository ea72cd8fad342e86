"""Writing as Beam steps: side-door tables in parts, and the commit that makes a run's output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam

from schemas.tables import TABLES, Output
from transforms.counts import ENDED, EVENTS, ITEM, MESSAGES, QUALITY, UNFIT, WARNING, Count
from transforms.exchange import fetch, with_schema
from transforms.sinks.commit import Run, part_name

Part = tuple[str, str, int]
"""A written part: table, file name, rows."""

EMPTY = " is empty"

NEVER = "--end_states {}: no case came to it"

MANY_QUIET = 1_000_000


@dataclass(eq=False)
class WriteBatches(beam.PTransform):
    """Writes a table of packed batches in few parts: (number, packed rows) -> parts.

    Rows are written in the order of their numbers, batch by batch: as many as there may be, they
    never meet in memory.

    Attributes:
        output: the table.
        run: where parts are written.
        parts: how many.
    """

    output: Output
    run: Run
    parts: int

    def expand(self, batches: beam.PCollection) -> beam.PCollection:
        """Wire the step."""
        parts = self.parts
        name = self.output.name
        return (
            batches
            # (number, packed rows)
            | f"Place {name}" >> beam.Map(_place, parts)
            | f"Group {name}" >> beam.GroupByKey()
            # (part, [(number, packed rows)])
            | f"Write {name}" >> beam.ParDo(_WritePart(self))
        )


class _WritePart(beam.DoFn):
    def __init__(self, step: WriteBatches) -> None:
        self._step = step

    def process(self, element: tuple[int, Iterable[tuple[int, bytes]]]) -> Iterator[Part]:
        step = self._step
        part, batches = element
        with step.run.open_part(step.output, part, step.parts) as writer:
            for _, packed in sorted(batches, key=_number_and_first_id):
                writer.write(with_schema([fetch(packed)], step.output.schema))
        name = part_name(step.output.name, part, step.parts, step.run.file_format)
        yield step.output.name, name, writer.rows


def _place(numbered: tuple[int, bytes], parts: int) -> tuple[int, tuple[int, bytes]]:
    return numbered[0] % parts, numbered


def _number_and_first_id(numbered: tuple[int, bytes]) -> tuple[int, str]:
    # Batches of one unit come in any order: their rows' deterministic ids tell them apart.
    number, packed = numbered
    return number, fetch(packed, ["row_id"])["row_id"][0].as_py()


@dataclass(eq=False)
class Commit(beam.PTransform):
    """Makes the parts of a run its output: all of them, or none.

    Attributes:
        run: what is committed.
        tables: the tables of the pipeline; those without parts become empty ones.
        items: the business items asked for; those that no event has are warned of.
        end_states: those given; the same.
        about: what the manifest says beside counts and tables.
        beside: what is committed with the tables and is none: name -> schema of an empty one.
            `about` has an entry of that name, and gets its rows and files.
        gone: what an earlier run may have left beside its tables, and this one does not have.
    """

    run: Run
    tables: tuple[str, ...]
    items: tuple[str, ...] = ()
    end_states: tuple[str, ...] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    beside: Mapping[str, Output] = field(default_factory=dict)
    gone: tuple[str, ...] = ()

    def expand(self, inputs: tuple[beam.PCollection, beam.PCollection]) -> beam.PCollection:
        """Wire the step: (parts, counts) -> nothing."""
        parts, counts = inputs
        totals = counts | "Sum counts" >> beam.CombinePerKey(sum)
        return (
            parts.pipeline
            | "Start commit" >> beam.Create([b""])
            | "Commit"
            >> beam.ParDo(_Commit(self), beam.pvalue.AsList(parts), beam.pvalue.AsList(totals))
        )


class _Commit(beam.DoFn):
    def __init__(self, step: Commit) -> None:
        self._step = step

    def process(self, _: bytes, parts: list[Part], counts: list[Count]) -> None:
        step = self._step
        files: dict[str, list[str]] = {name: [] for name in (*step.tables, *step.beside)}
        rows: Counter[str] = Counter()
        for table, name, count in sorted(parts):
            files[table].append(name)
            rows[table] += count
        held = {name: {"rows": rows[name], "files": max(1, len(files[name]))} for name in files}
        manifest = {
            **step.about,
            **{name: {**step.about[name], **held[name]} for name in step.beside},
            **summarise(dict(counts), step.items, step.end_states),
            "tables": {name: held[name] for name in step.tables},
        }
        step.run.commit(manifest, files, {**TABLES, **step.beside}, step.gone)


def summarise(
    counts: Mapping[str, int], items: tuple[str, ...] = (), end_states: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Arrange a run's counts as the manifest has them: the laws, quality, warnings."""
    messages = {name: counts.get(name, 0) for name in MESSAGES}
    events = {name: counts.get(name, 0) for name in EVENTS}
    warnings = sorted(name[len(WARNING) :] for name in counts if name.startswith(WARNING))
    if events["transitions"]:
        found = {
            name[len(start) :].lower()
            for name in counts
            for start in (ITEM, UNFIT)
            if name.startswith(start)
        }
        missing = [item for item in items if item.lower() not in found]
        warnings += [f"item {item}: no event has it" for item in missing]
        warnings += [NEVER.format(state) for state in end_states if ENDED + state not in counts]
    warnings += [
        f"item {name[len(UNFIT) :]}: not of its type and left out: {count:,}"
        for name, count in sorted(counts.items())
        if name.startswith(UNFIT)
    ]
    if counts.get("renewed"):
        warnings.append(
            f"{counts['renewed']:,} times a case came back after it had been forgotten, and began "
            "anew: longer --idle_retention and --case_retention keep it whole"
        )
    if counts.get("bounded_keys"):
        warnings.append(
            "there are more states, actors or variants in a window than are told apart (100,000 a "
            "process): the rest is one row each, (other) or others"
        )
    if counts.get("quiet_windows", 0) > MANY_QUIET:
        warnings.append(
            "most rows of flow are of windows without events, in which cases only stayed open: "
            "a longer --window makes fewer"
        )
    empty = [each for each in warnings if each.endswith(EMPTY)]
    if len(empty) > 3:
        rest = [each for each in warnings if not each.endswith(EMPTY)]
        first = empty[0][: -len(EMPTY)]
        warnings = [f"{len(empty)} files are empty, such as {first}", *rest]
    return {
        # What went in is counted where it went in, not added up from what came out.
        "messages": {"in": counts.get("messages", 0), **messages},
        "events": {"in": counts.get("events", 0), **events},
        "retracted": counts.get("retracted", 0),
        "quality": {name: counts.get(name, 0) for name in QUALITY},
        "warnings": warnings,
    }
