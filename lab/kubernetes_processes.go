package lab

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
)

// clusterPorts are the ports on 127.0.0.1 of a control plane.
type clusterPorts struct {
	etcd, etcdPeer, apiServer, controllerManager, scheduler, kwok int
}

func (p *clusterPorts) allocate() error {
	for _, port := range []*int{&p.etcd, &p.etcdPeer, &p.apiServer, &p.controllerManager, &p.scheduler, &p.kwok} {
		var err error
		if *port, err = freePort(); err != nil {
			return err
		}
	}
	return nil
}

// partNames lists the parts of a cluster in the order of their start.
func (c *clusterState) partNames() []string {
	var names []string
	for _, part := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"} {
		names = append(names, c.part(part))
	}
	return names
}

func (c *clusterState) part(name string) string { return "kubernetes/" + c.id + "/" + name }

func (c *clusterState) etcd(l *Lab) Process {
	client := fmt.Sprintf("http://127.0.0.1:%d", c.ports.etcd)
	peer := fmt.Sprintf("http://127.0.0.1:%d", c.ports.etcdPeer)
	return Process{
		Name: c.part("etcd"),
		Command: []string{l.bin("kcp"), "etcd",
			"--data-dir=" + c.path("etcd"),
			"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer,
			"--initial-cluster=default=" + peer,
			"--log-level=warn",
			// Data outlives the process, not the machine.
			"--unsafe-no-fsync",
		},
		Dir:   c.dir,
		Ready: c.answers(fmt.Sprintf("%s/readyz", client)),
	}
}

func (c *clusterState) apiServer(l *Lab) Process {
	return Process{
		Name: c.part("kube-apiserver"),
		Command: []string{l.bin("kcp"), "kube-apiserver",
			fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", c.ports.etcd),
			"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", c.ports.apiServer),
			// Endpoints of the service "kubernetes" may not be on the loopback interface, so
			// they get an address of documentation; nothing in the cluster connects to it.
			"--advertise-address=192.0.2.1",
			"--tls-cert-file=" + c.path("server.crt"), "--tls-private-key-file=" + c.path("server.key"),
			"--token-auth-file=" + c.path("tokens.csv"),
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true",
			"--service-cluster-ip-range=10.96.0.0/16",
			"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
			"--service-account-key-file=" + c.path("service-account.key"),
			"--service-account-signing-key-file=" + c.path("service-account.key"),
			"--audit-policy-file=" + filepath.Join(l.root, "lab", "kubernetes", "audit-policy.yaml"),
			"--audit-log-path=" + c.auditLog(),
			// A batch would be lost with a server that is killed, and what a test killed it for
			// is just what the log has to tell.
			"--audit-log-mode=blocking",
			"--audit-log-maxsize=100000", // megabytes: one file, never rotated
		},
		Dir:   c.dir,
		Ready: c.answers("https://" + c.address() + "/readyz"),
	}
}

func (c *clusterState) controllerManager(l *Lab) Process {
	return c.controller(l, "kube-controller-manager", c.ports.controllerManager,
		"--use-service-account-credentials=true",
		"--service-account-private-key-file="+c.path("service-account.key"),
		"--root-ca-file="+c.path("server.crt"),
	)
}

func (c *clusterState) scheduler(l *Lab) Process {
	return c.controller(l, "kube-scheduler", c.ports.scheduler)
}

func (c *clusterState) controller(l *Lab, name string, port int, args ...string) Process {
	command := append([]string{l.bin("kcp"), name,
		"--kubeconfig=" + c.kubeconfig("system:"+name),
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + c.path("server.crt"), "--tls-private-key-file=" + c.path("server.key"),
		// With an election it would end itself when the API server is away for a while.
		"--leader-elect=false",
	}, args...)
	if !c.options.StockControllerManager {
		command = append(command, "--kube-api-qps=5000", "--kube-api-burst=10000")
	}
	return Process{
		Name: c.part(name), Command: command, Dir: c.dir,
		Ready: c.answers(fmt.Sprintf("https://127.0.0.1:%d/healthz", port)),
	}
}

func (c *clusterState) kwok(l *Lab) Process {
	address := fmt.Sprintf("127.0.0.1:%d", c.ports.kwok)
	return Process{
		Name: c.part("kwok"),
		Command: []string{l.bin("kwok"),
			"-kubeconfig=" + c.kubeconfig("kwok"),
			"-stages=" + c.path("stages.yaml"),
			"-healthz-address=" + address,
		},
		Dir:   c.dir,
		Ready: c.answers("http://" + address + "/healthz"),
	}
}

// answers asks a server of the cluster whether it is ready. All of them answer that without
// credentials.
func (c *clusterState) answers(url string) func(context.Context) error {
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(c.creds.certificate)
	client := &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: authorities},
		DisableKeepAlives: true,
	}}
	return func(ctx context.Context) error {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusOK {
			body, _ := io.ReadAll(io.LimitReader(response.Body, 2000))
			return fmt.Errorf("%s from %s: %s", response.Status, url, body)
		}
		return nil
	}
}
