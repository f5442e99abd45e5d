"""`asrtool decode` and `asrtool score`."""

from pathlib import Path

import click

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH)
@click.option("--method", type=click.Choice(["greedy", "prefix"]), default="greedy", help="CTC search.")
@click.option("--beam", default=8, type=click.IntRange(min=1), help="Prefixes kept by --method prefix.")
@click.option("--name", help="Name of the set; that of the manifest by default.")
@click.option("--checkpoint", default="averaged", help="averaged (else best), best, last, or a path.")
@click.option("--batch-seconds", default=200.0, type=click.FloatRange(min=0, min_open=True), help="Audio in a batch.")
@click.option("--workers", default=1, type=click.IntRange(min=0), help="Loader processes.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; all cores by default.")
def decode(exp, cuts, method, beam, name, checkpoint, batch_seconds, workers, device, threads) -> None:
    """Recognise the cuts of a manifest with a trained experiment.

    Writes EXP/decode/NAME/METHOD/hyps.jsonl and decode.json, and prints the real-time factor.

    \b
    asrtool decode exp/transformer data/test.jsonl.gz
    asrtool decode exp/transformer data/test.jsonl.gz --method prefix --beam 16 --checkpoint best
    """
    import torch

    from asrtool.decoding.decode import decode as run
    from asrtool.decoding.decode import open_experiment

    if threads:
        torch.set_num_threads(threads)
    name = name or cuts.name.split(".")[0]
    out = exp / "decode" / name / method
    facts = run(open_experiment(exp, checkpoint, device), cuts, out, name, method, beam, batch_seconds, workers)
    click.echo(
        f"{name}: {facts['utterances']} utterances, {facts['audio_seconds']:.0f} s of audio, RTF {facts['rtf']:.4f} "
        f"(model {facts['rtf_model']:.4f}, search {facts['rtf_search']:.4f}) on {facts['device']}, "
        f"batches of {batch_seconds:.0f} s; {out / 'hyps.jsonl'}"
    )


@click.command()
@click.argument("folders", type=PATH, nargs=-1, required=True)
@click.option("--name", help="Name of the set; that it was decoded under by default.")
def score(folders, name) -> None:
    """Word error rate of decoded folders, with its 95 % bootstrap interval: one line a folder.

    Beside hyps.jsonl it writes wer.json, report.txt (confusions) and alignments.txt (every utterance).

    \b
    asrtool score exp/transformer/decode/test/greedy
    asrtool score exp/transformer/decode/*/prefix
    """
    from asrtool.scoring.folder import score_folder, set_name
    from asrtool.scoring.report import summary_line

    for folder in folders:
        click.echo(summary_line(name or set_name(folder), score_folder(folder, name)))
