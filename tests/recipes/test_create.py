"""`asrtool new` on every layout of a corpus: what it finds and writes, and what it refuses."""

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from asrtool.config_file import load_config
from asrtool.data.corpus_detection import SourceOptions
from asrtool.errors import DataError, UserError
from asrtool.recipes import create
from asrtool.recipes.create import Request, create_recipe
from asrtool.recipes.unit_choices import UserText
from asrtool.text.normalisation import load_rules
from tests.recipes import layouts
from tests.recipes.layouts import TinyCorpus

COLUMNS = SourceOptions(columns={"audio": "Datei", "text": "Satz", "speaker": "Wer"})
NAMES = SourceOptions(name_pattern="{text}_{speaker}_{index}")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> TinyCorpus:
    return TinyCorpus(tmp_path_factory.mktemp("audio") / "tones")


@pytest.fixture(autouse=True)
def known_speed(monkeypatch) -> None:
    """Does not measure the speed of this machine."""
    monkeypatch.setattr(create, "measure_speed", lambda *_: 80.0)


def request(tmp_path: Path, source: Path | str, **changes: object) -> Request:
    return replace(Request("tones", str(source), out=tmp_path / "egs"), **changes)


def check_scripts(folder: Path) -> None:
    for name in ("run.sh", "local/data.sh"):
        assert os.access(folder / name, os.X_OK)
        assert max(len(line) for line in (folder / name).read_text().splitlines()) < 400
        subprocess.run(["bash", "-n", folder / name], check=True)


@pytest.mark.parametrize("layout, options, expected", [
    (layouts.table, COLUMNS, "prepare table"),
    (layouts.bar_table, None, "prepare folder"),
    (layouts.kaldi, None, "prepare kaldi"),
    (layouts.texts, SourceOptions(speaker_from="folder"), "prepare folder"),
    (layouts.names, NAMES, "--name-pattern '{text}_{speaker}_{index}'"),
    (layouts.nemo, None, "prepare nemo"),
    (layouts.audiofolder, None, "prepare folder"),
    (layouts.lhotse_cuts, None, "prepare lhotse"),
    (layouts.lhotse_parts, None, "prepare lhotse"),
])  # fmt: skip
def test_every_layout(tiny, tmp_path, layout, options, expected) -> None:
    source = tmp_path / "corpus"
    source.mkdir()
    asked = request(tmp_path, layout(tiny, source), options=options or SourceOptions())
    recipe = create_recipe(asked)
    assert recipe.facts.utterances == 24 and not recipe.facts.problems
    assert set(recipe.text.words) in ({"one", "two", "three", "four"}, {"ONE", "TWO", "THREE", "FOUR"})
    data = (recipe.folder / "local/data.sh").read_text()
    assert expected in data and "data/corpus" in data and "asrtool normalise" in data
    config = load_config(recipe.folder / "conf/train.yaml")
    assert config.features.sampling_rate == (8000 if layout is layouts.names else 16000)
    assert load_rules(recipe.folder / "conf/normalise.yaml") == recipe.normalised.rules
    assert "| audio |" in (recipe.folder / "README.md").read_text()
    check_scripts(recipe.folder)


def test_speakers_of_the_columns_and_names(tiny, tmp_path) -> None:
    recipe = create_recipe(request(tmp_path, layouts.table(tiny, tmp_path), options=COLUMNS))
    assert recipe.facts.speakers == {"a", "b", "c"}


def test_own_test_set_is_kept_and_only_dev_is_split_off(tiny, tmp_path) -> None:
    recipe = create_recipe(request(tmp_path, layouts.kaldi(tiny, tmp_path)))
    data = (recipe.folder / "local/data.sh").read_text()
    assert "--test-size 0" in data and "data/test.jsonl.gz" in data and "echo dev test" in data


def test_parts_of_lhotse_are_joined(tiny, tmp_path) -> None:
    recipe = create_recipe(request(tmp_path, layouts.lhotse_parts(tiny, tmp_path)))
    data = (recipe.folder / "local/data.sh").read_text()
    assert data.count("tones_recordings_train-") == 2
    assert "cat data/corpus/train.jsonl.gz data/corpus/train1.jsonl.gz" in data


def test_the_channel_that_holds_the_speech_is_chosen(tiny, tmp_path) -> None:
    source = tmp_path / "stereo"
    source.mkdir()
    recipe = create_recipe(request(tmp_path, layouts.texts(tiny, source)))
    data = (recipe.folder / "local/data.sh").read_text()
    assert "--resample --channel 1" in data and "silent" in data


def test_a_lexicon_of_the_user_decides_over_units_and_case(tiny, tmp_path) -> None:
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("ONE W AH N\nTWO T UW\nTHREE TH R IY\nFOUR F AO R\n")
    recipe = create_recipe(request(tmp_path, layouts.nemo(tiny, tmp_path), user=UserText(lexicon=lexicon)))
    run = (recipe.folder / "run.sh").read_text()
    assert "units=phone" in run and f"lexicon={lexicon}" in run and "case=upper" in run
    assert recipe.normalised.rules.case == "upper"


def test_corpus_paths_and_descriptions_cannot_run_code(tiny, tmp_path) -> None:
    source = tmp_path / "it's $(touch bad)\ntouch worse"
    source.mkdir()
    recipe = create_recipe(request(tmp_path, layouts.bar_table(tiny, source)))
    check_scripts(recipe.folder)
    help_text = subprocess.run(
        ["bash", recipe.folder / "run.sh", "--help"], capture_output=True, text=True, cwd=tmp_path
    )
    assert help_text.returncode == 0 and "--steps N" in help_text.stdout
    assert not [*tmp_path.rglob("bad"), *tmp_path.rglob("worse")]


def test_an_existing_recipe_stays(tiny, tmp_path) -> None:
    (tmp_path / "egs/tones").mkdir(parents=True)
    with pytest.raises(UserError, match="exists already"):
        create_recipe(request(tmp_path, tiny.manifest))


@pytest.mark.parametrize("name", ["../tones", "a b", "", "-x", "x/y"])
def test_bad_names_are_refused(tmp_path, name) -> None:
    with pytest.raises(UserError, match="cannot be the name"):
        create_recipe(request(tmp_path, tmp_path, name=name))


def test_a_missing_corpus_is_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        create_recipe(request(tmp_path, tmp_path / "nothing"))


def test_bad_utterances_are_left_out_and_many_are_refused(tiny, tmp_path) -> None:
    manifest = layouts.nemo(tiny, tmp_path)
    lines = manifest.read_text().splitlines()
    missing = '{"audio_filepath": "/nowhere/x.wav", "text": "one", "duration": 1}'
    manifest.write_text("\n".join([*lines, missing]))
    recipe = create_recipe(request(tmp_path, manifest))
    assert "--skip-bad" in (recipe.folder / "local/data.sh").read_text()
    manifest.write_text("\n".join([*lines, *[missing.replace("x.wav", f"{n}.wav") for n in range(10)]]))
    with pytest.raises(DataError, match="10 of 34 utterances"):
        create_recipe(request(tmp_path, manifest, name="other"))
    assert not (tmp_path / "egs/other").exists()


def test_a_corpus_with_one_bad_recording_of_two_is_refused(tmp_path, write_audio) -> None:
    write_audio(tmp_path / "good.wav", seconds=50.0)
    (tmp_path / "bad.wav").write_text("no audio")
    rows = [f"{name}.wav,one two,{n},{n + 0.9}" for name in ("good", "bad") for n in range(50)]
    (tmp_path / "half.csv").write_text("\n".join(["audio,text,start,end", *rows]))
    with pytest.raises(DataError, match="50 of 100 utterances"):
        create_recipe(request(tmp_path, tmp_path / "half.csv"))
    assert not (tmp_path / "egs/tones").exists()


def test_times_in_milliseconds_are_refused(tmp_path, write_audio) -> None:
    write_audio(tmp_path / "good.wav", seconds=20.0)
    rows = [f"good.wav,one two,{n * 1000},{n * 1000 + 900}" for n in range(20)]
    (tmp_path / "ms.csv").write_text("\n".join(["audio,text,start,end", *rows]))
    with pytest.raises(DataError, match="20 of 20 utterances"):
        create_recipe(request(tmp_path, tmp_path / "ms.csv"))


def test_a_corpus_of_long_utterances_is_refused_before_anything_is_measured(tmp_path, write_audio, monkeypatch) -> None:
    monkeypatch.setattr(create, "measure_speed", lambda *_: pytest.fail("measured"))
    write_audio(tmp_path / "long.wav", seconds=60.0)
    rows = [f"long.wav,one two,{n}" for n in range(12)]
    (tmp_path / "long.csv").write_text("\n".join(["audio,text,speaker", *rows]))
    with pytest.raises(UserError, match="100% of the audio .* too long to train on; split them"):
        create_recipe(request(tmp_path, tmp_path / "long.csv"))


def test_shell_commands_of_a_kaldi_folder_are_refused(tiny, tmp_path) -> None:
    folder = layouts.kaldi(tiny, tmp_path) / "train"
    scp = (folder / "wav.scp").read_text().replace("WAVE/", "touch ran; cat WAVE/").replace(".flac", ".flac |")
    (folder / "wav.scp").write_text(scp)
    with pytest.raises(UserError, match="shell commands"):
        create_recipe(request(tmp_path, folder))


@pytest.mark.parametrize(("layout", "options", "option"), [
    (layouts.kaldi, SourceOptions(columns={"text": "Satz"}), "--text-column"),
    (layouts.kaldi, SourceOptions(text_suffix=".txt"), "--text-suffix"),
    (layouts.nemo, SourceOptions(speaker_from="folder"), "--speaker-from"),
    (layouts.lhotse_cuts, SourceOptions(columns={"start": "from"}), "--column"),
    (layouts.lhotse_parts, SourceOptions(delimiter=","), "--delimiter"),
    (layouts.table, SourceOptions(columns=COLUMNS.columns, name_pattern="{text}_{id}"), "--name-pattern"),
])  # fmt: skip
def test_options_without_effect_for_the_layout_are_refused(tiny, tmp_path, layout, options, option) -> None:
    source = tmp_path / "corpus"
    source.mkdir()
    with pytest.raises(UserError, match=f"{option} has no effect here|{option} .*no effect"):
        create_recipe(request(tmp_path, layout(tiny, source), options=options))
    assert not (tmp_path / "egs/tones").exists()


def test_download_is_for_corpora_of_lhotse(asr, tmp_path) -> None:
    status, _, err = asr("new", "mine", "--from", tmp_path, "--download", tmp_path / "c")
    assert status == 2 and "--download has no effect here: it is for --from lhotse:NAME" in err


def test_too_few_utterances_are_refused(tiny, tmp_path) -> None:
    manifest = layouts.nemo(tiny, tmp_path)
    manifest.write_text("\n".join(manifest.read_text().splitlines()[:5]))
    with pytest.raises(UserError, match="5 utterances"):
        create_recipe(request(tmp_path, manifest))


@pytest.mark.parametrize("name", ["train", "test"])
@pytest.mark.parametrize("fault", ["no text", "no audio"])
def test_a_set_without_a_usable_utterance_is_named(tiny, tmp_path, name, fault) -> None:
    layouts.audiofolder(tiny, tmp_path)
    if name == "train":
        (tmp_path / "train").rename(tmp_path / "most")
        (tmp_path / "test").rename(tmp_path / "train")
        (tmp_path / "most").rename(tmp_path / "test")
    table = tmp_path / name / "metadata.csv"
    header, row, *_ = table.read_text().splitlines()
    audio, _, text = row.partition(",")
    (tmp_path / name / audio).write_bytes(b"" if fault == "no audio" else (tmp_path / name / audio).read_bytes())
    table.write_text(f"{header}\n{audio},{text if fault == 'no audio' else ''}\n")
    for path in (tmp_path / name).glob("*.flac"):
        if path.name != audio:
            path.unlink()
    with pytest.raises(DataError, match=f"no utterance of the set {name} .* can be used"):
        create_recipe(request(tmp_path, tmp_path))
    assert not (tmp_path / "egs/tones").exists()
