#!/usr/bin/env bash
# Builds upstream's own judges from Debian 12's source package of Kubernetes 1.20.2, the newest one of Debian that has more than kubectl: the
# conformance suite (e2e.test), the images that it runs, and the stock components. Nothing of it is part of this repository or of what it releases.
#
#   bash test/conformance/build.sh [DIR]      # default .cache/conformance; about 15 minutes on two cores, then a few seconds
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p "${1:-.cache/conformance}"
out=$(cd "${1:-.cache/conformance}" && pwd)
version='1.20.5+really1.20.2'
export GOPATH=$out/gopath CGO_ENABLED=0 GO111MODULE=off PATH=/usr/lib/go-1.19/bin:$PATH
source=$GOPATH/src/k8s.io/kubernetes
mkdir -p "$out/built"

needed=()
[ -x /usr/lib/go-1.19/bin/go ] || needed+=(golang-1.19-go)
[ -x /usr/bin/gcc ] || needed+=(gcc libc6-dev)
if [ ${#needed[@]} -gt 0 ]; then
  echo "Debian packages ${needed[*]}: compile the suite"
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${needed[@]}" >/dev/null
fi

if [ ! -e "$source/cmd/kube-apiserver" ]; then
  echo "source package kubernetes $version of Debian 12"
  # An apt of its own: the machine's lists and sources stay as they are.
  mkdir -p "$out"/apt/{lists/partial,archives/partial} "$source"
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 'debian$') bookworm main" >"$out/apt/sources.list"
  apt=(-q -o "Dir::State::lists=$out/apt/lists" -o "Dir::Cache=$out/apt" -o "Dir::Etc::SourceList=$out/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null -o APT::Sandbox::User=root)
  apt-get "${apt[@]}" update >/dev/null
  (cd "$out/apt" && apt-get "${apt[@]}" source --download-only kubernetes >/dev/null)
  tar xf "$out"/apt/kubernetes_*.orig.tar.gz -C "$source" --strip-components=1
fi

cd "$source"
stamped=k8s.io/kubernetes/vendor/k8s.io/component-base/version
stamp="-X $stamped.gitVersion=v1.20.2 -X $stamped.gitMajor=1 -X $stamped.gitMinor=20"
build() {
  [ -x "$out/built/$1" ] && return
  echo "compiling $1"
  go build -ldflags "-s -w $stamp" -o "$out/built/$1" "$2"
}
build agnhost ./test/images/agnhost
build nnp ./test/images/nonewprivs
build sample-apiserver ./vendor/k8s.io/sample-apiserver
build kubectl ./cmd/kubectl
[ -x "$out/built/pause" ] || gcc -Os -static -o "$out/built/pause" build/pause/linux/pause.c
if [ ! -x "$out/built/e2e.test" ]; then
  echo 'compiling the conformance suite'
  go build -o "$out/go-bindata" ./vendor/github.com/go-bindata/go-bindata/go-bindata
  "$out/go-bindata" -nometadata -o test/e2e/generated/bindata.go -pkg generated -ignore .jpg -ignore .png -ignore .md -ignore 'BUILD(\.bazel)?' \
    test/conformance/testdata/... test/e2e/testing-manifests/... test/e2e_node/testing-manifests/... test/images/... test/fixtures/...
  go test -c -o "$out/built/e2e.test" ./test/e2e
fi
# The stock components, for trials by hand: COX_STOCK=1.
if [ -n "${COX_STOCK:-}" ]; then
  for component in kube-proxy kube-scheduler kube-controller-manager kubelet; do build $component ./cmd/$component; done
  [ -e pkg/generated/openapi/zz_generated.openapi.go ] || HOME=$out make generated_files
  build kube-apiserver ./cmd/kube-apiserver
fi
ls -la "$out/built"
