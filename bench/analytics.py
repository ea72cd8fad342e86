"""Analytics beside DuckDB's SQL, and its process map beside pm4py.

pm4py is under the AGPL: it is installed into an environment of its own, in the cache of this
project, and only started as a program.
"""

from __future__ import annotations

import tempfile
import venv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.agreement import MEASURED, differences
from bench.data import WORK, business_log
from bench.inputs import read_through
from bench.measure import CommandFailed, Contestant, python, run
from tests.services.provision import Missing, call, provide

ROOT = Path(__file__).parent.parent
ANALYTICS_SECTIONS = ("analytics", "analytics_map")
ANALYTICS, MAP = "run.py analytics", "run.py analytics, process_map"
DUCKDB = "DuckDB"
PM4PY, PM4PY_READS = "pm4py", "pm4py, without discovery"
PM4PY_VERSION = "2.7.23.11"
CHECKED_EVENTS = 200_000
TABLES = tuple(output.name for output in MEASURED)

_SCRIPT = Path(__file__).parent / "analytics_pm4py.py"
_agreed: set[str] = set()


def beside_duckdb(
    events: int, cores: int, told: Callable[[str], Any]
) -> list[tuple[Contestant, int]]:
    """Return who makes the five tables of hourly windows, and how many events they read.

    Raises:
        CommandFailed: on a smaller log the tables are not the same.
    """
    _check_agreement(told)
    log = read_through(business_log("parquet", events))
    command = python("-m", "bench.analytics_sql", str(log), "{output}", "--threads", str(cores))
    check = _moves_counter(events)
    ours = our_command(log, "{output}", "fixed:1h", TABLES)
    return [
        (Contestant(ANALYTICS, ours, check, cores), events),
        (Contestant(DUCKDB, command, check, cores), events),
    ]


def beside_pm4py(events: int, cores: int) -> list[tuple[Contestant, int]]:
    """Return who makes a directly-follows graph with durations, and how many events they read."""
    log = read_through(business_log("parquet", events))
    ours = our_command(log, "{output}", "global", ("process_map",))
    try:
        interpreter = str(pm4py_environment() / "bin" / "python")
    except Missing as error:
        # The entry says what is missing.
        words = [*python("-c", "import sys; sys.exit(sys.argv[1])"), str(error)]
        graphs = [(Contestant(PM4PY, words), events)]
    else:
        words = [interpreter, str(_SCRIPT), str(log), "{output}"]
        graphs = [
            (Contestant(PM4PY, words, _edges_counter(events), cores), events),
            (Contestant(PM4PY_READS, [*words, "--read_only"], None, cores), events),
        ]
    return [(Contestant(MAP, ours, _moves_counter(events), cores), events), *graphs]


def pm4py_environment() -> Path:
    """Return the environment that has pm4py, made if it is not there.

    Raises:
        Missing: it cannot be installed.
    """

    def make(folder: Path) -> None:
        venv.create(folder, with_pip=True)
        wanted = [f"pm4py=={PM4PY_VERSION}", "pyarrow"]
        call(PM4PY, [folder / "bin" / "python", "-m", "pip", "install", "-q", *wanted])

    return provide(f"pm4py-{PM4PY_VERSION}", make)


def our_command(log: Path, output: str, window: str, tables: tuple[str, ...]) -> list[str]:
    """Return the words of `run.py analytics` on a log of whole cases."""
    words = ["--input", str(log), "--output", output, "--complete_log"]
    words += ["--window", window, "--tables", ",".join(tables)]
    return python(str(ROOT / "run.py"), "analytics", *words)


def _check_agreement(told: Callable[[str], Any]) -> None:
    """See once a process that our tables equal DuckDB's."""
    if "analytics" in _agreed:
        return
    told("analytics: same rows as DuckDB?")
    log = business_log("parquet", CHECKED_EVENTS)
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        run(our_command(log, str(ours), "fixed:1h", TABLES))
        run(python("-m", "bench.analytics_sql", str(log), str(theirs)))
        found = differences(ours, theirs, MEASURED)
    if found:
        reason = "analytics: not the same rows as DuckDB's\n" + "\n".join(found)
        raise CommandFailed(reason)
    _agreed.add("analytics")


def _moves_counter(events: int) -> Callable[[Path], None]:
    """Check that each event is counted once in every table that counts transitions."""
    counted = {"process_map": "count", "flow": "transitions", "workload": "transitions"}

    def check(output: Path) -> None:
        for table, column in counted.items():
            paths = [output / f"{table}.parquet", *(output / table).glob("*.parquet")]
            files = [path for path in paths if path.is_file()]
            if files:
                total = sum(
                    sum(pq.read_table(f, columns=[column])[column].to_pylist()) for f in files
                )
                if total != events:
                    reason = f"{events} transitions were to be counted, {table} has {total}"
                    raise CommandFailed(reason)
            elif table == "process_map":
                reason = "no process_map was written"
                raise CommandFailed(reason)

    return check


def _edges_counter(events: int) -> Callable[[Path], None]:
    def check(output: Path) -> None:
        edges = int((output / "edges.txt").read_text())
        if not 0 < edges < events:
            reason = f"pm4py found {edges} edges"
            raise CommandFailed(reason)

    return check


def judge(
    key: str, medians: Mapping[str, float], ratio: float | None
) -> Iterator[tuple[str, str, bool]]:
    """Judge what was measured against what is promised.

    Args:
        key: of the measurement.
        medians: seconds of wall time by contestant.
        ratio: of ours to DuckDB's wall time, the median of the rounds.
    """
    if key.startswith("analytics/") and ratio is not None:
        yield f"{key}: at most 2 x DuckDB's wall time", f"{ratio:.2f} x", ratio <= 2
    if key.startswith("analytics_map/") and MAP in medians and PM4PY in medians:
        faster = medians[PM4PY] / medians[MAP]
        text = f"{key}: at least 20 x pm4py's performance directly-follows graph"
        yield text, f"{faster:.1f} x", faster >= 20
