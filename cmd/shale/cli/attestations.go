package cli

import (
	"encoding/csv"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"
)

// attestationFlags returns the flags that request or disable attestations. shale does
// not make attestations. Scripts disable them to get a plain image, which is accepted.
func attestationFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "attest", Hidden: true},
		&cli.StringFlag{Name: "provenance", Hidden: true},
		&cli.StringFlag{Name: "sbom", Hidden: true},
	}
}

// refuseAttestations returns a usage error if the command line requests an attestation.
func refuseAttestations(c *cli.Context) error {
	for _, value := range c.StringSlice("attest") {
		off, err := attestationOff(value)
		if err != nil {
			return usageError(c, fmt.Sprintf("invalid --attest %q: %v", value, err))
		}
		if !off {
			return noAttestations(c, "attest")
		}
	}
	for _, name := range []string{"provenance", "sbom"} {
		if !c.IsSet(name) || c.String(name) == "" {
			continue
		}
		if on, err := strconv.ParseBool(c.String(name)); err != nil || on {
			return noAttestations(c, name)
		}
	}
	return nil
}

func noAttestations(c *cli.Context, flag string) error {
	return usageError(c, fmt.Sprintf("--%s is not available in this version: attestations are not made", flag))
}

// attestationOff parses type=TYPE[,disabled=true][,KEY=VALUE] and reports whether the
// attestation is disabled.
func attestationOff(value string) (off bool, err error) {
	fields, err := csv.NewReader(strings.NewReader(value)).Read()
	if err != nil {
		return false, fmt.Errorf("want type=TYPE[,KEY=VALUE]")
	}
	known := false
	for _, field := range fields {
		key, text, found := strings.Cut(field, "=")
		if !found {
			return false, fmt.Errorf("%q is not of the form KEY=VALUE", field)
		}
		switch strings.ToLower(strings.TrimSpace(key)) {
		case "type":
			known = text != ""
		case "disabled":
			if off, err = strconv.ParseBool(text); err != nil {
				return false, fmt.Errorf("%q is neither true nor false", text)
			}
		}
	}
	if !known {
		return false, fmt.Errorf("attestation type not specified")
	}
	return off, nil
}
