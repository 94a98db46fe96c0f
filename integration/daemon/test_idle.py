"""Volumes that nobody uses cost no CPU."""

import time

from harness.case import RealCase
from harness.loadgen import holding

VOLUMES = 8
SECONDS = 10
CPU_MS_MAX = 10


class Idle(RealCase):
    def test_eight_idle_volumes_cost_less_than_ten_milliseconds_in_ten_seconds(self):
        daemon = self.daemon()
        for number in range(VOLUMES):
            name = f"v{number}"
            daemon.create(name, "1GiB")
            holder = holding(daemon.attach(name, queues=2), self.directory / f"{name}.log")
            self.addCleanup(holder.kill)
            holder.wait_for_output("holding")
        time.sleep(2)
        before = daemon.process.cpu_ns()
        time.sleep(SECONDS)
        used_ms = (daemon.process.cpu_ns() - before) / 1e6
        print(f"[{used_ms:.2f} ms of CPU]", end=" ")
        self.assertLess(used_ms, CPU_MS_MAX)
