"""The outputs of an acoustic model: one for each unit of the tokenizer, or two in the two-state topology "hmm"."""

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from asrtool.config import Config
    from asrtool.text.tokenizer import Tokenizer

Topology = Literal["ctc", "modified", "hmm"]


def num_outputs(topology: str, num_units: int) -> int:
    """Returns the number of outputs of a model for a tokenizer of `num_units` units, blank included."""
    return 2 * num_units if topology == "hmm" else num_units


def outputs_of(config: "Config", tokenizer: "Tokenizer") -> int:
    """Returns the number of outputs of the model of a configuration, for the units of its tokenizer."""
    return num_outputs(config.objective.topology, tokenizer.size)


def hmm_outputs(unit: int) -> tuple[int, int]:
    """Returns the outputs for the first frame of a unit, and for its further frames, in topology "hmm".

    Outputs 0 and 1, of the blank, are never used.
    """
    return 2 * unit, 2 * unit + 1
