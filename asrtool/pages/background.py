"""Where a result comes from: training, decoding, configuration, and the programs that wrote the page."""

import platform
from collections.abc import Sequence
from pathlib import Path

from asrtool.errors import AsrtoolError
from asrtool.pages.elements import Element, code, details, facts
from asrtool.pages.results import Result
from asrtool.provenance import describe_provenance, provenance
from asrtool.readers import read_training_log
from asrtool.versions import LIBRARIES, installed_version

MAX_CONFIG_CHARACTERS = 100_000
DECODING_FACTS = (  # of decode.json
    *("beam", "acoustic_scale", "lm_scale", "blank_penalty", "insertion_penalty", "graph", "lm", "rescore"),
    *("checkpoint", "checkpoint_sha256", "cuts", "batch_seconds", "rtf", "device"),
)


def background_elements(experiment: Path, results: Sequence[Result]) -> list[Element]:
    """Returns the training's and the decodings' facts and commands, the configuration, and this environment."""
    starts = _starts(experiment / "log.jsonl")
    elements: list[Element] = []
    if starts:
        elements.append(facts(_training_facts(starts)))
    commands = [row.get("command") for row in [*starts, *(result.facts for result in results)]]
    known = list(dict.fromkeys(command for command in commands if isinstance(command, str)))
    if known:
        elements.append(code("\n".join(known), "Commands"))
    for result in results:
        rows = [(n.replace("_", " "), str(result.facts[n])) for n in DECODING_FACTS if result.facts.get(n) is not None]
        rows.append(("asrtool", describe_provenance(result.facts)))
        elements.append(details(f"Decoding of {result.set} by {result.method}", [facts(rows)]))
    elements.append(details("Configuration of the training", [code(_config_text(experiment), "config.yaml")]))
    elements.append(details("Environment in which this page was written", [facts(environment())]))
    return elements


def _starts(log: Path) -> list[dict]:
    """Returns the rows of the log that record a start; none without a log that can be read, as the curves say."""
    try:
        rows = read_training_log(log) if log.is_file() else []
    except (AsrtoolError, OSError):
        return []
    return [row for row in rows if isinstance(row, dict) and row.get("event") == "start"]


def _training_facts(starts: list[dict]) -> list[tuple[str, str]]:
    last = starts[-1]
    parameters = last.get("parameters")
    rows = [
        ("trained with asrtool", ", ".join(dict.fromkeys(map(describe_provenance, starts)))),
        ("device", str(last.get("device", "-"))),
        ("processes", str(last.get("ranks", "-"))),
        ("parameters", f"{parameters:,}" if isinstance(parameters, int) else "-"),
        ("begun", str(starts[0].get("time", "-"))),
    ]
    return rows + ([("continued", f"{len(starts) - 1} times")] if len(starts) > 1 else [])


def _config_text(experiment: Path) -> str:
    content = (experiment / "config.yaml").read_text(encoding="utf-8", errors="replace")
    return content[:MAX_CONFIG_CHARACTERS]


def environment() -> list[tuple[str, str]]:
    """Returns the versions of asrtool, Python and the packages that decide over results."""
    here = provenance()
    rows = [("asrtool", f"{here['version']} ({describe_provenance(here)})"), ("Python", platform.python_version())]
    rows.append(("system", f"{platform.system()} {platform.release()} {platform.machine()}"))
    installed = ((name, installed_version(name)) for name in LIBRARIES)
    return rows + [(name, version) for name, version in installed if version]
