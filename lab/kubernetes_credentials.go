package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	"k8s.io/client-go/util/keyutil"
)

// Users of every cluster and their groups. Kwok stands for all kubelets.
var clusterUsers = map[string]string{
	"admin":                          "system:masters",
	"fairway":                        "fairway",
	"viewer":                         "viewer",
	"kwok":                           "system:masters",
	"system:kube-controller-manager": "",
	"system:kube-scheduler":          "",
}

// clusterCredentials are made anew for each cluster.
type clusterCredentials struct {
	tokens      map[string]string // by user
	certificate []byte            // of all servers, with its authority
}

// newClusterCredentials writes what the control plane and its users authenticate with.
func newClusterCredentials(c *clusterState) (*clusterCredentials, error) {
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, []string{
		"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local",
	})
	if err != nil {
		return nil, fmt.Errorf("generating a certificate: %w", err)
	}
	serviceAccountKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generating the key of service accounts: %w", err)
	}
	serviceAccountPEM, err := keyutil.MarshalPrivateKeyToPEM(serviceAccountKey)
	if err != nil {
		return nil, fmt.Errorf("generating the key of service accounts: %w", err)
	}
	creds := &clusterCredentials{tokens: map[string]string{}, certificate: certificate}
	var tokens strings.Builder
	for _, user := range slices.Sorted(maps.Keys(clusterUsers)) {
		creds.tokens[user] = rand.Text()
		fmt.Fprintf(&tokens, "%s,%s,%s,%q\n", creds.tokens[user], user, user, clusterUsers[user])
	}
	errs := []error{
		os.WriteFile(c.path("server.crt"), certificate, 0o600),
		os.WriteFile(c.path("server.key"), key, 0o600),
		os.WriteFile(c.path("service-account.key"), serviceAccountPEM, 0o600),
		os.WriteFile(c.path("tokens.csv"), []byte(tokens.String()), 0o600),
	}
	for user, token := range creds.tokens {
		config := clientcmdapi.NewConfig()
		creds.addTo(config, c.id, user, token, c.address())
		errs = append(errs, clientcmd.WriteToFile(*config, c.kubeconfig(user)))
	}
	return creds, errors.Join(errs...)
}

// kubeconfig is the file with a user's access over the direct address.
func (c *clusterState) kubeconfig(user string) string {
	return c.path(strings.TrimPrefix(user, "system:") + ".kubeconfig")
}

// addTo adds a context of the cluster's name to a kubeconfig; the first one becomes its default.
func (c *clusterState) addTo(config *clientcmdapi.Config, user, address string) {
	c.creds.addTo(config, c.id, user, c.creds.tokens[user], address)
}

func (k *clusterCredentials) addTo(config *clientcmdapi.Config, id, user, token, address string) {
	login := user + "@" + id
	config.Clusters[id] = &clientcmdapi.Cluster{Server: "https://" + address, CertificateAuthorityData: k.certificate}
	config.AuthInfos[login] = &clientcmdapi.AuthInfo{Token: token}
	config.Contexts[id] = &clientcmdapi.Context{Cluster: id, AuthInfo: login}
	if config.CurrentContext == "" {
		config.CurrentContext = id
	}
}

func (c *clusterState) restConfig(user string) *rest.Config {
	return &rest.Config{
		Host:            "https://" + c.address(),
		BearerToken:     c.creds.tokens[user],
		TLSClientConfig: rest.TLSClientConfig{CAData: c.creds.certificate},
		QPS:             500,
		Burst:           1000,
	}
}
