"""Pub/Sub: where subscriptions and topics are (`address`), and the clients of the service."""

from transforms.addresses import BadAddress, BrokerFault
from transforms.pubsub.address import PubSubAddress, PubSubTarget
from transforms.pubsub.clients import (
    check,
    check_target,
    library,
    publisher,
    sentence,
    subscriber,
)

__all__ = [
    "BadAddress",
    "BrokerFault",
    "PubSubAddress",
    "PubSubTarget",
    "check",
    "check_target",
    "library",
    "publisher",
    "sentence",
    "subscriber",
]
