//go:build e2e

package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// recipe FILE NAME [OLD=NEW…] prints the commands of a recipe of docs/ci as a script for
// sh. NAME selects the job, step or container. The script also sets its variables. Each
// OLD in the script is replaced by NEW, a value of this machine. A field that the
// recipe's CI system does not define is an error.
func recipe(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: recipe FILE NAME [OLD=NEW…]")
	}
	data, err := os.ReadFile(args[0])
	if err != nil {
		return err
	}
	read := map[string]func([]byte, string) (script, error){
		"gitlab-ci.yml": gitlabScript, "github-actions.yml": githubScript, "tekton-task.yml": tektonScript, "Jenkinsfile": jenkinsScript,
		"kubernetes-job.yml": kubernetesScript, "kubernetes-job-restricted.yml": kubernetesScript,
	}[filepath.Base(args[0])]
	if read == nil {
		return fmt.Errorf("%s: no such kind of recipe", args[0])
	}
	s, err := read(data, args[1])
	if err != nil {
		return fmt.Errorf("%s: %w", args[0], err)
	}
	text := s.String()
	for _, pair := range args[2:] {
		before, after, _ := strings.Cut(pair, "=")
		if !strings.Contains(text, before) {
			return fmt.Errorf("%s: the recipe has no %s", args[0], before)
		}
		text = strings.ReplaceAll(text, before, after)
	}
	if left := regexp.MustCompile(`\$\{\{.*?\}\}|\$\([a-z]+\.[^)]*\)|[a-z]+\.example\.com`).FindString(text); left != "" {
		return fmt.Errorf("%s: nothing was put in the place of %s", args[0], left)
	}
	_, err = os.Stdout.WriteString(text)
	return err
}

// script holds commands and their variables.
type script struct {
	env  map[string]string
	text string
}

func (s script) String() string {
	text := "set -eu\n"
	for _, name := range slices.Sorted(maps.Keys(s.env)) {
		text += fmt.Sprintf("export %s=\"%s\"\n", name, s.env[name]) // a variable may refer to others
	}
	return text + s.text
}

func strict(data []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	return d.Decode(into)
}

func ours(image string) error {
	if !slices.Contains([]string{"ghcr.io/shale-build/shale:latest", "ghcr.io/shale-build/shale:debug"}, image) {
		return fmt.Errorf("%s is no image of shale's", image)
	}
	return nil
}

func gitlabScript(data []byte, name string) (script, error) {
	var jobs map[string]struct {
		Stage string
		Image struct {
			Name       string
			Entrypoint []string
		}
		Variables map[string]string
		Script    []string
		Artifacts struct{ Paths []string }
	}
	if err := strict(data, &jobs); err != nil {
		return script{}, err
	}
	job, ok := jobs[name]
	if !ok {
		return script{}, fmt.Errorf("no job %s", name)
	}
	return script{job.Variables, strings.Join(job.Script, "\n") + "\n"}, ours(job.Image.Name)
}

func githubScript(data []byte, name string) (script, error) {
	var workflow struct {
		Name string
		On   struct {
			Push struct{ Branches []string }
		}
		Permissions map[string]string
		Jobs        map[string]struct {
			RunsOn string `yaml:"runs-on"`
			Steps  []struct {
				Name, Uses, Run string
				Env             map[string]string
			}
		}
	}
	if err := strict(data, &workflow); err != nil {
		return script{}, err
	}
	for _, job := range workflow.Jobs {
		for _, step := range job.Steps {
			if step.Name == name {
				return script{step.Env, step.Run}, nil
			}
		}
	}
	return script{}, fmt.Errorf("no step %s", name)
}

type kubernetesEnv []struct{ Name, Value string }

func (e kubernetesEnv) env() map[string]string {
	env := map[string]string{}
	for _, v := range e {
		env[v.Name] = v.Value
	}
	return env
}

type securityContext struct {
	RunAsUser                *int  `yaml:"runAsUser"`
	AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
	Capabilities             struct{ Drop, Add []string }
	SeccompProfile           struct{ Type string } `yaml:"seccompProfile"`
}

type container struct {
	Name, Image     string
	Command, Args   []string
	Env             kubernetesEnv
	SecurityContext securityContext `yaml:"securityContext"`
	Resources       struct{ Limits map[string]string }
	VolumeMounts    []struct {
		Name      string
		MountPath string `yaml:"mountPath"`
		ReadOnly  bool   `yaml:"readOnly"`
	} `yaml:"volumeMounts"`
}

func kubernetesScript(data []byte, name string) (script, error) {
	var job struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct{ Name string }
		Spec       struct {
			BackoffLimit *int `yaml:"backoffLimit"`
			Template     struct {
				Spec struct {
					RestartPolicy                string          `yaml:"restartPolicy"`
					HostUsers                    *bool           `yaml:"hostUsers"`
					AutomountServiceAccountToken *bool           `yaml:"automountServiceAccountToken"`
					SecurityContext              securityContext `yaml:"securityContext"`
					InitContainers               []container     `yaml:"initContainers"`
					Containers                   []container
					Volumes                      []struct {
						Name     string
						EmptyDir *struct{} `yaml:"emptyDir"`
						Secret   *struct {
							SecretName string `yaml:"secretName"`
							Items      []struct{ Key, Path string }
						}
					}
				}
			}
		}
	}
	if err := strict(data, &job); err != nil {
		return script{}, err
	}
	if job.APIVersion != "batch/v1" || job.Kind != "Job" || job.Metadata.Name == "" {
		return script{}, fmt.Errorf("%s %s is no job", job.APIVersion, job.Kind)
	}
	pod := job.Spec.Template.Spec
	volumes := map[string]bool{}
	for _, v := range pod.Volumes {
		volumes[v.Name] = v.EmptyDir != nil || v.Secret != nil
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		for _, m := range c.VolumeMounts {
			if !volumes[m.Name] {
				return script{}, fmt.Errorf("container %s mounts %s, of which there is no volume", c.Name, m.Name)
			}
		}
	}
	for _, c := range pod.Containers {
		if c.Name != name {
			continue
		}
		command := c.Command
		if len(command) == 0 {
			command = []string{"/kaniko/executor"} // the entry point of the image
		}
		var words []string
		for _, w := range slices.Concat(command, c.Args) {
			words = append(words, "'"+strings.ReplaceAll(w, "'", `'\''`)+"'")
		}
		return script{c.Env.env(), strings.Join(words, " ") + "\n"}, ours(c.Image)
	}
	return script{}, fmt.Errorf("no container %s", name)
}

func tektonScript(data []byte, name string) (script, error) {
	var task struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct{ Name string }
		Spec       struct {
			Params     []struct{ Name, Description, Default string }
			Workspaces []struct {
				Name     string
				Optional bool
			}
			Results []struct{ Name, Description string }
			Steps   []struct {
				Name, Image, Script string
				WorkingDir          string `yaml:"workingDir"`
				Env                 kubernetesEnv
			}
		}
	}
	if err := strict(data, &task); err != nil {
		return script{}, err
	}
	if task.APIVersion != "tekton.dev/v1" || task.Kind != "Task" {
		return script{}, fmt.Errorf("%s %s is no task", task.APIVersion, task.Kind)
	}
	for _, step := range task.Spec.Steps {
		if step.Name == name {
			return script{step.Env.env(), fmt.Sprintf("cd \"%s\"\n%s", step.WorkingDir, step.Script)}, ours(step.Image)
		}
	}
	return script{}, fmt.Errorf("no step %s", name)
}

// jenkinsScript returns the only sh step of a pipeline's stage, with its variables. It
// also checks the pod.
func jenkinsScript(data []byte, stage string) (script, error) {
	text := string(data)
	pod := regexp.MustCompile(`(?s)yaml '''\n(.*?)'''`).FindStringSubmatch(text)
	steps := regexp.MustCompile(`(?s)stage\('` + regexp.QuoteMeta(stage) + `'\).*?\bsh '''\n(.*?)'''`).FindStringSubmatch(text)
	environment := regexp.MustCompile(`(?s)environment \{(.*?)\}`).FindStringSubmatch(text)
	if pod == nil || steps == nil || environment == nil || strings.Count(text, "{") != strings.Count(text, "}") {
		return script{}, errors.New("no pod, no environment, no script or not as many braces opened as closed")
	}
	var spec struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Spec       struct {
			Containers []container
			Volumes    []struct {
				Name     string
				EmptyDir *struct{} `yaml:"emptyDir"`
			}
		}
	}
	if err := strict([]byte(pod[1]), &spec); err != nil {
		return script{}, fmt.Errorf("pod: %w", err)
	}
	env := map[string]string{}
	for _, m := range regexp.MustCompile(`(\w+) = '([^']*)'`).FindAllStringSubmatch(environment[1], -1) {
		env[m[1]] = m[2]
	}
	return script{env, steps[1]}, ours(spec.Spec.Containers[0].Image)
}
