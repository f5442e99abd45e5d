"""The configuration of an experiment: data only, checked as a whole before anything starts.

A YAML file names what differs from the defaults below, or from the files that its `base` names, relative to itself;
`--set training.lr=1e-3` changes single values. Unknown keys are refused with the nearest valid name, impossible
combinations with the reason. The resolved configuration is written to `exp/NAME/config.yaml`, the only thing that
decoding reads.

Types are strict: text and bools are not numbers, and numbers are finite. Sizes have bounds far beyond any sensible
model, so that a wrong configuration, or one of a stranger, is refused instead of filling the memory.
"""

import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from asrtool.errors import UserError, nearest, require_file
from asrtool.files import write_text
from asrtool.yaml_reader import NotYaml, dump_yaml, parse_yaml, read_yaml

MAKE_ONE = "give a YAML file, e.g. one of egs/*/conf/"
MAX_FILES = 100  # configuration files that one may build upon; the recipes have up to 5
MAX_COUNT = 10**9  # of steps, masks, ...: more than any training has
SHOWN = 10  # faults that are listed
NAME_SHOWN = 80  # characters of an unknown key

_brief = reprlib.Repr()  # of a value in an error line
_brief.maxlevel, _brief.maxlist, _brief.maxtuple, _brief.maxdict, _brief.maxstring, _brief.maxother = 2, 4, 4, 4, 60, 60


def _plain_path(path: Path) -> Path:
    if any(ord(character) < 32 for character in str(path)):
        raise ValueError("a path with control characters")
    return path


Integer = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
FilePath = Annotated[Path, AfterValidator(_plain_path)]
Positive = Annotated[Integer, Field(gt=0, le=MAX_COUNT)]
Count = Annotated[Integer, Field(ge=0, le=MAX_COUNT)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]  # what torch's generators take, ranks added
Amount = Annotated[Real, Field(gt=0)]
Weight = Annotated[Real, Field(ge=0)]
Share = Annotated[Real, Field(ge=0, le=1)]
Fraction = Annotated[Real, Field(ge=0, lt=1)]
Seconds = Annotated[Real, Field(gt=0, le=1e7)]  # up to four months
Decibel = Annotated[Real, Field(ge=-200, le=200)]  # audio of 24 bits has 144
Gain = Annotated[Real, Field(gt=0, le=1000)]
Speed = Annotated[Real, Field(gt=0.3, lt=3)]


class Section(BaseModel):
    """A part of the configuration: frozen, and closed to keys that are not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Features(Section):
    """Log-mel filterbank features: 25 ms windows every 10 ms."""

    source: Literal["on_the_fly", "stored"] = "on_the_fly"  # stored: the manifests come from `asrtool features`
    # Hz; recordings at another rate are refused, not resampled in silence. Audio has 8,000 to 192,000
    sampling_rate: Annotated[Integer, Field(ge=1000, le=384_000)] = 16000
    num_bins: Annotated[Integer, Field(ge=4, le=1024)] = 80  # front ends halve them up to three times


Masks = Annotated[Integer, Field(ge=0, le=1000)]  # of an utterance, each drawn; published recipes have up to 20


class SpecAugment(Section):
    """Masks over the features, in training only (SpecAugment, arXiv 1904.08779, section 2)."""

    frequency_masks: Masks = 2
    frequency_width: Positive = 27  # bins, the largest width of one mask
    time_masks: Annotated[Masks, Field(gt=0)] = 10
    time_width: Positive = 100  # frames of 10 ms, the largest width of one mask
    time_fraction: Fraction = 0.15  # at most this share of an utterance lies under time masks
    time_warp: Count = 80  # frames; 0 is off
    probability: Share = 0.9  # that an utterance is augmented at all


class Augment(Section):
    """What training does to the audio; drawn anew for every cut and epoch, from the seed alone."""

    # One speed is drawn; 1.0 leaves the audio alone
    speeds: Annotated[tuple[Speed, ...], Field(min_length=1, max_length=100)] = (1.0,)
    volume: tuple[Gain, Gain] | None = None  # gain range, linear
    noise: FilePath | None = None  # a manifest of noise recordings
    noise_snr: tuple[Decibel, Decibel] = (10.0, 25.0)  # dB
    noise_probability: Share = 0.5
    vtlp: Fraction = 0.0  # frequencies are multiplied by 1 minus this to 1 plus this: another speaker
    spec_augment: SpecAugment | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "Augment":
        for name in ("volume", "noise_snr"):
            limits = getattr(self, name)
            if limits and limits[0] > limits[1]:
                raise ValueError(f"{name} is a range, its lower end first, not {list(limits)}")
        return self

    @property
    def on_audio(self) -> bool:
        """Whether anything changes the samples, which stored features cannot follow."""
        return self.speeds != (1.0,) or self.volume is not None or self.noise is not None


class Data(Section):
    """Where the data is and how it becomes batches."""

    train: FilePath = Path("data/train.jsonl.gz")
    dev: FilePath = Path("data/dev.jsonl.gz")
    tokenizer: FilePath = Path("data/lang/tokenizer.json")
    batch_seconds: Seconds = 200.0  # audio in a batch, padding counted
    buckets: Positive = 10  # cuts of a batch come from one bucket of similar length
    min_seconds: Seconds = 0.1  # shorter and longer cuts are left out of training, and named
    max_seconds: Seconds = 30.0
    workers: Annotated[Integer, Field(ge=0, le=256)] = 1  # loader processes; 0 loads in the training process
    augment: Augment = Augment()


class Subsampling(Section):
    """The front end: `factor` frames of 10 ms become one."""

    kind: Literal["conv", "vgg", "stack"] = "conv"  # 2-D convolutions of stride 2; VGG; stacked frames and a projection
    factor: Annotated[Integer, Field(gt=0, le=64)] = 4  # a power of two but for "stack"
    # Channels of the first convolution; VGG doubles them with each halving
    channels: Annotated[Integer, Field(gt=0, le=4096)] = 64
    causal: Flag = False  # VGG that does not look ahead; the others never do

    @model_validator(mode="after")
    def _halves(self) -> "Subsampling":
        if self.kind != "stack" and (self.factor < 2 or self.factor.bit_count() != 1):
            raise ValueError(f"factor {self.factor} of {self.kind} must be 2, 4 or 8; any factor needs kind stack")
        return self


class Convolution(Section):
    """1-D convolution over time after each block of a Transformer."""

    kind: Literal["none", "interleaved", "residual", "conformer"] = "none"  # asrtool/models/convolution.py
    kernel: Annotated[Integer, Field(gt=1, le=1001)] = 3  # frames
    causal: Flag = False  # else it looks as far ahead as back, each layer further than the one before

    @model_validator(mode="after")
    def _centred(self) -> "Convolution":
        if not self.causal and self.kernel % 2 == 0:
            raise ValueError(f"a symmetric convolution needs an odd kernel, not {self.kernel}; or causal: true")
        return self


class Init(Section):
    """How the matrices of the blocks are drawn (asrtool/models/initialise.py)."""

    scheme: Literal["default", "depth_scaled"] = "default"
    alpha: Annotated[Real, Field(gt=0, le=1)] = 1.0
    exponent: Annotated[Real, Field(ge=0, le=100)] = 0.5  # of the layer's number
    scope: Literal["all", "qkv"] = "all"  # every matrix of a block, or those of queries, keys and values


Context = Annotated[Integer, Field(ge=0, le=100_000)]  # frames that a frame sees: an hour has 90,000 of 40 ms
Chunk = Annotated[Integer, Field(ge=0, le=2000)]  # utterances are padded to it; 80 s of 40 ms, where 1 s is usual
Frames = Context | Annotated[tuple[Context, ...], Field(max_length=1000)] | None
# What only some models have: null is "not there", and elsewhere a number is refused, or asked for.
NEEDS = {
    "chunk_size": "lc_blstm, transformer_xl and transformer with mask chunk",
    "memory": "transformer_xl and transformer with mask chunk",
    "look_ahead": "lc_blstm",
}


Dropout = Annotated[Real, Field(ge=0, le=0.95)]  # what is kept is divided by 1 minus this


class Model(Section):
    """The acoustic model (asrtool/models). Frames are those after subsampling."""

    architecture: Literal["blstm", "lc_blstm", "transformer", "transformer_xl"] = "transformer"
    normalise: Literal["global", "utterance", "none"] = "global"  # of the features, per bin, inside the model
    subsampling: Subsampling = Subsampling()
    dim: Annotated[Integer, Field(gt=0, le=16_384)] = 256  # an LSTM has half of it in each direction
    layers: Annotated[Integer, Field(gt=0, le=1000)] = 12
    dropout: Dropout = 0.1  # of the input of a stack and of what a layer adds
    # Transformers
    heads: Annotated[Integer, Field(gt=0, le=1024)] = 4
    ff_dim: Annotated[Integer, Field(gt=0, le=131_072)] = 1024
    activation: Literal["relu", "silu", "gelu"] = "silu"
    norm: Literal["pre", "post"] = "pre"
    positional_encoding: Literal["sinusoidal", "relative", "none"] = "sinusoidal"
    convolution: Convolution = Convolution()
    init: Init = Init()
    attention_dropout: Dropout = 0.0  # of the attention weights; dear on CPU in fp32
    ff_dropout: Dropout = 0.0  # inside the feed-forward layers
    layer_drop: Fraction = 0.0  # probability that training skips a block in a step
    activation_checkpointing: Flag = False  # compute blocks again in the backward pass instead of keeping their insides
    # What a frame sees
    mask: Literal["full", "sliding", "chunk"] = "full"  # of architecture transformer
    left_context: Frames = None  # sliding: frames before, the same or one number for each layer; null is all
    right_context: Frames = None  # sliding: frames after, likewise; they add up over the layers
    chunk_size: Annotated[Chunk, Field(gt=0)] | None = None  # frames that are computed together and see each other
    memory: Annotated[Integer, Field(ge=0, le=5000)] | None = (
        None  # frames before the chunk that it sees; transformer_xl: without gradient
    )
    look_ahead: Chunk | None = None  # frames after the chunk

    @model_validator(mode="after")
    def _consistent(self) -> "Model":
        if self.architecture in ("blstm", "lc_blstm"):
            self._check_blstm()
        elif self.dim % self.heads or self.positional_encoding == "sinusoidal" and self.dim % 2:
            raise ValueError(f"dim {self.dim} must be even and a multiple of heads {self.heads}")
        if self.mask != "full" and self.architecture != "transformer":
            raise ValueError(f"mask {self.mask} is for architecture transformer, not {self.architecture}")
        chunked = self.mask == "chunk" or self.architecture == "transformer_xl"
        lc = self.architecture == "lc_blstm"
        for name, needed in (("chunk_size", chunked or lc), ("memory", chunked), ("look_ahead", lc)):
            if (getattr(self, name) is not None) != needed:
                verb = "needs" if needed else "has no"
                raise ValueError(f"{self.architecture} with mask {self.mask} {verb} {name}: it is for {NEEDS[name]}")
        if self.mask != "sliding" and (self.left_context, self.right_context) != (None, None):
            raise ValueError("left_context and right_context are for mask sliding")
        self.per_layer(self.left_context)
        self.per_layer(self.right_context)
        return self

    def _check_blstm(self) -> None:
        if self.dim % 2:
            raise ValueError(f"dim {self.dim} must be even: half of it for each direction")
        if self.convolution.kind != "none" or self.init.scheme != "default":
            raise ValueError(f"convolution and init are for Transformers, not for {self.architecture}")

    def per_layer(self, frames: int | tuple[int, ...] | None) -> list[int | None]:
        """`left_context` or `right_context` for each layer, the lowest first."""
        if not isinstance(frames, tuple):
            return [frames] * self.layers
        if len(frames) != self.layers:
            raise ValueError(f"{len(frames)} numbers of frames for {self.layers} layers")
        return list(frames)


class Objective(Section):
    """What training minimises (asrtool/objectives)."""

    kind: Literal["ctc", "mmi", "ce"] = "ctc"
    intermediate_ctc: Fraction = 0.0  # share of the loss that is CTC on what the middle block of a Transformer gives
    # mmi: lattice-free, beside all that a unit n-gram allows
    topology: Literal["ctc", "modified"] = "ctc"  # modified: no blank is needed between equal units
    ngram_order: Annotated[Integer, Field(gt=0, le=20)] = 4  # of the n-gram
    min_count: Positive = 3  # times that a history of more than one unit must occur
    leaky_hmm: Fraction = 1e-5  # weight of a jump to any state between two frames; 0 is none
    ctc_weight: Weight = 0.1  # times the CTC loss that is added
    ce_weight: Weight = 0.0  # times the cross entropy on alignments that is added
    # cross entropy: frame by frame, on the alignments "unit" of the manifests (`asrtool align`)
    label_smoothing: Fraction = 0.0  # share of each frame that goes to all units alike

    @property
    def aligned(self) -> bool:
        """Whether training needs alignments."""
        return self.kind == "ce" or self.kind == "mmi" and self.ce_weight > 0


class Training(Section):
    """The optimiser, its schedule, and what is kept. A step is one update from `accumulate` batches of every rank."""

    lr: Amount = 1e-3  # at its peak; of "noam", the factor
    lr_reference_seconds: Seconds | None = (
        None  # of audio in a step that lr is meant for: it grows and shrinks with that
    )
    warmup_steps: Count = 500  # until the peak
    schedule: Literal["linear", "cosine", "inverse_sqrt", "noam", "one_cycle", "none"] = "cosine"  # schedule.py
    max_steps: Positive = 10000
    accumulate: Positive = 1  # batches to a step, on each rank
    weight_decay: Weight = 0.01
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    max_grad_norm: Amount = 5.0  # largest gradient norm
    # bf16: autocast; weights and optimiser stay fp32. auto: bf16 where the processor has instructions for it
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    validate_every: Positive = 500  # steps; each validation writes a checkpoint
    save_every: Positive | None = None  # steps between further checkpoints
    save_minutes: Seconds | None = 10.0  # and minutes
    patience: Positive | None = None  # validations without a better dev loss before training stops
    keep_best: Positive = 5  # checkpoints, by dev loss
    keep_last: Positive = 1  # checkpoints of validations, by step
    average: Literal["best", "last", "ema"] = "best"  # what `averaged.pt` is: the mean of those kept, or of all steps
    ema_decay: Annotated[Real, Field(gt=0, le=1)] | None = (
        None  # weight of the past in the mean of all steps; 1: all alike
    )
    log_every: Positive = 50  # steps
    log_layers: Flag = False  # the gradient norm of every block, too

    @model_validator(mode="after")
    def _consistent(self) -> "Training":
        if self.schedule not in ("none", "inverse_sqrt", "noam") and self.warmup_steps >= self.max_steps:
            raise ValueError("warmup_steps must be below max_steps")
        if self.schedule == "noam" and not self.warmup_steps:
            raise ValueError("schedule noam needs warmup_steps")
        if self.average == "ema" and self.ema_decay is None:
            raise ValueError("average ema needs ema_decay, e.g. 0.999")
        return self


class Parallel(Section):
    """Several processes, which torchrun starts (asrtool/training/parallel.py, bmuf.py)."""

    strategy: Literal["none", "ddp", "bmuf", "fsdp"] = "ddp"  # none: refuse more than one process
    compression: Literal["none", "fp16", "bf16"] = "none"  # of the gradients that ddp sends; bf16 needs GPUs
    timeout: Seconds = 600.0  # to wait for another process before giving up
    # bmuf: ranks of one machine are a worker with ddp inside; the workers meet every block_steps
    block_steps: Positive = 16
    block_momentum: Fraction | None = None  # 1 - 1 / workers by default
    block_lr: Amount = 1.0
    nesterov: Flag = False
    block_moments: Literal["average", "reset"] = "average"  # Adam's at a meeting: BMUF-Adam, or from zero
    worker_ranks: Positive | None = None  # ranks to a worker; those of a machine by default


class Guards(Section):
    """When a step is not taken, and when training goes back (asrtool/training/guards.py)."""

    loss_spike_std: Annotated[Real, Field(gt=1)] = (
        10.0  # standard deviations above its running mean at which a loss is bad
    )
    max_bad_steps: Positive = 10  # bad steps in a row before training goes back to its last checkpoint
    lr_factor: Annotated[Real, Field(gt=0, le=1)] = 0.5  # times the learning rate, each time it goes back
    max_rollbacks: Count = 3  # before it stops


class Config(Section):
    """One experiment."""

    seed: Seed = 1
    features: Features = Features()
    data: Data = Data()
    model: Model = Model()
    objective: Objective = Objective()
    training: Training = Training()
    parallel: Parallel = Parallel()
    guards: Guards = Guards()

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        if self.features.source == "stored" and self.data.augment.on_audio:
            raise ValueError(
                "data.augment.speeds, volume and noise change the audio, but features.source is 'stored': "
                "use on_the_fly, or `asrtool features --speeds`"
            )
        if self.objective.intermediate_ctc and not self.model.architecture.startswith("transformer"):
            raise ValueError(f"objective.intermediate_ctc is for Transformers, not for {self.model.architecture}")
        if self.data.min_seconds >= self.data.max_seconds:
            raise ValueError("data.min_seconds must be below data.max_seconds")
        return self


def load_config(path: str | Path, overrides: list[str] | tuple[str, ...] = ()) -> Config:
    """The configuration in the YAML file `path` with `overrides` ("training.lr=1e-3") applied.

    Raises UserError for what is not YAML, an unknown key, a value of the wrong type or an impossible combination.
    """
    tree = _read_tree(Path(path), (), {})
    for override in overrides:
        tree = _override(tree, override)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error)}") from error


def _read_tree(path: Path, above: tuple[Path, ...], known: dict[Path, dict]) -> dict:
    """The keys and values of a YAML file over those of the files its `base` names, the later over the earlier.

    `above` are the files that led here, and `known` the trees of all files read so far: each is read once.
    """
    name, path = path, require_file(path, "configuration", MAKE_ONE).resolve()
    if path in known:
        return known[path]
    if path in above:
        raise UserError(f"{path} is its own base: {' -> '.join(p.name for p in (*above, path))}")
    if len(known) + len(above) >= MAX_FILES:
        raise UserError(f"{path}: more than {MAX_FILES} files by `base`; put them into fewer")
    tree = read_yaml(name, "configuration", MAKE_ONE)
    tree = {} if tree is None else tree  # an empty file
    if not isinstance(tree, dict):
        raise UserError(f"{name}: expected keys and values, found {type(tree).__name__}")
    merged: dict = {}
    for base in _bases(tree.pop("base", []), name):
        merged = merge(merged, _read_tree(path.parent / base, (*above, path), known))
    known[path] = merge(merged, tree)
    return known[path]


def _bases(value: Any, path: Path) -> list[str]:
    bases = [value] if isinstance(value, str) else value
    if not isinstance(bases, list) or not all(isinstance(base, str) and base for base in bases):
        raise UserError(f"{path}: base = {_brief.repr(value)}: expected the name of a file, or a list of names")
    return bases


def merge(below: dict, above: dict) -> dict:
    """`above` over `below`, section by section."""
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, dict) and isinstance(below.get(key), dict)
        merged[key] = merge(below[key], value) if both else value
    return merged


def save_config(config: Config, path: str | Path) -> None:
    """Write the whole configuration, defaults included, as YAML."""
    write_text(path, dump_yaml(config.model_dump(mode="json")))


def is_saved_config(path: Path) -> bool:
    """Whether a file is as `save_config` writes it, and not somebody's own."""
    try:
        text = path.read_bytes().decode("utf-8")
        return text == dump_yaml(load_config(path).model_dump(mode="json"))
    except (UserError, UnicodeDecodeError):
        return False


def differences(old: Config, new: Config) -> list[str]:
    """The keys whose values differ, as "training.lr: 0.001 -> 0.002"."""
    before, after = _flatten(old.model_dump(mode="json")), _flatten(new.model_dump(mode="json"))
    keys = [*after, *(key for key in before if key not in after)]
    return [f"{k}: {before.get(k)} -> {after.get(k)}" for k in keys if before.get(k) != after.get(k)]


def _flatten(tree: dict, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def _override(tree: dict, override: str) -> dict:
    key, sign, value = override.partition("=")
    shown = " ".join(override.split())[:200]
    if not sign or not key:
        raise UserError(f"--set {shown}: expected KEY=VALUE, e.g. --set training.lr=1e-3")
    try:
        return _with(tree, key.split(".", maxsplit=10), parse_yaml(value))  # sections lie in sections up to 3 deep
    except NotYaml as error:
        raise UserError(f"--set {shown}: the value is not YAML: {error}") from error


def _with(tree: dict, keys: list[str], value: Any) -> dict:
    """A copy of `tree` with `value` at the place that `keys` lead to."""
    first, *rest = keys
    below = tree.get(first)
    return tree | {first: _with(below if isinstance(below, dict) else {}, rest, value) if rest else value}


def _explain(error: ValidationError) -> str:
    """What is wrong, in one line; unknown keys with the nearest valid name."""
    explained: dict[str, str] = {}
    for one in error.errors(include_url=False):
        location = _location(one["loc"])
        explained.setdefault(".".join(location), _explain_one(one, location))
    lines = list(explained.values())
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return " ".join("; ".join([*lines[:SHOWN], *more]).split())


def _location(places: tuple[int | str, ...]) -> list[str]:
    """The keys that lead to a value. Behind them pydantic names the place in a list, and the kinds that were tried."""
    location: list[str] = []
    section: type[BaseModel] | None = Config
    for part in places:
        if section is None:
            break
        location.append(str(part))
        section = _section(section, str(part))
    return location


def _explain_one(error: dict, location: list[str]) -> str:
    name = ".".join(location)[:NAME_SHOWN]
    if error["type"] == "extra_forbidden":
        return f"unknown key '{name}' ({nearest(location[-1][:NAME_SHOWN], _fields(location[:-1]))})"
    message = error["msg"].removeprefix("Value error, ").removesuffix(" for <class 'pathlib.Path'>")
    if error["type"] == "value_error" and not isinstance(error["input"], str):
        return f"{name}: {message}" if name else message
    return f"{name} = {_brief.repr(error['input'])}: {message[0].lower()}{message[1:]}"


def _fields(location: list[str]) -> list[str]:
    """The valid keys of the section at `location`."""
    section: type[BaseModel] | None = Config
    for part in location:
        section = _section(section, part)
    return list(section.model_fields)


def _section(section: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The section that is called `name` in `section`; None for a value, and for what is unknown."""
    annotation = section.model_fields[name].annotation if name in section.model_fields else None
    options = [annotation, *getattr(annotation, "__args__", ())]
    return next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
