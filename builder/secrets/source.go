package secrets

import (
	"errors"
	"fmt"
	"strings"

	"github.com/tonistiigi/go-csvvalue"
)

// Source is the origin of a secret: a file or an environment variable. If neither is set,
// it is the environment variable with the name ID if that exists, and otherwise the file
// with that name.
type Source struct {
	ID   string
	File string
	Env  string
	// Value, if not "", is the secret itself. It cannot be given on a command line.
	Value string
}

// Parse parses a value of docker's --secret: id=ID[,src=FILE|env=NAME][,type=file|env].
func Parse(value string) (Source, error) {
	fields, err := csvvalue.Fields(value, nil)
	if err != nil {
		return Source{}, fmt.Errorf("parse csv secret: %w", err)
	}
	var s Source
	var kind string
	for _, field := range fields {
		key, v, ok := strings.Cut(field, "=")
		if !ok {
			return Source{}, fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		}
		switch key = strings.ToLower(key); key {
		case "type":
			if v != "file" && v != "env" {
				return Source{}, fmt.Errorf("unsupported secret type %q", v)
			}
			kind = v
		case "id":
			s.ID = v
		case "source", "src":
			s.File = v
		case "env":
			s.Env = v
		default:
			return Source{}, fmt.Errorf("unexpected key '%s' in '%s'", key, field)
		}
	}
	if kind == "env" && s.Env == "" {
		s.Env, s.File = s.File, ""
	}
	if s.ID == "" {
		return Source{}, errors.New("secret missing ID")
	}
	return s, nil
}
