package main

import "log"

// trouble logs what goes wrong again and again once, and when it is over.
type trouble struct {
	what string
	last string
}

// report takes the outcome of one more try.
func (t *trouble) report(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	switch {
	case text == t.last:
	case err != nil:
		log.Printf("%s: %v; trying again", t.what, err)
	default:
		log.Printf("%s: works again", t.what)
	}
	t.last = text
}
