"""A real libvirtd starts real domains from libvirt/domain.xml, from disk.xml and from what `archvhost xml` prints."""

import xml.etree.ElementTree as ET
from pathlib import Path

from harness.case import RealCase
from harness.libvirtd import Libvirtd
from harness.place import GUEST_IMAGE, LIBVIRT
from harness.waiting import wait_until


class Libvirt(RealCase):
    def setUp(self):
        super().setUp()
        self.need(Libvirtd.is_installed(), "libvirtd, virsh (packages libvirt-daemon-system, libvirt-clients)")
        self.libvirtd = Libvirtd(self.directory / "libvirt")
        self.addCleanup(self.libvirtd.end)
        self.create("web1", "1GiB")
        self.served = self.daemon()
        self.socket = self.served.attach("web1", queues=2)

    def test_domain_from_our_template_runs_and_a_second_one_finds_its_data(self):
        template = ET.parse(LIBVIRT / "domain.xml").getroot()
        template.find("devices/disk/source").set("path", str(self.socket))
        self.run_domain(template, "make-and-write")
        self.run_domain(template, "find-and-read")

    def test_what_archvhost_xml_prints_makes_a_domain(self):
        printed = ET.fromstring(f"<all>{self.served.run('xml', 'web1')}</all>")
        self.assertEqual(printed.find("disk/source").get("path"), str(self.socket))
        domain = ET.parse(LIBVIRT / "domain.xml").getroot()
        self.replace(domain, "memoryBacking", printed.find("memoryBacking"))
        self.replace(domain.find("devices"), "disk", printed.find("disk"))
        self.run_domain(domain, "make-and-write")

    def test_second_disk_is_plugged_into_a_running_domain(self):
        self.create("data1", "64MiB")
        second = self.served.attach("data1")
        domain = ET.parse(LIBVIRT / "domain.xml").getroot()
        domain.find("devices/disk/source").set("path", str(self.socket))
        console = self.start_domain(domain, "use-second-disk")
        wait_until(lambda: "STEP waiting" in console.read_text(errors="replace"), "the guest", 120)
        disk = ET.parse(LIBVIRT / "disk.xml").getroot()
        disk.find("source").set("path", str(second))
        description = self.directory / "disk.xml"
        ET.ElementTree(disk).write(description)
        self.libvirtd.virsh("attach-device", domain.findtext("name"), description)
        self.succeed(console)

    def replace(self, parent, tag: str, element):
        old = parent.find(tag)
        place = list(parent).index(old)
        parent.remove(old)
        parent.insert(place, element)

    def run_domain(self, domain, script: str):
        self.succeed(self.start_domain(domain, script))
        wait_until(lambda: not self.libvirtd.virsh("list", "--name").strip(), "the domain to end")

    def start_domain(self, domain, script: str) -> Path:
        """Starts the domain with the test guest's kernel, in software emulation; returns the console's file."""
        domain.set("type", "qemu")
        system = domain.find("os")
        for tag in ("boot", "kernel", "initrd", "cmdline"):
            for element in system.findall(tag):
                system.remove(element)
        ET.SubElement(system, "kernel").text = str(GUEST_IMAGE / "vmlinuz")
        ET.SubElement(system, "initrd").text = str(GUEST_IMAGE / "initramfs")
        ET.SubElement(system, "cmdline").text = f"console=ttyS0 quiet panic=-1 script={script}"
        console = self.directory / f"{script}.console"
        console.touch()
        devices = domain.find("devices")
        for tag in ("serial", "console"):
            for element in devices.findall(tag):
                devices.remove(element)
        ET.SubElement(ET.SubElement(devices, "serial", type="file"), "source", path=str(console))
        description = self.directory / f"{script}.xml"
        ET.ElementTree(domain).write(description)
        self.libvirtd.virsh("create", description)
        return console

    def succeed(self, console: Path):
        wait_until(lambda: "GUEST-" in console.read_text(errors="replace"), "the guest's end", 180, 0.2)
        self.assertIn("GUEST-OK", console.read_text(errors="replace"))
