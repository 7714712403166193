# Shell functions with which a setup.sh makes OCI layouts: . "$LIB/oci.sh"
#
#	layer FILE [TYPE]     adds a tar archive (compressed with gzip or zstd when
#	                      its name ends so) as the next layer, removing the file
#	layout DIR [CONFIG]   writes the image of the layers so far; CONFIG is what
#	                      its config has beside rootfs, os and architecture, by
#	                      default a history with a line for each layer

diffs=
layers=
history=

put() { # put FILE: moves it among the blobs; sets digest and size
	digest=$(sha256sum <"$1" | cut -d' ' -f1)
	size=$(stat -c %s "$1")
	mkdir -p .blobs
	mv "$1" ".blobs/$digest"
}

layer() {
	type=application/vnd.oci.image.layer.v1.tar
	case $1 in
	*.gz) type=$type+gzip diff=$(gzip -dc "$1" | sha256sum | cut -d' ' -f1) ;;
	*.zst) type=$type+zstd diff=$(zstd -dc "$1" | sha256sum | cut -d' ' -f1) ;;
	*) diff=$(sha256sum <"$1" | cut -d' ' -f1) ;;
	esac
	put "$1"
	history="$history${history:+,}{\"created_by\":\"layer\"}"
	diffs="$diffs${diffs:+,}\"sha256:$diff\""
	layers="$layers${layers:+,}{\"mediaType\":\"${2:-$type}\",\"digest\":\"sha256:$digest\",\"size\":$size}"
}

layout() {
	printf '{"architecture":"%s","os":"linux"%s,"rootfs":{"type":"layers","diff_ids":[%s]}}' "$ARCH" ",${2-\"history\":[$history]}" "$diffs" >.config
	put .config
	printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[%s]}' \
		"$digest" "$size" "$layers" >.manifest
	put .manifest
	mkdir -p "$1/blobs"
	cp -R .blobs "$1/blobs/sha256"
	printf '{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s,"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}' \
		"$digest" "$size" >"$1/index.json"
	printf '{"imageLayoutVersion":"1.0.0"}' >"$1/oci-layout"
}

# pack FILE DIR [tar's options]: an archive of DIR's content with fixed times
# and owners.
pack() {
	file=$1 dir=$2
	shift 2
	tar -C "$dir" --sort=name --mtime=2020-01-01 --owner=0 --group=0 --numeric-owner "$@" -cf "$file" .
}
