"""Checks of the results of `asrtool decode` and `asrtool stream` in an experiment: scored, and of these weights."""

from collections.abc import Iterator
from pathlib import Path

from asrtool.data.shards import manifest_files
from asrtool.decoding.result_folder import PARTS
from asrtool.doctor.findings import Finding, Severity, finding_of_error
from asrtool.errors import AsrtoolError
from asrtool.files import file_hash
from asrtool.readers import read_json
from asrtool.scoring.folder import HASH_KEY, HYPOTHESES, read_result_facts


def result_folders(experiment: Path) -> list[Path]:
    """Returns the folders EXP/{decode,stream}/SET/METHOD."""
    folders = (path for kind in ("decode", "stream") for path in sorted(experiment.glob(f"{kind}/*/*")))
    return [path for path in folders if path.is_dir()]


def check_results(experiment: Path) -> Iterator[Finding]:
    """Yields findings about each result: interrupted, not scored, an old score, or of earlier weights or manifests."""
    for folder in result_folders(experiment):
        yield from _check_result(experiment, folder)


def _check_result(experiment: Path, folder: Path) -> Iterator[Finding]:
    try:
        facts = read_result_facts(folder)
    except (AsrtoolError, OSError) as error:
        yield finding_of_error("damaged-result", folder, error)
        return
    command = _decode_command(experiment, folder, facts)
    if (folder / PARTS).is_dir():
        cause = "its decoding was interrupted; the parts that were done are kept"
        yield Finding("interrupted-result", Severity.WARNING, str(folder), cause, command)
    hypotheses = folder / HYPOTHESES
    if not hypotheses.is_file():
        if facts or not (folder / PARTS).is_dir():
            cause = f"it has no {HYPOTHESES}"
            yield Finding("missing-hypotheses", Severity.ERROR, str(folder), cause, command)
        return
    yield from _check_score(folder, hypotheses)
    yield from _check_age(experiment, folder, hypotheses, facts, command)


def _decode_command(experiment: Path, folder: Path, facts: dict) -> str:
    """Returns the command that wrote the result, or one like it if it is not recorded."""
    if isinstance(facts.get("command"), str):
        return facts["command"]
    kind = folder.parent.parent.name
    return f"asrtool {kind} {experiment} CUTS --method {folder.name}"


def _check_score(folder: Path, hypotheses: Path) -> Iterator[Finding]:
    """Yields a finding if the hypotheses have no score, or the score of earlier hypotheses."""
    score = folder / "wer.json"
    remedy = f"asrtool score {folder}"
    if not score.is_file():
        yield Finding("not-scored", Severity.INFO, str(folder), "the hypotheses have not been scored", remedy)
        return
    try:
        content = read_json(score, "score", remedy)
    except AsrtoolError as error:
        yield finding_of_error("damaged-score", score, error)
        return
    if not isinstance(content, dict):
        yield Finding("damaged-score", Severity.ERROR, str(score), "it is not a JSON object", remedy)
    elif content.get(HASH_KEY) not in (None, file_hash(hypotheses)):
        cause = f"it is the score of other hypotheses than those in {HYPOTHESES}"
        yield Finding("stale-score", Severity.ERROR, str(score), cause, remedy)


def _check_age(experiment: Path, folder: Path, hypotheses: Path, facts: dict, command: str) -> Iterator[Finding]:
    """Yields a warning if the weights or the manifest are newer than the hypotheses."""
    written = hypotheses.stat().st_mtime_ns
    weights = experiment / "checkpoints" / str(facts.get("checkpoint"))
    if weights.is_file() and weights.stat().st_mtime_ns > written:
        cause = f"it is older than the weights that it is of ({weights.name})"
        yield Finding("stale-result", Severity.WARNING, str(folder), cause, command)
    options = facts.get("options")
    cuts = options.get("cuts") if isinstance(options, dict) else facts.get("cuts")  # the options have absolute paths
    if isinstance(cuts, str) and Path(cuts).exists():
        try:
            newest = max(path.stat().st_mtime_ns for path in manifest_files(Path(cuts)))
        except (AsrtoolError, OSError, ValueError):
            return
        if newest > written:
            cause = f"it is older than the manifest {cuts} that it is of"
            yield Finding("stale-result", Severity.WARNING, str(folder), cause, command)
