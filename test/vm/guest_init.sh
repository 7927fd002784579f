#!/bin/sh
# The first program of a guest, in its initrd, run by busybox: loads the modules without which the host's root cannot be reached, lays a
# tmpfs over that root, so that nothing written in the guest reaches the host, and goes on with guest_boot.sh from there.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
fail() {
  echo "guest: $*" >/dev/console
  poweroff -f
}
for module in $(cat /modules.list); do
  insmod "/modules/$module" || echo "guest: no $module" >/dev/console
done
options=trans=virtio,version=9p2000.L,msize=524288
mount -t 9p -o "$options,ro,cache=loose" host /host || fail "no root from the host"
mount -t tmpfs -o size=75% tmpfs /written
mkdir /written/upper /written/work
mount -t overlay -o lowerdir=/host,upperdir=/written/upper,workdir=/written/work overlay /root || fail "no overlay"
mkdir -p /root/vm
mount -t 9p -o "$options,rw,cache=none" share /root/vm || fail "no shared folder"
for folder in proc sys dev; do mount --move "/$folder" "/root/$folder"; done
for word in $(cat /root/proc/cmdline); do
  case "$word" in bed.boot=*) boot=${word#bed.boot=} ;; esac
done
cd /root && exec switch_root /root /bin/bash "$boot"
