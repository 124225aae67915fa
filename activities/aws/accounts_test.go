package aws

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
)

func TestAccountsOfARegionShareConnectionsButNotCredentials(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "id")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	accounts := &Accounts{Settings: config.AWS{AssumeRole: "arn:aws:iam::{account}:role/fairway"}}
	of := func(number, region string) *account {
		found, err := accounts.of(t.Context(), registry.Cluster{InfrastructureAccount: "aws:" + number, Region: region})
		require.NoError(t, err)
		return found
	}
	one, other, abroad := of("1", "eu-central-1"), of("2", "eu-central-1"), of("1", "eu-west-1")
	require.Same(t, one.access.HTTPClient, other.access.HTTPClient)
	require.NotSame(t, one.access.Credentials, other.access.Credentials)
	require.Equal(t, "eu-west-1", abroad.access.Region)
	require.Same(t, one, of("1", "eu-central-1"))
}
