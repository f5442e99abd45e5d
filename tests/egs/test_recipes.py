"""Recipes run as a user runs them: `bash egs/NAME/run.sh`, in a work folder of their own."""

import fcntl
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from asrtool.text.lexicon import read_lexicon
from tests.egs.recipes import LINE, ROOT, environment, preloaded_environment, run, tiny_config


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """The digits recipe, run whole as a user does on a tiny corpus; returns its work folder, options and output."""
    pytest.importorskip("espeakng_loader", reason="espeakng-loader is not installed: no voices for the digits recipe")
    work = tmp_path_factory.mktemp("my digits")
    conf = tiny_config(work, ROOT / "egs/digits/conf/transformer.yaml")
    options = ["--work", work, "--conf", conf, "--train", 24, "--dev", 8, "--test", 8]
    return work, options, run("digits", *options, env=environment())


def graph_of(exp: Path) -> str:
    """The graph that a dev set was decoded in, relative to the work folder."""
    return json.loads((exp / "decode/dev/graph/decode.json").read_text())["graph"]


def test_digits_runs_from_no_data_to_a_word_error_rate(digits):
    work, _, output = digits
    assert [name for name, _ in LINE.findall(output)] == ["dev", "test"] * 3
    exp = work / "exp/tiny_seed1"
    for name in ["config.yaml", "loss.png", "checkpoints/averaged.pt", "results.txt"]:
        assert (exp / name).is_file(), name
    for method in ["greedy", "prefix", "graph"]:
        folder = exp / "decode/test" / method
        assert json.loads((folder / "wer.json").read_text())["set"] == "test"
        assert len((folder / "hyps.jsonl").read_text().splitlines()) == 8


def test_a_second_run_repeats_no_stage(digits):
    _, options, _ = digits
    output = run("digits", *options)
    assert output.count("already done and unchanged") == 6
    assert not LINE.search(output)


@pytest.mark.slow
def test_another_seed_trains_again_on_the_same_data(digits):
    work, options, _ = digits
    output = run("digits", *options, "--seed", 2)
    assert output.count("already done and unchanged") == 3
    assert (work / "exp/tiny_seed2/results.txt").is_file()


def combine(*options: object, status: int = 0) -> str:
    """Runs local/combine.sh; returns its output."""
    command = ["bash", str(ROOT / "local/combine.sh"), *map(str, options)]
    done = subprocess.run(
        command, env=preloaded_environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert done.returncode == status, done.stdout
    return done.stdout


@pytest.mark.slow
def test_systems_are_combined_and_adapted_to_the_words_of_each_other(digits):
    work, options, _ = digits
    run("digits", *options, "--seed", 5, "--stop-stage", 5, "--decode", "graph")
    output = combine("--work", work, "--systems", "exp/tiny_seed1 exp/tiny_seed5", "--method", "graph", "--rounds", 1)
    assert re.findall(r"^(Round \d):", output, re.MULTILINE) == ["Round 0", "Round 1"]
    assert len(LINE.findall(output)) == 2 * 2 * 3  # rounds, sets, and two systems with their combination
    for name in ["dev", "test"]:
        result = work / "exp/combined/decode" / name / "graph_round1"
        made_of = json.loads((result / "decode.json").read_text())
        for system in ["exp/tiny_seed1", "exp/tiny_seed5"]:
            folder = work / system / "decode" / name / "graph_adapted-round1"
            assert str(folder.relative_to(work)) in json.dumps(made_of)
            assert (folder / "wer.json").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--systems", "exp/tiny_seed1"], "two systems or more"),
        (["--systems", "exp/tiny_seed1 exp/none", "--method", "graph"], "no results in .*exp/none/decode/dev/graph"),
        (["--systems", "exp/a exp/b", "--method", "greedy"], "--method is graph, rescored or neural"),
        (["--systems", "exp/a exp/b", "--rounds", "-1"], "--rounds is a number"),
        (["--systems", "exp/a exp/b", "--work", "exp"], "no such folder"),
        ([], "two systems or more"),
        (["--systems", "exp/a exp/b", "--work", Path(__file__).parent], "--sets: which sets"),
    ],
)
def test_wrong_options_of_combine_are_one_line(digits, options, message):
    output = combine("--work", digits[0], *options, status=2)
    assert len(output.splitlines()) == 1 and re.search(message, output), output


@pytest.mark.slow
def test_ctrl_c_in_a_stage_stops_it_and_the_same_command_continues(digits, tmp_path):
    work, options, _ = digits
    command = ["bash", str(ROOT / "egs/digits/run.sh"), *map(str, [*options, "--work", tmp_path])]
    for stage in [0, 1, 2, 4, 5]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        listening = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # though the tests may not be
        started = subprocess.Popen(command, env=environment(), text=True, start_new_session=True, **pipes, **listening)
        output = ""
        while f"Stage {stage}:" not in output:
            output += started.stdout.readline()
        time.sleep(0.5)  # into the stage's own work, or the start of its Python
        os.killpg(started.pid, signal.SIGINT)
        output += started.communicate(timeout=60)[0]
        assert started.returncode == 130, output
        assert "Traceback" not in output
    assert "Stage 6: wrote" in run("digits", *options, "--work", tmp_path)
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.slow
def test_a_warmup_comes_before_the_training_and_both_run_once(digits):
    work, options, _ = digits
    options = [*options, "--seed", 3, "--warmup-hours", 0.005, "--stop-stage", 4]
    output = run("digits", *options)
    assert "Stage 3: warmup on one machine (0.005 hours of audio)" in output
    assert "initialised from exp/tiny_seed3/warmup/checkpoints/warmup.pt: its weights, a new optimizer" in output
    assert run("digits", *options).count("already done and unchanged") == 5


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["mmi", "ce"])
def test_other_objectives_start_from_a_ctc_system(digits, objective):
    work, options, _ = digits
    options = [*options, "--units", "phone", "--objective", objective, "--decode", "graph"]
    output = run("digits", *options)
    exp = work / f"exp/tiny_phone_{objective}_seed1"
    assert [name for name, _ in LINE.findall(output)] == ["dev", "test"]
    assert (work / "exp/tiny_phone_seed1/checkpoints/averaged.pt").is_file()
    assert (exp / "config.yaml").read_text().count(f"kind: {objective}") == 1
    assert (exp / "priors.json").is_file() == (objective == "ce")
    counted = read_lexicon(exp / "pronunciations/lexicon.txt")  # of the alignment, for a graph of this system
    assert counted.pronunciations.keys() == read_lexicon(work / "data/lang_phone/lexicon.txt").pronunciations.keys()
    assert graph_of(exp) == f"exp/{exp.name}/graph"
    assert run("digits", *options).count("already done and unchanged") == 6


@pytest.mark.slow
def test_from_names_the_system_to_start_from(digits):
    work, options, _ = digits
    options = [*options, "--objective", "mmi", "--stop-stage", 4]
    log = (work / "exp/tiny_seed1/log.jsonl").read_bytes()
    output = run("digits", *options, "--from", work / "exp/tiny_seed1")
    assert f"initialised from {work / 'exp/tiny_seed1/checkpoints/averaged.pt'}: its weights, a new optimizer" in output
    assert (work / "exp/tiny_seed1/log.jsonl").read_bytes() == log  # it is not trained again


@pytest.mark.slow
def test_units_in_context_are_grown_on_alignments_of_the_phone_system(digits, tmp_path):
    work, _, _ = digits
    conf = tiny_config(tmp_path, ROOT / "egs/librispeech/conf/transformer_small.yaml")
    parts = ["--train-parts", "train-digits", "--dev-parts", "dev-digits", "--test-parts", "test-digits"]
    options = [*parts, "--corpus-dir", next((work / "download").iterdir()), "--speeds", 1.0, "--conf", conf]
    options += ["--units", "biphone", "--leaves", 30, "--objective", "mmi", "--decode", "graph", "--work", tmp_path]
    output = run("librispeech", *options, "--stop-stage", 6)
    assert "units (biphone)" in output
    assert [name for name, _ in LINE.findall(output)] == ["dev", "test-digits"]
    tokenizer = json.loads((tmp_path / "exp/tiny_biphone_mmi_seed1/tokenizer.json").read_text())
    phones = json.loads((tmp_path / "exp/tiny_phone_seed1/tokenizer.json").read_text())
    assert (tokenizer["type"], tokenizer["phones"]) == ("biphone", phones)
    assert len(phones["symbols"]) <= len(tokenizer["symbols"]) <= 31  # the default --min-count splits little here
    assert graph_of(tmp_path / "exp/tiny_biphone_mmi_seed1") == "exp/tiny_biphone_mmi_seed1/graph"
    assert run("librispeech", *options, "--stop-stage", 6).count("already done and unchanged") == 6


@pytest.mark.slow
@pytest.mark.parametrize(("units", "objective"), [("phone", "mmi"), ("biphone", "ce")])
def test_systems_of_topology_hmm_have_folders_of_their_own(digits, units, objective):
    work, options, _ = digits
    options = [*options, "--units", units, "--leaves", 30, "--objective", objective, "--topology", "hmm"]
    options += ["--pronunciation-hours", 0]
    output = run("digits", *options)
    assert [name for name, _ in LINE.findall(output)] == ["dev", "test"]  # of the graph; greedy has phone error rates
    lang, exp = work / f"data/lang_{units}_hmm", work / f"exp/tiny_{units}_{objective}_seed1_hmm"
    assert json.loads((lang / "graph/graph.json").read_text())["topology"] == "hmm"
    tokenizer = json.loads((exp / "tokenizer.json").read_text())
    assert tokenizer.get("phones", tokenizer)["silence"] == "SIL"
    for name in [exp, work / f"exp/tiny_{units}_seed1_hmm", work / "exp/tiny_phone_seed1_hmm"]:
        assert yaml.safe_load((name / "config.yaml").read_text())["objective"]["topology"] == "hmm"
    assert {path.name for path in (exp / "decode/test").iterdir()} == {"greedy", "graph"}
    assert (exp / "priors.json").is_file() == (objective == "ce")
    assert graph_of(exp) == f"data/lang_{units}_hmm/graph"
    assert run("digits", *options).count("already done and unchanged") == 6


@pytest.mark.slow
def test_topology_hmm_starts_from_a_system_of_another_topology_with_a_new_output_layer(digits):
    work, options, _ = digits
    options = [*options, "--units", "phone", "--objective", "mmi", "--topology", "hmm", "--tag", "from_ctc"]
    output = run("digits", *options, "--from", work / "exp/tiny_seed1", "--stop-stage", 4)
    assert "exp/tiny_seed1/checkpoints/averaged.pt: its weights with a new output layer" in output
    assert (work / "exp/tiny_phone_mmi_seed1_hmm_from_ctc/checkpoints/averaged.pt").is_file()


@pytest.mark.parametrize(("options", "message"), [
    (["--units", "word"], "--topology hmm needs a unit of silence: --units phone, biphone or triphone"),
    (["--units", "phone", "--decode", "prefix"], "--decode prefix is for models with a blank"),
])  # fmt: skip
def test_options_that_do_not_fit_topology_hmm(options, message, tmp_path):
    output = run("digits", *options, "--topology", "hmm", "--work", tmp_path, status=2)
    assert len(output.splitlines()) == 1 and f"error: {message}" in output


def test_a_configuration_of_topology_hmm_needs_the_option(tmp_path):
    options = ["--units", "phone", "--set", "objective.topology=hmm", "--work", tmp_path]
    output = run("digits", *options, status=2)
    assert len(output.splitlines()) == 1 and "give --topology hmm" in output


@pytest.mark.slow
def test_several_processes_train_together(digits):
    _, options, _ = digits
    output = run("digits", *options, "--seed", 4, "--ranks", 2, "--stop-stage", 4)
    assert "(20 s x 1 batches x 2 ranks)" in output and "Stage 4: wrote" in output


@pytest.mark.slow
def test_librispeech_reads_the_same_layout_and_a_model_with_chunks_streams(digits, tmp_path):
    work, _, _ = digits
    conf = tiny_config(tmp_path, ROOT / "egs/librispeech/conf/transformer_small.yaml")
    config = yaml.safe_load(conf.read_text())
    config["model"] |= {"normalise": "global", "mask": "chunk", "chunk_size": 4, "memory": 8}
    conf.write_text(yaml.safe_dump(config))
    parts = ["--train-parts", "train-digits", "--dev-parts", "dev-digits", "--test-parts", "test-digits"]
    parts += ["--corpus-dir", next((work / "download").iterdir()), "--vocab-size", 30, "--speeds", 1.0]
    output = run("librispeech", *parts, "--work", tmp_path, "--conf", conf)
    scores = output[: output.index("Stage 7: stream")]
    assert [name for name, _ in LINE.findall(scores)] == ["dev", "test-digits"] * 4
    exp = tmp_path / "exp/tiny_seed1"
    for name in ["dev", "test-digits"]:
        for method in ["greedy", "graph"]:
            facts = json.loads((exp / "stream" / name / method / "stream.json").read_text())
            assert facts["offline"]["same_percent"] == 100 and (exp / "stream" / name / method / "wer.json").is_file()
    assert output.count("latency of features and model") == 6
    assert (exp / "export/model.onnx").is_file() and (exp / "export/step.onnx").is_file()
    assert "tiny_seed1" in (tmp_path / "exp/RESULTS.md").read_text()
    given = {"acoustic_scale": 0.9, "blank_penalty": 0.25, "insertion_penalty": 0.5}
    (tmp_path / "weights.json").write_text(json.dumps({"best": given}))
    options = ["--decode", "graph adapted adapted", "--decoding-weights", tmp_path / "weights.json"]
    options += ["--stage", 5, "--stop-stage", 6]
    output = run("librispeech", *parts, "--work", tmp_path, "--conf", conf, *options)
    assert "lattices:" not in output and "graph_adapted2:" in output
    assert [name for name, _ in LINE.findall(output)] == ["dev", "test-digits"] * 3
    for name in ["dev", "test-digits"]:
        for method in ["graph", "graph_adapted", "graph_adapted2"]:
            facts = json.loads((exp / "decode" / name / method / "decode.json").read_text())
            assert {name: facts[name] for name in given} == given
        speakers = {json.loads(line)["speaker"] for line in (exp / "decode" / name / "graph/hyps.jsonl").open()}
        assert {path.stem for path in (exp / "adapted2" / name).glob("*.pt")} == speakers
        assert facts["adapted"].endswith(f"adapted2/{name}") and facts["adapted_round"] == 2
        learnt = json.loads((exp / "adapted2" / name / f"{speakers.pop()}.json").read_text())
        assert learnt["source"].endswith(f"decode/{name}/graph_adapted") and learnt["rtf_before"] > 0
    trained = yaml.safe_load((exp / "config.yaml").read_text())
    trained["model"] |= {"mask": "full", "chunk_size": None, "memory": None}
    (exp / "config.yaml").write_text(yaml.safe_dump(trained))
    output = run("librispeech", *parts, "--work", tmp_path, "--conf", conf, "--stage", 7, "--stop-stage", 7)
    assert "The model of exp/tiny_seed1 needs whole utterances: nothing to do" in output


@pytest.mark.slow
def test_librispeech_takes_a_speaker_list_for_dev(digits, tmp_path):
    work, _, _ = digits
    corpus = next((work / "download").iterdir())
    speakers = sorted(path.name for path in (corpus / "LibriSpeech/train-digits").iterdir())
    run(
        "librispeech", "--corpus-dir", corpus, "--train-parts", "train-digits", "--test-parts", "dev-digits",
        "--dev-speakers", ",".join(speakers[:2]), "--test-speakers", "2/3", "--work", tmp_path,
        "--stop-stage", 0,
    )  # fmt: skip
    from lhotse import CutSet

    speakers_of = {name: {c.supervisions[0].speaker for c in CutSet.from_file(tmp_path / f"data/{name}.jsonl.gz")}
             for name in ["train", "dev", "held_out"]}  # fmt: skip
    others = sorted(speakers[2:], key=int)
    held_out = set(others[1::3])
    assert speakers_of == {"train": set(others) - held_out, "dev": set(speakers[:2]), "held_out": held_out}
    assert (tmp_path / "data/scored_sets").read_text() == "dev held_out dev-digits\n"


@pytest.mark.parametrize("held", [fcntl.LOCK_SH, fcntl.LOCK_EX])
def test_a_recipe_that_prepares_data_has_its_work_folder_alone(tmp_path, held):
    with open(tmp_path / ".lock", "w") as lock:
        fcntl.flock(lock, held)
        output = run("digits", "--work", tmp_path, "--train", 4, status=2)
        assert "another recipe runs in the work folder" in output.splitlines()[-1]
        listed = run("digits", "--work", tmp_path, "--list", "true")
    assert "stage" in listed and not (tmp_path / "data").exists()


def test_trainings_share_a_work_folder(digits):
    work, options, _ = digits
    with open(work / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        output = run("digits", *options, "--stop-stage", 4)
    assert output.count("already done and unchanged") == 4


@pytest.mark.parametrize("recipe", ["digits", "yesno", "librispeech"])
@pytest.mark.parametrize("options", [["--stage", "9"], ["--stage", "x"], ["--stage", "3", "--stop-stage", "2"],
                                     ["--stagee", "1"], ["--stage"], ["train"], ["--ranks", "0"],
                                     ["--warmup-hours", "x"], ["--units", "words"], ["--objective", "mse"],
                                     ["--topology", "one-state"], ["--from", "exp/x"], ["--decode", "beam"],
                                     ["--decode", "adapted"], ["--decode", "adapted graph"],
                                     ["--decode", "graph adapted greedy"],
                                     ["--decoding-weights", "x.json"], ["--conf", "conf/x.yaml"]])  # fmt: skip
def test_a_wrong_option_prints_one_line_and_exits_with_status_2(recipe, options, tmp_path):
    output = run(recipe, *options, status=2)
    assert len(output.splitlines()) == 1 and "error:" in output


@pytest.mark.parametrize("recipe", ["yesno", "librispeech"])
def test_a_missing_corpus_is_named(recipe, tmp_path):
    output = run(recipe, "--corpus-dir", tmp_path / "nowhere", "--work", tmp_path, status=2)
    assert f"{tmp_path / 'nowhere'}" in output and "Traceback" not in output
    assert not list(tmp_path.glob("data/*.jsonl.gz"))


def yesno_corpus() -> Path:
    """The real corpus, when ASRTOOL_CORPORA has it."""
    corpora = os.environ.get("ASRTOOL_CORPORA")
    if not corpora or not (Path(corpora) / "yesno/waves_yesno").is_dir():
        pytest.skip("no yesno corpus: set ASRTOOL_CORPORA to a folder that has yesno/waves_yesno")
    return Path(corpora) / "yesno"


@pytest.mark.slow
@pytest.mark.corpus
def test_yesno_has_at_most_one_error_in_240_words(tmp_path):
    run("yesno", "--corpus-dir", yesno_corpus(), "--work", tmp_path)
    for method in ["greedy", "prefix"]:
        score = json.loads((tmp_path / f"exp/transformer_seed1/decode/test/{method}/wer.json").read_text())
        words = score["words"]
        assert words["length"] == 240
        assert words["errors"] <= 1
