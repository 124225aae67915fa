package lab

type temporalState struct{}
