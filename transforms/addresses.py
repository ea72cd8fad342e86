"""What addresses of brokers have in common: a query whose options are checked, and two errors."""

from __future__ import annotations

import difflib
from typing import NoReturn
from urllib.parse import quote, unquote

from transforms.durations import parse_ms


class BadAddress(ValueError):
    """An address or its settings cannot be used; one line names the value and the fix."""


class BrokerFault(ValueError):
    """The broker cannot be used as asked; one line says why."""


def refuse(uri: str, reason: str) -> NoReturn:
    """Refuse an address.

    Raises:
        BadAddress: always.
    """
    text = f"{uri}: {reason}"
    raise BadAddress(text)


def read_query(uri: str, text: str, known: tuple[str, ...], dotted: str = "") -> dict[str, str]:
    """Read a query, percent-decoded.

    Args:
        uri: the address that it is of.
        text: what follows the `?`.
        known: names of options.
        dotted: what is said of a name with a dot, which another place is for.

    Raises:
        BadAddress: an option is not known, or given twice.
    """
    query: dict[str, str] = {}
    for part in text.split("&"):
        if not part:
            continue
        name, _, value = part.partition("=")
        name = unquote(name)
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
            refuse(uri, f"there is no option {name!r}{dotted if dotted and '.' in name else hint}")
        if name in query:
            refuse(uri, f"{name} is given twice")
        query[name] = unquote(value)
    return query


def read_number(uri: str, name: str, text: str, most: int = 10_000) -> int:
    """Read a whole number from 1.

    Raises:
        BadAddress: it is none.
    """
    if not text.isdecimal() or not 0 < int(text) <= most:
        refuse(uri, f"{name}={text} is no number from 1 to {most}")
    return int(text)


def read_duration_ms(uri: str, name: str, text: str) -> int:
    """Read a duration as milliseconds.

    Raises:
        BadAddress: it is none.
    """
    try:
        return parse_ms(text)
    except ValueError as error:
        reason = f"{uri}: {name}={text} {error}"
        raise BadAddress(reason) from None


def quoted(text: str) -> str:
    """Percent-encode a value of a query."""
    return quote(text, safe="/:+.-_~")
