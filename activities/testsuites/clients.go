package testsuites

import (
	"context"
	"fmt"

	"go.temporal.io/sdk/temporal"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/fairway-project/fairway/workflows"
)

// clients are those of the suites that Fairway runs itself.
type clients struct {
	asking   kubernetes.Interface
	watching kubernetes.Interface // without a timeout
	objects  dynamic.Interface
}

func (r *run) connect() (clients, error) {
	brief := rest.CopyConfig(r.access)
	brief.Timeout = askWithin
	var c clients
	var err error
	if c.asking, err = kubernetes.NewForConfig(brief); err == nil {
		if c.watching, err = kubernetes.NewForConfig(r.access); err == nil {
			c.objects, err = dynamic.NewForConfig(brief)
		}
	}
	if err != nil {
		return c, temporal.NewApplicationError(fmt.Sprintf("cluster %s: building a client: %v", r.cluster.ID, err), workflows.InvalidInput)
	}
	return c, nil
}

// await watches objects until done says so, through breaks of the connection.
func await(ctx context.Context, of cache.ListerWatcher, kind runtime.Object, done watchtools.ConditionFunc) error {
	_, err := watchtools.UntilWithSync(ctx, of, kind, nil, done)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}
