package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"
)

// print writes a result in the form that was asked for.
func (c *cli) print(out io.Writer, result any, write func(*table)) error {
	if c.output == "json" {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(result)
	}
	t := &table{newTable(out)}
	write(t)
	return t.w.Flush()
}

func newTable(out io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(out, 0, 0, 3, ' ', 0) }

type table struct{ w *tabwriter.Writer }

func (t *table) row(cells ...any) {
	for i, cell := range cells {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		text := fmt.Sprint(cell)
		if text == "" && cells[0] != "" {
			text = "-"
		}
		fmt.Fprint(t.w, text)
	}
	fmt.Fprintln(t.w)
}

func (t *table) line(format string, args ...any) { fmt.Fprintf(t.w, format+"\n", args...) }

// flush ends a table, so that what follows has columns of its own.
func (t *table) flush() { _ = t.w.Flush() }

// age is how long ago something was, as kubectl writes it.
func age(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return duration.HumanDuration(time.Since(at))
}
