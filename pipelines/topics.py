"""The topics of a stream: whether their brokers answer, what they hold, how it is decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pipelines.exit_codes import ExitCode, RunError
from pipelines.registry import Pipeline
from pipelines.screen import Screen
from pipelines.settings import Settings
from transforms.formats.base import Context
from transforms.kafka import BadAddress, BrokerFault, check, check_target, matching
from transforms.sources.kafka import sample
from transforms.topics import TopicPlan, plan_topic


def of_broker(ask: Callable[[], Any], code: ExitCode = ExitCode.OUTPUT) -> Any:
    """Ask a broker.

    Raises:
        RunError: it does not answer, or not as hoped.
    """
    try:
        return ask()
    except (BrokerFault, BadAddress) as error:
        raise RunError(code, str(error)) from None


def check_brokers(pipeline: Pipeline, settings: Settings) -> dict[str, int]:
    """Return the topics that are read, and their partitions.

    Raises:
        RunError: a broker does not answer, a topic is missing, or one is read and written.
    """
    topics: dict[str, int] = {}
    for address in settings.sources:
        topics |= of_broker(partial(check, address), ExitCode.NO_INPUT)
    for target in settings.targets:
        of_broker(partial(check_target, target))
        own = [target.topic(name) for name in pipeline.tables]
        for address in settings.sources:
            both = sorted(set(own) & set(topics))
            if both and set(address.servers) & set(target.servers):
                text = f"--output would write to {both[0]}, which --input reads; give a prefix"
                raise RunError(ExitCode.USAGE, text)
    return topics


def plan_topics(
    screen: Screen, settings: Settings, topics: Mapping[str, int]
) -> dict[str, TopicPlan]:
    """Find out the format and the columns of the topics by their first messages."""
    plans: dict[str, TopicPlan] = {}
    for address in settings.sources:
        own = {name: topics[name] for name in matching(topics, address.topics)}
        for topic, messages in sample(address, own).items():
            plan, warnings = plan_topic(messages, settings.format, settings.context())
            for warning in warnings:
                screen.warn(f"{topic}: {warning}")
            if plan is None:
                what = "none of its first messages is of a known format" if messages else "empty"
                screen.note(f"topic {topic}: {what}; its format is seen from what comes")
                continue
            plans[topic] = plan
            found = {plan.format: plan.context, **plan.others}
            formats = ", ".join(_described(name, each) for name, each in found.items())
            screen.note(f"topic {topic}: {formats}")
    return plans


def _described(name: str, context: Context) -> str:
    """Name a format, and the columns that were fixed."""
    columns = ", ".join(f"{column}={n}" for column, n in context.columns.items() if n)
    return f"{name} ({columns})" if columns else name
