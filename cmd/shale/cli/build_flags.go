package cli

import (
	"fmt"
	"slices"
	"sort"

	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/builder"
)

// buildFlags returns the flags of build. They have the names that docker buildx build
// uses. Flags that docker does not have are named as in buildah.
func buildFlags() []cli.Flag {
	flags := []cli.Flag{
		&cli.StringSliceFlag{Name: "add-host", Usage: "add `HOST:IP` to /etc/hosts of RUN steps"},
		&cli.StringSliceFlag{Name: "allow", Usage: "allow steps that need `ENTITLEMENT`: network.host, security.insecure, device[=NAME]; buildx.local.delete lets exports delete files"},
		&cli.StringSliceFlag{Name: "annotation", Usage: "annotate the image: `[KIND:]KEY=VALUE`, with KIND manifest (default), manifest-descriptor, both also for one [PLATFORM], index or index-descriptor"},
		&cli.StringFlag{Name: "authfile", EnvVars: []string{"REGISTRY_AUTH_FILE"}, Usage: "read registry logins from `FILE`"},
		&cli.StringSliceFlag{Name: "build-arg", Usage: "set a build argument: `KEY[=VALUE]`, without VALUE from the environment"},
		&cli.StringSliceFlag{Name: "build-context", Usage: "make a further context `NAME=DIR|URL|GIT|docker-image://REF|oci-layout://DIR` available"},
		&cli.StringSliceFlag{Name: "cache-from", Usage: "find results in the cache at `NAME|type=registry,ref=NAME|type=local,src=DIR[,mounts=true|false|ID]`, and the first content of cache mounts (mounts, default: true); an image with an inline cache is a cache"},
		&cli.StringFlag{Name: "cache-grace", Value: builder.DefaultCacheGrace.String(), Usage: "after SIGTERM write complete steps to the caches of --cache-to for at most `DURATION`, including three seconds for running steps to end; 0s to write none"},
		&cli.StringSliceFlag{Name: "cache-to", Usage: "write the cache to `NAME|type=registry,ref=NAME|type=local,dest=DIR|type=inline[,mode=min|max][,compression=TYPE][,ignore-error=true][,on=always|success][,max-age=DURATION][,max-size=BYTES][,mounts=true|false|ID]`; mounts takes cache mounts along (default: false); on=success leaves the cache as it is when the build fails or is stopped"},
		&cli.StringFlag{Name: "call", Value: "build", Usage: "instead of building, print a `REPORT[,format=json|text][,ignorestatus=true]`: check, outline or targets"},
		&cli.BoolFlag{Name: "check", Usage: "the same as --call=check"},
		&cli.StringFlag{Name: "cgroup-parent", Usage: "place steps in the control group `PATH`"},
		&cli.StringFlag{Name: "cpu-period", Usage: "the `MICROSECONDS` that --cpu-quota counts in"},
		&cli.StringFlag{Name: "cpu-quota", Usage: "let a step use processors for `MICROSECONDS` of each period"},
		&cli.StringFlag{Name: "cpu-shares", Aliases: []string{"c"}, Usage: "give steps the `WEIGHT` among others that want processors"},
		&cli.StringFlag{Name: "cpuset-cpus", Usage: "let steps use the processors of `LIST`, as 0-3,7"},
		&cli.StringFlag{Name: "cpuset-mems", Usage: "let steps use the memory nodes of `LIST`"},
		&cli.BoolFlag{Name: "explain", Usage: "say of every step whether it ran or came from the cache, and why"},
		&cli.StringFlag{Name: "file", Aliases: []string{"f"}, Usage: "read the Dockerfile from `FILE` or URL, - for standard input (default: CONTEXT/Dockerfile)"},
		&cli.StringFlag{Name: "format", Value: "oci", EnvVars: []string{"BUILDAH_FORMAT"}, Usage: "media types of the image: oci or docker"},
		gcFlag(),
		&cli.StringFlag{Name: "iidfile", Usage: "write the image ID, or the digest of an index, to `FILE`"},
		isolationFlag(),
		&cli.StringSliceFlag{Name: "label", Usage: "add a label `KEY=VALUE` to the image"},
		&cli.BoolFlag{Name: "load", Usage: "keep the image in the store, as is done anyway without --output"},
		&cli.StringFlag{Name: "memory", Aliases: []string{"m"}, Usage: "let a step use `BYTES` of memory, as 2g"},
		&cli.StringFlag{Name: "memory-swap", Usage: "let a step use `BYTES` of memory and swap together, -1 for any"},
		&cli.StringFlag{Name: "metadata-file", Usage: "write metadata of the result to `FILE`, as JSON"},
		&cli.StringFlag{Name: "network", Value: "default", Usage: "network of RUN steps: default, none, host or private"},
		&cli.BoolFlag{Name: "no-cache", Usage: "run every step again"},
		&cli.StringSliceFlag{Name: "no-cache-filter", Usage: "run the steps of `STAGE` again"},
		&cli.StringSliceFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the result to `type=TYPE[,dest=PATH][,KEY=VALUE]`, with TYPE image, local, tar, oci, docker or registry; a lone path is a directory, - a tar archive on standard output"},
		ownershipFlag(),
		&cli.StringSliceFlag{Name: "platform", Usage: "build for `OS/ARCH[/VARIANT]`, several of them into one index"},
		&cli.StringFlag{Name: "progress", Value: "auto", EnvVars: []string{"BUILDKIT_PROGRESS"}, Usage: "how to show progress: auto, tty, plain, json, rawjson, quiet or none"},
		&cli.BoolFlag{Name: "pull", Usage: "ask the registry for newer base images"},
		&cli.BoolFlag{Name: "push", Usage: "push the image to the registries of its tags"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print only the image ID"},
		&cli.StringSliceFlag{Name: "resource", Usage: "limit steps as the flag of that name does: `KEY=VALUE` with KEY memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus or cpuset-mems"},
		&cli.StringSliceFlag{Name: "secret", Usage: "let steps use a secret: `id=ID[,src=FILE|env=NAME]`, without source the variable or else the file called ID"},
		&cli.StringFlag{Name: "shm-size", Usage: "size of /dev/shm in RUN steps, as `BYTES` or 64m"},
		&cli.StringSliceFlag{Name: "ssh", Usage: "let steps use the SSH agent or keys of `default|ID[=SOCKET|KEY[,KEY]]`, without path the agent of SSH_AUTH_SOCK"},
		&cli.StringFlag{Name: "source-policy-file", EnvVars: []string{"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"}, Usage: "apply the rules in `FILE` about the sources that the build may use"},
		&cli.StringSliceFlag{Name: "tag", Aliases: []string{"t"}, Usage: "call the image `NAME[:TAG]`"},
		&cli.StringFlag{Name: "target", Usage: "build `STAGE` instead of the last one"},
		&cli.BoolFlag{Name: "tls-verify", Value: true, Usage: "require https and check the certificates of registries"},
		&cli.StringSliceFlag{Name: "ulimit", Usage: "limit RUN steps by `NAME=SOFT[:HARD]`"},
	}
	return slices.Concat(flags, acceptedFlags(), attestationFlags(), refusedFlags())
}

// acceptedFlags returns flags that scripts may pass but that the help does not list.
// All except --print have no effect, because shale already does what they request:
// there are no intermediate containers to remove, the context is not sent to a daemon,
// and there is only one builder.
func acceptedFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "builder", Hidden: true},
		&cli.BoolFlag{Name: "compress", Hidden: true},
		&cli.BoolFlag{Name: "rm", Value: true, Hidden: true},
		&cli.BoolFlag{Name: "force-rm", Hidden: true},
		&cli.BoolFlag{Name: "disable-content-trust", Value: true, Hidden: true},
		// print is the former name of --call; see callValue.
		&cli.StringFlag{Name: "print", Hidden: true},
	}
}

// refused maps flags of docker build, docker buildx build and buildah to the reason why
// they are not available. They would change the result, so shale refuses them by name.
// If shale ignored them, the user would get an image other than the requested one.
var refused = map[string]string{
	"policy":       "Rego policies are not evaluated; --source-policy-file takes rules in BuildKit's form",
	"security-opt": "the profile of steps cannot be changed; RUN --security=insecure with --allow=security.insecure lifts it",
	"squash":       "layers are not merged; copy the files into a last stage with COPY --from",
}

// harmless lists values of refused flags that request the normal behaviour of shale.
var harmless = map[string][]string{
	"policy": {"disabled=true"},
}

// refusedBooleans are the refused flags that take no value.
var refusedBooleans = map[string]bool{"squash": true}

func refusedFlags() []cli.Flag {
	var flags []cli.Flag
	for _, name := range refusedNames() {
		if refusedBooleans[name] {
			flags = append(flags, &cli.BoolFlag{Name: name, Hidden: true})
			continue
		}
		flags = append(flags, &cli.StringSliceFlag{Name: name, Hidden: true})
	}
	return flags
}

func refusedNames() []string {
	names := make([]string, 0, len(refused))
	for name := range refused {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// refuseFlags returns a usage error if the command line sets a flag that is not
// available. A flag may be set to false if shale never does what it requests.
func refuseFlags(c *cli.Context) error {
	for _, name := range refusedNames() {
		if !c.IsSet(name) || refusedBooleans[name] && !c.Bool(name) {
			continue
		}
		unknown := func(value string) bool { return !slices.Contains(harmless[name], value) }
		if !refusedBooleans[name] && !slices.ContainsFunc(c.StringSlice(name), unknown) {
			continue
		}
		return usageError(c, fmt.Sprintf("--%s is not available in this version: %s", name, refused[name]))
	}
	return nil
}
