"""What a real-guest test on a Ceph cluster starts from: a namespace of its own in the cluster that all of them use, one after the other."""

from harness.case import RealCase
from harness.cluster import POOL, Cluster
from harness.daemon import Place


class RadosCase(RealCase):
    def setUp(self):
        super().setUp()
        self.need(Cluster.is_installed(), "ceph-mon, ceph-osd, ceph-common")
        self.cluster = Cluster.shared()
        self.namespace = Cluster.namespace()
        self.store = f"rados:{POOL}/{self.namespace}"

    def place(self) -> Place:
        return Place(self.store, self.soft_journals, tuple(self.cluster.options()))
