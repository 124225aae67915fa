// Command scenes makes rolls and updates end in many ways on a running lab, for `tests/record` to keep
// their histories. It is run at the root of the repository with the variables of the lab's env file,
// while a worker runs. Scenes are about a pool each, which is added to the lab's registry file and to
// its AWS account; stories are about clusters, which follow a branch that the story pushes to. The
// names of those to play may follow; those named told-* are for a worker with a `notify.url_env`. With
// -configure it only adds what stories need to the configuration, before the worker is started.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"sync"
	"time"

	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

const (
	cluster   = "dev-1"
	taskQueue = "fairway"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	only := flag.Bool("configure", false, "add the edges of the stories to the pipeline in $FAIRWAY_CONFIG, and play nothing")
	flag.Parse()
	play := func() error { return run(ctx, flag.Args()) }
	if *only {
		play = func() error { return configure(os.Getenv("FAIRWAY_CONFIG")) }
	}
	if err := play(); err != nil {
		fmt.Fprintf(os.Stderr, "scenes: %v\n", err)
		os.Exit(1)
	}
}

// stage is the lab, as far as scenes need it.
type stage struct {
	temporal client.Client
	scaling  *autoscaling.Client
	kube     kubernetes.Interface // of the cluster of the scenes
	config   config.Config
	writing  sync.Mutex // the registry
}

func run(ctx context.Context, only []string) error {
	s, err := newStage(ctx)
	if err != nil {
		return err
	}
	defer s.temporal.Close()
	if err := until(ctx, "the worker has begun", func(ctx context.Context) (bool, error) {
		_, err := s.temporal.ScheduleClient().GetHandle(ctx, workflows.SyncID).Describe(ctx)
		return err == nil, nil
	}); err != nil {
		return err
	}
	told, alone := errgroup.Group{}, []story{}
	for _, each := range stories {
		switch {
		case len(only) > 0 && !slices.Contains(only, each.name):
		case each.alone:
			alone = append(alone, each)
		default:
			told.Go(func() error { return s.tell(ctx, each) })
		}
	}
	errs := errors.Join(s.playAll(ctx, choose(only)), told.Wait())
	for _, each := range alone {
		errs = errors.Join(errs, s.tell(ctx, each))
	}
	return errs
}

func (s *stage) playAll(ctx context.Context, chosen []scene) error {
	if len(chosen) == 0 {
		return nil
	}
	access, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		clientcmd.NewDefaultClientConfigLoadingRules(), &clientcmd.ConfigOverrides{CurrentContext: cluster}).ClientConfig()
	if err != nil {
		return err
	}
	if s.kube, err = kubernetes.NewForConfig(access); err != nil {
		return err
	}
	if err := s.register(chosen); err != nil {
		return err
	}
	together, alone := errgroup.Group{}, []scene{}
	together.SetLimit(6)
	for _, each := range chosen {
		if each.alone {
			alone = append(alone, each)
			continue
		}
		together.Go(func() error { return s.play(ctx, each) })
	}
	errs := together.Wait()
	for _, each := range alone {
		errs = errors.Join(errs, s.play(ctx, each))
	}
	return errs
}

func choose(only []string) []scene {
	if len(only) == 0 {
		return scenes
	}
	var out []scene
	for _, each := range scenes {
		for _, name := range only {
			if each.name == name {
				out = append(out, each)
			}
		}
	}
	return out
}

func newStage(ctx context.Context) (*stage, error) {
	options, err := envconfig.LoadDefaultClientOptions()
	if err != nil {
		return nil, fmt.Errorf("reading Temporal's settings: %w", err)
	}
	temporal, err := client.DialContext(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("connecting to Temporal at %q: %w", options.HostPort, err)
	}
	credentials, err := awsconfig.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	c, err := config.Load(os.Getenv("FAIRWAY_CONFIG"))
	return &stage{temporal: temporal, scaling: autoscaling.NewFromConfig(credentials), config: c}, err
}

// register puts the scenes' pools into the registry, and has their cluster follow a channel that is no
// branch: no update makes or rolls these pools.
func (s *stage) register(scenes []scene) error {
	return s.rewrite(func(clusters registry.Clusters) (registry.Clusters, error) {
		entry := find(clusters, cluster)
		if entry == nil {
			return nil, fmt.Errorf("the lab has no cluster %s", cluster)
		}
		entry.Channel = "nowhere"
		for _, each := range scenes {
			if slices.ContainsFunc(entry.NodePools, func(p registry.NodePool) bool { return p.Name == each.name }) {
				continue
			}
			items := map[string]string{}
			for key, value := range each.items {
				items["fairway.roll."+key] = value
			}
			entry.NodePools = append(entry.NodePools, registry.NodePool{
				Name: each.name, Profile: "worker-default", InstanceTypes: []string{"m5.large", "m5a.large"},
				MinSize: 1, MaxSize: 9, DiscountStrategy: "none", ConfigItems: items,
			})
		}
		return clusters, nil
	})
}

// play makes the pool of a scene, rolls it, and disturbs that.
func (s *stage) play(ctx context.Context, each scene) (err error) {
	ctx, cancel := context.WithTimeout(ctx, 8*time.Minute)
	defer cancel()
	p, err := s.newPool(ctx, each)
	if err != nil {
		return fmt.Errorf("%s: making its pool: %w", each.name, err)
	}
	defer func() { err = errors.Join(err, p.remove(context.WithoutCancel(ctx))) }()
	if each.before != nil {
		if err := each.before(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", each.name, err)
		}
	}
	in := each.input
	in.Cluster, in.Pool, in.By, in.Reason = cluster, each.name, "the recorder", "a scene named "+each.name
	if each.count > 0 {
		if in.Nodes, err = p.nodeNames(ctx, each.count); err != nil {
			return err
		}
	}
	run, err := s.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: workflows.RollPoolID(cluster, each.name), TaskQueue: taskQueue}, workflows.RollPool, in)
	if err != nil {
		return fmt.Errorf("%s: %w", each.name, err)
	}
	if each.during != nil {
		if err := each.during(ctx, p); err != nil {
			return fmt.Errorf("%s: %w", each.name, err)
		}
	}
	err = run.Get(ctx, nil)
	fmt.Printf("%s: %v\n", each.name, err)
	if ctx.Err() != nil || (err != nil) != each.ends {
		return fmt.Errorf("%s ended with %v", each.name, err)
	}
	return nil
}

// disturb switches a fault of the lab's AWS on or off.
func disturb(ctx context.Context, method, what, body string) error {
	request, err := http.NewRequestWithContext(ctx, method, os.Getenv("AWS_ENDPOINT_URL")+"/lab/"+what, bytes.NewReader([]byte(body)))
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, what, response.Status)
	}
	return nil
}
