"""Mount options as words, and what they mean to the mount API (runtime-spec config.md, Linux mount options)."""

from __future__ import annotations

from pyrunc.linux import mount as m

#: A mount's own attributes: word -> (MOUNT_ATTR_* bits, True to set them and False to clear them).
ATTRIBUTES: dict[str, tuple[int, bool]] = {
    "ro": (m.MOUNT_ATTR_RDONLY, True),
    "rw": (m.MOUNT_ATTR_RDONLY, False),
    "nosuid": (m.MOUNT_ATTR_NOSUID, True),
    "suid": (m.MOUNT_ATTR_NOSUID, False),
    "nodev": (m.MOUNT_ATTR_NODEV, True),
    "dev": (m.MOUNT_ATTR_NODEV, False),
    "noexec": (m.MOUNT_ATTR_NOEXEC, True),
    "exec": (m.MOUNT_ATTR_NOEXEC, False),
    "nosymfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, True),
    "symfollow": (m.MOUNT_ATTR_NOSYMFOLLOW, False),
    "nodiratime": (m.MOUNT_ATTR_NODIRATIME, True),
    "diratime": (m.MOUNT_ATTR_NODIRATIME, False),
    "noatime": (m.MOUNT_ATTR_NOATIME, True),
    "strictatime": (m.MOUNT_ATTR_STRICTATIME, True),
    "relatime": (m.MOUNT_ATTR_RELATIME, True),
    "atime": (m.MOUNT_ATTR_NOATIME, False),
    "norelatime": (m.MOUNT_ATTR_RELATIME, False),
    "nostrictatime": (m.MOUNT_ATTR_STRICTATIME, False),
}

#: The words for a mount's access time mode, one of several (MOUNT_ATTR__ATIME).
ATIME_MODES = ("noatime", "strictatime", "relatime", "atime", "norelatime", "nostrictatime")

#: The same for a mount and all below it. Here the access time words name a mode, because mount_setattr(2) sets one.
RECURSIVE: dict[str, tuple[int, bool]] = {"r" + word: bits for word, bits in ATTRIBUTES.items()} | {
    "ratime": (m.MOUNT_ATTR_NOATIME, False),
    "rrelatime": (m.MOUNT_ATTR__ATIME, False),  # relatime is the zero of the access time modes
    "rnorelatime": (m.MOUNT_ATTR__ATIME, False),
    "rnostrictatime": (m.MOUNT_ATTR_STRICTATIME, False),
}

#: word -> (MS_* propagation, for all mounts below too).
PROPAGATION: dict[str, tuple[int, bool]] = {
    "private": (m.MS_PRIVATE, False),
    "rprivate": (m.MS_PRIVATE, True),
    "shared": (m.MS_SHARED, False),
    "rshared": (m.MS_SHARED, True),
    "slave": (m.MS_SLAVE, False),
    "rslave": (m.MS_SLAVE, True),
    "unbindable": (m.MS_UNBINDABLE, False),
    "runbindable": (m.MS_UNBINDABLE, True),
}

#: Options of the filesystem (superblock) that every filesystem takes by these names (kernel: fs/fs_context.c).
SUPERBLOCK = ("ro", "rw", "sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand")

#: Words without an effect of their own: defaults, and flags that the mount API has no more use for.
NO_EFFECT = ("defaults", "loud", "silent", "iversion", "noiversion")

#: Words that choose how to mount.
KINDS = ("bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap")


class MountOptions:
    """The options of one mount, sorted by who understands them.

    Attributes:
        text: the words as given, joined by commas.
        bind, rbind, remount, copy_up: the kind of mount.
        set, clear: MOUNT_ATTR_* bits to set and to clear.
        rec_set, rec_clear: the same for the mount and all below it.
        propagation: (MS_*, recursive) in the order given.
        filesystem: (key, value) pairs for the filesystem, value None for a flag.
        times: the words settle how access times are kept, so a bind mount has not its source's way.
        read_only: the mount is to end up read-only, even if not yet when it is made.
    """

    __slots__ = (
        "bind",
        "clear",
        "copy_up",
        "filesystem",
        "propagation",
        "rbind",
        "read_only",
        "rec_clear",
        "rec_set",
        "remount",
        "set",
        "text",
        "times",
    )

    def __init__(self, words: list[str] | None) -> None:
        words = words or []
        self.text = ",".join(words)
        self.bind = "bind" in words
        self.rbind = "rbind" in words
        self.remount = "remount" in words
        self.copy_up = "tmpcopyup" in words
        self.times = False
        self.set = self.clear = self.rec_set = self.rec_clear = 0
        self.propagation: list[tuple[int, bool]] = []
        self.filesystem: list[tuple[str, str | None]] = []
        for word in words:
            if word in ATTRIBUTES:
                bits, on = ATTRIBUTES[word]
                if word in ATIME_MODES:
                    # One mode of several: the last one named counts. A word that only denies one brings back what a new
                    # mount has, relatime; on a bind mount it leaves the source's mode, as mount(2) does.
                    if on:
                        self.set = self.set & ~m.MOUNT_ATTR__ATIME | bits
                        self.times = True
                    elif self.set & m.MOUNT_ATTR__ATIME == bits:
                        self.set &= ~bits
                        self.times = False
                elif on:
                    self.set, self.clear = self.set | bits, self.clear & ~bits
                else:
                    self.set, self.clear = self.set & ~bits, self.clear | bits
                if word in SUPERBLOCK:
                    self.filesystem.append((word, None))
            elif word in RECURSIVE:
                bits, on = RECURSIVE[word]
                if on:
                    if bits & m.MOUNT_ATTR__ATIME:
                        self.rec_set &= ~m.MOUNT_ATTR__ATIME
                    self.rec_set, self.rec_clear = self.rec_set | bits, self.rec_clear & ~bits
                else:
                    self.rec_set, self.rec_clear = self.rec_set & ~bits, self.rec_clear | bits
            elif word in PROPAGATION:
                self.propagation.append(PROPAGATION[word])
            elif word in SUPERBLOCK:
                self.filesystem.append((word, None))
            elif word not in NO_EFFECT and word not in KINDS:
                # "Runtimes SHOULD treat unknown options as filesystem-specific ones": one word may hold several
                for option in word.split(","):
                    key, equals, value = option.partition("=")
                    if key:
                        self.filesystem.append((key, value if equals else None))
        self.times |= bool(self.set & m.MOUNT_ATTR_NODIRATIME)
        self.read_only = bool(self.set & m.MOUNT_ATTR_RDONLY)

    def defer_read_only(self) -> None:
        """Make the mount writable for now: something has to be put into it."""
        self.set &= ~m.MOUNT_ATTR_RDONLY
        self.filesystem = [option for option in self.filesystem if option != ("ro", None)]
