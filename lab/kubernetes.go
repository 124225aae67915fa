package lab

type clusterState struct{}
