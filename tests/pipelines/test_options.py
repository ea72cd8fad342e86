"""From argv to settings: good values, and one line for each bad one."""

from __future__ import annotations

import importlib.util
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import run
from pipelines import paths, values
from pipelines.brokers import topics_among
from pipelines.exit_codes import MEANING, UsageError
from pipelines.option_table import OPTIONS, options_of
from pipelines.options import parse, parse_show
from pipelines.registry import PIPELINES
from pipelines.settings import Settings
from pipelines.values import BadValue
from transforms.kernels.base import END

ROOT = Path(__file__).parent.parent.parent
STARTED = 1_700_000_000_000_000
NEEDED = ["--input", "in.xes", "--output", "out"]
DAY = 86_400_000


def settings(*arguments: str) -> Settings:
    return parse([*NEEDED, *arguments], started_us=STARTED)[0]


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Run the command line, which must refuse, and return what it says on stderr."""
    assert run.main(["transitions", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_defaults() -> None:
    found = settings()
    assert found == Settings(
        pipeline="transitions",
        input=("in.xes",),
        output="out",
        started_us=STARTED,
        until_us=STARTED,
        workers=found.workers,
        tables=PIPELINES["transitions"].tables,
        arguments=tuple(NEEDED),
    )
    assert found.workers >= 1
    assert found.until_ms == STARTED // 1000


def test_all_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = tmp_path / "key"
    key.write_bytes(b"0123456789abcdef\n")
    found = settings(
        *(
            "--format",
            "jsonl",
            "--output_format",
            "csv",
            "--columns",
            "case_id=Case ID,actor=$.who",
        ),
        *("--items", "amount, region,amount", "--timezone", "Europe/Berlin"),
        *("--time_format", "%d.%m.%Y %H:%M", "--delimiter", "\\t", "--encoding", "latin1"),
        *("--end_states", "1900,2900", "--complete_log", "--since", "2024-03-01"),
        *("--until", "2024-04-01T00:00:00.25+01:00", "--disorder", "500ms"),
        *("--case_retention", "1.5d", "--idle_retention", "5m", "--max_dead_letters", "0.5%"),
        *("--mask", "actor,region", "--mask_key", f"file:{key}", "--shards", "8"),
        *("--max_message_bytes", "1GiB", "--workers", "3", "--explain_plan", "--quiet"),
        *("--verbose", "--color", "never"),
    )
    assert found.format == "json_lines"
    assert found.output_format == "csv"
    assert found.columns == (("case_id", "Case ID"), ("actor", "$.who"))
    assert found.items == ("amount", "region")
    assert found.time_format == "%d.%m.%Y %H:%M"
    assert found.delimiter == "\t"
    assert found.encoding == "iso8859-1"
    assert found.end_states == ("1900", "2900")
    assert found.complete_log
    # Midnight in Berlin is 23:00 UTC; both times are before the change to summer time in UTC+2.
    assert values.time_text(found.since_us or 0) == "2024-02-29T23:00:00Z"
    assert values.time_text(found.until_us or 0) == "2024-03-31T23:00:00.250000Z"
    assert found.disorder_ms == 500
    assert (found.case_retention_ms, found.idle_retention_ms) == (DAY * 3 // 2, 300_000)
    assert (found.max_dead_letters, found.max_dead_percent) == (None, 0.5)
    assert found.mask == ("actor", "region")
    assert found.mask_key == b"0123456789abcdef"
    assert (found.shards, found.workers, found.max_message_bytes) == (8, 3, 2**30)
    assert found.explain_plan and found.quiet and found.verbose and not found.progress
    context = found.context()
    assert context.columns == {"case_id": "Case ID", "actor": "$.who"}
    assert (context.items, context.timezone, context.delimiter) == (
        ("amount", "region"),
        "Europe/Berlin",
        "\t",
    )
    assert context.max_message_bytes == 2**30


def test_lists_given_again_add_up(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"0123456789abcdef")
    found = settings(
        *("--columns", "case_id=Case ID", "--columns", "actor=Clerk,activity=Step"),
        *("--items", "amount:double", "--items", "region", "--items=amount:double"),
        *("--mask", "actor", "--mask", "region", "--mask_key", f"file:{tmp_path / 'key'}"),
        *("--end_states", "Done", "--end_states", "Rejected,Done"),
        *("--timezone", "UTC", "--timezone", "Europe/Berlin"),
    )
    assert found.columns == (("case_id", "Case ID"), ("actor", "Clerk"), ("activity", "Step"))
    assert found.items == ("amount", "region")
    assert found.item_types == (("amount", "double"),)
    assert found.mask == ("actor", "region")
    assert found.end_states == ("Done", "Rejected")
    assert found.timezone == "Europe/Berlin"


def test_tables_given_again_add_up() -> None:
    argv = ["--input", "a.xml", "--output", "out", "--tables", "flow", "--tables", "workload,flow"]
    assert parse(argv, "analytics")[0].tables == ("flow", "workload")
    with pytest.raises(UsageError) as error:
        parse([*argv, "--tables", "flwo"], "analytics")
    assert "--tables 'flow,workload,flow,flwo' names 'flwo'" in " ".join(error.value.problems)
    assert parse_show(["o", "--table", "a", "--table", "b,a"]) == ("o", ["a", "b"], 5)


def test_what_is_given_twice_and_differs_is_said() -> None:
    for pair in (
        ["--columns", "case_id=A", "--columns", "case_id=B"],
        ["--items", "amount:long", "--items", "amount:double"],
    ):
        with pytest.raises(UsageError) as error:
            settings(*pair)
        assert "twice" in " ".join(error.value.problems)


def test_every_option_has_a_setting() -> None:
    known = set(Settings.__dataclass_fields__)
    renamed = {"since": "since_us", "until": "until_us", "disorder": "disorder_ms"}
    renamed |= dict.fromkeys(
        ("schema_registry", "schema_registry_auth", "schema_registry_ca", "avro_schema"), "avro"
    )
    lengths = ("case_retention", "idle_retention", "granule", "max_future", "start_patience")
    renamed |= {name: f"{name}_ms" for name in lengths} | {"early_firing": "early_ms"}
    assert [o.name for o in OPTIONS if renamed.get(o.name, o.name) not in known] == []


def test_until_end_fires_every_deadline() -> None:
    found = settings("--until", "end")
    assert found.until_us is None
    assert found.until_ms == END


def test_until_is_rounded_up_to_milliseconds() -> None:
    assert settings("--until", "1970-01-01T00:00:00.000001Z").until_ms == 1


def test_input_may_be_repeated_listed_and_expanded_by_the_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "CLIENTS", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd,name.csv").touch()
    (tmp_path / "[1].csv").touch()
    (tmp_path / "folder").mkdir()
    arguments = ["--input", "a.xml,b/**", "odd,name.csv", "--input", "folder", "*.xes", "x//y*"]
    arguments += ["[1].csv", "gs://bucket/*", "file:///c/d"]
    found = parse([*arguments, "--output", "elsewhere"], started_us=0)[0]
    assert found.input == (
        *("a.xml", "b/**", "odd,name.csv", "folder/**", "./*.xes", "x/y*", "./[[]1].csv"),
        *("gs://bucket/*", "/c/d"),
    )


def test_a_file_system_without_its_client_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(paths.CLIENTS, "s3", ("no_such_package.client", "aws"))
    assert failing(capsys, "--input", "s3://b/*", "--output", "s3://b/out") == [
        f"error: --{option} needs a client for s3://; pip install 'apache-beam[aws]'"
        for option in ("input 's3://b/*'", "output 's3://b/out'")
    ]


def test_two_stars_match_the_top_level_too() -> None:
    assert paths.with_top_level(["a/**/*.xml", "b/*"]) == ["a/**/*.xml", "b/*", "a/*.xml"]


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("/a/q*?.x", "/a/qxy.x", True),
        ("/a/q*?.x", "/a/q.x", False),
        ("/a/**/b", "/a/b", True),
        ("/a/**/b", "/a/c/d/b", True),
        ("/a/*/b", "/a/c/d/b", False),
        ("/a/[[]1]", "/a/[1]", True),
        ("/a/[a?b]", "/a/?", True),
        ("/a/[a?b]", "/a/c", False),
        ("/a/[!a]", "/a/b", True),
        ("/a/[!a]", "/a/a", False),
        ("/a/[]x]", "/a/]", True),
        ("/a/[b-d]", "/a/c", True),
        ("/a/[d-b]", "/a/c", False),
        ("/a/[a&&b||c~~d--e]", "/a/&", True),
        ("/a/[", "/a/[", True),
        ("/a/x+(1).x", "/a/x+(1).x", True),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_glob_matches_as_in_a_shell(pattern: str, path: str, expected: bool) -> None:
    assert paths.matches(pattern, path) == expected


def test_settings_cross_processes_and_show_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "correct horse battery")
    found = settings("--mask", "actor", "--mask_key", "env:SOME_KEY")
    assert pickle.loads(pickle.dumps(found)) == found
    assert found.mask_key == b"correct horse battery"
    assert "correct horse" not in repr(found)
    assert "correct horse" not in str(found.arguments)


def test_secrets_of_object_stores_are_not_recorded() -> None:
    found = settings("--s3_secret_access_key", "hush", "--s3_access_key_id=hush2", "--shards", "2")
    assert found.arguments == (
        *NEEDED,
        *("--s3_secret_access_key", "...", "--s3_access_key_id=...", "--shards", "2"),
    )


def test_beams_flags_are_passed_on() -> None:
    flags = parse(
        [*NEEDED, "--runner=FlinkRunner", "--flink_master", "host:8081", "--shards", "2"]
    )[1].get_all_options(drop_default=True)
    assert flags == {"runner": "FlinkRunner", "flink_master": "host:8081"}


WRONG: list[tuple[list[str], list[str]]] = [
    # Arguments, and what the line must name: the value and the fix.
    (
        ["--timezone", "Europe/Berln"],
        ["--timezone 'Europe/Berln'", "did you mean 'Europe/Berlin'?"],
    ),
    (["--timezone", "europe/berlin"], ["'europe/berlin'", "did you mean 'Europe/Berlin'?"]),
    (["--timezone", "+02:00"], ["'+02:00' is not a known time zone", "'Europe/Berlin'"]),
    (["--format", "xess"], ["--format 'xess' is not a format", "did you mean 'xes'?"]),
    (["--output_format", "parket"], ["--output_format 'parket'", "did you mean 'parquet'?"]),
    (["--columns", "case_id"], ["--columns 'case_id'", "case_id=CaseID"]),
    (["--columns", "caseid=X"], ["maps 'caseid'", "did you mean 'case_id'?"]),
    (["--columns", "zzz=X"], ["maps 'zzz'", "they are event_id, case_id, event_time"]),
    (["--columns", "case_id=A,case_id=B"], ["gives 'case_id' twice"]),
    (["--items", ","], ["--items ','", "give one or more"]),
    (["--time_format", "dd.mm.yyyy"], ["--time_format 'dd.mm.yyyy'", "'%d.%m.%Y %H:%M'"]),
    (["--time_format", "%H:%M"], ["--time_format '%H:%M'", "%Y-%m-%d"]),
    (["--time_format", "%Y-%Q"], ["--time_format '%Y-%Q'", "not a strptime format"]),
    (["--delimiter", ";;"], ["--delimiter ';;'", "give one such as ';'"]),
    (["--encoding", "utf9"], ["--encoding 'utf9'", "did you mean 'utf-"]),
    (["--encoding", "base64"], ["--encoding 'base64' is not a known text encoding"]),
    (["--max_message_bytes", "64 megs"], ["--max_message_bytes '64 megs'", "64MiB"]),
    (["--max_message_bytes", "4GiB"], ["--max_message_bytes '4GiB'", "from 1.0 KiB to 2.0 GiB"]),
    (["--since", "yesterday"], ["--since 'yesterday'", "2024-01-31T10:00:00Z"]),
    (["--since", "2024-02-30"], ["--since '2024-02-30'", "day is out of range"]),
    (["--until", "now"], ["--until 'now'", "2024-01-31"]),
    (
        ["--since", "2024-02-01", "--until", "2024-01-01"],
        ["--since 2024-02-01T00:00:00Z is not before --until 2024-01-01T00:00:00Z"],
    ),
    (["--disorder", "30"], ["--disorder '30'", "add its unit, such as 30s"]),
    (["--disorder", "1w"], ["--disorder '1w'", "500ms, 30s, 5m, 2h or 30d"]),
    (["--case_retention", "0s"], ["--case_retention '0s' is too short"]),
    (["--idle_retention", "999999d"], ["--idle_retention '999999d'", "36500d"]),
    (["--max_dead_letters", "few"], ["--max_dead_letters 'few'", "100 nor a share like 0.5%"]),
    (["--max_dead_letters", "101%"], ["--max_dead_letters '101%'", "a share like 0.5%"]),
    (["--max_dead_letters", "-1"], ["--max_dead_letters '-1'", "a number like 100"]),
    (["--mask", "actor"], ["--mask needs a key", "--mask_key file:PATH or env:NAME"]),
    (["--mask_key", "env:PATH"], ["--mask_key is given", "add --mask actor"]),
    (
        ["--mask", "actr", "--mask_key", "env:LONG_KEY"],
        ["--mask 'actr'", "did you mean 'actor'?"],
    ),
    (
        ["--mask", "actor", "--mask_key", "env:NO_SUCH_KEY"],
        ["--mask_key 'env:NO_SUCH_KEY'", "NO_SUCH_KEY, which is not set"],
    ),
    (
        ["--mask", "actor", "--mask_key", "file:/no/such/key"],
        ["--mask_key 'file:/no/such/key' can't be read: No such file"],
    ),
    (
        ["--mask", "actor", "--mask_key", "file:/dev/zero"],
        ["--mask_key 'file:/dev/zero' holds more than 64.0 KiB", "give the key alone"],
    ),
    (["--mask", "actor", "--mask_key", "secret"], ["file:PATH or env:NAME"]),
    (["--mask", "actor", "--mask_key", "env:SHORT_KEY"], ["holds 3 bytes", "at least 16"]),
    (["--shards", "0"], ["--shards '0'", "from 1 to 4096"]),
    (["--shards", "many"], ["--shards 'many'", "from 1 to 4096"]),
    (["--workers", "0"], ["--workers '0'", "give a number from 1"]),
    (["--progress", "on"], ["--progress 'on'", "auto, off"]),
    (["--color", "yes"], ["--color 'yes'", "auto, always, never"]),
    (["--shards"], ["--shards needs a value"]),
    (["--quiet=yes"], ["--quiet is a switch and takes no value"]),
    # Flags that neither we nor Beam know, and flags of Beam with a bad value.
    (["--outptu", "out"], ["--outptu is not an option", "did you mean '--output'?"]),
    (["--time-zone=UTC"], ["--time-zone is not an option", "did you mean '--timezone'?"]),
    (["--flink_mastr", "host"], ["--flink_mastr", "did you mean '--flink_master'?"]),
    (["--disord", "30s"], ["--disord is not an option", "did you mean '--disorder'?"]),
    (["--zzzzqqqq"], ["--zzzzqqqq is not an option; see --help"]),
    (["--quiet", "stray.xml"], ["'stray.xml' stands alone"]),
    (["--direct_num_workers", "two"], ["--direct_num_workers: invalid int value: 'two'"]),
    (["--direct_num_workers", "-2"], ["--direct_num_workers is negative"]),
    (["--direct_running_mode", "fast"], ["--direct_running_mode", "'fast'", "in_memory"]),
    (["--direct_num_workers=2", "--workers=2"], ["say the same", "give one of them"]),
    (["--runner", "FlinkRuner"], ["--runner 'FlinkRuner'", "did you mean 'FlinkRunner'?"]),
    (["--runner", "zzz"], ["--runner 'zzz' is not a runner of Beam; use one of"]),
    (["--runner", "my.own.Runner"], ["--runner 'my.own.Runner' can't be imported"]),
    (["--runner", "BundleBasedDirectRunner"], ["can't run this; leave it out"]),
    (["--streaming"], ["--streaming does not fit a bounded input"]),
]


TOPICS = ["--input", "kafka://b:1/t", "--output", "kafka://b:1/out-"]

WRONG_STREAMS: list[tuple[list[str], list[str]]] = [
    # All the arguments, and what the line must name.
    ([*TOPICS, "--granule", "0s"], ["--granule '0s' is no time at all", "200ms"]),
    ([*TOPICS, "--granule", "fast"], ["--granule 'fast'"]),
    ([*TOPICS, "--max_future", "1"], ["--max_future '1'", "add its unit"]),
    ([*TOPICS, "--until", "2024-01-01"], ["--until is not for topics", "leave it out"]),
    ([*TOPICS, "--complete_log"], ["--complete_log is not for topics", "leave it out"]),
    ([*TOPICS, "--keep_state"], ["--keep_state is not for topics", "leave it out"]),
    ([*TOPICS, "--output", "a", "b"], ["--output 'b' is a second folder; give one"]),
    (TOPICS[:2], ["--output is missing"]),
    ([*TOPICS, "--input", "in.xes"], ["--input 'in.xes' is no topic", "--state_from"]),
    (["--input", "kafka://b:1/", *TOPICS[2:]], ["it names no topic", "kafka://host:9092/topic"]),
    (["--input", "kafka://b:x/t", *TOPICS[2:]], ["'b:x' is no broker", "host:port"]),
    (["--input", "kafka://b/t?strat=latest", *TOPICS[2:]], ["'strat'", "did you mean start?"]),
    (["--input", "kafka://b/t?start=soon", *TOPICS[2:]], ["start=soon", "nor a time"]),
    (["--input", "kafka://b/t?refresh=often", *TOPICS[2:]], ["refresh=often is not a duration"]),
    (["--input", "kafka://u:secret@b/t", *TOPICS[2:]], ["do not belong", "?config=FILE"]),
    ([*TOPICS[:2], "--output", "kafka://b/x*"], ["'x*' cannot begin a topic name"]),
    ([*TOPICS[:2], "--output", "kafka://b/x?partitions=0"], ["partitions=0 is no number"]),
    ([*NEEDED, "--granule", "1s"], ["--granule is for streams", "--input names files"]),
    ([*NEEDED, "--max_future", "1s"], ["--max_future is for streams"]),
    ([*NEEDED, "--state_from", "out"], ["--state_from is for streams"]),
    ([*NEEDED, "--output", "kafka://b:1/x-"], ["kafka://b:1/x-", "is for streams", "a folder"]),
    ([*NEEDED, "--keep_state", "--complete_log"], ["--keep_state has nothing to keep"]),
    ([*NEEDED, "--keep_state", "--until", "end"], ["--keep_state has nothing", "--until end"]),
    ([*NEEDED, "--keep_state", "--output_format", "csv"], ["--keep_state writes Parquet"]),
]


@pytest.mark.parametrize(
    ("arguments", "words"), WRONG_STREAMS, ids=[" ".join(w[0]) for w in WRONG_STREAMS]
)
def test_a_wrong_stream_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    lines = failing(capsys, *arguments)
    assert len(lines) == 1
    assert [word for word in words if word not in lines[0]] == []
    assert "secret" not in lines[0]


def test_topics_are_sources_and_targets() -> None:
    found = parse([*TOPICS, "kafka://c:2/", "--input", "kafka://b:1/u-*?group=g"])[0]
    assert [str(each) for each in found.sources] == [
        "kafka://b:1/t?group=imixs-streams-transitions",
        "kafka://b:1/u-*?group=g",
    ]
    topics = topics_among(found.targets)
    assert [each.topic("late") for each in topics] == ["out-late", "late"]
    assert (found.input, found.output, found.until_us) == ((), "", None)
    assert (found.granule_ms, found.max_future_ms, found.disorder_ms) == (1000, DAY, 30_000)
    assert pickle.loads(pickle.dumps(found)) == found


def test_a_folder_alone_has_longer_granules() -> None:
    assert parse([*TOPICS[:2], "--output", "out"])[0].granule_ms == 60_000
    assert parse([*TOPICS, "--output", "out"])[0].granule_ms == 1000
    assert parse([*TOPICS, "--granule", "200ms", "--max_future", "5m"])[0].granule_ms == 200


def test_a_client_that_is_missing_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "confluent_kafka" else find(name)
    )
    lines = failing(capsys, *TOPICS)
    assert len(lines) == 2
    for line in lines:
        assert "needs a client; pip install 'imixs-data-streaming[kafka]'" in line


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[" ".join(w[0]) for w in WRONG])
def test_a_wrong_option_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    words: list[str],
) -> None:
    monkeypatch.setenv("SHORT_KEY", "abc")
    monkeypatch.setenv("LONG_KEY", "correct horse battery")
    lines = failing(capsys, *NEEDED, *arguments)
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def test_every_problem_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = failing(capsys, "--shards", "0", "--timezone", "Mars", "--no_such_flag")
    assert [line.split()[1] for line in lines] == [
        "--timezone",
        "--input",
        "--output",
        "--shards",
        "--no_such_flag",
    ]


@pytest.mark.parametrize(
    ("source", "output", "inside"),
    [
        ("data/**", "data/out", True),
        ("data", "data", True),
        ("data/*", "data/out", False),
        ("data/*", "data", True),
        ("data/*.xml", "data", False),
        ("*/*.json*", "data", True),
        ("data/**", "link/out", True),
        ("link/*/*.parquet", "data", True),
        ("odd[1]", "data/out", True),
        ("data/**/*.xml", "data/out", False),
        ("./**", "out", True),
        ("out/dead_letters/*", "out", True),
        ("out/dead_letters/*", "again", False),
        ("data/**", "data2", False),
        ("s3://b/in/**", "s3://b/in/out", True),
        ("s3://b/in/**", "s3://b/out", False),
    ],
)
def test_output_inside_the_input_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, output: str, inside: bool
) -> None:
    monkeypatch.setattr(paths, "CLIENTS", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "odd[1]").symlink_to("data")
    arguments = ["--input", source, "--output", output]
    if inside:
        with pytest.raises(UsageError, match="give a folder outside"):
            parse(arguments)
    else:
        parse(arguments)


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2024-01-31", "UTC", "2024-01-31T00:00:00Z"),
        ("2024-01-31", "America/New_York", "2024-01-31T05:00:00Z"),
        ("2024-07-31T10:00", "Europe/Berlin", "2024-07-31T08:00:00Z"),
        ("2024-01-31 10:00:01.5Z", "Europe/Berlin", "2024-01-31T10:00:01.500000Z"),
        ("2024-01-31T10:00:01,123456789+0530", "UTC", "2024-01-31T04:30:01.123456Z"),
        ("2024-01-31T10:00:00-03", "UTC", "2024-01-31T13:00:00Z"),
        ("1969-12-31T23:59:59.999999Z", "UTC", "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_times(text: str, zone: str, expected: str) -> None:
    assert values.time_text(values.time_us(text, zone)) == expected


@pytest.mark.parametrize(
    "text", ["2024", "2024-1-1", "10:00", "2024-01-01T25:00", "0001-01-01+05:00"]
)
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(BadValue):
        values.time_us(text, "UTC")


def python(
    *arguments: str, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


IMPORTS = (
    "import sys, run; code = run.main(sys.argv[1:]); print('apache_beam' in sys.modules, int(code))"
)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["--help"], 0),
        (["--version"], 0),
        (["transitions", "--help"], 0),
        (["transition"], 2),
        (["--input", "x"], 2),
        (["transitions", *NEEDED, "--shards", "0"], 2),
        (["show"], 2),
    ],
)
def test_help_and_wrong_values_do_not_import_beam(arguments: list[str], code: int) -> None:
    done = python("-c", IMPORTS, *arguments)
    assert done.stdout.splitlines()[-1] == f"False {code}", done.stderr


def test_help_names_every_option_pipeline_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--help"]) == 0
    overview = capsys.readouterr().out
    assert "  transitions  " in overview
    assert "  130  interrupted" in overview
    for name in PIPELINES:
        assert f"  {name}  " in overview
        assert run.main([name, "--help"]) == 0
        text = capsys.readouterr().out
        assert [o.name for o in OPTIONS if f"  --{o.name}" in text] == [
            o.name for o in sorted(options_of(name), key=OPTIONS.index)
        ]
        assert "imixs_xml" in text and "dead_letters" in text
        assert max(len(line) for line in text.splitlines()) <= 100
        assert "{formats}" not in text and "{tables}" not in text


def test_the_documentation_knows_every_option_and_exit_code() -> None:
    text = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1].split()[0]: line for line in text.splitlines() if line[:3] == "| `"}
    assert [o.name for o in OPTIONS if f"--{o.name}" not in rows] == []
    assert [
        o.name
        for o in OPTIONS
        if o.default is not None and f"`{o.default}`" not in rows[f"--{o.name}"]
    ] == []
    codes = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:2] == "| "}
    assert [int(code) for code in MEANING if str(int(code)) not in codes] == []


def test_a_users_package_that_hides_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "__init__.py").touch()
    program = (
        f"import sys; sys.path.append({str(ROOT)!r}); import run; sys.exit(run.main(['--help']))"
    )
    done = python("-c", program, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"'{tmp_path / 'schemas'}' hides our package" in done.stderr
