"""Front-ends that go and come back, and a daemon that is killed and started again under a running guest."""

from harness.case import RealCase
from harness.loadgen import Load


class Reconnect(RealCase):
    def test_front_ends_come_and_go_and_one_process_serves_them_all(self):
        self.create("web1", "1GiB")
        daemon = self.daemon()
        socket = daemon.attach("web1", queues=2)
        load = Load(self.directory / "ledger")
        for seed in range(5):
            load.write(socket, 300, "--seed", seed)
            load.verify(socket)
        guest = self.guest(socket, "write-on", rounds=100000)
        guest.wait_for("STEP round 10")
        guest.process.kill()
        self.guest(socket, "write-on", rounds=50).succeed()
        self.assertTrue(daemon.process.is_running())
        self.assertEqual(daemon.stop(), 0)

    def test_killed_daemon_started_again_is_a_pause_to_the_guest(self):
        self.create("web1", "1GiB")
        server = self.serve("web1")
        guest = self.guest(server.socket, "write-on", reconnect_s=1, rounds=300)
        guest.wait_for("STEP round 20")
        server.process.kill()
        self.serve("web1")
        guest.succeed()
