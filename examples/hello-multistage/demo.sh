#!/bin/sh
# Shows what shale does, step by step. make demo runs it with SHALE_BIN set to
# the binary and SHALE_REGISTRY to a registry that has the base images.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
scratch=$(mktemp -d /var/tmp/shale-demo.XXXXXX)
context=$scratch/hello-multistage
cp -R "$here" "$context"

# A home of its own, so that the demo meets no store and leaves none. What is
# in a store belongs to subordinate ids; only a user namespace can remove it.
HOME=$scratch/home
XDG_RUNTIME_DIR=$scratch/run
export HOME XDG_RUNTIME_DIR
unset XDG_CONFIG_HOME XDG_DATA_HOME XDG_CACHE_HOME CONTAINERS_STORAGE_CONF
clean_up() {
	cd /
	if [ "$(id -u)" -eq 0 ]; then rm -rf "$scratch"; else unshare --map-root-user --map-auto rm -rf "$scratch"; fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM
mkdir -p "$HOME/.config/containers" "$XDG_RUNTIME_DIR"
chmod 700 "$XDG_RUNTIME_DIR"
cat >"$HOME/.config/containers/registries.conf" <<END
# Docker Hub's official images, from the registry on this machine.
[[registry]]
prefix = "docker.io/library"
location = "$SHALE_REGISTRY"
insecure = true
END
mkdir "$scratch/bin"
ln -s "$SHALE_BIN" "$scratch/bin/shale"
PATH=$scratch/bin:$PATH
cd "$context"

heading() { printf '\n\033[1m=== %s\033[0m\n' "$*"; }
show() {
	printf '\033[32m$ %s\033[0m\n' "$*"
	"$@"
}

heading "Who we are: $(id -un), uid $(id -u), and what this machine allows"
show shale version
show shale doctor
heading "The Dockerfile"
show cat Dockerfile
heading "First build: every step runs"
show shale build -t hello .
heading "Second build: nothing runs"
show shale build -t hello .
heading "The image in the store"
show shale images
heading "Its history: 0B where an instruction only describes"
show shale history hello
heading "Its configuration"
show shale inspect --format '{{json .Config}}' hello
show shale inspect --format '{{json .RootFS.Layers}}' hello
heading "Run it"
show shale run hello
