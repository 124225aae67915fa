package lab

type forgeState struct{}
