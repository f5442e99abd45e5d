"""SpeechBrain's LibriSpeech CTC recipe, `recipes/LibriSpeech/ASR/CTC`, unchanged: train.py and conformer_large.yaml.

The recipe is imported, not copied, and only values of its YAML file are set, as on its command line. Two parts of its
__main__ are left out: the preparation of the corpus, because its CSV files are written here from asrtool's manifests,
and validation and checkpoints, which the comparison has in neither toolkit.
"""

import argparse
import csv
import importlib.util
import sys
import time
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import torch

from asrtool.data.lhotse_sets import open_cuts
from asrtool.errors import UserError

RECIPE = Path("recipes", "LibriSpeech", "ASR", "CTC")
FRAME = 0.04  # seconds: the front end halves the frames of 10 ms twice
# Its 200 buckets are for 960 hours: each ends in a batch that is not full. On 5 hours and 60 s a batch, 30 give the
# fullest batches (50 s, with 200 buckets 41 s), and as little padding as any number.
BUCKETS = 30
HINT = (
    "clone https://github.com/speechbrain/speechbrain, give its folder as --speechbrain; then pip install --no-deps "
    "--target FOLDER hyperpyyaml 'ruamel.yaml<0.19' joblib cloudpickle torchaudio, and PYTHONPATH=FOLDER"
)


def import_recipe(checkout: Path | None) -> ModuleType:
    """train.py of the recipe in `checkout`. Raises UserError where it, or something that it imports, is missing."""
    if checkout is None or not (checkout / RECIPE / "train.py").is_file():
        raise UserError(f"no SpeechBrain recipe in {checkout or 'no folder'}: {HINT}")
    sys.path.insert(0, str(checkout))
    spec = importlib.util.spec_from_file_location("speechbrain_ctc_recipe", checkout / RECIPE / "train.py")
    module = importlib.util.module_from_spec(spec)
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (ImportError, OSError) as error:  # OSError: torchaudio's libraries are of another build of torch
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(f"SpeechBrain cannot be imported ({reason}): {HINT}") from error
    return module


def write_csv(cuts: Path, out: Path) -> Path:
    """The recipe's table of utterances. Raises UserError for a cut that is not a whole file, since it reads those."""
    with open(out, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ID", "duration", "wav", "spk_id", "wrd"])
        for cut in open_cuts(cuts):
            source, spoken = cut.recording.sources[0], cut.supervisions[0]
            if source.type != "file" or cut.recording.transforms or cut.duration != cut.recording.duration:
                raise UserError(f"{cuts}: {cut.id} is not a whole file, and SpeechBrain's recipe reads whole files")
            rows.writerow([cut.id, cut.duration, source.source, spoken.speaker, spoken.text])
    return out


class Endless:
    """The batches of a sampler again and again, so that a loader process never waits for an epoch to end."""

    def __init__(self, batches: list[list[int]]):
        self.batches = batches

    def __iter__(self):
        while True:
            yield from self.batches


class Stopwatch:
    """Seconds spent in the forward of some modules."""

    def __init__(self, *modules: torch.nn.Module):
        self.seconds = 0.0
        for module in modules:
            module.register_forward_pre_hook(self._start)
            module.register_forward_hook(self._stop)

    def _start(self, *_) -> None:
        self.begin = time.perf_counter()

    def _stop(self, *_) -> None:
        self.seconds += time.perf_counter() - self.begin


class SpeechBrainRecipe:
    """The recipe's Brain on two manifests: `train` takes the steps of a turn, `decode` reads dev greedily.

    `seconds` and `dev_seconds`: audio that the model hears in a turn of each. Training hears every utterance twice in a
    batch, as it is and augmented; both count, and its sampler gets half the seconds of a batch for that.
    """

    def __init__(self, recipe: ModuleType, arguments: argparse.Namespace, train: Path, dev: Path, folder: Path):
        self.recipe, self.arguments, self.folder = recipe, arguments, folder
        folder.mkdir()
        values = self._values(write_csv(train, folder / "train.csv"), write_csv(dev, folder / "dev.csv"))
        self.hparams = self._load(values)
        with redirect_stdout(sys.stderr):
            self._start()
        copies = 1 + self.hparams["wav_augment"].concat_original
        steps = self.planned[: arguments.steps]
        self.seconds = copies * sum(sum(self.sampler.get_durations(step)) for step in steps)
        self.dev_seconds = sum(sum(self.dev_sampler.get_durations(batch)) for batch in self.dev_sampler)

    def _values(self, train: Path, dev: Path) -> dict:
        """Returns the values to set in its YAML file."""
        sizes = self.arguments
        conformer = sizes.encoder == "conformer"
        return {
            "data_folder": "",
            "output_folder": str(self.folder),
            "train_csv": str(train),
            "valid_csv": str(dev),
            "test_csv": [],
            "max_batch_length_train": sizes.batch_seconds / 2,
            "max_batch_len_val": sizes.decode_seconds,
            "num_bucket": BUCKETS,
            "num_workers": sizes.workers,
            "token_type": "bpe",
            "output_neurons": sizes.units,
            "d_model": sizes.dim,
            "nhead": sizes.heads,
            "num_encoder_layers": sizes.layers,
            "d_ffn": sizes.ff_dim // 2 if conformer else sizes.ff_dim,  # a Conformer has two of half the width
            "attention_type": "RelPosMHAXL" if conformer else "regularMHA",
            "Transformer": {"encoder_module": sizes.encoder},
        }

    def _load(self, values: dict) -> dict:
        from hyperpyyaml import load_hyperpyyaml

        file = Path(self.recipe.__file__).parent / "hparams" / "conformer_large.yaml"
        with open(file, encoding="utf-8") as opened:
            return load_hyperpyyaml(opened, values)

    def _start(self) -> None:
        """Does what its __main__ does before the training."""
        from speechbrain.core import Stage

        hparams, recipe = self.hparams, self.recipe
        tokenizer = recipe.SentencePiece(
            model_dir=str(self.folder),
            vocab_size=hparams["output_neurons"],
            annotation_train=hparams["train_csv"],
            annotation_read="wrd",
            model_type=hparams["token_type"],
            character_coverage=hparams["character_coverage"],
            bos_id=hparams["bos_index"],
            eos_id=hparams["eos_index"],
        )
        train, dev, _, self.sampler, self.dev_sampler = recipe.dataio_prepare(hparams, tokenizer)
        self.brain = listening(recipe.ASR)(
            modules=hparams["modules"],
            opt_class=hparams["model_opt_class"],
            hparams=hparams,
            run_opts={"device": "cpu", "noprogressbar": True},
            checkpointer=hparams["checkpointer"],
        )
        self.brain.tokenizer, self.greedy = tokenizer, Stage.VALID  # in which the recipe searches greedily
        self.planned, steps = list(self.sampler), self.arguments.steps
        loading = {"batch_sampler": Endless(self.planned[:steps]), "num_workers": hparams["num_workers"]}
        self.loader = self.brain.make_dataloader(train, Stage.TRAIN, looped_nominal_epoch=steps, **loading)
        self.dev = self.brain.make_dataloader(dev, Stage.VALID, ckpt_prefix=None, batch_sampler=self.dev_sampler)
        self.preparing = Stopwatch(hparams["wav_augment"], hparams["compute_features"])
        self.training = 0.0  # seconds

    def train(self) -> None:
        """The steps of a turn by the loop of its Brain."""
        begin = time.perf_counter()
        self.brain.fit([1], self.loader)
        self.training += time.perf_counter() - begin

    def preparation_share(self) -> float:
        """The share of training that goes into augmentation and features outside the loader. Ask before `decode`."""
        return self.preparing.seconds / self.training

    @torch.no_grad()
    def decode(self) -> int:
        """All of dev from audio to words, as in its validation but for loss and scores; returns how many words."""
        self.brain.modules.eval()
        words = 0
        for batch in self.dev:
            found = self.brain.compute_forward(batch, self.greedy)[2]
            words += sum(map(len, self.brain.tokenizer(found, task="decode_from_list")))
        return words

    def padding(self) -> float:
        """Returns the share of padding in the batches of the training so far."""
        return 1 - self.brain.audio / self.brain.padded

    def planned_padding(self) -> float:
        """The same of an epoch as its sampler plans it, before speeds are drawn."""
        return planned_padding([self.sampler.get_durations(batch) for batch in self.planned])

    def parameters(self) -> tuple[int, int]:
        """Of the whole model, and of its encoder."""
        modules = self.brain.modules
        return count(modules), count(modules["Transformer"].encoder)


def listening(brain: type) -> type:
    """The recipe's Brain, counting seconds of output frames in training, with padding and without."""

    class Listening(brain):
        audio = padded = 0.0

        def compute_objectives(self, predictions, batch, stage):
            log_probs, shares = predictions[:2]
            self.audio += FRAME * log_probs.shape[1] * float(shares.sum())
            self.padded += FRAME * log_probs.shape[1] * len(shares)
            return super().compute_objectives(predictions, batch, stage)

    return Listening


def planned_padding(lengths: list[list[float]]) -> float:
    """The share of padding in batches of these lengths."""
    return 1 - sum(map(sum, lengths)) / sum(max(batch) * len(batch) for batch in lengths)


def count(module: torch.nn.Module) -> int:
    """Returns the number of parameters."""
    return sum(parameter.numel() for parameter in module.parameters())
