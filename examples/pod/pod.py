#!/usr/bin/python3
"""A pod without an engine: a web server and a log shipper that share an address, a port space and a volume.

    pod.py [--runtime PATH] [--share-pid] [COMMAND …]

Makes the pod, shows what its containers share and what each has for itself, and removes it. With a COMMAND, that runs
while the pod does, and finds in its environment how to reach it:

    pod.py sh -c '$POD_RUNTIME exec $POD-web ps'

Any OCI runtime will do: there is no such thing as a pod to a runtime. It makes containers, and is told to put some of
them into namespaces that exist and below a cgroup that exists. All the rest of a pod is in this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Any

HERE = pathlib.Path(__file__).resolve().parent
CGROUPS = pathlib.Path("/sys/fs/cgroup")
MIB = 1024 * 1024
ADDRESS = "10.99.0.2"
PORT = "8080"  # as the script `serve` says

Json = dict[str, Any]

# Process 1 of the namespaces that the others join. It waits for whatever ends: with a shared process ID namespace, the
# orphans of all containers are its children.
INFRA = ["sh", "-c", "while :; do sleep 3600; done"]


class Pod:
    """The pod's parts, made on entering and removed on leaving.

    Args:
        runtime: the OCI runtime's command.
        share_pid: one process ID namespace for all.
    """

    def __init__(self, runtime: str, *, share_pid: bool = False) -> None:
        self.share_pid = share_pid
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="pod-"))
        self.name = self.directory.name
        self.runtime = [runtime, "--root", str(self.directory / "state")]
        self.undo = contextlib.ExitStack()

    def __enter__(self) -> Pod:
        with self.undo:  # what is made is removed in reverse, however far this comes
            self.make()
            self.undo = self.undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.undo.close()

    def make(self) -> None:
        self.undo.callback(shutil.rmtree, self.directory)
        volume = self.directory / "volume"
        volume.mkdir()
        self.make_cgroup(memory=64 * MIB)

        # What is shared comes first: a process that keeps the namespaces, whatever becomes of the others.
        own: list[Json] = [{"type": "mount"}, {"type": "pid"}]
        self.run("infra", INFRA, [*own, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}])
        namespaces = f"/proc/{self.pid('infra')}/ns"
        shared: list[Json] = [
            {"type": "network", "path": f"{namespaces}/net"},
            {"type": "ipc", "path": f"{namespaces}/ipc"},
            {"type": "uts", "path": f"{namespaces}/uts"},
        ]
        if self.share_pid:
            own.remove({"type": "pid"})
            shared.append({"type": "pid", "path": f"{namespaces}/pid"})

        # Each has a root, processes and limits of its own.
        logs = {"destination": "/var/log/web", "type": "bind", "source": str(volume), "options": ["bind"]}
        self.run("web", ["serve"], own + shared, [logs], memory=48 * MIB, pids=32)
        self.run("logs", ["ship"], own + shared, [logs | {"options": ["bind", "ro"]}], memory=40 * MIB, pids=16)

        # Somebody else, to visit the web server: a container that isn't in the pod.
        self.run("outside", INFRA, [{"type": "mount"}, {"type": "pid"}, {"type": "network"}])
        self.connect(self.pid("infra"), self.pid("outside"))

    def call(self, *arguments: str) -> str:
        """Call the runtime; what it prints."""
        return subprocess.run([*self.runtime, *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout

    def exec(self, name: str, *command: str) -> str:
        """Run a command in a container; what it prints, errors too, whether or not it fails."""
        argv = [*self.runtime, "exec", f"{self.name}-{name}", *command]
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return done.stdout.strip()

    def pid(self, name: str) -> int:
        """The process ID of a container's first process, here outside."""
        state = json.loads(self.call("state", f"{self.name}-{name}"))
        return int(state["pid"])

    def run(
        self,
        name: str,
        args: list[str],
        namespaces: list[Json],
        mounts: list[Json] | None = None,
        *,
        memory: int | None = None,
        pids: int | None = None,
    ) -> None:
        """Make a bundle and start a container with it, in the background. Its output goes to NAME.out."""
        bundle = self.directory / name
        (bundle / "rootfs").mkdir(parents=True)
        subprocess.run([HERE / "rootfs", bundle / "rootfs"], check=True)
        linux: Json = {
            # One parent for all. The runtime makes what is below.
            "cgroupsPath": f"/{self.name}/{name}",
            "namespaces": namespaces,
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        }
        if memory and pids:
            linux["resources"] = {"memory": {"limit": memory}, "pids": {"limit": pids}}
        capabilities = ["CAP_KILL", "CAP_NET_BIND_SERVICE"]
        config: Json = {
            "ociVersion": "1.0.2",
            "root": {"path": "rootfs"},
            "process": {
                "args": args,
                "cwd": "/",
                "env": ["PATH=/bin"],
                "user": {"uid": 0, "gid": 0},
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
                "noNewPrivileges": True,
            },
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
                {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "nodev", "ro"]},
                *(mounts or []),
            ],
            "linux": linux,
        }
        if {"type": "uts"} in namespaces:
            config["hostname"] = self.name  # the pod's: they all see it
        (bundle / "config.json").write_text(json.dumps(config, indent=4))
        argv = [*self.runtime, "run", "--detach", "--bundle", str(bundle), f"{self.name}-{name}"]
        self.undo.callback(subprocess.run, [*self.runtime, "delete", "--force", argv[-1]], check=False)
        with (self.directory / f"{name}.out").open("wb") as out:
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, stdout=out)

    def make_cgroup(self, memory: int) -> None:
        """Make the cgroup that all containers are to be in, with a limit on what they use together."""
        if (CGROUPS / "cgroup.controllers").exists():  # version 2
            (CGROUPS / "cgroup.subtree_control").write_text("+memory +pids")
            directory = CGROUPS / self.name
            limits = {"memory.max": memory, "memory.swap.max": 0}
        else:
            directory = CGROUPS / "memory" / self.name
            limits = {"memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes": memory}
        self.undo.callback(self.remove_cgroup)
        directory.mkdir()
        for file, value in limits.items():
            if (directory / file).exists():  # the kernel may have been built, or started, without a limit on swap
                (directory / file).write_text(str(value))

    def remove_cgroup(self) -> None:
        # On version 1 the runtime has made the pod's directory in the hierarchies that make_cgroup needs none of.
        for directory in [CGROUPS / self.name, *CGROUPS.glob(f"*/{self.name}")]:
            if (directory / "cgroup.procs").exists():  # still: `cpu` and `cpuacct` may be names of one hierarchy
                directory.rmdir()

    def connect(self, pod: int, outside: int) -> None:
        """A cable between two network namespaces, the ends of which are called eth0."""

        def ip(pid: int, *words: str) -> None:
            subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "ip", *words], check=True)

        ip(pod, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", str(outside))
        for pid, address in ((pod, ADDRESS), (outside, "10.99.0.1")):
            ip(pid, "address", "add", f"{address}/24", "dev", "eth0")
            ip(pid, "link", "set", "eth0", "up")
            ip(pid, "link", "set", "lo", "up")

    def environment(self) -> dict[str, str]:
        """How to reach the pod from outside."""
        return {
            "POD": self.name,
            "POD_RUNTIME": " ".join(self.runtime),
            "POD_ADDRESS": ADDRESS,
            "POD_DIRECTORY": str(self.directory),
        }


def show(pod: Pod) -> None:
    """Ask the two containers the same questions."""
    url = f"http://{ADDRESS}:{PORT}/"
    second = f"httpd -f -p {PORT}"
    ask = {
        "host name": "hostname",
        "address": "ip -4 -o address show eth0 | awk '{ print $4 }'",
        "files in /var/log/web": "ls /var/log/web",
        "process 1": "cat /proc/1/comm",
        "processes": "ps -o comm | grep -E 'httpd|ship|tail|sleep' | sort -u | xargs",
        "is there a /www?": "[ -d /www ] && echo yes || echo no",
    }
    answer = pod.exec("outside", "wget", "-q", "-O", "-", url)
    print(f"{'':24}{'web':24}logs")
    for question, command in ask.items():
        web, logs = (pod.exec(name, "sh", "-c", command) for name in ("web", "logs"))
        print(f"{question:24}{web:24}{logs}")
    print(f"\n{url}, asked from outside of the pod: {answer}")
    print(f"{url}, asked by the log shipper: {pod.exec('logs', 'wget', '-q', '-O', '-', url)}")
    print(f"a second server on port {PORT}, in the log shipper: {pod.exec('logs', 'sh', '-c', second)}")
    shipped = pod.directory / "logs.out"
    for _ in range(50):
        if len(shipped.read_text().splitlines()) >= 2:
            break
        signal.sigtimedwait([], 0.1)
    print("what the log shipper has read of the web server's log:")
    print("".join(f"    {line}\n" for line in shipped.read_text().splitlines()), end="")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--runtime", default="pyrunc", metavar="PATH", help="an OCI runtime (default: %(default)s)")
    parser.add_argument("--share-pid", action="store_true", help="the containers see one another's processes")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="what to run while the pod is there")
    known = parser.parse_args()
    if os.geteuid():
        raise SystemExit("pod.py: root is needed")
    if not shutil.which(known.runtime):
        raise SystemExit(f"pod.py: {known.runtime}: no such runtime")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # as Ctrl-C: the pod is removed on the way out
    try:
        with Pod(known.runtime, share_pid=known.share_pid) as pod:
            if known.command:
                return subprocess.run(known.command, env=os.environ | pod.environment(), check=False).returncode
            show(pod)
    except (OSError, subprocess.CalledProcessError) as e:
        raise SystemExit(f"pod.py: {e}") from None
    return 0


if __name__ == "__main__":
    sys.exit(main())
