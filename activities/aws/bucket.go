package aws

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	cftypes "github.com/aws/aws-sdk-go-v2/service/cloudformation/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Bucket keeps small things of clusters in the S3 bucket of their account (aws.bucket). It is safe for
// concurrent use.
type Bucket struct{ Accounts *Accounts }

// maxObject bounds what is kept and read, in bytes.
const maxObject = 1 << 20

var errMissing = errors.New("it is not in the bucket")

// IsMissing says whether an error of Bucket.Get means that nothing is kept under the key, so that to
// ask again is of no use.
func IsMissing(err error) bool { return errors.Is(err, errMissing) }

// Put keeps data, at most 1 MiB, under a key. The bucket is made if it is missing: encrypted, and
// closed to the public. AccessDenied if a bucket of the name belongs to another account.
func (b Bucket) Put(ctx context.Context, cluster registry.Cluster, key string, data []byte) error {
	if len(data) > maxObject {
		return temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: keeping %s: it is %d bytes long; at most %d are kept", cluster.ID, key, len(data), maxObject), workflows.InvalidInput, nil)
	}
	account, err := b.Accounts.of(ctx, cluster)
	if err != nil {
		return err
	}
	return account.put(ctx, cluster, b.Accounts.Settings.Bucket, key, data, onlyIf{})
}

// maxFile bounds what PutFile keeps, in bytes; storeWithin how long that may take.
const (
	maxFile     = 64 << 20
	storeWithin = 2 * time.Minute
)

// PutFile keeps data, at most 64 MiB, under a key like Put, and says where: such as s3://bucket/key. Such files are for
// people; Get reads none above 1 MiB.
func (b Bucket) PutFile(ctx context.Context, cluster registry.Cluster, key string, data []byte) (url string, err error) {
	if len(data) > maxFile {
		return "", temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: keeping %s: it is %d bytes long; at most %d are kept", cluster.ID, key, len(data), maxFile), workflows.InvalidInput, nil)
	}
	account, err := b.Accounts.of(ctx, cluster)
	if err != nil {
		return "", err
	}
	if err := account.put(ctx, cluster, b.Accounts.Settings.Bucket, key, data, onlyIf{}, func(o *s3.Options) {
		o.HTTPClient = patient(o.HTTPClient)
	}); err != nil {
		return "", err
	}
	return fmt.Sprintf("s3://%s/%s", account.bucketName(b.Accounts.Settings.Bucket), key), nil
}

// patient gives requests the time that a large file takes.
func patient(client s3.HTTPClient) s3.HTTPClient {
	switch c := client.(type) {
	case *limited:
		if inner, ok := patient(c.HTTPClient).(aws.HTTPClient); ok {
			return &limited{inner, c.limit}
		}
	case *awshttp.BuildableClient:
		return c.WithTimeout(storeWithin)
	}
	return client
}

var errOvertaken = errors.New("somebody else has written it by now")

// IsOvertaken says whether an error of Bucket.Create means that something is kept under the key already,
// or one of Bucket.Change that somebody else was faster.
func IsOvertaken(err error) bool { return errors.Is(err, errOvertaken) }

// Create is Put for a key under which nothing is kept yet; see IsOvertaken.
func (b Bucket) Create(ctx context.Context, cluster registry.Cluster, key string, data []byte) error {
	account, err := b.Accounts.of(ctx, cluster)
	if err != nil {
		return err
	}
	return account.put(ctx, cluster, b.Accounts.Settings.Bucket, key, data, onlyIf{none: aws.String("*")})
}

// Change replaces what is kept under a key by what change makes of it. Nothing is written if somebody else
// writes in between; see IsOvertaken.
func (b Bucket) Change(ctx context.Context, cluster registry.Cluster, key string, change func([]byte) ([]byte, error)) error {
	data, tag, err := b.get(ctx, cluster, key)
	if err != nil {
		return err
	}
	if data, err = change(data); err != nil {
		return err
	}
	account, err := b.Accounts.of(ctx, cluster)
	if err != nil {
		return err
	}
	return account.put(ctx, cluster, b.Accounts.Settings.Bucket, key, data, onlyIf{match: tag})
}

// mostKeys bounds what is listed at a time.
const mostKeys = 10_000

// List names what is kept under keys with a prefix; nothing if there is no bucket yet.
func (b Bucket) List(ctx context.Context, cluster registry.Cluster, prefix string) ([]string, error) {
	account, err := b.Accounts.of(ctx, cluster)
	if err != nil {
		return nil, err
	}
	name := account.bucketName(b.Accounts.Settings.Bucket)
	doing := fmt.Sprintf("listing s3://%s/%s", name, prefix)
	var keys []string
	pages := s3.NewListObjectsV2Paginator(account.s3, &s3.ListObjectsV2Input{Bucket: &name, Prefix: &prefix, ExpectedBucketOwner: &account.number})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if hasCode(err, "NoSuchBucket") {
			return nil, nil
		}
		if err != nil {
			return nil, explain(cluster, doing, err)
		}
		for _, object := range page.Contents {
			keys = append(keys, aws.ToString(object.Key))
		}
		if len(keys) > mostKeys {
			return nil, temporal.NewApplicationError(
				fmt.Sprintf("cluster %s: %s: there are more than %d objects; delete those that nobody needs", cluster.ID, doing, mostKeys), workflows.InvalidInput)
		}
	}
	return keys, nil
}

// Delete deletes what is kept under a key; nothing is fine.
func (b Bucket) Delete(ctx context.Context, cluster registry.Cluster, key string) error {
	account, err := b.Accounts.of(ctx, cluster)
	if err != nil {
		return err
	}
	name := account.bucketName(b.Accounts.Settings.Bucket)
	_, err = account.s3.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &name, Key: &key, ExpectedBucketOwner: &account.number})
	if hasCode(err, "NoSuchBucket", "NoSuchKey") {
		return nil
	}
	return explain(cluster, fmt.Sprintf("deleting s3://%s/%s", name, key), err)
}

// Get reads what is kept under a key; see IsMissing.
func (b Bucket) Get(ctx context.Context, cluster registry.Cluster, key string) ([]byte, error) {
	data, _, err := b.get(ctx, cluster, key)
	return data, err
}

// get returns the tag of what it has read, too.
func (b Bucket) get(ctx context.Context, cluster registry.Cluster, key string) (data []byte, tag *string, err error) {
	account, err := b.Accounts.of(ctx, cluster)
	if err != nil {
		return nil, nil, err
	}
	name := account.bucketName(b.Accounts.Settings.Bucket)
	doing := fmt.Sprintf("reading s3://%s/%s", name, key)
	out, err := account.s3.GetObject(ctx, &s3.GetObjectInput{Bucket: &name, Key: &key, ExpectedBucketOwner: &account.number})
	if hasCode(err, "NoSuchKey", "NoSuchBucket", "NotFound") {
		return nil, nil, fmt.Errorf("cluster %s: %s: %w", cluster.ID, doing, errMissing)
	}
	if err != nil {
		return nil, nil, explain(cluster, doing, err)
	}
	defer out.Body.Close()
	data, err = io.ReadAll(io.LimitReader(out.Body, maxObject+1))
	if err != nil {
		return nil, nil, explain(cluster, doing, err)
	}
	if len(data) > maxObject {
		return nil, nil, temporal.NewNonRetryableApplicationError(
			fmt.Sprintf("cluster %s: %s: it is longer than %d bytes, so Fairway has not written it", cluster.ID, doing, maxObject), workflows.InvalidInput, nil)
	}
	return data, out.ETag, nil
}

// bucketState remembers that the bucket is there.
type bucketState struct {
	mu    sync.Mutex
	ready bool
}

func (account *account) bucketName(pattern string) string {
	return strings.NewReplacer("{account}", account.number, "{region}", account.region).Replace(pattern)
}

// onlyIf is what has to be under a key for it to be written: nothing ("*"), or what carries a tag.
type onlyIf struct{ none, match *string }

func (account *account) put(ctx context.Context, cluster registry.Cluster, pattern, key string, data []byte, only onlyIf, options ...func(*s3.Options)) error {
	name := account.bucketName(pattern)
	if err := account.ensureBucket(ctx, cluster, name); err != nil {
		return err
	}
	_, err := account.s3.PutObject(ctx, &s3.PutObjectInput{
		Bucket: &name, Key: &key, Body: bytes.NewReader(data), ExpectedBucketOwner: &account.number, IfNoneMatch: only.none, IfMatch: only.match,
	}, options...)
	// S3 answers so to the slower one of two that write, and where the one to be replaced has gone.
	if hasCode(err, "PreconditionFailed", "ConditionalRequestConflict") || only.match != nil && hasCode(err, "NoSuchKey") {
		return fmt.Errorf("cluster %s: writing s3://%s/%s: %w", cluster.ID, name, key, errOvertaken)
	}
	if hasCode(err, "NoSuchBucket") { // deleted since; the next attempt makes it
		account.bucket.mu.Lock()
		account.bucket.ready = false
		account.bucket.mu.Unlock()
	}
	return explain(cluster, fmt.Sprintf("writing s3://%s/%s", name, key), err)
}

// ensureBucket makes the account's bucket where it is missing. S3 encrypts what is in it.
func (account *account) ensureBucket(ctx context.Context, cluster registry.Cluster, name string) error {
	account.bucket.mu.Lock()
	defer account.bucket.mu.Unlock()
	if account.bucket.ready {
		return nil
	}
	fail := func(doing string, err error) error {
		return explain(cluster, fmt.Sprintf("%s the bucket %s of account %s (aws.bucket)", doing, name, account.number), err)
	}
	_, err := account.s3.HeadBucket(ctx, &s3.HeadBucketInput{Bucket: &name, ExpectedBucketOwner: &account.number})
	if hasCode(err, "NotFound", "NoSuchBucket") {
		in := &s3.CreateBucketInput{Bucket: &name}
		if account.region != "us-east-1" { // which is the default and no location
			in.CreateBucketConfiguration = &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(account.region)}
		}
		// Another worker may make it at the same time. What follows finds out whose it is.
		if _, err = account.s3.CreateBucket(ctx, in); hasCode(err, "BucketAlreadyOwnedByYou") {
			err = nil
		}
		if err == nil {
			_, err = account.s3.PutBucketEncryption(ctx, &s3.PutBucketEncryptionInput{Bucket: &name, ExpectedBucketOwner: &account.number,
				ServerSideEncryptionConfiguration: &types.ServerSideEncryptionConfiguration{Rules: []types.ServerSideEncryptionRule{{
					ApplyServerSideEncryptionByDefault: &types.ServerSideEncryptionByDefault{SSEAlgorithm: types.ServerSideEncryptionAes256},
				}}}})
		}
		if err != nil {
			return fail("making", err)
		}
	} else if err != nil {
		// The answer to HEAD has no body, so AWS says no more than a status.
		if hasCode(err, "Forbidden", "403") {
			return temporal.NewApplicationError(fmt.Sprintf("cluster %s: the bucket %s (aws.bucket) is not account %s's, or not open to the worker: choose another name, or see deploy/aws/policy.json",
				cluster.ID, name, account.number), workflows.AccessDenied)
		}
		return fail("looking at", err)
	}
	_, err = account.s3.GetPublicAccessBlock(ctx, &s3.GetPublicAccessBlockInput{Bucket: &name, ExpectedBucketOwner: &account.number})
	if hasCode(err, "NoSuchPublicAccessBlockConfiguration") {
		_, err = account.s3.PutPublicAccessBlock(ctx, &s3.PutPublicAccessBlockInput{Bucket: &name, ExpectedBucketOwner: &account.number,
			PublicAccessBlockConfiguration: &types.PublicAccessBlockConfiguration{
				BlockPublicAcls: aws.Bool(true), BlockPublicPolicy: aws.Bool(true), IgnorePublicAcls: aws.Bool(true), RestrictPublicBuckets: aws.Bool(true),
			}})
	}
	if err != nil {
		return fail("closing to the public", err)
	}
	account.bucket.ready = true
	return nil
}

// upload puts the wanted template into the account's bucket, named by its content, and returns the
// address that CloudFormation reads it from.
func (st *stack) upload(ctx context.Context) (*string, error) {
	key := fmt.Sprintf("templates/%s/%s/%s", st.cluster.ID, st.name, hashed(st.wanted.Body))
	if err := st.account.put(ctx, st.cluster, st.Settings.Bucket, key, []byte(st.wanted.Body), onlyIf{}); err != nil {
		return nil, err
	}
	// CloudFormation knows S3 by its public address only, whichever endpoint the worker uses.
	name := st.account.bucketName(st.Settings.Bucket)
	endpoint, err := s3.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, s3.EndpointParameters{Region: &st.account.region, Bucket: &name})
	if err != nil {
		return nil, st.invalid("its template's address in bucket %s (aws.bucket): %v", name, err)
	}
	return aws.String(endpoint.URI.JoinPath(key).String()), nil
}

// emptyBuckets deletes all that is in the buckets of a stack that is about to be deleted: AWS deletes
// no bucket with something in it. Buckets that outlive the stack are left alone.
func (st *stack) emptyBuckets(ctx context.Context, found *cftypes.Stack) error {
	var buckets []cftypes.StackResourceSummary
	pages := cloudformation.NewListStackResourcesPaginator(st.account.cloudFormation, &cloudformation.ListStackResourcesInput{StackName: found.StackId})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return explain(st.cluster, st.doing("listing its resources"), err)
		}
		for _, r := range page.StackResourceSummaries {
			if aws.ToString(r.ResourceType) == bucketType && r.ResourceStatus != cftypes.ResourceStatusDeleteComplete && aws.ToString(r.PhysicalResourceId) != "" {
				buckets = append(buckets, r)
			}
		}
	}
	if len(buckets) == 0 {
		return nil
	}
	out, err := st.account.cloudFormation.GetTemplate(ctx, &cloudformation.GetTemplateInput{StackName: found.StackId, TemplateStage: cftypes.TemplateStageProcessed})
	if err != nil {
		return explain(st.cluster, st.doing("reading its template"), err)
	}
	template, err := parseTemplate(aws.ToString(out.TemplateBody))
	if err != nil {
		return st.failed("its template does not say which buckets outlive it: %v; empty them and delete it by hand", err)
	}
	for _, bucket := range buckets {
		r, known := template.Resources[aws.ToString(bucket.LogicalResourceId)]
		if !known || r.stays() {
			continue
		}
		if err := st.empty(ctx, aws.ToString(bucket.PhysicalResourceId)); err != nil {
			return err
		}
	}
	return nil
}

// empty deletes all objects of a bucket, with all of their versions. It looks at blocks before each
// thousand of them.
func (st *stack) empty(ctx context.Context, bucket string) error {
	progress := func(count int) workflows.StackProgress {
		return workflows.StackProgress{Status: "emptying", Event: fmt.Sprintf("bucket %s: %d objects and versions deleted", bucket, count)}
	}
	deleted := 0
	return st.watch(ctx, 0, progress(0), func() (workflows.StackProgress, bool, error) {
		page, err := st.account.s3.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &bucket, ExpectedBucketOwner: &st.account.number})
		if hasCode(err, "NoSuchBucket") {
			return progress(deleted), true, nil
		}
		if err != nil {
			return progress(deleted), false, explain(st.cluster, st.doing("listing what is in bucket "+bucket), err)
		}
		var going []types.ObjectIdentifier
		for _, version := range page.Versions {
			going = append(going, types.ObjectIdentifier{Key: version.Key, VersionId: version.VersionId})
		}
		for _, marker := range page.DeleteMarkers {
			going = append(going, types.ObjectIdentifier{Key: marker.Key, VersionId: marker.VersionId})
		}
		if len(going) == 0 {
			return progress(deleted), true, nil
		}
		activity.RecordHeartbeat(ctx, progress(deleted))
		if err := st.Blocks.Check(ctx, st.cluster.ID, ""); err != nil {
			return progress(deleted), false, err
		}
		out, err := st.account.s3.DeleteObjects(ctx, &s3.DeleteObjectsInput{
			Bucket: &bucket, ExpectedBucketOwner: &st.account.number, Delete: &types.Delete{Objects: going, Quiet: aws.Bool(true)},
		})
		if err == nil && len(out.Errors) > 0 {
			return progress(deleted), false, st.retryable("deleting %s of bucket %s: AWS says %s: %s",
				aws.ToString(out.Errors[0].Key), bucket, aws.ToString(out.Errors[0].Code), short(aws.ToString(out.Errors[0].Message)))
		}
		deleted += len(going)
		return progress(deleted), false, explain(st.cluster, st.doing("emptying bucket "+bucket), err)
	})
}
