"""The Pub/Sub source on the official double: what comes, what is acknowledged, what comes again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.utils.timestamp import MAX_TIMESTAMP, MIN_TIMESTAMP

from tests.pipelines.streams import within
from tests.services.pubsub import EMULATOR, PROJECT, PubSubService
from tests.sources.pubsub.driver import Driver, driven, new_name, source_of
from transforms.addresses import BrokerFault
from transforms.pubsub import PubSubAddress
from transforms.receipts import account_of, close_account, open_account
from transforms.sources.messages import receipt_of, said_complete, table_of
from transforms.sources.pubsub import ReadPubSub, end_all, sample

S = 1_000_000


@pytest.fixture
def name(pubsub: PubSubService, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A topic with a subscription of the same name, whose leases are short."""
    monkeypatch.setenv(EMULATOR, pubsub.address)
    name = new_name("read")
    pubsub.create_topic(name, [name], ack_deadline_seconds=10)
    yield name
    # Before clients find no service any more.
    end_all()


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


def left(service: PubSubService, subscription: str, seconds: float = 0) -> list[bytes]:
    """Return what the service would still deliver, if everybody who has something had died."""
    time.sleep(seconds)
    return sorted(each.data for each in service.take(subscription))


def test_what_a_message_becomes(pubsub: PubSubService, name: str) -> None:
    (first,) = pubsub.publish(name, [b"a"], {"h": "1", "ce-type": "x"}, ordering_key="k")
    before = time.time_ns() // 1000
    with driven(source_of(name)) as driver:
        (message,) = driver.until(lambda found: len(found) == 1)
        assert message.payload == b"a"
        assert message.place == f"{PROJECT}/{name}/m/{first[1:]}"
        assert message.attributes == {"h": "1", "ce-type": "x", "ordering_key": "k"}
        assert message.record_time is not None
        assert before - 10 * S < message.record_time <= before
        stamped = driver.reader.get_current_timestamp().micros
        assert stamped == message.record_time - S


def test_nothing_is_acknowledged_before_it_is_finalized(pubsub: PubSubService, name: str) -> None:
    """Neither by reading, nor by a mark, nor by closing: then it comes again."""
    pubsub.publish(name, numbers(2500))
    with driven(source_of(name, batch=1000)) as driver:
        first = driver.until(lambda found: len(found) >= 1000)
        mark = driver.mark()
        second = driver.until(lambda found: len(found) >= 1000)
        driver.settle()
        # The last 500 may still be on their way, on a machine that is busy.
        within(lambda: driver.keeper(name).held() >= 2500, 20)
        assert driver.keeper(name).held() == 2500
        mark.finalize_checkpoint()
        mark.finalize_checkpoint()
        driver.settle()
        assert driver.keeper(name).held() == 2500 - len(first)
    again = left(pubsub, name)
    assert set(again).isdisjoint(each.payload for each in first)
    assert len(again) == 2500 - len(first) >= len(second)


def test_a_mark_goes_over_processes_and_acknowledges_only_in_its_own(
    pubsub: PubSubService, name: str
) -> None:
    pubsub.publish(name, numbers(10))
    source = source_of(name)
    coder = source.get_checkpoint_mark_coder()
    with driven(source) as driver:
        driver.until(lambda found: len(found) == 10)
        encoded = coder.encode(driver.mark())
        assert coder.encode(coder.decode(encoded)) == encoded
        code = (
            "import sys; from transforms.sources.pubsub.marks import PubSubMarkCoder;"
            "mark = PubSubMarkCoder().decode(sys.stdin.buffer.read());"
            "mark.finalize_checkpoint(); print(mark.number)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], input=encoded, capture_output=True, check=True
        )
        assert int(done.stdout) == coder.decode(encoded).number
        driver.settle()
        assert driver.keeper(name).held() == 10
        coder.decode(encoded).finalize_checkpoint()
        driver.settle()
        assert driver.keeper(name).held() == 0
    assert left(pubsub, name) == []
    with pytest.raises(ValueError, match="version 2"):
        coder.decode(b'{"version":2}')


def test_a_bundle_that_is_repeated_gets_its_messages_again_in_order_of_time(
    pubsub: PubSubService, name: str
) -> None:
    """It begins anew at an older mark: what was given away since then is delivered again."""
    pubsub.publish(name, numbers(20))
    source = source_of(name)
    driver = Driver(source)
    driver.until(lambda found: len(found) == 20)
    kept = driver.mark()
    kept.finalize_checkpoint()
    pubsub.publish(name, numbers(5, 20))
    driver.until(lambda found: len(found) == 5)
    # The bundle was cut, and failed then: nobody finalizes this.
    driver.mark()
    with driven(source, kept) as again:
        found = again.until(lambda found: len(found) >= 5)
        assert sorted(each.payload for each in found) == sorted(numbers(5, 20))
        assert again.behind() == 0, "the watermark has waited for them"
        again.mark().finalize_checkpoint()
        again.settle()
    driver.reader.close()
    assert left(pubsub, name, 0.2) == []


def test_another_reader_of_the_process_goes_on_from_where_one_stands(
    pubsub: PubSubService, name: str
) -> None:
    pubsub.publish(name, numbers(10))
    source = source_of(name)
    one = Driver(source)
    one.until(lambda found: len(found) == 10)
    mark = one.mark()
    with driven(source, mark) as two:
        pubsub.publish(name, numbers(10, 10))
        found = two.until(lambda found: len(found) == 10)
        assert sorted(each.payload for each in found) == numbers(10, 10), "none comes twice"
        two.mark().finalize_checkpoint()
        two.settle()
        one.reader.close()
        pubsub.publish(name, numbers(1))
        assert len(two.until(bool)) == 1, "whoever was taken over ends nothing"


def test_a_lease_that_ends_brings_messages_again_and_nobody_prolongs_it(
    pubsub: PubSubService, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a process was killed: after the lease they come, as other deliveries."""
    monkeypatch.setattr("transforms.sources.pubsub.leases.HOLD_S", 0.0)
    pubsub.publish(name, numbers(7))
    with driven(source_of(name, "idle=1s&lease=10s")) as driver:
        once = driver.until(lambda found: len(found) == 7)
        twice = driver.until(lambda found: len(found) == 7)
        assert Counter(each.place for each in once) == Counter(each.place for each in twice)
        driver.mark().finalize_checkpoint()
        driver.settle()
    assert left(pubsub, name, 11) == []


def test_a_slow_consumer_keeps_its_messages(pubsub: PubSubService, name: str) -> None:
    """Longer than the subscription's own lease: each message comes once."""
    pubsub.publish(name, numbers(50))
    with driven(source_of(name, "idle=1s&lease=10s")) as driver:
        found = driver.until(lambda found: len(found) == 50)
        time.sleep(13)
        assert left(pubsub, name) == [], "nobody else gets them"
        assert driver.batch() == []
        driver.mark().finalize_checkpoint()
        driver.settle()
    assert len({each.place for each in found}) == 50
    assert left(pubsub, name, 11) == []


def test_no_more_is_pulled_than_there_is_room_for(pubsub: PubSubService, name: str) -> None:
    pubsub.publish(name, numbers(20_000))
    with driven(source_of(name, "idle=1s&waiting=3000")) as driver:
        assert driver.batch()
        time.sleep(1.5)
        (puller,) = driver.reader._reading._pullers.values()
        assert 1000 < puller.waiting() <= 3000
        found = driver.until(lambda found: len(found) >= 19_000)
        assert puller.waiting() <= 3000
        assert len(found) <= 20_000


def test_large_messages_make_small_batches(pubsub: PubSubService, name: str) -> None:
    for _ in range(3):
        pubsub.publish(name, [bytes(3_000_000)])
    with driven(source_of(name)) as driver:
        found = driver.until(lambda found: len(found) == 3)
    assert [len(each.payload) for each in found] == [3_000_000] * 3


def test_the_watermark_follows_messages_and_then_the_clock(
    pubsub: PubSubService, name: str
) -> None:
    with driven(source_of(name, "idle=2s")) as driver:
        pubsub.publish(name, numbers(1))
        (message,) = driver.until(bool)
        assert driver.reader.get_watermark() == MIN_TIMESTAMP, "the first while is looked at"
        assert message.record_time is not None
        deadline = time.monotonic() + 20
        while driver.reader.get_watermark() == MIN_TIMESTAMP:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert driver.reader.get_watermark().micros >= message.record_time - S
        deadline = time.monotonic() + 20
        while driver.reader.get_watermark().micros < message.record_time + S:
            assert time.monotonic() < deadline
            driver.batch()
        assert driver.reader.get_watermark().micros <= time.time_ns() // 1000 - 3 * S


def test_several_subscriptions_are_read_in_turn_and_the_slowest_holds_the_watermark(
    pubsub: PubSubService, name: str
) -> None:
    other = new_name("other")
    pubsub.create_topic(other, [other])
    pubsub.publish(name, numbers(3000))
    pubsub.publish(other, numbers(1))
    with driven(source_of(f"{name},{other}", batch=1000)) as driver:
        early = driver.until(lambda found: len(found) >= 2001)
        assert {each.source.split("/")[1] for each in early} == {name, other}
    slices = source_of(f"{name},{other}", "readers=3").split(4)
    owned = [each.subscriptions() for each in slices]
    assert len(slices) == 4
    assert Counter(sub for subs in owned for sub in subs)[name] >= 2
    assert {sub for subs in owned for sub in subs} == {name, other}


def test_the_stop_file_and_marks(pubsub: PubSubService, name: str, tmp_path: object) -> None:
    stop = f"{tmp_path}/stop"
    pubsub.publish(name, numbers(3))
    with driven(source_of(name, "idle=1s", marks_ms=200, stop=stop)) as driver:
        said: list[int] = []
        deadline = time.monotonic() + 20
        while len(said) < 8:
            assert time.monotonic() < deadline
            driver.batch()
            told = said_complete(table_of(driver.reader.get_current()))
            said += told[2:]
        assert said == sorted(said), "an empty batch says that time goes on"
        open(stop, "w", encoding="utf-8").close()
        deadline = time.monotonic() + 20
        while driver.reader.get_watermark() != MAX_TIMESTAMP:
            assert time.monotonic() < deadline
            driver.batch()
        assert said_complete(table_of(driver.reader.get_current()))[2:] == (2**62,)


def test_with_an_account_finalization_is_not_enough(pubsub: PubSubService, name: str) -> None:
    """An engine that keeps nothing finalizes what is in no output yet."""
    open_account(name, 1)
    account = account_of(name)
    assert account is not None
    pubsub.publish(name, numbers(10))
    with driven(source_of(name, account=name)) as driver:
        driver.until(lambda found: len(found) == 10)
        batch = receipt_of(table_of(driver.reader.get_current()))
        account.begin(batch)
        account.part(batch, 0, b"part")
        account.end(batch)
        driver.mark().finalize_checkpoint()
        driver.settle()
        assert driver.keeper(name).held() > 0
        account.received(0, 0, b"part", 5)
        account.fired(0, 10, [("transitions", 0, 1)])
        driver.settle()
        assert driver.keeper(name).held() > 0
        account.delivered([("transitions", 0, 1)])
        driver.settle()
        assert driver.keeper(name).held() <= 9, "what came in other batches"
    close_account(name)


def test_a_subscription_that_goes_away_fails_the_bundle(pubsub: PubSubService, name: str) -> None:
    with driven(source_of(name)) as driver:
        pubsub.publish(name, numbers(1))
        driver.until(bool)
        path = f"projects/{PROJECT}/subscriptions/{name}"
        pubsub.subscriber().delete_subscription(subscription=path)
        with pytest.raises(BrokerFault, match=f"{path} can't be read any more"):
            driver.until(lambda found: False)


def test_a_service_that_is_away_is_a_delay(
    own_pubsub: PubSubService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EMULATOR, own_pubsub.address)
    name = new_name("away")
    own_pubsub.create_topic(name, [name])
    own_pubsub.publish(name, numbers(3))
    with driven(source_of(name, "idle=1s")) as driver:
        driver.until(lambda found: len(found) == 3)
        own_pubsub.kill()
        began = driver.reader.get_watermark()
        for _ in range(20):
            assert driver.batch() == []
            time.sleep(0.1)
        stands = driver.reader.get_watermark()
        time.sleep(1.5)
        assert driver.reader.get_watermark() == stands >= began, "nobody says that nothing comes"
        own_pubsub.start()
        own_pubsub.create_topic(name, [name])
        own_pubsub.publish(name, numbers(2))
        try:
            found = driver.until(lambda found: len(found) >= 2)
        except BrokerFault:
            # It was asked between the start of the empty service and the new subscription.
            return
        assert len(found) == 2
    end_all()


def test_looking_at_messages_leaves_them(pubsub: PubSubService, name: str) -> None:
    pubsub.publish(name, numbers(20), {"a": "b"})
    address = PubSubAddress.parse(f"pubsub://{PROJECT}/{name},{name}-none")
    found = sample(address, 10, 2)
    assert len(found[f"{PROJECT}/{name}"]) == 10
    assert found[f"{PROJECT}/{name}-none"] == []
    first = found[f"{PROJECT}/{name}"][0]
    assert (first.attributes, first.source) == ({"a": "b"}, f"{PROJECT}/{name}/m")
    assert len(left(pubsub, name)) == 20


def test_the_fn_api_runner_reads_it(pubsub: PubSubService, name: str, tmp_path: object) -> None:
    """All of it, and what it has finalized is acknowledged."""
    stop = f"{tmp_path}/stop"
    pubsub.publish(name, numbers(3000))
    seen = f"{tmp_path}/seen"

    def note(packed: bytes) -> None:
        with open(seen, "a", encoding="utf-8") as file:
            file.write(f"{table_of(packed).num_rows}\n")
        with open(seen, encoding="utf-8") as file:
            if sum(map(int, file)) >= 3000:
                open(stop, "w", encoding="utf-8").close()

    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions(streaming=True)) as root:
        source = source_of(name, splits=1, stop=stop, batch=1000)
        _ = root | ReadPubSub(source) | beam.Map(note)
    end_all()
    assert left(pubsub, name) == []
    assert os.path.exists(stop)


def test_batches_have_names_of_their_own(pubsub: PubSubService, name: str) -> None:
    pubsub.publish(name, numbers(3000))
    with driven(source_of(name, batch=1000, account="x")) as driver:
        found = set()
        for _ in islice(iter(driver.batch, []), 3):
            found.add(receipt_of(table_of(driver.reader.get_current())))
    assert len(found) == 3
    assert 0 not in found
