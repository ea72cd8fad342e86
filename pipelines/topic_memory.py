"""What a stream found of its topics is kept in its folder, so that a restart decodes as before.

The first messages of a topic are others after a restart: a broker forgets old ones, messages of
Pub/Sub are out on lease after a kill. So `OUTPUT/_topics.json` holds the formats and columns that
were fixed, and also that nothing was known of a topic. It counts as long as the options that say
how messages are decoded are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from pipelines.exit_codes import ExitCode, RunError
from pipelines.output import one_line
from pipelines.settings import Settings
from transforms.formats import registry
from transforms.formats.base import Context
from transforms.sinks.commit import MANIFEST
from transforms.sinks.store import open_store
from transforms.topics import TopicPlan

TOPICS = "_topics.json"
"""Name of the file, beside the tables that a stream writes."""


def recall(settings: Settings) -> dict[str, TopicPlan | None]:
    """Return topic -> plan, of the topics that an earlier run of the stream has read.

    A plan is None where the topic had no messages then, or none of a known format. Nothing is
    returned if the run has no folder, or is told to decode otherwise than that run was.
    """
    if not settings.output or settings.staged:
        return {}
    store = open_store(settings.output)
    try:
        found = orjson.loads(store.read(store.join(settings.output, TOPICS)) or b"{}")
        if found.get("settings") != _told(settings):
            return {}
        context = settings.context()
        return {topic: _plan(each, context) for topic, each in found["topics"].items()}
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return {}


def cut_before(settings: Settings) -> str:
    """Return the windows that the folder of a run has rows of; empty if none is known."""
    if not settings.output or settings.staged:
        return ""
    store = open_store(settings.output)
    for name in (MANIFEST, TOPICS):
        try:
            found = orjson.loads(store.read(store.join(settings.output, name)) or b"{}")
            if found.get("window"):
                return str(found["window"])
        except (OSError, ValueError, AttributeError):
            continue
    return ""


def remember(settings: Settings, plans: Mapping[str, TopicPlan | None]) -> None:
    """Keep what is known of the topics, beside what is kept of others.

    Raises:
        RunError: the file system refused.
    """
    if not settings.output or settings.staged or not plans:
        return
    known = recall(settings)
    same = all(topic in known and known[topic] == plan for topic, plan in plans.items())
    if same and cut_before(settings) == settings.cut.get("window", ""):
        return
    said = {
        **settings.cut,
        "settings": _told(settings),
        "topics": {topic: _described(plan) for topic, plan in {**known, **plans}.items()},
    }
    store = open_store(settings.output)
    options = orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
    try:
        with store.create(store.join(settings.output, TOPICS)) as sink:
            sink.write(orjson.dumps(said, option=options))
    except OSError as error:
        raise RunError(ExitCode.OUTPUT, f"--output: {one_line(error)}") from None


def _told(settings: Settings) -> dict[str, Any]:
    """Return the options that say which formats and columns messages have."""
    return {
        "format": settings.format,
        "columns": dict(settings.columns),
        "mapping": settings.mapping.text if settings.mapping is not None else None,
    }


def _described(plan: TopicPlan | None) -> dict[str, Any] | None:
    if plan is None:
        return None
    return {
        "each": plan.each,
        "formats": [
            {"format": name, "columns": dict(each.columns), "own_names": each.own_names}
            for name, each in plan.contexts.items()
        ],
    }


def _plan(said: Mapping[str, Any] | None, given: Context) -> TopicPlan | None:
    if said is None:
        return None
    contexts: dict[str, Context] = {}
    for each in said["formats"]:
        registry.get(each["format"])
        columns = {str(column): str(name) for column, name in each["columns"].items()}
        contexts[each["format"]] = replace(
            given, columns=columns, own_names=bool(each["own_names"])
        )
    main, *others = contexts
    return TopicPlan(main, contexts[main], {n: contexts[n] for n in others}, bool(said["each"]))
