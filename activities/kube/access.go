package kube

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/oauth2"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/transport"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// way is how a cluster is entered.
type way struct {
	name string // for people
	// madeFrom changes when the access has to be made anew.
	madeFrom string
	make     func() (*rest.Config, error)
}

func (c *Clusters) way(ctx context.Context, entry registry.Cluster, e *entrance) (way, error) {
	switch c.Settings.Access {
	case "token":
		return c.byToken(entry)
	case "eks":
		return c.byEKS(ctx, entry, e)
	default:
		return c.byKubeconfig(entry)
	}
}

// byKubeconfig uses the context that is named like the cluster's id.
func (c *Clusters) byKubeconfig(entry registry.Cluster) (way, error) {
	path := c.Settings.Kubeconfig
	file, err := os.Stat(path)
	if err != nil {
		return way{}, invalid("reading the kubeconfig: %v", err)
	}
	return way{
		name:     fmt.Sprintf("kubeconfig %s, context %q", path, entry.ID),
		madeFrom: file.ModTime().Format(time.RFC3339Nano),
		make: func() (*rest.Config, error) {
			contexts, err := (&clientcmd.ClientConfigLoadingRules{ExplicitPath: path}).Load()
			if err != nil {
				return nil, err
			}
			// The library's own way falls back on the cluster that the worker runs in, where the context's
			// cluster is missing: it would get everything that is meant for this one.
			if of := contexts.Contexts[entry.ID]; of != nil && contexts.Clusters[of.Cluster] == nil {
				return nil, fmt.Errorf("it has no cluster %q", of.Cluster)
			}
			return clientcmd.NewNonInteractiveClientConfig(*contexts, entry.ID, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
		},
	}, nil
}

// byToken uses the registry's URL and a token from a file. The file is read again every minute and
// after a refusal; its content is in no configuration.
func (c *Clusters) byToken(entry registry.Cluster) (way, error) {
	if err := confidential(entry); err != nil {
		return way{}, err
	}
	path := ofCluster(c.Settings.TokenFile, entry)
	token, err := os.ReadFile(path)
	if err != nil {
		return way{}, invalid("cluster %s: reading kubernetes.token_file: %v", entry.ID, err)
	}
	if len(strings.TrimSpace(string(token))) == 0 {
		return way{}, invalid("cluster %s: kubernetes.token_file %s is empty", entry.ID, path)
	}
	authorities, err := c.authorities(entry)
	if err != nil {
		return way{}, err
	}
	return way{
		name:     "kubernetes.token_file " + path,
		madeFrom: fingerprint(entry.APIServerURL, path, string(authorities)),
		make: func() (*rest.Config, error) {
			return &rest.Config{
				Host:            entry.APIServerURL,
				TLSClientConfig: rest.TLSClientConfig{CAData: authorities},
				WrapTransport:   transport.ResettableTokenSourceWrapTransport(transport.NewCachedFileTokenSource(path)),
			}, nil
		},
	}, nil
}

// confidential refuses to send a token where anybody can read it.
func confidential(entry registry.Cluster) error {
	if !strings.HasPrefix(entry.APIServerURL, "https://") {
		return invalid("registry: cluster %s: api_server_url is %q; must begin with https:// for a token to be sent there", entry.ID, entry.APIServerURL)
	}
	return nil
}

func (c *Clusters) authorities(entry registry.Cluster) ([]byte, error) {
	if c.Settings.CAFile == "" {
		return nil, nil
	}
	authorities, err := os.ReadFile(ofCluster(c.Settings.CAFile, entry))
	if err != nil {
		return nil, invalid("cluster %s: reading kubernetes.ca_file: %v", entry.ID, err)
	}
	return authorities, nil
}

// ofCluster fills in the id, which has no character that leads to another folder.
func ofCluster(path string, entry registry.Cluster) string {
	return strings.ReplaceAll(path, "{cluster}", entry.ID)
}

func fingerprint(parts ...string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(strings.Join(parts, "\x00"))))
}

// ---- EKS

// eksNameItem is the config item that names the cluster in EKS; default is the local id.
const eksNameItem = "eks_cluster_name"

// eksAnswer is what EKS has said of a cluster.
type eksAnswer struct {
	at              time.Time
	name            string
	account, region string // where it was asked for
	endpoint        string
	authorities     []byte
}

// eksFresh is how long an answer counts. A cluster that was made anew has another endpoint.
const eksFresh = 10 * time.Minute

// byEKS uses tokens that AWS vouches for: signed requests to STS, as aws-iam-authenticator and
// `aws eks get-token` make them. Endpoint and authority are EKS's, or, with ca_file, the registry's
// and the file's.
func (c *Clusters) byEKS(ctx context.Context, entry registry.Cluster, e *entrance) (way, error) {
	name := entry.LocalID
	if named := entry.ConfigItems[eksNameItem]; named != "" {
		name = named
	}
	answer := eksAnswer{name: name, endpoint: entry.APIServerURL}
	if c.Settings.CAFile != "" {
		if err := confidential(entry); err != nil {
			return way{}, err
		}
	}
	var err error
	if answer.authorities, err = c.authorities(entry); err != nil {
		return way{}, err
	}
	if c.Settings.CAFile == "" {
		if e.eks.name != name || e.eks.account != entry.InfrastructureAccount || e.eks.region != entry.Region || time.Since(e.eks.at) > eksFresh {
			if e.eks, err = c.askEKS(ctx, entry, name); err != nil {
				return way{}, err
			}
			e.eks.account, e.eks.region = entry.InfrastructureAccount, entry.Region
		}
		answer = e.eks
	}
	return way{
		name:     "EKS cluster " + name,
		madeFrom: fingerprint(name, entry.InfrastructureAccount, entry.Region, answer.endpoint, string(answer.authorities)),
		make: func() (*rest.Config, error) {
			tokens := transport.NewCachedTokenSource(&eksTokens{clusters: c, entry: entry, name: name})
			return &rest.Config{
				Host:            answer.endpoint,
				TLSClientConfig: rest.TLSClientConfig{CAData: answer.authorities},
				WrapTransport:   transport.ResettableTokenSourceWrapTransport(tokens),
			}, nil
		},
	}, nil
}

func (c *Clusters) askEKS(ctx context.Context, entry registry.Cluster, name string) (eksAnswer, error) {
	doing := fmt.Sprintf("cluster %s: asking EKS for the endpoint of %q", entry.ID, name)
	access, err := c.AWS(ctx, entry)
	if err != nil {
		return eksAnswer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	answer, err := eks.NewFromConfig(access).DescribeCluster(ctx, &eks.DescribeClusterInput{Name: &name})
	var said smithy.APIError
	switch {
	case errors.As(err, &said) && said.ErrorFault() == smithy.FaultServer:
		return eksAnswer{}, temporal.NewApplicationError(fmt.Sprintf("%s: AWS says %v", doing, err), workflows.Unreachable)
	case errors.As(err, &said) && said.ErrorCode() == "ResourceNotFoundException":
		return eksAnswer{}, invalid("%s: there is none; is the local_id or the config item %s right? %s", doing, eksNameItem, said.ErrorMessage())
	case errors.As(err, &said):
		return eksAnswer{}, temporal.NewApplicationError(
			fmt.Sprintf("%s: AWS refuses (%s): %s; check the worker's credentials, aws.assume_role and deploy/aws/policy.json", doing, said.ErrorCode(), said.ErrorMessage()),
			workflows.AccessDenied)
	case err != nil:
		return eksAnswer{}, temporal.NewApplicationError(fmt.Sprintf("%s: AWS does not answer: %v", doing, err), workflows.Unreachable)
	case answer.Cluster == nil || answer.Cluster.Endpoint == nil || answer.Cluster.CertificateAuthority == nil || answer.Cluster.CertificateAuthority.Data == nil:
		return eksAnswer{}, temporal.NewApplicationError(doing+": it has none yet", workflows.Unreachable)
	}
	authorities, err := base64.StdEncoding.DecodeString(*answer.Cluster.CertificateAuthority.Data)
	if err != nil {
		return eksAnswer{}, invalid("%s: its certificate authority is no base64: %v", doing, err)
	}
	return eksAnswer{at: time.Now(), name: name, endpoint: *answer.Cluster.Endpoint, authorities: authorities}, nil
}

// eksTokens makes tokens for one cluster.
type eksTokens struct {
	clusters *Clusters
	entry    registry.Cluster
	name     string
}

const (
	eksTokenPrefix = "k8s-aws-v1."
	// eksTokenValid is a minute less than EKS accepts a token.
	eksTokenValid = 14 * time.Minute
)

// Token signs a request to STS that names the cluster, so that no other cluster accepts it. Whoever
// has the token can have it sent to STS, which tells whose it is.
func (t *eksTokens) Token() (*oauth2.Token, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerWithin)
	defer cancel()
	access, err := t.clusters.AWS(ctx, t.entry)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	signed, err := sts.NewPresignClient(sts.NewFromConfig(access)).PresignGetCallerIdentity(ctx, &sts.GetCallerIdentityInput{},
		func(o *sts.PresignOptions) {
			o.ClientOptions = append(o.ClientOptions, sts.WithAPIOptions(
				smithyhttp.SetHeaderValue("x-k8s-aws-id", t.name),
				smithyhttp.SetHeaderValue("X-Amz-Expires", "60"), // EKS insists on it, and lets 15 minutes pass
			))
		})
	if err != nil {
		return nil, fmt.Errorf("cluster %s: signing a token for EKS cluster %s: %w", t.entry.ID, t.name, err)
	}
	return &oauth2.Token{
		AccessToken: eksTokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(signed.URL)),
		Expiry:      now.Add(eksTokenValid),
	}, nil
}
