package render

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/template"
	"time"
	"unicode"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/strictyaml"
)

// Problem is one thing that is wrong with the configuration. Its line is that of the file; where
// only the rendered file has lines, the text says so.
type Problem = strictyaml.Problem

// Input is what a commit is rendered for.
type Input struct {
	// Cluster is its registry entry; its status is ignored.
	Cluster registry.Cluster
	// Version is kept in the release and in nothing that is rendered.
	Version string
	// Values are what the entry does not say: .Values of the templates. They are not changed.
	Values map[string]any
	Limits Limits
}

const (
	defaultsFile  = "config-defaults.yaml"
	clusterFile   = "cluster.yaml"
	etcdFile      = "etcd/stack.yaml"
	poolsFolder   = "node-pools/"
	manifests     = "manifests/"
	deletionsFile = manifests + "deletions.yaml"
)

// Render renders the folder `cluster/` of a commit for a cluster. Templates reach nothing but their
// arguments, and Limits bound them. An error that is, or joins, a Problem says all that is wrong with
// the configuration, the first 20 of them; any other is one of reading files, and may pass.
func Render(files fs.FS, in Input) (*Release, error) {
	limits := in.Limits.withDefaults()
	tree, err := list(files, limits.Files)
	if err != nil {
		return nil, err
	}
	r := &rendering{
		budget: &budget{limits: limits, deadline: time.Now().Add(limits.Time)},
		tree:   tree, cluster: in.Cluster, values: in.Values, rendered: map[string]*rendered{},
	}
	r.cluster.Status = nil
	r.functions = template.New("").Option("missingkey=error").Funcs(r.functionMap())

	// Without the defaults every other file lacks something.
	r.cluster.ConfigItems = r.defaults()
	if err := r.err(); err != nil {
		return nil, err
	}
	release := &Release{Cluster: r.cluster, Version: in.Version}
	release.Stacks = r.stacks()
	release.Pools = r.pools()
	release.Manifests = r.manifests()
	release.Deletions = r.deletions()
	if err := r.err(); err != nil {
		return nil, err
	}
	return release, nil
}

// rendering is what is needed while a release is made.
type rendering struct {
	*budget
	tree      tree
	cluster   registry.Cluster // with the defaults, once they are known
	values    map[string]any
	functions *template.Template // no template, but what all of them can call
	current   *execution
	rendered  map[string]*rendered // manifests
	nested    int                  // hashes that are being made for each other

	problems []error
	unread   error // a file could not be read
}

// report keeps what is wrong, so that everything can be told at once.
func (r *rendering) report(err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, each := range joined.Unwrap() {
			r.report(each)
		}
		return
	}
	var problem Problem
	if errors.As(err, &problem) {
		r.problems = append(r.problems, tellable(problem))
	} else if r.unread == nil {
		r.unread = err
	}
}

// tellable is a problem without what a hostile file puts into it: endless texts, and bytes that
// histories, terminals and chats cannot take.
func tellable(p Problem) Problem {
	p.File, p.Field, p.Text = short(p.File, 200), short(p.Field, 100), short(p.Text, 500)
	return p
}

func short(text string, longest int) string {
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) {
			return ' '
		}
		return c
	}, strings.ToValidUTF8(text, "?"))
}

// over says that there is no sense in going on.
func (r *rendering) over() bool { return r.unread != nil || r.exhausted() }

func (r *rendering) err() error {
	if r.unread != nil {
		return r.unread
	}
	if err := r.checkTime(); err != nil && len(r.problems) == 0 {
		r.problems = append(r.problems, Problem{File: ".", Text: err.Error()})
	}
	told := r.problems
	if more := len(told) - maxProblems; more > 0 {
		told = append(slices.Clone(told[:maxProblems]), fmt.Errorf("and %d more", more))
	}
	if err := errors.Join(told...); err != nil && r.slow {
		return fmt.Errorf("%w: %w", ErrSlow, err)
	}
	return errors.Join(told...)
}

// stacks are those that belong to no pool, in the order in which they are applied.
func (r *rendering) stacks() []Stack {
	var stacks []Stack
	files := map[string]string{clusterFile: r.cluster.ID}
	order := []string{clusterFile}
	if r.tree.has(etcdFile) {
		files[etcdFile] = "etcd-" + r.cluster.ID
		order = []string{etcdFile, clusterFile}
	}
	for _, file := range order {
		stack, err := r.stack(files[file], file, r.clusterData())
		if err != nil {
			r.report(err)
			continue
		}
		stacks = append(stacks, stack)
	}
	return stacks
}

func (r *rendering) pools() []Pool {
	var pools []Pool
	for _, pool := range r.cluster.NodePools {
		if r.over() {
			return nil
		}
		stack, err := r.poolStack(pool)
		if err != nil {
			r.report(err)
			continue
		}
		pools = append(pools, Pool{NodePool: pool, Stack: stack, ControlPlane: controlPlane(pool)})
	}
	slices.SortStableFunc(pools, func(a, b Pool) int {
		switch {
		case a.ControlPlane == b.ControlPlane:
			return 0
		case a.ControlPlane:
			return -1
		}
		return 1
	})
	return pools
}

func controlPlane(pool registry.NodePool) bool {
	return strings.HasPrefix(pool.Profile, "master") || pool.ConfigItems["role"] == "master"
}

func (r *rendering) poolStack(pool registry.NodePool) (Stack, error) {
	folder := poolsFolder + pool.Profile + "/"
	file, userData := folder+"stack.yaml", folder+"userdata.yaml"
	if !r.tree.has(file) && r.tree.odd[file] == 0 {
		return Stack{}, Problem{File: file, Text: fmt.Sprintf("is missing: pool %q has the profile %q; there are %s",
			pool.Name, pool.Profile, strings.Join(r.profiles(), ", "))}
	}
	dot := r.clusterData().ofPool(pool)
	if r.tree.has(userData) || r.tree.odd[userData] != 0 {
		rendered, err := r.template(userData, dot)
		if err != nil {
			return Stack{}, err
		}
		dot = dot.with("UserData", base64Encode(rendered.text))
	}
	return r.stack(PoolStackName(r.cluster.ID, pool.Name), file, dot)
}

// PoolStackName is what the stack of a cluster's pool is called.
func PoolStackName(cluster, pool string) string {
	return strings.ReplaceAll("nodepool-"+pool+"-"+cluster, ":", "-")
}

func (r *rendering) profiles() []string {
	found := map[string]bool{}
	for _, file := range r.tree.plain {
		if path.Base(file) == "stack.yaml" && strings.HasPrefix(file, poolsFolder) {
			found[path.Base(path.Dir(file))] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

var stackName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9-]{0,127}$`)

func (r *rendering) stack(name, file string, dot data) (Stack, error) {
	name = strings.ReplaceAll(name, ":", "-")
	if !stackName.MatchString(name) {
		return Stack{}, Problem{File: file, Text: fmt.Sprintf(
			"its stack would be called %q, which CloudFormation does not allow: letters, digits and dashes, a letter first, at most 128; the cluster needs another id", name)}
	}
	rendered, err := r.template(file, dot)
	if err != nil {
		return Stack{}, err
	}
	tags, err := r.stackTags(rendered)
	if err != nil {
		return Stack{}, err
	}
	return Stack{Name: name, File: file, Body: rendered.text, Tags: tags}, nil
}
