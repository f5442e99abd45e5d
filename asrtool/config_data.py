"""The sections of a configuration that are about data: features, augmentation, corpora. See asrtool/config.py."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WrapValidator, model_validator

from asrtool.config_types import (
    Decibel,
    Duration,
    FilePath,
    FractionBelowOne,
    Gain,
    Integer,
    Masks,
    NonNegativeInteger,
    PositiveInteger,
    Probability,
    Real,
    Section,
    Speed,
    path_or,
    require_ranges,
)

ReverberationTime = Annotated[Real, Field(ge=0.05, le=10)]  # in seconds; a large church has 10
Distance = Annotated[Real, Field(ge=0.05, le=100)]  # in metres
Frequency = Annotated[Real, Field(ge=100, le=192_000)]  # in Hz
CorpusWeight = Annotated[Real, Field(ge=1e-9, le=1e9)]  # so that no share of the audio is rounded to 0
Voices = Annotated[Integer, Field(ge=1, le=100)]
Codec = Literal["gsm", "mulaw", "mp3", "opus", "vorbis"]
SnrRange = tuple[Decibel, Decibel]


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
    frequency_width: PositiveInteger = 27
    # Number of time masks per utterance; at least 1, since lhotse divides the share below by it
    time_masks: Annotated[Masks, Field(gt=0)] = 10
    # Largest width of a time mask, in frames of 10 ms
    time_width: PositiveInteger = 100
    # Largest share of an utterance that time masks may cover together; an utterance of which that is less than one
    # frame is not augmented at all, so that 0 turns frequency masks and time warping off, too
    time_fraction: FractionBelowOne = 0.15
    # Time warping factor, the largest shift in frames of 10 ms; 0 turns time warping off
    time_warp: NonNegativeInteger = 80
    # Probability that an utterance is augmented at all
    probability: Probability = 0.9


class ReverbConfig(Section):
    """Reverberation: the audio is convolved with a room impulse response (RIR), a recorded or a simulated one."""

    # Probability that a cut is reverberated
    probability: Probability = 0.5
    # Manifest of recorded room impulse responses, one of which is drawn for each cut; null simulates a room
    manifest: FilePath | None = None
    # Simulated rooms: range of the reverberation time in seconds, after which the sound has decayed by 60 dB
    t60: tuple[ReverberationTime, ReverberationTime] = (0.1, 0.8)
    # Simulated rooms: range of the distance between speaker and microphone in metres
    distance: tuple[Distance, Distance] = (0.3, 5.0)

    @model_validator(mode="after")
    def _check_ranges(self) -> "ReverbConfig":
        require_ranges(self, "t60", "distance")
        return self


class NoiseConfig(Section):
    """One source of noise: recordings of noise, of music or, mixed to babble, of speech."""

    # Manifest of the recordings; those that are mixed into a cut are drawn from it
    manifest: FilePath
    # Range of the signal-to-noise ratio in dB: [lowest, highest]. The noise is the sum of its recordings
    snr: SnrRange = (10.0, 25.0)
    # Probability that this noise is mixed into a cut. Sources are drawn independently of each other
    probability: Probability = 0.5
    # Range of the number of recordings that are mixed in at once: [3, 7] of speech sound like babble
    voices: tuple[Voices, Voices] = (1, 1)

    @model_validator(mode="after")
    def _check_ranges(self) -> "NoiseConfig":
        require_ranges(self, "snr", "voices")
        return self


class CodecConfig(Section):
    """Lossy codecs: the audio is encoded and decoded again, as it is in calls and compressed files."""

    # Probability that a cut is encoded
    probability: Probability = 0.5
    # Codecs, one of which is drawn for each cut: gsm, mulaw, mp3, opus (slow to encode) or vorbis. gsm and mulaw have a
    # sampling rate of 8 kHz, as telephones; the bit rates of the others are drawn from the whole range for speech
    codecs: Annotated[tuple[Codec, ...], Field(min_length=1, max_length=20)] = ("gsm", "mulaw", "mp3", "vorbis")


class LowpassConfig(Section):
    """A low-pass filter: the frequencies above a cutoff are attenuated, by 24 dB per octave."""

    # Probability that a cut is filtered
    probability: Probability = 0.5
    # Range of the cutoff frequency in Hz: [lowest, highest]
    cutoff: tuple[Frequency, Frequency] = (1500.0, 6000.0)

    @model_validator(mode="after")
    def _check_ranges(self) -> "LowpassConfig":
        require_ranges(self, "cutoff")
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
    noise: Annotated[FilePath | NoiseSources | None, WrapValidator(path_or(NoiseSources, optional=True))] = None
    # One manifest of noise: range of the signal-to-noise ratio in dB: [lowest, highest]
    noise_snr: SnrRange = (10.0, 25.0)
    # One manifest of noise: probability that noise is mixed into a cut
    noise_probability: Probability = 0.5
    # Probability that a cut is limited to the band of a telephone, 300 to 3400 Hz at 8 kHz
    telephone_probability: Probability = 0.0
    # Section of the low-pass filter; null turns it off
    lowpass: LowpassConfig | None = None
    # Section of lossy codecs; null turns them off
    codec: CodecConfig | None = None
    # Vocal tract length perturbation: frequencies are multiplied by a factor from 1 - vtlp to 1 + vtlp; 0 turns it off
    vtlp: FractionBelowOne = 0.0
    # Section of SpecAugment; null turns it off, {} has its defaults
    spec_augment: SpecAugmentConfig | None = None

    @model_validator(mode="after")
    def _check_ranges(self) -> "AugmentConfig":
        require_ranges(self, "volume", "noise_snr")
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
    weight: CorpusWeight | None = None


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
    train: Annotated[FilePath | Corpora, WrapValidator(path_or(Corpora))] = Path("data/train.jsonl.gz")
    # Several corpora without weights: their shares of the audio are proportional to hours ** (1 / temperature). 1 takes
    # every cut once an epoch; the higher it is, the more the shares are alike
    temperature: Annotated[Real, Field(ge=1, le=1e6)] = 1.0
    # Manifest of the development set, on which validation computes the loss; or several by their names:
    # {clean: clean.jsonl.gz, noisy: noisy.jsonl.gz}
    dev: Annotated[FilePath | DevSets, WrapValidator(path_or(DevSets))] = Path("data/dev.jsonl.gz")
    # Several dev sets: name of the one whose loss chooses the best checkpoints and stops early; null is the first
    early_stopping: SetName | None = None
    # File with the ids of cuts that are left out of training and dev sets, or a list of such files: one id a line, and
    # after a tab the reason, as `asrtool doctor data` writes; null is none
    exclude: Annotated[FilePath | ExclusionLists | None, WrapValidator(path_or(ExclusionLists, optional=True))] = None
    # Tokenizer file with the output units, from `asrtool tokenizer`
    tokenizer: FilePath = Path("data/lang/tokenizer.json")
    # Largest amount of audio in a batch in seconds, padding included. In training it is meant for utterances of 15 s:
    # batches cost about the same to compute, so that with unlimited attention one of longer utterances has less audio
    batch_seconds: Duration = 200.0
    # Number of buckets of similar length; the cuts of a batch come from one bucket, which keeps padding small
    num_buckets: PositiveInteger = 10
    # Shortest cut in seconds; training leaves out shorter ones and lists them
    min_seconds: Duration = 0.1
    # Longest cut in seconds; training leaves out longer ones and lists them
    max_seconds: Duration = 30.0
    # Number of loader processes per rank; 0 loads in the training process
    workers: Annotated[Integer, Field(ge=0, le=256)] = 1
    # File of transforms of the training speakers, from `asrtool fmllr train`; null is none. Without augment.speeds
    speaker_transforms: FilePath | None = None
    # Share of the training cuts whose features are transformed; the others stay as they are, so that the model
    # recognises speakers without a transform, too
    transformed_share: Probability = 0.75
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
        if self.speaker_transforms and "speeds" in self.augment.sample_changes:
            raise ValueError(
                "speaker_transforms are of voices at the speeds of the manifest, which augment.speeds changes: leave "
                "augment.speeds out, and store other speeds with `asrtool features --speeds` before `asrtool fmllr`"
            )
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
