"""Planted faults of audio and transcripts are all found, and none is found in a clean corpus."""

import json
from collections import defaultdict
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from lhotse import CutSet
from scipy.signal import resample_poly

from asrtool.config import Config
from asrtool.data.exclusion import read_exclusions
from asrtool.doctor.data import DataFindings, examine_data
from asrtool.doctor.data_audio_checks import is_steady_noise
from asrtool.doctor.data_entries import Utterance
from asrtool.doctor.data_faults import MAX_DETAIL, Faults, write_exclusions
from asrtool.doctor.data_kinds import KINDS
from asrtool.doctor.data_rates import check_lengths, length_limits
from asrtool.doctor.data_signal import measure_signal
from asrtool.doctor.findings import Report, Severity, report_json
from asrtool.errors import UserError
from asrtool.text.tokenizer_training import train_tokenizer
from tests.doctor.corpus import LETTERS, Corpus, clean_corpus
from tests.doctor.planted import PLANTED
from tests.tiny import RATE, make_tokenizer, tone

TOKENIZER = train_tokenizer("char", [LETTERS + " " + LETTERS])


def faults_by_id(report: Report, with_notes: bool = False) -> dict[str, set[str]]:
    """Returns the kinds of fault of each utterance, or other item, of a report."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for finding in report.findings:
        for example in finding.examples if with_notes or finding.severity != Severity.NOTE else ():
            kinds[example.partition(": ")[0]].add(finding.code)
    return dict(kinds)


@pytest.fixture(scope="session")
def clean() -> Corpus:
    """200 utterances of four speakers; of these, tests change copies."""
    return clean_corpus(200, "abcd", 1)


@pytest.fixture(scope="session")
def held_out() -> Corpus:
    return clean_corpus(8, "ef", 2)


def examine(folder, corpus: Corpus, dev: Corpus | None = None, **options) -> DataFindings:
    sets = [corpus.write(folder / "train", "train.jsonl")]
    dev_sets = [dev.write(folder / "dev", "dev.jsonl")] if dev else []
    return examine_data(sets, dev_sets, **options)


def test_a_clean_corpus_has_no_findings(tmp_path, clean, held_out):
    findings = examine(tmp_path, clean, held_out, tokenizer=TOKENIZER, config=Config(), jobs=2)
    assert [report.findings for report in findings.reports] == [[], []]
    assert findings.excluded == {}
    assert findings.reports[0].facts["utterances"] == 200
    assert findings.reports[0].facts["speakers"].startswith("4, ")
    assert all(report.exit_status == 0 for report in findings.reports)


def test_all_planted_faults_are_found_and_no_others(tmp_path, clean):
    corpus = Corpus(deepcopy(clean.items))
    expected = {}
    for item, (plant, kinds) in zip(corpus.items[::4], PLANTED.values(), strict=False):
        plant(item)
        expected[item.id] = kinds
    assert len(expected) == len(PLANTED)
    findings = examine(tmp_path, corpus, tokenizer=TOKENIZER, jobs=2)
    assert faults_by_id(findings.reports[0]) == {name: kinds for name, kinds in expected.items() if kinds}
    excluded = {name for name, kinds in expected.items() if any(KINDS[kind].excluded for kind in kinds)}
    assert set(findings.excluded) == excluded
    assert findings.reports[0].exit_status == 1
    json.dumps(report_json(findings.reports))


def test_duplicates_and_what_sets_share_are_found(tmp_path, clean, held_out):
    train, dev = Corpus(deepcopy(clean.items[:60])), Corpus(deepcopy(held_out.items))
    items = train.items
    items[1].set_samples(items[0].samples)  # the same audio and text
    items[1].text = items[0].text
    items[3].set_samples(items[2].samples)  # the same audio, another text
    items[5].set_samples(dev.items[0].samples)
    items[5].text = dev.items[0].text
    dev.items[1].supervision["speaker"] = "a"
    dev.items[2].text = next(item.text for item in items[21:] if len(item.text.split()) >= 4) + "."
    dev.items[3].cut["id"] = items[11].id
    items[20].supervision["speaker"] = "A"
    items.append(deepcopy(items[12]))
    train.extra_lines = ["{no json", json.dumps({"id": "x", "type": "MonoCut"})]
    train_report, dev_report = examine(tmp_path, train, dev).reports
    assert faults_by_id(train_report) == {
        items[1].id: {"duplicate-audio"},
        items[2].id: {"same-audio-other-text"},
        items[3].id: {"same-audio-other-text"},
        items[5].id: {"shared-audio"},
        items[12].id: {"duplicate-id"},
        "A": {"similar-speakers"},
        "train.jsonl:62": {"unreadable-line"},
        "train.jsonl:63": {"unreadable-line"},
    }
    assert faults_by_id(dev_report) == {
        dev.items[0].id: {"shared-sentences"},
        "a": {"shared-speakers"},
        dev.items[2].id: {"shared-sentences"},
        items[11].id: {"shared-ids"},
    }


def test_segments_that_overlap_are_found_unless_the_speakers_differ(tmp_path, clean):
    corpus = Corpus(deepcopy(clean.items[:3]))
    manifest = corpus.write(tmp_path / "whole", "whole.jsonl")
    whole = json.loads(manifest.read_text().splitlines()[0])

    def segment(name, start, seconds, speaker):
        supervision = {**whole["supervisions"][0], "id": name, "duration": seconds, "speaker": speaker}
        return json.dumps({**whole, "id": name, "start": start, "duration": seconds, "supervisions": [supervision]})

    lines = [segment("s1", 0.0, 1.0, "a"), segment("s2", 0.8, 1.0, "a"), segment("s3", 1.5, 0.5, "b")]
    lines.append(segment("s4", 1.97, 0.5, "b"))  # 0.03 s are the rounding of times
    (tmp_path / "segments.jsonl").write_text("\n".join(lines))
    (report,) = examine_data([tmp_path / "segments.jsonl"]).reports
    assert faults_by_id(report) == {"s2": {"overlapping-segments"}}


def test_copies_at_other_speeds_are_no_duplicates(tmp_path, clean):
    items = deepcopy(clean.items[:3])
    items[2].set_samples(items[1].samples)
    items[2].text = items[1].text
    manifest = Corpus(items).write(tmp_path, "train.jsonl")
    cuts = CutSet.from_file(manifest).to_eager()
    CutSet.from_cuts([*cuts.perturb_speed(0.9), *cuts, *cuts.perturb_speed(1.1)]).to_file(tmp_path / "all.jsonl")
    findings = examine_data([tmp_path / "all.jsonl"])
    same = [f"{items[2].id}{suffix}" for suffix in ("", "_sp0.9", "_sp1.1")]
    assert set(findings.excluded) == set(same)
    faults = faults_by_id(findings.reports[0], with_notes=True)
    assert {name for name, kinds in faults.items() if kinds & {"duplicate-audio", "overlapping-segments"}} == set(same)
    sentences = [f for f in findings.reports[0].findings if f.code == "duplicate-transcripts"]
    assert all(example.endswith(": 2 times") for finding in sentences for example in finding.examples)


def test_the_rate_of_the_configuration_is_expected_else_the_usual_one(tmp_path, clean):
    manifest = Corpus(clean.items[:6]).write(tmp_path, "train.jsonl")
    config = Config.model_validate({"features": {"sampling_rate": 8000}, "data": {"max_seconds": 2.5}})
    by_id = faults_by_id(examine_data([manifest], config=config).reports[0])
    assert all("wrong-rate" in by_id[item.id] for item in clean.items[:6])
    long = {item.id for item in clean.items[:6] if item.cut["duration"] > 2.5}
    assert long and {name for name, kinds in by_id.items() if "too-long" in kinds} == long
    assert faults_by_id(examine_data([manifest]).reports[0]) == {}


def test_notes_do_not_count_as_findings(tmp_path, clean):
    corpus = Corpus(deepcopy(clean.items[:4]))
    for item in corpus.items:
        del item.supervision["speaker"]
    (report,) = examine(tmp_path, corpus).reports
    assert [finding.code for finding in report.findings] == ["no-speakers"]
    assert report.exit_status == 0


def test_ignored_kinds_are_neither_reported_nor_excluded(tmp_path, clean):
    corpus = Corpus(deepcopy(clean.items[:4]))
    PLANTED["silent"][0](corpus.items[1])
    assert set(examine(tmp_path, corpus).excluded) == {corpus.items[1].id}
    findings = examine(tmp_path, corpus, ignored=["silent"])
    assert findings.reports[0].findings == [] and findings.excluded == {}
    with pytest.raises(UserError, match="did you mean 'silent'"):
        examine(tmp_path, corpus, ignored=["silnt"])


def test_a_long_recording_is_read_by_utterance_with_the_same_result(tmp_path, clean, monkeypatch):
    corpus = Corpus(deepcopy(clean.items[:3]))
    for item, name in zip(corpus.items, ["clipped", "silent", "offset"], strict=True):
        PLANTED[name][0](item)
    whole = examine(tmp_path, corpus).reports[0]
    monkeypatch.setattr("asrtool.doctor.data_audio.MAX_WHOLE", 50_000)  # more than one utterance, less than all
    monkeypatch.setattr("asrtool.doctor.data_audio.BLOCK", 5_000)
    by_seeking = examine(tmp_path, corpus).reports[0]
    assert faults_by_id(by_seeking) == faults_by_id(whole)
    assert len(faults_by_id(whole)) == 3


def test_every_kind_has_a_cause_and_errors_and_warnings_a_remedy():
    for code, kind in KINDS.items():
        assert code == code.lower() and kind.cause and not kind.cause.endswith("."), code
        assert kind.remedy or kind.severity == Severity.NOTE, code
        assert not (kind.excluded and kind.severity == Severity.NOTE), code
        assert ("--exclude" in kind.remedy_for(Path("a.jsonl.gz"), is_training=True)) == kind.excluded, code
        assert "--exclude" not in kind.remedy_for(Path("a.jsonl.gz"), is_training=False), code


def test_remedies_name_the_manifest_and_files_beside_it():
    remedy = KINDS["markup"].remedy_for(Path("my data/train.jsonl.gz"), is_training=True)
    assert remedy.startswith("asrtool normalise 'my data/train.jsonl.gz' --propose 'my data/train_rules.yaml'; ")
    assert "'my data/train_normalised.jsonl.gz' --rules 'my data/train_rules.yaml'" in remedy


@pytest.mark.parametrize("name, other", [("test.clean", "test.other"), ("v1.0", "v1.1"), ("train", "train.sp")])
@pytest.mark.parametrize("suffix", [".jsonl.gz", ".jsonl"])
def test_remedies_of_two_manifests_write_different_files(name, other, suffix):
    remedies = [KINDS["markup"].remedy_for(Path(f"{stem}{suffix}"), is_training=True) for stem in (name, other)]
    for remedy, stem in zip(remedies, (name, other), strict=True):
        assert f"--propose {stem}_rules.yaml;" in remedy and f" {stem}_normalised.jsonl.gz --rules" in remedy


@pytest.mark.parametrize("topology, is_infeasible", [("ctc", True), ("modified", False), ("hmm", False)])
def test_the_topology_of_the_configuration_says_which_transcripts_fit(topology, is_infeasible):
    objective = {"kind": "mmi", "topology": topology}
    limits = length_limits(Config.model_validate({"objective": objective}))
    faults = Faults()
    text = "a" * 20  # with CTC, 19 blanks between equal units
    utterance = Utterance("u1", seconds=1.0, start=0.0, channel=0, text=text, speaker=None, source=None)
    check_lengths([utterance], limits, TOKENIZER, faults)
    assert faults.has("ctc-infeasible", "u1") == is_infeasible


def test_an_id_that_occurs_twice_is_not_excluded_since_all_copies_would_go(tmp_path, clean):
    items = deepcopy(clean.items[:6])
    PLANTED["silent"][0](items[2])
    other = deepcopy(items[2])  # the same id in another training set
    other.set_samples(items[3].samples)
    sets = [
        Corpus([*items, items[0]]).write(tmp_path / "a", "a.jsonl"),
        Corpus([other]).write(tmp_path / "b", "b.jsonl"),
    ]
    findings = examine_data(sets)
    assert faults_by_id(findings.reports[0]) == {items[0].id: {"duplicate-id"}, items[2].id: {"silent"}}
    assert findings.excluded == {}
    assert "to exclude" not in findings.reports[0].facts


def test_long_details_end_with_an_ellipsis():
    faults = Faults()
    faults.add("markup", "u1", "x" * 500)
    (finding,) = faults.findings(Path("a.jsonl"))
    assert finding.examples == (f"u1: {'x' * (MAX_DETAIL - 3)}...",)


def test_the_exclusion_list_has_an_id_and_its_reasons_on_each_line(tmp_path):
    excluded = {"u1": "silent (peak 0)", "u2": "clipped; a\nline end"}
    write_exclusions(tmp_path / "exclude.txt", excluded, [tmp_path / "train.jsonl.gz"])
    comment, digest, *lines = (tmp_path / "exclude.txt").read_text().splitlines()
    assert comment.startswith("# ") and digest.startswith("# ")
    assert lines == ["u1\tsilent (peak 0)", "u2\tclipped; a line end"]
    assert read_exclusions([tmp_path / "exclude.txt"]) == {"u1": "silent (peak 0)", "u2": "clipped; a line end"}


def test_the_command_reports_in_text_and_json_and_writes_the_list(tmp_path, clean, asr):
    corpus = Corpus(deepcopy(clean.items[:4]))
    PLANTED["silent"][0](corpus.items[2])
    manifest = corpus.write(tmp_path, "train.jsonl")
    status, out, _ = asr("doctor", "data", manifest, "--jobs", 1, "--exclude", tmp_path / "exclude.txt")
    assert status == 1
    assert "audio is silent" in out and corpus.items[2].id in out
    assert (tmp_path / "exclude.txt").read_text().splitlines()[2].startswith(f"{corpus.items[2].id}\tsilent")
    status, out, _ = asr("doctor", "data", manifest, "--jobs", 1, "--json", "--ignore", "silent")
    assert status == 0 and json.loads(out)["reports"][0]["facts"]["utterances"] == 4
    assert asr("doctor", "data")[0] == 2
    assert asr("doctor", "data", tmp_path / "none.jsonl.gz")[0] == 2
    assert asr("doctor", "data", manifest, "--exclude", manifest)[0] == 2


@pytest.mark.parametrize("name", ["conf.yaml", "tokenizer.json", "list.txt", "audio.flac", "manifest"])
def test_the_exclusion_list_replaces_only_a_list_of_the_command(tmp_path, clean, asr, name):
    corpus = Corpus(deepcopy(clean.items[:2]))
    manifest = corpus.write(tmp_path, "train.jsonl")
    audio = next(path for path in tmp_path.rglob("*") if path.suffix in (".wav", ".flac"))
    tokenizer = make_tokenizer(tmp_path)
    (tmp_path / "conf.yaml").write_text(f"data: {{train: {manifest}, dev: {manifest}, tokenizer: {tokenizer}}}\n")
    (tmp_path / "list.txt").write_text("u1\tnoise that I heard\n")
    out = {"audio.flac": audio, "manifest": manifest}.get(name, tmp_path / name)
    before = out.read_bytes()
    status, _, error = asr("doctor", "data", "--config", tmp_path / "conf.yaml", "--exclude", out)
    assert status == 2 and error.count("\n") == 1 and str(out) in error
    assert out.read_bytes() == before


def test_an_exclusion_list_of_the_command_or_an_empty_file_is_replaced(tmp_path, clean, asr):
    manifest = Corpus(deepcopy(clean.items[:2])).write(tmp_path, "train.jsonl")
    out = tmp_path / "exclude.txt"
    out.touch()
    for _ in range(2):
        assert asr("doctor", "data", manifest, "--jobs", 1, "--exclude", out)[0] == 0
        assert out.read_text().startswith("# Utterances that training leaves out")


@pytest.mark.parametrize("edit", ["delete", "comment", "add", "old version"])
def test_an_edited_exclusion_list_is_not_replaced(tmp_path, clean, asr, edit):
    manifest = Corpus(deepcopy(clean.items[:2])).write(tmp_path, "train.jsonl")
    out = tmp_path / "exclude.txt"
    write_exclusions(out, {"u1": "silent", "u2": "clipped"}, [manifest])
    head, digest, *lines = out.read_text().splitlines()
    edited = {
        "delete": [head, digest, *lines[1:]],
        "comment": [head, digest, f"#{lines[0]}", lines[1]],
        "add": [head, digest, *lines, "u3"],
        "old version": [head, *lines],
    }
    out.write_text("\n".join(edited[edit]) + "\n")
    before = out.read_bytes()
    status, _, error = asr("doctor", "data", manifest, "--jobs", 1, "--exclude", out)
    assert status == 2 and f"{out} was edited" in error and error.count("\n") == 1
    assert out.read_bytes() == before


def test_the_utterances_that_the_configuration_excludes_are_left_out(tmp_path, clean, asr):
    corpus = Corpus(deepcopy(clean.items[:6]))
    for item, name in zip(corpus.items, ["#0", "# 1", "u2"], strict=False):
        PLANTED["silent"][0](item)
        item.cut["id"] = name
    manifest = corpus.write(tmp_path, "train.jsonl")
    first, second = tmp_path / "first.txt", tmp_path / "second.txt"
    dev_items = deepcopy(clean.items[6:9])
    dev_items[0].cut["id"] = "u2"
    dev = Corpus(dev_items).write(tmp_path / "dev", "dev.jsonl")
    config = tmp_path / "conf.yaml"
    config.write_text(f"data: {{train: {manifest}, dev: {dev}, exclude: {first}}}\n")
    command = ("doctor", "data", "--config", config, "--jobs", 1, "--exclude")
    _, out, error = asr(*command, first)  # it does not exist yet
    assert set(read_exclusions([first])) == {"#0", "u2"}
    assert "1 ids cannot be written into a list, rename them: '# 1'" in error and "left out" not in out
    before = first.read_bytes()
    status, _, error = asr(*command, first)
    assert status == 2 and "name another file, and add it to data.exclude" in error and first.read_bytes() == before
    _, out, _ = asr(*command, second)
    assert read_exclusions([second]) == {} and "2 utterances, by data.exclude" in out
    assert "1 utterances, by data.exclude" in out  # of the dev set
    assert [line for line in out.splitlines() if "silent" in line and "#0" in line] == []


def test_a_shell_command_in_a_manifest_is_not_run(tmp_path, clean):
    corpus = Corpus(deepcopy(clean.items[:1]))
    corpus.items[0].recording["sources"][0].update(type="command", source=f"touch {tmp_path}/ran")
    examine(tmp_path / "corpus", corpus)
    assert not (tmp_path / "ran").exists()


def test_stored_features_without_audio_are_a_note(tmp_path, clean):
    features = {"type": "fbank", "num_frames": 100, "num_features": 80, "frame_shift": 0.01, "sampling_rate": 16000}
    features |= {"start": 0.0, "duration": 1.0, "storage_type": "numpy_files", "storage_path": str(tmp_path)}
    cut = {**clean.items[0].cut, "features": {**features, "storage_key": "a.npy", "channels": 0}, "recording": None}
    (tmp_path / "train.jsonl").write_text(json.dumps(cut))
    (report,) = examine_data([tmp_path / "train.jsonl"]).reports
    assert {finding.code for finding in report.findings} == {"no-audio", "one-speaker"}
    assert report.exit_status == 0


def test_the_documentation_lists_every_kind():
    page = (Path(__file__).parents[2] / "docs" / "doctor_data.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert set(rows) == set(KINDS)
    for code, kind in KINDS.items():
        assert kind.cause in rows[code] and ("| yes |" in rows[code]) == kind.excluded, code


def test_a_tone_is_neither_clipped_nor_noise_nor_upsampled():
    for frequency in (50, 440, 3500):
        signal = measure_signal(tone(frequency, 2.0), RATE)
        assert signal.clipped_share == 0.0 and signal.bandwidth is None, frequency
        assert not is_steady_noise(signal), frequency


def test_a_voice_without_high_frequencies_in_recorded_noise_is_not_upsampled(clean):
    samples = clean.items[0].samples
    low = resample_poly(resample_poly(samples, 1, 2), 2, 1)[: len(samples)]
    noise = np.random.default_rng(3).normal(size=len(low))
    assert measure_signal((low + 1e-3 * noise).astype(np.float32), RATE).bandwidth is None


def test_long_pauses_do_not_make_outliers_of_the_speaking_rate(tmp_path, clean):
    corpus = Corpus(deepcopy(clean.items[:30]))
    item = corpus.items[3]
    pause = 1e-4 * np.random.default_rng(1).normal(size=6 * RATE)
    item.set_samples(np.concatenate([item.samples, pause]).astype(np.float32))
    assert "too-few-characters" not in faults_by_id(examine(tmp_path, corpus).reports[0]).get(item.id, set())


def test_words_without_units_in_a_test_set_are_only_noted(tmp_path, clean, held_out):
    train = Corpus(clean.items[:4]).write(tmp_path / "train", "train.jsonl")
    test = Corpus(deepcopy(held_out.items))
    test.items[0].text += " ß"
    (_, report) = examine_data([train], test=[test.write(tmp_path / "test", "test.jsonl")], tokenizer=TOKENIZER).reports
    assert faults_by_id(report, with_notes=True) == {test.items[0].id: {"unknown-in-test"}}
