"""Checks of the communication between processes: gloo and NCCL, on one machine and between the hosts of torchrun.

Without torchrun, two processes of this machine are connected. Started by torchrun on all hosts, as a training is, the
ranks of all hosts are: they compare their versions and exchange a tensor.
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from asrtool.distributed import Ranks, gather_from_all
from asrtool.doctor.findings import Finding, Severity, shortened

LOCAL_SECONDS = 60.0  # limit for two local processes: importing torch takes 2 to 10 s of them
CONNECT_SECONDS = 3.0  # limit for a connection to a host
MEGABYTES = 64  # the tensor that is summed: the gradients of a model with 16 M parameters
SLOW_BYTES_PER_SECOND = 50e6  # of a sum over hosts; 1 Gbit/s Ethernet reaches about 100 MB/s
SPAWNED = """
import os, datetime, torch
from torch import distributed
backend = os.environ["DOCTOR_BACKEND"]
if backend == "nccl":
    torch.cuda.set_device(int(os.environ["RANK"]))
distributed.init_process_group(backend, timeout=datetime.timedelta(seconds=30))
total = torch.ones(1, device="cuda" if backend == "nccl" else "cpu")
distributed.all_reduce(total)
assert total.item() == 2, total
distributed.destroy_process_group()
"""
INTERFACE = "export GLOO_SOCKET_IFNAME=INTERFACE NCCL_SOCKET_IFNAME=INTERFACE (`ip -brief address` lists them)"


def check_local(backend: str) -> Iterator[Finding]:
    """Yields an error if two processes of this machine cannot sum a tensor by "gloo" or "nccl" (two GPUs)."""
    problem = local_problem(backend)
    if problem:
        cause = f"two processes of this machine cannot exchange a tensor by {backend}: {problem}"
        yield Finding("no-communication", Severity.ERROR, backend, cause, INTERFACE)


def local_problem(backend: str, variables: Mapping[str, str] | None = None) -> str | None:
    """Returns the last line of the error of two local processes, None if they can communicate.

    `variables` are more environment variables for them.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]  # a free port, closed again before the processes use it
    common = {**os.environ, **(variables or {}), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SPAWNED],
            env={**common, "RANK": str(rank), "WORLD_SIZE": "2", "DOCTOR_BACKEND": backend, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=LOCAL_SECONDS)[1] for process in processes]
    except subprocess.TimeoutExpired:
        return f"no answer within {LOCAL_SECONDS:.0f} s"
    finally:
        for process in processes:
            process.kill()
    failed = [output for process, output in zip(processes, outputs, strict=True) if process.returncode]
    return _last_line(failed[0]) if failed else None


def _last_line(output: str) -> str:
    lines = [line for line in output.strip().splitlines() if "Error" in line] or output.strip().splitlines()
    return shortened(lines[-1], 300) if lines else "it ended without a message"


def check_hosts(hosts: Sequence[str], port: int) -> Iterator[Finding]:
    """Yields findings about other hosts: names that do not resolve, ports that cannot be reached, and own names.

    A host counts as reachable if it answers at `port`, be it by refusing: then it and the way to it are alive.
    """
    yield from check_own_name(socket.gethostname())
    for host in hosts:
        try:
            addresses = sorted({item[4][0] for item in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)})
        except OSError as error:
            cause = f"the name does not resolve to an address ({error.strerror or error})"
            yield Finding("unknown-host", Severity.ERROR, host, cause, f"add {host} to DNS or to /etc/hosts")
            continue
        yield from _check_port(host, str(addresses[0]), port)


def _check_port(host: str, address: str, port: int) -> Iterator[Finding]:
    try:
        socket.create_connection((address, port), timeout=CONNECT_SECONDS).close()
    except ConnectionRefusedError:
        pass  # the host answers; nothing listens there
    except OSError as error:
        cause = f"{address} does not answer at port {port} ({error.strerror or error})"
        remedy = f"start the host, or open its firewall for the ports of torchrun (`nc -vz {host} {port}`)"
        yield Finding("unreachable-host", Severity.ERROR, host, cause, remedy)


def check_own_name(name: str) -> Iterator[Finding]:
    """Yields a warning if the name of this host resolves to a loopback address, which gloo then announces to others."""
    try:
        address = socket.gethostbyname(name)
    except OSError:
        cause = "the name of this machine does not resolve; gloo looks it up to find the address to listen at"
        yield Finding("own-name", Severity.WARNING, name, cause, f"{INTERFACE}, or add the name to /etc/hosts")
        return
    if address.startswith("127."):
        cause = f"the name of this machine resolves to {address}, where other hosts cannot reach it"
        yield Finding("own-name", Severity.WARNING, name, cause, f"{INTERFACE}, or correct /etc/hosts")


def rank_state() -> dict[str, Any]:
    """Returns what the ranks of a run compare: host, versions, GPU and the time of the clock."""
    import platform

    import torch

    import asrtool
    from asrtool.provenance import CHECKOUT, describe_provenance, git_state

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "host": socket.gethostname(),
        "asrtool": describe_provenance({"git": git_state(CHECKOUT), "version": asrtool.__version__}),
        "torch": str(torch.__version__),
        "Python": platform.python_version(),
        "GPU": gpu,
    }


def check_ranks(states: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Yields a finding for each version or GPU that differs between the hosts of a run."""
    for name in ("asrtool", "torch", "Python", "GPU"):
        hosts_of: dict[str, set[str]] = {}
        for state in states:
            hosts_of.setdefault(str(state[name]), set()).add(str(state["host"]))
        if len(hosts_of) > 1:
            examples = tuple(f"{value}: {', '.join(sorted(hosts))}" for value, hosts in sorted(hosts_of.items()))
            severity = Severity.WARNING if name == "GPU" else Severity.ERROR
            cause = f"{name} differs between the hosts"
            remedy = "install the same on all hosts: the slowest GPU sets the pace, and versions must agree"
            yield Finding("hosts-differ", severity, name, cause, remedy, len(hosts_of), examples)


def sum_speed(ranks: Ranks, device_type: str) -> float:
    """Returns the bytes per second of a sum of a tensor over all ranks, in an initialised process group."""
    import torch
    from torch import distributed

    tensor = torch.ones(MEGABYTES * 2**20 // 4, device=device_type)
    distributed.all_reduce(tensor)  # connects
    start_time = time.perf_counter()
    distributed.all_reduce(tensor)
    if device_type == "cuda":
        torch.cuda.synchronize()
    return tensor.numel() * 4 / (time.perf_counter() - start_time)


def check_sum_speed(bytes_per_second: float) -> Iterator[Finding]:
    """Yields a warning for a network on which exchanging gradients takes longer than computing them."""
    if bytes_per_second < SLOW_BYTES_PER_SECOND:
        cause = f"summing a tensor over all ranks runs at {bytes_per_second / 1e6:.0f} MB/s"
        remedy = f"{INTERFACE} for the fast one; or train with parallel.strategy=bmuf, which exchanges less"
        yield Finding("slow-network", Severity.WARNING, "network", cause, remedy)


def measure_ranks(ranks: Ranks, device_type: str) -> tuple[dict[str, Any], list[Finding]]:
    """Returns the facts and the findings of a run with several ranks; called on all ranks in a process group."""
    states = gather_from_all(ranks, rank_state())
    speed = sum_speed(ranks, device_type)
    facts = {
        "ranks": f"{ranks.world_size} on {', '.join(sorted({state['host'] for state in states}))}",
        "sum over ranks": f"{speed / 1e6:,.0f} MB/s ({MEGABYTES} MB)",
    }
    return facts, [*check_ranks(states), *check_sum_speed(speed)]
