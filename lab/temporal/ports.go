package main

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"
)

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// awaitFree waits up to ten seconds until the port can be listened on: after a crash, what was
// there before may need a moment to go, and both server and UI exit at once on a taken port.
func awaitFree(ctx context.Context, port int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		listener, err := net.Listen("tcp", loopback(port))
		if err == nil {
			return listener.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for port %d: %w: end what uses it or choose another port", port, err)
		}
	}
}

// freePorts asks the kernel for n different ports on the loopback interface that nobody uses now.
func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("looking for a free port: %w", err)
		}
		// Kept open until all are found, so that they differ.
		defer listener.Close()
		ports[i] = listener.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}
