package testsuites

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"go.temporal.io/sdk/temporal"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/fairway-project/fairway/workflows"
)

// tokenEvery is the time between two looks whether there is another token. Client-go reads the file of a token
// every minute, and those of EKS are valid for a minute longer than they are handed out.
const tokenEvery = 5 * time.Second

// writeKubeconfig writes a kubeconfig with the access that Fairway has itself. What is in files already is named by their
// paths; a token that changes gets a file of its own, which is kept until the context ends;
// that can be waited for.
func (f *folder) writeKubeconfig(ctx context.Context, access *rest.Config, cluster string) (*sync.WaitGroup, error) {
	var keeping sync.WaitGroup
	server, _, err := rest.DefaultServerUrlFor(access)
	if err != nil {
		return nil, temporal.NewApplicationError(fmt.Sprintf("cluster %s: the address of its API server: %v", cluster, err), workflows.InvalidInput)
	}
	of := api.NewCluster()
	of.Server, of.TLSServerName, of.InsecureSkipTLSVerify = server.String(), access.ServerName, access.Insecure
	of.CertificateAuthority, of.CertificateAuthorityData = either(access.CAFile, access.CAData)
	if access.Proxy != nil {
		if proxy, err := access.Proxy(&http.Request{URL: server}); err == nil && proxy != nil {
			of.ProxyURL = proxy.String()
		}
	}
	user := api.NewAuthInfo()
	user.ClientCertificate, user.ClientCertificateData = either(access.CertFile, access.CertData)
	user.ClientKey, user.ClientKeyData = either(access.KeyFile, access.KeyData)
	user.Impersonate, user.ImpersonateUID = access.Impersonate.UserName, access.Impersonate.UID
	user.ImpersonateGroups, user.ImpersonateUserExtra = access.Impersonate.Groups, access.Impersonate.Extra
	switch {
	case access.BearerTokenFile != "":
		user.TokenFile = access.BearerTokenFile
	case access.Username != "":
		user.Username, user.Password = access.Username, access.Password
	default:
		token, err := tokenOf(ctx, access)
		if err != nil {
			return nil, temporal.NewApplicationError(fmt.Sprintf("cluster %s: getting a token for a suite: %v", cluster, err), workflows.AccessDenied)
		}
		if token != "" {
			user.TokenFile = f.token()
			if err := writeSecret(f.token(), token); err != nil {
				return nil, unusable(err)
			}
			keeping.Go(func() { f.keepToken(ctx, access, token) })
		}
	}
	const name = "cluster"
	out := api.NewConfig()
	out.Clusters[name], out.AuthInfos[name] = of, user
	out.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name}
	out.CurrentContext = name
	data, err := clientcmd.Write(*out)
	if err != nil {
		return nil, err
	}
	if err := writeSecret(f.kubeconfig(), string(data)); err != nil {
		return nil, unusable(err)
	}
	return &keeping, nil
}

// either is the data, or the file if there is none.
func either(path string, data []byte) (string, []byte) {
	if len(data) > 0 {
		return "", data
	}
	return path, nil
}

// writeSecret replaces a file as a whole: it may be read at any moment.
func writeSecret(path, content string) error {
	if err := os.WriteFile(path+".new", []byte(content), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// keepToken writes each new token. When none is to be had the old one stays, and the suite finds out.
func (f *folder) keepToken(ctx context.Context, access *rest.Config, last string) {
	for again := time.Tick(tokenEvery); ; {
		select {
		case <-ctx.Done():
			return
		case <-again:
			if token, err := tokenOf(ctx, access); err == nil && token != "" && token != last && writeSecret(f.token(), token) == nil {
				last = token
			}
		}
	}
}

// tokenOf is the token that a request would carry now, whatever it comes from; empty if it would carry none.
func tokenOf(ctx context.Context, access *rest.Config) (string, error) {
	var seen heard
	transport, err := rest.HTTPWrappersForConfig(access, &seen)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://cluster.invalid/", nil)
	if err != nil {
		return "", err
	}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return "", err
	}
	_ = answer.Body.Close()
	token, _ := strings.CutPrefix(seen.authorization, "Bearer ")
	return token, nil
}

// heard sends nothing, and remembers what it was to send.
type heard struct{ authorization string }

func (h *heard) RoundTrip(request *http.Request) (*http.Response, error) {
	h.authorization = request.Header.Get("Authorization")
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: request}, nil
}
