#!/usr/bin/env python3
"""Makes deploy/grafana/*.png anew: two servers under a load that changes for MINUTES, a real
Prometheus, and deploy/grafana/render.py. Needs matplotlib; no part of the tests.

    make_pictures.py [MINUTES]      default 4
"""
import signal
import subprocess
import sys
import time

from support import CLIENT, DEPLOY, Prometheus, Server, load

MINUTES = float(sys.argv[1]) if len(sys.argv) > 1 else 4.0
# (share of the time, flags of the load): calm, busy, more than two servers take, calm.
PHASES = [(0.3, ["--rate=4"]), (0.3, ["--rate=14"]), (0.12, ["--rate=60"]),
          (0.28, ["--rate=7"])]


def main():
    servers = [Server("--max_concurrent=8", "--max_queue=12", "--predictor=sketch")
               for _ in range(2)]
    target = "--server=ipv4:" + ",".join(server.address for server in servers)
    prometheus = Prometheus({
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(DEPLOY / "prometheus" / "rules.yaml")],
        "scrape_configs": [{"job_name": "lacuna", "static_configs": [
            {"targets": [server.metrics for server in servers]}]}]})
    for share, flags in PHASES:
        running = load(target, "--duration=1h", "--max_tokens=48", "--prompt_tokens=64", *flags)
        end = time.monotonic() + 60 * MINUTES * share
        while time.monotonic() < end:
            # Somebody who repeats a prompt, somebody who errs, somebody who does not wait.
            for extra in (["--max_tokens=16"], ["--temperature=9"],
                          ["--max_tokens=400", "--ignore_eos", "--timeout=50ms"]):
                subprocess.run([CLIENT, "generate", target, "--prompt=It was a dark night, and the "
                                "old man looked at the sea, which was as calm as he had ever "
                                "seen it, and thought of the boats of his youth", *extra],
                               capture_output=True, check=False)
            time.sleep(1)
        running.signal(signal.SIGINT)
        running.wait()
    for name in ("lacuna-service", "lacuna-sparsity"):
        subprocess.run([sys.executable, DEPLOY / "grafana" / "render.py",
                        DEPLOY / "grafana" / f"{name}.json", prometheus.url, str(MINUTES),
                        DEPLOY / "grafana" / f"{name}.png"], check=True)


if __name__ == "__main__":
    main()
