"""The defaults of the driver's options in the run.sh of a generated recipe."""

from asrtool.recipes.choices import AudioChoices
from asrtool.recipes.command_lines import printable, shell_word
from asrtool.recipes.machine import Machine
from asrtool.recipes.unit_choices import UnitChoices, UserText


def options_text(audio: AudioChoices, units: UnitChoices, user: UserText, case: str, machine: Machine) -> str:
    """Returns assignments of bash, each with its reason. `case` is the case of the normalised transcripts."""
    lines = [_line("units", units.units.value, units.units.why)]
    if units.units.value == "bpe":
        lines.append(_line("vocab_size", units.vocab_size, units.units.why))
    if units.units.value in ("char", "word", "bpe"):
        lines.append(_line("unit_sets", '"train dev"', "a character that only dev has would stop the training"))
    if units.units.value == "phone":
        lines.append(_line("lexicon", shell_word(units.lexicon), "words without a pronunciation get one by g2p"))
    if case != "keep":
        lines.append(_line("case", case, "of the transcripts, to which the lexicon and other texts are changed"))
    if audio.source.value == "stored":
        speeds = ",".join(f"{speed:g}" for speed in audio.speeds.value)
        lines.append(_line("speeds", speeds, audio.speeds.why))
    lines += ["", "# Language model and decoding.", *_language_model(units, user)]
    lines.append(_line("decode", f'"{units.decode.value}"', units.decode.why))
    return "\n".join([*lines, "", *_machine(machine)])


def _language_model(units: UnitChoices, user: UserText) -> list[str]:
    lines = [_line("lm_order", units.lm_order.value, units.lm_order.why)]
    if user.lm_text:
        lines.append(_line("lm_text", shell_word(str(user.lm_text)), "normalised by the same rules"))
        lines.append(_line("text_rules", "conf/normalise.yaml", ""))
    lines.append(_line("lm_words", units.lm_words, "all words" if not units.lm_words else "the most frequent words"))
    if units.lm_prune:
        lines.append(_line("lm_prune", units.lm_prune, "keeps the graph small"))
    if units.rescore_order:
        lines.append(_line("rescore_order", units.rescore_order, "rescores the lattices of the graph"))
    return lines


def _machine(machine: Machine) -> list[str]:
    lines = ["# The machine.", "jobs=$(nproc)"]
    if len(machine.gpus) > 1:
        lines.append(_line("ranks", len(machine.gpus), "one process per GPU"))
    return lines


def _line(name: str, value: object, why: str) -> str:
    return f"{name}={value} # {printable(why)}" if why else f"{name}={value}"
