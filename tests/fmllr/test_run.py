"""`asrtool fmllr`, from manifests to transforms and hypotheses, on voices that differ by a known filter."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from asrtool.data.corpora import Utterance
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.manifest import write_manifest
from asrtool.data.speaker_transforms import load_transforms
from asrtool.fmllr.model import load_model
from asrtool.fmllr.run import _choose_cuts, train_fmllr
from asrtool.fmllr.train import align_utterances
from asrtool.fmllr.transform import apply_transform, identity_transform
from asrtool.fmllr.utterances import read_utterances
from asrtool.tensor_files import load_tensors, save_tensors
from asrtool.text.lexicon import Lexicon
from asrtool.text.tokenizer import PhoneTokenizer, save_tokenizer
from tests.tiny import RATE, tone

PHONES = {"A": 500, "B": 1100, "C": 2400}  # Hz
WORDS = {"ab": "A B", "ca": "C A", "bc": "B C", "cab": "C A B"}
VOICES = {"low": 0.85, "middle": 1.0, "high": 1.2}  # by which all frequencies of a speaker are multiplied
BINS = 20


def say(text: str, factor: float, seed: int) -> np.ndarray:
    """Returns the words as tones of 0.1 to 0.16 s, between pauses."""
    draw = np.random.default_rng(seed)
    parts = [draw.normal(0, 0.003, RATE // 5)]
    for word in text.split():
        for number, phone in enumerate(WORDS[word].split()):
            parts.append(tone(factor * PHONES[phone], draw.uniform(0.1, 0.16), seed=100 * seed + number))
    return np.concatenate([*parts, draw.normal(0, 0.003, RATE // 5)]).astype(np.float32)


def make_manifest(folder, voices, name, first_seed, each=12):
    draw = np.random.default_rng(first_seed)
    utterances = []
    for voice, factor in voices.items():
        for number in range(each):
            path = folder / f"{name}-{voice}-{number}.wav"
            text = " ".join(draw.choice(list(WORDS), 4))
            soundfile.write(path, say(text, factor, first_seed + number), RATE)
            utterances.append(Utterance(path.stem, str(path), text, speaker=voice))
    write_manifest(utterances, folder / f"{name}.jsonl.gz")
    return folder / f"{name}.jsonl.gz"


@pytest.fixture(scope="module")
def phones(tmp_path_factory):
    path = tmp_path_factory.mktemp("lang") / "tokenizer.json"
    lexicon = Lexicon({word: (tuple(text.split()),) for word, text in WORDS.items()})
    save_tokenizer(PhoneTokenizer(["<blank>", *PHONES], lexicon), path)
    return path


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voices")
    return make_manifest(folder, VOICES, "train", 1), make_manifest(folder, {"new": 1.2}, "test", 500, each=6)


@pytest.fixture(scope="module")
def model_folder(sets, phones, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "fmllr"
    summary = train_fmllr(sets[0], folder, phones, num_gaussians=40, max_hours=1.0, num_bins=BINS)
    assert "train.pt: transforms of 3 voices" in summary
    return folder


@pytest.fixture
def trained(model_folder, tmp_path):
    """The folder of the model and of the training speakers' transforms, with a place of its own."""
    return shutil.copytree(model_folder, tmp_path / "fmllr")


def test_a_new_voice_gets_a_transform_that_makes_its_words_more_likely(asr, trained, sets, tmp_path):
    status, out, err = asr("fmllr", "estimate", trained, sets[1])
    assert status == 0 and "test.pt: transforms of 1 voices" in out
    model = load_model(trained)
    transform = load_tensors(trained / "test.pt", "", "")["speaker_transforms"]["new"].double()
    gain = 0.0
    for aligned in align_utterances(model.mixtures, read_utterances(sets[1], model.tokenizer, BINS)):
        for matrix, sign in ((transform, 1), (identity_transform(BINS), -1)):
            frames = apply_transform(matrix, aligned.utterance.frames)
            likelihoods = model.mixtures.state_log_likelihoods(frames).gather(1, aligned.states[:, None])
            gain += sign * float(likelihoods.sum() + len(frames) * torch.linalg.slogdet(matrix[:, :-1]).logabsdet)
    assert gain > 0


def test_hypotheses_take_the_place_of_the_texts(asr, trained, sets, tmp_path):
    rows = [{"id": cut.id, "ref": "", "hyp": cut.supervisions[0].text} for cut in open_cuts(sets[1])]
    result = tmp_path / "decode/test/graph"
    result.mkdir(parents=True)
    (result / "hyps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert asr("fmllr", "estimate", trained, sets[1])[0] == 0
    assert asr("fmllr", "estimate", trained, sets[1], "--hyps", result, "--out", tmp_path / "own.pt")[0] == 0
    expected = load_tensors(trained / "test.pt", "", "")["speaker_transforms"]["new"]
    assert torch.equal(load_tensors(tmp_path / "own.pt", "", "")["speaker_transforms"]["new"], expected)
    for row in rows:
        row["hyp"] = "ca"
    (result / "hyps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert asr("fmllr", "estimate", trained, sets[1], "--hyps", result, "--out", tmp_path / "own.pt")[0] == 0
    assert not torch.equal(expected, load_tensors(tmp_path / "own.pt", "", "")["speaker_transforms"]["new"])


@pytest.mark.parametrize("kept", [0, 4])
def test_hypotheses_of_other_utterances_are_refused(asr, trained, sets, tmp_path, kept):
    """No transforms are written that would be the identity, or learned from a part of the speech."""
    ids = [cut.id for cut in open_cuts(sets[1])]
    rows = [{"id": name, "ref": "", "hyp": "ca"} for name in [*ids[:kept], "other"]]
    (tmp_path / "hyps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, err = asr("fmllr", "estimate", trained, sets[1], "--hyps", tmp_path)
    assert status == 1 and f"{tmp_path} has no hypotheses of {len(ids) - kept} cuts" in err
    assert all(f"{name}: not among the hypotheses" in err for name in ids[kept:])
    assert not (trained / "test.pt").exists()


def write_two_speakers(path, order):
    """Writes a manifest of 60 cuts of 60 s, whose speakers are in this order, and of which the audio does not exist."""

    def cut(number):
        recording = Recording(f"r{number}", [AudioSource("file", [0], "/none")], RATE, 60 * RATE, 60.0)
        supervision = SupervisionSegment(f"s{number}", f"r{number}", 0, 60.0, text="ab", speaker=order[number])
        return MonoCut(f"c{number}", 0, 60.0, 0, [supervision], recording=recording)

    CutSet.from_cuts(map(cut, range(60))).to_file(path)


@pytest.mark.parametrize("order", ["ab" * 30, "aaab" * 15, "a" * 30 + "b" * 30])
@pytest.mark.parametrize("max_hours", [0.45, 0.5, 0.3])
def test_the_gmm_learns_from_all_speakers_and_not_from_more_hours_than_the_limit(tmp_path, order, max_hours):
    """Also where the speakers alternate in the manifest."""
    write_two_speakers(tmp_path / "cuts.jsonl.gz", order)
    chosen = _choose_cuts(tmp_path / "cuts.jsonl.gz", max_hours)
    assert 60 * max_hours - 1 <= len(chosen) <= 60 * max_hours
    assert {order[int(name[1:])] for name in chosen} == {"a", "b"}
    assert _choose_cuts(tmp_path / "cuts.jsonl.gz", 2.0) == {f"c{number}" for number in range(60)}


def test_a_training_takes_the_transforms_of_its_speakers(asr, trained, sets, phones, tmp_path):
    (tmp_path / "conf.yaml").write_text(
        f"features: {{num_bins: {BINS}}}\ndata: {{train: {sets[0]}, dev: {sets[1]}, tokenizer: {phones}, workers: 0,"
        " batch_seconds: 10, num_buckets: 2}\n"
        "model: {subsampling: {channels: 4}, dim: 16, layers: 1, heads: 2, ff_dim: 32}\n"
        "training: {max_steps: 2, warmup_steps: 1, validate_every: 2, log_every: 1}\n"
    )
    exp = tmp_path / "exp"
    options = ["--set", f"data.speaker_transforms={trained / 'train.pt'}"]
    status, _, err = asr("train", tmp_path / "conf.yaml", "--exp", exp, *options)
    assert status == 0, err
    assert asr("fmllr", "estimate", trained, sets[1])[0] == 0
    assert asr("decode", exp, sets[1])[0] == 0
    status, _, err = asr("decode", exp, sets[1], "--transforms", trained / "test.pt")
    assert status == 0, err
    rows = [(exp / f"decode/test/{name}/hyps.jsonl").read_text() for name in ("greedy", "greedy_fmllr")]
    assert rows[0] != rows[1]
    facts = json.loads((exp / "decode/test/greedy_fmllr/decode.json").read_text())
    assert facts["transforms"] == str(trained / "test.pt")
    status, _, err = asr("decode", exp, sets[1], "--transforms", trained / "train.pt", "--tag", "wrong")
    assert status == 1 and "no transforms of 1 speakers" in err and "new" in err
    status, _, err = asr("adapt", exp, sets[1], "--transforms", trained / "test.pt", "--epochs", 1, "--workers", 0)
    assert status == 0, err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("means"), "not a GMM"),
        (lambda state: state.update(variances=-state["variances"]), "not a GMM"),
        (lambda state: state.update(states=torch.zeros_like(state["states"])), "a state has no Gaussian"),
        (lambda state: state.update(num_states=7), "states"),
        (lambda state: state["means"].fill_(float("nan")), "not finite"),
        (lambda state: state.update(outer=state["outer"][1:]), "dimensions"),
    ],
    ids=["missing", "negative", "empty state", "other phones", "nan", "other size"],
)
def test_a_damaged_gmm_is_one_line(asr, trained, sets, change, message):
    state = load_tensors(trained / "gmm.pt", "", "")
    change(state)
    save_tensors(trained / "gmm.pt", state)
    status, _, err = asr("fmllr", "estimate", trained, sets[1])
    assert status == 2 and message in err and len(err.strip().splitlines()) == 1


def test_what_cannot_be_used_is_one_line(asr, trained, sets, phones, tokenizer_file, corpus, tmp_path):
    status, _, err = asr("fmllr", "train", sets[0], tmp_path / "x", "--tokenizer", tokenizer_file)
    assert status == 2 and "has no phones" in err
    status, _, err = asr("fmllr", "estimate", tmp_path / "nowhere", sets[1])
    assert status == 2 and "gmm.pt" in err
    status, _, err = asr("fmllr", "train", corpus, tmp_path / "x", "--tokenizer", phones, "--num-bins", BINS)
    assert status == 1 and "pronunciations" in err


@pytest.mark.parametrize("content", ["tokenizer.json", "config.yaml", "train.pt"])
def test_a_folder_of_another_command_is_refused_and_unchanged(asr, sets, phones, tmp_path, content):
    folder = tmp_path / "exp"
    folder.mkdir()
    (folder / content).write_text("not of fmllr")
    given = phones
    if content == "tokenizer.json":
        given = shutil.copy(phones, folder / content)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    status, _, err = asr("fmllr", "train", sets[0], folder, "--tokenizer", given, "--num-bins", BINS)
    assert status == 2 and "not written by `asrtool fmllr train`" in err and len(err.splitlines()) == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_input_in_the_folder_of_the_model_is_refused(asr, trained, sets):
    before = (trained / "tokenizer.json").read_bytes()
    status, _, err = asr("fmllr", "train", sets[0], trained, "--tokenizer", trained / "tokenizer.json")
    assert status == 2 and "which has the input" in err
    assert (trained / "tokenizer.json").read_bytes() == before


def test_a_model_is_trained_again_in_its_folder_and_by_one_process_only(asr, trained, sets, phones):
    command = ("fmllr", "train", sets[0], trained, "--tokenizer", phones, "--num-bins", BINS, "--gaussians", 30)
    hold = (
        "import sys, time\nfrom asrtool.locks import write_lock\nwith write_lock(sys.argv[1], 'asrtool fmllr train'):"
    )
    holding = [sys.executable, "-c", hold + "\n    print('held', flush=True); time.sleep(60)", trained]
    with subprocess.Popen(holding, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        status, _, err = asr(*command)
        assert status == 2 and f"in use by asrtool fmllr train (process {holder.pid} on" in err
        holder.kill()
    status, out, err = asr(*command)
    assert status == 0 and "train.pt: transforms of 3 voices" in out, err


def test_transforms_replace_neither_the_model_nor_another_file(asr, trained, sets, phones, tmp_path):
    manifest = shutil.copy(sets[0], tmp_path / "gmm.jsonl.gz")
    before = (trained / "gmm.pt").read_bytes()
    status, _, err = asr("fmllr", "train", manifest, trained, "--tokenizer", phones, "--num-bins", BINS)
    assert status == 2 and "would replace the model" in err
    status, _, err = asr("fmllr", "train", manifest, tmp_path / "x", "--tokenizer", phones, "--num-bins", BINS)
    assert status == 2 and "would replace the model" in err and not (tmp_path / "x").exists()
    assert asr("fmllr", "estimate", trained, manifest)[0] == 2
    assert (trained / "gmm.pt").read_bytes() == before
    other = tmp_path / "averaged.pt"
    save_tensors(other, {"model": {}})
    status, _, err = asr("fmllr", "estimate", trained, sets[1], "--out", other)
    assert status == 2 and "which exists and is not a file of speaker transforms" in err
    assert load_tensors(other, "", "") == {"model": {}}


def test_wrong_files_of_transforms(trained, tmp_path):
    with pytest.raises(Exception, match="bins"):
        load_transforms(trained / "train.pt", 80)
    with pytest.raises(Exception, match="not a file of speaker transforms"):
        load_transforms(trained / "gmm.pt", BINS)


def test_a_speaker_whose_words_are_not_known_keeps_the_features(asr, trained, sets, tmp_path):
    rows = [{"id": cut.id, "ref": "", "hyp": ""} for cut in open_cuts(sets[1])]
    result = tmp_path / "decode/test/graph"
    result.mkdir(parents=True)
    (result / "hyps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, err = asr("fmllr", "estimate", trained, sets[1], "--hyps", result)
    assert status == 0 and "no words to estimate the transforms of new" in err
    features = torch.randn(50, BINS)
    transforms = load_transforms(trained / "test.pt", BINS)
    assert torch.allclose(transforms.apply(features, "new"), features, atol=1e-4)
