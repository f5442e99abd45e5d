"""The recording of a new manifest, with the fields of lhotse's `Recording`: to import lhotse takes seconds."""

from dataclasses import asdict, dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any


@dataclass(frozen=True)
class ManifestSource:
    """An audio file, or a command that prints one; `channels` are counted from 0."""

    type: str  # "file" or "command"
    channels: list[int]
    source: str


@dataclass(frozen=True)
class ManifestRecording:
    """A recording as lhotse describes it in a manifest: rate (Hz), length (samples and seconds) and transforms."""

    id: str
    sources: list[ManifestSource]
    sampling_rate: int
    num_samples: int  # of each channel
    duration: float  # seconds
    channel_ids: list[int]
    transforms: tuple[dict[str, Any], ...] = ()  # applied while the audio is read

    def resample(self, sampling_rate: int) -> "ManifestRecording":
        """Returns the recording, resampled to `sampling_rate` while it is read, as lhotse's `Recording.resample`.

        The duration is rounded to whole samples: 1 s at 44,100 Hz can have no whole number of them at 16,001 Hz.
        """
        num_samples = round_samples(self.duration * sampling_rate)
        rates = {"source_sampling_rate": self.sampling_rate, "target_sampling_rate": sampling_rate}
        return ManifestRecording(
            id=self.id,
            sources=self.sources,
            sampling_rate=sampling_rate,
            num_samples=num_samples,
            duration=num_samples / sampling_rate,
            channel_ids=self.channel_ids,
            transforms=(*self.transforms, {"name": "Resample", "kwargs": rates}),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of lhotse's `Recording.to_dict`."""
        tree = asdict(self)
        transforms = list(tree.pop("transforms"))
        return {**tree, "transforms": transforms} if transforms else tree


def round_samples(samples: float) -> int:
    """Returns a number of samples as an integer; halves are rounded up, as lhotse's `compute_num_samples` does."""
    return int(Decimal(round(samples, ndigits=8)).quantize(Decimal(0), rounding=ROUND_HALF_UP))
