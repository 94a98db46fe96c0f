"""QEMU's conventions for vhost-user back-end programs (docs/interop/vhost-user.rst there)."""

import json
import socket
from pathlib import Path

from harness.case import RealCase
from harness.loadgen import Load
from harness.place import ARCHVHOST, LOADGEN
from harness.process import Process
from harness.program import archvhost


class ProgramConventions(RealCase):
    def test_capabilities_are_printed_as_json(self):
        capabilities = json.loads(archvhost("serve", "--print-capabilities"))
        self.assertEqual(capabilities["type"], "block")
        self.assertIn("read-only", capabilities["features"])

    def test_descriptor_file_names_a_block_program(self):
        descriptor = json.loads((Path(__file__).parents[2] / "libvirt" / "50-archvhost.json").read_text())
        self.assertEqual(descriptor["type"], "block")

    def test_listening_socket_can_be_handed_over(self):
        self.create("web1", "256MiB")
        path = self.directory / "handed.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            server = self._serve_descriptor(listener)
        load = Load(self.directory / "ledger", queues=1)
        load.write(path, 300)
        load.verify(path)
        self.assertEqual(server.terminate(), 0)

    def test_connected_socket_can_be_handed_over(self):
        self.create("web1", "256MiB")
        path = self.directory / "met.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            holder = Process([*self._load_command(path)], self.directory / "load.log")
            self.addCleanup(holder.kill)
            connection, _ = listener.accept()
            with connection:
                server = self._serve_descriptor(connection)
        self.assertEqual(holder.wait(30), 0, holder.output())
        self.assertEqual(server.wait(5), 0, "with its only connection gone the program ends")
        again = self.serve("web1")
        Load(self.directory / "ledger", queues=1).verify(again.socket)

    def _load_command(self, path):
        return [LOADGEN, "write", "--socket", path, "--ledger", self.directory / "ledger", "--for-ms", "500"]

    def _serve_descriptor(self, descriptor: socket.socket) -> Process:
        server = Process(
            [ARCHVHOST, *self.place().options(), "serve", "--volume", "web1", "--fd", descriptor.fileno()],
            self.directory / "handed.log", pass_fds=[descriptor.fileno()],
        )
        self.addCleanup(server.kill)
        return server
