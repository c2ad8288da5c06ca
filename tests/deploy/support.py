"""What the deployment tests share: processes on ports of their own, polling, skipping.

CMake sets LACUNA_BUILD to the build folder. A test whose tool is missing ends with code 77, which
ctest shows as skipped.
"""
import atexit
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

REPO = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = REPO / "deploy"
BUILD = pathlib.Path(os.environ.get("LACUNA_BUILD", REPO / "build" / "release"))
SERVER = BUILD / "bin" / "lacuna-server"
CLIENT = BUILD / "bin" / "lacuna"
# Made by tests/deploy/make_venv.sh.
VENV = REPO / "build" / "venv"
SKIPPED = 77
# Long enough for a busy machine; nothing waits for it unless something is wrong.
DEADLINE_S = 90


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def find_tool(name):
    """Path of a program, from the virtual environment or the system, or None."""
    return shutil.which(name, path=f"{VENV / 'bin'}:{os.environ['PATH']}")


def require_tool(name, source):
    """As find_tool; skips the test without it."""
    path = find_tool(name)
    if path is None:
        skip(f"{name} is not there; {source}")
    return path


def wait_for(condition, what, deadline_s=DEADLINE_S):
    """Polls until `condition` gives something true, and returns that. Counts the time it slept, so
    that a machine that stood still does not look like a server that did."""
    pause_s = 0.05
    for _ in range(int(deadline_s / pause_s)):
        result = condition()
        if result:
            return result
        time.sleep(pause_s)
    raise AssertionError(f"{what}: not within {deadline_s} s")


def free_port():
    """A port nobody listens on now, for programs that cannot choose one themselves and for servers
    that come back. Below those that the system gives to outgoing connections, so that none of these
    takes it meanwhile."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as listener:
            try:
                listener.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue


def scratch():
    """A folder that is removed at the end."""
    folder = tempfile.mkdtemp(prefix="lacuna-deploy-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


def http_get(url, timeout_s=10):
    with urllib.request.urlopen(url, timeout=timeout_s) as response:
        return response.read().decode()


class Process:
    """A child process with its output in a file; killed at the end if it still runs."""

    def __init__(self, args, **kwargs):
        self.output = tempfile.NamedTemporaryFile(mode="w+", suffix=".log")
        self.popen = subprocess.Popen([str(arg) for arg in args], stdout=self.output,
                                      stderr=subprocess.STDOUT, **kwargs)
        atexit.register(self.kill)

    def text(self):
        return pathlib.Path(self.output.name).read_text()

    def kill(self):
        if self.popen.poll() is None:
            self.popen.kill()
            self.popen.wait()

    def signal(self, number):
        self.popen.send_signal(number)

    def wait(self):
        """The exit status."""
        wait_for(lambda: self.popen.poll() is not None, f"{self.popen.args[0]} ends")
        return self.popen.returncode

    def expect_running(self):
        if self.popen.poll() is not None:
            raise AssertionError(f"{self.popen.args[0]} ended, {self.popen.returncode}:\n"
                                 + self.text())


class Server(Process):
    """A lacuna-server on loopback ports; ready on return unless `wait` is false."""

    def __init__(self, *flags, port=0, metrics_port=0, wait=True, **kwargs):
        super().__init__([SERVER, f"--listen=127.0.0.1:{port}",
                          f"--metrics_listen=127.0.0.1:{metrics_port}", *flags], **kwargs)
        self.address = f"127.0.0.1:{port}"
        self.metrics = f"127.0.0.1:{metrics_port}"
        if wait:
            self.wait_ready()

    def wait_ready(self):
        def listening():
            self.expect_running()
            return [line for line in self.text().splitlines() if line.startswith("listening ")]
        words = wait_for(listening, "the server listens")[0].split()
        self.address, self.metrics = (word.split("=", 1)[1] for word in words[1:3])

    def log(self):
        """The log's objects."""
        return [json.loads(line) for line in self.text().splitlines() if line.startswith("{")]


def load(*flags):
    """A running `lacuna load`."""
    return Process([CLIENT, "load", "--json", *flags])


class Prometheus(Process):
    """A Prometheus with `config` (its scrape_configs and rule_files), ready on return."""

    def __init__(self, config):
        folder = scratch()
        (folder / "prometheus.yml").write_text(json.dumps(config))
        self.url = f"http://127.0.0.1:{free_port()}"
        super().__init__([
            require_tool("prometheus", "Debian package prometheus"),
            f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={self.url.removeprefix('http://')}", "--log.level=warn"])
        wait_for(self.ready, "Prometheus is ready")

    def ready(self):
        self.expect_running()
        try:
            return http_get(f"{self.url}/-/ready")
        except OSError:
            return False

    def api(self, path, **parameters):
        """The `data` of an answer; an error of the API, such as a query that does not parse, is
        an AssertionError."""
        url = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            return json.loads(http_get(url))["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
