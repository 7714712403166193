package conformance

import (
	"encoding/json"
	"fmt"
	"os"
)

// Scenario is a test scenario of BuildKit, buildah or kaniko, as listed in
// scenarios.json.
type Scenario struct {
	ID   string `json:"id"` // as in Case.Ports
	Name string `json:"name"`
	// Scripts are the end-to-end scripts that cover the scenario. They are used if the
	// scenario is about the command and not about the resulting image.
	Scripts []string `json:"scripts,omitempty"`
	// Cases are the cases with this scenario in their Ports.
	Cases []*Case `json:"-"`
}

// LoadScenarios reads scenarios.json and adds to each scenario the cases that cover it.
// It returns an error if a case names a scenario that is not in the file.
func LoadScenarios(file string, cases []*Case) ([]*Scenario, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var scenarios []*Scenario
	if err := json.Unmarshal(data, &scenarios); err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	byID := make(map[string]*Scenario, len(scenarios))
	for _, s := range scenarios {
		byID[s.ID] = s
	}
	for _, c := range cases {
		for _, id := range c.Ports {
			s := byID[id]
			if s == nil {
				return nil, fmt.Errorf("case %s ports %q, which is not in %s", c.Name, id, file)
			}
			s.Cases = append(s.Cases, c)
		}
	}
	return scenarios, nil
}
