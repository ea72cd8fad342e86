"""Where the schemas of Avro messages come from: a registry, or a file."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit


class BadRegistry(ValueError):
    """A registry's address or a schema cannot be used; the text is the rest of a sentence."""


@dataclass(frozen=True)
class AvroSettings:
    """Where schemas come from.

    Attributes:
        url: of a schema registry with Confluent's interface, without a slash at its end.
        user: of basic authentication; empty for none.
        password: its secret; not shown.
        ca: file of the certificates that are trusted; empty: those of the machine.
        schema: schema of messages that name none, as JSON.
    """

    url: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    ca: str = ""
    schema: str = ""


def registry_url(text: str) -> str:
    """Read the address of a registry.

    Raises:
        BadRegistry: it is none, or holds a password.
    """
    try:
        parts = urlsplit(text)
        port_known = parts.port is None or parts.port > 0
    except ValueError:
        port_known = False
    if not port_known or parts.scheme not in ("http", "https") or not parts.hostname:
        reason = "is no address like https://host:8081"
        raise BadRegistry(reason)
    if parts.username is not None or parts.password is not None:
        reason = (
            "holds a user or password; give them by --schema_registry_auth env:NAME or file:PATH"
        )
        raise BadRegistry(reason)
    if parts.query or parts.fragment:
        reason = "has more than host, port and path; leave out what is behind ? or #"
        raise BadRegistry(reason)
    return text.rstrip("/")


def credentials(text: str) -> tuple[str, str]:
    """Read `user:password`, as an environment variable or a file holds it.

    Raises:
        BadRegistry: it is not that.
    """
    user, colon, password = text.strip().partition(":")
    if not colon or not user or "\n" in text.strip():
        reason = "does not hold user:password, on one line"
        raise BadRegistry(reason)
    return user, password
