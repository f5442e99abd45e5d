"""Checks of what the stages of a recipe wrote: there, and made from the files that are there now."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from asrtool.data.mixing import training_fingerprint
from asrtool.data.shards import entries_with_dicts
from asrtool.doctor.findings import Finding, Report, Severity
from asrtool.doctor.graph_checks import check_graph, is_graph
from asrtool.doctor.recipe_list import RecipeRun
from asrtool.doctor.result_checks import logged_times
from asrtool.errors import AsrtoolError
from asrtool.files import TEMPORARY, file_hash
from asrtool.text.tokenizer import load_tokenizer

FEATURE_SETTINGS = "settings.json"  # beside the archives of `asrtool features`


def scored_sets(run: RecipeRun) -> list[str]:
    """Returns the names of the sets that the recipe decodes, from data/scored_sets."""
    path = run.work / "data/scored_sets"
    return path.read_text(encoding="utf-8").split() if path.is_file() else []


def check_outputs(run: RecipeRun) -> Iterator[Finding]:
    """Yields an error for each output of a completed stage that is missing."""
    for number, names in _outputs(run).items():
        if not run.is_done(number):
            continue
        missing = tuple(name for name in names if not _exists(run, name))
        if missing:
            cause = f"stage {number} is marked as done, and what it wrote is missing"
            yield Finding(
                "missing-output", Severity.ERROR, str(run.work), cause, run.again(number), len(missing), missing
            )


def _exists(run: RecipeRun, pattern: str) -> bool:
    """Returns True if a file fits a pattern of `_outputs`, whose parts are names, or *."""
    folder, star, rest = pattern.partition("*")
    if not star:
        return (run.work / pattern).exists()
    return any((run.work / folder).glob(star + rest))


def _outputs(run: RecipeRun) -> dict[int, list[str]]:
    """Returns the paths that each stage must have written, * for any name; relative to the work folder if inside it."""
    sets = scored_sets(run)
    lang, exp = (_relative(run, run.folders[name]) for name in ("lang", "exp"))
    manifests = [f"{name}.jsonl.gz" for name in dict.fromkeys(["train", *sets])]
    has_graph = any("graph" in stage.outputs for stage in run.stages if stage.number == 2)
    return {
        0: ["data/scored_sets", *(f"data/{name}" for name in manifests)],
        1: [f"data/fbank/{name}" for name in manifests],
        2: [f"{lang}/tokenizer.json", *([f"{lang}/graph/graph.json"] if has_graph else [])],
        4: [f"{exp}/checkpoints/averaged.pt", f"{exp}/config.yaml"],
        5: [f"{exp}/decode/{name}/*/hyps.jsonl" for name in sets],
        6: [f"{exp}/results.txt", *(f"{exp}/decode/{name}/*/wer.json" for name in sets)],
        7: [f"{exp}/stream/{name}/*/stream.json" for name in sets],
        8: [f"{exp}/export/*"],
    }


def _relative(run: RecipeRun, path: Path) -> str:
    return path.relative_to(run.work).as_posix() if path.is_relative_to(run.work) else str(path)


def check_inputs(run: RecipeRun) -> Iterator[Finding]:
    """Yields findings for features, units and graphs that were made from other files than those that are there now."""
    for manifest in sorted((run.work / "data").glob("*.jsonl.gz")):
        yield from _guarded(str(manifest), partial(check_features, run, manifest))
    yield from _guarded("units", partial(check_units, run))
    yield from _guarded("training data", partial(check_training_data, run))


def _guarded(subject: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """Returns the findings of a check; a file that cannot be read is a finding itself."""
    try:
        return list(check())
    except (AsrtoolError, OSError, ValueError, LookupError, TypeError) as error:
        message = str(error) if isinstance(error, AsrtoolError) else f"{type(error).__name__}: {error}"
        remedy = "delete the file, and run the stage that writes it"
        return [Finding("unreadable-output", Severity.ERROR, subject, message, remedy)]


def check_features(run: RecipeRun, manifest: Path) -> Iterator[Finding]:
    """Yields findings if the stored features of a manifest are of another manifest, or their archives are missing."""
    stored = run.work / "data/fbank" / manifest.name
    if not stored.is_file():
        return
    archives = {cut_dict["features"]["storage_path"] for _, cut_dict in entries_with_dicts(stored)}
    if not archives:
        return
    missing = tuple(sorted(path for path in archives if not (run.work / path).is_file()))
    if missing:
        cause = "archives of features that it lists are missing"
        yield Finding("missing-features", Severity.ERROR, str(stored), cause, run.again(1), len(missing), missing[:10])
    settings = run.work / Path(min(archives)).parent / FEATURE_SETTINGS
    if settings.is_file():
        made_of = json.loads(settings.read_text(encoding="utf-8"))["manifest"]
        if made_of != file_hash(manifest):
            cause = f"its features are of an earlier {manifest.name}: that manifest has changed since"
            yield Finding("features-of-other-manifest", Severity.ERROR, str(stored), cause, run.again(1))


def check_units(run: RecipeRun) -> Iterator[Finding]:
    """Yields findings if units are older than the transcripts, or a system has other units."""
    lang, exp = run.folders["lang"], run.folders["exp"]
    file = lang / "tokenizer.json"
    if not file.is_file():
        return
    yield from _check_age(run, file)
    tokenizer = load_tokenizer(file)
    own = exp / "tokenizer.json"
    if own.is_file() and load_tokenizer(own).symbols != tokenizer.symbols:
        cause = f"the system was trained with other units than those in {file}"
        remedy = f"move {exp} away, then {run.command('--stage', '4')}"
        yield Finding("trained-with-other-units", Severity.ERROR, str(own), cause, remedy)


def check_lang_graph(report: Report, run: RecipeRun) -> None:
    """Adds findings if the graph of stage 2 is damaged, or of other units than tokenizer.json has now."""
    graph, file = run.folders["lang"] / "graph", run.folders["lang"] / "tokenizer.json"
    if not is_graph(graph):
        return
    try:
        tokenizer = load_tokenizer(file) if file.is_file() else None
    except (AsrtoolError, OSError, ValueError, LookupError, TypeError):
        tokenizer = None  # check_units says so
    check_graph(report, graph, tokenizer, run.again(2))


def _check_age(run: RecipeRun, tokenizer: Path) -> Iterator[Finding]:
    """Yields a warning if the units are older than the training transcripts.

    The times of files do not count in a copy of a work folder: there, the units are newer than the start of the
    training in its log.
    """
    train = run.work / "data/train.jsonl.gz"
    started = logged_times(run.folders["start"], "start")
    is_copy = bool(started) and tokenizer.stat().st_mtime > started[0] + 1  # the log has whole seconds
    if train.is_file() and train.stat().st_mtime_ns > tokenizer.stat().st_mtime_ns and not is_copy:
        cause = "the units are older than the training transcripts in data/train.jsonl.gz"
        yield Finding("older-than-input", Severity.WARNING, str(tokenizer), cause, run.again(2))


def check_training_data(run: RecipeRun) -> Iterator[Finding]:
    """Yields a warning if the manifests have changed since the system of stage 4 was trained on them."""
    from asrtool.checkpoint import load_checkpoint, step_checkpoints
    from asrtool.config_file import load_config

    exp = run.folders["exp"]
    last = max(step_checkpoints(exp / "checkpoints"), default=None)
    if last is None or not (exp / "config.yaml").is_file():
        return
    data = load_config(exp / "config.yaml").data
    corpora = tuple(corpus.model_copy(update={"manifest": run.work / corpus.manifest}) for corpus in data.corpora)
    lists = tuple(run.work / path for path in data.exclusion_lists)
    absolute = data.model_copy(update={"train": corpora, "exclude": lists or None})
    lost = [str(path) for path in (*absolute.train_manifests, *lists) if not path.exists()]
    if lost:
        cause = f"the manifest that it was trained on is missing: {', '.join(lost)}"
        yield Finding("missing-manifest", Severity.WARNING, str(exp), cause, run.command("--stage", "0"))
        return
    try:
        progress = load_checkpoint(last).get("progress")
    except AsrtoolError:
        return  # the check of the system says so
    trained_on = progress.get("manifest") if isinstance(progress, dict) else None
    if trained_on and trained_on != training_fingerprint(absolute):
        cause = f"its training data has changed since: {', '.join(map(str, data.train_manifests))}"
        remedy = f"move {exp} away, then {run.command('--stage', '4')}"
        yield Finding("trained-on-other-data", Severity.WARNING, str(exp), cause, remedy)


def check_leftovers(run: RecipeRun) -> Iterator[Finding]:
    """Yields a note on temporary files that processes left when they were killed."""
    folders = [run.work / "data", run.work / "data/fbank", run.folders["lang"], run.folders["exp"]]
    left = [path for folder in folders if folder.is_dir() for path in folder.glob(f"{TEMPORARY}*")]
    if left:
        cause = "temporary files of processes that are running or were killed; the next command removes dead ones"
        examples = tuple(map(str, left[:10]))
        yield Finding("temporary-files", Severity.NOTE, str(run.work), cause, "", len(left), examples)
