// Package leases proves on the lab that clusters without an entry in the registry come and go with the same
// code as others.
package leases
