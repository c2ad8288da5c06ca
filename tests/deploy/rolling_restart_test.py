#!/usr/bin/env python3
"""Two servers are restarted in turn under load: no call fails, no stream is cut short."""
import json
import signal
import unittest

from support import Server, free_port, load, wait_for

ROUNDS = 5


class RollingRestartTest(unittest.TestCase):

    def restart_under_load(self, *flags):
        """The report of a load that ran while both servers were restarted ROUNDS times."""
        ports = [(free_port(), free_port()) for _ in range(2)]

        def start(i):
            return Server(*flags, port=ports[i][0], metrics_port=ports[i][1])
        servers = [start(0), start(1)]
        running = load("--server=ipv4:" + ",".join(server.address for server in servers),
                       "--concurrency=6", "--duration=10m", "--max_tokens=40",
                       "--prompt_tokens=16")
        for _ in range(ROUNDS):
            for i, server in enumerate(servers):
                def has_streams(server=server):
                    requests = [line for line in server.log() if line["event"] == "request"]
                    running.expect_running()
                    return len(requests) > 10
                wait_for(has_streams, "the server gets its share of the load")
                server.signal(signal.SIGTERM)
                self.assertEqual(server.wait(), 0, server.text())
                servers[i] = start(i)
        running.signal(signal.SIGINT)
        running.wait()
        return json.loads(running.text()[running.text().index("{"):])

    def test_nothing_fails_and_nothing_is_cut_short(self):
        report = self.restart_under_load("--drain_lead=300ms", "--drain_timeout=45s")
        print(f"{report['ok']} calls, {2 * ROUNDS} restarts, errors {report['errors_by_code']}")
        self.assertEqual(report["errors_by_code"], {})
        self.assertEqual(report["ok"], report["requests"])
        self.assertGreater(report["ok"], 2 * ROUNDS * 10)
        self.assertEqual(report["completion_tokens"], 40 * report["ok"])

    def test_servers_that_do_not_drain_are_noticed(self):
        report = self.restart_under_load("--drain_lead=0s", "--drain_timeout=0s")
        self.assertIn("UNAVAILABLE", report["errors_by_code"])


if __name__ == "__main__":
    unittest.main()
