package explain

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

// maxAge is how long the facts of a step are kept after the step last ran.
const maxAge = 30 * 24 * time.Hour

// Store is a directory that holds the facts of steps.
type Store struct {
	dir     string
	project string
}

// NewStore returns a Store in dir, which is created if it does not exist. project
// separates builds that must not be compared, for example builds of different contexts or
// Dockerfiles.
func NewStore(dir, project string) *Store { return &Store{dir: dir, project: project} }

// path returns the path of the file with the facts of a slot.
func (s *Store) path(slot string) string {
	full := sha256.Sum256([]byte(strconv.Quote(s.project) + slot))
	return filepath.Join(s.dir, hex.EncodeToString(full[:16]))
}

// Load returns the facts of the step that last ran in a slot, or nil if none are
// recorded.
func (s *Store) Load(slot string) (*Facts, error) {
	f, err := os.Open(s.path(slot))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // no facts are a value here
	}
	if err != nil {
		return nil, fmt.Errorf("open the facts of a step: %w", err)
	}
	defer func() { _ = f.Close() }()
	facts, err := decode(f)
	if err != nil {
		return nil, fmt.Errorf("read the facts of a step: %w", err)
	}
	return facts, nil
}

// Save replaces the facts of a slot.
func (s *Store) Save(slot string, facts *Facts) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("store the facts of a step: %w", err)
	}
	tmp, err := os.CreateTemp(s.dir, ".new-")
	if err != nil {
		return fmt.Errorf("store the facts of a step: %w", err)
	}
	err = errors.Join(encode(tmp, facts), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), s.path(slot))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("store the facts of a step: %w", err)
	}
	return nil
}

// tidyEvery is the time between two removals of old facts.
const tidyEvery = 24 * time.Hour

// Tidy removes facts that no build has saved again for maxAge. It does so at most once a
// day.
func (s *Store) Tidy(now time.Time) error {
	stamp := filepath.Join(s.dir, ".tidied")
	if info, err := os.Stat(stamp); err == nil && now.Sub(info.ModTime()) < tidyEvery {
		return nil
	}
	if err := sweep(s.dir, now); err != nil {
		return err
	}
	err := os.WriteFile(stamp, nil, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no facts were ever saved
	}
	return err
}

func sweep(dir string, now time.Time) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the facts of steps: %w", err)
	}
	var errs []error
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || now.Sub(info.ModTime()) < maxAge {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// format is the first line of a file.
const format = "shale facts 2"

// encode writes a line for each fact: digest, kind and quoted name.
func encode(w io.Writer, facts *Facts) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	buf := bufio.NewWriter(z)
	_, _ = fmt.Fprintln(buf, format)
	for fact, s := range facts.sums {
		_, _ = fmt.Fprintf(buf, "%s %s %s\n", hex.EncodeToString(s[:]), fact.Kind, strconv.Quote(fact.Name))
	}
	return errors.Join(buf.Flush(), z.Close())
}

func decode(r io.Reader) (*Facts, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(z)
	// The longest name is a quoted path.
	lines.Buffer(nil, 64<<10)
	if !lines.Scan() || lines.Text() != format {
		return nil, errors.Join(errors.New("not in the format of this version"), lines.Err())
	}
	facts := &Facts{sums: map[Fact]sum{}}
	for lines.Scan() {
		if len(facts.sums) > maxFacts+len(order) {
			return nil, errors.New("too many facts")
		}
		if err := facts.decodeLine(lines.Text()); err != nil {
			return nil, err
		}
	}
	return facts, lines.Err()
}

func (f *Facts) decodeLine(line string) error {
	digits, rest, _ := strings.Cut(line, " ")
	kind, quoted, _ := strings.Cut(rest, " ")
	name, err := strconv.Unquote(quoted)
	if err != nil {
		return fmt.Errorf("name of a fact: %w", err)
	}
	var s sum
	if n, err := hex.Decode(s[:], []byte(digits[:min(len(digits), 2*len(s))])); err != nil || n != len(s) {
		return errors.Join(errors.New("digest of a fact"), err)
	}
	f.sums[Fact{Kind(kind), name}] = s
	return nil
}
