"""CTC searches: real-time factor and milliseconds per utterance, on synthetic log-probs for each vocabulary size.

The log-probs are peaky, like the log-probs of a trained CTC model: most frames are blank, the best unit of a frame has
about 0.9 of the probability, one competitor half of the rest. A frame is 40 ms; one thread.

greedy      `ctc_greedy` on a batch. Baseline: a plain loop over the frames with one argmax each, as in tutorials; it
            returns only the tokens, `ctc_greedy` also their frames and the score.
prefix      `ctc_prefix_beam` over whole utterances ("asrtool"), and over one short piece ("asrtool, short").
            Baseline: Hannun's algorithm 1 (arXiv 1408.2873) as published, without a language model: a dictionary
            of tuples, every unit tried on every prefix, the same beam, on the same short piece because it is slow.
            asrtool also aligns the result to get the frame of each token. The benchmark prints whether both find
            the same sequence.
flashlight  LexiconFreeDecoder of flashlight-text (C++) over whole utterances, if it can be imported: the same beam and
            the same sums over paths; of the units of a frame the best `beam` + 2, more would not change the result. The
            share of utterances with the same sequence shows whether the two do the same work.
"""

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable

import torch
from common import Report, Run, parse, parser

from asrtool.decoding.greedy import ctc_greedy
from asrtool.decoding.prefix_beam import ctc_prefix_beam

FRAME_SECONDS = 0.04
NEG_INF = -math.inf
TRIALS = 1_000_000  # prefix times unit times frames that the textbook's search may try: about a second of Python


def peaky(utterances: int, frames: int, vocabulary: int) -> torch.Tensor:
    """(N, T, V) log-probs whose best units are blank (0) in three of four frames."""
    draw = torch.Generator().manual_seed(1)
    shape = (utterances, frames)
    rest = (3 * torch.randn(*shape, vocabulary, generator=draw)).softmax(-1)
    best, rival = torch.randint(1, vocabulary, (2, *shape), generator=draw)
    best[torch.rand(shape, generator=draw) < 0.75] = 0
    share = 0.6 + 0.4 * torch.rand(shape, generator=draw).sqrt()  # from 0.6 to 1, mean 0.87
    probs = rest * (1 - share)[..., None] / 2
    probs.scatter_add_(-1, rival[..., None], (1 - share)[..., None] / 2)
    probs.scatter_add_(-1, best[..., None], share[..., None])
    return probs.log()


def naive_greedy(log_probs: torch.Tensor, blank: int = 0) -> list[list[int]]:
    """Returns the tokens of each utterance, by a loop over the frames."""
    results = []
    for frames in log_probs:
        tokens, last = [], blank
        for frame in frames:
            token = frame.argmax().item()
            if token not in (blank, last):
                tokens.append(token)
            last = token
        results.append(tokens)
    return results


def textbook_beam(log_probs: torch.Tensor, beam: int, blank: int = 0) -> list[int]:
    """Returns the tokens of the best prefix of one utterance, (T, V), by Hannun's algorithm 1."""
    prefixes = {(): (0.0, NEG_INF)}
    for frame in log_probs.tolist():
        extended = defaultdict(lambda: (NEG_INF, NEG_INF))
        for prefix, (in_blank, in_token) in prefixes.items():
            total = log_add(in_blank, in_token)
            for token, value in enumerate(frame):
                longer = (*prefix, token)
                if token == blank:
                    extended[prefix] = (log_add(extended[prefix][0], total + value), extended[prefix][1])
                elif prefix and token == prefix[-1]:
                    extended[prefix] = (extended[prefix][0], log_add(extended[prefix][1], in_token + value))
                    extended[longer] = (extended[longer][0], log_add(extended[longer][1], in_blank + value))
                else:
                    extended[longer] = (extended[longer][0], log_add(extended[longer][1], total + value))
        best = sorted(extended.items(), key=lambda item: log_add(*item[1]), reverse=True)
        prefixes = dict(best[:beam])
    return list(next(iter(prefixes)))


def log_add(a: float, b: float) -> float:
    """Returns log(exp(a) + exp(b))."""
    if a < b:
        a, b = b, a
    return a if b == NEG_INF else a + math.log1p(math.exp(b - a))


def flashlight_search(vocabulary: int, beam: int) -> Callable[[torch.Tensor], list[list[int]]] | None:
    """Returns a function from log-probs (N, T, V) to the tokens of each utterance, or None without flashlight-text."""
    try:
        from flashlight.lib.text import decoder as flashlight
    except ImportError:
        return None
    unlimited = 1e6  # threshold on scores, in nats
    options = flashlight.LexiconFreeDecoderOptions(
        beam_size=beam,
        beam_size_token=min(vocabulary, beam + 2),
        beam_threshold=unlimited,
        lm_weight=0.0,
        sil_score=0.0,
        log_add=True,
        criterion_type=flashlight.CriterionType.CTC,
    )
    decoder = flashlight.LexiconFreeDecoder(options, flashlight.ZeroLM(), -1, 0, [])

    def search(log_probs: torch.Tensor) -> list[list[int]]:
        results = []
        for frames in log_probs.contiguous():
            path = decoder.decode(frames.data_ptr(), *frames.shape)[0].tokens[1:-1]  # without start and end
            starts = [token for token, before in zip(path, [0, *path], strict=False) if token not in (0, before)]
            results.append(starts)
        return results

    return search


def compare_greedy(report: Report, log_probs: torch.Tensor, vocabulary: int) -> None:
    """Compares greedy search with the loop."""
    utterances, frames = log_probs.shape[:2]
    lens = torch.full((utterances,), frames)
    seconds = utterances * frames * FRAME_SECONDS
    runs = [
        Run("asrtool", lambda: ctc_greedy(log_probs, lens), seconds),
        Run("loop", lambda: naive_greedy(log_probs), seconds),
    ]
    report.compare(f"greedy, {vocabulary} units", runs, _extra(frames), vocabulary=vocabulary)
    same = [hypothesis.tokens for hypothesis in ctc_greedy(log_probs, lens)] == naive_greedy(log_probs)
    report.fact(f"same tokens, greedy, {vocabulary} units", same)


def compare_prefix(report: Report, log_probs: torch.Tensor, vocabulary: int, beam: int) -> None:
    """Measures prefix beam search on everything, and compares it with the textbook algorithm on a short piece."""
    utterances, frames = log_probs.shape[:2]
    short = min(frames, max(4, TRIALS // (beam * vocabulary)))
    piece, lens, short_lens = log_probs[:1, :short], torch.full((utterances,), frames), torch.tensor([short])
    runs = [
        Run("asrtool", lambda: ctc_prefix_beam(log_probs, lens, beam), utterances * frames * FRAME_SECONDS),
        Run("asrtool, short", lambda: ctc_prefix_beam(piece, short_lens, beam), short * FRAME_SECONDS),
        Run("textbook, short", lambda: textbook_beam(piece[0], beam), short * FRAME_SECONDS),
    ]
    name = f"prefix, {vocabulary} units, beam {beam}"
    other = flashlight_search(vocabulary, beam)
    if other:
        runs.insert(1, Run("flashlight", lambda: other(log_probs), utterances * frames * FRAME_SECONDS))
        ours = [best.tokens for best, *_ in ctc_prefix_beam(log_probs, lens, beam)]
        same_share = sum(one == two for one, two in zip(ours, other(log_probs), strict=True)) / utterances
        report.fact(f"share of utterances with the tokens of flashlight, {name}", same_share)
    report.compare(name, runs, _extra(frames), vocabulary=vocabulary, beam=beam, short_frames=short)
    same = ctc_prefix_beam(piece, short_lens, beam)[0][0].tokens == textbook_beam(piece[0], beam)
    report.fact(f"same tokens, {name}, {short} frames", same)


def _extra(frames: int):
    """Returns columns from a rate: real-time factor, and milliseconds for an utterance of `frames`."""
    return lambda rate: {"RTF": 1 / rate, "ms/utterance": 1000 * frames * FRAME_SECONDS / rate}


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = parser(__doc__, repeats=5)
    command_line.add_argument(
        "--vocabularies", type=int, nargs="+", default=[11, 500, 5000], help="vocabulary sizes, including the blank"
    )
    command_line.add_argument("--beams", type=int, nargs="+", default=[4, 8, 16], help="beam sizes, in prefixes")
    command_line.add_argument("--utterances", type=int, default=8, help="utterances in a batch [default: %(default)s]")
    command_line.add_argument(
        "--frames", type=int, default=250, help="frames of 40 ms in an utterance [default: %(default)s]"
    )
    return command_line


def main() -> int:
    """Measures and reports; exit status 1 if two searches disagree."""
    arguments = parse(options(), vocabularies=[11, 50], beams=[4], utterances=2, frames=20)
    torch.set_num_threads(1)
    report = Report("decoding", arguments, "audio s", extra=["RTF", "ms/utterance"])
    for vocabulary in arguments.vocabularies:
        log_probs = peaky(arguments.utterances, arguments.frames, vocabulary)
        compare_greedy(report, log_probs, vocabulary)
        for beam in arguments.beams:
            compare_prefix(report, log_probs, vocabulary, beam)
    report.finish()
    return 0 if all(value is not False for value in report.values["facts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
