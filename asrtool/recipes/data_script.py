"""local/data.sh of a generated recipe: the commands that turn the corpus into the sets of the recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asrtool.recipes.choices import AudioChoices, SetChoices
from asrtool.recipes.command_lines import command_line, comment

AUDIO, RULES = '"${audio[@]}"', '"$recipe/conf/normalise.yaml"'


@dataclass(frozen=True)
class DataScript:
    """What local/data.sh does."""

    corpus: Path
    commands: Mapping[str, Sequence[Sequence[str]]]  # set -> commands `asrtool prepare`, with OUT for the output
    audio: AudioChoices
    sets: SetChoices
    skips_bad: int  # utterances that cannot be used, which are left out
    before: str = ""  # commands that come first

    @property
    def scored_sets(self) -> list[str]:
        """Names of the sets that are decoded and scored."""
        choices = {"dev": self.sets.dev, "test": self.sets.test}
        return [name for name, choice in choices.items() if name in self.commands or choice.value != "0"]

    @property
    def head(self) -> str:
        """The comment at the head of the script."""
        manifests = ", ".join(f"data/{name}.jsonl.gz" for name in ("train", *self.scored_sets))
        names = "and the names of the sets to score, data/scored_sets"
        return comment(f"Writes {manifests}, {names}. It runs in the work folder; run.sh passes its option --corpus.")

    def text(self) -> str:
        """Returns the commands of the script."""
        parts = [self.before, self._audio_options()]
        parts += [self._prepare(name) for name in self.commands]
        parts.append(self._split())
        return "\n\n".join(filter(None, parts)) + f"\necho {' '.join(self.scored_sets)} >data/scored_sets"

    def _audio_options(self) -> str:
        rate, channel = self.audio.sampling_rate, self.audio.channel
        lines = [comment(f"{rate.value} Hz: {rate.why}.")]
        words = ["--sampling-rate", str(rate.value)]
        if self.audio.resample:
            words.append("--resample")
        if channel:
            lines.append(comment(f"Channel {channel.value} of recordings with several: {channel.why}."))
            words += ["--channel", str(channel.value)]
        if self.skips_bad:
            lines.append(f"# {self.skips_bad:,} utterances cannot be used; they are listed and left out.")
            words.append("--skip-bad")
        return "\n".join([*lines, f"audio=({' '.join(words)})"])

    def _prepare(self, name: str) -> str:
        """Returns the commands that read and normalise a set that the corpus has."""
        lines = [f"# The {'whole corpus' if name == 'all' else f'set {name} of the corpus'}."]
        parts = self.commands[name]
        raw = [f"data/corpus/{name}{number or ''}.jsonl.gz" for number in range(len(parts))]
        for words, out in zip(parts, raw, strict=True):
            replaced = [out if word == "OUT" else word for word in words]
            lines.append(command_line(["asrtool", *replaced, AUDIO], self.corpus, [AUDIO]))
        source = raw[0]
        if len(raw) > 1:
            source = f"data/corpus/{name}.all.jsonl.gz"
            lines.append(f"cat {' '.join(raw)} >{source}")
        out = f"data/{name}.jsonl.gz" if not self._is_split(name) else f"data/corpus/{name}.normalised.jsonl.gz"
        lines.append(command_line(["asrtool", "normalise", source, out, "--rules", RULES], verbatim=[RULES]))
        return "\n".join(lines)

    def _is_split(self, name: str) -> bool:
        return name in ("all", "train") and (self.sets.dev.value, self.sets.test.value) != ("0", "0")

    def _split(self) -> str:
        name = "all" if "all" in self.commands else "train"
        if not self._is_split(name):
            return ""
        dev, test = self.sets.dev, self.sets.test
        source = f"data/corpus/{name}.normalised.jsonl.gz"
        words = ["asrtool", "split", source, "data", "--dev-size", dev.value, "--test-size", test.value]
        why = comment(f"dev: {dev.why}. test: {test.why}. Split by speaker where enough speakers are known.")
        return f"{why}\n{command_line(words)}"
