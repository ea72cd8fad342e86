"""A mapping as part of the settings that decoding depends on."""

from __future__ import annotations

from dataclasses import replace

from transforms.formats.base import Context
from transforms.formats.mapping.document import MappingError, read_mapping
from transforms.formats.mapping.rules import EventMapping


def with_mapping(context: Context, mapping: EventMapping) -> Context:
    """Return the settings with a mapping; what they say themselves counts more.

    A column of `--columns` has none of the mapping's rule, and an item of `--items` with a type
    has that type; the mapping's other items are added. `--time_format` counts before the mapping's,
    and the mapping's zone only where `--timezone` is UTC, the default.
    """
    mapping = mapping.without(context.columns)
    types = {name: rule.type for name, rule in mapping.items.items()}
    return replace(
        context,
        mapping=mapping,
        items=tuple(dict.fromkeys([*context.items, *mapping.items])),
        item_types={**types, **context.item_types},
        time_format=context.time_format or mapping.time_format,
        timezone=(mapping.timezone or "UTC") if context.timezone == "UTC" else context.timezone,
    )


def stored_mapping(text: str, context: Context) -> Context:
    """Return the settings with the mapping that a dead letter was read with.

    Attributes may also be a broker's headers: what is no mapping is left aside.
    """
    try:
        return with_mapping(context, read_mapping(text.encode(), "mapping"))
    except MappingError:
        return context
