package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/shale-build/shale/storage/registry"
)

const defaultRegistry = "docker.io"

func loginCommand() *cli.Command {
	return &cli.Command{
		Name:      "login",
		Usage:     "Log in to a registry",
		ArgsUsage: "[REGISTRY]",
		Flags: append(registryFlags(),
			&cli.StringFlag{Name: "password", Aliases: []string{"p"}, Usage: "`PASSWORD`, which other users of the machine can see"},
			&cli.BoolFlag{Name: "password-stdin", Usage: "read the password from standard input"},
			&cli.StringFlag{Name: "username", Aliases: []string{"u"}, Usage: "log in as `USER`"},
		),
		Action: func(c *cli.Context) error {
			if err := wantArguments(c, 0, 1); err != nil {
				return err
			}
			login, err := readLogin(c)
			if err != nil {
				return err
			}
			client := registry.New(nil, registryOptions(c, nil))
			if err := client.Login(c.Context, login); err != nil {
				return err
			}
			_, err = fmt.Fprintln(c.App.Writer, "Login Succeeded")
			return err
		},
	}
}

func logoutCommand() *cli.Command {
	return &cli.Command{
		Name:      "logout",
		Usage:     "Log out from a registry",
		ArgsUsage: "[REGISTRY]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "all", Aliases: []string{"a"}, Usage: "log out from every registry"},
			&cli.StringFlag{Name: "authfile", EnvVars: []string{"REGISTRY_AUTH_FILE"}, Usage: "change the logins in `FILE`"},
		},
		Action: func(c *cli.Context) error {
			if err := wantArguments(c, 0, 1); err != nil {
				return err
			}
			client := registry.New(nil, registry.Options{AuthFile: c.String("authfile")})
			if c.Bool("all") {
				if err := client.LogoutAll(); err != nil {
					return err
				}
				_, err := fmt.Fprintln(c.App.Writer, "Removed the logins of all registries")
				return err
			}
			host := registryHost(c.Args().First())
			if err := client.Logout(host); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.App.Writer, "Removing login credentials for "+host)
			return err
		},
	}
}

// registryHost returns the registry that arg names. It accepts URLs and the names of
// docker's index, because users paste them.
func registryHost(arg string) string {
	host := strings.TrimPrefix(strings.TrimPrefix(arg, "https://"), "http://")
	host = strings.TrimSuffix(strings.TrimSuffix(host, "/"), "/v1")
	switch host {
	case "", "index.docker.io", "registry-1.docker.io":
		return defaultRegistry
	}
	return host
}

func readLogin(c *cli.Context) (registry.Login, error) {
	login := registry.Login{
		Registry: registryHost(c.Args().First()), Username: c.String("username"), Password: c.String("password"),
	}
	switch {
	case c.Bool("password-stdin") && c.IsSet("password"):
		return login, usageError(c, "--password and --password-stdin exclude each other")
	case c.Bool("password-stdin") && login.Username == "":
		return login, usageError(c, "--password-stdin needs --username")
	case c.Bool("password-stdin"):
		password, err := io.ReadAll(io.LimitReader(c.App.Reader, 1<<20))
		if err != nil {
			return login, fmt.Errorf("read password: %w", err)
		}
		login.Password = strings.TrimRight(string(password), "\r\n")
	case c.IsSet("password"):
		if _, err := fmt.Fprintln(c.App.ErrWriter, "WARNING: a password on the command line can be seen by other users. Use --password-stdin."); err != nil {
			return login, err
		}
	}
	return askLogin(c, login)
}

// askLogin asks for the missing user name or password. It returns a usage error if
// standard input is not a terminal.
func askLogin(c *cli.Context, login registry.Login) (registry.Login, error) {
	if login.Username != "" && (login.Password != "" || c.IsSet("password")) {
		return login, nil
	}
	in, ok := c.App.Reader.(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return login, usageError(c, "no terminal to ask for the login: give --username and --password-stdin")
	}
	var err error
	if login.Username == "" {
		login.Username, err = ask(c.Context, in, c.App.ErrWriter, "Username: ", func() (string, error) {
			return bufio.NewReader(in).ReadString('\n')
		})
	}
	if err == nil {
		login.Password, err = ask(c.Context, in, c.App.ErrWriter, "Password: ", func() (string, error) {
			password, err := term.ReadPassword(int(in.Fd()))
			return string(password), err
		})
		_, _ = fmt.Fprintln(c.App.ErrWriter)
	}
	if err == nil && (login.Username == "" || login.Password == "") {
		err = errors.New("user name and password must not be empty")
	}
	return login, err
}

// ask prints the prompt and calls read. If ctx is cancelled, ask restores the terminal
// with its echo and returns the cause.
func ask(ctx context.Context, terminal *os.File, w io.Writer, prompt string, read func() (string, error)) (string, error) {
	state, err := term.GetState(int(terminal.Fd()))
	if err != nil {
		return "", fmt.Errorf("ask for login: %w", err)
	}
	if _, err := fmt.Fprint(w, prompt); err != nil {
		return "", err
	}
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := read()
		answers <- answer{text, err}
	}()
	select {
	case a := <-answers:
		return strings.TrimSpace(a.text), a.err
	case <-ctx.Done():
		return "", errors.Join(context.Cause(ctx), term.Restore(int(terminal.Fd()), state))
	}
}
