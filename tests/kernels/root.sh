#!/bin/sh
# Makes a root file system into that of a test machine: a customize hook of
# mmdebstrap, which gives the directory as $1.
set -eu
root=$1
in_root() { chroot "$root" "$@"; }

# dev has subordinate ids, nosub has none; shale-test is whom some scenarios become.
for user in dev nosub shale-test; do in_root useradd --create-home --shell /bin/bash $user; done
sed -i '/^nosub:/d' "$root/etc/subuid" "$root/etc/subgid"

# Everybody logs in by ssh from the machine itself, for a session like a user's.
install -d -m 700 "$root/root/.ssh"
in_root ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519
for home in root home/dev home/nosub; do
	install -d -m 700 "$root/$home/.ssh"
	cp "$root/root/.ssh/id_ed25519.pub" "$root/$home/.ssh/authorized_keys"
	chown -R --reference="$root/$home" "$root/$home/.ssh"
done
echo 'UseDNS no' >>"$root/etc/ssh/sshd_config"

echo kernels >"$root/etc/hostname"
printf '127.0.0.1 localhost kernels\n' >"$root/etc/hosts"
rm -f "$root/etc/resolv.conf"
echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
cat >"$root/etc/systemd/network/10-user.network" <<'N'
[Match]
Name=en* eth*
[Network]
DHCP=yes
N
: >"$root/etc/fstab"
cat >"$root/etc/selinux/config" <<'N'
SELINUX=enforcing
SELINUXTYPE=default
N

cat >"$root/etc/systemd/system/guest.service" <<'N'
[Unit]
After=ssh.service systemd-logind.service systemd-networkd.service systemd-user-sessions.service apparmor.service
[Service]
ExecStart=/stage/guest
ExecStopPost=/bin/systemctl --no-block poweroff
StandardOutput=journal+console
[Install]
WantedBy=multi-user.target
N
in_root systemctl enable systemd-networkd ssh guest >/dev/null 2>&1
# What costs time at the start and is of no use here.
for unit in systemd-networkd-wait-online networking podman-auto-update podman podman-restart podman.socket docker-registry \
	nfs-blkmap rpc-statd-notify nfs-server apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	e2scrub_reap fstrim.timer man-db.timer podman-auto-update.timer systemd-pstore cron; do
	in_root systemctl disable "$unit" >/dev/null 2>&1 || true
	case $unit in nfs-server) ;; *) in_root systemctl mask "$unit" >/dev/null 2>&1 || true ;; esac
done
mkdir -p "$root/stage" "$root/usr/lib/modules"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
