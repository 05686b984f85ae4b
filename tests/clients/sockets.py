"""Clients that are not ours, `websockets` and `aiohttp`, against the real broker: each connects, publishes,
subscribes, is cut off, resumes with compression, and closes cleanly.

TIDINGS_BIN names the broker. `tests/run` installs the packages and runs this.
"""

import asyncio
import json
import os
import re
import signal
import socket
import struct
import subprocess
import tempfile
import unittest
import zlib

import aiohttp
import websockets

PATIENCE = 60
JSON = "tidings.v1.json"


class Broker:
    """A broker on free ports in a directory of its own."""

    def __init__(self, *more):
        self.dir = tempfile.TemporaryDirectory()
        # To the broker a TIDINGS_ variable is a setting, and one it does not know is an error.
        env = {name: value for name, value in os.environ.items() if not name.startswith("TIDINGS_")}
        env["TIDINGS_LOG"] = "tidings=warn"
        ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [os.environ["TIDINGS_BIN"], "serve", "--data", self.dir.name + "/data", *ports, *more],
            stdout=subprocess.PIPE,
            env=env,
            text=True,
        )
        line = self.process.stdout.readline()
        self.address = re.match(r"listening public=http://(\S+)", line)[1]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.dir.cleanup()


class Websockets:
    """A socket by `websockets`."""

    @classmethod
    async def open(cls, address):
        self = cls()
        # Without permessage-deflate, which the library would offer and the broker not take.
        self.socket = await websockets.connect(f"ws://{address}/v1/ws", subprotocols=[JSON])
        assert self.socket.subprotocol == JSON
        assert not self.socket.protocol.extensions, "the broker takes no extension"
        return self

    async def send(self, text):
        # In pieces, as its users may: a message of several frames.
        await self.socket.send(text[at : at + 1000] for at in range(0, len(text), 1000))

    async def receive(self):
        return await self.socket.recv()

    async def ping(self):
        await (await self.socket.ping(b"are you there"))

    async def drop(self):
        self.socket.transport.abort()

    async def close(self):
        await self.socket.close(1000)
        return self.socket.close_code

    async def closed(self):
        with self.assert_ends():
            while True:
                await self.socket.recv()
        return self.socket.close_code

    @staticmethod
    def assert_ends():
        return unittest.TestCase().assertRaises(websockets.ConnectionClosed)


class Aiohttp:
    """A socket by `aiohttp`."""

    @classmethod
    async def open(cls, address):
        self = cls()
        self.session = aiohttp.ClientSession()
        self.socket = await self.session.ws_connect(
            f"http://{address}/v1/ws", protocols=[JSON], compress=15
        )
        assert self.socket.protocol == JSON
        assert not self.socket.compress, "the broker takes no extension"
        return self

    async def send(self, text):
        await self.socket.send_str(text)

    async def receive(self):
        message = await self.socket.receive()
        assert message.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), message
        return message.data

    async def ping(self):
        # The library answers pings and swallows pongs by itself.
        await self.socket.ping(b"are you there")

    async def drop(self):
        self.socket.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        await self.session.close()

    async def close(self):
        await self.socket.close(code=1000)
        await self.session.close()
        return self.socket.close_code

    async def closed(self):
        while (await self.socket.receive()).type != aiohttp.WSMsgType.CLOSE:
            pass
        await self.session.close()
        return self.socket.close_code


class Peer:
    """Requests and answers over one of them."""

    def __init__(self, socket):
        self.socket = socket
        self.last_id = 0
        self.aside = []
        self.compressed = 0

    async def message(self):
        received = await asyncio.wait_for(self.socket.receive(), PATIENCE)
        if isinstance(received, str):
            return json.loads(received)
        # As docs/protocol.md has it, by nothing but the standard library.
        (kind, length) = struct.unpack_from("<BI", received)
        assert kind == 1
        message = json.loads(received[5 : 5 + length])
        assert message["events"]["events"] == []
        inflater = zlib.decompressobj(-15)
        message["events"]["events"] = json.loads(inflater.decompress(received[5 + length :]))
        assert inflater.eof and not inflater.unused_data
        self.compressed += 1
        return message

    async def call(self, kind, body):
        self.last_id += 1
        await self.socket.send(json.dumps({"id": self.last_id, kind: body}, ensure_ascii=False))
        while True:
            message = await self.message()
            if message.get("reply") == self.last_id:
                assert "error" not in message, message
                return message
            self.aside.append(message)

    async def push(self):
        return self.aside.pop(0) if self.aside else await self.message()

    async def events(self, count):
        """So many events, and the cursor behind them."""
        (events, cursor) = ([], None)
        while len(events) < count:
            message = await self.push()
            if "events" in message:
                events += message["events"]["events"]
                cursor = message["events"]["cursor"]
        return (events, cursor)


class Sockets(unittest.TestCase):
    def all_of_it(self, kind):
        asyncio.run(asyncio.wait_for(self.play(kind), PATIENCE))

    async def play(self, kind):
        with Broker() as broker:
            first = Peer(await kind.open(broker.address))
            connected = (await first.call("connect", {"client": kind.__name__}))["connected"]
            self.assertNotIn("compress", connected)
            log = connected["log"]
            await first.call("subscribe", {"filters": ["a.*"], "after": 0})
            large = "grüße 😀 " * 5000
            for data in ["x", large, {"deep": [1, 2.5, None]}]:
                await first.call("publish", {"topic": "a.1", "data": data})
            (events, cursor) = await first.events(3)
            self.assertEqual([event["offset"] for event in events], [1, 2, 3])
            self.assertEqual(events[1]["data"], large)
            await first.socket.ping()
            await first.call("ping", {})
            await first.socket.drop()

            second = Peer(await kind.open(broker.address))
            batch = [{"topic": "a.2", "data": {"n": n, "text": "the same again"}} for n in range(300)]
            await second.call("publish_batch", {"events": batch})
            asked = {"compress": ["zstd", "deflate-raw"]}
            connected = (await second.call("connect", asked))["connected"]
            self.assertEqual(connected["compress"], "deflate-raw")
            wish = {"filters": ["a.*"], "after": cursor, "log": log}
            await second.call("subscribe", wish)
            (events, _) = await second.events(300)
            self.assertEqual([event["offset"] for event in events], list(range(4, 304)))
            self.assertEqual([event["data"]["n"] for event in events], list(range(300)))
            self.assertGreater(second.compressed, 0)
            self.assertEqual(await second.socket.close(), 1000)

            third = Peer(await kind.open(broker.address))
            await third.call("connect", {})
            self.assertEqual(broker.stop(), 0)
            self.assertEqual(await third.socket.closed(), 1001)

    def test_websockets(self):
        self.all_of_it(Websockets)

    def test_aiohttp(self):
        self.all_of_it(Aiohttp)


if __name__ == "__main__":
    unittest.main()
