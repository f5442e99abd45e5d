"""`asrtool compare`: two or more systems on the same utterances, as text and as a page."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import asrtool
from asrtool.errors import UserError
from asrtool.files import require_output
from asrtool.pages.elements import (
    Element,
    bar,
    bars,
    choice,
    column,
    counted,
    hypothesis,
    section,
    table,
    text,
    tiles,
    utterance,
    utterances,
)
from asrtool.pages.page import Page, write_page
from asrtool.pages.recordings import Media
from asrtool.pages.results import NORMALISED_NOTE, DecodedUtterance, Result, read_errors, read_result, total_counts
from asrtool.scoring.comparison import ComparedUtterance, Comparison, GroupComparison, SystemDifference, compare
from asrtool.scoring.comparison_text import totals_text, uncertainty_lines
from asrtool.scoring.folder import HYPOTHESES
from asrtool.scoring.groups import GROUPS_MEANING
from asrtool.scoring.report import RATE_NAMES, format_interval
from asrtool.scoring.systems import distinct_names

MAX_UTTERANCES = 20  # gains and losses of a system that are shown
MAX_WORDS = 100
MAX_BARS = 20  # speakers that are drawn; the table has all
DRAWS_MEANING = (
    "The bootstrap draws the utterances again many times, with replacement. In this share of the draws the system has "
    "fewer errors than the first one: near 100 it is better, near 0 it is worse, near 50 neither is better"
)


def compare_systems(paths: Sequence[Path], manifests: Sequence[Path] = ()) -> list[Comparison]:
    """Returns the comparison of systems on each set that all of them have; the first system is the baseline.

    A path is an experiment, or a result folder EXP/decode/SET/METHOD; all are of one kind. Of experiments, all common
    sets are compared, each by the method with the lowest mean error rate among those that all have. Lengths of
    utterances come from `manifests`, by default the one that was decoded. Raises UserError for fewer than two systems,
    where they have no set in common, and for results that were scored with different rules of normalisation; and the
    errors of `read_scored_rows` and `compare`.
    """
    return [_comparison(name, results)[0] for name, results in _results(paths, manifests)]


def write_comparison(paths: Sequence[Path], out: Path, manifests: Sequence[Path] = ()) -> str:
    """Writes the page of `compare_systems` to `out`, which ends in .html; returns the totals and what was written."""
    require_output(out, (".html",))
    comparisons = [_comparison(name, own) for name, own in _results(paths, manifests)]
    size = write_page(out, comparison_page(comparisons))
    totals = [totals_text(comparison) for comparison, _ in comparisons]
    return "\n\n".join([*totals, f"wrote {out} ({size / 1e6:.1f} MB)"])


def _results(paths: Sequence[Path], manifests: Sequence[Path]) -> list[tuple[str, list[tuple[str, Result]]]]:
    """Returns for each set its name, and the name and the result of each system."""
    if len(paths) < 2:
        raise UserError("a comparison needs two systems or more; give experiments, or result folders of one set")
    folders = list(map(Path, paths))
    are_results = [(folder / HYPOTHESES).is_file() for folder in folders]
    if any(are_results) and not all(are_results):
        names = ", ".join(str(folder) for folder, is_result in zip(folders, are_results, strict=True) if is_result)
        raise UserError(f"{names} is a result folder, and others are experiments; give folders of one kind")
    systems = distinct_names(folders)
    chosen = {folders[0].resolve().parent.name: folders} if all(are_results) else _common_results(folders)
    return [
        (
            name,
            [(system, read_result(own, manifests, None, False)) for system, own in zip(systems, of_set, strict=True)],
        )
        for name, of_set in chosen.items()
    ]


def _common_results(experiments: Sequence[Path]) -> dict[str, list[Path]]:
    """Returns set -> the result folder of each experiment, by the method with the lowest mean rate that all have."""
    available = []
    for experiment in experiments:
        found = {(path.parts[-3], path.parts[-2]) for path in (experiment / "decode").glob(f"*/*/{HYPOTHESES}")}
        if not found:
            raise UserError(f"{experiment} has no results; run `asrtool decode {experiment} CUTS`")
        available.append(found)
    common = sorted(set.intersection(*available))
    if not common:
        sets = "; ".join(
            f"{experiment}: {', '.join('/'.join(pair) for pair in sorted(found))}"
            for experiment, found in zip(experiments, available, strict=True)
        )
        raise UserError(f"the systems have no set and method in common ({sets}); decode one set in the same way by all")
    methods: dict[str, list[str]] = {}
    for set_name, method in common:
        methods.setdefault(set_name, []).append(method)
    candidates = {
        name: [[experiment / "decode" / name / method for experiment in experiments] for method in found]
        for name, found in methods.items()
    }
    return {name: _lowest_mean(choices) for name, choices in candidates.items()}


def _lowest_mean(choices: Sequence[list[Path]]) -> list[Path]:
    """Returns the result folders, one of each system, with the lowest mean error rate; words come before phones."""
    if len(choices) == 1:
        return choices[0]

    def key(folders: list[Path]) -> tuple[bool, float]:
        results = list(map(read_errors, folders))
        are_words = all(result.token_type == "words" for result in results)
        return not are_words, sum(total_counts(result.utterances).rate for result in results) / len(results)

    return min(choices, key=key)


def _comparison(set_name: str, results: Sequence[tuple[str, Result]]) -> tuple[Comparison, dict[str, DecodedUtterance]]:
    """Returns the comparison on a set, and the utterances of the first system by id, which know their audio."""
    first = results[0][1]
    for _, result in results:
        if result.rules != first.rules:
            raise UserError(
                f"{first.folder} and {result.folder} were scored with different rules of normalisation, or one without "
                "any; score both with the same `asrtool score --normalise`, or without it"
            )
    known = {own.id: own for own in first.utterances}
    rows = [[own.row for own in result.utterances] for _, result in results]
    seconds = {name: own.seconds for name, own in known.items() if own.seconds is not None}
    methods = {result.method for _, result in results}
    name = f"{set_name}, {methods.pop()}" if len(methods) == 1 else set_name
    comparison = compare(name, [system for system, _ in results], rows, seconds)
    if first.rules:
        comparison.notes.append(NORMALISED_NOTE)
    return comparison, known


def comparison_page(comparisons: Sequence[tuple[Comparison, dict[str, DecodedUtterance]]]) -> Page:
    """Returns the page about comparisons, one for each set."""
    media = Media()
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    plain = [comparison for comparison, _ in comparisons]
    first, *others = plain[0].systems
    sections = [
        section("summary", "Summary", [_per_set(plain, _summary)]),
        section("speakers", "By speaker", [_per_set(plain, lambda own: _groups(own, own.speakers, "speaker"))]),
        section(
            "lengths",
            "By length",
            [_per_set(plain, lambda own: _groups(own, own.lengths, "length"))],
            f"There are {GROUPS_MEANING}.",
        ),
        section(
            "words",
            "Words won and lost",
            [_per_set(plain, lambda own: [_words(other, own.token_type) for other in own.others])],
            f"Words of the reference that only one of two systems recognised: won by the system, lost to {first}.",
        ),
        section(
            "utterances",
            "Utterances won and lost",
            [
                choice(
                    "Set",
                    [
                        (
                            own.set,
                            [choice("System", [_changes(own, n, known, media) for n in range(1, len(own.systems))])],
                        )
                        for own, known in comparisons
                    ],
                ),
                *media.notes(),
            ],
        ),
    ]
    footer = f"Written by asrtool {asrtool.__version__} on {now}."
    return Page(f"{', '.join(others)} compared with {first}", "Paired on the same utterances", sections, footer)


def _per_set(comparisons: Sequence[Comparison], elements_of) -> Element | None:
    return choice("Set", [(comparison.set, elements_of(comparison)) for comparison in comparisons])


def _summary(comparison: Comparison) -> list[Element]:
    rate = RATE_NAMES[comparison.token_type]
    figures = [
        (name, f"{value:.2f} %", f"{rate} {format_interval(interval)}")
        for name, value, interval in zip(comparison.systems, comparison.rates, comparison.intervals, strict=True)
    ]
    first = comparison.systems[0]
    columns = [
        *(
            column("system"),
            column(f"difference to {first}", "number", 2, f"In percent of the reference {comparison.token_type}"),
        ),
        *(column("95 % interval", "interval", 2, "Paired bootstrap over utterances"),),
        column("over speakers", "interval", 2, "Paired bootstrap over speakers: it holds for other speakers, too"),
        column("fewer errors in % of draws", "number", 1, DRAWS_MEANING),
        *(column("utterances won", "number"), column("lost", "number"), column("equal", "number")),
    ]
    rows = [_difference_row(other, len(comparison.utterances)) for other in comparison.others]
    differences = bars(
        f"Difference of the {rate} to {first}",
        "points",
        [bar(other.name, other.total.difference, other.total.interval) for other in comparison.others],
        signed=True,
    )
    counts = f"{counted(len(comparison.utterances), 'utterance')} that all systems recognised."
    notes = [text(note, "note") for note in comparison.notes]
    words = [text(" ".join(uncertainty_lines(comparison)))]
    return [tiles(figures), text(counts), *words, *notes, table("Differences", columns, rows), differences]


def _difference_row(other: SystemDifference, utterance_count: int) -> list:
    total = other.total
    won, lost = len(other.won), len(other.lost)
    row = [other.name, total.difference, total.interval, total.speaker_interval, total.percent_lower]
    return [*row, won, lost, utterance_count - won - lost]


def _groups(comparison: Comparison, groups: Sequence[GroupComparison], kind: str) -> list[Element | None]:
    if not groups:
        return [text(f"Nothing is known by {kind}: no speakers are named, or there are too few utterances.", "note")]
    columns = [column(kind), column("utterances", "number"), column(comparison.token_type, "number")]
    columns += [column(f"{name} %", "number", 2) for name in comparison.systems]
    for name in comparison.systems[1:]:
        columns += [column(f"difference of {name}", "number", 2), column("95 % interval", "interval", 2)]
    rows = []
    for group in groups:
        row = [group.name, group.utterances, group.words, *group.rates]
        for difference in group.differences:
            row += [difference.difference, difference.interval]
        rows.append(row)
    charts = [
        (other.name, [_group_bars(comparison, groups, kind, number)]) for number, other in enumerate(comparison.others)
    ]
    return [choice("System", charts), table(f"Error rates by {kind}", columns, rows)]


def _group_bars(comparison: Comparison, groups: Sequence[GroupComparison], kind: str, number: int) -> Element:
    """Returns the differences of the system `number` of the others, the speakers with the largest difference first."""
    own = [(group.name, group.differences[number]) for group in groups]
    if kind == "speaker":
        own.sort(key=lambda one: -abs(one[1].difference))
    drawn = [bar(name, difference.difference, difference.interval) for name, difference in own[:MAX_BARS]]
    first, name = comparison.systems[0], comparison.others[number].name
    some = f", the {MAX_BARS} largest of {len(own)}" if len(own) > MAX_BARS else ""
    return bars(f"Difference of {name} to {first}{some}", "points", drawn, signed=True)


def _words(other: SystemDifference, token_type: str) -> Element:
    columns = [
        column(token_type.removesuffix("s")),
        column("won", "number"),
        column("lost", "number"),
        column("balance", "number"),
    ]
    rows = [(word.word, word.won, word.lost, word.won - word.lost) for word in other.words[:MAX_WORDS]]
    return table(f"{token_type.capitalize()} of {other.name}", columns, rows)


def _changes(
    comparison: Comparison, number: int, known: dict[str, DecodedUtterance], media: Media
) -> tuple[str, list[Element]]:
    """Returns a system's name, and its largest gains and losses, with audio where there is room."""
    other = comparison.others[number - 1]
    parts = []
    for title, chosen in (("Gains", other.won), ("Losses", other.lost)):
        entries = [_entry(own, comparison, number, known, media) for own in chosen[:MAX_UTTERANCES]]
        caption = f"{title} of {other.name}: {counted(len(chosen), 'utterance')}, the largest first"
        parts.append(utterances(caption, entries) if entries else text(f"{title}: none."))
    return other.name, parts


def _entry(
    own: ComparedUtterance, comparison: Comparison, number: int, known: dict[str, DecodedUtterance], media: Media
) -> dict:
    shown = [
        hypothesis(comparison.systems[system], own.alignments[system], counted(own.counts[system].errors, "error"))
        for system in (0, number)
    ]
    audio, picture = media.load(known[own.id], [])
    facts = [own.speaker and f"speaker {own.speaker}", own.seconds is not None and f"{own.seconds:.2f} s"]
    return utterance(own.id, " \u00b7 ".join(fact for fact in facts if fact), shown, audio, picture)
