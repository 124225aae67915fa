package lab

type awsState struct{}
