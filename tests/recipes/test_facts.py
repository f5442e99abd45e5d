"""What `asrtool new` measures of a corpus, of its recordings and transcripts, and of the machine."""

from collections import Counter

import numpy as np
import pytest
import soundfile
import yaml

from asrtool.config import Config
from asrtool.data.corpora import Utterance
from asrtool.recipes import facts as facts_module
from asrtool.recipes.audio_sample import sample_audio
from asrtool.recipes.command_lines import command_line, comment
from asrtool.recipes.facts import measure_corpus
from asrtool.recipes.machine import describe_machine
from asrtool.recipes.speed import measure_speed
from asrtool.recipes.text_facts import describe_texts
from asrtool.recipes.transcripts import case_of_lexicon, normalise_texts
from asrtool.text.lexicon import Lexicon
from tests.tiny import TINY


def test_segments_end_with_their_recording(tmp_path, write_audio) -> None:
    audio = str(write_audio(tmp_path / "talk.wav", seconds=4.0))
    rows = [
        Utterance("a", audio, "one", "x", start=0.0, end=1.5),
        Utterance("b", audio, "two", "y", start=2.0, end=4.02),
    ]
    facts = measure_corpus(rows)
    assert facts.seconds == pytest.approx(3.5) and facts.speakers == {"x", "y"}
    assert facts.lengths == pytest.approx((1.5, 1.75, 2.0)) and facts.rates == {16000: 1}


def test_what_cannot_be_used_is_a_problem(tmp_path, write_audio) -> None:
    good, bad = write_audio(tmp_path / "good.wav"), tmp_path / "bad.wav"
    bad.write_text("no audio")
    rows = [
        Utterance("a", str(good), "one"),
        Utterance("b", str(bad), "two"),
        Utterance("c", str(good), " "),
        "table:4: no file",
    ]
    facts = measure_corpus(rows)
    assert facts.utterances == 1 and len(facts.problems) == 3


@pytest.mark.parametrize(("start", "end"), [(1500.0, 3000.0), (0.0, 1500.0), (6.0, None), (-1.0, 2.0), (2.0, 1.0)])
def test_times_that_do_not_fit_the_recording_are_a_problem(tmp_path, write_audio, start, end) -> None:
    """For example times in milliseconds."""
    audio = str(write_audio(tmp_path / "talk.wav", seconds=4.0))
    facts = measure_corpus([Utterance("a", audio, "one", start=start, end=end), Utterance("b", audio, "two")])
    assert facts.utterances == 1 and facts.seconds == pytest.approx(4.0)
    assert len(facts.problems) == 1 and facts.problems[0].startswith("a: ")


def segments(audio: object, name: str, count: int = 50) -> list[Utterance]:
    return [Utterance(f"{name}-{n}", str(audio), "one", start=n * 0.1, end=n * 0.1 + 0.1) for n in range(count)]


def test_every_utterance_of_a_bad_recording_is_a_problem(tmp_path, write_audio) -> None:
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    facts = measure_corpus(segments(write_audio(tmp_path / "good.wav", seconds=5.0), "good") + segments(bad, "bad"))
    assert facts.utterances == 50 and len(facts.problems) == facts.num_bad == 50
    assert all(problem.startswith("bad-") and str(bad) in problem for problem in facts.problems)


def test_bad_utterances_of_a_large_corpus_are_estimated(tmp_path, write_audio, monkeypatch) -> None:
    monkeypatch.setattr(facts_module, "MAX_INSPECTED", 2)
    rows = []
    for number in range(6):
        path = tmp_path / f"{number}.wav"
        if number % 3 == 0:
            write_audio(path, seconds=1.0)
        rows += segments(path, str(number), 10)
    facts = measure_corpus(rows)
    assert facts.num_bad == 0 and facts.utterances == 60
    (tmp_path / "3.wav").write_text("no audio")
    facts = measure_corpus(rows)
    assert len(facts.problems) == 10 and facts.num_bad == 30 and facts.utterances == 50


def test_hours_of_a_large_corpus_are_estimated(tmp_path, write_audio, monkeypatch) -> None:
    monkeypatch.setattr(facts_module, "MAX_INSPECTED", 2)
    rows = [Utterance(str(n), str(write_audio(tmp_path / f"{n}.wav", seconds=2.0)), "one") for n in range(6)]
    facts = measure_corpus(rows)
    assert facts.is_estimate and facts.seconds == pytest.approx(12.0) and facts.rates.total() == 2


@pytest.mark.parametrize("left, right, channel, phrase", [
    (0.0, 0.3, 1, "silent"),
    (0.3, 0.3, 0, "same signal"),
])  # fmt: skip
def test_channels(tmp_path, left: float, right: float, channel: int, phrase: str) -> None:
    noise = np.random.default_rng(0).normal(size=16000).clip(-1, 1)
    soundfile.write(tmp_path / "x.wav", np.stack([left * noise, right * noise], axis=1), 16000)
    sample = sample_audio([str(tmp_path / "x.wav"), str(tmp_path / "missing.wav")])
    assert sample.recordings == 1 and sample.channel == channel and phrase in sample.channels


def test_text_counts() -> None:
    text = describe_texts(["one two", "one two", "two"])
    assert text.words == Counter(one=2, two=3) and text.sentences == 2 and text.characters["o"] == 5
    assert text.rarest_word == 2 and text.has_spaces and not text.is_english


def test_normalisation_says_what_it_removes() -> None:
    normalised = normalise_texts(["Guten Morgen!", "Er kam 1990.", "Schön, danke."] * 10)
    assert normalised.case == "lower" and normalised.dropped == 10
    assert "guten morgen" in normalised.texts and "10 dropped" in str(normalised) and ", 10x" in str(normalised)


def test_the_case_of_the_lexicon_wins() -> None:
    lexicon = Lexicon({"ONE": (("W", "AH", "N"),), "TWO": (("T", "UW"),)})
    assert case_of_lexicon(["one two.", "One"], lexicon) == "upper"
    assert case_of_lexicon(["ONE TWO"], lexicon) == "keep"


def test_this_machine_and_its_speed() -> None:
    machine = describe_machine()
    assert machine.cores >= 1 and machine.memory > 1e8 and "cores" in str(machine)
    assert measure_speed(Config.model_validate(TINY), 5, 2.0, machine.cores) > 0


def test_shell_text_is_quoted_and_comments_end_nowhere(tmp_path) -> None:
    line = command_line(["asrtool", f"{tmp_path}/a b", "$(x)", "it's"], tmp_path)
    assert line == "asrtool \"$corpus\"'/a b' '$(x)' 'it'\"'\"'s'"
    assert all(part.startswith("# ") for part in comment("first\nrm -rf\x1b x " * 20).splitlines())
    assert yaml.safe_load(comment("a: b\nc: d")) is None
