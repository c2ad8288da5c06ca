#!/usr/bin/env python3
"""A real Prometheus scrapes a real server under load; every expression in deploy/ has data."""
import copy
import json
import math
import re
import unittest

try:
    import yaml  # noqa: F401
except ImportError:
    import support
    support.skip("PyYAML is not there; Debian package python3-yaml")

import manifests
import promql
from support import (DEPLOY, SERVER, Prometheus, Server, find_tool, http_get, load, require_tool,
                     wait_for)

require_tool("prometheus", "Debian package prometheus")

# A machine that stands still while the test runs raises these, and rightly.
MAY_BE_RAISED = {"LacunaTtftBudgetBurnFast", "LacunaTtftBudgetBurnSlow", "LacunaEngineStalled",
                 "LacunaDown", "LacunaQueueSaturated"}


def scraped_names(text):
    """Names of the samples of a scrape."""
    return {re.match(r"[\w:]+", line).group() for line in text.splitlines()
            if line and not line.startswith("#")}


class LiveMetricsTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        # Some expressions are about a predictor.
        server = Server("--predictor=sketch", "--predictor_recall=0.999")
        load(f"--server={server.address}", "--rate=4", "--duration=10m", "--max_tokens=24",
             "--prompt_tokens=48")
        cls.prometheus = Prometheus({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(DEPLOY / "prometheus" / "rules.yaml")],
            "scrape_configs": [{
                "job_name": "lacuna",
                "static_configs": [{
                    "targets": [server.metrics],
                    # What service discovery adds in a cluster.
                    "labels": {"namespace": "default", "pod": "lacuna-7d9c5b8f6c-x2k4p"}}]}]})
        cls.scraped = scraped_names(http_get(f"http://{server.metrics}/metrics"))
        cls.expressions = list(promql.shipped())
        cls.recorded = {e.record for e in cls.expressions if e.record}

    def problem(self, expression, deadline_s=60):
        """What is wrong with an expression, or None."""
        for name in promql.metric_names(expression.text):
            if name not in self.scraped | self.recorded | {"up"}:
                return f"{expression.source}: no metric {name}"

        def finite():
            result = self.prometheus.api("query", query=expression.text)["result"]
            return any(math.isfinite(float(sample["value"][1])) for sample in result)
        try:
            wait_for(finite, "data", deadline_s)
        except AssertionError:
            return f"{expression.source}: no data: {expression.text}"
        return None

    def test_every_expression_names_live_metrics_and_has_data(self):
        self.assertGreater(len(self.expressions), 90)
        problems = [p for p in map(self.problem, self.expressions) if p]
        print(f"{len(self.expressions)} expressions")
        self.assertEqual(problems, [])

    def test_what_keda_asks_has_data(self):
        if find_tool("helm") is None:
            self.skipTest("helm is not there; tests/deploy/make_venv.sh installs it")
        (scaled,) = manifests.objects(manifests.rendered(manifests.KEDA), "ScaledObject")
        expressions = list(promql.of_scaled_object("keda", scaled))
        self.assertEqual(len(expressions), 2)
        self.assertEqual([p for p in map(self.problem, expressions) if p], [])

    def test_the_rules_are_loaded_and_healthy(self):
        def evaluated():
            groups = self.prometheus.api("rules")["groups"]
            rules = [rule for group in groups for rule in group["rules"]]
            return rules if all(rule["health"] != "unknown" for rule in rules) else None
        rules = wait_for(evaluated, "all rules evaluated")
        self.assertEqual([r["name"] for r in rules if r["health"] != "ok"], [])
        alarmed = {rule["name"] for rule in rules if rule.get("alerts")}
        self.assertEqual(alarmed - MAY_BE_RAISED, set())

    def test_a_renamed_metric_is_noticed(self):
        text = (DEPLOY / "grafana" / "lacuna-service.json").read_text()
        renamed = json.loads(text.replace("lacuna_requests_running", "lacuna_running_requests"))
        problems = [self.problem(e) for e in promql.of_dashboard("renamed", renamed)
                    if "lacuna_running_requests" in e.text]
        self.assertGreaterEqual(len(problems), 2)
        for problem in problems:
            self.assertIn("no metric lacuna_running_requests", str(problem))

    def test_a_renamed_label_value_is_noticed(self):
        expression = copy.copy(next(e for e in self.expressions if 'path="sparse"' in e.text))
        self.assertIsNone(self.problem(expression))
        expression.text = expression.text.replace('path="sparse"', 'path="sparce"')
        self.assertIn("no data", str(self.problem(expression, deadline_s=3)))


if __name__ == "__main__":
    unittest.main()
