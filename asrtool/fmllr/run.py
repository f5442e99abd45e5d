"""Training of a GMM for fMLLR, and estimation of speakers' transforms, from manifests: `asrtool fmllr`."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from torch import Tensor

from asrtool.data.manifest import transcripts
from asrtool.data.shards import entries, entries_with_dicts, manifest_name
from asrtool.data.speaker_transforms import read_transforms, save_transforms
from asrtool.data.speeds import speed_copy
from asrtool.errors import DataError, UserError
from asrtool.files import file_hash, require_output, require_own_folder, require_same_kind
from asrtool.fmllr.hmm import num_hmm_states
from asrtool.fmllr.model import GMM_FILE, FmllrModel, load_model, save_model
from asrtool.fmllr.train import estimate_transforms, speaker_statistics, train_mixtures, train_with_transforms
from asrtool.fmllr.transform import TransformStatistics
from asrtool.fmllr.utterances import read_utterances
from asrtool.locks import write_lock
from asrtool.progress import progress
from asrtool.scoring.folder import HYPOTHESES, read_hypothesis_texts
from asrtool.text.spoken_text import pronounce_texts
from asrtool.text.tokenizer import PhoneTokenizer, Tokenizer, load_tokenizer

COMMAND = "asrtool fmllr train"
NUM_PASSES = 2  # over the audio of a speaker: the second one aligns the words with transformed frames


def train_fmllr(cuts: Path, folder: Path, tokenizer: Path, num_gaussians: int, max_hours: float, num_bins: int) -> str:
    """Trains a GMM on a manifest, and estimates transforms of its speakers; returns a summary.

    Writes the model and, as SET.pt, the transforms into `folder`, which must be new or have a model of this command.
    The GMM learns from cuts at their original speed, at most `max_hours` hours of them, of all speakers.
    Raises UserError for another folder and for a tokenizer that is not of phones, and DataError for cuts without a
    speaker, or when there is none to learn from.
    """
    require_own_folder(folder, GMM_FILE, COMMAND, [cuts, tokenizer])
    phones = load_tokenizer(tokenizer).without_context
    if not isinstance(phones, PhoneTokenizer):
        raise UserError(f"{tokenizer} has no phones; give the tokenizer of a system with a lexicon")
    out = folder / f"{manifest_name(cuts)}.pt"
    if out.name == GMM_FILE:
        raise UserError(f"the transforms of {cuts} would replace the model {out}; give the manifest another name")
    _require_transforms_file(out, [cuts, tokenizer])
    with write_lock(folder, COMMAND):
        return _train(cuts, folder, phones, out, num_gaussians, max_hours, num_bins)


def _train(
    cuts: Path, folder: Path, phones: Tokenizer, out: Path, num_gaussians: int, max_hours: float, num_bins: int
) -> str:
    chosen = _choose_cuts(cuts, max_hours)
    phones, _ = pronounce_texts(transcripts([cuts]), phones)
    chosen_cuts = read_utterances(cuts, phones, num_bins, is_wanted=lambda cut: cut.id in chosen)
    utterances = [utterance for utterance in chosen_cuts if utterance.words]
    if not utterances:
        raise DataError(f"{cuts} has no cut at its original speed whose words all have pronunciations", [])
    mixtures = train_mixtures(utterances, num_hmm_states(phones.size), num_gaussians)
    average = train_with_transforms(mixtures, utterances, num_gaussians)
    del utterances
    model = FmllrModel(mixtures, average, phones, num_bins)
    save_model(model, folder)
    return f"{folder}: {len(mixtures)} Gaussians; {_estimate(model, cuts, None, out, {'cuts': str(cuts)})}"


def estimate_fmllr(folder: Path, cuts: Path, hypotheses: Path | None, out: Path | None) -> str:
    """Estimates transforms of the speakers of a manifest, and writes them to `out`; returns a summary.

    The words are the hypotheses in `hypotheses`, a folder of `asrtool decode`, or else the texts of the manifest. `out`
    is SET.pt in `folder` unless it is given. Raises UserError for a folder without a model and for hypotheses in
    phones, and DataError for cuts without a speaker or without a hypothesis.
    """
    model = load_model(folder)
    out = out or folder / f"{manifest_name(cuts)}.pt"
    _require_transforms_file(out, [cuts, folder / GMM_FILE])
    texts = read_hypothesis_texts(hypotheses, (entry.id for entry in entries(cuts))) if hypotheses else None
    model.tokenizer, _ = pronounce_texts(texts.values() if texts else transcripts([cuts]), model.tokenizer)
    facts = {"cuts": str(cuts), "hypotheses": str(hypotheses) if hypotheses else None}
    if hypotheses:
        facts["hypotheses_hash"] = file_hash(hypotheses / HYPOTHESES)
    return _estimate(model, cuts, texts, out, facts)


def _require_transforms_file(out: Path, inputs: Iterable[Path]) -> None:
    """Raises UserError unless `out` may be written: it is new or a file of transforms, and not an input."""
    require_output(out, (".pt",), inputs)
    require_same_kind(out, "a file of speaker transforms", read_transforms)


def _estimate(model: FmllrModel, cuts: Path, texts: Mapping[str, str] | None, out: Path, facts: dict) -> str:
    transforms: dict[str, Tensor] = {}
    sums: dict[str, TransformStatistics] = {}
    for number in range(1, NUM_PASSES + 1):
        utterances = read_utterances(cuts, model.tokenizer, model.num_bins, texts)
        title = f"transforms of {manifest_name(cuts)}, pass {number} of {NUM_PASSES}"
        sums, _ = speaker_statistics(model.mixtures, progress(utterances, title), transforms)
        transforms = estimate_transforms(sums, model.average, transforms)
    save_transforms(out, transforms, model.num_bins, facts)
    minutes = sum(own.num_frames for own in sums.values()) / 6000
    return f"{out}: transforms of {len(transforms)} voices, from {minutes:.1f} minutes of speech"


def _choose_cuts(cuts: Path, max_hours: float) -> set[str]:
    """Returns the ids of cuts at their original speed, at most `max_hours` hours of them, and at least one.

    They are taken in the order of a hash of their ids, which has all speakers and parts of the manifest in each of its
    parts.
    """
    originals = [
        (entry.id, entry.duration) for entry, cut_dict in entries_with_dicts(cuts) if speed_copy(cut_dict).speed == 1.0
    ]
    originals.sort(key=lambda cut: hashlib.sha256(cut[0].encode()).digest())
    chosen: set[str] = set()
    seconds = 0.0
    for name, duration in originals:
        seconds += duration
        if chosen and seconds > 3600 * max_hours:
            break
        chosen.add(name)
    return chosen
