#!/usr/bin/env python3
"""What `cmake --install` installs, in a root file system with nothing but the libraries it needs:
no shell, read-only, as a user without rights, as PID 1. container_proof.sh does the same to the
image that deploy/docker/Dockerfile builds."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import unittest

import support

HERE = pathlib.Path(__file__).parent
RUN = HERE / "run_readonly_root.py"


def make_root(root):
    """The installed tree and its libraries."""
    for part in ("server", "client"):
        subprocess.run(["cmake", "--install", support.BUILD / part, "--prefix", root / "usr"],
                       check=True, capture_output=True)
    for name in ("lacuna-server", "lacuna"):
        listed = subprocess.run(["ldd", root / "usr" / "bin" / name], capture_output=True,
                                text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            target = root / library.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, target)
    (root / "proc").mkdir()
    root.chmod(0o755)  # another user looks inside


def run(root, *command, **kwargs):
    return subprocess.run([RUN, root, *command], capture_output=True, text=True, check=False,
                          **kwargs)


class ReadonlyRootTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        if len(sys.argv) > 1:
            cls.root = pathlib.Path(sys.argv[1])
        else:
            cls.root = support.scratch()
            make_root(cls.root)
        cls.server = support.Process([RUN, cls.root, "/usr/bin/lacuna-server",
                                      "--listen=127.0.0.1:0", "--metrics_listen=127.0.0.1:0"])
        listening = support.wait_for(
            lambda: cls.server.expect_running() or
            re.search("^listening grpc=(\\S+)", cls.server.text(), re.M), "listening")
        cls.address = listening.group(1)
        unshare = cls.server.popen.pid
        children = pathlib.Path(f"/proc/{unshare}/task/{unshare}/children").read_text()
        cls.pid = int(children.split()[0])
        cls.status = pathlib.Path(f"/proc/{cls.pid}/status").read_text()

    def test_1_it_has_no_rights(self):
        for line in ("Uid:\t65532\t65532\t65532\t65532", "Gid:\t65532\t65532\t65532\t65532",
                     "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1"):
            self.assertIn(line, self.status)
        self.assertRegex(self.status, r"NSpid:.*\t1\n")

    def test_2_its_root_is_read_only(self):
        root = next(line.split() for line in
                    pathlib.Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
                    if line.split()[4] == "/")
        self.assertIn("ro", root[5].split(","))

    def test_3_it_serves_its_embedded_model(self):
        client = ["/usr/bin/lacuna", "health", f"--server={self.address}", "--service=readiness"]
        self.assertEqual(run(self.root, *client).stdout, "SERVING\n")
        text = run(self.root, "/usr/bin/lacuna", "generate", f"--server={self.address}",
                   "--prompt=The sea", "--max_tokens=8", "--seed=1")
        self.assertEqual(text.returncode, 0, text.stderr)
        self.assertGreater(len(text.stdout), 8)

    def test_4_sigterm_to_pid_1_ends_it_cleanly(self):
        os.kill(self.pid, signal.SIGTERM)
        self.assertEqual(self.server.wait(), 0, self.server.text())
        self.assertIn('"event":"drained"', self.server.text())

    def test_5_without_its_files_it_says_so(self):
        broken = support.scratch()
        make_root(broken)
        shutil.rmtree(broken / "usr" / "share" / "lacuna")
        result = run(broken, "/usr/bin/lacuna-server")
        self.assertEqual(result.returncode, 3)
        self.assertIn("no embedded model", result.stderr)


if __name__ == "__main__":
    if os.geteuid() != 0:
        support.skip("needs root, to make a mount namespace")
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode != 0:
        support.skip("this machine allows no mount namespace")
    unittest.main(argv=sys.argv[:1])
