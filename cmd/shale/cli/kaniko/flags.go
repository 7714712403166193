package kaniko

import (
	"time"

	"github.com/spf13/pflag"
)

// flags holds the values of a command line.
type flags struct {
	context, subPath, bucket, dockerfile string
	git                                  gitOptions

	destinations, buildArgs, labels, annotations, secrets, targets []string

	platform string

	noPush, noPushCache, reproducible, singleSnapshot bool

	tarPath, layoutPath, digestFile, nameDigestFile, tagDigestFile string

	format, compression string
	level               int

	cache, copyLayers, runLayers bool
	cacheRepo                    string
	cacheTTL                     time.Duration

	mirrors, maps                                      []string
	skipFallback                                       bool
	insecure, insecurePull, skipVerify, skipVerifyPull bool
	insecureRegistries, skipVerifyRegistries           []string
	certificates, clientCertificates                   []string
	pushRetry, downloadRetry, extractRetry             int
	ignoreImmutable                                    bool
	credentialHelpers                                  []string
	kanikoDir, verbosity, logFormat                    string
	dryRun                                             bool
}

// flag describes a flag of kaniko.
type flag struct {
	name, short, usage string
	// bind adds the flag to set, so that parsing it stores its value in v.
	bind func(set *pflag.FlagSet, f flag, v *flags)
	// instead is the current name of the flag, if name is a deprecated one.
	instead string
	// noEffect is the reason why the flag has no effect, which is printed as a warning.
	// There is no warning for the values in accepted, because they request the normal
	// behaviour of shale.
	noEffect string
	accepted []string
}

func text(to func(*flags) *string, value string) func(*pflag.FlagSet, flag, *flags) {
	return func(set *pflag.FlagSet, f flag, v *flags) { set.StringVarP(to(v), f.name, f.short, value, f.usage) }
}

func list(to func(*flags) *[]string) func(*pflag.FlagSet, flag, *flags) {
	return func(set *pflag.FlagSet, f flag, v *flags) { set.StringArrayVarP(to(v), f.name, f.short, nil, f.usage) }
}

func truth(to func(*flags) *bool, value bool) func(*pflag.FlagSet, flag, *flags) {
	return func(set *pflag.FlagSet, f flag, v *flags) { set.BoolVarP(to(v), f.name, f.short, value, f.usage) }
}

func number(to func(*flags) *int, value int) func(*pflag.FlagSet, flag, *flags) {
	return func(set *pflag.FlagSet, f flag, v *flags) { set.IntVarP(to(v), f.name, f.short, value, f.usage) }
}

// unusedText adds a flag with a value that is not used.
func unusedText(value string) func(*pflag.FlagSet, flag, *flags) {
	return func(set *pflag.FlagSet, f flag, _ *flags) { set.StringP(f.name, f.short, value, f.usage) }
}

func unusedTruth(value bool) func(*pflag.FlagSet, flag, *flags) {
	return func(set *pflag.FlagSet, f flag, _ *flags) { set.BoolP(f.name, f.short, value, f.usage) }
}

func unusedList(set *pflag.FlagSet, f flag, _ *flags) {
	set.StringArrayP(f.name, f.short, nil, f.usage)
}

// exact is the reason why kaniko's flags for detecting the changes of a step have no
// effect.
const exact = "changes of a step are always found exactly"

// table returns every flag of kaniko's executor, in the order of its source.
func table() []flag {
	return []flag{
		{name: "verbosity", short: "v", usage: "log messages of `LEVEL` and above: trace, debug, info, warn, error, fatal or panic", bind: text(func(v *flags) *string { return &v.verbosity }, "info")},
		{name: "log-format", usage: "how progress is written: text, color or json", bind: text(func(v *flags) *string { return &v.logFormat }, "color")},
		{name: "log-timestamp", usage: "timestamps in progress", bind: unusedTruth(false), noEffect: "progress has the time that each step took", accepted: []string{"false"}},
		{name: "force", usage: "build outside of a container", bind: unusedTruth(false), noEffect: "building outside of a container is as good", accepted: []string{"true", "false"}},

		{name: "dockerfile", short: "f", usage: "read the Dockerfile from `PATH`, relative to the working directory or else to the context, or a URL", bind: text(func(v *flags) *string { return &v.dockerfile }, "Dockerfile")},
		{name: "context", short: "c", usage: "take files from `CONTEXT`: a directory, dir://DIRECTORY, tar://FILE, tar://stdin, git://HOST/REPOSITORY[#REF[#COMMIT]], https://… (an archive), s3://BUCKET/KEY or gs://BUCKET/OBJECT", bind: text(func(v *flags) *string { return &v.context }, "/workspace/")},
		{name: "context-sub-path", usage: "the `DIRECTORY` of the context to use", bind: text(func(v *flags) *string { return &v.subPath }, "")},
		{name: "bucket", short: "b", usage: "the `BUCKET` that has the context as context.tar.gz", bind: text(func(v *flags) *string { return &v.bucket }, "")},
		{name: "destination", short: "d", usage: "push the image to `NAME[:TAG]`; may be repeated", bind: list(func(v *flags) *[]string { return &v.destinations })},
		{name: "snapshot-mode", usage: "full, redo or time", bind: unusedText("full"), noEffect: exact, accepted: []string{"full"}},
		{name: "custom-platform", usage: "build for `OS/ARCH[/VARIANT]`", bind: text(func(v *flags) *string { return &v.platform }, "")},
		{name: "build-arg", usage: "set a build argument: `KEY[=VALUE]`, without VALUE from the environment", bind: list(func(v *flags) *[]string { return &v.buildArgs })},
		{name: "insecure", usage: "push over plain HTTP if need be", bind: truth(func(v *flags) *bool { return &v.insecure }, false)},
		{name: "skip-tls-verify", usage: "push without checking certificates", bind: truth(func(v *flags) *bool { return &v.skipVerify }, false)},
		{name: "insecure-pull", usage: "pull over plain HTTP if need be", bind: truth(func(v *flags) *bool { return &v.insecurePull }, false)},
		{name: "skip-tls-verify-pull", usage: "pull without checking certificates", bind: truth(func(v *flags) *bool { return &v.skipVerifyPull }, false)},
		{name: "push-retry", usage: "try a push again `N` times", bind: number(func(v *flags) *int { return &v.pushRetry }, 0)},
		{name: "push-ignore-immutable-tag-errors", usage: "take a tag that cannot be moved for pushed", bind: truth(func(v *flags) *bool { return &v.ignoreImmutable }, false)},
		{name: "image-fs-extract-retry", usage: "try to unpack a base image again `N` times", bind: number(func(v *flags) *int { return &v.extractRetry }, 0)},
		{name: "image-download-retry", usage: "try to download a base image again `N` times", bind: number(func(v *flags) *int { return &v.downloadRetry }, 0)},
		{name: "kaniko-dir", usage: "find .docker/config.json in `DIRECTORY`", bind: text(func(v *flags) *string { return &v.kanikoDir }, "")},
		{name: "tar-path", usage: "write the image as `FILE` for docker load", bind: text(func(v *flags) *string { return &v.tarPath }, "")},
		{name: "single-snapshot", usage: "merge the layers that the build adds to the base into one", bind: truth(func(v *flags) *bool { return &v.singleSnapshot }, false)},
		{name: "reproducible", usage: "set all times to 1970", bind: truth(func(v *flags) *bool { return &v.reproducible }, false)},
		{name: "target", usage: "build `STAGE`; of several the first is the result", bind: func(set *pflag.FlagSet, f flag, v *flags) {
			set.StringSliceVarP(&v.targets, f.name, f.short, nil, f.usage)
		}},
		{name: "no-push", usage: "push no image", bind: truth(func(v *flags) *bool { return &v.noPush }, false)},
		{name: "no-push-cache", usage: "write no cache", bind: truth(func(v *flags) *bool { return &v.noPushCache }, false)},
		{name: "cache-repo", usage: "keep the cache at `NAME` (default: cache below the first destination), or in oci:DIRECTORY", bind: text(func(v *flags) *string { return &v.cacheRepo }, "")},
		{name: "cache-dir", usage: "where kaniko's warmer keeps base images", bind: unusedText("/cache"), noEffect: "base images are kept in the store"},
		{name: "digest-file", usage: "write the digest of the image to `FILE`, or PUT it to an https URL", bind: text(func(v *flags) *string { return &v.digestFile }, "")},
		{name: "image-name-with-digest-file", usage: "write NAME@DIGEST of each destination to `FILE`", bind: text(func(v *flags) *string { return &v.nameDigestFile }, "")},
		{name: "image-name-tag-with-digest-file", usage: "write NAME:TAG@DIGEST of each destination to `FILE`", bind: text(func(v *flags) *string { return &v.tagDigestFile }, "")},
		{name: "oci-layout-path", usage: "write the image as an OCI layout to `DIRECTORY`", bind: text(func(v *flags) *string { return &v.layoutPath }, "")},
		{name: "image-format", usage: "media types of the image: oci (default) or docker", bind: text(func(v *flags) *string { return &v.format }, "")},
		{name: "compression", usage: "compress layers by `ALGORITHM`: gzip or zstd", bind: text(func(v *flags) *string { return &v.compression }, "")},
		{name: "compression-level", usage: "compress at `LEVEL`, -1 for the usual one", bind: number(func(v *flags) *int { return &v.level }, -1)},
		{name: "cache", usage: "use and write a cache", bind: truth(func(v *flags) *bool { return &v.cache }, false)},
		{name: "compressed-caching", usage: "compress cached layers in memory", bind: unusedTruth(true), noEffect: "layers are streamed", accepted: []string{"true"}},
		{name: "pre-cleanup", usage: "clean the file system before the build", bind: unusedTruth(false), noEffect: "builds start from a clean file system", accepted: []string{"true", "false"}},
		{name: "cleanup", usage: "clean the file system after the build", bind: unusedTruth(false), noEffect: "builds leave nothing behind", accepted: []string{"true", "false"}},
		{name: "preserve-context", usage: "keep the context for all stages", bind: unusedTruth(false), noEffect: "stages do not touch the context", accepted: []string{"true", "false"}},
		{name: "materialize", usage: "leave the result in the file system", bind: unusedTruth(false), noEffect: "the result is an image; shale run starts it", accepted: []string{"false"}},
		{name: "cache-ttl", usage: "use results of the cache that are no older than `DURATION`", bind: func(set *pflag.FlagSet, f flag, v *flags) {
			set.DurationVarP(&v.cacheTTL, f.name, f.short, 336*time.Hour, f.usage)
		}},
		{name: "insecure-registry", usage: "talk to `REGISTRY` over plain HTTP if need be; may be repeated", bind: list(func(v *flags) *[]string { return &v.insecureRegistries })},
		{name: "skip-tls-verify-registry", usage: "do not check the certificate of `REGISTRY`; may be repeated", bind: list(func(v *flags) *[]string { return &v.skipVerifyRegistries })},
		{name: "registry-certificate", usage: "trust the certificate of a registry: `REGISTRY=FILE`", bind: list(func(v *flags) *[]string { return &v.certificates })},
		{name: "registry-client-cert", usage: "use a client certificate for a registry: `REGISTRY=CERTIFICATE,KEY`", bind: list(func(v *flags) *[]string { return &v.clientCertificates })},
		{name: "registry-map", usage: "pull from another registry: `REGISTRY=OTHER[/PATH][;REGISTRY=…]`", bind: list(func(v *flags) *[]string { return &v.maps })},
		{name: "registry-mirror", usage: "pull from `REGISTRY[/PATH]` instead of docker.io; may be repeated", bind: list(func(v *flags) *[]string { return &v.mirrors })},
		{name: "skip-default-registry-fallback", usage: "do not ask the registry itself when no mirror has an image", bind: truth(func(v *flags) *bool { return &v.skipFallback }, false)},
		{name: "ignore-var-run", usage: "leave /var/run out of the image", bind: unusedTruth(true), noEffect: "/var/run is kept like any other directory", accepted: []string{"false"}},
		{name: "label", usage: "add a label `KEY=VALUE`", bind: list(func(v *flags) *[]string { return &v.labels })},
		{name: "annotation", usage: "annotate the manifest: `KEY=VALUE`", bind: list(func(v *flags) *[]string { return &v.annotations })},
		{name: "skip-unused-stages", usage: "build the stages that the result needs, and no others", bind: unusedTruth(false), noEffect: "stages that the result does not need are never built", accepted: []string{"true"}},
		{name: "use-new-run", usage: "find the changes of a step by time", bind: unusedTruth(false), noEffect: exact, accepted: []string{"false"}},
		{name: "git", usage: "for a git context: `branch=NAME`, recurse-submodules=true, insecure-skip-tls=true", bind: func(set *pflag.FlagSet, f flag, v *flags) { set.VarP(&v.git, f.name, f.short, f.usage) }},
		{name: "cache-copy-layers", usage: "cache the layers of COPY", bind: truth(func(v *flags) *bool { return &v.copyLayers }, false)},
		{name: "cache-run-layers", usage: "cache the layers of RUN", bind: truth(func(v *flags) *bool { return &v.runLayers }, true)},
		{name: "ignore-path", usage: "leave `PATH` out of snapshots", bind: unusedList, noEffect: "the image has all files that the Dockerfile makes; remove a file in the step that makes it"},
		{name: "force-build-metadata", usage: "add metadata", bind: unusedTruth(false), noEffect: "metadata is always there", accepted: []string{"true"}},
		{name: "skip-push-permission-check", usage: "do not ask whether pushing is allowed before building", bind: unusedTruth(false), noEffect: "it is not asked", accepted: []string{"true"}},
		{name: "credential-helpers", usage: "where logins come from beside config.json: env, gitlab, google, ecr, acr; \"\" for nowhere", bind: list(func(v *flags) *[]string { return &v.credentialHelpers })},
		{name: "secret", usage: "let steps use a secret: `id=ID[,src=FILE|env=NAME][,type=file|env]`", bind: list(func(v *flags) *[]string { return &v.secrets })},
		{name: "dryrun", usage: "print the plan only", bind: truth(func(v *flags) *bool { return &v.dryRun }, false)},
		{name: "azure-container-registry-config", usage: "the `FILE` of an Azure service principal", bind: unusedText(""), noEffect: "Azure's credential helper reads its environment"},

		// Deprecated names.
		{name: "snapshotMode", instead: "snapshot-mode", usage: "full, redo or time", bind: unusedText("full")},
		{name: "customPlatform", instead: "custom-platform", usage: "build for `OS/ARCH[/VARIANT]`", bind: text(func(v *flags) *string { return &v.platform }, "")},
		{name: "tarPath", instead: "tar-path", usage: "write the image as `FILE` for docker load", bind: text(func(v *flags) *string { return &v.tarPath }, "")},
		{name: "whitelist-var-run", instead: "ignore-var-run", usage: "leave /var/run out of the image", bind: unusedTruth(true), noEffect: "/var/run is kept like any other directory", accepted: []string{"false"}},
	}
}
