#!/usr/bin/env python3
"""The Dockerfiles and the compose file, as far as they can be checked without an engine;
container_proof.sh builds and runs the first."""
import pathlib
import re
import shutil
import subprocess
import unittest

import support
try:
    import yaml
except ImportError:
    support.skip("PyYAML is not there; Debian package python3-yaml")

DOCKER = support.DEPLOY / "docker"
COMPOSE = DOCKER / "compose"


class DockerfilesTest(unittest.TestCase):

    def setUp(self):
        self.cpu = (DOCKER / "Dockerfile").read_text()
        self.cuda = (DOCKER / "Dockerfile.cuda").read_text()

    def test_both_end_alike(self):
        def tail(text):
            return re.sub(r"(description=).*", r"\1", text[text.index("FROM ${BASE} AS sbom"):])
        self.assertEqual(tail(self.cpu), tail(self.cuda))
        self.assertEqual((DOCKER / "Dockerfile.dockerignore").read_text(),
                         (DOCKER / "Dockerfile.cuda.dockerignore").read_text())

    def test_one_version_everywhere(self):
        cmake = (support.REPO / "CMakeLists.txt").read_text()
        version = re.search(r"project\(lacuna VERSION (\S+)", cmake).group(1)
        self.assertIn(f"ARG VERSION={version}\n", self.cpu)
        chart = yaml.safe_load((support.DEPLOY / "helm" / "lacuna" / "Chart.yaml").read_text())
        self.assertEqual((chart["version"], chart["appVersion"]), (version, version))
        compose = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
        self.assertEqual(compose["services"]["lacuna"]["image"], f"lacuna:{version}")

    def test_what_the_image_copies_is_not_ignored(self):
        ignored = (DOCKER / "Dockerfile.dockerignore").read_text().split()
        for folder in ("scripts", "server", "client", "models", "proto", "runtime", "kernels"):
            self.assertTrue((support.REPO / folder).is_dir())
            self.assertNotIn(folder, ignored)


class ComposeTest(unittest.TestCase):

    def setUp(self):
        self.services = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]

    def mounts(self, service):
        """{path in the container: file or folder here}"""
        pairs = (volume.removesuffix(":ro").rsplit(":", 1)
                 for volume in self.services[service].get("volumes", []))
        return {target: (COMPOSE / source).resolve() for source, target in pairs}

    def test_mounted_files_exist(self):
        for service in ("prometheus", "grafana"):
            for path in self.mounts(service).values():
                self.assertTrue(path.exists(), path)

    def test_prometheus_takes_its_configuration(self):
        promtool = support.require_tool("promtool", "Debian package prometheus")
        folder = support.scratch()
        for target, source in self.mounts("prometheus").items():
            shutil.copy(source, folder / pathlib.Path(target).name)
        result = subprocess.run([promtool, "check", "config", folder / "prometheus.yml"],
                                capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
        self.assertIn("1 rule files found", result.stdout)
        config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
        (job,) = config["scrape_configs"]
        self.assertRegex(job["job_name"], "lacuna")  # as the alert LacunaDown knows it
        self.assertEqual(job["static_configs"][0]["targets"], ["lacuna:9464"])

    def test_grafana_finds_prometheus_and_the_dashboards(self):
        mounts = self.mounts("grafana")
        provider = yaml.safe_load((COMPOSE / "grafana" / "dashboards.yaml").read_text())
        folder = mounts[provider["providers"][0]["options"]["path"]]
        self.assertEqual(len(list(folder.glob("*.json"))), 2)
        home = self.services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        self.assertTrue((folder / pathlib.Path(home).name).exists())
        source = yaml.safe_load((COMPOSE / "grafana" / "datasource.yaml").read_text())
        self.assertEqual(source["datasources"][0]["url"], "http://prometheus:9090")

    def test_the_server_is_restricted_and_has_time_to_drain(self):
        lacuna = self.services["lacuna"]
        self.assertIs(lacuna["read_only"], True)
        self.assertEqual(lacuna["cap_drop"], ["ALL"])
        drain = int(re.search(r"--drain_timeout=(\d+)s", " ".join(lacuna["command"])).group(1))
        self.assertGreater(int(lacuna["stop_grace_period"].removesuffix("s")), drain)
        published = [port for service in self.services.values() for port in service["ports"]]
        self.assertTrue(all(port.startswith("127.0.0.1:") for port in published), published)


if __name__ == "__main__":
    unittest.main()
