"""Viterbi beam search in a graph by kaldi-decoder, over the scaled log-likelihoods of one utterance.

Kaldi's FasterDecoder returns the best path; its LatticeSimpleDecoder returns lattices, and has a beam but no limit on
the number of active states.
"""

from typing import Any

import numpy as np

from asrtool.decoding.graph_options import GraphOptions
from asrtool.decoding.lattice import Lattice, LatticeArc, LatticePath, kaldi_arcs
from asrtool.errors import UserError
from asrtool.graphs.word_costs import add_word_cost


def search_best_path(fst: Any, scaled: np.ndarray, options: GraphOptions) -> tuple[LatticePath, bool]:
    """Returns the best path for scaled log-likelihoods (T, V), and whether it ends in a final state.

    If no path does, it is the best path to any state. If no state survives to the last frame (in a graph with dead
    ends), it is the best path over the longest beginning of the frames that has one.
    """
    decoder = _decoder_after(fst, scaled, options)
    has_path, path = decoder.get_best_path()
    if has_path:
        return read_path(path), decoder.reached_final()
    alive, dead = 0, len(scaled)  # frames after which states are left, and are not
    while dead - alive > 1:
        middle = (alive + dead) // 2
        decoder = _decoder_after(fst, scaled[:middle], options)
        if decoder.get_best_path()[0]:
            alive = middle
        else:
            dead = middle
    decoder = _decoder_after(fst, scaled[:alive], options)
    return read_path(decoder.get_best_path(False)[1]), False


def _decoder_after(fst: Any, scaled: np.ndarray, options: GraphOptions) -> Any:
    import kaldi_decoder

    decoder = new_decoder(fst, options)
    decoder.advance_decoding(kaldi_decoder.DecodableCtc(scaled))
    return decoder


def new_decoder(fst: Any, options: GraphOptions) -> Any:
    """Returns a FasterDecoder before its first frame. It does not keep the graph alive: the caller has to."""
    import kaldi_decoder

    config = kaldi_decoder.FasterDecoderOptions(
        beam=options.beam, max_active=options.max_active, min_active=min(options.min_active, options.max_active - 1)
    )
    decoder = kaldi_decoder.FasterDecoder(fst, config)
    decoder.init_decoding()
    return decoder


def search_lattice(fst: Any, scaled: np.ndarray, options: GraphOptions) -> tuple[Lattice, bool]:
    """Returns the raw lattice for scaled log-likelihoods (T, V), and whether its paths end in final states.

    If no path does, all states of the last frame count as final. If no state survives to the last frame, the lattice
    has only the path of `search_best_path`.
    """
    import kaldi_decoder

    config = kaldi_decoder.LatticeSimpleDecoderConfig(beam=options.beam, lattice_beam=options.lattice_beam)
    decoder = kaldi_decoder.LatticeSimpleDecoder(fst, config)
    if len(scaled) == 0 or not decoder.decode(kaldi_decoder.DecodableCtc(scaled)):
        path, is_complete = search_best_path(fst, scaled, options)
        return _linear_lattice(path), is_complete
    _, lattice = decoder.get_raw_lattice()
    return Lattice.from_kaldi(lattice), decoder.final_relative_cost() < float("inf")


def read_path(lattice: Any) -> LatticePath:
    """Returns the path of a linear kaldifst.Lattice, as decoders return it."""
    arcs: list[LatticeArc] = []
    state = lattice.start
    while lattice.num_arcs(state):
        arcs += kaldi_arcs(lattice, state)
        state = arcs[-1][1]
    end = lattice.final(state)
    return LatticePath(
        inputs=[label for _, _, label, _, _, _ in arcs],
        outputs=[word for _, _, _, word, _, _ in arcs],
        graph=sum((cost for _, _, _, _, cost, _ in arcs), end.value1),
        acoustic=sum((cost for _, _, _, _, _, cost in arcs), end.value2),
    )


def _linear_lattice(path: LatticePath) -> Lattice:
    """Returns a lattice of one path, with its costs on the final state."""
    labels = zip(path.inputs, path.outputs, strict=True)
    arcs: list[LatticeArc] = [(n, n + 1, label, word, 0.0, 0.0) for n, (label, word) in enumerate(labels)]
    final = np.full((len(arcs) + 1, 2), np.inf)
    final[-1] = path.graph, path.acoustic
    return Lattice.from_arcs(arcs, final)


def path_units(path: LatticePath, topology: str = "ctc", blank: int = 0) -> tuple[list[int], list[int]]:
    """Returns the units of a path, without blanks, and the frame in which each begins.

    CTC topologies are collapsed. The modified topology may have emitted one unit twice in a row, which the path no
    longer shows. In the HMM topology, output 2 u is the first state of unit u (asrtool/graphs/topology.py).
    """
    outputs = [label - 1 for label in path.inputs if label]
    if topology == "hmm":
        starts = [t for t, output in enumerate(outputs) if output % 2 == 0]
        return [outputs[t] // 2 for t in starts], starts
    starts = [t for t, unit in enumerate(outputs) if unit != blank and (t == 0 or outputs[t - 1] != unit)]
    return [outputs[t] for t in starts], starts


def path_words(path: LatticePath) -> tuple[list[int], list[int]]:
    """Returns the word labels of a path, and the frame in which each was emitted."""
    num_frames = sum(label > 0 for label in path.inputs)
    last_frame = max(0, num_frames - 1)
    labels, frames = [], []
    frame = 0  # frames before the arc
    for label, word in zip(path.inputs, path.outputs, strict=True):
        if word:
            labels.append(word)
            frames.append(min(frame, last_frame))  # an arc with a word may follow the last frame
        frame += label > 0
    return labels, frames


def require_num_outputs(model: int, graph: int) -> None:
    """Raises UserError for a graph of another model. kaldi-decoder would read past the end of a frame."""
    if model != graph:
        raise UserError(f"the graph is for a model of {graph} outputs, this one has {model}; see `asrtool graph`")


def add_insertion_penalty(fst: Any, penalty: float, num_words: int) -> Any:
    """Returns the graph with `penalty` added to every arc that emits a word; the same graph for a penalty of 0.

    Words have the labels 1 to `num_words` - 1.
    """
    return add_word_cost(fst, penalty, num_words) if penalty else fst
