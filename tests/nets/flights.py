"""One client and its VM: submitted by the command line, killed in a phase, and what became of the VM since."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tests.nets.gate import Gate, Step
from tests.nets.holdings import KINDS, Thing, kinds
from tests.nets.index import PACKAGE
from tests.nets.matrix import SERVED
from tests.nets.worlds import World
from tests.support.shell import Shell, until
from vmrun.core.folds import VmFold
from vmrun.core.vm_ledger import VmLedger

#: Seconds that a machine waits for its agent where the client dies before there is one: as short as they can be for the
#: client to get so far on a computer that is busy, or stands still for a while. A client has its machine ready after
#: 10 s on one that has nothing else to do, and after 60 s and more on one that is loaded.
GRACE = {"intent": 45.0, "created": 45.0, "ssh": 80.0, "ready": 120.0}
#: Where there is to be an agent.
PATIENT_GRACE = 240.0
#: Seconds of the other settings.
LEASE, POLL, FLUSH, WINDOW = 20.0, 1.0, 1.0, 6.0
#: Seconds that a client may take to the phase in which it dies.
ARRIVAL = 240.0
JOB = """
    import time
    import vmrun

    @vmrun.job(over=range(60), workers=2)
    def task(x):
        time.sleep(0.2)
        return x
"""
#: Longer than anybody waits.
ENDLESS = JOB.replace("range(60)", "range(6000)")
#: One result that is too large to stand in a journal.
QUICK = """
    import vmrun

    @vmrun.job(over=range(2), workers=2)
    def task(x):
        return bytes([x]) * 700_000
"""
PACKED = f"""
    import vmrun

    @vmrun.job(over=range(2), workers=2)
    def task(x):
        import {PACKAGE}
        return x
"""
#: The timer judges no more, and everything else about it is as it was.
STOP_TIMER = """
for i in $(seq 900); do systemctl is-active --quiet vmrun-deadman.timer && break; sleep 0.2; done
systemctl is-active --quiet vmrun-deadman.timer || exit 1
off=/run/systemd/system/vmrun-deadman.timer.d
mkdir -p $off
printf '[Timer]\\nOnBootSec=\\nOnUnitInactiveSec=\\nOnBootSec=50min\\n' > $off/off.conf
systemctl daemon-reload && systemctl restart vmrun-deadman.timer
"""
#: The agent works, and when it is done it ends, but not the machine.
NO_POWER_OFF = """
mkdir -p /run/systemd/system/vmrun-agent.service.d
cat > /run/systemd/system/vmrun-agent.service.d/off.conf <<'END'
[Service]
ExecStartPre=/bin/sed -i 's/"power_off":\\[[^]]*\\]/"power_off":[]/' /var/lib/vmrun/agent.json
END
for i in $(seq 300); do systemctl daemon-reload && exit 0; sleep 0.2; done
exit 1
"""
#: The agent dies with all its own, and nobody starts it again.
KILL_AGENT = """
mkdir -p /run/systemd/system/vmrun-agent.service.d
printf '[Service]\\nRestart=no\\n' > /run/systemd/system/vmrun-agent.service.d/off.conf
systemctl daemon-reload && systemctl kill --signal=KILL vmrun-agent.service
"""


def write_jobs(shell: Shell) -> None:
    """What the flights submit."""
    texts = {"job.py": JOB, "endless.py": ENDLESS, "quick.py": QUICK, "packed.py": PACKED}
    for name, text in texts.items():
        shell.write(name, text)


@dataclass
class Flight:
    """A client that dies in `phase`."""

    world: World
    phase: str
    #: Done inside the machine as soon as it is created, before the client goes on.
    early: str = ""
    #: Done inside the machine when the client is dead.
    late: str = ""
    boot_grace: float = PATIENT_GRACE
    #: Seconds for which its VM is to stay warm.
    window: float = WINDOW
    #: Further options of its submit.
    options: tuple[str, ...] = ()
    fold: VmFold = field(default_factory=VmFold)
    #: What the cloud's books call the machine.
    machine: str = ""
    #: The machine's disks and addresses, by the same books.
    held: list[Thing] = field(default_factory=list)
    #: Seconds since the client's death.
    took: float = 0.0

    def run(self) -> None:
        """Submit, and let the client die; the machine is then on its own."""
        gate = Gate(self.world.store.endpoint, [])
        try:
            self._die(gate)
            self.fold = self._look(gate.vm)
            self._check_phase()
            if self.late:
                self.world.enter(self.machine, self.late)
        finally:
            gate.close()

    def watch(self, bound: float) -> None:
        """Wait until the VM is gone from the cloud's books. Fails after `bound` seconds."""
        began = time.monotonic()
        until(self.is_gone, bound, f"{self.phase}: the VM is gone")
        self.took = time.monotonic() - began
        self.check_nothing_is_left()

    def is_gone(self) -> bool:
        """Whether the machine is in the books no longer."""
        return not self.world.place.state(self.machine)

    def check_nothing_is_left(self) -> None:
        """What the machine had goes with it; it may take the cloud a moment."""
        place = self.world.place
        until(lambda: not place.left(self.held), 30, f"{self.phase}: gone are {[each.known_as for each in self.held]}")

    def latest(self) -> VmFold:
        """What the VM's journal says now."""
        assert self.fold.intent is not None
        return self._look(self.fold.intent.vm)

    def _die(self, gate: Gate) -> None:
        started, killed, turn = threading.Event(), threading.Event(), threading.Lock()

        def end() -> None:
            gate.shut()
            # It may be this far before who started it knows its number.
            started.wait()
            # Several requests may come to its end at once.
            with turn:
                if not killed.is_set():
                    # Said before it is done: who reads what the client says sees its end before this thread goes on.
                    killed.set()
                    os.killpg(process.pid, signal.SIGKILL)

        gate.steps = self._steps(end, gate)
        process = self.world.told(**self._settings(gate.endpoint)).start(*self._arguments())
        started.set()
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if self.phase == "ssh" and "waiting for cloud-init" in line:
                end()
        process.communicate(timeout=ARRIVAL)
        assert killed.is_set(), f"{self.phase}: the client ended by itself\n{''.join(said)}"
        assert process.returncode == -signal.SIGKILL

    def _settings(self, endpoint: str) -> dict[str, str]:
        values = {
            "boot_grace": self.boot_grace,
            "lease": LEASE,
            "heartbeat": 1.0,
            "deadman_poll": POLL,
            "flush_grace": FLUSH,
        }
        table = self.world.on.upper()
        told = {f"VMRUN_{table}_{name.upper()}": f"{value:.0f}s" for name, value in values.items()}
        return {**told, "VMRUN_STORE_ENDPOINT": endpoint}

    def _arguments(self) -> list[str]:
        job, more = "quick.py", list[str]()
        if self.phase == "environment":
            job, more = "packed.py", ["--with", PACKAGE]
        elif self.phase == "running":
            # It is not to end by itself before its agent is dead, however long this computer takes to kill that.
            job = "endless.py" if self.late else "job.py"
        elif self.phase == "warm":
            more = ["--keep-warm", f"{self.window:.0f}s"]
        return ["submit", "--on", self.world.on, *self.options, *more, job]

    def _steps(self, end: Callable[[], None], gate: Gate) -> list[Step]:
        vm = r"vms/\w+/"
        # The job is final: the client gives the VM back, unless it is to stay warm, and takes the results home.
        homeward = rf"PUT {vm}00000[3-9]|GET jobs/\w+/segments/\w+"
        last = {
            "intent": Step(rf"PUT {vm}000001", end),
            "created": Step(rf"PUT {vm}000001", end, after=True),
            "ready": Step(rf"PUT {vm}000002", end, after=True),
            "running": Step(r"GET jobs/\w+/shards/\d+/000001", end, after=True),
            "downloading": Step(homeward, end),
            "warm": Step(homeward, end),
        }
        steps = [last[self.phase]] if self.phase in last else []
        if self.phase == "environment":
            # The client chose versions before; from here on it is the machine that asks for the package.
            steps.append(Step(rf"PUT {vm}000002", lambda: self.world.index.hold(end), last=False))
        # At the first word of the machine, as it may end by itself soon after its client.
        first = [Step(rf"PUT {vm}000001", lambda: self._note(self._look(gate.vm)), last=False)]
        if self.early:
            first.append(replace(first[0], act=lambda: self.world.enter(self.machine, self.early), after=True))
        return first + steps

    def _note(self, fold: VmFold) -> None:
        """What the books call the machine, and what they say that it has: something of each kind."""
        place = self.world.place
        self.machine = place.machine(fold)
        until(lambda: kinds(place.held(self.machine)) == KINDS, 30, f"{self.phase}: the machine has {KINDS}")
        self.held = place.held(self.machine)

    def _look(self, vm: str) -> VmFold:
        return VmLedger(self.world.client.desk, vm).refresh()

    def _check_phase(self) -> None:
        """The client was where it was meant to be, and no further."""
        fold = self.fold
        assert fold.intent is not None
        created, ready = bool(fold.cloud_id), fold.ready is not None
        wanted = (self.phase != "intent", self.phase == "ready" or self.phase in SERVED)
        assert (created, ready) == wanted, f"{self.phase}: {fold}"
