"""The load generator (integration/loadgen): writes that are remembered, and the check that they are there."""

import json
import subprocess
from pathlib import Path

from harness.place import LOADGEN
from harness.process import Process


class Load:
    """One volume's load over many runs: the ledger carries what each block may hold from run to run."""

    def __init__(self, ledger: Path, queues: int = 2, depth: int = 16):
        self._common = ["--ledger", str(ledger), "--queues", str(queues), "--depth", str(depth)]

    def write(self, socket: Path, for_ms: int, *options) -> dict:
        return self._run("write", socket, "--for-ms", for_ms, *options)

    def write_until_signal(self, socket: Path, for_ms: int, pid: int, signal: str, seed: int) -> dict:
        """Writes on while the process is signalled ("kill" or "term"), until it is gone."""
        return self.write(socket, for_ms, "--pid", pid, "--signal", signal, "--seed", seed)

    def verify(self, socket: Path) -> int:
        """Reads everything back; returns how many blocks were compared, and fails when one is wrong."""
        result = self._run("verify", socket)
        assert result["wrong"] == 0, f"completed writes are lost or damaged: {result}"
        return result["checked"]

    def _run(self, verb: str, socket: Path, *options) -> dict:
        argv = [str(LOADGEN), verb, "--socket", str(socket), *self._common, *map(str, options)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
        assert done.returncode in (0, 1) and done.stdout, f"loadgen {verb}: {done.stderr}"
        return json.loads(done.stdout)


def holding(socket: Path, log: Path, queues: int = 2) -> Process:
    """A front-end that has started its rings and does nothing; it prints `holding` when it is there."""
    return Process([LOADGEN, "hold", "--socket", socket, "--queues", queues], log)
