// Command lab-instances is the bridge between the lab's AWS endpoint and its Kubernetes control
// planes. A cluster stack becomes a control plane, an instance of its Auto Scaling groups
// becomes a Node after its boot delay and disappears after its termination, and volume claims
// of ebs.csi.aws.com get EBS volumes. It plays kubelet registration, the cloud's node controller
// and the EBS CSI driver. It keeps no state: whatever it finds when it starts, it goes on from.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

type options struct {
	control  string // unix socket of the lab
	clusters string // directory with <id>/admin.kubeconfig of each cluster
	aws      string // URL
	interval time.Duration
	boot     delay
	shutdown delay
}

// delay is a range that the delays of instances are drawn from.
type delay struct{ from, to time.Duration }

func (d *delay) String() string { return d.from.String() + "," + d.to.String() }

// Set implements flag.Value.
func (d *delay) Set(text string) (err error) {
	from, to, found := strings.Cut(text, ",")
	if !found {
		return errors.New("want two durations, like 1s,2s")
	}
	if d.from, err = time.ParseDuration(from); err != nil {
		return err
	}
	if d.to, err = time.ParseDuration(to); err != nil {
		return err
	}
	if d.from < 0 || d.to < d.from {
		return errors.New("want the shorter duration first")
	}
	return nil
}

func main() {
	o := options{boot: delay{time.Second, 2 * time.Second}, shutdown: delay{time.Second, time.Second}}
	flag.StringVar(&o.control, "control", "", "control `socket` of the lab")
	flag.StringVar(&o.clusters, "clusters", "", "`directory` with <id>/admin.kubeconfig of each cluster")
	flag.StringVar(&o.aws, "aws", "", "`URL` of the AWS endpoint")
	flag.DurationVar(&o.interval, "interval", 300*time.Millisecond, "time between two looks at AWS")
	flag.Var(&o.boot, "boot", "`MIN,MAX` time from the launch of an instance to its node")
	flag.Var(&o.shutdown, "shutdown", "`MIN,MAX` time from the end of an instance to that of its node")
	flag.Parse()
	if o.control == "" || o.clusters == "" || o.aws == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		log.Fatalf("lab-instances: %v", err)
	}
}

func run(ctx context.Context, o options) error {
	cloud, err := newCloud(ctx, o.aws)
	if err != nil {
		return err
	}
	b := &bridge{
		options: o, cloud: cloud, control: newControl(o.control),
		busy: map[string]bool{}, clusters: map[string]*cluster{},
	}
	tick := time.NewTicker(o.interval)
	defer tick.Stop()
	trouble := trouble{what: "looking at AWS and the lab"}
	for {
		trouble.report(b.look(ctx))
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
