#!/bin/sh
# Boots a real systemd, with a journal and a D-Bus, as the first process of a PID namespace of its own, for tests of what
# is asked of it. The mount namespace that this is run in needs a /run of its own, in which the bus then is.
#
#   systemd.sh CGROUP   a directory of a cgroup2 file system, for systemd and its units
#
# Units of tests go to /run/units. Nothing of the machine's own units is read, nothing of the machine is written.
set -e
cgroup=$1
mkdir -p "$cgroup" /run/units /run/none /run/dbus /run/dev
for target in sysinit basic shutdown; do
    printf '[Unit]\nDefaultDependencies=no\n' > /run/units/$target.target
done
cat > /run/units/boot.target <<END
[Unit]
DefaultDependencies=no
Requires=dbus.socket dbus.service systemd-journald.service
END
cat > /run/units/dbus.socket <<END
[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/dbus/system_bus_socket
END
cat > /run/units/dbus.service <<END
[Unit]
DefaultDependencies=no
Requires=dbus.socket
[Service]
Type=notify
NotifyAccess=main
ExecStart=/usr/bin/dbus-daemon --system --address=systemd: --nofork --nopidfile --systemd-activation
END
cat > /run/units/systemd-journald.socket <<END
[Unit]
DefaultDependencies=no
[Socket]
ListenStream=/run/systemd/journal/stdout
ListenDatagram=/run/systemd/journal/socket
PassCredentials=yes
END
cat > /run/units/systemd-journald.service <<END
[Unit]
DefaultDependencies=no
Requires=systemd-journald.socket
After=systemd-journald.socket
Before=boot.target
[Service]
Type=notify
Sockets=systemd-journald.socket
StandardOutput=null
ExecStart=/lib/systemd/systemd-journald
END
cat > /run/boot-systemd <<'END'
set -e
[ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] || mount -t cgroup2 none /sys/fs/cgroup
mount -t tmpfs none /run/dev
for node in null zero full random urandom tty; do
    : > /run/dev/$node
    mount --bind /dev/$node /run/dev/$node
done
mkdir /run/dev/shm /run/dev/pts
# What tests have there is what they had outside.
mount --bind /dev/shm /run/dev/shm
mount --move /run/dev /dev
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
# A machine that was never booted has none.
[ -s /etc/machine-id ] || {
    echo 0123456789abcdef0123456789abcdef > /run/machine-id
    mount --bind /run/machine-id /etc/machine-id
}
exec /lib/systemd/systemd --system --unit=boot.target --log-target=null --show-status=no
END
echo 0 > "$cgroup/cgroup.procs"
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=lab SYSTEMD_UNIT_PATH=/run/systemd/system:/run/units \
    SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none \
    unshare --pid --fork --kill-child --mount --propagation private --uts --ipc --mount-proc sh /run/boot-systemd
