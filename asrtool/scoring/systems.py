"""Summaries of experiment folders and packs: how a system was trained, what it cost, and how it scored."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from asrtool.config import ObjectiveConfig
from asrtool.config_file import load_config
from asrtool.errors import UserError
from asrtool.files import file_hash
from asrtool.pack_manifest import MANIFEST, Manifest, is_pack, open_pack
from asrtool.readers import read_json, read_training_log
from asrtool.scoring import schemas
from asrtool.scoring.folder import HASH_KEY, HYPOTHESES, read_result_facts
from asrtool.text.tokenizer import load_tokenizer

FACTS_SCHEMAS: dict[str, type[BaseModel]] = {"decode": schemas.DecodeFacts, "stream": schemas.StreamFacts}


@dataclass(frozen=True)
class TrainingSummary:
    """The content of log.jsonl, None where it is not recorded."""

    starts: list[dict]  # the rows of all times that the training began or continued, with their provenance
    parameters: int | None
    steps: int | None
    finished: bool
    hours: float | None  # of audio, over all ranks
    device_hours: float | None
    peak_memory_gb: float | None


@dataclass(frozen=True)
class DecodingSummary:
    """The content of EXP/decode/SET/METHOD or EXP/stream/SET/METHOD."""

    set: str
    method: str
    facts: dict  # decode.json or stream.json, empty if there is neither
    score: dict | None  # wer.json


@dataclass(frozen=True)
class SystemSummary:
    """A row of a table of results."""

    name: str
    units: str
    objective: str
    training: TrainingSummary
    decodings: list[DecodingSummary]
    streams: list[DecodingSummary]

    @property
    def results(self) -> list[DecodingSummary]:
        """All results, of whole utterances and of streams."""
        return self.decodings + self.streams

    def scored(self, set_name: str) -> list[DecodingSummary]:
        """Returns the decodings of a set that were scored."""
        return [result for result in self.decodings if result.set == set_name and result.score]


def read_systems(experiments: Iterable[Path]) -> list[SystemSummary]:
    """Returns the systems in these folders. Raises UserError for a folder without an experiment or without scores."""
    folders = list(dict.fromkeys(experiments))
    names = distinct_names(folders)
    return [read_system(folder, name) for folder, name in zip(folders, names, strict=True)]


def distinct_names(folders: list[Path]) -> list[str]:
    """Returns as many of the last parts of each path as are needed to tell them apart: "transformer", "5h/blstm"."""
    paths = [folder.resolve().parts[1:] for folder in folders]
    longest = max(map(len, paths), default=0)
    for depth in range(1, longest + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"two of {', '.join(map(str, folders))} are the same folder; give each one once")


def read_system(experiment: Path, name: str) -> SystemSummary:
    """Returns the system in a folder of `asrtool train`, or in a pack."""
    manifest = open_pack(experiment) if is_pack(experiment) else None
    if not (experiment / "config.yaml").is_file():
        raise UserError(f"{experiment} is not an experiment: it has no config.yaml; give folders of `asrtool train`")
    config = load_config(experiment / "config.yaml")
    tokenizer = load_tokenizer(experiment / "tokenizer.json")
    decodings = read_results(experiment / "decode", manifest)
    streams = read_results(experiment / "stream", manifest)
    if not any(result.score for result in decodings + streams):
        raise UserError(f"{experiment} was never scored; run {_scoring_commands(experiment, decodings, streams)}")
    return SystemSummary(
        name=name,
        units=f"{tokenizer.size} {tokenizer.to_dict()['type']}",
        objective=describe_objective(config.objective),
        training=packed_training(manifest) if manifest else read_training(experiment / "log.jsonl"),
        decodings=decodings,
        streams=streams,
    )


def _scoring_commands(experiment: Path, decodings: list[DecodingSummary], streams: list[DecodingSummary]) -> str:
    if not decodings and not streams:
        return f"`asrtool decode {experiment} CUTS`, then `asrtool score {experiment / 'decode' / '*' / '*'}`"
    folder = "decode" if decodings else "stream"
    return f"`asrtool score {experiment / folder / '*' / '*'}`"


def describe_objective(objective: ObjectiveConfig) -> str:
    """Returns a name such as "CTC", or "MMI + 0.1 CTC, intermediate CTC 0.3, topology hmm"."""
    name = objective.kind.upper()
    if objective.kind == "mmi":
        weights = {"CTC": objective.ctc_weight, "CE": objective.ce_weight}
        name += "".join(f" + {weight:g} {added}" for added, weight in weights.items() if weight)
    if objective.intermediate_ctc:
        name += f", intermediate CTC {objective.intermediate_ctc:g}"
    if objective.topology != "ctc":
        name += f", topology {objective.topology}"
    return name


def read_training(log: Path) -> TrainingSummary:
    """Returns the summary of log.jsonl, which may belong to an unfinished training or an older version of asrtool."""
    rows = _read_rows(log) if log.is_file() else []
    starts = [row for row in rows if row["event"] == "start"]
    ends = [row for row in rows if row["event"] == "finished"]
    parameters = [row["parameters"] for row in starts if row.get("parameters") is not None]
    steps = rows[-1].get("step", 0) if rows else None
    # The last report may be older than the last step.
    hours = [row["hours"] for row in rows if "hours" in row and row.get("step", 0) == steps]
    memory = [row["peak_memory_gb"] for row in rows if row.get("peak_memory_gb") is not None]
    return TrainingSummary(
        starts=starts,
        parameters=parameters[-1] if parameters else None,
        steps=steps,
        finished=bool(ends),
        hours=hours[-1] if hours else None,
        device_hours=ends[-1].get("device_hours") if ends else None,
        peak_memory_gb=max(memory, default=None),
    )


def packed_training(manifest: Manifest) -> TrainingSummary:
    """Returns the summary of the training that a pack records."""
    training = manifest.training
    for row in training.starts:
        schemas.check_schema(schemas.StartRow, row, f"{MANIFEST}: training.starts", "write the pack again")
    return TrainingSummary(
        starts=training.starts,
        parameters=manifest.parameters,
        steps=training.steps,
        finished=training.finished,
        hours=training.seen_hours,
        device_hours=training.device_hours,
        peak_memory_gb=training.peak_memory_gb,
    )


def _read_rows(log: Path) -> list[dict]:
    hint = "`asrtool train` writes it; delete it to report without it"
    rows = read_training_log(log)
    for number, row in enumerate(rows, 1):
        is_start = isinstance(row, dict) and row.get("event") == "start"
        schemas.check_schema(schemas.StartRow if is_start else schemas.LogRow, row, f"{log}:{number}", hint)
    return rows


def read_results(folder: Path, manifest: Manifest | None = None) -> list[DecodingSummary]:
    """Returns the results in `folder`/SET/METHOD; `folder` is EXP/decode or EXP/stream.

    The results that a pack records are among them, unless the folder has a result of the same set and method.
    """
    results = {(result.set, result.method): result for result in _packed_results(folder.name, manifest)}
    results |= {(result.set, result.method): result for result in _read_folders(folder)}
    return list(results.values())


def _packed_results(command: str, manifest: Manifest | None) -> Iterator[DecodingSummary]:
    for result in manifest.results if manifest else ():
        if result.command == command:
            place = f"{MANIFEST}: results: {result.set} {result.method}"
            hint = "write the pack again"
            facts = schemas.check_schema(FACTS_SCHEMAS[command], result.facts, place, hint)
            score = schemas.check_schema(schemas.ScoreFacts, result.score, place, hint)
            yield DecodingSummary(set=result.set, method=result.method, facts=facts, score=score)


def _read_folders(folder: Path) -> Iterator[DecodingSummary]:
    command = folder.name
    facts_file = f"{command}.json"
    results = {path.parent for name in (facts_file, "wer.json") for path in folder.glob(f"*/*/{name}")}
    for result in sorted(results):
        facts = read_result_facts(result)
        if facts:
            schemas.check_schema(FACTS_SCHEMAS[command], facts, result / facts_file, f"rerun `asrtool {command}`")
        yield DecodingSummary(set=result.parent.name, method=result.name, facts=facts, score=_read_score(result))


def _read_score(folder: Path) -> dict | None:
    """Returns the content of wer.json, which must belong to the hypotheses that are in the folder."""
    path = folder / "wer.json"
    hypotheses = folder / HYPOTHESES
    if not path.is_file():
        return None
    hint = f"it is not what `asrtool score` writes; run `asrtool score {folder}`"
    score = schemas.check_schema(schemas.ScoreFacts, read_json(path, "scores", hint), path, hint)
    if HASH_KEY in score and hypotheses.is_file() and score[HASH_KEY] != file_hash(hypotheses):
        raise UserError(f"{hypotheses} has changed since it was scored; run `asrtool score {folder}`")
    return {"token_type": "words"} | score
