"""A real guest: QEMU with the test image, one script run inside it, its console read from outside."""

import os
from pathlib import Path

from harness.place import GUEST_BOOT, GUEST_IMAGE
from harness.process import Process
from harness.qmp import Qmp


class Guest:
    """Boots on construction. The script's environment is given as keywords; queues, memory and so on by name."""

    def __init__(self, directory: Path, socket: Path, script: str, *, queues=1, processors=2, memory_options="", reconnect_s=None,
                 qemu_options=(), **environment):
        self.name = script
        self._qmp_path = directory / f"{script}.qmp"
        self._qmp = None
        settings = {"QUEUES": str(queues), "SMP": str(processors), "MEM_OPTIONS": memory_options}
        if reconnect_s:
            settings["RECONNECT"] = str(reconnect_s)
        self.process = Process(
            [GUEST_BOOT, GUEST_IMAGE, socket, script, *(f"{k}={v}" for k, v in environment.items()),
             "--", "-qmp", f"unix:{self._qmp_path},server=on,wait=off", *qemu_options],
            directory / f"{script}.console",
            env={**os.environ, **settings},
        )

    @property
    def qmp(self) -> Qmp:
        if self._qmp is None:
            self._qmp = Qmp(self._qmp_path)
        return self._qmp

    def wait_for(self, line: str, limit_s: float = 120):
        self.process.wait_for_output(line, limit_s)

    def succeed(self, limit_s: float = 180) -> str:
        """Waits until the guest has powered off; its script must have succeeded. Returns the console."""
        self.wait_for("GUEST-", limit_s)
        assert "GUEST-OK" in self.process.output(), f"{self.name} failed in the guest:\n{self.process.output()[-6000:]}"
        self.process.wait(30)
        return self.process.output()

    def end(self):
        if self._qmp is not None:
            self._qmp.close()
        self.process.kill()
