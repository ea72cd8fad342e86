"""Clients of the Pub/Sub service, and what is said, in one line, where it does not agree.

The client library finds the service by itself: an emulator at PUBSUB_EMULATOR_HOST, else the
real one with the machine's default credentials.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from itertools import islice
from typing import Any, NamedTuple, TypeVar

import grpc  # type: ignore[import-untyped]

from transforms.addresses import BadAddress, BrokerFault
from transforms.pubsub.address import PubSubAddress, PubSubTarget

T = TypeVar("T")

EMULATOR = "PUBSUB_EMULATOR_HOST"

CONSUME = "pubsub.subscriptions.consume"
PUBLISH = "pubsub.topics.publish"


class Library(NamedTuple):
    """The client library.

    Attributes:
        clients: clients that know of emulators.
        gapic: the service's methods and messages, as they are.
        errors: what they raise.
        retry: how calls are repeated.
    """

    clients: Any
    gapic: Any
    errors: Any
    retry: Any


def library() -> Library:
    """Return the client library.

    Raises:
        BadAddress: it is not installed.
    """
    try:
        import google.pubsub_v1  # noqa: PLC0415
        from google.api_core import exceptions, retry  # noqa: PLC0415
        from google.cloud import pubsub_v1  # noqa: PLC0415
    except ImportError as e:
        reason = (
            f"pubsub:// needs the client library ({e}): pip install 'imixs-data-streaming[pubsub]'"
        )
        raise BadAddress(reason) from None
    return Library(pubsub_v1, google.pubsub_v1, exceptions, retry)


def subscriber() -> Any:
    """Make a client that reads.

    Raises:
        BrokerFault: there are no credentials.
    """
    found = library()
    emulator = os.environ.get(EMULATOR, "")
    if emulator:
        # The client's own channel to an emulator takes answers of 4 MiB at most: two large
        # messages would come never.
        from google.pubsub_v1.services.subscriber.transports import (  # noqa: PLC0415
            SubscriberGrpcTransport,
        )

        options = [("grpc.max_receive_message_length", -1)]
        channel = grpc.insecure_channel(emulator, options)
        return found.gapic.SubscriberClient(transport=SubscriberGrpcTransport(channel=channel))
    return _make(found.clients.SubscriberClient)


def publisher() -> Any:
    """Make a client that writes.

    Raises:
        BrokerFault: there are no credentials.
    """
    return _make(library().clients.PublisherClient)


def _make(kind: Callable[[], T]) -> T:
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415

    try:
        return kind()
    except (GoogleAuthError, OSError) as error:
        reason = (
            f"no credentials for Pub/Sub: {_one_line(error)}; set GOOGLE_APPLICATION_CREDENTIALS, "
            "or run gcloud auth application-default login; for an emulator PUBSUB_EMULATOR_HOST"
        )
        raise BrokerFault(reason) from None


def check(address: PubSubAddress, timeout_s: float = 10.0) -> dict[str, int]:
    """Ask the service for the subscriptions of an address.

    Returns:
        `project/subscription` -> how many readers it gets.

    Raises:
        BrokerFault: nobody answers, we are refused, or a subscription is missing.
        BadAddress: the client library is not installed.
    """
    client, errors = subscriber(), library().errors
    try:
        for name in address.subscriptions:
            path = address.path(name)

            def ask(path: str = path) -> Any:
                return client.get_subscription(subscription=path, retry=None, timeout=timeout_s)

            try:
                found = _asked(ask)
            except errors.NotFound:
                known = _names(client.list_subscriptions, address.project)
                raise BrokerFault(_missing(path, known)) from None
            except errors.PermissionDenied as error:
                # Who may read need not be one who may look.
                _permitted(client, path, CONSUME, error)
                continue
            if found.topic == "_deleted-topic_":
                reason = f"{path}: its topic was deleted, so nothing comes any more"
                raise BrokerFault(reason)
            if found.push_config.push_endpoint:
                reason = f"{path} is pushed to {found.push_config.push_endpoint}; give one to pull"
                raise BrokerFault(reason)
    finally:
        client.transport.close()
    return {address.source(name): address.readers for name in address.subscriptions}


def check_target(
    target: PubSubTarget, tables: tuple[str, ...], timeout_s: float = 10.0
) -> list[str]:
    """Ask the service for the topics of a target.

    Returns:
        The tables whose topics are missing; none if they must not be created.

    Raises:
        BrokerFault: nobody answers, we are refused, or a topic is missing and not to be created.
        BadAddress: the client library is not installed.
    """
    client, errors = publisher(), library().errors
    missing = []
    try:
        for table in tables:
            path = target.path(table)

            def ask(path: str = path) -> Any:
                return client.get_topic(topic=path, retry=None, timeout=timeout_s)

            try:
                _asked(ask)
            except errors.NotFound:
                if not target.create:
                    known = _names(client.list_topics, target.project)
                    reason = f"{_missing(path, known)}; ?create=yes creates it"
                    raise BrokerFault(reason) from None
                missing.append(table)
            except errors.PermissionDenied as error:
                _permitted(client, path, PUBLISH, error)
    finally:
        client.transport.close()
    return missing


def _asked(ask: Callable[[], T]) -> T:
    """Ask the service.

    Raises:
        BrokerFault: nobody answers, or we are nobody that it knows.
        GoogleAPICallError: NotFound and PermissionDenied, which mean more to who asks.
    """
    from google.auth.exceptions import GoogleAuthError  # noqa: PLC0415

    errors = library().errors
    try:
        return ask()
    except (errors.NotFound, errors.PermissionDenied):
        raise
    except (errors.GoogleAPICallError, errors.RetryError, GoogleAuthError) as error:
        raise BrokerFault(sentence(error)) from None


def _permitted(client: Any, path: str, permission: str, error: Exception) -> None:
    """Say whether we may at least do what we want to.

    Raises:
        BrokerFault: we may not, or it can't be found out.
    """
    errors = library().errors
    try:
        request = {"resource": path, "permissions": [permission]}
        granted = client.test_iam_permissions(request=request, timeout=5).permissions
    except (errors.GoogleAPICallError, errors.RetryError):
        granted = ()
    if permission not in granted:
        reason = f"no permission for {path}: {_one_line(error)}; it takes {permission}"
        raise BrokerFault(reason)


def sentence(error: Exception) -> str:
    """Say in one line what is wrong with the service, or with us."""
    errors = library().errors
    where = os.environ.get(EMULATOR, "")
    text = _one_line(error)
    if isinstance(error, errors.PermissionDenied):
        return f"Pub/Sub gives no permission: {text}"
    if isinstance(error, errors.Unauthenticated):
        return f"Pub/Sub does not know us: {text}; see GOOGLE_APPLICATION_CREDENTIALS"
    if isinstance(error, errors.ServiceUnavailable | errors.DeadlineExceeded | errors.RetryError):
        if where:
            return f"no Pub/Sub emulator answers at {where} (PUBSUB_EMULATOR_HOST): {text}"
        return f"Pub/Sub does not answer: {text}"
    return f"Pub/Sub{f' at {where}' if where else ''}: {text}"


def _names(ask: Callable[..., Any], project: str) -> list[str]:
    errors = library().errors
    try:
        listed = ask(project=f"projects/{project}", timeout=5)
        return sorted(each.name.rpartition("/")[2] for each in islice(listed, 1000))
    except (errors.GoogleAPICallError, errors.RetryError):
        return []


def _missing(path: str, known: list[str]) -> str:
    near = difflib.get_close_matches(path.rpartition("/")[2], known, 3, 0.5)
    shown = ", ".join(near or known[:5])
    return f"{path} does not exist" + (f"; there is {shown}" if shown else "")


def _one_line(error: Exception) -> str:
    text = " ".join(str(getattr(error, "message", "") or error).split())
    return text if len(text) < 300 else f"{text[:300]}..."
