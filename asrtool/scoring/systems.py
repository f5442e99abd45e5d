"""What an experiment folder says of a system: how it was trained, what it costs, and how it scored."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from asrtool.config import Config, ObjectiveConfig
from asrtool.config_file import load_config
from asrtool.errors import UserError
from asrtool.files import file_hash
from asrtool.readers import read_json
from asrtool.scoring import facts
from asrtool.scoring.folder import HASH, HYPOTHESES, read_facts
from asrtool.training_log import read_log


@dataclass(frozen=True)
class Training:
    """What log.jsonl says; None where it does not."""

    starts: list[dict]  # what ran, each time that training was begun or continued (asrtool/provenance.py)
    steps: int | None
    finished: bool
    hours: float | None  # of audio, over all ranks
    device_hours: float | None
    peak_memory_gb: float | None


@dataclass(frozen=True)
class Decoding:
    """EXP/decode/SET/METHOD or EXP/stream/SET/METHOD."""

    set: str
    method: str
    facts: dict  # decode.json or stream.json, empty where there is none
    score: dict | None  # wer.json


@dataclass(frozen=True)
class System:
    """A row of a table of results."""

    name: str
    units: str
    objective: str
    parameters: int
    training: Training
    decodings: list[Decoding]
    streams: list[Decoding]

    @property
    def results(self) -> list[Decoding]:
        """Of both kinds."""
        return self.decodings + self.streams

    def scored(self, name: str) -> list[Decoding]:
        """The decodings of the set `name` that were scored."""
        return [result for result in self.decodings if result.set == name and result.score]


def read_systems(experiments: Iterable[Path]) -> list[System]:
    """The systems of these folders. Raises UserError for one that is no experiment, or was never scored."""
    folders = list(dict.fromkeys(experiments))
    return [read_system(folder, name) for folder, name in zip(folders, distinct_names(folders), strict=True)]


def distinct_names(folders: list[Path]) -> list[str]:
    """As many of the last parts of each path as tell them apart: "transformer"; "5h/blstm" beside "100h/blstm"."""
    paths = [folder.resolve().parts[1:] for folder in folders]
    for depth in range(1, max(map(len, paths), default=0) + 1):
        names = ["/".join(parts[-depth:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"two of {', '.join(map(str, folders))} are the same folder; give each one once")


def read_system(experiment: Path, name: str) -> System:
    """The system in a folder of `asrtool train`."""
    if not (experiment / "config.yaml").is_file():
        raise UserError(f"{experiment} is not an experiment: it has no config.yaml; give folders of `asrtool train`")
    config = load_config(experiment / "config.yaml")
    units, parameters = _sizes(experiment, config)
    decodings, streams = (list(_decodings(experiment / kind)) for kind in ("decode", "stream"))
    if not any(result.score for result in decodings + streams):
        folders = experiment / ("decode" if decodings or not streams else "stream") / "*" / "*"
        decoded = "" if decodings or streams else f" `asrtool decode {experiment} CUTS`, then"
        raise UserError(f"{experiment} was never scored; run{decoded} `asrtool score {folders}`")
    objective = objective_name(config.objective)
    return System(name, units, objective, parameters, read_training(experiment / "log.jsonl"), decodings, streams)


def _sizes(experiment: Path, config: Config) -> tuple[str, int]:
    """Number and kind of the units, with the blank, and the number of the model's weights, of which none is drawn."""
    import torch

    from asrtool.models.acoustic import AcousticModel
    from asrtool.text.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(experiment / "tokenizer.json")
    with torch.device("meta"):
        model = AcousticModel(config, tokenizer.size)
    return f"{tokenizer.size} {tokenizer.to_dict()['type']}", sum(p.numel() for p in model.parameters())


def objective_name(objective: ObjectiveConfig) -> str:
    """ "CTC", "MMI + 0.1 CTC", ..."""
    name = objective.kind.upper()
    if objective.kind == "mmi":
        added = {"CTC": objective.ctc_weight, "CE": objective.ce_weight}
        name += "".join(f" + {weight:g} {part}" for part, weight in added.items() if weight)
    return name + f", {objective.intermediate_ctc:g} of it CTC in the middle" * (objective.intermediate_ctc > 0)


def read_training(log: Path) -> Training:
    """From log.jsonl, which may be of a training that goes on, or of a version of asrtool that wrote less."""
    rows = _read_events(log) if log.is_file() else []
    ends = [row for row in rows if row["event"] == "finished"]
    steps = rows[-1].get("step", 0) if rows else None
    # The last report may be older than the last step.
    hours = [row["hours"] for row in rows if "hours" in row and row.get("step", 0) == steps]
    return Training(
        starts=[row for row in rows if row["event"] == "start"],
        steps=steps,
        finished=bool(ends),
        hours=hours[-1] if hours else None,
        device_hours=ends[-1].get("device_hours") if ends else None,
        peak_memory_gb=max((gb for row in rows if (gb := row.get("peak_memory_gb")) is not None), default=None),
    )


def _read_events(log: Path) -> list[dict]:
    hint = "`asrtool train` writes it; delete it to report without it"
    rows = read_log(log)
    for number, row in enumerate(rows, 1):
        begins = isinstance(row, dict) and row.get("event") == "start"
        facts.check(facts.Start if begins else facts.Event, row, f"{log}:{number}", hint)
    return rows


def _decodings(folder: Path) -> Iterator[Decoding]:
    """What is in `folder`/SET/METHOD."""
    name, kind = f"{folder.name}.json", {"decode": facts.Decoded, "stream": facts.Streamed}[folder.name]
    for path in sorted({found.parent for file in (name, "wer.json") for found in folder.glob(f"*/*/{file}")}):
        found = read_facts(path)
        if found:
            facts.check(kind, found, path / name, f"rerun `asrtool {folder.name}`")
        yield Decoding(path.parent.name, path.name, found, _read_score(path))


def _read_score(folder: Path) -> dict | None:
    """wer.json, which must be of the hypotheses that are there."""
    path, hypotheses = folder / "wer.json", folder / HYPOTHESES
    if not path.is_file():
        return None
    hint = f"it is not what `asrtool score` writes; run `asrtool score {folder}`"
    score = facts.check(facts.Scored, read_json(path, "scores", hint), path, hint)
    score = {"of": "words"} | score
    if HASH in score and hypotheses.is_file() and score[HASH] != file_hash(hypotheses):
        raise UserError(f"{hypotheses} was made again since it was scored; run `asrtool score {folder}`")
    return score
