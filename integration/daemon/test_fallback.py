"""Where io_uring is not allowed, the volume is served all the same, and the log says how."""

import sys

from harness.case import RealCase
from harness.loadgen import Load
from harness.place import ROOT

WITHOUT_IO_URING = (sys.executable, ROOT / "integration" / "harness" / "without_io_uring.py")


class Fallback(RealCase):
    def test_volume_is_served_where_io_uring_is_forbidden(self):
        self.create("web1", "1GiB")
        load = Load(self.directory / "ledger")
        server = self.serve("web1", "--queues", "2", wrapper=WITHOUT_IO_URING)
        result = load.write(server.socket, 1000)
        self.assertEqual(result["failed"], 0)
        self.assertGreater(result["completed"], 100)
        load.verify(server.socket)
        self.assertIn("io_uring", server.process.output(), "the log says that it does without")
        self.assertEqual(server.process.terminate(), 0)
        load.verify(self.serve("web1", "--queues", "2").socket)

    def test_guest_boots_where_io_uring_is_forbidden(self):
        self.create("web1", "1GiB")
        server = self.serve("web1", wrapper=WITHOUT_IO_URING)
        self.guest(server.socket, "make-and-write").succeed()
