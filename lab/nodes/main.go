// Command kwok plays the kubelets of a cluster: the nodes that carry the annotation
// kwok.x-k8s.io/node=fake get a status and a lease, the pods on them start and stop. It is
// kwok's own controller under three conditions that kwok's own command cannot fulfil: it keeps
// its identity over restarts, it does not give up a step while the API server is away, and it
// gives the lease of a new node time to be seen before it looks for pods there.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/kwok/pkg/apis/internalversion"
	"sigs.k8s.io/kwok/pkg/apis/v1alpha1"
	"sigs.k8s.io/kwok/pkg/kwok/controllers"
	kwoklog "sigs.k8s.io/kwok/pkg/log"
)

func main() {
	kubeconfig := flag.String("kubeconfig", "", "`file` with the address and credentials of the cluster")
	stages := flag.String("stages", "", "`file` with Stage objects, the steps in the life of nodes and pods")
	cidr := flag.String("cidr", "10.244.0.0/16", "addresses of pods")
	lease := flag.Uint("node-lease-duration-seconds", 40, "how long a node counts as alive without a sign of life")
	address := flag.String("healthz-address", "", "`host:port` that answers /healthz once the nodes are managed")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kubeconfig, *stages, *cidr, *lease, *address); err != nil {
		log.Fatalf("kwok: %v", err)
	}
}

func run(ctx context.Context, kubeconfig, stagesFile, cidr string, lease uint, address string) error {
	stages, err := readStages(stagesFile)
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return fmt.Errorf("reading the kubeconfig: %w", err)
	}
	config.UserAgent = "kwok"
	config.QPS = -1 // one process stands for all kubelets of the cluster
	config.Wrap(waitForServer)
	config.Wrap(waitForLease)
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("connecting to %s: %w", config.Host, err)
	}

	ctx = kwoklog.NewContext(ctx, kwoklog.NewLogger(os.Stderr, kwoklog.LevelInfo))
	controller, err := controllers.NewController(controllers.Config{
		TypedClient:                       client,
		ManageNodesWithAnnotationSelector: "kwok.x-k8s.io/node=fake",
		LocalStages:                       stages,
		CIDR:                              cidr,
		NodeIP:                            "10.0.0.1", // of nodes that were created without an address
		NodeLeaseDurationSeconds:          lease,
		// A kubelet that starts again renews its lease at once. With another name kwok would
		// leave the nodes alone until the leases of its former life have expired.
		ID:                        "kwok",
		PodPlayStageParallelism:   8,
		NodePlayStageParallelism:  4,
		NodeLeaseParallelism:      4,
		PodsOnNodeSyncParallelism: 4,
	})
	if err != nil {
		return err
	}
	if err := controller.Start(ctx); err != nil {
		return err
	}

	server := &http.Server{Addr: address, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	context.AfterFunc(ctx, func() { server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func readStages(file string) (map[internalversion.StageResourceRef][]*internalversion.Stage, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("reading stages: %w", err)
	}
	defer f.Close()
	stages := map[internalversion.StageResourceRef][]*internalversion.Stage{}
	decoder := yaml.NewYAMLOrJSONDecoder(f, 4096)
	for {
		var stage v1alpha1.Stage
		if err := decoder.Decode(&stage); errors.Is(err, io.EOF) {
			return stages, nil
		} else if err != nil {
			return nil, fmt.Errorf("reading stages from %s: %w", file, err)
		}
		internal, err := internalversion.ConvertToInternalStage(&stage)
		if err != nil {
			return nil, fmt.Errorf("stage %s in %s: %w", stage.Name, file, err)
		}
		ref := internal.Spec.ResourceRef
		stages[ref] = append(stages[ref], internal)
	}
}
