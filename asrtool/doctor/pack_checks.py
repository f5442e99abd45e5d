"""Checks of a pack: every file that model.json lists, what it does not list, the weights, and the graph."""

import stat
from collections.abc import Iterator
from pathlib import Path

from asrtool.doctor.experiment_checks import check_calibration, check_priors, open_config, open_tokenizer
from asrtool.doctor.findings import Finding, Report, Severity, finding_of_error, shell_command
from asrtool.doctor.graph_checks import check_graph
from asrtool.doctor.weights_checks import System, check_versions, check_weights
from asrtool.errors import AsrtoolError, UserError
from asrtool.experiment import open_experiment
from asrtool.files import file_hash
from asrtool.pack_manifest import CARD, HINT, MANIFEST, WEIGHTS, FileEntry, Manifest, read_manifest
from asrtool.progress import progress


def check_pack(report: Report, pack: Path) -> System | None:
    """Adds the facts and findings about a pack; returns what could be opened, or None without a readable model.json."""
    try:
        manifest = read_manifest(pack)
    except UserError as error:
        report.add(finding_of_error("damaged-manifest", pack / MANIFEST, error))
        return None
    for name, entry in progress(manifest.hashes.items(), "comparing sha256", len(manifest.hashes), "files"):
        report.add(check_file(pack, name, entry))
    report.add(check_unlisted(pack, manifest))
    system = System(pack, open_config(report, pack), open_tokenizer(report, pack))
    check_weights(report, system, pack / WEIGHTS)
    check_priors(report, system)
    check_calibration(report, system)
    if manifest.carried.graph:
        check_graph(report, pack / manifest.carried.graph, system.tokenizer)
    if not report.of(Severity.ERROR):
        _check_opens(report, pack)
    check_versions(report, pack, dict(manifest.versions))
    report.facts |= _facts(manifest)
    return system


def check_file(pack: Path, name: str, entry: FileEntry) -> Finding | None:
    """Returns an error if a listed file is missing, not a regular file, or not the one that was packed."""
    path = pack / name
    try:
        status = path.lstat()
    except OSError as error:
        cause = f"model.json lists it, and it is missing ({error.strerror})"
        return Finding("missing-file", Severity.ERROR, str(path), cause, HINT)
    if not stat.S_ISREG(status.st_mode) or path.parent.is_symlink():
        return Finding("not-a-file", Severity.ERROR, str(path), "it is not a regular file inside the pack", HINT)
    if status.st_size != entry.bytes:
        cause = f"it has {status.st_size:,} bytes instead of {entry.bytes:,}"
        return Finding("damaged-file", Severity.ERROR, str(path), cause, HINT)
    if file_hash(path) != entry.sha256:
        cause = "it is damaged, or not the file that was packed: its sha256 is another"
        return Finding("damaged-file", Severity.ERROR, str(path), cause, HINT)
    return None


def check_unlisted(pack: Path, manifest: Manifest) -> Iterator[Finding]:
    """Yields an error for each file that is not listed, which commands would read or a stranger may have added."""
    for path in sorted(pack.rglob("*")):
        name = path.relative_to(pack).as_posix()
        is_file = path.is_symlink() or not path.is_dir()  # a link to a folder is not followed, and is listed as a file
        if is_file and name not in manifest.hashes and name not in (MANIFEST, CARD, ".lock"):
            severity = Severity.ERROR if "/" in name else Severity.WARNING
            remedy = f"{shell_command('rm', path)}, or write the pack again with `asrtool pack`"
            yield Finding("unlisted-file", severity, str(path), "model.json does not list it", remedy)


def _check_opens(report: Report, pack: Path) -> None:
    """Opens the pack as every command does: a last check, for what those above do not know."""
    try:
        open_experiment(pack, device="cpu")
    except (AsrtoolError, OSError) as error:
        report.add(finding_of_error("pack-does-not-open", pack, error))


def _facts(manifest: Manifest) -> dict[str, object]:
    training = manifest.training
    return {
        "pack": manifest.name,
        "parameters": f"{manifest.parameters:,}",
        "units": f"{manifest.units.count} ({manifest.units.type})",
        "checkpoint": f"{training.checkpoint}, {training.steps or 'unknown'} steps, objective {training.objective}",
        "licence": manifest.licence or "not given",
        "versions": ", ".join(f"{name} {version}" for name, version in manifest.versions.items()),
        "files": len(manifest.hashes),
    }
