package conformance

import (
	"encoding/json"
	"fmt"
	"os"
)

// Scenario is one of the references' own test scenarios, of which scenarios.json
// is the list.
type Scenario struct {
	ID   string `json:"id"` // as in Case.Ports
	Name string `json:"name"`
	// Scripts are the end-to-end scripts that show it, where it is about the
	// command rather than about its result.
	Scripts []string `json:"scripts,omitempty"`
	// Cases are filled in from the cases' ports.
	Cases []*Case `json:"-"`
}

// LoadScenarios reads scenarios.json and finds the cases of each. That a case
// names one that is not there is an error.
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
