"""Real guests whose disks are in a Ceph cluster: their file systems' life, snapshots of a busy one, an OSD that restarts, a full cluster."""

import re
import time

from harness.loadgen import Load
from harness.rados_case import RadosCase

MIB = 1 << 20
OBJECT_MIB = 4

# Within this time a guest that writes without a pause gets some of it done.
OUTAGE_S = 4


class GuestOnRados(RadosCase):
    def objects(self) -> int:
        return self.cluster.data_objects(self.namespace)

    def test_file_system_survives_reboots_and_fstrim_gives_objects_back(self):
        self.create("web1", "4GiB")
        daemon = self.daemon()
        socket = daemon.attach("web1", queues=4)
        self.guest(socket, "fill", processors=4, queues=4, expected_queues=4).succeed()
        full = self.objects()
        self.assertGreater(full, 320 // OBJECT_MIB, "fio's 128 MiB and 192 MiB of waste are in the cluster")
        self.guest(socket, "trim", processors=4, queues=4).succeed()
        trimmed = self.objects()
        self.assertLess(trimmed, full - 150 // OBJECT_MIB, "fstrim gave the waste back")
        self.assertEqual(daemon.stop(), 0)
        # Nothing of it was in the daemon's memory only.
        socket = self.daemon().attach("web1", queues=4)
        self.guest(socket, "check", processors=4, queues=4).succeed()

    def test_clone_of_a_busy_file_system_is_whole_and_the_original_goes_on(self):
        self.create("web1", "1GiB")
        daemon = self.daemon()
        guest = self.guest(daemon.attach("web1", queues=2), "busy-files", queues=2)
        guest.wait_for("STEP synced 5")
        at_least = last_synced(guest)
        daemon.run("snapshot", "web1", "before")
        at_most = last_synced(guest) + 2
        daemon.run("clone", "before", "web2")
        clone = daemon.attach("web2", queues=2)
        check = self.guest(clone, "recover-and-check", queues=2, at_least=at_least, at_most=at_most)
        self.assertIn("the file system is clean", check.succeed())
        guest.wait_for(f"STEP synced {at_most + 2}")
        # Beside a guest that writes, something may be there that nobody names yet; nothing may be missing.
        damage = [finding for finding in daemon.run_json("check")["findings"] if finding["severity"] != "leak"]
        self.assertEqual(damage, [])

    def test_osd_that_restarts_under_load_is_a_pause_and_every_synced_file_is_there(self):
        self.create("web1", "1GiB")
        daemon = self.daemon()
        guest = self.guest(daemon.attach("web1", queues=2), "busy-files", queues=2)
        guest.wait_for("STEP synced 3")
        with self.cluster.without_osd():
            # What was synced before it died may be told a moment later.
            time.sleep(1)
            before = last_synced(guest)
            time.sleep(OUTAGE_S)
            self.assertEqual(last_synced(guest), before, "nothing is durable that no OSD has")
        # The guest ends at an error of its disk, and this line does not come then.
        guest.wait_for(f"STEP synced {before + 4}")
        self.assertNotIn("error", guest.process.output().lower())
        self.assertNotIn("ERROR", daemon.process.output())
        at_least = last_synced(guest)
        guest.process.kill()
        self.assertEqual(daemon.stop(), 0)
        at_most = last_synced(guest) + 2
        socket = self.daemon().attach("web1", queues=2)
        self.guest(socket, "recover-and-check", queues=2, at_least=at_least, at_most=at_most).succeed()

    def test_writes_into_a_full_cluster_fail_and_succeed_again_when_space_returns(self):
        self.create("filled", "4GiB")
        self.create("beside", "64MiB")
        daemon = self.daemon()
        beside = daemon.attach("beside", queues=2)
        load = Load(self.directory / "ledger")
        self.assertEqual(load.write(beside, 1000, "--blocks", 64)["failed"], 0)
        guest = self.guest(daemon.attach("filled"), "run-full", mib=4 << 10)
        guest.wait_for("STEP writing")
        with self.cluster.full():
            guest.wait_for("STEP full")
            load.verify(beside)
        guest.wait_for("STEP space")
        guest.succeed()
        self.assertEqual(load.write(beside, 1000, "--blocks", 64, "--seed", 2)["failed"], 0)
        load.verify(beside)
        self.assertEqual(daemon.stop(), 0)


def last_synced(guest) -> int:
    """The last file whose sync the guest has told."""
    return int(re.findall(r"STEP synced (\d+)", guest.process.output())[-1])
