"""What `asrtool new` has measured and chosen, as rows of a table."""

from typing import TYPE_CHECKING

from asrtool.recipes.choices import AudioChoices, SetChoices, TrainingChoices, duration
from asrtool.recipes.facts import CorpusFacts
from asrtool.recipes.text_facts import TextFacts
from asrtool.recipes.transcripts import NormalisedTexts
from asrtool.recipes.unit_choices import UnitChoices

if TYPE_CHECKING:
    from asrtool.recipes.create import Recipe

Row = tuple[str, ...]


def fact_rows(facts: CorpusFacts, text: TextFacts, normalised: NormalisedTexts) -> list[Row]:
    """Returns (name, value) of what was measured."""
    about = "about " if facts.is_estimate else ""
    shortest, median, longest = facts.lengths
    rows: list[Row] = [
        ("audio", f"{about}{_hours(facts.hours)} in {facts.utterances:,} utterances"),
        ("utterances", f"{shortest:.1f} to {longest:.1f} s, median {median:.1f} s"),
        ("speakers", f"{len(facts.speakers):,}" if facts.speakers else "not known"),
        ("sampling rate", ", ".join(f"{rate:,} Hz" for rate, _ in facts.rates.most_common(4))),
        ("channels", ", ".join(str(count) for count, _ in facts.channels.most_common(4))),
    ]
    if facts.audio.level is not None:
        snr = f", SNR about {facts.audio.snr:.0f} dB" if facts.audio.snr is not None else ""
        rows.append(("level", f"{facts.audio.level:.0f} dB{snr} ({facts.audio.recordings} sampled recordings)"))
    rows += [
        ("transcripts", f"{facts.sentences:,} different"),
        ("words", f"{len(text.words):,} different, {text.tokens:,} running words"),
        ("characters", f"{len(text.characters):,} different after normalisation"),
        ("normalisation", str(normalised)),
    ]
    if facts.problems:
        rows.append(("left out", f"{len(facts.problems):,} utterances that cannot be used"))
    return rows


def choice_rows(
    audio: AudioChoices, units: UnitChoices, training: TrainingChoices, sets: SetChoices, has_split: bool
) -> list[Row]:
    """Returns (name, value, reason) of what was chosen."""
    size = f" ({units.vocab_size})" if units.vocab_size else ""
    rows: list[Row] = [
        ("sampling rate", f"{audio.sampling_rate.value} Hz", audio.sampling_rate.why),
        ("features", audio.source.value.replace("_", " "), audio.source.why),
        ("speeds", " ".join(f"{speed:g}" for speed in audio.speeds.value), audio.speeds.why),
        ("units", units.units.value + size, units.units.why),
        ("language model", f"order {units.lm_order.value}" if units.lm_order.value else "none", units.lm_order.why),
        ("model", training.preset.value.name, training.preset.why),
        ("batch", f"{training.batch_seconds.value} s", training.batch_seconds.why),
        ("steps", f"{training.max_steps.value:,}", training.max_steps.why),
        ("precision", training.precision.value, training.precision.why),
        ("decoding", units.decode.value, units.decode.why),
    ]
    if audio.channel:
        rows.insert(1, ("channel", str(audio.channel.value), audio.channel.why))
    if has_split:
        rows.append(("dev, test", f"{sets.dev.value}, {sets.test.value}", f"{sets.dev.why}; {sets.test.why}"))
    return rows


def markdown(rows: list[Row]) -> str:
    """Returns rows of a Markdown table."""
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)


def plain(rows: list[Row]) -> list[str]:
    """Returns aligned lines for the terminal; the reason of a choice stands in parentheses."""
    width = max(len(row[0]) for row in rows)
    return [f"  {row[0]:<{width}}  {row[1]}" + (f"  ({row[2]})" if len(row) > 2 else "") for row in rows]


def _hours(hours: float) -> str:
    return duration(hours * 3600) if hours < 1 else f"{hours:.2f} h"


def advice(facts: CorpusFacts, units: UnitChoices, training: TrainingChoices) -> list[str]:
    """Returns what a user may try next, one item each."""
    preset = training.preset.value
    items = ["`--steps N` trains longer or shorter, `--conf FILE` takes another model."]
    if units.units.value == "phone":
        items.append("`--objective mmi` goes on with lattice-free MMI from the CTC system: fewer errors.")
    if not facts.speakers:
        items.append("Speakers are not known, so that test has the voices of train: others are recognised worse.")
    if facts.hours < 5 and units.units.value in ("char", "bpe"):
        items.append(
            f"{_hours(facts.hours)} is little for a model of characters from scratch: expect many errors. Start from a "
            "trained system (`asrtool train --init-from`), give a lexicon (`asrtool new --lexicon FILE`), or more text "
            "for the language model (`--lm-text FILE`)."
        )
    elif preset.name != "tiny":
        items.append("`--lm-text FILE` trains the language model on more text.")
    return items


def recipe_lines(recipe: "Recipe") -> list[str]:
    """Returns what was measured and chosen, and the command that comes next, as lines for the terminal."""
    choices = choice_rows(recipe.audio, recipe.units, recipe.training, recipe.sets, recipe.has_split)
    return [
        f"{recipe.corpus.path}: {recipe.corpus.description}",
        *plain(fact_rows(recipe.facts, recipe.text, recipe.normalised)),
        f"This machine has {recipe.machine}. The recipe uses",
        *plain(choices),
        f"Training takes about {duration(recipe.training.hours * 3600)} here. Wrote {recipe.folder}. Next:",
        f"  bash {recipe.call}",
    ]
