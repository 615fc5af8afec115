package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/leerstroom/leerstroom/ingest"
	"github.com/leerstroom/leerstroom/ingest/raw"
	"github.com/leerstroom/leerstroom/internal/access"
	"github.com/leerstroom/leerstroom/internal/answer"
	"github.com/leerstroom/leerstroom/pseudonymize"
	"github.com/leerstroom/leerstroom/pseudonymize/keyring"
	"github.com/leerstroom/leerstroom/query"
	"github.com/leerstroom/leerstroom/transform"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
)

// webStages are the stages that publishers, engines, analysts and schools speak
// to. Both share one listener when they run in one process.
type webStages struct {
	deployment *deployment
	registry   *prometheus.Registry
	ingest     bool
	serve      bool
}

// shutdownTimeout is how long requests under way may take when the process ends.
const shutdownTimeout = 10 * time.Second

func (w *webStages) run(ctx context.Context, ready func(address string)) error {
	d := w.deployment
	listener, err := net.Listen("tcp", d.config.Listen)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	keys, err := access.Open(d.layout.apiKeys())
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	// What serves requests outlives ctx by the shutdown, so that a request under
	// way is finished.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, ctx := errgroup.WithContext(ctx)
	handler, err := w.handler(serving, group, keys)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	return serveHTTP(ctx, group, listener, handler, d.logger, stop, ready)
}

// serveHTTP serves until ctx, which is the group's, ends; requests under way are then
// finished, and stop is called.
func serveHTTP(ctx context.Context, group *errgroup.Group, listener net.Listener, handler http.Handler, logger *slog.Logger, stop func(), ready func(address string)) error {
	server := query.NewServer(listener.Addr().String(), handler, logger)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		err := server.Shutdown(closing)
		stop()
		return err
	})
	if ready != nil {
		ready(listener.Addr().String())
	}
	return group.Wait()
}

// runWatched serves what an operator watches of stages that nobody else speaks to.
func (w *webStages) runWatched(ctx context.Context, ready func(address string)) error {
	listener, err := net.Listen("tcp", w.deployment.config.MetricsListen)
	if err != nil {
		return fmt.Errorf("listen for metrics_listen: %w", err)
	}
	mux := http.NewServeMux()
	w.watched(mux)
	group, ctx := errgroup.WithContext(ctx)
	return serveHTTP(ctx, group, listener, mux, w.deployment.logger, func() {}, ready)
}

// watched adds what an operator watches.
func (w *webStages) watched(mux *http.ServeMux) {
	mux.Handle("GET /metrics", promhttp.HandlerFor(w.registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
}

// handler joins the HTTP interfaces of the stages of this process.
func (w *webStages) handler(ctx context.Context, group *errgroup.Group, keys *access.Keys) (http.Handler, error) {
	d, mux := w.deployment, http.NewServeMux()
	if w.ingest {
		sealer, err := d.newSealer()
		if err != nil {
			return nil, err
		}
		connector, err := ingest.New(d.config.Ingest, ingest.Parts{Client: d.client, Topic: d.names.Raw, Partitions: d.config.Topics.Partitions,
			Sealer: sealer, Keys: keys, Registry: w.registry, Logger: d.logger})
		if err != nil {
			return nil, err
		}
		group.Go(func() error {
			<-ctx.Done()
			closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
			defer cancel()
			connector.Close(closing)
			return nil
		})
		group.Go(func() error { return d.allowed.follow(ctx, connector.SetAuthorisations) })
		connector.Register(mux)
	}
	if !w.serve {
		w.watched(mux)
		return mux, nil
	}
	handler, err := w.queryHandler(ctx, group, keys)
	if err != nil {
		return nil, err
	}
	mux.Handle("/", handler)
	return mux, nil
}

// queryHandler makes the HTTP interface of the query service and starts what
// keeps its memory up to date.
func (w *webStages) queryHandler(ctx context.Context, group *errgroup.Group, keys *access.Keys) (http.Handler, error) {
	d := w.deployment
	persistence, err := d.openStore(ctx)
	if err != nil {
		return nil, err
	}
	vaults, ring, err := d.openVault()
	if err != nil {
		return nil, err
	}
	resolver, err := pseudonymize.NewResolver(pseudonymize.ResolverConfig{Ring: ring, Vault: vaults, Partitions: d.config.Topics.Partitions,
		Patience: handoverPatience, Logger: d.logger})
	if err != nil {
		return nil, err
	}
	log, err := d.openAudit()
	if err != nil {
		return nil, err
	}
	model := query.NewReadModel(query.Config{Partitions: d.config.Topics.Partitions, Calendar: d.config.Norms.calendar(),
		NormValidity: d.config.Norms.Validity, Logger: d.logger})
	group.Go(func() error { return resolver.Run(ctx) })
	group.Go(func() (err error) {
		defer closeStore(ctx, persistence, &err)
		return model.Follow(ctx, d.client, d.names, query.Source{Restore: (&restoring{persistence, d.readings, nil}).RestoreSkills, Await: d.awaitRestored, LoadSnapshot: persistence.LoadSnapshot,
			NormVersions: persistence.NormVersions, LoadNorm: persistence.LoadNorm})
	})
	return query.NewHandler(query.HandlerConfig{Model: model, Keys: keys, Identities: identitiesOf(resolver, d.config.Identities.Provisional),
		Limits: d.config.Identities.IdentityLimits, Authorised: d.allowed.engine, History: persistence.SkillsUntil, Registry: w.registry, Logger: d.logger, Audit: log.Append, Ready: func(context.Context) error {
			select {
			case <-resolver.Ready():
				return nil
			default:
				return pseudonymize.ErrLoading
			}
		}})
}

// awaitRestored takes in what the transform stage of this process restores.
func (d *deployment) awaitRestored(ctx context.Context, partition int, take func(*transform.Restored)) bool {
	return d.restored.Await(ctx, partition, handoverPatience, take)
}

// identitiesOf lets the query service ask the registry. Unless provisional ones
// are wanted, too, it gives tokens of learners that a roster knows.
func identitiesOf(resolver *pseudonymize.Resolver, provisional bool) query.Identities {
	return query.Identities{
		Tokens: func(_ context.Context, purpose keyring.Purpose, school string, identifiers []query.Identifier) ([]answer.Token, error) {
			aliases := make([]raw.Identity, len(identifiers))
			for i := range identifiers {
				scheme, err := raw.ParseScheme(identifiers[i].Scheme)
				if err != nil {
					return nil, err
				}
				aliases[i] = raw.Identity{School: school, Identifier: raw.Identifier{Scheme: scheme, Value: identifiers[i].Value}}
			}
			resolutions, err := resolver.Resolve(nil, purpose, aliases)
			tokens := make([]answer.Token, len(resolutions))
			for i := range resolutions {
				if resolutions[i].Rostered || provisional {
					tokens[i] = resolutions[i].Token
				}
			}
			return tokens, err
		},
		Learner: func(_ context.Context, purpose keyring.Purpose, token [16]byte) ([]answer.Token, string, error) {
			return resolver.Learner(nil, purpose, answer.MintToken(token))
		},
		Present: func(_ context.Context, purpose keyring.Purpose, _ string, analytics []answer.Token) ([]answer.Token, error) {
			return resolver.Present(purpose, analytics)
		},
		Names: resolver.Names,
	}
}
