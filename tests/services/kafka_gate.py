"""A gate before a Kafka broker: everything goes through it, and it may answer once as a fenced one.

A broker that is being shut down, or has just come, may answer a request for metadata with no
brokers at all, and then hang up. librdkafka (2.10 to 2.16, issue 5301 of its project) forgets
every broker then, those of `bootstrap.servers`, too, and never connects again.

Requests for metadata are read as Kafka's protocol has them (api 3, versions 0 to 13). A broker has
to advertise the gate, so that clients come through it for good.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from pathlib import Path

from tests.services.kafka import KafkaBroker
from tests.services.ports import free_ports
from tests.services.service import Service

_METADATA = 3
_FLEXIBLE = 9
"""The first version of it with compact lists and tagged fields."""


class KafkaGate(Service):
    """Passes on what clients and a broker say to each other.

    Attributes:
        address: of the gate, `127.0.0.1:port`.
        broker: what is behind it, which does not run yet.
        forsaken: how many answers told of no brokers.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare a gate, and the broker behind it, with its files in a folder."""
        (self._port,) = free_ports(1)
        self.address = f"127.0.0.1:{self._port}"
        self.broker = KafkaBroker(
            folder, settings={"advertised.listeners": f"PLAIN://{self.address}"}
        )
        self.forsaken = 0
        self._armed = False
        self._loop = asyncio.new_event_loop()
        self._open = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def start(self) -> None:
        """Open it, and start the broker behind it.

        Raises:
            Missing: Java or Maven is missing.
        """
        self._thread.start()
        assert self._open.wait(10)
        self.broker.start()

    def close(self) -> None:
        """Close it, and the broker."""
        self.broker.close()
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def forsake(self) -> None:
        """Tell of no brokers in the next answer that tells of brokers, and hang up."""
        self._armed = True

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        listening = asyncio.start_server(self._pass_on, "127.0.0.1", self._port)
        self._loop.run_until_complete(listening)
        self._open.set()
        self._loop.run_forever()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(*self.broker.address.split(":"))
        except OSError:
            writer.close()
            return
        asked: dict[int, int] = {}
        await asyncio.gather(
            self._requests(reader, back, asked), self._answers(there, writer, back, asked)
        )

    async def _requests(
        self, reader: asyncio.StreamReader, to: asyncio.StreamWriter, asked: dict[int, int]
    ) -> None:
        try:
            while True:
                request = await _frame(reader)
                kind, version, number = struct.unpack_from(">hhi", request)
                if kind == _METADATA:
                    asked[number] = version
                _send(to, request)
        except (OSError, EOFError):
            to.close()

    async def _answers(
        self,
        reader: asyncio.StreamReader,
        to: asyncio.StreamWriter,
        back: asyncio.StreamWriter,
        asked: dict[int, int],
    ) -> None:
        try:
            while True:
                answer = await _frame(reader)
                (number,) = struct.unpack_from(">i", answer)
                version = asked.pop(number, None)
                if version is None or not self._armed:
                    _send(to, answer)
                    continue
                self._armed = False
                _send(to, _without_brokers(answer, version))
                self.forsaken += 1
                break
        except (OSError, EOFError):
            pass
        to.close()
        back.close()


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = struct.unpack(">i", await reader.readexactly(4))
    return await reader.readexactly(size)


def _send(to: asyncio.StreamWriter, frame: bytes) -> None:
    to.write(struct.pack(">i", len(frame)) + frame)


def _without_brokers(answer: bytes, version: int) -> bytes:
    """Leave the brokers out of an answer."""
    flexible = version >= _FLEXIBLE
    # The number of the request, tagged fields (none) of its header, and the time to wait.
    begin = 4 + (1 if flexible else 0) + (4 if version >= 3 else 0)
    if flexible:
        count, at = _varint(answer, begin)
        count -= 1
    else:
        (count,), at = struct.unpack_from(">i", answer, begin), begin + 4
    for _ in range(count):
        at = _after_text(answer, at + 4, flexible) + 4  # its number, host and port
        if version >= 1:
            at = _after_text(answer, at, flexible)  # its rack
        if flexible:
            at += 1  # tagged fields: none
    return answer[:begin] + (b"\x01" if flexible else struct.pack(">i", 0)) + answer[at:]


def _after_text(data: bytes, at: int, flexible: bool) -> int:
    if flexible:
        size, at = _varint(data, at)
        return at + max(size - 1, 0)
    (length,) = struct.unpack_from(">h", data, at)
    return at + 2 + max(length, 0)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        byte = data[at]
        at += 1
        found |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return found, at
