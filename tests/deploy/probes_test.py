#!/usr/bin/env python3
"""The probes of the rendered Deployment, executed as the kubelet would against a real server: while
its storage hangs, when it serves, with a wedged engine, while it drains, and when it is gone."""
import ctypes
import os
import pathlib
import re
import signal
import subprocess
import unittest

import support
try:
    import yaml  # noqa: F401
except ImportError:
    support.skip("PyYAML is not there; Debian package python3-yaml")

import manifests
from support import BUILD, CLIENT, Process, Server, load, scratch, wait_for

STALL_S = 2
WALL = 0x40000000  # waitpid: threads too
SEIZE, INTERRUPT, DETACH = 0x4206, 0x4207, 17
libc = ctypes.CDLL(None, use_errno=True)


def ptrace(request, tid):
    if libc.ptrace(request, tid, None, None) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class StoppedThread:
    """One thread of a process does not run, the others do."""

    def __init__(self, pid, name):
        tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
        self.tid = next(int(task.name) for task in tasks
                        if (task / "comm").read_text().strip() == name)
        ptrace(SEIZE, self.tid)
        ptrace(INTERRUPT, self.tid)
        os.waitpid(self.tid, WALL)

    def resume(self):
        """Once or more often."""
        if self.tid is not None:
            ptrace(DETACH, self.tid)
            self.tid = None


class ProbesTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.container = manifests.container(manifests.rendered(
            [f"server.engineStallTimeoutSeconds={STALL_S}", "shutdown.drainLeadSeconds=1"]))

    def server(self, *flags, **kwargs):
        """With the arguments of the Deployment, but for the ports; `flags` win."""
        args = [arg for arg in self.container["args"]
                if not re.match("--(metrics_)?listen=", arg)]
        return Server(*args, *flags, **kwargs)

    def probe(self, kind, server):
        """Whether one execution of a probe succeeds."""
        definition = self.container[f"{kind}Probe"]
        result = subprocess.run(
            [CLIENT, "health", f"--server={server.address}",
             f"--service={definition['grpc']['service']}",
             f"--timeout={definition['timeoutSeconds']}s"], capture_output=True, check=False)
        return result.returncode == 0

    def probes(self, server):
        return tuple(self.probe(kind, server) for kind in ("startup", "readiness", "liveness"))

    def wait_for_probes(self, expected, server):
        wait_for(lambda: self.probes(server) == expected, f"startup, readiness, liveness "
                 f"{expected}, they are {self.probes(server)}")

    def wedged(self, server):
        try:
            thread = StoppedThread(server.popen.pid, "engine")
        except PermissionError:
            self.skipTest("this machine does not let a process stop another's thread")
        # A killed process does not end while one of its threads is held.
        self.addCleanup(thread.resume)
        return thread

    def alive(self, server):
        """The kubelet restarts after so many failures in a row; a busy machine misses one."""
        return any(self.probe("liveness", server)
                   for _ in range(self.container["livenessProbe"]["failureThreshold"]))

    def held_without_locks(self, server):
        """As wedged, but while the others can go on: the engine's thread hands tokens to gRPC, and
        stopped there it holds locks that every answer of the server needs."""
        for _ in range(20):
            thread = self.wedged(server)
            if self.alive(server):
                return thread
            thread.resume()
        self.fail("the engine's thread is never outside gRPC")

    def test_probes_name_the_port_that_serves(self):
        ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        for kind in ("startup", "readiness", "liveness"):
            self.assertEqual(self.container[f"{kind}Probe"]["grpc"]["port"], ports["grpc"])

    def test_while_storage_hangs_the_server_is_alive_and_not_started(self):
        hold = scratch() / "hold"
        hold.touch()
        environment = {**os.environ, "LACUNA_TEST_HOLD": str(hold),
                       "LD_PRELOAD": str(BUILD / "tests" / "hold_reads.so"),
                       "ASAN_OPTIONS": "verify_asan_link_order=0"}
        server = self.server(wait=False, env=environment)
        bound = wait_for(lambda: [line for line in server.log() if line["event"] == "bound"],
                         "the ports are bound")
        server.address = bound[0]["grpc"]
        wait_for(lambda: any(line["event"] == "model_loading" for line in server.log()), "loading")
        self.assertEqual(self.probes(server), (False, False, True))
        hold.unlink()
        self.wait_for_probes((True, True, True), server)

    def test_a_wedged_engine_fails_liveness_until_it_moves_on(self):
        server = self.server()
        self.assertEqual(self.probes(server), (True, True, True))
        load(f"--server={server.address}", "--concurrency=2", "--requests=100000")
        self.wait_for_generation(server)
        thread = self.wedged(server)
        self.wait_for_probes((False, False, False), server)
        # As often as it takes for a restart.
        for _ in range(self.container["livenessProbe"]["failureThreshold"]):
            self.assertFalse(self.probe("liveness", server))
        thread.resume()
        self.wait_for_probes((True, True, True), server)

    def test_an_idle_engine_is_not_a_wedged_one(self):
        server = self.server()
        thread = self.wedged(server)
        watched = subprocess.run(
            ["timeout", str(2 * STALL_S), CLIENT, "health", f"--server={server.address}",
             f"--service={self.container['livenessProbe']['grpc']['service']}", "--watch"],
            capture_output=True, text=True, check=False)
        self.assertIn("SERVING", watched.stdout)
        self.assertNotIn("NOT_SERVING", watched.stdout)
        thread.resume()

    def test_a_draining_server_is_alive_and_not_ready_and_a_stopped_one_is_nothing(self):
        server = self.server("--engine_stall_timeout=10m")
        stream = Process([CLIENT, "generate", f"--server={server.address}", "--prompt=a",
                          "--max_tokens=400", "--ignore_eos", "--stats"])
        self.wait_for_generation(server)
        thread = self.held_without_locks(server)  # so that the stream lasts
        server.signal(signal.SIGTERM)
        wait_for(lambda: not self.probe("readiness", server), "not ready")
        self.assertTrue(self.alive(server))
        thread.resume()
        self.assertEqual(stream.wait(), 0, stream.text())
        self.assertIn("completion 400 tokens", stream.text())
        self.assertEqual(server.wait(), 0, server.text())
        self.assertEqual(self.probes(server), (False, False, False))

    def wait_for_generation(self, server):
        wait_for(lambda: re.search(r"^lacuna_generation_tokens_total\{.*\} [1-9]",
                                   support.http_get(f"http://{server.metrics}/metrics"), re.M),
                 "tokens are generated")


if __name__ == "__main__":
    unittest.main()
