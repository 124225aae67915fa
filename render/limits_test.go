package render_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-project/fairway/render"
)

// hostile are templates that cost too much in one way each, and what is said about them.
var hostile = map[string]struct{ template, want string }{
	"a loop without an end":              {`{{ range 9223372036854775807 }}{{ end }}`, "does more than templates may"},
	"an endless loop in a condition":     {`{{ if true }}{{ range 9223372036854775807 }}{{ if false }}x{{ end }}{{ end }}{{ end }}`, "does more than templates may"},
	"an endless loop in a template":      {`{{ define "t" }}{{ range 9223372036854775807 }}{{ continue }}{{ end }}{{ end }}{{ template "t" }}`, "does more than templates may"},
	"an endless loop in a block":         {`{{ block "t" . }}{{ with 9223372036854775807 }}{{ range . }}{{ end }}{{ end }}{{ end }}`, "does more than templates may"},
	"an endless loop beside one":         {`{{ range list }}{{ else }}{{ range 9223372036854775807 }}{{ end }}{{ end }}`, "does more than templates may"},
	"loops in loops":                     {strings.Repeat(`{{ range 100 }}`, 20) + strings.Repeat(`{{ end }}`, 20), "does more than templates may"},
	"a loop that writes":                 {`{{ range 9223372036854775807 }}0123456789012345678901234567890123456789{{ end }}`, "than"},
	"a long loop that calls":             {`{{ range 9223372036854775807 }}{{ $x := base64 "abc" }}{{ end }}`, "does more than templates may"},
	"templates without an end":           {`{{ define "t" }}{{ template "t" }}{{ end }}{{ template "t" }}`, "has templates that call each other more than 50 deep"},
	"two templates without an end":       {`{{ define "a" }}{{ template "b" }}{{ end }}{{ define "b" }}{{ template "a" }}{{ end }}{{ template "a" }}`, "more than 50 deep"},
	"templates that branch out":          {branching(40), "does more than templates may"},
	"nesting":                            {strings.Repeat("{{ if true }}", 5000) + strings.Repeat("{{ end }}", 5000), "nests if, range and with more than 200 deep"},
	"nesting of alternatives":            {strings.Repeat("{{ if false }}{{ else }}", 5000) + strings.Repeat("{{ end }}", 5000), "more than 200 deep"},
	"parentheses":                        {"{{ " + strings.Repeat("(", 20000) + "1" + strings.Repeat(")", 20000) + " }}", "max expression depth exceeded"},
	"too many actions":                   {strings.Repeat("{{1}}", 25000), "has more than 20000 template actions"},
	"too many arguments":                 {"{{ and" + strings.Repeat(" 1", 200000) + " }}", "has more than 100000 parts"},
	"a text that doubles":                {`{{ $s := "0123456789" }}{{ range 100 }}{{ $s = print $s $s }}{{ end }}`, "a value of more than 1048576 bytes"},
	"a text that doubles by printf":      {`{{ $s := "0123456789" }}{{ range 100 }}{{ $s = printf "%s%[1]s" $s }}{{ end }}`, "a value of more than 1048576 bytes"},
	"a text that doubles by replacing":   {`{{ $s := "aaaaaaaaaa" }}{{ range 100 }}{{ $s = replace "a" "aa" $s }}{{ end }}`, "a value of more than 1048576 bytes"},
	"a text that is replaced by itself":  {`{{ $s := "aaaaaaaaaa" }}{{ range 100 }}{{ $s = replace "a" $s $s }}{{ end }}`, "a value of more than 1048576 bytes"},
	"a text that doubles by escapes":     {`{{ $s := "\\" }}{{ range 100 }}{{ $s = js $s }}{{ end }}`, "a value of more than 1048576 bytes"},
	"a text that grows by base64":        {`{{ $s := "<<<<<<<<<<" }}{{ range 1000 }}{{ $s = base64 $s }}{{ end }}`, "a value of more than 1048576 bytes"},
	"a text that grows by quotes":        {`{{ $s := "\"\"" }}{{ range 1000 }}{{ $s = quote $s }}{{ end }}`, "a value of more than 1048576 bytes"},
	"a wide number":                      {`{{ printf "%1000000000d" 1 }}`, `"%1000000000d" is too wide; at most 1000`},
	"a precise number":                   {`{{ printf "%.9999f" 1.0 }}`, `"%.9999f" is too wide`},
	"many wide numbers":                  {`{{ printf "` + strings.Repeat("%999d", 100000) + `" }}`, "a value of more than 1048576 bytes"},
	"one text printed often":             {`{{ $s := indent 100000 "" }}{{ printf "` + strings.Repeat("%[1]s", 1000) + `" $s }}`, "a value of more than 1048576 bytes"},
	"a deep indentation":                 {`{{ indent 1000000000000 "a" }}`, "a value of more than 1048576 bytes"},
	"a deep indentation of many lines":   {`{{ indent 500000 "a\nb\nc\nd" }}`, "a value of more than 1048576 bytes"},
	"a long separator":                   {`{{ $s := indent 100000 "a" }}{{ join $s (split "a,b,c,d,e,f,g,h,i,j,k,l,m,n" ",") }}`, "a value of more than 1048576 bytes"},
	"one text in a list often":           {`{{ $s := indent 100000 "a" }}{{ $l := list }}{{ range 1000 }}{{ $l = append $l $s }}{{ end }}`, "a value of more than 1048576 bytes"},
	"lists of lists":                     {`{{ $l := list 1 }}{{ range 100 }}{{ $l = list $l $l }}{{ end }}`, "a value of more than 1048576 bytes"},
	"dicts of dicts":                     {`{{ $l := dict "a" 1 }}{{ range 100 }}{{ $l = dict "a" $l "b" $l }}{{ end }}`, "a value of more than 1048576 bytes"},
	"a list that gets deep":              {`{{ $l := list 1 }}{{ range 1000000 }}{{ $l = list $l }}{{ end }}`, "than"},
	"many texts kept":                    {`{{ $l := list }}{{ range 1000000 }}{{ $x := indent 1000000 "a" }}{{ end }}`, "does more than templates may"},
	"a text cut into letters":            {`{{ split (indent 1000000 "a") "" }}`, "a value of more than 1048576 bytes"},
	"a text written often":               {`{{ $s := indent 1000000 "a" }}{{ range 1000 }}{{ $s }}{{ end }}`, "renders more than 2097152 bytes"},
	"a key without an end":               {`{{ publicKey (indent 100000 "a") }}`, "the private key is longer than 8192 bytes"},
	"a version without an end":           {`{{ semverCompare (indent 100000 "a") "1" }}`, "versions are at most 200 characters long"},
	"a quantity without an end":          {`{{ scaleQuantity "1e-999999999" 1.0 }}`, "is no quantity"},
	"a comparison that takes long":       {`{{ $a := indent 1000000 "a" }}{{ $b := indent 1000000 "a" }}{{ range 9223372036854775807 }}{{ if eq $a $b $b $b $b $b $b $b $b }}{{ end }}{{ end }}`, "than"},
	"the data often":                     {`{{ range 9223372036854775807 }}{{ $x := print $ }}{{ end }}`, "does more than templates may"},
	"a file that is too long":            {strings.Repeat("x", 3<<20), "is longer than 2097152 bytes"},
	"an address far away":                {`{{ nthAddressFromCIDR "10.0.0.0/8" 9223372036854775807 }}`, "is not between"},
	"too long a call of a check of ours": {`{{ range 9223372036854775807 }}{{ _turn -1000000 }}{{ end }}`, `function "_turn" not defined`},
}

// branching is a template that calls another twice, which calls another twice, and so on.
func branching(depth int) string {
	var b strings.Builder
	for i := range depth {
		fmt.Fprintf(&b, `{{ define "t%d" }}{{ template "t%d" }}{{ template "t%d" }}{{ end }}`, i, i+1, i+1)
	}
	fmt.Fprintf(&b, `{{ define "t%d" }}{{ end }}{{ template "t0" }}`, depth)
	return b.String()
}

func TestHostileTemplatesEnd(t *testing.T) {
	for name, test := range hostile {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			_, err := render.Render(folder(map[string]string{"manifests/a/a.yaml": test.template}), input())
			runtime.ReadMemStats(&after)
			require.ErrorContains(t, err, "manifests/a/a.yaml")
			require.ErrorContains(t, err, test.want)
			require.Less(t, time.Since(start), 10*time.Second)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<30), "bytes in all, garbage included")
		})
	}
}

func TestALimitNamesTheLineWhereItIsReached(t *testing.T) {
	_, err := render.Render(folder(map[string]string{"manifests/a/a.yaml": "# one\n# two\n{{ range 9223372036854775807 }}{{ end }}"}), input())
	require.ErrorContains(t, err, "manifests/a/a.yaml:3: does more than templates may")
}

// bombs are manifests that cost too much when they are read.
var bombs = map[string]struct{ manifest, want string }{
	"aliases of aliases":     {"a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + aliases(9) + "b: *a8\n", "is an object of more than 2097152 bytes when its aliases are replaced"},
	"aliases of a long text": {"a: &a " + strings.Repeat("x", 100000) + "\nb: [" + strings.Repeat("*a,", 100000) + "]\n", "when its aliases are replaced"},
	"an alias of itself":     {"a: &a [*a]\n", "a.yaml:1: "},
	"merges of merges":       {"a0: &a0 {a: b}\na1: &a1 {<<: [" + strings.Repeat("*a0,", 200000) + "]}\n", "a.yaml"},
	"a long object":          {"{{ range 1100 }}" + "a{{ . }}: " + strings.Repeat("\\u0001", 300) + "\n{{ end }}", "a.yaml"},
	"nesting":                {strings.Repeat("[", 100000), "is no YAML: exceeded max depth"},
	"nesting that ends":      {strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "is no Kubernetes object"},
	"nesting of keys":        {strings.Repeat("{a: ", 50000), "exceeded max depth"},
	"nesting of lists":       {"apiVersion: v1\nkind: List\nitems: " + strings.Repeat("[{apiVersion: v1, kind: List, items: ", 2000) + "[]" + strings.Repeat("}]", 2000), ""},
	"too many objects":       {strings.Repeat("---\n{apiVersion: v1, kind: A, metadata: {name: a}}\n", 10001), "makes more than 10000 objects"},
}

func aliases(levels int) string {
	var b strings.Builder
	for i := 1; i < levels; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), 10), ","))
	}
	return b.String()
}

func TestHostileManifestsEnd(t *testing.T) {
	for name, test := range bombs {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := render.Render(folder(map[string]string{"manifests/a/a.yaml": test.manifest}), input())
			require.Less(t, time.Since(start), 10*time.Second)
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestHostileNestingEndsInEveryFile(t *testing.T) {
	for _, file := range []string{"cluster.yaml", "config-defaults.yaml", "manifests/deletions.yaml"} {
		for _, content := range []string{strings.Repeat("[", 9000) + strings.Repeat("]", 9000), "pre_apply: " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000), strings.Repeat("{a: ", 100000), aliases(9)} {
			start := time.Now()
			_, err := render.Render(folder(map[string]string{file: content}), input())
			require.ErrorContains(t, err, file)
			require.Less(t, time.Since(start), 5*time.Second)
		}
	}
}

func TestAllFilesTogetherAreBounded(t *testing.T) {
	many := map[string]string{}
	for i := range 40 {
		many[fmt.Sprintf("manifests/a/%02d.yaml", i)] = "{{ range 100 }}# some text{{ $x := base64 \"abc\" }}\n{{ end }}" + configMap(fmt.Sprintf("m%02d", i), "x")
	}
	_, err := render.Render(folder(many), input())
	require.NoError(t, err)
	for name, test := range map[string]struct {
		limits render.Limits
		want   string
	}{
		"work":             {render.Limits{Work: 1 << 20}, "all files together do more than templates may (1048576 of work at most)"},
		"output":           {render.Limits{Output: 10_000}, "all files together render more than 10000 bytes"},
		"time":             {render.Limits{Time: time.Nanosecond}, "rendering takes longer than 1ns"},
		"files":            {render.Limits{Files: 30}, "holds more than 30 files"},
		"objects":          {render.Limits{Objects: 30}, "manifests/a/30.yaml: with all before it makes more than 30 objects"},
		"work of a file":   {render.Limits{FileWork: 10_000}, "manifests/a/39.yaml"},
		"output of a file": {render.Limits{FileOutput: 500}, "manifests/a/00.yaml: renders more than 500 bytes"},
		"size of a file":   {render.Limits{FileSize: 100}, "cluster.yaml: is longer than 100 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := render.Render(folder(many), render.Input{Cluster: cluster(), Values: values(), Limits: test.limits})
			if name == "work of a file" {
				require.ErrorContains(t, err, "and 20 more")
				return
			}
			require.ErrorContains(t, err, test.want)
		})
	}
}

func TestATemplateEndsAtItsTime(t *testing.T) {
	for _, limits := range []render.Limits{{FileTime: 100 * time.Millisecond}, {Time: 100 * time.Millisecond}} {
		limits.FileWork, limits.Work = 1<<62, 1<<62
		start := time.Now()
		_, err := render.Render(folder(map[string]string{"manifests/a/a.yaml": "{{ range 9223372036854775807 }}{{ end }}"}), render.Input{Cluster: cluster(), Limits: limits})
		require.ErrorContains(t, err, "manifests/a/a.yaml:1: ")
		require.ErrorContains(t, err, "longer than 100ms")
		require.ErrorIs(t, err, render.ErrSlow)
		require.Less(t, time.Since(start), 2*time.Second)
	}
}

func FuzzRender(f *testing.F) {
	for _, test := range hostile {
		if len(test.template) < 1000 {
			f.Add(test.template)
		}
	}
	for _, test := range bombs {
		if len(test.manifest) < 1000 {
			f.Add(test.manifest)
		}
	}
	for _, template := range []string{
		configMap("a", "{{ .Cluster.ID }}"), "--- {a: b}\n...\n--- |\n  a\n", "apiVersion: v1\nkind: List\nitems: [{}, null]\n", "{{ range $i, $x := .Values }}{{ $x }}{{ end }}",
		"pre_apply: [{name: a, kind: b}]", "a: !!binary x\n<<: {b: c}\n", "{{ define \"manifests/a/a.yaml\" }}{{ end }}", "{{/* */}}{{- 1 -}}\xff\x00", "{{ nil }}", "{{ with $x := 1 }}{{ $x.y }}{{ end }}", "{{ .NodePool }}{{ . }}",
	} {
		f.Add(template)
	}
	limits := render.Limits{FileOutput: 100_000, Output: 1_000_000, FileWork: 1 << 20, Work: 4 << 20, FileTime: time.Second, Time: 2 * time.Second}
	f.Fuzz(func(t *testing.T, content string) {
		files := folder(map[string]string{
			"manifests/a/a.yaml": content, "manifests/a/b.yaml": "# {{ manifestHash \"a.yaml\" }}", "manifests/deletions.yaml": content,
			"config-defaults.yaml": "a: b", "node-pools/worker-default/userdata.yaml": content, "etcd/stack.yaml": content,
		})
		in := render.Input{Cluster: cluster(), Values: values(), Limits: limits}
		start := time.Now()
		release, err := render.Render(files, in)
		require.Less(t, time.Since(start), 5*time.Second)
		again, errAgain := render.Render(files, in)
		if err == nil && errAgain == nil { // a slow machine may end one of them by time
			require.Equal(t, release, again)
			for _, m := range release.Manifests {
				require.NotEmpty(t, m.Object.GetName())
				require.NotEmpty(t, m.Object.GetKind())
				require.Positive(t, m.Line)
			}
		}
		_, err = render.Render(folder(map[string]string{"config-defaults.yaml": content, "cluster.yaml": content}), in)
		if err != nil {
			require.ErrorAs(t, err, new(render.Problem))
		}
	})
}
