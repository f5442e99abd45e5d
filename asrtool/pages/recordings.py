"""The worst utterances of a result: aligned words, audio, and a spectrogram with the units at their times."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from asrtool.data.batch import Position
from asrtool.data.lhotse_objects import read_cut
from asrtool.data.samples import load_samples
from asrtool.data.sampling import CutBatch, ordered_batches
from asrtool.data.sources import InvalidEntry
from asrtool.decoding.align import align_cuts
from asrtool.decoding.alignment import Alignment, Span
from asrtool.errors import AsrtoolError, UserError
from asrtool.experiment import Experiment
from asrtool.pages.elements import Element, counted, hypothesis, spectrogram, text, track, utterance, utterances
from asrtool.pages.media import audio_uri, spectrogram_uri, top_hertz
from asrtool.pages.results import MAX_SECONDS, DecodedUtterance, Result
from asrtool.text.spoken_text import pronounce_texts

logger = logging.getLogger(__name__)

MEDIA_BYTES = 7_000_000  # of audio and spectrograms in a page, which may have 10 MB in all
BATCH_SECONDS = 60.0  # of a forced alignment: little memory, and it is for a few utterances only
SHORTEST_LABEL = 0.02  # seconds; the end of a unit whose end is not known


@dataclass
class Media:
    """Audio and spectrograms for a page, as long as there is room for them."""

    bytes_left: int = MEDIA_BYTES
    left_out: int = 0
    problems: list[str] = field(default_factory=list)

    def load(self, item: DecodedUtterance, tracks: Sequence[dict]) -> tuple[str | None, dict | None]:
        """Returns the audio and the spectrogram, with `tracks` below it; None for what cannot be shown."""
        if not item.cut:
            return None, None
        try:
            cut = read_cut(item.cut.entry)
            samples = load_samples(cut, MAX_SECONDS).numpy()
            audio = audio_uri(samples, cut.sampling_rate)
            image = spectrogram_uri(samples, cut.sampling_rate)
        except (InvalidEntry, UserError) as problem:
            self.problems.append(str(problem))
            return None, None
        if len(audio) + len(image) > self.bytes_left:
            self.left_out += 1
            return None, None
        self.bytes_left -= len(audio) + len(image)
        return audio, spectrogram(image, cut.duration, top_hertz(cut.sampling_rate), tracks)

    def notes(self) -> list[Element]:
        """Returns what could not be shown, and why."""
        notes = []
        if self.left_out:
            notes.append(
                text(
                    f"The audio of {counted(self.left_out, 'utterance')} is left out: the page would become too large.",
                    "note",
                )
            )
        if self.problems:
            count = counted(len(self.problems), "utterance")
            notes.append(text(f"The audio of {count} could not be read: {self.problems[0]}", "note"))
        return notes


def worst_utterances(items: Iterable[DecodedUtterance], count: int) -> list[DecodedUtterance]:
    """Returns the `count` utterances with the most errors, among equals those with the higher error rate."""
    wrong = [item for item in items if item.counts.errors]
    return sorted(wrong, key=lambda item: (-item.counts.errors, -item.counts.rate, item.id))[:count]


def worst_elements(result: Result, count: int, media: Media | None, experiment: Experiment | None) -> list[Element]:
    """Returns the worst utterances of a result, with what `media` has room for; nothing of audio without `media`.

    With `experiment` the reference is aligned with the audio, and its units are shown below the spectrogram.
    """
    chosen = worst_utterances(result.utterances, count)
    if not chosen:
        return [text("No utterance has an error.")]
    notes: list[Element] = []
    spans = align_references(chosen, experiment, notes) if experiment and media else {}
    entries = []
    for item in chosen:
        audio, picture = (
            media.load(item, [*spans.get(item.id, []), *hypothesis_tracks(item)]) if media else (None, None)
        )
        entries.append(utterance(item.id, utterance_note(item), [hypothesis("", item.pairs)], audio, picture))
    return [utterances(f"The {len(entries)} utterances with the most errors", entries), *notes]


def utterance_note(item: DecodedUtterance) -> str:
    """Returns the figures of an utterance in a line."""
    c = item.counts
    token_type = item.token_type
    parts = [
        f"{counted(c.errors, 'error')} in {counted(c.length, token_type.removesuffix('s'))}",
        f"{c.substitutions} sub, {c.insertions} ins, {c.deletions} del",
        item.speaker and f"speaker {item.speaker}",
        item.gender,
        item.seconds is not None and f"{item.seconds:.2f} s",
        item.words_per_second is not None and f"{item.words_per_second:.1f} {token_type}/s",
        item.snr is not None and f"SNR {item.snr:.0f} dB",
        isinstance(item.row.get("confidence"), float) and f"confidence {item.row['confidence']:.2f}",
    ]
    return " \u00b7 ".join(part for part in parts if part)


def hypothesis_tracks(item: DecodedUtterance) -> list[dict]:
    """Returns the rows of recognised words and units at the times that hyps.jsonl has, if it has any."""
    tracks = []
    words = item.row.get("words")
    if isinstance(words, list) and words and all(_is_timed(word, 3) for word in words):
        tracks.append(track("recognised words", [(word[0], word[1], word[2]) for word in words]))
    units = item.row.get("units")
    if isinstance(units, list) and units and item.seconds and all(_is_timed(unit, 2) for unit in units):
        ends = [*(unit[1] for unit in units[1:]), item.seconds]
        spans = [(unit[0], unit[1], max(end, unit[1] + SHORTEST_LABEL)) for unit, end in zip(units, ends, strict=True)]
        tracks.append(track("recognised units", spans))
    return tracks


def _is_timed(entry: object, count: int) -> bool:
    """Returns True for [text, seconds, ...], with `count` values at least: hyps.jsonl may be a stranger's."""
    if not isinstance(entry, list) or len(entry) < count or not isinstance(entry[0], str):
        return False
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in entry[1:count])


def align_references(
    items: Sequence[DecodedUtterance], experiment: Experiment, notes: list[Element]
) -> dict[str, list[dict]]:
    """Returns for each utterance the rows of its reference's words and units at the times of a forced alignment.

    Utterances without one are missing; `notes` get the reason of the first.
    """
    entries = [item.cut.entry for item in items if item.cut]
    problems: list[str] = []
    rows: dict[str, list[dict]] = {}
    try:
        experiment.tokenizer = _with_pronunciations(items, experiment)
        batches = [CutBatch(Position(), batch, Position()) for batch in ordered_batches(entries, BATCH_SECONDS)]
        for batch in experiment.batches(batches, workers=0):
            texts = dict(zip(batch.ids, batch.texts, strict=True))
            for name, aligned in align_cuts(batch, experiment).items():
                if isinstance(aligned, str):
                    problems.append(f"{name}: {aligned}")
                else:
                    rows[name] = reference_tracks(aligned, texts[name], experiment)
    except (AsrtoolError, OSError) as error:
        problems.append(str(error))
    if problems:
        notes.append(text(f"Not all references could be aligned with their audio: {problems[0]}", "note"))
    return rows


def _with_pronunciations(items: Sequence[DecodedUtterance], experiment: Experiment):
    """Returns the tokenizer, of a phone system with guessed pronunciations of words that its lexicon lacks."""
    if experiment.tokenizer.output_type != "phones":
        return experiment.tokenizer
    try:
        return pronounce_texts((item.ref for item in items), experiment.tokenizer)[0]
    except UserError as error:  # the package that guesses them is not installed
        logger.warning(str(error))
        return experiment.tokenizer


def reference_tracks(aligned: Alignment, transcript: str, experiment: Experiment) -> list[dict]:
    """Returns the rows of an alignment: units first, whose boundaries are drawn over the spectrogram, then words."""
    symbols, words = experiment.tokenizer.symbols, transcript.split()
    frame = experiment.frame_seconds
    rows = (("reference, units", aligned.units, symbols), ("reference, words", aligned.words, words))
    return [track(name, [_labelled(span, names, frame) for span in spans]) for name, spans, names in rows]


def _labelled(span: Span, names: Sequence[str], frame: float) -> tuple[str, float, float]:
    return names[span.index], span.begin * frame, span.end * frame
