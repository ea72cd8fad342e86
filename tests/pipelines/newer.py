"""The transitions pipeline as a later version may be: one more column, in state and output.

Its state has a version of its own, and rows of the version before are upgraded when they are read.
A count of the changes of actor is kept for each case, and written with each of its rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import run
from pipelines import cases
from schemas import tables
from schemas.tables import CASES, Output
from transforms.fold import granules
from transforms.fold.streaming import FoldStream
from transforms.kernels.base import Control, Step
from transforms.kernels.case_state import STATE_SCHEMA
from transforms.kernels.transitions import TransitionsKernel

_MAIN = "import sys; from tests.pipelines import newer; sys.exit(newer.{}())"
PROGRAM = ("-c", _MAIN.format("main"), "transitions")
"""Of `streams.running`: `run.py` with the newer pipeline."""

OTHER_STEPS = ("-c", _MAIN.format("other_steps"), "transitions")
"""`run.py` with a pipeline whose steps have other labels."""

COLUMN = "steps_seen"
NEWER_STATE = STATE_SCHEMA.append(pa.field(COLUMN, pa.int64()))
NEWER_CASES = replace(CASES, schema=CASES.schema.append(pa.field(COLUMN, pa.int64())))


def upgrade(rows: pa.Table) -> pa.Table:
    """Give rows of the version before what they lack: of a known case 1000 steps were seen."""
    return rows.append_column(COLUMN, pa.array(np.full(rows.num_rows, 1000)))


class NewerKernel(TransitionsKernel):
    """Counts the events of each case that it has seen, whatever became of them."""

    @property
    def state_schema(self) -> pa.Schema:
        return NEWER_STATE

    @property
    def outputs(self) -> Mapping[str, Output]:
        return {**super().outputs, "cases": NEWER_CASES}

    def step(
        self, state: pa.Table, events: pa.Table, control: Sequence[Control], until: int
    ) -> Step:
        found = super().step(state.select(STATE_SCHEMA.names), events, control, until)
        seen = dict(zip(state["case_id"].to_pylist(), state[COLUMN].to_pylist(), strict=True))
        for case in events["case_id"].to_pylist():
            seen[case] = (seen.get(case) or 0) + 1
        changed = found.changed

        def with_count(rows: pa.Table) -> pa.Table:
            cases = pc.cast(rows["case_id"], pa.string()).to_pylist()
            return rows.append_column(COLUMN, pa.array([seen.get(each) for each in cases]))

        outputs = {**found.outputs, "cases": with_count(found.outputs["cases"])}
        return replace(found, changed=lambda: with_count(changed()), outputs=outputs)


def newer_fold(kernel: TransitionsKernel, **given: Any) -> granules.GranuleFold:
    """Make the fold with the newer kernel."""
    newer = NewerKernel(kernel.rules)
    given |= {"state_version": 2, "upgrades": {1: upgrade}}
    return granules.GranuleFold(newer, **given)


def main() -> int:
    """Run the command line with the newer pipeline."""
    vars(cases)["GranuleFold"] = newer_fold
    tables.TABLES["cases"] = NEWER_CASES
    return run.command()


class RenamedFold(FoldStream):
    """Has a label of its own, and so no state of the step that was called otherwise."""

    def expand(self, elements: beam.PCollection) -> beam.PCollection:
        """Wire the step."""
        same = {field.name: getattr(self, field.name) for field in fields(self)}
        return elements | "Renamed" >> FoldStream(**same)


def other_steps() -> int:
    """Run the command line with a pipeline whose fold is called otherwise."""
    vars(cases)["FoldStream"] = RenamedFold
    return run.command()
