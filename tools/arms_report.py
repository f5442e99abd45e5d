"""What tools/arms.py writes about a claim: a table, a verdict and a picture of the losses."""

import math
import re
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from arms_claim import OPEN, Claim, interval, overall

from asrtool.files import atomic_path
from asrtool.scoring.markdown import markdown_table, natural_sort_key

if TYPE_CHECKING:
    from arms_run import Run

FAILED = ("failed", "diverged")
GRADIENT = "lowest / highest gradient"
OVERVIEW = tuple(f"<!-- arms: all claims {which} here -->" for which in ("from", "to"))
MOST = 3  # times the median loss is as high as a picture goes: what shoots up must not press the others flat


def estimate(values: list[float]) -> str:
    """Mean and 95 % interval by Student's t, "0.41 [0.36, 0.46]", of the finite values, and how many are not."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "diverged" if values else "-"
    low, high = interval(finite)
    shown = f"{low:.4g}, {high:.4g}" if math.isfinite(low) else "n/a"
    lost = len(values) - len(finite)
    return f"{statistics.fmean(finite):.4g} [{shown}]" + (f", {lost} diverged" if lost else "")


def columns(claim: Claim, runs: list["Run"]) -> list[str]:
    """The head of the table."""
    head = ["arm", *claim.equal, "seeds finished", "steps", "hours of audio"]
    head += [] if claim.threshold is None else [_below(claim)]
    head += ["mean dev loss"] * (claim.measure == "mean") + ["final dev loss", "best"]
    return [*head, *[GRADIENT] * any(run.ratios for run in runs), "failed", "time"]


def _below(claim: Claim) -> str:
    return f"dev loss below {claim.threshold:g} at step"


def arm_row(name: str, runs: list["Run"], claim: Claim) -> dict[str, str]:
    """A line of the table: the runs of an arm, by column."""
    over = [run for run in runs if run.outcome]
    finished = [run for run in over if run.outcome == "finished"]
    row = {"arm": f"`{name}`", "seeds finished": f"{len(finished)} of {len(runs)}"}
    if claim.equal:
        parameters, latency = claim.size(name)
        row |= {"parameters": f"{parameters / 1e6:.2f} M", "latency": f"{latency:g} ms"}
    if not over:
        return row
    row |= {"steps": f"{statistics.fmean(run.steps for run in over):.0f}"}
    row |= {"hours of audio": f"{statistics.fmean(run.hours for run in over):.2f}"}
    if claim.threshold is not None:  # a run whose loss was never below it counts as later than all others
        below = [next((step for step, loss in run.dev if loss < claim.threshold), math.inf) for run in over]
        median = f"{statistics.median(below):g}".replace("inf", "never")
        row[_below(claim)] = f"{median} ({sum(map(math.isfinite, below))} of {len(below)})"
    best = min((loss for run in over for _, loss in run.dev if math.isfinite(loss)), default=math.nan)
    row["final dev loss"] = estimate([run.final for run in over if run.final is not None])
    row["mean dev loss"] = estimate([run.mean for run in over if run.mean is not None])
    row["best"] = f"{best:.4g}".replace("nan", "-")
    ratios = [run.ratios for run in over if run.ratios]
    if ratios:
        first, last = (statistics.median(ratio[which] for ratio in ratios) for which in (0, -1))
        row[GRADIENT] = f"{first:.2g}, then {last:.2g}"
    time = f"{statistics.fmean(run.seconds for run in over) / 60:.1f} min"
    return row | {"failed": str(len(over) - len(finished)), "time": time}


def compare_row(pair: tuple[str, str], runs: list["Run"]) -> dict[str, str]:
    """A line of the table: the difference of two arms over the seeds where both have a loss, by column."""
    row = {"arm": f"`{pair[0]}` - `{pair[1]}`"}
    for column, what in (("final dev loss", "final"), ("mean dev loss", "mean")):
        first, second = ({run.seed: getattr(run, what) for run in runs if run.name == name} for name in pair)
        paired = [first[seed] - second[seed] for seed in first if None not in (first[seed], second[seed])]
        row |= {"seeds finished": f"{len(paired)} of {len(first)}", column: estimate(paired)}
    return row


def verdict(claim: Claim, runs: list["Run"]) -> str:
    """The sentence that says what came of the claim's expectations, by the rules of `Expectation.verdict`."""
    found, parts = [], []
    for expectation in claim.expectations:
        part = [run for run in runs if run.name in expectation.arms]
        left = sum(not run.outcome for run in part)
        losses: dict[str, dict[int, float]] = {name: {} for name in expectation.arms}
        for run in part:
            losses[run.name][run.seed] = run.measured(claim.measure)
        word, figures = (OPEN, f"{left} of {len(part)} runs to go") if left else expectation.verdict(losses)
        found.append(word)
        parts.append(f"`{expectation.text}` {word}, {figures}")
    word = overall(found)
    return f"**Verdict: {word}** ({'; '.join(parts)}). {claim.why.get(word, '')}".strip() if found else ""


def section(claim: Claim, runs: list["Run"], threads: int, command: str, picture: str | None = None) -> str:
    """What there is to read about a claim, in Markdown; `picture` is the path to show."""
    import torch

    from asrtool.device import describe_device, pick_device

    torch.set_num_threads(threads)  # which `describe_device` names
    head = columns(claim, runs)
    rows = [arm_row(name, [run for run in runs if run.name == name], claim) for name in claim.arms]
    rows += [compare_row(pair, runs) for pair in claim.pairs]
    failed = [run for run in runs if run.outcome in FAILED]
    parts = [
        f"## {claim.name}",
        f"Claim: {claim.claim}",
        verdict(claim, runs),
        picture and f"![dev losses of {claim.name}]({picture})",
        markdown_table(head, [[row.get(column, "-") for column in head] for row in rows]),
        "\n".join(f"- `{run.name}`, seed {run.seed} {run.outcome}: {run.last_line()}" for run in failed),
        "\n".join(notes(claim, head)),
        f"On {describe_device(pick_device())}:\n\n```\n{command}\n```",
    ]
    return "\n\n".join(filter(None, parts))


def notes(claim: Claim, head: list[str]) -> Iterator[str]:
    """How to read the table."""
    yield "Final dev loss: mean over seeds and its 95 % interval (Student's t); of differences, seed by seed. Steps,"
    yield "hours and time: means over runs that ended. First step below a loss: median. Best: the lowest of all seeds."
    if claim.measure == "mean":
        yield "Mean dev loss: of all validations of a run, which is lower for what learns faster; the verdict is by it."
    if GRADIENT in head:
        yield "Gradient: its norm in the lowest block over that in the highest, the first and the last logged; median."


def listing(claims: dict[str, Claim], runs: dict[str, list["Run"]], left: list["Run"], jobs: int) -> str:
    """What there is to do and how long it should take, claim by claim; runs of several claims count once in the sum."""
    rows = []
    for stem, claim in claims.items():
        for name, arm in claim.arms.items():
            mine = [run for run in runs[stem] if run.name == name]
            do, minutes = sum(run in left for run in mine), f"{arm.minutes:g}" if arm.minutes else "?"
            steps = f"{mine[0].config.training.max_steps}" if not arm.options else "-"
            millions = f"{claim.size(name)[0] / 1e6:.2f} M"
            rows.append([stem, name, millions, steps, str(mine[0].processes), str(len(mine)), str(do), minutes])
    head = ["claim", "arm", "parameters", "steps", "processes", "seeds", "to do", "minutes a run"]
    minutes = sum((run.arm.minutes or math.nan) * min(run.processes, jobs) for run in left) / jobs
    time = "nobody has measured how long" if math.isnan(minutes) else f"about {minutes:.0f} minutes"
    return f"{markdown_table(head, rows)}\n\n{len(left)} runs to do, {jobs} processes at a time: {time}"


def draw(claim: Claim, runs: list["Run"], path: Path) -> None:
    """Draw the dev losses over hours of audio: a colour an arm, a thin line a seed, a thick one their mean; as PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for number, name in enumerate(claim.arms):
        colour, curves = f"C{number % 10}", [curve for run in runs if run.name == name and (curve := _curve(run))]
        for curve in curves:
            axis.plot(*zip(*curve, strict=True), color=colour, linewidth=0.7, alpha=0.5)
        for run in (run for run in runs if run.name == name and run.outcome in FAILED and _curve(run)):
            axis.plot(*_curve(run)[-1], "x", color=colour)
        axis.plot(*_mean_curve(curves), color=colour, linewidth=2, marker=".", label=name)
    levels = {expectation.level for expectation in claim.expectations if expectation.level is not None}
    for level in sorted(levels):
        axis.axhline(level, color="grey", linestyle=":", label=f"{level:g}")
    axis.set(xlabel="hours of audio seen", ylabel="dev loss, nats per unit", title=claim.name)
    losses = [loss for run in runs for _, loss in _curve(run)]
    if max(losses) > MOST * statistics.median(losses):
        axis.set_ylim(0, MOST * statistics.median(losses))
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right upper")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
    pyplot.close(figure)


def _curve(run: "Run") -> list[tuple[float, float]]:
    """Hours of audio, as many in each step, and dev loss; without losses that are no numbers."""
    return [(step * run.hours / run.steps, loss) for step, loss in run.dev if math.isfinite(loss)]


def _mean_curve(curves: list[list[tuple[float, float]]]) -> tuple[list[float], list[float]]:
    """For as far as the shortest goes. Other batches make other hours of the same steps, so these have means too."""
    points = list(zip(*curves, strict=False))
    return tuple([statistics.fmean(point[axis] for point in at) for at in points] for axis in (0, 1))


def overview(text: str) -> str:
    """A table of the claims that have a section in `text`, by number: what they say, and the verdict."""
    found = re.findall(r"^## (.+)\n\nClaim: (.+)\n\n\*\*Verdict: (.+?)\*\*", text, re.MULTILINE)
    found.sort(key=lambda row: natural_sort_key(row[0]))
    links = (re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title, *_ in found)
    rows = [(f"[{title}](#{link})", *rest) for link, (title, *rest) in zip(links, found, strict=True)]
    return markdown_table(["claim", "what it says", "verdict"], rows)
