package lab

import (
	"context"
	"fmt"
	"time"
)

// startInstances starts the bridge (lab/instances) that turns cluster stacks into control planes
// and the instances of Auto Scaling groups into nodes. It goes past the proxies.
func (l *Lab) startInstances(ctx context.Context) error {
	pair := func(delay [2]time.Duration) string { return fmt.Sprintf("%s,%s", delay[0], delay[1]) }
	_, err := l.Run(ctx, Process{
		Name: "instances",
		Command: []string{
			l.bin("lab-instances"),
			"--control", l.path("lab.sock"),
			"--clusters", l.path("kubernetes"),
			"--aws", "http://" + l.awsAddress(),
			"--boot", pair(l.options.Delays.Boot),
			"--shutdown", pair(l.options.Delays.Shutdown),
		},
		Env: []string{"AWS_REGION=" + awsRegion, "AWS_ACCESS_KEY_ID=" + awsAccessKey, "AWS_SECRET_ACCESS_KEY=" + awsAccessKey},
	})
	return err
}
