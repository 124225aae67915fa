package promotion

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// classes from harmless to harmful.
var classes = []Class{ManifestsOnly, AddOns, NodesRoll, ClusterStack, Breaking}

// AtLeast says whether a class is as bad as another, or worse. One that is not known is the worst.
func (c Class) AtLeast(other Class) bool { return c.rank() >= other.rank() }

func (c Class) rank() int {
	if i := slices.Index(classes, c); i >= 0 {
		return i
	}
	return len(classes)
}

// NeedsPerson says whether a change of a class waits for a person on this edge, by PersonFor: for the
// classes that are listed and for those that are worse.
func (e Edge) NeedsPerson(c Class) bool {
	return slices.ContainsFunc(e.PersonFor, c.AtLeast)
}

// ModeFor is how a change of a class is promoted along the edge.
func (e Edge) ModeFor(c Class) Mode {
	if e.NeedsPerson(c) {
		return ByPullRequest
	}
	return e.Mode
}

// File is a file that a promotion changes. Paths start at the root of the repository.
type File struct {
	Path   string
	Before string // path before it was renamed; otherwise empty
}

// Impact is what changed files may do to clusters.
type Impact struct {
	Areas []Area
	Class Class
	Why   string // a whole sentence that names the file
}

// Bounds of what a report lists.
const (
	mostAreas = 100
	mostFiles = 30 // of an area
	mostPath  = 200
)

// ImpactOf sorts changed files into areas and says what the worst of them may do. folder is where the
// configuration of clusters is (repository.path); before and after are this folder of the two commits,
// nil where it could not be read. Where the effect of a file cannot be told the worse is assumed.
func ImpactOf(folder string, files []File, before, after fs.FS) Impact {
	a := assessment{folder: path.Clean(folder), trees: []fs.FS{before, after}}
	impact := Impact{Class: ManifestsOnly, Why: "No file of the configuration of clusters changes."}
	areas := map[string]*Area{}
	judge := func(name string) {
		area, class, why := a.assess(name)
		if areas[area] == nil {
			areas[area] = &Area{Name: area}
		}
		areas[area].Files = append(areas[area].Files, name)
		if why != "" && (!a.found || class.rank() > impact.Class.rank()) {
			impact.Class, impact.Why, a.found = class, why, true
		}
	}
	sorted := slices.SortedFunc(slices.Values(files), func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	for _, file := range sorted {
		judge(file.Path)
		if file.Before != "" && file.Before != file.Path {
			judge(file.Before)
		}
	}
	for _, area := range areas {
		impact.Areas = append(impact.Areas, *area)
	}
	impact.Areas = bounded(impact.Areas)
	return impact
}

// Labelled is the class of a change with labels of its pull requests looked at, and why.
func (p Pipeline) Labelled(i Impact, changes []Change) (Class, string) {
	for _, change := range changes {
		for _, label := range change.Labels {
			if !slices.ContainsFunc(p.BreakingLabels, func(breaking string) bool { return strings.EqualFold(breaking, label) }) {
				continue
			}
			from := fmt.Sprintf("commit %.12s", change.Commit)
			if change.PullRequest > 0 {
				from = fmt.Sprintf("pull request %d", change.PullRequest)
			}
			return Breaking, fmt.Sprintf("The label %s is on %s.", label, from)
		}
	}
	return i.Class, i.Why
}

// Areas of files that are not of an application or a pool.
const (
	areaDefaults = "config-defaults.yaml"
	areaOutside  = "outside" // of the configuration of clusters
)

type assessment struct {
	folder string
	trees  []fs.FS // before and after
	found  bool    // something that clusters are made from
}

// assess says what a file belongs to and what its change may do; why is empty for one that no cluster is
// made from.
func (a *assessment) assess(name string) (area string, class Class, why string) {
	inside, found := name, true
	if a.folder != "." {
		inside, found = strings.CutPrefix(name, a.folder+"/")
	}
	if !found {
		return areaOutside, ManifestsOnly, ""
	}
	first, rest, isFolder := strings.Cut(inside, "/")
	second, _, below := strings.Cut(rest, "/")
	shown := printable(name)
	switch {
	case inside == "cluster.yaml":
		return inside, ClusterStack, shown + " makes the stack of the cluster."
	case first == "etcd" && isFolder:
		return first, ClusterStack, shown + " belongs to the stack of etcd."
	case first == "node-pools" && isFolder:
		if below {
			first += "/" + printable(second)
		}
		return first, NodesRoll, shown + " belongs to the profile of node pools."
	case inside == areaDefaults:
		class, why = a.defaults(shown)
		return inside, class, why
	case inside == "manifests/deletions.yaml":
		return inside, AddOns, shown + " deletes objects."
	case first == "manifests" && isFolder:
		if below {
			first += "/" + printable(second)
		}
		class, why = a.manifest(inside, shown)
		return first, class, why
	case !isFolder && (path.Ext(inside) == ".md" || strings.HasPrefix(inside, ".")):
		return areaOutside, ManifestsOnly, ""
	default:
		return printable(first), NodesRoll, shown + " is none of the files that clusters are known to be made from, so that nodes may roll."
	}
}

// disruptive are objects whose change is felt beyond one application.
var disruptive = regexp.MustCompile(`(?m)kind["']?\s*:.*\b(DaemonSet|StatefulSet|CustomResourceDefinition|ValidatingWebhookConfiguration|MutatingWebhookConfiguration)\b`)

// manifest says what the change of a manifest may do: by its own objects before and after, and by those of
// its application that hash it to be rolled when it changes.
func (a *assessment) manifest(inside, shown string) (Class, string) {
	for _, tree := range a.trees {
		text, known := read(tree, inside)
		if !known {
			return AddOns, shown + " could not be read, so that it may be of any kind."
		}
		if kind := disruptive.FindStringSubmatch(text); kind != nil {
			return AddOns, fmt.Sprintf("%s contains a %s.", shown, kind[1])
		}
	}
	for _, tree := range a.trees {
		siblings, _ := fs.Glob(tree, globbed.Replace(path.Dir(inside))+"/*")
		for _, sibling := range siblings {
			text, _ := read(tree, sibling)
			if kind := disruptive.FindStringSubmatch(text); kind != nil && strings.Contains(text, "manifestHash") && strings.Contains(text, path.Base(inside)) {
				return AddOns, fmt.Sprintf("%s is hashed by %s, which contains a %s.", shown, printable(sibling), kind[1])
			}
		}
	}
	return ManifestsOnly, shown + " is a manifest of an application."
}

var globbed = strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`)

// read is the text of a file, empty for none; false if it cannot be known.
func read(tree fs.FS, name string) (string, bool) {
	if tree == nil || !fs.ValidPath(name) {
		return "", false
	}
	data, err := fs.ReadFile(tree, name)
	switch {
	case err == nil:
		return string(data), true
	case isMissing(err):
		return "", true
	}
	return "", false
}

// bounded sorts areas and cuts what is too long for a report.
func bounded(areas []Area) []Area {
	slices.SortFunc(areas, func(a, b Area) int { return cmp.Compare(a.Name, b.Name) })
	if len(areas) > mostAreas {
		rest := Area{Name: "others"}
		for _, area := range areas[mostAreas-1:] {
			rest.Files = append(rest.Files, area.Files...)
		}
		areas = append(areas[:mostAreas-1], rest)
	}
	for i := range areas {
		area := &areas[i]
		slices.Sort(area.Files)
		area.Files = slices.Compact(area.Files)
		if more := len(area.Files) - mostFiles; more > 0 {
			area.Files, area.Omitted = area.Files[:mostFiles], more
		}
		for j := range area.Files {
			area.Files[j] = printable(area.Files[j])
		}
	}
	return areas
}

// printable is a path for people, which a hostile branch may have filled with anything.
func printable(name string) string {
	return cut(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '�'
		}
		return r
	}, name), mostPath)
}
