// Package tests holds what needs the lab: whole scenarios, crashes and bad input, on the built
// programs.
package tests
