package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/fairway-project/fairway/registry"
	"github.com/fairway-project/fairway/registry/server"
)

func (c *cli) registryCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "registry", Short: "Run a cluster registry"}
	cmd.AddCommand(c.registryServeCommand())
	return cmd
}

// registryError tells a registry that does not answer from one that is wrong.
func registryError(err error) error {
	var silent *registry.UnreachableError
	if errors.As(err, &silent) {
		return unreachable("%w", err)
	}
	return usage(err)
}

// registryServer is what the flags of `fairway registry serve` say.
type registryServer struct {
	listen, database, tokensFile, tokensEnv, cert, key, imported, importedStatus string
	verbose                                                                      bool
}

func (c *cli) registryServeCommand() *cobra.Command {
	var s registryServer
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Answer for the cluster registry over HTTP",
		Long: `Answer for the cluster registry over HTTP, with the paths and fields of Zalando's cluster registry.
/openapi.yaml describes them. Ends on SIGTERM and SIGINT, after what is under way.

Who may do what is in a file of tokens, each as its SHA-256, with a role: read, status (Fairway's
workers: writes what is known of clusters) or write (changes what people want of them):

  tokens:
  - name: fairway-worker
    role: status
    sha256: 2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b

A token is made by:        openssl rand -hex 32 > token
and its SHA-256 by:        tr -d '\n' < token | sha256sum
The file is read again when it changes, and so is the TLS certificate.`,
		Example: `  fairway registry serve --database registry.db --tokens-file tokens.yaml
  fairway registry serve --database registry.db --tokens-file tokens.yaml --import registry.yaml
  FAIRWAY_REGISTRY_DATABASE=postgres://fairway@db.example.org/registry fairway registry serve \
    --listen 0.0.0.0:8440 --tokens-file tokens.yaml --tls-cert tls.crt --tls-key tls.key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.run(cmd.Context())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&s.listen, "listen", "127.0.0.1:8440", "address to answer on")
	flags.StringVar(&s.database, "database", "", "path of an SQLite file, or address of a PostgreSQL database (default: $FAIRWAY_REGISTRY_DATABASE, then fairway-registry.db); an address with a password is better kept in the variable")
	flags.StringVar(&s.tokensFile, "tokens-file", "", "file with the tokens that are accepted")
	flags.StringVar(&s.tokensEnv, "tokens-env", "", "environment variable with what would be in that file")
	flags.StringVar(&s.cert, "tls-cert", "", "file with the TLS certificate and its chain (PEM)")
	flags.StringVar(&s.key, "tls-key", "", "file with the key of the TLS certificate (PEM)")
	flags.StringVar(&s.imported, "import", "", "registry file; its clusters, with their status, are added where their ids are not there yet")
	flags.StringVar(&s.importedStatus, "import-status", "", "status file of that registry file (default: beside it, registry.status.yaml for registry.yaml)")
	flags.BoolVar(&s.verbose, "verbose", false, "log requests that change nothing too")
	cmd.MarkFlagsMutuallyExclusive("tokens-file", "tokens-env")
	cmd.MarkFlagsOneRequired("tokens-file", "tokens-env")
	cmd.MarkFlagsRequiredTogether("tls-cert", "tls-key")
	for _, name := range []string{"tokens-file", "tls-cert", "tls-key", "import", "import-status"} {
		_ = cmd.MarkFlagFilename(name)
	}
	return cmd
}

func (s registryServer) run(ctx context.Context) error {
	level := slog.LevelInfo
	if s.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	tokens, err := s.tokens(log)
	if err != nil {
		return usage(err)
	}
	var certificate *server.Certificate
	if s.cert != "" {
		if certificate, err = server.OpenCertificate(s.cert, s.key, log); err != nil {
			return usage(err)
		}
	}
	store, err := s.store(ctx, log)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()

	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.listen)
	if err != nil {
		return usage(fmt.Errorf("--listen: %w", err))
	}
	if address, ok := listener.Addr().(*net.TCPAddr); ok && !address.IP.IsLoopback() && certificate == nil {
		log.Warn("tokens and config items are sent unencrypted; give --tls-cert and --tls-key, or have TLS end in front of this", "listen", s.listen)
	}
	log.Info("answering", "address", listener.Addr().String(), "tls", certificate != nil, "version", version)
	if err := server.Serve(ctx, listener, server.New(store, tokens, log), certificate, log); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

func (s registryServer) tokens(log *slog.Logger) (*server.Tokens, error) {
	if s.tokensFile != "" {
		return server.OpenTokens(s.tokensFile, log)
	}
	content := os.Getenv(s.tokensEnv)
	if content == "" {
		return nil, fmt.Errorf("--tokens-env: the environment variable %s is empty", s.tokensEnv)
	}
	return server.ParseTokens("$"+s.tokensEnv, []byte(content))
}

// store opens the database and imports what is to be imported.
func (s registryServer) store(ctx context.Context, log *slog.Logger) (*server.Store, error) {
	database := s.database
	if database == "" {
		database = os.Getenv("FAIRWAY_REGISTRY_DATABASE")
	}
	if database == "" {
		database = "fairway-registry.db"
	}
	var clusters registry.Clusters
	if s.imported != "" {
		var err error
		if clusters, err = registry.OpenFile(s.imported, s.importedStatus).Clusters(ctx); err != nil {
			return nil, usage(err)
		}
		for _, cluster := range clusters {
			// Without it a cluster that lives could be taken for one that is still to be made.
			if known := cluster.Status; known != nil && slices.ContainsFunc(known.Problems, func(p registry.Problem) bool { return p.Type == registry.StatusUnreadable }) {
				return nil, usage(fmt.Errorf("importing %s: cluster %s: %s; mend that file first", s.imported, cluster.ID, known.Problems[0].Title))
			}
		}
	}
	store, err := server.OpenStore(ctx, database)
	if err != nil {
		return nil, unreachable("%w", err)
	}
	if s.imported != "" {
		added, err := store.Import(ctx, clusters)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("importing %s: %w", s.imported, err), store.Close())
		}
		log.Info("imported", "file", s.imported, "added", added, "already_there", len(clusters)-added)
	}
	return store, nil
}
