"""Creates a recipe for a corpus: measures it and the machine, chooses the settings, and writes the folder."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import yaml

from asrtool.config import Config
from asrtool.data.corpus_detection import SourceOptions, find_sets
from asrtool.data.folder_plan import option_of_column
from asrtool.errors import DataError, UserError
from asrtool.recipes.choices import (
    AudioChoices,
    Choice,
    SetChoices,
    TrainingChoices,
    choose_audio,
    choose_sets,
    choose_training,
)
from asrtool.recipes.config_text import config_text
from asrtool.recipes.facts import LONGEST, USUAL_LONGEST, CorpusFacts, measure_corpus
from asrtool.recipes.folder import checkout, recipe_folder, write_recipe
from asrtool.recipes.lhotse_corpora import PREFIX, find_pairs, lhotse_corpus, sets_of_pairs
from asrtool.recipes.machine import Machine, describe_machine
from asrtool.recipes.sets import Corpus
from asrtool.recipes.speed import measure_speed
from asrtool.recipes.text_facts import TextFacts, describe_texts
from asrtool.recipes.transcripts import Case, NormalisedTexts, case_of_lexicon, normalise_texts
from asrtool.recipes.unit_choices import UnitChoices, UserText, choose_units, is_english
from asrtool.text.lexicon_building import CMUDICT, read_dictionary

MIN_UTTERANCES = 10  # for a training, a dev and a test set
MAX_BAD_SHARE = 0.1  # of the utterances; with more, the corpus was probably misread
LAYOUT_OPTIONS = {  # of the kinds of corpora that need few: the fields of SourceOptions that they use
    "kaldi": {"audio_root", "unlabelled"},
    "nemo": {"audio_root", "unlabelled"},
    "lhotse": {"unlabelled"},
}


@dataclass(frozen=True)
class Request:
    """What the user asks for."""

    name: str
    source: str  # a path, or lhotse:NAME
    options: SourceOptions = field(default_factory=SourceOptions)
    user: UserText = field(default_factory=UserText)
    case: Case | None = None  # of the transcripts; None: as proposed
    out: Path | None = None  # folder of recipes
    training_hours: float | None = None  # the longest training
    download: Path | None = None  # folder of a corpus of lhotse


@dataclass(frozen=True)
class Recipe:
    """A recipe: what was measured and chosen, and the folder that it was written to."""

    folder: Path
    corpus: Corpus
    facts: CorpusFacts
    text: TextFacts
    normalised: NormalisedTexts
    machine: Machine
    audio: AudioChoices
    units: UnitChoices
    training: TrainingChoices
    sets: SetChoices
    user: UserText

    @property
    def has_split(self) -> bool:
        """Returns True if dev or test or both are split off."""
        return (self.sets.dev.value, self.sets.test.value) != ("0", "0")

    @property
    def call(self) -> str:
        """The path of run.sh: from the top of the checkout where it is there, else absolute."""
        root = checkout()
        path = self.folder / "run.sh"
        return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def create_recipe(request: Request) -> Recipe:
    """Writes the recipe that is asked for and returns it. Raises UserError, or DataError where the corpus is bad."""
    folder = recipe_folder(request.name, request.out)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = _find_corpus(request, Path(scratch) / "manifests")
        facts_of_sets = {name: measure_corpus(corpus.rows(name)) for name in corpus.sets}
    facts = _require_usable(facts_of_sets, corpus)
    machine = describe_machine()
    normalised = _normalise(request, facts_of_sets)
    text = describe_texts(normalised.texts)
    main = facts_of_sets["all" if "all" in corpus.sets else "train"]
    sets = choose_sets(main, "dev" in corpus.sets, "test" in corpus.sets)
    audio = choose_audio(facts, machine, sets.train_hours)
    units = choose_units(text, sets.train_hours, request.user, _cmudict_coverage(text, request.user))
    _require_short(main, corpus)
    training = _choose_training(request, main, machine, audio, sets, text, units.units.value)
    recipe = Recipe(
        folder=folder,
        corpus=corpus,
        facts=facts,
        text=text,
        normalised=normalised,
        machine=machine,
        audio=audio,
        units=units,
        training=training,
        sets=sets,
        user=request.user,
    )
    write_recipe(recipe)
    return recipe


def _find_corpus(request: Request, scratch: Path) -> Corpus:
    if request.source.startswith(PREFIX):
        _refuse_unused(request.options, {"lhotse"}, f"a corpus of {PREFIX}NAME")
        return lhotse_corpus(request.source.removeprefix(PREFIX), request.download, scratch)
    path = Path(request.source).expanduser().absolute()
    if not path.exists():
        raise UserError(f"--from: no such file or folder: {path}; give a corpus, or lhotse:NAME")
    if path.is_dir() and (pairs := find_pairs(path)):
        _refuse_unused(request.options, {"lhotse"}, "manifests of lhotse")
        return Corpus(path, sets_of_pairs(pairs), description="manifests of lhotse")
    sets = {name: [source] for name, source in find_sets(path, request.options).items()}
    if "train" not in sets and "all" not in sets:
        raise UserError(f"{path} has only the sets {', '.join(sets)}; give --from one of them")
    description = next(iter(sets.values()))[0].description
    _refuse_unused(request.options, {source.kind for [source] in sets.values()}, description)
    return Corpus(path, sets, description=description)


def _refuse_unused(options: SourceOptions, kinds: set[str], description: str) -> None:
    """Raises UserError for an option that has no effect for a corpus whose sets are of these kinds (of Source).

    The options of tables and of folders of audio were checked when these were recognised.
    """
    if not kinds <= LAYOUT_OPTIONS.keys():
        return
    valid = set().union(*(LAYOUT_OPTIONS[kind] for kind in kinds))
    for entry in fields(options):
        if getattr(options, entry.name) and entry.name not in valid:
            option = f"--{entry.name.replace('_', '-')}"
            if entry.name == "columns":
                option = option_of_column(next(iter(options.columns)))
            raise UserError(f"{option} has no effect here: the corpus is {description}")


def _require_usable(facts_of_sets: Mapping[str, CorpusFacts], corpus: Corpus) -> CorpusFacts:
    """Returns the facts of all sets together.

    Raises DataError unless most utterances can be used, and some of each set.
    """
    facts = _merged(list(facts_of_sets.values()))
    total = facts.utterances + len(facts.problems)
    if not total:
        raise UserError(f"no utterances in {corpus.path} ({corpus.description}); is it the right folder or file?")
    if facts.num_bad > MAX_BAD_SHARE * total:
        about = "about " if facts.num_bad > len(facts.problems) else ""
        summary = f"{about}{facts.num_bad} of {total} utterances of {corpus.path} ({corpus.description}) cannot be used"
        raise DataError(f"{summary}; fix them, or name its layout with the options of `asrtool new`", facts.problems)
    for name, of_set in facts_of_sets.items():
        if not of_set.seconds:
            problem = f"no utterance of the set {name} of {corpus.path} ({corpus.description}) can be used"
            raise DataError(f"{problem}; fix it, or take it out of the corpus", of_set.problems)
    if facts.utterances < MIN_UTTERANCES:
        raise UserError(f"{corpus.path} has {facts.utterances} utterances; a recipe needs {MIN_UTTERANCES} or more")
    return facts


def _require_short(facts: CorpusFacts, corpus: Corpus) -> None:
    """Raises UserError if most of the audio is in utterances that are too long to train on."""
    if facts.lengths[2] > LONGEST and facts.long_share > 0.5:
        problem = (
            f"{facts.long_share:.0%} of the audio of {corpus.path} is in utterances of more than {USUAL_LONGEST:g} s"
        )
        raise UserError(f"{problem}, too long to train on; split them at pauses, e.g. with `asrtool segment`")


def _merged(parts: list[CorpusFacts]) -> CorpusFacts:
    """Returns the facts of several sets; median length and audio sample come from the first."""
    first, *others = parts
    for other in others:
        shortest, median, longest = first.lengths
        first = replace(
            first,
            utterances=first.utterances + other.utterances,
            seconds=first.seconds + other.seconds,
            speakers=first.speakers | other.speakers,
            rates=first.rates + other.rates,
            channels=first.channels + other.channels,
            lengths=(min(shortest, other.lengths[0]), median, max(longest, other.lengths[2])),
            texts=first.texts + other.texts,
            problems=first.problems + other.problems,
            num_bad=first.num_bad + other.num_bad,
            is_estimate=first.is_estimate or other.is_estimate,
        )
    return first


def _normalise(request: Request, facts_of_sets: Mapping[str, CorpusFacts]) -> NormalisedTexts:
    """Returns the transcripts of all sets, normalised; in the case of the user's lexicon, if there is one."""
    texts = [text for facts in facts_of_sets.values() for text in facts.texts]
    case = request.case
    if case is None and request.user.lexicon:
        case = case_of_lexicon(texts, read_dictionary(str(request.user.lexicon)))
    return normalise_texts(texts, case)


def _cmudict_coverage(text: TextFacts, user: UserText) -> float:
    """Share of the running words that CMUdict has; 0 where the text is not English, or CMUdict is not installed."""
    if user.lexicon or not is_english(text, user):
        return 0.0
    try:
        words = read_dictionary(CMUDICT).pronunciations
    except UserError:
        return 0.0
    known = sum(count for word, count in text.words.items() if word.lower() in words)
    return known / max(1, text.tokens)


def _choose_training(
    request: Request,
    facts: CorpusFacts,
    machine: Machine,
    audio: AudioChoices,
    sets: SetChoices,
    text: TextFacts,
    units: str,
) -> TrainingChoices:
    """Returns model and steps, by the measured speed of the model that is right for the hours."""
    hours = sets.train_hours
    draft = choose_training(facts, machine, hours, units, 1.0, 1.0)
    draft = replace(draft, max_steps=Choice(1000, ""), warmup_steps=0)
    tree = yaml.safe_load(config_text("Draft.", audio, draft, has_dev=True))
    num_units = len(text.characters) + 2  # about as many as phones
    speed = measure_speed(Config.model_validate(tree), num_units, max(1.0, facts.lengths[1]), machine.cores)
    return choose_training(facts, machine, hours, units, speed, request.training_hours)
