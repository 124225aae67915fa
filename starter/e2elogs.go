package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsconfig "github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/spf13/cobra"
	"golang.org/x/text/runes"
	"golang.org/x/text/transform"

	"github.com/fairway-project/fairway/e2e"
)

// whereFiles says where the files of a test or of one of its suites are.
type whereFiles struct {
	Name    string `json:"name"`
	Results string `json:"results"`
}

func (c *cli) e2eLogsCommand() *cobra.Command {
	var suite, download string
	cmd := &cobra.Command{
		Use:   "logs ID",
		Short: "Show the log of a suite of a test, or fetch all of its files",
		Long: `Say where the logs and JUnit files of a test are; with --suite, show the log of that suite; with --download,
fetch the files. They are in the bucket of the test's account and are read from there with your own credentials of
AWS, such as those of AWS_PROFILE; without a flag none are needed. Suites that Fairway brings along, such as
"smoke", have no log: all that they say is in "fairway e2e describe". ID is as for "fairway e2e describe".`,
		Example: `  fairway e2e logs 12
  fairway e2e logs 12 --suite conformance
  fairway e2e logs 12/3f2a9c41 --download results
  fairway e2e logs 12 --suite conformance --download results`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: c.completeTest,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withTest(cmd.Context(), args[0], func(_ *connection, test listedTest) error {
				files, err := filesOf(test.Report, suite)
				if err != nil {
					return err
				}
				switch {
				case download != "":
					return c.downloadFiles(cmd, test.Report, files, download)
				case suite != "" && c.output != "json":
					return showLogs(cmd.Context(), cmd.OutOrStdout(), test.Account, files)
				}
				return c.print(cmd.OutOrStdout(), files, func(t *table) {
					t.row("FILES OF", "ARE IN")
					for _, each := range files {
						t.row(each.Name, cut(each.Results, 500))
					}
					t.flush()
					t.line("--suite NAME shows the log of a suite; --download FOLDER fetches all files.")
				})
			})
		},
	}
	cmd.Flags().StringVar(&suite, "suite", "", "only of this suite")
	cmd.Flags().StringVar(&download, "download", "", "folder to which the files are fetched; nothing that is there is overwritten")
	_ = cmd.MarkFlagDirname("download")
	_ = cmd.RegisterFlagCompletionFunc("suite", func(cmd *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		if err := c.withTest(cmd.Context(), args[0], func(_ *connection, test listedTest) error {
			for _, each := range test.Suites {
				out = append(out, each.Name)
			}
			return nil
		}); err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

// filesOf says where files are, of one suite or of the test and all its suites.
func filesOf(r e2e.Report, suite string) ([]whereFiles, error) {
	var out []whereFiles
	var names []string
	if suite == "" && r.Results != "" {
		out = append(out, whereFiles{Name: "the test", Results: r.Results})
	}
	for _, each := range r.Suites {
		names = append(names, each.Name)
		if each.Results != "" && (suite == "" || each.Name == suite) {
			out = append(out, whereFiles{Name: each.Name, Results: each.Results})
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case suite != "" && !slices.Contains(names, suite):
		return nil, usage(fmt.Errorf("test %s has no result of a suite %.63q; there are %s", r.Request.ID, suite, strings.Join(append(names, "no others"), ", ")))
	}
	if suite != "" {
		return nil, fmt.Errorf("suite %s has stored no files; `fairway e2e describe %s` has all that it said", suite, shortTest(r.Request.ID))
	}
	return nil, fmt.Errorf("test %s has stored no files; its phase is %s", r.Request.ID, r.Phase)
}

// results are the files of tests in the bucket of an account.
type results struct {
	client  *s3.Client
	account string
}

func openResults(ctx context.Context, account e2e.Account) (results, error) {
	access, err := awsconfig.LoadDefaultConfig(ctx, awsconfig.WithRegion(account.Region))
	if err != nil {
		return results{}, usage(fmt.Errorf("reading your configuration of AWS: %w", err))
	}
	client := s3.NewFromConfig(access, func(o *s3.Options) { o.DisableLogOutputChecksumValidationSkipped = true }) // which is no news for people
	return results{client, account.Account}, nil
}

// list are the names of the files of a suite or a test, relative to its address.
func (r results) list(ctx context.Context, of whereFiles) (bucket, prefix string, names []string, err error) {
	bucket, prefix, found := strings.Cut(strings.TrimPrefix(of.Results, "s3://"), "/")
	if !found || bucket == "" || prefix == "" || !strings.HasPrefix(of.Results, "s3://") {
		return "", "", nil, fmt.Errorf("the files of %s are said to be in %.200q, which is no address in S3", of.Name, of.Results)
	}
	pages := s3.NewListObjectsV2Paginator(r.client, &s3.ListObjectsV2Input{Bucket: &bucket, Prefix: &prefix})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return "", "", nil, r.explain(of.Results, err)
		}
		for _, object := range page.Contents {
			if name, within := strings.CutPrefix(aws.ToString(object.Key), prefix); within && name != "" && !strings.HasSuffix(name, "/") {
				names = append(names, name)
			}
		}
	}
	return bucket, prefix, names, nil
}

// copy writes a file to somewhere.
func (r results) copy(ctx context.Context, bucket, key string, to io.Writer) error {
	object, err := r.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &bucket, Key: &key})
	if err != nil {
		return r.explain("s3://"+bucket+"/"+key, err)
	}
	defer object.Body.Close()
	if _, err := io.Copy(to, object.Body); err != nil {
		return fmt.Errorf("reading s3://%s/%s: %w", bucket, cut(key, 300), err)
	}
	return nil
}

func (r results) explain(address string, err error) error {
	address = cut(address, 500)
	return fmt.Errorf("reading %s: %w; it needs credentials that may read the bucket in account %s, such as those of AWS_PROFILE", address, err, r.account)
}

// showLogs writes the logs of suites, one after the other if there are those of several attempts.
func showLogs(ctx context.Context, out io.Writer, account e2e.Account, of []whereFiles) error {
	r, err := openResults(ctx, account)
	if err != nil {
		return err
	}
	plain := transform.NewWriter(out, runes.Remove(runes.Predicate(obeyed)))
	defer plain.Close() // which leaves out open
	for _, each := range of {
		bucket, prefix, names, err := r.list(ctx, each)
		if err != nil {
			return err
		}
		names = slices.DeleteFunc(names, func(name string) bool { return path.Base(name) != "log" })
		if len(names) == 0 {
			return fmt.Errorf("%s has no log, only results; --download fetches them", each.Results)
		}
		for _, name := range names {
			if len(names) > 1 {
				fmt.Fprintf(plain, "==> %s <==\n", cut(name, 200))
			}
			if err := r.copy(ctx, bucket, prefix+name, plain); err != nil {
				return err
			}
		}
	}
	return nil
}

// obeyed are characters that a terminal would obey: suites are code of pull requests.
func obeyed(r rune) bool {
	return r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r))
}

// downloadFiles fetches files into a folder, those of suites below their names. No name leads out of it.
func (c *cli) downloadFiles(cmd *cobra.Command, test e2e.Report, of []whereFiles, into string) error {
	r, err := openResults(cmd.Context(), test.Account)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(into, 0o755); err != nil {
		return usage(fmt.Errorf("--download %s: %w", into, err))
	}
	root, err := os.OpenRoot(into)
	if err != nil {
		return usage(fmt.Errorf("--download %s: %w", into, err))
	}
	defer root.Close()
	fetched := []string{}
	if err := patiently(cmd.ErrOrStderr(), "fetches files", func() error {
		for _, each := range of {
			bucket, prefix, names, err := r.list(cmd.Context(), each)
			if err != nil {
				return err
			}
			folder := ""
			if each.Results != test.Results {
				folder = path.Base(prefix)
			}
			for _, name := range names {
				file := path.Join(folder, name)
				if slices.Contains(fetched, file) { // what the test has stored has its suites below it
					continue
				}
				if err := fetch(cmd.Context(), r, root, bucket, prefix+name, file); err != nil {
					return err
				}
				fetched = append(fetched, file)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	return c.print(cmd.OutOrStdout(), fetched, func(t *table) { t.line("%s fetched to %s.", counted(len(fetched), "file"), into) })
}

// fetch writes an object to a file that is new.
func fetch(ctx context.Context, r results, root *os.Root, bucket, key, name string) (err error) {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return fmt.Errorf("fetching s3://%s/%s: %w", bucket, cut(key, 300), err)
	}
	file, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return usage(fmt.Errorf("%s is there already; give another folder, or remove it", cut(path.Join(root.Name(), name), 300)))
	}
	if err != nil {
		return fmt.Errorf("fetching s3://%s/%s: %w", bucket, cut(key, 300), err)
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			_ = root.Remove(name) // half of a file looks like a whole one
		}
	}()
	return r.copy(ctx, bucket, key, file)
}
