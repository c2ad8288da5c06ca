#!/usr/bin/env python3
"""The Helm chart, the Kustomize overlays and the examples, checked as a cluster would."""
import functools
import hashlib
import http.server
import re
import subprocess
import threading
import unittest

import support
try:
    import yaml
except ImportError:
    support.skip("PyYAML is not there; Debian package python3-yaml")

import manifests
from manifests import CHART, INSTALLS, OVERLAYS, container, objects, rendered

VALIDATE = support.require_tool("kubernetes-validate", "tests/deploy/make_venv.sh installs it")
KUBERNETES_VERSIONS = ("1.35", "1.37")
# Their schemas belong to other projects; what the tests below say of them is checked.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
# What a cluster refuses that enforces the Pod Security Standard "restricted".
POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER_SECURITY = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                      "capabilities": {"drop": ["ALL"]}}


@functools.cache
def everything():
    """YAML by name: the installs of the chart, and the overlays."""
    texts = {f"helm, {name}": rendered(values) for name, values in INSTALLS.items()}
    for overlay in OVERLAYS:
        folder = support.DEPLOY / "kustomize" / "overlays" / overlay
        texts[f"kustomize, {overlay}"] = manifests.kustomized(folder)
    return texts


def validate(text, version):
    path = support.scratch() / "manifest.yaml"
    path.write_text(text)
    return subprocess.run([VALIDATE, "--strict", "-k", version, path], capture_output=True,
                          text=True, check=False)


def deployment(text):
    (found,) = objects(text, "Deployment")
    return found["spec"]


class SchemaTest(unittest.TestCase):

    def test_everything_is_valid_for_two_versions_of_kubernetes(self):
        count = 0
        for name, text in everything().items():
            core = [each for each in objects(text) if each["kind"] not in CUSTOM]
            for version in KUBERNETES_VERSIONS:
                with self.subTest(name, version=version):
                    result = validate(yaml.safe_dump_all(core), version)
                    self.assertEqual(result.returncode, 0, result.stdout)
                    self.assertNotIn("WARN", result.stdout + result.stderr)
                    count += len(core)
        print(f"{count} validations")

    def test_validation_notices_a_wrong_type_and_an_unknown_field(self):
        text = everything()["helm, defaults"]
        for right, wrong in (("replicas: 2", "replicas: two"),
                             ("enableServiceLinks: false", "enableServicelinks: false"),
                             ("periodSeconds: 2", "periodSecs: 2")):
            self.assertIn(right, text)
            result = validate(text.replace(right, wrong), KUBERNETES_VERSIONS[-1])
            self.assertNotEqual(result.returncode, 0, wrong)

    def test_helm_lints_the_chart(self):
        result = manifests.helm("lint", "--strict", CHART)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_wrong_values_are_refused_and_named(self):
        for values, named in (
                (["replicaCount=2"], "replicaCount"),  # no such value
                (["replicas=many"], "replicas"),  # wrong type
                (["replicas=-1"], "replicas"),  # out of range
                (["server.ffn=spares"], "ffn"),  # not of the list
                (["server.threads=2000"], "threads"),
                (["model.source=pvc"], "claimName"),  # what another value asks for is missing
                (["autoscaling.type=keda"], "prometheusAddress"),
                (["image.digest=sha256:123"], "digest"),  # wrong form
                (["ports.grpc=443"], "grpc"),  # a port that the user may not bind
                (["resources.limits.memory=lots"], "memory"),
                (["model.source=download", "model.download.image=c",
                  "model.download.files[0].name=../x", "model.download.files[0].url=http://m/x",
                  f"model.download.files[0].sha256={manifests.SHA256}"], "name"),
                (["model.source=download", "model.download.image=c",
                  "model.download.files[0].name=x", "model.download.files[0].url=http://m/x"],
                 "sha256")):
            with self.subTest(values):
                result = manifests.template(values)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn("schema", result.stderr)
                self.assertIn(named, result.stderr)


class KustomizeTest(unittest.TestCase):

    def test_the_base_is_what_the_chart_gives(self):
        folder = support.scratch()
        manifests.require_tool("helm", "tests/deploy/make_venv.sh installs it")
        here = support.DEPLOY / "kustomize"
        subprocess.run([here / "render.sh", folder], check=True,
                       env={"PATH": f"{support.VENV / 'bin'}:/usr/bin:/bin"})
        for path in ("base/lacuna.yaml", "components/monitoring/monitoring.yaml"):
            self.assertEqual((folder / path).read_text(), (here / path).read_text(),
                             f"{path}: run deploy/kustomize/render.sh")


class PodTest(unittest.TestCase):

    def test_pods_are_restricted(self):
        for name, text in everything().items():
            with self.subTest(name):
                pod = deployment(text)["template"]["spec"]
                for key, value in POD_SECURITY.items():
                    self.assertEqual(pod["securityContext"][key], value)
                self.assertGreater(pod["securityContext"]["runAsUser"], 0)
                self.assertIs(pod["automountServiceAccountToken"], False)
                for each in pod["containers"] + pod.get("initContainers", []):
                    self.assertEqual(each["securityContext"], CONTAINER_SECURITY)
                for forbidden in ("hostNetwork", "hostPID", "hostIPC"):
                    self.assertNotIn(forbidden, pod)
                for volume in pod.get("volumes", []):
                    self.assertNotIn("hostPath", volume)

    def test_the_grace_period_is_longer_than_the_shutdown(self):
        slow = rendered(["shutdown.preStopSeconds=30", "shutdown.drainTimeoutSeconds=600"])
        for name, text in {**everything(), "slow": slow}.items():
            with self.subTest(name):
                pod = deployment(text)["template"]["spec"]
                pre_stop = container(text)["lifecycle"]["preStop"]["sleep"]["seconds"]
                args = " ".join(container(text)["args"])
                lead, drain = (int(re.search(f"--drain_{what}=([0-9]+)s", args).group(1))
                               for what in ("lead", "timeout"))
                self.assertGreater(pod["terminationGracePeriodSeconds"], pre_stop + lead + drain)

    def test_the_server_takes_the_arguments(self):
        runtime = (support.DEPLOY / "examples" / "kserve" / "serving-runtime.yaml").read_text()
        tokens = support.scratch() / "tokens"
        tokens.write_text("secret\n")
        for name, text in {**everything(), "kserve": runtime}.items():
            # Where the files lie and the ports differ here; this build may have no CUDA.
            args = [re.sub(r"^(--model=.*?)/(mnt/)?models.*",
                           rf"\1{support.REPO}/models/lacuna-stories-3m", arg)
                    .replace("{{.Name}}", "m").replace("/secrets/tokens", str(tokens))
                    for arg in container(text)["args"]
                    if not re.match("--(listen|metrics_listen|device=cuda)", arg)]
            with self.subTest(name):
                server = support.Server(*args)
                server.kill()

    def test_selectors_and_ports_agree(self):
        for name, text in everything().items():
            with self.subTest(name):
                labels = deployment(text)["template"]["metadata"]["labels"].items()
                ports = {port["name"]: port["containerPort"]
                         for port in container(text)["ports"]}
                args = container(text)["args"]
                self.assertIn(f"--listen=0.0.0.0:{ports['grpc']}", args)
                self.assertIn(f"--metrics_listen=0.0.0.0:{ports['metrics']}", args)
                services = objects(text, "Service")
                self.assertEqual(len(services), 2)
                self.assertEqual([s["metadata"]["name"] for s in services
                                  if s["spec"].get("clusterIP") == "None"], ["lacuna-headless"])
                for service in services:
                    self.assertLessEqual(service["spec"]["selector"].items(), labels)
                    for port in service["spec"]["ports"]:
                        self.assertIn(port["targetPort"], ports)
                for kind, at in (("PodDisruptionBudget", "selector"),
                                 ("NetworkPolicy", "podSelector")):
                    for each in objects(text, kind):
                        self.assertLessEqual(each["spec"][at]["matchLabels"].items(), labels)

    def test_what_prometheus_and_grafana_get_is_what_is_tested(self):
        rules = yaml.safe_load((support.DEPLOY / "prometheus" / "rules.yaml").read_text())
        for name in ("helm, embedded, monitored", "kustomize, cpu"):
            text = everything()[name]
            with self.subTest(name):
                (rule,) = objects(text, "PrometheusRule")
                self.assertEqual(rule["spec"], rules)
                (monitor,) = objects(text, "ServiceMonitor")
                scraped = [service for service in objects(text, "Service")
                           if monitor["spec"]["selector"]["matchLabels"].items()
                           <= service["metadata"]["labels"].items()
                           and any(port["name"] == monitor["spec"]["endpoints"][0]["port"]
                                   for port in service["spec"]["ports"])]
                self.assertEqual(len(scraped), 1)
                # The alert LacunaDown knows the job by its name.
                self.assertIn("lacuna", scraped[0]["metadata"]["labels"][
                    monitor["spec"]["jobLabel"]])
                self.assertEqual(set(manifests.dashboards(text)),
                                 {"lacuna-service.json", "lacuna-sparsity.json"})

    def test_the_autoscaler_names_metrics_of_the_adapter(self):
        (autoscaler,) = objects(everything()["helm, pvc, hpa"], "HorizontalPodAutoscaler")
        rules = yaml.safe_load((support.DEPLOY / "prometheus" / "adapter-rules.yaml").read_text())
        self.assertEqual([metric["pods"]["metric"]["name"]
                          for metric in autoscaler["spec"]["metrics"]],
                         [rule["name"]["as"] for rule in rules])
        for name in ("helm, pvc, hpa", "helm, image, keda"):
            self.assertNotIn("replicas", deployment(everything()[name]))

    def test_keda_asks_for_the_pods_of_the_release_and_keeps_them_without_an_answer(self):
        long = "lacuna-" + "x" * 43
        for release, pods, others in (
                # With a Deployment's hashes; of a long name the last dash is cut off.
                ("lacuna", ["lacuna-7d9c5b8f6c-x2k4p", "lacuna-65d8-x2k4p"],
                 ["lacuna-13b-7d9c5b8f6c-x2k4p", "lacuna-0", "my-lacuna-7d9c5b8f6c-x2k4p"]),
                (long, [f"{long}-7d9c5b8x2k4p"], ["lacuna-7d9c5b8f6c-x2k4p"])):
            flags = [flag for value in manifests.KEDA for flag in ("--set", value)]
            text = manifests.helm("template", release, CHART, *flags).stdout
            (scaled,) = objects(text, "ScaledObject")
            for trigger in scaled["spec"]["triggers"]:
                self.assertEqual(trigger["metadata"]["ignoreNullValues"], "false")
                patterns = re.findall('pod=~"(.*?)"', trigger["metadata"]["query"])
                self.assertTrue(patterns)
                for pattern in patterns:
                    for pod in pods:
                        self.assertRegex(pod, f"^(?:{pattern})$")
                    for pod in others:
                        self.assertNotRegex(pod, f"^(?:{pattern})$")

    def test_the_inference_pool_finds_the_pods(self):
        text = (support.DEPLOY / "examples" / "inference-pool" / "inference-pool.yaml").read_text()
        (pool,) = objects(text, "InferencePool")
        default = everything()["helm, defaults"]
        self.assertLessEqual(pool["spec"]["selector"]["matchLabels"].items(),
                             deployment(default)["template"]["metadata"]["labels"].items())
        self.assertEqual([port["number"] for port in pool["spec"]["targetPorts"]],
                         [container(default)["ports"][0]["containerPort"]])


class DownloadTest(unittest.TestCase):
    """Runs the script of the init container."""

    @classmethod
    def setUpClass(cls):
        cls.folder = support.scratch()
        (cls.folder / "config.json").write_text("{}")
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=cls.folder)
        cls.web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=cls.web.serve_forever, daemon=True).start()

    @classmethod
    def tearDownClass(cls):
        cls.web.shutdown()
        cls.web.server_close()

    def download(self, sha256, target):
        text = rendered([
            "model.source=download", "model.download.image=curl",
            "model.download.files[0].name=config.json",
            f"model.download.files[0].url=http://127.0.0.1:{self.web.server_port}/config.json",
            f"model.download.files[0].sha256={sha256}"])
        init = deployment(text)["template"]["spec"]["initContainers"][0]
        script = init["args"][0].replace("/models", str(target))
        return subprocess.run([*init["command"], script], capture_output=True, text=True,
                              check=False)

    def test_a_file_with_the_right_sum_is_kept(self):
        target = support.scratch()
        sha256 = hashlib.sha256(b"{}").hexdigest()
        result = self.download(sha256, target)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((target / "config.json").read_text(), "{}")
        before = (target / "config.json").stat().st_mtime_ns
        self.assertEqual(self.download(sha256, target).returncode, 0)
        self.assertEqual((target / "config.json").stat().st_mtime_ns, before)

    def test_a_file_with_another_sum_fails_the_pod(self):
        result = self.download(manifests.SHA256, support.scratch())
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("config.json: FAILED", result.stdout)


if __name__ == "__main__":
    unittest.main()
