"""Options that say how a stranger's input is read: good values, and one line for each bad one."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest

import run
from pipelines.options import parse
from pipelines.settings import Settings
from tests.formats.avro.records import schema_text
from transforms.formats.avro.settings import AvroSettings

NEEDED = ["--input", "in.jsonl", "--output", "out"]
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
MAPPING = """
columns: {case_id: id, event_time: t, activity: {path: s, values: {1: Open}}}
items: {amount: {path: total, type: double}, unit: {constant: EUR}}
timezone: Europe/Berlin
"""


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REGISTRY", "kim:s3cret:pass")
    Path("m.yaml").write_text(MAPPING)
    Path("bad.yaml").write_text("colums: {}\ntimezone: Berlin\n")
    Path("step.avsc").write_text(schema_text())
    Path("bad.avsc").write_text('{"type": "record"}')
    Path("ca.pem").write_text(CERTIFICATE)
    Path("auth").write_text("kim:from-file\n")
    Path("noauth").write_text("no-colon\n")


def settings(*arguments: str) -> Settings:
    return parse([*NEEDED, *arguments])[0]


def failing(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert run.main(["transitions", *NEEDED, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_items_with_types() -> None:
    found = settings("--items", "amount:double,due:datetime,org:resource,name")
    assert found.items == ("amount", "due", "org:resource", "name")
    assert found.types == {
        "amount": "double",
        "due": "timestamp",
        "org:resource": "string",
        "name": "string",
    }
    assert found.context().item_types == {"amount": "double", "due": "timestamp"}


def test_a_mapping() -> None:
    found = settings("--mapping", "m.yaml", "--items", "amount:long,clerk")
    assert found.items == ("amount", "clerk", "unit")
    assert found.types == {"amount": "long", "clerk": "string", "unit": "string"}
    context = found.context()
    assert context.mapping is not None
    assert context.mapping.columns["activity"].values == {"1": "Open"}
    assert context.timezone == "Europe/Berlin"
    assert settings("--mapping", "m.yaml").types == {"amount": "double", "unit": "string"}
    # Workers get it as it is.
    again = pickle.loads(pickle.dumps(found)).context()  # noqa: S301
    assert again == context
    assert again.mapping is not None
    assert again.mapping.columns == context.mapping.columns
    without = settings("--mapping", "m.yaml", "--columns", "activity=x").context()
    assert without.mapping is not None
    assert "activity" not in without.mapping.columns


def test_items_of_a_mapping_can_be_masked() -> None:
    arguments = ("--mapping", "m.yaml", "--mask", "amount", "--mask_key", "file:key")
    Path("key").write_text("0123456789abcdef")
    assert settings(*arguments).mask == ("amount",)


def test_avro() -> None:
    url = "https://registry.example:8081/base/"
    found = settings(
        "--schema_registry",
        url,
        "--schema_registry_auth",
        "env:REGISTRY",
        "--schema_registry_ca",
        "ca.pem",
        "--avro_schema",
        "step.avsc",
        "--object_type",
        "Order",
    )
    assert found.avro == AvroSettings(
        url.rstrip("/"), "kim", "s3cret:pass", str(Path("ca.pem").resolve()), schema_text()
    )
    assert found.object_type == "Order"
    assert "s3cret" not in repr(found)
    assert settings().avro is None
    local = settings(
        "--schema_registry", "http://localhost:8081", "--schema_registry_auth", "file:auth"
    )
    assert local.avro == AvroSettings("http://localhost:8081", "kim", "from-file")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--items", "amount:duoble"], "did you mean 'amount:double'?"),
        (["--items", "a:long,a:double"], "gives 'a' twice, with different types"),
        (["--mapping", "gone.yaml"], "--mapping 'gone.yaml' can't be read: No such file"),
        (["--mapping", "bad.yaml"], "--mapping bad.yaml: colums is not known; did you mean"),
        (["--mapping", "bad.yaml"], "--mapping bad.yaml: timezone is an unknown time zone"),
        (["--schema_registry", "registry:8081"], "is no address like https://host:8081"),
        (["--schema_registry", "https://h:99999"], "is no address like"),
        (["--schema_registry", "https://u:p@h"], "give them by --schema_registry_auth"),
        (["--schema_registry", "https://h?a=b"], "leave out what is behind ?"),
        (["--schema_registry_auth", "env:REGISTRY"], "add --schema_registry URL"),
        (["--schema_registry_ca", "ca.pem"], "add --schema_registry URL"),
        (
            ["--schema_registry", "https://h", "--schema_registry_auth", "kim:secret"],
            "a password never stands on the command line itself",
        ),
        (
            ["--schema_registry", "https://h", "--schema_registry_auth", "env:NOTHING"],
            "NOTHING, which is not set",
        ),
        (
            ["--schema_registry", "https://h", "--schema_registry_auth", "file:noauth"],
            "does not hold user:password",
        ),
        (
            ["--schema_registry", "http://h", "--schema_registry_auth", "env:REGISTRY"],
            "would carry a password in clear",
        ),
        (
            ["--schema_registry", "https://h", "--schema_registry_ca", "m.yaml"],
            "holds no certificate",
        ),
        (["--avro_schema", "bad.avsc"], "cannot be used: not an Avro schema"),
        (["--avro_schema", "gone.avsc"], "can't be read"),
    ],
)
def test_what_is_wrong_is_a_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    lines = failing(capsys, *arguments)
    assert any(said in line for line in lines), lines
    assert all(line.startswith("error: ") for line in lines)


def test_a_mapping_that_the_input_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.csv").write_text("Order,Step,Done\n1,a,2024-01-01\n")
    assert (
        run.main(["transitions", "--input", "in.csv", "--output", "out", "--mapping", "m.yaml"])
        == 2
    )
    said = capsys.readouterr().err
    assert "in.csv: no column for" in said
    assert "case_id" in said
    assert json.dumps(str(tmp_path)) not in said
