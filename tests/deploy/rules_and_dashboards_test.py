#!/usr/bin/env python3
"""The Prometheus rules and Grafana dashboards as files; live_metrics_test.py runs them."""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import unittest

import support
try:
    import yaml
except ImportError:
    support.skip("PyYAML is not there; Debian package python3-yaml")

RULES = support.DEPLOY / "prometheus" / "rules.yaml"
RULES_TEST = support.DEPLOY / "prometheus" / "rules_test.yaml"
GRAFANA = support.DEPLOY / "grafana"
PROMTOOL = support.require_tool("promtool", "Debian package prometheus")


def promtool(*args):
    return subprocess.run([PROMTOOL, *map(str, args)], capture_output=True, text=True, check=False)


class RulesTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        groups = yaml.safe_load(RULES.read_text())["groups"]
        cls.alerts = {rule["alert"]: rule for group in groups for rule in group["rules"]
                      if "alert" in rule}

    def test_promtool_accepts_the_rules(self):
        result = promtool("check", "rules", "--lint-fatal", RULES)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_alerts_fire_and_resolve(self):
        result = promtool("test", "rules", RULES_TEST)
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)

    def test_the_unit_tests_notice_a_changed_threshold(self):
        folder = support.scratch()
        changed = RULES.read_text().replace("lacuna:queue_fill:ratio > 0.8",
                                            "lacuna:queue_fill:ratio > 0.95")
        self.assertNotEqual(changed, RULES.read_text())
        (folder / RULES.name).write_text(changed)
        shutil.copy(RULES_TEST, folder)
        result = promtool("test", "rules", folder / RULES_TEST.name)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("LacunaQueueSaturated", result.stdout + result.stderr)

    def test_each_alert_is_tested_before_during_and_after(self):
        states = {name: [] for name in self.alerts}
        for test in yaml.safe_load(RULES_TEST.read_text())["tests"]:
            for check in test.get("alert_rule_test", []):
                states[check["alertname"]].append(bool(check["exp_alerts"]))
        for name, seen in states.items():
            with self.subTest(name):
                self.assertEqual((seen[0], True in seen, seen[-1]), (False, True, False))

    def test_each_alert_has_a_severity_and_a_runbook_paragraph(self):
        headings = {heading.lower() for heading in
                    re.findall(r"^#+ (\w+)$", (support.DEPLOY / "README.md").read_text(), re.M)}
        for name, rule in self.alerts.items():
            with self.subTest(name):
                self.assertIn(rule["labels"]["severity"], ("page", "ticket"))
                self.assertEqual(rule["annotations"]["runbook"],
                                 f"deploy/README.md#{name.lower()}")
                self.assertIn(name.lower(), headings)


class DashboardsTest(unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.dashboards = {path.name: json.loads(path.read_text())
                          for path in sorted(GRAFANA.glob("*.json"))}

    def panels(self):
        """(dashboard, panel) pairs, rows left out."""
        for name, dashboard in self.dashboards.items():
            for panel in dashboard["panels"]:
                for each in [panel, *panel.get("panels", [])]:
                    if each["type"] != "row":
                        yield name, each

    def test_the_files_are_what_the_script_writes(self):
        folder = support.scratch()
        shutil.copy(GRAFANA / "make_dashboards.py", folder)
        subprocess.run([sys.executable, folder / "make_dashboards.py"], check=True)
        self.assertEqual(len(self.dashboards), 2)
        for name in self.dashboards:
            self.assertEqual((folder / name).read_text(), (GRAFANA / name).read_text(), name)

    def test_each_panel_has_a_description_a_unit_and_thresholds(self):
        for name, panel in self.panels():
            with self.subTest(f"{name}, {panel['title']}"):
                self.assertGreater(len(panel["description"]), 20)
                defaults = panel["fieldConfig"]["defaults"]
                self.assertTrue(defaults["unit"])
                steps = defaults["thresholds"]["steps"]
                self.assertIsNone(steps[0]["value"])
                values = [step["value"] for step in steps[1:]]
                self.assertEqual(values, sorted(values))
                self.assertTrue(panel["targets"])

    def test_each_query_uses_the_variables(self):
        for name, dashboard in self.dashboards.items():
            variables = {v["name"] for v in dashboard["templating"]["list"]}
            self.assertEqual(variables, {"datasource", "namespace", "model", "instance"}, name)
            self.assertGreaterEqual(dashboard["schemaVersion"], 41)
        for name, panel in self.panels():
            with self.subTest(f"{name}, {panel['title']}"):
                self.assertEqual(panel["datasource"]["uid"], "$datasource")
                for target in panel["targets"]:
                    self.assertRegex(target["expr"], r"\$namespace.*(\$model|\$instance)")

    def test_panels_do_not_overlap_and_have_ids_of_their_own(self):
        for name, dashboard in self.dashboards.items():
            ids, cells = set(), set()
            for panel in dashboard["panels"]:
                at = panel["gridPos"]
                self.assertLessEqual(at["x"] + at["w"], 24)
                for each in [panel, *panel.get("panels", [])]:
                    self.assertNotIn(each["id"], ids, name)
                    ids.add(each["id"])
                for x in range(at["x"], at["x"] + at["w"]):
                    for y in range(at["y"], at["y"] + at["h"]):
                        self.assertNotIn((x, y), cells, f"{name}, {panel['title']}")
                        cells.add((x, y))

    def test_every_metric_of_the_server_is_shown_or_alerted_on(self):
        contract = support.REPO / "tests" / "integration" / "metrics_contract.txt"
        names = re.findall(r"^(lacuna_\w+)", contract.read_text(), re.M)
        text = "".join(path.read_text() for path in
                       [*GRAFANA.glob("*.json"), pathlib.Path(RULES)])
        self.assertEqual([name for name in names if name not in text], [])


if __name__ == "__main__":
    unittest.main()
