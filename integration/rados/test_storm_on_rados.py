"""The storm on a Ceph cluster, with kills of the daemon: each new one takes over from a dead one."""

from harness.place import is_long, storm_seconds
from harness.rados_case import RadosCase
from harness.storm import rage

# With a verb or two a second there is at least one kill in it.
SHORT_S = 20


class StormOnRados(RadosCase):
    def test_storm_with_kills_on_a_cluster_finds_no_wrong_byte_and_leaves_nothing_behind(self):
        seconds = storm_seconds() if is_long() else SHORT_S
        environment = {"ARCHVHOST_CEPH_CONF": str(self.cluster.conf), "ARCHVHOST_CEPH_USER": self.cluster.USER}
        report = rage(self.directory / "storm", self.soft_journals, seconds, "--store", self.store, "--kill-one-in", 4,
                      environment=environment)
        self.assertGreater(report["kills"], 0)
        self.assertEqual(self.cluster.objects_of_volumes(self.namespace), [])
