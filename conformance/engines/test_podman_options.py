"""podman: what run's options do, seen from inside the container and from its cgroup."""

from __future__ import annotations

import json
import os
import signal

import pytest

from conformance.engines.box import retry
from conformance.engines.podman import IMAGE, Podman
from conformance.harness import spec

pytestmark = spec("podman-run.1")

STAY = (IMAGE, "sleep", "1000")


def status_field(podman: Podman, field: str, *options: str) -> str:
    """A field of /proc/self/status in a container with these options."""
    text = podman.image_run(*options, "--", "cat", "/proc/self/status")
    return next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith(field + ":"))


# ------------------------------------------------------------------------------------------- process and identity


def test_an_ordinary_container_is_isolated(podman: Podman) -> None:
    podman("run", "-d", "--name", "plain", "--network=none", *STAY)
    pid = podman.pid("plain")
    for kind in ("ipc", "mnt", "net", "pid", "uts"):
        ours = os.readlink(podman.box.path(f"/proc/1/ns/{kind}"))
        assert os.readlink(podman.box.path(f"/proc/{pid}/ns/{kind}")) != ours, kind
    assert podman("exec", "plain", "cat", "/proc/1/cmdline").split("\0")[:2] == ["sleep", "1000"]


def test_entrypoint_and_env(podman: Podman) -> None:
    assert podman.image_run("--entrypoint=sh", "--env", "COLOUR=dark red", "--", "-c", 'echo "$COLOUR"') == "dark red"


def test_hostname(podman: Podman) -> None:
    assert podman.image_run("--hostname=lighthouse", "--", "hostname") == "lighthouse"


def test_user(podman: Podman) -> None:
    assert (
        podman.image_run("--user=user", "--group-add=2000", "--", "id")
        == "uid=1000(user) gid=1000(user) groups=1000(user),2000(extra)"
    )
    assert podman.image_run("--user=1234:5678", "--", "sh", "-c", "id -u; id -g").split() == ["1234", "5678"]


def test_a_user_other_than_root_has_no_capabilities(podman: Podman) -> None:
    assert int(status_field(podman, "CapEff", "--user=user"), 16) == 0


def test_umask(podman: Podman) -> None:
    assert podman.image_run("--umask=0077", "--", "sh", "-c", "umask") == "0077"


def test_workdir(podman: Podman) -> None:
    assert podman.image_run("-w", "/work", "--", "pwd") == "/work"


def test_init_is_pid_1_and_reaps(podman: Podman) -> None:
    podman(
        "run",
        "-d",
        "--init",
        "--name",
        "reaped",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "(sleep 0 &); echo up; exec sleep 1000",
    )
    assert "init" in podman("exec", "reaped", "cat", "/proc/1/cmdline")
    retry(lambda: "Z" not in podman("exec", "reaped", "ps", "-o", "stat"), "a zombie stays")
    podman("stop", "--time=20", "reaped")
    assert podman.inspect("reaped")["State"]["ExitCode"] == 128 + signal.SIGTERM


def test_capabilities_dropped_and_added(podman: Podman) -> None:
    chown, net_admin, net_raw = 1 << 0, 1 << 12, 1 << 13
    usual = int(status_field(podman, "CapEff"), 16)
    assert usual & chown and not usual & net_admin
    changed = int(status_field(podman, "CapEff", "--cap-drop=CHOWN", "--cap-add=NET_ADMIN"), 16)
    assert changed == (usual | net_admin) & ~chown
    for field in ("CapPrm", "CapEff", "CapBnd", "CapInh"):
        assert int(status_field(podman, field, "--cap-drop=ALL"), 16) == 0, field
    only = int(status_field(podman, "CapBnd", "--cap-drop=ALL", "--cap-add=NET_RAW"), 16)
    assert only == net_raw


def test_privileged(podman: Podman) -> None:
    everything = next(
        line.split()[1] for line in podman.box.read("/proc/1/status").splitlines() if line.startswith("CapBnd")
    )
    assert status_field(podman, "CapEff", "--privileged") == everything
    assert status_field(podman, "Seccomp", "--privileged") == "0"
    podman.image_run(
        "--privileged", "--", "sh", "-c", "mount -t tmpfs none /tmp && test -w /sys/kernel && test -e /dev/kmsg"
    )


def test_no_new_privileges(podman: Podman) -> None:
    assert status_field(podman, "NoNewPrivs") == "0"
    assert status_field(podman, "NoNewPrivs", "--security-opt=no-new-privileges") == "1"


def test_seccomp_is_on_by_default(podman: Podman) -> None:
    assert status_field(podman, "Seccomp") == "2"
    assert status_field(podman, "Seccomp", "--security-opt=seccomp=unconfined") == "0"


def test_a_seccomp_profile_of_ones_own(podman: Podman) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 122},
            {"names": ["sysinfo"], "action": "SCMP_ACT_KILL_PROCESS"},
        ],
    }
    with open(podman.box.path("/run/profile.json"), "w") as f:
        json.dump(profile, f)
    done = podman.result(
        "run", "--rm", "--network=none", "--security-opt=seccomp=/run/profile.json", IMAGE, "mkdir", "/tmp/x", status=1
    )
    assert "Disk quota exceeded" in done.err  # errno 122
    podman.image_run("--security-opt=seccomp=/run/profile.json", "--", "rmdir", "/work")
    podman.image_run("--security-opt=seccomp=/run/profile.json", "--", "uptime", status=128 + signal.SIGSYS)


def test_ulimit(podman: Podman) -> None:
    script = "ulimit -Sn; ulimit -Hn; ulimit -Sc"
    # nproc too: podman's own default for it is above the hard limit of a machine like this
    limits = ["--ulimit=nofile=500:600", "--ulimit=core=0:0", "--ulimit=nproc=5000:5000"]
    assert podman.image_run(*limits, "--", "sh", "-c", script).split() == ["500", "600", "0"]


def test_sysctl(podman: Podman) -> None:
    seen = podman.image_run(
        "--sysctl=net.ipv4.ip_unprivileged_port_start=77",
        "--sysctl=kernel.msgmax=4444",
        "--",
        "cat",
        "/proc/sys/net/ipv4/ip_unprivileged_port_start",
        "/proc/sys/kernel/msgmax",
    )
    assert seen.split() == ["77", "4444"]


def test_oom_score_adj(podman: Podman) -> None:
    assert podman.image_run("--oom-score-adj=300", "--", "cat", "/proc/self/oom_score_adj") == "300"


def test_timezone_of_the_image(podman: Podman) -> None:
    assert podman.image_run("--env", "TZ=XYZ-3", "--", "date", "-d", "@0", "+%H%Z") == "03XYZ"


# ------------------------------------------------------------------------------------------- limits


def test_memory_limit(podman: Podman) -> None:
    podman("run", "-d", "--name", "small", "--memory=64m", "--memory-reservation=32m", "--network=none", *STAY)
    pid = podman.pid("small")
    assert podman.box.cgroup_file(pid, "memory/memory.limit_in_bytes", "memory.max") == str(64 << 20)
    assert podman.box.cgroup_file(pid, "memory/memory.soft_limit_in_bytes", "memory.low") == str(32 << 20)


def test_memory_limit_is_enforced(podman: Podman) -> None:
    fill = [
        "--memory=16m",
        "--memory-swap=16m",
        "--network=none",
        IMAGE,
        "sh",
        "-c",
        "head -c 64m /dev/zero | tail -c 64m | wc -c; exit 0",
    ]
    assert podman("run", "--rm", *fill) != str(64 << 20)


def test_pids_limit_is_enforced(podman: Podman) -> None:
    podman("run", "-d", "--name", "few", "--pids-limit=10", "--network=none", *STAY)
    assert podman.box.cgroup_file(podman.pid("few"), "pids/pids.max", "pids.max") == "10"
    done = podman.result("exec", "few", "sh", "-c", "for i in $(seq 20); do sleep 5 & done", status=None)
    assert "can't fork" in done.err, done


def test_cpu_limits(podman: Podman) -> None:
    podman("run", "-d", "--name", "slow", "--cpus=0.5", "--cpu-shares=512", "--cpuset-cpus=0", "--network=none", *STAY)
    pid = podman.pid("slow")
    quota = podman.box.cgroup_file(pid, "cpu/cpu.cfs_quota_us", "cpu.max").split()[0]
    assert quota == "50000"
    assert podman.box.cgroup_file(pid, "cpuset/cpuset.cpus", "cpuset.cpus") == "0"
    assert podman.box.cgroup_file(pid, "cpu/cpu.shares", "cpu.weight") in ("512", "20", "59")


def test_the_cgroup_is_where_podman_asked(podman: Podman) -> None:
    container = podman("run", "-d", "--name", "where", "--network=none", *STAY)
    paths = {line.split(":", 2)[2] for line in podman.box.read(f"/proc/{podman.pid('where')}/cgroup").splitlines()}
    assert f"/{podman.box.name}/libpod-{container}" in {path.removesuffix("/container") for path in paths}


def test_exec_is_in_the_containers_cgroup(podman: Podman) -> None:
    podman("run", "-d", "--name", "where", "--cgroupns=host", "--network=none", *STAY)
    script = "cat /proc/1/cgroup >/tmp/1; cat /proc/self/cgroup >/tmp/2; cmp /tmp/1 /tmp/2"
    podman("exec", "where", "sh", "-c", script)


# ------------------------------------------------------------------------------------------- root and mounts


def test_read_only(podman: Podman) -> None:
    script = "touch /etc/x 2>/dev/null && exit 9; touch /tmp/x && touch /dev/shm/x"
    podman.image_run("--read-only", "--", "sh", "-c", script)
    podman.image_run("--read-only", "--read-only-tmpfs=false", "--", "touch", "/tmp/x", status=1)


def test_volumes(podman: Podman) -> None:
    shared = podman.box.path("/run/shared")
    os.mkdir(shared)
    with open(f"{shared}/word", "w") as f:
        f.write("hello")
    assert (
        podman.image_run("-v", "/run/shared:/data", "--", "sh", "-c", "cat /data/word; echo back >/data/answer")
        == "hello"
    )
    assert podman.box.read("/run/shared/answer") == "back\n"
    assert podman.image_run("-v", "/run/shared:/data:ro", "--", "cat", "/data/word") == "hello"
    podman.image_run("-v", "/run/shared:/data:ro", "--", "touch", "/data/new", status=1)
    assert podman.image_run("-v", "/run/shared/word:/etc/one-file:ro", "--", "cat", "/etc/one-file") == "hello"
    options = podman.image_run(
        "-v", "/run/shared:/data:noexec,nosuid", "--", "grep", " /data ", "/proc/self/mounts"
    ).split()[3]
    assert {"noexec", "nosuid"} <= set(options.split(","))


def test_named_volume_keeps_its_content(podman: Podman) -> None:
    podman("volume", "create", "store")
    try:
        podman.image_run("-v", "store:/home", "--", "sh", "-c", "echo kept >/home/it")
        assert podman.image_run("-v", "store:/home", "--", "cat", "/home/it") == "kept"
    finally:
        podman("volume", "rm", "-f", "store")


@pytest.mark.parametrize("propagation", ["rprivate", "rslave", "rshared"])
def test_volume_propagation(podman: Podman, propagation: str) -> None:
    box = podman.box
    top = f"/run/tree-{propagation}"
    os.makedirs(box.path(f"{top}/host"))
    os.makedirs(box.path(f"{top}/container"))
    podman("run", "-d", "--name", "prop", "--privileged", "--network=none", "-v", f"{top}:/tree:{propagation}", *STAY)
    assert box.run("mount", "-t", "tmpfs", "none", f"{top}/host").status == 0
    try:
        down = podman.result("exec", "prop", "grep", "-q", " /tree/host ", "/proc/self/mounts", status=None).status == 0
        podman("exec", "prop", "mount", "-t", "tmpfs", "none", "/tree/container")
        up = f"{top}/container" in box.mounts()
    finally:
        box.run("umount", f"{top}/host")
        box.run("umount", f"{top}/container")
    assert (down, up) == (propagation != "rprivate", propagation == "rshared")


def test_no_mount_of_the_container_reaches_the_host(podman: Podman) -> None:
    before = set(podman.box.mounts())
    podman("run", "-d", "--name", "quiet", "--tmpfs=/scratch", "--network=none", *STAY)
    added = set(podman.box.mounts()) - before
    assert all("/merged" in m or m.endswith("/shm") or m == "/var/lib/containers/storage/overlay" for m in added), added
    assert not [m for m in added if "/merged/" in m], added


def test_tmpfs(podman: Podman) -> None:
    line = podman.image_run(
        "--tmpfs=/scratch:rw,size=3m,mode=1770,noexec", "--", "grep", " /scratch ", "/proc/self/mounts"
    )
    kind, options = line.split()[2], line.split()[3].split(",")
    assert kind == "tmpfs" and {"rw", "size=3072k", "mode=1770", "noexec"} <= set(options), line


def test_shm_size(podman: Podman) -> None:
    assert (
        podman.image_run("--shm-size=5m", "--", "sh", "-c", "df -k /dev/shm | tail -n 1 | awk '{print $2}'") == "5120"
    )


def test_mount_option(podman: Podman) -> None:
    line = podman.image_run(
        "--mount=type=tmpfs,destination=/m,tmpfs-size=1m,ro", "--", "grep", " /m ", "/proc/self/mounts"
    )
    assert {"ro", "size=1024k"} <= set(line.split()[3].split(",")), line


def test_masked_and_readonly_paths(podman: Podman) -> None:
    assert podman.image_run("--", "sh", "-c", "cat /proc/kcore /proc/keys /proc/timer_list 2>/dev/null | wc -c") == "0"
    podman.image_run("--", "sh", "-c", "echo 1 >/proc/sys/kernel/panic", status=1)
    podman.image_run("--", "sh", "-c", "echo 1 >/proc/sysrq-trigger", status=1)


def test_device(podman: Podman) -> None:
    assert (
        podman.image_run("--device=/dev/null:/dev/nothing:rw", "--", "stat", "-c", "%t:%T %F", "/dev/nothing")
        == "1:3 character special file"
    )
    podman.image_run("--device=/dev/null:/dev/nothing:rw", "--", "sh", "-c", "echo x >/dev/nothing")
    if os.path.exists("/dev/fuse"):
        podman.image_run("--device=/dev/fuse", "--", "sh", "-c", "exec 3<>/dev/fuse")


def test_a_device_that_was_not_given_cannot_be_opened(podman: Podman) -> None:
    script = "mknod /tmp/kmsg c 1 11 && ! dd if=/tmp/kmsg of=/dev/null count=1 2>/dev/null"
    podman.image_run("--cap-add=MKNOD", "--", "sh", "-c", script)
    podman.image_run(
        "--device-cgroup-rule=c 1:11 rm",
        "--cap-add=MKNOD,SYSLOG",
        "--security-opt=seccomp=unconfined",
        "--",
        "sh",
        "-c",
        "mknod /tmp/kmsg c 1 11 && exec 3</tmp/kmsg",
    )


def test_default_devices(podman: Podman) -> None:
    names = podman.image_run("--", "sh", "-c", "ls /dev").split()
    assert {
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "ptmx",
        "pts",
        "shm",
        "mqueue",
        "fd",
        "stdin",
        "stdout",
        "stderr",
    } <= set(names)
    assert "console" in podman.image_run("-t", "--", "ls", "/dev").split()


# ------------------------------------------------------------------------------------------- user namespaces


def test_uidmap(podman: Podman) -> None:
    maps = ["--uidmap=0:100000:2000", "--gidmap=0:200000:2000"]
    podman("run", "-d", "--name", "mapped", *maps, "--network=none", *STAY)
    assert podman.box.read(f"/proc/{podman.pid('mapped')}/uid_map").split() == ["0", "100000", "2000"]
    assert podman.box.read(f"/proc/{podman.pid('mapped')}/gid_map").split() == ["0", "200000", "2000"]
    assert os.stat(podman.box.path(f"/proc/{podman.pid('mapped')}")).st_uid == 100000
    assert podman(
        "exec", "mapped", "sh", "-c", "id -u; touch /tmp/mine; stat -c %u:%g /tmp/mine /bin/busybox"
    ).split() == ["0", "0:0", "0:0"]


def test_userns_auto(podman: Podman) -> None:
    for name in ("one", "two"):
        podman("run", "-d", "--name", name, "--userns=auto:size=1000", "--network=none", *STAY)
    first, second = (podman.box.read(f"/proc/{podman.pid(name)}/uid_map").split() for name in ("one", "two"))
    assert int(first[1]) >= 1000000 and int(second[1]) >= 1000000 and first[1] != second[1]
    assert podman("exec", "one", "stat", "-c", "%u", "/etc/passwd") == "0"


def test_userns_of_another_container(podman: Podman) -> None:
    podman("run", "-d", "--name", "owner", "--uidmap=0:100000:2000", "--network=none", *STAY)
    podman("run", "-d", "--name", "guest", "--userns=container:owner", "--network=none", *STAY)
    both = [os.readlink(podman.box.path(f"/proc/{podman.pid(name)}/ns/user")) for name in ("owner", "guest")]
    assert both[0] == both[1] != os.readlink(podman.box.path("/proc/1/ns/user"))


def test_userns_keep_id_is_for_rootless_podman(podman: Podman) -> None:
    podman("run", "--rm", "--userns=keep-id", "--network=none", IMAGE, "true", status=125)
