"""`asrtool decode` and `asrtool score`."""

from pathlib import Path

import click

PATH = click.Path(path_type=Path)
METHOD = click.Choice(["greedy", "prefix"])


@click.command()
@click.argument("exp", type=PATH)
@click.argument("cuts", type=PATH, nargs=-1, required=True)
@click.option("--method", "methods", type=METHOD, multiple=True, default=["greedy"], help="CTC search; repeatable.")
@click.option("--beam", default=8, type=click.IntRange(min=1), help="Prefixes kept by --method prefix.")
@click.option("--checkpoint", default="averaged", help="averaged (else best), best, last, or a path.")
@click.option("--batch-seconds", default=200.0, type=click.FloatRange(min=0, min_open=True), help="Audio in a batch.")
@click.option("--workers", default=1, type=click.IntRange(min=0), help="Loader processes.")
@click.option("--device", default="auto", help="auto, cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; all cores by default.")
def decode(exp, cuts, methods, beam, checkpoint, batch_seconds, workers, device, threads) -> None:
    """Recognise the cuts of one or more manifests with a trained experiment.

    Writes EXP/decode/SET/METHOD/hyps.jsonl and decode.json, where SET is the manifest's name, and prints the real-time
    factor of each. The same command again goes on where an interrupted one was.

    \b
    asrtool decode exp/transformer data/test.jsonl.gz
    asrtool decode exp/transformer data/dev.jsonl.gz data/test.jsonl.gz --method greedy --method prefix
    asrtool decode exp/transformer data/test.jsonl.gz --method prefix --beam 16 --checkpoint best

    torchrun shares the batches among processes, on one machine or on several that see the same folders; each takes a
    GPU of its own where there are some. The words are those that one process finds, the real-time factor is that of the
    slowest process, and the first one prints. With --max-restarts, or with the same command again, killed processes go
    on where they were, to half a minute. torchrun does not make a result again that is there: delete its folder first.

    \b
    torchrun --nproc-per-node 2 -m asrtool decode exp/transformer data/test.jsonl.gz
    torchrun --nproc-per-node 8 --max-restarts 3 -m asrtool decode exp/transformer data/test.jsonl.gz --method prefix
    torchrun --nproc-per-node 4 -m asrtool decode exp/transformer data/test.jsonl.gz --device cpu --threads 4
    """
    import torch

    from asrtool.decoding.decode import decode as run
    from asrtool.decoding.decode import open_experiment

    if threads:
        torch.set_num_threads(threads)
    experiment = open_experiment(exp, checkpoint, device)
    for path in cuts:
        for method in methods:
            name = path.name.split(".")[0]
            facts = run(experiment, path, exp / "decode" / name / method, name, method, beam, batch_seconds, workers)
            if facts:  # of the first process
                click.echo(_summary(facts))


def _summary(facts: dict) -> str:
    processes = f", {facts['ranks']} processes" if facts["ranks"] > 1 else ""
    return (
        f"{facts['set']} {facts['method']}: {facts['utterances']} utterances, {facts['audio_seconds']:.0f} s of audio, "
        f"RTF {facts['rtf']:.4f} (model {facts['rtf_model']:.4f}, search {facts['rtf_search']:.4f}) "
        f"on {facts['device']}, batches of {facts['batch_seconds']:.0f} s{processes}"
    )


@click.command()
@click.argument("folders", type=PATH, nargs=-1, required=True)
@click.option("--name", help="Name of the set; that it was decoded under by default.")
def score(folders, name) -> None:
    """Word error rate of decoded folders, with its 95 % bootstrap interval: one line a folder.

    Beside hyps.jsonl it writes wer.json, report.txt (confusions), and alignments.txt and .jsonl (every utterance).

    \b
    asrtool score exp/transformer/decode/test/greedy
    asrtool score exp/transformer/decode/*/prefix
    """
    from asrtool.scoring.folder import score_folder, set_name
    from asrtool.scoring.report import summary_line

    for folder in folders:
        click.echo(summary_line(name or set_name(folder), score_folder(folder, name)))
