"""Runs ablations, which are written down as variants x seeds, and reports whether they support their hypotheses.

python tools/ablations.py ABLATION.yaml --work exp/depth                       # runs what is left, prints the table
python tools/ablations.py ABLATION.yaml --work exp/depth --results RESULTS.md  # writes the table into this file
python tools/ablations.py A.yaml B.yaml --work exp/ablations --list            # lists the runs that are left

ABLATION.yaml, where `conf` is relative to the file itself, and `set` and `options` are options of `asrtool train`:

  name: Depth-scaled initialisation           # the heading
  hypothesis: "from 24 layers on, only depth-scaled initialisation trains"
  seeds: [1, 2, 3]
  conf: ../conf/transformer_24l.yaml
  set: [training.max_steps=300]               # for all variants
  threshold: 0.5                              # optional: report the first step with a lower dev loss
  equal: [parameters, latency]                # compared variants must be equal in these (parameters: within 5 %)
  variants:
    default: {set: [model.init.scheme=default], minutes: 4}     # expected minutes of a run, for --list
    deep: {set: [model.init.scheme=depth_scaled]}
    warm: {options: [--phase, warmup, --warmup-hours, 0.5]}
    many: {after: warm, processes: 8}         # torchrun, from WORK/warm/SEED/checkpoints/warmup.pt
    wide: {conf: ../conf/transformer_12l.yaml}
  compare: [[deep, default]]                  # report differences of the final dev losses, paired by seed
  expect: [deep < default, deep < 0.5, default > 2, warm = deep within 5 %]     # what the hypothesis predicts
  measure: final                              # or mean, of all dev losses of a run: measures the speed of learning
  explanation: {refuted: "A sentence for this result."}         # or supported, inconclusive
  full: {seeds: [1], variants: {deep: {processes: 8}}}          # settings that --scale full replaces

A variant that several ablations define with the same name and settings runs once. A run has the folder
WORK/VARIANT/SEED; SEED.log is its output, and SEED.json records how it was started and how it ended. Ctrl-C lets each
training write its checkpoint, and the same command continues. A run that failed is a result; --retry-failed repeats it.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from ablation_definition import Ablation, load_ablation
from ablation_report import OVERVIEW, draw, listing, overview, section
from ablation_runs import Run, run_all

from asrtool.errors import AsrtoolError, UserError, did_you_mean
from asrtool.files import write_text
from asrtool.logs import log_to_stderr
from asrtool.scoring.markdown import replace_section


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ablations", type=Path, nargs="+", metavar="ABLATION.yaml", help="files of ablations")
    parser.add_argument("--work", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--results", type=Path, metavar="FILE.md", help="file for the tables [default: stdout]")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="folder for the loss curves, ABLATION.png")
    text = "full: with the settings `full` of each ablation [default: %(default)s]"
    parser.add_argument("--scale", choices=["small", "full"], default="small", help=text)
    parser.add_argument("--list", action="store_true", help="only list the runs that are left, and their time")
    parser.add_argument("--jobs", type=int, default=1, help="training processes at a time [default: %(default)s]")
    parser.add_argument("--threads", type=int, default=1, help="threads of each process [default: %(default)s]")
    text = "variants to run, with the variants that they start from; the table has all variants [default: all]"
    parser.add_argument("--only", metavar="VARIANT,..", help=text)
    parser.add_argument("--seeds", metavar="1,2,..", help="seeds to run and report [default: those of the ablation]")
    parser.add_argument("--retry-failed", action="store_true", help="repeat runs that failed or diverged")
    text = "folder in which the trainings run: paths data.* in configurations are relative to it [default: here]"
    parser.add_argument("--chdir", type=Path, default=Path(), metavar="DIR", help=text)
    text = "setting of the configuration for all runs, as of `asrtool train`; repeatable"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=text)
    text = "what identifies the training data, such as a checksum; a run with other data is not continued or reported"
    parser.add_argument("--data", metavar="TEXT", help=text)
    text = "command that the results show; {ablation} is replaced by the file name without .yaml [default: this one]"
    parser.add_argument("--command", help=text)
    return parser


def parse_seeds(text: str | None, ablation: Ablation) -> list[int]:
    """Returns the seeds of the option --seeds or, without it, of the ablation."""
    try:
        return sorted({int(seed) for seed in text.split(",")} if text else ablation.seeds)
    except ValueError as error:
        raise UserError(f"--seeds: {error}") from error


def parse_only(text: str | None, ablations: Iterable[Ablation]) -> set[str]:
    """Returns the variants of the option --only and those that they start from; without the option, all variants."""
    ablations = list(ablations)
    valid = [name for ablation in ablations for name in ablation.variants]
    selected = set()
    for name in text.split(",") if text else valid:
        if name not in valid:
            raise UserError(f"--only: there is no variant '{name}' ({did_you_mean(name, valid)})")
        for ablation in ablations:
            if name in ablation.variants:
                selected.update(ablation.predecessors(name))
    return selected


def make_runs(ablation: Ablation, arguments: argparse.Namespace, known: dict[Path, Run]) -> list[Run]:
    """Returns the runs of an ablation; runs that another ablation has put into `known` are shared."""
    runs = []
    for seed in parse_seeds(arguments.seeds, ablation):  # all variants of a seed first: pairs to compare come early
        for name in ablation.variants:
            run = Run(ablation, name, seed, arguments.work.resolve(), arguments.threads, arguments.set, arguments.data)
            shared = known.setdefault(run.folder, run)
            if not shared.has_settings(run.settings):
                text = f"variant '{name}' has other settings in another ablation; give it another name"
                raise UserError(f"{ablation.name}: {text}")
            runs.append(shared)
    return runs


def report(ablation: Ablation, stem: str, runs: list[Run], arguments: argparse.Namespace) -> str:
    """Draws the picture of an ablation and writes its section into the results; without --results, returns it.

    Results that contain the lines OVERVIEW get a table of all their ablations between them.
    """
    results = arguments.results
    picture = None
    if arguments.pictures and any(run.dev for run in runs):
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        draw(ablation, runs, arguments.pictures / f"{stem}.png")
        picture = os.path.relpath(arguments.pictures / f"{stem}.png", results.parent if results else Path())
    command = (arguments.command or shlex.join(["python", *sys.argv])).replace("{ablation}", stem)
    body = section(ablation, runs, arguments.threads, command, picture)
    if not results:
        return body
    markers = [f"<!-- ablation: {ablation.name} {which} here -->" for which in ("from", "to")]
    text = replace_section(results.read_text(encoding="utf-8") if results.is_file() else "", *markers, body)
    if OVERVIEW[0] in text:
        text = replace_section(text, *OVERVIEW, overview(text))
    write_text(results, text)
    return ""


def run_ablations(arguments: argparse.Namespace) -> None:
    """Checks everything, runs what is left, and updates the results whenever a run ends, even if interrupted."""
    if not arguments.chdir.is_dir():
        raise UserError(f"--chdir {arguments.chdir} is not a folder")
    ablations = {path.stem: load_ablation(path, arguments.scale) for path in arguments.ablations}
    known: dict[Path, Run] = {}
    runs = {stem: make_runs(ablation, arguments, known) for stem, ablation in ablations.items()}
    selected = parse_only(arguments.only, ablations.values())
    repeated = ("failed", "diverged") if arguments.retry_failed else ()
    left = [run for run in known.values() if run.name in selected and run.outcome in ("", *repeated)]
    for ablation in ablations.values():
        ablation.check_equal()
    if arguments.list:
        print(listing(ablations, runs, left, arguments.jobs))
        return

    def update_results(run: Run) -> None:
        if arguments.results:
            for stem in (stem for stem in ablations if run in runs[stem]):
                report(ablations[stem], stem, runs[stem], arguments)

    try:
        run_all(left, max(arguments.jobs, 1), arguments.threads, arguments.chdir, update_results)
    finally:
        texts = [report(ablation, stem, runs[stem], arguments) for stem, ablation in ablations.items()]
        if any(texts):
            print("\n\n".join(filter(None, texts)))


def main() -> int:
    """Returns the exit status: 0, 2 for a usage error, 130 after Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: background jobs of a shell start with it ignored
        signal.signal(number, signal.default_int_handler)
    try:
        run_ablations(options().parse_args())
    except AsrtoolError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(main())
