"""A page of results in Markdown, written from experiment folders (`asrtool report`).

Every figure is one that training, decoding, streaming or scoring has left in the folder; where there is none: "-".
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from asrtool.errors import UserError
from asrtool.files import require_output, write_text
from asrtool.provenance import command_line, describe_provenance
from asrtool.scoring.markdown import put, table
from asrtool.scoring.report import interval_text
from asrtool.scoring.systems import Decoding, System

TIMED = {"rtf", "audio_seconds", "device", "batch_seconds"}  # what decode.json says of time; older ones say less
METHODS = ["greedy", "prefix", "graph", "rescored", "neural"]  # in the order in which more is known of the language

SYSTEMS_NOTE = """\
Units count the blank. Git is the state of asrtool's checkout in training and, after "results", in decoding where that
is another one. Hours of audio and device-hours are those of this training alone, without that of the system whose
weights `--init-from` names. Peak memory is that of a training process, on its GPU if it has one."""
RATES_NOTE = "Word error rate, or phone error rate (PER), in percent, and its 95 % bootstrap interval over utterances."
RTF_NOTE = """\
Seconds from stored features or audio to words for each second of audio, over all sets together; "_adapted" with the
adaptation, and the decoding that it learns from."""
STREAM_NOTE = """\
Chunk by chunk from raw audio, features included. Same words: as in the decoding of whole utterances. Latency: what
features and model wait for. Compute: of a chunk, mean, 95th percentile, most. Emission: from the end of a word in the
alignment until it was there for good, computing included; median, 95th percentile."""


def section(systems: list[System], title: str) -> str:
    """All there is to read about `systems`."""
    sets = sorted({result.set for system in systems for result in system.decodings if result.score})
    rates = [part for name in sets for part in (f"### {set_heading(systems, name)}", rates_table(systems, name))]
    parts = [f"## {title}", systems_table(systems), SYSTEMS_NOTE, *rates, RATES_NOTE if rates else ""]
    parts += _titled("Real-time factor", rtf_table(systems), RTF_NOTE)
    parts += _titled("Streaming", stream_table(systems), STREAM_NOTE)
    return "\n\n".join(filter(None, [*parts, "### Commands", commands(systems)]))


def _titled(title: str, made: str, note: str) -> list[str]:
    return [f"### {title}", made, note] if made else []


def write_section(path: Path, title: str, made: str) -> None:
    """Put `made` into the file `path` as the section `title`; nothing else in the file changes."""
    if "-->" in title or len(title.splitlines()) != 1:
        raise UserError("--title is one line of text without '-->'")
    require_output(path, (".md",))
    try:
        text = path.read_bytes().decode("utf-8") if path.is_file() else ""
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); name another file") from error
    write_text(path, put(text, *(f"<!-- asrtool report: {title} {where} here -->" for where in ("from", "to")), made))


def systems_table(systems: list[System]) -> str:
    """A row a system: what it is and what it took."""
    head = ["system", "git", "units", "objective", "parameters", "steps", "hours of audio", "device-hours", "on"]
    return table([*head, "peak memory"], map(_system_row, systems))


def _system_row(system: System) -> list[str]:
    training = system.training
    steps = figure(training.steps, "{:,}") + ("" if training.finished or training.steps is None else ", unfinished")
    return [
        _name(system),
        git_states(system),
        system.units,
        system.objective,
        f"{system.parameters / 1e6:.2f} M",
        steps,
        figure(training.hours, "{:.2f}"),
        figure(training.device_hours, "{:.2f}"),
        _listed((f"{start['ranks']} x {start['device']}" for start in training.starts), "; "),
        figure(training.peak_memory_gb, "{:.2f} GB"),
    ]


def git_states(system: System) -> str:
    """Of asrtool in training and, if it was another one, of what made the results."""
    trained = _listed(map(describe_provenance, system.training.starts))
    others = (describe_provenance(result.facts) for result in system.results)
    later = _listed(state for state in others if state not in ("-", *trained.split(", ")))
    return trained if later == "-" else f"{trained}; results {later}"


def set_heading(systems: list[System], name: str) -> str:
    """The set, and how many words were said in it."""
    scores = [result.score for system in systems for result in system.scored(name)]
    counts = {score["words"]["length"] for score in scores if score["of"] == "words"}
    return f"{name}, {counts.pop():,} words" if len(counts) == 1 else name


def rates_table(systems: list[System], name: str) -> str:
    """Error rates on the set `name`: a row a system, a column a method."""
    rows = {(_name(system),): results for system in systems if (results := system.scored(name))}
    return by_method(["system"], rows, lambda results: rate(results[0].score))


def rate(score: dict | None) -> str:
    """ "10.21 [9.30, 11.15]"."""
    if score is None:
        return "-"
    of_phones = "PER " if score["of"] == "phones" else ""
    return f"{of_phones}{score['wer']:.2f} {interval_text(score['wer_interval'])}"


def rtf_table(systems: list[System]) -> str:
    """A row for each system and all that its speed depends on, a column a method; "" where nothing was measured."""
    rows: dict[tuple[str, ...], list[Decoding]] = {}
    for system in systems:
        for result in system.decodings:
            if result.facts.keys() >= TIMED:
                rows.setdefault((_name(system), measured_on(result.facts)), []).append(result)
    return by_method(["system", "on"], rows, _rtf) if rows else ""


def measured_on(facts: dict) -> str:
    """Device, threads, and what else decides over the time that decoding took."""
    words = [facts["device"], f"batches of {facts['batch_seconds']:g} s"]
    for key, what in (("ranks", "processes"), ("jobs", "processes that search")):
        words += [f"{count} {what}"] if (count := facts.get(key, 1)) > 1 else []
    return ", ".join(words)


def _rtf(results: list[Decoding]) -> str:
    audio = [result.facts["audio_seconds"] for result in results]
    seconds = sum(result.facts["rtf"] * of for result, of in zip(results, audio, strict=True))
    return f"{seconds / sum(audio):.4f}" if sum(audio) > 0 else "-"


def by_method(
    head: list[str], rows: dict[tuple[str, ...], list[Decoding]], cell: Callable[[list[Decoding]], str]
) -> str:
    """A table whose rows begin with their keys, and have a cell of the results of each method."""
    methods = sorted({result.method for results in rows.values() for result in results}, key=_method_order)
    lines = []
    for key, results in rows.items():
        of_method = ([result for result in results if result.method == method] for method in methods)
        lines.append([*key, *(cell(some) if some else "-" for some in of_method)])
    return table([*head, *methods], lines)


def in_order(results: Iterable[Decoding]) -> list[Decoding]:
    """By set, and then by method: the usual ones first."""
    return sorted(results, key=lambda result: (result.set, *_method_order(result.method)))


def _method_order(method: str) -> tuple[int, int, str]:
    """Those with adapted weights behind the others, round by round."""
    plain, _, rounds = method.partition("_adapted")
    return len(method) - len(plain), METHODS.index(plain) if plain in METHODS else len(METHODS), rounds


def stream_table(systems: list[System]) -> str:
    """A row for each result of `asrtool stream`; "" where there is none."""
    head = ["system", "set", "method", "WER", "same words", "latency at most / on average", "chunk", "compute"]
    rows = [_stream_row(system, result) for system in systems for result in in_order(system.streams) if result.facts]
    return table([*head, "emission", "RTF", "on"], rows) if rows else ""


def _stream_row(system: System, result: Decoding) -> list[str]:
    facts = result.facts
    latency, compute, offline = facts["latency_ms"], facts["compute_ms"], facts.get("offline") or {}
    final = (facts.get("emission") or {}).get("final_ms")
    return [
        _name(system),
        result.set,
        result.method,
        rate(result.score),
        figure(offline["same_percent"] if offline.get("words") else None, "{:g} %"),
        f"{latency['max']:g} / {latency['mean']:g} ms",
        f"{facts['chunk_ms']:g} ms",
        "{mean:.1f}, {p95:.1f}, {max:.1f} ms".format(**compute),
        "{median:.0f}, {p95:.0f} ms".format(**final) if final else "-",
        f"{facts['rtf']:.4f}",
        facts["device"],
    ]


def commands(systems: list[System]) -> str:
    """What was run, in a block of shell commands, and at last the command that writes the section."""
    lines = []
    for system in systems:
        made = [*system.training.starts, *(result.facts for result in in_order(system.results))]
        named = (command for facts in made for command in (*facts.get("adapted_by", ()), facts.get("command")))
        found = distinct(filter(None, named))
        lines += [f"# {system.name}" + ("" if found else ": not recorded"), *found, ""]
    return "\n".join(["```", *lines, *filter(None, ["# this section", command_line()]), "```"])


def figure(value: float | None, form: str) -> str:
    """A value, or "-" where it was not measured."""
    return "-" if value is None else form.format(value)


def distinct(values: Iterable[str]) -> list[str]:
    """Each once, in order."""
    return list(dict.fromkeys(values))


def _listed(values: Iterable[str], between: str = ", ") -> str:
    return between.join(distinct(values)) or "-"


def _name(system: System) -> str:
    return f"`{system.name}`"
