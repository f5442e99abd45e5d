"""What `asrtool stream` prints, and the comparison with an offline decoding."""

import logging
from pathlib import Path
from typing import Any

from asrtool.errors import AsrtoolError
from asrtool.scoring.folder import HYPOTHESES, read_hypotheses, read_result_facts
from asrtool.scoring.wer import align_words

logger = logging.getLogger(__name__)


def offline_agreement(rows: list[dict], folder: Path, checkpoint: dict[str, str]) -> dict[str, Any] | None:
    """Returns how many words the offline decoding in `folder` has as well; None without one of this checkpoint.

    `checkpoint` has its name and its sha256, "checkpoint" and "checkpoint_sha256", as the facts of results do.
    """
    if not (folder / HYPOTHESES).is_file():
        return None
    try:
        facts = read_result_facts(folder)
        hypotheses = read_hypotheses(folder / HYPOTHESES)
    except AsrtoolError as error:  # the streamed result is worth more than the comparison
        logger.info(f"not compared with the offline decoding: {error}")
        return None
    compared = "checkpoint_sha256" if "checkpoint_sha256" in facts else "checkpoint"  # not of earlier versions
    if facts.get(compared) != checkpoint[compared]:
        other, own = facts.get("checkpoint"), checkpoint["checkpoint"]
        difference = f"{other}, not of {own}" if other != own else f"other weights named {own}"
        logger.info(f"{folder} is of {difference}: not compared; decode again with --checkpoint")
        return None
    offline = {row["id"]: row["hyp"] for row in hypotheses}
    texts = [(offline[row["id"]], row["hyp"]) for row in rows if row["id"] in offline]
    pairs = [pair for offline_text, text in texts for pair in align_words(offline_text, text)]
    num_same = sum(offline_word == word for offline_word, word in pairs)
    percent = round(100 * num_same / len(pairs), 3) if pairs else 100.0
    num_words = sum(bool(offline_word) for offline_word, _ in pairs)
    return {"recordings": len(texts), "words": num_words, "same_percent": percent}


def summary_lines(facts: dict[str, Any]) -> list[str]:
    """Returns the lines that describe the facts of a streamed set."""
    latency, compute = facts["latency_ms"], facts["compute_ms"]
    offline, emission = facts["offline"], facts["emission"]
    lines = [
        f"{facts['set']} {facts['method']}: {facts['recordings']} recordings, {facts['utterances']} utterances, "
        f"{facts['audio_seconds']:.0f} s of audio, RTF {facts['rtf']:.4f} on {facts['device']}",
        f"  a chunk of {facts['chunk_ms']:g} ms: computed in {compute['mean']:.1f} ms, 95 % of them within "
        f"{compute['p95']:.1f} ms, all within {compute['max']:.1f} ms",
        f"  latency of features and model: {latency['max']:g} ms at most, {latency['mean']:g} ms on average",
    ]
    if emission:
        final = emission["final_ms"]
        lines.append(
            f"  emission delay, from the end of a word until it is final: median {final['median']:.0f} ms, "
            f"95 % within {final['p95']:.0f} ms ({emission['words']} words)"
        )
    if offline:
        words = f"{offline['same_percent']:g} % of {offline['words']} words"
        lines.append(f"  {words} are the same in the offline decoding")
    return lines
