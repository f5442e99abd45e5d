"""`asrtool doctor recipe`: a recipe, and what its stages wrote into the work folder."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from asrtool.config_file import differences, load_config
from asrtool.doctor.experiment_checks import check_experiment
from asrtool.doctor.findings import Finding, Report, Severity, finding_of_error
from asrtool.doctor.recipe_list import RecipeRun, check_stages, last_options, list_recipe
from asrtool.doctor.recipe_outputs import check_inputs, check_lang_graph, check_leftovers, check_outputs
from asrtool.errors import AsrtoolError, UserError
from asrtool.training.experiment_folder import CHANGEABLE_SETTINGS

MAX_CHANGES_SHOWN = 10
SET_BY_DRIVER = {"data.tokenizer", "seed"}


def check_recipe(recipe: Path, work: Path | None = None, options: Sequence[str] | None = None) -> Report:
    """Returns the report of the recipe in a folder, which executes its run.sh with --list.

    `work` is the work folder, by default the recipe's own. `options` are options of run.sh, by default the options
    of the last run in the work folder. Raises UserError for a folder without a run.sh.
    """
    recipe = recipe.resolve()
    if not (recipe / "run.sh").is_file():
        raise UserError(f"{recipe} is not a recipe: it has no run.sh; give a folder such as egs/digits")
    work = (work or recipe).resolve()
    report = Report(f"Recipe {recipe.name}")
    if not work.is_dir():
        raise UserError(f"--work {work} is not a folder; give the work folder of an earlier run")
    run, problem = list_recipe(recipe, work, last_options(work) if options is None else options)
    report.facts |= {"work folder": str(work), "options": shlex.join(run.options) or "the defaults of the recipe"}
    report.add(problem)
    report.add(check_configurations(recipe))
    if problem is None:
        _check_run(report, run)
    return report


def _check_run(report: Report, run: RecipeRun) -> None:
    report.facts["stages"] = {str(stage.number): f"{stage.state}: {stage.title}" for stage in run.stages}
    report.facts["experiment"] = str(run.folders["exp"])
    report.add(check_stages(run))
    report.add(check_outputs(run))
    report.add(check_inputs(run))
    check_lang_graph(report, run)
    report.add(check_configuration(run))
    report.add(check_leftovers(run))
    for name in dict.fromkeys((run.folders["start"], run.folders["exp"])):
        if (name / "config.yaml").is_file():
            check_experiment(report, name, {run.folders["lang"] / "graph"})


def check_configurations(recipe: Path) -> Iterator[Finding]:
    """Yields an error for each configuration of the recipe that cannot be read."""
    for path in sorted((recipe / "conf").glob("*.yaml")):
        if path.name.startswith("normalise"):
            continue  # rules of `asrtool normalise`
        try:
            load_config(path)
        except AsrtoolError as error:
            yield finding_of_error("bad-configuration", path, error, f"correct {path}")


def check_configuration(run: RecipeRun) -> Iterator[Finding]:
    """Yields a warning if the system was trained with another configuration than --conf has now.

    The first system of the recipe is compared: the one with CTC, from which MMI and cross entropy start. --conf gets
    the overrides that run.sh passes to trainings, from its options and derived by the driver.
    """
    conf, trained = run.folders["conf"], run.folders["start"] / "config.yaml"
    if not trained.is_file() or not conf.is_file():
        return
    try:
        changes = differences(load_config(trained), load_config(conf, run.overrides))
    except AsrtoolError:
        return  # other checks say so
    ignored = SET_BY_DRIVER | CHANGEABLE_SETTINGS
    changes = [change for change in changes if change.split(":")[0] not in ignored]
    if changes:
        cause = f"the system was trained with other values than {conf} and the options have now"
        remedy = f"move {trained.parent} away, then {run.command('--stage', '4')}; or put the earlier values back"
        examples = tuple(changes[:MAX_CHANGES_SHOWN])
        yield Finding("other-configuration", Severity.WARNING, str(trained), cause, remedy, len(changes), examples)
