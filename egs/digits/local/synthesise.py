#!/usr/bin/env python3
"""Creates a corpus of connected digits with espeak-ng: offline, free, with exact word times.

  synthesise.py OUT_DIR [--train 3600] [--dev 300] [--test 500] [--seed 1] [--jobs 2]

OUT_DIR/LibriSpeech gets train-digits, dev-digits and test-digits in LibriSpeech's layout (16 kHz mono FLAC), so that
lhotse's prepare_librispeech reads it. A speaker is an accent and a voice variant of espeak-ng, e.g. en-gb-scotland+f2.
Splits share all accents but no variant. An utterance is 1 to 7 digits at its own rate, pitch, gaps, level and noise.

alignment.txt has the END time of each word in seconds, with silence as the empty word, as in LibriSpeech-Alignments.
A word starts at espeak-ng's word event (so T of TWO includes its closure) and ends at the first pause that espeak-ng
plays after it or, in fluent speech, where the next word starts. Draws depend on (seed, split, index) alone.
"""

import logging
import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C during the imports below needs no traceback

import argparse
import contextlib
import ctypes
import functools
import importlib.metadata
import io
import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from scipy import fft

from asrtool.errors import AsrtoolError, UserError
from asrtool.files import write_json
from asrtool.logs import log_to_stderr
from asrtool.progress import progress

logger = logging.getLogger("asrtool")

VERSION = 1  # to increase when the same parameters give other bytes, so that an old corpus is not reused
DIGITS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]
SPLITS = ("train", "dev", "test")
RATE, ESPEAK_RATE = 16000, 22050  # Hz
HELD_OUT = {"test": (4, 3), "dev": (3, 2)}  # families of male and of female variants; all others are for training
UTTERANCE, SPEAKER, VARIANTS = 1, 2, 3  # the first word of a generator's seed keeps the streams apart
NOISES = ("white", "pink", "brown", "hum", "babble")
CLEAN_SHARE = 0.2  # of the utterances get only a faint hiss (50 dB), because recordings have no exact zeros
BABBLE_BANK = 24  # utterances of the split that babble is mixed from

# It reads the Shavian alphabet, and speaks Latin letters as plain "en", which would occur twice.
UNUSED_ACCENTS = {"en-shaw"}
# Unlike human speech by their parameter files; the other variants keep voicing and formants within a human range.
UNUSED_VARIANTS = {
    *("whisper", "whisperf", "caleb"),  # (nearly) no voicing, full breath: whispers
    *("croak", "Demonic"),  # a croak, and a monster: 70 % formants, 43 Hz, long echo
    *("UniRobot", "anikaRobot", *(f"robosoft{n}" for n in ("", *range(2, 9)))),  # robots: monotone, metallic echo
    *("RicishayMax", "RicishayMax2", "RicishayMax3", "announcer"),  # echo of 100 ms and more: halls, loudspeakers
    *("kaukovalta", "travis"),  # first formant at half its place: vowels change identity
    *("zac", "Tweaky"),  # all formants at 145 % and 390 Hz, third formant at 200 %: cartoon voices
    *("Lee", "Jacky", "Andy", "AnxiousAndy"),  # third formant removed or moved below the first
    "fast",  # a test of espeak-ng's top speed, marked unstable
    "Reed",  # sounds human, but espeak-ng 1.52 reads memory it never set, so that it is never twice the same
}


@dataclass(frozen=True)
class Corpus:
    """The parameters that determine every byte of the corpus: utterances in each split, and the seed."""

    train: int
    dev: int
    test: int
    seed: int


@dataclass
class Speech:
    """An utterance: `signal` (samples,) at 16 kHz with an RMS of 1 where there is speech; `spans` in samples."""

    words: list[str]
    signal: np.ndarray
    spans: list[tuple[int, int]]


# ---- Voices: which speakers there are, and who is in which split


def espeak_paths() -> tuple[Path, Path]:
    """Returns espeak-ng's shared library and its data folder, from the espeakng-loader wheel."""
    try:
        import espeakng_loader
    except ImportError:
        raise UserError("espeak-ng not found; pip install espeakng-loader") from None
    return Path(espeakng_loader.get_library_path()), Path(espeakng_loader.get_data_path())


def list_accents(data: Path) -> list[str]:
    """Returns the English accents of espeak-ng, e.g. en-us."""
    return sorted({path.name.lower() for path in (data / "lang" / "gmw").glob("en*")} - UNUSED_ACCENTS)


def list_variants(data: Path) -> dict[str, tuple[bool, tuple]]:
    """Returns {variant: (female, family)}. The variants of a family have the same vocal tract, i.e. formants 1-5.

    Copies of a variant, or one with another echo or tone, thus count as the same person and stay in one split.
    """
    variants = {}
    for path in sorted((data / "voices" / "!v").iterdir()):
        lines = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
        places = {line[1]: float(line[2]) for line in lines if len(line) > 2 and line[0] == "formant"}
        pitch = next(((float(line[1]) + float(line[2])) / 2 for line in lines if line[:1] == ["pitch"]), 100.0)
        female = any(line[:2] == ["gender", "female"] for line in lines) or pitch >= 150
        variants[path.name] = (female, tuple(places.get(str(n), 100.0) for n in range(1, 6)))
    return {name: value for name, value in variants.items() if name not in UNUSED_VARIANTS}


@functools.cache
def split_variants(seed: int) -> dict[str, list[str]]:
    """Returns {split: variants}: whole families, drawn by `seed`; families of three and more always go to training."""
    families, chosen = {}, {split: ([], []) for split in SPLITS}
    for name, key in list_variants(espeak_paths()[1]).items():
        families.setdefault(key, []).append(name)
    order = list(families.items())
    np.random.default_rng([VARIANTS, seed]).shuffle(order)
    for (female, _), names in sorted(order, key=lambda item: len(item[1]) > 2):  # stable: the small ones as shuffled
        split = next((split for split in HELD_OUT if HELD_OUT[split][female] > len(chosen[split][female])), "train")
        chosen[split][female].append(names)
    return {split: interleave(*(sum(names, []) for names in both)) for split, both in chosen.items()}


def interleave(first: list, second: list) -> list:
    """Returns both lists merged evenly, so that even a small corpus has male and female voices."""
    return [x for _, x in sorted(((n + 0.5) / len(names), x) for names in (first, second) for n, x in enumerate(names))]


@functools.cache
def list_voices(split: str, corpus: Corpus) -> list[str]:
    """Returns the split's speakers as espeak-ng's voice names; neighbours differ in accent and variant."""
    accents, variants = list_accents(espeak_paths()[1]), split_variants(corpus.seed)[split]
    blocks = [[*variants[n:], *variants[:n]] * len(accents) for n in range(len(variants))]
    voices = [f"{accent}+{variant}" for block in blocks for accent, variant in zip(accents, block, strict=False)]
    return voices[: getattr(corpus, split)]


# ---- espeak-ng


class _Event(ctypes.Structure):
    """espeak-ng's event; `name` is the phoneme in an event of that type, else a number."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("type", "unique", "position", "length", "milliseconds", "sample")),
        *(("user", ctypes.c_void_p), ("name", ctypes.c_char * 8)),
    ]


CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))
WORD, PHONEME = 1, 7  # types of events
SETTINGS = {"rate": 1, "volume": 2, "pitch": 3, "range": 4, "gap": 7}  # numbers of espeak-ng's parameters


@contextlib.contextmanager
def fresh_espeak() -> Iterator[ctypes.CDLL]:
    """Yields a newly loaded espeak-ng.

    It keeps phases and noise from one utterance to the next, and only unloading it resets them. So a speaker sounds the
    same, no matter what the process has synthesised before.
    """
    import _ctypes

    path, data = espeak_paths()
    library = ctypes.CDLL(str(path))
    try:
        if library.espeak_Initialize(2, 1000, str(data).encode(), 1 | 1 << 15) != ESPEAK_RATE:  # 2: returns sound
            raise UserError(f"espeak-ng cannot use its data in {data}; reinstall espeakng-loader")
        yield library
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)


def run_espeak(
    library: ctypes.CDLL, voice: str, words: list[str], seed: int, **settings: int
) -> tuple[np.ndarray, list]:
    """Returns the samples (n,) of `words` at 22050 Hz as float, and the span of each word in samples."""
    chunks, events = [], []

    @CALLBACK
    def receive(samples, count, event):
        chunks.append(np.ctypeslib.as_array(samples, (count,)).astype(np.float32) if count > 0 else np.zeros(0))
        for one in itertools.takewhile(lambda one: one.type, (event[n] for n in itertools.count())):
            events.append((one.type, one.sample, one.name))
        return 0

    text = " ".join(words).lower().encode()  # as words, because "012" would be read as a number
    library.espeak_SetSynthCallback(receive)
    library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
    failed = library.espeak_SetVoiceByName(voice.encode())
    for name, value in settings.items():
        library.espeak_SetParameter(SETTINGS[name], value, 0)
    failed = failed or library.espeak_Synth(text, ctypes.c_size_t(len(text) + 1), 0, 1, 0, 1, None, None)
    spans = find_words(events, sum(map(len, chunks)))
    if failed or len(spans) != len(words):
        raise RuntimeError(f"espeak-ng voice {voice} did not speak {words}: error {failed}, {len(spans)} words")
    return np.concatenate(chunks), spans


def find_words(events: list[tuple[int, int, bytes]], length: int) -> list[tuple[int, int]]:
    """Returns (start, end) of each word: from its event to the first pause (phoneme _ or _:), or to the next word."""
    starts = [sample for kind, sample, _ in events if kind == WORD]
    pauses = [sample for kind, sample, name in events if kind == PHONEME and name.startswith(b"_")]
    following = [*starts[1:], length]
    return [(a, min([p for p in pauses if a < p <= b], default=b)) for a, b in zip(starts, following, strict=True)]


# ---- An utterance


def speak_all(corpus: Corpus, split: str, indices: Iterable[int]) -> Iterator[tuple[np.random.Generator, Speech]]:
    """Yields utterances of a split without noise, each with its generator for later draws."""
    with fresh_espeak() as library:
        for index in indices:
            rng = np.random.default_rng([UTTERANCE, corpus.seed, SPLITS.index(split), index])
            yield rng, speak(library, corpus, split, index, rng)


def speak(library: ctypes.CDLL, corpus: Corpus, split: str, index: int, rng: np.random.Generator) -> Speech:
    """Returns utterance `index` of a split without noise, with silence around it."""
    voices = list_voices(split, corpus)
    number = index % len(voices)
    manner = np.random.default_rng([SPEAKER, corpus.seed, SPLITS.index(split), number])
    words = [DIGITS[n] for n in rng.integers(0, 10, rng.integers(1, 8))]
    settings = {
        "rate": int(manner.uniform(125, 180) * rng.uniform(0.9, 1.1)),  # words a minute
        "pitch": int(np.clip(manner.uniform(35, 65) + rng.normal(0, 5), 10, 90)),  # percent, 50 is the voice's own
        "range": int(np.clip(manner.uniform(30, 70) + rng.normal(0, 10), 5, 95)),
        "gap": int(rng.integers(2, 12)) if rng.random() < 0.7 else 0,  # 10 ms; 0 is fluent, with no pause between words
        "volume": 70,  # full volume clips in a few voices; the level is drawn after noise is added
    }
    samples, spans = run_espeak(library, voices[number], words, int(rng.integers(1, 2**31 - 1)), **settings)
    samples, spans = stretch_gaps(samples, spans, rng)
    signal = resample(samples)
    edges = rng.integers(int(0.1 * RATE), int(0.4 * RATE), 2, endpoint=True)
    edges[1] += -(len(signal) + edges.sum()) % 160  # whole frames of 10 ms, so that times in ms are exact
    spans = [tuple(round(n * RATE / ESPEAK_RATE) + int(edges[0]) for n in span) for span in spans]
    signal = np.pad(signal, edges)
    return Speech(words, signal / rms(signal[spans[0][0] : spans[-1][1]]), spans)


@functools.cache
def low_pass() -> np.ndarray:
    """Returns the filter of resample_poly, which would design it in each call; that takes as long as its use."""
    from scipy.signal import firwin

    return firwin(20 * 441 + 1, 1 / 441, window=("kaiser", 5.0)).astype(np.float32)


def resample(samples: np.ndarray) -> np.ndarray:
    """Resamples (n,) samples at 22050 Hz to (ceil(n * 320 / 441),) at 16 kHz."""
    from scipy.signal import resample_poly  # here, because the import takes a second, which `--help` should not need

    return resample_poly(samples, 320, 441, window=low_pass())


def stretch_gaps(samples: np.ndarray, spans: list, rng: np.random.Generator) -> tuple[np.ndarray, list]:
    """Lengthens each pause between words by a random time (mean 60 ms, at most 0.4 s); fluent words stay fluent."""
    parts, moved, shift, last = [], [spans[0]], 0, 0
    for (_, end), (start, stop) in zip(spans, spans[1:], strict=False):
        extra = int(min(rng.exponential(0.06), 0.4) * ESPEAK_RATE) if start > end else 0
        fade = np.ones(start - last)
        fade[end - last :] = np.linspace(1, 0, start - end) if extra else 1  # no click where an echo is cut
        parts += [samples[last:start] * fade, np.zeros(extra)]
        shift, last = shift + extra, start
        moved.append((start + shift, stop + shift))
    return np.concatenate([*parts, samples[last:]]), moved


def rms(signal: np.ndarray) -> float:
    """Returns the root mean square, never 0."""
    return float(np.sqrt(np.mean(signal**2)) + 1e-9)


@functools.cache
def babble_bank(corpus: Corpus, split: str) -> dict[int, np.ndarray]:
    """Returns {index: signal} of utterances spread over the split, without noise."""
    indices = sorted({int(n) for n in np.linspace(0, getattr(corpus, split) - 1, BABBLE_BANK)})
    return {n: speech.signal for n, (_, speech) in zip(indices, speak_all(corpus, split, indices), strict=True)}


def make_noise(kind: str, length: int, rng: np.random.Generator, talkers: list[np.ndarray]) -> np.ndarray:
    """Returns noise (length,) with an RMS of 1; `talkers` are signals for babble (without any: pink noise)."""
    if kind == "hum":
        phases = np.arange(1, 9)[:, None] * (2 * np.pi * rng.choice([50, 60]) * np.arange(length) / RATE)
        noise = rng.uniform(0.1, 1, 8) @ np.sin(phases + rng.uniform(0, 2 * np.pi, (8, 1)))
        noise += 0.1 * rng.standard_normal(length, np.float32)
    elif kind == "babble" and talkers:
        chosen = rng.choice(len(talkers), min(len(talkers), int(rng.integers(3, 8))), replace=False)
        noise = sum(np.roll(np.resize(talkers[n], length), int(rng.integers(length))) for n in chosen)
    else:
        slope = {"white": 0.0, "brown": 1.0}.get(kind, 0.5)
        frequencies = np.maximum(fft.rfftfreq(length, 1 / RATE), 30.0).astype(
            np.float32
        )  # Hz; flat below, otherwise all energy is there
        noise = fft.irfft(fft.rfft(rng.standard_normal(length, np.float32)) * frequencies**-slope, length)
    return noise / rms(noise)


def add_noise(signal: np.ndarray, rng: np.random.Generator, corpus: Corpus, split: str, index: int) -> np.ndarray:
    """Returns `signal` (samples,) with noise added and its level set; full scale is 1 and the peak is at most 0.9."""
    kind, snr = ("white", 50.0) if rng.random() < CLEAN_SHARE else (rng.choice(NOISES), rng.uniform(10, 30))
    talkers = [s for n, s in babble_bank(corpus, split).items() if n != index] if kind == "babble" else []
    signal = signal + 10 ** (-snr / 20) * make_noise(kind, len(signal), rng, talkers)
    level = 10 ** (rng.uniform(-34, -18) / 20)  # RMS of the speech
    return signal * min(level, 0.9 / np.abs(signal).max())


# ---- Files


def align_line(name: str, speech: Speech) -> str:
    """Returns `name "W1,,W2,.." "t1,t2,.."`: the end of each word in seconds, with silence as the empty word."""
    items, time = [], 0
    for word, (start, end) in zip(speech.words, speech.spans, strict=True):
        items += [("", start)] if start > time else []
        items.append((word, end))
        time = end
    items += [("", len(speech.signal))] if len(speech.signal) > time else []
    return f'{name} "{",".join(word for word, _ in items)}" "{",".join(f"{end / RATE:.3f}" for _, end in items)}"'


def speaker_ids(split: str, number: int) -> tuple[int, int]:
    """Returns the numbers of speaker and chapter, unique over the splits (a speaker reads one chapter)."""
    speaker = 1000 * (SPLITS.index(split) + 1) + number
    return speaker, 100000 + speaker


def make_speaker(corpus: Corpus, split: str, number: int, folder: Path) -> None:
    """Writes one speaker's folder under `folder`, completely or not at all; an existing folder stays."""
    import soundfile

    speaker, chapter = speaker_ids(split, number)
    final, unfinished = folder / str(speaker), folder / f".tmp-{speaker}"
    if final.is_dir():
        return
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / str(chapter)).mkdir(parents=True)
    texts, alignments = [], []
    indices = range(number, getattr(corpus, split), len(list_voices(split, corpus)))
    utterances = list(speak_all(corpus, split, indices))  # all at once: babble needs its own espeak-ng
    for order, (index, (rng, speech)) in enumerate(zip(indices, utterances, strict=True)):
        name, buffer = f"{speaker}-{chapter}-{order:04d}", io.BytesIO()
        signal = add_noise(speech.signal, rng, corpus, split, index)
        soundfile.write(buffer, signal, RATE, format="FLAC", subtype="PCM_16")
        (unfinished / str(chapter) / f"{name}.flac").write_bytes(buffer.getvalue())
        texts.append(f"{name} {' '.join(speech.words)}\n")
        alignments.append(align_line(name, speech) + "\n")
    for suffix, lines in (("trans", texts), ("alignment", alignments)):
        (unfinished / str(chapter) / f"{speaker}-{chapter}.{suffix}.txt").write_text("".join(lines))
    unfinished.rename(final)


def write_speakers(corpus: Corpus, folder: Path) -> float:
    """Writes LibriSpeech's SPEAKERS.TXT, with the voice as the reader's name; returns the length in minutes."""
    variants, total = list_variants(espeak_paths()[1]), 0.0
    lines = [";ID  |SEX| SUBSET           |MINUTES| NAME"]
    for split, (number, voice) in ((s, item) for s in SPLITS for item in enumerate(list_voices(s, corpus))):
        speaker, _ = speaker_ids(split, number)
        (path,) = (folder / f"{split}-digits" / str(speaker)).glob("*/*.alignment.txt")
        minutes = sum(float(line.strip('"').split(",")[-1]) for line in path.read_text().splitlines()) / 60
        sex, total = "MF"[variants[voice.split("+")[1]][0]], total + minutes
        lines.append(f"{speaker} | {sex} | {split + '-digits':16} | {minutes:5.2f} | {voice}")
    (folder / "SPEAKERS.TXT").write_text("\n".join(lines) + "\n")
    return total


def ignore_interrupts() -> None:
    """Makes workers ignore Ctrl-C; the parent lets them finish the current speaker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_speakers(corpus: Corpus, folder: Path, jobs: int) -> None:
    """Writes all speakers of all splits, in `jobs` processes."""
    with ProcessPoolExecutor(jobs, initializer=ignore_interrupts) as pool:
        try:
            tasks = [
                pool.submit(make_speaker, corpus, split, number, folder / f"{split}-digits")
                for split in SPLITS
                for number in range(len(list_voices(split, corpus)))
            ]
            for task in progress(as_completed(tasks), "synthesise", total=len(tasks), units="speakers"):
                task.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def synthesise(out: Path, corpus: Corpus, jobs: int) -> None:
    """Creates the corpus in `out`/.partial and renames it to `out`/LibriSpeech; continues an interrupted run."""
    final, partial = out / "LibriSpeech", out / ".partial"
    espeak_paths()  # first, because its error names what to install
    wanted = {**asdict(corpus), "version": VERSION, "espeakng-loader": importlib.metadata.version("espeakng-loader")}
    if final.exists():
        if not same_parameters(final, wanted):
            raise UserError(f"{final} is there and was made otherwise; remove that folder or choose another OUT_DIR")
        logger.info(f"{final} is there already, made with the same parameters; nothing to do")
        return
    if not same_parameters(partial, wanted):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        write_json(partial / "params.json", wanted)
    make_speakers(corpus, partial, jobs)
    minutes = write_speakers(corpus, partial)
    os.sync()  # or a power cut just after the rename could leave empty files under the final name
    partial.rename(final)
    logger.info(f"{final}: {corpus.train + corpus.dev + corpus.test} utterances, {minutes / 60:.2f} hours")


def same_parameters(folder: Path, wanted: dict) -> bool:
    """Returns True if `folder` was created, or started, with the `wanted` parameters."""
    path = folder / "params.json"
    return path.is_file() and json.loads(path.read_text()) == wanted


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """Parses the command line. Raises UserError if something is wrong with it."""

    def refuse(message: str) -> None:
        raise UserError(f"{message}; see --help")

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.error = refuse
    parser.add_argument("out_dir", type=Path)
    parser.add_argument(
        "--train", type=int, default=3600, metavar="N", help="training utterances [default: %(default)s]"
    )
    parser.add_argument(
        "--dev", type=int, default=300, metavar="N", help="development utterances [default: %(default)s]"
    )
    parser.add_argument("--test", type=int, default=500, metavar="N", help="test utterances [default: %(default)s]")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="seed of the corpus [default: %(default)s]")
    parser.add_argument(
        "--jobs",
        type=int,
        default=2,
        metavar="N",
        help="processes; any number gives the same corpus [default: %(default)s]",
    )
    options = parser.parse_args(arguments)
    for name, least in (("train", 0), ("dev", 0), ("test", 0), ("seed", 0), ("jobs", 1)):
        if getattr(options, name) < least:
            refuse(f"--{name} is {getattr(options, name)}, but must be at least {least}")
    if not options.train + options.dev + options.test:
        refuse("--train, --dev and --test are all 0; nothing to make")
    return options


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    try:
        options = parse_arguments(arguments)
        corpus = Corpus(options.train, options.dev, options.test, options.seed)
        synthesise(options.out_dir, corpus, options.jobs)
    except AsrtoolError as error:
        logger.info(f"synthesise.py: {error}")
        return error.exit_status
    except (
        OSError,
        BrokenProcessPool,
    ) as error:  # disk full, no permission, a worker killed by the out-of-memory killer
        logger.info(f"synthesise.py: {error}; rerun to continue")
        return 2
    except KeyboardInterrupt:
        logger.info("synthesise.py: interrupted; rerun to continue")
        return 130
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    log_to_stderr()
    sys.exit(main())
