"""`asrtool normalise`."""

import click

from asrtool.cli.options import CASES, PATH
from asrtool.cli.text_output import print_text


@click.command()
@click.argument("cuts", type=PATH)
@click.argument("out", type=PATH, required=False)
@click.option("--rules", type=PATH, show_default="none", help="File with the rules (YAML).")
@click.option("--report", is_flag=True, help="Print what the rules would change, and write nothing.")
@click.option("--propose", type=PATH, show_default="none", help="File to write: rules that fit CUTS, to read and edit.")
@click.option(
    "--case",
    type=CASES,
    show_default="chosen by the transcripts",
    help="Case that the proposed rules change text to.",
)
def normalise(cuts, out, rules, report, propose, case) -> None:
    """Normalise transcripts by visible rules.

    CUTS is a manifest, or a text with a sentence a line, such as the text of a language model; OUT is of the same kind.
    The command prints the characters that were removed or replaced with their names and counts, the utterances that
    were dropped with the reason, and examples. The file of --rules has a comment for each rule.

    \b
    asrtool normalise data/all.jsonl.gz --propose conf/normalise.yaml
    asrtool normalise data/all.jsonl.gz --rules conf/normalise.yaml --report
    asrtool normalise data/all.jsonl.gz data/normalised.jsonl.gz --rules conf/normalise.yaml
    asrtool normalise lm-text.txt data/lm-text.txt --rules conf/normalise.yaml
    """
    from asrtool.data.normalising import normalise_file, propose_for_file

    if (propose is None) == (rules is None) or (propose and (out or report)) or (case and not propose):
        raise click.UsageError("give --propose FILE [--case], or --rules FILE with OUT or --report")
    if rules and bool(out) == report:
        raise click.UsageError("give OUT, or --report to write nothing")
    lines = propose_for_file(cuts, propose, case) if propose else normalise_file(cuts, out, rules)
    for line in lines:
        print_text(line)
