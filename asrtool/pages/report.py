"""The page of `asrtool report EXP --html`: an analysis of the errors of one system."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asrtool
from asrtool.config import Config
from asrtool.config_file import load_config
from asrtool.errors import AsrtoolError
from asrtool.experiment import Experiment, open_experiment
from asrtool.files import require_output
from asrtool.pages.background import background_elements
from asrtool.pages.confidence import confidence_elements
from asrtool.pages.curves import curve_elements
from asrtool.pages.elements import Element, choice, column, section, table, text, tiles
from asrtool.pages.groups import breakdown_elements
from asrtool.pages.page import Page, write_page
from asrtool.pages.recordings import Media, worst_elements
from asrtool.pages.results import (
    Result,
    find_manifest,
    find_results,
    lowest_result,
    read_errors,
    read_genders,
    total_counts,
    with_cuts,
)
from asrtool.pages.words import confusion_elements, training_words, word_elements
from asrtool.progress import progress
from asrtool.scoring.folder import score_warnings
from asrtool.scoring.groups import GROUPS_MEANING
from asrtool.scoring.report import RATE_NAMES, format_interval
from asrtool.scoring.wer import wer_interval

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportSettings:
    """What a report shows."""

    manifests: tuple[Path, ...] = ()  # with the utterances' audio; by default those that were decoded
    spk2gender: Path | None = None  # Kaldi's form, for manifests without genders
    audio: bool = True  # read audio: for the SNR, to listen to, for spectrograms
    worst: int = 20  # utterances of each set that are shown
    checkpoint: str = "averaged"  # aligns the references
    device: str = "auto"
    threads: int = 4  # that read audio


def write_report(paths: Sequence[Path], out: Path, settings: ReportSettings | None = None) -> str:
    """Writes the page of an experiment to `out`, which ends in .html; returns a summary line.

    `paths` are an experiment, or some of its result folders (see `find_results`). The summary has the rates of all
    methods of a set, and all other sections are about the one with the lowest error rate. What cannot be opened, such
    as the model or a manifest that has moved, is left out, and the page says so. Raises UserError for an experiment
    without results, and the errors of `read_hypotheses`.
    """
    settings = settings or ReportSettings()
    require_output(out, (".html",))
    experiment, groups = find_results(paths)
    genders = read_genders(settings.spk2gender) if settings.spk2gender else {}
    folders = list(dict.fromkeys(folder for group in groups for folder in group))
    read = {folder: read_errors(folder) for folder in progress(folders, "reading results", len(folders), "results")}
    chosen = dict.fromkeys(lowest_result([read[folder] for folder in group]).folder for group in groups)
    for folder in chosen:
        read[folder] = with_cuts(read[folder], settings.manifests, genders, settings.audio, settings.threads)
    results = [read[folder] for folder in chosen]
    size = write_page(out, report_page(experiment, results, settings, list(read.values())))
    return f"wrote {out} ({size / 1e6:.1f} MB) about the errors of {'; '.join(map(_named_rate, results))}"


def _named_rate(result: Result) -> str:
    """Returns "test, graph (12.34 %)"."""
    return f"{result_name(result)} ({total_counts(result.utterances).rate:.2f} %)"


def report_page(
    experiment: Path, results: Sequence[Result], settings: ReportSettings, listed: Sequence[Result] = ()
) -> Page:
    """Returns the page of an experiment and these results of it; the summary has the rates of `listed`, too."""
    everything = list({result.folder: result for result in [*listed, *results]}.values())
    config = load_config(experiment / "config.yaml")
    model_notes: list[Element] = []
    media = Media() if settings.audio else None
    model = _open_model(experiment, settings, model_notes) if settings.audio else None
    training, training_note = _training_words(config, experiment, results)
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    sections = [
        section("summary", "Summary", summary_elements(results, everything)),
        section(
            "groups",
            "By speaker, length, rate and noise",
            [_per_result(results, lambda r: breakdown_elements(r.utterances, r.token_type))],
            f"By length, rate and SNR there are {GROUPS_MEANING}.",
        ),
        section(
            "worst",
            "Worst utterances",
            [
                _per_result(results, lambda r: worst_elements(r, settings.worst, media, model)),
                *model_notes,
                *(media.notes() if media else []),
            ],
            "The reference stands above what was recognised. S: substitution, I: insertion, D: deletion.",
        ),
        section(
            "confusions", "Confusions", [_per_result(results, lambda r: confusion_elements(r.utterances, r.token_type))]
        ),
        section(
            "words",
            "Words",
            [_per_result(results, lambda r: word_elements(r.utterances, training, r.token_type))],
            training_note,
        ),
        section("confidence", "Confidence", [_per_result(results, confidence_elements)]),
        section("training", "Training", curve_elements(experiment / "log.jsonl")),
        section("background", "Provenance", background_elements(experiment, everything)),
    ]
    return Page(
        f"Errors of {experiment.resolve().name}",
        f"{experiment}",
        sections,
        f"Written by asrtool {asrtool.__version__} on {now}.",
    )


def _per_result(results: Sequence[Result], elements_of) -> Element | None:
    """Returns the elements of each result, of which the reader sees one at a time."""
    return choice("Set", [(result_name(result), elements_of(result)) for result in results])


def result_name(result: Result) -> str:
    """Returns the name of a result, such as "test, graph"."""
    return f"{result.set}, {result.method}"


def summary_elements(results: Sequence[Result], everything: Sequence[Result]) -> list[Element]:
    """Returns the error rate of each set in large figures, a table of all methods, and what makes them doubtful.

    `results` are those that the page is about, and `everything` has all of the table.
    """
    columns = [
        *(column("set"), column("method"), column("error rate %", "number", 2)),
        column("95 % interval", "interval", 2, "Bootstrap over utterances"),
        *(column("utterances", "number"), column("words", "number")),
        *(column("ins", "number"), column("del", "number"), column("sub", "number")),
        column("sentence errors %", "number", 2),
    ]
    rows, figures, notes = [], [], []
    analysed = {result.folder for result in results}
    if len(everything) > len(results):
        names = "; ".join(map(result_name, results))
        notes.append(text(f"All other sections are about the method with the lowest error rate of a set: {names}."))
    hashes = {result.facts.get("checkpoint_sha256") for result in everything} - {None}
    if len(hashes) > 1:
        notes.append(text("These results are of different weights; see the checkpoints under Provenance.", "warning"))
    for result in everything:
        c = total_counts(result.utterances)
        interval = wer_interval([(u.ref, u.hyp) for u in result.utterances], c.rate)  # the one of `asrtool score`
        wrong = sum(u.counts.errors > 0 for u in result.utterances)
        numbers = (c.rate, interval, len(result.utterances), c.length, c.insertions, c.deletions, c.substitutions)
        rows.append((result.set, result.method, *numbers, 100 * wrong / len(result.utterances)))
        rate = RATE_NAMES[result.token_type]
        if result.folder in analysed:
            figures.append((f"{rate}, {result_name(result)}", f"{c.rate:.2f} %", format_interval(interval)))
        for warning in score_warnings([u.row for u in result.utterances]):
            notes.append(text(f"{result_name(result)}: {warning}", "warning"))
        notes += [text(f"{result_name(result)}: {note}", "note") for note in result.notes]
    return [tiles(figures), *notes, table("Error rates", columns, rows)]


def _open_model(experiment: Path, settings: ReportSettings, notes: list[Element]) -> Experiment | None:
    """Returns the model that aligns references, or None and a note if it cannot be opened."""
    try:
        return open_experiment(experiment, settings.checkpoint, settings.device)
    except (AsrtoolError, OSError) as error:
        notes.append(text(f"References are not aligned with the audio: {error}", "note"))
        return None


def _training_words(config: Config, experiment: Path, results: Sequence[Result]) -> tuple[Counter[str] | None, str]:
    """Returns the counts of the words in the training transcripts, None if a manifest cannot be read, and a note."""
    if all(result.token_type != "words" for result in results):
        return None, ""
    try:
        words = training_words([find_manifest(path, experiment) for path in config.data.train_manifests])
    except (AsrtoolError, OSError) as error:
        logger.warning(f"words are shown without training counts: {error}")
        return None, f"Words are shown without training counts, so it is not known which are new: {error}."
    return words, f"The training transcripts have {words.total():,} words, {len(words):,} different ones."
