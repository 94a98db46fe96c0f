"""A process that a test starts: its output is kept in a file, and it is ended by its id."""

import subprocess
import time
from pathlib import Path

from harness.waiting import wait_until


class Process:
    def __init__(self, argv, log: Path, **options):
        self.log = log
        with open(log, "ab") as output:
            self.popen = subprocess.Popen(
                [str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **options
            )

    @property
    def pid(self) -> int:
        return self.popen.pid

    def is_running(self) -> bool:
        return self.popen.poll() is None

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait(self, limit_s: float = 20) -> int:
        return self.popen.wait(limit_s)

    def wait_for_output(self, text: str, limit_s: float = 60):
        """Waits until the output contains text; fails at once when the process ends without it."""

        def seen():
            running = self.is_running()
            if text in self.output():
                return True
            assert running, f"ended with {self.popen.returncode} before printing {text!r}:\n{self.output()[-4000:]}"
            return False

        try:
            wait_until(seen, f"{text!r}", limit_s, 0.05)
        except AssertionError as error:
            raise AssertionError(f"{error}; the output ends:\n{self.output()[-4000:]}") from None

    def kill(self):
        """SIGKILL, and reaped. Nothing happens to a process that ended already."""
        self.popen.kill()
        self.popen.wait()

    def terminate(self, limit_s: float = 20) -> int:
        """SIGTERM; returns the exit status."""
        self.popen.terminate()
        return self.wait(limit_s)

    def cpu_ns(self) -> int:
        """CPU time that the process has used, threads that ended included, in nanoseconds."""
        process_cpu_clock = (~self.pid << 3) | 2  # as clock_getcpuclockid(3) makes it
        return time.clock_gettime_ns(process_cpu_clock)
