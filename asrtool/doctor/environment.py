"""`asrtool doctor env`: everything around asrtool that a training or a decoding depends on."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from asrtool.device import lacks_bf16, use_device
from asrtool.distributed import Ranks, process_group, this_rank
from asrtool.doctor.codecs import check_codecs, codec_facts
from asrtool.doctor.findings import Finding, Report, Severity
from asrtool.doctor.machine import check_machine, machine_facts, measure_machine
from asrtool.doctor.network import check_hosts, check_local, measure_ranks
from asrtool.doctor.packages import check_packages, package_facts
from asrtool.doctor.speed import check_instructions, check_speed, instruction_facts, measure_speed, speed_facts
from asrtool.errors import UserError

TIMEOUT_SECONDS = 120.0  # of ranks that wait for each other: hosts import torch at different speeds


def check_environment(work: Path, hosts: Sequence[str] = (), port: int = 22, quick: bool = False) -> Report:
    """Returns the report of this environment; `work` is the folder whose disk is looked at.

    `hosts` are tried at `port`. `quick` leaves out the speed figure and the processes that are started to communicate.
    A run of torchrun connects its ranks instead, and returns the report of all on the first rank. Raises UserError if
    `work` is not a folder.
    """
    import torch

    if not work.is_dir():
        raise UserError(f"--work {work} is not a folder; give the folder with data/ and exp/, or the one above it")
    report = Report("Environment")
    ranks = this_rank()
    _run_check(report, lambda: report.facts.update(package_facts()), check_packages)
    _run_check(report, lambda: report.facts.update(codec_facts()), check_codecs)
    machine = measure_machine(work)
    report.facts.update({**machine_facts(machine), **instruction_facts()})
    report.add(check_machine(machine))
    report.add(check_instructions(not lacks_bf16(torch.device("cpu"))))
    if not quick:
        _run_check(report, None, lambda: _speed(report))
    if ranks.world_size > 1:
        return _report_of_ranks(report, ranks)
    report.add(check_hosts(hosts, port) if hosts else None)
    if not quick:
        report.add(check_local("gloo"))
        report.add(check_local("nccl") if torch.cuda.device_count() > 1 else None)
    return report


def _run_check(report: Report, facts: Callable[[], object] | None, check: Callable[[], Iterable[Finding]]) -> None:
    """Adds a check's findings; a check that fails itself is a finding, and does not hide the others."""
    try:
        report.add(check())
        if facts:
            facts()
    except Exception as error:  # any: a broken installation raises what it likes
        cause = f"a check failed with {type(error).__name__}: {error}"
        report.add(Finding("failed-check", Severity.ERROR, "environment", cause, "reinstall with `. local/path.sh`"))


def _speed(report: Report) -> Iterable[Finding]:
    speed = measure_speed()
    report.facts.update(speed_facts(speed))
    yield from check_speed(speed)


def _report_of_ranks(report: Report, ranks: Ranks) -> Report:
    """Returns the report with the findings of all ranks on the first rank, each with its host and rank."""
    from asrtool.distributed import gather_from_all

    device = use_device("auto", ranks.local_rank)
    with process_group(ranks, device, TIMEOUT_SECONDS):
        facts, findings = measure_ranks(ranks, device.type)
        everyone = gather_from_all(ranks, [vars(finding) for finding in report.findings])
    merged = Report(report.title, {**report.facts, **facts}, findings)
    seen = set()
    for rank, others in enumerate(everyone):
        for values in others:
            finding = Finding(**values)
            if finding not in seen:  # the ranks of one host find the same
                seen.add(finding)
                merged.add(Finding(**{**values, "subject": f"{finding.subject} (rank {rank})"}))
    return merged
