"""`asrtool prepare`, `features` and `tokenizer`: from a corpus to what training reads."""

import re
from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.group()
def prepare() -> None:
    """Turn a corpus into a checked manifest (*.jsonl.gz).

    Every audio file is opened and its end read; whatever is wrong is listed, and nothing is written unless --skip-bad.
    """


def _common(command):
    """The options that every layout shares."""
    options = [
        click.option("--sampling-rate", default=16000, type=click.IntRange(min=1), help="Hz that all audio must have."),
        click.option("--resample", is_flag=True, help="Resample audio at another rate while reading it."),
        click.option("--case", type=click.Choice(["keep", "upper", "lower"]), default="keep", help="Of the text."),
        click.option("--skip-bad", is_flag=True, help="List bad utterances and leave them out."),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def _write(utterances, out: Path, jobs: int = 4, **options) -> None:
    from asrtool.data.manifest import write_manifest

    click.echo(f"{out}: {write_manifest(utterances, out, jobs=jobs, **options)}")


@prepare.command()
@click.argument("corpus", type=PATH)
@click.argument("out", type=PATH)
@click.option("--part", "parts", multiple=True, required=True, help="A folder of the corpus; may be repeated.")
@click.option("--speakers", help="Only these: comma-separated, or a file with one a line.")
@click.option("--exclude-speakers", help="All but these.")
@_common
def librispeech(corpus, out, parts, speakers, exclude_speakers, **options) -> None:
    """A tree in LibriSpeech's layout: PART/SPEAKER/CHAPTER/*.trans.txt and audio.

    \b
    asrtool prepare librispeech /corpora/LibriSpeech data/train.jsonl.gz --part train-clean-100 --part train-clean-360
    asrtool prepare librispeech /corpora/LibriSpeech data/dev.jsonl.gz --part train-clean-5 --speakers 1737,2136
    """
    from asrtool.data.corpora import choose_speakers
    from asrtool.data.corpora import librispeech as read

    _write(choose_speakers(read(corpus, list(parts)), speakers, exclude_speakers), out, **options)


@prepare.command()
@click.argument("corpus", type=PATH)
@click.argument("out", type=PATH)
@click.option("--part", type=click.Choice(["train", "test"]), required=True, help="Which 30 of the 60 recordings.")
@_common
def yesno(corpus, out, part, **options) -> None:
    """The yesno corpus (OpenSLR 1), 8 kHz: file names are the transcripts.

    \b
    asrtool prepare yesno download/waves_yesno data/train.jsonl.gz --part train --sampling-rate 8000
    """
    from asrtool.data.corpora import yesno as read

    _write(read(corpus, part), out, **options)


@prepare.command()
@click.argument("folder", type=PATH)
@click.argument("out", type=PATH)
@_common
def kaldi(folder, out, **options) -> None:
    """A Kaldi data folder: wav.scp and text, and segments and utt2spk where they are.

    \b
    asrtool prepare kaldi /corpora/mine/data/train data/train.jsonl.gz
    """
    from asrtool.data.corpora import kaldi as read

    _write(read(folder), out, **options)


@prepare.command()
@click.argument("file", type=PATH)
@click.argument("out", type=PATH)
@_common
def table(file, out, **options) -> None:
    """A .csv or .tsv with a header: audio and text; optionally id, speaker, start, end.

    \b
    asrtool prepare table mine.tsv data/train.jsonl.gz --case upper
    """
    from asrtool.data.corpora import table as read

    _write(read(file), out, **options)


@prepare.command()
@click.argument("out", type=PATH)
@click.option("--cuts", type=PATH, help="A CutSet.")
@click.option("--recordings", type=PATH, help="A RecordingSet, with --supervisions.")
@click.option("--supervisions", type=PATH, help="A SupervisionSet, with --recordings.")
@_common
def lhotse(out, cuts, recordings, supervisions, **options) -> None:
    """Manifests of lhotse, read lazily.

    \b
    asrtool prepare lhotse data/train.jsonl.gz --cuts fbank/train_cuts.jsonl.gz
    asrtool prepare lhotse data/train.jsonl.gz --recordings rec.jsonl.gz --supervisions sup.jsonl.gz
    """
    from asrtool.data.manifest import copy_manifest, read_lhotse

    click.echo(f"{out}: {copy_manifest(read_lhotse(cuts, recordings, supervisions), out, **options)}")


@click.command()
@click.argument("cuts", type=PATH)
@click.argument("out", type=PATH)
@click.option("--num-bins", default=80, type=click.IntRange(min=1), help="Mel bins.")
@click.option("--speeds", default="1.0", help="Comma-separated; each cut is stored at every one of them.")
@click.option("--jobs", default=2, type=click.IntRange(min=1), help="Processes.")
@click.option("--shard", metavar="I/N", help="Do only the I-th of N shares, and do not write OUT.")
def features(cuts, out, num_bins, speeds, jobs, shard) -> None:
    """Store log-mel features with lilcom (training can also compute them on the fly).

    An interrupted run continues where it was.

    \b
    asrtool features data/train.jsonl.gz data/train_fbank.jsonl.gz --speeds 0.9,1.0,1.1 --jobs 8

    Several machines that see the same folders share the work with --shard, each started when it likes, and again when
    it was killed. The same command without --shard then stores what is still missing and writes OUT:

    \b
    asrtool features data/train.jsonl.gz data/fbank.jsonl.gz --shard 3/20                # one of them

    \b
    sbatch --wait --array=1-20 --wrap \\
        'asrtool features data/train.jsonl.gz data/fbank.jsonl.gz --shard $SLURM_ARRAY_TASK_ID/20'
    asrtool features data/train.jsonl.gz data/fbank.jsonl.gz

    \b
    for i in 1 2 3; do
        ssh node$i "cd $PWD && asrtool features data/train.jsonl.gz data/fbank.jsonl.gz --shard $i/3" &
    done
    wait
    asrtool features data/train.jsonl.gz data/fbank.jsonl.gz
    """
    options = {"num_bins": num_bins, "speeds": _speeds(speeds), "jobs": jobs}
    share = _share(shard) if shard is not None else None
    from asrtool.data.features import store, store_share

    if share is None:
        click.echo(f"{out}: {store(cuts, out, **options)}")
        return
    there, total = store_share(cuts, out, share, **options)
    hint = "run without --shard to write it" if there == total else "the rest is for the other shares"
    click.echo(f"{out}: {there} of {total} shards are stored; {hint}")


def _share(text: str) -> tuple[int, int]:
    share = re.fullmatch(r"([0-9]+)/([0-9]+)", text)
    if not share or not 1 <= int(share[1]) <= int(share[2]):
        raise click.BadParameter(f"'{text}' is not I/N with I from 1 to N, such as 3/20", param_hint="--shard")
    return int(share[1]), int(share[2])


def _speeds(text: str) -> tuple[float, ...]:
    try:
        speeds = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise click.BadParameter(f"'{text}' is not a comma-separated list of numbers", param_hint="--speeds") from error
    if not all(0.3 < speed < 3 for speed in speeds):
        raise click.BadParameter(f"'{text}' has a speed outside 0.3 to 3", param_hint="--speeds")
    return speeds


@click.command()
@click.argument("cuts", type=PATH, nargs=-1, required=True)
@click.argument("out", type=PATH)
@click.option("--type", "kind", type=click.Choice(["bpe", "char", "phone", "word"]), default="bpe", help="A unit.")
@click.option("--vocab-size", default=500, type=click.IntRange(min=2), help="Units of bpe, blank included.")
@click.option("--lexicon", type=PATH, help="The pronunciations, for phone.")
@click.option("--silence", help="Name of a unit of silence, which graphs put between words; phone alone has one.")
def tokenizer(cuts, out, kind, vocab_size, lexicon, silence) -> None:
    """Make the units from the transcripts of one or more manifests; phones from a lexicon, for the transcripts.

    \b
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type bpe --vocab-size 500
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type word     # tiny vocabularies
    asrtool tokenizer data/train.jsonl.gz data/lang/tokenizer.json --type phone --lexicon data/lang/lexicon.txt
    """
    if (kind == "phone") != (lexicon is not None) or (silence and kind != "phone"):
        raise click.UsageError("--type phone needs --lexicon, and may have --silence; other types have neither")
    from asrtool.data.manifest import transcripts
    from asrtool.text.lexicon import read_lexicon
    from asrtool.text.tokenizer import phone_tokenizer, save_tokenizer, train_tokenizer

    if kind == "phone":
        made = phone_tokenizer(read_lexicon(lexicon), transcripts(cuts), silence)
    else:
        made = train_tokenizer(kind, transcripts(cuts), vocab_size)
    save_tokenizer(made, out)
    click.echo(f"{out}: {made.size} units ({kind})")
