"""The topics of a stream: whether their brokers answer, what they hold, how it is decoded."""

from __future__ import annotations

from collections.abc import Mapping

from pipelines import brokers, topic_memory
from pipelines.exit_codes import ExitCode, RunError
from pipelines.registry import Pipeline
from pipelines.screen import Screen
from pipelines.settings import Settings
from transforms.formats.base import Context
from transforms.formats.json_names import THAT_IS_UNIQUE
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


def check_schemas(screen: Screen, settings: Settings) -> None:
    """Warn if the schema registry does not answer: a stream begins all the same."""
    if settings.avro is None or not settings.avro.url:
        return
    from transforms.formats.avro.lookup import RegistryDown, registry_of  # noqa: PLC0415 (avro's)

    try:
        registry_of(settings.avro).check()
    except RegistryDown as error:
        screen.warn(
            f"--schema_registry {error}; Avro messages whose schemas are not known are dead "
            "letters until it answers, which can be read again"
        )


def plan_topics(
    screen: Screen, settings: Settings, topics: Mapping[str, int]
) -> dict[str, TopicPlan | None]:
    """Find out the format and the columns of the topics by their first messages.

    What an earlier run of the stream has found counts (`topic_memory`).

    Returns:
        Topic -> plan; None where nothing is known yet.
    """
    plans: dict[str, TopicPlan | None] = {}
    known = topic_memory.recall(settings)
    for topic in known.keys() & topics.keys():
        plans[topic] = known[topic]
        screen.note(f"topic {topic}: {_said(known[topic], 'unseen at first')}; as in earlier runs")
    for address in settings.sources if topics.keys() - plans.keys() else ():
        for topic, messages in brokers.sample(address, topics).items():
            if topic in plans:
                continue
            plan, warnings = plan_topic(messages, settings.format, settings.context())
            for warning in warnings:
                screen.warn(f"{topic}: {warning}")
            plans[topic] = plan
            what = _NOTHING[brokers.is_pubsub(address)]
            screen.note(f"topic {topic}: {_said(plan, _STRANGE if messages else what)}")
    return plans


_STRANGE = "none of its first messages is of a known format"
_NOTHING = {False: "empty", True: "no message is free now"}
_BY_NAMES = (
    "the format is seen from what comes, columns from their names, and an event_id counts "
    f"{THAT_IS_UNIQUE}"
)


def _said(plan: TopicPlan | None, nothing: str) -> str:
    if plan is None:
        return f"{nothing}; {_BY_NAMES}"
    return ", ".join(_described(name, each) for name, each in plan.contexts.items())


def _described(name: str, context: Context) -> str:
    """Name a format, and the columns that were fixed."""
    columns = ", ".join(f"{column}={n}" for column, n in context.columns.items() if n)
    return f"{name} ({columns})" if columns else name
