package llb

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
)

// Schemes of source identifiers.
const (
	SchemeImage  = "docker-image"
	SchemeLocal  = "local"
	SchemeGit    = "git"
	SchemeHTTP   = "http"
	SchemeHTTPS  = "https"
	SchemeLayout = "oci-layout"
)

var httpAttrs = []string{
	pb.AttrHTTPChecksum, pb.AttrHTTPFilename, pb.AttrHTTPPerm, pb.AttrHTTPUID, pb.AttrHTTPGID,
	pb.AttrHTTPAuthHeaderSecret,
}

// sourceAttrs are the attributes that the front end sets for each scheme. Any other
// attribute is an error, because it may change the meaning of a source.
var sourceAttrs = map[string][]string{
	SchemeImage: {pb.AttrImageResolveMode, pb.AttrImageRecordType, pb.AttrImageChecksum},
	SchemeLocal: {
		pb.AttrLocalSessionID, pb.AttrLocalUniqueID, pb.AttrIncludePatterns, pb.AttrFollowPaths,
		pb.AttrExcludePatterns, pb.AttrSharedKeyHint, pb.AttrLocalDiffer,
	},
	SchemeGit: {
		pb.AttrKeepGitDir, pb.AttrFullRemoteURL, pb.AttrAuthHeaderSecret, pb.AttrAuthTokenSecret,
		pb.AttrKnownSSHHosts, pb.AttrMountSSHSock, pb.AttrGitChecksum, pb.AttrGitSkipSubmodules,
		pb.AttrGitMTime, pb.AttrGitFetchByCommit, pb.AttrGitAdvice,
	},
	SchemeHTTP:   httpAttrs,
	SchemeHTTPS:  httpAttrs,
	SchemeLayout: {pb.AttrOCILayoutSessionID, pb.AttrOCILayoutStoreID},
}

// SplitSource returns the scheme of a source and the text after "://".
func SplitSource(op *pb.SourceOp) (scheme, rest string) {
	scheme, rest, _ = strings.Cut(op.GetIdentifier(), "://")
	return scheme, rest
}

func checkSource(v *Vertex) error {
	scheme, rest := SplitSource(v.Source)
	known, ok := sourceAttrs[scheme]
	if !ok {
		return fmt.Errorf("source %q is of an unknown kind", v.Source.Identifier)
	}
	if rest == "" {
		return fmt.Errorf("source %q names nothing", v.Source.Identifier)
	}
	if err := noNUL(v.Source.Identifier); err != nil {
		return err
	}
	if len(v.Inputs) > 0 {
		return errors.New("source with inputs")
	}
	for name, value := range v.Source.Attrs {
		isHeader := strings.HasPrefix(name, pb.AttrHTTPHeaderPrefix) && (scheme == SchemeHTTP || scheme == SchemeHTTPS)
		if !isHeader && !slices.Contains(known, name) {
			return fmt.Errorf("source %q has the unknown attribute %q", v.Source.Identifier, name)
		}
		if err := noNUL(value); err != nil {
			return fmt.Errorf("attribute %s: %w", name, err)
		}
	}
	return nil
}

func capID(s string) apicaps.CapID { return apicaps.CapID(s) }
