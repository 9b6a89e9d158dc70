"""Waiting for a container in the foreground: its signals, its orphans, its terminal."""

from __future__ import annotations

import _signal
import errno
import fcntl
import os
import select

from pyrunc.errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.notify import Relay

# ioctl_tty(2)
TIOCGWINSZ = 0x5413
TIOCSWINSZ = 0x5414

#: What the kernel or the interpreter sends to this very process and means it.
_NOT_FORWARDED = frozenset(
    (
        _signal.SIGCHLD,
        _signal.SIGWINCH,
        _signal.SIGURG,
        _signal.SIGKILL,
        _signal.SIGSTOP,
        _signal.SIGSEGV,
        _signal.SIGBUS,
        _signal.SIGFPE,
        _signal.SIGILL,
        _signal.SIGPIPE,
    )
)


class Foreground:
    """The runtime's place between its caller and a container that it waits for.

    Made before the container, so that no signal is lost: signals wait, blocked, until `wait` can pass them on.
    """

    __slots__ = ("_forward", "_master", "_socket", "_terminal", "_wakeup")

    def __init__(self, *, subreaper: bool, forward_signals: bool) -> None:
        self._forward = forward_signals
        self._socket = -1
        self._master = -1
        self._wakeup = (-1, -1)
        self._terminal: tuple[int, list[Any]] | None = None
        if subreaper:
            from pyrunc.linux.process import PR_SET_CHILD_SUBREAPER, prctl

            prctl(PR_SET_CHILD_SUBREAPER, 1)
        if forward_signals:
            _signal.pthread_sigmask(_signal.SIG_BLOCK, _signal.valid_signals())

    def console(self) -> int:
        """A console socket whose other end is here, for a container with a terminal."""
        from pyrunc.linux.fdpass import pair

        self._socket, other = pair()
        return other

    def attach(self) -> None:
        """Take the container's terminal over from init, as large as ours, before its program sees it."""
        if self._socket >= 0:
            from pyrunc.linux.fdpass import receive_descriptor

            self._master = receive_descriptor(self._socket)
            if self._master < 0:
                raise Error("the container's terminal did not arrive")
            self._bare_newlines()
            self._raw_mode()
            self._resize()

    def wait(self, pid: int, notify: Relay | None = None) -> int:
        """Wait for the process to end, serving its terminal and forwarding signals.

        Args:
            notify: what it says there (pyrunc/notify.py) is passed on, with this process as the one to watch.

        Returns:
            its exit status, 128 + N if signal N ended it.
        """
        if not self._forward and self._master < 0 and notify is None:
            return status_of(os.waitpid(pid, 0)[1])
        poll = select.poll()
        pidfd = os.pidfd_open(pid)
        poll.register(pidfd, select.POLLIN)
        if self._forward:
            poll.register(self._catch_signals(), select.POLLIN)
        if notify is not None:
            poll.register(notify.fd, select.POLLIN)
        relay = _Relay(self._master, poll) if self._master >= 0 else None
        try:
            while True:
                for fd, events in poll.poll():
                    if fd == pidfd:
                        status = status_of(os.waitpid(pid, 0)[1])
                        self._reap()
                        if relay is not None:
                            relay.drain()
                        return status
                    if fd == self._wakeup[0]:
                        self._pass_on(os.read(fd, 256), pid)
                    elif notify is not None and fd == notify.fd:
                        notify.serve(os.getpid())
                    elif relay is not None:
                        relay.serve(fd, events)
        finally:
            os.close(pidfd)

    def close(self) -> None:
        """Give the caller's terminal back as it was."""
        if self._terminal is not None:
            import termios

            fd, settings = self._terminal
            termios.tcsetattr(fd, termios.TCSADRAIN, settings)
            self._terminal = None
        for fd in (self._socket, self._master):
            if fd >= 0:
                os.close(fd)
        self._socket = self._master = -1

    def _catch_signals(self) -> int:
        """Have each signal write its number to a pipe; the pipe's end to read."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        self._wakeup = (reader, writer)
        _signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in _signal.valid_signals():
            if number not in _NOT_FORWARDED or number in (_signal.SIGCHLD, _signal.SIGWINCH):
                _signal.signal(number, _noted)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        return reader

    def _pass_on(self, numbers: bytes, pid: int) -> None:
        for number in numbers:
            if number == _signal.SIGCHLD:
                self._reap(but=pid)
            elif number == _signal.SIGWINCH:
                self._resize()
            else:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass  # it has just ended, as poll is about to say

    def _reap(self, but: int = 0) -> None:
        """Collect ended processes that were left to us (we may be their subreaper), except one."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid == but:
                return
            os.waitpid(found.si_pid, 0)

    def _bare_newlines(self) -> None:
        """Have the container's terminal pass a newline on as it is. What is a file or a pipe wants no carriage return,
        and where our own output is a terminal, that adds one."""
        import termios

        settings = termios.tcgetattr(self._master)
        settings[1] &= ~termios.ONLCR
        termios.tcsetattr(self._master, termios.TCSANOW, settings)

    def _raw_mode(self) -> None:
        """Pass every key to the container's terminal, which does its own line editing."""
        import termios

        for fd in (0, 1, 2):
            if os.isatty(fd):
                settings = termios.tcgetattr(fd)
                self._terminal = (fd, settings)
                raw = [*settings]
                raw[0] &= ~(
                    termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
                    | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
                )  # fmt: skip
                raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
                raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
                termios.tcsetattr(fd, termios.TCSANOW, raw)
                return

    def _resize(self) -> None:
        """Give the container's terminal the size of ours."""
        if self._terminal is not None and self._master >= 0:
            size = fcntl.ioctl(self._terminal[0], TIOCGWINSZ, bytes(8))
            if size != bytes(8):
                fcntl.ioctl(self._master, TIOCSWINSZ, size)


class _Relay:
    """Bytes from our stdin to the terminal's master and from there to our stdout."""

    __slots__ = ("master", "pending", "poll")

    def __init__(self, master: int, poll: select.poll) -> None:
        self.master = master
        self.poll = poll
        self.pending = b""  # input that the terminal has not taken yet
        os.set_blocking(master, False)
        poll.register(master, select.POLLIN)
        try:
            poll.register(0, select.POLLIN)
        except (OSError, ValueError):
            pass  # stdin is closed

    def serve(self, fd: int, events: int) -> None:
        if fd == self.master:
            if events & select.POLLOUT:
                self._feed()
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self._copy_out():
                self.poll.unregister(self.master)
        elif fd == 0:
            data = b"" if events & select.POLLNVAL else os.read(0, 65536)
            if not data:
                self.poll.unregister(0)
                self.pending += b"\x04"  # VEOF: what a terminal's user would type
            self.pending += data
            self._feed()

    def _feed(self) -> None:
        try:
            self.pending = self.pending[os.write(self.master, self.pending) :]
        except BlockingIOError:
            pass
        except OSError as e:
            if e.errno != errno.EIO:  # no process has the terminal open any more
                raise
            self.pending = b""
        self.poll.modify(self.master, select.POLLIN | (select.POLLOUT if self.pending else 0))

    def _copy_out(self) -> bool:
        try:
            data = os.read(self.master, 65536)
        except BlockingIOError:
            return True
        except OSError as e:
            if e.errno != errno.EIO:
                raise
            return False
        while data:
            data = data[os.write(1, data) :]
        return True

    def drain(self) -> None:
        """The last output, after the process has ended."""
        while True:
            try:
                data = os.read(self.master, 65536)
            except OSError:  # EAGAIN: others still have it open; EIO: nobody has
                return
            if not data:
                return
            while data:
                data = data[os.write(1, data) :]


def status_of(status: int) -> int:
    """wait(2)'s status as a shell would give it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _noted(number: int, frame: Any) -> None:
    """The wakeup descriptor has the signal's number already."""
