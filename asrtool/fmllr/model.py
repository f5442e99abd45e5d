"""The folder of a trained GMM for fMLLR.

FOLDER/gmm.pt            Gaussian mixtures, and statistics of an average speaker
       tokenizer.json    the phones and the lexicon that they belong to
       SET.pt            transforms of the speakers of a set (asrtool/data/speaker_transforms.py)
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from asrtool.errors import UserError
from asrtool.fmllr.gaussians import GaussianMixtures
from asrtool.fmllr.hmm import num_hmm_states
from asrtool.fmllr.transform import TransformStatistics
from asrtool.tensor_files import DamagedFileError, load_tensors, require_finite, save_tensors
from asrtool.text.tokenizer import Tokenizer, load_tokenizer, save_tokenizer

GMM_FILE = "gmm.pt"
TOKENIZER_FILE = "tokenizer.json"
HINT = "train it with `asrtool fmllr train`"


@dataclass
class FmllrModel:
    """Mixtures of an average speaker, whose features have `num_bins` bins, and its statistics."""

    mixtures: GaussianMixtures
    average: TransformStatistics
    tokenizer: Tokenizer
    num_bins: int


def save_model(model: FmllrModel, folder: Path) -> None:
    """Writes the model into an existing folder: the GMM first, which marks a folder of `asrtool fmllr train`."""
    mixtures, sums = model.mixtures, model.average
    state = {
        "means": mixtures.means,
        "variances": mixtures.variances,
        "log_weights": mixtures.log_weights,
        "states": mixtures.states,
        "num_states": mixtures.num_states,
        "outer": sums.outer,
        "linear": sums.linear,
        "num_frames": sums.num_frames,
        "num_bins": model.num_bins,
    }
    save_tensors(folder / GMM_FILE, state)
    save_tokenizer(model.tokenizer, folder / TOKENIZER_FILE)


def load_model(folder: Path) -> FmllrModel:
    """Returns the model in a folder. Raises UserError where it is missing, damaged or not one."""
    path = folder / GMM_FILE
    if not path.is_file():
        raise UserError(f"{folder} has no {GMM_FILE}; {HINT}")
    tokenizer = load_tokenizer(folder / TOKENIZER_FILE)
    state = load_tensors(path, "a GMM of asrtool", HINT)
    try:
        mixtures = GaussianMixtures(
            state["means"], state["variances"], state["log_weights"], state["states"], state["num_states"]
        )
        sums = TransformStatistics(state["outer"], state["linear"], state["num_frames"])
        _require_consistent(mixtures, sums, tokenizer)
        num_bins = int(state["num_bins"])
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path} is not a GMM of asrtool ({error})", HINT) from error
    require_finite(state, path, HINT)
    return FmllrModel(mixtures, sums, tokenizer, num_bins)


def _require_consistent(mixtures: GaussianMixtures, sums: TransformStatistics, tokenizer: Tokenizer) -> None:
    """Raises ValueError for parts of other sizes than belong together."""
    size, dims = mixtures.means.shape
    if mixtures.variances.shape != (size, dims) or not bool((mixtures.variances > 0).all()):
        raise ValueError("its variances have another shape than its means")
    if mixtures.log_weights.shape != (size,) or mixtures.states.shape != (size,):
        raise ValueError("its weights do not belong to its means")
    if mixtures.num_states != num_hmm_states(tokenizer.size):
        raise ValueError(f"it has {mixtures.num_states} states, its phones have {num_hmm_states(tokenizer.size)}")
    if set(mixtures.states.tolist()) != set(range(mixtures.num_states)):
        raise ValueError("a state has no Gaussian")
    if sums.outer.shape != (dims, dims + 1, dims + 1) or sums.linear.shape != (dims, dims + 1):
        raise ValueError("its statistics have other dimensions")
    if sums.outer.dtype != torch.float64:
        raise ValueError("its statistics are not in double precision")
