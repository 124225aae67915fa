package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWhoComesAfterAFailureMendsAndWhoComesInsteadFindsTheClusterWell(t *testing.T) {
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	ended := func(version, phase string, changed bool) UpdateOutcome {
		return UpdateOutcome{UpdateProgress: UpdateProgress{Kind: Upgrade, Version: version, Phase: phase, Changed: changed}}
	}
	unready := ended("2", "superseded", true)
	unready.Unready = true
	for name, test := range map[string]struct {
		ended []UpdateOutcome
		want  string
		fix   bool
	}{
		"nothing was changed":                      {[]UpdateOutcome{ended("2", "failed", false)}, "2", false},
		"the same again":                           {[]UpdateOutcome{ended("2", "failed", true)}, "2", true},
		"the next after a failed one":              {[]UpdateOutcome{ended("2", "failed", true)}, "3", true},
		"back after a failed one":                  {[]UpdateOutcome{ended("2", "failed", true)}, "1", true},
		"the next after a cancelled one":           {[]UpdateOutcome{ended("2", "cancelled", true)}, "3", true},
		"the next after a superseded one":          {[]UpdateOutcome{ended("2", "superseded", true)}, "3", false},
		"after one superseded before it was ready": {[]UpdateOutcome{unready}, "3", true},
		"the superseded one again":                 {[]UpdateOutcome{ended("2", "superseded", true)}, "2", true},
		"a mend that was not well itself":          {[]UpdateOutcome{ended("2", "failed", true), ended("3", "failed", false)}, "3", true},
		"after a mend that was superseded":         {[]UpdateOutcome{ended("2", "failed", true), ended("3", "superseded", true)}, "4", true},
		"after a superseded one and a failed one":  {[]UpdateOutcome{ended("2", "superseded", true), ended("3", "failed", true)}, "4", true},
		"after two superseded ones":                {[]UpdateOutcome{ended("2", "superseded", true), ended("3", "superseded", true)}, "4", false},
	} {
		t.Run(name, func(t *testing.T) {
			s := ClusterState{Cluster: "dev-1", Updates: ClusterUpdates{Current: "1", Want: &Want{Version: test.want}}}
			for _, o := range test.ended {
				s.Updates.undone(o, noon)
			}
			in, _ := s.Due(noon.Add(1000 * time.Hour))
			require.NotNil(t, in)
			require.Equal(t, test.fix, in.Fix)
		})
	}
}
