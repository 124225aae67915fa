package aws

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheEndOfAnInstanceIsWhatAWSSays(t *testing.T) {
	at := time.Date(2026, 11, 26, 21, 30, 0, 0, time.UTC)
	for reason, want := range map[string]time.Time{
		"User initiated (2026-11-26 21:30:00 GMT)": at,
		"User initiated (2026-11-26 21:30:00 UTC)": at,
		"User initiated (2026-99-26 21:30:00 GMT)": {},
		"Server.SpotInstanceTermination":           {},
		"":                                         {},
	} {
		require.Equal(t, want, endOf(reason), reason)
	}
}
