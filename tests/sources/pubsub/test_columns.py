"""Places of messages: their ids, as numbers where they are."""

from __future__ import annotations

import pytest

from transforms.sources.pubsub.columns import places


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["9176453902816412", "7"], ["p/s/message/9176453902816412", "p/s/message/7"]),
        (["m12", "m3", "12"], ["p/s/m/12", "p/s/m/3", "p/s/message/12"]),
        (["abc"], ["p/s/abc/0"]),
        (["007", "0"], ["p/s/00/7", "p/s/message/0"]),
        (["-5"], ["p/s/-/5"]),
        (["99999999999999999999999"], ["p/s/99999/999999999999999999"]),
        ([], []),
        (["1_000", " 5"], ["p/s/1_00/0", "p/s/ /5"]),
    ],
)
def test_a_place_names_its_message(ids: list[str], expected: list[str]) -> None:
    names, codes, offsets = places("p/s", ids)
    found = [f"{names[code]}/{offset}" for code, offset in zip(codes, offsets, strict=True)]
    assert found == expected
