# shellcheck shell=bash
# What the scripts share: how they speak, how they find a Python, how they install Debian packages. Sourced, never run.

# The clone that the scripts belong to.
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

# A script that has started itself again (need_mounts, and the test script) does not say everything twice.
quiet=${PYRUNC_OWN_MOUNTS:-}${PYRUNC_SUBREAPER:-}
say() { [[ -n $quiet ]] || printf '    %s\n' "$*"; }
step() { [[ -n $quiet ]] || printf '\n==> %s\n' "$*"; }
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

# What a runtime needs of the mounts around it, and a chroot often lacks. Where it is lacking, run the script again in a mount
# namespace that has it (see scripts/own_mounts.py). Needs Python, so packages come first.
#
# usage: need_mounts "$@"   (with the script's own arguments)
need_mounts() {
    local python lacks=()
    [[ -r /proc/self/mountinfo ]] || fail "/proc is not mounted: mount -t proc proc /proc"
    grep -q ' - sysfs ' /proc/self/mountinfo || fail "/sys is not mounted: mount -t sysfs sysfs /sys"
    [[ -c /dev/null ]] || fail "/dev has no devices: mount --rbind the host's there"
    ((EUID == 0)) || return 0
    grep -q '^[^ ]* [^ ]* [^ ]* [^ ]* / ' /proc/self/mountinfo ||
        lacks+=("/ is a chroot and no mount point, which pivot_root(2) wants")
    grep -Eq ' - cgroup2? ' /proc/self/mountinfo ||
        lacks+=("no cgroup file system is mounted, by which limits are set")
    if ((!${#lacks[@]})); then
        unset PYRUNC_OWN_MOUNTS
        quiet=${PYRUNC_SUBREAPER:-}
        return 0
    fi
    [[ -z ${PYRUNC_OWN_MOUNTS:-} ]] || fail "still: ${lacks[*]}"
    say "${lacks[@]/%/:}" "going on in a mount namespace where that is mended"
    python=$(find_python) || fail "found no Python 3.11 to 3.14"
    PYRUNC_OWN_MOUNTS=1 exec "$python" -I -S "$repo/scripts/own_mounts.py" "$(readlink -f "$0")" "$@"
}
