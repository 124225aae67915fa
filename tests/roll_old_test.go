package tests

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-project/fairway/workflows"
)

// add has somebody make the pool one larger, and waits until it is.
func (p pool) add(t *testing.T) pool {
	t.Helper()
	p.size++
	_, err := scaling.SetDesiredCapacity(t.Context(), &autoscaling.SetDesiredCapacityInput{
		AutoScalingGroupName: &p.group, DesiredCapacity: aws.Int32(int32(p.size)),
	})
	require.NoError(t, err)
	p.awaitNodes(t)
	return p
}

func TestANodeIsOldIfItIsOlderThanAsked(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{max: 4})
	p.run(t, application{})
	w := startWorker(t, busy, paced())
	old := p.look(t).names()
	time.Sleep(8 * time.Second) // the ages have to differ by more than a roll needs to begin
	p = p.add(t)
	var youngest time.Time // of the old ones
	for _, name := range old {
		node, err := p.client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
		require.NoError(t, err)
		if node.CreationTimestamp.After(youngest) {
			youngest = node.CreationTimestamp.Time
		}
	}
	r := p.roll(t, w, workflows.RollPoolInput{MaxAge: time.Since(youngest).String()})
	r.requireRolled(t, outcome{replaced: old})
}

func TestANodeOfAnEarlierLaunchTemplateIsOld(t *testing.T) {
	t.Parallel()
	p := newPool(t, busy, shape{max: 4, instanceType: types.InstanceTypeT3Large})
	p.run(t, application{})
	w := startWorker(t, busy, paced())
	old := p.look(t).names()
	_, err := ec2.NewFromConfig(theLab.AWSConfig()).CreateLaunchTemplateVersion(t.Context(), &ec2.CreateLaunchTemplateVersionInput{
		LaunchTemplateName: &p.group, SourceVersion: aws.String("1"),
		LaunchTemplateData: &types.RequestLaunchTemplateData{ImageId: aws.String("ami-2"), InstanceType: types.InstanceTypeT3Large},
	})
	require.NoError(t, err)
	p = p.add(t)
	r := p.roll(t, w, workflows.RollPoolInput{})
	r.requireRolled(t, outcome{replaced: old})

	before := p.look(t)
	again := p.roll(t, w, workflows.RollPoolInput{})
	result, err := again.end(t)
	require.NoError(t, err)
	require.Equal(t, "no node is old", result.Step)
	after := p.look(t)
	after.Workflows = before.Workflows
	require.Equal(t, before, after, "nothing has changed")
}
