"""Sections of results in Markdown, written from experiment folders (`asrtool report`).

Every figure is one that training, decoding, streaming or scoring left in the folder; a missing figure is shown as "-".
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from asrtool.errors import UserError
from asrtool.files import require_output, write_text
from asrtool.logs import printable
from asrtool.provenance import command_line, describe_provenance
from asrtool.scoring.folder import RULES_KEY
from asrtool.scoring.markdown import markdown_table, replace_section
from asrtool.scoring.report import format_interval
from asrtool.scoring.systems import DecodingSummary, SystemSummary

TIMING_KEYS = {"rtf", "audio_seconds", "device", "batch_seconds"}  # of decode.json; older versions wrote fewer
METHODS = ["greedy", "prefix", "graph", "rescored", "neural"]  # ordered by how much the language model contributes

SYSTEMS_NOTE = """\
Units include the blank. Git is the revision of asrtool in training and, after "results", in decoding if it differs.
Hours of audio and device-hours count this training alone, without the system whose weights `--init-from` loads.
Peak memory is the memory of one training process, on its GPU if it has one."""
RATES_NOTE = "Word error rate, or phone error rate (PER), in percent, and its 95 % bootstrap interval over utterances."
CONFIDENCE_NOTE = """\
Of the confidences of words: normalised cross entropy (NCE, 1 is perfect) / expected calibration error (ECE)."""
RTF_NOTE = """\
Processing time divided by the length of the audio, from stored features or audio to words, over all sets together.
"_adapted" includes the adaptation and the decoding that it learns from."""
STREAM_NOTE = """\
Chunk by chunk from raw audio, features included. Words as offline: the share of words that offline decoding also has.
Latency: the audio that features and model wait for. Compute time of a chunk: mean, 95th percentile, maximum. Emission
delay: from the end of a word in the alignment until the word is final, computing included: median, 95th percentile."""


def results_section(systems: list[SystemSummary], title: str) -> str:
    """Returns the section with all tables about `systems`."""
    parts = [f"## {title}", systems_table(systems), SYSTEMS_NOTE]
    sets = sorted({result.set for system in systems for result in system.decodings if result.score})
    for name in sets:
        parts += [f"### {set_heading(systems, name)}", error_rates_table(systems, name)]
        if note := normalisation_note(systems, name):
            parts.append(note)
    if sets:
        parts.append(RATES_NOTE)
    if confidences := confidence_table(systems):
        parts += ["### Confidence", confidences, CONFIDENCE_NOTE]
    if rtf := rtf_table(systems):
        parts += ["### Real-time factor", rtf, RTF_NOTE]
    if streaming := stream_table(systems):
        parts += ["### Streaming", streaming, STREAM_NOTE]
    return "\n\n".join([*parts, "### Commands", commands_block(systems)])


def write_section(path: Path, title: str, section: str) -> None:
    """Write `section` into the file `path` under `title`, in place of an old one; the rest of the file stays."""
    if "-->" in title or len(title.splitlines()) != 1:
        raise UserError("--title is one line of text without '-->'")
    require_output(path, (".md",))
    try:
        text = path.read_bytes().decode("utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); name another file") from error
    begin = f"<!-- asrtool report: {title} from here -->"
    end = f"<!-- asrtool report: {title} to here -->"
    write_text(path, replace_section(text, begin, end, printable(section)))


def systems_table(systems: list[SystemSummary]) -> str:
    """Returns a table with a row per system: what it is, and what its training cost."""
    head = ["system", "git", "units", "objective", "parameters", "steps", "hours of audio", "device-hours", "hardware"]
    return markdown_table([*head, "peak memory"], map(_system_row, systems))


def _system_row(system: SystemSummary) -> list[str]:
    training = system.training
    steps = format_figure(training.steps, "{:,}")
    if training.steps is not None and not training.finished:
        steps += ", unfinished"
    millions = None if training.parameters is None else training.parameters / 1e6
    return [
        _quoted_name(system),
        git_revisions(system),
        system.units,
        system.objective,
        format_figure(millions, "{:.2f} M"),
        steps,
        format_figure(training.hours, "{:.2f}"),
        format_figure(training.device_hours, "{:.2f}"),
        _join((f"{start['ranks']} x {start['device']}" for start in training.starts), "; "),
        format_figure(training.peak_memory_gb, "{:.2f} GB"),
    ]


def git_revisions(system: SystemSummary) -> str:
    """Returns the revisions of asrtool in training and, if they differ, in decoding."""
    trained = distinct(map(describe_provenance, system.training.starts))
    decoded = distinct(describe_provenance(result.facts) for result in system.results)
    others = [revision for revision in decoded if revision not in ("-", *trained)]
    return f"{_join(trained)}; results {_join(others)}" if others else _join(trained)


def set_heading(systems: list[SystemSummary], name: str) -> str:
    """Returns the name of a set with its number of reference words."""
    scores = [result.score for system in systems for result in system.scored(name) if result.score]
    counts = {score["words"]["length"] for score in scores if score["token_type"] == "words"}
    return f"{name}, {counts.pop():,} words" if len(counts) == 1 else name


def normalisation_note(systems: list[SystemSummary], name: str) -> str:
    """Returns how references and hypotheses of a set were normalised for its error rates; "" if they were not."""
    scores = [result.score for system in systems for result in system.scored(name) if result.score]
    all_rules = [score.get(RULES_KEY) for score in scores]
    if any(rules != all_rules[0] for rules in all_rules):
        return (
            "These results were scored with different rules of normalisation, or some without any: their error rates "
            "cannot be compared. Score all of them with the same `--normalise`."
        )
    return "References and hypotheses were normalised (`asrtool score --normalise`)." if all_rules[0] else ""


def error_rates_table(systems: list[SystemSummary], name: str) -> str:
    """Returns the error rates on the set `name`: a row per system, a column per method."""
    rows: dict[tuple[str, ...], list[DecodingSummary]] = {}
    for system in systems:
        if results := system.scored(name):
            rows[(_quoted_name(system),)] = results
    return table_by_method(["system"], rows, lambda results: format_error_rate(results[0].score))


def format_error_rate(score: dict | None) -> str:
    """Returns the rate with its interval, such as "10.21 [9.30, 11.15]"."""
    if score is None:
        return "-"
    rate = f"{score['wer']:.2f} {format_interval(score['wer_interval'])}"
    return f"PER {rate}" if score["token_type"] == "phones" else rate


def confidence_table(systems: list[SystemSummary]) -> str:
    """Returns NCE and ECE of each set: a row per system and set, a column per method; "" without confidences."""
    rows: dict[tuple[str, ...], list[DecodingSummary]] = {}
    for system in systems:
        for result in system.decodings:
            if result.score and result.score.get("confidence"):
                rows.setdefault((_quoted_name(system), result.set), []).append(result)
    return table_by_method(["system", "set"], rows, _format_confidence) if rows else ""


def _format_confidence(results: list[DecodingSummary]) -> str:
    words = (results[0].score or {})["confidence"]["words"]
    return f"{format_figure(words['nce'], '{:.3f}')} / {words['ece']:.4f}"


def rtf_table(systems: list[SystemSummary]) -> str:
    """Returns the real-time factors: a row per system and hardware, a column per method; "" if none was measured."""
    rows: dict[tuple[str, ...], list[DecodingSummary]] = {}
    for system in systems:
        for result in system.decodings:
            if result.facts.keys() >= TIMING_KEYS:
                rows.setdefault((_quoted_name(system), describe_hardware(result.facts)), []).append(result)
    return table_by_method(["system", "hardware"], rows, _format_rtf) if rows else ""


def describe_hardware(facts: dict) -> str:
    """Returns what the decoding time depends on: device, threads, precision, batch size and number of processes."""
    parts = [facts["device"], f"batches of {facts['batch_seconds']:g} s"]
    if facts.get("precision") == "bf16":
        parts.insert(1, "bf16")
    for key, unit in (("ranks", "processes"), ("jobs", "search processes")):
        if facts.get(key, 1) > 1:
            parts.append(f"{facts[key]} {unit}")
    return ", ".join(parts)


def _format_rtf(results: list[DecodingSummary]) -> str:
    audio = sum(result.facts["audio_seconds"] for result in results)
    processing = sum(result.facts["rtf"] * result.facts["audio_seconds"] for result in results)
    return f"{processing / audio:.4f}" if audio > 0 else "-"


def table_by_method(
    head: list[str],
    rows: dict[tuple[str, ...], list[DecodingSummary]],
    format_cell: Callable[[list[DecodingSummary]], str],
) -> str:
    """Returns a table whose rows begin with their keys, followed by a cell for the results of each method."""
    methods = sorted({result.method for results in rows.values() for result in results}, key=_method_order)
    lines = []
    for key, results in rows.items():
        line = list(key)
        for method in methods:
            selected = [result for result in results if result.method == method]
            line.append(format_cell(selected) if selected else "-")
        lines.append(line)
    return markdown_table([*head, *methods], lines)


def in_order(results: Iterable[DecodingSummary]) -> list[DecodingSummary]:
    """Returns the results sorted by set, and then by method, the usual methods first."""
    return sorted(results, key=lambda result: (result.set, *_method_order(result.method)))


def _method_order(method: str) -> tuple[int, int, str]:
    """Returns a key that sorts methods with adapted weights after the others, round by round."""
    plain, adapted, adaptation_round = method.partition("_adapted")
    place = METHODS.index(plain) if plain in METHODS else len(METHODS)
    return len(adapted + adaptation_round), place, adaptation_round


def stream_table(systems: list[SystemSummary]) -> str:
    """Returns a table with a row per result of `asrtool stream`; "" if there is none."""
    head = ["system", "set", "method", "WER", "words as offline", "latency max / mean", "chunk", "compute time"]
    rows = [_stream_row(system, result) for system in systems for result in in_order(system.streams) if result.facts]
    return markdown_table([*head, "emission delay", "RTF", "hardware"], rows) if rows else ""


def _stream_row(system: SystemSummary, result: DecodingSummary) -> list[str]:
    facts = result.facts
    latency = facts["latency_ms"]
    compute = facts["compute_ms"]
    offline = facts.get("offline") or {}
    emission = (facts.get("emission") or {}).get("final_ms")
    return [
        _quoted_name(system),
        result.set,
        result.method,
        format_error_rate(result.score),
        format_figure(offline["same_percent"] if offline.get("words") else None, "{:g} %"),
        f"{latency['max']:g} / {latency['mean']:g} ms",
        f"{facts['chunk_ms']:g} ms",
        f"{compute['mean']:.1f}, {compute['p95']:.1f}, {compute['max']:.1f} ms",
        f"{emission['median']:.0f}, {emission['p95']:.0f} ms" if emission else "-",
        f"{facts['rtf']:.4f}",
        facts["device"],
    ]


def commands_block(systems: list[SystemSummary]) -> str:
    """Returns a code block with the commands of every system, and with the command that writes the section."""
    lines = []
    for system in systems:
        commands = distinct(_commands(system))
        lines.append(f"# {system.name}" if commands else f"# {system.name}: not recorded")
        lines += [*commands, ""]
    if this_command := command_line():
        lines += ["# this section", this_command]
    else:
        lines.append("# this section")
    return "\n".join(["```", *lines, "```"])


def _commands(system: SystemSummary) -> Iterator[str]:
    """Yields the commands of training, adaptation, decoding and streaming that were recorded."""
    for facts in (*system.training.starts, *(result.facts for result in in_order(system.results))):
        yield from filter(None, facts.get("adapted_by", ()))
        if facts.get("command"):
            yield facts["command"]


def format_figure(value: float | None, number_format: str) -> str:
    """Returns a formatted value, or "-" if it was not measured."""
    return "-" if value is None else number_format.format(value)


def distinct(values: Iterable[str]) -> list[str]:
    """Returns the values without repetitions, in their order."""
    return list(dict.fromkeys(values))


def _join(values: Iterable[str], separator: str = ", ") -> str:
    return separator.join(distinct(values)) or "-"


def _quoted_name(system: SystemSummary) -> str:
    return f"`{system.name}`"
