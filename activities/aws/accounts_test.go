package aws

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

func TestAccountsOfARegionShareConnectionsButNotCredentials(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	accounts := &Accounts{Settings: config.AWS{AssumeRole: "arn:aws:iam::{account}:role/fairway", QPS: 20, Burst: 40}}
	of := func(number, region string) *account {
		found, err := accounts.of(t.Context(), registry.Cluster{InfrastructureAccount: "aws:" + number, Region: region})
		require.NoError(t, err)
		return found
	}
	one, other, abroad := of("1", "eu-central-1"), of("2", "eu-central-1"), of("1", "eu-west-1")
	require.Same(t, one.access.HTTPClient.(*limited).HTTPClient, other.access.HTTPClient.(*limited).HTTPClient)
	require.NotSame(t, one.access.Credentials, other.access.Credentials)
	require.Equal(t, "eu-west-1", abroad.access.Region)
	require.Same(t, one, of("1", "eu-central-1"))
}

func TestClustersOfAnAccountShareItsRateAndAccountsDoNot(t *testing.T) {
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked++
		_, _ = w.Write([]byte("<DescribeSubnetsResponse/>"))
	}))
	t.Cleanup(server.Close)
	t.Setenv("AWS_ENDPOINT_URL", server.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	const qps, burst = 0.001, 2 // the next one after the burst would have to wait for minutes
	accounts := &Accounts{Settings: config.AWS{QPS: qps, Burst: burst}}
	ask := func(cluster, number, region string) error {
		of := registry.Cluster{ID: cluster, InfrastructureAccount: "aws:" + number, Region: region}
		found, err := accounts.of(t.Context(), of)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = found.ec2.DescribeSubnets(ctx, &ec2.DescribeSubnetsInput{})
		return explain(of, "looking", err)
	}
	require.NoError(t, ask("a", "1", "eu-central-1"))
	require.NoError(t, ask("b", "1", "eu-central-1"))
	err := ask("b", "1", "eu-central-1")
	var typed *temporal.ApplicationError
	require.ErrorAs(t, err, &typed)
	require.Equal(t, workflows.Unreachable, typed.Type())
	require.ErrorContains(t, err, "too many requests wait for their turn (aws.qps)")
	require.NoError(t, ask("c", "2", "eu-central-1"))
	require.NoError(t, ask("a", "1", "eu-west-1"))
	require.Equal(t, 4, asked)
}
