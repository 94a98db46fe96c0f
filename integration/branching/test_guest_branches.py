"""Snapshots, clones, rollback and resizing as guests see them."""

import re

from harness.case import RealCase
from harness.program import try_archvhost

MIB = 1 << 20


class GuestBranches(RealCase):
    def test_clone_of_a_busy_file_system_is_whole_and_the_original_rolls_back_to_it(self):
        self.create("web1", "1GiB")
        daemon = self.daemon()
        socket = daemon.attach("web1", queues=2)
        guest = self.guest(socket, "busy-files", queues=2)
        guest.wait_for("STEP synced 12")
        at_least = last_synced(guest)
        daemon.run("snapshot", "web1", "before")
        at_most = last_synced(guest) + 2
        daemon.run("clone", "before", "web2")
        clone = daemon.attach("web2", queues=2)
        check = self.guest(clone, "recover-and-check", queues=2, at_least=at_least, at_most=at_most)
        self.assertIn("the file system is clean", check.succeed())

        # The first guest has gone on meanwhile, and undisturbed.
        guest.wait_for(f"STEP synced {at_most + 5}")
        guest.process.kill()
        daemon.run("detach", "web1")
        daemon.run("rollback", "web1", "before")
        socket = daemon.attach("web1", queues=2)
        self.guest(socket, "recover-and-check", queues=2, at_least=at_least, at_most=at_most).succeed()
        self.assertEqual(daemon.stop(), 0)

    def test_clone_of_a_live_volume_and_many_snapshots_disturb_no_guest(self):
        self.create("web1", "1GiB")
        daemon = self.daemon()
        guest = self.guest(daemon.attach("web1"), "busy-files")
        guest.wait_for("STEP synced 3")
        for number in range(10):
            daemon.run("snapshot", "web1", f"s{number}")
        at_least = last_synced(guest)
        daemon.run("clone", "web1", "web2")
        at_most = last_synced(guest) + 2
        for number in range(10):
            daemon.run("remove", f"s{number}")
        daemon.run("gc")
        self.guest(daemon.attach("web2"), "recover-and-check", at_least=at_least, at_most=at_most).succeed()
        guest.wait_for(f"STEP synced {at_most + 2}")

    def test_snapshot_served_read_only_can_be_read_and_not_written(self):
        self.create("web1", "1GiB")
        daemon = self.daemon()
        self.guest(daemon.attach("web1"), "make-and-write").succeed()
        daemon.run("snapshot", "web1", "s1")
        socket = daemon.attach("s1", 1, "--read-only")
        self.guest(socket, "find-and-read").succeed()
        self.assertIn("read-only: 1", self.guest(socket, "refuse-write").succeed())

    def test_running_guest_sees_its_disk_grow_and_no_disk_shrinks_unasked(self):
        self.create("web1", "256MiB")
        daemon = self.daemon()
        guest = self.guest(daemon.attach("web1"), "see-it-grow", sectors=512 * MIB // 512)
        guest.wait_for("STEP small")
        daemon.run("resize", "web1", "512MiB")
        guest.wait_for("STEP grown")
        refused = try_archvhost("--control", daemon.control, "resize", "web1", "256MiB")
        self.assertNotEqual(refused.status, 0, "a disk does not shrink without --shrink")
        self.assertIn("shrink", refused.err)
        guest.wait_for("STEP used")
        guest.succeed()
        self.assertEqual(daemon.run_json("info", "web1")["size"], 512 * MIB)


def last_synced(guest) -> int:
    """The last file whose sync the guest has told."""
    return int(re.findall(r"STEP synced (\d+)", guest.process.output())[-1])
