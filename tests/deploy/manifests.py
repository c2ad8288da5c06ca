"""What the Helm chart, the Kustomize overlays and the examples give, as objects."""
import json
import subprocess

import yaml

from support import DEPLOY, require_tool

CHART = DEPLOY / "helm" / "lacuna"
KEDA = ["autoscaling.type=keda", "autoscaling.prometheusAddress=http://prometheus.monitoring:9090"]
MONITORING = ["monitoring.serviceMonitor=true", "monitoring.prometheusRule=true",
              "monitoring.dashboards=true"]
SHA256 = "0" * 64
# Values of one install each; together they reach every branch of the templates.
INSTALLS = {
    "defaults": [],
    "embedded, monitored": MONITORING + ["monitoring.labels.release=prometheus",
                                         "podLabels.team=ml", "podAnnotations.note=x"],
    "pvc, hpa": ["model.source=pvc", "model.pvc.claimName=m", "model.name=m", "model.path=a/b",
                 "autoscaling.type=hpa", "server.kvCacheMb=256"],
    "image, keda": ["model.source=image", "model.image.reference=models/m:1", *KEDA,
                    "server.extraArgs[0]=--reflection", "serviceAccount.create=false",
                    "image.digest=sha256:" + SHA256],
    "download": ["model.source=download", "model.download.image=curl:1",
                 "model.download.files[0].name=config.json",
                 "model.download.files[0].url=http://models/config.json",
                 f"model.download.files[0].sha256={SHA256}", "server.tokensSecret.name=tokens",
                 "server.extraEnv[0].name=LACUNA_ISA", "server.extraEnv[0].value=avx2"],
    "gpu": ["gpu.enabled=true", "priorityClassName=high", "runtimeClassName=nvidia",
            "nodeSelector.gpu=h100", "tolerations[0].key=x", "tolerations[0].operator=Exists",
            "topologySpread.enabled=false", "networkPolicy.enabled=false",
            "podDisruptionBudget.enabled=false", "imagePullSecrets[0].name=pull"],
}
OVERLAYS = ("cpu", "gpu")


def helm(*args):
    program = require_tool("helm", "tests/deploy/make_venv.sh installs it")
    return subprocess.run([program, *map(str, args)], capture_output=True, text=True, check=False)


def template(values, namespace="default"):
    """`helm template`, as a finished process."""
    flags = [flag for value in values for flag in ("--set", value)]
    return helm("template", "lacuna", CHART, "--namespace", namespace, *flags)


def rendered(values, namespace="default"):
    """YAML text of an install."""
    result = template(values, namespace)
    assert result.returncode == 0, result.stderr
    return result.stdout


def kustomized(folder):
    program = require_tool("kubectl", "tests/deploy/make_venv.sh installs it")
    return subprocess.run([program, "kustomize", folder], capture_output=True, text=True,
                          check=True).stdout


def objects(text, kind=None):
    found = [each for each in yaml.safe_load_all(text) if each]
    return [each for each in found if kind in (None, each["kind"])]


def container(text):
    """The server's container in a Deployment or ServingRuntime."""
    for each in objects(text):
        if each["kind"] == "Deployment":
            return each["spec"]["template"]["spec"]["containers"][0]
        if each["kind"] == "ServingRuntime":
            return each["spec"]["containers"][0]
    raise AssertionError("no Deployment and no ServingRuntime")


def dashboards(text):
    """The dashboards of the ConfigMap, by file name."""
    (config_map,) = objects(text, "ConfigMap")
    return {name: json.loads(data) for name, data in config_map["data"].items()}
