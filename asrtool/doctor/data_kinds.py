"""The kinds of fault that `asrtool doctor data` detects: how much each matters, its cause, and what fixes it.

A kind with `excluded` makes an utterance unusable, or likely to harm a model: `--exclude` lists these utterances.
"""

from dataclasses import dataclass
from pathlib import Path

from asrtool.data.shards import manifest_name
from asrtool.doctor.findings import Severity, shell_command

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE

LEAVE_OUT = "leave them out with --exclude"  # only of kinds that are excluded, and of training sets: see `remedy_for`
COPY_AGAIN = "copy the files from the source again"
PREPARE_AGAIN = "run `asrtool prepare` on the corpus again, which reads the headers of the files"
LISTEN = "listen to some of them, and correct the audio or the transcripts"
NORMALISE = (
    "asrtool normalise {cuts} --propose {rules}; read and edit the rules; "
    "asrtool normalise {cuts} {normalised} --rules {rules}"
)


@dataclass(frozen=True)
class Kind:
    """One kind of fault. `cause` is a clause that says what is wrong.

    `remedy` may name the manifest as {cuts}, and files beside it as {rules} and {normalised}.
    """

    severity: Severity
    cause: str
    remedy: str
    excluded: bool = False

    def remedy_for(self, cuts: Path, is_training: bool) -> str:
        """Returns the remedy in the manifest `cuts`. Only what --exclude lists can be left out with it."""
        stem = manifest_name(cuts)
        names = {
            "cuts": cuts,
            "rules": cuts.with_name(f"{stem}_rules.yaml"),
            "normalised": cuts.with_name(f"{stem}_normalised.jsonl.gz"),
        }
        remedy = self.remedy.format(**{name: shell_command(path) for name, path in names.items()})
        return f"{remedy}, or {LEAVE_OUT}" if self.excluded and is_training else remedy


MANIFEST_KINDS = {
    "unreadable-line": Kind(
        ERROR, "lines of the manifest are not cuts", "copy the manifest again, or write it again with `asrtool prepare`"
    ),
    "duplicate-id": Kind(
        ERROR,
        "ids occur more than once",
        "delete repeated lines, or give each utterance an id of its own, e.g. in a column id of the table",
    ),
    "several-supervisions": Kind(
        ERROR,
        "the transcript and the audio of cuts do not belong together",
        "run `asrtool prepare lhotse` on the manifest, which makes a cut of each supervision",
        excluded=True,
    ),
    "transcript-beyond-cut": Kind(
        WARNING,
        "transcripts extend beyond their cuts; training leaves these cuts out",
        "run `asrtool prepare lhotse` on the original manifest, not on windows of it",
        excluded=True,
    ),
    "overlapping-segments": Kind(
        WARNING,
        "segments of one recording and channel overlap: each has audio of the other's transcript",
        "correct the start and end times",
        excluded=True,
    ),
    "missing-features": Kind(ERROR, "the files of stored features are missing", "run `asrtool features` again"),
    "no-audio": Kind(NOTE, "cuts have stored features only: their audio was not checked", ""),
}

FILE_KINDS = {
    "command-or-address": Kind(
        ERROR,
        "the audio is a shell command or an address, not a file",
        "write the output of the commands to files, or give --allow-commands if you trust the manifest",
        excluded=True,
    ),
    "missing-file": Kind(
        ERROR, "audio files do not exist", "run `asrtool prepare` on the corpus again, with the right paths", True
    ),
    "unreadable-audio": Kind(ERROR, "files cannot be read as audio", COPY_AGAIN, excluded=True),
    "damaged-audio": Kind(ERROR, "decoding fails within the file", COPY_AGAIN, excluded=True),
    "truncated": Kind(ERROR, "audio ends before its header or the manifest says", COPY_AGAIN, excluded=True),
    "manifest-differs": Kind(
        ERROR, "rate, length or channels in the manifest differ from the file", PREPARE_AGAIN, excluded=True
    ),
    "beyond-recording": Kind(
        ERROR,
        "segments end after their recording",
        "run `asrtool prepare` again, which cuts them off within --end-tolerance",
        excluded=True,
    ),
    "wrong-rate": Kind(
        ERROR,
        "the sampling rate differs from the configuration, or from most utterances",
        "run `asrtool prepare ... --resample --sampling-rate HZ`",
        excluded=True,
    ),
}

SIGNAL_KINDS = {
    "not-finite": Kind(ERROR, "samples are not finite numbers (NaN or infinity)", COPY_AGAIN, excluded=True),
    "beyond-full-scale": Kind(
        ERROR,
        "floating-point samples exceed full scale by far",
        "divide them by 32768, or store them as 16 bit",
        excluded=True,
    ),
    "silent": Kind(ERROR, "audio is silent", LISTEN, excluded=True),
    "dead-channel": Kind(
        ERROR,
        "the channel is silent, another channel of the recording is not",
        "run `asrtool prepare ... --channel N` with the other channel",
        excluded=True,
    ),
    "noise-only": Kind(WARNING, "audio is steady noise without any speech", LISTEN, excluded=True),
    "mostly-silent": Kind(WARNING, "most of the audio is silent", "cut the pauses off by other start and end times"),
    "clipped": Kind(
        WARNING,
        "samples are clipped: the waveform is cut off at its peaks",
        "use originals with a lower gain if they exist; a few clipped utterances in training do no harm",
    ),
    "dc-offset": Kind(
        WARNING, "the mean of the samples is far from zero", "filter the files: `sox IN OUT highpass 20`"
    ),
    "low-level": Kind(WARNING, "the level is very low", "raise the gain of the files: `sox --norm=-3 IN OUT`"),
    "low-snr": Kind(NOTE, "the signal-to-noise ratio is low", LISTEN),
    "band-limited": Kind(
        WARNING,
        "frequencies above the bandwidth of a lower sampling rate are missing: the audio was upsampled",
        "train narrow-band audio at its own rate (features.sampling_rate=8000), or mix it in on purpose",
    ),
    "dropouts": Kind(WARNING, "samples are missing within speech: stretches of one constant value", LISTEN),
    "opposite-channels": Kind(
        WARNING,
        "two channels cancel each other when they are mixed",
        "choose one with `asrtool prepare ... --channel 0`",
    ),
    "identical-channels": Kind(NOTE, "all channels of the recordings are equal", ""),
    "several-channels": Kind(NOTE, "recordings have further channels, which are not used", ""),
}

LENGTH_KINDS = {
    "too-short": Kind(
        WARNING,
        "shorter than data.min_seconds; training leaves them out",
        "lower data.min_seconds",
        True,
    ),
    "too-long": Kind(
        WARNING,
        "longer than data.max_seconds; training leaves them out",
        "cut them into sentences with `asrtool segment`, or raise data.max_seconds",
        excluded=True,
    ),
    "ctc-infeasible": Kind(
        WARNING,
        "the transcript has more units than the audio has output frames; training leaves them out",
        LISTEN,
        excluded=True,
    ),
    "too-many-characters": Kind(
        WARNING, "the transcript is far too long for the speech in the audio", LISTEN, excluded=True
    ),
    "too-few-characters": Kind(
        WARNING, "the transcript is far too short for the speech in the audio", LISTEN, excluded=True
    ),
}

TEXT_KINDS = {
    "no-transcript": Kind(ERROR, "utterances have no transcript", "add the transcripts", excluded=True),
    "unknown-units": Kind(
        ERROR,
        "transcripts have characters or words that the tokenizer has no unit for",
        NORMALISE + "; or train the tokenizer again",
        excluded=True,
    ),
    "unknown-in-test": Kind(
        NOTE,
        "transcripts of a test set have characters or words that the tokenizer has no unit for: they count as errors",
        "add the words to the lexicon, or normalise the transcripts of all sets by the same rules",
    ),
    "control-characters": Kind(ERROR, "transcripts have control characters", NORMALISE, excluded=True),
    "wrong-encoding": Kind(
        WARNING,
        "transcripts were read in a wrong encoding",
        "convert the text files: `iconv -f ENCODING -t UTF-8`",
        excluded=True,
    ),
    "invisible-characters": Kind(
        WARNING, "transcripts have invisible characters; asrtool leaves them out, other tools do not", NORMALISE
    ),
    "not-composed": Kind(
        WARNING, "transcripts are not in Unicode's composed form (NFC); asrtool composes them, others do not", NORMALISE
    ),
    "markup": Kind(WARNING, "transcripts have markup or marks of noise, which nobody speaks", NORMALISE),
    "digits": Kind(
        WARNING,
        "transcripts have digits, most do not: how they are spoken is not known",
        "write them as words",
    ),
    "mixed-scripts": Kind(
        WARNING, "words mix scripts: letters that look alike, such as Cyrillic and Latin a", "replace these letters"
    ),
    "case-differs": Kind(WARNING, "the case differs from almost all transcripts", NORMALISE),
    "repeated-words": Kind(WARNING, "a word is repeated five times or more in a row", LISTEN),
    "rare-characters": Kind(NOTE, "characters occur in hardly any transcript", NORMALISE),
    "white-space": Kind(NOTE, "transcripts have white space at an end, or several spaces in a row", ""),
}

SPEAKER_KINDS = {
    "some-without-speaker": Kind(WARNING, "utterances have no speaker, others have one", "name all speakers, or none"),
    "no-speakers": Kind(NOTE, "no utterance has a speaker: sets cannot be compared by speaker", ""),
    "one-speaker": Kind(NOTE, "all utterances are of one speaker: a model will know this voice only", ""),
    "similar-speakers": Kind(WARNING, "names of speakers differ only in case or punctuation", "use one name for each"),
}

SHARED_KINDS = {
    "duplicate-audio": Kind(
        WARNING, "the same samples occur more than once", "delete all but one of each", excluded=True
    ),
    "same-audio-other-text": Kind(
        ERROR, "the same samples have different transcripts", "correct the transcripts", excluded=True
    ),
    "shared-audio": Kind(
        ERROR,
        "audio of a development or test set is in the training set, too: its WER will be too good",
        "delete these utterances from the training set",
        excluded=True,
    ),
    "shared-ids": Kind(WARNING, "ids occur in a training set and in another set", "rename the utterances of one set"),
    "shared-speakers": Kind(
        WARNING,
        "speakers of a development or test set are in the training set, too: its WER does not hold for new speakers",
        "split all data again by speaker: `asrtool split CUTS OUT_FOLDER --by speaker`",
    ),
    "shared-sentences": Kind(
        WARNING,
        "sentences of a development or test set are in the training set, too: its WER will be too good",
        "split all data again with `asrtool split CUTS OUT_FOLDER`, which keeps equal sentences in one set",
    ),
    "duplicate-transcripts": Kind(NOTE, "the same sentence occurs more than once", ""),
}

KINDS: dict[str, Kind] = {
    **MANIFEST_KINDS,
    **FILE_KINDS,
    **SIGNAL_KINDS,
    **LENGTH_KINDS,
    **TEXT_KINDS,
    **SPEAKER_KINDS,
    **SHARED_KINDS,
}
