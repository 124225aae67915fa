package channels

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
)

// CheckURL refuses addresses of repositories that git would do other things with than to speak https
// or ssh with a host or to read a directory: git knows addresses that run commands. Plain http is for
// this machine only. Credentials do not belong into an address, which appears in errors.
func CheckURL(address string) error {
	_, err := protocol(address)
	return err
}

// protocol is git's name for how an address is reached.
func protocol(address string) (string, error) {
	unusable := fmt.Errorf("is %q; must be https://host/path, ssh://user@host/path, user@host:path or an absolute path", address)
	switch {
	case strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		return "", unusable
	case filepath.IsAbs(address):
		return "file", nil
	case scp.MatchString(address):
		return "ssh", nil
	}
	parsed, err := url.Parse(address)
	if err != nil || parsed.Path == "" || parsed.Path == "/" || parsed.RawQuery != "" || parsed.Fragment != "" {
		return "", unusable
	}
	host := parsed.Hostname()
	if _, secret := parsed.User.Password(); secret || parsed.User != nil && parsed.Scheme != "ssh" {
		return "", errors.New("has credentials in it; take them out and name them by user and token_env or token_file") // not shown
	}
	switch parsed.Scheme {
	case "file":
		if host != "" {
			return "", unusable
		}
		return "file", nil
	case "https", "ssh":
		if host == "" || strings.HasPrefix(host, "-") || strings.HasPrefix(parsed.User.Username(), "-") {
			return "", unusable
		}
		return parsed.Scheme, nil
	case "http":
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return "", fmt.Errorf("is %q; http is accepted for this machine only, use https", address)
		}
		return "http", nil
	}
	return "", unusable
}

// scp is how people write ssh addresses, such as git@example.org:team/config.git.
var scp = regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9][A-Za-z0-9.-]*:[^:/-][^:]*$`)
