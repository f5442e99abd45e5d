"""Simulates several machines on one: trains over links of a known speed, and tests what a cut link does.

python tools/network.py CONF.yaml --work exp/network --json exp/network/figures.json    # as root; a table
python tools/network.py CONF.yaml --work exp/network --machines 2 4 --blocks 1 8 64
python tools/network.py CONF.yaml --work exp/network --cut 10                            # cuts a link for 10 s

Each machine is a network namespace with one link to a switch, which is a bridge in another namespace, so that the
network of the real machine is not changed:

    asrtool-PID-1 (10.77.0.1) net0 ---- port1 .
                                               asrtool-PID-0, the switch
    asrtool-PID-2 (10.77.0.2) net0 ---- port2 '

Both ends of a link are limited to --gbit, and with the kernel's netem delayed by --delay ms. Without netem the links
have only the limit; if namespaces cannot be created, the machines are processes that communicate over loopback without
limits. Both cases are reported with the figures. torchrun runs in every machine as on real machines.

Figures are for --steps consecutive steps after the first --skip, in whole blocks of bmuf. The seconds of a step are
from the log of training, without start-up, validation and checkpoints; the bytes are counted by the link's device, with
headers. All machines share the cores of this one: if there are more processes than idle cores, the ratio to one machine
says nothing about real machines, but the table still shows the cost of the network, which tools/scaling.py fits.

With --cut the link of machine 2 is down for so many seconds during training; its ranks must fail within
parallel.timeout, and torchrun must restart them from the last checkpoint until the last step. Namespaces and processes
are always removed; the next run removes the remains of a killed run.
"""

import argparse
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from asrtool.errors import AsrtoolError, UserError, require_file
from asrtool.files import write_json
from asrtool.logs import log_to_stderr

logger = logging.getLogger("asrtool")

PREFIX, MARK = "asrtool", "ASRTOOL_NETWORK"  # of the namespaces, and in the environment of all that runs in them
SUBNET = "10.77.0."  # seen inside the namespaces alone
POLL = 0.02  # seconds between looks at a log: little beside a step, so that bytes are those of its steps
START = 180.0  # seconds until the first step: imports of torch on a busy machine take a minute
STEP = 60.0  # seconds that no step takes
QUEUE_MS = 50  # what a link keeps before it drops: as a switch does
BURST = "128kb"  # one packet of segmentation offload, 64 kB, and a second one
ENDLESS = 1_000_000  # steps; a measured training is ended when its figures are there
SIZE = ("model.dim=256", "model.layers=8", "model.ff_dim=1024", "model.heads=4")  # 6 M parameters: 0.2 s at 1 Gbit/s
MEASURED = ("training.log_every=1", f"training.max_steps={ENDLESS}", f"training.validate_every={ENDLESS}")
MEASURED += ("training.save_minutes=null",)
CUT_AT, CUT_STEPS = 20, 100  # the step at which the link is cut, and the last one
CUT = ("training.log_every=1", f"training.max_steps={CUT_STEPS}", f"training.validate_every={CUT_STEPS}")
CUT += ("training.save_every=10", "parallel.strategy=ddp", "parallel.timeout=5")
RESTARTS = 3  # the ranks may fail once more while they find each other again
END_TIMEOUT = 180.0  # seconds from the end of the cut until the training must have ended
REPORTED = ("lost another", "resumed from", "finished at step", "asrtool: error")  # log lines that are printed


class Failed(AsrtoolError):
    """A command or a training did not do what it should."""


def call(*words: str) -> str:
    """The stdout of a command. Raises Failed with what it says."""
    try:
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError as error:
        raise Failed(f"{words[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise Failed(f"{' '.join(words)}: {' '.join(error.stderr.split())}") from error


# ---- the network


def space(number: int, owner: int | None = None) -> str:
    """The namespace of a machine, from 1 on, of the run of process `owner`, this one by default; 0 is the switch."""
    return f"{PREFIX}-{owner or os.getpid()}-{number}"


def layout(machines: int) -> list[str]:
    """The commands that make switch, machines and links, without limits."""
    switch = space(0)
    lines = [f"ip netns add {switch}", f"ip -n {switch} link add switch type bridge"]
    lines += [f"ip -n {switch} link set switch up"]
    for number in range(1, machines + 1):
        name = space(number)
        lines += [
            f"ip netns add {name}",
            f"ip -n {name} link add net0 type veth peer name port{number} netns {switch}",
            f"ip -n {name} addr add {SUBNET}{number}/24 dev net0",
            f"ip -n {name} link set lo up",
            f"ip -n {name} link set net0 up",
            f"ip -n {switch} link set port{number} master switch up",
        ]
    return lines


def limits(machines: int, gbit: float, delay: float | None) -> list[str]:
    """The commands that limit both ends of each link to `gbit` Gbit/s, with `delay` ms on the way out of a machine."""
    lines = []
    for number in range(1, machines + 1):
        for name, device, late in ((space(number), "net0", delay), (space(0), f"port{number}", 0)):
            rate = f"rate {gbit * 1000:g}mbit"
            kind = f"tbf {rate} burst {BURST} latency {QUEUE_MS}ms"
            if delay is not None:
                packets = round(gbit * 1e9 / 8 * (QUEUE_MS + late) / 1000 / 1500)
                kind = f"netem {rate} delay {late:g}ms limit {packets}"
            lines.append(f"tc -n {name} qdisc add dev {device} root {kind}")
    return lines


@dataclass(frozen=True)
class Network:
    """Machines, numbered from 1, and what their links are like; without namespaces they share loopback."""

    machines: int
    spaces: bool
    link: str  # in words
    gbit: float | None = None  # None: no limit
    delay: float | None = None  # ms; None: none was added

    @property
    def device(self) -> str:
        """The network device of a machine."""
        return "net0" if self.spaces else "lo"

    def address(self, number: int) -> str:
        """The address of a machine."""
        return f"{SUBNET}{number}" if self.spaces else "127.0.0.1"

    def enter(self, number: int) -> list[str]:
        """What goes before a command that is to run in a machine."""
        return ["ip", "netns", "exec", space(number)] if self.spaces else []

    def sent(self, machines: int) -> float:
        """Bytes that a machine has sent so far, the mean over the first `machines`."""
        path = f"/sys/class/net/{self.device}/statistics/tx_bytes"
        numbers = range(1, machines + 1) if self.spaces else [1]
        return sum(int(call(*self.enter(number), "cat", path)) for number in numbers) / machines

    def plug(self, number: int, state: str) -> None:
        """Set the switch's port of a machine "up" or "down": its cable is in, or out."""
        call("ip", "-n", space(0), "link", "set", f"port{number}", state)


@contextmanager
def network(machines: int, gbit: float, delay: float) -> Iterator[Network]:
    """As many machines, with links as good as the kernel has them; all that runs in them ends with it."""
    try:
        yield lay_out(machines, gbit, delay)
    finally:
        clean({os.getpid()})


def lay_out(machines: int, gbit: float, delay: float) -> Network:
    """Namespaces and limits, as far as they can be had."""
    try:
        run_all(layout(machines))
    except Failed as error:
        clean({os.getpid()})
        return Network(machines, False, f"loopback, no limits, for want of namespaces ({error})")
    said = f"{gbit:g} Gbit/s and {delay:g} ms by netem", f"{gbit:g} Gbit/s by tbf, no delay: this kernel has no netem"
    for late, link in zip((delay, None), said, strict=True):
        try:
            run_all(limits(machines, gbit, late))
            return Network(machines, True, link, gbit, late)
        except Failed as error:  # the first of all, so that nothing is there yet
            refused = error
    return Network(machines, True, f"no limits: this kernel has neither netem nor tbf ({refused})")


def run_all(lines: Iterable[str]) -> None:
    """Run commands one after the other. Raises Failed at the first that fails."""
    for line in lines:
        call(*line.split())


# ---- cleaning


def owners(spaces: Iterable[str]) -> dict[int, list[str]]:
    """Returns the namespaces of this script, by the process that created them."""
    found: dict[int, list[str]] = {}
    for name in spaces:
        if match := re.fullmatch(rf"{PREFIX}-(\d+)-\d+", name):
            found.setdefault(int(match[1]), []).append(name)
    return found


def spaces() -> list[str]:
    """The names of all namespaces."""
    try:
        return [line.split()[0] for line in call("ip", "netns", "list").splitlines() if line]
    except Failed:
        return []


def marked() -> dict[int, list[int]]:
    """The processes that bear the mark, by the process that started them."""
    found: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            match = re.search(rf"(?:^|\0){MARK}=(\d+)\0".encode(), path.read_bytes())
        except OSError:  # it has ended, or is another user's
            continue
        if match:
            found.setdefault(int(match[1]), []).append(int(path.parent.name))
    return found


def left_behind() -> set[int]:
    """The earlier runs, by their process, that are gone and have left something."""
    return {owner for owner in {*owners(spaces()), *marked()} if not Path(f"/proc/{owner}").exists()}


def end(runs: set[int]) -> None:
    """Kill what these runs of this script have started, wherever it went; gives up after 10 seconds."""
    deadline = time.monotonic() + 10
    while (alive := [pid for owner in runs for pid in marked().get(owner, [])]) and time.monotonic() < deadline:
        for pid in alive:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL)


def clean(runs: set[int]) -> None:
    """End the processes of these runs and remove their namespaces, with which their links go."""
    end(runs)
    for name in (name for owner, names in owners(spaces()).items() if owner in runs for name in names):
        call("ip", "netns", "del", name)


# ---- trainings


@dataclass(frozen=True)
class Case:
    """A training to run: how it is called, on how many machines, with which settings."""

    name: str
    machines: int
    settings: tuple[str, ...]
    block: int = 1  # steps between synchronisations
    restarts: int = 0

    @property
    def folder(self) -> str:
        """A name for its files."""
        return f"{self.machines}-{self.name.replace(' ', '-')}"


def cases(machines: Iterable[int], blocks: Iterable[int], settings: tuple[str, ...]) -> list[Case]:
    """One machine, then each number of machines with ddp, with half the bits, and with every block length."""
    ddp = (*settings, "parallel.strategy=ddp")
    made = [Case("alone", 1, ddp)]
    for number in machines:
        made += [Case("ddp", number, ddp), Case("ddp fp16", number, (*ddp, "parallel.gradient_compression=fp16"))]
        for block in blocks:
            bmuf = (*settings, "parallel.strategy=bmuf", f"parallel.block_steps={block}")
            made.append(Case(f"bmuf {block}", number, bmuf, block))
    return made


def command(net: Network, case: Case, number: int, port: int, conf: Path, work: Path, processes: int) -> list[str]:
    """What machine `number` is to run.

    torchrun is told who is host, and each machine's address, since by their name all machines are this one.
    """
    words = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(case.machines)]
    words += ["--nproc-per-node", str(processes), "--max-restarts", str(case.restarts), "--rdzv-backend", "c10d"]
    words += ["--rdzv-endpoint", f"{net.address(1)}:{port}", "--rdzv-conf", f"is_host={int(number == 1)}"]
    words += ["--local-addr", net.address(number), "-m", "asrtool", "train", str(conf)]
    words += ["--exp", str(work / case.folder), "--threads", "1"]
    return [*net.enter(number), *words, *(word for setting in case.settings for word in ("--set", setting))]


@dataclass
class Training:
    """The processes of a case, a torchrun for each machine, and what they write."""

    net: Network
    case: Case
    work: Path
    processes: list[subprocess.Popen] = field(default_factory=list)

    def log(self, number: int) -> Path:
        """Returns the output of a machine."""
        return self.work / f"{self.case.folder}.machine-{number}.log"

    def said(self) -> str:
        """Returns the output of all machines."""
        paths = (self.log(number) for number in range(1, self.case.machines + 1))
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in paths)

    def rows(self, event: str) -> list[dict]:
        """The rows of the experiment's log so far, but for a last one that is being written."""
        path = self.work / self.case.folder / "log.jsonl"
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        rows = map(json.loads, text[: text.rfind("\n") + 1].splitlines())
        return [row for row in rows if row["event"] == event]

    def step(self) -> int:
        """The last step logged."""
        return max((row["step"] for row in self.rows("train")), default=0)

    def ended(self) -> bool:
        """Whether no machine has anything left to do."""
        return all(process.poll() is not None for process in self.processes)

    def wait_for(self, step: int, seconds: float) -> None:
        """Until a step is logged. Raises Failed when training ends before, or takes longer than `seconds`."""
        deadline = time.monotonic() + seconds
        while self.step() < step:
            if self.ended() or time.monotonic() > deadline:
                last = "\n".join(self.said().splitlines()[-15:])
                why = "ended before" if self.ended() else f"took more than {seconds:.0f} s until"
                raise Failed(f"{self.case.name} on {self.case.machines} machines {why} step {step}:\n{last}")
            time.sleep(POLL)


@contextmanager
def training(net: Network, case: Case, conf: Path, work: Path, processes: int) -> Iterator[Training]:
    """Starts a case in all machines, and ends it."""
    shutil.rmtree(work / case.folder, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    made, port = Training(net, case, work), free_port()
    threads = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": net.device, MARK: str(os.getpid())}
    with ExitStack() as stack:
        stack.callback(lambda: [process.wait() for process in made.processes])
        stack.callback(end, {os.getpid()})
        for number in range(1, case.machines + 1):
            log = stack.enter_context(open(made.log(number), "w", encoding="utf-8"))
            words = command(net, case, number, port, conf, work, processes)
            options = {"stdout": log, "stderr": log, "start_new_session": True, "env": os.environ | threads}
            made.processes.append(subprocess.Popen(words, **options))
        yield made


def free_port() -> int:
    """A TCP port that nobody uses."""
    with socket.socket() as found:
        found.bind(("", 0))
        return found.getsockname()[1]


# ---- what it is for


def figures(rows: list[dict]) -> dict[str, float]:
    """Mean seconds of a step, and seconds of audio in a second, from rows of a training's log, one a step.

    A row has no clock, but time left: seconds since the row before, by the number of steps up to ENDLESS.
    """
    seconds = [3600 * row["hours_left"] / (ENDLESS - row["step"]) for row in rows]
    audio = sum(row["times_real_time"] * spent for row, spent in zip(rows, seconds, strict=True))
    return {"seconds": sum(seconds) / len(seconds), "rate": audio / sum(seconds), "turns": seconds}


def measure(net: Network, case: Case, arguments: argparse.Namespace) -> dict:
    """Run a case for as long as it takes, and say what a step of it takes and sends."""
    window = -(-arguments.steps // case.block) * case.block
    with started(net, case, arguments) as running:
        running.wait_for(arguments.skip, START)
        sent, first = net.sent(case.machines), running.step()
        running.wait_for(first + window, STEP * window)
        sent, last = net.sent(case.machines) - sent, running.step()
        rows = [row for row in running.rows("train") if first < row["step"] <= first + window]
        millions = re.search(r"([\d.]+) M parameters", running.said())
    row = {"case": f"{case.machines} machines", "what": case.name, "machines": case.machines, "steps": window}
    row |= {"processes": case.machines * arguments.processes, "block": case.block, "settings": case.settings}
    return row | figures(rows) | {"bytes": sent / (last - first), "parameters": float(millions[1]) * 1e6}


def started(net: Network, case: Case, arguments: argparse.Namespace):
    """The training of a case with the options given."""
    return training(net, case, arguments.conf, arguments.work, arguments.processes)


def compare(net: Network, arguments: argparse.Namespace) -> list[dict]:
    """Measure all cases, printing each as it comes; `ratio` is to the audio a second of one machine."""
    rows: list[dict] = []
    print(line("machines", "processes", "what", "s/step", "audio s/s", "MB sent/step", "ratio"), flush=True)
    for case in cases(arguments.machines, arguments.blocks, (*SIZE, *MEASURED, *arguments.set)):
        row = measure(net, case, arguments)
        rows.append(row | {"ratio": row["rate"] / (rows or [row])[0]["rate"]})
        row = rows[-1]
        numbers = f"{row['seconds']:.3f}", f"{row['rate']:.1f}", f"{row['bytes'] / 1e6:.2f}", f"{row['ratio']:.2f}"
        print(line(row["machines"], row["processes"], row["what"], *numbers), flush=True)
    return rows


def line(*cells: object) -> str:
    """A line of the table."""
    return " ".join(f"{cell:>12}" for cell in cells)


def bench(net: Network, arguments: argparse.Namespace) -> None:
    """Prints the table and writes the JSON file, in the format of tools/bench, with facts about the link."""
    from bench.common import environment

    values = {"benchmark": "network", **environment()}
    print(f"{values['device']}, {values['cores']} cores for all machines, load {values['load']}; links: {net.link}\n")
    values["sizes"] = {key: value for key, value in vars(arguments).items() if key != "json"}
    values |= {"unit": "s of audio", "rows": compare(net, arguments), "aims": []}
    values["facts"] = {"link": net.link, "gbit": net.gbit, "delay": net.delay}
    if arguments.json:
        write_json(arguments.json, json.loads(json.dumps(values, default=str)))


def cut(net: Network, arguments: argparse.Namespace) -> None:
    """Cut the link of machine 2 in mid-training. Raises Failed when training does not end as if nothing had been."""
    if not net.spaces:
        raise UserError(f"--cut needs namespaces: {net.link}")
    case = Case("cut", 2, (*CUT, *arguments.set), restarts=RESTARTS)
    with started(net, case, arguments) as running:
        story = Story(running)
        running.wait_for(CUT_AT, START)
        for state, seconds in (("down", arguments.cut), ("up", END_TIMEOUT)):
            net.plug(2, state)
            story.tell(f"the link of machine 2 is {state}, after step {running.step()}")
            story.follow(seconds)
        statuses = [process.poll() for process in running.processes]
        wrong = problems(statuses, running.rows("finished"), running.said())
        if wrong:
            last = "\n".join(running.said().splitlines()[-40:])
            raise Failed(f"{last}\n\nafter the link was cut: {'; '.join(wrong)}")
        story.tell("all machines ended well")


class Story:
    """What happened when: on stdout, in seconds since it began."""

    def __init__(self, running: Training):
        self.running, self.begun = running, time.monotonic()
        self.told = dict.fromkeys(range(1, running.case.machines + 1), 0)  # lines of each machine's log

    def tell(self, what: str) -> None:
        """One line."""
        print(f"{time.monotonic() - self.begun:7.1f} s  {what}", flush=True)

    def follow(self, seconds: float) -> None:
        """Prints new lines of interest for so long, or until all machines have ended."""
        deadline = time.monotonic() + seconds
        ended = False
        while not ended and time.monotonic() < deadline:
            ended = self.running.ended()  # before the look, so that nothing is missed
            for number in self.told:
                self._look(number)
            time.sleep(10 * POLL)

    def _look(self, number: int) -> None:
        lines = self.running.log(number).read_text(encoding="utf-8", errors="replace").splitlines()
        for said in lines[self.told[number] :]:
            if any(sign in said for sign in REPORTED):
                self.tell(f"machine {number}: {said[:160]}")
        self.told[number] = len(lines)


def problems(statuses: list[int | None], finished: list[dict], said: str) -> list[str]:
    """What is wrong with how a training went on after its cut; nothing, if all is well.

    `statuses` are the exit statuses of the machines, None for what still runs; `finished` the rows that say so.
    """
    found = []
    if None in statuses:
        found.append(f"it hangs: {END_TIMEOUT:.0f} s after the cut it had not ended")
    elif any(statuses):
        found.append(f"the machines ended with status {', '.join(map(str, statuses))}")
    if [row["step"] for row in finished] != [CUT_STEPS]:
        found.append(f"step {CUT_STEPS} was not reached")
    found += [f"no rank said '{sign}'" for sign in ("lost another", "resumed from") if sign not in said]
    return found


def options() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    command_line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command_line.add_argument("conf", type=Path, help="configuration, whose model is replaced by one of 6 M parameters")
    command_line.add_argument("--work", type=Path, required=True, help="folder for logs and experiments")
    command_line.add_argument(
        "--machines", type=int, nargs="+", choices=(2, 4), default=[2], help="numbers of machines [default: 2]"
    )
    command_line.add_argument(
        "--processes", type=positive(int), default=1, help="processes of each machine [default: %(default)s]"
    )
    command_line.add_argument(
        "--blocks",
        type=positive(int),
        nargs="+",
        default=[1, 4, 16],
        help="block lengths of bmuf in steps [default: 1 4 16]",
    )
    command_line.add_argument("--steps", type=positive(int), default=16, help="measured steps [default: %(default)s]")
    command_line.add_argument(
        "--skip", type=positive(int), default=3, help="steps before the measured ones [default: %(default)s]"
    )
    command_line.add_argument(
        "--gbit", type=positive(float), default=1.0, help="rate of a link in Gbit/s [default: %(default)g]"
    )
    command_line.add_argument(
        "--delay", type=positive(float), default=0.5, help="delay of a link in ms, with netem [default: %(default)g]"
    )
    command_line.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="settings of the configuration"
    )
    command_line.add_argument("--json", type=Path, metavar="FILE", help="file for the figures")
    command_line.add_argument(
        "--cut", type=positive(float), metavar="SECONDS", help="cut a link for so many seconds instead of measuring"
    )
    return command_line


def positive(kind: type):
    """A number above zero, for argparse."""

    def read(text: str):
        if not 0 < kind(text) < float("inf"):
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return kind(text)

    return read


def stop(*_) -> None:
    """SIGTERM, as Ctrl-C: on the way out everything is removed."""
    raise KeyboardInterrupt


def main() -> int:
    """Measures or cuts; exit status 1 if a training fails, 2 for a usage error, 130 after Ctrl-C."""
    arguments = options().parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    try:
        require_file(arguments.conf, "configuration", "give a YAML file")
        if gone := left_behind():
            logger.info(f"removing what runs {', '.join(map(str, sorted(gone)))} left behind")
            clean(gone)
        machines = 2 if arguments.cut else max(arguments.machines)
        with network(machines, arguments.gbit, arguments.delay) as net:
            (cut if arguments.cut else bench)(net, arguments)
    except AsrtoolError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    log_to_stderr()
    sys.exit(main())
