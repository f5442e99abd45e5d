"""Cuts that cannot be loaded are named, cost no other cut, and never make a loader wait for ever."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import soundfile
import torch
from lhotse import CutSet

from asrtool.config_file import save_config
from asrtool.data import loading, sampling
from asrtool.data.augment_audio import audio_change
from asrtool.data.batch import Position
from asrtool.data.corpora import Utterance
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.manifest import write_manifest
from asrtool.data.samples import load_samples
from asrtool.data.sampling import CutBatch, OrderedSampler, TrainingSampler
from asrtool.data.shards import entries
from asrtool.data.sources import InvalidEntry
from asrtool.errors import DataError, UserError
from asrtool.text.tokenizer import load_tokenizer


@pytest.fixture
def cuts(corpus) -> list:
    return list(open_cuts(corpus))


@pytest.fixture
def manifest(tmp_path):
    """manifest(cuts) -> the path of a manifest of them."""

    def write(cuts):
        CutSet.from_cuts(cuts).to_file(tmp_path / "m.jsonl.gz")
        return tmp_path / "m.jsonl.gz"

    return write


def clip(cut, seconds):
    """A cut of the first `seconds`, with its whole transcript."""
    return replace(cut, duration=seconds, supervisions=[replace(cut.supervisions[0], duration=seconds)])


def test_cuts_shorter_than_a_frame_are_listed_as_skipped_with_a_reason(tiny_config, cuts, manifest):
    path = manifest([cuts[0], clip(cuts[1], 0.006), clip(cuts[2], 1e-7), clip(cuts[3], 0.00875)])
    dataset = SpeechDataset(tiny_config(), None, training=False)
    (batch,) = load_batches(dataset, OrderedSampler(path, 100.0), 0)
    assert batch.ids == [cuts[0].id, cuts[3].id]
    assert batch.feature_lens.tolist()[1] == 1
    assert [tuple(skipped) for skipped in batch.skipped] == [
        (
            cut.id,
            cut.supervisions[0].text,
            cut.supervisions[0].speaker,
            "shorter than one frame, which needs 8.75 ms of audio",
        )
        for cut in (cuts[1], cuts[2])
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_may_have_only_skipped_cuts(tiny_config, cuts, manifest, tokenizer_file, workers):
    path = manifest([clip(cuts[1], 0.006)])
    dataset = SpeechDataset(tiny_config(), load_tokenizer(tokenizer_file), training=False)
    (batch,) = load_batches(dataset, OrderedSampler(path, 100.0), workers)
    assert (batch.ids, len(batch.skipped)) == ([], 1)
    shapes = [tuple(value.shape) for value in (batch.features, batch.feature_lens, batch.targets, batch.target_lens)]
    assert shapes == [(0, 0, 20), (0,), (0, 0), (0,)]
    assert batch.feature_lens.dtype == batch.targets.dtype == torch.int64


@pytest.mark.parametrize("speeds", [[1.0], [0.9, 1.1]])
def test_training_leaves_out_cuts_that_lack_a_frame_at_the_fastest_speed(tiny_config, cuts, manifest, speeds):
    path = manifest([cuts[0], clip(cuts[1], 0.0088), clip(cuts[2], 0.03)])
    config = tiny_config(data={"train": str(path), "min_seconds": 0.001, "augment": {"speeds": speeds}})
    dataset = SpeechDataset(config, None, training=True)
    loaded = list(islice(load_batches(dataset, TrainingSampler(config.data, config.seed), 0), 10))
    assert {name for batch in loaded for name in batch.ids} == {cuts[0].id, cuts[2].id}


def test_all_cuts_that_would_be_misread_are_listed_at_once(cuts, manifest):
    (supervision,) = cuts[4].supervisions
    both = replace(cuts[4], supervisions=[supervision, replace(supervision, id="b")])
    path = manifest([*cuts[:4], both, replace(cuts[5], recording=None), cuts[1], cuts[2], cuts[2]])
    with pytest.raises(DataError) as caught:
        list(OrderedSampler(path, 10.0, frozenset([cuts[2].id])))
    assert [problem.split(":")[0] for problem in caught.value.problems] == [cuts[n].id for n in (4, 5, 1)]
    assert str(path) in caught.value.summary


def test_problems_in_a_later_block_are_reported(monkeypatch, cuts, manifest):
    monkeypatch.setattr(sampling, "BLOCK_CUTS", 4)
    with pytest.raises(DataError, match="duplicate id"):
        list(OrderedSampler(manifest([*cuts[:10], cuts[0]]), 10.0))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("training", [False, True])
def test_a_sample_that_is_not_finite_is_an_error_with_the_name_of_its_cut(
    tiny_config, cuts, manifest, tmp_path, tokenizer_file, workers, training
):
    samples, rate = soundfile.read(cuts[3].recording.sources[0].source, dtype="float32")
    samples[5000] = np.inf
    soundfile.write(tmp_path / "inf.wav", samples, rate, "FLOAT")
    cuts[3].recording.sources[0].source = str(tmp_path / "inf.wav")
    config = tiny_config(data={"train": str(manifest(cuts[:6])), "augment": {"volume": [0.5, 2.0]}})
    dataset = SpeechDataset(config, load_tokenizer(tokenizer_file), training)
    sampler = TrainingSampler(config.data, config.seed) if training else OrderedSampler(config.data.train, 10.0)
    with pytest.raises(DataError) as caught:
        list(islice(load_batches(dataset, sampler, workers), 20))
    assert caught.value.problems == [f"{cuts[3].id}: the sample at 0.312 s is inf; samples must lie between -1 and 1"]


def noise_manifest(folder, samples):
    soundfile.write(folder / "hum.wav", samples, 16000, "FLOAT")
    (source, recording) = (folder / "hum.wav", "hum")
    write_manifest([Utterance(recording, str(source), "noise")], folder / "noise.jsonl.gz")
    return folder / "noise.jsonl.gz", source


def test_noise_that_is_not_finite_is_named_instead_of_the_speech(tiny_config, cuts, tmp_path):
    samples = np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    path, source = noise_manifest(tmp_path, samples)
    samples[:] = np.nan
    soundfile.write(source, samples, 16000, "FLOAT")
    augment = tiny_config(data={"augment": {"noise": str(path), "noise_probability": 1.0}}).data.augment
    with pytest.raises(InvalidEntry, match=r"^hum: the sample at 0\.000 s is nan"):
        audio_change(cuts[0], augment, 1, 0)(load_samples(cuts[0]))


def test_a_very_short_noise_is_refused_by_name(tiny_config, cuts, tmp_path):
    path, _ = noise_manifest(tmp_path, np.full(800, 0.1, np.float32))
    augment = tiny_config(data={"augment": {"noise": str(path), "noise_probability": 1.0}}).data.augment
    with pytest.raises(UserError, match=r"data\.augment\.noise .*: hum: .* at least 0\.1 s"):
        audio_change(cuts[0], augment, 1, 0)(load_samples(cuts[0]))


@pytest.mark.parametrize("training", [False, True])
def test_a_cut_above_the_limit_is_refused_before_it_is_read(tiny_config, cuts, corpus, training):
    dataset = SpeechDataset(tiny_config(), None, training, max_seconds=0.6)
    few = [entry for entry in entries(corpus) if entry.duration > 0.6][:1]
    problem = dataset[CutBatch(Position(), few, Position())]
    assert f"{few[0].id}: {few[0].duration / 60:.3g} minutes long, more than --max-minutes 0.01" in str(problem)


def test_a_batch_crosses_processes_without_shared_memory_or_descriptors(tiny_config, corpus):
    dataset = SpeechDataset(tiny_config(), None, training=False)
    item = next(iter(OrderedSampler(corpus, 10.0)))
    sent = loading._to_arrays(dataset[item])
    assert not any(isinstance(value, torch.Tensor) for value in vars(sent).values())
    got = loading._convert_fields(pickle.loads(pickle.dumps(sent)), np.ndarray, torch.from_numpy)
    assert torch.equal(got.features, dataset[item].features)
    got.features[0, 0] = 1.0  # it can be written to, as training may


def test_a_killed_loader_process_is_one_error_line_with_the_remedy(tiny_config, tokenizer_file):
    config = tiny_config()
    stream = load_batches(
        SpeechDataset(config, load_tokenizer(tokenizer_file), True), TrainingSampler(config.data, config.seed), 1
    )
    next(stream)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(UserError, match=r"a loader process was killed; .* lower data\.workers \(1"):
        list(islice(stream, 50))


def test_a_loader_process_leaves_sigterm_to_the_training(tiny_config, tokenizer_file):
    """A scheduler sends the signal to all processes; the training takes its step and writes a checkpoint."""
    config = tiny_config()
    dataset = SpeechDataset(config, load_tokenizer(tokenizer_file), True)
    stream = load_batches(dataset, TrainingSampler(config.data, config.seed), 1)
    next(stream)
    (worker,) = multiprocessing.active_children()
    subprocess.run(["kill", "-TERM", str(worker.pid)], check=True)
    assert len(list(islice(stream, 20))) == 20
    worker.terminate()  # as Python does at its end
    worker.join(20)
    assert worker.exitcode == 0


LIMITED = """
import resource, sys
from itertools import islice
from pathlib import Path
from asrtool.config_file import load_config
from asrtool.data.loading import (SpeechDataset, load_batches)
from asrtool.data.sampling import (TrainingSampler)
from asrtool.errors import UserError
config = load_config(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]),) * 2)
try:
    sampler = TrainingSampler(config.data, config.seed)
    print(len(list(islice(load_batches(SpeechDataset(config, None, True), sampler, 2), 30))))
except UserError as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "message"), [(40, "30"), (12, "loader processes cannot be started: Too many open")])
def test_few_descriptors_are_enough_or_an_error_but_never_a_wait(tiny_config, tmp_path, limit, message):
    save_config(tiny_config(), tmp_path / "config.yaml")
    arguments = [sys.executable, "-c", LIMITED, tmp_path / "config.yaml", str(limit)]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert message in ran.stdout, ran.stderr
