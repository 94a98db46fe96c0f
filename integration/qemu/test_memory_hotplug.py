"""Memory added to a running guest: the daemon must reach it, without a pause in the I/O."""

from harness.case import RealCase

ADDED_MIB = 512


class MemoryHotplug(RealCase):
    def test_memory_added_under_io_is_used_for_io(self):
        self.create("web1", "1GiB")
        daemon = self.daemon()
        guest = self.guest(daemon.attach("web1", queues=2), "grow-memory", queues=2,
                           memory_options=",slots=4,maxmem=2G", grown_kib=(ADDED_MIB + 384) * 1024)
        guest.wait_for("STEP running")
        self._add_memory(guest, "grown")
        guest.wait_for("STEP grown")
        guest.succeed()
        self.assertEqual(daemon.stop(), 0)

    def _add_memory(self, guest, name: str):
        guest.qmp.command("object-add", **{"qom-type": "memory-backend-memfd", "id": name, "size": ADDED_MIB << 20,
                                           "share": True})
        guest.qmp.command("device_add", driver="pc-dimm", id=f"dimm-{name}", memdev=name)
