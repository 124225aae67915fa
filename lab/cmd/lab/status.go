package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/lab"
)

func statusCommand(t *target) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use:   "status",
		Short: "Show what runs, where, and what is disturbed",
		Long:  "Show what runs, where, and what is disturbed. The exit code is 1 if no lab runs.",
		Example: `  lab status
  lab status --output json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output %q: use table or json", output)
			}
			status, err := t.status(cmd.Context())
			if err != nil {
				return err
			}
			if output == "json" {
				encoder := json.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent("", "  ")
				return encoder.Encode(status)
			}
			printStatus(cmd.OutOrStdout(), status)
			return nil
		},
	}
	command.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return command
}

func printStatus(out io.Writer, status lab.Status) {
	fmt.Fprintf(out, "The lab in %s is %s since %s, pid %d.\n\n", shortPath(status.Dir), status.Phase, ago(status.Since), status.PID)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	slices.SortFunc(status.Parts, func(a, b lab.PartStatus) int { return strings.Compare(a.Name, b.Name) })
	fmt.Fprintln(table, "PART\tSTATE\tPID\tSINCE\tLOG")
	for _, part := range status.Parts {
		pid := "-"
		if part.PID != 0 {
			pid = fmt.Sprint(part.PID)
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", part.Name, part.State, pid, ago(part.Since), shortPath(part.Log))
	}
	fmt.Fprintln(table, "\nENDPOINT\tADDRESS\tPAST THE PROXY\tFAULTS")
	for _, endpoint := range status.Endpoints {
		faults := "-"
		if len(endpoint.Faults) > 0 {
			faults = strings.Join(endpoint.Faults, ", ")
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", endpoint.Name, endpoint.Proxied, endpoint.Direct, faults)
	}
	table.Flush()
	for _, part := range status.Parts {
		if part.State == lab.Dead {
			fmt.Fprintf(out, "\n%s is dead; the end of its log:\n%s\n", part.Name, part.End)
		}
	}
	if status.Phase == lab.Up {
		fmt.Fprintln(out)
		printPlaces(out, status)
	}
}

// printPlaces says where the things are that people look at.
func printPlaces(out io.Writer, status lab.Status) {
	address := map[string]string{}
	for _, endpoint := range status.Endpoints {
		address[endpoint.Name] = endpoint.Proxied
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "  Temporal UI\thttp://%s\n", address["temporal-ui"])
	fmt.Fprintf(table, "  Temporal\t%s, namespace fairway\n", address["temporal"])
	fmt.Fprintf(table, "  AWS\thttp://%s\n", address["aws"])
	fmt.Fprintf(table, "  Forge\thttp://%s\n", address["forge"])
	if len(status.Clusters) > 0 {
		fmt.Fprintf(table, "  Kubernetes\tcontexts %s\n", strings.Join(status.Clusters, ", "))
	}
	fmt.Fprintf(table, "  Shell\t. %s\n", shortPath(filepath.Join(status.Dir, "env")))
	table.Flush()
}

// shortPath is relative to the working directory if the path is below it.
func shortPath(path string) string {
	dir, err := os.Getwd()
	if err != nil {
		return path
	}
	relative, err := filepath.Rel(dir, path)
	if err != nil || strings.HasPrefix(relative, "..") {
		return path
	}
	return relative
}

func ago(since time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return time.Since(since).Round(time.Second).String()
}
