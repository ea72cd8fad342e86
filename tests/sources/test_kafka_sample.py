"""The first messages of topics, and offsets that are committed behind delivery."""

from __future__ import annotations

from tests.services.kafka import KafkaBroker
from transforms.kafka import KafkaAddress
from transforms.sources.kafka import sample
from transforms.sources.kafka.marks import KafkaMark, _Committer


def test_a_sample_takes_the_first_messages_of_each_partition(kafka: KafkaBroker) -> None:
    from confluent_kafka import Producer  # noqa: PLC0415

    kafka.create_topic("sampled", 3)
    kafka.create_topic("sampled-empty", 1)
    producer = Producer({"bootstrap.servers": kafka.address})
    for i in range(90):
        producer.produce("sampled", str(i).encode(), partition=i % 2)
    producer.flush()
    address = KafkaAddress.parse(f"kafka://{kafka.address}/sampled*")
    found = sample(address, {"sampled": 3, "sampled-empty": 1}, most=30)
    assert found["sampled-empty"] == []
    assert [(m.source, m.offset, m.payload) for m in found["sampled"]] == [
        (f"sampled/{p}", i, str(2 * i + p).encode()) for p in (0, 1) for i in range(10)
    ]
    assert sample(KafkaAddress.parse("kafka://127.0.0.1:9/x"), {"x": 1}, wait_s=0.5) == {}


def test_offsets_follow_what_is_folded() -> None:
    address = KafkaAddress.parse("kafka://localhost/t")
    committer = _Committer(address)
    key = ("t", 0)
    assert committer.delivered({key: (10, 1_000)}, 500) == {}
    assert committer.delivered({key: (20, 3_000)}, 1_000) == {}
    assert committer.delivered({key: (20, 3_000)}, 1_001) == {key: (10, 1_000)}
    assert committer.delivered({key: (30, 4_000)}, 3_500) == {key: (20, 3_000)}
    assert committer.delivered({key: (30, 4_000)}, 9_000) == {key: (30, 4_000)}


def test_a_granule_is_folded_when_the_floor_is_behind_it() -> None:
    address = KafkaAddress.parse("kafka://localhost/t")
    mark = KafkaMark(address, {}, 12_345_678, disorder_ms=2_000, marks_ms=1_000)
    # 12.3 s less D is 10.3 s: up to 10 s is folded; less a second for clocks that are ahead.
    assert mark.folded_us() == 9_000_000
    assert KafkaMark(address, {}, None, 0, 1000).folded_us() < 0
