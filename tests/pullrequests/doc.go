// Package pullrequests proves on the lab that a pull request gets a cluster of its own, made on its base,
// upgraded to its head, tested and reported on, and that nothing of it is left, whatever happens.
package pullrequests
