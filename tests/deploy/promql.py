"""Every PromQL expression that deploy/ ships, and the metrics that an expression names."""
import dataclasses
import json
import re

import yaml

from support import DEPLOY

# As Grafana would fill them in. A predictor audits one step in 128, which takes a while where a
# sanitizer makes steps slow.
GRAFANA_VARIABLES = {"$__rate_interval": "1m", "$__range": "1m", "$namespace": ".*",
                     "$model": ".*", "$instance": ".*"}
KEYWORDS = {"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring",
            "group_left", "group_right", "inf", "nan"}


@dataclasses.dataclass
class Expression:
    source: str  # file and place, for people
    text: str
    record: str = ""  # name of the recording rule, if it is one


def metric_names(text):
    """The metrics that an expression names."""
    text = re.sub(r'"[^"]*"', "", text)
    text = re.sub(r"\{[^}]*\}|\[[^\]]*\]", "", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", text)
    names = re.findall(r"(?<![\w.:])[A-Za-z_:][\w:]*(?!\w|:|\s*\()", text)
    return {name for name in names if name.lower() not in KEYWORDS}


def of_dashboard(name, dashboard):
    def panels(of):
        for panel in of:
            yield panel
            yield from panels(panel.get("panels", []))
    for panel in panels(dashboard["panels"]):
        for target in panel.get("targets", []):
            text = target["expr"]
            for variable, value in GRAFANA_VARIABLES.items():
                text = text.replace(variable, value)
            yield Expression(f"{name}, panel '{panel['title']}'", text)


def of_rules(name, rules):
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                yield Expression(f"{name}, {rule['record']}", rule["expr"], rule["record"])
            else:
                # An alert that does not fire has no samples. With `bool` each comparison has one
                # where its operands have one; what `absent` misses is there.
                text = re.sub(r" (==|!=|>=|<=|>|<) ", r" \1 bool ", rule["expr"])
                text = re.sub(r"^absent\((.*)\)$", r"\1", text)
                yield Expression(f"{name}, {rule['alert']}", text)


def of_adapter(name, rules):
    for rule in rules:
        text = rule["metricsQuery"].replace("<<.LabelMatchers>>", 'namespace="default",pod=~".+"')
        yield Expression(f"{name}, {rule['name']['as']}", text.replace("<<.GroupBy>>", "pod"))
        yield Expression(f"{name}, series of {rule['name']['as']}", rule["seriesQuery"])


def of_scaled_object(name, scaled_object):
    for trigger in scaled_object["spec"]["triggers"]:
        yield Expression(f"{name}, {trigger['name']}", trigger["metadata"]["query"])


def shipped():
    for path in sorted((DEPLOY / "grafana").glob("*.json")):
        yield from of_dashboard(path.name, json.loads(path.read_text()))
    path = DEPLOY / "prometheus" / "rules.yaml"
    yield from of_rules(path.name, yaml.safe_load(path.read_text()))
    path = DEPLOY / "prometheus" / "adapter-rules.yaml"
    yield from of_adapter(path.name, yaml.safe_load(path.read_text()))
