package notify

import (
	"strings"
	"sync"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/fairway-project/fairway/workflows"
)

const (
	remembered   = 4096 // ways and what they were told
	rememberedID = 24 * time.Hour
	rememberSame = 10 * time.Minute
)

// memory is what this worker has told lately. Its zero value is ready.
type memory struct {
	once    sync.Once
	at      *lru.Cache[string, time.Time]
	flights sync.Map // of *flight by the name of the route
}

// flight is what is on its way to the service of a route.
func (m *memory) flight(route string) *flight {
	of, _ := m.flights.LoadOrStore(route, &flight{places: make(chan struct{}, inFlight)})
	return of.(*flight)
}

// keys are by what a repetition is known: its id, and its words about the same thing.
func keys(way string, n workflows.Notification) (id, words string) {
	id = way + "\x00" + n.ID
	words = strings.Join([]string{way, n.Kind, n.Cluster, n.Channel, n.Pool, n.Node, n.Pod, n.Text}, "\x01")
	return id, words
}

func (m *memory) has(way string, n workflows.Notification) bool {
	id, words := keys(way, n)
	return m.since(id, rememberedID) || m.since(words, rememberSame)
}

func (m *memory) since(key string, within time.Duration) bool {
	at, known := m.cache().Get(key)
	return known && time.Since(at) < within
}

func (m *memory) add(way string, n workflows.Notification) {
	id, words := keys(way, n)
	now := time.Now()
	m.cache().Add(id, now)
	m.cache().Add(words, now)
}

func (m *memory) cache() *lru.Cache[string, time.Time] {
	m.once.Do(func() { m.at, _ = lru.New[string, time.Time](2 * remembered) }) // it fails only for sizes below 1
	return m.at
}
