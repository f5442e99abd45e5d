"""`asrtool doctor system`: a folder of `asrtool train`, a pack, or a decoding graph."""

from pathlib import Path

from asrtool.doctor.experiment_checks import check_experiment
from asrtool.doctor.findings import Report
from asrtool.doctor.graph_checks import check_graph, graph_facts, is_graph
from asrtool.doctor.pack_checks import check_pack
from asrtool.errors import UserError
from asrtool.pack_manifest import is_pack


def check_system(path: Path, graph: Path | None = None) -> Report:
    """Returns the report of the system, or of the decoding graph, in the folder `path`.

    `graph` is a further graph that must fit the system. Raises UserError for a folder that is none of these.
    """
    report = Report(f"System {path}")
    system = None
    if graph is not None and not is_graph(graph):
        raise UserError(f"{graph} is not a decoding graph: it has no graph.json; give the folder of `asrtool graph`")
    if is_pack(path):
        system = check_pack(report, path)
    elif (path / "config.yaml").is_file() or (path / "checkpoints").is_dir():
        system = check_experiment(report, path)
    elif is_graph(path):
        opened = check_graph(report, path)
        report.facts |= graph_facts(opened) if opened else {}
    else:
        hint = "give the folder of `asrtool train`, `asrtool pack` or `asrtool graph`"
        raise UserError(f"{path} is neither a training, nor a pack, nor a decoding graph; {hint}")
    if graph is not None:
        check_graph(report, graph, system.tokenizer if system else None)
    return report
