// Package aws holds the activities that speak to AWS.
package aws

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/cloudformation"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"go.temporal.io/sdk/temporal"
	"golang.org/x/time/rate"

	"github.com/fairway-project/fairway/config"
	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/workflows"
)

// Accounts hands out access to AWS for a cluster: its region, and the role of its account if one
// is configured. It is safe for concurrent use.
type Accounts struct {
	// Find resolves a registry id or alias.
	Find func(ctx context.Context, name string) (registry.Cluster, error)
	// Settings are the `aws` part of the configuration.
	Settings config.AWS

	mu       sync.Mutex
	known    map[string]*account   // by account and region
	loaded   map[string]aws.Config // what the environment says, by region
	networks networks
}

// account is access to an account in a region. All clusters there share it, and with it the configured
// rate of requests and the one that its clients have found AWS to allow.
type account struct {
	number, region string
	access         aws.Config

	autoScaling    *autoscaling.Client
	ec2            *ec2.Client
	cloudFormation *cloudformation.Client
	s3             *s3.Client
	balancing      *elasticloadbalancing.Client   // classic load balancers
	balancingV2    *elasticloadbalancingv2.Client // application, network and gateway load balancers

	bucket bucketState
}

// answerWithin bounds one attempt at a request; the SDK makes three. Together that is less than
// whoever waits for the activity is patient, so that AWS is named and not the worker.
const answerWithin = 4 * time.Second

func (a *Accounts) get(ctx context.Context, name string) (registry.Cluster, *account, error) {
	cluster, err := a.Find(ctx, name)
	if err != nil {
		return registry.Cluster{}, nil, err
	}
	found, err := a.of(ctx, cluster)
	if err != nil {
		return registry.Cluster{}, nil, err
	}
	return cluster, found, nil
}

// Access is how the account of a cluster is reached, for clients of other services.
func (a *Accounts) Access(ctx context.Context, cluster registry.Cluster) (aws.Config, error) {
	found, err := a.of(ctx, cluster)
	if err != nil {
		return aws.Config{}, err
	}
	return found.access, nil
}

// of is the account of a cluster.
func (a *Accounts) of(ctx context.Context, cluster registry.Cluster) (*account, error) {
	number := accountNumber(cluster)
	key := number + "/" + cluster.Region
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.known[key]; known != nil {
		return known, nil
	}
	loaded, err := a.load(ctx, cluster.Region)
	if err != nil {
		return nil, temporal.NewApplicationError(fmt.Sprintf("loading the AWS configuration: %v", err), workflows.InvalidInput)
	}
	if a.Settings.QPS > 0 {
		loaded.HTTPClient = &limited{loaded.HTTPClient, rate.NewLimiter(rate.Limit(a.Settings.QPS), a.Settings.Burst)}
	}
	if a.Settings.AssumeRole != "" {
		role := strings.ReplaceAll(a.Settings.AssumeRole, "{account}", number)
		loaded.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(loaded), role,
			func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "fairway" }))
	}
	fresh := &account{
		number: number, region: cluster.Region, access: loaded,
		autoScaling:    autoscaling.NewFromConfig(loaded),
		ec2:            ec2.NewFromConfig(loaded),
		cloudFormation: cloudformation.NewFromConfig(loaded),
		s3:             s3.NewFromConfig(loaded),
		balancing:      elasticloadbalancing.NewFromConfig(loaded),
		balancingV2:    elasticloadbalancingv2.NewFromConfig(loaded),
	}
	if a.known == nil {
		a.known = map[string]*account{}
	}
	a.known[key] = fresh
	return fresh, nil
}

// load is what the environment says. The accounts of a region share it: its connections, the worker's own
// credentials, and the certificates that it trusts, of which there may be hundreds.
func (a *Accounts) load(ctx context.Context, region string) (aws.Config, error) {
	if loaded, known := a.loaded[region]; known {
		return loaded, nil
	}
	loaded, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(region), awsconfig.WithAppID("fairway"),
		// Clients that are throttled slow down, instead of making it worse for the account's other users.
		awsconfig.WithRetryMode(aws.RetryModeAdaptive),
		awsconfig.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(answerWithin)))
	if err != nil {
		return aws.Config{}, err
	}
	if a.loaded == nil {
		a.loaded = map[string]aws.Config{}
	}
	a.loaded[region] = loaded
	return loaded, nil
}

// limited sends no more requests than an account is to get: each attempt counts, of whatever client.
type limited struct {
	aws.HTTPClient
	limit *rate.Limiter
}

func (l *limited) Do(request *http.Request) (*http.Response, error) {
	if err := l.limit.Wait(request.Context()); err != nil {
		if request.Context().Err() != nil {
			return nil, err
		}
		return nil, crowded{err}
	}
	return l.HTTPClient.Do(request)
}

// crowded is a request that would have to wait longer than whoever asks does.
type crowded struct{ error }

func (c crowded) Error() string {
	return "too many requests wait for their turn (aws.qps): " + c.error.Error()
}

// RetryableError keeps the SDK from trying it again: the line is no shorter then.
func (crowded) RetryableError() bool { return false }

func accountNumber(cluster registry.Cluster) string {
	return cluster.InfrastructureAccount[strings.LastIndex(cluster.InfrastructureAccount, ":")+1:]
}

// explain types an error of a request to AWS.
func explain(cluster registry.Cluster, doing string, err error) error {
	var typed *temporal.ApplicationError
	var answer smithy.APIError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &typed), errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &answer) && refusals[answer.ErrorCode()]:
		return temporal.NewApplicationError(
			fmt.Sprintf("cluster %s: %s: AWS refuses (%s): %s; check the worker's credentials, aws.assume_role and deploy/aws/policy.json",
				cluster.ID, doing, answer.ErrorCode(), answer.ErrorMessage()), workflows.AccessDenied)
	case errors.As(err, &answer) && throttled(answer.ErrorCode()):
		return temporal.NewApplicationError(
			fmt.Sprintf("cluster %s: %s: AWS asks to slow down (%s): %s", cluster.ID, doing, answer.ErrorCode(), answer.ErrorMessage()), workflows.Unreachable)
	case errors.As(err, &answer):
		return answered{answer.ErrorCode(), fmt.Sprintf("cluster %s: %s: AWS says %s: %s", cluster.ID, doing, answer.ErrorCode(), answer.ErrorMessage())}
	case errors.As(err, &crowded{}):
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s: %s: %v", cluster.ID, doing, err), workflows.Unreachable)
	default:
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s: %s: AWS does not answer: %v", cluster.ID, doing, err), workflows.Unreachable)
	}
}

// Explain types an error of a request to AWS for a cluster, for who makes requests of their own.
func Explain(cluster registry.Cluster, doing string, err error) error {
	return explain(cluster, doing, err)
}

// HasCode says whether AWS has answered with one of these errors.
func HasCode(err error, codes ...string) bool { return hasCode(err, codes...) }

// answered is an error that AWS has answered a request with.
type answered struct{ code, text string }

func (a answered) Error() string { return a.text }

// final says whether AWS will answer the same however often it is asked: the request names
// something that does not exist, or is wrong in another way.
func final(err error) bool {
	var a answered
	return errors.As(err, &a) && (a.code == "ValidationError" || strings.HasPrefix(a.code, "Invalid") && strings.HasSuffix(a.code, "NotFound"))
}

// throttled says whether AWS answers so to too many requests.
func throttled(code string) bool {
	_, known := retry.DefaultThrottleErrorCodes[code]
	return known
}

// hasCode says whether AWS has answered with one of these errors.
func hasCode(err error, codes ...string) bool {
	var answer smithy.APIError
	if errors.As(err, &answer) {
		return slices.Contains(codes, answer.ErrorCode())
	}
	var a answered
	return errors.As(err, &a) && slices.Contains(codes, a.code)
}

// refusals are the error codes of credentials that are wrong or not enough
// (https://docs.aws.amazon.com/autoscaling/ec2/APIReference/CommonErrors.html and EC2's own names).
var refusals = map[string]bool{
	"AccessDenied":                true,
	"AccessDeniedException":       true,
	"AuthFailure":                 true,
	"IncompleteSignature":         true,
	"InvalidAccessKeyId":          true,
	"InvalidClientTokenId":        true,
	"MissingAuthenticationToken":  true,
	"NotAuthorized":               true,
	"OptInRequired":               true,
	"SignatureDoesNotMatch":       true,
	"UnauthorizedOperation":       true,
	"UnrecognizedClientException": true,
}
