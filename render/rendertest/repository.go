// Package rendertest makes configuration repositories of any size, for tests and benchmarks.
package rendertest

import (
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing/fstest"
)

const defaults = "config-defaults.yaml"

// Repository is the folder `cluster/` of a repository with a number of manifest files and config
// items: those of base, such as the lab's sample, and generated ones. The generated manifests are
// valid objects of their own namespaces, of which none starts a pod; a fifth of them has the hash of
// another one. Each uses some of the generated config items.
func Repository(base fs.FS, manifests, configItems int) (fstest.MapFS, error) {
	made := fstest.MapFS{}
	if err := fs.WalkDir(base, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := fs.ReadFile(base, name)
		if err != nil {
			return err
		}
		made[name] = &fstest.MapFile{Data: content, Mode: 0o644}
		if strings.HasPrefix(name, "manifests/") && name != "manifests/deletions.yaml" {
			manifests--
		}
		if name == defaults {
			has := map[string]bool{} // some items have several values, under conditions
			for line := range strings.Lines(string(content)) {
				if item, _, found := strings.Cut(line, ":"); found && item[0] >= 'a' && item[0] <= 'z' {
					has[item] = true
				}
			}
			configItems -= len(has)
		}
		return nil
	}); err != nil {
		return nil, err
	}

	if made[defaults] == nil {
		made[defaults] = &fstest.MapFile{Mode: 0o644}
	}
	made[defaults].Data = append(made[defaults].Data, '\n')
	for i := range configItems {
		line := fmt.Sprintf("generated_%03d: \"value %d\"\n", i, i)
		if i%10 == 0 {
			line = fmt.Sprintf("generated_%03d: \"{{if eq .Cluster.Environment \"production\"}}many{{else}}few{{end}}\"\n", i)
		}
		made[defaults].Data = append(made[defaults].Data, line...)
	}
	const perApplication = 5
	for i := range manifests {
		application := fmt.Sprintf("generated-%03d", i/perApplication)
		kind := kinds[i%perApplication]
		item := ".Cluster.ID"
		if configItems > 0 {
			item = fmt.Sprintf(".Cluster.ConfigItems.generated_%03d", i%configItems)
		}
		content := strings.NewReplacer("APPLICATION", application, "NUMBER", fmt.Sprint(i), "ITEM", item).Replace(kind.content)
		made["manifests/"+application+"/"+kind.file] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	return made, nil
}

// Write writes such a repository into a folder that is empty or does not exist.
func Write(dir string, base fs.FS, manifests, configItems int) error {
	made, err := Repository(base, manifests, configItems)
	if err != nil {
		return err
	}
	return os.CopyFS(dir, made)
}

const labels = `
  labels:
    application: APPLICATION
    team: platform
    environment: "{{ .Cluster.Environment }}"
`

var kinds = []struct{ file, content string }{
	{"01-configmap.yaml", `apiVersion: v1
kind: Namespace
metadata:
  name: APPLICATION
  labels:
    team: platform
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
  namespace: APPLICATION` + labels + `data:
  cluster: "{{ .Cluster.ID }}"
  item: "{{ ITEM }}"
  zones: |
{{- range $zone := .Values.availability_zones }}
    {{ azID $zone }}: {{ index $.Values.subnets $zone }}
{{- end }}
  account: "{{ accountID .Cluster.InfrastructureAccount }}"
`},
	{"02-rbac.yaml", `apiVersion: v1
kind: ServiceAccount
metadata:
  name: APPLICATION
  namespace: APPLICATION` + labels + `---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: APPLICATION` + labels + `rules:
  - apiGroups: [""]
    resources: [pods, nodes, services, endpoints]
    verbs: [get, list, watch]
  - apiGroups: [apps]
    resources: [deployments, daemonsets, statefulsets]
    verbs: [get, list, watch{{ if ne .Cluster.Environment "production" }}, patch{{ end }}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: APPLICATION` + labels + `roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: APPLICATION
subjects:
  - kind: ServiceAccount
    name: APPLICATION
    namespace: APPLICATION
`},
	{"03-deployment.yaml", `apiVersion: apps/v1
kind: Deployment
metadata:
  name: APPLICATION
  namespace: APPLICATION` + labels + `spec:
  replicas: 0
  selector:
    matchLabels: {application: APPLICATION}
  template:
    metadata:
      labels: {application: APPLICATION, team: platform}
      annotations:
        config/hash: {{ "01-configmap.yaml" | manifestHash }}
    spec:
      serviceAccountName: APPLICATION
      containers:
        - name: main
          image: "registry.fleet.internal/{{ .Cluster.Alias }}/APPLICATION:1.NUMBER"
          args:
            - --value={{ ITEM }}
{{- range $pool := .Cluster.NodePools }}
            - --pool={{ $pool.Name }}={{ join "," $pool.InstanceTypes }}
{{- end }}
          ports: [{name: http, containerPort: 8080}]
          resources:
            requests: {cpu: {{ sumQuantities "100m" "NUMBERm" }}, memory: 100Mi}
            limits: {cpu: {{ scaleQuantity "2" 0.5 }}, memory: 200Mi}
          securityContext: {readOnlyRootFilesystem: true, runAsNonRoot: true}
`},
	{"04-service.yaml", `apiVersion: v1
kind: Service
metadata:
  name: APPLICATION
  namespace: APPLICATION` + labels + `spec:
  selector: {application: APPLICATION}
  ports:
    - {name: http, port: 80, targetPort: http}
`},
	{"05-policy.yaml", `apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: APPLICATION
  namespace: APPLICATION` + labels + `spec:
  maxUnavailable: {{ if eq .Cluster.Environment "production" }}1{{ else }}2{{ end }}
  selector:
    matchLabels: {application: APPLICATION}
`},
}
