#!/usr/bin/env python3
"""What scheduling, sampling and gRPC add to the steps of a server that decodes.

Starts a server on loopback, lets `lacuna load` keep CONCURRENCY streams decoding, and compares the
time that steps took (lacuna_step_duration_seconds: planning and the model) with the wall time: the
rest is sampling, detokenizing, sending, and waiting for a core that gRPC or the client used.

Usage: server_overhead.py --model=DIRECTORY [--concurrency=8] [--temperature=1] [-- SERVER FLAGS]
"""
import argparse
import pathlib
import re
import subprocess
import time
import urllib.request

BIN = pathlib.Path(__file__).resolve().parents[1] / "build" / "release" / "bin"
WARM_UP_S = 5


def read(metrics):
    """Steps that decode, seconds of all steps, and when the last step ended."""
    text = urllib.request.urlopen(f"http://{metrics}/metrics").read().decode()

    def total(name):
        return sum(map(float, re.findall(rf"^{name}\{{[^}}]*\}} (\S+)$", text, re.M)))

    return (total("lacuna_step_duration_seconds_count"), total("lacuna_step_duration_seconds_sum"),
            total("lacuna_engine_last_step_timestamp_seconds"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--temperature", type=float, default=1)
    parser.add_argument("--seconds", type=float, default=20, help="to measure for, each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("flags", nargs="*", help="more flags of the server, after --")
    args = parser.parse_args()
    server = subprocess.Popen(
        [BIN / "lacuna-server", f"--model={args.model}", "--listen=127.0.0.1:0",
         "--metrics_listen=127.0.0.1:0", *args.flags], stdout=subprocess.PIPE, text=True,
        stderr=subprocess.DEVNULL)
    load = None
    try:
        grpc, metrics = re.search(r"grpc=(\S+) metrics=(\S+)", server.stdout.readline()).groups()
        load = subprocess.Popen(
            [BIN / "lacuna", "load", f"--server={grpc}", f"--concurrency={args.concurrency}",
             f"--requests={args.concurrency}", "--prompt_tokens=16", "--max_tokens=100000",
             f"--temperature={args.temperature}"], stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL)
        time.sleep(WARM_UP_S)
        before = read(metrics)
        for _ in range(args.rounds):
            time.sleep(args.seconds)
            after = read(metrics)
            steps, seconds, wall = (b - a for a, b in zip(before, after))
            print(f"{steps:.0f} steps of {1e3 * wall / steps:.2f} ms, of which "
                  f"{1e3 * (wall - seconds) / steps:.2f} ms outside of the model: "
                  f"{100 * (wall - seconds) / wall:.2f} %")
            before = after
    finally:
        for process in (load, server):
            if process is not None:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
