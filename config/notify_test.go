package config_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/config"
)

func TestRoutesLeadNotificationsToTheirPeople(t *testing.T) {
	c, err := config.Parse("/etc/fairway/fairway.yaml", []byte(minimal+`notify:
  routes:
  - name: production
    url_file: slack-url
    owners: [team-*, anchor]
    environments: [production]
    channels: [stable]
    kinds: [update-begins, update-failed]
  - name: mail
    url_env: MAIL
`))
	require.NoError(t, err)
	require.Equal(t, []config.Route{
		{
			Name: "production", URLFile: "/etc/fairway/slack-url", Owners: []string{"team-*", "anchor"}, Environments: []string{"production"},
			Channels: []string{"stable"}, Kinds: []string{"update-begins", "update-failed"},
		},
		{Name: "mail", URLEnv: "MAIL"},
	}, c.Notify.Routes)
	require.True(t, c.Notify.Configured())
}

func TestAWrongRouteIsRefusedWithItsField(t *testing.T) {
	for name, test := range map[string]struct{ route, want string }{
		"no name":          {"{url_env: A}", "notify.routes[0].name: is missing"},
		"no address":       {"{name: a}", "notify.routes[0].url_env: "},
		"two addresses":    {"{name: a, url_env: A, url_file: b}", "notify.routes[0].url_env: "},
		"an unknown kind":  {"{name: a, url_env: A, kinds: [updated]}", `notify.routes[0].kinds[0]: is "updated"; must be one of`},
		"a broken pattern": {"{name: a, url_env: A, owners: ['team-[']}", `notify.routes[0].owners[0]: is "team-["`},
		"one name twice":   {"{name: a, url_env: A}\n  - {name: a, url_env: B}", `notify.routes[1].name: "a" is the name of routes[0] already`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := config.Parse("fairway.yaml", []byte(minimal+"notify:\n  routes:\n  - "+test.route+"\n"))
			require.ErrorContains(t, err, test.want)
		})
	}
}
