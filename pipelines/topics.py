"""The topics of a stream: whether their brokers answer, what they hold, how it is decoded."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines import brokers
from pipelines.exit_codes import ExitCode, RunError
from pipelines.registry import Pipeline
from pipelines.screen import Screen
from pipelines.settings import Settings
from transforms.formats.base import Context
from transforms.topics import TopicPlan, plan_topic


def check_brokers(pipeline: Pipeline, settings: Settings) -> dict[str, int]:
    """Return the topics that are read, and how many can read each at a time.

    Raises:
        RunError: a broker does not answer, a topic is missing, or one is read and written.
    """
    topics: dict[str, int] = {}
    for address in settings.sources:
        topics |= brokers.topics_of(address)
    for target in brokers.topics_among(settings.targets):
        brokers.check_target(target, pipeline.tables)
        own = {target.topic(name) for name in pipeline.tables}
        for address in settings.sources:
            both = brokers.overlap(address, target, set(topics), own)
            if both:
                text = f"--output would write to {both[0]}, which --input reads; give a prefix"
                raise RunError(ExitCode.USAGE, text)
    return topics


def plan_topics(
    screen: Screen, settings: Settings, topics: Mapping[str, int]
) -> dict[str, TopicPlan]:
    """Find out the format and the columns of the topics by their first messages."""
    plans: dict[str, TopicPlan] = {}
    for address in settings.sources:
        for topic, messages in brokers.sample(address, topics).items():
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
