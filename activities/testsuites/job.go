package testsuites

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"

	"github.com/fairway-project/fairway/e2e"
)

// jobNamespace is where Jobs run that name no namespace.
const jobNamespace = "fairway-e2e-suites"

// suiteAnnotation says on a Job which suite it is.
const suiteAnnotation = "fairway.dev/suite"

// job is an attempt at a suite that is a Kubernetes Job.
func (r *run) job(ctx context.Context) (o outcome, err error) {
	s := r.in.Suite.Job
	text, found, err := r.File(ctx, r.in.Request.Head, s.File)
	if err != nil {
		return outcome{}, err
	}
	if !found {
		return outcome{problem: fmt.Sprintf("The configuration repository has no file %s at %s.", s.File, r.in.Request.Head), final: true}, nil
	}
	version, err := r.version(ctx)
	if err != nil {
		return outcome{}, err
	}
	job, err := parseJob(strings.NewReplacer("{cluster}", r.cluster.ID, "{version}", version).Replace(text))
	if err != nil {
		return outcome{problem: fmt.Sprintf("%s: %s.", s.File, cut(err.Error())), final: true}, nil
	}
	r.claim(job)
	c, err := r.connect()
	if err != nil {
		return outcome{}, err
	}
	if job.Namespace == "" {
		job.Namespace = jobNamespace
		_, err := c.asking.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: jobNamespace}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return outcome{}, r.explain("making namespace "+jobNamespace, err)
		}
	}
	what := fmt.Sprintf("Job %s/%s", job.Namespace, job.Name)
	r.say("removing what an attempt before has left of %s", what)
	if err := r.removeJob(ctx, c, job); err != nil {
		return outcome{}, err
	}
	made, err := c.asking.BatchV1().Jobs(job.Namespace).Create(ctx, job, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
	if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return outcome{problem: fmt.Sprintf("The API server does not take %s of %s: %s.", what, s.File, cut(err.Error())), final: true}, nil
	}
	if err != nil {
		return outcome{}, r.explain("making "+what, err)
	}
	defer func() {
		// It goes whatever has happened, also when the suite is cancelled.
		going, cancel := context.WithTimeout(context.WithoutCancel(ctx), askWithin)
		defer cancel()
		if left := r.removeJob(going, c, made); left != nil && err == nil {
			o.problem = strings.TrimSpace(o.problem + " " + what + " could not be deleted: " + cut(left.Error()))
		}
	}()
	r.say("%s runs", what)
	status, err := r.awaitJob(ctx, c, made)
	if err != nil {
		return outcome{problem: what + ": " + cut(err.Error()) + "."}, nil
	}
	log, unread := firstLog(ctx, c, made)
	if unread != nil {
		log = fmt.Appendf(nil, "There is no log: %v.\n", unread)
	}
	switch {
	case s.JUnit == "":
		o = judge(nil, status)
		o.cases[0].name = what + " completes"
	case unread != nil:
		o.problem = fmt.Sprintf("The log of %s, with its JUnit report, cannot be read: %s.", what, cut(unread.Error()))
	default:
		report := withinLog(log)
		if report == nil {
			o.problem = fmt.Sprintf("The log of %s has no JUnit report.", what)
			break
		}
		o = judge([]file{{"junit.xml", report}}, status)
		o.files = append(o.files, file{"junit.xml", report})
	}
	o.files = append(o.files, file{"log", log})
	return o, nil
}

// parseJob reads exactly one Job.
func parseJob(text string) (*batchv1.Job, error) {
	var documents [][]byte
	for reader := utilyaml.NewYAMLReader(bufio.NewReader(strings.NewReader(text))); ; {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		var content any
		if err := yaml.Unmarshal(document, &content); err != nil {
			return nil, err
		}
		if content != nil {
			documents = append(documents, document)
		}
	}
	if len(documents) != 1 {
		return nil, fmt.Errorf("it has %d objects; it must have one Job", len(documents))
	}
	var job batchv1.Job
	if err := yaml.UnmarshalStrict(documents[0], &job); err != nil {
		return nil, err
	}
	if job.APIVersion != "batch/v1" || job.Kind != "Job" {
		return nil, fmt.Errorf("it has a %s of %s; it must have a Job of batch/v1", job.Kind, job.APIVersion)
	}
	if job.Name == "" && job.GenerateName == "" {
		return nil, errors.New("its Job has no name")
	}
	return &job, nil
}

// claim makes a Job this test's: a name that no other test gives, and whose it is.
func (r *run) claim(job *batchv1.Job) {
	const longest = 40 // pods add to the name
	name := strings.TrimRight(job.Name+job.GenerateName, "-.")
	name = strings.TrimRight(name[:min(len(name), longest)], "-.")
	sum := sha256.Sum256([]byte(r.in.Request.ID + "\x00" + r.in.Suite.Name))
	labels := map[string]string{e2e.LeaseTag: r.cluster.ID}
	for key, value := range job.Labels {
		labels[key] = value
	}
	annotations := map[string]string{suiteAnnotation: r.in.Suite.Name}
	for key, value := range job.Annotations {
		annotations[key] = value
	}
	job.ObjectMeta = metav1.ObjectMeta{Name: fmt.Sprintf("%s-%x", name, sum[:4]), Namespace: job.Namespace, Labels: labels, Annotations: annotations}
	job.Status = batchv1.JobStatus{}
	job.Spec.TTLSecondsAfterFinished = nil // it would be gone before anybody has looked
	if job.Spec.ActiveDeadlineSeconds == nil {
		// It ends even if no worker is there to end it.
		seconds := max(1, int64(r.limit().Seconds()))
		job.Spec.ActiveDeadlineSeconds = &seconds
	}
}

func jobsNamed(c clients, job *batchv1.Job) *cache.ListWatch {
	return cache.NewListWatchFromClient(c.watching.BatchV1().RESTClient(), "jobs", job.Namespace, fields.OneTermEqualSelector("metadata.name", job.Name))
}

// removeJob deletes a Job with its pods and waits until it is gone.
func (r *run) removeJob(ctx context.Context, c clients, job *batchv1.Job) error {
	foreground := metav1.DeletePropagationForeground
	jobs := c.asking.BatchV1().Jobs(job.Namespace)
	err := jobs.Delete(ctx, job.Name, metav1.DeleteOptions{PropagationPolicy: &foreground})
	for err == nil && ctx.Err() == nil {
		var left *batchv1.Job
		if left, err = jobs.Get(ctx, job.Name, metav1.GetOptions{}); err != nil {
			break
		}
		err = await(ctx, jobsNamed(c, job), &batchv1.Job{}, func(event watch.Event) (bool, error) {
			return event.Type == watch.Deleted && isObject(event, left.UID), nil
		})
		if err != nil { // it may have gone before the watch began
			if _, now := jobs.Get(context.WithoutCancel(ctx), job.Name, metav1.GetOptions{}); apierrors.IsNotFound(now) {
				return nil
			}
		}
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return r.explain(fmt.Sprintf("deleting Job %s/%s", job.Namespace, job.Name), err)
}

func isObject(event watch.Event, uid types.UID) bool {
	object, ok := event.Object.(metav1.Object)
	return ok && object.GetUID() == uid
}

// awaitJob waits for the end of a Job. status is nil if it has completed.
func (r *run) awaitJob(ctx context.Context, c clients, job *batchv1.Job) (status, err error) {
	err = await(ctx, jobsNamed(c, job), &batchv1.Job{}, func(event watch.Event) (bool, error) {
		if !isObject(event, job.UID) {
			return false, nil
		}
		if event.Type == watch.Deleted {
			return false, errors.New("somebody has deleted it")
		}
		current, ok := event.Object.(*batchv1.Job)
		if !ok {
			return false, nil
		}
		r.say("Job %s/%s: %d pods run, %d have succeeded, %d failed", job.Namespace, job.Name, current.Status.Active, current.Status.Succeeded, current.Status.Failed)
		for _, condition := range current.Status.Conditions {
			if condition.Status == corev1.ConditionTrue && condition.Type == batchv1.JobFailed {
				status = fmt.Errorf("failure: %s: %s", condition.Reason, strings.TrimSuffix(condition.Message, "."))
				return true, nil
			}
			if condition.Status == corev1.ConditionTrue && condition.Type == batchv1.JobComplete {
				return true, nil
			}
		}
		return false, nil
	})
	return status, err
}

// firstLog is what the first container of the newest pod has written; of that the first part.
func firstLog(ctx context.Context, c clients, job *batchv1.Job) ([]byte, error) {
	pods, err := c.asking.CoreV1().Pods(job.Namespace).List(ctx, metav1.ListOptions{LabelSelector: batchv1.JobNameLabel + "=" + job.Name})
	if err != nil {
		return nil, err
	}
	var newest *corev1.Pod
	for i := range pods.Items {
		if newest == nil || newest.CreationTimestamp.Before(&pods.Items[i].CreationTimestamp) {
			newest = &pods.Items[i]
		}
	}
	if newest == nil || len(newest.Spec.Containers) == 0 {
		return nil, errors.New("none of its pods is left")
	}
	most := int64(mostJUnitBytes)
	in, err := c.asking.CoreV1().Pods(job.Namespace).GetLogs(newest.Name, &corev1.PodLogOptions{Container: newest.Spec.Containers[0].Name, LimitBytes: &most}).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return io.ReadAll(io.LimitReader(in, most))
}

// withinLog finds a JUnit report among other lines; nil if there is none.
func withinLog(log []byte) []byte {
	for _, element := range []string{"testsuites", "testsuite"} {
		begin := bytes.Index(log, []byte("<"+element))
		closing := []byte("</" + element + ">")
		if end := bytes.LastIndex(log, closing); begin >= 0 && end > begin {
			return log[begin : end+len(closing)]
		}
	}
	return nil
}
