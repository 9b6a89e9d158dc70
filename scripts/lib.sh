# shellcheck shell=bash
# What the scripts share: how they speak, how they find a Python, how they install Debian packages. Sourced, never run.

# The clone that the scripts belong to.
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

say() { printf '    %s\n' "$*"; }
step() { printf '\n==> %s\n' "$*"; }
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# The interpreter's real path if it is a Python that pyrunc runs on, else nothing. A pyenv shim and a venv's symlink
# come back as the binary behind them: both look up their place in the world first, which costs milliseconds each start.
real_python() {
    "$1" -I -S -c 'import os, sys
if (3, 11) <= sys.version_info < (3, 15): print(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))' 2>/dev/null
}

# The Python for a launcher: Debian's own first (it starts quickest, apt keeps it patched and its libraries are beside
# it), then any other 3.11 to 3.14 in the usual places, then whatever PATH has.
find_python() {
    local candidate found
    for candidate in /usr/bin/python3 /usr/bin/python3.1{4,3,2,1} /usr/local/bin/python3 /usr/local/bin/python3.1{4,3,2,1} \
        "$(command -v python3 || true)" "$(command -v python3.13 || true)" "$(command -v python3.11 || true)"; do
        [[ -n $candidate && -x $candidate ]] || continue
        found=$(real_python "$candidate") || continue
        if [[ -n $found ]]; then
            printf '%s\n' "$found"
            return 0
        fi
    done
    return 1
}

package_installed() {
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# Install the Debian packages that are missing. Nothing is asked and, when all are there, apt is not even started.
need_packages() {
    local package missing=() log
    for package; do
        package_installed "$package" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    command -v apt-get >/dev/null || fail "needs ${missing[*]}, and this system has no apt-get: install them its own way"
    ((EUID == 0)) || fail "needs root to install ${missing[*]} (apt-get install ${missing[*]})"
    say "apt-get install ${missing[*]}"
    log=$(mktemp)
    # A container or chroot comes with empty package lists, and old lists name packages that are no longer there.
    if ! apt_get install "${missing[@]}" >"$log" 2>&1; then
        if ! { apt_get update && apt_get install "${missing[@]}"; } >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            rm -f "$log"
            fail "apt-get could not install ${missing[*]}"
        fi
    fi
    rm -f "$log"
}

apt_get() {
    local action=$1
    shift
    if [[ $action == install ]]; then
        DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends -o Dpkg::Use-Pty=0 install "$@" </dev/null
    else
        DEBIAN_FRONTEND=noninteractive apt-get -q -y "$action" "$@" </dev/null
    fi
}

# A virtual environment in the clone, on the system's Python and with its packages visible (python3-prctl is one of them:
# from PyPI it would need a compiler). The clone itself is importable in it through a .pth file: no build, no network.
need_venv() {
    local venv=$1 python=$2 site
    if [[ ! -x $venv/bin/python ]] || ! "$venv/bin/python" -c 'import pip' 2>/dev/null; then
        say "$python -m venv --system-site-packages $venv"
        rm -rf "$venv"
        "$python" -I -m venv --system-site-packages "$venv" || fail "could not make $venv"
    fi
    site=$("$venv/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    [[ -f $site/pyrunc-clone.pth ]] || printf '%s\n' "$repo" >"$site/pyrunc-clone.pth"
}

# What a runtime needs of the mounts around it, and a chroot often lacks: `/` must be a mount point (pivot_root(2) refuses
# otherwise) and the cgroup file systems must be mounted. Where one is missing, run the script again in a mount namespace of
# its own that has it; nothing changes for the rest of the machine.
#
# usage: need_mounts "$@"   (with the script's own arguments)
need_mounts() {
    local root_is_mount='' cgroups=''
    grep -q '^[^ ]* [^ ]* [^ ]* [^ ]* / ' /proc/self/mountinfo 2>/dev/null && root_is_mount=1
    grep -Eq ' - cgroup2? ' /proc/self/mountinfo 2>/dev/null && cgroups=1
    [[ -r /proc/self/mountinfo ]] || fail "/proc is not mounted: mount -t proc proc /proc"
    grep -q ' - sysfs ' /proc/self/mountinfo || fail "/sys is not mounted: mount -t sysfs sysfs /sys"
    [[ -c /dev/null ]] || fail "/dev has no devices: bind-mount the host's into this chroot (mount --rbind /dev …/dev)"
    [[ -z $root_is_mount || -z $cgroups ]] || return 0
    [[ -z ${PYRUNC_OWN_MOUNTS:-} ]] || fail "could not make the mounts that a runtime needs (cgroups, / as a mount point)"
    ((EUID == 0)) || return 0
    [[ -n $root_is_mount ]] || say "this is a chroot and its / is no mount point, which pivot_root(2) wants: using a mount namespace where it is"
    [[ -n $cgroups ]] || say "no cgroup file system is mounted, and limits are set through it: mounting it in a mount namespace of this script's own"
    # shellcheck disable=SC2016  # the inner shell expands it
    PYRUNC_OWN_MOUNTS=1 exec unshare --mount --propagation private /bin/bash -c '
        set -eu
        directory=$PWD
        if ! grep -q "^[^ ]* [^ ]* [^ ]* [^ ]* / " /proc/self/mountinfo; then
            mount --rbind / /mnt
            root=/mnt
        fi
        if ! grep -Eq " - cgroup2? " /proc/self/mountinfo; then
            # /proc/self/cgroup has a line for each hierarchy: "4:memory:/", and "0::/" for version 2.
            place=${root:-}/sys/fs/cgroup
            if grep -qv "^0:" /proc/self/cgroup; then
                mount -t tmpfs -o mode=755 cgroup "$place"
                while IFS=: read -r number controllers _; do
                    [ "$number" != 0 ] || continue
                    mkdir "$place/${controllers#name=}"
                    mount -t cgroup -o "$controllers" cgroup "$place/${controllers#name=}"
                done </proc/self/cgroup
            else
                mount -t cgroup2 cgroup2 "$place"
            fi
        fi
        [ -z "${root:-}" ] || exec chroot "$root" /bin/sh -c "cd \"\$1\" && shift && exec \"\$@\"" - "$directory" "$@"
        exec "$@"
    ' - "$(readlink -f "$0")" "$@"
}
