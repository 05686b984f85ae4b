"""The vectors of sealed events, read by docs/encryption.md alone and with a cipher that is not ours, `cryptography`.

`tests/run` installs the package and runs this.
"""

import base64
import json
import pathlib
import re
import unittest

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VECTORS = pathlib.Path(__file__).parents[2] / "proto" / "vectors" / "sealed.json"


class NotOpened(Exception):
    """Why an event does not open: the word of the vectors."""


def keys_of(lines):
    pairs = [re.fullmatch(r"tds_([\w.-]{1,64})_([0-9a-f]{64})", line).groups() for line in lines]
    return {key_id: bytes.fromhex(digits) for key_id, digits in pairs}


def text(value):
    return len(value.encode()).to_bytes(2, "big") + value.encode()


def bound(key_id, event):
    texts = [key_id, event["topic"], event["id"], event.get("type", "message")]
    texts += [event.get("key", ""), event.get("correlation", "")]
    return b"tidings.sealed.1" + b"".join(map(text, texts))


def raw_data(event, json_text):
    """The bytes of an event's data, JSON as it stands in the text of the event."""
    if "data_base64" in event:
        return base64.b64decode(event["data_base64"])
    if "data" not in event:
        return None
    if event["datacontenttype"].startswith("text/"):
        return event["data"].encode()
    decoder = json.JSONDecoder()
    start = json_text.index('"data":') + len('"data":')
    return json_text[start : decoder.raw_decode(json_text, start)[1]].encode()


def plain_of(event, json_text):
    data = raw_data(event, json_text)
    return bytes([data is not None]) + text(event.get("datacontenttype", "")) + (data or b"")


def open_sealed(keys, event):
    key_id = event.get("headers", {}).get("sealkey")
    if key_id is None:
        raise NotOpened("not_sealed")
    if key_id not in keys:
        raise NotOpened("unknown_key")
    if "data_base64" not in event:
        raise NotOpened("left_out")
    envelope = base64.b64decode(event["data_base64"])
    if len(envelope) < 29:
        raise NotOpened("tampered")
    if envelope[0] != 1:
        raise NotOpened("version")
    try:
        return AESGCM(keys[key_id]).decrypt(envelope[1:13], envelope[13:], bound(key_id, event))
    except InvalidTag:
        raise NotOpened("tampered") from None


def check_form(plain):
    end = 3 + int.from_bytes(plain[1:3], "big")
    try:
        kind, data = plain[3:end].decode(), plain[end:]
        assert len(plain) >= max(end, 3) and plain[0] <= 1 and (plain[0] == 1 or not data)
        assert kind.isprintable()
        if kind.startswith("text/"):
            data.decode()
        elif "json" in kind and plain[0] == 1:
            json.loads(data)
    except (AssertionError, ValueError):
        raise NotOpened("form") from None


class Sealed(unittest.TestCase):
    def test_every_vector(self):
        cases = json.loads(VECTORS.read_text())
        for case in cases:
            with self.subTest(case["name"]):
                self.check(case)
        self.assertGreater(len(cases), 40)

    def check(self, case):
        keys, event = keys_of(case["keys"]), json.loads(case["event"])
        if "error" in case:
            with self.assertRaises(NotOpened) as refused:
                check_form(open_sealed(keys, event))
            self.assertEqual(str(refused.exception), case["error"])
            return
        opened = json.loads(case["opened"])
        plain = open_sealed(keys, event)
        check_form(plain)
        self.assertEqual(plain.hex(), case["plain"])
        self.assertEqual(plain, plain_of(opened, case["opened"]))
        self.assertEqual(bound(event["headers"]["sealkey"], event).hex(), case["bound"])
        if "publish" in case:
            new, sealed = json.loads(case["publish"]), json.loads(case["sealed"])
            key_id, key = list(keys.items())[-1]
            nonce, aad = bytes.fromhex(case["nonce"]), bound(key_id, new)
            made = AESGCM(key).encrypt(nonce, plain_of(new, case["publish"]), aad)
            self.assertEqual(base64.b64decode(sealed["data_base64"]), b"\1" + nonce + made)


if __name__ == "__main__":
    unittest.main()
