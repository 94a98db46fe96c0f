"""SIGTERM is an orderly stop within a second, under load as well."""

from harness.case import RealCase
from harness.loadgen import Load


class Stop(RealCase):
    def test_sigterm_under_load_stops_within_a_second_and_loses_nothing(self):
        self.create("web1", "1GiB", "--object-size", "64KiB")
        load = Load(self.directory / "ledger")
        for round_number in range(3):
            server = self.serve("web1", "--queues", "2")
            result = load.write_until_signal(server.socket, 700, server.process.pid, "term", seed=round_number)
            self.assertEqual(server.process.wait(), 0, server.process.output())
            self.assertLess(result["exit_ms"], 1000)
            again = self.serve("web1", "--queues", "2")
            load.verify(again.socket)
            self.assertEqual(again.process.terminate(), 0)

    def test_host_daemon_with_idle_volumes_stops_within_a_second(self):
        daemon = self.daemon()
        for number in range(8):
            daemon.create(f"v{number}", "1GiB")
            daemon.attach(f"v{number}")
        daemon.process.popen.terminate()
        self.assertEqual(daemon.process.wait(limit_s=1), 0, daemon.process.output())
