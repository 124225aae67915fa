// Package aws holds the activities that speak to AWS.
package aws

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"
	"go.temporal.io/sdk/temporal"

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

	mu    sync.Mutex
	known map[string]*account // by account and region
}

type account struct {
	autoScaling *autoscaling.Client
	ec2         *ec2.Client
}

// answerWithin bounds one attempt at a request; the SDK makes three. Together that is less than
// whoever waits for the activity is patient, so that AWS is named and not the worker.
const answerWithin = 4 * time.Second

func (a *Accounts) get(ctx context.Context, name string) (registry.Cluster, *account, error) {
	cluster, err := a.Find(ctx, name)
	if err != nil {
		return registry.Cluster{}, nil, err
	}
	number := cluster.InfrastructureAccount[strings.LastIndex(cluster.InfrastructureAccount, ":")+1:]
	key := number + "/" + cluster.Region
	a.mu.Lock()
	defer a.mu.Unlock()
	if known := a.known[key]; known != nil {
		return cluster, known, nil
	}
	loaded, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(cluster.Region), awsconfig.WithAppID("fairway"),
		awsconfig.WithHTTPClient(awshttp.NewBuildableClient().WithTimeout(answerWithin)))
	if err != nil {
		return registry.Cluster{}, nil, temporal.NewApplicationError(fmt.Sprintf("loading the AWS configuration: %v", err), workflows.InvalidInput)
	}
	if a.Settings.AssumeRole != "" {
		role := strings.ReplaceAll(a.Settings.AssumeRole, "{account}", number)
		loaded.Credentials = aws.NewCredentialsCache(stscreds.NewAssumeRoleProvider(sts.NewFromConfig(loaded), role,
			func(o *stscreds.AssumeRoleOptions) { o.RoleSessionName = "fairway" }))
	}
	fresh := &account{autoScaling: autoscaling.NewFromConfig(loaded), ec2: ec2.NewFromConfig(loaded)}
	if a.known == nil {
		a.known = map[string]*account{}
	}
	a.known[key] = fresh
	return cluster, fresh, nil
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
	case errors.As(err, &answer):
		return answered{answer.ErrorCode(), fmt.Sprintf("cluster %s: %s: AWS says %s: %s", cluster.ID, doing, answer.ErrorCode(), answer.ErrorMessage())}
	default:
		return temporal.NewApplicationError(fmt.Sprintf("cluster %s: %s: AWS does not answer: %v", cluster.ID, doing, err), workflows.Unreachable)
	}
}

// answered is an error that AWS has answered a request with.
type answered struct{ code, text string }

func (a answered) Error() string { return a.text }

// final says whether AWS will answer the same however often it is asked: the request names
// something that does not exist, or is wrong in another way.
func final(err error) bool {
	var a answered
	return errors.As(err, &a) && (a.code == "ValidationError" || strings.HasPrefix(a.code, "Invalid") && strings.HasSuffix(a.code, "NotFound"))
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
