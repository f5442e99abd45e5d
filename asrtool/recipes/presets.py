"""The table of models: which size trains well on how many hours, on processors and on GPUs.

The sizes for processors come from trials on egs/yesno, egs/digits and the 5-hour set (egs/librispeech/TUNING.md);
those for GPUs are the sizes of egs/librispeech/conf and of the paper (arXiv 2005.09684).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """A model and its training, for corpora of up to `max_hours`."""

    name: str
    max_hours: float
    dim: int
    layers: int
    heads: int
    ff_dim: int
    front_end: str  # model.subsampling
    convolution: str  # model.convolution
    dropout: float
    batch_seconds: int
    lr: float
    epochs: int  # passes over the training set, if time allows
    vtlp: float  # vocal tract length perturbation
    time_masks: int  # of SpecAugment

    @property
    def size(self) -> str:
        """A phrase about the size: "8 layers of 192"."""
        return f"{self.layers} layers of {self.dim}"


RESIDUAL = "{kind: residual}"
CONFORMER = "{kind: conformer, kernel: 15}"

# fmt: off
# For processors: as small as the task allows, small batches, and as many passes as an hour or two has time for.
CPU = (
    # "tiny" is for a few words, such as digits.
    # name     hours  dim layers heads ff   front end        convolution dropout batch lr    epochs vtlp masks
    Preset("tiny", 3, 96, 4, 4, 384, "{channels: 16}", RESIDUAL, 0.1, 25, 1.0e-3, 80, 0.15, 2),
    Preset("small", 3, 144, 6, 4, 576, "{channels: 32}", CONFORMER, 0.2, 30, 1.0e-3, 50, 0.15, 4),
    Preset("medium", 20, 192, 8, 4, 768, "{channels: 32}", CONFORMER, 0.2, 50, 1.5e-3, 25, 0.15, 8),
    Preset("large", float("inf"), 256, 8, 4, 1024, "{channels: 32}", CONFORMER, 0.1, 100, 1.5e-3, 10, 0.1, 8),
)

# For GPUs: batches that keep one busy, and more passes.
GPU = (
    Preset("tiny", 3, 96, 4, 4, 384, "{channels: 16}", RESIDUAL, 0.1, 50, 1.0e-3, 150, 0.15, 2),
    Preset("small", 3, 144, 6, 4, 576, "{channels: 32}", CONFORMER, 0.2, 60, 1.0e-3, 100, 0.15, 4),
    Preset("medium", 20, 256, 12, 4, 1024, "{channels: 64}", CONFORMER, 0.2, 200, 1.5e-3, 100, 0.15, 8),
    Preset("large", 200, 384, 12, 6, 1536, "{channels: 64}", CONFORMER, 0.15, 400, 1.0e-3, 60, 0.1, 10),
    Preset("huge", 3000, 512, 12, 8, 2048, "{kind: vgg}", CONFORMER, 0.1, 600, 1.0e-3, 30, 0.0, 10),
    Preset("deep", float("inf"), 512, 24, 8, 2048, "{kind: vgg}", CONFORMER, 0.1, 600, 1.0e-3, 10, 0.0, 10),
)
# fmt: on


def choose_preset(hours: float, has_gpu: bool, units: str) -> Preset:
    """Returns the smallest preset that is meant for `hours` of training audio; "tiny" for word units only."""
    presets = GPU if has_gpu else CPU
    return next(p for p in presets if hours <= p.max_hours and (p.name != "tiny" or units == "word"))
