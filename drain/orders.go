package drain

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Order is what a person decided about forcing pods of the node.
type Order struct {
	Pod    string // namespace/name; empty means all pods of the node
	Mode   OrderMode
	Reason string
	By     string
}

// OrderMode is what an Order wants.
type OrderMode string

// What an Order may want. Anything else stands for "as configured" and takes back earlier orders.
const (
	// ForceNow forces without waiting for the configured time, for siblings or for a deadline.
	// Still one pod goes at a time, with the interval between two.
	ForceNow OrderMode = "now"
	// ForceForbid never forces, not even past the deadline.
	ForceForbid OrderMode = "forbid"
)

// order is the newest order that concerns a pod; the zero value if there is none.
func (s State) order(pod *corev1.Pod) Order {
	for i := len(s.Orders) - 1; i >= 0; i-- {
		if order := s.Orders[i]; order.Pod == "" || order.Pod == pod.Namespace+"/"+pod.Name {
			return order
		}
	}
	return Order{}
}

// decideOrdered forces a held pod because a person wants that now, or says what it waits for.
func (d *decision) decideOrdered(held *Held, order Order) {
	authority := fmt.Sprintf("%s: %s", order.By, order.Reason)
	held.ForceAt = d.Now
	if why, next := d.tooSoon(*held); why != "" {
		held.Reason += fmt.Sprintf("; %s ordered to force it (%s); %s", order.By, order.Reason, why)
		held.ForceAt = next
		d.plan.lookAgain(next)
		return
	}
	d.plan.force(d.force(*held, authority, fmt.Sprintf("%s; forced at once, as ordered", held.Reason)))
}
