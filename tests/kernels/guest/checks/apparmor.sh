# A profile that forbids user namespaces: doctor and a build name it, and what doctor
# advises helps. Linux 6.7 was the first to ask AppArmor; the parser for such rules is
# of a later Debian, beside its own libraries.
. /stage/checks/lib
features=/sys/kernel/security/apparmor/features/namespaces/mask
version=$(uname -r)
major=${version%%.*} minor=${version#*.}
minor=${minor%%.*}
if [ "$major" -lt 6 ] || { [ "$major" -eq 6 ] && [ "$minor" -lt 7 ]; }; then
	! grep -qs userns_create $features
	echo "note: this kernel does not ask AppArmor about user namespaces"
	exit 0
fi
grep -q userns_create $features
parser=/stage/apparmor
mkdir -p /etc/apparmor.d/abi /var/lib/guest/bin
cp $parser/etc/apparmor.d/abi/4.0 /etc/apparmor.d/abi/
cat >/var/lib/guest/bin/apparmor_parser <<P
#!/bin/sh
exec $parser/usr/lib64/ld-linux-x86-64.so.2 --library-path $parser/usr/lib/x86_64-linux-gnu $parser/usr/sbin/apparmor_parser "\$@"
P
chmod 755 /var/lib/guest/bin/apparmor_parser
export PATH=/var/lib/guest/bin:$PATH
cat >/etc/apparmor.d/forbids <<'P'
abi <abi/4.0>,
include <tunables/global>
profile forbids /stage/shal[e] {
  file, capability, network, mount, umount, pivot_root, signal, ptrace, unix, dbus, mqueue, io_uring, change_profile,
  audit deny userns,
}
P
apparmor_parser -r /etc/apparmor.d/forbids
undo() {
	for profile in forbids shale; do
		[ ! -e /etc/apparmor.d/$profile ] || apparmor_parser -R /etc/apparmor.d/$profile || true
		rm -f /etc/apparmor.d/$profile
	done
}
trap 'undo; cleanup ""' EXIT
printf 'FROM scratch\nCOPY Dockerfile /\n' >context/Dockerfile
chmod -R a+rX "$work"
for user in dev nosub; do
	if runuser -l $user -c "$SHALE doctor" >said 2>&1; then
		cat said
		echo "doctor finds no fault for $user"
		exit 1
	fi
	cat said
	grep -q 'AppArmor profile "forbids (.*)" forbids user namespaces' said
	if runuser -l $user -c "$SHALE build $work/context" >log 2>&1; then
		echo "a build succeeds for $user"
		exit 1
	fi
	cat log
	grep -q 'AppArmor profile "forbids (.*)" forbids user namespaces' log
done
sed -n 's/.*run as root: \(printf .*apparmor_parser.*\)$/\1/p' said | head -1 >advice
cat advice
sh -e advice
for user in dev nosub; do
	runuser -l $user -c "$SHALE doctor" >said 2>&1 || { cat said; exit 1; }
done
