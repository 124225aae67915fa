package testsuites

import "context"

func (r *run) job(ctx context.Context) (outcome, error)         { return outcome{}, nil }
func (r *run) statefulSet(ctx context.Context) (outcome, error) { return outcome{}, nil }
func (r *run) smoke(ctx context.Context) (outcome, error)       { return outcome{}, nil }
