"""`asrtool fmllr`."""

import click

from asrtool.cli.options import PATH, POSITIVE, num_bins_option, pseudo_labels_option
from asrtool.cli.text_output import print_text


@click.group()
def fmllr() -> None:
    """Transform the features of each speaker to an average speaker's.

    fMLLR is an affine transform of a speaker's cepstra, the one under which the words, which must be known or
    recognised, are most likely in a small GMM. The GMM is trained on the training set; then the acoustic model is
    trained on transformed features, and recognises new speakers in two passes:

    \b
    asrtool fmllr train data/fbank/train.jsonl.gz exp/fmllr --tokenizer data/lang_phone/tokenizer.json
    asrtool train conf/x.yaml --exp exp/x --set data.speaker_transforms=exp/fmllr/train.pt
    asrtool decode exp/x data/fbank/test.jsonl.gz --method graph --graph data/lang_phone/graph
    asrtool fmllr estimate exp/fmllr data/fbank/test.jsonl.gz --hyps exp/x/decode/test/graph
    asrtool decode exp/x data/fbank/test.jsonl.gz --method graph --graph data/lang_phone/graph \\
        --transforms exp/fmllr/test.pt
    """


@fmllr.command()
@click.argument("cuts", type=PATH)
@click.argument("folder", type=PATH)
@click.option(
    "--tokenizer", required=True, type=PATH, help="Tokenizer file of type phone, with the pronunciations of the words."
)
@click.option(
    "--gaussians",
    default=2000,
    type=click.IntRange(1, 100_000),
    help="Number of Gaussians of all states.",
)
@click.option(
    "--gmm-hours",
    default=10.0,
    type=POSITIVE,
    help="Largest amount of audio that the GMM is trained on, in hours. All speakers get a transform.",
)
@num_bins_option
def train(cuts, folder, tokenizer, gaussians, gmm_hours, num_bins) -> None:
    """Train the GMM on a manifest, and estimate the transforms of its speakers.

    CUTS is the manifest that the acoustic model will be trained on, with the speaker of each cut; a changed speed
    counts as another speaker. Writes the GMM and the transforms, as SET.pt with the name of the manifest, into FOLDER,
    which is new or was written by this command.
    Cuts with words that have no pronunciation are left out.

    \b
    asrtool fmllr train data/fbank/train.jsonl.gz exp/fmllr --tokenizer data/lang_phone/tokenizer.json
    asrtool train conf/x.yaml --exp exp/x --set data.speaker_transforms=exp/fmllr/train.pt
    """
    from asrtool.fmllr.run import train_fmllr

    print_text(train_fmllr(cuts, folder, tokenizer, gaussians, gmm_hours, num_bins))


@fmllr.command()
@click.argument("folder", type=PATH)
@click.argument("cuts", type=PATH)
@pseudo_labels_option
@click.option("--out", type=PATH, show_default="FOLDER/SET.pt", help="File of transforms to write.")
def estimate(folder, cuts, hyps, out) -> None:
    """Estimate the transforms of the speakers of a manifest.

    FOLDER is what `asrtool fmllr train` has written, and CUTS a manifest with the speaker of each cut. The words are
    hypotheses of a first pass, or else the texts of CUTS. A speaker with little speech gets a transform that changes
    little.

    \b
    asrtool fmllr estimate exp/fmllr data/fbank/test.jsonl.gz --hyps exp/x/decode/test/graph
    """
    from asrtool.fmllr.run import estimate_fmllr

    print_text(estimate_fmllr(folder, cuts, hyps, out))
