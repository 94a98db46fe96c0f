"""QEMU's monitor: commands over its JSON socket."""

import json
import socket
from pathlib import Path

from harness.waiting import wait_until


class Qmp:
    def __init__(self, path: Path):
        wait_until(path.exists, f"the monitor socket {path}")
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rw")
        self._file.readline()
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments):
        """Runs a command and returns its result; events that come first are passed over."""
        self._file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self._file.flush()
        while True:
            answer = json.loads(self._file.readline())
            if "error" in answer:
                raise AssertionError(f"{name}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]

    def close(self):
        self._file.close()
        self._socket.close()
