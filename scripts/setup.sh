#!/usr/bin/env bash
# Installs what a make target needs and the machine lacks; what is there is left alone.
#
#   scripts/setup.sh build|demo|test
#
# build  what compiling needs: a C toolchain (bundled SQLite) and protoc (etcd client)
# demo   build, and what lab hosts are made of: namespaces, file systems, a web server, packet filters
# test   demo, and what only tests need: etcd, Prometheus, kubectl, Redis, Apache, xfs and btrfs tools, systemd and D-Bus, BIRD, FRR, cargo-nextest; and
#        unpacked beside Cargo's artefacts, without being installed: QEMU, a kernel, LVM and the NFS server for tests in
#        virtual machines
#
# Debian and Ubuntu: through apt, with sudo when not root, without a question asked, and without starting a
# service. Any other system: the list of what is missing, and nothing else.
set -euo pipefail

readonly NEXTEST_VERSION=0.9.143
purpose=${1:-test}
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: error: %s\n' "$1" >&2; shift; for hint in "$@"; do printf 'setup: hint: %s\n' "$hint" >&2; done; exit 1; }

packages=()
programs=()
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -q -y)
# need PROGRAM PACKAGE: notes the Debian package when the program is not there.
need() {
    command -v "$1" >/dev/null 2>&1 && return
    programs+=("$1")
    packages+=("$2")
}

case $purpose in build | demo | test) ;; *) die "unknown purpose '$purpose'; allowed: build, demo, test" ;; esac

command -v cargo >/dev/null 2>&1 || die "cargo is not in PATH" \
    "install a current Rust toolchain (rustup), then run this again" \
    "with sudo: keep your PATH, as in: sudo env \"PATH=\$PATH\" make $purpose"

need cc gcc
need protoc protobuf-compiler
# protoc's own definitions are a package of their own on Debian; elsewhere they lie beside the program.
protos=google/protobuf/descriptor.proto
if ! [ -e "/usr/include/$protos" ] && ! [ -e "$(dirname "$(command -v protoc || echo /usr/bin/protoc)")/../include/$protos" ]; then
    programs+=("$protos")
    packages+=(libprotobuf-dev)
fi
[ -e /usr/include/stdio.h ] || { programs+=("stdio.h"); packages+=(libc6-dev); }
if [ "$purpose" != build ]; then
    need ip iproute2
    need nft nftables
    need losetup mount
    need nsenter util-linux
    need mkfs.ext4 e2fsprogs
    need nginx nginx-light
fi
if [ "$purpose" = test ]; then
    need etcd etcd-server
    # Takes and restores its snapshots.
    need etcdctl etcd-client
    need ping iputils-ping
    # The journal that monitors read.
    need journalctl systemd
    need mkfs.xfs xfsprogs
    need mkfs.btrfs btrfs-progs
    need curl curl
    need kubectl kubernetes-client
    # What examples/gitops gives to Argo CD is a script of it.
    need lua5.4 lua5.4
    # Reads the metrics, and checks the alerts of manifests/monitoring.
    need prometheus prometheus
    # The Python client, as its users have it; Debian's own interpreter has the packages of Debian.
    if ! [ -d /usr/lib/python3/dist-packages/kubernetes ]; then
        programs+=(python3-kubernetes)
        packages+=(python3-kubernetes)
    fi
    need fence_dummy fence-agents
    # The database of examples/postgresql, of the release that Debian 12 has; its programs are no programs of PATH either.
    if ! [ -e /usr/lib/postgresql/15/bin/initdb ]; then
        programs+=(postgresql-15)
        packages+=(postgresql-15)
    fi
    # What real OCF agents start, and what they call; redis-server also for examples/redis.
    need redis-server redis-server
    need apache2 apache2
    need modprobe kmod
    # A systemd and a D-Bus of the tests' own; a container may have neither.
    need systemctl systemd
    need dbus-daemon dbus
    need birdc bird2
    # The other routing daemon that virtualIP works with; its daemons are no programs of PATH.
    need vtysh frr
    # Its agents are no programs of PATH.
    if ! [ -e /usr/lib/ocf/resource.d/heartbeat/Dummy ]; then
        programs+=(heartbeat:Dummy)
        packages+=(resource-agents)
    fi
fi

# Kept away from init systems while packages unpack: nginx, etcd, PostgreSQL, Redis and Apache must not start because a test wants their programs.
without_services() {
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
        "${as_root[@]}" chmod 755 $policy
        made=yes
    fi
    local status=0
    "$@" || status=$?
    [ -z "$made" ] || "${as_root[@]}" rm -f $policy
    return $status
}

if [ ${#packages[@]} -gt 0 ]; then
    wanted="${packages[*]}"
    command -v apt-get >/dev/null 2>&1 || die \
        "missing programs: ${programs[*]}; this system has no apt-get, so nothing was installed" \
        "install what holds them with your package manager (Debian's names: $wanted), then run this again"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || die "missing packages: $wanted; installing them needs root and there is no sudo" \
            "as root: apt-get install $wanted"
    fi
    say "installing with apt: $wanted"
    "${apt[@]}" update >/dev/null || say "apt-get update failed; going on with the package lists that are there"
    # Ubuntu has kubectl as a snap only.
    if [[ " $wanted " == *" kubernetes-client "* ]] && [ -z "$(apt-cache madison kubernetes-client)" ]; then
        command -v snap >/dev/null 2>&1 || die "kubectl is missing, and neither apt nor snap has it here" \
            "install kubectl 1.24 or newer (https://kubernetes.io/docs/tasks/tools/), then run this again"
        "${as_root[@]}" snap install kubectl --classic
        remaining=()
        for package in "${packages[@]}"; do [ "$package" = kubernetes-client ] || remaining+=("$package"); done
        packages=("${remaining[@]}")
    fi
    if [ ${#packages[@]} -gt 0 ]; then
        without_services "${apt[@]}" install --no-install-recommends "${packages[@]}" >/dev/null || die \
            "apt-get could not install: ${packages[*]}" "see its messages above"
    fi
    # Nor at the next boot.
    if [ -d /run/systemd/system ]; then
        for pair in nginx-light:nginx etcd-server:etcd redis-server:redis-server apache2:apache2 frr:frr prometheus:prometheus; do
            [[ " $wanted " != *" ${pair%%:*} "* ]] || "${as_root[@]}" systemctl disable --quiet "${pair##*:}" 2>/dev/null || true
        done
    fi
fi

# Fills a directory with what virtual machines are made of. The machine at hand keeps its boot loader and its services: the
# packages are downloaded and unpacked there, with what they need and this machine lacks.
machine_parts() {
    local parts=$1 kernel
    # What an interrupted run left may be root's.
    [ ! -e "$parts" ] || "${as_root[@]}" rm -rf "$parts"
    mkdir -p "$parts/archives/partial" "$parts/root"
    kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
    [ -n "$kernel" ] || return 1
    say "fetching for virtual machines, not installing: $kernel qemu-system-x86 busybox-static lvm2 nfs-kernel-server"
    (cd "$parts/archives" && apt-get -q download "$kernel" busybox-static) >/dev/null 2>&1 || return 1
    "${apt[@]}" -o Dir::Cache::archives="$parts/archives" install --download-only --no-install-recommends \
        qemu-system-x86 lvm2 nfs-kernel-server >/dev/null || return 1
    local package
    for package in "$parts"/archives/*.deb; do dpkg-deb -x "$package" "$parts/root" || return 1; done
    # The lock and the directory of apt are root's.
    "${as_root[@]}" rm -rf "$parts/archives"
    echo "$kernel" >"$parts/complete"
}

if [ "$purpose" = test ]; then
    parts=$(realpath -m "${CARGO_TARGET_DIR:-target}")/machine
    if [ ! -e "$parts/complete" ]; then
        # The lists may be old, or not there at all.
        command -v apt-get >/dev/null 2>&1 && { "${apt[@]}" update >/dev/null || say "apt-get update failed"; }
        if [ "$(dpkg --print-architecture 2>/dev/null)" != amd64 ] ||
            [ -z "$(apt-cache madison linux-image-cloud-amd64 2>/dev/null)" ]; then
            say "no package linux-image-cloud-amd64 here (Debian has it): tests in virtual machines are left out"
        else
            machine_parts "$parts" || die "the parts of virtual machines can't be fetched with apt-get" \
                "see its messages above; apt-get update, then run this again"
        fi
    fi
fi

if [ "$purpose" = test ] && ! cargo nextest --version >/dev/null 2>&1; then
    say "installing cargo-nextest $NEXTEST_VERSION with cargo"
    # Built once and run briefly: a quick build is worth more than a quick program.
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        cargo install --quiet --locked cargo-nextest --version "$NEXTEST_VERSION"
fi
