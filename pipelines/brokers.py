"""The brokers that streams read and write, by the scheme of an address: all that a run asks of one.

Databases are here by their addresses only: what is asked of them is in `databases`. A broker more
is an entry in `BROKERS`, a case in the functions below, and its source and sink in `transforms`.
Nothing is imported before an address is of it: Beam and Arrow are not for `--help`, and the client
may be missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.exit_codes import ExitCode, RunError

if TYPE_CHECKING:
    from transforms.formats.base import Message
    from transforms.kafka import KafkaAddress, KafkaTarget
    from transforms.pubsub import PubSubAddress, PubSubTarget
    from transforms.sinks.lakes.address import TableTarget

    Address = KafkaAddress | PubSubAddress
    Topics = KafkaTarget | PubSubTarget
    Target = Topics | TableTarget


class Broker(NamedTuple):
    """A kind of broker.

    Attributes:
        scheme: that its addresses begin with.
        client: module of the client library.
        extra: of our package, that installs it.
    """

    scheme: str
    client: str
    extra: str


BROKERS = (
    Broker("kafka://", "confluent_kafka", "kafka"),
    Broker("pubsub://", "google.cloud.pubsub_v1", "pubsub"),
)


DATABASES = (
    Broker("duckdb://", "duckdb", "duckdb"),
    # Also delta+s3:// and others; of stores that there are not, the address itself tells.
    Broker("delta://", "deltalake", "delta"),
    Broker("delta+", "deltalake", "delta"),
    Broker("iceberg://", "pyiceberg", "iceberg"),
    Broker("bigquery://", "google.cloud.bigquery", "bigquery"),
)


def database_of(text: str) -> Broker | None:
    """Return the database whose address this is; None: it is none."""
    if text.endswith(".duckdb") and "://" not in text:
        return DATABASES[0]
    return next((each for each in DATABASES if text.startswith(each.scheme)), None)


def broker_of(text: str) -> Broker | None:
    """Return the broker whose address this begins as; None: it is a path."""
    return next((each for each in BROKERS if text.startswith(each.scheme)), None)


_READERS = {
    "duckdb": "duckdb's own command line",
    "delta": "deltalake.DeltaTable, DuckDB's delta_scan or Spark",
    "iceberg": "PyIceberg, DuckDB's iceberg_scan or Spark",
    "bigquery": "bq query",
}
"""Extra of a database -> what shows its rows."""


def no_folder(text: str) -> str | None:
    """Say why an output is no folder to look into, and what to use; None: it may be one."""
    database = database_of(text)
    if database is not None and not os.path.isdir(text):
        return (
            f"'{text}' is a database, and only folders are read: give the run a folder besides, "
            f"--output OUT '{text}', and name OUT here; rows of the database are shown by "
            f"{_READERS[database.extra]}"
        )
    if broker_of(text) is not None:
        return (
            f"'{text}' names topics, and only folders are read: let the stream write one besides, "
            f"--output OUT '{text}', and name OUT here"
        )
    return None


def missing(broker: Broker) -> bool:
    """Say whether a broker's client library is not installed."""
    try:
        return importlib.util.find_spec(broker.client) is None
    except ModuleNotFoundError:
        # Not even the package that it is in.
        return True


def parse_address(text: str, pipeline: str) -> Address:
    """Read an address of input.

    Raises:
        BadAddress: it is not one.
    """
    if text.startswith("pubsub://"):
        from transforms.pubsub import PubSubAddress  # noqa: PLC0415

        return PubSubAddress.parse(text)
    from transforms.kafka import KafkaAddress  # noqa: PLC0415

    return KafkaAddress.parse(text, f"imixs-streams-{pipeline}")


def parse_target(text: str) -> Target:
    """Read an address of output.

    Raises:
        BadAddress: it is not one.
    """
    if database_of(text):
        from transforms.sinks.lakes.address import parse_tables  # noqa: PLC0415

        return parse_tables(text)
    if text.startswith("pubsub://"):
        from transforms.pubsub import PubSubTarget  # noqa: PLC0415

        return PubSubTarget.parse(text)
    from transforms.kafka import KafkaTarget  # noqa: PLC0415

    return KafkaTarget.parse(text)


def topics_among(targets: Iterable[Target]) -> list[Topics]:
    """Return the targets that are topics of a broker."""
    return [target for target in targets if not is_database(target)]  # type: ignore[misc]


def is_pubsub(found: Address | Target) -> bool:
    """Say whether an address is one of Pub/Sub."""
    return str(found).startswith("pubsub://")


def is_database(found: Address | Target) -> bool:
    """Say whether an address is one of a database."""
    return database_of(str(found)) is not None


def topics_of(address: Address) -> dict[str, int]:
    """Ask a broker for the topics of an address: name -> how many can read it at a time.

    Raises:
        RunError: it does not answer, or not as hoped.
    """
    return _asked(_room(address).check, address, code=ExitCode.NO_INPUT)


def check_target(target: Topics, tables: tuple[str, ...]) -> None:
    """Ask whether a broker takes us.

    Raises:
        RunError: it does not.
    """
    if is_pubsub(target):
        _asked(_room(target).check_target, target, tables)
    else:
        _asked(_room(target).check_target, target)


def create_topics(target: Topics, outputs: Mapping[str, Any]) -> list[str]:
    """Create the topics that are missing, if the address does not forbid it; return their names.

    Raises:
        RunError: the broker does not let us.
    """
    sink = importlib.import_module(f"transforms.sinks.{'pubsub' if is_pubsub(target) else 'kafka'}")
    if is_pubsub(target):
        lacking = _asked(_room(target).check_target, target, tuple(outputs))
        return _asked(sink.create_topics, target, lacking)
    return _asked(sink.create_topics, target, outputs)


def sample(address: Address, topics: Mapping[str, int]) -> dict[str, list[Message]]:
    """Return the first messages of topics, as far as they can be had."""
    if is_pubsub(address):
        from transforms.sources import pubsub  # noqa: PLC0415

        return pubsub.sample(address)  # type: ignore[arg-type]
    from transforms.kafka import matching  # noqa: PLC0415
    from transforms.sources import kafka  # noqa: PLC0415

    own = {name: topics[name] for name in matching(topics, address.topics)}  # type: ignore[union-attr]
    return kafka.sample(address, own)  # type: ignore[arg-type]


def overlap(address: Address, target: Topics, topics: set[str], tables: set[str]) -> list[str]:
    """Return the topics of an address that a target would write to."""
    if is_pubsub(address) or is_pubsub(target):
        # A subscription does not show which topic it is of.
        return []
    shared = set(address.servers) & set(target.servers)  # type: ignore[union-attr]
    return sorted(tables & topics) if shared else []


def _room(found: Address | Topics) -> Any:
    return importlib.import_module(f"transforms.{'pubsub' if is_pubsub(found) else 'kafka'}")


def _asked(ask: Any, *arguments: Any, code: ExitCode = ExitCode.OUTPUT) -> Any:
    from transforms.addresses import BadAddress, BrokerFault  # noqa: PLC0415

    try:
        return ask(*arguments)
    except (BrokerFault, BadAddress) as error:
        raise RunError(code, str(error)) from None
