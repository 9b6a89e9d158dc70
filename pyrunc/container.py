"""The life of a container, as the specification tells it (runtime.md, Lifecycle), and the library's `Container`.

Each operation reads the state on disk, plans steps where there is something to build, runs them, and writes down what
the next operation can't ask the kernel.
"""

from __future__ import annotations

import os
import time

from pyrunc.errors import Error, NoSuchContainer, NotRunning
from pyrunc.linux.proc import start_time
from pyrunc.state import State

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from pyrunc.birth import Log
    from pyrunc.cgroups.base import Manager
    from pyrunc.notify import Relay
    from pyrunc.resctrl import Group
    from pyrunc.steps import Step


DEFAULT_ROOT = "/run/pyrunc"

SIGKILL = 9

NO_PROCESS = "is required: without a process there is nothing to start"

#: How long `delete --force` waits for a killed init to be gone, in seconds: it may be in an uninterruptible call.
KILL_TIMEOUT = 10.0

#: How long `delete` waits for an init to be gone that nobody has written down, in seconds.
ORPHAN_TIMEOUT = 2.0

#: After how long it looks for what keeps init from ending, in seconds.
THAW_AFTER = 0.2


class Container:
    """A container that exists: it has been created and not yet deleted.

    Get one by `Container.create` or `Container.load`. Its process goes on when this object or its program ends.

    Attributes:
        id: its ID.
    """

    __slots__ = ("_log", "_state", "id")

    def __init__(self, container_id: str, state: State, log: Log | None = None) -> None:
        self.id = container_id
        self._state = state
        self._log = log

    # -- into the world

    @classmethod
    def create(
        cls,
        container_id: str,
        bundle: str,
        *,
        root: str = DEFAULT_ROOT,
        pid_file: str | None = None,
        console_socket: str | None = None,
        pidfd_socket: str | None = None,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        preserve_fds: int = 0,
        systemd_cgroup: bool = False,
        rootless: bool | None = None,
        notify_socket: str | None = None,
        stdio: tuple[int, int, int] | None = None,
        log: Log | None = None,
    ) -> Container:
        """Create a container and leave it waiting for `start` (runtime.md, Create).

        Args:
            container_id: letters, digits and ``_+.-``; unique below `root`.
            bundle: path of the directory with config.json.
            root: directory of the states of containers; other operations must name the same.
            pid_file: path of a file to write init's process ID to.
            console_socket: path of a Unix socket that gets the pseudoterminal's master where process.terminal is true.
            pidfd_socket: path of a Unix socket that gets a pidfd of init.
            no_pivot: move the root filesystem instead of pivot_root(2), for a host that runs from an initramfs.
            no_new_keyring: let the container keep the caller's session keyring.
            preserve_fds: how many descriptors from 3 up the container's process inherits, besides stdio.
            systemd_cgroup: have systemd make the cgroup.
            rootless: whether to go without a cgroup that may not be made; None for: if not the machine's root.
            notify_socket: give the container a socket for sd_notify(3) whose READY=1 `start` is to pass on to this one.
            stdio: descriptors for the process's stdin, stdout and stderr in place of the caller's own.

        Raises:
            Error: and then nothing is left of it.
        """
        from pyrunc.birth import Birth, prepare_foreground

        birth = Birth(
            container_id, bundle, root, log, no_pivot, no_new_keyring, systemd_cgroup, rootless, notify_socket
        )
        ctx = birth.shared(preserve_fds, stdio)
        terminal = birth.config.get("process", {}).get("terminal", False)
        prepare_foreground(ctx, terminal, console_socket, detach=True)
        try:
            state = birth.create(ctx, pid_file, pidfd_socket, lambda state: cls(container_id, state, log)._destroy())
        finally:
            if ctx.console_fd >= 0:
                os.close(ctx.console_fd)
        state.unlock()
        return cls(container_id, state, log)

    @classmethod
    def run(
        cls,
        container_id: str,
        bundle: str,
        *,
        root: str = DEFAULT_ROOT,
        detach: bool = False,
        keep: bool = False,
        subreaper: bool = False,
        forward_signals: bool = False,
        pid_file: str | None = None,
        console_socket: str | None = None,
        pidfd_socket: str | None = None,
        no_pivot: bool = False,
        no_new_keyring: bool = False,
        preserve_fds: int = 0,
        systemd_cgroup: bool = False,
        rootless: bool | None = None,
        notify_socket: str | None = None,
        stdio: tuple[int, int, int] | None = None,
        log: Log | None = None,
    ) -> int:
        """Create and start a container, wait for its end and delete it.

        Args:
            detach: don't wait; the result is 0 then, and the container remains.
            keep: don't delete it at the end.
            subreaper: adopt and reap what its processes leave behind (prctl(2) PR_SET_CHILD_SUBREAPER).
            forward_signals: send the signals that this process gets to the container meanwhile. Takes over this
                process's signal handlers, so only for a program that does nothing else.

        For the other arguments see `create`.

        Returns:
            the exit status of the container's process, 128 + N if signal N ended it.
        """
        from pyrunc import handover
        from pyrunc.birth import Birth, prepare_foreground

        birth = Birth(
            container_id, bundle, root, log, no_pivot, no_new_keyring, systemd_cgroup, rootless, notify_socket
        )
        if "process" not in birth.config:
            raise Error(NO_PROCESS, pointer="/process")
        terminal = birth.config["process"].get("terminal", False)
        ctx = birth.shared(preserve_fds, stdio)
        foreground = prepare_foreground(ctx, terminal, console_socket, detach, subreaper, forward_signals)
        relay: Relay | None = None
        try:
            state = birth.create(
                ctx, pid_file, pidfd_socket, lambda state: cls(container_id, state, log)._destroy(), fifo=False
            )
            container = cls(container_id, state, log)
            try:
                relay = container._relay(notify_socket)
                if foreground is not None:
                    foreground.attach()
                handover.go_on(ctx)
                # An engine may ask for this container's state or kill it from now on
                state.unlock()
                container._hooks(birth.config, "poststart", "running")
                if foreground is None:
                    if relay is not None:
                        relay.wait(ctx.init_pid)
                    return 0
                status = foreground.wait(ctx.init_pid, relay)
            except BaseException:
                handover.abandon(ctx)
                container._abort()
                raise
        finally:
            if relay is not None:
                relay.close()
            if foreground is not None:
                foreground.close()
            if ctx.console_fd >= 0:
                os.close(ctx.console_fd)
        if not keep:
            container.delete(force=True)
        return status

    @classmethod
    def load(cls, container_id: str, *, root: str = DEFAULT_ROOT, log: Log | None = None) -> Container:
        """The container of this ID.

        Raises:
            NoSuchContainer: there is none.
        """
        return cls(container_id, State.load(root, container_id), log)

    # -- what it is

    def state(self) -> dict[str, Any]:
        """The container's state (runtime.md, State), with runc's additions rootfs, created and owner."""
        return self._state.oci()

    @property
    def bundle(self) -> str:
        """Absolute path of its bundle."""
        bundle: str = self._state.data["bundle"]
        return bundle

    def config(self) -> dict[str, Any]:
        """The configuration that it was created with; what config.json says today does not count."""
        return self._state.config()

    def pids(self) -> list[int]:
        """Host process IDs of all its processes; without a cgroup only init is known.

        None are left of a container that has ended, unless it shared its PID namespace.
        """
        if (manager := self._manager()) is not None and (found := manager.procs()):
            return found
        return [self._state.data["pid"]] if self._state.alive() else []

    # -- what can be done to it

    def start(self, *, notify_socket: str | None = None) -> None:
        """Have the created container execute its program (runtime.md, Start).

        Args:
            notify_socket: wait until the program says READY=1 to the socket that `create` gave it, or has ended, and
                pass that on to this one.

        Raises:
            Error: it was not `created`; or startContainer hook, program or poststart hook failed: then it is
                destroyed, as the specification wants it.
        """
        from pyrunc import handover

        state = self._state
        state.lock()
        try:
            status = state.status()
            if status != "created":
                words = {
                    "stopped": "cannot start a container that has stopped",
                    "creating": "cannot start a container that was never completely created",
                }
                raise Error(words.get(status, "cannot start an already running container"))
            config = None
            if not state.data["args"]:
                raise Error(NO_PROCESS, pointer="/process")
            if state.data["hooks"]:
                config = state.config()
            fifo, result = handover.open_fifos(state.directory)
            relay = self._relay(notify_socket)
            try:
                handover.go(fifo, result)
            except Error:
                self._abort()
                raise
            state.forget_fifos()
        finally:
            state.unlock()
        if config is not None:
            try:
                self._hooks(config, "poststart", "running")  # not locked: it may be deleted while they run
            except BaseException:
                self._abort()
                raise
        if relay is not None:
            try:
                relay.wait(state.data["pid"])
            finally:
                relay.close()

    def _relay(self, notify_socket: str | None) -> Relay | None:
        """What listens to the program's sd_notify(3); None where nobody wants to know, or the program can't speak."""
        if not notify_socket:
            return None
        from pyrunc.notify import Relay

        try:
            return Relay(self._state.directory, notify_socket, self._warn)
        except FileNotFoundError:
            return None

    def _abort(self) -> None:
        """Destroy the container because of an error, which is the one to tell."""
        try:
            self.delete(force=True)
        except Error as e:
            self._warn(str(e))

    def wait(self) -> int | None:
        """Wait until the container's process has ended.

        Returns:
            its exit status, 128 + N if signal N ended it; None where another program made it: only a parent is told.
        """
        from pyrunc.foreground import status_of

        pid = self._state.data["pid"]
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            return None
        try:
            if start_time(pid, zombie=True) != self._state.data["start_time"]:
                return None  # the ID is another process's by now
            _wait_for_end(pidfd)
            return status_of(os.waitpid(pid, 0)[1])
        except ChildProcessError:
            return None
        finally:
            os.close(pidfd)

    def kill(self, signal: int, *, all: bool = False) -> None:
        """Send a signal to init, or to all of the container's processes (runtime.md, Kill).

        SIGKILL goes to all where the container has no PID namespace of its own, whose end would take them along; and it
        thaws a paused container, which otherwise could not die.

        Raises:
            NotRunning: it has ended.
        """
        state = self._state
        alive = state.alive()
        if all or (signal == SIGKILL and not state.data["private_pid"]):
            manager = self._manager()
            if manager is not None and manager.procs():  # none where it has no cgroup, or init has left it
                manager.kill(signal)
                return
        if not alive:
            raise NotRunning
        self._signal_init(signal)
        if signal == SIGKILL and state.data["cgroup"] and state.status() == "paused":
            self._thaw()

    def _thaw(self) -> None:
        """Let a killed container die: what is frozen can't, on cgroup v1."""
        try:
            self._freezer("paused").thaw()
        except Error:
            if self._state.alive():
                raise  # otherwise it has ended as it was, and may be deleted by now

    def _signal_init(self, signal: int) -> None:
        import _signal

        pid = self._state.data["pid"]
        try:
            pidfd = os.pidfd_open(pid)
            try:
                if not self._state.alive():  # the ID may have been given to another process before it was opened
                    raise NotRunning
                _signal.pidfd_send_signal(pidfd, signal)
            finally:
                os.close(pidfd)
        except ProcessLookupError:
            raise NotRunning from None
        except OSError as e:
            raise Error.from_os(e, action=f"send signal {signal} to process {pid}") from None

    def delete(self, *, force: bool = False) -> None:
        """Undo what `create` did (runtime.md, Delete).

        Args:
            force: kill it first if it runs, and don't mind if it is gone already.

        Raises:
            Error: it is running.
        """
        try:
            self._delete(force)
        except NoSuchContainer:
            if not force:
                raise

    def _delete(self, force: bool) -> None:
        state = self._state
        if not force and state.status() == "creating" and state.locked():
            raise Error(f"cannot delete container {self.id} that is not stopped: creating")
        deadline = time.monotonic() + KILL_TIMEOUT
        while not state.lock(wait=not force):
            # a `create` or `start` that hangs in a hook gives up, and the lock, when init ends
            self._kill_init()
            self._kill_makers()
            if time.monotonic() > deadline:
                raise Error("another process is at work on this container and does not come to an end")
            time.sleep(0.005)
        try:
            status = state.status()
            # "creating" is left by a runtime that was killed, since we have the lock
            if not force and status not in ("stopped", "created", "creating"):
                raise Error(f"cannot delete container {self.id} that is not stopped: {status}")
            self._kill_init()
            self._kill_makers()
            self._destroy()
        finally:
            state.unlock()

    def _kill_init(self) -> None:
        """Kill init and wait until it is gone."""
        if not self._state.alive():
            return
        try:
            pidfd = os.pidfd_open(self._state.data["pid"])
        except ProcessLookupError:
            return
        try:
            self.kill(SIGKILL)
            if not _wait_for_end(pidfd, THAW_AFTER) and (manager := self._manager()) is not None:
                manager.kill(SIGKILL)  # thaws also what the container itself has frozen: init outlives its namespace
            if not _wait_for_end(pidfd, KILL_TIMEOUT):
                raise Error(f"init (process {self._state.data['pid']}) does not end after SIGKILL")
        except Error:
            if self._state.alive():
                raise
        finally:
            os.close(pidfd)

    def _kill_makers(self) -> None:
        """Kill who is still at work in the cgroup of a container that never was complete: CRIU may wait for ever for a
        process that was killed."""
        data = self._state.data
        if data["creating"] and data["pid"] > 0 and (manager := self._manager()) is not None and manager.procs():
            manager.kill(SIGKILL)

    def _reap(self) -> None:
        """Where this very program made init it is the parent, and leaves no zombie."""
        pid = self._state.data["pid"]
        try:
            if pid and start_time(pid, zombie=True) == self._state.data["start_time"]:
                os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            pass

    def _destroy(self) -> None:
        """Take away cgroup and state, then run the poststop hooks (runtime.md, Lifecycle, steps 12 and 13)."""
        state = self._state
        try:
            config = state.config() if state.data["hooks"] else None
        except NoSuchContainer:
            config = None  # whoever was to delete it was killed half way
        self._reap()
        if (manager := self._manager()) is not None:
            # Without init it is not known whether the cgroup is the container's own: `create` may have been killed
            # before it saw that others use it
            own = state.data["pid"] > 0
            if own and not state.data["private_pid"] and manager.procs():
                manager.kill(SIGKILL)
            try:
                if not own:
                    # an init whose runtime was killed ends by itself, but not at once
                    deadline = time.monotonic() + ORPHAN_TIMEOUT
                    while manager.procs() and time.monotonic() < deadline:
                        time.sleep(0.01)
                    manager.check_empty()
                manager.remove()
            except Error as e:
                if own:
                    raise
                self._warn(str(e))
        if (group := self._resctrl()) is not None:
            group.remove()
        for path, mount_id in state.data.get("mounts", ()):
            _unmount(path, mount_id)
        state.remove()
        if config is not None:
            self._hooks(config, "poststop", "stopped")

    def _hooks(self, config: dict[str, Any], kind: str, status: str) -> None:
        """Run the hooks of one kind in the runtime's namespaces; for poststop each, whatever the others do."""
        from pyrunc import plan, steps
        from pyrunc.birth import context, hook_state

        ctx = context(self.id, self.bundle, config, self._log)
        ctx.state = hook_state(self._state.data)
        if status == "stopped":
            del ctx.state["pid"]
        for step in plan.hooks(config, kind, status):
            try:
                steps.run([step], ctx)
            except Error as e:
                if kind != "poststop":
                    raise
                # "the runtime MUST log a warning, but the remaining hooks and lifecycle continue"
                self._warn(str(e))

    def pause(self) -> None:
        """Stop all its processes where they are (the cgroup's freezer).

        Raises:
            Error: it is neither running nor created, or has no freezer.
        """
        self._freezer("running", "created").freeze()

    def resume(self) -> None:
        """Let a paused container go on."""
        self._freezer("paused").thaw()

    def _freezer(self, *allowed: str) -> Manager:
        status = self._state.status()
        if status not in allowed:
            raise Error(f"container is not {' or '.join(allowed)}: {status}")
        manager = self._manager()
        if manager is None:
            raise Error("container has no cgroup")
        return manager

    def checkpoint(
        self,
        image_path: str,
        *,
        work_path: str | None = None,
        parent_path: str | None = None,
        pre_dump: bool = False,
        leave_running: bool = False,
        lazy_pages: bool = False,
        page_server: tuple[str, int] | None = None,
        status_fd: int = -1,
        tcp_established: bool = False,
        tcp_skip_in_flight: bool = False,
        link_remap: bool = False,
        ext_unix_sk: bool = False,
        shell_job: bool = False,
        file_locks: bool = False,
        auto_dedup: bool = False,
        manage_cgroups: str = "",
    ) -> None:
        """Have CRIU, criu(8), write its processes to files, from which `restore` makes them anew; then it is deleted.

        Args:
            image_path: directory for the files, made if it is missing.
            work_path: directory for CRIU's log and other files that no restore needs; without it `image_path`.
            parent_path: directory of an earlier pre-dump, relative to `image_path`: what has not changed since is left
                out.
            pre_dump: write memory alone, and let the container run on.
            leave_running: let the container run on.
            lazy_pages: leave memory out, and keep the container until another CRIU has asked `page_server` for it.
            page_server: address and port of a page server, or for one.
            status_fd: descriptor that gets a zero byte, and is closed, when that server can be asked.
            tcp_established: save open TCP connections.
            tcp_skip_in_flight: leave out those that are only being opened.
            link_remap: give files that have no name any more one for the time being.
            ext_unix_sk: go on though a Unix socket's other end is outside.
            shell_job: go on though its session or terminal is from outside.
            file_locks: save locks on files.
            auto_dedup: free what a parent image's memory and this one's have twice.
            manage_cgroups: how much is saved of its cgroups: "soft", "full", "strict" or "ignore"; "" is CRIU's choice.

        Raises:
            Error: it neither runs nor is paused; or CRIU failed, then it goes on as before.
        """
        from pyrunc import checkpoint

        state = self._state
        if state.status() not in ("creating", "stopped"):
            state.lock()
        try:
            if (status := state.status()) not in ("running", "paused") or state.waiting():
                raise Error(f"container cannot be checkpointed in {status} state")
            switches = {
                "leave_running": leave_running,
                "lazy_pages": lazy_pages,
                "tcp_established": tcp_established,
                "tcp_skip_in_flight": tcp_skip_in_flight,
                "link_remap": link_remap,
                "ext_unix_sk": ext_unix_sk,
                "shell_job": shell_job,
                "file_locks": file_locks,
                "auto_dedup": auto_dedup,
            }
            images = checkpoint.images(image_path, work_path, manage_cgroups, switches, new=True, parent=parent_path)
            checkpoint.dump(state, self._manager(), images, pre_dump, page_server, status_fd, self._log)
            if not (pre_dump or leave_running):
                self._destroy()
        finally:
            state.unlock()

    @classmethod
    def restore(
        cls,
        container_id: str,
        bundle: str,
        image_path: str,
        *,
        root: str = DEFAULT_ROOT,
        detach: bool = False,
        subreaper: bool = False,
        forward_signals: bool = False,
        work_path: str | None = None,
        pid_file: str | None = None,
        console_socket: str | None = None,
        notify_socket: str | None = None,
        no_pivot: bool = False,
        lazy_pages: bool = False,
        tcp_established: bool = False,
        ext_unix_sk: bool = False,
        shell_job: bool = False,
        file_locks: bool = False,
        auto_dedup: bool = False,
        manage_cgroups: str = "",
        lsm_profile: str | None = None,
        lsm_mount_context: str | None = None,
        systemd_cgroup: bool = False,
        rootless: bool | None = None,
        stdio: tuple[int, int, int] | None = None,
        log: Log | None = None,
    ) -> int:
        """Make a container whose processes come from the files of a `checkpoint`, wait for its end and delete it.

        Args:
            bundle: path of a directory with the same config.json, and a root filesystem with the same files.
            image_path: the directory that `checkpoint` has filled.
            notify_socket: the container had a socket for sd_notify(3); it gets one again, to which nobody listens.
            lazy_pages: have memory brought by a ``criu lazy-pages``, which runs in `work_path`.
            lsm_profile: ``apparmor:NAME`` or ``selinux:LABEL`` in place of the profile that was saved.
            lsm_mount_context: SELinux context of mounts in place of the one that was saved.

        For the other arguments see `run` and `checkpoint`.

        Returns:
            the exit status of the container's process, 128 + N if signal N ended it; 0 with `detach`.

        Raises:
            Error: and then nothing is left of it.
        """
        from pyrunc import checkpoint
        from pyrunc.birth import Birth, prepare_foreground

        switches = {
            "lazy_pages": lazy_pages,
            "tcp_established": tcp_established,
            "ext_unix_sk": ext_unix_sk,
            "shell_job": shell_job,
            "file_locks": file_locks,
            "auto_dedup": auto_dedup,
            "lsm_profile": lsm_profile,
            "lsm_mount_context": lsm_mount_context,
        }
        birth = Birth(container_id, bundle, root, log, no_pivot, False, systemd_cgroup, rootless, notify_socket)
        ctx = birth.shared(0, stdio)
        terminal = birth.config.get("process", {}).get("terminal", False)
        foreground = prepare_foreground(ctx, terminal, console_socket, detach, subreaper, forward_signals)
        try:
            images = checkpoint.images(image_path, work_path, manage_cgroups, switches, new=False)
            state = checkpoint.restore(
                birth, ctx, images, pid_file, lambda state: cls(container_id, state, log)._destroy()
            )
            container = cls(container_id, state, log)
            try:
                if ctx.console_fd >= 0:
                    os.close(ctx.console_fd)  # whether a terminal came or not: nothing more will
                    ctx.console_fd = -1
                if foreground is not None:
                    foreground.attach()
                state.unlock()
                if foreground is None:
                    return 0
                status = foreground.wait(ctx.init_pid)
            except BaseException:
                container._abort()
                raise
        finally:
            if foreground is not None:
                foreground.close()
            if ctx.console_fd >= 0:
                os.close(ctx.console_fd)
        container.delete(force=True)
        return status

    def update(self, resources: dict[str, Any], *, intel_rdt: dict[str, Any] | None = None) -> None:
        """Change its resource limits: all that are named, or none if one is refused.

        What is not named stays, in the kernel and in `config`. Entries of lists replace those for the same device, page
        size or interface; device rules are added behind those that there are. A quota by itself keeps the period, and a
        memory limit what memory and swap may have together.

        Args:
            resources: as config.json's linux.resources. A number of 0 that the specification gives no meaning is "not
                named".
            intel_rdt: l3CacheSchema and memBwSchema as in config.json's linux.intelRdt, for a container that has one.

        Raises:
            NotRunning: it has ended.
            Error: with a JSON pointer into `resources`; or it has no cgroup of its own.
        """
        from pyrunc import config
        from pyrunc.config import resources as rules

        new, note = rules.weightless(rules.given(config.check_resources(resources)))
        if note:
            self._warn(note)
        state = self._state
        if state.status() == "creating":
            raise Error("container is not completely created")  # whose maker has the lock, and may wait for our caller
        state.lock()
        try:
            if not state.alive():
                raise NotRunning
            manager = self._manager()
            if manager is None:
                raise Error("container has no cgroup of its own")
            whole = state.config()
            linux = whole.setdefault("linux", {})
            old = linux.get("resources", {})
            change = rules.to_write(old, new)
            written = {setting.file for setting in manager.settings(change, devices=False, at="")}
            self._update_rdt(linux, intel_rdt or {}, lambda: manager.update(change))
            linux["resources"] = rules.settle(rules.merge(old, new), new, written)
            state.save_config(whole)
        finally:
            state.unlock()

    def _update_rdt(self, linux: dict[str, Any], change: dict[str, Any], more: Callable[[], None]) -> None:
        """Change the shares of linux.intelRdt, and `more`; neither if one of them is refused."""
        if not change:
            return more()
        from pyrunc import resctrl

        resctrl.check(change, resctrl.mounted())
        group = self._resctrl()
        if group is None:
            raise Error("updating a non-existent Intel RDT configuration is not supported")
        before = group.schemata()
        group.write(linux["intelRdt"] | change)
        try:
            more()
        except BaseException:
            group.write({"schemata": before.splitlines()})
            raise
        linux["intelRdt"] |= change
        return None

    def stats(self) -> dict[str, Any]:
        """What it uses now, in the shape of the "data" of runc's ``events --stats``: bytes, nanoseconds and counts.

        Where it has no cgroup nothing is counted, and this is, as runc's, nothing but the shape.

        Raises:
            NotRunning: it has ended.
        """
        from pyrunc import events

        try:
            data: dict[str, Any] = events.stats(self.id, self._counted(), self._resctrl())["data"]
        except FileNotFoundError:
            raise NotRunning from None  # and was deleted meanwhile
        return data

    def events(self, interval: float = 5.0) -> Iterator[dict[str, Any]]:
        """What happens to it until it ends.

        At every interval comes ``{"type": "stats", "id": …, "data": …}``, with what `stats` gives, and when a process
        was killed for want of memory ``{"type": "oom", "id": …}``.

        Args:
            interval: seconds, more than 0; the first statistics come after one.

        Raises:
            NotRunning: it has ended already.
        """
        from pyrunc import events

        return events.events(self.id, self._state, self._counted(), interval, self._warn, self._resctrl())

    def _counted(self) -> Manager:
        if not self._state.alive():
            raise NotRunning
        manager = self._manager()
        if manager is None:
            raise Error("container has no cgroup of its own")
        return manager

    def exec(
        self,
        process: dict[str, Any],
        *,
        detach: bool = False,
        subreaper: bool = False,
        forward_signals: bool = False,
        pid_file: str | None = None,
        console_socket: str | None = None,
        pidfd_socket: str | None = None,
        preserve_fds: int = 0,
        cgroups: dict[str, str] | None = None,
        ignore_paused: bool = False,
        stdio: tuple[int, int, int] | None = None,
        log: Log | None = None,
    ) -> int:
        """Run one more process in the container: its namespaces, its cgroup, its seccomp filter.

        Args:
            process: as config.json's process.
            cgroups: cgroups below the container's to put it into, by controller ("" for all). Without them, on cgroup
                v2, it goes where init is if it can't join the container's own.
            ignore_paused: also in a paused container, where it will not run before that is resumed.

        For the other arguments see `run`.

        Returns:
            its exit status, 128 + N if signal N ended it; 0 with `detach`.
        """
        from pyrunc import birth, handover, plan, steps
        from pyrunc.linux.stdio import fill_stdio

        fill_stdio()
        self._log = log or self._log
        status = self._state.status()
        if status == "stopped":
            raise Error("cannot exec in a stopped container")
        if status == "paused" and not ignore_paused:
            raise Error("cannot exec in a paused container (use --ignore-paused to override)")
        config = self._state.config()
        birth.check_labels({}, process, self._log)
        ctx = birth.context(self.id, self.bundle, config, self._log)
        ctx.cgroup = self._joined(cgroups or {})
        ctx.state = birth.hook_state(self._state.data)
        birth.preserve(ctx, preserve_fds, stdio)
        seccomp = birth.compile_seccomp(config, os.path.dirname(self._state.directory))
        foreground = birth.prepare_foreground(
            ctx, process.get("terminal", False), console_socket, detach, subreaper, forward_signals
        )
        try:
            handover.pipes(ctx)
            options = plan.Options(**self._state.data["options"])
            planned = plan.exec_steps(config, process, self.id, options, seccomp, self._resctrl())
            steps.run(birth.recorded(planned, pid_file, pidfd_socket), ctx)
            ctx.peer().close()
            handover.release(ctx)
            if foreground is not None:
                foreground.attach()
            handover.go_on(ctx)
            return 0 if foreground is None else foreground.wait(ctx.init_pid)
        except BaseException:
            handover.abandon(ctx)
            if ctx.init_pid:
                _end(ctx.init_pid)
            raise
        finally:
            if foreground is not None:
                foreground.close()
            if ctx.console_fd >= 0:
                os.close(ctx.console_fd)

    # -- inside

    def _joined(self, cgroups: dict[str, str]) -> Manager | None:
        """The cgroups that a further process is to join."""
        manager = self._manager()
        if any(cgroups.values()):
            if manager is None or not manager.paths:
                raise Error("container has no cgroup")
            return manager.within(cgroups)
        if manager is not None:
            manager.follow(self._state.data["pid"])
        return manager

    def _resctrl(self) -> Group | None:
        saved = self._state.data.get("resctrl")
        if not saved:
            return None
        from pyrunc.resctrl import Group

        return Group.restore(saved)

    def _manager(self) -> Manager | None:
        saved = self._state.data["cgroup"]
        if not saved:
            return None
        from pyrunc.cgroups import restore

        return restore(saved)

    def _warn(self, message: str) -> None:
        if self._log is not None:
            self._log.warn(message)


def containers(root: str = DEFAULT_ROOT) -> list[dict[str, Any]]:
    """The states of all containers below `root`, as `Container.state` gives them, each with its owner's name."""
    import pwd

    found = []
    try:
        names = sorted(os.listdir(root))
    except (FileNotFoundError, NotADirectoryError):
        return []
    for name in names:
        try:
            state = State.load(root, name)
            uid = os.stat(state.directory).st_uid
        except (Error, FileNotFoundError):
            continue  # deleted while we looked, or not a container's directory
        entry = state.oci()
        try:
            entry["owner"] = pwd.getpwuid(uid).pw_name
        except KeyError:
            entry["owner"] = f"#{uid}"
        found.append(entry)
    return found


def discard(container_id: str, *, root: str = DEFAULT_ROOT) -> None:
    """Remove what a runtime that was killed may have left of a container that does not exist."""
    State.discard(root, container_id)


def describe(
    bundle: str, *, no_pivot: bool = False, no_new_keyring: bool = False, systemd_cgroup: bool = False
) -> list[dict[str, str]]:
    """What `create` and `start` would do with a bundle, step by step, without doing any of it.

    Returns:
        for each step ``process`` (runtime, stage or init), ``action`` and ``origin`` (a JSON pointer, or "").
    """
    from pyrunc.birth import Birth
    from pyrunc.steps.runtime import StartInit

    birth = Birth("ID", bundle, DEFAULT_ROOT, None, no_pivot, no_new_keyring, systemd_cgroup, None)
    told: list[dict[str, str]] = []

    def tell(process: str, steps: list[Step]) -> None:
        for step in steps:
            told.append({"process": process, "action": step.describe(), "origin": step.origin})
            if isinstance(step, StartInit):
                tell("stage", step.stage)
                tell("init", step.init)

    tell("runtime", birth.plan(cache=False))
    return told


def _wait_for_end(pidfd: int, seconds: float | None = None) -> bool:
    """Whether a process ended within a time."""
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if seconds is None else int(seconds * 1000)))


def _end(pid: int) -> None:
    """Kill a child, if it still lives, and reap it."""
    try:
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass  # it has been reaped already


def _unmount(path: str, mount_id: int) -> None:
    from pyrunc.steps.mounts import unmount

    try:
        unmount(path, mount_id)
    except OSError as e:
        raise Error.from_os(e, action=f"unmount {path}") from None
