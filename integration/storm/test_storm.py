"""The storm (integration/storm): snapshots, clones, collections and all else under verified load, and kills in between."""

from harness.case import RealCase
from harness.place import storm_seconds
from harness.storm import rage


class Storm(RealCase):
    def test_storm_finds_no_wrong_byte_and_leaves_nothing_behind(self):
        report = self._rage()
        self.assertGreater(report["collections"], 0)
        self.assertGreater(report["checks"], 0)

    def test_storm_with_kills_finds_no_wrong_byte(self):
        report = self._rage("--kill-one-in", 6)
        self.assertGreater(report["kills"], 0)

    def _rage(self, *options) -> dict:
        report = rage(self.directory / "storm", self.soft_journals, storm_seconds(), *options)
        self.assertGreater(sum(report["verbs"].values()), storm_seconds() // 2)
        return report
