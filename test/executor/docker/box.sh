#!/bin/sh
# box.sh AGENT FOLDER: the agent as first process of namespaces of its own, with what a container gives it: an unprivileged
# user, no capabilities, no new privileges, a root folder of its own with the system's programs. FOLDER is an empty one
# to mount that root on; nobody outside sees it.
set -eu
exec unshare --mount --pid --net --ipc --uts --fork --kill-child sh -euc '
mount -t tmpfs none "$2"
cd "$2"
mkdir proc dev usr work out tmp etc
for name in bin sbin lib lib64; do
  if [ -L "/$name" ]; then ln -s "$(readlink "/$name")" "$name"; elif [ -d "/$name" ]; then mkdir "$name"; mount --bind "/$name" "$name"; fi
done
mount --rbind /usr usr
for name in null zero full random urandom; do touch "dev/$name"; mount --bind "/dev/$name" "dev/$name"; done
mount -t proc proc proc
cp "$1" writ-agent
chmod 0555 writ-agent
mount -t tmpfs -o mode=0700,uid=65532,gid=65532,size=64m none work
mount -t tmpfs -o mode=0700,uid=65532,gid=65532,size=32m,noexec none out
mount -t tmpfs -o mode=1777,noexec none tmp
perl -e "socket(my \$s, 2, 2, 0); my \$up = pack(q(a16s), q(lo), 0x41); ioctl(\$s, 0x8914, \$up) or die"
exec chroot . /usr/bin/setpriv --reuid 65532 --regid 65532 --clear-groups --bounding-set -all --inh-caps -all --no-new-privs /writ-agent
' sh "$1" "$2"
