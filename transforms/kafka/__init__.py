"""Kafka: where topics are (`address`), the client's settings, and the clients themselves."""

from transforms.addresses import BadAddress, BrokerFault
from transforms.kafka.address import Broker, KafkaAddress, KafkaTarget, matching
from transforms.kafka.clients import (
    Monitor,
    check,
    check_target,
    client,
    make,
    patiently,
    settings_for,
)
from transforms.kafka.hearing import Hearing

__all__ = [
    "BadAddress",
    "Broker",
    "BrokerFault",
    "Hearing",
    "KafkaAddress",
    "KafkaTarget",
    "Monitor",
    "check",
    "check_target",
    "client",
    "make",
    "matching",
    "patiently",
    "settings_for",
]
