"""What `asrtool clean` writes: the filtered manifest, the scores, and a page to listen to the bad utterances."""

import base64
import html
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import soundfile
from lhotse import CutSet, MonoCut

from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.samples import load_samples
from asrtool.data.sources import InvalidEntry
from asrtool.decoding.checks import check_cuts
from asrtool.decoding.cleaning import Limits, Verdict, judge, score_cuts
from asrtool.decoding.cleaning_words import compare_words, open_word_search
from asrtool.decoding.options import Options
from asrtool.errors import DataError, summarise_problems
from asrtool.experiment import Experiment
from asrtool.files import new_folder, require_own_folder, write_json, write_jsonl, write_text
from asrtool.scoring.wer import GAP, count_word_errors

MARKER = "clean.json"  # the file by which the folder is recognised; see asrtool.files.new_folder
MANIFEST = "clean.jsonl.gz"
ROWS = "scores.jsonl"
BAD_ROWS = "bad.jsonl"
PAGE = "bad.html"
FILES = (MANIFEST, ROWS, BAD_ROWS, PAGE)
MAX_PAGE_BYTES = 9_500_000  # browsers and mail take 10 MB; what is beyond has no audio, or is in bad.jsonl alone
MAX_TEXT = 2000  # characters of a transcript on the page
MAX_PAIRS = 400  # word differences of an utterance on the page: as much text
MAX_WORD = 100  # characters of a word there
STYLE = """
body { font-family: sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; }
section { border-top: 1px solid #999; padding: 0.5em 0; }
h2 { font-size: 1em; margin: 0.3em 0; overflow-wrap: anywhere; }
p { margin: 0.3em 0; overflow-wrap: anywhere; }
del { color: #a00; }
ins { color: #060; }
"""


def write_results(folder: Path, cuts: Path, verdicts: Sequence[Verdict], bad: Sequence[Verdict]) -> None:
    """Writes FILES into `folder`: the cuts without the bad ones, all scores, the bad ones, and the page."""
    bad_ids = {verdict.score.id for verdict in bad}
    with CutSet.open_writer(folder / MANIFEST) as writer:
        for cut in open_cuts(cuts):
            if cut.id not in bad_ids:
                writer.write(cut)
    write_jsonl(folder / ROWS, (verdict.as_row() for verdict in verdicts))
    write_jsonl(folder / BAD_ROWS, (verdict.as_row() for verdict in bad))
    wanted = {cut.id: cut for cut in open_cuts(cuts) if cut.id in bad_ids}
    write_text(folder / PAGE, listening_page(cuts.name, bad, wanted, len(verdicts)))


def worst_first(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """Returns the bad utterances: those that fit worst first, those that could not be checked last."""
    bad = [verdict for verdict in verdicts if verdict.reasons]
    return sorted(bad, key=lambda verdict: (verdict.z != verdict.z, -verdict.z, verdict.score.id))


def listening_page(name: str, bad: Sequence[Verdict], cuts: dict[str, MonoCut], num_scored: int) -> str:
    """Returns one HTML page without any other files: audio, transcript and hypothesis of the bad utterances."""
    title = html.escape(f"{len(bad)} of {num_scored} utterances of {name} whose transcript the audio contradicts")
    head = (
        f'<!DOCTYPE html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{title}</title>\n<style>{STYLE}</style>\n'
        f"<h1>{title}</h1>\n<p>The worst come first. Words in [brackets] are not in the audio. The hypothesis is the "
        "recogniser's output without a language model, in its units. Differences: <del>words of the transcript</del> "
        "that were not recognised, and <ins>recognised words</ins> that it does not have. All are in bad.jsonl.</p>\n"
    )
    return head + "".join(_sections(bad, cuts, MAX_PAGE_BYTES - len(head.encode()))) + "</html>\n"


def _sections(bad: Sequence[Verdict], cuts: dict[str, MonoCut], bytes_left: int) -> Iterator[str]:
    for number, verdict in enumerate(bad, 1):
        text = _section_text(number, verdict)
        audio = _audio_element(cuts.get(verdict.score.id))
        for section in (text.replace("<!--audio-->", audio), text.replace("<!--audio-->", "<p>(too much audio)</p>")):
            if len(section.encode()) <= bytes_left:
                bytes_left -= len(section.encode())
                yield section
                break


def _section_text(number: int, verdict: Verdict) -> str:
    score = verdict.score
    reasons = html.escape("; ".join(verdict.reasons))
    return (
        f"<section>\n<h2>{number}. {html.escape(score.id[:200])}</h2>\n<!--audio-->\n<p>{reasons}</p>\n"
        f"<p>transcript: {html.escape(score.text[:MAX_TEXT])}</p>\n"
        f"<p>hypothesis: {html.escape(score.heard[:MAX_TEXT])}</p>\n{_differences(verdict)}</section>\n"
    )


def _differences(verdict: Verdict) -> str:
    """Returns a paragraph with the word differences of transcript and recognised words, if they were compared."""
    if verdict.word_pairs is None:
        return ""
    count = count_word_errors(verdict.word_pairs)
    words = " ".join(_marked_pair(*pair) for pair in verdict.word_pairs[:MAX_PAIRS])
    return f"<p>differences ({count.errors} errors in {count.length} words): {words}</p>\n"


def _marked_pair(written: str, heard: str) -> str:
    """Returns the word that both have, or the one of the transcript struck out, and the recognised one underlined."""
    if written == heard:
        return html.escape(written[:MAX_WORD])
    removed = f"<del>{html.escape(written[:MAX_WORD])}</del>" if written != GAP else ""
    added = f"<ins>{html.escape(heard[:MAX_WORD])}</ins>" if heard != GAP else ""
    return f"{removed} {added}".strip()


def _audio_element(cut: MonoCut | None) -> str:
    """Returns a player with the audio of a cut as MP3, which all browsers play."""
    try:
        if cut is None or not cut.has_recording:
            raise InvalidEntry("no audio")
        samples = load_samples(cut).numpy()
        buffer = io.BytesIO()
        soundfile.write(buffer, samples, cut.sampling_rate, format="MP3", subtype="MPEG_LAYER_III")
    except (InvalidEntry, soundfile.LibsndfileError, ValueError) as error:
        return f"<p>(no audio: {html.escape(str(error)[:200])})</p>"
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<audio controls preload="none" src="data:audio/mpeg;base64,{data}"></audio>'


def clean(
    experiment: Experiment,
    cuts: Path,
    out: Path,
    limits: Limits,
    options: Options | None = None,
    batch_seconds: float = 200.0,
    workers: int = 1,
    max_minutes: float = 5.0,
) -> list[str]:
    """Judges the utterances of a manifest, writes the results into the folder `out`, and returns lines for the user.

    `options` (graph, decoding_weights) choose how the bad utterances are recognised; see `open_word_search`. Raises its
    errors and the errors of `check_cuts`, DataError with all reasons if every utterance is bad, and UserError for a
    folder that this command did not write, or that has an input.
    """
    require_own_folder(out, MARKER, "asrtool clean", [cuts, *(options or {}).values()])
    check_cuts(cuts, max_minutes, experiment.config.data.max_seconds)
    open_cuts(cuts)  # refuses what cannot be written in the end
    search = open_word_search(experiment, options or {})
    experiment.max_seconds = 60 * max_minutes
    verdicts = judge(list(score_cuts(experiment, cuts, batch_seconds, workers)), limits)
    bad = worst_first(verdicts)
    problems = [f"{verdict.score.id}: {'; '.join(verdict.reasons)}" for verdict in bad]
    if len(bad) == len(verdicts):
        raise DataError(f"all {len(bad)} utterances of {cuts} are bad: is it the language of the model?", problems)
    if bad and search:
        bad = compare_words(experiment, cuts, bad, search, batch_seconds, workers)
    with new_folder(out, MARKER, "asrtool clean") as folder:
        write_results(folder, cuts, verdicts, bad)
        write_json(folder / MARKER, {"cuts": str(cuts), "limits": asdict(limits), "files": list(FILES)})
    lines = [f"  {line}" for line in summarise_problems(problems)]
    return [*lines, f"{out}: {len(bad)} of {len(verdicts)} utterances of {cuts} are bad; clean.jsonl.gz has the others"]
