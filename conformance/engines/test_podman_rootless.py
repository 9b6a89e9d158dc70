"""podman as an ordinary user: the runtime is root of podman's user namespace, and nobody outside of it."""

from __future__ import annotations

import os

from conformance.engines.podman import IMAGE, OrdinaryPodman, Podman
from conformance.harness import spec

pytestmark = spec("podman.1")

STAY = (IMAGE, "sleep", "1000")
UID = OrdinaryPodman.UID


def host_ids(podman: Podman, name: str) -> tuple[int, int]:
    """The container's process's user and group as the host knows them."""
    status = os.stat(podman.box.path(f"/proc/{podman.pid(name)}"))
    return status.st_uid, status.st_gid


def test_run(ordinary_podman: Podman) -> None:
    podman = ordinary_podman
    assert podman.image_run("--", "sh", "-c", "id -u; id -g; touch /new && stat -c %u:%g /new").split() == [
        *("0", "0"),
        "0:0",
    ]
    podman.image_run("--", "sh", "-c", "exit 7", status=7)
    podman.image_run("--", "/none", status=127)


def test_mappings(ordinary_podman: Podman) -> None:
    podman = ordinary_podman
    maps = podman.image_run("--", "cat", "/proc/self/uid_map", "/proc/self/gid_map").split()
    assert maps == ["0", str(UID), "1", "1", "100000", "65536", "0", str(UID), "1", "1", "200000", "65536"]


def test_ids_on_the_host(ordinary_podman: Podman) -> None:
    podman = ordinary_podman
    podman("run", "-d", "--name", "root", "--network=none", *STAY)
    podman("run", "-d", "--name", "user", "--network=none", "--user=1000:1000", *STAY)
    assert host_ids(podman, "root") == (UID, UID)
    assert host_ids(podman, "user") == (100999, 200999)


def test_keep_id(ordinary_podman: Podman) -> None:
    podman = ordinary_podman
    podman("run", "-d", "--name", "kept", "--userns=keep-id", "--network=none", *STAY)
    assert host_ids(podman, "kept") == (UID, UID)
    assert podman("exec", "kept", "id", "-u") == str(UID)
    assert podman("exec", "--user=0", "kept", "id", "-u") == "0"


def test_a_volume_belongs_to_the_user(ordinary_podman: Podman) -> None:
    podman = ordinary_podman
    volume = f"{OrdinaryPodman.HOME}/volume"
    os.mkdir(podman.box.path(volume))
    os.chown(podman.box.path(volume), UID, UID)
    podman.image_run("-v", f"{volume}:/data", "--", "sh", "-c", "stat -c %u /data; echo text > /data/file")
    made = podman.box.path(f"{volume}/file")
    assert os.stat(made).st_uid == UID
    os.unlink(made)
    os.rmdir(podman.box.path(volume))


def test_lifecycle(ordinary_podman: Podman) -> None:
    podman = ordinary_podman
    podman("create", "--name", "life", "--network=none", *STAY)
    podman("start", "life")
    podman.wait_for("life", "running")
    assert podman("exec", "life", "id", "-u") == "0"
    assert podman("exec", "--user=1000", "life", "id", "-u") == "1000"
    podman("exec", "life", "/none", status=127)
    assert "sleep" in podman("top", "life")
    podman("restart", "--time=0", "life")
    podman.wait_for("life", "running")
    podman("stop", "--time=0", "life")
    assert podman.inspect("life")["State"]["ExitCode"] == 137
    podman("rm", "life")


def test_terminal(ordinary_podman: Podman) -> None:
    podman = ordinary_podman
    command = podman.argv("run", "--rm", "-it", "--network=none", IMAGE, "sh", "-c", "tty; stat -c %u $(tty)")
    seen = podman.box.terminal(*command, say=[])
    assert (seen.status, seen.out.split()) == (0, ["/dev/pts/0", "0"])


def test_published_port(ordinary_podman: Podman) -> None:
    """slirp4netns gives the network, which is not the runtime's doing; that the container is in it, is."""
    podman = ordinary_podman
    server = ("httpd", "-f", "-p", "80", "-h", "/etc")
    podman("run", "-d", "--name", "server", "-p", "127.0.0.1:8080:80", IMAGE, *server)
    fetched = podman.box.run("sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do"
        " busybox wget -qO- http://127.0.0.1:8080/plain && exit; sleep 0.2; done; exit 1")  # fmt: skip
    assert (fetched.status, fetched.out) == (0, "not a program\n"), fetched


def test_pod(ordinary_podman: Podman) -> None:
    """The second container joins the first one's user namespace with its network, IPC and host name."""
    podman = ordinary_podman
    podman("pod", "create", "--name", "pod")
    server = ("httpd", "-f", "-p", "81", "-h", "/etc")
    podman("run", "-d", "--pod=pod", "--name", "server", IMAGE, *server)
    podman("run", "-d", "--pod=pod", "--name", "client", *STAY)
    for kind in ("user", "net", "ipc", "uts"):
        one, two = (
            os.readlink(podman.box.path(f"/proc/{podman.pid(name)}/ns/{kind}")) for name in ("server", "client")
        )
        assert one == two
    asked = "for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://127.0.0.1:81/plain && exit; sleep 0.2; done; exit 1"
    assert podman("exec", "client", "sh", "-c", asked) == "not a program"


def test_a_pod_with_mappings_of_its_own(ordinary_podman: Podman) -> None:
    podman = ordinary_podman
    podman("pod", "create", "--name", "pod", "--userns=keep-id")
    for name in ("one", "two"):
        podman("run", "-d", "--pod=pod", "--name", name, *STAY)
    one, two = (os.readlink(podman.box.path(f"/proc/{podman.pid(name)}/ns/user")) for name in ("one", "two"))
    assert one == two
    assert podman("exec", "two", "id", "-u") == str(UID)
