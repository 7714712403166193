package initproc

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"syscall"
)

// A trial is a step with which shale tests whether steps can run. Its program gets
// TrialVariable in the environment and TrialMake or TrialChange as its only argument.
// TrialMake creates files. TrialChange runs in a later step and makes changes to them
// with which file systems have failed in the past.
const (
	TrialVariable = "_SHALE_TRIAL"
	TrialMake     = "make"
	TrialChange   = "change"
)

// trial runs a trial and exits, if the process was started for one.
func trial() {
	if os.Getenv(TrialVariable) == "" || len(os.Args) != 2 {
		return
	}
	acts := trialActs[os.Args[1]]
	if acts == nil {
		return
	}
	for _, a := range acts {
		if err := a.do(); err != nil {
			_, _ = fmt.Fprintf(os.Stderr, "%s: %v\n", a.name, err)
			os.Exit(1) //nolint:forbidigo // a program of its own
		}
	}
	os.Exit(0) //nolint:forbidigo // a program of its own
}

// act is one operation of a trial.
type act struct {
	name string
	do   func() error
}

// trialOwner is an owner other than root that every image has.
const trialOwner = 1

var trialActs = map[string][]act{
	TrialMake: {
		{"make directories", func() error {
			return errors.Join(os.MkdirAll("/t/replaced/sub", 0o750), os.MkdirAll("/t/renamed/sub", 0o750))
		}},
		{"make files", func() error {
			return errors.Join(writeTrial("/t/gone"), writeTrial("/t/linked"), writeTrial("/t/owned"), writeTrial("/t/replaced/sub/f"))
		}},
		{"make a symbolic link", func() error { return os.Symlink("owned", "/t/symlink") }},
		{"give a file to another owner", func() error { return os.Chown("/t/owned", trialOwner, trialOwner) }},
		{"set a mode", func() error { return os.Chmod("/t/owned", 0o755|os.ModeSetuid) }},
	},
	TrialChange: {
		{"delete a file", func() error { return os.Remove("/t/gone") }},
		{"replace a directory", func() error {
			if err := errors.Join(os.RemoveAll("/t/replaced"), os.Mkdir("/t/replaced", 0o750)); err != nil {
				return err
			}
			left, err := os.ReadDir("/t/replaced")
			if err == nil && len(left) != 0 {
				err = errors.New("it shows deleted files")
			}
			return err
		}},
		{"move a directory", moveTrialDirectory},
		{"make a hard link", func() error { return os.Link("/t/linked", "/t/link") }},
		{"change a file", func() error { return os.WriteFile("/t/linked", []byte("changed"), 0o600) }},
		{"look at a file's owner and mode", checkTrialOwner},
		{"see the change in a hard link", func() error {
			got, err := os.ReadFile("/t/link")
			if err == nil && !bytes.Equal(got, []byte("changed")) {
				err = errors.New("it has the old content")
			}
			return err
		}},
	},
}

func writeTrial(path string) error { return os.WriteFile(path, []byte("x"), 0o600) }

// moveTrialDirectory moves a directory as mv(1) does. If the directory is in a lower
// directory of an overlay, rename fails with EXDEV, and it is copied.
func moveTrialDirectory() error {
	err := os.Rename("/t/renamed", "/t/moved")
	if errors.Is(err, syscall.EXDEV) {
		err = errors.Join(os.MkdirAll("/t/moved/sub", 0o750), os.RemoveAll("/t/renamed"))
	}
	return err
}

func checkTrialOwner() error {
	var st syscall.Stat_t
	if err := syscall.Stat("/t/owned", &st); err != nil {
		return err
	}
	if st.Uid != trialOwner || st.Gid != trialOwner || st.Mode&0o7777 != 0o4755 {
		return fmt.Errorf("they are %d:%d and %o", st.Uid, st.Gid, st.Mode&0o7777)
	}
	return nil
}
