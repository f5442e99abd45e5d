"""asrtool's LibriSpeech recipe compared with SpeechBrain's: training, padding and greedy decoding of the same audio.

train       Steps of each recipe's own loop with its own loader, augmentation and optimizer: `training_loop` with
            egs/librispeech/conf/transformer_small.yaml, on features stored at three speeds as in its stage 1, and on
            features computed on the fly at these speeds; and `Brain.fit` of SpeechBrain's CTC recipe
            (speechbrain_recipe.py), which computes features on the fly. Every turn takes the same --steps batches.
decode      Dev from audio to words by greedy search: features, model, search and text, all in this process. asrtool
            also writes the hypotheses in that time. Both models are practically untrained; greedy search takes the same
            time with a trained model.
padding     The share of padding in the batches of the training, and in a whole epoch as the samplers plan it.

Equal in both: recordings and texts; width, layers, heads and feed-forward width of the encoder; --units BPE units; the
largest seconds in a batch, including padding; fp32; threads; loader processes. The parameters of both are printed.
Seconds of audio count what the model processes: SpeechBrain's recipe passes each batch to the model twice, as it is and
augmented. Both count, so its sampler gets half the seconds.

The recipes differ in these points. SpeechBrain's: the same cuts are together in a batch in every epoch, sorted
by length; samples are resampled to one of three speeds in the loader, then all of a batch again, with chunks dropped
and frequencies notched; dropout also of attention weights and inside feed-forward layers; GELU; layer norm and dropout
in the front end; the optimiser steps every other batch. asrtool's: batches drawn again in each epoch, speeds, masks
over features (SpecAugment), dropout of the output of a layer, SiLU, the optimiser steps with every batch.

--encoder transformer   asrtool's blocks without convolution; the encoder of SpeechBrain's transformer.yaml in its CTC
                        recipe. They have the same number of parameters.
--encoder conformer     asrtool's blocks with relative positions and Conformer's convolution; the encoder that the CTC
                        recipe has by default, its two feed-forward layers half as wide as asrtool's one.

--cuts and --dev-cuts are manifests of whole recordings, as stage 0 of the recipe writes them; without them the audio is
noise:

    asrtool prepare librispeech LibriSpeech train.jsonl.gz --part train-clean-5 --exclude-speakers 1737,2136
    asrtool prepare librispeech LibriSpeech dev.jsonl.gz --part train-clean-5 --speakers 1737,2136
    PYTHONPATH=.:FOLDER python tools/bench/other_recipes.py --cuts train.jsonl.gz --dev-cuts dev.jsonl.gz \\
        --minutes 300 --speechbrain CHECKOUT

CHECKOUT is a checkout of github.com/speechbrain/speechbrain; the packages that it imports go into a separate folder:

    pip install --no-deps --target FOLDER hyperpyyaml 'ruamel.yaml<0.19' joblib cloudpickle torchaudio

torchaudio must be of the same build as torch. If torch is the CPU build and torchaudio is not, delete its compiled
libraries (FOLDER/torchaudio/lib/*.so): only its resampling is needed, which is in Python.
"""

import argparse
import itertools
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import corpus
import torch
from common import Report, Run, parse, parser
from lhotse import CutSet
from loader import Epoch
from speechbrain_recipe import SpeechBrainRecipe, count, import_recipe, planned_padding

from asrtool.config import Config
from asrtool.config_file import load_config
from asrtool.data.augment import draw_speed
from asrtool.data.batch import Batch
from asrtool.data.feature_store import store_features
from asrtool.data.features import FRAME_SHIFT
from asrtool.data.lhotse_sets import open_cuts
from asrtool.data.loading import SpeechDataset, load_batches
from asrtool.data.manifest import transcripts
from asrtool.data.sampling import TrainingSampler
from asrtool.decoding.decode import decode
from asrtool.decoding.greedy import ctc_greedy
from asrtool.distributed import SINGLE_PROCESS
from asrtool.errors import UserError
from asrtool.experiment import open_experiment
from asrtool.interrupts import Interrupts
from asrtool.text.tokenizer import save_tokenizer
from asrtool.text.tokenizer_training import train_tokenizer
from asrtool.training.log import TrainingLog
from asrtool.training.resume import save_session
from asrtool.training.start import start_session
from asrtool.training.train import training_loop

CONF = Path(__file__).resolve().parents[2] / "egs" / "librispeech" / "conf" / "transformer_small.yaml"
SPEEDS = (0.9, 1.0, 1.1)  # of egs/librispeech/run.sh
NO_STEP = 10**9  # steps
ENCODERS = {
    "transformer": {"convolution": {"kind": "none"}},
    "conformer": {"convolution": {"kind": "conformer", "kernel": 31}, "positions": "relative"},
}


class AsrtoolRecipe:
    """A training of asrtool, and decoding with what it has: `train` takes the steps of a turn, `decode` reads dev.

    `seconds` and `dev_seconds`: audio that the model hears in a turn of each.
    """

    def __init__(self, config: Config, arguments: argparse.Namespace, folder: Path, opened: ExitStack):
        self.config, self.arguments, self.folder = config, arguments, folder
        self.session = start_session(config, folder, SINGLE_PROCESS, "cpu")
        self.log = opened.enter_context(TrainingLog(folder, 0, NO_STEP))
        items = list(
            itertools.islice(
                Epoch(
                    TrainingSampler(
                        config.data, config.seed, self.session.dropped.train, cost=self.session.utterance_cost
                    )
                ),
                arguments.steps,
            )
        )
        self.seconds = sum(map(self._heard, (entry for item in items for entry in item.entries)))
        self.dev_seconds = sum(cut.duration for cut in open_cuts(config.data.dev))
        dataset = SpeechDataset(config, self.session.tokenizer, training=True)
        self.stream = load_batches(dataset, itertools.cycle(items), config.data.workers)
        opened.callback(self.stream.close)  # and with it the loader processes
        self.session.step_batches, self.steps = self._steps, len(items)
        self.audio = self.padded = 0.0

    def _heard(self, entry) -> float:
        return entry.duration / draw_speed(entry.id, self.config.data.augment, self.config.seed, 0)

    def _steps(self):
        """Yields the batches of a turn; then the loop ends, without validation and checkpoint."""
        for batch in itertools.islice(self.stream, self.steps):
            self._listen(batch)
            yield [batch]

    def _listen(self, batch: Batch) -> None:
        self.audio += FRAME_SHIFT * int(batch.feature_lens.sum())
        self.padded += FRAME_SHIFT * batch.features.shape[0] * batch.features.shape[1]

    def train(self) -> None:
        """The steps of a turn."""
        training_loop(self.session, self.log, Interrupts())

    def decode(self) -> None:
        """All of dev by greedy search with the weights of the last checkpoint."""
        with tempfile.TemporaryDirectory() as out:
            sizes = {"batch_seconds": self.arguments.decode_seconds, "workers": 0}
            decode(self.trained, self.config.data.dev, Path(out), "dev", "greedy", ctc_greedy, {}, **sizes)

    def open(self) -> None:
        """Write a checkpoint, and open it for decoding."""
        save_session(self.session)
        self.trained = open_experiment(self.folder, "last", "cpu")

    def padding(self) -> float:
        """Returns the share of padding in the batches of the training so far."""
        return 1 - self.audio / self.padded

    def planned_padding(self) -> float:
        """The same of an epoch as the sampler plans it, which knows the speeds."""
        lengths = [
            list(map(self._heard, item.entries)) for item in Epoch(TrainingSampler(self.config.data, self.config.seed))
        ]
        return planned_padding(lengths)

    def parameters(self) -> tuple[int, int]:
        """Of the whole model, and of its encoder."""
        return count(self.session.model), count(self.session.model.encoder)


def make_data(arguments: argparse.Namespace, folder: Path) -> dict[str, dict]:
    """Manifests and tokenizer, as sections of asrtool's two configurations; features are stored, outside the clock."""
    train, stored, dev = corpus.manifest(arguments, folder), folder / "stored" / "train.jsonl.gz", arguments.dev_cuts
    if dev is None:
        dev = folder / "dev.jsonl.gz"
        CutSet.from_cuts(list(open_cuts(train).subset(first=2))).to_file(dev)
    store_features(train, stored, speeds=SPEEDS, jobs=max(1, arguments.workers))
    save_tokenizer(train_tokenizer("bpe", transcripts([train]), arguments.units), folder / "tokenizer.json")
    data = {"dev": dev, "tokenizer": folder / "tokenizer.json", "workers": arguments.workers}
    data |= {"batch_seconds": arguments.batch_seconds}
    spoken = {"features": {"source": "on_the_fly"}, "data": data | {"train": train, "augment": {"speeds": SPEEDS}}}
    return {"asrtool, stored": {"data": data | {"train": stored}}, "asrtool, on the fly": spoken}


def make_config(arguments: argparse.Namespace, sections: dict) -> Config:
    """The recipe's configuration with the sizes of this comparison, and nothing due but steps."""
    changed = {key: getattr(arguments, key) for key in ("dim", "layers", "heads", "ff_dim")}
    model = changed | ENCODERS[arguments.encoder]
    training = {"max_steps": NO_STEP, "validate_every": NO_STEP, "save_minutes": None}
    values = load_config(CONF).model_dump()
    return Config.model_validate(merged(values, {"model": model, "training": training} | sections))


def merged(values: dict, changes: dict) -> dict:
    """`values` with `changes`, section by section."""
    both = {key: merged(values[key], new) for key, new in changes.items() if isinstance(values.get(key), dict)}
    return values | changes | both


def compare_training(report: Report, recipes: dict, name: str) -> None:
    """Steps of all, the last one being the baseline; then what was in them."""
    for what, recipe in recipes.items():
        whole, encoder = recipe.parameters()
        report.fact(f"parameters, {what}", whole, f"encoder: {encoder}")
    report.compare(f"train {name}", [Run(what, recipe.train, recipe.seconds) for what, recipe in recipes.items()])
    for what, recipe in recipes.items():
        report.fact(
            f"padding, {what}", recipe.padding(), f"{recipe.seconds / report.arguments.steps:.0f} s of audio in a step"
        )
        report.fact(f"padding of an epoch as planned, {what}", recipe.planned_padding())
    if theirs := recipes.get("speechbrain"):
        share = theirs.preparation_share()
        report.fact("share of augmentation and features in training, speechbrain", share, "in the loader, asrtool")


def compare_decoding(report: Report, recipes: dict, name: str) -> None:
    """Dev from audio, once for asrtool: the model that trains on stored features is the same."""
    readers = {what: recipe for what, recipe in recipes.items() if what != "asrtool, stored"}
    readers["asrtool, on the fly"].open()
    report.compare(f"decode {name}", [Run(what, one.decode, one.dev_seconds) for what, one in readers.items()])
    for what in readers:
        report.fact(f"RTF of greedy decoding, {what}", 1 / report.rate(f"decode {name}", what=what))


def options() -> argparse.ArgumentParser:
    """Audio, sizes, and where the other toolkit is."""
    command_line = parser(__doc__, repeats=5, limit=1800.0)
    corpus.add_options(command_line, minutes=60)
    command_line.add_argument(
        "--dev-cuts", type=Path, metavar="MANIFEST", help="manifest to decode [default: two cuts of the training audio]"
    )
    command_line.add_argument(
        "--speechbrain", type=Path, metavar="CHECKOUT", help="checkout of SpeechBrain's repository, with its recipes"
    )
    command_line.add_argument("--alone", action="store_true", help="measure asrtool alone, without SpeechBrain")
    command_line.add_argument(
        "--encoder", choices=ENCODERS, default="transformer", help="encoder of both recipes [default: %(default)s]"
    )
    command_line.add_argument("--dim", type=int, default=192, help="model width [default: %(default)s]")
    command_line.add_argument("--layers", type=int, default=6, help="layers [default: %(default)s]")
    command_line.add_argument("--heads", type=int, default=4, help="attention heads [default: %(default)s]")
    command_line.add_argument("--ff-dim", type=int, default=768, help="feed-forward width [default: %(default)s]")
    command_line.add_argument("--units", type=int, default=500, help="BPE units [default: %(default)s]")
    command_line.add_argument("--steps", type=int, default=8, help="batches in a turn [default: %(default)s]")
    command_line.add_argument(
        "--batch-seconds",
        type=float,
        default=120,
        help="seconds of audio that a model processes in a step [default: %(default)s]",
    )
    command_line.add_argument(
        "--decode-seconds", type=float, default=100, help="in a batch of decoding [default: %(default)s]"
    )
    command_line.add_argument(
        "--workers", type=int, default=1, help="loader processes of a training [default: %(default)s]"
    )
    command_line.add_argument(
        "--threads", type=int, default=1, help="of the steps and of decoding [default: %(default)s]"
    )
    return command_line


def main() -> int:
    """Measure and report; 2 where the other toolkit is missing."""
    sizes = {"dim": 16, "layers": 1, "heads": 2, "ff_dim": 32, "units": 40}
    arguments = parse(options(), minutes=0.5, steps=1, batch_seconds=20, workers=0, **sizes)
    try:
        recipe = None if arguments.alone else import_recipe(arguments.speechbrain)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as work, ExitStack() as opened:
        folder = Path(work)
        configs = {what: make_config(arguments, part) for what, part in make_data(arguments, folder).items()}
        recipes = {
            what: AsrtoolRecipe(config, arguments, folder / config.features.source, opened)
            for what, config in configs.items()
        }
        report = Report("other_recipes", arguments, "audio s")
        if recipe:
            config = configs["asrtool, on the fly"]
            theirs = SpeechBrainRecipe(recipe, arguments, config.data.train, config.data.dev, folder / "speechbrain")
            recipes["speechbrain"] = theirs
            report.values["versions"]["speechbrain"] = sys.modules["speechbrain"].__version__
            report.fact("speechbrain", sys.modules["speechbrain"].__version__)
        name = f"{arguments.encoder} {arguments.layers} x {arguments.dim}, {arguments.threads} thr"
        compare_training(report, recipes, name)
        compare_decoding(report, recipes, name)
        report.finish()
    return 0


if __name__ == "__main__":
    sys.exit(main())
