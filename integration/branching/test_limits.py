"""A volume's limits as a guest's fio sees them, changed while it runs."""

import re

from harness.case import RealCase
from harness.waiting import wait_until

LIMIT = 100


class Limits(RealCase):
    def test_guest_is_held_to_a_limit_while_it_lasts(self):
        self.create("web1", "256MiB")
        daemon = self.daemon()
        guest = self.guest(daemon.attach("web1"), "measure-writes", runs=5)
        free = self._next_iops(guest, 1)
        daemon.run("limit", "web1", "--iops", LIMIT, "--iops-burst", 1)
        # The second run may have begun before the limit was there.
        self._next_iops(guest, 2)
        limited = self._next_iops(guest, 3)
        daemon.run("limit", "web1", "--none")
        freed = self._next_iops(guest, 4)
        self.assertGreater(free, LIMIT * 2, "the guest can do more")
        self.assertLess(limited, LIMIT * 1.1)
        self.assertGreater(limited, LIMIT * 0.8)
        self.assertGreater(freed, LIMIT * 2, "and again, as soon as it may")

    def _next_iops(self, guest, count: int) -> int:
        """What the run with this number gave."""

        def told():
            assert guest.process.is_running(), guest.process.output()[-2000:]
            found = re.findall(r"STEP iops (\d+)", guest.process.output())
            return found[count - 1] if len(found) >= count else None

        return int(wait_until(told, f"run {count} of fio", limit_s=120, pause_s=0.1))
