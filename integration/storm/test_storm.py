"""The storm (integration/storm): snapshots, clones, collections and all else under verified load, and kills in between."""

import json
import os
import subprocess
import time

from harness.case import RealCase
from harness.place import ARCHVHOST, STORM, storm_seconds


class Storm(RealCase):
    def test_storm_finds_no_wrong_byte_and_leaves_nothing_behind(self):
        report = self._rage()
        self.assertGreater(report["collections"], 0)
        self.assertGreater(report["checks"], 0)

    def test_storm_with_kills_finds_no_wrong_byte(self):
        report = self._rage("--kill-one-in", 6)
        self.assertGreater(report["kills"], 0)

    def _rage(self, *options) -> dict:
        """The seed is of the clock, and printed: another run of it has the same verbs, if not the same timing."""
        seed = int(os.environ.get("ARCHVHOST_STORM_SEED") or time.time())
        directory = self.directory / "storm"
        directory.mkdir()
        argv = [STORM, "--program", ARCHVHOST, "--dir", directory, "--soft-journals", self.soft_journals,
                "--seconds", storm_seconds(), "--seed", seed, "--verbose", *options]
        print(f"seed {seed} ", end="", flush=True)
        done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              timeout=storm_seconds() * 2 + 300)
        log = directory / "daemon.log"
        told = f"seed {seed}: {done.stdout}\n{done.stderr[-6000:]}\nthe daemon's log:\n{log.read_text()[-3000:]}"
        self.assertEqual(done.returncode, 0, told)
        report = json.loads(done.stdout)
        verbs = sum(report["verbs"].values())
        print(f"{report['requests']} requests, {verbs} verbs, {report['kills']} kills ", end="", flush=True)
        self.assertGreater(verbs, storm_seconds() // 2)
        return report
