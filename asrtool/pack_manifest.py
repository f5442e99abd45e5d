"""A pack: a trained system in one folder, which needs nothing outside itself; and its table of contents, model.json.

    PACK/model.json             format, versions, features, latency, training, results, default options, sha256 of files
         README.md              the model card; it may be edited, and is not compared with a sha256
         config.yaml            the configuration of the training
         tokenizer.json         the units
         model.safetensors      the weights, with units and configuration in the header
         graph/                 the decoding graph
         lm/                    n-gram models: of the graph, for rescoring, for prefix search
         priors.json  decoding_weights.json  calibration.json  unit_ngram.json
         onnx/                  the model for other runtimes

Everything but the first four files and the weights is optional. A pack may come from a stranger: only files that
model.json lists are read, none of them may be a symbolic link, and each must have the size and the sha256 that is
listed. Small files and the weights are compared when a pack is opened, language models when a search is going to read
them. The FST of a graph is compared with graph.json when it is read.
"""

import re
import stat
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from asrtool.errors import UserError
from asrtool.readers import read_json
from asrtool.system_files import CALIBRATION, PRIORS, UNIT_COUNTS, SystemFiles, require_sha256
from asrtool.text.words import has_control_characters
from asrtool.yaml_reader import read_yaml

MANIFEST = "model.json"
CARD = "README.md"
CONFIG = "config.yaml"
TOKENIZER = "tokenizer.json"
WEIGHTS = "model.safetensors"
DECODING_WEIGHTS = "decoding_weights.json"
GRAPH, LM, ONNX = "graph", "lm", "onnx"  # folders
REQUIRED = (CONFIG, TOKENIZER, WEIGHTS)
# Names that commands read in the folder of a system; where they exist, the manifest must list them.
READ_NAMES = (*REQUIRED, PRIORS, CALIBRATION, DECODING_WEIGHTS, UNIT_COUNTS, GRAPH, LM)
COMMAND = "asrtool pack"
HINT = f"copy the whole pack again, or write it again with `{COMMAND}`"
FORMAT_VERSION = 1
# A name, or a folder and a name: neither hidden, nor absolute, nor with "..".
FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,99})?")
MAX_FILES = 100  # a pack with everything has about 20
MAX_BYTES = 10**13  # 10 TB: no file system holds larger files in practice
MAX_COUNT = 10**15
MAX_RESULTS = 10_000  # sets times methods


def _without_control_characters(text: str) -> str:
    """Returns the text. Raises ValueError for control characters, which would reach a terminal."""
    if has_control_characters(text):
        raise ValueError("it has control characters, or line ends")
    return text


Text = Annotated[str, Field(max_length=100_000)]
Name = Annotated[str, Field(max_length=200), AfterValidator(_without_control_characters)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Figure = Annotated[float, Field(ge=-MAX_COUNT, le=MAX_COUNT)]
Positive = Annotated[float, Field(gt=0, le=1e6)]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class FileEntry(_Strict):
    """Size and sha256 of a file."""

    bytes: Annotated[int, Field(ge=0, le=MAX_BYTES)]
    sha256: Hash


class Features(_Strict):
    """What the model hears."""

    sampling_rate: Annotated[int, Field(ge=1, le=1_000_000)]  # Hz
    num_bins: Annotated[int, Field(ge=1, le=10_000)]  # of the log-mel filterbank
    output_frame_seconds: Positive


class Latency(_Strict):
    """The frames that a streaming model waits for: its chunk, and the right context after it."""

    chunk: Count
    right: Count


class Units(_Strict):
    """The outputs of the model."""

    count: Annotated[int, Field(ge=2, le=10**7)]
    type: Name
    output_type: Name


class Training(_Strict):
    """How the weights were trained, None where it is not recorded."""

    objective: Name
    data: Name  # the manifest's name
    data_hours: Figure | None  # hours of audio in the manifest
    data_utterances: Count | None
    seen_hours: Figure | None  # hours of audio in training, each epoch counted
    steps: Count | None
    finished: bool
    device_hours: Figure | None
    peak_memory_gb: Figure | None
    starts: list[dict[str, Any]]  # the provenance each time that the training began or continued
    checkpoint: Name
    checkpoint_sha256: Hash
    longest_seconds: Figure  # the longest utterance that it was trained on


class Result(_Strict):
    """A result of `asrtool decode` or `asrtool stream` before packing; its readers check `facts` and `score`."""

    command: Literal["decode", "stream"]
    set: Name
    method: Name
    facts: dict[str, Any]
    score: dict[str, Any]


class PrefixOptions(_Strict):
    """Default options of prefix search."""

    beam: Positive | None = None
    lm_weight: Figure | None = None
    lm_units: bool | None = None
    insertion_penalty: Figure | None = None


class GraphSearchOptions(_Strict):
    """Default options of graph search."""

    beam: Positive | None = None
    lattice_beam: Positive | None = None
    acoustic_scale: Positive | None = None
    blank_penalty: Figure | None = None
    insertion_penalty: Figure | None = None


class MethodOptions(_Strict):
    """The default options of each search method."""

    prefix: PrefixOptions = PrefixOptions()
    graph: GraphSearchOptions = GraphSearchOptions()

    def by_method(self) -> dict[str, dict[str, Any]]:
        """Returns the options that are set, by method."""
        return {"prefix": self.prefix.model_dump(exclude_none=True), "graph": self.graph.model_dump(exclude_none=True)}


class Carried(_Strict):
    """The places of what SystemFiles names, relative to the pack."""

    graph: Name | None = None
    graph_lm: Name | None = None
    rescore: Name | None = None
    lm: Name | None = None
    priors: Name | None = None
    decoding_weights: Name | None = None
    calibration: Name | None = None


class Manifest(_Strict):
    """The content of model.json."""

    format: Literal["asrtool pack"]
    format_version: Annotated[int, Field(ge=1, le=FORMAT_VERSION)]
    name: Name
    licence: Text | None
    versions: dict[Name, Name]
    parameters: Count
    features: Features
    units: Units
    latency: Latency | None  # None: the model needs the whole utterance
    training: Training
    results: Annotated[list[Result], Field(max_length=MAX_RESULTS)]
    provenance: dict[str, Any]
    default_method: Literal["greedy", "prefix", "graph"]
    options: MethodOptions
    carried: Carried
    files: list[Name]  # the names in the folder that `asrtool pack` has written
    hashes: Annotated[dict[Name, FileEntry], Field(max_length=MAX_FILES)]  # of every file but model.json and README.md

    @field_validator("hashes")
    @classmethod
    def _check_names(cls, hashes: dict[str, FileEntry]) -> dict[str, FileEntry]:
        for name in hashes:
            if not FILE_NAME.fullmatch(name) or name in (MANIFEST, CARD):
                raise ValueError(f"{name!r} is not the name of a file of a pack")
        for name in REQUIRED:
            if name not in hashes:
                raise ValueError(f"{name} is missing")
        return hashes


def is_pack(folder: Path) -> bool:
    """Returns True if `folder` has a model.json."""
    return (folder / MANIFEST).is_file()


def read_manifest(pack: Path) -> Manifest:
    """Returns the content of model.json. Raises UserError that names the first field that is wrong."""
    path = pack / MANIFEST
    if path.is_symlink():
        raise UserError(f"{path} is not a regular file inside the pack; {HINT}")
    content = read_json(path, "manifest of a pack", HINT)
    version = content.get("format_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UserError(f"{path} has the format version {version}, which this asrtool does not know; update asrtool")
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        details = error.errors(include_url=False, include_input=False, include_context=False)[0]
        field = ".".join(map(str, details["loc"]))[:100]
        raise UserError(f"{path}: {field}: {details['msg'].removeprefix('Value error, ')[:200]}; {HINT}") from error
    _check_carried(path, manifest)
    return manifest


def _check_carried(path: Path, manifest: Manifest) -> None:
    """Raises UserError for a carried file that is not listed, and for a default method without its files."""
    for name, place in manifest.carried.model_dump(exclude_none=True).items():
        listed = f"{place}/graph.json" if name == "graph" else place
        if listed not in manifest.hashes:
            raise UserError(f"{path}: carried.{name}: {listed[:200]!r} is not among the files that it lists; {HINT}")
    if manifest.default_method == "graph" and not manifest.carried.graph:
        raise UserError(f"{path}: default_method is graph, and the pack has no graph; {HINT}")


def open_pack(pack: Path, large_files: bool = False) -> Manifest:
    """Returns the manifest of a pack whose files have been verified.

    Every listed file must be a regular file of the listed size and sha256; the sha256 of language models and FSTs is
    compared only with `large_files`. Raises UserError that names the first file that is another.
    """
    manifest = read_manifest(pack)
    for name, entry in manifest.hashes.items():
        _require_regular(pack, name, entry)
    folders = {name.partition("/")[0] for name in manifest.hashes}
    for name in READ_NAMES:
        if name not in folders and (pack / name).exists():
            raise UserError(f"{pack / name} is not listed in {MANIFEST}; delete it, or write the pack again")
    _require_listed(pack / GRAPH, manifest)
    for name, entry in manifest.hashes.items():
        if large_files or not (name.startswith(f"{LM}/") or name.endswith(".fst")):
            require_sha256(pack / name, entry.sha256)
    config = read_yaml(pack / CONFIG, "configuration", HINT)
    if isinstance(config, dict) and "base" in config:
        raise UserError(f"{pack / CONFIG} has a base, which would be read outside of the pack; {HINT}")
    return manifest


def _require_regular(pack: Path, name: str, entry: FileEntry) -> None:
    """Raises UserError unless `name` is a regular file of the listed size, not reached by a symbolic link."""
    path = pack / name
    try:
        folder_modes = [(pack / parent).lstat().st_mode for parent in Path(name).parents[:-1]]
        status = path.lstat()
    except OSError as error:
        raise UserError(f"{path} is missing ({error.strerror}); {HINT}") from error
    if not all(map(stat.S_ISDIR, folder_modes)) or not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is not a regular file inside the pack; {HINT}")
    if status.st_size != entry.bytes:
        raise UserError(f"{path} has {status.st_size:,} bytes instead of {entry.bytes:,}; {HINT}")


def _require_listed(folder: Path, manifest: Manifest) -> None:
    """Raises UserError for a file in a folder of a pack that the manifest does not list."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if f"{folder.name}/{path.name}" not in manifest.hashes:
            raise UserError(f"{path} is not listed in {MANIFEST}; delete it, or write the pack again")


def pack_files(pack: Path, manifest: Manifest) -> SystemFiles:
    """Returns the files that a pack carries. `SystemFiles.require_intact` verifies language models."""
    places = manifest.carried.model_dump(exclude_none=True)
    unverified = {pack / name: entry.sha256 for name, entry in manifest.hashes.items() if name.startswith(f"{LM}/")}
    return SystemFiles(
        **{name: pack / place for name, place in places.items()},
        default_method=manifest.default_method,
        options=manifest.options.by_method(),
        unverified=unverified,
    )
