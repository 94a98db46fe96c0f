"""The life of a guest's file system: made, filled, trimmed, found again after every reboot."""

from harness.case import RealCase
from harness.store import usage

MIB = 1 << 20


class GuestLife(RealCase):
    def test_file_system_on_four_queues_survives_reboots_and_fstrim_gives_space_back(self):
        self.create("web1", "4GiB")
        daemon = self.daemon()
        socket = daemon.attach("web1", queues=4)

        self.guest(socket, "fill", processors=4, queues=4, expected_queues=4).succeed()
        full = usage(self.store_directory)
        self.assertGreater(full.allocated_bytes, 320 * MIB, "fio's 128 MiB and 192 MiB of waste are in the store")

        self.guest(socket, "trim", processors=4, queues=4).succeed()
        trimmed = usage(self.store_directory)
        self.assertLess(trimmed.allocated_bytes, full.allocated_bytes - 150 * MIB, "fstrim gave the waste back")
        self.assertLess(trimmed.files, full.files - 30, "and its objects' files are gone")

        self.guest(socket, "check", processors=4, queues=4).succeed()
        self.assertEqual(daemon.stop(), 0)

    def test_volume_served_read_only_can_be_read_and_not_written(self):
        self.create("web1", "1GiB")
        daemon = self.daemon()
        self.guest(daemon.attach("web1"), "make-and-write").succeed()
        daemon.run("detach", "web1")
        before = usage(self.store_directory)
        socket = daemon.attach("web1", 1, "--read-only")
        self.guest(socket, "find-and-read").succeed()
        console = self.guest(socket, "refuse-write").succeed()
        self.assertIn("read-only: 1", console)
        self.assertEqual(usage(self.store_directory).files, before.files)
