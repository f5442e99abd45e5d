"""Imports everything heavy that commands of asrtool need."""

import lhotse  # noqa: F401
import matplotlib.pyplot  # noqa: F401
import scipy.signal  # noqa: F401
import sentencepiece  # noqa: F401
import torch  # noqa: F401
import torch.utils.data  # noqa: F401
from torch.utils.tensorboard import SummaryWriter  # noqa: F401

import asrtool.cli
import asrtool.decoding.decode
import asrtool.experiment
import asrtool.streaming.stream
import asrtool.training.train  # noqa: F401
