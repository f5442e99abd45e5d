"""Run experiments that are written down as arms x seeds, and write what came of them.

python tools/arms.py CLAIM.yaml --work exp/depth                                 # runs what is not done, prints a table
python tools/arms.py CLAIM.yaml --work exp/depth --results egs/yesno/README.md   # puts it there
python tools/arms.py CLAIM.yaml CLAIM.yaml --work exp/claims --list              # says what there is to do

CLAIM.yaml, where `conf` is relative to the file itself, and `set` and `options` are those of `asrtool train`:

  name: Depth-scaled initialisation           # the heading
  claim: "from 24 layers on, only depth-scaled initialisation trains"
  seeds: [1, 2, 3]
  conf: ../conf/transformer_24l.yaml
  set: [training.max_steps=300]               # of all arms
  threshold: 0.5                              # if given: at which step the dev loss was first below it
  equal: [parameters, latency]                # pairs that are compared must be equal in that: within 5 %; exactly
  arms:
    default: {set: [model.init.scheme=default], minutes: 4}     # that a run should take, for --list
    deep: {set: [model.init.scheme=depth_scaled]}
    warm: {options: [--phase, warmup, --warmup-hours, 0.5]}
    many: {after: warm, processes: 8}         # torchrun, from WORK/warm/SEED/checkpoints/warmup.pt
    wide: {conf: ../conf/transformer_12l.yaml}
  compare: [[deep, default]]                  # differences of the final dev losses, seed by seed
  expect: [deep < default, deep < 0.5, default > 2, warm = deep within 5 %]   # what the claim says: the verdict
  measure: final                              # or mean, of all dev losses of a run: how fast it learns
  why: {contradicted: "A sentence for this verdict."}           # or confirmed, not confirmed at this scale
  full: {seeds: [1], arms: {deep: {processes: 8}}}              # for --scale full: what is laid over the above

Two claims may have an arm in common, by name and settings: it runs once. A run has the folder WORK/ARM/SEED; SEED.log
is its output, SEED.json how it was started and ended. Ctrl-C lets each training write its checkpoint, and the same
command continues. A run that failed is a result: --retry-failed repeats it.
"""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from arms_claim import Claim, load_claim
from arms_report import OVERVIEW, draw, listing, overview, section
from arms_run import Run, run_all

from asrtool.errors import AsrtoolError, UserError, did_you_mean
from asrtool.files import write_text
from asrtool.logs import log_to_stderr
from asrtool.scoring.markdown import replace_section


def options() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("claims", type=Path, nargs="+", metavar="CLAIM.yaml")
    parser.add_argument("--work", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--results", type=Path, metavar="FILE.md", help="where the tables go instead of stdout")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="where CLAIM.png goes, the loss curves")
    parser.add_argument("--scale", choices=["small", "full"], default="small", help="full: with `full` of each claim")
    parser.add_argument("--list", action="store_true", help="say what there is to do and how long it takes, and stop")
    parser.add_argument("--jobs", type=int, default=1, help="training processes at a time (%(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of each process (%(default)s)")
    parser.add_argument("--only", metavar="ARM,..", help="run these, and what they come after; the table has all arms")
    parser.add_argument("--seeds", metavar="1,2,..", help="instead of those of the claim, in the table too")
    parser.add_argument("--retry-failed", action="store_true", help="run again what failed or diverged")
    text = "where the trainings run: there, relative paths of data.* in the configurations must resolve (here)"
    parser.add_argument("--chdir", type=Path, default=Path(), metavar="DIR", help=text)
    parser.add_argument("--command", help="what the results call the command; {claim} is the file's name without .yaml")
    return parser


def find_seeds(text: str | None, claim: Claim) -> list[int]:
    """Those of --seeds, else the claim's."""
    try:
        return sorted({int(seed) for seed in text.split(",")} if text else claim.seeds)
    except ValueError as error:
        raise UserError(f"--seeds: {error}") from error


def find_arms(text: str | None, claims: Iterable[Claim]) -> set[str]:
    """Those of --only and what they come after, else all."""
    claims, wanted = list(claims), set()
    valid = [name for claim in claims for name in claim.arms]
    for name in text.split(",") if text else valid:
        if name not in valid:
            raise UserError(f"--only: there is no arm '{name}' ({did_you_mean(name, valid)})")
        wanted |= {needed for claim in claims if name in claim.arms for needed in claim.needed(name)}
    return wanted


def make_runs(claim: Claim, arguments: argparse.Namespace, made: dict[Path, Run]) -> list[Run]:
    """The runs of a claim; those that an earlier one has in `made` are the same."""
    runs = []
    for seed in find_seeds(arguments.seeds, claim):  # seeds first: early pairs to compare
        for name in claim.arms:
            run = Run(claim, name, seed, arguments.work.resolve(), arguments.threads)
            if not made.setdefault(run.folder, run).same(run.settings):
                raise UserError(f"{claim.name}: arm '{name}' has other settings in another claim; give it another name")
            runs.append(made[run.folder])
    return runs


def report(claim: Claim, stem: str, runs: list[Run], arguments: argparse.Namespace) -> str:
    """Draw the picture of a claim, and put its section into the results or, without such a file, return it.

    Results that have the lines OVERVIEW get a table of all their claims between them.
    """
    results, picture = arguments.results, None
    if arguments.pictures and any(run.dev for run in runs):
        arguments.pictures.mkdir(parents=True, exist_ok=True)
        draw(claim, runs, arguments.pictures / f"{stem}.png")
        picture = os.path.relpath(arguments.pictures / f"{stem}.png", results.parent if results else Path())
    command = (arguments.command or shlex.join(["python", *sys.argv])).replace("{claim}", stem)
    made = section(claim, runs, arguments.threads, command, picture)
    if results:
        markers = (f"<!-- arms: {claim.name} {which} here -->" for which in ("from", "to"))
        text = replace_section(results.read_text(encoding="utf-8") if results.is_file() else "", *markers, made)
        write_text(results, replace_section(text, *OVERVIEW, overview(text)) if OVERVIEW[0] in text else text)
    return "" if results else made


def run_claims(arguments: argparse.Namespace) -> None:
    """Check everything, run what is left to do, and write what there is whenever a run ends, even if interrupted."""
    if not arguments.chdir.is_dir():
        raise UserError(f"--chdir {arguments.chdir} is not a folder")
    claims = {path.stem: load_claim(path, arguments.scale) for path in arguments.claims}
    made: dict[Path, Run] = {}
    runs = {stem: make_runs(claim, arguments, made) for stem, claim in claims.items()}
    wanted, again = find_arms(arguments.only, claims.values()), ("failed", "diverged") * arguments.retry_failed
    left = [run for run in made.values() if run.name in wanted and run.outcome in ("", *again)]
    for claim in claims.values():
        claim.check_equal()
    if arguments.list:
        print(listing(claims, runs, left, arguments.jobs))
        return

    def ended(run: Run) -> None:
        if arguments.results:
            for stem in (stem for stem in claims if run in runs[stem]):
                report(claims[stem], stem, runs[stem], arguments)

    try:
        run_all(left, max(arguments.jobs, 1), arguments.threads, arguments.chdir, ended)
    finally:
        texts = [report(claim, stem, runs[stem], arguments) for stem, claim in claims.items()]
        print(*filter(None, texts), sep="\n\n", end="\n" if any(texts) else "")


def main() -> int:
    """Run and report; 2 for what the user did wrong, 130 after Ctrl-C."""
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background jobs start with it ignored
        signal.signal(number, signal.default_int_handler)
    try:
        run_claims(options().parse_args())
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
