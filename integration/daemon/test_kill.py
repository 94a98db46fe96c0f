"""kill -9 of the daemon under write load, without a single flush: what was completed is there."""

from harness.case import RealCase
from harness.loadgen import Load
from harness.place import is_long

KILLS = 500 if is_long() else 50


class Kill(RealCase):
    def test_every_completed_write_reads_back_after_each_of_many_kills(self):
        # Small objects and a wide spread: most writes of the first rounds change the map.
        self.create("web1", "1GiB", "--object-size", "64KiB")
        load = Load(self.directory / "ledger")
        in_flight = 0
        for round_number in range(KILLS):
            server = self.serve("web1", "--queues", "2")
            if round_number:
                load.verify(server.socket)
            # Lives of 50 to 750 ms, so that the kills meet every stage of the map's journal.
            life_ms = 50 + 140 * (round_number % 6)
            result = load.write_until_signal(server.socket, life_ms, server.process.pid, "kill", seed=round_number)
            self.assertEqual(result["failed"], 0)
            self.assertGreater(result["completed"], 0)
            in_flight += result["in_flight"]
            server.process.wait()
        self.assertGreater(in_flight, KILLS, "the kills came while requests were in flight")
        checked = load.verify(self.serve("web1", "--queues", "2").socket)
        self.assertGreater(checked, 1000)

    def test_host_daemon_killed_with_several_volumes_loses_nothing(self):
        loads = {}
        for name in ("one", "two", "three"):
            self.create(name, "256MiB")
            loads[name] = Load(self.directory / f"{name}.ledger")
        for round_number in range(3):
            daemon = self.daemon()
            sockets = {name: daemon.attach(name, queues=2) for name in loads}
            for name, load in loads.items():
                load.write(sockets[name], 200, "--seed", round_number)
            loads["three"].write_until_signal(sockets["three"], 200, daemon.process.pid, "kill", seed=round_number + 50)
            daemon.process.wait()
        daemon = self.daemon()
        for name, load in loads.items():
            load.verify(daemon.attach(name, queues=2))
