"""A seeded simulator of an Imixs-Workflow engine, with the truth about what it has written.

`simulate` draws cases and yields snapshots, `deliver` makes messages of them (and loses, doubles
or breaks some), `Witness` counts what a correct pipeline must find, `write_archive` writes files.
"""

from __future__ import annotations

from examples.simulator.archive import Layout, Written, write_archive
from examples.simulator.benchmark import write_documents, write_xes
from examples.simulator.delivery import Message, deliver, newest
from examples.simulator.processes import END_STATES, PROCESSES
from examples.simulator.scenario import Faults, Scenario
from examples.simulator.simulate import START, Snapshot, Transition, simulate
from examples.simulator.truth import CaseTruth, Truth, Witness

__all__ = [
    "END_STATES",
    "PROCESSES",
    "START",
    "CaseTruth",
    "Faults",
    "Layout",
    "Message",
    "Scenario",
    "Snapshot",
    "Transition",
    "Truth",
    "Witness",
    "Written",
    "deliver",
    "newest",
    "simulate",
    "write_archive",
    "write_documents",
    "write_xes",
]
