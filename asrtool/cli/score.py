"""`asrtool score`."""

import click

from asrtool.cli.options import PATH
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("folders", type=PATH, nargs=-1, required=True)
@click.option("--name", show_default="the name that it was decoded under", help="Name of the set.")
@click.option("--pool", "pooled", metavar="NAME", help="Also score all utterances as one set of this name.")
@click.option(
    "--seeds",
    is_flag=True,
    help="FOLDERS are of one system with several seeds, --against of another with the same: also print the means.",
)
@click.option("--against", type=PATH, multiple=True, help="Folder to compare with by paired bootstrap; repeatable.")
@click.option(
    "--normalise",
    type=PATH,
    show_default="none",
    help="Rules file of `asrtool normalise`. It is applied to references and hypotheses before scoring.",
)
def score(folders, name, pooled, seeds, against, normalise) -> None:
    """Print the word error rate of each decoded folder.

    Each line has the 95 % bootstrap interval. Next to hyps.jsonl the command writes wer.json, report.txt (confusions,
    speakers), and alignments.txt and alignments.jsonl (every utterance).

    \b
    asrtool score exp/transformer/decode/test/greedy
    asrtool score exp/transformer/decode/*/prefix
    asrtool score fold_*/exp/transformer/decode/held_out/graph --pool "all folds"
    asrtool score exp/transformer/decode/test/graph --against exp/blstm/decode/test/graph
    asrtool score exp/a_seed1/decode/test/graph exp/a_seed2/decode/test/graph --seeds \\
        --against exp/b_seed1/decode/test/graph --against exp/b_seed2/decode/test/graph
    asrtool score other_system/test --normalise conf/normalise.yaml
    """
    from asrtool.errors import UserError
    from asrtool.scoring.folder import compare_folders, score_folder, score_pooled, set_name
    from asrtool.scoring.report import difference_line, speaker_interval_lines, summary_line
    from asrtool.scoring.seeds import compare_seeds, mean_over_seeds, seed_difference_line, seeds_line
    from asrtool.text.normalisation_rules import load_rules

    rules = load_rules(normalise) if normalise else None
    if pooled and seeds:
        raise UserError("--pool and --seeds exclude each other: folds have different utterances, seeds have the same")
    difference_of_seeds = compare_seeds(folders, against, rules) if seeds and against else None

    def print_difference(scored_folders):
        if against:
            print_text(difference_line(compare_folders(scored_folders, against, rules)))

    scores = []
    for number, folder in enumerate(folders):
        scores.append(score_folder(folder, name, rules))
        print_text(summary_line(name or set_name(folder), scores[-1]))
        if difference_of_seeds:
            print_text(difference_line(difference_of_seeds.pairs[number]))
        else:
            print_difference([folder])
    if seeds:
        print_text(seeds_line(name or set_name(folders[0]), mean_over_seeds([score.wer for score in scores])))
    if difference_of_seeds:
        print_text(seed_difference_line(difference_of_seeds))
    if pooled:
        pooled_score = score_pooled(folders, rules)
        print_text(summary_line(pooled, pooled_score))
        for line in speaker_interval_lines(pooled_score):
            print_text(line)
        print_difference(folders)
