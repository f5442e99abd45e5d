"""The sections and keys of a configuration, with their defaults and limits.

This file is the reference of every key: the comment directly above a key says what it is, its unit and what it does.
asrtool/config_file.py reads configurations from YAML files and writes them.

Types are strict: text and bools are not numbers, and numbers are finite. Sizes have bounds far beyond any sensible
model, so that a wrong configuration, or one from a stranger, is refused instead of filling the memory.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    WrapValidator,
    model_validator,
)

MAX_COUNT = 10**9  # steps, masks, ...: more than any training has


def _plain_path(path: Path) -> Path:
    if any(ord(character) < 32 for character in str(path)):
        raise ValueError("a path with control characters")
    return path


def _path_or(other: Any, optional: bool = False) -> Callable[[Any, Callable[[Any], Any]], Any]:
    """Returns the validator of a value that is a path or of the type `other`, and None if it is `optional`.

    The error is that of the type which the value looks like; pydantic would list those of both.
    """

    def validate(value: Any, _usual: Callable[[Any], Any]) -> Any:
        if optional and value is None:
            return None
        is_path = not isinstance(value, list | tuple | dict)
        if not is_path and not value:
            raise ValueError("an empty list")
        return TypeAdapter(FilePath if is_path else other).validate_python(value)

    return validate


Integer = Annotated[int, Field(strict=True)]
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
FilePath = Annotated[Path, AfterValidator(_plain_path)]
Positive = Annotated[Integer, Field(gt=0, le=MAX_COUNT)]
Count = Annotated[Integer, Field(ge=0, le=MAX_COUNT)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]  # torch takes seeds below 2**64, so that seed + rank is one, too
Amount = Annotated[Real, Field(gt=0)]
Weight = Annotated[Real, Field(ge=0)]
Share = Annotated[Real, Field(ge=0, le=1)]  # 1 included
Fraction = Annotated[Real, Field(ge=0, lt=1)]  # 1 excluded
Duration = Annotated[Real, Field(gt=0, le=1e7)]  # in seconds, up to four months
Decibel = Annotated[Real, Field(ge=-200, le=200)]  # audio of 24 bits has a range of 144 dB
Gain = Annotated[Real, Field(gt=0, le=1000)]
Speed = Annotated[Real, Field(gt=0.3, lt=3)]
ReverberationTime = Annotated[Real, Field(ge=0.05, le=10)]  # in seconds; a large church has 10
Distance = Annotated[Real, Field(ge=0.05, le=100)]  # in metres
Frequency = Annotated[Real, Field(ge=100, le=192_000)]  # in Hz
Voices = Annotated[Integer, Field(ge=1, le=100)]
Codec = Literal["gsm", "mulaw", "mp3", "opus", "vorbis"]
Masks = Annotated[Integer, Field(ge=0, le=1000)]  # drawn for every utterance; published recipes have up to 20
Dropout = Annotated[Real, Field(ge=0, le=0.95)]  # a probability p; the values that remain are divided by 1 - p
Context = Annotated[Integer, Field(ge=0, le=100_000)]  # frames; an hour has 90,000 of 40 ms
# Frames of a chunk, or of its look-ahead; 2000 of 40 ms are 80 s, where 1 s is usual
Chunk = Annotated[Integer, Field(ge=0, le=2000)]
SnrRange = tuple[Decibel, Decibel]
ContextPerLayer = Context | Annotated[tuple[Context, ...], Field(max_length=1000)] | None


class Section(BaseModel):
    """A part of the configuration: it is frozen, and refuses keys that are not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FeaturesConfig(Section):
    """Log-mel filterbank features: windows of 25 ms, every 10 ms."""

    # Source of the features: computed from audio on the fly, or stored, with manifests written by `asrtool features`
    source: Literal["on_the_fly", "stored"] = "on_the_fly"
    # Sampling rate of all audio in Hz. Recordings at another rate are refused, not resampled silently
    sampling_rate: Annotated[Integer, Field(ge=1000, le=384_000)] = 16000
    # Number of mel bins. Convolutional front ends halve it as often as the frame rate, three times at factor 8
    num_bins: Annotated[Integer, Field(ge=4, le=1024)] = 80


class SpecAugmentConfig(Section):
    """SpecAugment: masks over the features of training cuts (arXiv 1904.08779, section 2)."""

    # Number of frequency masks per utterance
    frequency_masks: Masks = 2
    # Largest width of a frequency mask, in mel bins
    frequency_width: Positive = 27
    # Number of time masks per utterance; at least 1, since lhotse divides the share below by it
    time_masks: Annotated[Masks, Field(gt=0)] = 10
    # Largest width of a time mask, in frames of 10 ms
    time_width: Positive = 100
    # Largest share of an utterance that time masks may cover together; an utterance of which that is less than one
    # frame is not augmented at all, so that 0 turns frequency masks and time warping off, too
    time_fraction: Fraction = 0.15
    # Time warping factor, the largest shift in frames of 10 ms; 0 turns time warping off
    time_warp: Count = 80
    # Probability that an utterance is augmented at all
    probability: Share = 0.9


def _require_ranges(section: Section, *names: str) -> None:
    """Raises ValueError if one of these values is a range whose upper end comes first."""
    for name in names:
        limits = getattr(section, name)
        if limits and limits[0] > limits[1]:
            raise ValueError(f"{name} is a range, its lower end first, not {list(limits)}")


class ReverbConfig(Section):
    """Reverberation: the audio is convolved with a room impulse response (RIR), a recorded or a simulated one."""

    # Probability that a cut is reverberated
    probability: Share = 0.5
    # Manifest of recorded room impulse responses, one of which is drawn for each cut; null simulates a room
    manifest: FilePath | None = None
    # Simulated rooms: range of the reverberation time in seconds, after which the sound has decayed by 60 dB
    t60: tuple[ReverberationTime, ReverberationTime] = (0.1, 0.8)
    # Simulated rooms: range of the distance between speaker and microphone in metres
    distance: tuple[Distance, Distance] = (0.3, 5.0)

    @model_validator(mode="after")
    def _check_ranges(self) -> "ReverbConfig":
        _require_ranges(self, "t60", "distance")
        return self


class NoiseConfig(Section):
    """One source of noise: recordings of noise, of music or, mixed to babble, of speech."""

    # Manifest of the recordings, from which those of a cut are drawn
    manifest: FilePath
    # Range of the signal-to-noise ratio in dB: [lowest, highest]. The noise is the sum of its recordings
    snr: SnrRange = (10.0, 25.0)
    # Probability that this noise is mixed into a cut. Sources are drawn independently of each other
    probability: Share = 0.5
    # Range of the number of recordings that are mixed in at once: [3, 7] of speech sound like babble
    voices: tuple[Voices, Voices] = (1, 1)

    @model_validator(mode="after")
    def _check_ranges(self) -> "NoiseConfig":
        _require_ranges(self, "snr", "voices")
        return self


class CodecConfig(Section):
    """Lossy codecs: the audio is encoded and decoded again, as it is in calls and compressed files."""

    # Probability that a cut is encoded
    probability: Share = 0.5
    # Codecs, one of which is drawn for each cut: gsm, mulaw, mp3, opus (slow to encode) or vorbis. gsm and mulaw have a
    # sampling rate of 8 kHz, as telephones; the bit rates of the others are drawn from the whole range for speech
    codecs: Annotated[tuple[Codec, ...], Field(min_length=1, max_length=20)] = ("gsm", "mulaw", "mp3", "vorbis")


class LowpassConfig(Section):
    """A low-pass filter: the frequencies above a cutoff are attenuated, by 24 dB per octave."""

    # Probability that a cut is filtered
    probability: Share = 0.5
    # Range of the cutoff frequency in Hz: [lowest, highest]
    cutoff: tuple[Frequency, Frequency] = (1500.0, 6000.0)

    @model_validator(mode="after")
    def _check_ranges(self) -> "LowpassConfig":
        _require_ranges(self, "cutoff")
        return self


MAX_LISTED = 1000  # files in a list: corpora, sources of noise, exclusion lists
NoiseSources = Annotated[tuple[NoiseConfig, ...], Field(max_length=MAX_LISTED)]


class AugmentConfig(Section):
    """Augmentation of training cuts. It is drawn again for every cut and epoch, and depends on the seed alone."""

    # Factors of speed perturbation. One is drawn for each cut and epoch; 1.0 leaves the audio as it is
    speeds: Annotated[tuple[Speed, ...], Field(min_length=1, max_length=100)] = (1.0,)
    # Range of the linear gain by which the samples are multiplied: [lowest, highest]; null turns it off
    volume: tuple[Gain, Gain] | None = None
    # Section of reverberation; null turns it off, {} simulates rooms
    reverb: ReverbConfig | None = None
    # Manifest of noise recordings that are mixed into the audio, with the two values below; or a list of sources, each
    # with its own values: [{manifest: noise.jsonl.gz, snr: [0, 15]}, {manifest: music.jsonl.gz}]; null turns it off
    noise: Annotated[FilePath | NoiseSources | None, WrapValidator(_path_or(NoiseSources, optional=True))] = None
    # One manifest of noise: range of the signal-to-noise ratio in dB: [lowest, highest]
    noise_snr: SnrRange = (10.0, 25.0)
    # One manifest of noise: probability that noise is mixed into a cut
    noise_probability: Share = 0.5
    # Probability that a cut is limited to the band of a telephone, 300 to 3400 Hz at 8 kHz
    telephone_probability: Share = 0.0
    # Section of the low-pass filter; null turns it off
    lowpass: LowpassConfig | None = None
    # Section of lossy codecs; null turns them off
    codec: CodecConfig | None = None
    # Vocal tract length perturbation: frequencies are multiplied by a factor from 1 - vtlp to 1 + vtlp; 0 turns it off
    vtlp: Fraction = 0.0
    # Section of SpecAugment; null turns it off, {} has its defaults
    spec_augment: SpecAugmentConfig | None = None

    @model_validator(mode="after")
    def _check_ranges(self) -> "AugmentConfig":
        _require_ranges(self, "volume", "noise_snr")
        return self

    @property
    def noise_sources(self) -> tuple[NoiseConfig, ...]:
        """The sources of noise, also of a single manifest."""
        if self.noise is None:
            return ()
        if isinstance(self.noise, tuple):
            return self.noise
        return (NoiseConfig(manifest=self.noise, snr=self.noise_snr, probability=self.noise_probability),)

    @property
    def sample_changes(self) -> tuple[str, ...]:
        """The keys that are turned on and change the samples, which is impossible with stored features."""
        is_on = {
            "speeds": self.speeds != (1.0,),
            "volume": self.volume is not None,
            "reverb": self.reverb is not None,
            "noise": self.noise is not None,
            "telephone_probability": self.telephone_probability > 0,
            "lowpass": self.lowpass is not None,
            "codec": self.codec is not None,
        }
        return tuple(name for name, on in is_on.items() if on)


class CorpusConfig(Section):
    """One of several training corpora, which are mixed cut by cut (docs/data_mixing.md)."""

    # Manifest of the corpus
    manifest: FilePath
    # Weight: the corpus has weight / sum of all weights of the audio. null, which is for all corpora or none, is
    # hours ** (1 / data.temperature)
    weight: Amount | None = None


def _listed_corpus(value: Any) -> Any:
    return {"manifest": value} if isinstance(value, str | Path) else value


Corpora = Annotated[tuple[Annotated[CorpusConfig, BeforeValidator(_listed_corpus)], ...], Field(max_length=MAX_LISTED)]
SetName = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
DevSets = Annotated[dict[SetName, FilePath], Field(max_length=MAX_LISTED)]
ExclusionLists = Annotated[tuple[FilePath, ...], Field(max_length=MAX_LISTED)]


class DataConfig(Section):
    """The manifests, the units, and how cuts are put into batches."""

    # Manifest of the training set; or a list of corpora, which are mixed: [first.jsonl.gz, second.jsonl.gz], or
    # [{manifest: first.jsonl.gz, weight: 3}, {manifest: second.jsonl.gz, weight: 1}]
    train: Annotated[FilePath | Corpora, WrapValidator(_path_or(Corpora))] = Path("data/train.jsonl.gz")
    # Several corpora without weights: their shares of the audio are proportional to hours ** (1 / temperature). 1 takes
    # every cut once an epoch; the higher it is, the more the shares are alike
    temperature: Annotated[Real, Field(ge=1, le=1e6)] = 1.0
    # Manifest of the development set, on which validation computes the loss; or several by their names:
    # {clean: clean.jsonl.gz, noisy: noisy.jsonl.gz}
    dev: Annotated[FilePath | DevSets, WrapValidator(_path_or(DevSets))] = Path("data/dev.jsonl.gz")
    # Several dev sets: name of the one whose loss chooses the best checkpoints and stops early; null is the first
    early_stopping: SetName | None = None
    # File with the ids of cuts that are left out of training and dev sets, or a list of such files: one id a line, and
    # after a tab the reason, as `asrtool doctor data` writes; null is none
    exclude: Annotated[FilePath | ExclusionLists | None, WrapValidator(_path_or(ExclusionLists, optional=True))] = None
    # Tokenizer file with the output units, from `asrtool tokenizer`
    tokenizer: FilePath = Path("data/lang/tokenizer.json")
    # Largest amount of audio in a batch in seconds, padding included
    batch_seconds: Duration = 200.0
    # Number of buckets of similar length; the cuts of a batch come from one bucket, which keeps padding small
    num_buckets: Positive = 10
    # Shortest cut in seconds; training leaves out shorter ones and lists them
    min_seconds: Duration = 0.1
    # Longest cut in seconds; training leaves out longer ones and lists them
    max_seconds: Duration = 30.0
    # Number of loader processes per rank; 0 loads in the training process
    workers: Annotated[Integer, Field(ge=0, le=256)] = 1
    # Section of the augmentation of training cuts
    augment: AugmentConfig = AugmentConfig()

    @model_validator(mode="after")
    def _check_sets(self) -> "DataConfig":
        weighted = [corpus.weight is not None for corpus in self.corpora]
        if any(weighted) and not all(weighted):
            raise ValueError("weight is for all corpora of train, or for none")
        if any(weighted) and self.temperature != 1.0:
            raise ValueError("temperature is for corpora without weights")
        if self.early_stopping is not None and self.early_stopping not in self.dev_sets:
            raise ValueError(f"early_stopping {self.early_stopping} is not one of dev: {', '.join(self.dev_sets)}")
        return self

    @property
    def corpora(self) -> tuple[CorpusConfig, ...]:
        """The training corpora, also a single one."""
        return self.train if isinstance(self.train, tuple) else (CorpusConfig(manifest=self.train),)

    @property
    def train_manifests(self) -> tuple[Path, ...]:
        """The manifests of the training corpora."""
        return tuple(corpus.manifest for corpus in self.corpora)

    @property
    def dev_sets(self) -> dict[str, Path]:
        """The manifests of the dev sets by their names; a single one is called dev."""
        return self.dev if isinstance(self.dev, dict) else {"dev": self.dev}

    @property
    def selection_set(self) -> str:
        """The name of the dev set whose loss chooses checkpoints and stops early."""
        return self.early_stopping or next(iter(self.dev_sets))

    @property
    def exclusion_lists(self) -> tuple[Path, ...]:
        """The files that list cuts to leave out."""
        if self.exclude is None:
            return ()
        return self.exclude if isinstance(self.exclude, tuple) else (self.exclude,)


class SubsamplingConfig(Section):
    """The front end, which reduces the frame rate: `factor` feature frames of 10 ms become one frame."""

    # Type: 2-D convolutions of stride 2, VGG blocks, or stacked frames with a linear projection
    kind: Literal["conv", "vgg", "stack"] = "conv"
    # Subsampling factor: a power of two, usually 2, 4 or 8; any number for "stack"
    factor: Annotated[Integer, Field(gt=0, le=64)] = 4
    # Number of channels of the first convolution; "vgg" doubles it with each halving of the frame rate
    channels: Annotated[Integer, Field(gt=0, le=4096)] = 64
    # vgg: whether its convolutions see no later frames; the other types never look ahead
    causal: Flag = False

    @model_validator(mode="after")
    def _check_factor(self) -> "SubsamplingConfig":
        is_power_of_two = self.factor >= 2 and self.factor.bit_count() == 1
        if self.kind != "stack" and not is_power_of_two:
            raise ValueError(
                f"factor {self.factor} of {self.kind} must be a power of two, 2 or more; other factors need kind stack"
            )
        return self


class ConvolutionConfig(Section):
    """The 1-D convolution over time after each block of a Transformer (asrtool/models/convolution.py)."""

    # Type: none, a plain interleaved convolution, one with a residual connection, or the Conformer's convolution module
    kind: Literal["none", "interleaved", "residual", "conformer"] = "none"
    # Kernel size in frames; odd unless the convolution is causal
    kernel: Annotated[Integer, Field(gt=1, le=1001)] = 3
    # Whether it sees no later frames; otherwise it looks ahead half a kernel, which adds up over the layers
    causal: Flag = False

    @model_validator(mode="after")
    def _check_kernel(self) -> "ConvolutionConfig":
        if not self.causal and self.kernel % 2 == 0:
            raise ValueError(f"a symmetric convolution needs an odd kernel, not {self.kernel}; or causal: true")
        return self


class InitConfig(Section):
    """Initialisation of the weight matrices of the Transformer blocks (asrtool/models/initialise.py)."""

    # Scheme: torch's defaults, or bounds that shrink with depth: alpha / layer ** exponent (arXiv 1908.11365)
    scheme: Literal["default", "depth_scaled"] = "default"
    # depth_scaled: factor of all bounds
    alpha: Annotated[Real, Field(gt=0, le=1)] = 1.0
    # depth_scaled: exponent of the layer's number, counted from 1
    exponent: Annotated[Real, Field(ge=0, le=100)] = 0.5
    # depth_scaled: the matrices that it draws: all of a block, or those of queries, keys and values alone
    scope: Literal["all", "qkv"] = "all"


# Keys that only some models have: key -> the models that need a number there. All other models need null.
MODELS_WITH_KEY = {
    "chunk_size": "lc_blstm, transformer_xl and transformer with mask chunk",
    "memory": "transformer_xl and transformer with mask chunk",
    "look_ahead": "lc_blstm",
}


class ModelConfig(Section):
    """The acoustic model (asrtool/models). Frames are those after subsampling."""

    # Architecture of the encoder
    architecture: Literal["blstm", "lc_blstm", "transformer", "transformer_xl"] = "transformer"
    # Mean and variance normalisation of the features per mel bin, inside the model: with the statistics of the training
    # set, with those of each utterance, or none
    normalise: Literal["global", "utterance", "none"] = "global"
    # Section of the front end
    subsampling: SubsamplingConfig = SubsamplingConfig()
    # Model dimension; an LSTM has half of it in each direction
    dim: Annotated[Integer, Field(gt=0, le=16_384)] = 256
    # Number of layers
    layers: Annotated[Integer, Field(gt=0, le=1000)] = 12
    # Dropout of the encoder's input and of the output of each sublayer
    dropout: Dropout = 0.1
    # Transformer: number of attention heads
    heads: Annotated[Integer, Field(gt=0, le=1024)] = 4
    # Transformer: dimension inside the feed-forward layers
    ff_dim: Annotated[Integer, Field(gt=0, le=131_072)] = 1024
    # Transformer: activation function of the feed-forward layers
    activation: Literal["relu", "silu", "gelu"] = "silu"
    # Transformer: layer normalisation before each sublayer (Pre-Norm) or after its residual connection (Post-Norm)
    norm: Literal["pre", "post"] = "pre"
    # Transformer: positional encoding: sinusoids added to the input, relative encodings in attention, or none
    positional_encoding: Literal["sinusoidal", "relative", "none"] = "sinusoidal"
    # Transformer: section of the convolution after each block
    convolution: ConvolutionConfig = ConvolutionConfig()
    # Transformer: section of the initialisation
    init: InitConfig = InitConfig()
    # Transformer: dropout of the attention weights; slow on CPU in fp32
    attention_dropout: Dropout = 0.0
    # Transformer: dropout inside the feed-forward layers
    ff_dropout: Dropout = 0.0
    # Transformer: probability that a training step skips a block (LayerDrop)
    layer_drop: Fraction = 0.0
    # Transformer: whether the backward pass computes the activations inside blocks again instead of storing them
    activation_checkpointing: Flag = False
    # Attention mask of architecture transformer: the whole utterance, a sliding window, or chunks
    mask: Literal["full", "sliding", "chunk"] = "full"
    # sliding: left context in frames, one number for all layers or a list with one per layer; null is unlimited
    left_context: ContextPerLayer = None
    # sliding: right context (look-ahead) in frames, like left_context; it adds up over the layers
    right_context: ContextPerLayer = None
    # lc_blstm, transformer_xl, mask chunk: number of frames of a chunk, which are computed together and see each other
    chunk_size: Annotated[Chunk, Field(gt=0)] | None = None
    # transformer_xl, mask chunk: number of frames before a chunk that its frames attend to; transformer_xl sends no
    # gradient through them
    memory: Annotated[Integer, Field(ge=0, le=5000)] | None = None
    # lc_blstm: number of frames after a chunk that are read for its backward LSTM
    look_ahead: Chunk | None = None

    @model_validator(mode="after")
    def _check_model(self) -> "ModelConfig":
        if self.architecture in ("blstm", "lc_blstm"):
            self._check_blstm()
        elif self.dim % self.heads or self.positional_encoding == "sinusoidal" and self.dim % 2:
            raise ValueError(f"dim {self.dim} must be even and a multiple of heads {self.heads}")
        if self.mask != "full" and self.architecture != "transformer":
            raise ValueError(f"mask {self.mask} is for architecture transformer, not {self.architecture}")
        self._check_chunks()
        if self.mask != "sliding" and (self.left_context, self.right_context) != (None, None):
            raise ValueError("left_context and right_context are for mask sliding")
        for context in (self.left_context, self.right_context):
            if isinstance(context, tuple) and len(context) != self.layers:
                raise ValueError(f"{len(context)} numbers of frames for {self.layers} layers")
        return self

    def _check_blstm(self) -> None:
        if self.dim % 2:
            raise ValueError(f"dim {self.dim} must be even: half of it for each direction")
        if self.convolution.kind != "none" or self.init.scheme != "default":
            raise ValueError(f"convolution and init are for Transformers, not for {self.architecture}")

    def _check_chunks(self) -> None:
        is_chunked = self.mask == "chunk" or self.architecture == "transformer_xl"
        is_lc_blstm = self.architecture == "lc_blstm"
        is_needed = {"chunk_size": is_chunked or is_lc_blstm, "memory": is_chunked, "look_ahead": is_lc_blstm}
        for name, needed in is_needed.items():
            if (getattr(self, name) is not None) != needed:
                verb = "needs" if needed else "has no"
                model = f"{self.architecture} with mask {self.mask}"
                raise ValueError(f"{model} {verb} {name}: it is for {MODELS_WITH_KEY[name]}")

    def per_layer(self, context: int | tuple[int, ...] | None) -> list[int | None]:
        """`left_context` or `right_context` of each layer, the lowest layer first."""
        return list(context) if isinstance(context, tuple) else [context] * self.layers


class ObjectiveConfig(Section):
    """The training objective (asrtool/objectives), which asrtool/training/objective.py creates."""

    # Objective: CTC, lattice-free MMI, or frame-wise cross entropy on alignments: those named "unit" in the manifests,
    # which `asrtool align` writes
    kind: Literal["ctc", "mmi", "ce"] = "ctc"
    # Share of the loss that is CTC on the output of the middle block of a Transformer (intermediate CTC)
    intermediate_ctc: Fraction = 0.0
    # mmi: HMM topology of the units: CTC, or CTC without the rule of a blank between equal units ("modified")
    topology: Literal["ctc", "modified"] = "ctc"
    # mmi: order of the unit n-gram model of the denominator graph
    ngram_order: Annotated[Integer, Field(gt=0, le=20)] = 4
    # mmi: smallest count of an n-gram history of two units or more in the denominator's model; for a history with a
    # smaller count, the longest shorter one is used
    min_count: Positive = 3
    # mmi: leaky-HMM coefficient: weight of a jump to any state of the denominator between frames; 0 turns it off
    leaky_hmm: Fraction = 1e-5
    # mmi: weight of the CTC loss that is added
    ctc_weight: Weight = 0.1
    # mmi: weight of the frame-wise cross entropy that is added; it needs alignments
    ce_weight: Weight = 0.0
    # Frame-wise cross entropy: share of each frame's target that is spread evenly over all units
    label_smoothing: Fraction = 0.0

    @property
    def needs_alignments(self) -> bool:
        """Returns True if training reads alignments from the manifests."""
        return self.kind == "ce" or self.kind == "mmi" and self.ce_weight > 0


class TrainingConfig(Section):
    """The optimiser (AdamW), the schedule, and checkpoints. A step is one update of the weights."""

    # Peak learning rate; the factor of schedule "noam"
    lr: Amount = 1e-3
    # Audio per step in seconds for which lr is meant: lr is scaled with the audio in a step; null turns scaling off
    lr_reference_seconds: Duration | None = None
    # Number of steps of the learning rate's warmup
    warmup_steps: Count = 500
    # Schedule of the learning rate after the warmup (asrtool/training/schedule.py)
    schedule: Literal["linear", "cosine", "inverse_sqrt", "noam", "one_cycle", "none"] = "cosine"
    # Number of steps of the training
    max_steps: Positive = 10000
    # Number of batches per step on each rank, whose gradients are accumulated
    accumulate_grad_batches: Positive = 1
    # Weight decay of AdamW
    weight_decay: Weight = 0.01
    # Coefficients of the running means of AdamW: of the gradient and of its square
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    # Largest gradient norm; larger gradients are scaled down to it
    max_grad_norm: Amount = 5.0
    # Precision of the computation: weights and optimiser stay in fp32. auto is bf16 where the processor supports it
    precision: Literal["fp32", "bf16", "auto"] = "fp32"
    # Number of steps between validations; each writes a checkpoint
    validate_every: Positive = 500
    # Number of steps between further checkpoints; null writes none by steps
    save_every: Positive | None = None
    # Minutes between further checkpoints; null writes none by time
    save_minutes: Duration | None = 10.0
    # Number of validations without a lower dev loss after which training stops; null never stops early
    patience: Positive | None = None
    # Number of checkpoints that are kept by dev loss
    keep_best: Positive = 5
    # Number of checkpoints of validations that are kept by step
    keep_last: Positive = 1
    # Weights of `averaged.pt`: the mean of the best or of the last checkpoints, or the running mean over all steps
    average: Literal["best", "last", "ema"] = "best"
    # Decay of the running mean of the weights (EMA) over all steps; 1 is the plain mean, null keeps none
    ema_decay: Annotated[Real, Field(gt=0, le=1)] | None = None
    # Number of steps between rows of the log
    log_every: Positive = 50
    # Whether the log has the gradient norm of every block
    log_layers: Flag = False
    # Experiment trackers: any of tensorboard, wandb (Weights & Biases) and mlflow. The latter two need the extra of
    # their name, and take addresses and keys from their own environment variables (docs/trackers.md)
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], Field(max_length=3)] = ("tensorboard",)

    @model_validator(mode="after")
    def _check_schedule_and_average(self) -> "TrainingConfig":
        if self.schedule not in ("none", "inverse_sqrt", "noam") and self.warmup_steps >= self.max_steps:
            raise ValueError("warmup_steps must be below max_steps")
        if self.schedule == "noam" and not self.warmup_steps:
            raise ValueError("schedule noam needs warmup_steps")
        if self.average == "ema" and self.ema_decay is None:
            raise ValueError("average ema needs ema_decay, e.g. 0.999")
        return self


class ParallelConfig(Section):
    """Training with several processes, started by torchrun (asrtool/training/parallel.py, bmuf.py)."""

    # Strategy: DistributedDataParallel, blockwise model-update filtering (BMUF), sharded weights (FSDP2), or none,
    # which refuses more than one process
    strategy: Literal["none", "ddp", "bmuf", "fsdp"] = "ddp"
    # ddp: number format in which gradients are sent; none is fp32, bf16 needs GPUs
    gradient_compression: Literal["none", "fp16", "bf16"] = "none"
    # Time in seconds to wait for another process before training stops with an error
    timeout: Duration = 600.0
    # bmuf: number of steps in a block, after which the workers synchronise
    block_steps: Positive = 16
    # bmuf: block momentum; null is 1 - 1 / number of workers
    block_momentum: Fraction | None = None
    # bmuf: block learning rate
    block_lr: Amount = 1.0
    # bmuf: whether block momentum is Nesterov's instead of classical
    nesterov: Flag = False
    # bmuf: Adam's moments when workers synchronise: averaged as in BMUF-Adam, or reset to zero
    block_moments: Literal["average", "reset"] = "average"
    # bmuf: number of ranks that form one worker, with ddp inside; null is all ranks of a machine
    ranks_per_worker: Positive | None = None


class GuardsConfig(Section):
    """Guards against bad steps, which are skipped, and rollbacks to a checkpoint (asrtool/training/guards.py)."""

    # Number of standard deviations above the loss's running mean from which on a step's loss is a spike
    loss_spike_std: Annotated[Real, Field(gt=1)] = 10.0
    # Number of bad steps in a row after which training goes back to its last checkpoint
    max_bad_steps: Positive = 10
    # Factor of the learning rate, applied at each rollback
    lr_factor: Annotated[Real, Field(gt=0, le=1)] = 0.5
    # Number of rollbacks after which the next one stops the training
    max_rollbacks: Count = 3


class Config(Section):
    """The configuration of one experiment."""

    # Seed of the initial weights, the order of the data, augmentation and dropout
    seed: Seed = 1
    # Section of the features
    features: FeaturesConfig = FeaturesConfig()
    # Section of the data
    data: DataConfig = DataConfig()
    # Section of the acoustic model
    model: ModelConfig = ModelConfig()
    # Section of the training objective
    objective: ObjectiveConfig = ObjectiveConfig()
    # Section of the optimiser, the schedule and the checkpoints
    training: TrainingConfig = TrainingConfig()
    # Section of training with several processes
    parallel: ParallelConfig = ParallelConfig()
    # Section of the guards against bad steps
    guards: GuardsConfig = GuardsConfig()

    @model_validator(mode="after")
    def _check_sections(self) -> "Config":
        changes = self.data.augment.sample_changes
        if self.features.source == "stored" and changes:
            verb = "change" if len(changes) > 1 or changes == ("speeds",) else "changes"
            raise ValueError(
                f"data.augment.{', '.join(changes)} {verb} the audio, but features.source is 'stored': "
                "use on_the_fly, or `asrtool features --speeds` for other speeds"
            )
        if self.objective.intermediate_ctc and not self.model.architecture.startswith("transformer"):
            raise ValueError(f"objective.intermediate_ctc is for Transformers, not for {self.model.architecture}")
        if self.data.min_seconds >= self.data.max_seconds:
            raise ValueError("data.min_seconds must be below data.max_seconds")
        return self
