package cli

import (
	"fmt"

	"github.com/urfave/cli/v2"
)

func completionCommand() *cli.Command {
	return &cli.Command{
		Name:        "completion",
		Usage:       "Print a completion script",
		ArgsUsage:   "bash|zsh|fish",
		Description: "To use it at once in bash: source <(shale completion bash)",
		Action: func(c *cli.Context) error {
			if err := wantArguments(c, 1, 1); err != nil {
				return err
			}
			script, err := completionScript(c)
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(c.App.Writer, script)
			return err
		},
	}
}

func completionScript(c *cli.Context) (string, error) {
	switch shell := c.Args().First(); shell {
	case "bash":
		return bashCompletion, nil
	case "zsh":
		return zshCompletion, nil
	case "fish":
		return c.App.ToFishCompletion()
	default:
		return "", usageError(c, fmt.Sprintf("no completion for %q: there is one for bash, zsh and fish", shell))
	}
}

// The scripts ask shale itself for the possible next words, so they stay correct if the
// commands change. If shale has no suggestions, the shell completes file names.
const bashCompletion = `# bash completion for shale
_shale() {
    local cur=${COMP_WORDS[COMP_CWORD]}
    local -a asked=("${COMP_WORDS[@]:0:COMP_CWORD}")
    [[ $cur == -* ]] && asked+=("$cur")
    COMPREPLY=($(compgen -W "$("${asked[@]}" --generate-bash-completion 2>/dev/null)" -- "$cur"))
}
complete -o bashdefault -o default -F _shale shale
`

const zshCompletion = `#compdef shale
# zsh completion for shale
_shale() {
    local -a asked known
    asked=("${(@)words[1,CURRENT-1]}")
    [[ ${words[CURRENT]} == -* ]] && asked+=("${words[CURRENT]}")
    known=("${(@f)$("${asked[@]}" --generate-bash-completion 2>/dev/null)}")
    if [[ -n ${known[1]} ]]; then
        compadd -- "${known[@]}"
    else
        _files
    fi
}
if [[ ${funcstack[1]} == _shale ]]; then
    _shale "$@"
else
    compdef _shale shale
fi
`
