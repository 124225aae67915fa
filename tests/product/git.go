package product

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"strings"

	"github.com/fairway-project/fairway/lab"
)

// Remote is the address of the configuration repository, past the lab's proxy, for somebody who may push
// everywhere.
func Remote(l *lab.Lab) string {
	forge := l.Forge()
	address := url.URL{
		Scheme: "http", Host: l.Direct("forge"), Path: "/" + forge.Owner + "/" + forge.Repository + ".git",
		User: url.UserPassword("operator", forge.OperatorToken),
	}
	return address.String()
}

// Git runs git in a folder, as the author of commits, and returns what it printed, without the space
// around it.
func Git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "user.name=author", "-c", "user.email=author@fairway.test"}, args...)...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %v: %w: %s", args, err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}
