package cli

import (
	"fmt"

	"github.com/shale-build/shale/builder/secrets"
	"github.com/shale-build/shale/builder/sshagent"
)

// parseSecrets parses the values of --secret. It ignores empty values, as docker does.
func parseSecrets(values []string) ([]secrets.Source, error) {
	var out []secrets.Source
	for _, v := range values {
		if v == "" {
			continue
		}
		s, err := secrets.Parse(v)
		if err != nil {
			return nil, fmt.Errorf("invalid --secret %q: %w", v, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// parseSSH parses the values of --ssh. It ignores empty values.
func parseSSH(values []string) []sshagent.Source {
	var out []sshagent.Source
	for _, v := range values {
		if v != "" {
			out = append(out, sshagent.Parse(v))
		}
	}
	return out
}
