"""Snapshots with a guest's file systems frozen by its own agent: the guest writes all the time, and the snapshot is as after an
orderly unmount."""

import re
import socket as sockets
import subprocess
from pathlib import Path

from harness.case import RealCase
from harness.program import archvhost, try_archvhost


class Freeze(RealCase):
    def setUp(self):
        super().setUp()
        self.create("web1", "1GiB")
        self.host = self.daemon()
        self.agent = self.directory / "agent.sock"

    def writing_guest(self, agent="yes"):
        guest = self.guest(
            self.host.attach("web1"), "write-with-agent", rounds=1_000_000, agent=agent,
            qemu_options=["-device", "virtio-serial", "-chardev", f"socket,id=agent,path={self.agent},server=on,wait=off",
                          "-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"],
        )
        guest.wait_for("STEP written 50")
        return guest

    def goes_on(self, guest):
        """The guest writes again, after whatever was done to it."""
        written = re.findall(r"STEP written (\d+)", guest.process.output())
        guest.wait_for(f"STEP written {int(written[-1]) + 50}")

    def image(self, name: str) -> Path:
        path = self.directory / f"{name}.raw"
        archvhost(*self.place().options(), "export", name, path)
        return path

    def wants_recovery(self, image: Path) -> bool:
        """Whether a mount would replay the file system's journal, as after a power cut."""
        header = subprocess.run(["dumpe2fs", "-h", image], capture_output=True, text=True, check=True).stdout
        return "needs_recovery" in header

    def test_frozen_snapshot_of_a_writing_guest_is_as_unmounted(self):
        guest = self.writing_guest()
        for number in range(3):
            taken = self.host.run_json("snapshot", "web1", f"frozen{number}", "--freeze-via", self.agent)
            self.assertEqual((taken["guarantee"], taken["freeze_failure"]), ("frozen", None))
            self.goes_on(guest)
        taken = self.host.run_json("snapshot", "web1", "crash")
        self.assertEqual(taken["guarantee"], "crash-consistent")
        guest.end()
        for number in range(3):
            image = self.image(f"frozen{number}")
            self.assertFalse(self.wants_recovery(image), "nothing was under way in it")
            checked = subprocess.run(["e2fsck", "-fn", image], capture_output=True, text=True)
            self.assertEqual(checked.returncode, 0, checked.stdout + checked.stderr)
        self.assertTrue(self.wants_recovery(self.image("crash")), "without freezing it is as after a power cut")

    def test_guest_without_agent_is_said_to_be_not_frozen_and_writes_on(self):
        guest = self.writing_guest(agent="no")
        refused = try_archvhost("--control", self.host.control, "snapshot", "web1", "s1", "--freeze-via", self.agent)
        self.assertNotEqual(refused.status, 0)
        self.assertIn("agent", refused.err)
        self.goes_on(guest)
        self.assertNotIn("s1", self.host.run("list"), "no snapshot that is less than was asked for")

    def test_agent_whose_channel_somebody_else_has_is_left_to_them(self):
        guest = self.writing_guest()
        with sockets.socket(sockets.AF_UNIX) as other:
            other.connect(str(self.agent))
            refused = try_archvhost("--control", self.host.control, "snapshot", "web1", "s1", "--freeze-via", self.agent)
            self.assertNotEqual(refused.status, 0)
            self.goes_on(guest)
        self.host.run("snapshot", "web1", "s1", "--freeze-via", self.agent)
        self.goes_on(guest)
