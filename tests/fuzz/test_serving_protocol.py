"""Random clients of /v1/stream: right and wrong messages in any order, in any pieces.

The server answers as its documentation says, and closes with a documented code; a good stream gets its words, and a
stream that follows as well. ASRTOOL_FUZZ_SECONDS sets the duration.
"""

import json
import os
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from websockets.frames import Opcode

from tests.faults.commands import until
from tests.faults.serving import Server, said, tone_system
from tests.faults.serving_clients import CLOSED, Client, audio, frame, frames, text
from tests.serve.page.tones import spoken

__all__ = ["tone_system"]

SECONDS = float(os.environ.get("ASRTOOL_FUZZ_SECONDS", 6))
LIMITS = {"start_seconds": 4, "idle_seconds": 4}  # so long a stream waits that random bytes have confused
WORDS = ["two", "four", "one", "three"]
SPEECH = np.round(32767 * spoken(WORDS, 31)).astype("<i2")
REFUSALS = {1002, 1003, 1007, 1008, 1009}  # of wrong messages: the server has not failed, and is not at its limit
FIELDS = {
    "partial": st.booleans(),
    "endpoint": st.sampled_from([["default"], [], ["trailing=2"], ["length=100"]]),
    "hotwords": st.sampled_from([[], ["one\t0.01"], ["two\t0.01", "four\t0.01"]]),  # more could change the words
}
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
FIELD_NAMES = st.sampled_from(["rate", "format", "channels", "hotwords", "endpoint", "partial", "language"])


def is_text_of_protocol(content: bytes) -> bool:
    """Returns True for a text that could be right, so that a random one must not be counted as wrong."""
    return b'"start"' in content or b'"end"' in content


class StreamMachine(RuleBasedStateMachine):
    """One connection. `wrong`: a message was sent that must end it."""

    port = 0
    examples = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).examples += 1
        self.client = Client(self.port)
        self.client.open_stream()
        self.state = "new"
        self.wrong = False
        self.speech = b""
        self.position = 0
        self.has_noise = False
        self.is_gone = False

    def _send(self, data: bytes, cuts: list[int]) -> None:
        """Sends bytes in pieces, as a network may deliver them."""
        begin = 0
        for cut in sorted({min(cut, len(data)) for cut in cuts}):
            self.client.send(data[begin:cut])
            begin = cut
        self.client.send(data[begin:])

    cuts = st.lists(st.integers(0, 200), max_size=3)

    @precondition(lambda self: self.state == "new")
    @rule(fields=st.fixed_dictionaries({}, optional=FIELDS), kind=st.sampled_from(["s16le", "f32le"]), cuts=cuts,
          channels=st.integers(1, 3))  # fmt: skip
    def starts(self, fields: dict, kind: str, channels: int, cuts: list[int]) -> None:
        samples = SPEECH if kind == "s16le" else (SPEECH / 32768).astype("<f4")
        self.speech = np.repeat(samples[:, None], channels, axis=1).tobytes()
        message = {"type": "start", "format": kind, "channels": channels, **fields}
        self._send(text(json.dumps(message).encode()), cuts)
        self.state = "started"

    @rule(size=st.integers(1, 20_000), cuts=cuts)
    def speaks(self, size: int, cuts: list[int]) -> None:
        """Sends the next part of the utterance, which may end within a sample."""
        part = self.speech[self.position : self.position + size] if self.state == "started" else bytes(size)
        self.position += len(part) if self.state == "started" else 0
        self._send(audio(part), cuts)
        self.wrong |= self.state != "started"

    @rule(size=st.integers(1, 6), part=st.integers(2, 4000))
    def speaks_in_fragments(self, size: int, part: int) -> None:
        """A message of several frames, with a ping within."""
        if self.state != "started":
            return
        content = self.speech[self.position : self.position + size * part]
        self.position += len(content)
        parts = [content[begin : begin + part] for begin in range(0, len(content), part)] or [b""]
        for number, one in enumerate(parts):
            opcode = Opcode.CONT if number else Opcode.BINARY
            self.client.send(frame(opcode, one, number == len(parts) - 1), frame(Opcode.PING, b"within"))

    @rule(count=st.integers(1, 300))
    def sends_small_messages(self, count: int) -> None:
        if self.state != "started":
            return
        data = self.speech[self.position : self.position + count]
        self.position += len(data)
        self.client.send(b"".join(audio(data[number : number + 1]) for number in range(len(data))))

    @rule(data=st.binary(max_size=50), opcode=st.sampled_from([Opcode.PING, Opcode.PONG]))
    def pings(self, data: bytes, opcode: Opcode) -> None:
        self.client.send(frame(opcode, data))

    @rule(tree=ANY_JSON, cuts=cuts)
    def sends_any_json(self, tree: object, cuts: list[int]) -> None:
        content = json.dumps(tree).encode()
        if not is_text_of_protocol(content):
            self._send(text(content), cuts)
            self.wrong = True

    @rule(content=st.binary(max_size=100))
    def sends_any_text(self, content: bytes) -> None:
        if not is_text_of_protocol(content):
            self.client.send(text(content))
            self.wrong = True

    @precondition(lambda self: self.state == "new")
    @rule(name=FIELD_NAMES, value=ANY_JSON)
    def starts_with_any_field(self, name: str, value: object) -> None:
        """A start message that is mostly wrong; whether it is, its answer tells."""
        self.client.send(text(json.dumps({"type": "start", name: value}).encode()))
        self.state = "unknown"

    @rule(content=st.binary(min_size=2, max_size=60))
    def sends_any_bytes(self, content: bytes) -> None:
        """Not even frames: whatever follows is undefined."""
        self.client.send(content)
        self.state = "unknown"

    @rule()
    def starts_again(self) -> None:
        if self.state in ("started", "ended"):
            self.client.send(text(b'{"type": "start"}'))
            self.wrong = True

    @rule(seconds=st.floats(0, 0.1))
    def waits(self, seconds: float) -> None:
        time.sleep(seconds)

    @rule()
    def leaves(self) -> None:
        self.client.reset()
        self.is_gone = True
        self.client = Client(self.port)  # the next rules have a client as well
        self.client.open_stream()
        self.state, self.wrong, self.position, self.has_noise = "new", False, 0, False

    @rule()
    def ends(self) -> None:
        if self.state == "started" and not self.wrong:
            self._finish()

    def _finish(self) -> None:
        self.client.send(audio(self.speech[self.position :]), text(b'{"type": "end"}'))
        self._check_answer({1000}, is_right=True)
        self.client = Client(self.port)
        self.client.open_stream()
        self.state, self.position = "new", 0

    def _check_answer(self, codes: set[int], is_right: bool) -> None:
        """Reads until the end; asserts the close code, and that each message is one of the protocol."""
        answer = self.client.answer()
        content = answer.content.partition(b"\r\n\r\n")[2]
        messages = [json.loads(data) for opcode, data in frames(content) if opcode == Opcode.TEXT]
        kinds = [message["type"] for message in messages]
        assert {*kinds} <= {"ready", "partial", "final", "end", "error"}, kinds
        assert kinds[:1] in ([], ["ready"], ["error"]) and kinds.count("ready") <= 1
        assert "error" not in kinds[:-1] and "end" not in kinds[:-1], kinds
        assert answer.code in codes, (answer.code, messages[-1:])
        if is_right:
            said = " ".join(message["text"] for message in messages if message["type"] == "final")
            assert said == " ".join(WORDS) and kinds[-1] == "end", (said, kinds)
        self.client.socket.close()

    def teardown(self) -> None:
        """Ends the connection: as it should if nothing was wrong, else by a message that is wrong everywhere."""
        if self.state == "started" and not self.wrong:
            self._finish()
            self.client.reset()
            return
        self.client.send(text(b'{"type": "end"}'), text(b"wrong"))
        if self.state == "unknown":
            self._check_answer(REFUSALS | {1000, 1005, CLOSED}, is_right=False)
        else:
            self._check_answer(REFUSALS, is_right=False)


@pytest.mark.fuzz
def test_random_clients_get_documented_answers(tone_system, tmp_path):
    expected = " ".join(WORDS)
    with Server(tone_system, tmp_path, "--upload-workers", 0, limits=LIMITS) as server:
        machine = type("Machine", (StreamMachine,), {"port": server.port})
        options = settings(
            max_examples=25,
            stateful_step_count=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        end = time.monotonic() + SECONDS
        while machine.examples == 0 or time.monotonic() < end:
            run_state_machine_as_test(machine, settings=options)
            assert said(server.url, SPEECH / 32767) == expected
            assert server.process.poll() is None
        print(f"\n{machine.examples} random clients")
        assert until(server.is_idle, 60)
        assert "Traceback" not in server.log and "ERROR" not in server.log, server.log[-3000:]
