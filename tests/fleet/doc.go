// Package fleet proves on the lab that clusters follow their channels: one lab with the whole sample
// fleet, one worker, the registry as a server, and commits pushed to the forge.
package fleet
