"""The machine: a network namespace of our own, processes pinned and stopped by pid, CPU and memory they took."""

import fcntl
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

HZ = os.sysconf("SC_CLK_TCK")
LOAD_CPU, PAIR_CPU = 0, 1
_MARK = "MESH_COMPARE_INSIDE"


class Failed(Exception):
    """A pair cannot be measured."""


def enter_namespace():
    """Starts this program again inside a network namespace, if we may make one: own ports, nobody else's can be hit."""
    if os.environ.get(_MARK):
        if os.environ[_MARK] == "namespace":
            _loopback_up()
        return
    if os.geteuid() == 0 and shutil.which("unshare"):
        os.environ[_MARK] = "namespace"
        os.execvp("unshare", ["unshare", "-n", "--", sys.executable] + sys.argv)
    os.environ[_MARK] = "host"
    print("not root: measuring on the host's own loopback", file=sys.stderr)


def _loopback_up():
    """`ip link set lo up` without iproute2; and the congestion control that does not distort loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        siocsifflags, iff_up_running = 0x8914, 0x1 | 0x40
        fcntl.ioctl(probe, siocsifflags, struct.pack("16sh14x", b"lo", iff_up_running))
    for name, value in (("ip_local_port_range", "20000 65000"), ("tcp_tw_reuse", "1"), ("tcp_congestion_control", "reno")):
        try:
            with open(f"/proc/sys/net/ipv4/{name}", "w") as setting:
                setting.write(value)
        except OSError as error:
            print(f"could not set {name}: {error}", file=sys.stderr)


def describe():
    with open("/proc/cpuinfo") as info:
        model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), "unknown")
    return {"cpus": os.cpu_count(), "model": model, "kernel": platform.release(), "at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}


def is_open(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    except OSError:
        return False


class Processes:
    """Processes that we started, by role. Leaving the block stops them all, last started first."""

    def __init__(self):
        self.by_role = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for role in reversed(list(self.by_role)):
            self.stop(role)

    def get(self, role):
        process = self.by_role.get(role)
        return process.pid if process else None

    def start(self, role, argv, cpu, ports, log, ready_secs=15, cwd=None):
        """Starts `argv` on one CPU and waits until all `ports` accept. Returns milliseconds from start to ready."""
        for port in ports:
            if is_open(port):
                raise Failed(f"port {port} is taken by somebody else")
        begun = time.monotonic()
        with open(log, "ab") as sink:
            process = subprocess.Popen(["taskset", "-c", str(cpu)] + [str(word) for word in argv],
                                       stdout=sink, stderr=subprocess.STDOUT, start_new_session=True, cwd=cwd)
        self.by_role[role] = process
        while not all(is_open(port) for port in ports):
            if process.poll() is not None:
                raise Failed(f"{role} ended with {process.returncode} before it was ready: {tail(log)}")
            if time.monotonic() - begun > ready_secs:
                raise Failed(f"{role} was not ready within {ready_secs} s: {tail(log)}")
            time.sleep(0.001)
        return (time.monotonic() - begun) * 1000

    def stop(self, role):
        process = self.by_role.pop(role)
        for pid in reversed(tree(process.pid)):
            _signal(pid, signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            for pid in reversed(tree(process.pid)):
                _signal(pid, signal.SIGKILL)
            process.wait()


def _signal(pid, number):
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def tail(log):
    with open(log, errors="replace") as lines:
        return " / ".join(line.strip() for line in lines.readlines()[-3:])


def tree(pid):
    """A process and its descendants; children come after their parents."""
    pids = [pid]
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as children:
                for child in children.read().split():
                    pids += tree(int(child))
    except OSError:
        pass
    return pids


def cpu_secs(pid):
    """CPU time that a process and its descendants took so far."""
    ticks = 0
    for one in tree(pid):
        try:
            with open(f"/proc/{one}/stat") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return ticks / HZ


def busy_secs():
    """CPU time that the whole machine took so far."""
    with open("/proc/stat") as stat:
        fields = [int(field) for field in stat.readline().split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / HZ


def pss_mib(pids):
    """Proportional set size of each of these with its descendants, averaged, MiB."""
    if not pids:
        return None
    total = 0
    for pid in pids:
        for one in tree(pid):
            try:
                with open(f"/proc/{one}/smaps_rollup") as rollup:
                    total += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
            except OSError:
                pass
    return total / 1024 / len(pids)
