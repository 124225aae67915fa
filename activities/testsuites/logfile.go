package testsuites

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
)

// logFile keeps the beginning and the end of what is written to it.
type logFile struct {
	file *os.File
	half int64 // how much is kept of each

	mu      sync.Mutex
	written int64
	over    int // cases, as Ginkgo marks them
}

// logHalf bounds logs to twice of it.
const logHalf = 16 << 20

// bullet is what Ginkgo prints for each case that has run; for others it is another letter.
var bullet = []byte("•")

func newLogFile(path string, half int64) (*logFile, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return &logFile{file: file, half: half}, nil
}

// Write keeps the first half as it is, and goes round in the second.
func (l *logFile) Write(data []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.over += bytes.Count(data, bullet)
	for rest := data; len(rest) > 0; {
		at, room := l.written, l.half-l.written
		if room <= 0 {
			round := (l.written - l.half) % l.half
			at, room = l.half+round, l.half-round
		}
		n, err := l.file.WriteAt(rest[:min(int64(len(rest)), room)], at)
		if l.written += int64(n); err != nil {
			return len(data) - len(rest) + n, err
		}
		rest = rest[n:]
	}
	return len(data), nil
}

// casesOver is how many cases Ginkgo has run until now.
func (l *logFile) casesOver() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over
}

// content is all that was kept.
func (l *logFile) content() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	size := min(l.written, 2*l.half)
	data := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(l.file, 0, size), data); err != nil {
		return nil, err
	}
	if l.written <= 2*l.half {
		return data, nil
	}
	head, ring, oldest := data[:l.half], data[l.half:], (l.written-l.half)%l.half
	gap := fmt.Sprintf("\n... %d bytes are left out ...\n", l.written-2*l.half)
	return bytes.Join([][]byte{head, []byte(gap), ring[oldest:], ring[:oldest]}, nil), nil
}

func (l *logFile) Close() error { return l.file.Close() }
