"""The load benchmark of servers: delays from messages, whether streams are held, and the search for their number."""

import importlib
import json
import math
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.tools.load import TOOLS


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """module(name) returns a module of tools/bench."""
    monkeypatch.syspath_prepend(str(TOOLS / "bench"))
    return importlib.import_module


@pytest.fixture
def delays(module: Any) -> ModuleType:
    return module("load_delays")


def noted(messages: list[tuple[float, str]], sent: float, error: str | None = None) -> dict:
    return {
        "start": 100.0,
        "messages": [[100 + at, text] for at, text in messages],
        "sent_seconds": sent,
        "error": error,
    }


def partial(end: float, words: str, compute: float = 0.0) -> str:
    tree = {"type": "partial", "end": end, "words": [{"text": word} for word in words.split()]}
    return json.dumps(tree | {"compute_seconds": compute})


def final(end: float, words: str) -> str:
    return partial(end, words).replace('"partial"', '"final"')


def test_a_chunk_is_due_with_the_packet_that_completes_it(delays: ModuleType) -> None:
    timing = delays.ChunkTiming(chunk=0.4, ahead=0.4075, window=0.0075)
    stream = noted([(0.0, '{"type": "ready"}'), (1.0, partial(0.4, "", 0.01)), (1.5, partial(0.8, "", 0.03))], 2.0)
    result = delays.stream_delays(stream, list(delays.asrtool_messages(stream, timing)), 0.1, 0.0, [])
    assert [due for due, _ in result.chunks] == pytest.approx([0.9, 1.3])
    assert [delay for _, delay in result.chunks] == pytest.approx([0.1, 0.2])
    assert result.compute == pytest.approx([0.01, 0.02])


def test_messages_without_new_audio_are_no_chunks_and_a_warm_up_does_not_count(delays: ModuleType) -> None:
    timing = delays.ChunkTiming(0.8, 0.0075, 0.0075)
    rows = [(1.0, partial(0.8, "a")), (1.1, partial(0.8, "a b")), (1.8, final(1.2, "a b")), (1.8, partial(1.6, ""))]
    stream = noted(rows, 2.0)
    messages = list(delays.asrtool_messages(stream, timing))
    assert delays.stream_delays(stream, messages, 0.1, 0.0, []).results == 2
    late = delays.stream_delays(stream, messages, 0.1, 1.0, [])
    assert late.results == 2 and [due for due, _ in late.chunks] == pytest.approx([1.7])


def test_every_message_of_sherpa_is_a_chunk(delays: ModuleType) -> None:
    def message(text: str, is_final: bool, words: list[int] | None = None) -> str:
        return json.dumps({"text": text, "words": words or [], "is_final": is_final})

    timing = delays.ChunkTiming(0.4, 0.4075, 0.0075)
    stream = noted([(0.6, message("", False)), (1.2, message(" A B", True, [2, 1])), (1.3, "Done!")], 2.0)
    messages = list(delays.sherpa_messages(stream, timing))
    assert [delay for _, delay in delays.stream_delays(stream, messages, 0.1, 0.0, []).chunks] == pytest.approx(
        [0.1, 0.3]
    )
    assert [message.words for message in messages] == [[], ["A", "B"]]
    assert [message.words for message in delays.sherpa_messages(stream, timing, ["", "one", "two"])] == [
        [],
        ["two", "one"],
    ]


def test_words_have_delays_to_their_first_and_to_their_last_change(delays: ModuleType) -> None:
    timing = delays.ChunkTiming(0.8, 0.0075, 0.0075)
    rows = [
        (1.0, partial(0.8, "the")),
        (2.0, partial(1.6, "a cat")),
        (3.0, partial(2.4, "the cat")),
        (3.5, final(3.0, "the cat")),
    ]
    rows.append((5.0, final(4.0, "sat")))
    stream = noted(rows, 6.0)
    words = [("the", 0.5), ("cat", 1.25), ("sat", 4.5)]
    result = delays.stream_delays(stream, list(delays.asrtool_messages(stream, timing)), 0.1, 0.0, words)
    assert result.first == pytest.approx([0.5, 1.75, 0.5])  # "cat" with "the" before it came after 3 s
    assert result.settled == pytest.approx([2.5, 1.75, 0.5])


def chunks(delays: ModuleType, values: list[float]) -> Any:
    rows = [(0.8 * (number + 1), value) for number, value in enumerate(values)]
    return delays.StreamDelays(len(rows), rows, [], [], [])


@pytest.mark.parametrize(
    ("values", "sent", "error", "expected"),
    [
        ([0.1] * 10, 8.0, None, ""),
        ([0.1] * 10, 8.0, "ConnectionClosedError", "1 of 1 streams failed: ConnectionClosedError"),
        ([0.1] * 5, 8.0, None, "results of chunks are missing"),
        ([0.1] * 9 + [0.9], 8.0, None, "delay 8"),
        ([0.1] * 5 + [0.4] * 5, 8.0, None, "delays grow by 300 ms"),
    ],
)
def test_streams_are_held_only_with_all_results_in_time(
    delays: ModuleType, values: list[float], sent: float, error: str | None, expected: str
) -> None:
    timing = delays.ChunkTiming(0.8, 0.0075, 0.0075)
    reason = delays.why_not_held([noted([], sent, error)], [chunks(delays, values)], timing, 0.8)
    assert reason.startswith(expected) and bool(reason) == bool(expected)


def test_a_growing_load_is_too_much_from_the_time_at_which_delays_exceed_the_limit(delays: ModuleType) -> None:
    streams = [chunks(delays, [0.1] * 10 + [2.0] * 10)] * 3  # due from 8.8 s on, and each stream starts at 1 s
    assert delays.overload_time(streams, [1.0] * 3, 0.8) == pytest.approx(10.0, abs=0.5)
    assert delays.overload_time([chunks(delays, [0.1] * 10)], [0.0], 0.8) == math.inf


@pytest.mark.parametrize("capacity", [1, 2, 7, 40, 137, 400])
@pytest.mark.parametrize("estimate", [1, 30, 500])
def test_the_search_finds_the_largest_number_of_streams(module: Any, capacity: int, estimate: int) -> None:
    candidate = module("load_search").Candidate("server", "asrtool", Path(), {}, estimate=estimate)
    nothing = [math.nan] * 3
    figures = module("load_delays").LoadFigures
    for _ in range(60):
        streams = candidate.next_streams(most=400)
        if not streams:
            break
        reason = "" if streams <= capacity else "delay 900 ms"
        candidate.loads.append(
            figures(streams, reason, 1, *[nothing, 0], *[nothing] * 3, *[1.0] * 5, nothing, 1.0, 1.0)
        )
    assert candidate.held <= capacity
    assert candidate.held >= min(capacity / 1.05, capacity - 1) and len(candidate.loads) < 40


def test_words_of_a_looped_recording_are_counted_from_the_first_sample(module: Any) -> None:
    models = module("load_models")
    speech = models.Speech(samples=[0] * 20, rate=10, cuts=["one"], starts=[0])  # 2 s
    words = models.words_of_stream([("a", 0.5), ("b", 1.5)], speech, first=10, seconds=3.0)
    assert words == [("b", 0.5), ("a", 1.5), ("b", 2.5)]
