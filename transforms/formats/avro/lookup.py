"""Schemas from a registry with Confluent's HTTP interface: cached, retried, and never for ever.

A schema that was found never changes and is kept. A registry that is away, or answers nonsense, is
asked a few times; then it is left alone for a while that doubles, and what needs it meanwhile
fails at once, with the reason. An id that is not there is asked for again after a minute.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import orjson

from transforms.formats.avro.schemas import BadSchema, parse_schema
from transforms.formats.avro.settings import AvroSettings

CONNECT_S, READ_S, WHOLE_S = 2.0, 5.0, 10.0
"""Seconds to wait for a connection, for the next bytes, and for a whole answer."""

RETRIES = 3
BACKOFF_S = 0.2
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
UNKNOWN_S = 60.0
MAX_ANSWER = 1024 * 1024
MAX_REFERENCES = 64
MAX_CACHED = 2_000

_ACCEPT = "application/vnd.schemaregistry.v1+json, application/json"


class RegistryDown(Exception):
    """The registry does not answer, or not as one; one line says how."""


class UnknownSchema(Exception):
    """The registry, or nobody, knows the schema; one line says which."""


@lru_cache(maxsize=8)
def registry_of(settings: AvroSettings) -> SchemaRegistry:
    """Return this process's client of a registry."""
    return SchemaRegistry(settings)


class SchemaRegistry:
    """A client with a cache, for any number of threads.

    Args:
        settings: address and credentials.
        clock: seconds that only grow.
    """

    def __init__(self, settings: AvroSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        self._session: Any = None
        self._found: OrderedDict[int, Any] = OrderedDict()
        self._failed: OrderedDict[int, tuple[float, Exception]] = OrderedDict()
        self._down = ""
        self._until = 0.0
        self._pause = FIRST_PAUSE_S

    def check(self) -> None:
        """Ask it for a schema that it need not have.

        Raises:
            RegistryDown: it does not answer, or not us.
        """
        with self._lock, suppress(UnknownSchema):
            self._ask("/schemas/ids/0", "schema id 0")

    def schema(self, number: int) -> Any:
        """Return a parsed schema by its id.

        Raises:
            RegistryDown: it cannot be asked now.
            UnknownSchema: there is none of that id.
            BadSchema: it is no Avro schema that can be used.
        """
        with self._lock:
            if number in self._found:
                self._found.move_to_end(number)
                return self._found[number]
            until, error = self._failed.get(number, (0.0, None))
            if error is not None and self._clock() < until:
                raise error
            try:
                made = self._fetch(number)
            except (UnknownSchema, BadSchema) as failure:
                self._failed[number] = (self._clock() + UNKNOWN_S, failure)
                if len(self._failed) > MAX_CACHED:
                    self._failed.popitem(last=False)
                raise
            self._failed.pop(number, None)
            self._found[number] = made
            if len(self._found) > MAX_CACHED:
                self._found.popitem(last=False)
            return made

    def _fetch(self, number: int) -> Any:
        answer = self._ask(f"/schemas/ids/{number}", f"schema id {number}")
        named: dict[str, Any] = {}
        self._refer(answer, named, {})
        return parse_schema(_text(answer), named)

    def _refer(
        self, answer: dict[str, Any], named: dict[str, Any], seen: dict[tuple[str, int], bool]
    ) -> None:
        """Parse what a schema refers to, what that refers to first."""
        references = answer.get("references") or []
        if not isinstance(references, list):
            reason = "its references are no list"
            raise BadSchema(reason)
        for each in references:
            if not isinstance(each, dict) or not isinstance(each.get("subject"), str):
                reason = "a reference names no subject"
                raise BadSchema(reason)
            version = each.get("version")
            if not isinstance(version, int):
                reason = f"the reference to {each['subject'][:100]} has no version"
                raise BadSchema(reason)
            key = each["subject"], version
            if key in seen:
                if not seen[key]:
                    reason = f"the reference to {key[0][:100]} leads back to itself"
                    raise BadSchema(reason)
                continue
            if len(seen) >= MAX_REFERENCES:
                reason = f"it has more than {MAX_REFERENCES} references"
                raise BadSchema(reason)
            seen[key] = False
            subject = quote(key[0], safe="")
            found = self._ask(
                f"/subjects/{subject}/versions/{version}", f"version {version} of {key[0][:100]}"
            )
            self._refer(found, named, seen)
            parse_schema(_text(found), named)
            seen[key] = True

    def _ask(self, path: str, what: str) -> dict[str, Any]:
        """Return the object that the registry answers.

        Raises:
            RegistryDown: it does not answer, or not with an object.
            UnknownSchema: it does not know it.
        """
        if self._clock() < self._until:
            raise RegistryDown(self._down)
        try:
            status, body = self._get(path)
            if status == 404 and _is_registry(body):
                reason = f"{self._settings.url} has no {what}"
                raise UnknownSchema(reason)
            if status != 200:
                reason = f"{self._settings.url} answers {status}{_HINTS.get(status, '')}"
                raise RegistryDown(reason)
            try:
                answer = orjson.loads(body)
            except orjson.JSONDecodeError:
                answer = None
            if not isinstance(answer, dict) or not isinstance(answer.get("schema"), str):
                reason = f"{self._settings.url} answers what is no schema: is it a schema registry?"
                raise RegistryDown(reason)
        except RegistryDown as failure:
            self._down = str(failure)
            self._until = self._clock() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
            raise
        self._pause = FIRST_PAUSE_S
        return answer

    def _get(self, path: str) -> tuple[int, bytes]:
        import requests  # noqa: PLC0415 (only where there is a registry)

        if self._session is None:
            self._session = _session(self._settings)
        started = self._clock()
        try:
            with self._session.get(
                self._settings.url + path,
                timeout=(CONNECT_S, READ_S),
                # Of the session it would count less than the environment's.
                verify=self._settings.ca or True,
                stream=True,
                allow_redirects=False,
            ) as response:
                body = b""
                for piece in response.iter_content(4096):
                    body += piece
                    if len(body) > MAX_ANSWER:
                        reason = f"{self._settings.url} answers more than {MAX_ANSWER:,} bytes"
                        raise RegistryDown(reason)
                    if self._clock() - started > WHOLE_S:
                        reason = f"{self._settings.url} is too slow with its answer"
                        raise RegistryDown(reason)
                return response.status_code, body
        except (requests.RequestException, OSError) as error:
            reason = f"{self._settings.url} cannot be asked: {_plain(error)}"
            raise RegistryDown(reason) from None


_HINTS = {
    401: "; give user and password by --schema_registry_auth",
    403: "; may this user read schemas?",
    404: "; is the path of the address right?",
}


def _session(settings: AvroSettings) -> Any:
    import requests  # noqa: PLC0415
    from requests.adapters import HTTPAdapter  # noqa: PLC0415
    from urllib3.util.retry import Retry  # noqa: PLC0415

    # What it says at every attempt is said once, by the dead letters.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    retry = Retry(
        total=RETRIES,
        redirect=0,
        backoff_factor=BACKOFF_S,
        status_forcelist=(429, 500, 502, 503, 504),
        allowed_methods=("GET",),
        respect_retry_after_header=False,
        raise_on_status=False,
    )
    session = requests.Session()
    session.mount(settings.url, HTTPAdapter(max_retries=retry))
    session.headers["Accept"] = _ACCEPT
    if settings.user:
        session.auth = (settings.user, settings.password)
    return session


def _is_registry(body: bytes) -> bool:
    """Say whether a 404 is a registry's word and not that of some web server."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(answer, dict) and answer.get("error_code") in (40401, 40402, 40403)


def _text(answer: dict[str, Any]) -> str:
    kind = answer.get("schemaType", "AVRO")
    if kind != "AVRO":
        reason = f"the schema is {str(kind)[:40]}, and only AVRO can be read"
        raise BadSchema(reason)
    text: str = answer["schema"]
    return text


def _plain(error: Exception) -> str:
    """Return the innermost reason of a chain of errors, in one line."""
    reason: Any = error
    while True:
        inner = getattr(reason, "reason", None) or next(
            (each for each in getattr(reason, "args", ()) if isinstance(each, Exception)), None
        )
        if not isinstance(inner, Exception):
            break
        reason = inner
    text = " ".join(str(reason).split())
    return text.split(">: ", 1)[-1][:300] or type(reason).__name__
