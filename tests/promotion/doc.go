// Package promotion proves on the lab that changes move through the channels: a forge, Temporal, one
// worker, and one cluster that follows dev. The other channels have no clusters, and soak from the
// landing.
package promotion
