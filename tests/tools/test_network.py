"""Machines that are namespaces: how they are laid out, run, judged, and removed again, whatever happened."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.tools.load import load_tool

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "network.py"
SERVER = "import socket; s = socket.create_server(('', 5001)); print(flush=True); s.accept()[0].sendall(b'x' * 4096)"
CLIENT = "import socket; s = socket.create_connection(('10.77.0.1', 5001), 5); print(len(s.recv(9999)), flush=True)"
# A run that is killed before it could clean up: it is ready when its namespaces and a process exist.
KILLED = """
import os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
import network
net = network.lay_out(2, 1.0, 0.5)
subprocess.Popen([*net.enter(2), "sleep", "60"], env=os.environ | {network.MARK: str(os.getpid())})
print(flush=True)
time.sleep(60)
"""


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool as a module."""
    return load_tool("network", monkeypatch)


@pytest.fixture
def net(network: ModuleType) -> Iterator[object]:
    """Two real machines."""
    with network.network(2, 1.0, 0.5) as machines:
        if not machines.spaces:
            pytest.skip(f"this kernel or user may not make network namespaces: {machines.link}")
        yield machines


def test_layout_gives_each_machine_a_link_to_the_switch_and_touches_nothing_else(network: ModuleType) -> None:
    lines = network.layout(4)
    mine = [network.space(number) for number in range(5)]
    assert sum("veth" in line for line in lines) == 4
    for line in lines:
        assert line.split()[:3] == ["ip", "netns", "add"] or line.split()[1] == "-n" and line.split()[2] in mine
    assert [line.split()[-3] for line in lines if "addr" in line] == [f"10.77.0.{n}/24" for n in (1, 2, 3, 4)]


def test_both_ends_of_a_link_are_limited_and_delay_needs_netem(network: ModuleType) -> None:
    slow, late = network.limits(2, 0.25, None), network.limits(2, 1, 0.5)
    assert len(slow) == len(late) == 4
    assert all("tbf rate 250mbit" in line and "delay" not in line for line in slow)
    assert all("netem rate 1000mbit" in line for line in late)
    assert ["delay 0.5ms" in line for line in late] == [True, False] * 2


def test_without_netem_a_link_has_its_rate_alone_and_says_so(
    network: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def call(*words: str) -> str:
        if set(words) & set(refused):
            raise network.Failed("Specified qdisc kind is unknown")
        return ""

    monkeypatch.setattr(network, "call", call)
    assert network.lay_out(2, 1.0, 0.5).delay == 0.5
    refused.append("netem")
    result = network.lay_out(2, 1.0, 0.5)
    assert (result.gbit, result.delay) == (1.0, None) and "no netem" in result.link
    refused.append("tbf")
    result = network.lay_out(2, 1.0, 0.5)
    assert result.spaces and result.gbit is None and "no limits" in result.link
    refused.append("netns")
    result = network.lay_out(2, 1.0, 0.5)
    assert not result.spaces and result.gbit is None and "loopback" in result.link
    assert result.enter(1) == [] and result.address(2) == "127.0.0.1" and result.device == "lo"


def test_cases_are_one_machine_then_every_way_over_several(network: ModuleType) -> None:
    cases = network.cases([2, 4], [1, 8], ("seed=2",))
    assert [(case.machines, case.name) for case in cases] == [(1, "alone")] + [
        (machines, name) for machines in (2, 4) for name in ("ddp", "ddp fp16", "bmuf 1", "bmuf 8")
    ]
    assert all("seed=2" in case.settings for case in cases) and len({case.folder for case in cases}) == 9
    assert cases[4].block == 8 and "parallel.block_steps=8" in cases[4].settings


def test_command_runs_torchrun_inside_its_machine(network: ModuleType) -> None:
    net, case = network.Network(2, True, "link"), network.Case("ddp", 2, ("a=1", "b=2"), restarts=3)
    words = network.command(net, case, 2, 4711, Path("c.yaml"), Path("work"), 5)
    assert words[:4] == ["ip", "netns", "exec", network.space(2)]
    given = dict(zip(words, words[1:], strict=False))
    assert (given["--nnodes"], given["--nproc-per-node"], given["--max-restarts"]) == ("2", "5", "3")
    assert (given["--rdzv-endpoint"], given["--rdzv-conf"]) == ("10.77.0.1:4711", "is_host=0")
    assert (given["--local-addr"], given["--exp"]) == ("10.77.0.2", "work/2-ddp")
    assert words[-4:] == ["--set", "a=1", "--set", "b=2"]
    assert "is_host=1" in network.command(net, case, 1, 4711, Path("c.yaml"), Path("work"), 5)


def test_figures_are_computed_from_the_rows_of_the_log(network: ModuleType) -> None:
    def row(step: int, seconds: float, audio: float) -> dict:
        left = seconds * (network.ENDLESS - step) / 3600
        return {"step": step, "hours_left": left, "times_real_time": audio / seconds}

    result = network.figures([row(4, 0.5, 10), row(5, 1.5, 20)])
    assert result["seconds"] == pytest.approx(1.0) and result["rate"] == pytest.approx(15.0)


def test_training_that_went_on_after_a_cut_has_no_problems(network: ModuleType) -> None:
    output, finished = "rank 0 lost another one\nresumed from x\n", [{"step": network.CUT_STEPS}]
    assert network.problems([0, 0], finished, output) == []
    assert "hangs" in network.problems([0, None], finished, output)[0]
    assert "status 0, 1" in network.problems([0, 1], finished, output)[0]
    assert "not reached" in network.problems([0, 0], [], output)[0]
    assert len(network.problems([0, 0], finished, "")) == 2


def test_namespaces_of_others_are_not_taken_for_its_own(network: ModuleType) -> None:
    names = ["asrtool-12-0", "asrtool-12-1", "asrtool-7-0", "asrtool-x-1", "asrtool", "my-asrtool-1-1", "vpn"]
    assert network.owners(names) == {12: ["asrtool-12-0", "asrtool-12-1"], 7: ["asrtool-7-0"]}


@pytest.mark.parametrize(
    "words",
    [
        ["--machines", "3"],
        ["--gbit", "0"],
        ["--blocks", "-1"],
        ["--cut", "nan"],
        ["--processes", "many"],
        ["--steps", "1.5"],
    ],
)
def test_wrong_options_are_refused(network: ModuleType, words: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        network.options().parse_args(["conf.yaml", "--work", "w", *words])
    assert stopped.value.code == 2


def test_cut_needs_namespaces_and_a_configuration_a_file(
    network: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys
) -> None:
    monkeypatch.setattr(network, "stop", signal.default_int_handler)
    monkeypatch.setattr(network, "lay_out", lambda *_: network.Network(2, False, "loopback, no limits"))
    words = ["network.py", str(tmp_path / "conf.yaml"), "--work", str(tmp_path), "--cut", "1"]
    monkeypatch.setattr(sys, "argv", words)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        assert network.main() == 2 and "conf.yaml" in capsys.readouterr().err
        (tmp_path / "conf.yaml").write_text("")
        assert network.main() == 2 and "needs namespaces" in capsys.readouterr().err
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_machines_reach_each_other_unless_their_link_is_cut_and_nothing_is_left(network: ModuleType) -> None:
    with network.network(2, 1.0, 0.5) as net:
        if not net.spaces:
            pytest.skip(f"this kernel or user may not make network namespaces: {net.link}")
        before = net.sent(2)
        options = {"stdout": subprocess.PIPE, "env": os.environ | {network.MARK: str(os.getpid())}}
        server = subprocess.Popen([*net.enter(1), sys.executable, "-S", "-c", SERVER], **options)
        server.stdout.readline()
        net.plug(2, "down")
        client = subprocess.Popen([*net.enter(2), sys.executable, "-S", "-c", CLIENT], **options)
        with pytest.raises(subprocess.TimeoutExpired):
            client.wait(0.5)
        net.plug(2, "up")
        assert int(client.communicate(timeout=10)[0]) > 0
        assert net.sent(2) - before >= 4096 / 2
        waiting = subprocess.Popen([*net.enter(2), "sh", "-c", "echo inside; exec sleep 60"], **options)
        waiting.stdout.readline()
    assert waiting.wait(5) == -signal.SIGKILL
    assert os.getpid() not in network.owners(network.spaces())
    server.wait(5)


def test_what_a_killed_run_left_is_found_and_removed(net: object, network: ModuleType) -> None:
    run = subprocess.Popen([sys.executable, "-c", KILLED, str(SCRIPT.parent)], stdout=subprocess.PIPE)
    run.stdout.readline()
    run.kill()
    run.wait()
    deadline = time.monotonic() + 5
    while run.pid not in network.marked() and time.monotonic() < deadline:  # `ip netns exec` is becoming `sleep`
        time.sleep(0.02)
    assert run.pid in network.left_behind() and os.getpid() not in network.left_behind()
    network.clean({run.pid})
    assert run.pid not in network.left_behind()
    assert os.getpid() in network.owners(network.spaces())


def test_network_is_removed_after_an_error(network: ModuleType) -> None:
    with pytest.raises(KeyboardInterrupt), network.network(2, 1.0, 0.5):
        raise KeyboardInterrupt
    assert os.getpid() not in network.owners(network.spaces())
