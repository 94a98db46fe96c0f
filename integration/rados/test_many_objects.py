"""A volume with a great many objects: collection and check go through them page by page, and hold no more in memory than of a few."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from harness.cluster import POOL
from harness.place import ARCHVHOST, ROOT, is_long
from harness.program import archvhost_json
from harness.rados_case import RadosCase

# Debian's, which has Ceph's library; another one may come first on the PATH.
PYTHON = Path("/usr/bin/python3")
FILL = ROOT / "integration" / "harness" / "fill_index.py"

FEW, MANY = (100_000, 1_000_000) if is_long() else (50_000, 300_000)

# The name of an object alone has 32 bytes.
MEMORY_MAX = (MANY - FEW) * 16


@dataclass
class Ran:
    out: str
    seconds: float
    memory: int


class ManyObjects(RadosCase):
    def setUp(self):
        super().setUp()
        found = PYTHON.exists() and subprocess.run([PYTHON, "-c", "import rados"], stderr=subprocess.DEVNULL).returncode == 0
        self.need(found, "python3-rados")

    def measured(self, *argv) -> Ran:
        """With its peak of memory, in bytes. (What this process has itself is the least that shows.)"""
        argv = [str(a) for a in (ARCHVHOST, *self.place().options(), *argv)]
        started = time.monotonic()
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        out = process.stdout.read()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 0, out)
        return Ran(out, time.monotonic() - started, usage.ru_maxrss << 10)

    def fill(self, volume: str, first: int, count: int):
        argv = [PYTHON, "-B", FILL, self.cluster.conf, POOL, self.namespace, volume, first, count]
        subprocess.run([str(a) for a in argv], check=True, timeout=300)

    def test_memory_does_not_grow_with_the_number_of_objects(self):
        self.create("web1", "8TiB")
        volume = archvhost_json(*self.place().options(), "info", "web1")["id"]
        verbs = {"gc": ("gc", "--dry-run"), "check": ("check",)}
        self.fill(volume, 0, FEW)
        few = {verb: self.measured(*argv) for verb, argv in verbs.items()}
        self.fill(volume, FEW, MANY - FEW)
        many = {verb: self.measured(*argv) for verb, argv in verbs.items()}
        self.assertIn(f" {MANY} objects", many["gc"].out, "it has seen them all")
        for verb in verbs:
            grown = many[verb].memory - few[verb].memory
            print(f"{verb}: {MANY} objects, {many[verb].seconds:.1f} s, {many[verb].memory >> 20} MiB (+{grown >> 10} KiB) ", end="")
            self.assertLess(grown, MEMORY_MAX, f"{verb}: {few[verb]} {many[verb]}")
