"""What a process may use of the machine, within the limits of a container."""

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asrtool import machine


def write(root, name, text):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(f"{text}\n", encoding="utf-8")


def test_without_limits_a_process_has_what_the_machine_has(tmp_path):
    assert machine.container_cores(tmp_path) is machine.container_memory(tmp_path) is None
    write(tmp_path, "cpu.max", "max 100000")
    write(tmp_path, "memory.max", "max")
    assert machine.container_cores(tmp_path) is machine.container_memory(tmp_path) is None
    assert machine.usable_cores(tmp_path) == machine.affinity_cores() >= 1
    assert machine.usable_memory(tmp_path) == machine.total_memory() > 2**20


def test_limits_of_control_groups_version_2(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "affinity_cores", lambda: 16)
    write(tmp_path, "cpu.max", "150000 100000")
    write(tmp_path, "memory.max", "2000000")
    assert (machine.container_cores(tmp_path), machine.container_memory(tmp_path)) == (1.5, 2_000_000)
    assert (machine.usable_cores(tmp_path), machine.usable_memory(tmp_path)) == (1, 2_000_000)


def test_limits_of_control_groups_version_1(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "affinity_cores", lambda: 4)
    write(tmp_path, "cpu/cpu.cfs_quota_us", 50000)
    write(tmp_path, "cpu/cpu.cfs_period_us", 100000)
    write(tmp_path, "memory/memory.limit_in_bytes", 2**63 - 4096)  # as written without a limit
    assert (machine.container_cores(tmp_path), machine.container_memory(tmp_path)) == (0.5, None)
    assert machine.usable_cores(tmp_path) == 1
    write(tmp_path, "cpu/cpu.cfs_quota_us", -1)
    assert machine.container_cores(tmp_path) is None


@pytest.mark.parametrize("text", ["", "0 100000", "100000 0", "many few", "-1 100000"])
def test_a_strange_limit_of_the_cores_is_none(tmp_path, text):
    write(tmp_path, "cpu.max", text)
    assert machine.container_cores(tmp_path) is None


def test_the_processor(tmp_path):
    write(tmp_path, "cpuinfo", "processor\t: 0\nmodel name\t: EPYC: 9 \nflags\t\t: fpu avx2\n\nmodel name\t: other")
    assert machine.cpu_name(tmp_path / "cpuinfo") == "EPYC: 9"
    assert machine.cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2"}
    assert (machine.cpu_name(tmp_path / "none"), machine.cpu_flags(tmp_path / "none")) == ("CPU", set())


@given(cores=st.lists(st.integers(0, 200), unique=True, min_size=1, max_size=64), count=st.integers(1, 16))
@settings(deadline=None)
def test_processes_share_the_cores_evenly_or_all_have_all_of_them(cores, count):
    shares = [machine.share_of_cores(cores, number, count) for number in range(count)]
    if len(cores) < count:
        assert all(share == set(cores) for share in shares)
        return
    assert sorted(core for share in shares for core in share) == sorted(cores)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    ends = [max(share) for share in shares]
    assert ends == sorted(ends)


def test_all_threads_of_a_process_are_pinned():
    before = os.sched_getaffinity(0)
    one = {min(before)}
    ended = threading.Event()
    earlier = threading.Thread(target=ended.wait)
    earlier.start()
    try:
        machine.pin_to_cores(one)
        assert os.sched_getaffinity(earlier.native_id) == one
        later = threading.Thread(target=ended.wait)
        later.start()
        assert os.sched_getaffinity(later.native_id) == one
    finally:
        machine.pin_to_cores(before)
        ended.set()
