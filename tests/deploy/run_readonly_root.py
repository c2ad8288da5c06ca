#!/usr/bin/env python3
"""Runs a program as a container would: in the root file system ROOT mounted read-only, as uid 65532
without capabilities, as PID 1. Needs root. The network is that of the machine.

Usage: run_readonly_root.py ROOT PROGRAM [ARGUMENT...]
"""
import ctypes
import os
import pathlib
import subprocess
import sys

USER = 65532
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38


def mount(*args):
    subprocess.run(["mount", *args], check=True)


def inside(root, command):
    """In the new namespaces; becomes `command`."""
    mount("--make-rprivate", "/")
    mount("--bind", root, root)
    mount("-t", "proc", "-o", "nosuid,nodev,noexec", "proc", f"{root}/proc")
    mount("-o", "remount,bind,ro", root)
    libc = ctypes.CDLL(None)
    capabilities = int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1
    # From here on Python's own files are out of reach.
    os.chroot(root)
    os.chdir("/")
    for capability in range(capabilities):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.setgroups([])
    os.setgid(USER)
    os.setuid(USER)
    os.execve(command[0], command, {})


if __name__ == "__main__":
    if sys.argv[1] == "--inside":
        inside(sys.argv[2], sys.argv[3:])
    os.execvp("unshare", ["unshare", "--mount", "--pid", "--fork", "--kill-child",
                          sys.executable, __file__, "--inside", *sys.argv[1:]])
