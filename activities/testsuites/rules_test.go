package testsuites

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-project/fairway/e2e"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

func TestAJUnitFileIsReadWithinLimits(t *testing.T) {
	for _, rule := range []struct {
		name, file string
		want       []testCase
		problem    string
	}{
		{"skipped cases did not run", `<testsuites><testsuite><testcase name="a"/><testcase name="b"><skipped/></testcase></testsuite></testsuites>`, []testCase{{name: "a"}}, ""},
		{"an error is a failure", `<testsuite><testcase name="a"><error type="t">text</error></testcase></testsuite>`, []testCase{{name: "a", failed: true, message: "text"}}, ""},
		{"suites may be within suites", `<testsuite><testsuite><testcase classname="c" name="a"/></testsuite></testsuite>`, []testCase{{name: "c.a"}}, ""},
		{"Ginkgo's own steps are told from cases", `<testsuite><testcase classname="k" name="[SynchronizedBeforeSuite]"/><testcase classname="k" name="[It] does"/></testsuite>`,
			[]testCase{{name: "[SynchronizedBeforeSuite]", setup: true}, {name: "does"}}, ""},
		{"elements too deep are refused", strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100), nil, "too many elements"},
		{"too many elements are refused", "<a>" + strings.Repeat("<b/>", 11*mostCases) + "</a>", nil, "too many elements"},
		{"too long a file is refused", strings.Repeat(" ", mostJUnitBytes+1), nil, "longer than 16 MiB"},
		{"what is no XML is refused", "PASS <", nil, "no XML"},
	} {
		t.Run(rule.name, func(t *testing.T) {
			got, err := parseJUnit([]byte(rule.file))
			if rule.problem != "" {
				require.ErrorContains(t, err, rule.problem)
				return
			}
			require.NoError(t, err)
			require.Equal(t, rule.want, got)
		})
	}
}

func TestAttemptsAddUp(t *testing.T) {
	good, bad := func(name string) testCase { return testCase{name: name} }, func(name string) testCase { return testCase{name: name, failed: true, message: "no"} }
	failure := func(name string) []e2e.Failure { return []e2e.Failure{{Case: name, Message: "no"}} }
	for _, rule := range []struct {
		name     string
		attempts []outcome
		want     e2e.SuiteResult
	}{
		{"all passed", []outcome{{cases: []testCase{good("a"), good("b")}}}, e2e.SuiteResult{Passed: true, Ran: 2}},
		{"a case that passes in either attempt passes", []outcome{{cases: []testCase{bad("a"), good("b")}}, {cases: []testCase{good("a"), bad("b")}}},
			e2e.SuiteResult{Passed: true, Ran: 2, Flaky: []string{"a", "b"}}},
		{"a case that is not tried again has failed", []outcome{{cases: []testCase{bad("a")}}, {cases: []testCase{good("b")}}}, e2e.SuiteResult{Ran: 2, Failed: 1, Failures: failure("a")}},
		{"a name that comes twice has passed if both have", []outcome{{cases: []testCase{good("a"), bad("a"), good("a")}}}, e2e.SuiteResult{Ran: 1, Failed: 1, Failures: failure("a")}},
		{"what was wrong with an attempt is forgotten after a good one", []outcome{{problem: "Late."}, {cases: []testCase{good("a")}}}, e2e.SuiteResult{Passed: true, Ran: 1}},
		{"what was wrong with the last one is not", []outcome{{cases: []testCase{good("a")}, problem: "Late."}}, e2e.SuiteResult{Ran: 1, Problem: "Late."}},
		{"setup counts where it failed", []outcome{{cases: []testCase{{name: "[BeforeSuite]", setup: true}, {name: "[AfterSuite]", setup: true, failed: true, message: "no"}}}},
			e2e.SuiteResult{Ran: 1, Failed: 1, Failures: failure("[AfterSuite]")}},
		{"what Ginkgo calls flaky is", []outcome{{cases: []testCase{good("a")}, flaky: []string{"a"}}}, e2e.SuiteResult{Passed: true, Ran: 1, Flaky: []string{"a"}}},
	} {
		t.Run(rule.name, func(t *testing.T) {
			var all tally
			for _, o := range rule.attempts {
				all.add(o)
			}
			require.Equal(t, rule.want, all.result())
		})
	}
}

func TestAResultIsSmall(t *testing.T) {
	var all tally
	var o outcome
	for i := range 1000 {
		o.cases = append(o.cases, testCase{name: fmt.Sprint(i, strings.Repeat("é", 5000)), failed: true, message: strings.Repeat("é", 5000)})
	}
	all.add(o)
	result := all.result()
	require.Equal(t, 1000, result.Failed)
	require.Len(t, result.Failures, e2e.MostFailures)
	require.LessOrEqual(t, len(result.Failures[0].Message), cutAt)
	require.LessOrEqual(t, len(result.Failures[0].Case), cutAt)
}

func TestE2ETestIsRunAsConfigured(t *testing.T) {
	f := &folder{path: "/f"}
	for _, rule := range []struct {
		name    string
		ginkgo  string
		retries int
		suite   e2e.KubernetesSuite
		want    string
	}{
		{"alone", "", 0, e2e.KubernetesSuite{}, `e2e.test -ginkgo.focus=\[Conformance\] -ginkgo.skip=\[Serial\]|\[Disruptive\] -ginkgo.flake-attempts=1 -ginkgo.timeout=1h0m0s -ginkgo.no-color=true ` +
			`-kubeconfig=/f/kubeconfig -provider=skeleton -report-dir=/f/reports`},
		{"by ginkgo", "ginkgo", 2, e2e.KubernetesSuite{Focus: "a b", Skip: "c", Processes: 3, Arguments: []string{"-num-nodes=1"}},
			`ginkgo -procs=3 -focus=a b -skip=c -flake-attempts=3 -timeout=1h0m0s -no-color=true e2e.test -- ` +
				`-kubeconfig=/f/kubeconfig -provider=skeleton -report-dir=/f/reports -report-complete-ginkgo -num-nodes=1`},
	} {
		t.Run(rule.name, func(t *testing.T) {
			r := &run{Activities: &Activities{}, in: workflows.RunSuite{Suite: e2e.Suite{Kubernetes: &rule.suite, Retries: rule.retries}}}
			require.Equal(t, rule.want, strings.Join(r.ginkgo("e2e.test", rule.ginkgo, f), " "))
		})
	}
}

func TestAVersionIsThatOfUpstream(t *testing.T) {
	for answer, want := range map[string]string{
		"v1.36.3": "v1.36.3", "v1.36.3-eks-1a2b": "v1.36.3", "v1.36.3+k3s1": "v1.36.3", "v1.37.0-rc.1": "v1.37.0-rc.1", "../../etc": "", "": "",
	} {
		t.Run(answer, func(t *testing.T) {
			w := newWorld(t.TempDir(), apiServer(t, answer))
			got, err := (&run{Activities: w.activities, access: w.access}).version(t.Context())
			require.Equal(t, want == "", err != nil)
			require.Equal(t, want, got)
		})
	}
}

func TestABinaryThatIsMissingIsNamed(t *testing.T) {
	w := newTestWorld(t)
	result, err := w.run(e2e.Suite{Name: "conformance", Retries: 2, Kubernetes: &e2e.KubernetesSuite{Binary: "/nowhere/{version}/e2e.test"}})
	require.NoError(t, err)
	require.False(t, result.Passed)
	require.Contains(t, result.Problem, "The cluster runs Kubernetes v1.36.3, and the worker has no /nowhere/v1.36.3/e2e.test for it")
	requireNothingLeft(t, w.activities.Root)
}

// A stand-in for e2e.test that writes what it is told to where it is told to.
func TestAFlakyCaseOfE2ETestIsFoundInGinkgosReport(t *testing.T) {
	w := newTestWorld(t)
	binary := filepath.Join(t.TempDir(), "e2e.test")
	require.NoError(t, os.WriteFile(binary, []byte(`#!/bin/sh
for argument; do case $argument in -report-dir=*) dir=${argument#*=};; esac; done
mkdir $dir/ginkgo
echo '[{"SpecReports":[{"ContainerHierarchyTexts":["Pods"],"LeafNodeText":"start","State":"passed","NumAttempts":2},{"LeafNodeText":"stop","State":"passed","NumAttempts":1}]}]' > $dir/ginkgo/report.json
echo '<testsuites><testsuite><testcase name="[It] Pods start"/><testcase name="[It] stop"/><testcase name="[It] x"><skipped/></testcase></testsuite></testsuites>' > $dir/junit_01.xml
echo '<testsuite><testcase name="[It] Pods start [label]"/></testsuite>' > $dir/ginkgo/report.xml
`), 0o700))
	result, err := w.run(e2e.Suite{Name: "conformance", Retries: 1, Kubernetes: &e2e.KubernetesSuite{Binary: binary}})
	require.NoError(t, err)
	result.Took, result.Results = 0, ""
	require.Equal(t, e2e.SuiteResult{Name: "conformance", Passed: true, Ran: 2, Flaky: []string{"Pods start"}}, result)
	requireNothingLeft(t, w.activities.Root)
}

func TestAJobFileHasOneJob(t *testing.T) {
	const good = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: a}\n"
	for _, rule := range []struct{ name, text, problem string }{
		{"one is fine", "---\n" + good + "---\n# nothing\n", ""},
		{"two are not", good + "---\n" + good, "it has 2 objects"},
		{"none is not", "# nothing\n", "it has 0 objects"},
		{"another kind is not", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n", "it has a Pod of v1"},
		{"fields that do not exist are not", good + "sepc: {}\n", "sepc"},
		{"neither are fields that come twice", good + "kind: Job\n", "already set"},
		{"nor a Job without a name", "apiVersion: batch/v1\nkind: Job\n", "has no name"},
	} {
		t.Run(rule.name, func(t *testing.T) {
			_, err := parseJob(rule.text)
			if rule.problem == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, rule.problem)
		})
	}
}

func TestAJobBelongsToItsTest(t *testing.T) {
	job, err := parseJob("apiVersion: batch/v1\nkind: Job\nmetadata: {name: " + strings.Repeat("a", 60) + ", labels: {app: x}, finalizers: [a/b]}\nspec: {ttlSecondsAfterFinished: 0}\n")
	require.NoError(t, err)
	names := map[string]bool{}
	for _, id := range []string{"1/a", "2/a"} {
		for _, suite := range []string{"x", "y"} {
			mine := job.DeepCopy()
			r := &run{in: workflows.RunSuite{Request: e2e.Request{ID: id}, Suite: e2e.Suite{Name: suite}}, cluster: registry.Cluster{ID: "e2e-1"}}
			r.claim(mine)
			require.LessOrEqual(t, len(mine.Name), 63)
			names[mine.Name] = true
			require.Equal(t, map[string]string{"app": "x", e2e.LeaseTag: "e2e-1"}, mine.Labels)
			require.Empty(t, mine.Finalizers)
			require.Nil(t, mine.Spec.TTLSecondsAfterFinished)
			require.EqualValues(t, 3600, *mine.Spec.ActiveDeadlineSeconds)
		}
	}
	require.Len(t, names, 4)
}

func TestAReportIsFoundInALog(t *testing.T) {
	require.Equal(t, "<testsuites><testsuite></testsuite></testsuites>", string(withinLog([]byte("go\n<testsuites><testsuite></testsuite></testsuites>\nPASS"))))
	require.Equal(t, "<testsuite></testsuite>", string(withinLog([]byte("go <testsuite></testsuite>"))))
	require.Nil(t, withinLog([]byte("</testsuite> <testsuite>")))
}

func TestVolumesHaveToBeTheSame(t *testing.T) {
	was := map[string]claimed{"data": {"1", "v"}}
	for _, rule := range []struct {
		name          string
		before, after map[string]claimed
		want          string
	}{
		{"the same ones", was, map[string]claimed{"data": {"1", "v"}}, ""},
		{"another claim", was, map[string]claimed{"data": {"2", "v"}}, "another one of the same name"},
		{"another volume", was, map[string]claimed{"data": {"1", "w"}}, `had volume v and has "w"`},
		{"none", was, nil, "no claim data any more"},
		{"none before", nil, was, "no claim before"},
		{"one without a volume before", map[string]claimed{"data": {"1", ""}}, was, "no volume before"},
	} {
		t.Run(rule.name, func(t *testing.T) {
			got := compare(rule.before, rule.after)
			if rule.want == "" {
				require.Empty(t, got)
				return
			}
			require.Contains(t, got, rule.want)
		})
	}
}

func TestTheOrderOfAnUpdateIsSeen(t *testing.T) {
	pod := func(name string, ready bool) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
		if ready {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		return p
	}
	u := &update{pods: map[string]*corev1.Pod{"s-10": pod("s-10", true), "s-9": pod("s-9", false), "s-1": pod("s-1", true)}}
	u.came(u.pods["s-10"])
	require.Equal(t, []string{"s-10 was replaced while s-9 was not ready"}, u.atOnce)
	require.Equal(t, 10, ordinalOf("s-10"))
}

func TestAReportIsStoredEvenWhenTheLeaseIsGone(t *testing.T) {
	w := newTestWorld(t)
	where, err := w.activities.StoreReport(t.Context(), e2e.Report{Request: e2e.Request{ID: "12/abc", Cluster: "c"}, Account: e2e.Account{Account: "aws:1", Region: "r"}})
	require.NoError(t, err)
	require.Equal(t, "s3://bucket/e2e/12/abc/", where)
	require.Contains(t, w.stored["e2e/12/abc/report.json"], `"request"`)

	where, err = w.activities.StoreReport(t.Context(), e2e.Report{})
	require.NoError(t, err)
	require.Empty(t, where, "there is no bucket without an account")
}
