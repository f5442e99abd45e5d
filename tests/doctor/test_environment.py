"""`asrtool doctor env` finds each planted fault of packages, libraries, machine, speed and network."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from asrtool.doctor import codecs, environment, machine, network, packages, speed
from asrtool.doctor.findings import Severity
from asrtool.doctor.machine import Machine, check_machine, is_writable
from asrtool.doctor.speed import Speed, check_speed

GB = 10**9
GOOD = Machine(
    cores=16,
    usable_cores=16,
    core_limit=None,
    memory=64 * GB,
    memory_limit=None,
    shared_memory=32 * GB,
    free_disk={"/work": 100 * GB, "/tmp": 10 * GB},
    open_files=65536,
    processes=None,
    encoding="UTF-8",
)
FAST = Speed("CPU", 2, {"fp32, 1 thread": 100.0, "fp32, 2 threads": 180.0}, {"fp32": 20.0, "bf16": 50.0}, load=0.1)
INSTALLED = {"torch": "2.13.0+cpu", "lhotse": "1.33.0", "k2": "1.24.4", "torchaudio": "2.13.1", "av": "14.0"}


def found(findings) -> list[str]:
    """Returns the codes of findings."""
    return [finding.code for finding in findings]


def test_packages_that_fit_have_no_findings():
    requirements = ["torch>=2.7", "lhotse>=1.30", 'av>=12; extra == "audio"', 'onnx>=1; extra == "export"']
    assert found(packages.check_requirements(requirements, INSTALLED)) == []
    assert found(packages.check_pinned({"torch": "2.13.0", "lhotse": "1.33.0"}, INSTALLED)) == []
    assert found(packages.check_k2(INSTALLED)) == found(packages.check_torchaudio(INSTALLED)) == []
    assert found(packages.check_python((3, 12, 1), 64)) == []


def test_packages_that_are_missing_or_too_old():
    requirements = ["torch>=2.14", "soxr>=0.5", 'av>=15; extra == "audio"', "lhotse>=1.30"]
    findings = list(packages.check_requirements(requirements, INSTALLED))
    assert [(finding.code, finding.subject) for finding in findings] == [
        ("wrong-version", "torch"),
        ("missing-package", "soxr"),
        ("wrong-version", "av"),
    ]
    assert findings[1].remedy == "pip install 'soxr>=0.5'"


def test_versions_other_than_the_tested_ones_are_a_note(tmp_path):
    constraints = tmp_path / "constraints.txt"
    constraints.write_text(
        "lhotse==1.32.0 \\\n    --hash=sha256:00\n"
        'old==1 ; python_full_version < "3.0" \\\n    --hash=sha256:00\ntorch==2.13.0\n',
        encoding="utf-8",
    )
    pinned = packages.pinned_versions(constraints)
    assert pinned == {"lhotse": "1.32.0", "torch": "2.13.0"}
    (finding,) = packages.check_pinned(pinned, INSTALLED)
    assert finding.severity == Severity.NOTE and finding.examples == ("lhotse: 1.33.0 installed, 1.32.0 tested",)
    assert "torch" in packages.pinned_versions()  # of this checkout


def test_the_broken_k2_of_the_package_index_and_one_that_cannot_be_imported():
    (broken,) = packages.check_k2(INSTALLED | {"k2": "1.23.4"})
    (other,) = packages.check_k2(INSTALLED, "ImportError: libtorch.so")
    assert broken.code == other.code == "broken-k2"
    assert "package index" in broken.cause and "libtorch.so" in other.cause
    assert "tools/install_k2.sh" in broken.remedy


def test_a_driver_that_prints_anything_else_than_text_and_a_k2_that_hangs(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nprintf 'GPU \\377\\n\\n'\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert packages.driver_gpus() == ["GPU \ufffd"]
    monkeypatch.setattr(packages, "K2_SECONDS", 0.0)
    assert "has not ended" in packages.k2_import_error()


def test_python_torchaudio_and_torch_builds_that_do_not_fit():
    assert found(packages.check_python((3, 10, 2), 32)) == ["old-python", "python-bits"]
    assert found(packages.check_torchaudio({"torch": "2.13.0", "torchaudio": "2.5.1"})) == ["torchaudio-mismatch"]
    (cpu_build,) = packages.check_torch_build("2.13.0+cpu", None, ["NVIDIA H100"], 0)
    (old_driver,) = packages.check_torch_build("2.13.0", "13.0", ["NVIDIA H100"], 0)
    assert "build for the CPU" in cpu_build.cause and "CUDA 13.0" in old_driver.cause
    assert found(packages.check_torch_build("2.13.0", "13.0", ["NVIDIA H100"], 1)) == []
    assert found(packages.check_torch_build("2.13.0+cpu", None, [], 0)) == []


def test_optional_packages_are_notes():
    findings = list(packages.check_optional(lambda module: module != "av"))
    assert [(finding.subject, finding.severity) for finding in findings] == [("av", Severity.NOTE)]


def test_all_audio_formats_work_here():
    assert found(codecs.check_codecs()) == []


def test_audio_formats_that_fail():
    def fail(name):
        if name in ("mp3", "opus"):
            raise RuntimeError("unknown format")

    findings = list(codecs.check_soundfile(fail))
    assert [finding.subject for finding in findings] == [".mp3", ".opus"]
    (finding,) = codecs.check_ffmpeg({"aac", "alac", "ac3", "wmav2"})
    assert finding.examples == ("amrnb",)
    assert found(codecs.check_ffmpeg(None)) == []


def test_espeak_without_library_and_voices(tmp_path):
    assert found(codecs.check_espeak(tmp_path / "none.so", tmp_path)) == ["espeak", "espeak"]


def test_a_good_machine_has_no_findings():
    assert found(check_machine(GOOD)) == []
    assert found(check_machine(replace(GOOD, variables={"OMP_NUM_THREADS": "16", "LANG": "C.UTF-8"}))) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"core_limit": 2.0}, "core-limit"),
        ({"variables": {"OMP_NUM_THREADS": "64"}}, "thread-variable"),
        ({"variables": {"OMP_NUM_THREADS": "many"}}, "thread-variable"),
        ({"usable_cores": 1, "variables": {"MKL_NUM_THREADS": "8"}}, "thread-variable"),
        ({"memory": 2 * GB}, "low-memory"),
        ({"memory_limit": 3 * GB}, "low-memory"),
        ({"free_disk": {"/work": 1 * GB}}, "low-disk"),
        ({"shared_memory": 64e6}, "small-shared-memory"),
        ({"shared_memory": None}, "small-shared-memory"),
        ({"open_files": 256}, "open-files"),
        ({"processes": 100}, "process-limit"),
        ({"encoding": "ANSI_X3.4-1968"}, "locale"),
        ({"variables": {"PYTHONIOENCODING": "ascii"}}, "locale"),
        ({"unwritable": ("/work",)}, "unwritable-folder"),
    ],
)
def test_faults_of_a_machine(change, code):
    (finding,) = check_machine(replace(GOOD, **change))
    assert finding.code == code and finding.remedy and finding.severity != Severity.NOTE


def test_folders_that_cannot_be_written(tmp_path):
    assert is_writable(tmp_path / "new/deep")
    assert not is_writable(Path("/proc/asrtool"))
    (tmp_path / "file").touch()
    assert not is_writable(tmp_path / "file")


def test_speed():
    assert found(check_speed(FAST)) == []
    assert found(check_speed(replace(FAST, gflops={"fp32, 1 thread": 100.0, "fp32, 2 threads": 90.0}))) == [
        "threads-do-not-help"
    ]
    assert found(check_speed(replace(FAST, encoder={"fp32": 20.0, "bf16": 5.0}))) == ["slow-bf16"]
    assert found(check_speed(replace(FAST, load=1.5))) == ["busy-machine"]
    assert found(speed.check_instructions(has_bf16=False)) == ["no-bf16"]


def test_speed_is_measured(monkeypatch):
    monkeypatch.setattr(speed, "MATRIX_SIZE", 64)
    monkeypatch.setattr(speed, "FRAMES", 64)
    measured = speed.measure_speed(seconds=0.06)
    assert all(value > 0 for value in (*measured.gflops.values(), *measured.encoder.values()))
    assert "device" in speed.speed_facts(measured)


def test_two_processes_communicate():
    assert network.local_problem("gloo") is None


def test_the_error_of_a_process_that_fails_is_its_last_line(monkeypatch):
    script = "import os; raise RuntimeError(os.environ['PLACE'] + ' of ' + os.environ['RANK'])"
    monkeypatch.setattr(network, "SPAWNED", script)
    assert network.local_problem("gloo", {"PLACE": "end"}) == "RuntimeError: end of 0"
    monkeypatch.setattr(network, "SPAWNED", "raise SystemExit(3)")
    (finding,) = network.check_local("gloo")
    assert finding.cause.endswith("by gloo: it ended without a message")


@pytest.mark.slow  # imports torch twice more
def test_a_wrong_interface_is_found():
    problem = network.local_problem("gloo", {"GLOO_SOCKET_IFNAME": "nosuch0"})
    assert problem is not None and "nosuch0" in problem


def test_hosts(monkeypatch):
    monkeypatch.setattr(network, "check_own_name", lambda _: [])
    findings = list(network.check_hosts(["localhost", "no-such-host.invalid"], 1))
    assert [(finding.code, finding.subject) for finding in findings] == [("unknown-host", "no-such-host.invalid")]

    def silent(*_, **__):
        raise TimeoutError("timed out")

    monkeypatch.setattr(network.socket, "create_connection", silent)
    assert found(network.check_hosts(["localhost"], 22)) == ["unreachable-host"]


def test_the_own_name(monkeypatch):
    monkeypatch.setattr(network.socket, "gethostbyname", lambda _: "127.0.1.1")
    assert found(network.check_own_name("node1")) == ["own-name"]
    monkeypatch.setattr(network.socket, "gethostbyname", lambda _: "10.0.0.1")
    assert found(network.check_own_name("node1")) == []


def test_hosts_of_a_run_that_differ():
    one = network.rank_state()
    assert found(network.check_ranks([one, one])) == []
    (finding,) = network.check_ranks([one, one | {"host": "node2", "torch": "2.9.0"}])
    assert finding.code == "hosts-differ" and "2.9.0: node2" in finding.examples
    assert found(network.check_sum_speed(1e6)) == ["slow-network"]


def test_a_check_that_fails_does_not_hide_the_others(monkeypatch, tmp_path):
    def broken():
        raise OSError("libsndfile not found")

    monkeypatch.setattr(environment, "check_codecs", broken)
    monkeypatch.setattr(machine, "LOW_DISK", 10**18)
    report = environment.check_environment(tmp_path, quick=True)
    assert {"failed-check", "low-disk"} <= set(found(report.findings))
    assert report.exit_status == 1


@pytest.mark.slow
def test_the_command_under_torchrun(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
    command += ["--rdzv-endpoint", "localhost:0", "-m", "asrtool", "doctor", "env", "--quick", "--json"]
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.stdout.count('"reports"') == 1  # the first rank reports
    report = json.loads(done.stdout)["reports"][0]
    assert report["facts"]["ranks"].startswith("2 on ")


def test_the_command(asr):
    status, printed, _ = asr("doctor", "env", "--quick", "--json")
    report = json.loads(printed)["reports"][0]
    assert status == report["status"]
    assert "torch" in report["facts"]["packages"] and "libsndfile" in report["facts"]
    status, printed, _ = asr("doctor", "env", "--quick", "--hosts", "no-such-host.invalid")
    assert status == 1 and "no-such-host.invalid: the name does not resolve" in printed
    assert asr("doctor", "env", "--port", "0")[0] == 2
    status, _, err = asr("doctor", "env", "--work", "/no/such/folder")
    assert status == 2 and "--work /no/such/folder is not a folder" in err
