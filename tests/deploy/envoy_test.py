#!/usr/bin/env python3
"""The Envoy example with a real Envoy before real servers: TLS, JSON, retries, the rate limit."""
import json
import re
import signal
import ssl
import subprocess
import unittest
import urllib.error
import urllib.request

import support
try:
    import yaml
except ImportError:
    support.skip("PyYAML is not there; Debian package python3-yaml")

from support import CLIENT, DEPLOY, REPO, Process, Server, free_port, load, scratch, wait_for

ENVOY = support.require_tool("envoy", "tests/deploy/make_venv.sh installs it")
PROTOC = support.require_tool("protoc", "Debian package protobuf-compiler")
OPENSSL = support.require_tool("openssl", "Debian package openssl")
SERVICE = "lacuna.v1.GenerationService"


def make_files(folder):
    """What the example wants under /etc/envoy, as its comment says."""
    text = (DEPLOY / "examples" / "envoy" / "envoy.yaml").read_text()
    command = re.search(r"(protoc .*\\\n.*)\n", text).group(1).replace("\\\n#", "")
    subprocess.run(command.replace("lacuna.pb", f"{folder}/lacuna.pb", 1), shell=True, check=True,
                   cwd=REPO)
    subprocess.run([OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt",
                    "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1", "-subj",
                    "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", folder / "tls.key", "-out", folder / "tls.crt"],
                   check=True, capture_output=True)
    return yaml.safe_load(text.replace("/etc/envoy/", f"{folder}/"))


def changed(config, change):
    """A copy of `config`, after `change` of its connection manager."""
    config = json.loads(json.dumps(config))
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    change(manager["typed_config"])
    return config


def with_rate_limit(config, **bucket):
    """A copy of `config` with these fields of the token bucket replaced."""
    return changed(config, lambda manager: manager["http_filters"][0]["typed_config"][
        "token_bucket"].update(bucket))


class Envoy(Process):

    def __init__(self, config, folder, servers):
        self.port, self.admin = free_port(), free_port()
        resources = config["static_resources"]
        resources["listeners"][0]["address"]["socket_address"] = {
            "address": "127.0.0.1", "port_value": self.port}
        config["admin"]["address"]["socket_address"]["port_value"] = self.admin
        resources["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
            {"endpoint": {"address": {"socket_address": {
                "address": "127.0.0.1", "port_value": int(server.address.rsplit(":", 1)[1])}}}}
            for server in servers]
        (folder / "envoy.json").write_text(json.dumps(config))
        super().__init__([ENVOY, "-c", folder / "envoy.json", "--concurrency", "1",
                          "--log-level", "warn", "--use-dynamic-base-id"])
        self.address = f"localhost:{self.port}"
        wait_for(lambda: self.healthy() == len(servers), "Envoy finds the servers healthy")

    def healthy(self):
        self.expect_running()
        try:
            stats = support.http_get(
                f"http://127.0.0.1:{self.admin}/stats?filter=cluster.lacuna.membership_healthy")
        except OSError:
            return 0
        return int((re.findall(r"(\d+)$", stats.strip()) or [0])[0])


class EnvoyTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.folder = scratch()
        # The example's limit is for people; a load test in a closed loop is faster than that.
        cls.config = with_rate_limit(make_files(cls.folder), max_tokens=10**6,
                                     tokens_per_fill=10**6)
        cls.ports = [(free_port(), free_port()) for _ in range(2)]
        cls.servers = [cls.start_server(i) for i in range(2)]
        cls.envoy = Envoy(cls.config, cls.folder, cls.servers)
        cls.tls = ("--tls", f"--tls_ca={cls.folder / 'tls.crt'}")

    @classmethod
    def start_server(cls, i):
        return Server("--drain_lead=5s", port=cls.ports[i][0], metrics_port=cls.ports[i][1])

    def call(self, method, body, envoy=None, **headers):
        """(HTTP status, headers, text) of a call as JSON."""
        context = ssl.create_default_context(cafile=self.folder / "tls.crt")
        request = urllib.request.Request(
            f"https://{(envoy or self.envoy).address}/{SERVICE}/{method}",
            json.dumps(body).encode(), {"content-type": "application/json", **headers})
        try:
            with urllib.request.urlopen(request, context=context, timeout=60) as response:
                return response.status, response.headers, response.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read().decode()

    def post(self, method, body):
        """(HTTP status, JSON) of a call as JSON."""
        status, _, text = self.call(method, body)
        return status, json.loads(text or "null")

    def test_grpc_over_tls(self):
        result = subprocess.run(
            [CLIENT, "generate", f"--server={self.envoy.address}", *self.tls, "--prompt=The sea",
             "--max_tokens=8"], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stderr)
        plain = subprocess.run([CLIENT, "models", f"--server={self.envoy.address}",
                                "--timeout=3s"], capture_output=True, check=False)
        self.assertNotEqual(plain.returncode, 0)

    def test_json(self):
        body = {"text": "The sea", "sampling": {"seed": 1}, "stopping": {"max_tokens": 8}}
        status, answer = self.post("Generate", body)
        self.assertEqual(status, 200)
        text = answer["choices"][0]["text"]
        self.assertEqual(answer["choices"][0]["finished"]["usage"]["completion_tokens"], 8)
        status, messages = self.post("GenerateStream", body)
        self.assertEqual(status, 200)
        self.assertEqual("".join(m["delta"].get("text", "") for m in messages if "delta" in m),
                         text)
        status, error = self.post("Generate", {"text": "x", "sampling": {"temperature": 9}})
        self.assertEqual(status, 400)
        self.assertIn("temperature", json.dumps(error))

    def test_json_may_be_larger_than_the_buffers_of_a_connection(self):
        status, _, text = self.call("Generate", {
            "text": "The sea", "sampling": {"n": 4, "seed": 1},
            "stopping": {"max_tokens": 100, "ignore_eos": True}, "output": {"logprobs": 20}})
        self.assertEqual(status, 200, text)
        self.assertGreater(len(text), 2 * 65536)
        # What is too long for the model is the server's to refuse.
        status, _, text = self.call("Generate", {"text": "x" * 2**20})
        self.assertEqual(status, 400, text)
        self.assertIn("prompt", text)

    def test_the_request_id_of_the_client_is_echoed(self):
        for sent in ("order 66", "7fb3693f-4061-4070-95d4-3889aa8a22a5"):
            status, headers, text = self.call(
                "Generate", {"text": "The sea", "stopping": {"max_tokens": 1}},
                **{"x-request-id": sent})
            self.assertEqual(status, 200, text)
            self.assertEqual(headers["x-request-id"], sent)
            self.assertEqual(json.loads(text)["started"]["request_id"], sent)

    def test_an_answer_may_take_longer_than_an_idle_stream_lives(self):
        config = changed(self.config,
                         lambda manager: manager.update(stream_idle_timeout="0.1s"))
        status, _, text = self.call("Generate", {
            "text": "The sea", "sampling": {"n": 4}, "stopping": {
                "max_tokens": 400, "ignore_eos": True}}, Envoy(config, scratch(), self.servers))
        self.assertEqual(status, 200, text)
        finished = json.loads(text)["choices"][0]["finished"]
        self.assertGreater(finished["timings"]["total_ms"], 100)

    def test_only_the_generation_service_is_reachable(self):
        result = subprocess.run([CLIENT, "health", f"--server={self.envoy.address}", *self.tls],
                                capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("UNIMPLEMENTED", result.stderr)

    def test_a_rolling_restart_behind_envoy_loses_nothing(self):
        running = load(f"--server={self.envoy.address}", *self.tls, "--concurrency=4",
                       "--duration=10m", "--max_tokens=40", "--prompt_tokens=16")
        for i in range(2):
            wait_for(lambda i=i: sum(line["event"] == "request"
                                     for line in self.servers[i].log()) > 10, "load")
            self.servers[i].signal(signal.SIGTERM)
            self.assertEqual(self.servers[i].wait(), 0)
            self.servers[i] = self.start_server(i)
            wait_for(lambda: self.envoy.healthy() == 2, "both healthy again")
        running.signal(signal.SIGINT)
        running.wait()
        report = json.loads(running.text()[running.text().index("{"):])
        self.assertEqual(report["errors_by_code"], {})
        self.assertEqual(report["completion_tokens"], 40 * report["ok"])

    def test_the_rate_limit_is_resource_exhausted(self):
        config = with_rate_limit(self.config, max_tokens=3, tokens_per_fill=1,
                                 fill_interval="3600s")
        limited = Envoy(config, scratch(), self.servers)
        report = load(f"--server={limited.address}", *self.tls, "--requests=5", "--max_tokens=2")
        report.wait()
        result = json.loads(report.text()[report.text().index("{"):])
        # One call was for the model's description.
        self.assertEqual((result["ok"], result["errors_by_code"]), (2, {"RESOURCE_EXHAUSTED": 3}))


if __name__ == "__main__":
    unittest.main()
