package cli

import (
	"github.com/urfave/cli/v2"

	"github.com/shale-build/shale/runtime/recorded"
)

func ownershipFlag() cli.Flag {
	return &cli.StringFlag{
		Name: "ownership", Value: string(recorded.TierFull),
		Usage: "without subordinate ids: `HOW` owners of files are kept: full records and shows them, record only records (faster where files are looked at, wrong where owners are copied or checked), squash gives all to root",
	}
}

// newOwners returns the recorder of owners, its tier, and a note for the first line of
// a build. The recorder is nil if the user namespace has subordinate ids.
func newOwners(c *cli.Context, s *session) (*recorded.Owners, recorded.Tier, string, error) {
	tier, err := recorded.ParseTier(c.String("ownership"))
	if err != nil {
		return nil, "", "", usageError(c, err.Error())
	}
	if !s.ids.SingleID() {
		return nil, tier, "", nil
	}
	dir, err := s.store.StateDir("tmp")
	if err != nil {
		return nil, "", "", err
	}
	owners, probe := recorded.New(), recorded.Probe
	if s.store.OwnersBeside() {
		owners, probe = recorded.NewBeside(), recorded.ProbeBeside
	}
	if err := probe(dir); err != nil {
		return nil, "", "", err
	}
	note := "; no subordinate ids: owners are recorded, not enforced"
	switch tier {
	case recorded.TierFull:
	case recorded.TierRecord:
		note += ", and steps do not see them (--ownership=record)"
	case recorded.TierSquash:
		note = "; no subordinate ids: files that steps give to other owners stay root's (--ownership=squash)"
	}
	return owners, tier, note, nil
}
